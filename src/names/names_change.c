/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changes of one node: create, setattr, remove. Order in each: record in STORE (durable) -> row. A crash between leaves
 * STORE ahead of the catalog, which names_reconcile mends; the other way round a user would have seen what never was.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/fault.h"

static uint32_t mode_of(uint32_t kind, uint32_t mode)
{
    return mode & (kind == NODE_DISK ? 0777 : 07777);
}

/* ---- create ---- */

/* What a new name below parent must satisfy. */
static int check_new(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, struct verr *err)
{
    if (kind != NODE_DIR && kind != NODE_DISK)
        return verr_set(err, EINVAL, "%s: neither directory nor disk", name);
    int r = kind == NODE_DISK ? names_check_disk_name(name) : names_check_node_name(name);
    if (r == -EINVAL)
        return verr_set(err, EINVAL, "%s: not a name for a directory or disk ('@' stands in names of snapshots only)", name);
    if (r < 0)
        return verr_set(err, -r, "%.80s...: too long; a disk's name has at most %d bytes, so that its snapshots can be named", name,
                        DISK_NAME_MAX);
    struct node dir;
    r = catalog_node_by_id(n->catalog, parent, &dir, err);
    if (r < 0)
        return r;
    return dir.kind == NODE_DIR ? 0 : verr_set(err, ENOTDIR, "%s: is a disk", dir.name);
}

static int enter(struct names *n, const struct node *row, int64_t now, struct verr *err)
{
    int r = catalog_begin(n->catalog, err);
    if (r < 0)
        return r;
    r = catalog_node_put(n->catalog, row, err);
    if (r == 0)
        r = names_touch(n, &row->parent, now, err);
    if (r == 0)
        return catalog_commit(n->catalog, err);
    catalog_rollback(n->catalog);
    return r;
}

static int create_new(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, const struct node *owner,
                      struct node *out, struct verr *err)
{
    struct node rec;
    memset(&rec, 0, sizeof rec);
    rec.id = vid_random();
    rec.parent = *parent;
    rec.version = 1;
    rec.kind = kind;
    rec.mode = mode_of(kind, owner->mode);
    rec.uid = owner->uid;
    rec.gid = owner->gid;
    rec.atime_ns = rec.mtime_ns = rec.ctime_ns = rec.btime_ns = vclock_real_ns(n->clock);
    memcpy(rec.name, name, strlen(name) + 1);
    int r = store_node_create(n->store, &rec, err);
    if (r < 0)
        return r;
    fault_point("names.create.after_record");
    r = enter(n, &rec, rec.ctime_ns, err);
    if (r == 0)
        *out = rec;
    return r;
}

/* A removed disk whose snapshots stayed comes back: same id, so that its history goes on. */
static int revive(struct names *n, const struct node *gone, const struct node *owner, struct node *out, struct verr *err)
{
    struct node rec, row = *gone;
    int r = store_node_load(n->store, &gone->id, &rec, err);
    bool absent = r == -ENOENT;
    if (r < 0 && !absent)
        return r;
    if (absent)
        rec = *gone;    /* a row that reconcile made for snapshots whose record was lost */
    int64_t now = vclock_real_ns(n->clock);
    rec.flags &= ~(uint32_t)NODE_GONE;
    rec.mode = mode_of(NODE_DISK, owner->mode);
    rec.uid = owner->uid;
    rec.gid = owner->gid;
    rec.atime_ns = rec.mtime_ns = rec.ctime_ns = now;
    if (absent) {
        rec.version++;
        r = store_node_create(n->store, &rec, err);
        if (r == 0)
            r = catalog_node_put(n->catalog, &rec, err);
        row = rec;
    } else {
        r = names_save(n, &rec, &row, err);
    }
    if (r == 0)
        r = names_touch(n, &row.parent, now, err);
    if (r == 0)
        *out = row;
    return r;
}

static int create_locked(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, const struct node *owner,
                         struct node *out, bool *revived, struct verr *err)
{
    int r = check_new(n, parent, name, kind, err);
    if (r < 0)
        return r;
    struct node there;
    r = catalog_node_by_name(n->catalog, parent, name, &there, err);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0 && (there.flags & NODE_GONE) == 0)
        return verr_set(err, EEXIST, "%s: exists", name);
    if (r == 0 && kind == NODE_DISK) {
        r = revive(n, &there, owner, out, err);
        *revived = r == 0;
        return r;
    }
    if (r == 0) {
        r = names_drop_if_empty(n, &there, err);
        if (r == 0)
            r = verr_set(err, EEXIST, "%s: is the name of a removed disk whose snapshots are still there", name);
        if (r < 0)
            return r;
    }
    *revived = false;
    return create_new(n, parent, name, kind, owner, out, err);
}

int names_create(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, uint32_t mode, uint32_t uid,
                 uint32_t gid, struct node *out, bool *revived, struct verr *err)
{
    struct verr why = {0};
    const struct node owner = {.mode = mode, .uid = uid, .gid = gid};
    bool back = false;
    pthread_mutex_lock(&n->lock);
    int r = create_locked(n, parent, name, kind, &owner, out, &back, &why);
    pthread_mutex_unlock(&n->lock);
    if (r == 0 && revived != NULL)
        *revived = back;
    return names_end(r, &why, err);
}

/* ---- setattr ---- */

static void apply(struct node *rec, unsigned what, const struct node *v)
{
    if (what & SET_MODE)
        rec->mode = mode_of(rec->kind, v->mode);
    if (what & SET_UID)
        rec->uid = v->uid;
    if (what & SET_GID)
        rec->gid = v->gid;
    if (what & SET_ATIME)
        rec->atime_ns = v->atime_ns;
    if (what & SET_MTIME)
        rec->mtime_ns = v->mtime_ns;
    if (what & SET_FLAGS)   /* whether a disk is there is no attribute that can be set */
        rec->flags = (rec->flags & NODE_GONE) | (v->flags & NODE_SELECTIVE);
}

int names_setattr(struct names *n, const struct vid *id, unsigned what, const struct node *values, struct node *out, struct verr *err)
{
    struct verr why = {0};
    struct node rec, row;
    pthread_mutex_lock(&n->lock);
    int r = names_load(n, id, &rec, &row, &why);
    if (r == 0) {
        if (rec.kind == NODE_DIR)   /* the row alone has the moment of the last change below it */
            rec.mtime_ns = row.mtime_ns;
        apply(&rec, what, values);
        rec.ctime_ns = vclock_real_ns(n->clock);
        r = names_save(n, &rec, &row, &why);
    }
    pthread_mutex_unlock(&n->lock);
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

static int remove_locked(struct names *n, const struct vid *id, struct verr *err)
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
    pthread_mutex_lock(&n->lock);
    int r = remove_locked(n, id, &why);
    pthread_mutex_unlock(&n->lock);
    return names_end(r, &why, err);
}
