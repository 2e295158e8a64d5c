/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crew.h"

#include "base/thread.h"
#include "base/verr.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum task_state { TASK_IDLE = 0, TASK_QUEUED, TASK_RUNNING, TASK_DONE };

struct crew {
    pthread_mutex_t lock;       /* guards the queue and the state of every task */
    pthread_cond_t work, done;
    struct crew_task *head, **tail;
    bool ending;
    unsigned threads;
    pthread_t thread[];
};

static struct crew_task *take_first(struct crew *c)
{
    struct crew_task *t = c->head;
    c->head = t->next;
    if (c->head == NULL)
        c->tail = &c->head;
    t->state = TASK_RUNNING;
    return t;
}

static void take_this(struct crew *c, struct crew_task *task)
{
    struct crew_task **at = &c->head;
    while (*at != task)
        at = &(*at)->next;
    *at = task->next;
    if (*at == NULL)
        c->tail = at;
    task->state = TASK_RUNNING;
}

static void *crew_thread(void *arg)
{
    struct crew *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (c->head == NULL && !c->ending)
            pthread_cond_wait(&c->work, &c->lock);
        if (c->head == NULL)
            break;
        struct crew_task *t = take_first(c);
        pthread_mutex_unlock(&c->lock);
        t->run(t);
        pthread_mutex_lock(&c->lock);
        t->state = TASK_DONE;
        pthread_cond_broadcast(&c->done);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

struct crew *crew_new(unsigned threads, struct verr *err)
{
    struct crew *c = calloc(1, sizeof *c + threads * sizeof c->thread[0]);
    if (c == NULL) {
        verr_set(err, ENOMEM, "no memory for %u worker threads", threads);
        return NULL;
    }
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->done, NULL);
    c->tail = &c->head;
    int rc = 0;
    while (rc == 0 && c->threads < threads) {
        rc = thread_start(&c->thread[c->threads], crew_thread, c);
        c->threads += rc == 0;
    }
    if (rc != 0) {
        verr_set(err, rc, "cannot start worker threads: %s", strerror(rc));
        crew_free(c);
        return NULL;
    }
    return c;
}

void crew_free(struct crew *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->lock);
    c->ending = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->threads; i++)
        pthread_join(c->thread[i], NULL);
    pthread_cond_destroy(&c->done);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

unsigned crew_threads(const struct crew *c)
{
    return c == NULL ? 0 : c->threads;
}

void crew_submit(struct crew *c, struct crew_task *task)
{
    if (c == NULL) {
        task->state = TASK_QUEUED;
        return;
    }
    pthread_mutex_lock(&c->lock);
    task->state = TASK_QUEUED;
    task->next = NULL;
    *c->tail = task;
    c->tail = &task->next;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
}

void crew_wait(struct crew *c, struct crew_task *task)
{
    if (c == NULL) {
        task->run(task);
        task->state = TASK_IDLE;
        return;
    }
    pthread_mutex_lock(&c->lock);
    if (task->state == TASK_QUEUED) {
        take_this(c, task);
        pthread_mutex_unlock(&c->lock);
        task->run(task);
        pthread_mutex_lock(&c->lock);
        task->state = TASK_DONE;
    }
    while (task->state != TASK_DONE)
        pthread_cond_wait(&c->done, &c->lock);
    task->state = TASK_IDLE;
    pthread_mutex_unlock(&c->lock);
}
