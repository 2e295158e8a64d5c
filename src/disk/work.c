/* SPDX-License-Identifier: Apache-2.0 */
/* work: items in a hash table by disk. Due items are found by a walk over all of them: there are few more than disks that owe something. */
#include "disk/work.h"

#include "base/endian.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { BUCKETS = 256 };

struct entry {
    struct entry *next;
    struct work_item item;
    bool taken, again;              /* again: owed since it was taken */
    bool failed, asked, asked_since;        /* asked_since: since it was taken */
    int64_t due_ns, backoff_ns, tried_ns;
    uint32_t since;                 /* arg bits that were owed since it was taken */
    struct verr why;
};

struct work {
    const struct vclock *clock;
    void (*wake)(void *ctx);
    void *ctx;
    pthread_mutex_t lock;           /* guards all below */
    struct entry *bucket[BUCKETS];
};

struct work *work_new(const struct vclock *clock, void (*wake)(void *ctx), void *ctx)
{
    struct work *w = calloc(1, sizeof *w);
    if (w == NULL)
        return NULL;
    w->clock = clock;
    w->wake = wake;
    w->ctx = ctx;
    pthread_mutex_init(&w->lock, NULL);
    return w;
}

void work_free(struct work *w)
{
    if (w == NULL)
        return;
    for (unsigned i = 0; i < BUCKETS; i++) {
        while (w->bucket[i] != NULL) {
            struct entry *e = w->bucket[i];
            w->bucket[i] = e->next;
            free(e);
        }
    }
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void woken(struct work *w)
{
    if (w->wake != NULL)
        w->wake(w->ctx);
}

/* ---- the table; lock held ---- */

static struct entry **bucket_of(struct work *w, const struct vid *disk)
{
    return &w->bucket[get_le32(disk->b) % BUCKETS];
}

static struct entry *find(struct work *w, const struct work_item *item)
{
    struct entry *e = *bucket_of(w, &item->disk);
    while (e != NULL && (e->item.kind != item->kind || e->item.seq != item->seq || !vid_eq(&e->item.disk, &item->disk)))
        e = e->next;
    return e;
}

static struct entry *find_or_add(struct work *w, const struct work_item *item)
{
    struct entry *e = find(w, item);
    if (e != NULL || (e = calloc(1, sizeof *e)) == NULL)
        return e;
    e->item = *item;
    e->next = *bucket_of(w, &item->disk);
    *bucket_of(w, &item->disk) = e;
    return e;
}

static void remove_entry(struct work *w, struct entry *e)
{
    struct entry **p = bucket_of(w, &e->item.disk);
    while (*p != e)
        p = &(*p)->next;
    *p = e->next;
    free(e);
}

/* The next item of that disk at or behind e. */
static struct entry *of_disk(struct entry *e, const struct vid *disk)
{
    while (e != NULL && !vid_eq(&e->item.disk, disk))
        e = e->next;
    return e;
}

static bool disk_taken(struct work *w, const struct vid *disk)
{
    for (struct entry *e = of_disk(*bucket_of(w, disk), disk); e != NULL; e = of_disk(e->next, disk))
        if (e->taken)
            return true;
    return false;
}

static bool unrecovered(struct work *w, const struct vid *disk)
{
    const struct work_item recover = {.disk = *disk, .kind = WORK_RECOVER};
    const struct entry *e = find(w, &recover);
    return e != NULL;
}

/* May this item be taken, if it is due? The walk meets the items of a disk in no order: an item that is due and of an earlier kind is
 * taken first. */
static bool its_turn(struct work *w, const struct entry *e, int64_t now)
{
    const struct vid *disk = &e->item.disk;
    if (e->item.kind != WORK_RECOVER && unrecovered(w, disk))
        return false;
    for (const struct entry *o = of_disk(*bucket_of(w, disk), disk); o != NULL; o = of_disk(o->next, disk))
        if (o->taken || (o->due_ns <= now && o->item.kind < e->item.kind))
            return false;
    return true;
}

static void take(struct entry *e, struct work_item *out)
{
    e->taken = true;
    e->again = e->asked_since = false;
    e->since = 0;
    *out = e->item;
}

/* ---- entering ---- */

int work_owe(struct work *w, const struct work_item *item)
{
    pthread_mutex_lock(&w->lock);
    struct entry *e = find_or_add(w, item);
    if (e != NULL) {
        e->item.arg |= item->arg;
        e->since |= item->arg;
        e->again = e->taken;
    }
    pthread_mutex_unlock(&w->lock);
    if (e == NULL)
        return -ENOMEM;
    woken(w);
    return 0;
}

static void note_failure(struct work *w, struct entry *e, const struct verr *why)
{
    e->failed = true;
    e->asked = false;
    e->item.failures++;
    e->why = *why;
    e->tried_ns = vclock_mono_ns(w->clock);
    e->backoff_ns = e->backoff_ns == 0 ? WORK_BACKOFF_FIRST_NS : e->backoff_ns * 2;
    if (e->backoff_ns > WORK_BACKOFF_MAX_NS)
        e->backoff_ns = WORK_BACKOFF_MAX_NS;
    e->due_ns = e->tried_ns + e->backoff_ns;
}

int work_owe_failed(struct work *w, const struct work_item *item, const struct verr *why)
{
    pthread_mutex_lock(&w->lock);
    struct entry *e = find_or_add(w, item);
    if (e != NULL) {
        e->item.arg |= item->arg;
        e->since |= item->arg;
        e->again = e->taken;
        if (!e->taken && !e->failed)
            note_failure(w, e, why);
    }
    pthread_mutex_unlock(&w->lock);
    if (e == NULL)
        return -ENOMEM;
    woken(w);
    return 0;
}

/* ---- taking ---- */

unsigned work_take(struct work *w, unsigned kinds, struct work_item *out, unsigned max)
{
    unsigned n = 0;
    pthread_mutex_lock(&w->lock);
    int64_t now = vclock_mono_ns(w->clock);
    for (unsigned i = 0; i < BUCKETS && n < max; i++)
        for (struct entry *e = w->bucket[i]; e != NULL && n < max; e = e->next)
            if ((kinds & WORK_BIT(e->item.kind)) != 0 && e->due_ns <= now && its_turn(w, e, now))
                take(e, &out[n++]);
    pthread_mutex_unlock(&w->lock);
    return n;
}

bool work_look(struct work *w, unsigned kinds, struct work_item *out)
{
    bool found = false;
    pthread_mutex_lock(&w->lock);
    int64_t now = vclock_mono_ns(w->clock);
    for (unsigned i = 0; i < BUCKETS && !found; i++) {
        for (struct entry *e = w->bucket[i]; e != NULL && !found; e = e->next) {
            found = (kinds & WORK_BIT(e->item.kind)) != 0 && e->due_ns <= now && its_turn(w, e, now);
            if (found)
                *out = e->item;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

bool work_take_one(struct work *w, const struct vid *disk, enum work_kind kind, struct work_item *out)
{
    pthread_mutex_lock(&w->lock);
    struct entry *e = of_disk(*bucket_of(w, disk), disk);
    while (e != NULL && e->item.kind != kind)
        e = of_disk(e->next, disk);
    bool ok = e != NULL && !disk_taken(w, disk);
    if (ok)
        take(e, out);
    pthread_mutex_unlock(&w->lock);
    return ok;
}

void work_done(struct work *w, const struct work_item *item)
{
    pthread_mutex_lock(&w->lock);
    struct entry *e = find(w, item);
    if (e != NULL && !e->again) {
        remove_entry(w, e);
    } else if (e != NULL) {
        e->taken = e->again = e->failed = e->asked = false;
        e->due_ns = e->backoff_ns = 0;
        e->item.failures = 0;
        e->item.arg = e->since;
    }
    pthread_mutex_unlock(&w->lock);
    woken(w);       /* the disk's next item may be taken now */
}

bool work_failed(struct work *w, const struct work_item *item, const struct verr *why, int64_t *next_ns)
{
    bool final = true;
    pthread_mutex_lock(&w->lock);
    struct entry *e = find(w, item);
    if (e != NULL) {
        note_failure(w, e, why);
        e->taken = e->again = false;
        if (e->asked_since) {
            e->asked = true;
            e->due_ns = 0;
            final = false;
        }
        if (next_ns != NULL)
            *next_ns = e->due_ns;
    }
    pthread_mutex_unlock(&w->lock);
    woken(w);
    return final;
}

void work_return(struct work *w, const struct work_item *item)
{
    pthread_mutex_lock(&w->lock);
    struct entry *e = find(w, item);
    if (e != NULL)
        e->taken = e->again = false;
    pthread_mutex_unlock(&w->lock);
}

/* ---- asking ---- */

void work_ask(struct work *w, const struct vid *disk)
{
    pthread_mutex_lock(&w->lock);
    for (struct entry *e = of_disk(*bucket_of(w, disk), disk); e != NULL; e = of_disk(e->next, disk)) {
        e->asked = e->failed || e->taken;
        e->asked_since = e->taken;  /* if the running attempt fails it is no answer: it began before this request */
        e->due_ns = 0;
    }
    pthread_mutex_unlock(&w->lock);
    woken(w);
}

/* Failed items are due `after` their last attempt, if they are not due earlier. */
static void bring_near(struct work *w, int64_t after)
{
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct entry *e = w->bucket[i]; e != NULL; e = e->next)
            if (e->failed && e->due_ns > e->tried_ns + after)
                e->due_ns = e->tried_ns + after;
    pthread_mutex_unlock(&w->lock);
    woken(w);
}

void work_nudge(struct work *w) { bring_near(w, WORK_BACKOFF_FIRST_NS); }

void work_hurry(struct work *w) { bring_near(w, 0); }

bool work_blocked(struct work *w, const struct vid *disk, struct verr *why, int64_t *next_ns)
{
    const unsigned awaited = WORK_BIT(WORK_RECOVER) | WORK_BIT(WORK_SETTLE) | WORK_BIT(WORK_STORE);
    const struct entry *worst = NULL;
    pthread_mutex_lock(&w->lock);
    for (const struct entry *e = of_disk(*bucket_of(w, disk), disk); e != NULL; e = of_disk(e->next, disk))
        if (e->failed && !e->asked && (awaited & WORK_BIT(e->item.kind)) != 0 && (worst == NULL || e->item.kind < worst->item.kind))
            worst = e;
    if (worst != NULL && why != NULL)
        *why = worst->why;
    if (worst != NULL && next_ns != NULL)
        *next_ns = worst->due_ns;
    pthread_mutex_unlock(&w->lock);
    return worst != NULL;
}

bool work_owes(struct work *w, const struct vid *disk, unsigned kinds)
{
    bool owes = false;
    pthread_mutex_lock(&w->lock);
    for (const struct entry *e = of_disk(*bucket_of(w, disk), disk); e != NULL && !owes; e = of_disk(e->next, disk))
        owes = (kinds & WORK_BIT(e->item.kind)) != 0;
    pthread_mutex_unlock(&w->lock);
    return owes;
}

int64_t work_next(struct work *w, unsigned kinds)
{
    int64_t first = INT64_MAX;
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct entry *e = w->bucket[i]; e != NULL; e = e->next)
            if ((kinds & WORK_BIT(e->item.kind)) != 0 && e->due_ns < first && its_turn(w, e, e->due_ns))
                first = e->due_ns;
    pthread_mutex_unlock(&w->lock);
    return first;
}

unsigned work_count(struct work *w, enum work_kind kind, unsigned *failed)
{
    unsigned n = 0, bad = 0;
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (const struct entry *e = w->bucket[i]; e != NULL; e = e->next) {
            n += e->item.kind == kind;
            bad += e->item.kind == kind && e->failed;
        }
    }
    pthread_mutex_unlock(&w->lock);
    if (failed != NULL)
        *failed = bad;
    return n;
}

bool work_only_waits(enum work_kind kind, const struct verr *why) { return kind == WORK_FORGET && why->code == EBUSY; }

unsigned work_failures(struct work *w, unsigned kinds, struct work_failure *out, unsigned max)
{
    unsigned n = 0;
    pthread_mutex_lock(&w->lock);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (const struct entry *e = w->bucket[i]; e != NULL; e = e->next) {
            if (!e->failed || (kinds & WORK_BIT(e->item.kind)) == 0 || work_only_waits(e->item.kind, &e->why))
                continue;
            if (n < max)
                out[n] = (struct work_failure){.item = e->item, .why = e->why, .tried_ns = e->tried_ns, .due_ns = e->due_ns};
            n++;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return n;
}
