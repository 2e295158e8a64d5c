/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_take: the content of one disk becomes the content of another (rename onto an existing disk).
 *
 * Order: all of src durable -> a new table and layer of dst: table and presence are written anew, because they carry the disk's id; the
 * data file is a second link to src's, or, where pending snapshots of src show through its live image or src is read on, a copy of what
 * shows -> fdatasync of all -> one record of dst, durable. A kill before the record changes nothing; after it both disks have the content
 * and may share the data file until src is removed: recovery copies the file before it opens such a disk (live_unshare), because a write
 * to one would be seen by the other; live_own does the same when both disks stay. Files of src are never changed: its snapshots keep their layers.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct take {
    struct live *dst, *src;
    struct live_fresh f;
    bool copies;                    /* data: a pending snapshot of src shows through its live image, or the caller wants it */
    struct live_anchor *anchors;    /* of src */
    unsigned nanchors;
    uint8_t buf[MERGE_BYTES];
};

/* An entry of src without its pending snapshots: what lies below the last of them. Their pages go into dst's layer. */
static int base_entry(struct take *t, uint64_t seg, struct live_entry *e, struct verr *err)
{
    const struct lview *v = &t->src->cur;
    if (e->kind != SEGK_FROZEN)
        return 0;
    t->f.dirty += !e->dirty;
    t->copies = true;
    while (e->kind == SEGK_FROZEN) {
        v = live_view_below(t->src, v, e, seg, err);
        int r = v == NULL ? -EBADMSG : ltable_get(t->src, v->table, seg, e, err);
        if (r < 0)
            return r;
    }
    e->dirty = true;
    return 0;
}

static int copy_table(struct take *t, struct verr *err)
{
    struct live *src = t->src;
    struct lslice *s = calloc(1, sizeof *s);
    if (s == NULL)
        return live_fail(t->dst, err, ENOMEM, "no memory");
    int r = 0;
    uint64_t end = seg_count(t->f.size);
    for (uint64_t seg = ltable_next(src->cur.table, 0); r == 0 && seg < end; seg = ltable_next(src->cur.table, s->first + SLICE_SEGS)) {
        r = ltable_slice_get(src, src->cur.table, seg / SLICE_SEGS * SLICE_SEGS, s, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++)
            r = base_entry(t, s->first + i, &s->e[i], err);
        if (r == 0)
            r = ltable_slice_put(t->dst, t->f.table, s, err);
    }
    free(s);
    return r;
}

static int share_data(struct live *dst, struct live *src, struct llayer *ly, struct verr *err)
{
    char to[NAME_BYTES], from[NAME_BYTES];
    struct stat st;
    live_name(to, "layer", ly->no, "");
    live_name(from, "layer", src->cur.layer->no, "");
    int r = live_unlink(dst, to);
    if (r == 0)
        r = live_link(src, from, dst, to);
    if (r < 0)
        return live_fail(dst, err, -r, "%s: cannot link the data of another disk: %s", to, strerror(-r));
    lfile_shut(&ly->data);          /* from now on the name leads to the shared file */
    r = lfile_open(&ly->data, 0);
    if (r == 0)
        r = lfile_stat(&ly->data, &st);
    if (r != 0)
        return live_fail(dst, err, -r, "%s: %s", to, strerror(-r));
    llayer_charge(ly, (int64_t)st.st_blocks * 512);
    return 0;
}

static int copy_slots(struct live *dst, struct live *src, struct llayer *ly, uint64_t end, struct verr *err)
{
    int r = 0;
    for (uint64_t seg = llayer_next(src->cur.layer, 0); r == 0 && seg < end; seg = llayer_next(src->cur.layer, seg + 1)) {
        struct live_slot s;
        r = lslot_get(src, src->cur.layer, seg, &s, err);
        if (r == 0 && lslot_present(&s) > 0)
            r = lslot_put(dst, ly, seg, &s, err);
    }
    return r;
}

