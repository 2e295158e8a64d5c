/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_files: which files of the disks are open. A disk has some files for itself and four for each pending snapshot, so they cannot
 * all stay open: a file is opened when it is used, and when more than `max` are open those that were not used for the longest time
 * are closed (second chance: a hand goes round the ring of open files, and passes over what was used since it came by last).
 *
 * A file that was written is fdatasynced before it is closed: the kernel reports lost pages to descriptors that are open, and a file
 * opened later might never hear of them. A failure is final for its disk, as that of any fdatasync. Earlier durability than the order
 * of `live` asks for does no harm, because the kernel may write back at any time.
 *
 * Files are found again by name. Nobody but this daemon renames files in STATE, and only a layer that became a cache changes its
 * name; the inode number tells a file that was exchanged.
 *
 * `users` counts those who use the descriptor now; LFILE_SHUT in it says that there is none. It is set only when nobody uses the file,
 * so a use of an open file takes no lock. While `busy`, one thread opens or closes the file and others wait for it; it waits
 * for nothing but I/O.
 */
#include "live/live_disk.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LFILE_SHUT (1u << 31)

struct lfiles *lfiles_new(unsigned max)
{
    struct lfiles *fs = calloc(1, sizeof *fs);
    if (fs == NULL)
        return NULL;
    pthread_mutex_init(&fs->lock, NULL);
    pthread_cond_init(&fs->moved, NULL);
    fs->max = max > 0 ? max : UINT_MAX;
    return fs;
}

void lfiles_free(struct lfiles *fs)
{
    if (fs == NULL)
        return;
    pthread_cond_destroy(&fs->moved);
    pthread_mutex_destroy(&fs->lock);
    free(fs);
}

void lfile_init(struct lfile *f, struct live *l, const char *stem, uint64_t no, const char *suffix)
{
    *f = (struct lfile){.l = l, .stem = stem, .suffix = suffix, .no = no, .fd = -1};
    atomic_store(&f->users, LFILE_SHUT);
}

/* ---- the ring of open files; lock held ---- */

static void ring_add(struct lfiles *fs, struct lfile *f)
{
    if (fs->hand == NULL) {
        fs->hand = f->next = f->prev = f;
        return;
    }
    f->next = fs->hand;             /* behind all others, as the hand goes */
    f->prev = fs->hand->prev;
    f->prev->next = f->next->prev = f;
}

static void ring_remove(struct lfiles *fs, struct lfile *f)
{
    if (fs->hand == f)
        fs->hand = f->next != f ? f->next : NULL;
    f->prev->next = f->next;
    f->next->prev = f->prev;
    f->next = f->prev = NULL;
}

/* ---- closing; lock held, and given up meanwhile ---- */

static void shut(struct lfiles *fs, struct lfile *f)
{
    ring_remove(fs, f);
    f->busy = true;
    bool written = atomic_exchange(&f->written, false) && !f->is_volatile;
    pthread_mutex_unlock(&fs->lock);
    if (written)
        live_sync_fd(f->l, f->fd, f->stem, f->no, f->suffix, NULL);
    close(f->fd);
    pthread_mutex_lock(&fs->lock);
    f->fd = -1;
    fs->open--;
    f->busy = false;
    pthread_cond_broadcast(&fs->moved);
}

static bool nobody_uses(struct lfile *f)
{
    unsigned none = 0;
    return atomic_compare_exchange_strong(&f->users, &none, LFILE_SHUT);
}

/* Closes the file that the hand comes to first: one that costs no fdatasync, else any. False: all are in use. */
static bool shut_one(struct lfiles *fs)
{
    for (unsigned n = 3 * fs->open; n > 0 && fs->hand != NULL; n--) {
        struct lfile *f = fs->hand;
        bool costs = n > fs->open && atomic_load(&f->written) && !f->is_volatile;
        fs->hand = f->next;
        if (atomic_exchange(&f->used, false) || costs || !nobody_uses(f))
            continue;
        shut(fs, f);
        return true;
    }
    return false;
}

/* ---- opening ---- */

static int open_name(struct lfile *f, const char *stem, int flags)
{
    char name[NAME_BYTES];
    if (f->suffix != NULL)
        live_name(name, stem, f->no, f->suffix);
    return live_open_file(f->l, f->suffix != NULL ? name : stem, flags | O_RDWR);
}

/* A layer that became a cache is renamed once that is durable, and a kill may have kept it from the name. */
static int open_either(struct lfile *f, int flags)
{
    int fd = open_name(f, f->stem, flags);
    if (fd == -ENOENT && f->is_cache)
        fd = open_name(f, "layer", flags);
    return fd == -ENOENT && f->is_cache ? open_name(f, f->stem, flags) : fd;
}

/* What was open before must be the same file now. */
static int check_same(struct lfile *f, int fd)
{
    struct stat st;
    int r = fstat(fd, &st) < 0 ? -errno : f->ino != 0 && f->ino != st.st_ino ? -EBADMSG : 0;
    if (r < 0)
        close(fd);
    else
        f->ino = st.st_ino;
    return r < 0 ? r : fd;
}

