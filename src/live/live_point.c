/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_point: changes that move no data: revert (a whole new table), rewrite (an empty one), point (some entries).
 * A durable head lists the anchor of a stored snapshot before any entry relies on that snapshot.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* ---- rewrite ---- */

static int empty(struct live *l, bool changed, struct verr *err)
{
    struct live_fresh f = {.changed = changed};
    struct live_head nh;
    live_give(l);
    pthread_mutex_lock(&l->sync_lock);
    int r = live_check_failed(l, err);
    if (r == 0)
        r = live_tidy(l, err);      /* nothing else may be durable between one rewrite and the next */
    if (r == 0)
        r = ltable_create(l, live_new_no(l), &f.table, err);
    if (r == 0)
        r = live_make_fresh(l, &f, err);
    if (r == 0) {
        pthread_rwlock_wrlock(&l->freeze);
        pthread_mutex_lock(&l->head_lock);
        r = ljournal_gone_room(l, LEVEL_FILES) < 0 ? live_fail(l, err, ENOMEM, "no memory") : live_head_now(l, &nh, err);
        if (r == 0) {
            live_name_fresh(&nh, &f);
            nh.marks |= LIVE_REWRITING;
            r = ljournal_put(l, &nh, false, err);
            if (r == 0)
                live_use_fresh(l, &f);
            live_head_release(&nh);
        }
        pthread_mutex_unlock(&l->head_lock);
        pthread_rwlock_unlock(&l->freeze);
    }
    live_discard_fresh(l, &f);
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}

int live_rewrite(struct live *l, struct verr *err)
{
    return empty(l, true, err);
}

int live_renew(struct live *l, struct verr *err)
{
    return empty(l, false, err);
}

/* ---- revert ---- */

static int fill_table(struct live *l, struct live_fresh *f, live_place_fn fn, void *ctx, struct verr *err)
{
    struct lslice *s = calloc(1, sizeof *s);
    if (s == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    uint64_t segments = seg_count(f->size);
    int64_t known = 0;
    int r = 0;
    for (uint64_t first = 0; r == 0 && first < segments; first += SLICE_SEGS) {
        bool any = false;
        *s = (struct lslice){.first = first};
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS && first + i < segments; i++) {
            r = live_entry_ask(fn, ctx, first + i, &s->e[i], err);
            any |= s->e[i].kind != SEGK_ZERO;
            if (s->e[i].pages == LIVE_PAGES_UNKNOWN)
                f->unknown++;
            else
                known += s->e[i].pages;
        }
        if (r == 0 && any)
            r = ltable_slice_put(l, f->table, s, err);
    }
    free(s);
    if (f->unknown == 0)
        f->alloc_pages = known;
    return r;
}

static int commit_revert(struct live *l, struct live_fresh *f, const struct live_anchor *anchor, enum live_unsaved unsaved,
                         struct verr *err)
{
    struct live_head nh;
    int r = live_commit_begin(l, true, &nh, err);
    if (r < 0)
        return r;
    if (unsaved == LIVE_KEEP && atomic_load(&l->dirty) > 0)
        r = live_fail(l, err, EBUSY, "has changes that no snapshot holds: freeze first");
    live_name_fresh(&nh, f);
    nh.marks &= ~(uint32_t)LIVE_REWRITING;
    if (r == 0 && anchor != NULL)
        r = live_list_anchor(l, &nh, anchor, nh.next_seq, NULL, err);
    if (r == 0)
        r = live_commit_put(l, &nh, err);
    if (r == 0)
        live_use_fresh(l, f);
    return live_commit_end(l, true, &nh, r, err);
}

