/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool: threads that run tasks. A task is a struct of the caller with a `pool_task` in it, so handing one over needs no memory and
 * cannot fail. The tasks of a pool begin in the order in which they came and run side by side.
 *
 *   pool_submit         gives the task away: `run` owns it and may free it; nobody waits for it
 *   pool_lend/_wait     lends the task: its results are read after pool_wait, which runs a task that no thread has begun itself
 *   pool_serial_post    gives the task away, to a serial: its tasks run one at a time in the order of posting
 *
 * A pool without threads does the same work in the threads of its callers: pool_submit and pool_serial_post run the task before
 * they return, unless the serial is busy; pool_wait runs what was lent. So does a NULL pool, which has no serials.
 *
 * Every function may be called by any thread and by a running task, except pool_new and pool_free. The pool's lock is taken inside
 * any other lock; no function of a task runs under it.
 */
#ifndef VARVE_BASE_POOL_H
#define VARVE_BASE_POOL_H

#include <stdbool.h>

struct pool;
struct pool_serial;
struct verr;

struct pool_task {
    void (*run)(struct pool_task *task);    /* set by the caller; the task is usually the first member of a larger struct */
    struct pool_task *next;                 /* the rest is the pool's */
    struct pool_serial *serial;
    int state;
};

struct pool_queue {
    struct pool_task *first, **last;        /* last: valid unless it is empty */
};

/* The threads answer no signals (base/thread.h). When the system gives fewer than were asked for, those serve; NULL and err when it
 * gives none or memory is out. threads 0 is allowed. */
struct pool *pool_new(unsigned threads, struct verr *err);
/* Runs what is queued, also what running tasks still submit or post, then ends the threads. Lent tasks were waited for, and nothing
 * comes from outside any more. NULL is allowed. */
void pool_free(struct pool *p);
unsigned pool_threads(const struct pool *p);    /* 0 for NULL */

void pool_submit(struct pool *p, struct pool_task *task);
/* True when so much waits (8192 tasks; of a serial only its next one counts) that a new request is better refused than added. */
bool pool_full(struct pool *p);

/* The task stays the caller's and where it is until pool_wait returned; then it may be lent again. */
void pool_lend(struct pool *p, struct pool_task *task);
/* Returns when task->run has returned; what that wrote is visible then. One waiter per task. A task may lend tasks and wait for
 * them, even in a pool of one thread. */
void pool_wait(struct pool *p, struct pool_task *task);

/*
 * A serial: a queue whose tasks run one at a time. It never keeps more than one thread, and goes to the end of the pool's queue
 * after each task, so a busy serial does not keep the others waiting.
 */
struct pool_serial {
    struct pool *pool;
    void (*left)(struct pool_serial *s);
    struct pool_queue queue;        /* guarded by the pool's lock, as is busy */
    bool busy;                      /* a task of it runs or is in the pool's queue */
};

/* left: called after each task, when the pool no longer needs the serial on behalf of this task. It gives back a reference that was
 * taken for the post; the last one may free the serial. It may run beside the serial's next task. NULL: nothing to call; the serial
 * may then be freed after pool_serial_wait, or after pool_free. */
void pool_serial_init(struct pool_serial *s, struct pool *p, void (*left)(struct pool_serial *s));
/* A task of this serial may post to it: that one runs after those already posted. */
void pool_serial_post(struct pool_serial *s, struct pool_task *task);
/* Returns when the serial is idle: nothing posted, nothing running. Not for its own tasks. */
void pool_serial_wait(struct pool_serial *s);

#endif