static int open_shut(struct lfile *f, int flags)
{
    struct lfiles *fs = f->l->set->files;
    pthread_mutex_lock(&fs->lock);
    while (f->busy)
        pthread_cond_wait(&fs->moved, &fs->lock);
    if ((atomic_load(&f->users) & LFILE_SHUT) == 0) {       /* only with the lock held it is shut again */
        atomic_fetch_add(&f->users, 1);
        pthread_mutex_unlock(&fs->lock);
        return f->fd;
    }
    f->busy = true;
    fs->open++;
    while (fs->open > fs->max && shut_one(fs))
        ;
    int fd;
    do {
        pthread_mutex_unlock(&fs->lock);
        fd = open_either(f, flags);
        if (fd >= 0)
            fd = check_same(f, fd);
        pthread_mutex_lock(&fs->lock);
    } while ((fd == -EMFILE || fd == -ENFILE) && shut_one(fs));
    if (fd >= 0) {
        f->fd = fd;
        ring_add(fs, f);
        atomic_store(&f->used, true);
        atomic_store(&f->users, 1);
    } else {
        fs->open--;
    }
    f->busy = false;
    pthread_cond_broadcast(&fs->moved);
    pthread_mutex_unlock(&fs->lock);
    return fd;
}

/* ---- using ---- */

int lfile_open(struct lfile *f, int flags)
{
    int fd = open_shut(f, flags);
    if (fd < 0)
        return fd;
    lfile_done(f);
    return 0;
}

int lfile_use(struct lfile *f)
{
    unsigned n = atomic_load(&f->users);
    while ((n & LFILE_SHUT) == 0) {
        if (!atomic_compare_exchange_weak(&f->users, &n, n + 1))
            continue;
        if (!atomic_load(&f->used))
            atomic_store(&f->used, true);
        return f->fd;
    }
    int fd = open_shut(f, 0);
    return fd == -ENOENT ? -EBADMSG : fd;       /* that the file is gone is no answer to what the caller was asked for */
}

void lfile_done(struct lfile *f)
{
    atomic_fetch_sub(&f->users, 1);
}

void lfile_to_cache(struct lfile *f)
{
    struct lfiles *fs = f->l->set->files;
    pthread_mutex_lock(&fs->lock);
    while (f->busy)
        pthread_cond_wait(&fs->moved, &fs->lock);
    f->stem = "cache";
    f->is_cache = f->is_volatile = true;
    pthread_mutex_unlock(&fs->lock);
}

bool lfile_known(const struct lfile *f)
{
    return f->ino != 0;
}

/* forget: what was written to it need not be durable. */
static void end(struct lfile *f, bool forget)
{
    struct lfiles *fs = f->l->set->files;
    pthread_mutex_lock(&fs->lock);
    while (f->busy)
        pthread_cond_wait(&fs->moved, &fs->lock);
    if (nobody_uses(f)) {
        if (forget)
            atomic_store(&f->written, false);
        shut(fs, f);
    }
    f->ino = 0;
    pthread_mutex_unlock(&fs->lock);
}

void lfile_end(struct lfile *f)
{
    if (f->l != NULL)
        end(f, true);
}

void lfile_shut(struct lfile *f)
{
    end(f, false);
}

/* ---- as the system calls ---- */

ssize_t lfile_read(struct lfile *f, void *buf, size_t n, off_t off)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return fd;
    ssize_t got = pread_full(fd, buf, n, off);
    lfile_done(f);
    return got;
}

int lfile_write(struct lfile *f, const void *buf, size_t n, off_t off)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return fd;
    atomic_store(&f->written, true);
    int r = pwrite_full(fd, buf, n, off);
    lfile_done(f);
    return r;
}

int lfile_stat(struct lfile *f, struct stat *st)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return fd;
    int r = fstat(fd, st) < 0 ? -errno : 0;
    lfile_done(f);
    return r;
}

off_t lfile_seek(struct lfile *f, off_t off, int whence)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return fd;
    off_t at = lseek(fd, off, whence);
    at = at < 0 ? -errno : at;
    lfile_done(f);
    return at;
}

int lfile_truncate(struct lfile *f, off_t size)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return fd;
    atomic_store(&f->written, true);
    int r = ftruncate(fd, size) < 0 ? -errno : 0;
    lfile_done(f);
    return r;
}

void lfile_times(struct lfile *f, const struct timespec times[2])
{
    int fd = lfile_use(f);
    if (fd < 0)
        return;
    futimens(fd, times);
    lfile_done(f);
}

void lfile_punch(struct lfile *f, off_t off, off_t len)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return;
    atomic_store(&f->written, true);
    (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len);
    lfile_done(f);
}

void lfile_start(struct lfile *f)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return;
    sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    lfile_done(f);
}

int lfile_sync(struct lfile *f, struct verr *err)
{
    int fd = lfile_use(f);
    if (fd < 0)
        return live_fail(f->l, err, -fd, "%s-%llu%s: cannot be opened: %s", f->stem, (unsigned long long)f->no,
                         f->suffix != NULL ? f->suffix : "", strerror(-fd));
    int r = live_sync_fd(f->l, fd, f->stem, f->no, f->suffix != NULL ? f->suffix : "", err);
    lfile_done(f);
    return r;
}
