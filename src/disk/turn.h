/* SPDX-License-Identifier: Apache-2.0 */
/*
 * turn: one operation at a time per disk, in the order in which they came. A freeze, a settling, the end of a publication, a removal,
 * a rollback takes the turn of its disk; an operation over several disks takes all their turns at once. Nothing else serialises whole
 * disks: while STORE is slow for one of them, the others go on.
 *
 * An operation may do I/O in its turn. It takes all the turns it needs in one call and never takes more inside, so no two operations
 * can wait for each other. Memory: the caller's.
 */
#ifndef VARVE_DISK_TURN_H
#define VARVE_DISK_TURN_H

#include "base/id.h"

struct turns;

struct turn {                   /* the caller's, until turn_give; inside is turns' own */
    struct turn *next;
    const struct vid *ids;
    unsigned n;
};

struct turns *turns_new(void);  /* NULL: no memory */
void turns_free(struct turns *ts);      /* nobody waits or has a turn. NULL is allowed */

/* Waits until no operation that came earlier has, or waits for, any of these disks; then all of them are the caller's. ids: borrowed
 * until turn_give, in any order; a disk may be named twice. Any thread; a thread has one turn at a time. */
void turn_take(struct turns *ts, struct turn *t, const struct vid *ids, unsigned n);
void turn_give(struct turns *ts, struct turn *t);

#endif
