/* SPDX-License-Identifier: Apache-2.0 */
/* level: random segments beside parents with small edits, shifts and zeros: settled as plain chunking and comparing say. */
#include "../lib/mkstore.h"

#include "level/level.h"

struct fixture {
    struct mkstore m;
    struct level *level;
    struct fper *plain;             /* EVP, one block at a time */
    struct plan_seg s;
    uint8_t *parent, *data;
    uint64_t seed, place;
    struct verr note;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->seed = mk_seed();
    mk_open(&f->m, NULL);
    const struct store_conf *conf = store_conf(f->m.st);
    f->level = level_new(conf, f->m.segread, NULL, NULL);
    f->plain = fper_new((enum fp_kind)conf->fingerprint, conf->digest_key, NULL);
    assert_int_equal(fper_force(f->plain, FP_PATH_EVP), 0);
    f->s.b = calloc(PLAN_BLOCKS_MAX, sizeof *f->s.b);
    f->parent = malloc(SEG_BYTES);
    f->data = malloc(SEG_BYTES);
    assert_true(f->level != NULL && f->s.b != NULL && f->parent != NULL && f->data != NULL);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    level_free(f->level);
    fper_free(f->plain);
    mk_close(&f->m);
    free(f->s.b);
    free(f->parent);
    free(f->data);
    free(f);
    return 0;
}

/* A stored segment of n bytes, into f->parent and f->place. */
static void make_parent(struct fixture *f, uint32_t n)
{
    mk_fill(f->parent, n, &f->seed);
    f->parent[0] = 1;
    mk_segments(&f->m, f->parent, n, &f->place);
}

static void settle(struct fixture *f, enum level_depth depth, uint64_t place, uint32_t bytes)
{
    struct verr err = {0};
    f->note = (struct verr){0};
    f->s.bytes = bytes;
    mk_ok(level_segment(f->level, depth, f->data, place, &f->s, &f->note, &err), &err, "level_segment", __FILE__, __LINE__);
    assert_int_equal(f->note.code, 0);
}

/* How many blocks of the parent have this prefix and length. */
static unsigned in_parent(const struct segrcp *rcp, const struct plan_block *b)
{
    unsigned n = 0;
    for (uint32_t i = 0; rcp != NULL && i < rcp->nblocks; i++)
        n += memcmp(&rcp->prefix[i], b->fp.b, 4) == 0 && rcp->len1[i] + 1u == b->len;
    return n;
}

static void check_block(struct fixture *f, const struct plan_block *b, const uint8_t *p, bool zero, const struct segrcp *rcp)
{
    struct fp fp;
    struct fp_job job = {p, b->len, &fp};
    struct footer_entry e;
    if (zero) {
        assert_int_equal(b->kind, BLK_ZERO);
        return;
    }
    assert_int_equal(fper_batch(f->plain, &job, 1, NULL), 0);
    assert_true(fp_eq(&fp, &b->fp));
    assert_int_equal(b->kind, in_parent(rcp, b) > 0 ? BLK_PARENT : BLK_NEW);
    if (b->kind == BLK_PARENT) {
        assert_int_equal(creader_entries(f->m.reader, b->ref, 1, &e, NULL), 0);
        assert_true(fp_eq(&e.fp, &b->fp) && e.len == b->len);
    } else {
        assert_true(b->ref == REF_NONE);
    }
}

/* f->s is what cutting f->data from front to back comes to. rcp NULL: without a parent. */
static unsigned check_plan(struct fixture *f, const struct segrcp *rcp)
{
    const struct plan_seg *s = &f->s;
    uint8_t digest[DIGEST_BYTES];
    uint32_t at = 0;
    unsigned old = 0;
    assert_int_equal(s->kind, PLAN_BLOCKS);
    assert_int_equal(fper_segment(f->plain, f->data, s->bytes, digest, NULL), 0);
    assert_memory_equal(digest, s->digest, DIGEST_BYTES);
    for (uint32_t i = 0; i < s->nblocks; i++) {
        bool zero;
        assert_int_equal(chunk_next(&f->m.chunker, f->data + at, s->bytes - at, &zero), s->b[i].len);
        check_block(f, &s->b[i], f->data + at, zero, rcp);
        old += s->b[i].kind == BLK_PARENT;
        at += s->b[i].len;
    }
    assert_int_equal(at, s->bytes);
    return old;
}

static void edit(struct fixture *f, uint32_t n, uint64_t kind)
{
    uint32_t at = (uint32_t)(mk_random(&f->seed) % (n - 100)), len = (uint32_t)(mk_random(&f->seed) % (n - at));
    if (kind == 0)
        f->data[at] ^= 1;
    else if (kind == 1)
        memset(f->data + at, 0, len);
    else if (kind == 2)         /* what follows moves on */
        memmove(f->data + at + 13, f->data + at, n - at - 13);
    else
        mk_fill(f->data + at, len, &f->seed);
}

static void edited_segments_are_settled_as_plain_chunking_says(void **state)
{
    struct fixture *f = *state;
    unsigned old = 0;
    for (unsigned round = 0; round < 6; round++) {
        uint32_t n = round % 2 == 0 ? SEG_BYTES : 1 + (uint32_t)(mk_random(&f->seed) % SEG_BYTES) / 2 + 70000;
        struct segrcp rcp;
        make_parent(f, n);
        assert_int_equal(segread_recipe(f->m.segread, f->place, &rcp, NULL), 0);
        for (unsigned k = 0; k < 6; k++) {
            memcpy(f->data, f->parent, n);
            edit(f, n, k % 4);
            if (memcmp(f->data, f->parent, n) == 0 || mk_all_zero(f->data, n))
                continue;
            settle(f, LEVEL_BLOCKS, f->place, n);
            old += check_plan(f, &rcp);
        }
        segrcp_release(&rcp);
    }
    assert_true(old > 100);
}

