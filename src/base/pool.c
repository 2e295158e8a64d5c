/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool: a queue, a mutex, two conditions. A serial is a second queue in front of the pool's: only its oldest task is in the pool's
 * queue or running, and the thread that ran it moves up the next one.
 */
#include "base/pool.h"

#include "base/thread.h"
#include "base/verr.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUE_BOUND = 8192 };

/* Of a lent task: LENT, RUNNING, DONE, and back to GIVEN when it was waited for. */
enum task_state { TASK_GIVEN = 0, TASK_LENT, TASK_RUNNING, TASK_DONE };

struct pool {
    pthread_mutex_t lock;           /* guards all below, the state of every task, and the pool's serials */
    pthread_cond_t work;            /* a task is queued, or the threads may end */
    pthread_cond_t done;            /* a lent task has run, or a serial is idle */
    struct pool_queue queue;
    unsigned queued, running;
    bool ending;
    unsigned threads;
    pthread_t thread[];
};

static void queue_put(struct pool_queue *q, struct pool_task *task)
{
    task->next = NULL;
    if (q->first == NULL)
        q->last = &q->first;
    *q->last = task;
    q->last = &task->next;
}

static void queue_take(struct pool_queue *q, const struct pool_task *task)
{
    struct pool_task **at = &q->first;
    while (*at != task)
        at = &(*at)->next;
    *at = task->next;
    if (*at == NULL)
        q->last = at;
}

/* ---- with the lock held ---- */

static void add(struct pool *p, struct pool_task *task)
{
    queue_put(&p->queue, task);
    p->queued++;
    pthread_cond_signal(&p->work);
}

static void serial_ran(struct pool *p, struct pool_serial *s)
{
    void (*left)(struct pool_serial *s) = s->left;
    struct pool_task *next = s->queue.first;
    s->busy = next != NULL;
    if (next != NULL) {
        queue_take(&s->queue, next);
        add(p, next);
    } else {
        pthread_cond_broadcast(&p->done);
    }
    if (left != NULL) {
        pthread_mutex_unlock(&p->lock);
        left(s);
        pthread_mutex_lock(&p->lock);
    }
}

/* Takes the task out of the queue and runs it, without the lock. A task that was given away is gone when `run` returns. */
static void run_task(struct pool *p, struct pool_task *task)
{
    bool lent = task->state == TASK_LENT;
    struct pool_serial *serial = task->serial;
    queue_take(&p->queue, task);
    p->queued--;
    p->running++;
    if (lent)
        task->state = TASK_RUNNING;
    pthread_mutex_unlock(&p->lock);
    task->run(task);
    pthread_mutex_lock(&p->lock);
    if (lent) {
        task->state = TASK_DONE;
        pthread_cond_broadcast(&p->done);
    }
    if (serial != NULL)
        serial_ran(p, serial);
    p->running--;
    if (p->ending && p->running == 0)
        pthread_cond_broadcast(&p->work);
}

/* The caller's thread takes the place of the threads that a pool does not have. */
static void run_here(struct pool *p)
{
    while (p->threads == 0 && p->queue.first != NULL)
        run_task(p, p->queue.first);
}

/* ---- threads ---- */

static void *pool_thread(void *arg)
{
    struct pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        /* A task that runs may submit another: a thread leaves only when nothing can come any more. */
        while (p->queue.first == NULL && !(p->ending && p->running == 0))
            pthread_cond_wait(&p->work, &p->lock);
        if (p->queue.first == NULL)
            break;
        run_task(p, p->queue.first);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct pool *pool_new(unsigned threads, struct verr *err)
{
    struct pool *p = calloc(1, sizeof *p + threads * sizeof p->thread[0]);
    if (p == NULL) {
        verr_set(err, ENOMEM, "no memory for %u worker threads", threads);
        return NULL;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    int rc = 0;
    unsigned n = 0;
    while (rc == 0 && n < threads) {
        rc = thread_start(&p->thread[n], pool_thread, p);
        n += rc == 0;
    }
    p->threads = n;         /* before any task can come */
    if (n == 0 && rc != 0) {
        verr_set(err, rc, "cannot start worker threads: %s", strerror(rc));
        pool_free(p);
        return NULL;
    }
    return p;
}

void pool_free(struct pool *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

unsigned pool_threads(const struct pool *p)
{
    return p == NULL ? 0 : p->threads;
}

/* ---- tasks ---- */

void pool_submit(struct pool *p, struct pool_task *task)
{
    if (p == NULL) {
        task->run(task);
        return;
    }
    task->serial = NULL;
    task->state = TASK_GIVEN;
    pthread_mutex_lock(&p->lock);
    add(p, task);
    run_here(p);
    pthread_mutex_unlock(&p->lock);
}

bool pool_full(struct pool *p)
{
    if (p == NULL)
        return false;
    pthread_mutex_lock(&p->lock);
    bool full = p->queued >= QUEUE_BOUND;
    pthread_mutex_unlock(&p->lock);
    return full;
}

void pool_lend(struct pool *p, struct pool_task *task)
{
    if (p == NULL)
        return;
    task->serial = NULL;
    pthread_mutex_lock(&p->lock);
    task->state = TASK_LENT;
    add(p, task);
    pthread_mutex_unlock(&p->lock);
}

void pool_wait(struct pool *p, struct pool_task *task)
{
    if (p == NULL) {
        task->run(task);
        return;
    }
    pthread_mutex_lock(&p->lock);
    if (task->state == TASK_LENT)
        run_task(p, task);
    while (task->state != TASK_DONE)
        pthread_cond_wait(&p->done, &p->lock);
    task->state = TASK_GIVEN;
    pthread_mutex_unlock(&p->lock);
}

/* ---- serials ---- */

void pool_serial_init(struct pool_serial *s, struct pool *p, void (*left)(struct pool_serial *s))
{
    *s = (struct pool_serial){.pool = p, .left = left};
}

void pool_serial_post(struct pool_serial *s, struct pool_task *task)
{
    struct pool *p = s->pool;       /* the serial may be gone once its task has run */
    task->serial = s;
    task->state = TASK_GIVEN;
    pthread_mutex_lock(&p->lock);
    if (s->busy)
        queue_put(&s->queue, task);
    else
        add(p, task);
    s->busy = true;
    run_here(p);
    pthread_mutex_unlock(&p->lock);
}

void pool_serial_wait(struct pool_serial *s)
{
    struct pool *p = s->pool;
    pthread_mutex_lock(&p->lock);
    while (s->busy)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
