/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_set: the disks of a STATE: a hash of open ones with reference counts, the unused among them in order of use.
 * A disk is opened at its first live_get and closed when more than open_max are unused; its files hold everything.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/endian.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one disk object ---- */

static int init_rwlock(pthread_rwlock_t *lock)
{
    /* Writers first: a freeze or a publication must not starve behind a busy guest. No thread takes one twice. */
    pthread_rwlockattr_t attr;
    if (pthread_rwlockattr_init(&attr) != 0)
        return -ENOMEM;
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    int r = pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
    return -r;
}

static struct live *live_new(struct live_set *set, const struct vid *disk)
{
    struct live *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->set = set;
    l->id = *disk;
    vid_hex(disk, l->hex);
    vid_hex(disk, l->dir);
    l->stage = LIVE_OPENING;
    bool ok = pthread_mutex_init(&l->hold_lock, NULL) == 0 && pthread_mutex_init(&l->sync_lock, NULL) == 0 &&
              pthread_mutex_init(&l->head_lock, NULL) == 0 && init_rwlock(&l->freeze) == 0;
    for (unsigned i = 0; ok && i < LIVE_STRIPES; i++)
        ok = init_rwlock(&l->segs[i]) == 0;
    if (!ok) {
        free(l);
        return NULL;
    }
    return l;
}

/* What the set counts for a layer becomes what it takes on disk now that it is closed (filesystems trim at close). */
static void settle_layer(struct live *l, struct llayer *ly)
{
    if (ly == NULL)
        return;
    struct stat st;
    char name[NAME_BYTES];
    int64_t charged = atomic_load(&ly->charged);
    bool cache = atomic_load(&ly->is_cache);
    _Atomic int64_t *counter = cache ? &l->set->cache_bytes : &l->set->layer_bytes;
    live_name(name, cache ? "cache" : "layer", ly->no, "");
    llayer_unref(ly);
    if (live_stat_file(l, name, &st) == 0)
        atomic_fetch_add(counter, (int64_t)st.st_blocks * 512 - charged);
}

/* Closes and frees; no I/O that could lose anything. */
static void live_release(struct live *l)
{
    for (unsigned i = 0; i < l->nlv; i++) {
        ltable_unref(l->lv[i].table);
        settle_layer(l, l->lv[i].layer);
    }
    ltable_unref(l->cur.table);
    settle_layer(l, l->cur.layer);
    settle_layer(l, l->cache);
    free(l->lv);
    free(l->gone);
    live_head_release(&l->head);
    lfile_end(&l->journal);
    for (unsigned i = 0; i < LIVE_STRIPES; i++)
        pthread_rwlock_destroy(&l->segs[i]);
    pthread_rwlock_destroy(&l->freeze);
    pthread_mutex_destroy(&l->head_lock);
    pthread_mutex_destroy(&l->sync_lock);
    pthread_mutex_destroy(&l->hold_lock);
    free(l);
}

/* ---- the hash. set->lock held. ---- */

static struct live **bucket_of(struct live_set *set, const struct vid *disk)
{
    return &set->buckets[get_le64(disk->b) % SET_BUCKETS];
}

static struct live *find(struct live_set *set, const struct vid *disk)
{
    struct live *l = *bucket_of(set, disk);
    while (l != NULL && !vid_eq(&l->id, disk))
        l = l->next;
    return l;
}

static void hash_add(struct live_set *set, struct live *l)
{
    struct live **b = bucket_of(set, &l->id);
    l->next = *b;
    *b = l;
}

static void hash_remove(struct live_set *set, struct live *l)
{
    struct live **p = bucket_of(set, &l->id);
    while (*p != l)
        p = &(*p)->next;
    *p = l->next;
}

static void unused_add(struct live_set *set, struct live *l)
{
    l->newer = NULL;
    l->older = set->newest;
    if (set->newest != NULL)
        set->newest->newer = l;
    else
        set->oldest = l;
    set->newest = l;
    set->unused++;
}

static void unused_remove(struct live_set *set, struct live *l)
{
    if (l->newer != NULL)
        l->newer->older = l->older;
    else
        set->newest = l->older;
    if (l->older != NULL)
        l->older->newer = l->newer;
    else
        set->oldest = l->newer;
    l->newer = l->older = NULL;
    set->unused--;
}

