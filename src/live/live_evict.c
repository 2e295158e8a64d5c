/* SPDX-License-Identifier: Apache-2.0 */
/* live_evict: takes cache layers away, oldest first, until they are below their bound and data have room. */
#include "live/live_level.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct candidate { int64_t when_ns; struct vid disk; };
struct candidates { struct live_set *set; struct candidate *list; size_t n, cap; struct verr *err; };
struct newest { int dirfd; int64_t when_ns; bool any; };

static int look_at_file(void *ctx, const char *name)
{
    struct newest *n = ctx;
    struct stat st;
    size_t len = strlen(name);
    if (strncmp(name, "cache-", 6) != 0 || len < 4 || strcmp(name + len - 4, ".vol") != 0)
        return 0;
    if (fstatat(n->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    n->when_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    n->any = true;
    return 0;
}

/* When a disk's cache was last filled: the mtime of its vol file. */
static int look_at_disk(void *ctx, const struct vid *disk)
{
    struct candidates *c = ctx;
    char hex[VID_HEX];
    vid_hex(disk, hex);
    struct newest n = {dir_open(c->set->disksfd, hex), 0, false};
    if (n.dirfd < 0)
        return n.dirfd == -ENOENT ? 0 : verr_set(c->err, -n.dirfd, "disks/%s: %s", hex, strerror(-n.dirfd));
    int r = dir_each(n.dirfd, look_at_file, &n);
    close(n.dirfd);
    if (r < 0)
        return verr_set(c->err, -r, "disks/%s: cannot be listed: %s", hex, strerror(-r));
    if (!n.any)
        return 0;
    if (c->n == c->cap) {
        size_t cap = c->cap * 2 + 64;
        struct candidate *grown = realloc(c->list, cap * sizeof *grown);
        if (grown == NULL)
            return verr_set(c->err, ENOMEM, "no memory");
        c->list = grown;
        c->cap = cap;
    }
    c->list[c->n++] = (struct candidate){n.when_ns, *disk};
    return 0;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = ((const struct candidate *)a)->when_ns, y = ((const struct candidate *)b)->when_ns;
    return (x > y) - (x < y);
}

/* Caches below their bound go too while data lack room. */
static bool above_limit(struct live_set *set)
{
    int64_t bytes = atomic_load(&set->cache_bytes);
    return bytes > (int64_t)set->env.cache_limit || (bytes > 0 && live_room(set) < (int64_t)set->env.spare);
}

/* Evicts one segment at a time, so that readers of others go on. False: the disk has no cache layer any more. */
static bool evict_segment(struct live *l, uint64_t seg)
{
    struct live_slot s;
    pthread_rwlock_t *lock = live_seg_lock(l, seg);
    pthread_rwlock_rdlock(&l->freeze);
    pthread_rwlock_wrlock(lock);
    bool any = l->cache != NULL;
    if (any) {
        int r = lslot_get(l, l->cache, seg, &s, NULL);
        if (r == -EBADMSG) {        /* the slot is damaged: all of the segment goes */
            memset(s.present, 0xff, sizeof s.present);
            memset(s.zero, 0, sizeof s.zero);
            r = 0;
        }
        if (r == 0 && lslot_present(&s) > 0)
            live_cache_forget(l, seg, &s);
    }
    pthread_rwlock_unlock(lock);
    pthread_rwlock_unlock(&l->freeze);
    return any;
}

static uint64_t next_cached(struct live *l, uint64_t seg)
{
    pthread_rwlock_rdlock(&l->freeze);
    uint64_t next = l->cache != NULL ? llayer_next(l->cache, seg) : UINT64_MAX;
    struct stat st;
    if (next != UINT64_MAX && (lfile_stat(&l->cache->vol, &st) < 0 || (off_t)(LIVE_HEADER_BYTES + next * LIVE_SLOT_BYTES) >= st.st_size))
        next = UINT64_MAX;
    pthread_rwlock_unlock(&l->freeze);
    return next;
}

/* The charge of the cache becomes what its file takes on disk: some blocks stay after every segment went. */
static void settle(struct live *l)
{
    struct stat st;
    pthread_rwlock_rdlock(&l->freeze);
    if (l->cache != NULL && lfile_stat(&l->cache->data, &st) == 0)
        llayer_charge(l->cache, (int64_t)st.st_blocks * 512 - atomic_load(&l->cache->charged));
    pthread_rwlock_unlock(&l->freeze);
}

/* Restores the time of the last fill, which clearing slots has changed. */
static void keep_time(struct live *l, const struct timespec times[2])
{
    pthread_rwlock_rdlock(&l->freeze);
    if (l->cache != NULL)
        lfile_times(&l->cache->vol, times);
    pthread_rwlock_unlock(&l->freeze);
}

static void evict_disk(struct live *l, int64_t when_ns)
{
    const struct timespec when = {when_ns / 1000000000, when_ns % 1000000000}, times[2] = {when, when};
    uint64_t seg = next_cached(l, 0);
    while (seg != UINT64_MAX && above_limit(l->set)) {
        if (!evict_segment(l, seg))
            break;
        seg = next_cached(l, seg + 1);
    }
    settle(l);
    keep_time(l, times);
}

int live_set_evict(struct live_set *set, struct verr *err)
{
    if (!above_limit(set))
        return 0;
    struct candidates c = {.set = set, .err = err};
    int r = live_set_each(set, look_at_disk, &c, err);
    if (r == 0 && c.n > 0)
        qsort(c.list, c.n, sizeof *c.list, by_time);
    for (size_t i = 0; r == 0 && i < c.n && above_limit(set); i++) {
        struct live *l = NULL;
        r = live_get(set, &c.list[i].disk, &l, err);
        if (r == -ENOENT) {
            r = 0;
            continue;
        }
        if (r == 0) {
            evict_disk(l, c.list[i].when_ns);
            live_put(l);
        }
    }
    free(c.list);
    return r;
}
