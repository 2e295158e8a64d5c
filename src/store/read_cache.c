/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_cache: decoded frames and footer pages, each in a fixed number of slots; the least recently used slot is reused first. The
 * key holds the version id of the file, so that data of a container are never used for another version of it.
 *
 * A frame slot is EMPTY, LOADING (one thread decodes into it outside the lock; other threads that want the frame wait) or READY.
 * A pinned slot is never reused, so that its bytes are copied out without the lock.
 */
#include "store/read_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum slot_state { SLOT_EMPTY, SLOT_LOADING, SLOT_READY };
enum { NONE = -1 };

struct fslot {
    struct frame_key key;
    struct cframe frame;
    enum slot_state state;
    unsigned pins;
    uint64_t used;
    int next;               /* of the same hash bucket */
    uint8_t *data;          /* FRAME_RAW_MAX bytes */
};

struct fcache {
    pthread_mutex_t lock;   /* guards all members below except the data of pinned slots */
    pthread_cond_t changed; /* signalled when a slot is unpinned or becomes READY */
    uint64_t tick;
    int n;
    unsigned mask;          /* buckets - 1 */
    int *bucket;
    struct fslot *slot;
    uint8_t *data;
};

static bool key_eq(const struct frame_key *a, const struct frame_key *b)
{
    return a->container == b->container && a->off == b->off && vid_eq(&a->version, &b->version);
}

int fcache_new(size_t bytes, struct fcache **out)
{
    size_t n = bytes / FRAME_RAW_MAX;
    if (n < FRAMES_MIN)
        n = FRAMES_MIN;
    if (n > 1 << 20)
        n = 1 << 20;
    unsigned buckets = 1;
    while (buckets < n)
        buckets *= 2;
    struct fcache *fc = calloc(1, sizeof *fc);
    if (fc == NULL)
        return -ENOMEM;
    fc->n = (int)n;
    fc->mask = buckets - 1;
    fc->bucket = malloc(buckets * sizeof *fc->bucket);
    fc->slot = calloc(n, sizeof *fc->slot);
    fc->data = malloc(n * FRAME_RAW_MAX); /* pages that no frame has used take no memory */
    if (fc->bucket == NULL || fc->slot == NULL || fc->data == NULL) {
        free(fc->bucket);
        free(fc->slot);
        free(fc->data);
        free(fc);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < buckets; i++)
        fc->bucket[i] = NONE;
    for (size_t i = 0; i < n; i++)
        fc->slot[i].data = fc->data + i * FRAME_RAW_MAX;
    pthread_mutex_init(&fc->lock, NULL);
    pthread_cond_init(&fc->changed, NULL);
    *out = fc;
    return 0;
}

void fcache_free(struct fcache *fc)
{
    if (fc == NULL)
        return;
    pthread_mutex_destroy(&fc->lock);
    pthread_cond_destroy(&fc->changed);
    free(fc->bucket);
    free(fc->slot);
    free(fc->data);
    free(fc);
}

static int *bucket_of(struct fcache *fc, const struct frame_key *key)
{
    uint64_t h = (key->container * UINT64_C(0x9e3779b97f4a7c15) ^ key->off) * UINT64_C(0xff51afd7ed558ccd);
    return &fc->bucket[(h >> 32) & fc->mask];
}

static struct fslot *find(struct fcache *fc, const struct frame_key *key)
{
    for (int i = *bucket_of(fc, key); i != NONE; i = fc->slot[i].next)
        if (key_eq(&fc->slot[i].key, key))
            return &fc->slot[i];
    return NULL;
}

static void unhash(struct fcache *fc, struct fslot *s)
{
    int self = (int)(s - fc->slot);
    int *link = bucket_of(fc, &s->key);
    while (*link != self)
        link = &fc->slot[*link].next;
    *link = s->next;
    s->state = SLOT_EMPTY;
}

/* Finds an unpinned slot: an empty one, or else the least recently used; NULL: all are pinned. A walk over all slots is cheap beside the
 * decode that follows. */
static struct fslot *victim(struct fcache *fc)
{
    struct fslot *best = NULL;
    for (int i = 0; i < fc->n; i++) {
        struct fslot *s = &fc->slot[i];
        if (s->pins > 0)
            continue;
        if (s->state == SLOT_EMPTY)
            return s;
        if (best == NULL || s->used < best->used)
            best = s;
    }
    return best;
}

