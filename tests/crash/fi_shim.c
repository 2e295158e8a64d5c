/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fi_shim.c: a fault injector to LD_PRELOAD. It counts every call that makes something persist, with one counter for all
 * threads (and for a child that was forked: the counter is shared memory), and does something bad at the n-th.
 *
 *   FI_AT=n             number of the call that is hit, from 1; 0 or absent: count only
 *   FI_MODE=m           1 fails once            2 fails from n on            6 short write once (half is written and reported)
 *                       3 SIGKILL before it     5 SIGKILL after it
 *                       4 SIGKILL in the middle of a write: its first pages are written. The kernel does not stop inside a page, so
 *                         a write within one page, and any other call, is killed before it
 *                       7 every fsync, fdatasync, sync_file_range and syncfs fails from n on; other calls do not
 *   FI_ERRNO=e          the error of modes 1, 2 and 7 (default 5, EIO)
 *   FI_PATH=DIR[:DIR]   only files and names below these directories (absolute, without links); absent: all
 *   FI_SKIP_UNTIL=FILE  nothing is counted before FILE exists
 *   FI_REPORT=FILE      counter and settings lie in FILE, mapped shared: the driver reads them live, after a kill too, and may
 *                       change them. Header: 8 integers of 64 bits, in the order of struct shared below
 *   FI_LOG=1            FILE holds at 4096 also a line for each counted call: number, name, path, "!" if it was hit
 *   FI_LOG=2            the same, and "half" behind the path of a write that mode 4 can stop in the middle
 *
 * Everything is read, opened and mapped in the constructor: a daemon may give up its rights, its descriptors and its root
 * later. Which descriptors lie below FI_PATH is noted when they are opened, so /proc is not needed.
 */
#undef _FILE_OFFSET_BITS    /* pwrite and pwrite64 are two symbols here, and both are needed */
#undef _FORTIFY_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { FAIL_ONCE = 1, FAIL_ON, KILL_BEFORE, KILL_HALF, KILL_AFTER, SHORT_ONCE, FSYNC_ON };
enum { HEADER = 4096, LOG_BYTES = 4 << 20, FD_MAX = 4096, NAME_KEPT = 240, PREFIXES = 8, PAGE = 4096 };

struct shared {
    uint64_t magic;
    _Atomic uint64_t count;     /* calls so far */
    _Atomic uint64_t at;        /* FI_AT */
    _Atomic uint64_t mode;
    _Atomic uint64_t error;
    _Atomic uint64_t hits;      /* calls that were made to fail, or killed us */
    _Atomic uint64_t log_used;  /* bytes of the log; what does not fit is counted only */
    _Atomic uint64_t off;       /* 1: count nothing for now */
};
#define MAGIC UINT64_C(0x3156494d49485346)

static struct shared private_memory;
static struct shared *sh = &private_memory;
static char *log_text;          /* NULL: no log */
static bool log_halves;
static const char *prefixes[PREFIXES], *skip_until;
static unsigned nprefixes;
static _Atomic bool waiting, dying;

/* Path of each open descriptor below FI_PATH; empty: not one of them. */
static char names[FD_MAX][NAME_KEPT];

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *s = getenv(name);
    return s == NULL || *s == '\0' ? otherwise : strtoull(s, NULL, 10);
}

/* A process that finds the file of another one goes on counting there: fork and exec of a daemon. */
static void map_report(const char *path)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    struct stat st;
    bool grown = fstat(fd, &st) == 0 && (st.st_size >= HEADER + LOG_BYTES || syscall(SYS_ftruncate, fd, (off_t)HEADER + LOG_BYTES) == 0);
    void *p = grown ? mmap(NULL, HEADER + LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    syscall(SYS_close, fd);
    if (p == MAP_FAILED)
        return;
    sh = p;
    if (number_of("FI_LOG", 0) != 0)
        log_text = (char *)p + HEADER;
    log_halves = number_of("FI_LOG", 0) > 1;
}

