/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_state: the attributes of the live image that change with every write: size, mtime, allocated pages, the counts of dirty
 * and unknown entries, `changed` and `clean`. They stand in the header of the open layer's vol file, so that they survive kill -9.
 * A change goes into the file first where a kill must not forget it: `changed` and a size that grows before the data count,
 * `clean` off before anything else of the disk changes.
 */
#include "live/live_disk.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { MTIME_STEP_NS = 1000000000 };

/* ---- in the vol file's header ---- */

int live_state_get(struct live *l, struct llayer *ly, struct live_state *out, struct verr *err)
{
    uint8_t raw[LIVE_STATE_BYTES];
    ssize_t got = lfile_read(&ly->vol, raw, sizeof raw, LIVE_STATE_OFF);
    if (got < 0)
        return live_fail(l, err, (int)-got, "layer-%" PRIu64 ".vol: %s", ly->no, strerror((int)-got));
    if (got != (ssize_t)sizeof raw || live_state_decode(&l->id, ly->no, raw, out) < 0)
        return live_fail(l, err, EBADMSG, "layer-%" PRIu64 ".vol: the attributes in its header are damaged", ly->no);
    return 0;
}

int live_state_put(struct live *l, struct llayer *ly, const struct live_state *st, struct verr *err)
{
    uint8_t raw[LIVE_STATE_BYTES];
    live_state_encode(&l->id, ly->no, st, raw);
    int r = lfile_write(&ly->vol, raw, sizeof raw, LIVE_STATE_OFF);
    return r < 0 ? live_fail(l, err, -r, "layer-%" PRIu64 ".vol: %s", ly->no, strerror(-r)) : 0;
}

int live_state_save(struct live *l, struct verr *err)
{
    int64_t pages = atomic_load(&l->alloc_pages);
    const struct live_state st = {
        .size = atomic_load(&l->size),
        .alloc_bytes = pages > 0 ? (uint64_t)pages * PAGE_BYTES : 0,
        .mtime_ns = atomic_load(&l->mtime_ns),
        .dirty = atomic_load(&l->dirty),
        .unknown = atomic_load(&l->unknown),
        .changed = atomic_load(&l->changed),
        .clean = atomic_load(&l->clean),
    };
    return live_state_put(l, l->cur.layer, &st, err);
}

int live_unclean_locked(struct live *l, struct verr *err)
{
    if (!atomic_load(&l->clean))
        return 0;
    atomic_store(&l->clean, false);
    int r = live_state_save(l, err);
    if (r < 0)
        atomic_store(&l->clean, true);
    return r;
}

int live_unclean(struct live *l, struct verr *err)
{
    if (!atomic_load(&l->clean))
        return 0;
    pthread_mutex_lock(&l->head_lock);
    int r = live_unclean_locked(l, err);
    pthread_mutex_unlock(&l->head_lock);
    return r;
}

/* Called before the first changed byte: a kill never leaves a change without the mark that gets it a snapshot. */
int live_set_changed(struct live *l, struct verr *err)
{
    if (atomic_load(&l->changed) == LIVE_CHANGED && !atomic_load(&l->clean))
        return 0;
    return live_set_change(l, LIVE_CHANGED, err);
}

int live_set_change(struct live *l, enum live_change to, struct verr *err)
{
    pthread_mutex_lock(&l->head_lock);
    int r = live_unclean_locked(l, err);
    enum live_change was = atomic_load(&l->changed);
    if (r == 0 && was != LIVE_CHANGED && was != to) {
        atomic_store(&l->changed, to);
        r = live_state_save(l, err);
        if (r < 0)
            atomic_store(&l->changed, was);
    }
    pthread_mutex_unlock(&l->head_lock);
    return r;
}

/* Changes mtime in memory at once, in the vol file only when its second changes: that saves a system call per write. */
void live_note_mtime(struct live *l)
{
    int64_t now = (int64_t)live_now(l), old = atomic_exchange(&l->mtime_ns, now);
    if (now / MTIME_STEP_NS == old / MTIME_STEP_NS)
        return;
    pthread_mutex_lock(&l->head_lock);
    live_state_save(l, NULL);       /* the next change of the second tries again */
    pthread_mutex_unlock(&l->head_lock);
}

int live_grow(struct live *l, uint64_t end, struct verr *err)
{
    if (end <= atomic_load(&l->size))
        return 0;
    int r = 0;
    pthread_mutex_lock(&l->head_lock);
    uint64_t old = atomic_load(&l->size);
    if (end > old) {
        atomic_store(&l->size, end);
        r = live_state_save(l, err);
        if (r < 0)
            atomic_store(&l->size, old);
    }
    pthread_mutex_unlock(&l->head_lock);
    return r;
}

int live_extend(struct live *l, uint64_t end, struct verr *err)
{
    pthread_rwlock_rdlock(&l->freeze);
    int r = live_set_changed(l, err);
    if (r == 0)
        r = live_grow(l, end, err);
    if (r == 0)
        live_note_mtime(l);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

void live_alloc_add(struct live *l, int64_t pages)
{
    if (pages != 0)
        atomic_fetch_add(&l->alloc_pages, pages);
}

/* ---- as callers see them ---- */

int live_attr(struct live *l, struct live_attr *out, struct verr *err)
{
    (void)err;
    struct live_attr a = {0};
    pthread_mutex_lock(&l->head_lock);
    a.size = atomic_load(&l->size);
    a.mtime_ns = atomic_load(&l->mtime_ns);
    a.changed = atomic_load(&l->changed) != LIVE_UNCHANGED;
    a.unkept = atomic_load(&l->changed) == LIVE_UNKEPT;
    a.dirty_segments = atomic_load(&l->dirty);
    a.marks = l->head.marks;
    a.next_seq = l->head.next_seq;
    a.last_name_s = l->head.last_name_s;
    a.pending = l->head.npend;
    int64_t pages = atomic_load(&l->alloc_pages);
    bool unsure = atomic_load(&l->unknown) > 0;
    pthread_mutex_unlock(&l->head_lock);
    /* Where pages of some segments are unknown the sum is an estimate; it must not say "empty". */
    if (pages <= 0)
        pages = unsure ? 1 : 0;
    uint64_t most = (a.size + PAGE_BYTES - 1) / PAGE_BYTES;
    a.alloc_bytes = ((uint64_t)pages < most ? (uint64_t)pages : most) * PAGE_BYTES;
    *out = a;
    return 0;
}

int live_set_mtime(struct live *l, int64_t mtime_ns, struct verr *err)
{
    pthread_rwlock_rdlock(&l->freeze);
    pthread_mutex_lock(&l->head_lock);
    int64_t old = atomic_exchange(&l->mtime_ns, mtime_ns);
    int r = live_unclean_locked(l, err);
    if (r == 0)
        r = live_state_save(l, err);
    if (r < 0)
        atomic_store(&l->mtime_ns, old);
    pthread_mutex_unlock(&l->head_lock);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}
