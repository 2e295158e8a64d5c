/* SPDX-License-Identifier: Apache-2.0 */
/* What users ask for: freeze, settle, supersede, remove, relabel. None of it waits for a round. Pointers: agent_point.c. */
#include "agent/agent_internal.h"

#include "base/fault.h"
#include "store/snaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GROUP_MAX = 256 };

void agent_pending_row(struct agent *a, const struct snapinfo *p, struct snaprow *out)
{
    struct snaprow parent;
    *out = (struct snaprow){.info = *p, .state = (p->flags & SNAP_FAILED) ? SNAPST_FAILED : SNAPST_PENDING};
    out->info.flags &= SNAP_RECIPE_FLAGS;
    out->info.host = a->host;
    if (catalog_snap_latest(a->catalog, &p->ref.disk, &parent, NULL) == 0)
        out->info.parent = parent.info.ref.snap;
}

static int check_label(struct agent *a, const struct node *disk, const char *label, struct verr *err)
{
    struct snaprow taken;
    if (label == NULL || label[0] == '\0')
        return 0;
    int r = catalog_snap_by_name(a->catalog, &disk->id, label, 0, &taken, err);
    if (r == 0)
        return verr_set(err, EEXIST, "%s: has a snapshot labelled %s already", disk->name, label);
    return r == -ENOENT ? 0 : r;
}

static int group_too_large(unsigned n, struct verr *err)
{
    return verr_set(err, E2BIG, "%u disks in one group: at most %d can be frozen at one instant", n, GROUP_MAX);
}

static void say_frozen(struct agent *a, const struct snapinfo *s)
{
    char path[PATH_TEXT];
    agent_snap_path(a, s, path, sizeof path);
    agent_say(a, VLOG_INFO, path, "frozen, snapshot %llu, %llu dirty segments", (unsigned long long)s->ref.seq,
              (unsigned long long)s->dirty_segments);
}

/* Journals first (they survive kill -9), catalog rows second: recovery makes rows from journals, never the reverse. */
int agent_freeze_locked(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out,
                        struct verr *err)
{
    if (n == 0 || n > GROUP_MAX)
        return group_too_large(n, err);
    struct live *l[GROUP_MAX];
    struct freeze_owner owners[GROUP_MAX];
    struct freeze_req all = *req;
    struct snapinfo *pend = calloc(n, sizeof *pend);
    unsigned got = 0;
    int r = pend == NULL ? verr_set(err, ENOMEM, "out of memory") : 0;
    for (unsigned i = 0; i < n && r == 0; i++)
        r = check_label(a, &disks[i], req->label, err);
    for (; got < n && r == 0; got++) {
        r = live_get(a->live, &disks[got].id, &l[got], err);
        if (r < 0)
            break;
        owners[got] = (struct freeze_owner){.mode = disks[got].mode & 0555, .uid = disks[got].uid, .gid = disks[got].gid};
    }
    all.owners = owners;
    for (unsigned i = 0; i < got && r == 0; i++)
        agent_merge_pending(a, l[i]);
    if (r == 0)
        r = live_freeze(l, n, &all, pend, err);
    for (unsigned i = 0; i < n && r == 0; i++) {
        struct snaprow row;
        agent_pending_row(a, &pend[i], &row);
        r = agent_row_put(a, &row, err);
        if (r == 0 && (row.info.flags & SNAP_PROVISIONAL) == 0)
            r = agent_owe_store(a, &disks[i].id);
        if (r == 0 && out != NULL)
            out[i] = row;
        if (r == 0)
            say_frozen(a, &row.info);
    }
    while (got > 0)
        live_put(l[--got]);
    free(pend);
    return r;
}

int agent_still_named(struct agent *a, const struct vid *disks, unsigned n, struct verr *err)
{
    struct node now;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        r = catalog_node_by_id(a->catalog, &disks[i], &now, err);
        if (r == -ENOENT || (r == 0 && (now.flags & NODE_GONE) != 0))
            r = verr_set(err, ENOENT, "the disk was removed");
    }
    return r;
}

