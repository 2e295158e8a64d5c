/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source is read where it has data (SEEK_DATA), and the disk was emptied before, so holes stay holes. A source that ends early, cannot be
 * read or changes its size gives no whole copy. Threads take the copies one after another; the first thread shows how far all are.
 */
#include "cli/copy.h"

#include "base/file.h"
#include "base/thread.h"
#include "cli/cli.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 1 << 20, THREADS_MAX = 4, LOOK_NS = 100 * 1000 * 1000 };

struct copying {
    struct copy *copies;
    unsigned n;
    const atomic_int *stop;
    atomic_uint next, ended;
    _Atomic uint64_t done;      /* bytes of data */
};

static int fail(struct copy *c, enum copy_result result, int code, const char *what, uint64_t at)
{
    c->result = result;
    return verr_set(&c->err, code, "%s at byte %llu: %s", what, (unsigned long long)at, strerror(code));
}

/* Copies [off, end). */
static int copy_data(struct copying *all, struct copy *c, int src, uint64_t off, uint64_t end, void *buf)
{
    while (off < end) {
        if (atomic_load(all->stop) != 0) {
            c->result = COPY_STOPPED;
            return verr_set(&c->err, EINTR, "%s: interrupted", c->source);
        }
        size_t want = end - off < PIECE - off % PIECE ? (size_t)(end - off) : PIECE - (size_t)(off % PIECE);
        ssize_t n = pread_full(src, buf, want, (off_t)off);
        if (n < 0)
            return fail(c, COPY_UNREADABLE, (int)-n, c->source, off);
        if ((size_t)n < want) {
            c->result = COPY_UNREADABLE;
            return verr_set(&c->err, EIO, "%s: became shorter while it was read", c->source);
        }
        int r = pwrite_full(c->fd, buf, want, (off_t)off);
        if (r < 0)
            return fail(c, COPY_FAILED, -r, c->dest, off);
        off += want;
        atomic_fetch_add(&all->done, want);
    }
    return 0;
}

/* The next part with data at or behind off. False: there is none. A source that knows no holes is data as a whole. */
static bool next_data(const struct copy *c, int src, uint64_t off, uint64_t *begin, uint64_t *end)
{
    off_t data = off < c->size ? lseek(src, (off_t)off, SEEK_DATA) : -1;
    if (off >= c->size || (data < 0 && errno == ENXIO))
        return false;
    off_t hole = data < 0 ? -1 : lseek(src, data, SEEK_HOLE);
    *begin = data < 0 ? off : (uint64_t)data;
    *end = hole <= data || (uint64_t)hole > c->size ? c->size : (uint64_t)hole;
    return *begin < c->size;
}

static int copy_content(struct copying *all, struct copy *c, int src)
{
    void *buf = NULL;
    uint64_t begin, end = 0;
    int r = 0;
    if (posix_memalign(&buf, 4096, PIECE) != 0) {
        c->result = COPY_FAILED;
        return verr_set(&c->err, ENOMEM, "out of memory");
    }
    while (r == 0 && next_data(c, src, end, &begin, &end))
        r = copy_data(all, c, src, begin, end, buf);
    free(buf);
    if (r == 0 && ftruncate(c->fd, (off_t)c->size) < 0)
        r = fail(c, COPY_FAILED, errno, c->dest, c->size);
    off_t now = lseek(src, 0, SEEK_END);
    if (r == 0 && (now < 0 || (uint64_t)now != c->size)) {
        c->result = COPY_UNREADABLE;
        r = verr_set(&c->err, EIO, "%s: changed its size while it was read", c->source);
    }
    return r;
}

static int say_end(struct copy *c, uint32_t what)
{
    struct varve_ioc_copy io = {.what = what};
    int r = ioctl(c->fd, VARVE_IOC_COPY, &io) < 0 ? errno : io.error;
    if (r == 0)
        return 0;
    c->result = COPY_FAILED;
    return verr_set(&c->err, r, "%s: %s", c->dest, io.text[0] != '\0' ? io.text : strerror(r));
}

static int open_dest(struct copy *c, const struct stat *src)
{
    struct stat st;
    if (stat(c->dest, &st) == 0 && st.st_dev == src->st_dev && st.st_ino == src->st_ino) {
        c->result = COPY_FAILED;
        return verr_set(&c->err, EINVAL, "%s: is the source itself", c->dest);
    }
    c->fd = open(c->dest, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, S_ISREG(src->st_mode) ? src->st_mode & 0777 : 0600);
    if (c->fd >= 0)
        return 0;
    c->result = COPY_FAILED;
    return verr_set(&c->err, errno, "%s: %s", c->dest, errno == EBUSY ? "another program has it open for writing" : strerror(errno));
}

static void copy_one(struct copying *all, struct copy *c)
{
    struct stat st;
    int src = open(c->source, O_RDONLY | O_CLOEXEC);
    if (src < 0 || fstat(src, &st) < 0 || (c->size = (uint64_t)lseek(src, 0, SEEK_END)) > INT64_MAX) {
        c->result = COPY_UNREADABLE;
        verr_set(&c->err, errno, "%s: %s", c->source, strerror(errno));
    } else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
        c->result = COPY_UNREADABLE;
        verr_set(&c->err, EINVAL, "%s: neither a file nor a block device", c->source);
    } else if (open_dest(c, &st) == 0) {
        posix_fadvise(src, 0, 0, POSIX_FADV_SEQUENTIAL);
        if (copy_content(all, c, src) < 0)
            say_end(&(struct copy){.fd = c->fd, .dest = c->dest}, VARVE_COPY_BROKEN);
        else if (say_end(c, VARVE_COPY_WHOLE) == 0)
            c->result = COPY_WHOLE;
    }
    if (src >= 0)
        close(src);
    if (c->result == COPY_WHOLE || c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
}

static void *run(void *arg)
{
    struct copying *all = arg;
    unsigned i;
    while ((i = atomic_fetch_add(&all->next, 1)) < all->n) {
        copy_one(all, &all->copies[i]);
        atomic_fetch_add(&all->ended, 1);
    }
    return NULL;
}

/* Bytes of data, for the bar: what the filesystem has allocated. */
static uint64_t expected(const struct copy *copies, unsigned n)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        struct stat st;
        int fd = open(copies[i].source, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        off_t size = fd < 0 || fstat(fd, &st) < 0 ? 0 : lseek(fd, 0, SEEK_END);
        if (size > 0)
            sum += S_ISREG(st.st_mode) && st.st_blocks * 512 < size ? (uint64_t)st.st_blocks * 512 : (uint64_t)size;
        if (fd >= 0)
            close(fd);
    }
    return sum;
}

void copy_all(struct copy *copies, unsigned n, const atomic_int *stop)
{
    struct copying all = {.copies = copies, .n = n, .stop = stop};
    struct progress bar = {.title = "copying", .bytes = true};
    const struct timespec pause = {.tv_nsec = LOOK_NS};
    pthread_t threads[THREADS_MAX];
    unsigned started = 0;
    uint64_t total = expected(copies, n);
    for (unsigned i = 0; i < n; i++)
        copies[i].fd = -1;
    while (started < THREADS_MAX && started < n && thread_start(&threads[started], run, &all) == 0)
        started++;
    if (started == 0)
        run(&all);      /* without a bar */
    while (atomic_load(&all.ended) < n) {
        progress_show(&bar, atomic_load(&all.done), total);
        nanosleep(&pause, NULL);
    }
    while (started > 0)
        pthread_join(threads[--started], NULL);
    progress_end(&bar);
}
