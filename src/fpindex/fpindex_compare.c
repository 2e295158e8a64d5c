/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compare: looks sorted keys up in one partition, by a merge or by probes. Both look for the same keys in the same files,
 * newest first, and the first file that has the key decides, so both give the same answers.
 */
#include "fpindex/fpindex_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>

/* Do n probes cost less than reading all bytes that a merge reads: n * probe cost < bytes / scan rate? */
static bool probing_pays(const struct fpindex *ix, uint32_t partition, uint64_t n)
{
    const struct fpi_file *base = &ix->bases[partition];
    double bytes = (double)base->pages * PAGE_BYTES;
    unsigned files = base->number != 0;
    for (size_t i = 0; i < ix->ndeltas; i++) {
        const struct fpi_file *d = &ix->deltas[i];
        if (!fpi_pending(ix, d, partition))
            continue;
        unsigned share = 0;     /* number of partitions in the delta; its entries are spread evenly, as fingerprints are */
        for (size_t b = 0; b < FPI_PRESENT_BYTES; b++)
            share += (unsigned)__builtin_popcount(d->present[b]);
        bytes += (double)d->pages * PAGE_BYTES / share;
        files++;
    }
    return (double)n * ix->probe_s * files < bytes / ix->scan_rate;
}

static uint64_t find(struct fpi_set *set, bool probe, const uint8_t *key)
{
    uint64_t ref = REF_NONE;
    for (size_t i = 0; i < set->n; i++) {
        struct fpi_reader *r = &set->readers[i];
        if (probe ? fpi_probe(r, key, &ref) : fpi_scan_find(r, key, &ref))
            return ref_is_block(ref) ? ref : REF_NONE;      /* a tombstone hides what is older */
    }
    return REF_NONE;
}

static int check_key(const struct fpindex *ix, uint32_t partition, const uint8_t *last, const uint8_t *key, struct verr *err)
{
    if (fpi_partition_of(key, ix->bits) != ix->slot * ix->partitions + partition)
        return verr_set(err, EINVAL, "index/%04" PRIu32 ": a key was asked for that is not of partition %" PRIu32, ix->slot, partition);
    if (last != NULL && memcmp(last, key, FPKEY_BYTES) > 0)
        return verr_set(err, EINVAL, "index/%04" PRIu32 ": keys were asked for out of order", ix->slot);
    return 0;
}

/* The error of a callback. A callback that shares err may have said more there than its code does. */
static int stopped(const struct fpindex *ix, int r, const char *what, struct verr *err)
{
    return err != NULL && err->code != 0 ? r : verr_set(err, -r, "index/%04" PRIu32 ": %s: %s", ix->slot, what, strerror(-r));
}

int fpindex_compare(struct fpindex *ix, uint32_t partition, uint64_t n, enum fpindex_way force, size_t memory,
                    int (*next)(void *ctx, uint8_t key[FPKEY_BYTES]),
                    int (*answer)(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref), void *ctx, struct verr *err)
{
    if (partition >= ix->partitions)
        return verr_set(err, EINVAL, "index/%04" PRIu32 ": no partition %" PRIu32 " in this slot", ix->slot, partition);
    bool probe = force == FPINDEX_PROBE || (force == FPINDEX_AUTO && probing_pays(ix, partition, n));
    struct fpi_set set;
    int r = fpi_set_open(ix, partition, probe ? 0 : memory > 0 ? memory : 1, &set, err);
    if (r < 0)
        return r;
    uint8_t key[FPKEY_BYTES], last[FPKEY_BYTES];
    bool any = false;
    if (!probe) {
        fpi_low_key(ix, partition, key);
        for (size_t i = 0; i < set.n; i++)
            fpi_scan_begin(&set.readers[i], key);
        ix->scans++;
    }
    uint64_t ref = REF_NONE;
    while ((r = next(ctx, key)) > 0) {
        r = check_key(ix, partition, any ? last : NULL, key, err);
        if (r < 0)
            goto out;
        if (!any || memcmp(last, key, FPKEY_BYTES) != 0) {  /* a popular block is asked for many times in a row */
            ref = find(&set, probe, key);
            ix->probes += probe;
        }
        memcpy(last, key, FPKEY_BYTES);
        any = true;
        r = answer(ctx, key, ref);
        if (r != 0) {
            r = stopped(ix, r < 0 ? r : -EINTR, "the answers cannot be taken", err);
            goto out;
        }
    }
    if (r < 0)
        stopped(ix, r, "the requests cannot be read", err);
out:
    fpi_set_close(&set);
    return r;
}
