/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snap: removal, label, note, protection and owner of stored snapshots. The side file SEQ-SNAPID.attr holds what can change of a
 * stored snapshot: snaps_edit replaces it durably, and the row follows before another edit of that snapshot begins.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "store/snaps.h"

/* ---- change ---- */

struct snap_change {
    struct names *n;
    const char *label, *note;
    const bool *protected_;
    const uint32_t *mode, *uid, *gid;
};

static int change_side(void *ctx, struct snapinfo *s)
{
    const struct snap_change *ch = ctx;
    if (ch->label != NULL) {
        memset(s->label, 0, sizeof s->label);
        memcpy(s->label, ch->label, strlen(ch->label));
    }
    if (ch->note != NULL) {
        memset(s->note, 0, sizeof s->note);
        memcpy(s->note, ch->note, strlen(ch->note));
    }
    if (ch->protected_ != NULL)
        s->protected_ = *ch->protected_;
    if (ch->mode != NULL)
        s->mode = *ch->mode & 0555;
    if (ch->uid != NULL)
        s->uid = *ch->uid;
    if (ch->gid != NULL)
        s->gid = *ch->gid;
    return 0;
}

/* Applies the change to the row, and nothing else of the side file: the agent changes flags, and a row may have another name than the
 * side file says (names_reconcile_snap.c). */
static int change_row(void *ctx, struct snaprow *row)
{
    return change_side(ctx, &row->info);
}

static int row_follows(void *ctx, const struct snapinfo *now, struct verr *err)
{
    const struct snap_change *ch = ctx;
    struct verr why = {0};
    int r = catalog_snap_edit(ch->n->catalog, &now->ref.snap, change_row, ctx, NULL, &why);
    return names_end(names_rows_done(ch->n, r, &why), &why, err);
}

static int change(struct names *n, const struct snaprow *s, struct snap_change *ch, struct verr *err)
{
    const struct snaps_change side = {.change = change_side, .then = row_follows, .ctx = ch};
    ch->n = n;
    int r = snaps_edit(n->store, &s->info.ref, &side, NULL, err);
    if (r == -ENOENT)       /* another host has removed it */
        catalog_snap_del(n->catalog, &s->info.ref.snap, NULL);
    return r;
}

static int load_stored(struct names *n, const struct vid *snap, struct snaprow *out, struct verr *err)
{
    int r = catalog_snap_by_id(n->catalog, snap, out, err);
    if (r == 0 && out->state != SNAPST_STORED)
        r = verr_set(err, EBUSY, "the snapshot is not stored yet: wait for it with `varve wait`");
    return r;
}

int names_snap_set(struct names *n, const struct vid *snap, const char *note, const bool *protected_, const uint32_t *mode,
                   const uint32_t *uid, const uint32_t *gid, struct verr *err)
{
    struct verr why = {0};
    struct snaprow s;
    struct snap_change ch = {.note = note, .protected_ = protected_, .mode = mode, .uid = uid, .gid = gid};
    if (note != NULL && strnlen(note, sizeof s.info.note) == sizeof s.info.note)
        return verr_set(err, E2BIG, "a note has at most %zu bytes", sizeof s.info.note - 1);
    int r = load_stored(n, snap, &s, &why);
    if (r == 0)
        r = change(n, &s, &ch, &why);
    return names_end(r, &why, err);
}

/* The turn of the directory of the snapshot's disk, which may have lost its row. A snapshot stays with its disk. */
static int turn_of_snap(struct names *n, const struct vid *snap, struct names_turn *turn, struct verr *err)
{
    struct snaprow s;
    int r = catalog_snap_by_id(n->catalog, snap, &s, err);
    return r < 0 ? r : names_turn_take(n, &(struct concerned){.node = &s.info.ref.disk, .perhaps = true}, turn, err);
}

/* -EEXIST: another snapshot has the name that the label would give; it may belong to another disk if an extension is missing. */
static int check_label_free(struct names *n, const struct snaprow *s, const char *label, struct verr *err)
{
    struct snaprow other;
    struct node disk;
    struct entry e;
    char name[NODE_NAME_MAX + 1];
    int r = catalog_snap_by_name(n->catalog, &s->info.ref.disk, label, 0, &other, err);
    if (r == 0)
        return vid_eq(&other.info.ref.snap, &s->info.ref.snap) ? 0 : verr_set(err, EEXIST,
                                                                              "%s: is the label of another snapshot of this disk", label);
    if (r != -ENOENT)
        return r;
    r = catalog_node_by_id(n->catalog, &s->info.ref.disk, &disk, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (snapname_make(disk.name, label, 0, name) < 0)
        return verr_set(err, ENAMETOOLONG, "%s: too long a label for %s", label, disk.name);
    r = names_lookup(n, &disk.parent, name, &e, NULL);
    if (r == 0)
        return verr_set(err, EEXIST, "%s: exists", name);
    return r == -ENOENT ? 0 : verr_set(err, -r, "%s: cannot be looked up", name);
}

int names_snap_relabel(struct names *n, const struct vid *snap, const char *label, struct verr *err)
{
    struct verr why = {0};
    struct snaprow s;
    struct snap_change ch = {.label = label};
    struct names_turn turn;
    if (!snapname_label_ok(label))
        return verr_set(err, EINVAL, "%.80s: not a label: 1 to 64 of [A-Za-z0-9._-], not of the form of a timestamp", label);
    int r = turn_of_snap(n, snap, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = load_stored(n, snap, &s, &why);
    if (r == 0 && strcmp(s.info.label, label) != 0) {
        r = check_label_free(n, &s, label, &why);
        if (r == 0)
            r = change(n, &s, &ch, &why);
    }
    names_turn_give(n, &turn);
    return names_end(r, &why, err);
}

/* ---- removal ---- */

static int remove_in_turn(struct names *n, const struct vid *id, struct verr *err)
{
    struct snaprow s;
    struct node disk;
    int r = catalog_snap_by_id(n->catalog, id, &s, err);
    if (r < 0)
        return r;
    if (s.info.protected_)
        return verr_set(err, EPERM, "the snapshot is protected: set user.varve.protected to 0 first");
    /* Removal goes in this order: the recipe moves into trash/, durably; then the row; then the record of a disk without snapshots. */
    if (s.state == SNAPST_STORED) {
        r = snaps_trash(n->store, &s.info.ref, err);
        if (r < 0 && r != -ENOENT)
            return names_rows_done(n, r, err);  /* the recipe may be moved or not: the next reconcile sees which */
        fault_point("names.snap_remove.after_trash");
    }
    r = names_rows_done(n, catalog_snap_del(n->catalog, &s.info.ref.snap, err), err);
    if (r == 0)
        r = catalog_node_by_id(n->catalog, &s.info.ref.disk, &disk, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = names_drop_if_empty(n, &disk, err);
    return r < 0 ? r : names_touch(n, &disk.parent, vclock_real_ns(n->clock), err);
}

int names_snap_remove(struct names *n, const struct snaprow *s, struct verr *err)
{
    struct verr why = {0};
    struct names_turn turn;
    int r = turn_of_snap(n, &s->info.ref.snap, &turn, &why);
    if (r < 0)
        return names_end(r, &why, err);
    r = remove_in_turn(n, &s->info.ref.snap, &why);
    names_turn_give(n, &turn);
    return names_end(r, &why, err);
}
