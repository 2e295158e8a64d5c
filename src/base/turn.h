/* SPDX-License-Identifier: Apache-2.0 */
/*
 * turn: lets one operation at a time work on what an id names (a disk, a directory), in order of arrival. An operation on several ids
 * takes all their turns at once. While one operation is slow, those on other ids go on.
 *
 * An operation may do I/O in its turn. It takes all turns that it needs of one `struct turns` in one call and takes no more of these
 * until it has given them back, so no two operations can wait for each other. Where an operation takes turns of several
 * `struct turns`, docs/ARCHITECTURE.md ("Locks") says in which order.
 */
#ifndef VARVE_BASE_TURN_H
#define VARVE_BASE_TURN_H

#include "base/id.h"

#include <stdbool.h>

struct turns;

struct turn {                   /* memory of the caller, in use until turn_give; only turn.c looks inside */
    struct turn *next;
    const struct vid *ids;
    unsigned n;
    bool all;
};

struct turns *turns_new(void);  /* NULL: no memory */
void turns_free(struct turns *ts);      /* no thread has a turn or waits for one. NULL is allowed */

/* Waits until no earlier operation has, or waits for, any of these ids; then the caller has the turn of all of them. ids: borrowed
 * until turn_give, in any order; an id may be named twice. Any thread may call it; a thread has one turn of a `struct turns` at a
 * time. */
void turn_take(struct turns *ts, struct turn *t, const struct vid *ids, unsigned n);
/* The same for all ids that there are. */
void turn_take_all(struct turns *ts, struct turn *t);
void turn_give(struct turns *ts, struct turn *t);

#endif
