/* SPDX-License-Identifier: Apache-2.0 */
/* cuts: what a stream has computed already (cuts.h). A list: a few hundred entries, each looked for once. */
#include "dedup/dedup_internal.h"

#include "dedup/cuts.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct cut {
    uint32_t len;
    bool zero;
    struct fp fp;
};

struct entry {
    struct entry *next;
    struct vid disk;
    uint8_t digest[DIGEST_BYTES];
    uint32_t bytes, data_pages, n;
    struct cut cut[];
};

struct cuts {
    pthread_mutex_t lock;
    struct entry *first, **last;
    size_t used, max;
};

struct cuts *cuts_new(size_t max_bytes)
{
    struct cuts *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    if (pthread_mutex_init(&c->lock, NULL) != 0) {
        free(c);
        return NULL;
    }
    c->last = &c->first;
    c->max = max_bytes;
    return c;
}

static size_t entry_bytes(uint32_t n)
{
    return sizeof(struct entry) + n * sizeof(struct cut);
}

/* Takes the entry that *at points to off the list. */
static struct entry *unlink_entry(struct cuts *c, struct entry **at)
{
    struct entry *e = *at;
    *at = e->next;
    if (c->last == &e->next)
        c->last = at;
    c->used -= entry_bytes(e->n);
    return e;
}

void cuts_free(struct cuts *c)
{
    if (c == NULL)
        return;
    while (c->first != NULL)
        free(unlink_entry(c, &c->first));
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static bool has_room(struct cuts *c, size_t bytes)
{
    pthread_mutex_lock(&c->lock);
    bool yes = c->max - c->used >= bytes;
    pthread_mutex_unlock(&c->lock);
    return yes;
}

void cuts_put(struct cuts *c, const struct vid *disk, const struct plan_seg *s)
{
    size_t size = entry_bytes(s->nblocks);
    struct entry *e = has_room(c, size) ? malloc(size) : NULL;
    if (e == NULL)
        return;
    *e = (struct entry){.disk = *disk, .bytes = s->bytes, .data_pages = s->data_pages, .n = s->nblocks};
    memcpy(e->digest, s->digest, DIGEST_BYTES);
    for (uint32_t i = 0; i < s->nblocks; i++) {
        const struct plan_block *b = &s->b[i];
        e->cut[i] = (struct cut){.len = b->len, .zero = b->kind == BLK_ZERO, .fp = b->fp};
    }
    pthread_mutex_lock(&c->lock);
    bool room = c->max - c->used >= size;   /* another may have come first */
    if (room) {
        *c->last = e;
        c->last = &e->next;
        c->used += size;
    }
    pthread_mutex_unlock(&c->lock);
    if (!room)
        free(e);
}

static void fill_plan(const struct entry *e, struct plan_seg *s)
{
    s->kind = PLAN_BLOCKS;
    s->nblocks = e->n;
    s->data_pages = e->data_pages;
    for (uint32_t i = 0; i < e->n; i++)
        s->b[i] = (struct plan_block){.len = e->cut[i].len, .kind = e->cut[i].zero ? BLK_ZERO : BLK_NEW,
                                      .ref = e->cut[i].zero ? REF_ZERO : REF_NONE, .fp = e->cut[i].fp};
}

bool cuts_take(struct cuts *c, const struct vid *disk, struct plan_seg *s)
{
    struct entry *found = NULL;
    pthread_mutex_lock(&c->lock);
    for (struct entry **at = &c->first; *at != NULL && found == NULL; at = &(*at)->next) {
        if ((*at)->bytes == s->bytes && memcmp((*at)->digest, s->digest, DIGEST_BYTES) == 0 && vid_eq(&(*at)->disk, disk)) {
            found = unlink_entry(c, at);
            break;
        }
    }
    pthread_mutex_unlock(&c->lock);
    if (found != NULL)
        fill_plan(found, s);
    free(found);
    return found != NULL;
}

void cuts_forget(struct cuts *c, const struct vid *disk)
{
    pthread_mutex_lock(&c->lock);
    for (struct entry **at = &c->first; *at != NULL;) {
        if (vid_eq(&(*at)->disk, disk))
            free(unlink_entry(c, at));
        else
            at = &(*at)->next;
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- cutting outside a round ---- */

struct cutter {
    const struct chunker *chunker;
    struct fper *fper;
    struct fp_job *jobs;
    struct plan_seg s;
};

struct cutter *cutter_new(const struct chunker *chunker, struct fper *fper)
{
    struct cutter *k = calloc(1, sizeof *k);
    if (k == NULL)
        return NULL;
    k->chunker = chunker;
    k->fper = fper;
    k->jobs = calloc(PLAN_BLOCKS_MAX, sizeof *k->jobs);
    k->s.b = calloc(PLAN_BLOCKS_MAX, sizeof *k->s.b);
    if (k->jobs != NULL && k->s.b != NULL)
        return k;
    cutter_free(k);
    return NULL;
}

void cutter_free(struct cutter *k)
{
    if (k == NULL)
        return;
    free(k->jobs);
    free(k->s.b);
    free(k);
}

void cutter_run(struct cutter *k, struct cuts *c, const struct vid *disk, const uint8_t *data, uint32_t bytes,
                const uint8_t digest[DIGEST_BYTES])
{
    /* A guess at what it takes: no work for what is not kept. */
    if (!has_room(c, entry_bytes(bytes / k->chunker->avg)) || seg_is_zero(data, bytes))
        return;
    k->s.bytes = bytes;
    memcpy(k->s.digest, digest, DIGEST_BYTES);
    if (seg_cut_bytes(k->chunker, k->fper, data, k->jobs, &k->s, NULL) == 0)
        cuts_put(c, disk, &k->s);
}
