/* SPDX-License-Identifier: Apache-2.0 */
/* cuts: what is kept is what a round would compute, is found by its own bytes only, once, and never takes more than it may. */
#include "dedup/cuts.h"
#include "dedup/dedup_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint8_t key[DIGEST_KEY_BYTES] = {7};
static struct vid disk_a = {{1}}, disk_b = {{2}};

struct bench {
    struct chunker chunker;
    struct fper *fper;
    struct cutter *cutter;
    uint8_t *seg;
    struct plan_seg s;
    struct fp_job *jobs;
};

static void fill(uint8_t *p, size_t n, uint64_t x)
{
    for (size_t i = 0; i < n; i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(p + i, &x, n - i < 8 ? n - i : 8);
    }
}

static void begin(struct bench *b)
{
    assert_int_equal(chunker_init(&b->chunker, true, 4096), 0);
    b->fper = fper_new(FP_SHA256, key, NULL);
    b->cutter = cutter_new(&b->chunker, b->fper);
    b->seg = malloc(SEG_BYTES);
    b->s.b = calloc(PLAN_BLOCKS_MAX, sizeof *b->s.b);
    b->jobs = calloc(PLAN_BLOCKS_MAX, sizeof *b->jobs);
    assert_true(b->fper != NULL && b->cutter != NULL && b->seg != NULL && b->s.b != NULL && b->jobs != NULL);
    fill(b->seg, SEG_BYTES, 99);
    memset(b->seg + 500000, 0, 300000);
}

static void end(struct bench *b)
{
    cutter_free(b->cutter);
    fper_free(b->fper);
    free(b->seg);
    free(b->s.b);
    free(b->jobs);
}

/* s asks for these bytes; what a round would compute of them is in want. */
static void ask_for(struct bench *b, uint32_t bytes, struct plan_seg *want)
{
    b->s.bytes = bytes;
    assert_int_equal(fper_segment(b->fper, b->seg, bytes, b->s.digest, NULL), 0);
    *want = b->s;
    want->b = calloc(PLAN_BLOCKS_MAX, sizeof *want->b);
    assert_non_null(want->b);
    assert_int_equal(seg_cut_bytes(&b->chunker, b->fper, b->seg, b->jobs, want, NULL), 0);
}

static void kept_is_what_a_round_computes(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {SEG_BYTES, 700001, 4096, 1};
    struct bench b = {0};
    begin(&b);
    struct cuts *c = cuts_new(1 << 20);
    assert_non_null(c);
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct plan_seg want;
        ask_for(&b, lengths[i], &want);
        cutter_run(b.cutter, c, &disk_a, b.seg, lengths[i], b.s.digest);
        assert_false(cuts_take(c, &disk_b, &b.s));          /* never across disks */
        b.s.digest[15] ^= 1;
        assert_false(cuts_take(c, &disk_a, &b.s));
        b.s.digest[15] ^= 1;
        b.s.bytes++;
        assert_false(cuts_take(c, &disk_a, &b.s));
        b.s.bytes--;
        assert_true(cuts_take(c, &disk_a, &b.s));
        assert_int_equal(b.s.kind, PLAN_BLOCKS);
        assert_int_equal(b.s.nblocks, want.nblocks);
        assert_int_equal(b.s.data_pages, want.data_pages);
        for (uint32_t k = 0; k < want.nblocks; k++) {
            assert_int_equal(b.s.b[k].len, want.b[k].len);
            assert_int_equal(b.s.b[k].kind, want.b[k].kind);
            assert_true(b.s.b[k].ref == want.b[k].ref && fp_eq(&b.s.b[k].fp, &want.b[k].fp));
        }
        assert_false(cuts_take(c, &disk_a, &b.s));          /* once */
        free(want.b);
    }
    cuts_free(c);
    end(&b);
}

/* Blocks of which nothing but their number matters. */
static void put(struct cuts *c, const struct vid *disk, struct bench *b, uint8_t number)
{
    b->s.bytes = 1000 + number;
    b->s.nblocks = 100;
    memset(b->s.digest, number, DIGEST_BYTES);
    cuts_put(c, disk, &b->s);
}

static bool has(struct cuts *c, const struct vid *disk, struct bench *b, uint8_t number)
{
    b->s.bytes = 1000 + number;
    memset(b->s.digest, number, DIGEST_BYTES);
    return cuts_take(c, disk, &b->s);
}

static void full_keeps_what_it_has(void **state)
{
    (void)state;
    struct bench b = {0};
    begin(&b);
    struct cuts *c = cuts_new(10000);
    unsigned kept = 0;
    for (uint8_t i = 0; i < 10; i++)
        put(c, &disk_a, &b, i);
    for (uint8_t i = 0; i < 10; i++) {
        bool there = has(c, &disk_a, &b, i);
        assert_true(there == (i == kept) || !there);        /* the first ones, no gap */
        kept += there;
    }
    assert_in_range(kept, 1, 3);
    put(c, &disk_a, &b, 20);                                /* there is room again */
    assert_true(has(c, &disk_a, &b, 20));
    cuts_free(c);
    end(&b);
}

static void a_disk_is_forgotten_alone(void **state)
{
    (void)state;
    struct bench b = {0};
    begin(&b);
    struct cuts *c = cuts_new(1 << 20);
    for (uint8_t i = 0; i < 6; i++)
        put(c, i % 2 ? &disk_a : &disk_b, &b, i);
    cuts_forget(c, &disk_a);
    for (uint8_t i = 0; i < 6; i++)
        assert_int_equal(has(c, i % 2 ? &disk_a : &disk_b, &b, i), i % 2 == 0);
    put(c, &disk_a, &b, 9);                                 /* the end of the list is where it should be */
    assert_true(has(c, &disk_a, &b, 9));
    cuts_free(c);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kept_is_what_a_round_computes),
        cmocka_unit_test(full_keeps_what_it_has),
        cmocka_unit_test(a_disk_is_forgotten_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
