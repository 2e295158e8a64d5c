/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes behind the commit point: the recipe of a pending snapshot is in STORE, durably, and the disk begins to rely on it.
 *
 *   1 STORE      anchor of the disk -> side file (flags and label that changed while the round ran)      no turn is held
 *   2 table      entries "frozen" become stored places -> head record without the pending snapshot       in the disk's turn
 *   3 row        the catalog says stored                                                                 in the disk's turn
 *   4 anchors    those that no entry needs any more are dropped                                          in the disk's turn
 *
 * Each step is durable before the next begins; a crash between two leaves what recovery finishes by the same steps. A settling or a
 * new label may come between 1 and 2: then step 1 is done again.
 */
#include "agent/agent_internal.h"

#include "base/fault.h"
#include "store/snaps.h"

#include <errno.h>
#include <string.h>

enum { DROPS_MAX = 64 };

struct publication {
    struct snapinfo p;              /* the pending record that STORE has been brought to */
    struct snap *snap;
    struct snaprcp hdr;
    struct live_anchor drop[DROPS_MAX];
    unsigned dropped;
};

/* What was settled while the round ran, or is known only now, goes into the side file. Compared with what STORE says now, not with
 * the recipe alone: an attempt before a loss of power may have written that file, and the journal fell back behind it. */
static int carry(void *ctx, struct snapinfo *s)
{
    const struct snapinfo *p = ctx;
    s->flags = p->flags & SNAP_RECIPE_FLAGS;
    memcpy(s->label, p->label, sizeof s->label);
    return 0;
}

static int carry_flags(struct agent *a, struct snapinfo *p, struct snaprcp *hdr, struct verr *err)
{
    const struct snaps_change ch = {.change = carry, .ctx = p};
    hdr->info.flags = p->flags & SNAP_RECIPE_FLAGS;
    return snaps_edit(a->store, &p->ref, &ch, NULL, err);
}

static int stored_row(struct agent *a, const struct snapinfo *p, const struct snaprcp *hdr, struct verr *err)
{
    struct snaprow row;
    int r = agent_row_get(a, &p->ref.snap, &row, err);
    if (r == -ENOENT)
        agent_pending_row(a, p, &row);
    else if (r < 0)
        return r;
    row.state = SNAPST_STORED;
    row.info.flags = hdr->info.flags;
    row.info.parent = hdr->info.parent;
    row.info.alloc_bytes = hdr->info.alloc_bytes;
    row.info.levels = hdr->info.levels;
    row.info.mode = hdr->info.mode;
    row.info.uid = hdr->info.uid;
    row.info.gid = hdr->info.gid;
    memcpy(row.info.label, p->label, sizeof row.info.label);
    return agent_row_put(a, &row, err);
}

struct obsolete { struct live *l; const struct live_anchor *an; };

/* False: since the publication entries were made that rely on the anchor, which lifted its stamp. */
static bool still_obsolete(void *ctx)
{
    const struct obsolete *o = ctx;
    struct live_anchor now;
    for (unsigned i = 0; live_anchor_at(o->l, i, &now, NULL) == 0; i++)
        if (snapref_eq(&now.ref, &o->an->ref))
            return now.stamp == o->an->stamp;
    return true;
}

/*
 * STORE -> list: after a crash in between the next publication does both again. An anchor that is in use stays listed until then.
 *
 * The disk's turn keeps out whatever makes entries, but for streams, which pin, anchor in STORE, list (live_point, which lifts the
 * stamp above that of any anchor dropped here) and unpin. Let a stream pin
 *   before snaps_unanchor             pinned still: nothing is done. Unpinned: still_obsolete sees the stamp that it lifted.
 *   during snaps_unanchor             the pin is refused, and no stream begins.
 *   between it and live_anchor_gone   the stream anchors anew in STORE before it lists. Listed by the time of live_anchor_gone, the
 *                                     stamp has been lifted, and the entry stays (-ESTALE); later, live_point lists it anew.
 * In each case the anchors that entries rely on are in STORE and on the list.
 */
static void drop_anchors(struct agent *a, struct live *l, const struct live_anchor *drop, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct verr why = {0};
        struct obsolete o = {l, &drop[i]};
        int r = snaps_unanchor(a->store, live_id(l), &drop[i].ref, still_obsolete, &o, &why);
        if (r == 0)
            r = live_anchor_gone(l, &drop[i], &why);
        if (r < 0 && r != -EBUSY && r != -ESTALE)
            vlog(VLOG_WARN, "agent", "an anchor stays for now: %s", verr_str(&why));
    }
}