/* What the live image of src shows of a segment by its own layers, from the youngest down. */
static int merge_segment(struct take *t, uint64_t seg, struct verr *err)
{
    struct live *src = t->src;
    struct live_slot s = {0}, from;
    struct live_entry e = {.kind = SEGK_FROZEN};
    uint64_t bytes = 0;
    int r = 0;
    for (const struct lview *v = &src->cur; r == 0 && e.kind == SEGK_FROZEN;) {
        const struct lmerge m = {src, v->layer, t->dst, t->f.layer, t->buf, true};
        r = lslot_get(src, v->layer, seg, &from, err);
        if (r == 0 && lslot_present(&from) > 0)
            r = live_merge_pages(&m, seg, &from, &s, &bytes, err);
        if (r == 0)
            r = ltable_get(src, v->table, seg, &e, err);
        if (r == 0 && e.kind == SEGK_FROZEN && (v = live_view_below(src, v, &e, seg, err)) == NULL)
            r = -EBADMSG;
    }
    return r == 0 && lslot_present(&s) > 0 ? lslot_put(t->dst, t->f.layer, seg, &s, err) : r;
}

static int copy_data(struct take *t, struct verr *err)
{
    int r = 0;
    uint64_t end = seg_count(t->f.size);
    for (uint64_t seg = live_view_next(&t->src->cur, 0); r == 0 && seg < end; seg = live_view_next(&t->src->cur, seg + 1))
        r = merge_segment(t, seg, err);
    return r;
}

static int make_copy(struct take *t, struct verr *err)
{
    struct live *dst = t->dst;
    int r = ltable_create(dst, live_new_no(dst), &t->f.table, err);
    if (r == 0)
        r = copy_table(t, err);
    if (r == 0)
        r = live_make_fresh(dst, &t->f, err);
    if (r == 0 && t->copies) {
        r = copy_data(t, err);
    } else if (r == 0) {
        r = share_data(dst, t->src, t->f.layer, err);
        if (r == 0)
            r = copy_slots(dst, t->src, t->f.layer, seg_count(t->f.size), err);
    }
    if (r == 0)
        r = ltable_sync(dst, t->f.table, err);
    return r < 0 ? r : llayer_seal(dst, t->f.layer, err);
}

/* sync_lock of src keeps others from listing anchors there; some may go meanwhile. Before dst's head_lock is taken: never two of them. */
static int copy_anchors(struct take *t, struct verr *err)
{
    struct live *src = t->src;
    pthread_mutex_lock(&src->head_lock);
    t->nanchors = src->head.nanchors;
    t->anchors = malloc((t->nanchors + 1) * sizeof *t->anchors);
    if (t->anchors != NULL && t->nanchors > 0)
        memcpy(t->anchors, src->head.anchors, t->nanchors * sizeof *t->anchors);
    pthread_mutex_unlock(&src->head_lock);
    return t->anchors != NULL ? 0 : live_fail(t->dst, err, ENOMEM, "no memory");
}

static int list_anchors(struct take *t, struct live_head *nh, struct verr *err)
{
    struct live_anchor *room = realloc(nh->anchors, ((size_t)nh->nanchors + t->nanchors + 1) * sizeof *room);
    if (room == NULL)
        return live_fail(t->dst, err, ENOMEM, "no memory");
    nh->anchors = room;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < t->nanchors; i++)
        r = live_list_anchor(t->dst, nh, &t->anchors[i], nh->next_seq, NULL, err);
    return r;
}

static int commit_take(struct take *t, uint32_t marks, enum live_unsaved unsaved, struct verr *err)
{
    struct live *dst = t->dst;
    struct live_head nh;
    int r = live_commit_begin(dst, true, &nh, err);
    if (r < 0)
        return r;
    if (unsaved == LIVE_KEEP && atomic_load(&dst->dirty) > 0)
        r = live_fail(dst, err, EBUSY, "has changes that no snapshot holds: freeze first");
    live_name_fresh(&nh, &t->f);
    nh.marks = (nh.marks & ~(uint32_t)LIVE_REWRITING) | (marks & LIVE_REWRITING);
    if (r == 0)
        r = list_anchors(t, &nh, err);
    if (r == 0)
        r = live_commit_put(dst, &nh, err);
    if (r == 0)
        live_use_fresh(dst, &t->f);
    return live_commit_end(dst, true, &nh, r, err);
}

