/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_drop: takes a pending snapshot back. Its successor is the next younger pending one, or the live image.
 *
 *   1. merge    each segment that is "frozen SEQ" in the successor: dirty bit there, pages copied into its layer
 *   2. sync     the successor's table, layer and presence: durable, before anything says that SEQ is not needed
 *   3. rewrite  successor: "frozen SEQ" -> the dropped table's entry; still younger ones -> "frozen SUCCESSOR"
 *   4. sync     those tables; complete record without SEQ; fdatasync(journal); table and layer go
 *
 * Each step leaves every level's content as it was, whether the head before or after it is read, so a crash anywhere is
 * either "not dropped" or "dropped", and a round that is reading the snapshot reads what it had until the record, then -ESTALE. Where
 * the successor is the live image and has not changed, live_thaw does it without a copy.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct drop {
    struct live *l;
    unsigned at;                    /* position of the dropped level; stays as it is: sync_lock */
    struct lview from;              /* referenced */
    uint64_t added;                 /* dirty bits set in a successor that is pending */
    struct lslice base, work;
    uint8_t buf[MERGE_BYTES];
};

/* freeze held. */
static const struct lview *successor(const struct drop *d)
{
    struct live *l = d->l;
    return d->at + 1 < l->nlv ? &l->lv[d->at + 1] : &l->cur;
}

static int merge_pages(struct drop *d, const struct lview *to, bool live, uint64_t seg, const struct live_entry *e, struct verr *err)
{
    struct live *l = d->l;
    struct live_slot from, s;
    int r = lslot_get(l, d->from.layer, seg, &from, err);
    if (r == 0)
        r = lslot_get(l, to->layer, seg, &s, err);
    if (r < 0 || lslot_present(&from) == 0)
        return r;
    unsigned before = lslot_alloc(&s, e->pages);
    uint64_t bytes = 0;
    const struct lmerge m = {l, d->from.layer, l, to->layer, d->buf, false};     /* no bound: the dropped layer gives back as much */
    r = live_merge_pages(&m, seg, &from, &s, &bytes, err);
    if (r == 0)
        r = lslot_put(l, to->layer, seg, &s, err);
    if (r < 0)
        llayer_charge(to->layer, -(int64_t)bytes);
    else if (live)
        live_alloc_add(l, (int64_t)lslot_alloc(&s, e->pages) - (int64_t)before);
    return r;
}

/* Step 1 for one segment. freeze held shared. */
static int merge_segment(struct drop *d, uint64_t seg, struct verr *err)
{
    struct live *l = d->l;
    const struct lview *to = successor(d);
    bool live = to == &l->cur;
    struct live_entry e;
    pthread_rwlock_t *lock = live_seg_lock(l, seg);
    pthread_rwlock_wrlock(lock);
    int r = ltable_get(l, to->table, seg, &e, err);
    if (r == 0 && e.kind == SEGK_FROZEN && e.value == d->from.seq) {
        if (live) {
            r = live_entry_dirty(l, seg, &e, err);     /* what it is to the live image live_drop_at has noted */
        } else if (!e.dirty) {
            e.dirty = true;
            r = ltable_put(l, to->table, seg, &e, err);
            d->added += r == 0;
        }
        if (r == 0)
            r = merge_pages(d, to, live, seg, &e, err);
    }
    pthread_rwlock_unlock(lock);
    return r;
}

/* The next segment at which the dropped table or a younger one has entries. After a power loss the dirty bits of a volatile
 * snapshot may be gone, while younger tables, which were synced since, still say "frozen SEQ": they must be looked at, too. */
static uint64_t next_entry(struct drop *d, uint64_t seg)
{
    struct live *l = d->l;
    pthread_rwlock_rdlock(&l->freeze);
    uint64_t next = ltable_next(l->cur.table, seg);
    for (unsigned i = d->at; next > seg && i < l->nlv; i++) {
        uint64_t at = ltable_next(l->lv[i].table, seg);
        next = at < next ? at : next;
    }
    pthread_rwlock_unlock(&l->freeze);
    return next;
}

static int merge(struct drop *d, struct verr *err)
{
    struct live *l = d->l;
    struct ltable *t = d->from.table;
    int r = 0;
    for (uint64_t seg = next_entry(d, 0); r == 0 && seg != UINT64_MAX; seg = next_entry(d, d->base.first + SLICE_SEGS)) {
        r = ltable_slice_get(l, t, seg / SLICE_SEGS * SLICE_SEGS, &d->base, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++) {
            if (!d->base.e[i].dirty && !l->recovering)
                continue;
            pthread_rwlock_rdlock(&l->freeze);
            r = merge_segment(d, d->base.first + i, err);
            pthread_rwlock_unlock(&l->freeze);
        }
    }
    fault_point("live.drop.after_merge");
    return r;
}

/* Step 2. A successor that is live now may be frozen meanwhile; live_fsync captures its layer before that or not at all. */
static int sync_successor(struct drop *d, struct verr *err)
{
    struct live *l = d->l;
    pthread_rwlock_rdlock(&l->freeze);
    struct lview to = *successor(d);
    bool live = to.layer == l->cur.layer;
    ltable_ref(to.table);
    llayer_ref(to.layer);
    pthread_rwlock_unlock(&l->freeze);
    int r = 0;
    if (live)
        r = live_fsync_locked(l, l->recovering ? SEAL_NONE : d->from.seq, err);
    /* A successor that was frozen in between still has slots that no capture took. */
    pthread_rwlock_rdlock(&l->freeze);
    live = to.layer == l->cur.layer;
    pthread_rwlock_unlock(&l->freeze);
    if (r == 0 && !live) {
        r = ltable_sync(l, to.table, err);
        if (r == 0)
            r = llayer_seal(l, to.layer, err);
    }
    ltable_unref(to.table);
    llayer_unref(to.layer);
    return r;
}

