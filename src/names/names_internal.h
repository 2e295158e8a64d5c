/* SPDX-License-Identifier: Apache-2.0 */
/* names_internal: the handle, and the steps that changes have in common. Included inside src/names only. */
#ifndef VARVE_NAMES_NAMES_INTERNAL_H
#define VARVE_NAMES_NAMES_INTERNAL_H

#include "base/turn.h"
#include "base/verr.h"
#include "names/names.h"

#include <pthread.h>

enum { NAMES_BATCH = 64, DISK_NAME_MAX = NODE_NAME_MAX - 66 };

/*
 * turns: a change has the turns of the directories that it concerns (struct concerned) until STORE and catalog agree again; lookups take
 * none. Order: these turns before the catalog's mutex. root_lock guards root and root_known; no function is called while it is held.
 */
struct names {
    struct store *store;
    struct catalog *catalog;
    const struct vclock *clock;
    struct turns *turns;
    pthread_mutex_t root_lock;
    struct vid root;
    bool root_known;
    struct names_hooks hooks;
};

/* Returns r, and copies why to err if r is an error. A function that may go on after an error of a lower one collects errors in its own
 * `why` and ends with this call, so that err stays unchanged on success. */
static inline int names_end(int r, const struct verr *why, struct verr *err)
{
    if (r < 0 && err != NULL)
        *err = *why;
    return r;
}

/* false: the root is not known before the first reconcile. */
bool names_root_id(struct names *n, struct vid *out);
int names_set_root(struct names *n, const struct vid *root, struct verr *err);

/* ---- names ---- */

static inline uint32_t names_mode(uint32_t kind, uint32_t mode)
{
    return mode & (kind == NODE_DISK ? 0777 : 07777);
}

/* The birth of a disk that comes back under its id: never the same again, whatever the clock says. names.h says what for. */
static inline int64_t names_made_again(int64_t btime_ns, int64_t now)
{
    return now > btime_ns || btime_ns == INT64_MAX ? now : btime_ns + 1;
}

/* [A-Za-z0-9._-]{1,64} and not of the form of a timestamp. */
bool snapname_label_ok(const char *label);
/* As snapname_parse, but reads a name with a dot behind '@' as a disk without extension, with all behind '@' as the label. */
int snapname_parse_whole(const char *name, struct snapname *out);
/* Can a directory or disk have this name? 0, -EINVAL, -ENAMETOOLONG. */
int names_check_node_name(const char *name);

/* ---- turns (names_turn.c) ---- */

/* What a change concerns. An entry of a directory belongs to that directory: record and row of a node change in the turn of the
 * directory that shows it. A directory belongs to itself as well: its row changes when entries do. docs/design/names.md, "Turns". */
struct concerned {
    const struct vid *node, *other; /* nodes that change */
    bool perhaps;                   /* they may have no row */
    const struct vid *dir;          /* a directory that gets an entry */
    const char *name;               /* the node moves there under this name, and what has the name gives way; NULL: it does not move */
};
struct names_turn { struct turn turn; struct vid ids[7]; unsigned n; };
/* Takes the turns; then the rows of these nodes do not change but by the caller. -errno, and no turn: -ENOENT: a node has no row. */
int names_turn_take(struct names *n, const struct concerned *c, struct names_turn *t, struct verr *err);
void names_turn_give(struct names *n, struct names_turn *t);

/* ---- steps of a change: the caller has the turns of what it concerns ---- */

/* Loads the record from STORE, to be changed, and the row, which may have another name or parent. -ENOENT: another host has removed
 * the node, and its row has been removed too. */
int names_load(struct names *n, const struct vid *id, struct node *rec, struct node *row, struct verr *err);
/* Writes the record with version + 1, then the row, which keeps its shown parent and name; *row is updated. */
int names_save(struct names *n, struct node *rec, struct node *row, struct verr *err);
/* Sets mtime and ctime of a directory whose entries have changed, in the catalog only (docs/design/names.md). */
int names_touch(struct names *n, const struct vid *dir, int64_t now, struct verr *err);
/* Called before row gives up its name: other nodes of that name, shown as NAME~HEX4, get the shown name for good. Otherwise one of them
 * would take the free name at the next start. */
int names_settle_namesakes(struct names *n, const struct node *row, struct verr *err);
/* Calls the removal hook, then removes the record of a node from STORE. Nothing else in names removes a record. */
int names_record_remove(struct names *n, const struct vid *id, struct verr *err);
/* Returns r, the result of changing rows after STORE; calls the `behind` hook if it is an error. */
int names_rows_done(struct names *n, int r, const struct verr *why);
/* Called when writing rec failed. True: the record is there nevertheless (only its fsync failed). Every reader sees it, though a power
 * loss may undo it; the caller makes the rows follow it. */
bool names_record_doubted(struct names *n, const struct node *rec, const struct verr *why);
/* Ends a node that another one replaces: its record goes. The record of a disk with snapshots stays and says NODE_GONE, so that they stay
 * under its name. *rec: the record, of a disk that keeps it. 1: it keeps it; 0: there is no record any more. Calling it again does no
 * harm. */
int names_end_replaced(struct names *n, const struct vid *id, struct node *rec, struct verr *err);
/* Removes record and row of a node, and ends a node that it replaces whose own end failed. */
int names_drop(struct names *n, const struct node *row, struct verr *err);
/* Drops a NODE_GONE disk that has no snapshots. 1: dropped, 0: it stays. */
int names_drop_if_empty(struct names *n, const struct node *row, struct verr *err);
/* Drops removed disks without snapshots that are left in a directory. -ENOTEMPTY: something else is in it. */
int names_empty_dir(struct names *n, const struct node *dir, struct verr *err);

/* ---- reconcile ---- */

enum shown { SHOWN_PLAIN, SHOWN_ALIAS, SHOWN_LOST, SHOWN_DROPPED };
struct rnode {                  /* one record, without the fields that only its row needs */
    struct vid id, parent, replaces;
    uint64_t version;
    int64_t btime_ns;
    uint32_t kind, flags, mode, uid, gid;
    char *name;
    enum shown shown;
    bool damaged;               /* the record cannot be read: these are the fields of the old row */
    bool write;                 /* the row is missing or differs */
    uint8_t walk;               /* mark of the search for circles */
};
struct trashed { struct vid disk, snap; uint64_t seq; };      /* a recipe in trash/ */
struct reconcile {
    struct names *n;
    void (*bad)(void *ctx, bool damaged, const char *what);
    void *ctx;
    struct verr *err;
    struct rnode *v;            /* sorted by id after step 1 */
    size_t count, cap;
    struct vid *unreadable;     /* damaged records that have no row either */
    size_t unreadable_count;
    struct rnode *root;
    struct trashed *trash;      /* sorted; see names_trash.c */
    size_t trash_count, trash_cap;
    bool trash_listed;
};
struct rnode *reconcile_find(struct reconcile *rc, const struct vid *id);
/* names_trash.c. Was that snapshot removed on purpose? 1, 0, -errno. */
int reconcile_was_removed(struct reconcile *rc, const struct vid *disk, uint64_t seq, const struct vid *snap);
/* Was any snapshot of the disk removed on purpose, or had the disk never one in STORE? 1, 0, -errno. */
int reconcile_any_removed(struct reconcile *rc, const struct vid *disk);
void reconcile_report(struct reconcile *rc, bool damaged, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Compares STORE's listing of the snapshots of all disks with the rows. */
int reconcile_snaps(struct reconcile *rc);

#endif
