/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: the chunk store (STORE): its configuration, its directories and its records. container.h has containers, publish.h leases
 * and publication, snaps.h snapshots. Any thread may call these functions unless a comment says otherwise.
 *
 * Only base/backend.h and backend_dir.c know how STORE is kept. Its objects are:
 *
 *   store.conf              identity and options, written once (format/storeconf.h)
 *   containers/CCCCCC/      65 536 numbers claimed by one mount by mkdir; files NNNN.vc
 *   snapshots/DISK/         SEQ-SNAPID.rcp (snapshot recipe), SEQ-SNAPID.attr (mutable attributes)
 *   anchors/DISK/           links to recipes that the live image of this disk points to; same names
 *   trash/                  recipes and side files that rm and un-anchoring have moved away
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

/* Makes a store at path, which does not exist or is an empty directory. The caller has filled in conf->id and keys.
 * Order: directories, generation 1, root node, fsync of all, then store.conf by link: a directory without store.conf is no store.
 * Unless uid is -1, all objects are given to uid:gid. Durable on return. -EEXIST: a store is there already; -ENOTEMPTY. */
int store_init(const char *path, const struct store_conf *conf, uid_t uid, gid_t gid, struct verr *err);

/* Puts back the store.conf that a store has lost. conf: of a copy. Durable on return; the caller has become the owner of STORE, who will own
 * it. Nothing is changed on an error. -EEXIST: there is one; -ENOTDIR, -EBADMSG: path holds no data of a store; -EINVAL: of another store. */
int store_restore_conf(const char *path, const struct store_conf *conf, struct verr *err);

/* -ENOENT: there is no store; -EBADMSG: store.conf is damaged or foreign, or a directory is missing; -ENOTSUP: a newer version. */
int store_open(const char *path, struct store **out, struct verr *err);
void store_close(struct store *st);

const struct store_conf *store_conf(const struct store *st);
const char *store_path(const struct store *st);                  /* canonical; for messages only, not to open anything */
/* Every change is -EROFS, and STORE stays as it is to the last byte: its filesystem is read-only (-EROFS says so, not a missing right), or
 * store_refuse_changes was called, which the opener may do before other threads use the store. */
bool store_read_only(const struct store *st);
void store_refuse_changes(struct store *st);
/* The backend of STORE, for fpindex, which keeps its files in "index". */
struct backend *store_index(struct store *st);

/* ---- numbers of containers ----
 * STORE alone cannot tell which numbers were issued: put back from an older copy it shows fewer. So the caller keeps the highest claim
 * (65 536 numbers, docs/FORMAT.md "Container") elsewhere, and the store takes none up to it. */
struct store_memory {
    uint32_t claim;             /* the highest one that was ever seen; 0: none */
    /* A claim was taken: durable on return, before any of its numbers is used. */
    int (*claimed)(void *ctx, uint32_t claim, struct verr *err);
    void *ctx;
};
/* Before the first writer is opened. Without a call, what STORE shows counts. */
void store_remember(struct store *st, const struct store_memory *m);
/* The highest claim in STORE; 0: there is none. */
int store_claim_highest(struct store *st, uint32_t *out, struct verr *err);
int store_space(const struct store *st, struct statvfs *out);       /* as statvfs(3) */
int store_owner(const struct store *st, uid_t *uid, gid_t *gid);
/* Reserves space that a removal can use in a full store: an object of this host in nodes/, which readers ignore. 1: made, 0: it is
 * there already, -ENOSPC. Never durable. */
int store_reserve(struct store *st, const struct vid *host, size_t bytes);
int store_unreserve(struct store *st, const struct vid *host);      /* gives the space back: 0; -ENOENT: nothing was reserved */
/* Calls fn for each name in a directory; an answer other than 0 ends the list and is returned. For callers that report foreign
 * files. */
int store_names_each(struct store *st, enum store_dir dir, int (*fn)(void *ctx, const char *name), void *ctx);

/* ---- nodes: the tree of names ---- */

/* Durable on return (file_publish / file_replace). _create: -EEXIST if the id is taken; _update: -ENOENT if there is none.
 * -EINVAL: a record that node_decode would refuse. */
int store_node_create(struct store *st, const struct node *node, struct verr *err);
int store_node_update(struct store *st, const struct node *node, struct verr *err);
int store_node_load(struct store *st, const struct vid *id, struct node *out, struct verr *err);   /* -ENOENT, -EBADMSG */
/* Removes the record and fsyncs the directory. 0 also when there is none. */
int store_node_remove(struct store *st, const struct vid *id, struct verr *err);
/* Calls fn for each id that has a record; names that are no id are passed over. An answer other than 0 ends the list and is returned;
 * a listing that fails is an error. */
int store_node_each(struct store *st, int (*fn)(void *ctx, const struct vid *id), void *ctx, struct verr *err);
/* Calls fn with "nodes/NAME" for each name that store_node_each passes over, except temporary files, so that it can be reported. */
int store_node_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err);

/* ---- names of snapshot files: "%016x-%s.%s" of sequence, snapshot id and suffix ("rcp", "attr"; ".rcp" means the same) ---- */
enum { SNAP_FILE_MAX = 64 };
void store_snap_file(uint64_t seq, const struct vid *snap, const char *suffix, char out[SNAP_FILE_MAX]);
/* 0, or -EINVAL when name is not of that form with that suffix. */
int store_snap_file_parse(const char *name, const char *suffix, uint64_t *seq, struct vid *snap);

#endif