/* freeze held exclusively. */
static int rewrite_slice(struct drop *d, const struct lview *v, const struct lview *next, struct verr *err)
{
    bool any = false;
    int r = ltable_slice_get(d->l, v->table, d->base.first, &d->work, err);
    for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++) {
        struct live_entry *e = &d->work.e[i];
        if (e->kind != SEGK_FROZEN || e->value != d->from.seq)
            continue;
        if (v == next) {
            *e = d->base.e[i];      /* its dirty bit was set in step 1, and is set in the dropped entry */
            e->dirty = true;
        } else {
            e->value = next->seq;
        }
        any = true;
    }
    return r == 0 && any ? ltable_slice_put(d->l, v->table, &d->work, err) : r;
}

static int rewrite(struct drop *d, struct verr *err)
{
    struct live *l = d->l;
    struct ltable *t = d->from.table;
    int r = 0;
    for (uint64_t seg = next_entry(d, 0); r == 0 && seg != UINT64_MAX; seg = next_entry(d, d->base.first + SLICE_SEGS)) {
        r = ltable_slice_get(l, t, seg / SLICE_SEGS * SLICE_SEGS, &d->base, err);
        pthread_rwlock_wrlock(&l->freeze);
        const struct lview *next = successor(d);
        /* Youngest first: what reads "frozen SUCCESSOR" must not do so before the successor has the content: it has since
         * step 1. */
        if (r == 0 && next != &l->cur)
            r = rewrite_slice(d, &l->cur, next, err);
        for (unsigned i = d->at + 1; r == 0 && i < l->nlv; i++)
            r = rewrite_slice(d, &l->lv[i], next, err);
        if (r == 0 && next == &l->cur)
            r = rewrite_slice(d, next, next, err);
        pthread_rwlock_unlock(&l->freeze);
    }
    fault_point("live.drop.after_rewrite");
    return r;
}

static void take_off(struct drop *d)
{
    struct live *l = d->l;
    unsigned after = l->nlv - d->at - 1;
    memmove(&l->lv[d->at], &l->lv[d->at + 1], after * sizeof *l->lv);
    l->nlv--;
    live_table_goes(l, d->from.table);
    live_layer_goes(l, d->from.layer);
}

static int finish(struct drop *d, struct verr *err)
{
    struct live *l = d->l;
    struct live_head nh;
    int r = live_commit_begin(l, true, &nh, err);
    if (r < 0)
        return r;
    unsigned after = nh.npend - d->at - 1;
    if (after > 0)
        nh.pend[d->at + 1].p.dirty_segments += d->added;
    memmove(&nh.pend[d->at], &nh.pend[d->at + 1], after * sizeof *nh.pend);
    nh.npend--;
    r = live_commit_put(l, &nh, err);
    if (r == 0)
        take_off(d);
    return live_commit_end(l, true, &nh, r, err);
}

int live_drop_at(struct live *l, unsigned i, enum live_change left, struct verr *err)
{
    struct drop *d = calloc(1, sizeof *d);
    if (d == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    d->l = l;
    d->at = i;
    pthread_mutex_lock(&l->head_lock);
    d->from = l->lv[i];
    ltable_ref(d->from.table);
    llayer_ref(d->from.layer);
    bool youngest = i + 1 == l->nlv;
    pthread_mutex_unlock(&l->head_lock);
    int r = youngest ? live_set_change(l, left, err) : 0;   /* what it froze is unsnapshotted again */
    if (r == 0)
        r = merge(d, err);
    if (r == 0)
        r = sync_successor(d, err);
    if (r == 0)
        r = rewrite(d, err);
    if (r == 0)
        r = live_sync_younger(l, i, err);
    if (r == 0)
        r = finish(d, err);
    ltable_unref(d->from.table);
    llayer_unref(d->from.layer);
    free(d);
    return r;
}

static int drop_locked(struct live *l, uint64_t seq, enum live_change left, struct verr *err)
{
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, err);
    r = i < 0 ? i : 0;
    /* The next younger one's dirty set would grow, which a round that stores it must not see. */
    unsigned next = (unsigned)i + 1;
    if (r == 0 && next < l->nlv && (l->head.pend[next].p.flags & SNAP_STARTED) != 0)
        r = live_fail(l, err, EBUSY, "snapshot %" PRIu64 " is being stored", l->lv[next].seq);
    pthread_mutex_unlock(&l->head_lock);
    if (r == 0)
        r = live_thaw(l, seq, left, err);
    return r < 0 ? r : r == 1 ? 0 : live_drop_at(l, (unsigned)i, left, err);
}

static int drop(struct live *l, uint64_t seq, enum live_change left, struct verr *err)
{
    pthread_mutex_lock(&l->sync_lock);
    int r = drop_locked(l, seq, left, err);
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}

int live_pending_drop(struct live *l, uint64_t seq, struct verr *err) { return drop(l, seq, LIVE_CHANGED, err); }

int live_pending_remove(struct live *l, uint64_t seq, struct verr *err) { return drop(l, seq, LIVE_UNKEPT, err); }
