/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fpindex: the files of one slot: which of them exist, which count, and which are leftovers of a crash.
 *
 * State of a partition P is (newest base of P) + (deltas numbered above its merged_through), newer over older:
 *
 *   on disk                                  how it came                        what is read
 *   base-P-4, delta-9                        merged through 8                   both
 *   base-P-4, base-P-5, delta-9              merge: new base linked             base-P-5 (it includes delta-9)
 *   base-P-5, delta-9                        merge: old base unlinked           base-P-5
 *   base-P-5                                 every base includes delta-9        base-P-5
 *
 * Files are open only during a compare or a merge, and those of deltas until fpindex_rest, so that an idle slot holds none.
 */
#include "fpindex/fpindex_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SCAN_RATE_DEFAULT 1e9
#define PROBE_S_DEFAULT 20e-6

void fpi_name(uint32_t partition, uint64_t number, char out[FPI_NAME_MAX])
{
    if (partition == FPI_DELTA)
        snprintf(out, FPI_NAME_MAX, "delta-%" PRIu64, number);
    else
        snprintf(out, FPI_NAME_MAX, "base-%04" PRIu32 "-%" PRIu64, partition, number);
}

/* Parses the name of an index file, in the one spelling that fpi_name gives. 19 digits fit 64 bits. */
static bool parse_name(const char *name, uint32_t *partition, uint64_t *number)
{
    uint32_t p = FPI_DELTA;
    uint64_t n = 0;
    char again[FPI_NAME_MAX];
    /* NOLINTNEXTLINE(cert-err34-c): no number of that width is out of range */
    if (sscanf(name, "delta-%19" SCNu64, &n) != 1 && sscanf(name, "base-%4" SCNu32 "-%19" SCNu64, &p, &n) != 2)
        return false;
    fpi_name(p, n, again);
    if (n == 0 || strcmp(again, name) != 0)
        return false;
    *partition = p;
    *number = n;
    return true;
}

void fpi_mark_damaged(struct fpindex *ix, struct fpi_file *f)
{
    if (!f->damaged)
        ix->damaged_files++;
    f->damaged = true;
}

void fpi_file_fill(struct fpi_file *f, const struct fpi_header *h)
{
    uint8_t *present = f->present;
    *f = (struct fpi_file){
        .number = h->number, .merged_through = h->merged_through, .entries = h->entries, .seed = h->seed,
        .bytes = fpi_file_bytes(h->entries), .partition = h->partition, .pages = (uint32_t)fpi_data_pages(h->entries),
        .present = present,
    };
    if (present != NULL)
        memcpy(present, h->present, FPI_PRESENT_BYTES);
}

