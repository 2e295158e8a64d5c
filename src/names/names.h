/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names: the tree that users see: directories (VMs), disks, snapshots. Each change is made durable in STORE first
 * (node record, side file), then in the catalog; a crash between the two is mended by names_reconcile at the next start.
 * Thread-safe: one mutex orders all changes of the tree.
 *
 * A node's inode number is vid_ino(id); so is a snapshot's. The root directory is inode 1 (FUSE_ROOT_ID).
 */
#ifndef VARVE_NAMES_NAMES_H
#define VARVE_NAMES_NAMES_H

#include "base/clock.h"
#include "catalog/catalog.h"
#include "store/store.h"

struct names;

int names_open(struct store *st, struct catalog *c, const struct vclock *clock, struct names **out, struct verr *err);
void names_close(struct names *n);

/* What others need to know before the tree changes for good. Called with names' lock held: they must not call names. */
struct names_hooks {
    /* The record of a node is about to go: whoever keeps something under its id says durably now that it is to go with it.
     * An error keeps the record. stays: it could not be removed after all. */
    int (*removal)(void *ctx, const struct vid *id, bool stays, struct verr *err);
    /* STORE was changed, but a row could not be: the catalog is behind until names_reconcile has run. */
    void (*behind)(void *ctx, const struct verr *why);
    void *ctx;
};
/* Before the first use; hooks are copied. */
void names_watch(struct names *n, const struct names_hooks *hooks);

/* Compares STORE's nodes/ and snapshots/ with the catalog and mends the catalog: new or changed records are read, rows
 * without a record go. Pending snapshots (rows whose state is not STORED) are left to the agent, which knows the
 * journals. A record that cannot be read (damaged), and what is only strange, as a file that is no record, is reported
 * through `bad` (may be NULL) and left alone; a listing error ends it.
 * What is shown differently from the records: docs/design/names.md. -EBADMSG: there is no root directory. */
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
/* Is it NAME@SUFFIX.EXT? EXT begins at the last dot (none: the name ends in @SUFFIX). 1 yes and well-formed; 0 there is no
 * '@'; -EINVAL there is one, but it cannot be a snapshot's name (bad label: not [A-Za-z0-9._-]{1,64}). A dot in front of a
 * name begins no EXT. disk@v1.2 is read as label v1 of disk.2; names_lookup tries label v1.2 of a disk without EXT after that. */
int snapname_parse(const char *name, struct snapname *out);
/* NAME@SUFFIX.EXT of a row. -ENAMETOOLONG. out: NODE_NAME_MAX + 1 bytes. */
int snapname_make(const char *disk, const char *label, int64_t name_s, char *out);
/* Can a disk of this name have snapshots (room for the longest suffix: at most 189 bytes)? 0 or -ENAMETOOLONG; -EINVAL: empty,
 * "." or "..", has '@' or '/'. */
int names_check_disk_name(const char *name);

/* ---- lookups ---- */
enum entry_kind { ENTRY_DIR = 1, ENTRY_DISK, ENTRY_SNAP };
struct entry { enum entry_kind kind; struct node node; /* of the directory or disk; of the disk, for a snapshot */ struct snaprow snap; };
/* Live nodes and snapshots (also those of NODE_GONE disks); -ENOENT. */
int names_lookup(struct names *n, const struct vid *parent, const char *name, struct entry *out, struct verr *err);
/* fn for each entry of a directory: directories, live disks, and each disk's snapshots right behind it; stops when fn says 1
 * (and returns 0; a negative answer is returned).
 * Rows are read in batches; entries made meanwhile may or may not be shown. */
int names_list(struct names *n, const struct vid *dir, int (*fn)(void *ctx, const char *name, const struct entry *e), void *ctx,
               struct verr *err);

/* ---- changes: durable in STORE on return ---- */
/* -EEXIST. A NODE_GONE disk of that name comes back with its id and history (*revived). */
int names_create(struct names *n, const struct vid *parent, const char *name, enum node_kind kind, uint32_t mode, uint32_t uid,
                 uint32_t gid, struct node *out, bool *revived, struct verr *err);
/* The same of a disk. Before its record is written, prepare makes what the name will lead to: a name without an image helps
 * nobody, and a crash in between leaves an image that is known to be unnamed. node: as it will be. */
int names_create_disk(struct names *n, const struct vid *parent, const char *name, uint32_t mode, uint32_t uid, uint32_t gid,
                      int (*prepare)(void *ctx, const struct node *node, struct verr *err), void *ctx, struct node *out,
                      struct verr *err);
/* A disk whose record was lost gets one again: in its place if its snapshots still have a row, else as `lost-ID8` in the
 * root. A damaged record is left alone; the disk then has a row only. Nothing changes if it has a name (*out). */
int names_adopt(struct names *n, const struct vid *disk, struct node *out, struct verr *err);
enum { SET_MODE = 1, SET_UID = 2, SET_GID = 4, SET_ATIME = 8, SET_MTIME = 16, SET_FLAGS = 32 };
int names_setattr(struct names *n, const struct vid *id, unsigned what, const struct node *values, struct node *out, struct verr *err);
/* Directory: -ENOTEMPTY if it has any child or any snapshot. Disk without snapshots: record removed. Disk with snapshots: NODE_GONE. */
int names_remove(struct names *n, const struct vid *id, struct verr *err);
/* Onto nothing or an empty directory (replaces). Disk onto disk is names_replace. -ENOTEMPTY, -EINVAL (into itself), -EISDIR,
 * -ENOTDIR; -EEXIST: a disk has that name, live or NODE_GONE with snapshots (catalog_node_by_name finds it: names_replace). */
int names_rename(struct names *n, const struct vid *id, const struct vid *new_parent, const char *new_name, struct verr *err);
/* Disk onto existing disk: target keeps id, name and history, takes owner and mode of source; the source's record goes.
 * Content is moved by the caller before (live data of source -> target). A target that is NODE_GONE comes back.
 * -EEXIST if the source has snapshots. 0 once the target's record says so, also if the rest has to wait (names_hooks.behind). */
int names_replace(struct names *n, const struct vid *source, const struct vid *target, struct verr *err);

/* ---- snapshots ---- */
int names_snap_by_ino(struct names *n, uint64_t ino, struct snaprow *out, struct verr *err);
/* Moves to trash/ (stored) and removes the row; with the last one of a NODE_GONE disk, its record too. Protected: -EPERM.
 * Pending ones are dropped by the agent first. */
int names_snap_remove(struct names *n, const struct snaprow *s, struct verr *err);
/* Side file + row. Only for stored ones, -EBUSY otherwise (a pending one's label is in its journal: agent). -EEXIST label taken. */
int names_snap_relabel(struct names *n, const struct vid *snap, const char *label, struct verr *err);
int names_snap_set(struct names *n, const struct vid *snap, const char *note, const bool *protected_, const uint32_t *mode,
                   const uint32_t *uid, const uint32_t *gid, struct verr *err);

#endif