/* Both sync_locks are held; the caller keeps writers away from src. Only one freeze lock at a time: a group freeze of both
 * takes them in its own order. */
static int take_locked(struct take *t, uint32_t marks, enum live_unsaved unsaved, struct verr *err)
{
    struct live *dst = t->dst, *src = t->src;
    int r = live_check_failed(dst, err);
    pthread_rwlock_rdlock(&src->freeze);
    t->f = (struct live_fresh){
        .size = atomic_load(&src->size), .unknown = atomic_load(&src->unknown), .dirty = atomic_load(&src->dirty),
        .alloc_pages = atomic_load(&src->alloc_pages), .changed = true};
    if (r == 0)
        r = make_copy(t, err);
    pthread_rwlock_unlock(&src->freeze);
    fault_point("live.take.before_record");
    if (r == 0)
        r = copy_anchors(t, err);
    if (r == 0)
        r = commit_take(t, marks, unsaved, err);
    free(t->anchors);
    t->anchors = NULL;
    fault_point("live.take.after_record");
    live_discard_fresh(dst, &t->f);
    return r;
}

static int take(struct take *t, enum live_unsaved unsaved, struct verr *err)
{
    struct live *dst = t->dst, *src = t->src;
    struct live_attr at;
    int r = live_attr(src, &at, err);
    if (r < 0)
        return r;
    /* In the order of ids: two calls at once could name the disks the other way round. */
    bool dst_first = memcmp(dst->id.b, src->id.b, VID_BYTES) < 0;
    pthread_mutex_lock(dst_first ? &dst->sync_lock : &src->sync_lock);
    pthread_mutex_lock(dst_first ? &src->sync_lock : &dst->sync_lock);
    r = live_fsync_locked(src, 0, err);
    if (r == 0)
        r = take_locked(t, at.marks, unsaved, err);
    pthread_mutex_unlock(&dst->sync_lock);
    pthread_mutex_unlock(&src->sync_lock);
    return r;
}

int live_take(struct live *dst, struct live *src, enum live_unsaved unsaved, enum live_taking how, struct verr *err)
{
    if (dst == src)
        return live_fail(dst, err, EINVAL, "cannot take its own content");
    live_give(dst);
    live_give(src);
    struct take *t = calloc(1, sizeof *t);
    if (t == NULL)
        return live_fail(dst, err, ENOMEM, "no memory");
    t->dst = dst;
    t->src = src;
    t->copies = how == TAKE_COPY;
    int r = take(t, unsaved, err);
    /* Caches give their space to data. */
    if ((r == -ENOSPC || r == -EDQUOT) && t->copies && atomic_load(&dst->set->cache_bytes) > 0 && live_set_evict(dst->set, NULL) == 0)
        r = take(t, unsaved, err);
    free(t);
    return r;
}

/* ---- when both disks stay ---- */

/* The freeze lock is held exclusively: no thread reads or writes the file meanwhile. */
static int reopen_data(struct live *l, struct verr *err)
{
    struct llayer *ly = l->cur.layer;
    int r = live_unshare(l, ly->no, err);
    if (r < 0)
        return r;
    lfile_shut(&ly->data);
    r = lfile_open(&ly->data, 0);
    return r < 0 ? live_fail(l, err, -r, "layer-%" PRIu64 ": %s", ly->no, strerror(-r)) : 0;
}

int live_own(struct live *dst, struct live *src, struct verr *err)
{
    pthread_mutex_lock(&dst->sync_lock);
    pthread_rwlock_wrlock(&dst->freeze);
    int r = reopen_data(dst, err);
    pthread_rwlock_unlock(&dst->freeze);
    pthread_mutex_unlock(&dst->sync_lock);
    if (r < 0) {
        atomic_store(&dst->failed, EIO);
        atomic_store(&src->failed, EIO);
    }
    return r;
}
