/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify, last pass: the index. It is a hint: a fault in it costs space only, so all faults are notices.
 *
 * With read_data each live entry must lead to a block of a shared container that has its fingerprint. Entries come in order
 * of fingerprints and blocks in order of containers; sorting either would need temporary files, which verify has no place
 * for. So pass 2 puts (fingerprint, reference) of every block that may be in the index into a Bloom filter, and only entries
 * that are not in the filter are looked up. The filter lets some wrong entries pass unseen: 1 of 230 in a store of 10 million
 * blocks, and more of them in larger stores. A right entry is never reported.
 */
#include "base/hash.h"
#include "base/verr.h"
#include "check/check_internal.h"
#include "fpindex/fpindex.h"
#include "store/container.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KNOWN_BITS = 27, KNOWN_PROBES = 4,      /* 16 MiB */
    LOOKUPS_MAX = 10000,                    /* in one slot, so that an index that is all wrong costs no look-up for each entry */
    STEP_ENTRIES = 65536,
};
#define MENDS "; varve rebuild --index mends it"

static int out_of_memory(struct verr *err)
{
    return verr_set(err, ENOMEM, "verify: out of memory");
}

/* ---- blocks that pass 2 has seen ---- */

int check_known_begin(struct checker *k, struct verr *err)
{
    k->known = calloc((UINT64_C(1) << KNOWN_BITS) / 64, sizeof *k->known);
    return k->known == NULL ? out_of_memory(err) : 0;
}

static uint64_t known_bit(uint64_t hash, unsigned probe)
{
    return (hash + probe * (hash >> 32 | 1)) & ((UINT64_C(1) << KNOWN_BITS) - 1);
}

void check_known_add(struct checker *k, const struct fp *fp, uint64_t ref)
{
    uint64_t hash = hash64_seed(fp->b, FPKEY_BYTES, ref);
    for (unsigned i = 0; i < KNOWN_PROBES; i++) {
        uint64_t bit = known_bit(hash, i);
        k->known[bit / 64] |= UINT64_C(1) << bit % 64;
    }
}

static bool known_has(const struct checker *k, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    uint64_t hash = hash64_seed(key, FPKEY_BYTES, ref);
    for (unsigned i = 0; i < KNOWN_PROBES; i++) {
        uint64_t bit = known_bit(hash, i);
        if ((k->known[bit / 64] >> bit % 64 & 1) == 0)
            return false;
    }
    return true;
}

bool check_indexed(const struct container_info *info)
{
    return info->type == CONTAINER_BLOCKS && (info->flags & CONTAINER_SHARED) != 0;
}

/* ---- one slot ---- */

struct slot_walk {
    struct checker *k;
    uint32_t slot, slots;
    uint64_t entries, lookups, wrong, first;    /* first: the first wrong reference */
    struct verr *err;
};

static int tell_index(struct checker *k, const char *file, const char *what, struct verr *err)
{
    k->rep->index_notices++;
    return check_add(k, CHECK_NOTICE, file, "index: %.200s" MENDS, what) < 0 ? out_of_memory(err) : 0;
}

static int bad_file(void *ctx, const char *name, const char *what)
{
    struct slot_walk *w = ctx;
    char file[300];
    snprintf(file, sizeof file, "index/%04" PRIu32 "/%s", w->slot, name);
    if (what != NULL)
        return tell_index(w->k, file, what, w->err);
    return check_add(w->k, CHECK_NOTICE, file, "not a file of ours: move it away") < 0 ? out_of_memory(w->err) : 0;
}

/* 1: the reference leads to a block that has this fingerprint and may be in the index. 0: it does not. 1 also when this cannot be
 * found out. */
static int is_right(struct slot_walk *w, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct footer_entry e;
    struct container_info info = {0};
    struct verr why = {0};
    int r = creader_entries(w->k->reader, ref, 1, &e, &why);
    if (r == 0 && (e.len == 0 || memcmp(e.fp.b, key, FPKEY_BYTES) != 0))
        return 0;
    if (r == 0)
        r = container_walk(w->k->reader, ref_container(ref), &info, NULL, NULL, &why);
    if (r == -ENODATA || r == -ENOENT)
        return 0;
    if (r < 0)      /* the damage of the container has been reported */
        return check_is_damage(r) ? 1 : verr_set(w->err, -r, "%s", verr_str(&why));
    return check_indexed(&info);
}