int live_revert(struct live *l, const struct live_target *to, enum live_unsaved unsaved, struct verr *err)
{
    if (to->size > LIVE_SIZE_MAX || to->alloc_bytes > LIVE_SIZE_MAX)
        return live_fail(l, err, EFBIG, "a disk may have %" PRIu64 " bytes", LIVE_SIZE_MAX);
    live_give(l);
    struct live_fresh f = {.size = to->size, .alloc_pages = (int64_t)(to->alloc_bytes / PAGE_BYTES)};
    pthread_mutex_lock(&l->sync_lock);
    int r = live_check_failed(l, err);
    if (r == 0)
        r = ltable_create(l, live_new_no(l), &f.table, err);
    if (r == 0)
        r = fill_table(l, &f, to->fn, to->ctx, err);
    if (r == 0)
        r = live_make_fresh(l, &f, err);
    /* Durable before the record that names them; the directory is fsynced by live_commit_lock. */
    if (r == 0)
        r = ltable_sync(l, f.table, err);
    if (r == 0)
        r = llayer_map_sync(l, f.layer, err);
    fault_point("live.revert.before_record");
    if (r == 0)
        r = commit_revert(l, &f, to->anchor, unsaved, err);
    live_discard_fresh(l, &f);
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}

/* ---- point ---- */

/* 1: the open layer has pages of the segment; 0; -errno. Sets *e. freeze held. */
static int has_pages(struct live *l, uint64_t seg, struct live_entry *e, struct verr *err)
{
    struct live_slot s;
    pthread_rwlock_t *lock = live_seg_lock(l, seg);
    pthread_rwlock_rdlock(lock);
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    if (r == 0)
        r = ltable_get(l, l->cur.table, seg, e, err);
    pthread_rwlock_unlock(lock);
    return r < 0 ? r : lslot_present(&s) > 0;
}

static int check_pure(struct live *l, uint64_t first, uint64_t count, struct verr *err)
{
    struct live_entry e;
    int r = 0;
    pthread_rwlock_rdlock(&l->freeze);
    for (uint64_t i = 0; r == 0 && i < count; i++)
        r = has_pages(l, first + i, &e, err);
    pthread_rwlock_unlock(&l->freeze);
    return r == 1 ? live_fail(l, err, EOPNOTSUPP, "has local pages in the range: bytes must be copied") : r;
}

/* Makes anchor and size durable before any entry, because entries may reach the disk at any time. The size only grows, over zeros. */
static int commit_point(struct live *l, uint64_t new_size, const struct live_anchor *anchor, uint64_t *stamp, struct verr *err)
{
    struct live_head nh;
    bool changed = false;
    int r = live_commit_begin(l, false, &nh, err);
    if (r < 0)
        return r;
    if (anchor != NULL)
        r = live_list_anchor(l, &nh, anchor, nh.next_seq, &changed, err);
    changed |= new_size > nh.size;
    if (new_size > nh.size)
        nh.size = new_size;
    nh.changed = true;
    *stamp = nh.next_seq;
    if (r == 0 && changed)
        r = live_commit_put(l, &nh, err);
    return live_commit_end(l, false, &nh, r, err);
}

/* Puts the entries of one slice's part of the range. freeze exclusive. */
static int put_entries(struct live *l, uint64_t first, unsigned n, const struct live_entry *to, struct verr *err)
{
    struct live_entry old = {0};
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        r = has_pages(l, first + i, &old, err);
        if (r == 1)
            r = live_fail(l, err, EOPNOTSUPP, "has local pages in the range: bytes must be copied");
        if (r < 0)
            break;
        r = ltable_put(l, l->cur.table, first + i, &to[i], err);
        if (r < 0)
            break;
        if (old.dirty)              /* set by a write that failed before its data */
            atomic_fetch_sub(&l->dirty, 1);
        if (old.pages == LIVE_PAGES_UNKNOWN)
            atomic_fetch_sub(&l->unknown, 1);
        live_alloc_add(l, (int64_t)to[i].pages - (int64_t)live_entry_pages(l, &old));
    }
    return r;
}

