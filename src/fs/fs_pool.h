/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_pool: worker threads that carry out what a FUSE thread must not wait for (disk sync, STORE, a freeze).
 * A job is a struct owned by whoever submits it; its run function frees it. Jobs are never lost: pool_free runs what is
 * queued. Jobs of one pool run in any order; who needs an order keeps a queue of his own (fs_handle.h: a disk's queue).
 */
#ifndef VARVE_FS_FS_POOL_H
#define VARVE_FS_FS_POOL_H

#include <stdbool.h>

struct pool;
struct job {
    struct job *next;
    void (*run)(struct job *job);
};

/* -ENOMEM, or the errno of pthread_create. Workers answer no signals (base/thread.h). */
int pool_new(unsigned workers, struct pool **out);
/* Never fails and never waits. May be called by a running job, also while pool_free drains. */
void pool_submit(struct pool *p, struct job *job);
/* True when so much is queued that a new request is better refused (EAGAIN) than added. */
bool pool_full(struct pool *p);
/* Runs what is queued, ends the workers. No submit from outside the pool any more. NULL is allowed. */
void pool_free(struct pool *p);

#endif
