/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_places: the places in STORE on which a disk relies, table by table. Tables are read a slice at a time, so publication and freeze
 * may go on meanwhile: a place that is new by then was checked by who brought it.
 */
#include "live/live_level.h"

#include <errno.h>
#include <stdlib.h>

/* Copies the level of that number, 0 the live image, others pending snapshots, oldest first, and refers to it; false: there is none. */
static bool level_get(struct live *l, unsigned i, struct lview *out)
{
    pthread_rwlock_rdlock(&l->freeze);
    bool any = i <= l->nlv;
    if (any) {
        *out = i == 0 ? l->cur : l->lv[i - 1];
        ltable_ref(out->table);
        llayer_ref(out->layer);
    }
    pthread_rwlock_unlock(&l->freeze);
    return any;
}

/* Has the layer all of the segment's pages, so that nobody looks below it? */
static bool is_whole(struct live *l, struct llayer *ly, uint64_t seg)
{
    struct live_slot s;
    return lslot_get(l, ly, seg, &s, NULL) == 0 && lslot_present(&s) == SEG_PAGES;
}

static int level_places(struct live *l, const struct lview *v, live_believed_fn fn, void *ctx, struct verr *err)
{
    struct lslice *slice = malloc(sizeof *slice);
    int r = slice == NULL ? live_fail(l, err, ENOMEM, "no memory") : 0;
    for (uint64_t seg = r == 0 ? ltable_next(v->table, 0) : UINT64_MAX; r == 0 && seg != UINT64_MAX;
         seg = ltable_next(v->table, slice->first + SLICE_SEGS)) {
        r = ltable_slice_get(l, v->table, seg / SLICE_SEGS * SLICE_SEGS, slice, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++)
            if (slice->e[i].kind == SEGK_STORED && !is_whole(l, v->layer, slice->first + i))
                r = fn(ctx, slice->first + i, slice->e[i].value);
    }
    free(slice);
    return r;
}

int live_believed_each(struct live *l, bool pending, live_believed_fn fn, void *ctx, struct verr *err)
{
    struct lview v;
    int r = 0;
    for (unsigned i = 0; r == 0 && (i == 0 || pending) && level_get(l, i, &v); i++) {
        r = level_places(l, &v, fn, ctx, err);
        ltable_unref(v.table);
        llayer_unref(v.layer);
    }
    return r;
}