static void equal_and_zero_segments_have_no_blocks(void **state)
{
    struct fixture *f = *state;
    for (unsigned depth = LEVEL_WHOLE; depth <= LEVEL_BLOCKS; depth++) {
        make_parent(f, 700001);
        memcpy(f->data, f->parent, 700001);
        settle(f, (enum level_depth)depth, f->place, 700001);
        assert_int_equal(f->s.kind, PLAN_SAME);
        assert_true(f->s.place == f->place);
        assert_int_equal(f->s.nblocks, 0);
        settle(f, (enum level_depth)depth, f->place, 700000);           /* the parent's beginning */
        assert_int_equal(f->s.kind, PLAN_BLOCKS);
        memset(f->data, 0, SEG_BYTES);
        settle(f, (enum level_depth)depth, f->place, SEG_BYTES);
        assert_int_equal(f->s.kind, PLAN_ZERO);
        f->data[SEG_BYTES - 1] = 1;
        settle(f, (enum level_depth)depth, f->place, SEG_BYTES);
        assert_int_equal(f->s.kind, PLAN_BLOCKS);
        assert_int_equal(f->s.nblocks > 0, depth == LEVEL_BLOCKS);
    }
}

static void parents_that_are_shorter_longer_or_absent(void **state)
{
    struct fixture *f = *state;
    struct segrcp rcp;
    make_parent(f, 900001);
    assert_int_equal(segread_recipe(f->m.segread, f->place, &rcp, NULL), 0);
    mk_fill(f->data, SEG_BYTES, &f->seed);
    memcpy(f->data, f->parent, 900001);
    settle(f, LEVEL_BLOCKS, f->place, SEG_BYTES);
    assert_true(check_plan(f, &rcp) > 10);
    settle(f, LEVEL_BLOCKS, f->place, 400000);
    assert_true(check_plan(f, &rcp) > 10);
    settle(f, LEVEL_BLOCKS, REF_NONE, SEG_BYTES);
    assert_int_equal(check_plan(f, NULL), 0);
    segrcp_release(&rcp);
}

static void parent_that_cannot_be_read_costs_space_only(void **state)
{
    struct fixture *f = *state;
    struct verr err = {0};
    mk_fill(f->data, SEG_BYTES, &f->seed);
    f->data[0] = 1;
    f->s.bytes = SEG_BYTES;
    assert_int_equal(level_segment(f->level, LEVEL_BLOCKS, f->data, ref_make(77, 0), &f->s, &f->note, &err), 0);
    assert_int_not_equal(f->note.code, 0);
    assert_int_equal(check_plan(f, NULL), 0);
}

static int one_block(void *ctx, const struct fp *fp, uint64_t *ref)
{
    *ref = ref_make(9, 9);
    return fp_eq(ctx, fp);
}

static void common_blocks_come_after_the_parents(void **state)
{
    struct fixture *f = *state;
    make_parent(f, SEG_BYTES);
    memcpy(f->data, f->parent, SEG_BYTES);
    f->data[SEG_BYTES / 2] ^= 1;
    settle(f, LEVEL_BLOCKS, f->place, SEG_BYTES);
    for (unsigned kind = BLK_PARENT; kind <= BLK_NEW; kind++) {
        uint32_t i = 0;
        while (i < f->s.nblocks && f->s.b[i].kind != kind)
            i++;
        if (i == f->s.nblocks)
            continue;
        struct fp fp = f->s.b[i].fp;
        struct common_set common = {one_block, &fp};
        struct level *lv = level_new(store_conf(f->m.st), f->m.segread, &common, NULL);
        assert_int_equal(level_segment(lv, LEVEL_BLOCKS, f->data, f->place, &f->s, NULL, NULL), 0);
        assert_int_equal(f->s.b[i].kind, kind == BLK_NEW ? BLK_COMMON : kind);
        level_free(lv);
    }
}

static void confirm_cuts_other_bytes_anew(void **state)
{
    struct fixture *f = *state;
    struct verr err = {0};
    make_parent(f, SEG_BYTES);
    memcpy(f->data, f->parent, SEG_BYTES);
    f->data[7] ^= 1;
    settle(f, LEVEL_BLOCKS, f->place, SEG_BYTES);
    f->s.b[0].ref = 5;
    assert_int_equal(level_confirm(f->level, f->data, &f->s, &err), 0);
    assert_true(f->s.b[0].ref == 5);            /* as it was */
    f->data[SEG_BYTES - 1] ^= 1;
    assert_int_equal(level_confirm(f->level, f->data, &f->s, &err), 0);
    assert_int_equal(check_plan(f, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(edited_segments_are_settled_as_plain_chunking_says, setup, teardown),
        cmocka_unit_test_setup_teardown(equal_and_zero_segments_have_no_blocks, setup, teardown),
        cmocka_unit_test_setup_teardown(parents_that_are_shorter_longer_or_absent, setup, teardown),
        cmocka_unit_test_setup_teardown(parent_that_cannot_be_read_costs_space_only, setup, teardown),
        cmocka_unit_test_setup_teardown(common_blocks_come_after_the_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(confirm_cuts_other_bytes_anew, setup, teardown),
    };
    return cmocka_run_group_tests_name("level", tests, NULL, NULL);
}