/* Waits while another thread opens or closes the disk. Returns the open disk, or NULL. */
static struct live *find_settled(struct live_set *set, const struct vid *disk)
{
    struct live *l;
    while ((l = find(set, disk)) != NULL && l->stage != LIVE_OPEN)
        pthread_cond_wait(&set->moved, &set->lock);
    return l;
}

static void take(struct live_set *set, struct live *l)
{
    if (l->refs++ == 0)
        unused_remove(set, l);
}

/* ---- opening and closing one ---- */

static int open_disk(struct live *l, struct verr *err)
{
    int dir = live_open_dir(l);
    if (dir == -ENOENT)
        return live_fail(l, err, ENOENT, "there is no such disk in STATE");
    if (dir < 0)
        return live_fail(l, err, -dir, "%s", strerror(-dir));
    close(dir);
    return live_recover(l, err);
}

/* The caller put l into the hash as OPENING. */
static int finish_open(struct live_set *set, struct live *l, struct live **out, struct verr *err)
{
    int r = open_disk(l, err);
    pthread_mutex_lock(&set->lock);
    if (r == 0) {
        l->stage = LIVE_OPEN;
        l->refs = 1;
        *out = l;
    } else {
        hash_remove(set, l);
    }
    pthread_cond_broadcast(&set->moved);
    pthread_mutex_unlock(&set->lock);
    if (r < 0)
        live_release(l);
    return r;
}

int live_get(struct live_set *set, const struct vid *disk, struct live **out, struct verr *err)
{
    pthread_mutex_lock(&set->lock);
    struct live *l = find_settled(set, disk);
    if (l != NULL) {
        take(set, l);
        pthread_mutex_unlock(&set->lock);
        *out = l;
        return 0;
    }
    l = live_new(set, disk);
    if (l != NULL)
        hash_add(set, l);
    pthread_mutex_unlock(&set->lock);
    return l == NULL ? verr_set(err, ENOMEM, "no memory") : finish_open(set, l, out, err);
}

int live_create(struct live_set *set, const struct vid *disk, uint64_t min_seq, int64_t last_name_s, struct live **out, struct verr *err)
{
    pthread_mutex_lock(&set->lock);
    struct live *l = find_settled(set, disk);
    if (l != NULL) {
        int e = live_fail(l, err, EEXIST, "is there already");
        pthread_mutex_unlock(&set->lock);
        return e;
    }
    l = live_new(set, disk);
    if (l != NULL)
        hash_add(set, l);           /* no other thread makes or opens it meanwhile */
    pthread_mutex_unlock(&set->lock);
    if (l == NULL)
        return verr_set(err, ENOMEM, "no memory");
    struct stat st;
    int r;
    if (fstatat(set->disksfd, l->hex, &st, AT_SYMLINK_NOFOLLOW) == 0)
        r = live_fail(l, err, EEXIST, "is there already");
    else
        r = live_write_new(set, disk, min_seq, last_name_s, err);
    if (r == 0)
        return finish_open(set, l, out, err);
    pthread_mutex_lock(&set->lock);
    hash_remove(set, l);
    pthread_cond_broadcast(&set->moved);
    pthread_mutex_unlock(&set->lock);
    live_release(l);
    return r;
}

/* Returns the unused disk to close: the oldest that is durable already, else the oldest. A disk that failed stays: its error is final. */
static struct live *choose_victim(struct live_set *set)
{
    struct live *second = NULL;
    for (struct live *l = set->oldest; l != NULL; l = l->newer) {
        if (atomic_load(&l->failed) != 0)
            continue;
        if (atomic_load(&l->clean))
            return l;
        if (second == NULL)
            second = l;
    }
    return second;
}

void live_put(struct live *l)
{
    if (l == NULL)
        return;
    struct live_set *set = l->set;
    struct live *victim = NULL;
    pthread_mutex_lock(&set->lock);
    if (--l->refs == 0) {
        unused_add(set, l);
        if (set->unused > set->env.open_max && (victim = choose_victim(set)) != NULL) {
            unused_remove(set, victim);
            victim->stage = LIVE_CLOSING;
        }
    }
    pthread_mutex_unlock(&set->lock);
    if (victim == NULL)
        return;
    /* Durable before it is closed, so that an error of the write-back cannot get lost with the descriptors. */
    int r = live_make_clean(victim, NULL);
    pthread_mutex_lock(&set->lock);
    if (r == 0) {
        hash_remove(set, victim);
    } else {
        victim->stage = LIVE_OPEN;
        unused_add(set, victim);
    }
    pthread_cond_broadcast(&set->moved);
    pthread_mutex_unlock(&set->lock);
    if (r == 0)
        live_release(victim);
}

