/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snaps: the only reader and writer of snapshot records in STORE.
 *
 *   snapshots/DISK/SEQ-SNAPID.rcp     recipe: written once, by a publication (store/publish.h), never changed
 *   snapshots/DISK/SEQ-SNAPID.attr    side file: label, note, flags, protection, owner as they are now; snaps_edit alone writes it
 *   anchors/DISK/SEQ-SNAPID.rcp       link to a recipe that the live image of DISK relies on
 *   trash/...                         what rm and un-anchoring rename away (snaps_links.c)
 *
 * Thread-safe. No mutex is held across I/O on STORE: edits of one snapshot exclude each other, and so do a pin and the
 * un-anchoring of one anchor, by a list of what is under way; those of different snapshots never wait for each other.
 */
#ifndef VARVE_STORE_SNAPS_H
#define VARVE_STORE_SNAPS_H

#include "format/recipe.h"
#include "store/store.h"

/* ---- reading ---- */

/* The recipe's header alone. -ENOENT; -EBADMSG: damaged, or of another store, disk or snapshot than its name says (err names
 * the file); -ENOTSUP: of a newer version. */
int snaps_header(struct store *st, const struct snapref *ref, struct snaprcp *out, struct verr *err);
/* The side file: 1 read, 0 there is none, -EBADMSG damaged, -ENOTSUP. attr may be NULL. rcp (may be NULL): what the side file says
 * takes the place of what the recipe said. */
int snaps_side(struct store *st, const struct snapref *ref, struct snaprcp *rcp, struct snapattr *attr, struct verr *err);
/* Header with the side file applied. attr may be NULL; without a side file it holds the recipe's own label and note. */
int snaps_load(struct store *st, const struct snapref *ref, struct snaprcp *out, struct snapattr *attr, struct verr *err);
/* Is the recipe there, and its directory entry durable (fsynced here)? 1, 0, -errno. */
int snaps_durable(struct store *st, const struct snapref *ref, struct verr *err);

/* ---- lists: names from listings only, in no order; made anew each time, as absence may decide (base/backend.h) ---- */

enum snaps_where { SNAPS_STORED, SNAPS_ANCHORED, SNAPS_TRASH };
struct snaps_file {
    struct snapref ref;         /* disk: whose directory it is in or was removed from; of an anchor the disk that relies on it */
    bool anchor, side_file;
    const char *name;           /* of the file itself */
};
/* file for each recipe and side file; stray (may be NULL) for each other name: "snapshots/DISK/NAME". An answer other than 0 ends
 * the walk and is returned. Without the directory of that disk there is nothing; a listing that fails is -errno.
 * disk: not used for SNAPS_TRASH, which is one directory. */
struct snaps_walk {
    int (*file)(void *ctx, const struct snaps_file *f);
    int (*stray)(void *ctx, const char *path);
    void *ctx;
};
int snaps_each(struct store *st, enum snaps_where where, const struct vid *disk, const struct snaps_walk *walk, struct verr *err);
/* fn for each disk that has a directory of recipes or anchors. */
int snaps_each_disk(struct store *st, enum snaps_where where, int (*fn)(void *ctx, const struct vid *disk),
                    int (*stray)(void *ctx, const char *path), void *ctx, struct verr *err);
/* Is the recipe there? 1 or 0 by a listing of its own, so a network filesystem has looked again; -errno. */
int snaps_there(struct store *st, const struct snapref *ref, struct verr *err);

/* ---- changing ---- */

/*
 * One change of what the side file says: read, change, write, and what depends on it.
 * change gets the snapshot as it is and alters flags (of SNAP_RECIPE_FLAGS), label, note, protected_, mode, uid or gid; -errno:
 * nothing is written, and that is the answer. then (may be NULL) gets the snapshot as STORE has it now, also when nothing had to
 * be written: here the row follows. Both run while no other edit of this snapshot can, so rows follow in the order of side
 * files. Neither may edit the same snapshot, nor wait for somebody who does.
 */
struct snaps_change {
    int (*change)(void *ctx, struct snapinfo *s);
    int (*then)(void *ctx, const struct snapinfo *now, struct verr *err);
    void *ctx;
};
/* A change that alters nothing writes nothing. Durable on return. out may be NULL. -ENOENT: no such snapshot; -EINVAL: the new
 * values cannot be stored. An error of `then` is returned after the side file was written. */
int snaps_edit(struct store *st, const struct snapref *ref, const struct snaps_change *ch, struct snapinfo *out, struct verr *err);

/* rm of a snapshot: recipe and side file are renamed into trash/, both directories fsynced. Never unlinks. -ENOENT. Waits for an
 * edit of it. */
int snaps_trash(struct store *st, const struct snapref *ref, struct verr *err);

/* ---- anchors ---- */

/* link(snapshots/… -> anchors/FOR_DISK/…), fsync: only after it returns 0 may pointers of for_disk rely on the snapshot. 0 also if
 * it is there already. -ENOENT: the snapshot is gone, nothing may rely on it. */
int snaps_anchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err);
/* Renamed into trash/, fsynced. 0 also when absent. -EBUSY: it is pinned. */
int snaps_unanchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err);
/* In memory: the anchor is not taken away before it is unpinned, as often as it was pinned. A pin waits while the anchor is being
 * taken away, so what is anchored after its pin stays. -ENOMEM. */
int snaps_pin(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err);
void snaps_unpin(struct store *st, const struct vid *for_disk, const struct snapref *ref);

/* ---- files as they lie there: for those who read recipes page by page, and for verify. dir: DIR_SNAPSHOTS or DIR_ANCHORS ---- */

struct bfile;

/* A recipe of dir/DISK; *bytes: its length. -ENOENT. Nothing of it is checked. */
int snaps_open(struct store *st, enum store_dir dir, const struct vid *disk, uint64_t seq, const struct vid *snap, struct bfile **out,
               uint64_t *bytes);
/* An object in trash/. -EBADMSG: it has no bytes. */
int snaps_open_trash(struct store *st, const char *name, struct bfile **out);
ssize_t snaps_read(struct bfile *f, void *buf, size_t n, uint64_t off);     /* fewer than n only at the end; several threads may */
void snaps_close(struct bfile *f);
/* fn for each name in dir/DISK; what it returns other than 0 ends the list and is returned. -ENOENT: no such directory. */
int snaps_names_each(struct store *st, enum store_dir dir, const struct vid *disk, int (*fn)(void *ctx, const char *name), void *ctx);
/* 1, 0, -errno. snap NULL: of the directory dir/DISK. */
int snaps_named(struct store *st, enum store_dir dir, const struct vid *disk, uint64_t seq, const struct vid *snap);
/* Is the anchor of for_disk still the snapshot's recipe, under two names? */
bool snaps_anchored(struct store *st, const struct vid *for_disk, const struct snapref *ref);

#endif