/* 1: a freeze came since the anchor got its stamp, so that the snapshot it took will not hold these entries. */
static int point_slice(struct live *l, uint64_t first, unsigned n, live_place_fn fn, void *ctx, uint64_t stamp, struct live_entry *to,
                       struct verr *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        r = live_entry_ask(fn, ctx, first + i, &to[i], err);
        if (r == 0)
            to[i].pages = (uint16_t)live_entry_pages(l, &to[i]);
    }
    if (r < 0)
        return r;
    pthread_rwlock_wrlock(&l->freeze);
    pthread_mutex_lock(&l->head_lock);
    bool frozen = l->head.next_seq != stamp;
    pthread_mutex_unlock(&l->head_lock);
    r = frozen ? 1 : live_set_changed(l, err);
    if (r == 0)
        r = put_entries(l, first, n, to, err);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

static int point_range(struct live *l, uint64_t first, uint64_t count, uint64_t new_size, live_place_fn fn, void *ctx,
                       const struct live_anchor *anchor, struct verr *err)
{
    uint64_t stamp = 0;
    int r = live_check_failed(l, err);
    if (r == 0)
        r = check_pure(l, first, count, err);
    if (r == 0)
        r = live_seal_shown(l, err);
    if (r == 0)
        r = commit_point(l, new_size, anchor, &stamp, err);
    if (r == 0)
        r = live_extend(l, new_size, err);
    struct live_entry *to = r == 0 ? calloc(SLICE_SEGS, sizeof *to) : NULL;
    if (r == 0 && to == NULL)
        r = live_fail(l, err, ENOMEM, "no memory");
    for (uint64_t i = 0; r == 0 && i < count;) {
        unsigned n = count - i < SLICE_SEGS ? (unsigned)(count - i) : SLICE_SEGS;
        r = point_slice(l, first + i, n, fn, ctx, stamp, to, err);
        if (r == 0)
            i += n;
        else if (r == 1)
            r = commit_point(l, new_size, anchor, &stamp, err);
    }
    free(to);
    return r;
}

int live_point(struct live *l, uint64_t first_segment, uint64_t count, uint64_t new_size, live_place_fn fn, void *ctx,
               const struct live_anchor *anchor, struct verr *err)
{
    live_give(l);
    return live_point_held(l, first_segment, count, new_size, fn, ctx, anchor, err);
}

int live_point_held(struct live *l, uint64_t first_segment, uint64_t count, uint64_t new_size, live_place_fn fn, void *ctx,
                    const struct live_anchor *anchor, struct verr *err)
{
    uint64_t last;
    if (__builtin_add_overflow(first_segment, count, &last) || last > LIVE_SIZE_MAX >> SEG_SHIFT || new_size > LIVE_SIZE_MAX)
        return live_fail(l, err, EFBIG, "a disk may have %" PRIu64 " bytes", LIVE_SIZE_MAX);
    pthread_mutex_lock(&l->sync_lock);
    pthread_rwlock_rdlock(&l->freeze);
    uint64_t size = atomic_load(&l->size);
    pthread_rwlock_unlock(&l->freeze);
    int r = 0;
    /* Behind the end a segment must be zero: rule 3 of live_disk.h. */
    if (last > seg_count(size > new_size ? size : new_size))
        r = live_fail(l, err, EINVAL, "the range ends behind the end of the disk");
    if (r == 0)
        r = point_range(l, first_segment, count, new_size, fn, ctx, anchor, err);
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}

int live_segment_pure(struct live *l, uint64_t segment, struct seg_entry *out, struct verr *err)
{
    live_give(l);
    return live_segment_pure_held(l, segment, out, err);
}

int live_segment_pure_held(struct live *l, uint64_t segment, struct seg_entry *out, struct verr *err)
{
    struct live_entry e = {0};
    pthread_rwlock_rdlock(&l->freeze);
    int r = has_pages(l, segment, &e, err);
    pthread_rwlock_unlock(&l->freeze);
    if (r < 0)
        return r;
    *out = (struct seg_entry){e.kind, e.kind == SEGK_ZERO ? 0 : e.value, e.dirty};
    return r == 0 && e.kind != SEGK_FROZEN;
}