/* ---- removing ---- */

struct sum { int dirfd; int64_t layers, caches; };

static int add_file(void *ctx, const char *name)
{
    struct sum *s = ctx;
    struct stat st;
    bool layer = strncmp(name, "layer-", 6) == 0, cache = strncmp(name, "cache-", 6) == 0;
    if ((!layer && !cache) || strchr(name, '.') != NULL)
        return 0;
    if (fstatat(s->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    *(layer ? &s->layers : &s->caches) += (int64_t)st.st_blocks * 512;
    return 0;
}

static int sum_disk(struct live_set *set, const char *hex, struct sum *s)
{
    s->dirfd = dir_open(set->disksfd, hex);
    if (s->dirfd < 0)
        return s->dirfd;
    int r = dir_each(s->dirfd, add_file, s);
    close(s->dirfd);
    return r;
}

/* Renames the directory, then takes it apart: under its final name it is whole or not there. Filesystems keep the order of changes of
 * names: a power loss that forgets the rename forgets all that came after it. */
static int remove_dir(struct live_set *set, const char *hex, bool durably, struct verr *err)
{
    char temp[VID_HEX + 12];
    snprintf(temp, sizeof temp, ".tmp-rm-%s", hex);
    struct sum s = {0};
    int r = tree_remove(set->disksfd, temp);
    if (r == 0)
        r = sum_disk(set, hex, &s);
    if (r == 0 && renameat(set->disksfd, hex, set->disksfd, temp) < 0)
        r = -errno;
    if (r == 0 && durably)
        r = dir_sync(set->disksfd);
    if (r < 0)
        return verr_set(err, -r, "disks/%s: cannot be removed: %s", hex, strerror(-r));
    atomic_fetch_sub(&set->layer_bytes, s.layers);
    atomic_fetch_sub(&set->cache_bytes, s.caches);
    tree_remove(set->disksfd, temp);        /* a part that stays goes at the next start */
    return 0;
}

static int remove_disk(struct live_set *set, const struct vid *disk, bool pending_too, struct verr *err)
{
    struct live *l = NULL;
    int r = live_get(set, disk, &l, err);
    if (r != 0)
        return r;
    char hex[VID_HEX];
    memcpy(hex, l->hex, sizeof hex);
    pthread_mutex_lock(&set->lock);
    if (l->refs > 1)
        r = live_fail(l, err, EBUSY, "is in use");
    else if (l->nlv > 0 && !pending_too)
        r = live_fail(l, err, EBUSY, "has pending snapshots");
    if (r == 0) {
        l->refs = 0;
        l->stage = LIVE_CLOSING;
    }
    pthread_mutex_unlock(&set->lock);
    if (r < 0) {
        live_put(l);
        return r;
    }
    /* The disk is closed before its files are summed up, so that the set's counters agree with what is on disk. An object that is
     * CLOSING keeps its place in the hash, so that others wait. */
    struct live *holder = live_new(set, disk);
    if (holder != NULL) {
        holder->stage = LIVE_CLOSING;
        pthread_mutex_lock(&set->lock);
        hash_remove(set, l);
        hash_add(set, holder);
        pthread_mutex_unlock(&set->lock);
        live_release(l);
        r = remove_dir(set, hex, pending_too, err);      /* its pending snapshots must not come back */
    } else {
        holder = l;
        r = verr_set(err, ENOMEM, "no memory");
    }
    pthread_mutex_lock(&set->lock);
    hash_remove(set, holder);
    pthread_cond_broadcast(&set->moved);
    pthread_mutex_unlock(&set->lock);
    live_release(holder);
    return r;
}

int live_remove(struct live_set *set, const struct vid *disk, struct verr *err)
{
    return remove_disk(set, disk, false, err);
}

int live_discard(struct live_set *set, const struct vid *disk, struct verr *err)
{
    return remove_disk(set, disk, true, err);
}

/* ---- the set ---- */

struct each { int (*fn)(void *ctx, const struct vid *disk); void *ctx; struct verr *err; int verdict; };

static int each_name(void *ctx, const char *name)
{
    struct each *e = ctx;
    struct vid id;
    if (name[0] == '.')
        return 0;
    if (vid_parse(name, &id) < 0)
        e->verdict = verr_set(e->err, EBADMSG, "disks/%s: is not the directory of a disk", name);
    else
        e->verdict = e->fn(e->ctx, &id);
    return e->verdict != 0;
}

int live_set_each(struct live_set *set, int (*fn)(void *ctx, const struct vid *disk), void *ctx, struct verr *err)
{
    struct each e = {fn, ctx, err, 0};
    int r = dir_each(set->disksfd, each_name, &e);
    if (e.verdict != 0)
        return e.verdict;
    return r < 0 ? verr_set(err, -r, "disks: cannot be listed: %s", strerror(-r)) : 0;
}

static int remove_temp(void *ctx, const char *name)
{
    return strncmp(name, ".tmp-", 5) == 0 ? tree_remove(*(const int *)ctx, name) : 0;
}

/* Removes the volatile presence of one disk when it may not be believed; then counts what its layers take. */
static int enter_disk(void *ctx, const struct vid *disk)
{
    struct live_set *set = ctx;
    char hex[VID_HEX];
    vid_hex(disk, hex);
    struct sum s = {0};
    int r = 0;
    if (!set->env.trusted) {
        int dirfd = dir_open(set->disksfd, hex);
        r = dirfd < 0 ? dirfd : live_forget_volatile(dirfd);
        if (dirfd >= 0)
            close(dirfd);
    }
    if (r == 0)
        r = sum_disk(set, hex, &s);
    atomic_fetch_add(&set->layer_bytes, s.layers);
    atomic_fetch_add(&set->cache_bytes, s.caches);
    return r;
}

int live_set_open(const struct live_env *env, struct live_set **out, struct verr *err)
{
    struct live_set *set = calloc(1, sizeof *set);
    if (set == NULL || (set->memo = lmemo_new()) == NULL || (set->files = lfiles_new(env->files_max)) == NULL) {
        if (set != NULL)
            lmemo_free(set->memo);
        free(set);
        return verr_set(err, ENOMEM, "no memory");
    }
    set->env = *env;
    pthread_mutex_init(&set->lock, NULL);
    pthread_cond_init(&set->moved, NULL);
    int r = set->disksfd = dir_make(env->state_dirfd, "disks");
    if (r >= 0)
        r = dir_sync(env->state_dirfd);
    if (r == 0)
        r = dir_each(set->disksfd, remove_temp, &set->disksfd);
    if (r == 0)
        r = live_ready_enter(set);
    if (r < 0)
        r = verr_set(err, -r, "disks: %s", strerror(-r));
    if (r == 0) {
        r = live_set_each(set, enter_disk, set, err);
        if (r < 0 && err != NULL && err->code == 0)
            verr_set(err, -r, "disks: %s", strerror(-r));
    }
    if (r < 0) {
        if (set->disksfd >= 0)
            close(set->disksfd);
        pthread_cond_destroy(&set->moved);
        pthread_mutex_destroy(&set->lock);
        lmemo_free(set->memo);
        lfiles_free(set->files);
        free(set);
        return r;
    }
    *out = set;
    return 0;
}

int live_set_close(struct live_set *set, struct verr *err)
{
    int r = 0;
    if (set == NULL)
        return 0;
    live_ready_remove(set);
    for (unsigned i = 0; i < SET_BUCKETS; i++) {
        struct live *l;
        while ((l = set->buckets[i]) != NULL) {
            int e = live_make_clean(l, r == 0 ? err : NULL);
            r = r == 0 ? e : r;
            set->buckets[i] = l->next;
            live_release(l);
        }
    }
    close(set->disksfd);
    pthread_cond_destroy(&set->moved);
    pthread_mutex_destroy(&set->lock);
    lmemo_free(set->memo);
    lfiles_free(set->files);
    free(set);
    return r;
}

void live_set_space(struct live_set *set, struct live_space *out)
{
    int64_t layers = atomic_load(&set->layer_bytes), cache = atomic_load(&set->cache_bytes);
    out->layers_bytes = layers > 0 ? (uint64_t)layers : 0;
    out->cache_bytes = cache > 0 ? (uint64_t)cache : 0;
    out->layer_limit = set->env.layer_limit;
}
