/* SPDX-License-Identifier: Apache-2.0 */
/*
 * look: checks every file of a slot for verify: pages, order of keys, partitions, references, fences; then yields the live
 * entries of each partition. Readers of the index pass over damage silently, because it costs only space; here it is reported.
 */
#include "fpindex/fpindex_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOK_PAGES = 64, MEMORY_DEFAULT = 1024 * 1024 };

struct file_look {
    struct fpindex *ix;
    const struct fpindex_look *look;
    const struct fpi_file *f;
    struct bfile *file;
    unsigned skip;                      /* leading bits that all keys of the file share */
    uint64_t entries;
    uint8_t seen[FPI_PRESENT_BYTES];    /* partitions that entries are of */
    uint8_t last[FPKEY_BYTES];
    int fences;                         /* fences in the page below; -1: it is damaged */
    unsigned faults;
    char what[160];                     /* the first fault */
    uint8_t fence[PAGE_BYTES];
    uint8_t pages[LOOK_PAGES * PAGE_BYTES];
};

static void fault(struct file_look *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void fault(struct file_look *l, const char *fmt, ...)
{
    va_list ap;
    if (l->faults++ > 0)
        return;
    va_start(ap, fmt);
    vsnprintf(l->what, sizeof l->what, fmt, ap);
    va_end(ap);
}

static void load_fences(struct file_look *l, uint32_t number)
{
    uint64_t page = 1 + (uint64_t)l->f->pages + number;
    ssize_t got = bf_read(l->file, l->fence, PAGE_BYTES, page * PAGE_BYTES);
    l->fences = got == PAGE_BYTES ? fpi_page_check(l->fence, FPI_FENCE, number, l->f->pages, l->f->seed) : -1;
    if (l->fences < 0)
        fault(l, "fence page %" PRIu32 " is damaged", number);
}

static void check_fence(struct file_look *l, uint32_t number, const uint8_t *key)
{
    int item = (int)(number % FPI_PAGE_FENCES);
    if (item >= l->fences)
        return;     /* reported with its page */
    if (get_le32(l->fence + FPI_HEAD + (size_t)item * 4) != fpi_fence_of(key, l->skip))
        fault(l, "the fence of data page %" PRIu32 " is not its first key's", number);
}

static void check_entry(struct file_look *l, uint32_t number, const uint8_t *entry)
{
    bool delta = l->f->partition == FPI_DELTA;
    uint32_t global = fpi_partition_of(entry, l->ix->bits), first = l->ix->slot * l->ix->partitions;
    uint64_t ref = fpi_entry_ref(entry);
    if (l->entries++ > 0 && memcmp(l->last, entry, FPKEY_BYTES) >= 0)
        fault(l, "data page %" PRIu32 ": its keys do not ascend", number);
    memcpy(l->last, entry, FPKEY_BYTES);
    if (global < first || global - first >= l->ix->partitions || (!delta && global - first != l->f->partition))
        fault(l, "data page %" PRIu32 ": a key is of another partition", number);
    else
        l->seen[(global - first) / 8] |= (uint8_t)(1u << ((global - first) % 8));
    if (!ref_is_block(ref) && !(delta && ref == REF_NONE))
        fault(l, "data page %" PRIu32 ": a reference is none", number);
}

static void check_page(struct file_look *l, uint32_t number, const uint8_t *page)
{
    if (number % FPI_PAGE_FENCES == 0)
        load_fences(l, number / FPI_PAGE_FENCES);
    int count = fpi_page_check(page, FPI_DATA, number, l->f->entries, l->f->seed);
    if (count < 0) {
        fault(l, "data page %" PRIu32 " is damaged", number);
        return;
    }
    check_fence(l, number, fpi_entry(page, 0));
    for (int i = 0; i < count; i++)
        check_entry(l, number, fpi_entry(page, (uint32_t)i));
}

static int check_pages(struct file_look *l)
{
    for (uint32_t number = 0, n; number < l->f->pages; number += n) {
        n = l->f->pages - number < LOOK_PAGES ? l->f->pages - number : LOOK_PAGES;
        ssize_t got = bf_read(l->file, l->pages, (size_t)n * PAGE_BYTES, (1 + (uint64_t)number) * PAGE_BYTES);
        if (got < (ssize_t)n * PAGE_BYTES) {
            fault(l, "data page %" PRIu32 " and what follows cannot be read: %s", number,
                  got < 0 ? strerror((int)-got) : "the file is shorter");
            return 0;
        }
        for (uint32_t i = 0; i < n; i++)
            check_page(l, number + i, l->pages + (size_t)i * PAGE_BYTES);
        int r = l->look->step == NULL ? 0 : l->look->step(l->look->ctx, (uint64_t)got);
        if (r < 0)
            return r;
    }
    if (l->f->present != NULL && l->faults == 0 && memcmp(l->f->present, l->seen, sizeof l->seen) != 0)
        fault(l, "the header names other partitions than there are");
    return 0;
}

static int tell(struct file_look *l, const char *name)
{
    char what[200];
    if (l->faults == 0 || l->look->bad == NULL)
        return 0;
    snprintf(what, sizeof what, "%s%s", l->what, l->faults > 1 ? ", and more" : "");
    return l->look->bad(l->look->ctx, name, what);
}

static int look_at_file(struct file_look *l, const struct fpi_file *f)
{
    char name[FPI_NAME_MAX];
    fpi_name(f->partition, f->number, name);
    l->f = f;
    l->skip = f->partition == FPI_DELTA ? l->ix->slot_bits : l->ix->bits;
    l->entries = 0;
    l->faults = 0;
    memset(l->seen, 0, sizeof l->seen);
    int r = bk_open(l->ix->b, l->ix->dir, name, BHINT_NONE, &l->file);
    if (r == -ENOENT) {
        l->ix->vanished = true;
        return 0;
    }
    if (r == -EMFILE || r == -ENFILE || r == -ENOMEM)
        return r;
    if (r < 0) {
        fault(l, "it cannot be opened: %s", strerror(-r));
        r = 0;
    } else {
        r = check_pages(l);
        bf_close(l->file);
    }
    return r < 0 ? r : tell(l, name);
}

static int look_at_files(struct fpindex *ix, const struct fpindex_look *look)
{
    struct file_look *l = malloc(sizeof *l);
    int r = 0;
    if (l == NULL)
        return -ENOMEM;
    l->ix = ix;
    l->look = look;
    for (uint32_t p = 0; r == 0 && p < ix->partitions; p++)
        if (ix->bases[p].number != 0)
            r = look_at_file(l, &ix->bases[p]);
    for (size_t i = 0; r == 0 && i < ix->ndeltas; i++)
        r = look_at_file(l, &ix->deltas[i]);
    free(l);
    return r;
}

/* Yields the live entries of a partition; stops when a file has vanished, because it may have hidden entries of older files. */
static int look_at_partition(struct fpindex *ix, uint32_t partition, const struct fpindex_look *look)
{
    struct fpi_set set;
    uint8_t bound[FPKEY_BYTES], key[FPKEY_BYTES];
    uint64_t ref;
    int r = fpi_set_open(ix, partition, look->memory > 0 ? look->memory : MEMORY_DEFAULT, &set, NULL);
    if (r == -ENOMEM || r == -EMFILE || r == -ENFILE)
        return r;
    if (r < 0)
        return 0;       /* reported with its file */
    bool bounded = fpi_set_begin(ix, partition, &set, bound);
    while (r == 0 && !ix->vanished && fpi_set_next(&set, bounded ? bound : NULL, key, &ref))
        r = ref_is_block(ref) ? look->entry(look->ctx, key, ref) : 0;
    fpi_set_close(&set);
    return r < 0 ? r : 0;
}

int fpindex_look(struct backend *b, const char *dir, uint32_t slot, uint32_t partitions, unsigned bits, const struct fpindex_look *look,
                 struct fpindex_stats *out, struct verr *err)
{
    struct fpindex *ix;
    struct verr why = {0};
    int r = fpi_open(b, dir, slot, partitions, bits, look, &ix, &why);
    if (r < 0) {
        if (err != NULL && err->code == 0)  /* a callback that shares err may have said more */
            *err = why;
        return r;
    }
    r = look_at_files(ix, look);
    for (uint32_t p = 0; r == 0 && look->entry != NULL && !ix->vanished && p < partitions; p++)
        r = look_at_partition(ix, p, look);
    if (r == 0)
        fpindex_stats(ix, out);
    else if (err != NULL && err->code == 0)
        verr_set(err, -r, "index/%04" PRIu32 ": %s", slot, strerror(-r));
    fpindex_close(ix);
    return r;
}
