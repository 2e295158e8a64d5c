/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan: one index file as a stream of entries, read in large pieces; and the set of files that make up a partition.
 * The stream leaves out a damaged page with all its entries.
 */
#include "fpindex/fpindex_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Reads the next piece. When the device cannot read it, only its first page is read, so that a bad spot costs single pages. False at
 * the end. */
static bool fill_buffer(struct fpi_reader *r)
{
    uint32_t left = r->file->pages - r->next_page;
    uint32_t want = left < r->buf_cap ? left : r->buf_cap;
    if (want == 0)
        return false;
    uint64_t off = (1 + (uint64_t)r->next_page) * PAGE_BYTES;
    ssize_t got = bf_read(r->f, r->buf, (size_t)want * PAGE_BYTES, off);
    if (got < PAGE_BYTES)
        got = bf_read(r->f, r->buf, PAGE_BYTES, off);
    if (got > 0)
        r->ix->bytes_read += (uint64_t)got;
    r->buf_first = r->next_page;
    r->buf_pages = got >= PAGE_BYTES ? (uint32_t)(got / PAGE_BYTES) : 0;
    if (r->buf_pages == 0) {    /* the page is unreadable or cut off: go on behind it */
        fpi_mark_damaged(r->ix, r->file);
        r->next_page++;
    }
    return true;
}

/* Moves to the next intact page; page is NULL at the end. */
static void next_page(struct fpi_reader *r)
{
    r->page = NULL;
    for (;;) {
        if (r->next_page >= r->buf_first + r->buf_pages || r->next_page < r->buf_first) {
            if (!fill_buffer(r))
                return;
            continue;
        }
        const uint8_t *page = r->buf + (size_t)(r->next_page - r->buf_first) * PAGE_BYTES;
        int count = fpi_page_check(page, FPI_DATA, r->next_page, r->file->entries, r->file->seed);
        r->next_page++;
        if (count > 0) {
            r->page = page;
            r->count = (uint32_t)count;
            r->pos = 0;
            return;
        }
        fpi_mark_damaged(r->ix, r->file);
    }
}

