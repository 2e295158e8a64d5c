/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segread: segment recipe -> blocks.
 *
 * A decoded recipe is cached with two tables that make a read cheap: the byte at which each run begins and the byte at which
 * each block begins. A read finds its first block by binary search and then hands whole runs to creader_read. A third table,
 * a bit per 4 KiB page, answers seek and pages without looking at blocks.
 *
 * The mutex guards the slots and the reference counts only. Loading, decoding and reading happen outside it: two threads
 * that miss the same place both load it, and the second one to come back uses the recipe that the first one cached.
 */
#include "snapshot/segread.h"

#include "base/verr.h"
#include "store/container.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_WORDS = SEG_PAGES / 64 };

struct decoded {
    uint64_t place;
    unsigned refs;          /* guarded by segread.lock; the cache's slot counts as one */
    _Atomic bool checked;   /* its container is the one that the host knows */
    struct segrcp rcp;
    uint32_t *run_off;      /* nruns + 1: byte in the segment where each run begins; the last one is rcp.bytes */
    uint32_t *run_block;    /* nruns: number of the run's first block */
    uint32_t *block_off;    /* nblocks: byte in the segment where each block begins */
    uint64_t page_bits[PAGE_WORDS];
};

struct slot {
    struct decoded *rcp;    /* NULL: free */
    uint64_t used;          /* segread.clock at the last use */
};

/* lock guards all members below it. Whenever it is free: 1. no two slots hold the same place; 2. each decoded recipe in a
 * slot has refs >= 1. */
struct segread {
    struct creader *reader;
    struct segread_belief belief;
    _Atomic uint64_t noted;     /* container of the last place that was noted */
    unsigned nslots;
    pthread_mutex_t lock;
    uint64_t clock;
    struct slot slots[];
};

static void decoded_free(struct decoded *d)
{
    if (d == NULL)
        return;
    segrcp_release(&d->rcp);
    free(d->run_off);
    free(d);
}

static void mark_pages(struct decoded *d, uint32_t from, uint32_t to)
{
    for (uint32_t page = from / PAGE_BYTES; page < (to + PAGE_BYTES - 1) / PAGE_BYTES; page++)
        d->page_bits[page / 64] |= UINT64_C(1) << page % 64;
}

/* Fills the tables. segrcp_decode has checked that runs and lengths add up to rcp.bytes <= SEG_BYTES. */
static int index_recipe(struct decoded *d)
{
    const struct segrcp *rcp = &d->rcp;
    size_t words = (size_t)rcp->nruns * 2 + 1 + rcp->nblocks;
    d->run_off = malloc(words * sizeof *d->run_off);
    if (d->run_off == NULL)
        return -ENOMEM;
    d->run_block = d->run_off + rcp->nruns + 1;
    d->block_off = d->run_block + rcp->nruns;
    uint32_t off = 0, block = 0;
    for (uint32_t i = 0; i < rcp->nruns; i++) {
        const struct segrcp_run *run = &rcp->runs[i];
        d->run_off[i] = off;
        d->run_block[i] = block;
        if (run->ref == REF_ZERO) {
            off += run->count;
            continue;
        }
        for (uint32_t k = 0; k < run->count; k++) {
            d->block_off[block] = off;
            off += (uint32_t)rcp->len1[block++] + 1;
        }
        mark_pages(d, d->run_off[i], off);
    }
    d->run_off[rcp->nruns] = off;
    return 0;
}

static int load_blob(struct segread *sr, uint64_t place, uint8_t **blob, uint32_t *len, struct verr *err)
{
    struct footer_entry entry;
    int r = creader_entries(sr->reader, place, 1, &entry, err);
    if (r < 0)
        return r;
    if (entry.len == 0)
        return verr_set(err, ENODATA, "segment recipe %#" PRIx64 ": its place is dead (collected); run varve verify", place);
    if (entry.len > SEGRCP_BYTES_MAX)
        return verr_set(err, EBADMSG, "segment recipe %#" PRIx64 ": %" PRIu32 " bytes are more than a recipe can have", place, entry.len);
    uint8_t *data = malloc(entry.len);
    if (data == NULL)
        return verr_set(err, ENOMEM, "segment recipe: out of memory");
    r = creader_read(sr->reader, place, 1, 0, data, entry.len, err);
    if (r < 0) {
        free(data);
        return r;
    }
    *blob = data;
    *len = entry.len;
    return 0;
}