int agent_freeze(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out, struct verr *err)
{
    struct turn turn;
    struct vid ids[GROUP_MAX] = {{{0}}};
    if (n > GROUP_MAX)
        return group_too_large(n, err);
    for (unsigned i = 0; i < n; i++) {
        int ready = agent_ready(a, &disks[i].id, err);
        if (ready < 0)
            return ready;
        ids[i] = disks[i].id;
    }
    turn_take(a->turns, &turn, ids, n);
    int r = agent_still_named(a, ids, n, err);
    if (r == 0)
        r = agent_freeze_locked(a, disks, n, req, out, err);
    turn_give(a->turns, &turn);
    return r;
}

int agent_freeze_due_locked(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err)
{
    int what = due_ask(c, l, err);
    if (what <= 0)
        return what;
    const struct freeze_req req = {.flags = due_flags(c, (enum due)what)};
    int r = agent_freeze_locked(a, c->node, 1, &req, out, err);
    return r < 0 ? r : 1;
}

int agent_freeze_due(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err)
{
    int what = due_ask(c, l, err);      /* before the turn is taken: due_ask may read the whole image */
    if (what <= 0)
        return what;
    const struct freeze_req req = {.flags = due_flags(c, (enum due)what)};
    int r = agent_freeze(a, c->node, 1, &req, out, err);
    return r < 0 ? r : 1;
}

void agent_freeze_later(struct agent *a, const struct vid *disk, bool unclean, const struct verr *why)
{
    agent_owe(a, disk, WORK_FREEZE, unclean ? WORK_PARTIAL : 0, why);
}

void agent_zeros_later(struct agent *a, const struct vid *disk, const struct verr *why)
{
    agent_owe(a, disk, WORK_ZEROS, 0, why);
}

struct settle_stored { struct agent *a; bool clean; };

static int settle_side(void *ctx, struct snapinfo *s)
{
    const struct settle_stored *st = ctx;
    s->flags = (s->flags & ~(uint32_t)SNAP_PROVISIONAL) | (st->clean ? 0u : (uint32_t)SNAP_PARTIAL);
    return 0;
}

/* Reads the current row: another operation may have changed its other fields, and a settling changes only its flags. */
static int settle_row(void *ctx, const struct snapinfo *now, struct verr *err)
{
    const struct settle_stored *st = ctx;
    struct snaprow row;
    int r = agent_row_get(st->a, &now->ref.snap, &row, err);
    if (r < 0)
        return r;
    row.info.flags = now->flags;
    return agent_row_put(st->a, &row, err);
}

int agent_settle_stored(struct agent *a, const struct snapref *snap, bool clean, struct verr *err)
{
    struct settle_stored ctx = {a, clean};
    const struct snaps_change ch = {.change = settle_side, .then = settle_row, .ctx = &ctx};
    return snaps_edit(a->store, snap, &ch, NULL, err);
}

static int settle_pending(struct agent *a, struct live *l, const struct snapinfo *p, bool clean, struct verr *err)
{
    struct snaprow row;
    const uint32_t clear = (p->flags & SNAP_PROVISIONAL) ? SNAP_CLOSED : 0;
    int r = live_pending_update(l, p->ref.seq, clean ? 0 : SNAP_PARTIAL, clear, NULL, err);
    if (r == 0)
        r = agent_owe_store(a, live_id(l));
    if (r < 0)
        return r;
    r = agent_row_get(a, &p->ref.snap, &row, err);
    if (r < 0)
        return r;
    row.info.flags = (row.info.flags & ~(uint32_t)SNAP_PROVISIONAL) | (clean ? 0u : (uint32_t)SNAP_PARTIAL);
    return agent_row_put(a, &row, err);
}

int agent_settle_mark(struct live *l, uint64_t seq, struct verr *err)
{
    struct live_attr at;
    int r = live_attr(l, &at, err);
    bool as_frozen = r == 0 && (!at.changed || at.unkept) && at.next_seq == seq + 1;
    return as_frozen ? live_set_marks(l, 0, LIVE_REWRITING, err) : r;
}

