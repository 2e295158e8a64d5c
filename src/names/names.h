/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names: the tree that users see: directories (VMs), disks, snapshots. Each change is made durable in STORE first
 * (node record, side file), then in the catalog; after a crash between the two, names_reconcile at the next start makes the catalog
 * follow STORE. Any thread may call these functions. Changes in one directory run one at a time; those in others do not wait for them.
 * Lookups and listings wait for no change.
 *
 * A node's inode number is vid_ino(id); so is a snapshot's. The root directory is inode 1 (FUSE_ROOT_ID). An id is never given to another
 * node or snapshot. A removed disk may come back under its id: (id, btime) is never the same again, and does not change while it lives.
 */
#ifndef VARVE_NAMES_NAMES_H
#define VARVE_NAMES_NAMES_H

#include "base/clock.h"
#include "catalog/catalog.h"
#include "store/store.h"

struct names;

int names_open(struct store *st, struct catalog *c, const struct vclock *clock, struct names **out, struct verr *err);
void names_close(struct names *n);

/* Functions of the agent that names calls in a turn of its own: they change no names, and take no turn of a disk. */
struct names_hooks {
    /* Called before the record of a node is removed: the agent makes durable that data under this id go with the record. An error
     * keeps the record. stays: called again, because the record could not be removed. */
    int (*removal)(void *ctx, const struct vid *id, bool stays, struct verr *err);
    /* Called when STORE was changed but a row was not: the catalog is behind until names_reconcile has run. */
    void (*behind)(void *ctx, const struct verr *why);
    void *ctx;
};
/* Called before the first change; hooks are copied. */
void names_watch(struct names *n, const struct names_hooks *hooks);

/* Compares STORE's nodes/ and snapshots/ with the catalog and makes the catalog follow: new or changed records are read, rows
 * without a record are removed. Pending snapshots (rows whose state is not STORED) are left to the agent, which knows the
 * journals. `bad` (may be NULL) gets each damaged record and, with damaged = false, each oddity such as a file that is no record;
 * both are left alone. A listing error ends the call. docs/design/names.md says which rows differ from their records.
 * -EBADMSG: there is no root directory. */
int names_reconcile(struct names *n, void (*bad)(void *ctx, bool damaged, const char *what), void *ctx, struct verr *err);

enum { NAMES_ROOT_INO = 1 };
int names_root(struct names *n, struct node *out, struct verr *err);
int names_by_ino(struct names *n, uint64_t ino, struct node *out, struct verr *err);

/* ---- splitting names ---- */
struct snapname {
    char disk[NODE_NAME_MAX + 1];   /* NAME.EXT of the disk */
    char label[65];                 /* "" when named by time */
    int64_t name_s;                 /* seconds, when named by time */
};
/* Is the name NAME@SUFFIX.EXT? EXT begins at the last dot; without a dot the name ends in @SUFFIX; a dot in front of a name begins
 * no EXT. 1: yes; 0: there is no '@'; -EINVAL: there is one, but this is no snapshot's name (a label is [A-Za-z0-9._-]{1,64}).
 * disk@v1.2 is read as label v1 of disk.2; names_lookup then tries label v1.2 of a disk without EXT. */
int snapname_parse(const char *name, struct snapname *out);
/* Makes NAME@SUFFIX.EXT from the members of a row. -ENAMETOOLONG. out: NODE_NAME_MAX + 1 bytes. */
int snapname_make(const char *disk, const char *label, int64_t name_s, char *out);
/* Can a disk have this name? 0; -ENAMETOOLONG: more than 189 bytes leave no room for the suffix of a snapshot; -EINVAL: empty, "."
 * or "..", or with '@' or '/'. */
int names_check_disk_name(const char *name);

/* ---- lookups ---- */
enum entry_kind { ENTRY_DIR = 1, ENTRY_DISK, ENTRY_SNAP };
struct entry { enum entry_kind kind; struct node node; /* of the directory or disk; of the disk, for a snapshot */ struct snaprow snap; };
/* Finds live nodes and snapshots, also those of NODE_GONE disks. -ENOENT. */
int names_lookup(struct names *n, const struct vid *parent, const char *name, struct entry *out, struct verr *err);
/* Calls fn for each entry of a directory: directories, live disks, and each disk's snapshots right behind it. When fn returns 1, the
 * listing stops and returns 0; a negative answer stops it and is returned. Rows are read in batches; entries that are made meanwhile
 * may be missing. */
