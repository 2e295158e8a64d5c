/* SPDX-License-Identifier: Apache-2.0 */
/* live_fresh: a new table and a new layer that take the place of the live image's (revert, rewrite, take). */
#include "live/live_head.h"
#include "live/live_level.h"

int live_make_fresh(struct live *l, struct live_fresh *f, struct verr *err)
{
    const struct live_state st = {
        .size = f->size, .mtime_ns = (int64_t)live_now(l), .alloc_bytes = (uint64_t)f->alloc_pages * PAGE_BYTES,
        .dirty = f->dirty, .unknown = f->unknown, .changed = f->changed};
    return llayer_create(l, live_new_no(l), &st, &f->layer, err);
}

void live_discard_fresh(struct live *l, struct live_fresh *f)
{
    ltable_discard(l, f->table);
    llayer_discard(l, f->layer);
}

/* The cache goes too: what it holds belongs to places that the new table may never name. */
void live_name_fresh(struct live_head *nh, const struct live_fresh *f)
{
    nh->size = f->size;
    nh->table = f->table->no;
    nh->table_bytes = f->table->synced_bytes;
    nh->layer = f->layer->no;
    nh->map_bytes = f->layer->map_bytes;
    nh->cache = 0;
    nh->first_seq = nh->next_seq;
    nh->alloc_bytes = (uint64_t)f->alloc_pages * PAGE_BYTES;
    nh->changed = f->changed;
}

void live_use_fresh(struct live *l, struct live_fresh *f)
{
    live_table_goes(l, l->cur.table);
    live_layer_goes(l, l->cur.layer);
    if (l->cache != NULL)
        live_layer_goes(l, l->cache);
    l->cache = NULL;
    l->cur = (struct lview){UINT64_MAX, f->table, f->layer};
    atomic_store(&l->size, f->size);
    atomic_store(&l->mtime_ns, (int64_t)live_now(l));
    atomic_store(&l->alloc_pages, f->alloc_pages);
    atomic_store(&l->unknown, f->unknown);
    atomic_store(&l->dirty, f->dirty);
    atomic_store(&l->changed, f->changed);
    f->table = NULL;
    f->layer = NULL;
}