/* Step 1. */
static int publish_store(struct agent *a, struct live *l, uint64_t seq, struct publication *pub, struct verr *err)
{
    int r = live_pending_by_seq(l, seq, &pub->p, err);
    if (r == 0 && pub->snap == NULL)        /* the second time it is anchored already */
        r = snaps_anchor(a->store, live_id(l), &pub->p.ref, err);
    if (r == 0 && pub->snap == NULL) {
        r = snap_open(a->store, a->segread, &pub->p.ref, &pub->snap, err);
        if (r == 0)
            pub->hdr = *snap_header(pub->snap);
    }
    return r == 0 ? carry_flags(a, &pub->p, &pub->hdr, err) : r;
}

static bool same_record(const struct snapinfo *a, const struct snapinfo *b)
{
    return ((a->flags ^ b->flags) & SNAP_RECIPE_FLAGS) == 0 && strcmp(a->label, b->label) == 0;
}

/* Steps 2 and 3. -EAGAIN: the pending record is not what STORE has any more. -ENOENT: it was dropped since. */
static int publish_table(struct agent *a, struct live *l, struct publication *pub, struct verr *err)
{
    struct snapinfo now;
    struct verr why = {0};
    const struct snapref *ref = &pub->p.ref;
    const struct live_anchor mine = {.ref = {*live_id(l), ref->seq, ref->snap}, .stamp = ref->seq + 1};
    int r = live_pending_by_seq(l, ref->seq, &now, err);
    if (r < 0)
        return r;
    if (!same_record(&now, &pub->p))
        return -EAGAIN;
    int fault = fault_errno("agent.finish.before_pointers");
    if (fault != 0)
        r = verr_set(err, fault, "finishing a snapshot: fault injected");
    else
        r = live_pending_published(l, ref->seq, snap_point, pub->snap, &mine, pub->drop, DROPS_MAX, &pub->dropped, err);
    fault_point("agent.finish.after_pointers");
    /* Once it is pending no more nothing here is tried again, and what the recipe says is true: the row comes in any case. */
    if (r < 0 && live_pending_by_seq(l, ref->seq, &now, NULL) != -ENOENT)
        return r;
    if (r < 0) {
        vlog(VLOG_ERROR, "agent", "a snapshot is stored, but its disk fails: %s", verr_str(err));
        pub->dropped = 0;
    }
    /* It is stored, whatever the catalog says: nothing from here on is a failure of the snapshot. */
    if (stored_row(a, &pub->p, &pub->hdr, &why) < 0)
        agent_owe(a, &(struct vid){{0}}, WORK_NAMES, 0, &why);
    return 0;
}

bool agent_was_removed(struct agent *a, struct live *l, uint64_t seq)
{
    struct turn turn;
    struct snapinfo p;
    turn_take(a->turns, &turn, live_id(l), 1);
    int r = live_pending_by_seq(l, seq, &p, NULL);
    turn_give(a->turns, &turn);
    return r == -ENOENT;
}

/* Step 1 may have been done, or by half: nothing relies on the anchor of a removed snapshot, nor ever will. A crash before this leaves an
 * anchor that holds space. */
static void unanchor_removed(struct agent *a, struct live *l, const struct snapref *ref)
{
    struct verr why = {0};
    if (snaps_unanchor(a->store, live_id(l), ref, NULL, NULL, &why) < 0)
        vlog(VLOG_WARN, "agent", "the anchor of a removed snapshot stays: %s", verr_str(&why));
}

int agent_finish_publication(struct agent *a, struct live *l, const struct snapinfo *pending, bool has_turn, struct verr *err)
{
    struct publication pub = {.snap = NULL};
    struct turn turn;
    int r;
    do {
        r = publish_store(a, l, pending->ref.seq, &pub, err);
        if (r < 0)
            break;
        fault_point("agent.finish.anchored");
        if (!has_turn)
            turn_take(a->turns, &turn, live_id(l), 1);
        r = publish_table(a, l, &pub, err);
        if (r == 0)
            drop_anchors(a, l, pub.drop, pub.dropped);
        if (!has_turn)
            turn_give(a->turns, &turn);
    } while (r == -EAGAIN);
    snap_close(pub.snap);
    if (r < 0 && !has_turn && agent_was_removed(a, l, pending->ref.seq))
        unanchor_removed(a, l, &pending->ref);
    return r;
}