static int decode_at(struct segread *sr, uint64_t place, struct segrcp *out, struct verr *err)
{
    uint8_t *blob = NULL;
    uint32_t len = 0;
    int r = load_blob(sr, place, &blob, &len, err);
    if (r < 0)
        return verr_prefix(err, -r, "segment recipe %#" PRIx64, place);
    const char *why = "damaged";
    r = segrcp_decode(blob, len, out, &why);
    free(blob);
    if (r < 0) {
        char path[32];
        container_path(ref_container(place), path);
        return verr_set(err, -r, "containers/%s: segment recipe %" PRIu32 ": %s", path, ref_ordinal(place),
                        r == -ENOMEM ? "out of memory" : why);
    }
    return 0;
}

static int load(struct segread *sr, uint64_t place, struct decoded **out, struct verr *err)
{
    struct decoded *d = calloc(1, sizeof *d);
    if (d == NULL)
        return verr_set(err, ENOMEM, "segment recipe: out of memory");
    d->place = place;
    d->refs = 1;
    int r = decode_at(sr, place, &d->rcp, err);
    if (r == 0 && (r = index_recipe(d)) < 0)
        verr_set(err, -r, "segment recipe: out of memory");
    if (r < 0) {
        decoded_free(d);
        return r;
    }
    *out = d;
    return 0;
}

/* Takes a reference. Caller holds the lock. */
static struct decoded *find_locked(struct segread *sr, uint64_t place)
{
    for (unsigned i = 0; i < sr->nslots; i++) {
        struct slot *slot = &sr->slots[i];
        if (slot->rcp != NULL && slot->rcp->place == place) {
            slot->used = ++sr->clock;
            slot->rcp->refs++;
            return slot->rcp;
        }
    }
    return NULL;
}

static struct slot *oldest_locked(struct segread *sr)
{
    struct slot *oldest = &sr->slots[0];
    for (unsigned i = 0; i < sr->nslots; i++) {
        if (sr->slots[i].rcp == NULL)
            return &sr->slots[i];
        if (sr->slots[i].used < oldest->used)
            oldest = &sr->slots[i];
    }
    return oldest;
}

static void put(struct segread *sr, struct decoded *d)
{
    pthread_mutex_lock(&sr->lock);
    bool last = --d->refs == 0;
    pthread_mutex_unlock(&sr->lock);
    if (last)
        decoded_free(d);
}

static int get(struct segread *sr, uint64_t place, struct decoded **out, struct verr *err)
{
    if (!ref_is_block(place))
        return verr_set(err, EINVAL, "segment recipe: %#" PRIx64 " is no place", place);
    pthread_mutex_lock(&sr->lock);
    struct decoded *d = find_locked(sr, place);
    pthread_mutex_unlock(&sr->lock);
    if (d != NULL) {
        *out = d;
        return 0;
    }
    struct decoded *mine = NULL, *drop = NULL;
    int r = load(sr, place, &mine, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&sr->lock);
    d = find_locked(sr, place);
    if (d != NULL) {
        drop = mine;
    } else {
        struct slot *slot = oldest_locked(sr);
        if (slot->rcp != NULL && --slot->rcp->refs == 0)
            drop = slot->rcp;
        d = mine;
        d->refs = 2;    /* the slot's and the caller's */
        *slot = (struct slot){ .rcp = d, .used = ++sr->clock };
    }
    pthread_mutex_unlock(&sr->lock);
    decoded_free(drop);
    *out = d;
    return 0;
}

int segread_new(struct creader *r, unsigned recipes, struct segread **out, struct verr *err)
{
    if (recipes == 0)
        recipes = 1;
    struct segread *sr = calloc(1, sizeof *sr + recipes * sizeof sr->slots[0]);
    if (sr == NULL)
        return verr_set(err, ENOMEM, "segment reader: out of memory");
    sr->reader = r;
    atomic_init(&sr->noted, UINT64_MAX);
    sr->nslots = recipes;
    int e = pthread_mutex_init(&sr->lock, NULL);
    if (e != 0) {
        free(sr);
        return verr_set(err, e, "segment reader: no mutex");
    }
    *out = sr;
    return 0;
}

