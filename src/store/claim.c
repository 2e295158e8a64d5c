/* SPDX-License-Identifier: Apache-2.0 */
/*
 * claim: numbers of containers and the files they name.
 *
 * number = claim << 16 | n, file containers/CCCCCC/NNNN.vc. A mount takes a claim by making its directory; another mount gets EEXIST and
 * tries the next. Only this mount gives out the claim's numbers, so hosts need not coordinate. Claim directories are never
 * removed, and a claim is durable before its first number is used: no number is ever given out twice. Nor is it when STORE comes back
 * from an older copy, as long as this host remembers the highest claim (struct store_memory). Claim 0 is not used, so that no
 * reference is 0.
 */
#include "base/hex.h"
#include "base/verr.h"
#include "store/container.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CLAIM_DIGITS = 6, FILE_DIGITS = 4, CLAIM_TRIES = 1000 };

void container_path(uint64_t number, char out[32])
{
    snprintf(out, 32, "%06" PRIx64 "/%04x.vc", number >> 16, (unsigned)(number & 0xffff));
}

/* Parses exactly `digits` hex digits that are followed by `end`. */
static int hex_field(const char *text, unsigned digits, const char *end, uint32_t *out)
{
    uint64_t value;
    if (hex_number(text, digits, &value) < 0 || strcmp(text + digits, end) != 0)
        return -EINVAL;
    *out = (uint32_t)value;
    return 0;
}

/* ---- claiming ---- */

static int highest_entry(void *ctx, const char *name)
{
    uint32_t *highest = ctx, claim;
    if (hex_field(name, CLAIM_DIGITS, "", &claim) == 0 && claim > *highest)
        *highest = claim;
    return 0;
}

int store_claim_highest(struct store *st, uint32_t *out, struct verr *err)
{
    *out = 0;
    int r = bk_list(st->b, "containers", highest_entry, out);
    return r < 0 ? store_fail(st, DIR_CONTAINERS, NULL, r, "listing", err) : 0;
}

void store_remember(struct store *st, const struct store_memory *m) { st->memory = *m; }

/* Takes a new claim. Making the directory decides, not the listing: a stale listing only costs tries. */
static int claim_take(struct store *st, uint32_t *out, struct verr *err)
{
    uint32_t claim = 0;
    int r = store_claim_highest(st, &claim, err);
    if (r < 0)
        return r;
    if (claim < st->memory.claim)
        claim = st->memory.claim;
    for (int i = 0; i < CLAIM_TRIES && claim < CLAIM_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "%06" PRIx32, ++claim);
        r = bk_claim_dir(st->b, "containers", name);
        if (r == -EEXIST)
            continue;
        if (r < 0)
            return store_fail(st, DIR_CONTAINERS, name, r, "making", err);
        /* claim -> sync -> first number: after a power cut no other mount can get the same claim. */
        r = bk_sync(st->b, "containers");
        if (r < 0)
            return store_fail(st, DIR_CONTAINERS, NULL, r, "fsync of", err);
        *out = claim;
        return st->memory.claimed == NULL ? 0 : st->memory.claimed(st->memory.ctx, claim, err);
    }
    return verr_set(err, ENOSPC, "%s/containers: no free claim directory found", st->path);
}

/* The next number of the claim of this mount; false: it has none left. */
static bool number_next(struct store *st, uint64_t *number)
{
    pthread_mutex_lock(&st->claim_lock);
    bool some = st->claim != 0 && st->claim_next < CLAIM_NUMBERS;
    if (some)
        *number = (uint64_t)st->claim << 16 | st->claim_next++;
    pthread_mutex_unlock(&st->claim_lock);
    return some;
}

/* Takes a number that was never used. Threads that find the claim used up each take a new one; the last of these stays in use. */
static int number_take(struct store *st, uint64_t *number, struct verr *err)
{
    uint32_t claim = 0;
    if (number_next(st, number))
        return 0;
    int r = claim_take(st, &claim, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&st->claim_lock);
    st->claim = claim;
    st->claim_next = 1;
    pthread_mutex_unlock(&st->claim_lock);
    *number = (uint64_t)claim << 16;
    return 0;
}

int container_make(struct store *st, uint64_t *number, struct bfile **out, struct verr *err)
{
    uint64_t next = 0;
    for (int i = 0; i < CLAIM_TRIES; i++) {
        char path[32];
        int r = number_take(st, &next, err);
        if (r < 0)
            return r;
        container_path(next, path);
        r = bk_append_new(st->b, "containers", path, out);
        if (r == -EEXIST)
            continue;
        if (r < 0)
            return store_fail(st, DIR_CONTAINERS, path, r, "creating", err);
        *number = next;
        return 0;
    }
    return verr_set(err, EEXIST, "%s/containers/%06" PRIx64 ": files of somebody else in a claim of this mount", st->path, next >> 16);
}