int fpi_scan_find(struct fpi_reader *r, const uint8_t *key, uint64_t *ref)
{
    while (r->page != NULL && memcmp(fpi_entry(r->page, r->count - 1), key, FPKEY_BYTES) < 0)
        next_page(r);
    if (r->page == NULL)
        return 0;
    uint32_t lo = r->pos, hi = r->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (memcmp(fpi_entry(r->page, mid), key, FPKEY_BYTES) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    r->pos = lo;
    if (lo == r->count || memcmp(fpi_entry(r->page, lo), key, FPKEY_BYTES) != 0)
        return 0;
    *ref = fpi_entry_ref(fpi_entry(r->page, lo));
    return 1;
}

void fpi_scan_begin(struct fpi_reader *r, const uint8_t *key)
{
    uint32_t first = 0;
    uint64_t ref;
    /* Only a stream of a delta begins in the middle of the file. If damage hides the place, it begins at the start, which is slower but
     * right. */
    if (r->file->partition != FPI_DELTA || r->file->pages == 0 || !fpi_floor(r, fpi_fence_of(key, r->skip), &first))
        first = 0;
    r->next_page = first;
    r->buf_first = r->buf_pages = 0;
    next_page(r);
    (void)fpi_scan_find(r, key, &ref);
}

/* No writer of varve makes entries that do not ascend. They are left out, so that a merge ends. */
void fpi_scan_next(struct fpi_reader *r)
{
    uint8_t before[FPKEY_BYTES];
    memcpy(before, fpi_entry(r->page, r->pos), sizeof before);
    while (r->page != NULL) {
        if (++r->pos >= r->count)
            next_page(r);
        if (r->page == NULL || memcmp(fpi_entry(r->page, r->pos), before, sizeof before) > 0)
            return;
        fpi_mark_damaged(r->ix, r->file);
    }
}

/* ---- the files of a partition ---- */

void fpi_low_key(const struct fpindex *ix, uint32_t partition, uint8_t key[FPKEY_BYTES])
{
    uint64_t global = (uint64_t)ix->slot * ix->partitions + partition;
    uint64_t bits = ix->bits == 0 ? 0 : global << (64 - ix->bits);
    memset(key, 0, FPKEY_BYTES);
    for (int i = 0; i < 8; i++)
        key[i] = (uint8_t)(bits >> (56 - 8 * i));
}

static int set_add(struct fpindex *ix, struct fpi_file *f, uint32_t stream_pages, struct fpi_set *set)
{
    int r = fpi_reader_open(ix, f, stream_pages, &set->readers[set->n]);
    if (r == 0)
        set->n++;
    if (r == -ENOENT)
        ix->vanished = true;
    if (r == -ENOENT || r == -EIO || r == -ESTALE || r == -ELOOP) {
        fpi_mark_damaged(ix, f);    /* the entries are lost, which is no error: they are hints */
        r = 0;
    }
    return r;
}

int fpi_set_open(struct fpindex *ix, uint32_t partition, size_t memory, struct fpi_set *out, struct verr *err)
{
    struct fpi_file *base = &ix->bases[partition];
    size_t files = base->number != 0;
    for (size_t i = 0; i < ix->ndeltas; i++)
        files += fpi_pending(ix, &ix->deltas[i], partition);
    uint32_t stream_pages = 0;
    if (memory > 0 && files > 0) {
        size_t each = memory / files / PAGE_BYTES;
        each = each > FPI_READER_PAGES + FPI_STREAM_MIN ? each - FPI_READER_PAGES : FPI_STREAM_MIN;
        stream_pages = (uint32_t)(each < FPI_STREAM_MAX ? each : FPI_STREAM_MAX);
    }
    struct fpi_set set = {.readers = calloc(files + 1, sizeof *set.readers)};
    int r = set.readers == NULL ? -ENOMEM : 0;
    for (size_t i = ix->ndeltas; r == 0 && i > 0; i--)
        if (fpi_pending(ix, &ix->deltas[i - 1], partition))
            r = set_add(ix, &ix->deltas[i - 1], stream_pages, &set);
    if (r == 0 && base->number != 0)
        r = set_add(ix, base, stream_pages, &set);
    if (r < 0) {
        fpi_set_close(&set);
        return verr_set(err, -r, "index/%04" PRIu32 ": partition %" PRIu32 " cannot be opened: %s", ix->slot, partition, strerror(-r));
    }
    *out = set;
    return 0;
}

bool fpi_set_begin(const struct fpindex *ix, uint32_t partition, struct fpi_set *set, uint8_t bound[FPKEY_BYTES])
{
    uint8_t low[FPKEY_BYTES];
    fpi_low_key(ix, partition, low);
    for (size_t i = 0; i < set->n; i++)
        fpi_scan_begin(&set->readers[i], low);
    fpi_low_key(ix, partition + 1, bound);
    return (uint64_t)ix->slot * ix->partitions + partition + 1 < UINT64_C(1) << ix->bits;
}

bool fpi_set_next(struct fpi_set *set, const uint8_t *bound, uint8_t key[FPKEY_BYTES], uint64_t *ref)
{
    const uint8_t *best = NULL;
    for (size_t i = 0; i < set->n; i++) {
        const uint8_t *e = fpi_scan_entry(&set->readers[i]);
        if (e != NULL && (best == NULL || memcmp(e, best, FPKEY_BYTES) < 0))
            best = e;
    }
    if (best == NULL || (bound != NULL && memcmp(best, bound, FPKEY_BYTES) >= 0))
        return false;
    memcpy(key, best, FPKEY_BYTES);
    *ref = fpi_entry_ref(best);
    for (size_t i = 0; i < set->n; i++) {
        const uint8_t *e = fpi_scan_entry(&set->readers[i]);
        if (e != NULL && memcmp(e, key, FPKEY_BYTES) == 0)
            fpi_scan_next(&set->readers[i]);
    }
    return true;
}

void fpi_set_close(struct fpi_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        fpi_reader_close(&set->readers[i]);
    free(set->readers);
    set->readers = NULL;
    set->n = 0;
}