int names_list(struct names *n, const struct vid *dir, int (*fn)(void *ctx, const char *name, const struct entry *e), void *ctx,
               struct verr *err);

/* ---- changes: durable in STORE on return ---- */
/* -EEXIST. A NODE_GONE disk of that name comes back with its id and history (*revived). */
int names_create(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, uint32_t mode, uint32_t uid,
                 uint32_t gid, struct node *out, bool *revived, struct verr *err);
/* The same for a disk. prepare makes the disk's image before the record is written, so that no name exists without an image; a crash
 * in between leaves an image that is marked as unnamed. node: as it will be, but for the id of a new disk, which is zero: prepare chooses
 * one that no disk had. It runs in the turn of the directory: it changes no names, and takes no turn of a disk. */
int names_create_disk(struct names *n, const struct vid *parent, const char *name, uint32_t mode, uint32_t uid, uint32_t gid,
                      int (*prepare)(void *ctx, struct node *node, struct verr *err), void *ctx, struct node *out,
                      struct verr *err);
/* Makes a record for a disk whose record was lost: at its old place if its row is still there, else as `lost-ID8` in the root. A
 * damaged record is left alone; the disk then has only a row. *out: the node, also of a disk that needed no record. -EEXIST: a record
 * says that the disk was removed. */
int names_adopt(struct names *n, const struct vid *disk, struct node *out, struct verr *err);
enum { SET_MODE = 1, SET_UID = 2, SET_GID = 4, SET_ATIME = 8, SET_MTIME = 16, SET_FLAGS = 32 };
int names_setattr(struct names *n, const struct vid *id, unsigned what, const struct node *values, struct node *out, struct verr *err);
/* Removes a node. A disk with snapshots becomes NODE_GONE; the record of any other node is removed. -ENOTEMPTY: a directory has a
 * child or a snapshot. */
int names_remove(struct names *n, const struct vid *id, struct verr *err);
/* Renames to a free name, or onto an empty directory, which is removed. names_replace renames a disk onto a disk. -ENOTEMPTY, -EINVAL
 * (into itself), -EISDIR, -ENOTDIR; -EEXIST: a disk has that name, live or NODE_GONE with snapshots (catalog_node_by_name finds it). */
int names_rename(struct names *n, const struct vid *id, const struct vid *new_parent, const char *new_name, struct verr *err);
/* Renames a disk onto a disk: the target keeps id, name and history and gets owner and mode of the source. A source without snapshots
 * is removed; one with snapshots becomes NODE_GONE, as by names_remove. The caller has moved the content before (live data of source ->
 * target). A target that is NODE_GONE comes back. 0 when the target's record is durable, even if the source's record or rows are behind
 * (names_hooks.behind): a removed disk must not come back before names_reconcile has run then. */
int names_replace(struct names *n, const struct vid *source, const struct vid *target, struct verr *err);

/* ---- snapshots ---- */
int names_snap_by_ino(struct names *n, uint64_t ino, struct snaprow *out, struct verr *err);
/* Moves a stored snapshot's recipe to trash/ and removes the row; with the last snapshot of a NODE_GONE disk, the disk's record too.
 * The agent has dropped a pending snapshot before. -EPERM: it is protected. */
int names_snap_remove(struct names *n, const struct snaprow *s, struct verr *err);
/* Both change side file and row of a stored snapshot. -EBUSY: it is pending; its journal has the label, which the agent changes.
 * -EEXIST: another snapshot has that name. */
int names_snap_relabel(struct names *n, const struct vid *snap, const char *label, struct verr *err);
int names_snap_set(struct names *n, const struct vid *snap, const char *note, const bool *protected_, const uint32_t *mode,
                   const uint32_t *uid, const uint32_t *gid, struct verr *err);

#endif
