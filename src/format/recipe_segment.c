/* SPDX-License-Identifier: Apache-2.0 */
/* Segment recipe: bytes <-> struct segrcp (docs/FORMAT.md "Segment recipe"). Snapshot recipe and side file: recipe.c. */
#include "format/recipe.h"

#include "format/record_internal.h"

#include <stdlib.h>

enum {
    SEG_DIGEST = 16, SEG_LENGTH = 32, SEG_NRUNS = 36, SEG_NBLOCKS = 40, SEG_DATA_PAGES = 44, SEG_RUNS = 48,
    RUN_BYTES = 12, BLOCK_BYTES = 6, /* 2 length, 4 prefix */
    SEG_MIN = SEG_RUNS + RUN_BYTES + RECORD_TAIL,
    SEG_MAX = SEG_RUNS + RUN_BYTES * SEGRCP_RUNS_MAX + BLOCK_BYTES * SEGRCP_BLOCKS_MAX + RECORD_TAIL,
};
_Static_assert((int)SEG_MAX <= (int)SEGRCP_BYTES_MAX, "the largest segment recipe must fit one block of a container");

/* What the runs and lengths say, with every count bounded by nblocks and SEG_BYTES: sums cannot overflow. */
struct seg_sums {
    uint32_t blocks, bytes, pages;
};

/* Adds a block at the end; pages that an earlier block touched already are not counted twice. */
static void sums_block(struct seg_sums *s, uint32_t len, uint32_t *next_page)
{
    uint32_t first = s->bytes / PAGE_BYTES, last = (s->bytes + len - 1) / PAGE_BYTES;
    if (first < *next_page)
        first = *next_page;
    if (last >= first)
        s->pages += last - first + 1;
    *next_page = last + 1;
    s->bytes += len;
    s->blocks++;
}

static const char *seg_sums(const struct segrcp *r, struct seg_sums *out)
{
    struct seg_sums s = {0};
    uint32_t next_page = 0;
    for (uint32_t i = 0; i < r->nruns; i++) {
        uint64_t ref = r->runs[i].ref;
        uint32_t count = r->runs[i].count;
        if (count == 0)
            return "empty run";
        if (ref == REF_ZERO) {
            if (count > SEG_BYTES - s.bytes)
                return "runs are longer than a segment";
            s.bytes += count;
            continue;
        }
        if (!ref_is_block(ref))
            return "reference is none";
        if (count > r->nblocks - s.blocks)
            return "runs have more blocks than the recipe";
        if ((uint64_t)ref_ordinal(ref) + (count - 1) >= UINT64_C(1) << ORDINAL_BITS)
            return "run leaves its container";
        for (uint32_t k = 0; k < count; k++) {
            uint32_t len = (uint32_t)r->len1[s.blocks] + 1;
            if (len > SEG_BYTES - s.bytes)
                return "blocks are longer than a segment";
            sums_block(&s, len, &next_page);
        }
    }
    *out = s;
    return NULL;
}

static const char *seg_problem(const struct segrcp *r)
{
    if (r->bytes == 0 || r->bytes > SEG_BYTES)
        return "length of the segment out of range";
    struct seg_sums s = {0};
    const char *problem = seg_sums(r, &s);
    if (problem != NULL)
        return problem;
    if (s.blocks != r->nblocks)
        return "runs have fewer blocks than the recipe";
    if (s.bytes != r->bytes)
        return "runs and lengths do not add up to the segment";
    if (s.pages != r->data_pages)
        return "number of data pages does not agree with the blocks";
    return NULL;
}

static bool seg_counts_valid(uint32_t nruns, uint32_t nblocks)
{
    return nruns >= 1 && nruns <= SEGRCP_RUNS_MAX && nblocks <= SEGRCP_BLOCKS_MAX;
}

static size_t seg_len(uint32_t nruns, uint32_t nblocks)
{
    return SEG_RUNS + RUN_BYTES * (size_t)nruns + BLOCK_BYTES * (size_t)nblocks + RECORD_TAIL;
}

uint32_t segrcp_data_pages(const struct segrcp *r)
{
    struct seg_sums s = {0};
    return seg_sums(r, &s) == NULL ? s.pages : 0;
}

