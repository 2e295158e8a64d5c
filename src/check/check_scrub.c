/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify, passes 2 and 3: containers, then the segment recipes that snapshots use.
 *
 * A bad frame is one problem, with all its blocks. References that cannot be looked up (the container is missing, its footer is
 * damaged, or it has no such block) are one problem for each container.
 */
#include "base/endian.h"
#include "base/verr.h"
#include "check/check_internal.h"
#include "chunk/fingerprint.h"
#include "snapshot/segread.h"
#include "store/container.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 256 };

static int out_of_memory(struct verr *err)
{
    return verr_set(err, ENOMEM, "verify: out of memory");
}

static void container_file(uint64_t number, char out[64])
{
    char path[32];
    container_path(number, path);
    snprintf(out, 64, "containers/%s", path);
}

/* The problem of a container in which references cannot be looked up; the first call for the container makes it. Or -ENOMEM. */
static int broken_container(struct checker *k, uint64_t number, const char *what)
{
    for (size_t i = 0; i < k->nbroken; i++)
        if (k->broken[i].number == number)
            return k->broken[i].problem;
    if (k->nbroken == k->broken_cap) {
        size_t cap = k->broken_cap == 0 ? 16 : k->broken_cap * 2;
        struct badcontainer *more = reallocarray(k->broken, cap, sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        k->broken = more;
        k->broken_cap = cap;
    }
    char file[64];
    container_file(number, file);
    int p = check_add(k, CHECK_DAMAGE, file, "%s", what);
    if (p >= 0)
        k->broken[k->nbroken++] = (struct badcontainer){ .number = number, .problem = p };
    return p;
}

/* ---- pass 2: containers ---- */

struct scrub {
    struct checker *k;
    uint64_t number;
    char file[64];
    uint32_t bad_frame;     /* offset of the frame that `problem` is about; 0: none yet */
    int problem;
    struct footer_entry e[BATCH];
    struct fp fps[BATCH];
    struct fp_job jobs[BATCH];
};

static int bad_block(struct scrub *s, uint32_t ordinal, const struct footer_entry *e, const char *what, struct verr *err)
{
    if (s->bad_frame != e->frame_off) {
        s->problem = check_add(s->k, CHECK_DAMAGE, s->file, "frame at %" PRIu32 ", from block %" PRIu32 " on: %s", e->frame_off, ordinal,
                               what);
        s->bad_frame = e->frame_off;
    }
    uint64_t ref = ref_make(s->number, ordinal);
    if (s->problem < 0 || badlist_add(&s->k->blocks, ref, ref, s->problem) < 0)
        return out_of_memory(err);
    return 0;
}

/* Reads n live, consecutive blocks from ordinal on. *whole: all of them could be read. */
static int scrub_read(struct scrub *s, uint32_t ordinal, const struct footer_entry *e, uint32_t n, bool *whole, struct verr *err)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        s->jobs[i] = (struct fp_job){ .data = s->k->buf + bytes, .len = e[i].len, .out = &s->fps[i] };
        bytes += e[i].len;
    }
    struct verr why = {0};
    int r = creader_read(s->k->reader, ref_make(s->number, ordinal), n, 0, s->k->buf, bytes, &why);
    *whole = r == 0;
    if (r < 0 && !check_is_damage(r))
        return verr_set(err, -r, "%s", verr_str(&why));
    if (r < 0)
        return n == 1 ? bad_block(s, ordinal, e, verr_str(&why), err) : 0;
    s->k->rep->bytes_read += bytes;
    r = fper_batch(s->k->fper, s->jobs, n, err);
    for (uint32_t i = 0; r == 0 && i < n; i++)
        if (!fp_eq(&s->fps[i], &e[i].fp))
            r = bad_block(s, ordinal + i, &e[i], "a block does not have the fingerprint that the footer says", err);
    return r;
}

static int scrub_run(struct scrub *s, uint32_t ordinal, const struct footer_entry *e, uint32_t n, struct verr *err)
{
    bool whole;
    int r = scrub_read(s, ordinal, e, n, &whole, err);
    for (uint32_t i = 0; r == 0 && !whole && n > 1 && i < n; i++) {
        bool one;
        r = scrub_read(s, ordinal + i, &e[i], 1, &one, err);
    }
    return r;
}

/* Reads a batch of blocks in pieces: dead ordinals and the size of the buffer end a piece. */
static int scrub_batch(struct scrub *s, uint32_t ordinal, uint32_t n, struct verr *err)
{
    uint32_t i = 0;
    int r = 0;
    while (r == 0 && i < n) {
        uint32_t first = i;
        size_t bytes = 0;
        while (i < n && s->e[i].len != 0 && bytes + s->e[i].len <= SEG_BYTES)
            bytes += s->e[i++].len;
        if (i > first)
            r = scrub_run(s, ordinal + first, &s->e[first], i - first, err);
        else
            i++;
    }
    return r;
}

