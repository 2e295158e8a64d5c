/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index DIR ENTRIES ONE_OF REQUESTS: how many bytes a comparison of REQUESTS blocks with an index of ENTRIES blocks reads,
 * and how many the delta writes that its new blocks make. DIR is made and left to the caller; a second call uses it again.
 *
 * Where the disk is too small for all of the index, one slot out of ONE_OF is made: its partitions are as large as they are
 * in the whole index, and it gets its share of the requests. What it counts times ONE_OF is the figure for all of it.
 * Half of the requests are known. Prints one line of JSON.
 */
#include "base/hash.h"
#include "base/verr.h"
#include "fpindex/fpindex.h"
#include "store/backend_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PARTITION_ENTRIES = 250000, MEMORY = 8 << 20 };      /* entries: what 10^9 blocks in 4096 partitions have */

static struct verr err;
static uint64_t entries, one_of, here;          /* in the whole index; in this slot: here */
static uint32_t partitions;
static unsigned bits;

static void check(int rc, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "index: %s: %s\n", what, verr_str(&err));
    exit(1);
}

/* Key i of 2 * entries, ascending; even ones are in the index. This slot holds the first 2 * here. */
static void key_of(uint64_t i, uint8_t key[FPKEY_BYTES])
{
    uint64_t step = UINT64_MAX / (2 * entries), noise = hash64_seed(&i, sizeof i, 1);
    uint64_t v = i * step + noise % step;
    for (int k = 0; k < 8; k++)
        key[k] = (uint8_t)(v >> (56 - 8 * k));
    memcpy(key + 8, &noise, 8);
    memset(key + 16, 0x5a, 8);
}

static uint32_t partition_of(uint64_t i)
{
    uint8_t key[FPKEY_BYTES];
    key_of(i, key);
    uint32_t first = (uint32_t)key[0] << 24 | (uint32_t)key[1] << 16 | (uint32_t)key[2] << 8 | key[3];
    return bits == 0 ? 0 : first >> (32 - bits);
}

static void build(struct fpindex *ix)
{
    struct fpdelta *d;
    check(fpdelta_begin(ix, &d, &err), "building");
    for (uint64_t i = 0; i < here; i++) {
        uint8_t key[FPKEY_BYTES];
        key_of(2 * i, key);
        if (partition_of(2 * i) < partitions)   /* rounding: the last few may belong to the next slot */
            check(fpdelta_add(d, key, ref_make(1 + i / 100000, (uint32_t)(i % 100000)), &err), "building");
    }
    check(fpdelta_commit(d, &err), "building");
    check(fpindex_merge(ix, true, MEMORY, &err), "merging");
}

struct ask { uint64_t next, n, step; uint32_t partition; struct fpdelta *delta; uint64_t hits, news; };

static uint64_t nth(const struct ask *a, uint64_t i) { return i * a->step + hash64_seed(&i, sizeof i, 7) % a->step; }

static int next_key(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct ask *a = ctx;
    if (a->next == a->n || partition_of(nth(a, a->next)) != a->partition)
        return 0;
    key_of(nth(a, a->next++), key);
    return 1;
}

static int answer(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct ask *a = ctx;
    if (ref != REF_NONE) {
        a->hits++;
        return 0;
    }
    return fpdelta_add(a->delta, key, ref_make(9, (uint32_t)a->news++), &err);
}

/* What a round does with the answers: compare partition by partition, then one delta, then a merge if one is due. */
static void ask_all(struct fpindex *ix, struct ask *a)
{
    check(fpdelta_begin(ix, &a->delta, &err), "asking");
    while (a->next < a->n) {
        uint64_t first = a->next, count = 0;
        a->partition = partition_of(nth(a, first));
        while (first + count < a->n && partition_of(nth(a, first + count)) == a->partition)
            count++;
        if (a->partition >= partitions)
            break;
        check(fpindex_compare(ix, a->partition, count, FPINDEX_AUTO, MEMORY, next_key, answer, a, &err), "asking");
    }
    check(fpdelta_commit(a->delta, &err), "writing the delta");
    check(fpindex_merge(ix, false, MEMORY, &err), "merging");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct fpindex *ix;
    struct fpindex_stats before, after;
    if (argc != 5) {
        fprintf(stderr, "usage: index DIR ENTRIES ONE_OF REQUESTS\n");
        return 2;
    }
    entries = strtoull(argv[2], NULL, 0);
    one_of = strtoull(argv[3], NULL, 0);
    uint64_t requests = strtoull(argv[4], NULL, 0) / one_of;
    while (bits < 12 && (entries >> bits) > PARTITION_ENTRIES)
        bits++;
    partitions = (uint32_t)((1u << bits) / one_of);
    here = entries / one_of;
    if (partitions == 0 || requests == 0 || (mkdir(argv[1], 0700) < 0 && errno != EEXIST)) {
        fprintf(stderr, "index: ONE_OF is too large, or %s cannot be made\n", argv[1]);
        return 2;
    }
    struct backend *b = NULL;
    if (backend_dir_open(argv[1], &b) < 0)
        return 2;
    check(fpindex_open(b, "", 0, partitions, bits, &ix, &err), argv[1]);
    fpindex_stats(ix, &before);
    if (before.entries == 0)
        build(ix);
    fpindex_close(ix);          /* so that nothing is left in memory */
    check(fpindex_open(b, "", 0, partitions, bits, &ix, &err), argv[1]);
    fpindex_stats(ix, &before);
    struct ask a = {.n = requests, .step = 2 * here / requests};
    double begin = seconds();
    ask_all(ix, &a);
    double took = seconds() - begin;
    fpindex_stats(ix, &after);
    printf("{\"entries\": %llu, \"one_of\": %llu, \"requests\": %llu, \"partitions\": %u, \"index_bytes\": %llu, \"read_bytes\": %llu, "
           "\"written_bytes\": %llu, \"seconds\": %.4f, \"hits\": %llu, \"new\": %llu}\n",
           (unsigned long long)entries, (unsigned long long)one_of, (unsigned long long)(requests * one_of), 1u << bits,
           (unsigned long long)(before.bytes * one_of), (unsigned long long)((after.bytes_read - before.bytes_read) * one_of),
           (unsigned long long)((after.bytes_written - before.bytes_written) * one_of), took * (double)one_of,
           (unsigned long long)(a.hits * one_of), (unsigned long long)(a.news * one_of));
    fpindex_close(ix);
    bk_destroy(b);
    return 0;
}
