/* SPDX-License-Identifier: Apache-2.0 */
/*
 * turn: lets one operation at a time work on a disk, in order of arrival. A freeze, a settling, the end of a publication, a removal or
 * a rollback takes the turn of its disk; an operation on several disks takes all their turns at once. Nothing else serialises whole
 * disks: while STORE is slow for one disk, the others go on.
 *
 * An operation may do I/O in its turn. It takes all turns that it needs in one call and takes no more until it has given them back, so
 * no two operations can wait for each other.
 */
#ifndef VARVE_DISK_TURN_H
#define VARVE_DISK_TURN_H

#include "base/id.h"

struct turns;

struct turn {                   /* memory of the caller, in use until turn_give; only turn.c looks inside */
    struct turn *next;
    const struct vid *ids;
    unsigned n;
};

struct turns *turns_new(void);  /* NULL: no memory */
void turns_free(struct turns *ts);      /* no thread has a turn or waits for one. NULL is allowed */

/* Waits until no earlier operation has, or waits for, any of these disks; then the caller has the turn of all of them. ids: borrowed
 * until turn_give, in any order; a disk may be named twice. Any thread may call it; a thread has one turn at a time. */
void turn_take(struct turns *ts, struct turn *t, const struct vid *ids, unsigned n);
void turn_give(struct turns *ts, struct turn *t);

#endif
