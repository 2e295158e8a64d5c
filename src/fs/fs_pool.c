/* SPDX-License-Identifier: Apache-2.0 */
/* fs_pool: a list, a mutex, a condition variable. */
#include "fs/fs_pool.h"

#include "base/thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { QUEUE_BOUND = 8192 };

struct pool {
    pthread_mutex_t lock;           /* guards all below */
    pthread_cond_t work;
    struct job *head, **tail;
    unsigned queued, running;
    bool stopping;
    unsigned nthreads;
    pthread_t threads[];
};

static struct job *pool_take(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    /* While one job runs it may submit another: a worker leaves only when nothing can come any more. */
    while (p->head == NULL && !(p->stopping && p->running == 0))
        pthread_cond_wait(&p->work, &p->lock);
    struct job *job = p->head;
    if (job != NULL) {
        p->head = job->next;
        if (p->head == NULL)
            p->tail = &p->head;
        p->queued--;
        p->running++;
    }
    pthread_mutex_unlock(&p->lock);
    return job;
}

static void *pool_worker(void *arg)
{
    struct pool *p = arg;
    struct job *job;
    while ((job = pool_take(p)) != NULL) {
        job->run(job);
        pthread_mutex_lock(&p->lock);
        p->running--;
        if (p->stopping && p->running == 0)
            pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

int pool_new(unsigned workers, struct pool **out)
{
    struct pool *p = calloc(1, sizeof *p + workers * sizeof p->threads[0]);
    if (p == NULL)
        return -ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    p->tail = &p->head;
    int rc = 0;
    while (rc == 0 && p->nthreads < workers) {
        rc = thread_start(&p->threads[p->nthreads], pool_worker, p);
        if (rc == 0)
            p->nthreads++;
    }
    /* Fewer workers than asked for still serve; none do not. */
    if (p->nthreads == 0) {
        pool_free(p);
        return -rc;
    }
    *out = p;
    return 0;
}

void pool_submit(struct pool *p, struct job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&p->lock);
    *p->tail = job;
    p->tail = &job->next;
    p->queued++;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}

bool pool_full(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    bool full = p->queued >= QUEUE_BOUND;
    pthread_mutex_unlock(&p->lock);
    return full;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->nthreads; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
