/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include "base/fault.h"
#include "base/id.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

ssize_t pread_full(int fd, void *buf, size_t n, off_t off)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)buf + done, n - done, off + (off_t)done);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int pwrite_full(int fd, const void *buf, size_t n, off_t off)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = pwrite(fd, (const char *)buf + done, n - done, off + (off_t)done);
        if (put < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (put == 0)
            return -EIO;
        done += (size_t)put;
    }
    return 0;
}

int pwrite_bulk(int fd, const void *buf, size_t n, off_t off)
{
    struct statvfs vfs;
    if (fstatvfs(fd, &vfs) == 0 && vfs.f_blocks > 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < FILE_SPARE + (uint64_t)n)
        return -ENOSPC;
    return pwrite_full(fd, buf, n, off);
}

int dir_open(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? -errno : fd;
}

int dir_make(int dirfd, const char *name)
{
    if (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    return dir_open(dirfd, name);
}

int dir_sync(int dirfd)
{
    if (fault_errno("base.dir_sync"))
        return -EIO;
    return fsync(dirfd) < 0 ? -errno : 0;
}

int file_load(int dirfd, const char *name, size_t max, uint8_t **data, size_t *len)
{
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    struct stat st;
    int r = 0;
    uint8_t *buf = NULL;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (!S_ISREG(st.st_mode))
        r = -EINVAL;
    else if (st.st_size < 0 || (uint64_t)st.st_size > max)
        r = -EFBIG;
    else if ((buf = malloc((size_t)st.st_size + 1)) == NULL)
        r = -ENOMEM;
    if (buf != NULL) {
        ssize_t got = pread_full(fd, buf, (size_t)st.st_size, 0);
        if (got < 0) {
            r = (int)got;
        } else {
            buf[got] = '\0';
            *len = (size_t)got;
            *data = buf;
            buf = NULL;
        }
    }
    free(buf);
    close(fd);
    return r;
}

/* A name that no reader looks at: scans skip what begins with ".tmp-". */
static void temp_name(char out[48])
{
    struct vid id = vid_random();
    char hex[VID_HEX];
    vid_hex(&id, hex);
    snprintf(out, 48, ".tmp-%s", hex);
}

static int temp_write(int dirfd, const char *temp, const void *data, size_t len)
{
    int fd = openat(dirfd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int r = pwrite_full(fd, data, len, 0);
    if (r == 0 && fdatasync(fd) < 0)
        r = -errno;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}

int file_replace(int dirfd, const char *name, const void *data, size_t len)
{
    char temp[48];
    temp_name(temp);
    int r = temp_write(dirfd, temp, data, len);
    if (r == 0 && renameat(dirfd, temp, dirfd, name) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(dirfd, temp, 0);
        return r;
    }
    return dir_sync(dirfd);
}

int file_publish(int dirfd, const char *name, const void *data, size_t len)
{
    char temp[48];
    temp_name(temp);
    int r = temp_write(dirfd, temp, data, len);
    if (r == 0 && linkat(dirfd, temp, dirfd, name, 0) < 0)
        r = -errno;
    unlinkat(dirfd, temp, 0);
    return r < 0 ? r : dir_sync(dirfd);
}

int dir_each(int dirfd, int (*fn)(void *ctx, const char *name), void *ctx)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int r = -errno;
        close(fd);
        return r;
    }
    int r = 0;
    while (r == 0) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            r = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        r = fn(ctx, entry->d_name);
    }
    closedir(dir);
    return r;
}

/* Written, not only allocated: not every filesystem can do the latter. */
int file_reserve(int dirfd, const char *name, size_t len)
{
    static const uint8_t nothing[64 << 10] = {1};   /* not all zero: a filesystem that compresses must not make a hole of it */
    if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    struct statvfs vfs;     /* a full disk is asked every second: it is left alone until there is room */
    if (fstatvfs(dirfd, &vfs) == 0 && vfs.f_blocks > 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < FILE_SPARE + len)
        return -ENOSPC;
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int r = 0;
    for (size_t off = 0; r == 0 && off < len; off += sizeof nothing)
        r = pwrite_full(fd, nothing, sizeof nothing, (off_t)off);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r < 0)
        unlinkat(dirfd, name, 0);
    return r < 0 ? r : 1;
}

/* Emptied first: some filesystems free what an unlink leaves only later. */
int file_unreserve(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0)
        close(fd);
    return unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
}

static int remove_entry(void *ctx, const char *name)
{
    return tree_remove(*(const int *)ctx, name);
}

int tree_remove(int dirfd, const char *name)
{
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    int sub = dir_open(dirfd, name);
    if (sub < 0)
        return sub;
    int r = dir_each(sub, remove_entry, &sub);
    close(sub);
    if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
        r = -errno;
    return r;
}
