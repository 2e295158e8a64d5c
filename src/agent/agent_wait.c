/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting for snapshots to be stored, without a thread that blocks: the agent's thread looks at all waits when something changed, and so
 * does a removal, since that thread may be storing what was removed; who begins a wait looks at it once. check_lock lets one thread look
 * at a time. The timer's thread ends waits whose deadline has passed, and reads nothing for it.
 */
#include "agent/agent_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The text of a waiter's answer: which disk, why, and when the next attempt comes. */
static int tell_blocked(struct agent *a, const struct vid *disk, const struct verr *why, int64_t next_ns, struct verr *out)
{
    char path[PATH_TEXT], at[32];
    int64_t now = vclock_mono_ns(a->conf.clock);
    agent_disk_path(a, disk, path, sizeof path);
    agent_mono_text(a, next_ns > now ? next_ns : now, at);
    return verr_set(out, EIO, "%s could not be stored: %s; it stays pending, and the next attempt comes at %s", QUOTED(path), verr_str(why), at);
}

static struct vid id_at(struct agent *a, const struct agent_wait *w, unsigned i)
{
    pthread_mutex_lock(&a->lock);
    struct vid id = w->ids[i];
    pthread_mutex_unlock(&a->lock);
    return id;
}

void agent_waits_follow(struct agent *a, const struct vid *from, const struct vid *to)
{
    pthread_mutex_lock(&a->lock);
    for (struct agent_wait *w = a->waits; w != NULL; w = w->next)
        for (unsigned i = 0; i < w->n; i++)
            if (vid_eq(&w->ids[i], from))
                w->ids[i] = *to;
    pthread_mutex_unlock(&a->lock);
}

/* The result of a wait; -EINPROGRESS while a snapshot is neither stored nor failed. A snapshot without a row (dropped, removed) counts as
 * done. Snapshots of a disk whose last attempt failed count as failed: else a wait for them might never end. */
static int waiter_state(struct agent *a, struct agent_wait *w)
{
    int result = 0;
    for (unsigned i = 0; i < w->n; i++) {
        struct snaprow row;
        struct verr why = {0};
        int64_t next_ns;
        const struct vid id = id_at(a, w, i);
        int r = agent_row_get(a, &id, &row, &why);
        if (r == -ENOENT) {
            const struct vid now = id_at(a, w, i);
            if (!vid_eq(&now, &id))     /* merged since: the next pass looks at the snapshot it went into */
                result = -EINPROGRESS;
            continue;
        }
        if (r < 0)
            return verr_set(&w->why, EIO, "%s", verr_str(&why));
        if (row.state == SNAPST_STORED && !(row.info.flags & SNAP_PROVISIONAL))
            continue;
        if (work_blocked(a->work, &row.info.ref.disk, &why, &next_ns))
            return tell_blocked(a, &row.info.ref.disk, &why, next_ns, &w->why);
        result = -EINPROGRESS;
    }
    return result;
}

static void wait_free(struct agent_wait *w)
{
    free(w->ids);
    free(w);
}

/* lock held */
static void take_off(struct agent *a, struct agent_wait *w)
{
    struct agent_wait **p = &a->waits;
    while (*p != w)
        p = &(*p)->next;
    *p = w->next;
}

/* The next wait that this pass has not looked at. The caller reads its rows without the lock: the catalog may take long. */
static struct agent_wait *look_next(struct agent *a, uint64_t pass)
{
    pthread_mutex_lock(&a->lock);
    struct agent_wait *w = a->waits;
    while (w != NULL && w->pass == pass)
        w = w->next;
    if (w != NULL) {
        w->pass = pass;
        w->looking = true;
    }
    pthread_mutex_unlock(&a->lock);
    return w;
}

/* A waiter that begins has what failed tried again at once, and gets the result of that attempt. */
static void ask(struct agent *a, const struct vid *ids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct snaprow row;
        if (agent_row_get(a, &ids[i], &row, NULL) == 0 && (row.state != SNAPST_STORED || (row.info.flags & SNAP_PROVISIONAL)))
            work_ask(a->work, &row.info.ref.disk);
    }
}

/* Answers the wait if it is over. It is `looking`, and the caller has check_lock. */
static void look_at(struct agent *a, struct agent_wait *w)
{
    int result = waiter_state(a, w);
    pthread_mutex_lock(&a->lock);
    w->looking = false;
    bool ended = w->ended, done = !ended && result != -EINPROGRESS;
    if (done)
        take_off(a, w);
    pthread_mutex_unlock(&a->lock);
    if (done)
        w->done(w->ctx, result, &w->why);
    if (done || ended)
        wait_free(w);
}

