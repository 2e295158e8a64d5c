/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for snapshots to be stored, without a thread that blocks: waiters are looked at when something changed. */
#include "agent/agent_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* lock held. An older snapshot of the disk has failed: snapshots are stored in their order, so waiting would be in vain. */
static bool disk_stuck(const struct agent *a, const struct vid *disk)
{
    for (unsigned i = 0; i < a->queued; i++)
        if (vid_eq(&a->queue[i].disk, disk))
            return a->queue[i].failed;
    return false;
}

/* lock held. -EINPROGRESS while one is neither stored nor failed. A row that is gone (dropped, removed) counts as done. */
static int waiter_state(struct agent *a, const struct agent_wait *w)
{
    int result = 0;
    for (unsigned i = 0; i < w->n; i++) {
        struct snaprow row;
        int r = agent_row_get_locked(a, &w->ids[i], &row, NULL);
        if (r == -ENOENT)
            continue;
        if (r < 0 || row.state == SNAPST_FAILED)
            return -EIO;
        if (row.state == SNAPST_PENDING && disk_stuck(a, &row.disk))
            return -EIO;
        if (row.state == SNAPST_PENDING || (row.flags & SNAP_PROVISIONAL))
            result = -EINPROGRESS;
    }
    if (result == -EINPROGRESS && vclock_mono_ns(a->conf.clock) >= w->deadline_ns)
        return -ETIMEDOUT;
    return result;
}

static void wait_free(struct agent_wait *w)
{
    free(w->ids);
    free(w);
}

/* Takes the first waiter that is done off the list, or NULL. Rows are read without the lock: only this thread ends waits,
 * and a cancelled one is found again by its address before it is touched. */
static struct agent_wait *next_done(struct agent *a, int *result)
{
    pthread_mutex_lock(&a->lock);
    for (struct agent_wait **p = &a->waits; *p != NULL; p = &(*p)->next) {
        struct agent_wait *w = *p;
        *result = waiter_state(a, w);
        if (*result == -EINPROGRESS)
            continue;
        *p = w->next;
        pthread_mutex_unlock(&a->lock);
        return w;
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

void agent_waits_check(struct agent *a)
{
    struct agent_wait *w;
    int result;
    while ((w = next_done(a, &result)) != NULL) {
        w->done(w->ctx, result);
        wait_free(w);
    }
}

int64_t agent_waits_deadline(struct agent *a)
{
    int64_t first = INT64_MAX;
    for (const struct agent_wait *w = a->waits; w != NULL; w = w->next)
        if (w->deadline_ns < first)
            first = w->deadline_ns;
    return first;
}

void agent_waits_end(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    struct agent_wait *w = a->waits;
    a->waits = NULL;
    pthread_mutex_unlock(&a->lock);
    while (w != NULL) {
        struct agent_wait *next = w->next;
        w->done(w->ctx, -EINTR);
        wait_free(w);
        w = next;
    }
}

/* Who waits for what has failed asks for another attempt, at once, and is told what that one comes to. */
static void try_again(struct agent *a, const struct vid *ids, unsigned n)
{
    pthread_mutex_lock(&a->op_lock);
    for (unsigned i = 0; i < n; i++) {
        struct snaprow row;
        if (agent_row_get(a, &ids[i], &row, NULL) < 0 || row.state == SNAPST_STORED)
            continue;
        if (row.state == SNAPST_FAILED) {
            row.state = SNAPST_PENDING;
            agent_row_put(a, &row, NULL);
        }
        agent_queue_retry(a, &row.disk);
    }
    pthread_mutex_unlock(&a->op_lock);
}

int agent_wait_start(struct agent *a, const struct vid *ids, unsigned n, int64_t timeout_ms, void (*done)(void *ctx, int result), void *ctx,
                     struct agent_wait **out, struct verr *err)
{
    struct agent_wait *w = calloc(1, sizeof *w);
    struct vid *copy = calloc(n == 0 ? 1 : n, sizeof *copy);
    if (w == NULL || copy == NULL) {
        free(w);
        free(copy);
        return verr_set(err, ENOMEM, "out of memory");
    }
    if (n > 0)
        memcpy(copy, ids, n * sizeof *copy);
    *w = (struct agent_wait){.ids = copy, .n = n, .done = done, .ctx = ctx,
                             .deadline_ns = timeout_ms < 0 ? INT64_MAX : vclock_mono_ns(a->conf.clock) + timeout_ms * 1000000};
    *out = w;
    try_again(a, copy, n);
    pthread_mutex_lock(&a->lock);
    w->next = a->waits;
    a->waits = w;
    a->kicked = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
    return 0;
}

struct pending_list {
    struct agent *a;
    const struct agent_viewer *who;
    struct vid *ids;
    unsigned n, cap;
    int r;
};

static bool is_below(struct agent *a, const struct vid *disk, const struct node *top)
{
    struct node n;
    struct vid id = *disk;
    for (int depth = 0; depth < 4096; depth++) {
        if (vid_eq(&id, &top->id))
            return true;
        if (catalog_node_by_id(a->catalog, &id, &n, NULL) < 0 || vid_is_zero(&n.parent))
            return false;
        id = n.parent;
    }
    return false;
}

static int add_pending(void *ctx, const struct snaprow *s)
{
    struct pending_list *list = ctx;
    if (s->state == SNAPST_STORED && !(s->flags & SNAP_PROVISIONAL))
        return 0;
    if (list->who->may_read != NULL && !list->who->may_read(list->who->ctx, s))
        return 0;
    if (list->n == list->cap) {
        unsigned cap = list->cap == 0 ? QUEUE_STEP : list->cap * 2;
        struct vid *ids = realloc(list->ids, 2 * cap * sizeof *ids);
        if (ids == NULL)
            return list->r = -ENOMEM;
        list->ids = ids;
        list->cap = cap;
    }
    list->ids[2 * list->n] = s->id; /* pairs: snapshot, disk; the disks are looked at once the walk is over */
    list->ids[2 * list->n + 1] = s->disk;
    list->n++;
    return 0;
}

int agent_pending_ids(struct agent *a, const struct node *below, const struct agent_viewer *who, struct vid **ids, unsigned *n,
                      struct verr *err)
{
    struct pending_list list = {.a = a, .who = who};
    if (!agent_rows_pay(a))
        return verr_set(err, EIO, "%s/catalog.sqlite does not take what has changed: look at the log, and make room there", a->state_path);
    int r = catalog_snap_each(a->catalog, add_pending, &list, err);
    if (r < 0) {
        free(list.ids);
        return r;
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < list.n; i++)
        if (below == NULL || is_below(a, &list.ids[2 * i + 1], below))
            list.ids[kept++] = list.ids[2 * i];
    *ids = list.ids;
    *n = kept;
    return 0;
}
