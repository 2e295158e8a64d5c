/* SPDX-License-Identifier: Apache-2.0 */
/* extsort against a plain stable sort in memory, with memory small enough for many runs and several passes. */
#include "base/extsort.h"
#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char dir_name[] = "/tmp/varve-extsort-XXXXXX";
static int dir = -1;
static uint64_t rng;

static uint64_t rnd(void)
{
    rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = rng;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int setup(void **state)
{
    (void)state;
    const char *seed = getenv("VARVE_SEED");
    rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
    if (mkdtemp(dir_name) == NULL)
        return -1;
    dir = dir_open(AT_FDCWD, dir_name);
    return dir < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    close(dir);
    return tree_remove(AT_FDCWD, dir_name);
}

/* The oracle: qsort over key, then order of arrival, which the last 4 bytes of each expected element hold. */
static size_t oracle_key, oracle_record;

static int oracle_cmp(const void *a, const void *b)
{
    int c = memcmp(a, b, oracle_key);
    if (c != 0)
        return c;
    uint32_t i, k;
    memcpy(&i, (const uint8_t *)a + oracle_record, 4);
    memcpy(&k, (const uint8_t *)b + oracle_record, 4);
    return i < k ? -1 : i > k;
}

struct sort_case {
    size_t record, key, memory, count;
    unsigned key_bits; /* random bits in the key: few make many equal keys */
};

static void fill(uint8_t *record, const struct sort_case *c)
{
    for (size_t i = 0; i < c->record; i++)
        record[i] = (uint8_t)rnd();
    uint64_t v = c->key_bits >= 64 ? rnd() : rnd() & ((UINT64_C(1) << c->key_bits) - 1);
    if (c->key_bits < 64) {
        memset(record, 0x55, c->key);
        for (size_t i = 0; i < c->key && i < 8; i++) /* at the end of the key: long common prefixes */
            record[c->key - 1 - i] = (uint8_t)(v >> (8 * i));
    }
}

static void check_case(const struct sort_case *c)
{
    struct verr err = {0};
    size_t element = c->record + 4;
    uint8_t *want = malloc(c->count * element + 1);
    assert_non_null(want);
    struct extsort *xs = extsort_new(dir, c->record, c->key, c->memory, &err);
    assert_non_null(xs);
    for (size_t i = 0; i < c->count; i++) {
        uint32_t arrival = (uint32_t)i;
        fill(want + i * element, c);
        memcpy(want + i * element + c->record, &arrival, 4);
        assert_int_equal(extsort_add(xs, want + i * element, &err), 0);
    }
    oracle_key = c->key;
    oracle_record = c->record;
    qsort(want, c->count, element, oracle_cmp);
    assert_int_equal(extsort_sorted(xs, &err), 0);
    assert_int_equal(extsort_count(xs), c->count);
    uint8_t got[4096];
    for (size_t i = 0; i < c->count; i++) {
        assert_int_equal(extsort_next(xs, got, &err), 1);
        assert_memory_equal(got, want + i * element, c->record);
    }
    assert_int_equal(extsort_next(xs, got, &err), 0);
    assert_int_equal(extsort_next(xs, got, &err), 0);
    extsort_free(xs);
    free(want);
}

static void sorts_in_memory_like_qsort(void **state)
{
    (void)state;
    static const struct sort_case cases[] = {
        {40, 32, 1 << 20, 0, 64}, {40, 32, 1 << 20, 1, 64}, {40, 32, 1 << 20, 2, 1}, {40, 32, 1 << 20, 13, 2},
        {40, 32, 1 << 20, 10000, 64}, {1, 1, 1 << 20, 5000, 64}, {12, 3, 1 << 20, 9999, 64}, {48, 9, 1 << 20, 5000, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(&cases[i]);
}

/* 64 KiB hold 650 or so records of 40 bytes and merge 4 runs at once: 60 000 are 90 runs and 3 passes. */
static void sorts_many_runs_in_several_passes(void **state)
{
    (void)state;
    static const struct sort_case cases[] = {
        {40, 32, 0, 60000, 64}, {40, 32, 0, 2000, 64}, {40, 8, 100 * 1024, 60000, 64}, {4096, 4096, 0, 1500, 64},
        {4000, 20, 200 * 1024, 2000, 64}, {16, 7, 300 * 1024, 100000, 64}, {9, 9, 0, 50000, 64}, {40, 32, 4 << 20, 100000, 64},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(&cases[i]);
}

static void equal_keys_keep_their_order_of_arrival(void **state)
{
    (void)state;
    static const struct sort_case cases[] = {
        {40, 32, 0, 30000, 0}, {40, 32, 0, 30000, 3}, {20, 2, 0, 40000, 4}, {40, 16, 1 << 20, 8000, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_case(&cases[i]);
}

static void random_shapes_sort_like_qsort(void **state)
{
    (void)state;
    for (int i = 0; i < 30; i++) {
        struct sort_case c = {.record = 1 + rnd() % (rnd() % 4 == 0 ? 4096 : 100), .memory = rnd() % (256 * 1024)};
        c.key_bits = (unsigned)(rnd() % 70);
        c.key = 1 + rnd() % c.record;
        c.count = rnd() % (400 * 1024 / c.record + 2000);
        check_case(&c);
    }
}

static void wrong_calls_are_refused(void **state)
{
    (void)state;
    struct verr err = {0};
    assert_null(extsort_new(dir, 0, 1, 0, &err));
    assert_int_equal(err.code, EINVAL);
    assert_null(extsort_new(dir, 4097, 1, 0, NULL));
    assert_null(extsort_new(dir, 8, 9, 0, NULL));
    assert_null(extsort_new(dir, 8, 0, 0, NULL));
    uint8_t record[8] = {0};
    struct extsort *xs = extsort_new(dir, 8, 8, 0, &err);
    assert_non_null(xs);
    assert_int_equal(extsort_next(xs, record, &err), -EINVAL);
    assert_int_equal(extsort_add(xs, record, &err), 0);
    assert_int_equal(extsort_sorted(xs, &err), 0);
    assert_int_equal(extsort_sorted(xs, &err), 0);
    assert_int_equal(extsort_add(xs, record, &err), -EINVAL);
    assert_int_equal(extsort_next(xs, record, &err), 1);
    extsort_free(xs);
    extsort_free(NULL);
}

static int count_entry(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static void temporary_files_have_no_name_and_their_errors_are_final(void **state)
{
    (void)state;
    struct verr err = {0};
    uint8_t record[4096] = {0};
    struct extsort *xs = extsort_new(dir, sizeof record, 8, 0, &err);
    assert_non_null(xs);
    for (int i = 0; i < 100; i++)
        assert_int_equal(extsort_add(xs, record, &err), 0);
    int n = 0;
    assert_int_equal(dir_each(dir, count_entry, &n), 0);
    assert_int_equal(n, 0);
    extsort_free(xs);

    xs = extsort_new(-1, sizeof record, 8, 0, &err); /* no directory: adding fails once the array is full */
    assert_non_null(xs);
    int r = 0;
    for (int i = 0; i < 100 && r == 0; i++)
        r = extsort_add(xs, record, &err);
    assert_int_equal(r, -EBADF);
    assert_int_equal(err.code, EBADF);
    assert_int_equal(extsort_add(xs, record, &err), -EBADF);
    assert_int_equal(extsort_sorted(xs, &err), -EBADF);
    assert_int_equal(extsort_next(xs, record, &err), -EBADF);
    extsort_free(xs);
}

#if !defined(__SANITIZE_ADDRESS__)
static size_t heap_bytes(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}
#endif

static void memory_bound_is_kept_in_every_phase(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* the sanitizer's allocator keeps no such figures */
#else
    static const size_t bounds[] = {64 * 1024, 200 * 1024, 1 << 20, 5 << 20};
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        struct verr err = {0};
        size_t base = heap_bytes(), most = 0;
        struct extsort *xs = extsort_new(dir, 40, 32, bounds[b], &err);
        assert_non_null(xs);
        uint64_t record[5];
        for (int i = 0; i < 200000; i++) {
            for (int k = 0; k < 5; k++)
                record[k] = rnd();
            assert_int_equal(extsort_add(xs, record, &err), 0);
            if (i % 1000 == 0 && heap_bytes() - base > most)
                most = heap_bytes() - base;
        }
        assert_int_equal(extsort_sorted(xs, &err), 0);
        for (int i = 0; extsort_next(xs, record, &err) == 1; i++) {
            if (i % 1000 == 0 && heap_bytes() - base > most)
                most = heap_bytes() - base;
        }
        extsort_free(xs);
        print_message("bound %zu, most %zu\n", bounds[b], most);
        assert_true(most > bounds[b] / 2 && most <= bounds[b] + 24 * 1024); /* list of runs, allocator's own */
    }
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sorts_in_memory_like_qsort),
        cmocka_unit_test(sorts_many_runs_in_several_passes),
        cmocka_unit_test(equal_keys_keep_their_order_of_arrival),
        cmocka_unit_test(random_shapes_sort_like_qsort),
        cmocka_unit_test(wrong_calls_are_refused),
        cmocka_unit_test(temporary_files_have_no_name_and_their_errors_are_final),
        cmocka_unit_test(memory_bound_is_kept_in_every_phase),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
