/* SPDX-License-Identifier: Apache-2.0 */
/* ingest: the places for streams, and the anchors that a stream has pinned or that are being dropped. */
#include "ingest/ingest_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct ingest {
    struct ingest_env env;
    pthread_mutex_t lock;       /* guards all below */
    struct anchor_drop *drops;
    struct ingest_place place[];
};

int ingest_new(const struct ingest_env *env, struct ingest **out, struct verr *err)
{
    struct ingest *in = calloc(1, sizeof *in + env->streams * sizeof in->place[0]);
    if (in == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    in->env = *env;
    pthread_mutex_init(&in->lock, NULL);
    *out = in;
    return 0;
}

void ingest_free(struct ingest *in)
{
    if (in == NULL)
        return;
    pthread_mutex_destroy(&in->lock);
    free(in);
}

const struct ingest_env *ingest_env(const struct ingest *in)
{
    return &in->env;
}

/* ---- places; the caller holds the lock ---- */

static struct ingest_place *free_place(struct ingest *in)
{
    for (unsigned i = 0; i < in->env.streams; i++)
        if (!in->place[i].taken)
            return &in->place[i];
    return NULL;
}

static bool is_pinned(const struct ingest *in, const struct anchor_drop *d)
{
    for (unsigned i = 0; i < in->env.streams; i++) {
        const struct ingest_place *p = &in->place[i];
        if (p->pinned && p->live == d->live && snapref_eq(&p->parent, &d->snap))
            return true;
    }
    return false;
}

static bool is_dropped(const struct ingest *in, const struct ingest_place *p)
{
    for (const struct anchor_drop *d = in->drops; d != NULL; d = d->next)
        if (p->live == d->live && snapref_eq(&p->parent, &d->snap))
            return true;
    return false;
}

/* ---- streams ---- */

bool ingest_has_room(struct ingest *in)
{
    pthread_mutex_lock(&in->lock);
    bool room = free_place(in) != NULL;
    pthread_mutex_unlock(&in->lock);
    return room;
}

struct ingest_place *ingest_place_take(struct ingest *in, const struct live *l, const struct snapref *parent)
{
    pthread_mutex_lock(&in->lock);
    struct ingest_place *p = free_place(in);
    if (p != NULL)
        *p = (struct ingest_place){.taken = true, .live = l, .parent = *parent};
    pthread_mutex_unlock(&in->lock);
    return p;
}

void ingest_place_give(struct ingest *in, struct ingest_place *p)
{
    pthread_mutex_lock(&in->lock);
    if (p != NULL)
        *p = (struct ingest_place){.taken = false};
    pthread_mutex_unlock(&in->lock);
}

bool ingest_pin(struct ingest *in, struct ingest_place *p)
{
    pthread_mutex_lock(&in->lock);
    if (!p->pinned)
        p->pinned = !is_dropped(in, p);
    bool pinned = p->pinned;
    pthread_mutex_unlock(&in->lock);
    return pinned;
}

/* ---- anchors that are dropped ---- */

bool ingest_drop_begin(struct ingest *in, struct anchor_drop *d, const struct live *l, const struct live_anchor *an)
{
    *d = (struct anchor_drop){.live = l, .snap = an->ref};
    pthread_mutex_lock(&in->lock);
    bool free_to_go = !is_pinned(in, d);
    if (free_to_go) {
        d->next = in->drops;
        in->drops = d;
    }
    pthread_mutex_unlock(&in->lock);
    return free_to_go;
}

void ingest_drop_end(struct ingest *in, struct anchor_drop *d)
{
    pthread_mutex_lock(&in->lock);
    struct anchor_drop **at = &in->drops;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    pthread_mutex_unlock(&in->lock);
}