static struct fslot *take_slot(struct fcache *fc, const struct frame_key *key)
{
    struct fslot *s = victim(fc);
    if (s == NULL)
        return NULL;
    if (s->state != SLOT_EMPTY)
        unhash(fc, s);
    int *bucket = bucket_of(fc, key);
    s->key = *key;
    s->state = SLOT_LOADING;
    s->next = *bucket;
    *bucket = (int)(s - fc->slot);
    return s;
}

struct fslot *fcache_get(struct fcache *fc, const struct frame_key *key, bool *load)
{
    pthread_mutex_lock(&fc->lock);
    struct fslot *s;
    for (;;) {
        s = find(fc, key);
        *load = s == NULL;
        if (s == NULL)
            s = take_slot(fc, key);
        else if (s->state == SLOT_LOADING)
            s = NULL;
        if (s != NULL)
            break;
        /* A thread that waits here has no slot pinned, so a slot becomes free. */
        pthread_cond_wait(&fc->changed, &fc->lock);
    }
    s->pins++;
    s->used = ++fc->tick;
    pthread_mutex_unlock(&fc->lock);
    return s;
}

bool fcache_has(struct fcache *fc, const struct frame_key *key)
{
    pthread_mutex_lock(&fc->lock);
    bool has = find(fc, key) != NULL;
    pthread_mutex_unlock(&fc->lock);
    return has;
}

void fcache_loaded(struct fcache *fc, struct fslot *s, bool good)
{
    pthread_mutex_lock(&fc->lock);
    if (good) {
        s->state = SLOT_READY;
    } else {
        unhash(fc, s);
        s->pins--;
    }
    pthread_cond_broadcast(&fc->changed);
    pthread_mutex_unlock(&fc->lock);
}

void fcache_put(struct fcache *fc, struct fslot *s)
{
    pthread_mutex_lock(&fc->lock);
    if (--s->pins == 0)
        pthread_cond_broadcast(&fc->changed);
    pthread_mutex_unlock(&fc->lock);
}

uint8_t *fslot_data(struct fslot *s) { return s->data; }

struct cframe *fslot_frame(struct fslot *s) { return &s->frame; }

/* ---- footer pages ---- */

struct pcache {
    pthread_mutex_t lock;
    uint64_t tick;
    struct page {
        struct frame_key key;
        uint64_t used;      /* 0: empty */
        uint32_t n;
        struct footer_entry entry[FOOTER_PAGE_ENTRIES];
    } page[FOOTER_PAGES_KEPT];
};

struct pcache *pcache_new(void)
{
    struct pcache *pc = calloc(1, sizeof *pc);
    if (pc != NULL)
        pthread_mutex_init(&pc->lock, NULL);
    return pc;
}

void pcache_free(struct pcache *pc)
{
    if (pc == NULL)
        return;
    pthread_mutex_destroy(&pc->lock);
    free(pc);
}

bool pcache_find(struct pcache *pc, const struct frame_key *key, uint32_t from, uint32_t n, struct footer_entry *out)
{
    bool found = false;
    pthread_mutex_lock(&pc->lock);
    for (int i = 0; !found && i < FOOTER_PAGES_KEPT; i++) {
        struct page *p = &pc->page[i];
        if (p->used == 0 || !key_eq(&p->key, key) || from + n > p->n)
            continue;
        memcpy(out, p->entry + from, n * sizeof *out);
        p->used = ++pc->tick;
        found = true;
    }
    pthread_mutex_unlock(&pc->lock);
    return found;
}

void pcache_forget(struct pcache *pc, uint64_t container)
{
    pthread_mutex_lock(&pc->lock);
    for (int i = 0; i < FOOTER_PAGES_KEPT; i++)
        if (pc->page[i].key.container == container)
            pc->page[i].used = 0;
    pthread_mutex_unlock(&pc->lock);
}

void pcache_add(struct pcache *pc, const struct frame_key *key, const struct footer_entry *entries, uint32_t n)
{
    pthread_mutex_lock(&pc->lock);
    struct page *oldest = &pc->page[0];
    for (int i = 0; i < FOOTER_PAGES_KEPT; i++) {
        struct page *p = &pc->page[i];
        if (p->used != 0 && key_eq(&p->key, key)) { /* another thread has added the page meanwhile */
            oldest = p;
            break;
        }
        if (p->used < oldest->used)
            oldest = p;
    }
    oldest->key = *key;
    oldest->n = n;
    oldest->used = ++pc->tick;
    memcpy(oldest->entry, entries, n * sizeof *entries);
    pthread_mutex_unlock(&pc->lock);
}