__attribute__((constructor)) static void begin(void)
{
    const char *report = getenv("FI_REPORT");
    void *p = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED)
        sh = p;
    if (report != NULL)
        map_report(report);
    if (sh->magic != MAGIC) {
        sh->at = number_of("FI_AT", 0);
        sh->mode = number_of("FI_MODE", 0);
        sh->error = number_of("FI_ERRNO", EIO);
        sh->magic = MAGIC;
    }
    static char list[PATH_MAX * 2];
    const char *path = getenv("FI_PATH");
    snprintf(list, sizeof list, "%s", path == NULL ? "" : path);
    char *save = NULL;
    for (char *one = strtok_r(list, ":", &save); one != NULL && nprefixes < PREFIXES; one = strtok_r(NULL, ":", &save))
        prefixes[nprefixes++] = one;
    skip_until = getenv("FI_SKIP_UNTIL");
    waiting = skip_until != NULL;
}

/* ---- which calls count ---- */

static bool path_counts(const char *path)
{
    for (unsigned i = 0; i < nprefixes; i++) {
        size_t n = strlen(prefixes[i]);
        if (strncmp(path, prefixes[i], n) == 0 && (path[n] == '/' || path[n] == '\0'))
            return true;
    }
    return nprefixes == 0;
}

static bool fd_counts(int fd)
{
    return fd >= 0 && fd < FD_MAX && names[fd][0] != '\0';
}

static const char *fd_name(int fd)
{
    return fd_counts(fd) ? names[fd] : "?";
}

/* The whole path of a name in a directory; empty when it does not count. */
static void at_path(int dirfd, const char *name, char out[PATH_MAX])
{
    if (name == NULL || *name == '\0')
        snprintf(out, PATH_MAX, "%s", fd_counts(dirfd) ? names[dirfd] : "");
    else if (*name == '/' || dirfd == AT_FDCWD)
        snprintf(out, PATH_MAX, "%s", name);
    else if (fd_counts(dirfd))
        snprintf(out, PATH_MAX, "%s/%.3800s", names[dirfd], name);
    else
        out[0] = '\0';
    if (out[0] != '\0' && !path_counts(out))
        out[0] = '\0';
}

static void note_open(int fd, const char *path)
{
    if (fd < 0 || fd >= FD_MAX)
        return;
    size_t n = strnlen(path, NAME_KEPT - 1);
    memmove(names[fd], path, n);
    names[fd][n] = '\0';
}

static void forget(int fd)
{
    if (fd >= 0 && fd < FD_MAX)
        names[fd][0] = '\0';
}

/* ---- the counter ---- */

/* After this no thread of ours makes anything persist. */
static void die(void)
{
    dying = true;
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        _exit(137); /* a filter forbids the kill: leave without destructors, which comes to the same */
}

static void write_log(uint64_t n, const char *call, const char *path, bool has_half, bool hit)
{
    char line[PATH_MAX + 64];
    int len = snprintf(line, sizeof line, "%llu %s %s%s%s\n", (unsigned long long)n, call, path, has_half && log_halves ? " half" : "",
                       hit ? " !" : "");
    if (log_text == NULL || len <= 0 || (size_t)len >= sizeof line)
        return;
    uint64_t pos = atomic_fetch_add(&sh->log_used, (uint64_t)len);
    if (pos + (uint64_t)len <= LOG_BYTES)
        memcpy(log_text + pos, line, (size_t)len);
}

static bool still_waiting(void)
{
    if (atomic_load(&waiting) && syscall(SYS_faccessat, AT_FDCWD, skip_until, F_OK) == 0)
        waiting = false;
    return waiting;
}

/* What is to happen to this call: 0, or a mode. Does not return if it kills before the call. */
static int verdict(const char *call, const char *path, bool is_sync, bool has_half)
{
    int keep = errno;
    while (dying)
        pause();
    if (atomic_load(&sh->off) != 0 || still_waiting()) {
        errno = keep;
        return 0;
    }
    uint64_t n = atomic_fetch_add(&sh->count, 1) + 1, at = sh->at;
    int mode = (int)sh->mode;
    bool hit = at != 0 && (n == at || (n > at && (mode == FAIL_ON || mode == FSYNC_ON)));
    if (mode == FSYNC_ON && !is_sync)
        hit = false;
    write_log(n, call, path, has_half, hit);
    if (hit)
        atomic_fetch_add(&sh->hits, 1);
    if (hit && (mode == KILL_BEFORE || (mode == KILL_HALF && !has_half)))
        die();
    errno = keep;
    return hit ? mode : 0;
}