void agent_waits_check(struct agent *a)
{
    struct agent_wait *w;
    pthread_mutex_lock(&a->check_lock);
    pthread_mutex_lock(&a->lock);
    uint64_t pass = ++a->wait_pass;
    pthread_mutex_unlock(&a->lock);
    while ((w = look_next(a, pass)) != NULL)
        look_at(a, w);
    pthread_mutex_unlock(&a->check_lock);
}

/* ---- deadlines ---- */

/* Takes a wait whose deadline has passed off the list. NULL: there is none; *next: the earliest deadline. lock held. */
static struct agent_wait *take_expired(struct agent *a, int64_t now, int64_t *next)
{
    *next = INT64_MAX;
    for (struct agent_wait *w = a->waits; w != NULL; w = w->next) {
        if (w->deadline_ns <= now) {
            take_off(a, w);
            w->ended = true;
            return w;
        }
        if (w->deadline_ns < *next)
            *next = w->deadline_ns;
    }
    return NULL;
}

/* The timer's thread reads no file and waits for no other thread: deadlines hold also while STORE, STATE or the catalog hang. */
void *agent_timer(void *arg)
{
    struct agent *a = arg;
    pthread_mutex_lock(&a->lock);
    while (!a->stopping) {
        int64_t next;
        struct agent_wait *w = take_expired(a, vclock_mono_ns(a->conf.clock), &next);
        if (w != NULL) {
            bool looked_at = w->looking;    /* then that thread frees it */
            void (*done)(void *, int, const struct verr *) = w->done;
            void *ctx = w->ctx;
            pthread_mutex_unlock(&a->lock);
            done(ctx, -ETIMEDOUT, NULL);
            if (!looked_at)
                wait_free(w);
            pthread_mutex_lock(&a->lock);
        } else if (next == INT64_MAX) {
            pthread_cond_wait(&a->wake, &a->lock);
        } else {
            struct timespec ts = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
            pthread_cond_timedwait(&a->wake, &a->lock, &ts);
        }
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

void agent_waits_end(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    struct agent_wait *w = a->waits;
    a->waits = NULL;
    pthread_mutex_unlock(&a->lock);
    while (w != NULL) {
        struct agent_wait *next = w->next;
        w->done(w->ctx, -EINTR, NULL);
        wait_free(w);
        w = next;
    }
}

int agent_wait_start(struct agent *a, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms, agent_wait_fn done, void *ctx,
                     struct verr *err)
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
    if (begins)
        ask(a, ids, n);
    pthread_mutex_lock(&a->check_lock);
    pthread_mutex_lock(&a->lock);
    w->looking = true;
    w->next = a->waits;
    a->waits = w;
    a->kicked = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
    look_at(a, w);      /* it may be over: its snapshots were removed while the agent's thread stores one of them */
    pthread_mutex_unlock(&a->check_lock);
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

static int list_add(struct pending_list *list, const struct vid *snap, const struct vid *disk)
{
    if (list->n == list->cap) {
        unsigned cap = list->cap == 0 ? QUEUE_STEP : list->cap * 2;
        struct vid *ids = realloc(list->ids, 2 * cap * sizeof *ids);
        if (ids == NULL)
            return list->r = -ENOMEM;
        list->ids = ids;
        list->cap = cap;
    }
    list->ids[2 * list->n] = *snap; /* pairs: snapshot, disk; agent_pending_ids looks at the disks after the walk */
    list->ids[2 * list->n + 1] = *disk;
    list->n++;
    return 0;
}

static int add_pending(void *ctx, const struct snaprow *s)
{
    struct pending_list *list = ctx;
    if (s->state == SNAPST_STORED && !(s->info.flags & SNAP_PROVISIONAL))
        return 0;
    if (list->who->may_read != NULL && !list->who->may_read(list->who->ctx, s))
        return 0;
    return list_add(list, &s->info.ref.snap, &s->info.ref.disk);
}

int agent_pending_ids(struct agent *a, const struct node *below, const struct agent_viewer *who, struct vid **ids, unsigned *n,
                      struct verr *err)
{
    struct pending_list list = {.a = a, .who = who};
    int r = agent_rows_pay(a, err);
    if (r < 0)
        return r;
    r = catalog_snap_each(a->catalog, add_pending, &list, err);
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
