/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rollback, clone and streams: pointers instead of copies. Order: anchor in STORE, fsynced -> table entries. Never the reverse: a
 * collector may remove data that no root holds.
 */
#include "agent/agent_internal.h"
#include "store/snaps.h"

#include <errno.h>
#include <string.h>

static void say_reverted(struct agent *a, const struct node *disk, const struct snaprow *s)
{
    char path[PATH_TEXT], from[PATH_TEXT];
    agent_disk_path(a, &disk->id, path, sizeof path);
    agent_snap_path(a, &s->info, from, sizeof from);
    agent_say(a, VLOG_INFO, path, "reverted to %s", QUOTED(from));
}

int agent_revert(struct agent *a, const struct node *disk, const struct snaprow *s, struct verr *err)
{
    struct turn turn;
    struct live *l = NULL;
    struct snap *snap = NULL;
    struct due_case before = {.occasion = DUE_REVERT, .node = disk};
    if (s->state != SNAPST_STORED)
        return verr_set(err, EBUSY, "the snapshot is still pending: `varve wait` for it, then revert");
    turn_take(a->turns, &turn, &disk->id, 1);
    int r = agent_still_named(a, &disk->id, 1, err);
    if (r == 0)
        r = live_get(a->live, &disk->id, &l, err);
    if (r == 0)
        r = agent_freeze_due_locked(a, &before, l, NULL, err);
    const enum live_unsaved unsaved = r == 0 && before.attr.changed ? LIVE_DROP : LIVE_KEEP;
    if (r >= 0)
        r = snaps_anchor(a->store, &disk->id, &s->info.ref, err);
    if (r == 0)
        r = snap_open(a->store, a->segread, &s->info.ref, &snap, err);
    if (r == 0) {
        struct live_anchor anchor = {.ref = s->info.ref};
        const struct live_target to = {snap_header(snap)->info.size, snap_header(snap)->info.alloc_bytes, snap_point, snap, &anchor};
        r = live_revert(l, &to, unsaved, err);
    }
    if (r == 0)
        say_reverted(a, disk, s);
    snap_close(snap);
    if (l != NULL)
        live_put(l);
    turn_give(a->turns, &turn);
    if (r == 0)
        agent_lost_again(a, &disk->id);
    return r;
}

/* The places of a source, shifted: segment s of the destination is segment s - dst_first + src_first of the source. */
struct shifted {
    struct snap *snap;
    struct live *live;
    uint64_t dst_first, src_first;
};

static int shifted_place(void *ctx, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err)
{
    struct shifted *s = ctx;
    uint64_t from = segment - s->dst_first + s->src_first;
    if (s->snap != NULL)
        return snap_point(s->snap, from, zero, place, pages, err);
    struct seg_entry e;
    int r = live_segment_pure(s->live, from, &e, err);
    if (r < 0)
        return r;
    if (r == 0)
        return verr_set(err, EOPNOTSUPP, "segment %llu of the source has local data", (unsigned long long)from);
    *zero = e.kind == SEGK_ZERO;
    *place = e.place;
    *pages = UINT32_MAX;
    return 0;
}

/* Anchors for the destination all that the source's table relies on. -ENOENT: the caller copies bytes instead. */
static int anchor_source(struct agent *a, struct live *src, const struct vid *dst_disk, struct live_anchor *last, struct verr *err)
{
    struct live_anchor an;
    unsigned n = 0;
    for (; live_anchor_at(src, n, &an, NULL) == 0; n++) {
        if (n > 0)
            return -ENOENT; /* several snapshots hold the source's data: rare (a revert just came before) */
        int r = snaps_anchor_shared(a->store, dst_disk, live_id(src), &an.ref, err);
        if (r < 0)
            return r;
        *last = an;
    }
    return n == 0 ? -ENOENT : 0;
}

static bool all_pure(struct live *src, uint64_t first, uint64_t count)
{
    struct seg_entry e;
    for (uint64_t i = 0; i < count; i++)
        if (live_segment_pure(src, first + i, &e, NULL) != 1)
            return false;
    return true;
}

