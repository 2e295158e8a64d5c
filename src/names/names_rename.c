/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rename: the commit is one update of one record. When another node gives way, that record names it in `replaces`, so a reader who
 * still finds the other node's record knows that the node is removed. Only then does the other record end: it goes, or, of a disk with
 * snapshots, says NODE_GONE. Such a disk can come back under its id, so then, at last, `replaces` is cleared.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"

enum { DEPTH_MAX = 4096 };

/* -EINVAL when dir is node or lies below it. */
static int check_not_below(struct names *n, const struct node *node, const struct vid *dir, struct verr *err)
{
    struct node at;
    struct vid id = *dir;
    for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
        if (vid_eq(&id, &node->id))
            return verr_set(err, EINVAL, "%s: cannot become a directory below itself", node->name);
        int r = catalog_node_by_id(n->catalog, &id, &at, err);
        if (r < 0)
            return r;
        if (vid_is_zero(&at.parent))
            return 0;
        id = at.parent;
    }
    return verr_set(err, ELOOP, "%s: directories are nested more than %d deep", node->name, DEPTH_MAX);
}

static int check_target_name(const struct node *node, const char *name, struct verr *err)
{
    int r = node->kind == NODE_DISK ? names_check_disk_name(name) : names_check_node_name(name);
    if (r == -EINVAL)
        return verr_set(err, EINVAL, "%s: not a name for a directory or disk ('@' stands in names of snapshots only)", name);
    return r < 0 ? verr_set(err, -r, "%.80s...: too long for a name", name) : 0;
}

/* Looks for a node under the new name, and drops it if it is a removed disk without snapshots. 1: *there is an empty directory, which
 * will be replaced; 0: the name is free; -errno. */
