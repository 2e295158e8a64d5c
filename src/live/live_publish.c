/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_publish: ends a pending snapshot whose recipe is in STORE.
 *
 *   entries "frozen SEQ" of younger tables become stored places (in place, slice by slice: both say the same content, so
 *   any mixture is right under the old head and the new one) -> fdatasync(tables) -> complete record without the snapshot,
 *   with the recipe's anchor -> fdatasync(journal) -> its table goes, its layer becomes cache or goes
 *
 * The snapshot need not be sealed before: its data are durable in STORE, and from the record on nothing looks for them in the layer.
 * A snapshot that is never sealed saves the device the fsync of its data. Until the record is durable a power loss drops such a
 * snapshot here, as any volatile one; STORE has it all the same, and live_raise keeps its number from being given again.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct publish {
    struct live *l;
    struct lview from;              /* the published level, referenced */
    uint64_t segments;              /* of the snapshot */
    live_place_fn fn;
    void *ctx;
    enum cache_plan plan;
    struct lslice base, work;
    struct live_entry at[SLICE_SEGS];       /* what the recipe says of the dirty segments of base */
};

/* Asks for the places of one slice's dirty segments. No lock is held: the answer may come from STORE. */
static int ask_places(struct publish *p, struct verr *err)
{
    for (unsigned i = 0; i < SLICE_SEGS; i++) {
        uint64_t seg = p->base.first + i;
        p->at[i] = (struct live_entry){SEGK_ZERO, false, 0, 0};
        /* Behind the end of the snapshot all is zero. */
        int r = p->base.e[i].dirty && seg < p->segments ? live_entry_ask(p->fn, p->ctx, seg, &p->at[i], err) : 0;
        if (r < 0)
            return r;
    }
    return 0;
}

static struct live_entry placed_entry(const struct live_entry *at, const struct live_entry *old)
{
    return (struct live_entry){at->kind, old->dirty, at->pages == LIVE_PAGES_UNKNOWN ? old->pages : at->pages, at->value};
}

/* The live image's sum of allocated pages: an exact number replaces an estimate, unless its own layer decides. */
static int correct_alloc(struct live *l, uint64_t seg, const struct live_entry *old, const struct live_entry *now, struct verr *err)
{
    struct live_slot s = {0};
    int r = old->dirty ? lslot_get(l, l->cur.layer, seg, &s, err) : 0;
    if (r == 0 && lslot_present(&s) == 0)
        live_alloc_add(l, (int64_t)now->pages - (int64_t)old->pages);
    return r;
}

/* freeze held exclusively. */
static int rewrite_slice(struct publish *p, const struct lview *v, bool live, struct verr *err)
{
    struct live *l = p->l;
    bool any = false;
    int r = ltable_slice_get(l, v->table, p->base.first, &p->work, err);
    for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++) {
        struct live_entry *e = &p->work.e[i];
        if (e->kind != SEGK_FROZEN || e->value != p->from.seq)
            continue;
        if (!p->base.e[i].dirty)
            return live_fail(l, err, EBADMSG, "table-%" PRIu64 ": segment %" PRIu64 " is frozen in snapshot %" PRIu64 ", where it is clean",
                             v->table->no, p->base.first + i, p->from.seq);
        struct live_entry now = placed_entry(&p->at[i], e);
        if (live)
            r = correct_alloc(l, p->base.first + i, e, &now, err);
        *e = now;
        any = true;
    }
    return r == 0 && any ? ltable_slice_put(l, v->table, &p->work, err) : r;
}

