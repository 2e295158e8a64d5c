/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_take: the content of one disk becomes the content of another (rename onto an existing disk).
 *
 * Order: all of src durable -> a new table and layer of dst: the data file is a second link to src's, table and presence are
 * written anew, because they carry the disk's id -> fdatasync of all -> one record of dst, durable. A kill before the record
 * changes nothing; after it both disks have the content and share the data file until src is removed: recovery
 * copies the file before it opens such a disk (live_unshare), because a write to one would be seen by the other; live_own does the same
 * when both disks stay.
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

static int copy_table(struct live *dst, struct live *src, struct live_fresh *f, struct verr *err)
{
    struct lslice *s = calloc(1, sizeof *s);
    if (s == NULL)
        return live_fail(dst, err, ENOMEM, "no memory");
    int r = 0;
    uint64_t end = seg_count(f->size);
    for (uint64_t seg = ltable_next(src->cur.table, 0); r == 0 && seg < end; seg = ltable_next(src->cur.table, s->first + SLICE_SEGS)) {
        r = ltable_slice_get(src, src->cur.table, seg / SLICE_SEGS * SLICE_SEGS, s, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++)
            if (s->e[i].kind == SEGK_FROZEN)
                r = live_fail(src, err, EBUSY, "has pending snapshots");
        if (r == 0)
            r = ltable_slice_put(dst, f->table, s, err);
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

static int make_copy(struct live *dst, struct live *src, struct live_fresh *f, struct verr *err)
{
    int r = ltable_create(dst, live_new_no(dst), &f->table, err);
    if (r == 0)
        r = copy_table(dst, src, f, err);
    if (r == 0)
        r = live_make_fresh(dst, f, err);
    if (r == 0)
        r = share_data(dst, src, f->layer, err);
    if (r == 0)
        r = copy_slots(dst, src, f->layer, seg_count(f->size), err);
    if (r == 0)
        r = ltable_sync(dst, f->table, err);
    return r < 0 ? r : llayer_seal(dst, f->layer, err);
}

static int take_anchors(struct live *dst, struct live *src, struct live_head *nh, struct verr *err)
{
    struct live_anchor a;
    int r = 0;
    for (unsigned i = 0; r == 0 && live_anchor_at(src, i, &a, NULL) == 0; i++)
        r = live_list_anchor(dst, nh, &a, nh->next_seq, NULL, err);
    return r;
}

static int commit_take(struct live *dst, struct live *src, struct live_fresh *f, uint32_t marks, enum live_unsaved unsaved,
                       struct verr *err)
{
    struct live_head nh;
    int r = live_commit_begin(dst, true, &nh, err);
    if (r < 0)
        return r;
    if (unsaved == LIVE_KEEP && atomic_load(&dst->dirty) > 0)
        r = live_fail(dst, err, EBUSY, "has changes that no snapshot holds: freeze first");
    live_name_fresh(&nh, f);
    nh.marks = (nh.marks & ~(uint32_t)LIVE_REWRITING) | (marks & LIVE_REWRITING);
    if (r == 0)
        r = take_anchors(dst, src, &nh, err);
    if (r == 0)
        r = live_commit_put(dst, &nh, err);
    if (r == 0)
        live_use_fresh(dst, f);
    return live_commit_end(dst, true, &nh, r, err);
}

/* Both sync_locks are held; the caller keeps writers away from src. Only one freeze lock at a time: a group freeze of both
 * takes them in its own order. */
static int take_locked(struct live *dst, struct live *src, uint32_t marks, enum live_unsaved unsaved, struct verr *err)
{
    struct live_fresh f = {
        .size = atomic_load(&src->size), .unknown = atomic_load(&src->unknown), .dirty = atomic_load(&src->dirty),
        .alloc_pages = atomic_load(&src->alloc_pages), .changed = true};
    int r = live_check_failed(dst, err);
    pthread_rwlock_rdlock(&src->freeze);
    if (r == 0)
        r = make_copy(dst, src, &f, err);
    pthread_rwlock_unlock(&src->freeze);
    fault_point("live.take.before_record");
    if (r == 0)
        r = commit_take(dst, src, &f, marks, unsaved, err);
    fault_point("live.take.after_record");
    live_discard_fresh(dst, &f);
    return r;
}

int live_take(struct live *dst, struct live *src, enum live_unsaved unsaved, struct verr *err)
{
    struct live_attr at;
    struct snapinfo p;
    if (dst == src)
        return live_fail(dst, err, EINVAL, "cannot take its own content");
    live_give(dst);
    live_give(src);
    if (live_pending(src, 0, &p, NULL) == 0)
        return live_fail(src, err, EBUSY, "has pending snapshots");
    int r = live_attr(src, &at, err);
    if (r < 0)
        return r;
    /* In the order of ids: two calls at once could name the disks the other way round. */
    bool dst_first = memcmp(dst->id.b, src->id.b, VID_BYTES) < 0;
    pthread_mutex_lock(dst_first ? &dst->sync_lock : &src->sync_lock);
    pthread_mutex_lock(dst_first ? &src->sync_lock : &dst->sync_lock);
    r = live_fsync_locked(src, 0, err);
    if (r == 0)
        r = take_locked(dst, src, at.marks, unsaved, err);
    pthread_mutex_unlock(&dst->sync_lock);
    pthread_mutex_unlock(&src->sync_lock);
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
