/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snaps: the only reader and writer of snapshot records in STORE.
 *
 *   snapshots/DISK/SEQ-SNAPID.rcp     recipe: written once, by a publication (store/publish.h), never changed
 *   snapshots/DISK/SEQ-SNAPID.attr    side file: label, note, flags, protection, owner as they are now; snaps_edit alone writes it
 *   anchors/DISK/SEQ-SNAPID.rcp       link to a recipe that the live image of DISK points to
 *   trash/...                         recipes and side files that rm and un-anchoring have moved away (snaps_links.c)
 *
 * Any thread may call these functions. No mutex is held across I/O on STORE. A list of operations under way makes edits of one
 * snapshot exclude each other, as do a pin and the un-anchoring of one anchor; operations on different snapshots never wait for
 * each other.
 */
#ifndef VARVE_STORE_SNAPS_H
#define VARVE_STORE_SNAPS_H

#include "format/recipe.h"
#include "store/store.h"

/* ---- reading ---- */

/* Reads the recipe's header alone. -ENOENT; -EBADMSG: damaged, or of another store, disk or snapshot than its name says (err names
 * the file); -ENOTSUP: of a newer version. */
int snaps_header(struct store *st, const struct snapref *ref, struct snaprcp *out, struct verr *err);
/* Reads the side file: 1; 0: there is none; -EBADMSG: damaged; -ENOTSUP: of a newer version. attr and rcp may be NULL; values of the side
 * file replace those in rcp. */
int snaps_side(struct store *st, const struct snapref *ref, struct snaprcp *rcp, struct snapattr *attr, struct verr *err);
/* Reads the header and applies the side file. attr may be NULL; without a side file it gets the recipe's own label and note. */
int snaps_load(struct store *st, const struct snapref *ref, struct snaprcp *out, struct snapattr *attr, struct verr *err);
/* Is the recipe there? If so, makes its directory entry durable, and looks again. 1, 0, -errno. */
int snaps_durable(struct store *st, const struct snapref *ref, struct verr *err);

/* ---- lists: read names only, in no order; each call lists anew, because a missing name may decide (base/backend.h) ---- */

enum snaps_where { SNAPS_STORED, SNAPS_ANCHORED, SNAPS_TRASH };
struct snaps_file {
    struct snapref ref;         /* disk: the directory it is in or was removed from; of an anchor, the disk that points to it */
    bool anchor, side_file;
    const char *name;           /* of the file itself */
};
/* snaps_each calls file for each recipe and side file, and stray (may be NULL) with "snapshots/DISK/NAME" for each other name. An answer
 * other than 0 ends the walk and is returned. A disk without a directory has none; a listing that fails is -errno.
 * disk is not used for SNAPS_TRASH, which is one directory. */
struct snaps_walk {
    int (*file)(void *ctx, const struct snaps_file *f);
    int (*stray)(void *ctx, const char *path);
    void *ctx;
};
int snaps_each(struct store *st, enum snaps_where where, const struct vid *disk, const struct snaps_walk *walk, struct verr *err);
/* Calls fn for each disk that has a directory of recipes or anchors. */
int snaps_each_disk(struct store *st, enum snaps_where where, int (*fn)(void *ctx, const struct vid *disk),
                    int (*stray)(void *ctx, const char *path), void *ctx, struct verr *err);
/* Is the recipe there? 1 or 0, as new as the call (base/backend.h, look); -errno. */
int snaps_there(struct store *st, const struct snapref *ref, struct verr *err);

/* ---- changing ---- */

/*
 * One edit of a side file. change gets the snapshot as it is and alters flags (of SNAP_RECIPE_FLAGS), label, note, protected_, mode,
 * uid or gid; if it returns -errno, nothing is written and the edit returns that. then (may be NULL) gets the snapshot as STORE
 * has it now, also when nothing had to be written; it changes the catalog's row. No other edit of this snapshot runs meanwhile, so
 * rows change in the order of side files. Neither function may edit the same snapshot, or wait for a thread that does.
 */
