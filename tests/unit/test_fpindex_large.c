/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ten million entries (half a million under sanitizers), through several deltas and a merge: every answer right, both
 * ways; memory bounded; a small request reads a small part of the index.
 */
#include "fpindex/fpindex.h"
#include "store/backend_dir.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/verr.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SCALE = 20 };
#else
enum { SCALE = 1 };
#endif
enum { ENTRIES = 10000000 / SCALE, DELTAS = 4, REQUESTS = 1000000 / SCALE, FEW = 5000 / SCALE, PARTITIONS = 2, BITS = 1, MEMORY = 8 << 20 };

/* Key number i of 2 * ENTRIES, ascending with i; even ones are in the index. Nothing needs to be kept to know them all. */
static void key_of(uint64_t i, uint8_t key[FPKEY_BYTES])
{
    uint64_t step = UINT64_MAX / (2 * (uint64_t)ENTRIES), noise = hash64_seed(&i, sizeof i, 1);
    uint64_t v = i * step + noise % step;
    for (int k = 0; k < 8; k++)
        key[k] = (uint8_t)(v >> (56 - 8 * k));
    memcpy(key + 8, &noise, 8);
    memset(key + 16, 0x5a, 8);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct ask { uint64_t at, end, step, asked, seen, hits; };

static int ask_next(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct ask *a = ctx;
    if (a->asked >= a->end)
        return 0;
    key_of(a->asked, key);
    a->asked += a->step;
    return 1;
}

static int ask_answer(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct ask *a = ctx;
    uint8_t want[FPKEY_BYTES];
    (void)key;
    key_of(a->at, want);
    assert_memory_equal(key, want, FPKEY_BYTES);
    assert_int_equal(ref, a->at % 2 == 0 ? a->at : REF_NONE);
    a->hits += ref != REF_NONE;
    a->at += a->step;
    a->seen++;
    return 0;
}

/* Asks n keys spread over all the index, about half of which it has. */
static struct fpindex_stats ask(struct fpindex *ix, const char *what, uint64_t n, enum fpindex_way way)
{
    struct fpindex_stats before, after;
    struct verr err = {0};
    uint64_t seen = 0, hits = 0, step = (2 * (uint64_t)ENTRIES / n) | 1;
    uint8_t key[FPKEY_BYTES];
    double begin = seconds();
    fpindex_stats(ix, &before);
    uint64_t at = 0;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        uint64_t end = p + 1 == PARTITIONS ? 2 * (uint64_t)ENTRIES : ENTRIES;
        for (; end > 0; end--) {        /* the border between the partitions, up to rounding */
            key_of(end - 1, key);
            if (key[0] >> 7 <= p)
                break;
        }
        struct ask a = {.at = at, .asked = at, .end = end, .step = step};
        if (fpindex_compare(ix, p, n / PARTITIONS, way, MEMORY, ask_next, ask_answer, &a, &err) != 0)
            fail_msg("%s", verr_str(&err));
        assert_int_equal(a.asked, a.at);
        at = a.at;
        seen += a.seen;
        hits += a.hits;
    }
    assert_in_range(seen, n * 3 / 4, n * 4 / 3);
    assert_in_range(hits, seen / 2 - 1, seen / 2 + 1);
    fpindex_stats(ix, &after);
    after.bytes_read -= before.bytes_read;
    after.probes -= before.probes;
    after.scans -= before.scans;
    print_message("%-34s %7llu keys %6.2f s  %9.2f MB read, index %.0f MB\n", what, (unsigned long long)seen, seconds() - begin,
                  (double)after.bytes_read / 1e6, (double)after.bytes / 1e6);
    return after;
}

static long peak_kb(void)
{
    FILE *f = fopen("/proc/self/status", "re");
    char line[200];
    long kb = -1;
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %ld", &kb) == 1)
            break;
    fclose(f);
    return kb;
}

static void ten_million_entries_need_little_memory_and_few_reads(void **state)
{
    (void)state;
    char root[] = "/tmp/varve-fpindex-large-XXXXXX";
    struct verr err = {0};
    struct fpindex *ix = NULL;
    uint8_t key[FPKEY_BYTES];
    assert_non_null(mkdtemp(root));
    struct backend *b = NULL;
    assert_int_equal(backend_dir_open(root, &b), 0);
    assert_int_equal(fpindex_open(b, "", 0, PARTITIONS, BITS, &ix, &err), 0);
    double begin = seconds();
    for (uint64_t d = 0; d < DELTAS; d++) {
        struct fpdelta *delta = NULL;
        assert_int_equal(fpdelta_begin(ix, &delta, &err), 0);
        for (uint64_t i = d; i < ENTRIES; i += DELTAS) {
            key_of(2 * i, key);
            if (fpdelta_add(delta, key, 2 * i, &err) != 0)
                fail_msg("%s", verr_str(&err));
        }
        assert_int_equal(fpdelta_commit(delta, &err), 0);
    }
    print_message("deltas written: %.2f s\n", seconds() - begin);
    ask(ix, "probe of 4 deltas", FEW, FPINDEX_PROBE);
    begin = seconds();
    if (fpindex_merge(ix, true, MEMORY, &err) != 0)
        fail_msg("%s", verr_str(&err));
    print_message("merged: %.2f s\n", seconds() - begin);
    struct fpindex_stats s = ask(ix, "merge", REQUESTS, FPINDEX_MERGE);
    assert_int_equal(s.entries, ENTRIES);
    assert_int_equal(s.deltas, 0);
    s = ask(ix, "auto, few keys", FEW, FPINDEX_AUTO);
    assert_true(s.probes > 0 && s.scans == 0);
    assert_true(s.bytes_read < s.bytes / 8);
    assert_true(s.bytes_read < (uint64_t)FEW * 3 * 4096);   /* less than a page of fences and two of entries for each key */
    ask(ix, "probe, as many", REQUESTS / 10, FPINDEX_PROBE);
    assert_int_equal(s.damaged_files, 0);
    fpindex_close(ix);
    bk_destroy(b);
    assert_int_equal(tree_remove(AT_FDCWD, root), 0);
    long kb = peak_kb();
    print_message("VmHWM %ld kB\n", kb);
#ifndef __SANITIZE_ADDRESS__
    assert_in_range(kb, 1, 100 * 1000);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ten_million_entries_need_little_memory_and_few_reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