int segrcp_encode(const struct segrcp *r, uint8_t *out, size_t cap)
{
    if (r->nruns > SEGRCP_RUNS_MAX || r->nblocks > SEGRCP_BLOCKS_MAX)
        return -E2BIG;
    if (r->nruns == 0 || seg_problem(r) != NULL)
        return -EINVAL;
    size_t len = seg_len(r->nruns, r->nblocks);
    if (len > cap)
        return -E2BIG;
    memcpy(out + SEG_DIGEST, r->digest, DIGEST_BYTES);
    put_le32(out + SEG_LENGTH, r->bytes);
    put_le32(out + SEG_NRUNS, r->nruns);
    put_le32(out + SEG_NBLOCKS, r->nblocks);
    put_le32(out + SEG_DATA_PAGES, r->data_pages);
    uint8_t *p = out + SEG_RUNS;
    for (uint32_t i = 0; i < r->nruns; i++, p += RUN_BYTES) {
        put_le64(p, r->runs[i].ref);
        put_le32(p + 8, r->runs[i].count);
    }
    for (uint32_t i = 0; i < r->nblocks; i++, p += 2)
        put_le16(p, r->len1[i]);
    for (uint32_t i = 0; i < r->nblocks; i++, p += 4)
        put_le32(p, r->prefix[i]);
    seal_close(&(struct seal){.kind = SEAL_SEGMENT}, out, len);
    return (int)len;
}

/* One allocation, widest type first so that each array is aligned: runs, prefixes, lengths. */
static int seg_carve(struct segrcp *r)
{
    size_t runs = r->nruns * sizeof *r->runs, prefixes = r->nblocks * sizeof *r->prefix, lens = r->nblocks * sizeof *r->len1;
    uint8_t *mem = malloc(runs + prefixes + lens);
    if (mem == NULL)
        return -ENOMEM;
    r->runs = (struct segrcp_run *)(void *)mem;
    r->prefix = (uint32_t *)(void *)(mem + runs);
    r->len1 = (uint16_t *)(void *)(mem + runs + prefixes);
    return 0;
}

static void seg_arrays(const uint8_t *p, struct segrcp *r)
{
    for (uint32_t i = 0; i < r->nruns; i++, p += RUN_BYTES)
        r->runs[i] = (struct segrcp_run){.ref = get_le64(p), .count = get_le32(p + 8)};
    for (uint32_t i = 0; i < r->nblocks; i++, p += 2)
        r->len1[i] = get_le16(p);
    for (uint32_t i = 0; i < r->nblocks; i++, p += 4)
        r->prefix[i] = get_le32(p);
}

int segrcp_decode(const uint8_t *data, size_t len, struct segrcp *out, const char **why)
{
    int bad = seal_open(&(struct seal){.kind = SEAL_SEGMENT, .anywhere = true}, data, len, why);
    if (bad < 0)
        return bad;
    if (len < SEG_MIN || len > SEG_MAX)
        return record_bad(why, "length out of range");
    struct segrcp r = {
        .bytes = get_le32(data + SEG_LENGTH), .nruns = get_le32(data + SEG_NRUNS), .nblocks = get_le32(data + SEG_NBLOCKS),
        .data_pages = get_le32(data + SEG_DATA_PAGES),
    };
    memcpy(r.digest, data + SEG_DIGEST, DIGEST_BYTES);
    if (!seg_counts_valid(r.nruns, r.nblocks) || seg_len(r.nruns, r.nblocks) != len)
        return record_bad(why, "numbers of runs and blocks do not agree with the record");
    bad = seg_carve(&r);
    if (bad < 0) {
        if (why != NULL)
            *why = "out of memory";
        return bad;
    }
    seg_arrays(data + SEG_RUNS, &r);
    const char *problem = seg_problem(&r);
    if (problem != NULL) {
        segrcp_release(&r);
        return record_bad(why, problem);
    }
    *out = r;
    return 0;
}

void segrcp_release(struct segrcp *r)
{
    free(r->runs);
    *r = (struct segrcp){0};
}
