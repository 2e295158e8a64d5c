/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of a catalog that was closed. SQLite's pages have none: a flipped bit in a row would be believed. So a clean stop
 * leaves the checksum of the whole file beside it, and the next open compares, then removes it before anything is changed.
 * A power loss may undo the removal: the old checksum then no longer matches, and the catalog is made anew. A missing checksum is
 * no error.
 *
 * The file is read only while SQLite does not have it open: closing our descriptor would drop SQLite's locks.
 */
#include "catalog/catalog_internal.h"

#include "base/file.h"
#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 256 * 1024, SUM_TEXT = 17 };

static int sum_of(int dirfd, char out[SUM_TEXT + 1])
{
    int fd = openat(dirfd, CATALOG_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    uint8_t *piece = malloc(PIECE);
    ssize_t n = piece == NULL ? -ENOMEM : 0;
    uint64_t sum = 0;
    for (off_t at = 0; piece != NULL && (n = pread_full(fd, piece, PIECE, at)) > 0; at += n)
        sum = hash64_seed(piece, (size_t)n, sum);
    free(piece);
    close(fd);
    snprintf(out, SUM_TEXT + 1, "%016" PRIx64 "\n", sum);
    return n < 0 ? (int)n : 0;
}

int catalog_sum_write(int dirfd)
{
    char text[SUM_TEXT + 1];
    int r = sum_of(dirfd, text);
    return r < 0 ? r : file_replace(dirfd, CATALOG_SUM, text, SUM_TEXT);
}

int catalog_sum_take(int dirfd)
{
    uint8_t *was = NULL;
    size_t len = 0;
    char now[SUM_TEXT + 1];
    int r = file_load(dirfd, CATALOG_SUM, SUM_TEXT, &was, &len);
    if (r == -ENOENT)
        return 0;
    if (r == 0)
        r = sum_of(dirfd, now);
    if (r == 0)
        r = len == SUM_TEXT && memcmp(was, now, SUM_TEXT) == 0 ? 1 : -EBADMSG;
    free(was);
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        r = -EBADMSG;
    if ((r == 1 || r == -EBADMSG) && unlinkat(dirfd, CATALOG_SUM, 0) < 0 && errno != ENOENT)
        r = -errno;
    return r;
}

int catalog_set_aside(int dirfd)
{
    static const char *const logs[] = {CATALOG_FILE "-wal", CATALOG_FILE "-shm", CATALOG_FILE "-journal", CATALOG_SUM};
    for (unsigned i = 0; i < sizeof logs / sizeof *logs; i++)
        if (unlinkat(dirfd, logs[i], 0) < 0 && errno != ENOENT)
            return -errno;
    if (renameat(dirfd, CATALOG_FILE, dirfd, CATALOG_FILE ".damaged") < 0 && errno != ENOENT)
        return -errno;
    return dir_sync(dirfd);
}