static int live_entry(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct slot_walk *w = ctx;
    if (++w->entries % STEP_ENTRIES == 0) {
        int r = check_progress(w->k, "index", w->slot, w->slots, w->err);
        if (r < 0)
            return r;
    }
    if (known_has(w->k, key, ref) || w->lookups == LOOKUPS_MAX)
        return 0;
    w->lookups++;
    int r = is_right(w, key, ref);
    if (r == 0 && w->wrong++ == 0)
        w->first = ref;
    return r < 0 ? r : 0;
}

static int step(void *ctx, uint64_t bytes)
{
    struct slot_walk *w = ctx;
    w->k->rep->bytes_read += bytes;
    return check_progress(w->k, "index", w->slot, w->slots, w->err);
}

static int tell_wrong(struct slot_walk *w)
{
    char file[32], path[32], what[200];
    if (w->wrong == 0)
        return 0;
    snprintf(file, sizeof file, "index/%04" PRIu32, w->slot);
    container_path(ref_container(w->first), path);
    snprintf(what, sizeof what, "%s%" PRIu64 " entries lead to other blocks or to none, the first to block %" PRIu32 " of containers/%s",
             w->lookups == LOOKUPS_MAX ? "at least " : "", w->wrong, ref_ordinal(w->first), path);
    return tell_index(w->k, file, what, w->err);
}

static int check_slot(struct checker *k, uint32_t slot, struct verr *err)
{
    const struct store_conf *conf = store_conf(k->st);
    unsigned bits = (unsigned)__builtin_ctz(conf->slots) + (unsigned)__builtin_ctz(conf->partitions);
    struct slot_walk w = { .k = k, .slot = slot, .slots = conf->slots, .err = err };
    const struct fpindex_look look = {
        .bad = bad_file, .entry = k->known != NULL ? live_entry : NULL, .step = step, .ctx = &w,
    };
    struct fpindex_stats stats = {0};
    struct verr why = {0};
    w.err = &why;
    int r = fpindex_look(store_index(k->st), "index", slot, conf->partitions, bits, &look, &stats, &why);
    if (r == -ENOENT)
        return 0;       /* nothing was ever written to the slot */
    if (r == -ENOTDIR || r == -ELOOP) {
        char file[32];
        snprintf(file, sizeof file, "index/%04" PRIu32, slot);
        return check_add(k, CHECK_NOTICE, file, "not a directory: move it away") < 0 ? out_of_memory(err) : 0;
    }
    if (r == 0)
        r = tell_wrong(&w);
    if (r < 0)
        return verr_set(err, -r, "%s", verr_str(&why));
    k->rep->index_files += stats.deltas + stats.bases;
    k->rep->index_entries += stats.entries;
    return check_progress(k, "index", slot + 1, conf->slots, err);
}

/* ---- index/ ---- */

struct slots_walk { struct checker *k; struct verr *err; };

static int stray_slot(void *ctx, const char *name)
{
    struct slots_walk *w = ctx;
    char file[300], again[16];
    unsigned slot;
    /* NOLINTNEXTLINE(cert-err34-c): no number of that width is out of range */
    bool ours = sscanf(name, "%4u", &slot) == 1 && slot < store_conf(w->k->st)->slots && snprintf(again, sizeof again, "%04u", slot) == 4 &&
                strcmp(again, name) == 0;
    if (ours || strncmp(name, ".tmp-", 5) == 0)
        return 0;
    snprintf(file, sizeof file, "index/%s", name);
    return check_add(w->k, CHECK_NOTICE, file, "not a slot of this store's index: move it away") < 0 ? out_of_memory(w->err) : 0;
}

int check_index(struct checker *k, struct verr *err)
{
    struct verr why = {0};
    struct slots_walk w = { .k = k, .err = &why };
    int r = store_names_each(k->st, DIR_INDEX, stray_slot, &w);
    if (r < 0)
        return verr_set(err, -r, "index: %s", why.code != 0 ? verr_str(&why) : strerror(-r));
    for (uint32_t slot = 0; r == 0 && slot < store_conf(k->st)->slots; slot++)
        r = check_slot(k, slot, err);
    return r;
}
