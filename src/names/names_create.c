/* SPDX-License-Identifier: Apache-2.0 */
/*
 * create: new names, and names for disks whose record was lost. Order: the image (made by the caller's `prepare`) -> the record in
 * STORE, which is the commit -> the row.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"

struct creation {
    uint32_t mode, uid, gid;
    int (*prepare)(void *ctx, struct node *node, struct verr *err);     /* may be NULL */
    void *ctx;
};

static int run_prepare(const struct creation *cr, struct node *rec, struct verr *err)
{
    int r = cr->prepare != NULL ? cr->prepare(cr->ctx, rec, err) : 0;
    if (r == 0)
        fault_point("names.create.prepared");
    return r;
}

/* ---- create ---- */

/* Checks whether a directory or disk of this name may be made below parent. */
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

static int create_new(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, const struct creation *cr,
                      struct node *out, struct verr *err)
{
    struct node rec;
    memset(&rec, 0, sizeof rec);
    if (cr->prepare == NULL)
        rec.id = vid_random();
    rec.parent = *parent;
    rec.version = 1;
    rec.kind = kind;
    rec.mode = names_mode(kind, cr->mode);
    rec.uid = cr->uid;
    rec.gid = cr->gid;
    rec.atime_ns = rec.mtime_ns = rec.ctime_ns = rec.btime_ns = vclock_real_ns(n->clock);
    memcpy(rec.name, name, strlen(name) + 1);
    int r = run_prepare(cr, &rec, err);
    if (r == 0)
        r = store_node_create(n->store, &rec, err);
    if (r < 0) {
        names_record_doubted(n, &rec, err);
        return r;
    }
    fault_point("names.create.after_record");
    r = enter(n, &rec, rec.ctime_ns, err);
    if (r == 0)
        *out = rec;
    else if (names_record_remove(n, &rec.id, NULL) < 0) /* the caller gets an error, but the record may stay: the node is shown, empty */
        names_rows_done(n, r, err);
    return r;
}

/* Brings a removed disk back whose snapshots stayed. It keeps its id, so that its history goes on. */
static int revive(struct names *n, const struct node *gone, const struct creation *cr, struct node *out, struct verr *err)
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
    rec.btime_ns = names_made_again(rec.btime_ns, now);
    rec.mode = names_mode(NODE_DISK, cr->mode);
    rec.uid = cr->uid;
    rec.gid = cr->gid;
    rec.atime_ns = rec.mtime_ns = rec.ctime_ns = now;
    r = run_prepare(cr, &rec, err);
    if (r < 0)
        return r;
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

static int create_in_turn(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, const struct creation *cr,
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
        r = revive(n, &there, cr, out, err);
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
    return create_new(n, parent, name, kind, cr, out, err);
}

static int create(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, const struct creation *cr,
                  struct node *out, bool *revived, struct verr *err)
{
    struct names_turn turn;
    int r = names_turn_take(n, &(struct concerned){.dir = parent}, &turn, err);
    if (r < 0)
        return r;
    r = create_in_turn(n, parent, name, kind, cr, out, revived, err);
    names_turn_give(n, &turn);
    return r;
}

int names_create(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, uint32_t mode, uint32_t uid,
                 uint32_t gid, struct node *out, bool *revived, struct verr *err)
{
    struct verr why = {0};
    const struct creation cr = {.mode = mode, .uid = uid, .gid = gid};
    bool back = false;
    int r = create(n, parent, name, kind, &cr, out, &back, &why);
    if (r == 0 && revived != NULL)
        *revived = back;
    return names_end(r, &why, err);
}

int names_create_disk(struct names *n, const struct vid *parent, const char *name, uint32_t mode, uint32_t uid, uint32_t gid,
                      int (*prepare)(void *ctx, struct node *node, struct verr *err), void *ctx, struct node *out,
                      struct verr *err)
{
    struct verr why = {0};
    const struct creation cr = {.mode = mode, .uid = uid, .gid = gid, .prepare = prepare, .ctx = ctx};
    bool back = false;
    int r = create(n, parent, name, NODE_DISK, &cr, out, &back, &why);
    return names_end(r, &why, err);
}

/* ---- lost names ---- */

/* A new record for a disk whose owner is unknown: it belongs to root, who may give it away. */
static void lost_record(struct names *n, const struct vid *disk, struct node *rec)
{
    char hex[VID_HEX];
    memset(rec, 0, sizeof *rec);
    rec->id = *disk;
    names_root_id(n, &rec->parent);
    rec->version = 1;
    rec->kind = NODE_DISK;
    rec->mode = 0600;
    rec->atime_ns = rec->mtime_ns = rec->ctime_ns = rec->btime_ns = vclock_real_ns(n->clock);
    vid_hex(disk, hex);
    snprintf(rec->name, sizeof rec->name, "lost-%.8s", hex);
}

/* Makes the record, or loads the record that an earlier attempt made. A damaged record is left alone. */
static int make_record(struct names *n, struct node *rec, struct verr *err)
{
    struct node there;
    int r = store_node_load(n->store, &rec->id, &there, err);
    if (r == -EBADMSG || r == -ENOTSUP)
        return 0;
    if (r == -ENOENT)
        return store_node_create(n->store, rec, err);
    if (r == 0 && (there.flags & NODE_GONE) != 0)
        return verr_set(err, EEXIST, "%s: its record says that it was removed", there.name);
    if (r == 0)
        *rec = there;
    return r;
}

static int adopt_in_turn(struct names *n, const struct vid *disk, struct node *out, struct verr *err)
{
    struct node rec, other;
    int r = catalog_node_by_id(n->catalog, disk, &rec, err);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0 && (rec.flags & NODE_GONE) == 0) {
        *out = rec;
        return 0;
    }
    if (r == -ENOENT) {
        lost_record(n, disk, &rec);
        r = catalog_node_by_name(n->catalog, &rec.parent, rec.name, &other, err);
        if (r == 0)
            vid_hex(disk, rec.name + strlen("lost-"));
        if (r < 0 && r != -ENOENT)
            return r;
    }
    rec.flags &= ~(uint32_t)NODE_GONE;
    rec.mode |= 0600;
    rec.version++;
    r = make_record(n, &rec, err);
    if (r < 0)
        return r;
    r = enter(n, &rec, rec.ctime_ns, err);
    if (r == 0)
        *out = rec;
    return r;
}

int names_adopt(struct names *n, const struct vid *disk, struct node *out, struct verr *err)
{
    struct verr why = {0};
    struct vid root;
    struct names_turn turn;
    names_root_id(n, &root);
    int r = names_turn_take(n, &(struct concerned){.node = disk, .perhaps = true, .dir = &root}, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = adopt_in_turn(n, disk, out, &why);
    names_turn_give(n, &turn);
    return names_end(r, &why, err);
}