static int scrub_data(struct checker *k, uint64_t number, uint64_t entries, struct verr *err)
{
    struct scrub *s = calloc(1, sizeof *s);
    if (s == NULL)
        return out_of_memory(err);
    s->k = k;
    s->number = number;
    container_file(number, s->file);
    int r = 0;
    for (uint64_t ordinal = 0; r == 0 && ordinal < entries; ordinal += BATCH) {
        uint32_t n = entries - ordinal < BATCH ? (uint32_t)(entries - ordinal) : BATCH;
        struct verr why = {0};
        r = creader_entries(k->reader, ref_make(number, (uint32_t)ordinal), n, s->e, &why);
        if (r == 0)
            r = scrub_batch(s, (uint32_t)ordinal, n, err);
        else if (!check_is_damage(r))
            r = verr_set(err, -r, "%s", verr_str(&why));
        else
            r = broken_container(k, number, verr_str(&why)) < 0 ? out_of_memory(err) : 0;
    }
    free(s);
    return r;
}

struct entry_walk { struct checker *k; bool indexed; };

/* container_walk reads footers only if it gets a function; this one counts. The entries are checked later. */
static int count_entry(void *ctx, uint64_t ref, const struct footer_entry *e)
{
    struct entry_walk *w = ctx;
    w->k->rep->blocks += e->len != 0;
    if (w->indexed && e->len != 0)
        check_known_add(w->k, &e->fp, ref);
    return 0;
}

static int scrub_container(struct checker *k, uint64_t number, struct verr *err)
{
    struct container_info info = {0};
    struct entry_walk w = { .k = k };
    struct verr why = {0};
    if (k->known != NULL) {     /* the kind of container must be known before its entries come; the next walk meets any error again */
        container_walk(k->reader, number, &info, NULL, NULL, NULL);
        w.indexed = check_indexed(&info);
    }
    int r = container_walk(k->reader, number, &info, count_entry, &w, &why);
    if (r < 0 && !check_is_damage(r))
        return verr_set(err, -r, "%s", verr_str(&why));
    k->rep->containers++;
    k->rep->sections += info.sections;
    k->rep->torn_tails += info.torn_tail;
    if (r < 0 && broken_container(k, number, verr_str(&why)) < 0)
        return out_of_memory(err);
    return k->o->read_data ? scrub_data(k, number, info.entries, err) : 0;  /* also reads intact sections behind the damage */
}

struct numbers { uint64_t *v; size_t n, cap; };

