/* SPDX-License-Identifier: Apache-2.0 */
/* turn: one list of operations in order of arrival. An operation runs when no operation before it names one of its ids. */
#include "base/turn.h"

#include <pthread.h>
#include <stdlib.h>

struct turns {
    pthread_mutex_t lock;       /* guards the list; innermost, never held while an operation runs */
    pthread_cond_t given;
    struct turn *first, **last;
};

struct turns *turns_new(void)
{
    struct turns *ts = calloc(1, sizeof *ts);
    if (ts == NULL)
        return NULL;
    pthread_mutex_init(&ts->lock, NULL);
    pthread_cond_init(&ts->given, NULL);
    ts->last = &ts->first;
    return ts;
}

void turns_free(struct turns *ts)
{
    if (ts == NULL)
        return;
    pthread_cond_destroy(&ts->given);
    pthread_mutex_destroy(&ts->lock);
    free(ts);
}

static bool share_an_id(const struct turn *a, const struct turn *b)
{
    if (a->all || b->all)
        return true;
    for (unsigned i = 0; i < a->n; i++)
        for (unsigned k = 0; k < b->n; k++)
            if (vid_eq(&a->ids[i], &b->ids[k]))
                return true;
    return false;
}

static bool has_to_wait(const struct turns *ts, const struct turn *t)
{
    for (const struct turn *before = ts->first; before != t; before = before->next)
        if (share_an_id(before, t))
            return true;
    return false;
}

static void take(struct turns *ts, struct turn *t)
{
    pthread_mutex_lock(&ts->lock);
    *ts->last = t;
    ts->last = &t->next;
    while (has_to_wait(ts, t))
        pthread_cond_wait(&ts->given, &ts->lock);
    pthread_mutex_unlock(&ts->lock);
}

void turn_take(struct turns *ts, struct turn *t, const struct vid *ids, unsigned n)
{
    *t = (struct turn){.ids = ids, .n = n};
    take(ts, t);
}

void turn_take_all(struct turns *ts, struct turn *t)
{
    *t = (struct turn){.all = true};
    take(ts, t);
}

void turn_give(struct turns *ts, struct turn *t)
{
    pthread_mutex_lock(&ts->lock);
    struct turn **p = &ts->first;
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    if (ts->last == &t->next)
        ts->last = p;
    pthread_cond_broadcast(&ts->given);
    pthread_mutex_unlock(&ts->lock);
}
