/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work: what the daemon owes its disks, in one list: a snapshot to store, one to settle, a freeze, an image to recover or to remove,
 * rows that the catalog lacks. Trying again has one meaning here:
 *
 *   owed     due at once
 *   running  taken by a worker; owed again meanwhile: due at once when it ends
 *   failed   the last attempt failed: error and time of the next attempt are known to everybody who asks, until an attempt
 *            succeeds. The next one comes after 5 s, then 10, 20 ... 600 s
 *   asked    failed, and somebody who waits asked for an attempt: due at once; what *that* attempt comes to is his answer
 *
 * The list is in memory only: after a restart, recovery finds everything that is owed in STORE and in the journals.
 * Thread-safe; its lock is innermost and never held across I/O or a callback.
 */
#ifndef VARVE_DISK_WORK_H
#define VARVE_DISK_WORK_H

#include "base/clock.h"
#include "base/id.h"
#include "base/verr.h"

#include <stdbool.h>
#include <stdint.h>

struct work;

/* In the order in which they are done for one disk. Nothing else is done for a disk that owes WORK_RECOVER. */
enum work_kind {
    WORK_RECOVER,       /* its image, at the start */
    WORK_SETTLE,        /* snapshot seq; arg: WORK_CLEAN */
    WORK_FREEZE,        /* what its last writer left; arg: WORK_PARTIAL */
    WORK_FORGET,        /* the image of a removed disk */
    WORK_STORE,         /* its oldest pending snapshot */
    WORK_ROWS,          /* disk zero: rows that the catalog has refused */
    WORK_NAMES,         /* disk zero: the tree of names */
    WORK_RESERVE,       /* disk zero: the space kept for removals */
    WORK_KINDS
};
enum { WORK_CLEAN = 1u << 0, WORK_PARTIAL = 1u << 1 };
#define WORK_BIT(kind) (1u << (kind))
#define WORK_ALL (WORK_BIT(WORK_KINDS) - 1)
#define WORK_BACKOFF_FIRST_NS (INT64_C(5) * 1000000000)
#define WORK_BACKOFF_MAX_NS (INT64_C(600) * 1000000000)

/* disk, kind and seq name an item; arg: bits of all that owed it. */
struct work_item {
    struct vid disk;
    enum work_kind kind;
    uint64_t seq;       /* WORK_SETTLE; else 0 */
    uint32_t arg;
    unsigned failures;  /* set when it is taken: attempts that failed since the last one that succeeded */
};

/* wake (may be NULL) is called without a lock whenever something may be due earlier than work_next said. NULL: no memory. */
struct work *work_new(const struct vclock *clock, void (*wake)(void *ctx), void *ctx);
void work_free(struct work *w);

/* Enters the item, due at once; one that has failed keeps its time. -ENOMEM. */
int work_owe(struct work *w, const struct work_item *item);
/* The same after an attempt that was made elsewhere and failed: due after the first backoff. -ENOMEM. */
int work_owe_failed(struct work *w, const struct work_item *item, const struct verr *why);

/* Takes up to max items of these kinds (WORK_BIT) that are due: the caller has each until work_done, work_failed or work_return. At
 * most one item of a disk is taken at a time, over all callers. Count. */
unsigned work_take(struct work *w, unsigned kinds, struct work_item *out, unsigned max);
/* Takes an item of that disk and kind whether it is due or not. False: none is owed, or the disk has an item taken. */
bool work_take_one(struct work *w, const struct vid *disk, enum work_kind kind, struct work_item *out);
/* The item goes, unless it was owed again since it was taken. */
void work_done(struct work *w, const struct work_item *item);
/* It stays and is due after the backoff. True: the failure is visible now; false: somebody asked for another attempt while this one
 * ran, so that it comes at once and counts. next_ns (may be NULL): the time of the next attempt. */
bool work_failed(struct work *w, const struct work_item *item, const struct verr *why, int64_t *next_ns);
/* No attempt was made after all: as before it was taken. */
void work_return(struct work *w, const struct work_item *item);
/* All items of a disk that is no more go (those that are taken: at their end). */
void work_forget(struct work *w, const struct vid *disk);

/* Somebody begins to wait for the disk: what has failed is due at once, and counts as not failed until that attempt ends. */
void work_ask(struct work *w, const struct vid *disk);
/* What kept things from working may have gone (room was made, an attempt succeeded): what has failed is due at once, though not
 * earlier than the first backoff after its last attempt. Failures stay visible. */
void work_nudge(struct work *w);
/* Is a wait for the disk's snapshots in vain for now: has the last attempt at recovering, settling or storing failed, without another
 * that was asked for? why, next_ns (may be NULL) as that attempt left them. */
bool work_blocked(struct work *w, const struct vid *disk, struct verr *why, int64_t *next_ns);
bool work_owes(struct work *w, const struct vid *disk, unsigned kinds);
/* When the next item of these kinds is due (monotonic; 0: now); INT64_MAX: none is. */
int64_t work_next(struct work *w, unsigned kinds);
/* Items of that kind; failed (may be NULL): those whose last attempt failed. */
unsigned work_count(struct work *w, enum work_kind kind, unsigned *failed);

#endif
