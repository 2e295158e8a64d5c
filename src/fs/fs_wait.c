/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_wait: requests that wait, for the agent or for the queue of a disk, without holding a thread. Each is a `park`. The end of the
 * awaited work, an interrupt and the end of serving each try to claim the park: the first one sets the result, and a thread kept for
 * answers gives it, so a killed program is let go also when all other workers wait for STORE. After an interrupt the awaited work goes
 * on; its end then finds the park claimed and only gives its reference back.
 */
#include "fs/fs_internal.h"

#include <errno.h>
#include <stdlib.h>

struct park {
    struct pool_task task;          /* first */
    struct park *next, *prev;       /* in fs.parks, guarded by fs.lock */
    struct fs *f;                   /* valid until the park is claimed and answered */
    fuse_req_t req;
    fs_wait_fn reply;
    void *arg;
    int result;
    struct verr why;
    long killed;                    /* not 0: only a signal that kills this task interrupts the request */
    atomic_bool by_agent;           /* the agent ends it, and no queue of ours */
    atomic_bool claimed;
    atomic_uint missing;            /* claim, fs_park_arm: the answer comes when both have been there */
    atomic_uint refs;
};

static void park_put(struct park *p)
{
    if (atomic_fetch_sub(&p->refs, 1) == 1)
        free(p);
}

static void park_answer(struct pool_task *task)
{
    struct park *p = (struct park *)task;
    struct fs *f = p->f;
    /* When this returns, no interrupt function of the request runs any more, and it may be answered and freed. */
    fuse_req_interrupt_func(p->req, NULL, NULL);
    pthread_mutex_lock(&f->lock);
    if (p->prev != NULL)
        p->prev->next = p->next;
    else
        f->parks = p->next;
    if (p->next != NULL)
        p->next->prev = p->prev;
    pthread_mutex_unlock(&f->lock);
    p->reply(p->req, p->result, &p->why, p->arg);
    park_put(p);
}

static void park_step(struct park *p)
{
    if (atomic_fetch_sub(&p->missing, 1) == 1)
        pool_submit(p->f->answers, &p->task);
}

static void park_claim(struct park *p, int result, const struct verr *why)
{
    if (atomic_exchange(&p->claimed, true))
        return;
    p->result = result;
    if (why != NULL)
        p->why = *why;
    park_step(p);
}

static void park_done(void *ctx, int result, const struct verr *why)
{
    struct park *p = ctx;
    park_claim(p, result, why);
    park_put(p);
}

/* A signal with a handler must not make a close fail; a signal that kills the process must end its wait. */
static void park_interrupt(fuse_req_t req, void *data)
{
    struct park *p = data;
    (void)req;
    if (p->killed == 0 || fs_task_killed(p->killed))
        park_claim(p, -EINTR, NULL);
}

struct park *fs_park(struct fs *f, fuse_req_t req, bool unless_killed, fs_wait_fn reply, void *arg)
{
    struct park *p = calloc(1, sizeof *p);
    if (p == NULL) {
        reply(req, -ENOMEM, NULL, arg);
        return NULL;
    }
    p->task.run = park_answer;
    p->f = f;
    p->req = req;
    p->reply = reply;
    p->arg = arg;
    p->killed = unless_killed ? fuse_req_ctx(req)->pid : 0;
    atomic_store(&p->missing, 2);
    atomic_store(&p->refs, 2);      /* references of the request, and of the awaited work */
    pthread_mutex_lock(&f->lock);
    p->next = f->parks;
    if (p->next != NULL)
        p->next->prev = p;
    f->parks = p;
    pthread_mutex_unlock(&f->lock);
    return p;
}

void fs_park_arm(struct park *p)
{
    fuse_req_interrupt_func(p->req, park_interrupt, p);     /* calls it at once if the interrupt has come already */
    park_step(p);
}

void fs_park_end(struct park *p, int result, const struct verr *why)
{
    park_claim(p, result, why);
    park_put(p);
}

void fs_park_wait(struct park *p, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms)
{
    struct verr err = {0};
    struct fs *f = p->f;
    atomic_store(&p->by_agent, true);   /* before the look at stopping: this function or fs_wait_end claims it */
    atomic_fetch_add(&p->refs, 1);      /* this function's reference: the wait may end, and the request be answered, before it returns */
    int rc = agent_wait_start(f->agent, ids, n, begins, timeout_ms, park_done, p, &err);
    if (rc < 0)
        fs_park_end(p, rc, &err);
    else if (atomic_load(&f->stopping))
        park_claim(p, -EINTR, NULL);
    park_put(p); /* NOLINT(clang-analyzer-unix.Malloc): the last of three references, which the analyzer does not count */
}

void fs_wait(struct fs *f, fuse_req_t req, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms, fs_wait_fn reply, void *arg)
{
    struct park *p = fs_park(f, req, false, reply, arg);
    if (p == NULL)
        return;
    fs_park_wait(p, ids, n, begins, timeout_ms);
    fs_park_arm(p); /* NOLINT(clang-analyzer-unix.Malloc): it is answered, and freed, behind this call */
}

void fs_wait_end(struct fs *f)
{
    pthread_mutex_lock(&f->lock);
    for (struct park *p = f->parks; p != NULL; p = p->next)
        if (p->killed == 0 || atomic_load(&p->by_agent))    /* a freeze is finished, and its close answered, before the pools end */
            park_claim(p, -EINTR, NULL);
    pthread_mutex_unlock(&f->lock);
}