int fpi_delta_insert(struct fpindex *ix, const struct fpi_header *h)
{
    if (ix->ndeltas == ix->deltas_cap) {
        size_t cap = ix->deltas_cap == 0 ? 16 : ix->deltas_cap * 2;
        struct fpi_file *more = realloc(ix->deltas, cap * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        ix->deltas = more;
        ix->deltas_cap = cap;
    }
    struct fpi_file f = {.present = malloc(FPI_PRESENT_BYTES)};
    if (f.present == NULL)
        return -ENOMEM;
    fpi_file_fill(&f, h);
    size_t at = ix->ndeltas;
    while (at > 0 && ix->deltas[at - 1].number > f.number)
        at--;
    memmove(ix->deltas + at + 1, ix->deltas + at, (ix->ndeltas - at) * sizeof f);
    ix->deltas[at] = f;
    ix->ndeltas++;
    return 0;
}

/* ---- listing ---- */

struct scan { struct fpindex *ix; const struct fpindex_look *look; struct verr *err; };

/* Reads a file's header, and checks that it is intact, belongs to this slot and name, and fits the file's size. */
static int load_header(struct fpindex *ix, const char *name, struct fpi_header *h, const char **why)
{
    uint8_t page[PAGE_BYTES];
    struct bstat st;
    struct bfile *f;
    int r = bk_open(ix->b, ix->dir, name, BHINT_NONE, &f);
    if (r < 0)
        return r;
    ssize_t got = 0;
    *why = "not a regular file that can be read";
    if (bf_stat(f, &st) < 0 || !st.regular || (got = bf_read(f, page, sizeof page, 0)) < 0)
        r = -EBADMSG;
    if (r == 0)
        ix->bytes_read += (uint64_t)got;
    if (r == 0 && got < (ssize_t)sizeof page) {
        *why = "shorter than its header";
        r = -EBADMSG;
    }
    if (r == 0)
        r = fpi_header_decode(page, h, why);
    if (r == 0 && st.bytes != fpi_file_bytes(h->entries)) {
        *why = "its size does not fit the number of entries";
        r = -EBADMSG;
    }
    bf_close(f);
    return r;
}

static void set_aside(struct fpindex *ix, const char *name)
{
    char aside[300];
    snprintf(aside, sizeof aside, ".damaged-%s", name);
    /* If this fails (a read-only STORE), the file is ignored too, and found again at the next open. */
    (void)bk_move(ix->b, ix->dir, name, ix->dir, aside);
    ix->damaged_files++;
}

static int tell_bad(const struct scan *s, const char *name, const char *what)
{
    s->ix->damaged_files++;
    return s->look->bad == NULL ? 0 : s->look->bad(s->look->ctx, name, what);
}

/* Is it an error of this process, which says nothing of the file? */
static bool of_process(int r)
{
    return r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -EINTR;
}

static int take_file(struct fpindex *ix, const struct fpi_header *h)
{
    if (h->merged_through >= ix->next_delta)
        ix->next_delta = h->merged_through + 1;
    if (h->partition == FPI_DELTA)
        return fpi_delta_insert(ix, h);
    struct fpi_file *base = &ix->bases[h->partition];
    if (h->number > base->number)
        fpi_file_fill(base, h);
    return 0;
}

static int see_file(void *ctx, const char *name)
{
    struct scan *s = ctx;
    struct fpindex *ix = s->ix;
    uint32_t partition;
    uint64_t number;
    struct fpi_header h = {0};
    const char *why = "";
    /* A number once seen is not used again, even if its file is damaged: a base may say that it includes that delta. */
    const char *known = strncmp(name, ".damaged-", 9) == 0 ? name + 9 : name;
    bool ours = parse_name(known, &partition, &number) && number < UINT64_MAX / 2;
    if (ours && partition == FPI_DELTA && number >= ix->next_delta)
        ix->next_delta = number + 1;
    if (ours && partition != FPI_DELTA && number >= ix->next_base)
        ix->next_base = number + 1;
    if (strncmp(name, "base-", 5) != 0 && strncmp(name, "delta-", 6) != 0)
        return s->look == NULL || strncmp(name, ".tmp-", 5) == 0 ? 0 : tell_bad(s, name, known != name ? "set aside as damaged" : NULL);
    if (!ours)
        why = "a name that the index does not give";
    int r = ours ? load_header(ix, name, &h, &why) : -EBADMSG;
    if (r == 0 && (h.slot != ix->slot || h.partitions != ix->partitions || h.bits != ix->bits || h.partition != partition ||
                   h.number != number || h.merged_through >= UINT64_MAX / 2)) {
        why = "it is of another slot, partition or number";
        r = -EBADMSG;
    }
    if (r == 0)
        r = take_file(ix, &h);
    if (r == -ENOENT)
        return 0;       /* the file was removed after it was listed */
    if (r < 0 && s->look != NULL && !of_process(r))
        return tell_bad(s, name, r == -EBADMSG || r == -ENOTSUP ? why : strerror(-r));
    if (r == -EBADMSG || r == -ELOOP || r == -EIO || r == -ESTALE || r == -ENXIO) {
        set_aside(ix, name);
        return 0;
    }
    if (r == -ENOTSUP)
        return verr_set(s->err, ENOTSUP, "index/%04" PRIu32 "/%s: %s; use that version, or remove index/ and run varve rebuild",
                        ix->slot, name, why);
    if (r < 0)
        return verr_set(s->err, -r, "index/%04" PRIu32 "/%s: %s", ix->slot, name, strerror(-r));
    return 0;
}

static int sweep_file(void *ctx, const char *name)
{
    struct fpindex *ix = ctx;
    uint32_t partition;
    uint64_t number;
    bool old = strncmp(name, ".tmp-", 5) == 0;
    if (parse_name(name, &partition, &number) && partition != FPI_DELTA && partition < ix->partitions)
        old = number < ix->bases[partition].number;
    int r = old ? bk_remove(ix->b, ix->dir, name) : 0;
    return r == -ENOENT ? 0 : r;
}

int fpi_sweep(struct fpindex *ix, struct verr *err)
{
    if (ix->swept)
        return 0;
    /* The names that open has listed become durable before any file is removed because of them. */
    int r = bk_sync(ix->b, ix->dir);
    if (r == 0)
        r = bk_list(ix->b, ix->dir, sweep_file, ix);
    if (r < 0)
        return verr_set(err, -r, "index/%04" PRIu32 ": cannot remove leftovers: %s", ix->slot, strerror(-r));
    ix->swept = true;
    return 0;
}

/* ---- public ---- */

static int make_slot_dir(struct backend *b, const char *dir, uint32_t slot, struct verr *err)
{
    char name[16];
    struct bstat st;
    snprintf(name, sizeof name, "%04" PRIu32, slot);
    int r = bk_stat_name(b, dir, name, &st);
    if (r == -ENOENT)
        r = bk_make_dir(b, dir, name);
    return r < 0 ? verr_set(err, -r, "index/%s: %s", name, strerror(-r)) : 0;
}

static int check_shape(uint32_t slot, uint32_t partitions, unsigned bits, struct verr *err)
{
    if (partitions == 0 || partitions > FPI_PARTITIONS_MAX || (partitions & (partitions - 1)) != 0 || bits > FPI_BITS_MAX ||
        ((uint64_t)slot + 1) * partitions > UINT64_C(1) << bits)
        return verr_set(err, EINVAL, "index: slot %" PRIu32 " of %" PRIu32 " partitions does not fit %u bits", slot, partitions, bits);
    return 0;
}

int fpi_open(struct backend *b, const char *dir, uint32_t slot, uint32_t partitions, unsigned bits, const struct fpindex_look *look, struct fpindex **out,
             struct verr *err)
{
    int r = check_shape(slot, partitions, bits, err);
    struct fpindex *ix = r < 0 ? NULL : calloc(1, sizeof *ix);
    if (ix == NULL || (ix->bases = calloc(partitions, sizeof *ix->bases)) == NULL) {
        free(ix);
        return r < 0 ? r : verr_set(err, ENOMEM, "index: no memory for slot %" PRIu32, slot);
    }
    ix->slot = slot;
    ix->partitions = partitions;
    ix->bits = bits;
    ix->slot_bits = bits - (unsigned)__builtin_ctz(partitions);
    ix->next_delta = ix->next_base = 1;
    ix->scan_rate = SCAN_RATE_DEFAULT;
    ix->probe_s = PROBE_S_DEFAULT;
    struct verr inner = {0};
    struct scan s = {ix, look, &inner};
    ix->b = b;
    snprintf(ix->dir, sizeof ix->dir, "%s%s%04" PRIu32, dir, dir[0] == '\0' ? "" : "/", slot);
    r = bk_list(b, ix->dir, see_file, &s);
    if (r < 0) {
        if (inner.code != 0)
            verr_set(err, -r, "%s", verr_str(&inner));
        else
            verr_set(err, -r, "index/%04" PRIu32 ": %s", slot, strerror(-r));
        fpindex_close(ix);
        return r;
    }
    *out = ix;
    return 0;
}

int fpindex_open(struct backend *b, const char *dir, uint32_t slot, uint32_t partitions, unsigned bits, struct fpindex **out,
                 struct verr *err)
{
    int r = check_shape(slot, partitions, bits, err);
    if (r == 0)
        r = make_slot_dir(b, dir, slot, err);
    return r < 0 ? r : fpi_open(b, dir, slot, partitions, bits, NULL, out, err);
}

void fpindex_rest(struct fpindex *ix)
{
    for (size_t i = 0; i < ix->ndeltas; i++) {
        bf_close(ix->deltas[i].open);
        ix->deltas[i].open = NULL;
    }
}

static void forget_files(struct fpindex *ix)
{
    fpindex_rest(ix);
    for (size_t i = 0; i < ix->ndeltas; i++)
        free(ix->deltas[i].present);
    ix->ndeltas = 0;
    memset(ix->bases, 0, ix->partitions * sizeof *ix->bases);
}

void fpindex_close(struct fpindex *ix)
{
    if (ix == NULL)
        return;
    forget_files(ix);
    free(ix->deltas);
    free(ix->bases);
    free(ix);
}

void fpindex_stats(const struct fpindex *ix, struct fpindex_stats *out)
{
    struct fpindex_stats s = {
        .deltas = ix->ndeltas, .damaged_files = ix->damaged_files, .bytes_read = ix->bytes_read,
        .bytes_written = ix->bytes_written, .probes = ix->probes, .scans = ix->scans,
    };
    for (uint32_t p = 0; p < ix->partitions; p++) {
        s.bases += ix->bases[p].number != 0;
        s.entries += ix->bases[p].entries;
        s.bytes += ix->bases[p].bytes;
    }
    for (size_t i = 0; i < ix->ndeltas; i++) {
        s.entries += ix->deltas[i].entries;
        s.bytes += ix->deltas[i].bytes;
    }
    *out = s;
}

int fpindex_clear(struct fpindex *ix, struct verr *err)
{
    int r = bk_clear(ix->b, ix->dir);
    if (r < 0)
        return verr_set(err, -r, "index/%04" PRIu32 ": cannot be emptied: %s", ix->slot, strerror(-r));
    /* Numbers go on counting, so that a new file never has the number of a removed one. */
    forget_files(ix);
    return 0;
}

void fpindex_set_rates(struct fpindex *ix, double scan_bytes_per_s, double probe_s)
{
    if (scan_bytes_per_s > 0)
        ix->scan_rate = scan_bytes_per_s;
    if (probe_s > 0)
        ix->probe_s = probe_s;
}
