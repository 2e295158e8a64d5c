/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io: system calls that fail when told to (OOM_IO=1): EIO at the k-th of them, in our own code and in SQLite's. The calls stand
 * in for those of the C library, under all names that its headers give them. fsync does nothing: durability is not looked at.
 */
#include "oom.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#pragma GCC visibility push(default)
int __openat64_2(int dirfd, const char *name, int flags);
ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t off, size_t cap);

#define FAIL_IF_TOLD() do { if (oom_io_fails(__builtin_return_address(0))) return -1; } while (0)

static int open_real(int dirfd, const char *name, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, dirfd, name, flags, mode);
}

int openat(int dirfd, const char *name, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = va_arg(ap, mode_t);
    va_end(ap);
    FAIL_IF_TOLD();
    return open_real(dirfd, name, flags, mode);
}

int open(const char *name, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = va_arg(ap, mode_t);
    va_end(ap);
    FAIL_IF_TOLD();
    return open_real(AT_FDCWD, name, flags, mode);
}

int __openat64_2(int dirfd, const char *name, int flags)
{
    FAIL_IF_TOLD();
    return open_real(dirfd, name, flags, 0);
}

ssize_t pread(int fd, void *buf, size_t n, off_t off)
{
    FAIL_IF_TOLD();
    return syscall(SYS_pread64, fd, buf, n, off);
}

ssize_t __pread64_chk(int fd, void *buf, size_t n, off_t off, size_t cap)
{
    (void)cap;
    FAIL_IF_TOLD();
    return syscall(SYS_pread64, fd, buf, n, off);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t off)
{
    FAIL_IF_TOLD();
    return syscall(SYS_pwrite64, fd, buf, n, off);
}

int fsync(int fd)
{
    (void)fd;
    return oom_sync_fails(__builtin_return_address(0)) ? -1 : 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return oom_sync_fails(__builtin_return_address(0)) ? -1 : 0;
}

int linkat(int a, const char *from, int b, const char *to, int flags)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_linkat, a, from, b, to, flags);
}

int renameat(int a, const char *from, int b, const char *to)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_renameat2, a, from, b, to, 0);
}

int unlinkat(int dirfd, const char *name, int flags)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_unlinkat, dirfd, name, flags);
}

int mkdirat(int dirfd, const char *name, mode_t mode)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_mkdirat, dirfd, name, mode);
}

int ftruncate(int fd, off_t len)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_ftruncate, fd, len);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

off_t lseek(int fd, off_t off, int whence)
{
    FAIL_IF_TOLD();
    return syscall(SYS_lseek, fd, off, whence);
}

int fstat(int fd, struct stat *st)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_fstat, fd, st);
}

int fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_newfstatat, dirfd, name, st, flags);
}

int sync_file_range(int fd, off_t off, off_t n, unsigned flags)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_sync_file_range, fd, off, n, flags);
}

int flock(int fd, int how)
{
    FAIL_IF_TOLD();
    return (int)syscall(SYS_flock, fd, how);
}
#pragma GCC visibility pop
