/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog: STATE/catalog.sqlite: nodes and snapshots, a cache. It holds nothing that exists nowhere else; losing it costs a
 * rebuild. Only user of SQLite. One connection, one process (STATE's lock), one mutex:
 * thread-safe. WAL; synchronous=NORMAL (STORE and the journals are the truth).
 */
#ifndef VARVE_CATALOG_CATALOG_H
#define VARVE_CATALOG_CATALOG_H

#include "format/node.h"
#include "format/recipe.h"

struct catalog;
struct verr;

/* Opens or makes STATE/catalog.sqlite. -EBADMSG: damaged (its checksum after a clean stop, quick_check), or of another store or
 * a newer schema: it can be set aside and made anew. Schema migrations run here. */
int catalog_open(int state_dirfd, const char *state_path, const struct vid *store, struct catalog **out, struct verr *err);
int catalog_close(struct catalog *c, struct verr *err);
/* Closed: the database becomes catalog.sqlite.damaged (in the place of an older one), its log goes; durable on return. */
int catalog_set_aside(int state_dirfd);
/* Groups calls of this thread into one transaction (the mutex is held between). May be nested: the outermost pair counts, and
 * a rollback inside makes the outermost commit fail with -ECANCELED. catalog_commit ends the transaction in any case: after
 * an error nothing of it remains, and catalog_rollback must not follow. */
int catalog_begin(struct catalog *c, struct verr *err);
int catalog_commit(struct catalog *c, struct verr *err);
void catalog_rollback(struct catalog *c);

/* ---- nodes ---- */
/* Insert or replace, by id. -EEXIST: another node (live or NODE_GONE) has that parent and name; -EINVAL: no sensible node. */
int catalog_node_put(struct catalog *c, const struct node *n, struct verr *err);
int catalog_node_del(struct catalog *c, const struct vid *id, struct verr *err);
int catalog_node_by_id(struct catalog *c, const struct vid *id, struct node *out, struct verr *err);      /* -ENOENT */
int catalog_node_by_ino(struct catalog *c, uint64_t ino, struct node *out, struct verr *err);             /* vid_ino */
/* NODE_GONE disks are found too (flags say so). */
int catalog_node_by_name(struct catalog *c, const struct vid *parent, const char *name, struct node *out, struct verr *err);
/* Children of a directory in order of name, after `after` ("" = from the start); NODE_GONE disks included; at most max. Count. */
int catalog_children(struct catalog *c, const struct vid *parent, const char *after, struct node *out, unsigned max, struct verr *err);
/* Directories, and all children, NODE_GONE disks included. */
int catalog_child_count(struct catalog *c, const struct vid *parent, uint64_t *dirs, uint64_t *all, struct verr *err);
/* fn for each node, by id; a non-zero answer ends it and is returned. fn may call the catalog, and change it. */
int catalog_node_each(struct catalog *c, int (*fn)(void *ctx, const struct node *n), void *ctx, struct verr *err);

/* ---- snapshots ---- */
enum snap_state { SNAPST_PENDING = 1, SNAPST_STORED = 2, SNAPST_FAILED = 3 };
struct snaprow {
    struct snapinfo info;           /* flags of SNAP_RECIPE_FLAGS; mode without write bits */
    uint32_t state;                 /* enum snap_state */
};
/* Insert or replace, by id. -EINVAL: no sensible row. Names are not kept apart here: names and agent do that. */
int catalog_snap_put(struct catalog *c, const struct snaprow *s, struct verr *err);
/* Read, change, write of one row in one transaction. fn alters the row; its answer below 0 ends it, and nothing is written. out may
 * be NULL. -ENOENT. */
int catalog_snap_edit(struct catalog *c, const struct vid *id, int (*fn)(void *ctx, struct snaprow *s), void *ctx, struct snaprow *out,
                      struct verr *err);
int catalog_snap_del(struct catalog *c, const struct vid *id, struct verr *err);
int catalog_snap_by_id(struct catalog *c, const struct vid *id, struct snaprow *out, struct verr *err);
int catalog_snap_by_ino(struct catalog *c, uint64_t ino, struct snaprow *out, struct verr *err);
/* By label, or (label "") by name_s. */
int catalog_snap_by_name(struct catalog *c, const struct vid *disk, const char *label, int64_t name_s, struct snaprow *out,
                         struct verr *err);
/* Snapshots of a disk with seq > after, ascending, at most max. Count. (Should two have one seq, no page ends between them.) */
int catalog_snaps(struct catalog *c, const struct vid *disk, uint64_t after, struct snaprow *out, unsigned max, struct verr *err);
/* The same backwards: seq < before (UINT64_MAX: from the newest), descending. Only for reports: should two have one seq, a page that ends
 * between them leaves one out. */
int catalog_snaps_back(struct catalog *c, const struct vid *disk, uint64_t before, struct snaprow *out, unsigned max, struct verr *err);
/* The newest stored snapshot of a disk (the parent of the next), partial ones included. -ENOENT. */
int catalog_snap_latest(struct catalog *c, const struct vid *disk, struct snaprow *out, struct verr *err);
int catalog_snap_count(struct catalog *c, const struct vid *disk, uint64_t *out, struct verr *err);
/* As catalog_node_each. */
int catalog_snap_each(struct catalog *c, int (*fn)(void *ctx, const struct snaprow *s), void *ctx, struct verr *err);
/* Disks that have rows, by id, after `after` (zero = from the start); at most max. Count. */
int catalog_snap_disks(struct catalog *c, const struct vid *after, struct vid *out, unsigned max, struct verr *err);

/* ---- totals and settings ---- */
/* disks: live ones; snapshots: stored ones, and the sums are over those. */
struct catalog_totals { uint64_t disks, snapshots, pending, failed, logical_bytes, alloc_bytes; struct snap_levels levels; };
int catalog_totals(struct catalog *c, struct catalog_totals *out, struct verr *err);
int catalog_set(struct catalog *c, const char *key, const char *value, struct verr *err);
int catalog_get(struct catalog *c, const char *key, char *value, size_t cap, struct verr *err);          /* -ENOENT */

#endif
