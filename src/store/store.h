/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: the chunk store directory (STORE): its configuration, its directories and its records.
 * Containers: container.h.  Leases and publication: publish.h.  Thread-safe unless said otherwise.
 *
 * What STORE is made of, base/backend.h and backend_dir.c know; its objects are:
 *
 *   store.conf              identity and options, written once (format/storeconf.h)
 *   containers/CCCCCC/      65 536 numbers claimed by one mount by mkdir; files NNNN.vc
 *   snapshots/DISK/         SEQ-SNAPID.rcp (snapshot recipe), SEQ-SNAPID.attr (mutable attributes)
 *   anchors/DISK/           links to recipes that a live image of this disk relies on; same names
 *   trash/                  what rm and un-anchoring rename away
 *   generations/G/          leases/VM.EPOCH/ , deletions (deletion log)
 *   owners/                 VM.EPOCH: which host owns a VM, made with O_EXCL
 *   nodes/                  one record per directory or disk: the tree (format/node.h)
 *   index/SLOT/             fpindex
 *   cds/                    reserved for level 3
 */
#ifndef VARVE_STORE_STORE_H
#define VARVE_STORE_STORE_H

#include "base/id.h"
#include "chunk/fingerprint.h"
#include "format/node.h"
#include "format/storeconf.h"

#include <sys/types.h>

struct backend;
struct statvfs;
struct store;
struct verr;

enum store_dir { DIR_CONTAINERS, DIR_SNAPSHOTS, DIR_ANCHORS, DIR_TRASH, DIR_GENERATIONS, DIR_OWNERS, DIR_NODES, DIR_INDEX, DIR_CDS,
                 STORE_DIRS };

/* Makes a store at path (must not exist, or be an empty directory). conf->id and keys are filled in by the caller.
 * Order: directories, generation 1, root node, fsync of all, then store.conf by link: a store without store.conf is none.
 * If uid != -1 all of it is given to uid:gid. Durable on return. -EEXIST: a store is there already; -ENOTEMPTY. */
int store_init(const char *path, const struct store_conf *conf, uid_t uid, gid_t gid, struct verr *err);

/* -ENOENT no store there; -EBADMSG damaged or foreign store.conf, or a directory is missing; -ENOTSUP a newer version.
 * Opens all directories once. */
int store_open(const char *path, struct store **out, struct verr *err);
void store_close(struct store *st);

const struct store_conf *store_conf(const struct store *st);
const char *store_path(const struct store *st);                  /* canonical; for messages: nothing is opened by it */
/* For fpindex, which keeps its files in "index" of it. */
struct backend *store_index(struct store *st);
int store_space(const struct store *st, struct statvfs *out);       /* as statvfs(3) */
int store_owner(const struct store *st, uid_t *uid, gid_t *gid);
/* Space that a removal can use in a full store: an object of this host beside the nodes, which no reader looks at. 1 made, 0 there
 * already, -ENOSPC. Never durable. */
int store_reserve(struct store *st, const struct vid *host, size_t bytes);
int store_unreserve(struct store *st, const struct vid *host);      /* 0 given back; -ENOENT */
/* fn for each name in one of the directories; what it returns other than 0 ends the list and is returned. For those who tell of
 * what does not belong there. */
int store_names_each(struct store *st, enum store_dir dir, int (*fn)(void *ctx, const char *name), void *ctx);

/* ---- nodes: the tree of names ---- */

/* Durable on return (file_publish / file_replace). _create: -EEXIST if the id is taken; _update: -ENOENT if there is none.
 * -EINVAL: a record that node_decode would refuse. */
int store_node_create(struct store *st, const struct node *node, struct verr *err);
int store_node_update(struct store *st, const struct node *node, struct verr *err);
int store_node_load(struct store *st, const struct vid *id, struct node *out, struct verr *err);   /* -ENOENT, -EBADMSG */
/* Removes the record; directory fsynced. 0 also when absent. */
int store_node_remove(struct store *st, const struct vid *id, struct verr *err);
/* fn for each id that has a record. Names that are no id are passed over; a listing that fails is an error.
 * An answer other than 0 ends it and is returned. */
int store_node_each(struct store *st, int (*fn)(void *ctx, const struct vid *id), void *ctx, struct verr *err);
/* fn for what store_node_each passes over, temporary files excepted: "nodes/NAME". Whoever lists nodes tells of these. */
int store_node_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err);

/* ---- names of snapshot files: "%016x-%s.%s" of sequence, snapshot id and suffix ("rcp", "attr"; ".rcp" means the same) ---- */
enum { SNAP_FILE_MAX = 64 };
void store_snap_file(uint64_t seq, const struct vid *snap, const char *suffix, char out[SNAP_FILE_MAX]);
/* 0, or -EINVAL when name is not of that form with that suffix. */
int store_snap_file_parse(const char *name, const char *suffix, uint64_t *seq, struct vid *snap);

#endif
