/* SPDX-License-Identifier: Apache-2.0 */
/* Insides of names: the handle, and the steps that changes have in common. */
#ifndef VARVE_NAMES_NAMES_INTERNAL_H
#define VARVE_NAMES_NAMES_INTERNAL_H

#include "base/verr.h"
#include "names/names.h"

#include <pthread.h>

enum { NAMES_BATCH = 64, DISK_NAME_MAX = NODE_NAME_MAX - 66 };

/*
 * lock orders all changes of the tree; searches do not take it. It is held across the writes of one change, because the
 * next change must see STORE and catalog agree. Order: names.lock before the catalog's mutex.
 * root_lock guards root and root_known; nothing is called while it is held.
 */
struct names {
    struct store *store;
    struct catalog *catalog;
    const struct vclock *clock;
    pthread_mutex_t lock;
    pthread_mutex_t root_lock;
    struct vid root;
    bool root_known;
    struct names_hooks hooks;
};

/* err is left untouched on success: a function that goes on after an error of a lower one fills `why`, and ends with this. */
static inline int names_end(int r, const struct verr *why, struct verr *err)
{
    if (r < 0 && err != NULL)
        *err = *why;
    return r;
}

/* false: not known before the first reconcile. */
bool names_root_id(struct names *n, struct vid *out);
int names_set_root(struct names *n, const struct vid *root, struct verr *err);

/* ---- names ---- */

static inline uint32_t names_mode(uint32_t kind, uint32_t mode)
{
    return mode & (kind == NODE_DISK ? 0777 : 07777);
}

/* [A-Za-z0-9._-]{1,64} and not of the form of a timestamp. */
bool snapname_label_ok(const char *label);
/* The other reading of a name with a dot behind '@': a disk without extension, and all behind '@' is the label. As snapname_parse. */
int snapname_parse_whole(const char *name, struct snapname *out);
/* What a directory or disk may be called. -EINVAL, -ENAMETOOLONG. */
int names_check_node_name(const char *name);

/* ---- steps of a change: the caller holds n->lock ---- */

/* The record in STORE, to be changed, and the row, which may show it under another name or parent. -ENOENT: another host
 * has removed it; the row is gone too then. */
int names_load(struct names *n, const struct vid *id, struct node *rec, struct node *row, struct verr *err);
/* Record with version + 1, then the row with its shown parent and name (*row is brought up to date). */
int names_save(struct names *n, struct node *rec, struct node *row, struct verr *err);
/* mtime and ctime of a directory whose entries have changed: in the catalog only (docs/design/names.md). */
int names_touch(struct names *n, const struct vid *dir, int64_t now, struct verr *err);
/* Others with the same name as row that are shown as NAME~HEX4 get that name for good, before row gives its name up:
 * otherwise one of them would take it at the next start. */
int names_settle_namesakes(struct names *n, const struct node *row, struct verr *err);
/* The record of a node goes from STORE, once that is said to those who watch. Every removal of a record is this one. */
int names_record_remove(struct names *n, const struct vid *id, struct verr *err);
/* The result r of changing rows after STORE: an error is told to those who watch. Returns r. */
int names_rows_done(struct names *n, int r, const struct verr *why);
/* Writing rec failed. True: it is there all the same (its fsync failed). Then it has happened, for every reader, only whether it
 * outlasts a power loss is open; the rows are made to follow it. */
bool names_record_doubted(struct names *n, const struct node *rec, const struct verr *why);
/* Removes record and row of a node, and what it still replaces. */
int names_drop(struct names *n, const struct node *row, struct verr *err);
/* A NODE_GONE disk without snapshots is dropped. 1 dropped, 0 it stays. */
int names_drop_if_empty(struct names *n, const struct node *row, struct verr *err);
/* -ENOTEMPTY unless all that is left below are removed disks without snapshots: those are dropped. */
int names_empty_dir(struct names *n, const struct node *dir, struct verr *err);

/* ---- reconcile ---- */

enum shown { SHOWN_PLAIN, SHOWN_ALIAS, SHOWN_LOST, SHOWN_DROPPED };
struct rnode {                  /* one record, without what only the row needs */
    struct vid id, parent, replaces;
    uint64_t version;
    int64_t btime_ns;
    uint32_t kind, flags, mode, uid, gid;
    char *name;
    enum shown shown;
    bool damaged;               /* the record cannot be read: this is the row that was there before */
    bool write;                 /* the row is missing or differs */
    uint8_t walk;               /* of the search for cycles */
};
struct trashed { struct vid disk, snap; uint64_t seq; };      /* a recipe in trash/ */
struct reconcile {
    struct names *n;
    void (*bad)(void *ctx, bool damaged, const char *what);
    void *ctx;
    struct verr *err;
    struct rnode *v;            /* by id, once sorted */
    size_t count, cap;
    struct vid *unreadable;     /* damaged records of which there is no row either */
    size_t unreadable_count;
    struct rnode *root;
    struct trashed *trash;      /* sorted; see names_trash.c */
    size_t trash_count, trash_cap;
    bool trash_listed;
};
struct rnode *reconcile_find(struct reconcile *rc, const struct vid *id);
/* Was that snapshot removed on purpose? Was any of the disk, or did it never have one in STORE? 1, 0, -errno: names_trash.c. */
int reconcile_was_removed(struct reconcile *rc, const struct vid *disk, uint64_t seq, const struct vid *snap);
int reconcile_any_removed(struct reconcile *rc, const struct vid *disk);
void reconcile_report(struct reconcile *rc, bool damaged, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Snapshots of all disks: STORE's listing against the rows. */
int reconcile_snaps(struct reconcile *rc);

#endif
