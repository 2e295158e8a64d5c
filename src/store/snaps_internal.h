/* SPDX-License-Identifier: Apache-2.0 */
/* snaps_internal: operations on snapshot records that are under way, in memory: edits, pins, un-anchorings. */
#ifndef VARVE_STORE_SNAPS_INTERNAL_H
#define VARVE_STORE_SNAPS_INTERNAL_H

#include "format/snapinfo.h"

#include <pthread.h>

struct store;

/* An edit under way; on the stack of its thread. */
struct snaps_busy {
    struct snaps_busy *next;
    struct snapref ref;
};

/* lock guards all members; no function is called while it is held. ended: signalled when an edit has ended. pins: of one anchor either
 * any number of pins, or one un-anchoring. */
struct snaps_state {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    struct snaps_busy *edits;
    struct snaps_pin *pins;
};

void snaps_state_init(struct snaps_state *s);
void snaps_state_release(struct snaps_state *s);
/* Waits until no edit of that snapshot is under way, and begins one. */
void snaps_begin(struct store *st, const struct snapref *ref, struct snaps_busy *b);
void snaps_end(struct store *st, struct snaps_busy *b);

#endif