static bool fails(int mode)
{
    if (mode != FAIL_ONCE && mode != FAIL_ON && mode != FSYNC_ON)
        return false;
    int error = (int)sh->error;
    errno = error != 0 ? error : EIO;   /* the driver may be taking the fault off just now: a call never fails with 0 */
    return true;
}

/* ---- the hooks ---- */

#define REAL(name) \
    static __typeof__(name) *real_##name; \
    if (real_##name == NULL) \
        *(void **)&real_##name = dlsym(RTLD_NEXT, #name)

/* How much of a write at `off` is done when it is stopped near its middle between two pages; 0: it cannot be. */
static size_t first_pages(off64_t off, size_t n)
{
    off64_t end = (off + (off64_t)n / 2 + PAGE - 1) / PAGE * PAGE;
    return end > off && end < off + (off64_t)n ? (size_t)(end - off) : 0;
}

/* A call that writes bytes: it can be done in part. PART: how much of N when killed; a short write does half. */
#define HOOK_WRITE(name, args, n, part, whole, partly) \
    EXPORT ssize_t name args \
    { \
        REAL(name); \
        bool counts = fd_counts(fd); \
        size_t some = counts ? (size_t)(part) : 0; \
        int mode = counts ? verdict(#name, fd_name(fd), false, some > 0) : 0; \
        if (fails(mode)) \
            return -1; \
        if (mode == SHORT_ONCE) \
            some = (size_t)(n) / 2; \
        ssize_t r = mode == KILL_HALF || mode == SHORT_ONCE ? real_##name partly : real_##name whole; \
        if (mode == KILL_HALF || mode == KILL_AFTER) \
            die(); \
        return r; \
    }

HOOK_WRITE(write, (int fd, const void *b, size_t n), n, n > PAGE ? n / 2 : 0, (fd, b, n), (fd, b, some))
HOOK_WRITE(pwrite, (int fd, const void *b, size_t n, off_t o), n, first_pages(o, n), (fd, b, n, o), (fd, b, some, o))
HOOK_WRITE(pwrite64, (int fd, const void *b, size_t n, off64_t o), n, first_pages(o, n), (fd, b, n, o), (fd, b, some, o))
/* Part of a vector: its first half of pieces; of one piece, nothing. */
#define SOME_PIECES ((int)some)
HOOK_WRITE(writev, (int fd, const struct iovec *v, int n), n, n / 2, (fd, v, n), (fd, v, SOME_PIECES))
HOOK_WRITE(pwritev, (int fd, const struct iovec *v, int n, off_t o), n, n / 2, (fd, v, n, o), (fd, v, SOME_PIECES, o))
HOOK_WRITE(pwritev64, (int fd, const struct iovec *v, int n, off64_t o), n, n / 2, (fd, v, n, o), (fd, v, SOME_PIECES, o))
HOOK_WRITE(pwritev2, (int fd, const struct iovec *v, int n, off_t o, int f), n, n / 2, (fd, v, n, o, f), (fd, v, SOME_PIECES, o, f))
HOOK_WRITE(pwritev64v2, (int fd, const struct iovec *v, int n, off64_t o, int f), n, n / 2, (fd, v, n, o, f), (fd, v, SOME_PIECES, o, f))
HOOK_WRITE(copy_file_range, (int from, off64_t *i, int fd, off64_t *o, size_t n, unsigned f), n, n > PAGE ? n / 2 : 0,
           (from, i, fd, o, n, f), (from, i, fd, o, some, f))

/* A call that is done or not. FAILED is what it returns then: -1 and errno, or the error itself. */
#define HOOK(name, args, pass, counts, path, is_sync, failed) \
    EXPORT int name args \
    { \
        REAL(name); \
        int mode = (counts) ? verdict(#name, path, is_sync, false) : 0; \
        if (fails(mode)) \
            return failed; \
        int r = real_##name pass; \
        if (mode == KILL_AFTER) \
            die(); \
        return r; \
    }
#define HOOK_FD(name, args, pass) HOOK(name, args, pass, fd_counts(fd), fd_name(fd), false, -1)
#define HOOK_SYNC(name, args, pass) HOOK(name, args, pass, fd_counts(fd), fd_name(fd), true, -1)
#define HOOK_PATH(name, args, pass) HOOK(name, args, pass, path_counts(path), path, false, -1)

HOOK_SYNC(fsync, (int fd), (fd))
HOOK_SYNC(fdatasync, (int fd), (fd))
HOOK_SYNC(syncfs, (int fd), (fd))
HOOK_SYNC(sync_file_range, (int fd, off64_t o, off64_t n, unsigned f), (fd, o, n, f))
HOOK_FD(ftruncate, (int fd, off_t n), (fd, n))
HOOK_FD(ftruncate64, (int fd, off64_t n), (fd, n))
HOOK_FD(fallocate, (int fd, int m, off_t o, off_t n), (fd, m, o, n))
HOOK_FD(fallocate64, (int fd, int m, off64_t o, off64_t n), (fd, m, o, n))
HOOK(posix_fallocate, (int fd, off_t o, off_t n), (fd, o, n), fd_counts(fd), fd_name(fd), false, errno)
HOOK(posix_fallocate64, (int fd, off64_t o, off64_t n), (fd, o, n), fd_counts(fd), fd_name(fd), false, errno)
HOOK_FD(fchmod, (int fd, mode_t m), (fd, m))
HOOK_FD(fchown, (int fd, uid_t u, gid_t g), (fd, u, g))
HOOK_FD(futimens, (int fd, const struct timespec t[2]), (fd, t))
HOOK_PATH(chmod, (const char *path, mode_t m), (path, m))
HOOK_PATH(chown, (const char *path, uid_t u, gid_t g), (path, u, g))
HOOK_PATH(lchown, (const char *path, uid_t u, gid_t g), (path, u, g))
HOOK_PATH(truncate, (const char *path, off_t n), (path, n))
HOOK_PATH(truncate64, (const char *path, off64_t n), (path, n))
HOOK_PATH(mkdir, (const char *path, mode_t m), (path, m))
HOOK_PATH(rmdir, (const char *path), (path))
HOOK_PATH(unlink, (const char *path), (path))
HOOK(rename, (const char *a, const char *b), (a, b), path_counts(a) || path_counts(b), b, false, -1)
HOOK(link, (const char *a, const char *b), (a, b), path_counts(a) || path_counts(b), b, false, -1)

/* A call on a name in a directory. */
#define HOOK_AT(name, args, pass, dirfd, file) \
    EXPORT int name args \
    { \
        REAL(name); \
        char path[PATH_MAX]; \
        at_path(dirfd, file, path); \
        int mode = path[0] != '\0' ? verdict(#name, path, false, false) : 0; \
        if (fails(mode)) \
            return -1; \
        int r = real_##name pass; \
        if (mode == KILL_AFTER) \
            die(); \
        return r; \
    }

HOOK_AT(unlinkat, (int d, const char *p, int f), (d, p, f), d, p)
HOOK_AT(mkdirat, (int d, const char *p, mode_t m), (d, p, m), d, p)
HOOK_AT(renameat, (int a, const char *p, int b, const char *q), (a, p, b, q), b, q)
HOOK_AT(renameat2, (int a, const char *p, int b, const char *q, unsigned f), (a, p, b, q, f), b, q)
HOOK_AT(linkat, (int a, const char *p, int b, const char *q, int f), (a, p, b, q, f), b, q)
HOOK_AT(symlinkat, (const char *t, int d, const char *p), (t, d, p), d, p)
HOOK_AT(fchmodat, (int d, const char *p, mode_t m, int f), (d, p, m, f), d, p)
HOOK_AT(fchownat, (int d, const char *p, uid_t u, gid_t g, int f), (d, p, u, g, f), d, p)
HOOK_AT(utimensat, (int d, const char *p, const struct timespec t[2], int f), (d, p, t, f), d, p)

/* ---- descriptors ---- */

static bool makes(int flags)
{
    return (flags & (O_CREAT | O_TRUNC)) != 0 || (flags & O_TMPFILE) == O_TMPFILE;
}

/* All ways to open end here. An open that can make or empty a file counts. */
static int open_hook(const char *call, int dirfd, const char *name, int flags, mode_t perm)
{
    char path[PATH_MAX];
    at_path(dirfd, name, path);
    int mode = path[0] != '\0' && makes(flags) ? verdict(call, path, false, false) : 0;
    if (fails(mode))
        return -1;
    int fd = (int)syscall(SYS_openat, dirfd, name, flags, perm);
    if (mode == KILL_AFTER)
        die();
    note_open(fd, path);
    return fd;
}

static mode_t perm_of(int flags, va_list ap)
{
    return makes(flags) ? va_arg(ap, mode_t) : 0;
}

#define HOOK_OPEN(name) \
    EXPORT int name(const char *path, int flags, ...) \
    { \
        va_list ap; \
        va_start(ap, flags); \
        mode_t perm = perm_of(flags, ap); \
        va_end(ap); \
        return open_hook(#name, AT_FDCWD, path, flags, perm); \
    }
#define HOOK_OPENAT(name) \
    EXPORT int name(int dirfd, const char *path, int flags, ...) \
    { \
        va_list ap; \
        va_start(ap, flags); \
        mode_t perm = perm_of(flags, ap); \
        va_end(ap); \
        return open_hook(#name, dirfd, path, flags, perm); \
    }

HOOK_OPEN(open)
HOOK_OPEN(open64)
HOOK_OPENAT(openat)
HOOK_OPENAT(openat64)
/* What the fortified headers make of the calls above without a mode. */
EXPORT int __open_2(const char *path, int flags);
EXPORT int __open64_2(const char *path, int flags);
EXPORT int __openat_2(int dirfd, const char *path, int flags);
EXPORT int __openat64_2(int dirfd, const char *path, int flags);
EXPORT int __open_2(const char *path, int flags) { return open_hook("open", AT_FDCWD, path, flags, 0); }
EXPORT int __open64_2(const char *path, int flags) { return open_hook("open64", AT_FDCWD, path, flags, 0); }
EXPORT int __openat_2(int dirfd, const char *path, int flags) { return open_hook("openat", dirfd, path, flags, 0); }
EXPORT int __openat64_2(int dirfd, const char *path, int flags) { return open_hook("openat64", dirfd, path, flags, 0); }
EXPORT int creat(const char *path, mode_t perm) { return open_hook("creat", AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, perm); }
EXPORT int creat64(const char *path, mode_t perm) { return open_hook("creat64", AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, perm); }

/* Forgotten before it is closed: another thread may get the number at once. */
EXPORT int close(int fd)
{
    REAL(close);
    forget(fd);
    return real_close(fd);
}

EXPORT int closedir(DIR *dir)
{
    REAL(closedir);
    forget(dirfd(dir));
    return real_closedir(dir);
}

static int dup_hook(int fd, int cmd, void *arg)
{
    int copy = (int)syscall(SYS_fcntl, fd, cmd, arg);
    if ((cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC) && fd >= 0 && fd < FD_MAX)
        note_open(copy, names[fd]);
    return copy;
}

#define HOOK_FCNTL(name) \
    EXPORT int name(int fd, int cmd, ...) \
    { \
        va_list ap; \
        va_start(ap, cmd); \
        void *arg = va_arg(ap, void *); \
        va_end(ap); \
        return dup_hook(fd, cmd, arg); \
    }

HOOK_FCNTL(fcntl)
HOOK_FCNTL(fcntl64)
EXPORT int dup(int fd) { return dup_hook(fd, F_DUPFD, NULL); }