static int rewrite_younger(struct publish *p, struct verr *err)
{
    struct live *l = p->l;
    pthread_rwlock_wrlock(&l->freeze);
    int r = rewrite_slice(p, &l->cur, true, err);
    for (unsigned i = 1; r == 0 && i < l->nlv; i++)     /* 0 is the published one: the oldest */
        r = rewrite_slice(p, &l->lv[i], false, err);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

static int publish_entries(struct publish *p, struct verr *err)
{
    struct ltable *t = p->from.table;
    int r = 0;
    for (uint64_t seg = ltable_next(t, 0); r == 0 && seg != UINT64_MAX; seg = ltable_next(t, p->base.first + SLICE_SEGS)) {
        r = ltable_slice_get(p->l, t, seg / SLICE_SEGS * SLICE_SEGS, &p->base, err);
        if (r == 0)
            r = ask_places(p, err);
        if (r == 0)
            r = rewrite_younger(p, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++)
            if (p->at[i].kind == SEGK_STORED)
                live_cache_take(p->l, p->plan, p->from.layer, p->base.first + i, &p->base.e[i], p->at[i].value);
    }
    fault_point("live.publish.after_entries");
    return r;
}

/* In memory, after the record: level 0 is no more. freeze exclusive, head_lock. */
static void take_off(struct live *l, enum cache_plan plan)
{
    struct lview gone = l->lv[0];
    memmove(l->lv, l->lv + 1, --l->nlv * sizeof *l->lv);
    live_table_goes(l, gone.table);
    if (plan != CACHE_BECOME) {
        live_layer_goes(l, gone.layer);
        return;
    }
    if (l->cache != NULL)
        live_layer_goes(l, l->cache);
    ljournal_gone(l, BECOMES_CACHE, gone.layer->no);
    llayer_to_cache(gone.layer);
    l->cache = gone.layer;
}

static int finish(struct publish *p, const struct live_anchor *mine, struct live_anchor *drop, unsigned drop_max, unsigned *dropped,
                  struct verr *err)
{
    struct live *l = p->l;
    struct live_head nh;
    int r = live_commit_begin(l, true, &nh, err);
    if (r < 0)
        return r;
    nh.size = live_sealed_size(l, p->from.seq);
    memmove(nh.pend, nh.pend + 1, --nh.npend * sizeof *nh.pend);
    if (mine != NULL)
        r = live_list_anchor(l, &nh, mine, mine->stamp, NULL, err);
    if (p->plan == CACHE_BECOME)
        nh.cache = p->from.layer->no;
    unsigned n = live_anchors_obsolete(&nh, p->from.seq, mine, drop, drop_max);
    if (r == 0)
        r = live_commit_put(l, &nh, err);
    if (r == 0)
        take_off(l, p->plan);
    r = live_commit_end(l, true, &nh, r, err);
    if (r == 0)
        *dropped = n;
    return r;
}

static int begin(struct publish *p, uint64_t seq, struct verr *err)
{
    struct live *l = p->l;
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, err);
    r = i < 0 ? i : 0;
    if (i > 0)
        r = live_fail(l, err, EINVAL, "snapshot %" PRIu64 " is not the oldest pending one", seq);
    if (r == 0) {
        p->from = l->lv[0];
        p->segments = seg_count(l->head.pend[0].p.size);
        ltable_ref(p->from.table);
        llayer_ref(p->from.layer);
    }
    pthread_mutex_unlock(&l->head_lock);
    if (r == 0)
        p->plan = live_cache_plan(l, p->from.layer);
    return r;
}

int live_pending_published(struct live *l, uint64_t seq, live_place_fn fn, void *ctx, const struct live_anchor *mine,
                           struct live_anchor *drop, unsigned drop_max, unsigned *dropped, struct verr *err)
{
    struct publish *p = calloc(1, sizeof *p);
    if (p == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    p->l = l;
    p->fn = fn;
    p->ctx = ctx;
    pthread_mutex_lock(&l->sync_lock);
    int r = begin(p, seq, err);
    if (r == 0) {
        r = publish_entries(p, err);
        if (r == 0)
            r = live_sync_younger(l, 0, err);
        if (r == 0)
            r = finish(p, mine, drop, drop_max, dropped, err);
        ltable_unref(p->from.table);
        llayer_unref(p->from.layer);
    }
    pthread_mutex_unlock(&l->sync_lock);
    free(p);
    return r;
}
