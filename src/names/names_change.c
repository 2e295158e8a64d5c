/* SPDX-License-Identifier: Apache-2.0 */
/*
 * change: changes of one node: setattr, remove (create: names_create.c). Order in each: record in STORE (durable) -> row. A crash in
 * between leaves STORE ahead of the catalog, and names_reconcile makes the catalog follow. In the other order a user could see a
 * change that never became durable.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <string.h>

/* ---- setattr ---- */

static void apply(struct node *rec, unsigned what, const struct node *v)
{
    if (what & SET_MODE)
        rec->mode = names_mode(rec->kind, v->mode);
    if (what & SET_UID)
        rec->uid = v->uid;
    if (what & SET_GID)
        rec->gid = v->gid;
    if (what & SET_ATIME)
        rec->atime_ns = v->atime_ns;
    if (what & SET_MTIME)
        rec->mtime_ns = v->mtime_ns;
    if (what & SET_FLAGS)   /* NODE_GONE says whether the disk exists: setattr must not change it */
        rec->flags = (rec->flags & NODE_GONE) | (v->flags & NODE_SELECTIVE);
}

int names_setattr(struct names *n, const struct vid *id, unsigned what, const struct node *values, struct node *out, struct verr *err)
{
    struct verr why = {0};
    struct node rec, row;
    struct names_turn turn;
    int r = names_turn_take(n, &(struct concerned){.node = id}, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = names_load(n, id, &rec, &row, &why);
    if (r == 0) {
        if (rec.kind == NODE_DIR)   /* only the row knows when an entry of the directory last changed */
            rec.mtime_ns = row.mtime_ns;
        apply(&rec, what, values);
        rec.ctime_ns = vclock_real_ns(n->clock);
        r = names_save(n, &rec, &row, &why);
    }
    names_turn_give(n, &turn);
    if (r == 0 && out != NULL)
        *out = row;
    return names_end(r, &why, err);
}

/* ---- remove ---- */

int names_empty_dir(struct names *n, const struct node *dir, struct verr *err)
{
    struct node child;
    char after[NODE_NAME_MAX + 1] = "";
    for (;;) {
        int r = catalog_children(n->catalog, &dir->id, after, &child, 1, err);
        if (r <= 0)
            return r;
        memcpy(after, child.name, sizeof after);
        if ((child.flags & NODE_GONE) == 0)
            return verr_set(err, ENOTEMPTY, "%s: not empty", dir->name);
        r = names_drop_if_empty(n, &child, err);
        if (r < 0)
            return r;
        if (r == 0)
            return verr_set(err, ENOTEMPTY, "%s: snapshots of the removed disk %s are still in it", dir->name, child.name);
    }
}

static int mark_gone(struct names *n, const struct node *row, int64_t now, struct verr *err)
{
    struct node rec, shown;
    int r = names_load(n, &row->id, &rec, &shown, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    rec.flags |= NODE_GONE;
    rec.ctime_ns = now;
    return names_save(n, &rec, &shown, err);
}

static int remove_in_turn(struct names *n, const struct vid *id, struct verr *err)
{
    struct node row;
    uint64_t snaps = 0;
    int r = catalog_node_by_id(n->catalog, id, &row, err);
    if (r < 0)
        return r;
    if (vid_is_zero(&row.parent))
        return verr_set(err, EBUSY, "the root directory is not removed");
    if (row.kind == NODE_DIR)
        r = names_empty_dir(n, &row, err);
    else
        r = catalog_snap_count(n->catalog, id, &snaps, err);
    if (r < 0)
        return r;
    int64_t now = vclock_real_ns(n->clock);
    if (snaps > 0) {
        r = mark_gone(n, &row, now, err);
    } else {
        r = names_settle_namesakes(n, &row, err);
        if (r == 0)
            r = names_drop(n, &row, err);
    }
    return r < 0 ? r : names_touch(n, &row.parent, now, err);
}

int names_remove(struct names *n, const struct vid *id, struct verr *err)
{
    struct verr why = {0};
    struct names_turn turn;
    int r = names_turn_take(n, &(struct concerned){.node = id}, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = remove_in_turn(n, id, &why);
    names_turn_give(n, &turn);
    return names_end(r, &why, err);
}
