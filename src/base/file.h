/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file: small files and whole transfers, with the order of durability written beside each call.
 * All names are relative to a directory descriptor and opened with O_NOFOLLOW | O_CLOEXEC. New files are 0600.
 */
#ifndef VARVE_BASE_FILE_H
#define VARVE_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct verr;

/* Reads exactly n bytes at off. Returns n, fewer at end of file, or -errno. */
ssize_t pread_full(int fd, void *buf, size_t n, off_t off);
/* Writes exactly n bytes at off. Returns 0 or -errno (a short write goes on; no progress is -EIO). */
int pwrite_full(int fd, const void *buf, size_t n, off_t off);
/* The same for bulk data: -ENOSPC already when less than FILE_SPARE would stay free on the filesystem. What is short and must
 * go on where there is no room for data (records, journals, the catalog) writes with pwrite_full, into that rest. */
enum { FILE_SPARE = 1 << 20 };
int pwrite_bulk(int fd, const void *buf, size_t n, off_t off);

/* Opens directory name below dirfd (AT_FDCWD allowed). Returns a descriptor or -errno. */
int dir_open(int dirfd, const char *name);
/* mkdir when absent, then open. Returns a descriptor or -errno. The entry is durable after fsync of dirfd. */
int dir_make(int dirfd, const char *name);
/* fsync of a directory descriptor. Durable on return: entries made, renamed or removed in it before the call. */
int dir_sync(int dirfd);

/* Whole content of a file of at most max bytes into malloc'ed memory (one NUL appended, not counted). 0, -EFBIG if larger, or -errno. */
int file_load(int dirfd, const char *name, size_t max, uint8_t **data, size_t *len);

/*
 * Replaces name atomically: temporary file -> write -> fdatasync -> rename -> fsync of dirfd.
 * Durable on return. A reader sees the old or the new content, never a mix. Leaves no temporary file behind on error.
 */
int file_replace(int dirfd, const char *name, const void *data, size_t len);

/*
 * First publication: temporary file -> write -> fdatasync -> link -> unlink temporary -> fsync of dirfd.
 * -EEXIST when the name is taken: nothing changed. Durable on return.
 */
int file_publish(int dirfd, const char *name, const void *data, size_t len);

/* Calls fn for each entry of the directory but "." and ".."; stops at the first non-zero answer and returns it.
 * A listing error is returned as -errno, never taken for an empty directory. fn may remove the entry it is shown. */
int dir_each(int dirfd, int (*fn)(void *ctx, const char *name), void *ctx);

/* Holds len bytes of space in a file of its own, which is never fsynced. 1 made, 0 it is there already, -ENOSPC also when less than
 * FILE_SPARE would stay free. */
int file_reserve(int dirfd, const char *name, size_t len);
/* Gives the space back at once. 0, or -ENOENT. */
int file_unreserve(int dirfd, const char *name);

/* Removes the file or the whole directory tree below name. 0 when it is absent. */
int tree_remove(int dirfd, const char *name);

#endif
