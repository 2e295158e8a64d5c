/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write: the writer of one index file, page after page, and its publication:
 *
 *   temporary object: data pages, fence pages, header -> fsync -> published under its name -> sync of the directory
 *
 * The header is written last and the name comes after the fsync: a file under its name is whole. Fences of a large
 * file wait in a second temporary object (without a name), so that memory does not grow with the file.
 * An error is final for the file.
 */
#include "fpindex/fpindex_internal.h"

#include "base/fault.h"
#include "base/id.h"
#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_TRIES = 64, BUFFER_MIN = 4 * PAGE_BYTES, BUFFER_MAX = 1024 * 1024 };

struct fpi_writer {
    struct fpindex *ix;
    struct fpi_header h;
    struct bfile *f, *fences;           /* fences: NULL until one page of them is full */
    bool temp_there;
    int failed;
    uint8_t *buf;                       /* whole pages, the last one being filled */
    size_t buf_cap, buf_pages;          /* buf_pages: sealed ones */
    uint32_t in_page, pages;            /* entries in the page being filled; sealed data pages of the file */
    uint64_t off;                       /* of buf in the file */
    uint8_t fence[PAGE_BYTES];
    uint32_t in_fence, fence_pages;     /* items in the fence page being filled; pages in `fences` */
    uint8_t last[FPKEY_BYTES];
};

static int fail(struct fpi_writer *w, int r, const char *doing, struct verr *err)
{
    w->failed = r;
    return verr_set(err, -r, "index/%04" PRIu32 ": a new file: %s: %s", w->ix->slot, doing, strerror(-r));
}

int fpi_writer_begin(struct fpindex *ix, uint32_t partition, size_t buffer, struct fpi_writer **out, struct verr *err)
{
    struct fpi_writer *w = calloc(1, sizeof *w);
    buffer = buffer < BUFFER_MIN ? BUFFER_MIN : buffer > BUFFER_MAX ? BUFFER_MAX : buffer / PAGE_BYTES * PAGE_BYTES;
    if (w == NULL || (w->buf = malloc(buffer)) == NULL) {
        free(w);
        return verr_set(err, ENOMEM, "index/%04" PRIu32 ": no memory to write a file", ix->slot);
    }
    w->ix = ix;
    w->h = (struct fpi_header){.slot = ix->slot, .partition = partition, .partitions = ix->partitions, .bits = ix->bits};
    random_bytes(&w->h.seed, sizeof w->h.seed);
    w->buf_cap = buffer / PAGE_BYTES;
    w->off = PAGE_BYTES;
    int r = bk_temp(ix->b, ix->dir, &w->f);
    if (r < 0) {
        r = fail(w, r, "cannot be made", err);
        fpi_writer_free(w);
        return r;
    }
    w->temp_there = true;
    *out = w;
    return 0;
}

static int put(struct fpi_writer *w, struct bfile *f, const void *data, size_t n, uint64_t off, struct verr *err)
{
    int r = -fault_errno("fpindex.write.data");
    if (r == 0)
        r = bf_write(f, data, n, off, true);
    if (r < 0)
        return fail(w, r, "write", err);
    if (f == w->f)
        w->ix->bytes_written += n;
    return 0;
}

static int flush(struct fpi_writer *w, struct verr *err)
{
    size_t n = w->buf_pages * PAGE_BYTES;
    int r = n == 0 ? 0 : put(w, w->f, w->buf, n, w->off, err);
    if (r < 0)
        return r;
    /* Write-back begins now, so that the fsync at the end does not wait for all of it. */
    if (n > 0)
        (void)bf_start(w->f, w->off, n);
    w->off += n;
    w->buf_pages = 0;
    return 0;
}

static int seal_page(struct fpi_writer *w, struct verr *err)
{
    if (w->in_page == 0)
        return 0;
    fpi_page_seal(w->buf + w->buf_pages * PAGE_BYTES, FPI_DATA, w->pages, w->in_page, w->h.seed);
    w->in_page = 0;
    w->pages++;
    w->buf_pages++;
    return w->buf_pages == w->buf_cap ? flush(w, err) : 0;
}

static int spill_fences(struct fpi_writer *w, struct verr *err)
{
    if (w->fences == NULL) {
        int made = bk_temp(w->ix->b, w->ix->dir, &w->fences);
        if (made < 0)
            return fail(w, made, "no file for its fences", err);
        (void)bf_unname(w->fences);
    }
    fpi_page_seal(w->fence, FPI_FENCE, w->fence_pages, w->in_fence, w->h.seed);
    int r = put(w, w->fences, w->fence, PAGE_BYTES, (uint64_t)w->fence_pages * PAGE_BYTES, err);
    w->fence_pages++;
    w->in_fence = 0;
    return r;
}

/* Begins a new page: its first key gives its fence. */
static int begin_page(struct fpi_writer *w, const uint8_t *key, struct verr *err)
{
    if (w->pages >= FPI_PAGES_MAX)
        return fail(w, -EFBIG, "too many entries for one file", err);
    int r = w->in_fence == FPI_PAGE_FENCES ? spill_fences(w, err) : 0;
    if (r < 0)
        return r;
    unsigned skip = w->h.partition == FPI_DELTA ? w->ix->slot_bits : w->ix->bits;
    put_le32(w->fence + FPI_HEAD + (size_t)w->in_fence * 4, fpi_fence_of(key, skip));
    w->in_fence++;
    return 0;
}

