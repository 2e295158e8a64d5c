/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_thaw: takes the youngest freeze back, if the live image was not changed since. Its table and layer become the live image's
 * again, as they were: nothing is copied, whatever the size of the disk.
 *
 *   volatile snapshot   one journal record, which survives kill -9; the empty table and layer of after the freeze go at once, because
 *                       no durable record has named them. After a power loss neither the freeze nor this record counts
 *   sealed snapshot     a durable record, as any drop: a power loss must not bring the snapshot back
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"

/* freeze exclusive, head_lock. An open layer has pages of dirty segments only, so it is empty when none is dirty. */
static bool untouched(const struct live *l, uint64_t seq)
{
    return l->nlv > 0 && l->lv[l->nlv - 1].seq == seq && seq >= l->head.first_seq && !atomic_load(&l->changed) &&
           atomic_load(&l->dirty) == 0;
}

/* The name becomes free with the record. */
static void thaw_head(struct live_head *nh, enum live_change left)
{
    const struct live_pend *p = &nh->pend[nh->npend - 1];
    nh->table = p->table;
    nh->layer = p->layer;
    nh->table_bytes = p->table_bytes;
    nh->map_bytes = p->map_bytes;
    nh->changed = left;
    if (nh->last_name_s == p->p.name_s)
        nh->last_name_s--;
    nh->npend--;
}

/* Before the record: the attributes in the layer's vol file, which are those of the live image again. */
static int put_state(struct live *l, uint64_t dirty, enum live_change left, struct verr *err)
{
    int64_t pages = atomic_load(&l->alloc_pages);
    const struct live_state st = {
        .size = atomic_load(&l->size), .alloc_bytes = pages > 0 ? (uint64_t)pages * PAGE_BYTES : 0,
        .mtime_ns = atomic_load(&l->mtime_ns), .dirty = dirty, .unknown = atomic_load(&l->unknown), .changed = left};
    return live_state_put(l, l->lv[l->nlv - 1].layer, &st, err);
}

/* After the record. Returns the level that was open until now. */
static struct lview switch_back(struct live *l, uint64_t dirty, enum live_change left)
{
    struct lview was = l->cur;
    l->cur = l->lv[--l->nlv];
    l->cur.seq = UINT64_MAX;
    atomic_store(&l->dirty, dirty);
    atomic_store(&l->changed, left);
    return was;
}

/* freeze exclusive, head_lock. */
static int thaw_volatile(struct live *l, enum live_change left, struct verr *err)
{
    struct live_head nh;
    int r = live_head_now(l, &nh, err);
    if (r < 0)
        return r;
    uint64_t dirty = nh.pend[nh.npend - 1].p.dirty_segments;
    r = put_state(l, dirty, left, err);
    if (r == 0) {
        thaw_head(&nh, left);
        r = ljournal_put(l, &nh, false, err);
    }
    if (r == 0) {
        fault_point("live.thaw.recorded");
        struct lview was = switch_back(l, dirty, left);
        ltable_discard(l, was.table);
        llayer_discard(l, was.layer);
    }
    live_head_release(&nh);
    return r < 0 ? r : 1;
}

static int thaw_sealed(struct live *l, uint64_t seq, enum live_change left, struct verr *err)
{
    struct live_head nh;
    int r = live_commit_begin(l, true, &nh, err);
    if (r < 0)
        return r;
    bool can = untouched(l, seq);
    uint64_t dirty = can ? nh.pend[nh.npend - 1].p.dirty_segments : 0;
    if (can)
        r = put_state(l, dirty, left, err);
    if (can && r == 0) {
        thaw_head(&nh, left);
        r = live_commit_put(l, &nh, err);
    }
    if (can && r == 0) {
        struct lview was = switch_back(l, dirty, left);
        live_table_goes(l, was.table);
        live_layer_goes(l, was.layer);
    }
    r = live_commit_end(l, true, &nh, r, err);
    return r < 0 ? r : can;
}

int live_thaw(struct live *l, uint64_t seq, enum live_change left, struct verr *err)
{
    int r = 0;
    pthread_rwlock_wrlock(&l->freeze);
    pthread_mutex_lock(&l->head_lock);
    bool can = untouched(l, seq);
    bool is_volatile = can && (l->head.pend[l->nlv - 1].p.flags & SNAP_SEALED) == 0 && l->cur.table->fresh && l->cur.layer->fresh;
    if (is_volatile)
        r = thaw_volatile(l, left, err);
    pthread_mutex_unlock(&l->head_lock);
    pthread_rwlock_unlock(&l->freeze);
    return can && !is_volatile ? thaw_sealed(l, seq, left, err) : r;
}
