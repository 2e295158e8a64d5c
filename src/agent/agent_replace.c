/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rename of a disk onto an existing disk (rsync and editors do this with their temporary names): the target keeps id, name and history
 * and takes the content. Order: the target's changes are frozen if that is due -> the source's anchors are linked for the target ->
 * one head record gives the target the source's table and layers (live_take) -> names -> the source's local data are removed. A crash
 * or an error before the names leaves both disks with that content. live unshares the layers: after an error at once, after a crash
 * when it opens them.
 */
#include "agent/agent_internal.h"
#include "store/snaps.h"

#include <errno.h>

static int take_anchors(struct agent *a, struct live *src, const struct vid *target, struct verr *err)
{
    struct live_anchor an;
    for (unsigned i = 0; live_anchor_at(src, i, &an, NULL) == 0; i++) {
        int r = snaps_anchor(a->store, target, &an.ref, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_no_history(struct agent *a, const struct node *source, struct verr *err)
{
    uint64_t n;
    int r = agent_rows_pay(a, err);
    if (r == 0)
        r = catalog_snap_count(a->catalog, &source->id, &n, err);
    if (r == 0 && n > 0)
        return verr_set(err, EEXIST, "%s has snapshots of its own: its history cannot be joined to another disk's", source->name);
    return r;
}

/* Runs before the names change: both disks stay, whatever fails. */
static int take_content(struct agent *a, const struct node *target, struct live *src, struct live *dst, const struct vid *target_id,
                        struct verr *err)
{
    struct due_case before = {.occasion = DUE_REPLACED, .node = target};
    int r = agent_freeze_due_locked(a, &before, dst, NULL, err);
    const enum live_unsaved unsaved = r == 0 && before.attr.changed ? LIVE_DROP : LIVE_KEEP;
    if (r >= 0)
        r = take_anchors(a, src, target_id, err);
    return r == 0 ? live_take(dst, src, unsaved, err) : r;
}

static int freeze_result(struct agent *a, const struct vid *target, struct live *dst, struct verr *err)
{
    struct node now;        /* the target has the source's owner and mode by now */
    struct due_case after = {.occasion = DUE_NAMED, .node = &now};
    int r = catalog_node_by_id(a->catalog, target, &now, err);
    return r < 0 ? r : agent_freeze_due_locked(a, &after, dst, NULL, err);
}

int agent_disk_replace(struct agent *a, const struct node *source, const struct node *target, struct verr *err)
{
    struct turn turn;
    const struct vid both[2] = {source->id, target->id};
    struct live *src = NULL, *dst = NULL;
    struct verr why = {0};
    int r = agent_ready(a, &source->id, err);
    if (r == 0)
        r = agent_ready(a, &target->id, err);
    if (r < 0)
        return r;
    turn_take(a->turns, &turn, both, 2);
    r = check_no_history(a, source, err);
    if (r == 0)
        r = live_get(a->live, &source->id, &src, err);
    if (r == 0)
        r = live_get(a->live, &target->id, &dst, err);
    if (r == 0)
        r = take_content(a, target, src, dst, &target->id, err);
    if (r == 0) {
        r = names_replace(a->names, &source->id, &target->id, err);
        if (r < 0 && live_own(dst, src, &why) < 0)
            vlog(VLOG_ERROR, "agent", "%s and %s share their data and take no changes until the next start: %s", source->name,
                 target->name, verr_str(&why));
    }
    /* The rename has happened: an error would deny it. What fails from here on is done later. */
    if (r == 0 && freeze_result(a, &target->id, dst, &why) < 0)
        agent_owe(a, &target->id, WORK_FREEZE, 0, &why);
    if (src != NULL)
        live_put(src);
    if (dst != NULL)
        live_put(dst);
    if (r == 0 && agent_forget_if_gone(a, &source->id, &why) < 0)
        agent_owe(a, &source->id, WORK_FORGET, 0, &why);
    turn_give(a->turns, &turn);
    return r;
}
