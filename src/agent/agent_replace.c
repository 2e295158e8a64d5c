/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rename of a disk onto an existing disk, or onto the name of a removed one that has snapshots (rsync, editors, `cp -b`, log rotation):
 * the target keeps id, name and history and takes the content; the source's own snapshots stay under its name. Order: a removed target
 * whose image is gone gets one -> the target's changes are frozen if that is due -> the source's anchors are linked for the target ->
 * one head record gives the target the source's content (live_take) -> names -> the result is frozen if that is due. The source's image
 * goes behind it (agent_disk_remove), but for its pending snapshots: they are the source's, with their layers, and are stored as those
 * of any removed disk. A round that is storing one is not waited for, and does not notice.
 *
 * A crash or an error before the names leaves both disks with that content, or a removed target as it was. live unshares the layers:
 * after an error at once, after a crash when it opens them.
 */
#include "agent/agent_internal.h"
#include "store/snaps.h"

#include <errno.h>

struct replacing {
    struct agent *a;
    const struct node *source, *target;
    bool read_on;                   /* readers have the source's image open */
    bool revives;                   /* the target is a removed disk */
    bool made;                      /* ... and its image was made for this */
    bool taken;                     /* the target has the content */
    struct live *src, *dst;
};

/* In the turns of both: are they still what the caller has seen? And all rows must be there: names counts snapshots by them. */
static int look_again(struct replacing *rp, struct verr *err)
{
    struct node now;
    int r = agent_rows_pay(rp->a, err);
    if (r == 0)
        r = agent_still_named(rp->a, &rp->source->id, 1, err);
    if (r < 0)
        return r;
    r = catalog_node_by_id(rp->a->catalog, &rp->target->id, &now, err);
    if (r == -ENOENT)               /* its last snapshot went */
        return -EAGAIN;
    rp->revives = r == 0 && (now.flags & NODE_GONE) != 0;
    return r;
}

static int open_images(struct replacing *rp, struct verr *err)
{
    int r = live_get(rp->a->live, &rp->source->id, &rp->src, err);
    if (r < 0)
        return r;
    r = live_get(rp->a->live, &rp->target->id, &rp->dst, err);
    if (r == -ENOENT && rp->revives) {
        r = agent_image_make(rp->a, &rp->target->id, &rp->dst, err);
        rp->made = r == 0;
    }
    return r;
}

static int take_anchors(struct replacing *rp, struct verr *err)
{
    struct live_anchor an;
    for (unsigned i = 0; live_anchor_at(rp->src, i, &an, NULL) == 0; i++) {
        int r = snaps_anchor_shared(rp->a->store, &rp->target->id, &rp->source->id, &an.ref, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* As any rename, this one keeps the time of the last change: `rsync` and `make` decide by it. */
static int take_time(struct replacing *rp, struct verr *err)
{
    struct live_attr at;
    int r = live_attr(rp->src, &at, err);
    return r == 0 ? live_set_mtime(rp->dst, at.mtime_ns, err) : r;
}

/* Runs before the names change: both disks stay, whatever fails. */
static int take_content(struct replacing *rp, struct verr *err)
{
    struct due_case before = {.occasion = DUE_REPLACED, .node = rp->target};
    enum live_unsaved unsaved = LIVE_DROP;      /* what a removed disk had is gone */
    int r = 0;
    if (!rp->revives) {
        r = agent_freeze_due_locked(rp->a, &before, rp->dst, NULL, err);
        unsaved = r == 0 && before.attr.changed ? LIVE_DROP : LIVE_KEEP;
    }
    if (r >= 0)
        r = take_anchors(rp, err);
    if (r == 0)
        r = live_take(rp->dst, rp->src, unsaved, rp->read_on ? TAKE_COPY : TAKE_OVER, err);
    rp->taken = r == 0;
    return r == 0 ? take_time(rp, err) : r;
}

/* The names have not changed: the target must be no worse off. */
static void undo(struct replacing *rp)
{
    struct verr why = {0};
    if (rp->made) {
        live_put(rp->dst);
        rp->dst = NULL;
        if (live_remove(rp->a->live, &rp->target->id, &why) < 0)
            agent_owe(rp->a, &rp->target->id, WORK_FORGET, 0, &why);
    } else if (rp->taken && live_own(rp->dst, rp->src, &why) < 0) {
        vlog(VLOG_ERROR, "agent", "%s and %s share their data and take no changes until the next start: %s", rp->source->name,
             rp->target->name, verr_str(&why));
    }
}

static int freeze_result(struct replacing *rp, struct verr *err)
{
    struct node now;        /* the target has the source's owner and mode by now */
    struct due_case after = {.occasion = DUE_NAMED, .node = &now};
    int r = rp->made ? live_set_marks(rp->dst, 0, LIVE_UNNAMED, err) : 0;
    if (r == 0)
        r = catalog_node_by_id(rp->a->catalog, &rp->target->id, &now, err);
    if (r == 0)
        r = agent_freeze_due_locked(rp->a, &after, rp->dst, NULL, err);
    if (r == 0 && after.data == DUE_DATA_NO) {      /* the source would have settled; nothing waits for the target to do so */
        struct due_case zeros = {.occasion = DUE_ZEROS, .node = &now};
        r = agent_freeze_due_locked(rp->a, &zeros, rp->dst, NULL, err);
    }
    return r;
}

static int replace_in_turn(struct replacing *rp, struct verr *err)
{
    struct verr why = {0};
    int r = look_again(rp, err);
    if (r == 0)
        r = open_images(rp, err);
    if (r == 0)
        r = take_content(rp, err);
    if (r == 0)
        r = names_replace(rp->a->names, &rp->source->id, &rp->target->id, err);
    if (r < 0)
        undo(rp);
    /* The rename has happened: an error would deny it. What fails from here on is done later. */
    else if (freeze_result(rp, &why) < 0)
        agent_owe(rp->a, &rp->target->id, WORK_FREEZE, 0, &why);
    if (rp->src != NULL)
        live_put(rp->src);
    if (rp->dst != NULL)
        live_put(rp->dst);
    return r;
}

int agent_disk_replace(struct agent *a, const struct node *source, const struct node *target, bool read_on, struct verr *err)
{
    struct turn turn;
    const struct vid both[2] = {source->id, target->id};
    struct replacing rp = {.a = a, .source = source, .target = target, .read_on = read_on};
    int r = agent_tree_ready(a, err);
    if (r == 0)
        r = agent_ready(a, &source->id, err);
    if (r == 0)
        r = agent_ready(a, &target->id, err);
    if (r < 0)
        return r;
    turn_take(a->turns, &turn, both, 2);
    r = replace_in_turn(&rp, err);
    turn_give(a->turns, &turn);
    return r;
}
