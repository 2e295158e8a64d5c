/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work: what the daemon owes its disks, in one list: a snapshot to store, one to settle, a freeze, an image to recover or to remove,
 * rows that the catalog lacks. Trying again has one meaning here:
 *
 *   owed     the item is due at once
 *   running  a worker has taken the item. If it is owed again meanwhile, it is due at once when the attempt ends
 *   failed   the last attempt failed. Its error and the time of the next attempt stay visible until an attempt succeeds. The next
 *            attempt comes after 5 s, then 10, 20 ... 600 s
 *   asked    the item has failed, and a waiter asked for an attempt: it is due at once, and the waiter's answer is the result of
 *            *that* attempt
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

/* Kinds in the order in which they are done for one disk. While a disk owes WORK_RECOVER, nothing else is done for it. */
enum work_kind {
    WORK_RECOVER,       /* its image, at the start */
    WORK_SETTLE,        /* snapshot seq; arg: WORK_CLEAN */
    WORK_FREEZE,        /* changes that its last writer left; arg: WORK_PARTIAL */
    WORK_ZEROS,         /* a snapshot of an image of zeros that has settled */
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

/* disk, kind and seq identify an item. arg: the bits of every work_owe of it, together. */
struct work_item {
    struct vid disk;
    enum work_kind kind;
    uint64_t seq;       /* WORK_SETTLE; else 0 */
    uint32_t arg;
    unsigned failures;  /* set when it is taken: attempts that failed since the last one that succeeded */
};

/* wake (may be NULL) is called, without a lock held, whenever an item may be due earlier than work_next said. NULL: no memory. */
struct work *work_new(const struct vclock *clock, void (*wake)(void *ctx), void *ctx);
void work_free(struct work *w);

/* Enters the item, due at once; an item that has failed keeps the time of its next attempt. -ENOMEM. */
int work_owe(struct work *w, const struct work_item *item);
/* The same after the caller's own attempt failed: the item is due after the first backoff. -ENOMEM. */
int work_owe_failed(struct work *w, const struct work_item *item, const struct verr *why);

/* Takes up to max due items of these kinds (WORK_BIT) and returns their number. The caller holds each until work_done, work_failed or
 * work_return. Over all callers, at most one item of a disk is taken at a time. */
unsigned work_take(struct work *w, unsigned kinds, struct work_item *out, unsigned max);
/* Finds the next item of these kinds that work_take would take, without taking it. */
bool work_look(struct work *w, unsigned kinds, struct work_item *out);
/* Takes an item of that disk and kind whether it is due or not. False: none is owed, or an item of the disk is taken already. */
bool work_take_one(struct work *w, const struct vid *disk, enum work_kind kind, struct work_item *out);
/* Removes the item, unless it was owed again since it was taken. */
void work_done(struct work *w, const struct work_item *item);
/* Keeps the item, due after its backoff. True: the failure is visible now; false: a waiter asked for another attempt while this one
 * ran, so that the next attempt comes at once and decides. next_ns (may be NULL): the time of the next attempt. */
bool work_failed(struct work *w, const struct work_item *item, const struct verr *why, int64_t *next_ns);
/* Gives the item back as it was before it was taken: no attempt was made. */
void work_return(struct work *w, const struct work_item *item);

/* A waiter begins to wait for the disk: its failed items are due at once, and count as not failed until that attempt ends. */
void work_ask(struct work *w, const struct vid *disk);
/* The cause of failures may have passed (space was freed, an attempt succeeded): failed items are due at once, but not earlier than
 * the first backoff after their last attempt. Failures stay visible. */
void work_nudge(struct work *w);
/* All failed items are due at once, because a user begins to wait for everything. Failures stay visible. */
void work_hurry(struct work *w);
/* Must a wait for the disk's snapshots fail now? True: the last attempt to recover, settle or store failed, and no waiter has asked
 * for another. why and next_ns (both may be NULL): that attempt's error, and the time of the next one. */
bool work_blocked(struct work *w, const struct vid *disk, struct verr *why, int64_t *next_ns);
bool work_owes(struct work *w, const struct vid *disk, unsigned kinds);
/* The time at which the next item of these kinds is due (monotonic, ns; 0: now). INT64_MAX: there is none. */
int64_t work_next(struct work *w, unsigned kinds);
/* An item whose last attempt failed. Times are monotonic, ns. */
struct work_failure {
    struct work_item item;
    struct verr why;
    int64_t tried_ns, due_ns;   /* the last attempt; the next one, 0: at once */
};
/* An image that somebody still has open goes when he closes it: that it could not be removed yet is nothing to report. */
bool work_only_waits(enum work_kind kind, const struct verr *why);
/* Copies up to max items of these kinds whose last attempt failed (and does not only wait), in no order, and returns the number of all. */
unsigned work_failures(struct work *w, unsigned kinds, struct work_failure *out, unsigned max);
/* The number of items of that kind. failed (may be NULL): how many of them failed in their last attempt. */
unsigned work_count(struct work *w, enum work_kind kind, unsigned *failed);

#endif