void segread_free(struct segread *sr)
{
    if (sr == NULL)
        return;
    for (unsigned i = 0; i < sr->nslots; i++)
        decoded_free(sr->slots[i].rcp);
    pthread_mutex_destroy(&sr->lock);
    free(sr);
}

/* Largest i in [lo, hi) with off[i] <= at; off ascends and off[lo] <= at. */
static uint32_t last_at_or_below(const uint32_t *off, uint32_t lo, uint32_t hi, uint32_t at)
{
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (off[mid] <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Bytes [at, at + n) of one run of blocks; they lie inside it. */
static int read_blocks(struct segread *sr, const struct decoded *d, uint32_t run, uint32_t at, uint8_t *buf, uint32_t n, struct verr *err)
{
    uint32_t lo = d->run_block[run], hi = lo + d->rcp.runs[run].count;
    uint32_t first = last_at_or_below(d->block_off, lo, hi, at);
    uint32_t last = last_at_or_below(d->block_off, first, hi, at + n - 1);
    int r = creader_read(sr->reader, d->rcp.runs[run].ref + (first - lo), last - first + 1, at - d->block_off[first], buf, n, err);
    return r < 0 ? verr_prefix(err, -r, "segment recipe %#" PRIx64, d->place) : 0;
}

static int read_decoded(struct segread *sr, const struct decoded *d, uint32_t off, uint8_t *buf, uint32_t len, struct verr *err)
{
    uint32_t run = 0, at = off, end = off + len;
    if (at < d->rcp.bytes)
        run = last_at_or_below(d->run_off, 0, d->rcp.nruns, at);
    while (at < end && at < d->rcp.bytes) {
        uint32_t stop = d->run_off[run + 1] < end ? d->run_off[run + 1] : end;
        if (d->rcp.runs[run].ref == REF_ZERO) {
            memset(buf + (at - off), 0, stop - at);
        } else {
            int r = read_blocks(sr, d, run, at, buf + (at - off), stop - at, err);
            if (r < 0)
                return r;
        }
        at = stop;
        run++;
    }
    if (at < end)
        memset(buf + (at - off), 0, end - at);
    return 0;
}

/* ---- places out of STATE ---- */

void segread_believe(struct segread *sr, const struct segread_belief *b) { sr->belief = *b; }

static int check_container(struct segread *sr, uint64_t place, uint32_t *ordinals, struct verr *err)
{
    struct vid version;
    int r = creader_version(sr->reader, ref_container(place), &version, ordinals, err);
    if (r == 0 && sr->belief.check != NULL)
        r = sr->belief.check(sr->belief.ctx, ref_container(place), &version, err);
    return r;
}

int segread_check(struct segread *sr, uint64_t place, struct segread_sound *sound, struct verr *err)
{
    struct footer_entry entry;
    uint64_t container = ref_container(place);
    uint32_t ordinals = 0;
    if (!ref_is_block(place))
        return verr_set(err, EINVAL, "segment recipe: %#" PRIx64 " is no place", place);
    if (container == sound->container && ref_ordinal(place) < sound->ordinals)
        return 0;
    int r = check_container(sr, place, &ordinals, err);
    if (r < 0)
        return r;
    *sound = (struct segread_sound){container, ordinals};
    return ref_ordinal(place) < ordinals ? 0 : creader_entries(sr->reader, place, 1, &entry, err);
}

int segread_note(struct segread *sr, uint64_t place, struct verr *err)
{
    struct vid version;
    uint32_t ordinals;
    uint64_t container = ref_container(place);
    if (sr->belief.note == NULL || atomic_load(&sr->noted) == container)
        return 0;
    int r = creader_version(sr->reader, container, &version, &ordinals, err);
    if (r == 0)
        r = sr->belief.note(sr->belief.ctx, container, &version, err);
    if (r == 0)
        atomic_store(&sr->noted, container);
    return r;
}

/* get() for a place out of STATE. */
static int get_believed(struct segread *sr, uint64_t place, struct decoded **out, struct verr *err)
{
    uint32_t ordinals;
    int r = get(sr, place, out, err);
    if (r < 0 || atomic_load(&(*out)->checked))
        return r;
    r = check_container(sr, place, &ordinals, err);
    if (r == 0) {
        atomic_store(&(*out)->checked, true);
        return 0;
    }
    put(sr, *out);
    if (r == -ESTALE) {     /* to readers that is an error of the device, final */
        r = -EIO;
        if (err != NULL)
            err->code = EIO;
    }
    return verr_prefix(err, -r, "segment recipe %#" PRIx64, place);
}

/* ---- reading ---- */

typedef int (*get_fn)(struct segread *sr, uint64_t place, struct decoded **out, struct verr *err);

static int read_by(get_fn getter, struct segread *sr, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err)
{
    if (off > SEG_BYTES || len > SEG_BYTES - off)
        return verr_set(err, EINVAL, "read of a segment beyond its end");
    if (len == 0)
        return 0;
    struct decoded *d = NULL;
    int r = getter(sr, place, &d, err);
    if (r < 0)
        return r;
    r = read_decoded(sr, d, off, buf, (uint32_t)len, err);
    put(sr, d);
    return r;
}

int segread_read(struct segread *sr, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err)
{
    return read_by(get, sr, place, off, buf, len, err);
}

static uint32_t next_page(const struct decoded *d, uint32_t page, bool hole)
{
    for (uint32_t word = page / 64; word < PAGE_WORDS; word++) {
        uint64_t bits = hole ? ~d->page_bits[word] : d->page_bits[word];
        if (word == page / 64)
            bits &= UINT64_MAX << page % 64;
        if (bits != 0)
            return word * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return SEG_PAGES;
}

static int seek_by(get_fn getter, struct segread *sr, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err)
{
    if (off >= SEG_BYTES) {
        *out = SEG_BYTES;
        return 0;
    }
    struct decoded *d = NULL;
    int r = getter(sr, place, &d, err);
    if (r < 0)
        return r;
    uint32_t at = next_page(d, off / PAGE_BYTES, hole) * PAGE_BYTES;
    *out = at < off ? off : at;     /* off lies inside the page that was found */
    put(sr, d);
    return 0;
}

int segread_seek(struct segread *sr, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err)
{
    return seek_by(get, sr, place, off, hole, out, err);
}

static int pages_by(get_fn getter, struct segread *sr, uint64_t place, uint32_t *out, struct verr *err)
{
    struct decoded *d = NULL;
    int r = getter(sr, place, &d, err);
    if (r < 0)
        return r;
    uint32_t pages = 0;
    for (unsigned i = 0; i < PAGE_WORDS; i++)
        pages += (uint32_t)__builtin_popcountll(d->page_bits[i]);
    *out = pages;
    put(sr, d);
    return 0;
}

int segread_pages(struct segread *sr, uint64_t place, uint32_t *out, struct verr *err)
{
    return pages_by(get, sr, place, out, err);
}

/* Decodes anew instead of copying from the cache: only `format` knows how segrcp_release frees the arrays. */
int segread_recipe(struct segread *sr, uint64_t place, struct segrcp *out, struct verr *err)
{
    if (!ref_is_block(place))
        return verr_set(err, EINVAL, "segment recipe: %#" PRIx64 " is no place", place);
    return decode_at(sr, place, out, err);
}

static int source_read(void *ctx, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err)
{
    return read_by(get_believed, ctx, place, off, buf, len, err);
}

static int source_seek(void *ctx, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err)
{
    return seek_by(get_believed, ctx, place, off, hole, out, err);
}

static int source_pages(void *ctx, uint64_t place, uint32_t *out, struct verr *err)
{
    return pages_by(get_believed, ctx, place, out, err);
}

struct seg_source segread_source(struct segread *sr)
{
    return (struct seg_source){ .read = source_read, .seek = source_seek, .pages = source_pages, .ctx = sr };
}