static int settle_locked(struct agent *a, struct live *l, uint64_t seq, bool clean, struct verr *err)
{
    struct snapinfo p;
    struct snaprow row;
    const struct vid *disk = live_id(l);
    int r = 0;
    if (live_pending_by_seq(l, seq, &p, NULL) == 0) {
        r = settle_pending(a, l, &p, clean, err);
    } else {
        r = agent_row_by_seq(a, disk, seq, &row, err);
        if (r == 0 && row.state == SNAPST_STORED)
            r = agent_settle_stored(a, &row.info.ref, clean, err);
        else if (r == -ENOENT)
            r = 0;
    }
    return r == 0 && clean ? agent_settle_mark(l, seq, err) : r;
}

int agent_settle_late(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err)
{
    struct live *l;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r;
    r = settle_locked(a, l, seq, clean, err);
    live_put(l);
    return r;
}

/* In the disk's turn. */
static int settle_closed_locked(struct agent *a, struct live *l, struct verr *err)
{
    struct snapinfo p;
    int r = 0;
    for (unsigned i = 0; r == 0 && live_pending(l, i, &p, NULL) == 0; i++)
        if ((p.flags & SNAP_CLOSED) == SNAP_CLOSED)
            r = settle_locked(a, l, p.ref.seq, true, err);
    return r;
}

int agent_settle_closed(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct turn turn;
    struct live *l = NULL;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    turn_take(a->turns, &turn, disk, 1);
    r = settle_closed_locked(a, l, err);
    turn_give(a->turns, &turn);
    live_put(l);
    return r;
}

int agent_closed(struct agent *a, const struct vid *disk, uint64_t seq, struct verr *err)
{
    struct turn turn;
    struct live *l = NULL;
    struct snapinfo p;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    turn_take(a->turns, &turn, disk, 1);
    if (live_pending_by_seq(l, seq, &p, NULL) < 0)
        r = agent_settle_mark(l, seq, err);     /* removed already: what it showed is whole */
    else if (p.flags & SNAP_PROVISIONAL)
        r = live_pending_update(l, seq, SNAP_CLOSED, 0, NULL, err);
    turn_give(a->turns, &turn);
    live_put(l);
    return r;
}

int agent_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err)
{
    struct turn turn;
    struct live *l = NULL;
    struct verr why = {0};
    int r = live_get(a->live, disk, &l, &why);
    if (r == 0) {
        int fault = fault_errno("agent.settle.before");
        turn_take(a->turns, &turn, disk, 1);
        r = fault != 0 ? verr_set(&why, fault, "fault injected") : settle_locked(a, l, seq, clean, &why);
        turn_give(a->turns, &turn);
        live_put(l);
    }
    if (r < 0 && r != -ENOENT)
        agent_owe_settle(a, disk, seq, clean, &why);
    else
        agent_wake(a);              /* a wait for a provisional snapshot may go on */
    if (r < 0 && err != NULL)
        *err = why;
    return r;
}

/* The recipe of a pending snapshot may be in STORE: the round is behind its commit point, or it failed there. It would be found at the
 * next start. Before the drop: a crash in between leaves a pending snapshot, which is stored again. In the disk's turn, which a round
 * takes for its commit point: once the snapshot is dropped, none follows (agent_round.c). */
static int unpublish(struct agent *a, const struct snapinfo *p, struct verr *err)
{
    if ((p->flags & (SNAP_FAILED | SNAP_STARTED)) == 0)
        return 0;
    int r = snaps_durable(a->store, &p->ref, err);
    if (r == 1)
        r = snaps_trash(a->store, &p->ref, err);
    return r == -ENOENT ? 0 : r;
}

int agent_supersede(struct agent *a, const struct vid *disk, uint64_t seq, struct verr *err)
{
    struct turn turn;
    struct live *l;
    struct snapinfo p;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r;
    turn_take(a->turns, &turn, disk, 1);
    r = live_pending_by_seq(l, seq, &p, NULL);
    if (r == 0 && (p.flags & SNAP_PROVISIONAL) && !(p.flags & SNAP_STARTED)) {
        r = unpublish(a, &p, err);
        if (r == 0)
            r = live_pending_drop(l, seq, err);
        if (r == 0)
            r = agent_row_del(a, &(struct snaprow){.info = p}, err);
        if (r == -EBUSY)
            r = 0;
    } else {
        r = 0;
    }
    turn_give(a->turns, &turn);
    live_put(l);
    return r;
}

