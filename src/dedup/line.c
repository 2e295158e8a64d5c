/* SPDX-License-Identifier: Apache-2.0 */
/*
 * line: the segments of a disk pass through r->work, several at a time, and leave it in the order in which they came.
 * Order matters: requests are answered by position, and blocks lie in their container in disk order.
 */
#include "dedup/dedup_internal.h"

#include <errno.h>
#include <stdlib.h>

static int use_first(struct line *l, struct verr *err)
{
    struct segwork *w = &l->r->work[l->first];
    if (w->task.run != NULL)
        pool_wait(l->r->env->pool, &w->task);
    l->first = (l->first + 1) % l->r->nwork;
    l->busy--;
    return l->use(l->ctx, w, err);
}

int line_take(struct line *l, struct segwork **w, struct verr *err)
{
    static const struct verr nothing;
    int rc = l->busy == l->r->nwork ? use_first(l, err) : 0;
    *w = &l->r->work[(l->first + l->busy) % l->r->nwork];
    (*w)->rc = 0;
    (*w)->err = (*w)->note = nothing;
    return rc;
}

void line_go(struct line *l, void (*run)(struct pool_task *task))
{
    struct segwork *w = &l->r->work[(l->first + l->busy) % l->r->nwork];
    w->task.run = run;
    l->busy++;
    if (run != NULL)
        pool_lend(l->r->env->pool, &w->task);
}

int line_end(struct line *l, int rc, struct verr *err)
{
    while (l->busy > 0 && rc == 0)
        rc = use_first(l, err);
    for (; l->busy > 0; l->busy--) {
        struct segwork *w = &l->r->work[l->first];
        if (w->task.run != NULL)
            pool_wait(l->r->env->pool, &w->task);
        l->first = (l->first + 1) % l->r->nwork;
    }
    return rc;
}

int line_alloc_work(struct round *r, unsigned nwork, struct verr *err)
{
    r->work = calloc(nwork, sizeof *r->work);
    r->nwork = r->work != NULL ? nwork : 0;
    for (unsigned i = 0; i < r->nwork; i++) {
        struct segwork *w = &r->work[i];
        w->r = r;
        w->seg = malloc(SEG_BYTES);
        w->s.b = calloc(PLAN_BLOCKS_MAX, sizeof *w->s.b);
        if (w->seg == NULL || w->s.b == NULL)
            return verr_set(err, ENOMEM, "no memory for the segments of a round");
        w->level = level_new(r->conf, r->env->segread, r->env->common, err);
        if (w->level == NULL)
            return err != NULL && err->code != 0 ? -err->code : -ENOMEM;
    }
    if (r->work == NULL)
        return verr_set(err, ENOMEM, "no memory for the segments of a round");
    r->cur = &r->work[0].s;
    return 0;
}

void line_free_work(struct round *r)
{
    for (unsigned i = 0; i < r->nwork; i++) {
        struct segwork *w = &r->work[i];
        level_free(w->level);
        free(w->seg);
        free(w->s.b);
    }
    free(r->work);
}