void container_condemn(struct store *st, uint64_t number)
{
    pthread_mutex_lock(&st->claim_lock);
    if (st->ncondemned < CONDEMNED_MAX)
        st->condemned[st->ncondemned] = number;
    st->ncondemned++;
    pthread_mutex_unlock(&st->claim_lock);
}

bool container_condemned(struct store *st, uint64_t number)
{
    pthread_mutex_lock(&st->claim_lock);
    bool found = st->ncondemned > CONDEMNED_MAX;
    for (unsigned i = 0; i < st->ncondemned && !found; i++)
        found = st->condemned[i] == number;
    pthread_mutex_unlock(&st->claim_lock);
    return found;
}

/* ---- where a writer may go on ---- */

void container_sealed(struct store *st, uint64_t number, const struct vid *version, uint64_t end)
{
    pthread_mutex_lock(&st->claim_lock);
    unsigned i = 0;
    while (i < st->nown && st->own[i].number != number)
        i++;
    if (i == st->nown && st->nown < OWN_MAX)
        st->nown++;
    if (i == st->nown)
        i--;                /* the one sealed longest ago is forgotten: its next writer begins a new container */
    memmove(&st->own[1], &st->own[0], i * sizeof st->own[0]);
    st->own[0] = (struct own_tail){.number = number, .end = end, .version = *version};
    pthread_mutex_unlock(&st->claim_lock);
}

bool container_ends(struct store *st, uint64_t number, const struct vid *version, uint64_t end)
{
    bool found = false;
    pthread_mutex_lock(&st->claim_lock);
    for (unsigned i = 0; i < st->nown && !found; i++)
        found = st->own[i].number == number && st->own[i].end == end && vid_eq(&st->own[i].version, version);
    pthread_mutex_unlock(&st->claim_lock);
    return found;
}

/* ---- listing ---- */

struct each {
    struct store *st;
    int (*fn)(void *ctx, uint64_t number);          /* NULL: the walk is for strays */
    int (*stray)(void *ctx, const char *path);
    void *ctx;
    struct verr *err;
    uint32_t claim;
    bool listing;   /* true: an error comes from the listing; false: from one of the functions */
};

/* dir: "CCCCCC/" or "". */
static int each_stray(struct each *e, const char *dir, const char *name)
{
    char path[300];
    if (e->stray == NULL)
        return 0;
    snprintf(path, sizeof path, "containers/%s%s", dir, name);
    int r = e->stray(e->ctx, path);
    e->listing = r == 0;
    return r;
}

static int each_file(void *ctx, const char *name)
{
    struct each *e = ctx;
    uint32_t n;
    if (name[0] == '.')
        return 0;
    if (hex_field(name, FILE_DIGITS, ".vc", &n) < 0) {
        char dir[16];
        snprintf(dir, sizeof dir, "%06" PRIx32 "/", e->claim);
        return each_stray(e, dir, name);
    }
    int r = e->fn == NULL ? 0 : e->fn(e->ctx, (uint64_t)e->claim << 16 | n);
    e->listing = r == 0;
    return r;
}

static int each_claim(void *ctx, const char *name)
{
    struct each *e = ctx;
    if (name[0] == '.')
        return 0;
    if (hex_field(name, CLAIM_DIGITS, "", &e->claim) < 0)
        return each_stray(e, "", name);
    char dir[32];
    snprintf(dir, sizeof dir, "containers/%06" PRIx32, e->claim);
    int r = bk_list(e->st->b, dir, each_file, e);
    if ((r == -ENOTDIR || r == -ELOOP) && e->listing)
        return each_stray(e, "", name);
    if (r < 0 && e->listing) {
        e->listing = false;
        return store_fail(e->st, DIR_CONTAINERS, name, r, "listing", e->err);
    }
    return r;
}

static int each(struct store *st, struct each *e, struct verr *err)
{
    int r = bk_list(st->b, "containers", each_claim, e);
    return r < 0 && e->listing ? store_fail(st, DIR_CONTAINERS, NULL, r, "listing", err) : r;
}

int container_each(struct store *st, int (*fn)(void *ctx, uint64_t number), void *ctx, struct verr *err)
{
    return each(st, &(struct each){.st = st, .fn = fn, .ctx = ctx, .err = err, .listing = true}, err);
}

int container_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err)
{
    return each(st, &(struct each){.st = st, .stray = fn, .ctx = ctx, .err = err, .listing = true}, err);
}
