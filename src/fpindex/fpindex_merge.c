/* SPDX-License-Identifier: Apache-2.0 */
/*
 * merge: puts deltas into bases, one partition at a time, so that only one partition needs its space twice:
 *
 *   new base published (durable, merged_through = newest delta it includes) -> old base unlinked -> next partition
 *   ... -> deltas that every partition of theirs includes are unlinked -> fsync of the directory
 *
 * After a crash at any point, the newest base of each partition and the deltas above its merged_through hold the same entries.
 */
#include "fpindex/fpindex_internal.h"

#include "base/fault.h"
#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum {
    DELTAS_MAX = 8,
    /* Smaller deltas are not worth an fsync per partition, even if the bases are smaller still. */
    SMALL_BYTES = 1024 * 1024,
};

static bool merge_due(const struct fpindex *ix)
{
    uint64_t bases = 0, deltas = 0;
    for (uint32_t p = 0; p < ix->partitions; p++)
        bases += ix->bases[p].bytes;
    for (size_t i = 0; i < ix->ndeltas; i++)
        deltas += ix->deltas[i].bytes;
    return ix->ndeltas > DELTAS_MAX || (deltas > SMALL_BYTES && deltas > bases / 8);
}

/* Copies the live entries of a partition. Tombstones are left out: no entry older than the new base is left for them to hide. */
static int copy_entries(struct fpindex *ix, uint32_t partition, struct fpi_set *set, struct fpi_writer *w, struct verr *err)
{
    uint8_t bound[FPKEY_BYTES], key[FPKEY_BYTES];
    uint64_t ref;
    bool bounded = fpi_set_begin(ix, partition, set, bound);
    while (fpi_set_next(set, bounded ? bound : NULL, key, &ref)) {
        if (!ref_is_block(ref))
            continue;
        int r = fpi_writer_add(w, key, ref, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int unlink_old(struct fpindex *ix, uint32_t partition, uint64_t number, struct verr *err)
{
    char name[FPI_NAME_MAX];
    fpi_name(partition, number, name);
    int r = -fault_errno("fpindex.merge.unlink");
    if (r == 0)
        r = bk_remove(ix->b, ix->dir, name);
    return r < 0 && r != -ENOENT ? verr_set(err, -r, "index/%04" PRIu32 "/%s: unlink: %s", ix->slot, name, strerror(-r)) : 0;
}

static int merge_partition(struct fpindex *ix, uint32_t partition, size_t memory, struct verr *err)
{
    uint64_t through = ix->bases[partition].merged_through;
    for (size_t i = 0; i < ix->ndeltas; i++)
        if (fpi_pending(ix, &ix->deltas[i], partition))
            through = ix->deltas[i].number;
    struct fpi_set set;
    struct fpi_writer *w = NULL;
    struct fpi_header h;
    int r = fpi_set_open(ix, partition, memory - memory / 4, &set, err);
    if (r < 0)
        return r;
    uint64_t number = ix->next_base++;
    r = fpi_writer_begin(ix, partition, memory / 4, &w, err);
    if (r < 0)
        goto out;
    r = copy_entries(ix, partition, &set, w, err);
    if (r == 0)
        r = fpi_writer_publish(w, through, &number, &h, err);
    if (r < 0)
        goto out;
    if (number >= ix->next_base)
        ix->next_base = number + 1;
    fault_point("fpindex.merge.after_publish");
    uint64_t old = ix->bases[partition].number;
    fpi_file_fill(&ix->bases[partition], &h);
    if (old != 0)
        r = unlink_old(ix, partition, old, err);
out:
    fpi_writer_free(w);
    fpi_set_close(&set);
    return r;
}

static bool included(const struct fpindex *ix, const struct fpi_file *delta)
{
    for (uint32_t p = 0; p < ix->partitions; p++)
        if (fpi_pending(ix, delta, p))
            return false;
    return true;
}

/* Removes deltas that all bases include. The new bases are durable already, each by its publication. */
static int drop_deltas(struct fpindex *ix, struct verr *err)
{
    size_t kept = 0, before = ix->ndeltas;
    int r = 0;
    fault_point("fpindex.merge.before_drop");
    fpindex_rest(ix);
    for (size_t i = 0; i < before; i++) {
        struct fpi_file *d = &ix->deltas[i];
        if (r == 0 && included(ix, d) && (r = unlink_old(ix, FPI_DELTA, d->number, err)) == 0) {
            free(d->present);
            continue;
        }
        ix->deltas[kept++] = *d;
    }
    ix->ndeltas = kept;
    if (r < 0 || kept == before)
        return r;
    r = bk_sync(ix->b, ix->dir);
    return r < 0 ? verr_set(err, -r, "index/%04" PRIu32 ": fsync of the directory: %s", ix->slot, strerror(-r)) : 0;
}

int fpindex_merge(struct fpindex *ix, bool force, size_t memory, struct verr *err)
{
    if (!force && !merge_due(ix))
        return 0;
    int r = fpi_sweep(ix, err);
    for (uint32_t p = 0; r == 0 && p < ix->partitions; p++) {
        bool any = false;
        for (size_t i = 0; !any && i < ix->ndeltas; i++)
            any = fpi_pending(ix, &ix->deltas[i], p);
        if (any)
            r = merge_partition(ix, p, memory > 0 ? memory : 1, err);
    }
    if (r == 0)
        return drop_deltas(ix, err);
    fpindex_rest(ix);
    return r;
}