static int clone_segments(struct agent *a, struct live *dst, const struct node *dst_node, uint64_t dst_first, uint64_t count,
                          uint64_t new_size, const struct snaprow *src_snap, struct live *src, uint64_t src_first, struct verr *err)
{
    struct shifted sh = {.live = src, .dst_first = dst_first, .src_first = src_first};
    struct live_anchor anchor = {0};
    int r;
    if (src_snap != NULL) {
        anchor = (struct live_anchor){.ref = src_snap->info.ref};
        r = snaps_anchor(a->store, &dst_node->id, &src_snap->info.ref, err);
        if (r == 0)
            r = snap_open(a->store, a->segread, &src_snap->info.ref, &sh.snap, err);
    } else {
        r = all_pure(src, src_first, count) ? anchor_source(a, src, &dst_node->id, &anchor, err) : -EOPNOTSUPP;
    }
    if (r == 0)
        r = live_point(dst, dst_first, count, new_size, shifted_place, &sh, &anchor, err);
    snap_close(sh.snap);
    return r;
}

/* In its turn: a rename may have brought another content, with other rights, to the disk that the caller had opened. -ENOENT. */
static int same_file(struct agent *a, const struct node *disk, struct verr *err)
{
    struct node now;
    int r = catalog_node_by_id(a->catalog, &disk->id, &now, err);
    return r == 0 && now.btime_ns != disk->btime_ns ? -ENOENT : r;
}

int64_t agent_clone_range(struct agent *a, struct live *dst, const struct node *dst_node, uint64_t dst_off, const struct snaprow *src_snap,
                          const struct node *src_disk, uint64_t src_off, uint64_t len, struct verr *err)
{
    struct turn turn;
    struct vid both[2] = {dst_node->id, dst_node->id};
    struct live *src = NULL;
    struct live_attr at = {0}, dst_at;
    uint64_t src_size;
    if (dst_off % SEG_BYTES != 0 || src_off % SEG_BYTES != 0 || (src_snap != NULL && src_snap->state != SNAPST_STORED))
        return 0;
    int r = live_attr(dst, &dst_at, err);
    if (r < 0)
        return r;
    if (src_snap != NULL) {
        src_size = src_snap->info.size;
    } else {
        r = live_get(a->live, &src_disk->id, &src, err);
        if (r == 0)
            r = live_attr(src, &at, err);
        if (r < 0) {
            if (src != NULL)
                live_put(src);
            return r;
        }
        src_size = at.size;
    }
    if (src_off >= src_size || (src == dst))
        len = 0;
    else if (len > src_size - src_off)
        len = src_size - src_off;
    /* The destination can point to the source's last, short segment only if that ends the destination too. */
    bool tail = len % SEG_BYTES != 0 && src_off + len == src_size && dst_off + len >= dst_at.size;
    if (!tail)
        len -= len % SEG_BYTES;
    int64_t done = 0;
    if (len > 0) {
        /* The source's turn too: a publication of the source must not move what is copied, nor drop its anchor. */
        if (src_snap == NULL)
            both[1] = src_disk->id;
        turn_take(a->turns, &turn, both, 2);
        r = src_snap == NULL ? same_file(a, src_disk, err) : 0;
        if (r == 0)
            r = clone_segments(a, dst, dst_node, dst_off / SEG_BYTES, seg_count(len), dst_off + len, src_snap, src, src_off / SEG_BYTES, err);
        turn_give(a->turns, &turn);
        done = r == 0 ? (int64_t)len : r == -EOPNOTSUPP || r == -ENOENT ? 0 : r;
    }
    if (src != NULL)
        live_put(src);
    return done;
}

struct stream *agent_stream_open(struct agent *a, struct live *l, void (*lost)(void *ctx, uint64_t off, uint64_t len), void *ctx)
{
    struct stream_conf conf = {.live = l, .lost = lost, .ctx = ctx};
    struct snaprow last;
    if (!ingest_has_room(a->ingest) || catalog_snap_latest(a->catalog, live_id(l), &last, NULL) < 0 ||
        snap_open(a->store, a->segread, &last.info.ref, &conf.parent, NULL) < 0)
        return NULL;
    struct stream *s = stream_open(a->ingest, &conf);
    if (s == NULL)
        snap_close(conf.parent);
    return s;
}