static int remove_pending(struct agent *a, const struct snaprow *s, bool *found, struct verr *err)
{
    struct live *l;
    struct snapinfo p;
    *found = false;
    int r = live_get(a->live, &s->info.ref.disk, &l, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    *found = live_pending_by_seq(l, s->info.ref.seq, &p, NULL) == 0;
    live_put(l);
    if (!*found)
        return 0;
    r = unpublish(a, &p, err);
    if (r < 0)
        return r;
    r = agent_discard_if_gone(a, &s->info.ref.disk, err);
    if (r == 1)
        return agent_row_del(a, s, err);
    bool used = r == -EBUSY || (p.flags & SNAP_STARTED) != 0;
    if (r < 0 && r != -EBUSY)
        return r;
    r = live_get(a->live, &s->info.ref.disk, &l, err);
    if (r < 0)
        return r;
    /* Its writer was done: what the disk still shows is whole. Before the removal, which takes the proof with it, and does not fail for the
     * mark's sake: a later snapshot is called partial then. */
    struct verr why = {0};
    if ((p.flags & SNAP_CLOSED) == SNAP_CLOSED && agent_settle_mark(l, p.ref.seq, &why) < 0)
        vlog(VLOG_WARN, "agent", "a disk whose snapshot is removed may be taken for one that is being written: %s", verr_str(&why));
    r = live_pending_remove(l, p.ref.seq, err);
    live_put(l);
    if (r == 0)
        return agent_row_del(a, s, err);
    if (used && (r == -ENOSPC || r == -EDQUOT)) /* the drop takes space that a removal later on does not need */
        return verr_set(err, EBUSY, "snapshot %llu is in use: close it or `varve wait`, then remove it",
                        (unsigned long long)s->info.ref.seq);
    return r;
}

/* A removed disk disappears with its last snapshot. */
static int forget_node(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct node node;
    uint64_t left;
    int r = catalog_node_by_id(a->catalog, disk, &node, err);
    if (r < 0 || !(node.flags & NODE_GONE))
        return r == -ENOENT ? 0 : r;
    r = catalog_snap_count(a->catalog, disk, &left, err);
    if (r == 0 && left == 0)
        r = names_remove(a->names, disk, err);
    return r;
}

static int snap_remove_locked(struct agent *a, const struct snaprow *s, struct verr *err)
{
    struct snaprow now;
    bool pending;
    int r = agent_rows_pay(a, err);
    if (r == 0)
        r = agent_row_get(a, &s->info.ref.snap, &now, err); /* a round may have stored it since the caller looked */
    if (r == 0 && now.info.protected_)
        r = verr_set(err, EPERM, "the snapshot is protected: clear user.varve.protected first");
    if (r == 0)
        r = remove_pending(a, &now, &pending, err);
    if (r == 0 && !pending)
        r = names_snap_remove(a->names, &now, err);
    if (r == 0)
        r = forget_node(a, &now.info.ref.disk, err);
    return r;
}

/* again: the first attempt may have removed the snapshot before it failed. */
static int snap_remove_in_turn(struct agent *a, const struct snaprow *s, bool again, struct verr *err)
{
    struct turn turn;
    int r = agent_tree_ready(a, err);   /* whether it is the last one of a removed disk the catalog must know */
    if (r < 0)
        return r;
    turn_take(a->turns, &turn, &s->info.ref.disk, 1);
    r = snap_remove_locked(a, s, err);
    if (again && r == -ENOENT)
        r = forget_node(a, &s->info.ref.disk, err);
    turn_give(a->turns, &turn);
    return r;
}

int agent_snap_remove(struct agent *a, const struct snaprow *s, struct verr *err)
{
    struct verr why = {0};
    char path[PATH_TEXT];
    agent_snap_path(a, &s->info, path, sizeof path);    /* a removed disk may go with it */
    int r = snap_remove_in_turn(a, s, false, &why);
    if (r < 0 && agent_reserve_use(a, r)) {
        why = (struct verr){0};
        r = snap_remove_in_turn(a, s, true, &why);
        agent_reserve_end(a);
    }
    if (r < 0 && err != NULL)
        *err = why;
    if (r == 0) {
        agent_say(a, VLOG_INFO, path, "removed, snapshot %llu", (unsigned long long)s->info.ref.seq);
        agent_kick(a);      /* it may have made room for others */
        agent_waits_check(a);   /* at once, also while the agent's thread is storing it */
    }
    return r;
}

/* Whether a directory is empty, or a disk has snapshots, the catalog tells only if it knows all that STORE has. */
static int node_remove_in_turn(struct agent *a, const struct vid *id, struct verr *err)
{
    struct turn turn;
    int r = agent_tree_ready(a, err);
    if (r < 0)
        return r;
    turn_take(a->turns, &turn, id, 1);
    r = agent_rows_pay(a, err);
    if (r == 0)
        r = names_remove(a->names, id, err);
    turn_give(a->turns, &turn);
    return r;
}

int agent_node_remove(struct agent *a, const struct vid *id, struct verr *err)
{
    struct verr why = {0};
    char path[PATH_TEXT];
    agent_disk_path(a, id, path, sizeof path);
    int r = node_remove_in_turn(a, id, &why);
    if (r < 0 && agent_reserve_use(a, r)) {
        why = (struct verr){0};
        r = node_remove_in_turn(a, id, &why);
        if (r == -ENOENT)   /* the first attempt removed the name before it failed */
            r = 0;
        agent_reserve_end(a);
    }
    if (r < 0 && err != NULL)
        *err = why;
    if (r == 0)
        agent_say(a, VLOG_INFO, path, "removed");
    return r;
}

int agent_snap_relabel(struct agent *a, const struct snaprow *s, const char *label, struct verr *err)
{
    struct turn turn;
    struct snaprow now;
    struct node disk;
    struct live *l;
    turn_take(a->turns, &turn, &s->info.ref.disk, 1);
    int r = agent_row_get(a, &s->info.ref.snap, &now, err);
    if (r == 0)
        r = catalog_node_by_id(a->catalog, &now.info.ref.disk, &disk, err);
    if (r == 0)
        r = check_label(a, &disk, label, err);
    if (r == 0 && now.state == SNAPST_STORED) {
        r = names_snap_relabel(a->names, &now.info.ref.snap, label, err);
    } else if (r == 0) {
        r = live_get(a->live, &now.info.ref.disk, &l, err);
        if (r == 0) {
            r = live_pending_update(l, now.info.ref.seq, 0, 0, label, err);
            live_put(l);
        }
        if (r == 0) {
            strncpy(now.info.label, label, sizeof now.info.label - 1);
            r = agent_row_put(a, &now, err);
        }
    }
    turn_give(a->turns, &turn);
    return r;
}

/* While pending snapshots keep the image of a removed disk, what it has besides goes: it takes space, and may share a file with the disk
 * that has replaced this one. */
static int shed_live(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct node node;
    struct live *l;
    struct live_attr at;
    if (catalog_node_by_id(a->catalog, disk, &node, NULL) < 0 || (node.flags & NODE_GONE) == 0)
        return 0;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = live_attr(l, &at, err);
    if (r == 0 && at.pending > 0 && at.size > 0) {
        r = live_renew(l, err);
        if (r == 0)
            r = live_fsync(l, err);
    }
    live_put(l);
    return r;
}

/* The name goes first (names_remove or NODE_GONE), then local data: recovery removes data that a crash in between leaves. */
int agent_disk_remove(struct agent *a, const struct node *disk, struct verr *err)
{
    struct turn turn;
    turn_take(a->turns, &turn, &disk->id, 1);
    struct verr why = {0}, kept = {0};
    int r = agent_forget_if_gone(a, &disk->id, &why);
    if (r == 0 && shed_live(a, &disk->id, &kept) < 0)
        vlog(VLOG_WARN, "agent", "%s: the data of a removed disk stay until its snapshots are stored: %s", disk->name, verr_str(&kept));
    turn_give(a->turns, &turn);
    if (r == 0)
        agent_kick(a);      /* it may have made room for others */
    else
        agent_owe(a, &disk->id, WORK_FORGET, 0, &why);
    if (r < 0 && err != NULL)
        *err = why;
    return r;
}