struct snaps_change {
    int (*change)(void *ctx, struct snapinfo *s);
    int (*then)(void *ctx, const struct snapinfo *now, struct verr *err);
    void *ctx;
};
/* Does one edit, durable on return; an edit that alters nothing writes nothing. out (may be NULL): the snapshot afterwards. -ENOENT: no
 * such snapshot; -EINVAL: the new values cannot be stored. After an error of `then` the side file is written nevertheless. */
int snaps_edit(struct store *st, const struct snapref *ref, const struct snaps_change *ch, struct snapinfo *out, struct verr *err);

/* Removes a snapshot: waits for an edit of it, moves recipe and side file into trash/, and fsyncs both directories. Nothing is unlinked.
 * -ENOENT. */
int snaps_trash(struct store *st, const struct snapref *ref, struct verr *err);

/* ---- anchors ---- */

/* Links the recipe into anchors/FOR_DISK/ and fsyncs that directory. for_disk may point to the snapshot only after this has returned 0;
 * 0 also if the anchor is there already. -ENOENT: the snapshot was removed, and for_disk must not point to it. */
int snaps_anchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err);
/* The same for a disk that takes over what holder shows: where the snapshot was removed, the anchor of holder is linked. The caller keeps
 * holder from dropping it meanwhile (its turn). */
int snaps_anchor_shared(struct store *st, const struct vid *for_disk, const struct vid *holder, const struct snapref *ref,
                        struct verr *err);
/* Moves the anchor into trash/, durable on return. 0 also when there is none. obsolete (NULL: yes) is asked before the anchor is moved,
 * while nobody can pin it and no lock is held: it sees what was done under pins that have ended. -EBUSY, and nothing was done: the anchor
 * is pinned, obsolete says no, or another thread is taking it away. */
int snaps_unanchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, bool (*obsolete)(void *ctx), void *ctx,
                   struct verr *err);

struct snaps_pin {              /* memory of the caller, linked in a list until snaps_unpin; its members are private */
    struct snaps_pin *next;
    struct vid for_disk;
    struct snapref ref;
    bool going;                 /* the entry stands for an un-anchoring */
};
/* Pins an anchor, in memory only: snaps_unanchor fails until each pin is unpinned, so an anchor that is made after its pin stays. -EBUSY:
 * an un-anchoring is under way, and the anchor is not pinned. A pin never waits, so a thread that must not wait for STORE may pin. */
int snaps_pin(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct snaps_pin *p);
void snaps_unpin(struct store *st, struct snaps_pin *p);

/* ---- open files, for readers of a recipe's pages and for verify. dir: DIR_SNAPSHOTS or DIR_ANCHORS ---- */

struct bfile;

/* Opens a recipe of dir/DISK without checking it; *bytes: its length. -ENOENT. */
int snaps_open(struct store *st, enum store_dir dir, const struct vid *disk, uint64_t seq, const struct vid *snap, struct bfile **out,
               uint64_t *bytes);
/* Opens an object in trash/. -EBADMSG: it is no file. */
int snaps_open_trash(struct store *st, const char *name, struct bfile **out);
ssize_t snaps_read(struct bfile *f, void *buf, size_t n, uint64_t off);     /* fewer than n only at the end; several threads may */
void snaps_close(struct bfile *f);
/* Calls fn for each name in dir/DISK; an answer other than 0 ends the list and is returned. -ENOENT: no such directory. */
int snaps_names_each(struct store *st, enum store_dir dir, const struct vid *disk, int (*fn)(void *ctx, const char *name), void *ctx);
/* Has dir/DISK the recipe (snap NULL: does dir/DISK exist)? 1, 0, -errno. */
int snaps_named(struct store *st, enum store_dir dir, const struct vid *disk, uint64_t seq, const struct vid *snap);
/* Is the anchor of for_disk still the snapshot's recipe, under two names? */
bool snaps_anchored(struct store *st, const struct vid *for_disk, const struct snapref *ref);

#endif