static int make_room(struct names *n, const struct node *node, const struct vid *parent, const char *name, struct node *there,
                     struct verr *err)
{
    int r = catalog_node_by_name(n->catalog, parent, name, there, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if ((there->flags & NODE_GONE) != 0) {
        r = names_drop_if_empty(n, there, err);
        if (r == 0)
            return verr_set(err, EEXIST, "%s: is the name of a removed disk whose snapshots are still there", name);
        return r < 0 ? r : 0;
    }
    if (there->kind == NODE_DISK)
        return node->kind == NODE_DIR ? verr_set(err, ENOTDIR, "%s: is a disk", name) : verr_set(err, EEXIST, "%s: exists", name);
    if (node->kind == NODE_DISK)
        return verr_set(err, EISDIR, "%s: is a directory", name);
    r = names_empty_dir(n, there, err);
    return r < 0 ? r : 1;
}

/* Sets the node that rec replaces. A node that it replaced before is ended first, because only rec says that that node is replaced. */
static int set_replaces(struct names *n, struct node *rec, const struct vid *id, struct verr *err)
{
    struct node before;
    int r = 0;
    if (!vid_is_zero(&rec->replaces) && !vid_eq(&rec->replaces, id))
        r = names_end_replaced(n, &rec->replaces, &before, err);
    if (r >= 0)
        rec->replaces = *id;
    return r < 0 ? r : 0;
}

/* Changes the rows after a rename: the replaced node's goes, or says NODE_GONE; the node gets its name; both directories are touched. */
static int enter(struct names *n, const struct node *rec, const struct node *old, const struct node *replaced, struct verr *err)
{
    int r = catalog_begin(n->catalog, err);
    if (r < 0)
        return r;
    if (replaced != NULL)
        r = (replaced->flags & NODE_GONE) != 0 ? catalog_node_put(n->catalog, replaced, err)
                                               : catalog_node_del(n->catalog, &replaced->id, err);
    if (r == 0)
        r = catalog_node_put(n->catalog, rec, err);
    if (r == 0)
        r = names_touch(n, &rec->parent, rec->ctime_ns, err);
    if (r == 0 && !vid_eq(&rec->parent, &old->parent))
        r = names_touch(n, &old->parent, rec->ctime_ns, err);
    if (r == 0)
        return catalog_commit(n->catalog, err);
    catalog_rollback(n->catalog);
    return r;
}

static int rename_in_turn(struct names *n, const struct vid *id, const struct vid *new_parent, const char *new_name, struct verr *err)
{
    struct node rec, row, there, dir;
    int r = names_load(n, id, &rec, &row, err);
    if (r < 0)
        return r;
    if (vid_is_zero(&row.parent))
        return verr_set(err, EBUSY, "the root directory is not renamed");
    if (vid_eq(&row.parent, new_parent) && strcmp(row.name, new_name) == 0)
        return 0;
    r = check_target_name(&row, new_name, err);
    if (r == 0)
        r = catalog_node_by_id(n->catalog, new_parent, &dir, err);
    if (r == 0 && dir.kind != NODE_DIR)
        r = verr_set(err, ENOTDIR, "%s: is a disk", dir.name);
    if (r == 0 && row.kind == NODE_DIR)
        r = check_not_below(n, &row, new_parent, err);
    if (r == 0)
        r = make_room(n, &row, new_parent, new_name, &there, err);
    if (r < 0)
        return r;
    bool replaces = r > 0;
    r = names_settle_namesakes(n, &row, err);
    if (r == 0 && replaces)
        r = set_replaces(n, &rec, &there.id, err);
    if (r < 0)
        return r;
    rec.parent = *new_parent;
    memset(rec.name, 0, sizeof rec.name);
    memcpy(rec.name, new_name, strlen(new_name));
    rec.ctime_ns = vclock_real_ns(n->clock);
    rec.version++;
    r = store_node_update(n->store, &rec, err);     /* the commit */
    if (r < 0) {
        names_record_doubted(n, &rec, err);
        return r;
    }
    fault_point("names.rename.after_record");
    if (replaces)
        r = names_drop(n, &there, err);
    fault_point("names.rename.after_remove");
    /* The rename is committed, even if the other record could not be removed: the rows must show it. */
    int e = names_rows_done(n, enter(n, &rec, &row, replaces ? &there : NULL, err), err);
    return r < 0 ? r : e;
}

int names_rename(struct names *n, const struct vid *id, const struct vid *new_parent, const char *new_name, struct verr *err)
{
    struct verr why = {0};
    struct names_turn turn;
    int r = names_turn_take(n, &(struct concerned){.node = id, .dir = new_parent, .name = new_name}, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = rename_in_turn(n, id, new_parent, new_name, &why);
    names_turn_give(n, &turn);
    return names_end(r, &why, err);
}

/* ---- disk onto disk ---- */

/* Loads the target's record. A target that only has a row, which reconcile made for snapshots without a disk, gets its record now. */
static int load_target(struct names *n, const struct vid *id, struct node *rec, struct node *row, struct verr *err)
{
    int r = catalog_node_by_id(n->catalog, id, row, err);
    if (r < 0)
        return r;
    r = store_node_load(n->store, id, rec, err);
    if (r == -ENOENT && (row->flags & NODE_GONE) != 0) {
        *rec = *row;
        r = store_node_create(n->store, rec, err);
    }
    return r;
}

/* The rename is durable: ends the source. *src, its row, says NODE_GONE if the source's name stays with its snapshots, or if it is not
 * known yet what becomes of it; names_reconcile finishes then. */
static int end_source(struct names *n, struct node *rec, struct node *src, struct verr *err)
{
    struct node left;
    int r = names_end_replaced(n, &src->id, &left, err);
    fault_point("names.replace.after_end");
    if (r != 0)
        src->flags |= NODE_GONE;
    if (r != 1)
        return r;
    src->version = left.version;
    src->ctime_ns = left.ctime_ns;
    rec->replaces = (struct vid){{0}};
    rec->version++;
    int fault = fault_errno("names.replace.clear");
    r = fault != 0 ? verr_set(err, fault, "fault injected") : store_node_update(n->store, rec, err);
    fault_point("names.replace.after_clear");
    return r;
}

static int replace_in_turn(struct names *n, const struct vid *source, const struct vid *target, struct verr *err)
{
    struct node src, rec, row = {0};
    uint64_t snaps = 0;
    if (vid_eq(source, target))
        return 0;
    int r = catalog_node_by_id(n->catalog, source, &src, err);
    if (r == 0)
        r = load_target(n, target, &rec, &row, err);
    if (r < 0)
        return r;
    if (src.kind != NODE_DISK || row.kind != NODE_DISK)
        return verr_set(err, EINVAL, "%s onto %s: both must be disks", src.name, row.name);
    r = catalog_snap_count(n->catalog, source, &snaps, err);
    if (r == 0 && snaps == 0)   /* its name becomes free */
        r = names_settle_namesakes(n, &src, err);
    if (r == 0)
        r = set_replaces(n, &rec, source, err);
    if (r < 0)
        return r;
    bool same_rights = rec.mode == (src.mode & 0777) && rec.uid == src.uid && rec.gid == src.gid;
    rec.mode = src.mode & 0777;
    rec.uid = src.uid;
    rec.gid = src.gid;
    rec.mtime_ns = src.mtime_ns;
    rec.ctime_ns = vclock_real_ns(n->clock);
    /* Who holds it open, or by a file handle, may not be allowed to read what it has now: to him it is another file. */
    if ((rec.flags & NODE_GONE) != 0 || !same_rights)
        rec.btime_ns = names_made_again(rec.btime_ns, rec.ctime_ns);
    rec.flags &= ~(uint32_t)NODE_GONE;
    rec.version++;
    int fault = fault_errno("names.replace.before");
    r = fault != 0 ? verr_set(err, fault, "fault injected") : store_node_update(n->store, &rec, err);     /* the commit */
    fault = fault_errno("names.replace.updated");
    if (r == 0 && fault != 0)
        r = verr_set(err, fault, "fault injected");
    bool doubted = r < 0;
    if (doubted && !names_record_doubted(n, &rec, err))
        return r;
    fault_point("names.replace.after_record");
    /* The rename is committed: errors from here on are left to the next reconcile. While it may not be durable, nothing relies on it. */
    if (doubted)
        src.flags |= NODE_GONE;
    else if (end_source(n, &rec, &src, err) < 0)
        names_rows_done(n, -EIO, err);
    rec.parent = row.parent;
    memcpy(rec.name, row.name, sizeof rec.name);
    names_rows_done(n, enter(n, &rec, &src, &src, err), err);
    return 0;
}

int names_replace(struct names *n, const struct vid *source, const struct vid *target, struct verr *err)
{
    struct verr why = {0};
    struct names_turn turn;
    int r = names_turn_take(n, &(struct concerned){.node = target, .other = source}, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = replace_in_turn(n, source, target, &why);
    names_turn_give(n, &turn);
    return names_end(r, &why, err);
}
