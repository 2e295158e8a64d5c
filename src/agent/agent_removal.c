/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removal of live images. An image is removed only if a removal was said: the disk's record has NODE_GONE, or the record is gone and
 * `removed` stands in the image's directory (live_removal_say, durable before the record goes). An image without a name and without
 * such a sign has lost its name, and gets another one (agent_recover.c).
 */
#include "agent/agent_internal.h"
#include "store/snaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int agent_say_removal(void *agent, const struct vid *id, bool stays, struct verr *err)
{
    struct agent *a = agent;
    return stays ? live_removal_unsay(a->state_fd, id, err) : live_removal_say(a->state_fd, id, err);
}

int agent_removal_certain(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct node rec;
    struct verr why = {0};
    int r = store_node_load(a->store, disk, &rec, &why);
    if (r == 0)
        return (rec.flags & NODE_GONE) != 0;
    if (r == -ENOENT)
        return live_removal_said(a->state_fd, disk, err);
    if (r == -EBADMSG || r == -ENOTSUP)     /* an unreadable record says nothing for certain */
        return 0;
    return verr_set(err, -r, "%s", verr_str(&why));
}

struct anchor_list { struct live_anchor *v; unsigned n; };

/* Lists the anchors of a live image before it is removed: only the image knows them. */
static int list_anchors(struct agent *a, const struct vid *disk, struct anchor_list *out, struct verr *err)
{
    struct live *l;
    struct live_anchor anchor;
    unsigned n = 0;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r;
    while (live_anchor_at(l, n, &anchor, NULL) == 0)
        n++;
    out->v = calloc(n + 1, sizeof *out->v);
    if (out->v == NULL)
        r = verr_set(err, ENOMEM, "out of memory");
    while (r == 0 && out->n < n && live_anchor_at(l, out->n, &out->v[out->n], NULL) == 0)
        out->n++;
    live_put(l);
    return r;
}

static int unanchor(struct agent *a, const struct vid *disk, const struct anchor_list *list, struct verr *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < list->n; i++)
        r = snaps_unanchor(a->store, disk, &list->v[i].ref, NULL, NULL, err);
    return r;
}

int agent_forget_if_gone(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct node node;
    int r = catalog_node_by_id(a->catalog, disk, &node, err);
    if (r == 0 && !(node.flags & NODE_GONE))
        return 0;
    if (r < 0 && r != -ENOENT)
        return r;
    r = agent_removal_certain(a, disk, err);
    if (r <= 0)
        return r;
    struct live *l;
    struct snapinfo p;
    r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    bool waiting = live_pending(l, 0, &p, NULL) == 0;
    live_put(l);
    if (waiting)
        return 0;
    /* Anchors first: the image is removed for certain, so only a stream of a handle that is still open relies on them, which gives -EBUSY.
     * The next start removes an image that a crash in between leaves. */
    struct anchor_list anchors = {0};
    r = list_anchors(a, disk, &anchors, err);
    if (r == 0)
        r = unanchor(a, disk, &anchors, err);
    if (r == 0)
        r = live_remove(a->live, disk, err);
    free(anchors.v);
    return r == -ENOENT ? 0 : r;
}

void agent_forget_in_turn(struct agent *a, const struct vid *disk)
{
    struct verr why = {0};
    struct turn turn;
    turn_take(a->turns, &turn, disk, 1);
    int r = agent_forget_if_gone(a, disk, &why);
    turn_give(a->turns, &turn);
    if (r < 0)
        agent_owe(a, disk, WORK_FORGET, 0, &why);
}

/*
 * Dropping a pending snapshot merges it into the live image, which takes space. A removed disk does not need that image, so the whole
 * image goes with the disk's only pending snapshot.
 */
int agent_discard_if_gone(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct node node;
    struct live *l;
    struct snapinfo p, next;
    int r = catalog_node_by_id(a->catalog, disk, &node, NULL);
    if (r < 0 || !(node.flags & NODE_GONE) || agent_removal_certain(a, disk, NULL) <= 0 || live_get(a->live, disk, &l, NULL) < 0)
        return 0;
    bool only = live_pending(l, 0, &p, NULL) == 0 && live_pending(l, 1, &next, NULL) == -ENOENT && !(p.flags & SNAP_STARTED);
    live_put(l);
    if (!only)
        return 0;
    /* Anchors last: until the image is gone, the snapshot is pending and may be stored after all. A crash in between leaves anchors
     * that hold a little space. */
    struct anchor_list anchors = {0};
    struct verr why = {0};
    r = list_anchors(a, disk, &anchors, err);
    if (r == 0)
        r = live_discard(a->live, disk, err);
    if (r == 0 && unanchor(a, disk, &anchors, &why) < 0)
        vlog(VLOG_WARN, "agent", "an anchor of a removed disk stays: %s", verr_str(&why));
    free(anchors.v);
    return r == 0 ? 1 : r;      /* -EBUSY: a reader has it open, or a round had it a moment ago */
}
