/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crew: a few threads that compute for one caller. Tasks are structs of the caller; whoever waits for a task that nobody has
 * begun runs it himself, so a crew without threads, or none at all (NULL), does the same work in the caller's thread.
 *
 * Meant for an ordered pipeline: submit segment n, n+1, n+2; wait for n; use it; submit n+3. Order of results is the
 * caller's, order of execution nobody's. Tasks must not wait for other tasks.
 */
#ifndef VARVE_BASE_CREW_H
#define VARVE_BASE_CREW_H

struct crew;
struct verr;

struct crew_task {
    void (*run)(struct crew_task *task);    /* set by the caller; usually the first member of a larger struct */
    struct crew_task *next;                 /* the rest is the crew's */
    int state;
};

/* threads: 0 is allowed. They answer no signals (base/thread.h). NULL and err when memory or threads are not to be had. */
struct crew *crew_new(unsigned threads, struct verr *err);
/* Every task must have been waited for. NULL is allowed. */
void crew_free(struct crew *c);
unsigned crew_threads(const struct crew *c);    /* 0 for NULL */

/* Any thread may submit. The task must stay where it is until it was waited for; then it may be submitted again. */
void crew_submit(struct crew *c, struct crew_task *task);
/* Returns when task->run has returned; what it wrote is visible then. One waiter per task. */
void crew_wait(struct crew *c, struct crew_task *task);

#endif
