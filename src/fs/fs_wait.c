/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_wait: requests that wait for the agent without holding a thread. Each is a `park`. The agent's callback, an interrupt and the end
 * of serving each try to claim the park: the first one sets the result, and a pool worker answers. After an interrupt the agent's
 * wait ends by itself later; its callback then finds the park claimed and only gives its reference back.
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
    atomic_bool claimed;
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

static void park_claim(struct park *p, int result, const struct verr *why)
{
    if (atomic_exchange(&p->claimed, true))
        return;
    p->result = result;
    if (why != NULL)
        p->why = *why;
    pool_submit(p->f->ctl, &p->task);
}

static void park_done(void *ctx, int result, const struct verr *why)
{
    struct park *p = ctx;
    park_claim(p, result, why);
    park_put(p);
}

static void park_interrupt(fuse_req_t req, void *data)
{
    (void)req;
    park_claim(data, -EINTR, NULL);
}

void fs_wait(struct fs *f, fuse_req_t req, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms, fs_wait_fn reply, void *arg)
{
    struct park *p = calloc(1, sizeof *p);
    if (p == NULL) {
        reply(req, -ENOMEM, NULL, arg);
        return;
    }
    p->task.run = park_answer;
    p->f = f;
    p->req = req;
    p->reply = reply;
    p->arg = arg;
    /* References of the request, of the agent and of this function; the first two may be given back before it returns. */
    atomic_store(&p->refs, 3);
    pthread_mutex_lock(&f->lock);
    p->next = f->parks;
    if (p->next != NULL)
        p->next->prev = p;
    f->parks = p;
    pthread_mutex_unlock(&f->lock);
    /* Before the wait begins: afterwards the request may be answered and freed at any moment. */
    fuse_req_interrupt_func(req, park_interrupt, p);
    struct verr err = {0};
    int rc = agent_wait_start(f->agent, ids, n, begins, timeout_ms, park_done, p, &err);
    if (rc < 0) {
        park_claim(p, rc, &err);
        park_put(p);
    } else if (atomic_load(&f->stopping)) {
        park_claim(p, -EINTR, NULL);
    }
    park_put(p); /* NOLINT(clang-analyzer-unix.Malloc): the last of three references, which the analyzer does not count */
}

void fs_wait_end(struct fs *f)
{
    pthread_mutex_lock(&f->lock);
    for (struct park *p = f->parks; p != NULL; p = p->next)
        park_claim(p, -EINTR, NULL);
    pthread_mutex_unlock(&f->lock);
}