static int collect_number(void *ctx, uint64_t number)
{
    struct numbers *l = ctx;
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 256 : l->cap * 2;
        uint64_t *more = reallocarray(l->v, cap, sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = number;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static int tell_stray(void *ctx, const char *path)
{
    return check_add(ctx, CHECK_NOTICE, path, "not a container: move it away") < 0 ? -ENOMEM : 0;
}

static int scrub_all(struct checker *k, struct verr *err)
{
    struct numbers l = {0};
    int r = container_each(k->st, collect_number, &l, err);
    if (r == 0)
        r = container_strays(k->st, tell_stray, k, err);
    if (r == -ENOMEM)
        verr_set(err, ENOMEM, "verify: out of memory");
    if (l.n > 1)
        qsort(l.v, l.n, sizeof *l.v, by_number);
    for (size_t i = 0; r == 0 && i < l.n; i++) {
        r = scrub_container(k, l.v[i], err);
        if (r == 0)
            r = check_progress(k, "containers", i + 1, l.n, err);
    }
    free(l.v);
    badlist_sort(&k->blocks);
    return r;
}

/* ---- pass 3: segment recipes in use ---- */

struct recipe_check {
    struct checker *k;
    uint64_t place;
    bool bad;
    struct footer_entry e[SEGRCP_BLOCKS_MAX];
};

static int bad_place(struct recipe_check *c, int problem, struct verr *err)
{
    c->bad = true;
    if (problem < 0 || badlist_add(&c->k->recipes, c->place, c->place, problem) < 0)
        return out_of_memory(err);
    return 0;
}

static int bad_recipe(struct recipe_check *c, const char *what, struct verr *err)
{
    char file[64];
    container_file(ref_container(c->place), file);
    return bad_place(c, check_add(c->k, CHECK_DAMAGE, file, "segment recipe %" PRIu32 ": %s", ref_ordinal(c->place), what), err);
}

/* Adds problems that pass 2 found in this range of places or blocks. */
static int known_bad(struct recipe_check *c, uint64_t first, uint64_t last, struct verr *err)
{
    size_t at = 0;
    const struct bad *bad;
    int r = 0;
    while (r == 0 && (bad = badlist_next(&c->k->blocks, first, last, &at)) != NULL)
        r = bad_place(c, bad->problem, err);
    return r;
}

/* Reports a look-up that failed, once for each container. */
static int not_found(struct recipe_check *c, uint64_t ref, int r, const struct verr *why, struct verr *err)
{
    if (!check_is_damage(r))
        return verr_set(err, -r, "%s", verr_str(why));
    return bad_place(c, broken_container(c->k, ref_container(ref), verr_str(why)), err);
}

static int check_run(struct recipe_check *c, const struct segrcp *rcp, const struct segrcp_run *run, uint32_t block, struct verr *err)
{
    struct verr why = {0};
    int r = creader_entries(c->k->reader, run->ref, run->count, c->e, &why);
    if (r < 0)
        return not_found(c, run->ref, r, &why, err);
    for (uint32_t i = 0; i < run->count; i++) {
        const struct footer_entry *e = &c->e[i];
        if (e->len == 0)
            return bad_place(c, broken_container(c->k, ref_container(run->ref), "blocks that snapshots use have been collected"), err);
        if (e->len != (uint32_t)rcp->len1[block + i] + 1 || get_le32(e->fp.b) != rcp->prefix[block + i])
            return bad_recipe(c, "a block has another length or fingerprint than the footer of its container says", err);
    }
    return known_bad(c, run->ref, run->ref + run->count - 1, err);
}

static int check_blocks(struct recipe_check *c, const struct segrcp *rcp, struct verr *err)
{
    uint32_t block = 0;
    int r = 0;
    for (uint32_t i = 0; r == 0 && !c->bad && i < rcp->nruns; i++) {
        if (rcp->runs[i].ref == REF_ZERO)
            continue;
        r = check_run(c, rcp, &rcp->runs[i], block, err);
        block += rcp->runs[i].count;
    }
    return r;
}

static int check_digest(struct recipe_check *c, const struct segrcp *rcp, struct verr *err)
{
    struct verr why = {0};
    uint8_t digest[DIGEST_BYTES];
    int r = segread_read(c->k->segread, c->place, 0, c->k->buf, rcp->bytes, &why);
    if (r < 0 && check_is_damage(r))
        return bad_recipe(c, verr_str(&why), err);
    if (r < 0)
        return verr_set(err, -r, "%s", verr_str(&why));
    r = fper_segment(c->k->fper, c->k->buf, rcp->bytes, digest, err);
    if (r == 0 && memcmp(digest, rcp->digest, DIGEST_BYTES) != 0)
        r = bad_recipe(c, "its segment does not have the digest that it says", err);
    return r;
}

static int check_recipe(struct recipe_check *c, uint64_t place, struct verr *err)
{
    c->place = place;
    c->bad = false;
    c->k->rep->recipes++;
    int r = known_bad(c, place, place, err);
    if (r < 0 || c->bad)
        return r;
    struct verr why = {0};
    struct footer_entry e;
    r = creader_entries(c->k->reader, place, 1, &e, &why);
    if (r < 0)
        return not_found(c, place, r, &why, err);
    struct segrcp rcp;
    r = segread_recipe(c->k->segread, place, &rcp, &why);
    if (r < 0 && check_is_damage(r))
        return bad_recipe(c, verr_str(&why), err);
    if (r < 0)
        return verr_set(err, -r, "%s", verr_str(&why));
    r = check_blocks(c, &rcp, err);
    if (r == 0 && !c->bad && c->k->o->read_data)
        r = check_digest(c, &rcp, err);
    segrcp_release(&rcp);
    return r;
}

static int check_places(struct recipe_check *c, const struct placeset_item *item, uint64_t *done, uint64_t total, struct verr *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < item->nbits; i++) {
        if ((item->bits[i / 64] >> i % 64 & 1) == 0)
            continue;
        r = check_recipe(c, ref_make(item->container, i), err);
        if (r == 0 && (++*done % BATCH == 0 || *done == total))
            r = check_progress(c->k, "recipes", *done, total, err);
    }
    return r;
}

static int by_container(const void *a, const void *b)
{
    const struct placeset_item *x = *(const struct placeset_item *const *)a, *y = *(const struct placeset_item *const *)b;
    return (x->container > y->container) - (x->container < y->container);
}

/* Checks recipes in order of containers, so that neighbours are read together. */
static int check_recipes(struct checker *k, struct verr *err)
{
    struct recipe_check *c = malloc(sizeof *c);
    struct placeset_item **items = calloc(k->places.n + 1, sizeof *items);
    int r = 0;
    if (c == NULL || items == NULL) {
        r = out_of_memory(err);
        goto out;
    }
    c->k = k;
    size_t n = 0;
    uint64_t total = 0, done = 0;
    for (size_t i = 0; i < k->places.cap; i++) {
        if (k->places.items[i].used) {
            items[n++] = &k->places.items[i];
            total += placeset_count(&k->places.items[i]);
        }
    }
    qsort(items, n, sizeof(struct placeset_item *), by_container);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = check_places(c, items[i], &done, total, err);
out:
    free(items);
    free(c);
    return r;
}

int check_containers(struct checker *k, struct verr *err)
{
    int r = scrub_all(k, err);
    return r < 0 ? r : check_recipes(k, err);
}