int fpi_writer_add(struct fpi_writer *w, const uint8_t *key, uint64_t ref, struct verr *err)
{
    if (w->failed != 0)
        return verr_set(err, -w->failed, "index/%04" PRIu32 ": a new file: an earlier write failed", w->ix->slot);
    uint32_t global = fpi_partition_of(key, w->ix->bits), first = w->ix->slot * w->ix->partitions;
    if (global < first || global - first >= w->ix->partitions || (w->h.partition != FPI_DELTA && global - first != w->h.partition))
        return fail(w, -EINVAL, "a key does not belong here", err);
    if (!ref_is_block(ref) && ref != REF_NONE)
        return fail(w, -EINVAL, "a reference is none", err);
    if (w->h.entries > 0) {
        int c = memcmp(w->last, key, FPKEY_BYTES);
        if (c == 0)
            return 0;
        if (c > 0)
            return fail(w, -EINVAL, "keys do not ascend", err);
    }
    int r = w->in_page == 0 ? begin_page(w, key, err) : 0;
    if (r < 0)
        return r;
    uint8_t *entry = w->buf + w->buf_pages * PAGE_BYTES + FPI_HEAD + (size_t)w->in_page * FPI_ENTRY;
    memcpy(entry, key, FPKEY_BYTES);
    put_le64(entry + FPKEY_BYTES, ref);
    memcpy(w->last, key, FPKEY_BYTES);
    w->h.entries++;
    if (w->h.partition == FPI_DELTA)
        w->h.present[(global - first) / 8] |= (uint8_t)(1u << ((global - first) % 8));
    return ++w->in_page == FPI_PAGE_ENTRIES ? seal_page(w, err) : 0;
}

bool fpi_writer_empty(const struct fpi_writer *w)
{
    return w->h.entries == 0 && w->failed == 0;
}

/* Copies the fences behind the data pages, which are all written, through the buffer. */
static int put_fences(struct fpi_writer *w, struct verr *err)
{
    uint64_t done = 0, all = (uint64_t)w->fence_pages * PAGE_BYTES;
    while (done < all) {
        size_t n = w->buf_cap * PAGE_BYTES < all - done ? w->buf_cap * PAGE_BYTES : (size_t)(all - done);
        ssize_t got = bf_read(w->fences, w->buf, n, done);
        if (got != (ssize_t)n)
            return fail(w, got < 0 ? (int)got : -EIO, "its fences cannot be read back", err);
        int r = put(w, w->f, w->buf, n, w->off, err);
        if (r < 0)
            return r;
        w->off += n;
        done += n;
    }
    if (w->in_fence == 0)
        return 0;
    fpi_page_seal(w->fence, FPI_FENCE, w->fence_pages, w->in_fence, w->h.seed);
    return put(w, w->f, w->fence, PAGE_BYTES, w->off, err);
}

/* Writes the header with this number, syncs the file and gives it its name. -EEXIST: the number is taken. */
static int put_name(struct fpi_writer *w, uint64_t number, struct verr *err)
{
    char name[FPI_NAME_MAX];
    w->h.number = number;
    fpi_header_encode(&w->h, w->fence);     /* all fences are written: their page is free */
    int r = put(w, w->f, w->fence, PAGE_BYTES, 0, err);
    if (r < 0)
        return r;
    r = -fault_errno("fpindex.write.sync");
    if (r == 0)
        r = bf_fsync(w->f);
    if (r < 0)
        return fail(w, r, "fdatasync", err);
    fpi_name(w->h.partition, number, name);
    r = -fault_errno("fpindex.publish.link");
    if (r == 0)
        r = bf_name(w->f, w->ix->dir, name);
    if (r == -EEXIST)
        return r;
    return r < 0 ? fail(w, r, "link", err) : 0;
}

int fpi_writer_publish(struct fpi_writer *w, uint64_t merged_through, uint64_t *number, struct fpi_header *h, struct verr *err)
{
    if (w->failed != 0)
        return verr_set(err, -w->failed, "index/%04" PRIu32 ": a new file: an earlier write failed", w->ix->slot);
    w->h.merged_through = merged_through;
    int r = seal_page(w, err);
    if (r == 0)
        r = flush(w, err);
    if (r == 0)
        r = put_fences(w, err);
    if (r < 0)
        return r;
    uint64_t n = *number;
    unsigned tries = 0;
    while ((r = put_name(w, n, err)) == -EEXIST && ++tries < NAME_TRIES)
        n++;
    if (r == -EEXIST)
        return fail(w, r, "no number is free; does another host use this slot?", err);
    if (r < 0)
        return r;
    fault_point("fpindex.publish.after_link");
    if (bf_unname(w->f) == 0)
        w->temp_there = false;
    r = bk_sync(w->ix->b, w->ix->dir);
    if (r < 0)
        return fail(w, r, "fsync of the directory", err);
    *number = n;
    *h = w->h;
    return 0;
}

void fpi_writer_free(struct fpi_writer *w)
{
    if (w == NULL)
        return;
    if (w->temp_there)
        (void)bf_unname(w->f);
    bf_close(w->f);
    bf_close(w->fences);
    free(w->buf);
    free(w);
}
