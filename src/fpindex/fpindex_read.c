/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read: the reader of one index file: checked pages, fences, probes of single keys.
 *
 * Fingerprints are spread evenly, so the page of a key is guessed from its bits; the true page is a short gallop away, nearly
 * always in the same fence page. Fences too are read page by page, so an index of any size needs little memory, and a few
 * keys do not cost all fences of a large base.
 * A damaged data page counts as empty. Instead of a damaged fence page, the first keys of the data pages are used.
 */
#include "fpindex/fpindex_internal.h"

#include <errno.h>
#include <stdlib.h>

int fpi_reader_open(struct fpindex *ix, struct fpi_file *f, uint32_t stream_pages, struct fpi_reader *r)
{
    struct bfile *file = f->open;
    if (file == NULL) {
        char name[FPI_NAME_MAX];
        fpi_name(f->partition, f->number, name);
        int e = bk_open(ix->b, ix->dir, name, stream_pages == 0 ? BHINT_RANDOM : BHINT_SEQUENTIAL, &file);
        if (e < 0)
            return e;
    }
    if (f->partition == FPI_DELTA)
        f->open = file;
    uint8_t *mem = malloc(((size_t)FPI_READER_PAGES + stream_pages) * PAGE_BYTES);
    if (mem == NULL) {
        if (f->open != file)
            bf_close(file);
        return -ENOMEM;
    }
    *r = (struct fpi_reader){
        .ix = ix, .file = f, .f = file, .mem = mem, .skip = f->partition == FPI_DELTA ? ix->slot_bits : ix->bits,
        .data = {.mem = mem}, .spare = {.mem = mem + PAGE_BYTES},
        .fence = {{.mem = mem + (size_t)2 * PAGE_BYTES}, {.mem = mem + (size_t)3 * PAGE_BYTES}},
        .buf = mem + (size_t)FPI_READER_PAGES * PAGE_BYTES, .buf_cap = stream_pages,
    };
    return 0;
}

void fpi_reader_close(struct fpi_reader *r)
{
    if (r->mem == NULL)
        return;
    if (r->f != r->file->open)
        bf_close(r->f);
    free(r->mem);
    r->mem = NULL;
}

/* Reads page `number` of a kind into pb, unless it is there already. The number of its items, or -EBADMSG. */
static int page_get(struct fpi_reader *r, struct fpi_pagebuf *pb, enum fpi_kind kind, uint32_t number)
{
    if (pb->count != 0 && pb->number == number)
        return pb->count;
    uint64_t page = kind == FPI_DATA ? 1 + (uint64_t)number : 1 + (uint64_t)r->file->pages + number;
    ssize_t got = bf_read(r->f, pb->mem, PAGE_BYTES, page * PAGE_BYTES);
    if (got > 0)
        r->ix->bytes_read += (uint64_t)got;
    uint64_t total = kind == FPI_DATA ? r->file->entries : r->file->pages;
    pb->number = number;
    pb->count = got == PAGE_BYTES ? fpi_page_check(pb->mem, kind, number, total, r->file->seed) : -EBADMSG;
    if (pb->count < 0)
        fpi_mark_damaged(r->ix, r->file);
    return pb->count;
}

/* The fence of data page i. False: neither the fence page nor the data page can be read. */
static bool fence_at(struct fpi_reader *r, uint32_t i, uint32_t *fence)
{
    uint32_t number = i / FPI_PAGE_FENCES, item = i % FPI_PAGE_FENCES;
    struct fpi_pagebuf *pb = &r->fence[number & 1];
    int count = page_get(r, pb, FPI_FENCE, number);
    if (count > 0 && item < (uint32_t)count) {
        *fence = get_le32(pb->mem + FPI_HEAD + (size_t)item * 4);
        return true;
    }
    if (page_get(r, &r->spare, FPI_DATA, i) < 0)
        return false;
    *fence = fpi_fence_of(fpi_entry(r->spare.mem, 0), r->skip);
    return true;
}

/* Narrows (lo, hi]: fence[lo - 1] < fence (or lo is 0) and fence[hi] >= fence (or hi is the number of pages). */
static bool gallop(struct fpi_reader *r, uint32_t fence, uint32_t *lo, uint32_t *hi)
{
    uint32_t pages = r->file->pages, at = (uint32_t)((uint64_t)fence * pages >> 32), got, step = 1;
    if (!fence_at(r, at, &got))
        return false;
    if (got < fence) {
        *lo = at + 1;
        *hi = pages;
        for (; *lo + step - 1 < pages; step *= 2) {
            if (!fence_at(r, *lo + step - 1, &got))
                return false;
            if (got >= fence) {
                *hi = *lo + step - 1;
                return true;
            }
            *lo += step;
        }
        return true;
    }
    *lo = 0;
    for (*hi = at; *hi >= step; step *= 2) {
        if (!fence_at(r, *hi - step, &got))
            return false;
        if (got < fence) {
            *lo = *hi - step + 1;
            return true;
        }
        *hi -= step;
    }
    return true;
}

/* Is the page of the last key the right one again, as is likely for sorted keys? */
static bool same_page(struct fpi_reader *r, uint32_t fence)
{
    uint32_t here, after;
    if (!fence_at(r, r->at, &here) || here >= fence)
        return false;
    return r->at + 1 == r->file->pages || (fence_at(r, r->at + 1, &after) && after >= fence);
}

bool fpi_floor(struct fpi_reader *r, uint32_t fence, uint32_t *page)
{
    if (!same_page(r, fence)) {
        uint32_t lo, hi;
        if (!gallop(r, fence, &lo, &hi))
            return false;
        while (lo < hi) {
            uint32_t mid = lo + (hi - lo) / 2, got;
            if (!fence_at(r, mid, &got))
                return false;
            if (got < fence)
                lo = mid + 1;
            else
                hi = mid;
        }
        /* Begin one page before the first fence that is not smaller: keys with this fence may be at the end of that page. */
        r->at = hi > 0 ? hi - 1 : 0;
    }
    *page = r->at;
    return true;
}

/* The first entry of the page that is not below the key; count: there is none. */
static uint32_t lower_bound(const uint8_t *page, uint32_t count, const uint8_t *key)
{
    uint32_t lo = 0, hi = count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (memcmp(fpi_entry(page, mid), key, FPKEY_BYTES) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

int fpi_probe(struct fpi_reader *r, const uint8_t *key, uint64_t *ref)
{
    uint32_t fence = fpi_fence_of(key, r->skip), first, got;
    if (r->file->pages == 0 || !fpi_floor(r, fence, &first))
        return 0;
    for (uint32_t p = first; p < r->file->pages; p++) {
        /* The key lies before the first page, or this page begins behind it: no page to read. */
        if ((p > first || p == 0) && (!fence_at(r, p, &got) || got > fence))
            return 0;
        int count = page_get(r, &r->data, FPI_DATA, p);
        if (count < 0)
            continue;
        uint32_t pos = lower_bound(r->data.mem, (uint32_t)count, key);
        if (pos == (uint32_t)count)
            continue;
        const uint8_t *entry = fpi_entry(r->data.mem, pos);
        if (memcmp(entry, key, FPKEY_BYTES) != 0)
            return 0;
        *ref = fpi_entry_ref(entry);
        return 1;
    }
    return 0;
}
