/* SPDX-License-Identifier: Apache-2.0 */
/* segread: segments of a real store against the bytes they were made from. */
#include "../lib/mkstore.h"

#include <pthread.h>

struct fixture {
    struct mkstore m;
    uint8_t *data;
    uint64_t size, place[3];
    uint64_t seed;
};

/* Three segments: full, full, and a short one that does not end on a page. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->seed = mk_seed();
    mk_open(&f->m, NULL);
    f->size = 2 * (uint64_t)SEG_BYTES + 700001;
    f->data = malloc(f->size);
    assert_non_null(f->data);
    mk_fill(f->data, f->size, &f->seed);
    mk_segments(&f->m, f->data, f->size, f->place);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mk_close(&f->m);
    free(f->data);
    free(f);
    return 0;
}

static uint32_t segment_bytes(const struct fixture *f, unsigned s)
{
    uint64_t left = f->size - ((uint64_t)s << SEG_SHIFT);
    return left < SEG_BYTES ? (uint32_t)left : SEG_BYTES;
}

static void expect(struct fixture *f, struct segread *sr, unsigned s, uint32_t off, uint32_t len, uint8_t *buf)
{
    struct verr err = {0};
    uint32_t bytes = segment_bytes(f, s);
    memset(buf, 0xa5, len);
    mk_ok(segread_read(sr, f->place[s], off, buf, len, &err), &err, "segread_read", __FILE__, __LINE__);
    for (uint32_t i = 0; i < len; i++) {
        uint8_t want = off + i < bytes ? f->data[((uint64_t)s << SEG_SHIFT) + off + i] : 0;
        if (buf[i] != want)
            fail_msg("segment %u byte %u: %02x, expected %02x", s, off + i, buf[i], want);
    }
}

static void whole_segments_and_random_ranges_read_back(void **state)
{
    struct fixture *f = *state;
    uint8_t *buf = malloc(SEG_BYTES);
    assert_non_null(buf);
    for (unsigned s = 0; s < 3; s++)
        expect(f, f->m.segread, s, 0, SEG_BYTES, buf);
    for (unsigned i = 0; i < 600; i++) {
        uint32_t off = (uint32_t)(mk_random(&f->seed) % SEG_BYTES);
        uint32_t len = (uint32_t)(mk_random(&f->seed) % (i % 2 ? 9000 : 200000)) + 1;
        if (len > SEG_BYTES - off)
            len = SEG_BYTES - off;
        expect(f, f->m.segread, (unsigned)(mk_random(&f->seed) % 3), off, len, buf);
    }
    free(buf);
}

static void bytes_behind_a_short_segment_are_zero(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[8192];
    expect(f, f->m.segread, 2, 700001 - 10, sizeof buf, buf);
    expect(f, f->m.segread, 2, SEG_BYTES - 1, 1, buf);
    assert_int_equal(segread_read(f->m.segread, f->place[2], SEG_BYTES, buf, 0, NULL), 0);
    assert_int_equal(segread_read(f->m.segread, f->place[2], SEG_BYTES - 1, buf, 2, NULL), -EINVAL);
}

/* The pages that blocks touch, from the recipe itself. */
static uint32_t model_pages(struct fixture *f, unsigned s, bool page[SEG_PAGES])
{
    struct segrcp rcp;
    uint32_t off = 0, block = 0, n = 0;
    memset(page, 0, SEG_PAGES * sizeof *page);
    MK_OK(segread_recipe(f->m.segread, f->place[s], &rcp, &mk_err_));
    for (uint32_t i = 0; i < rcp.nruns; i++) {
        if (rcp.runs[i].ref == REF_ZERO) {
            off += rcp.runs[i].count;
            continue;
        }
        for (uint32_t k = 0; k < rcp.runs[i].count; k++) {
            uint32_t len = (uint32_t)rcp.len1[block++] + 1;
            for (uint32_t p = off / PAGE_BYTES; p <= (off + len - 1) / PAGE_BYTES; p++)
                page[p] = true;
            off += len;
        }
    }
    assert_int_equal(off, segment_bytes(f, s));
    segrcp_release(&rcp);
    for (unsigned p = 0; p < SEG_PAGES; p++)
        n += page[p];
    return n;
}

static void seek_and_pages_follow_the_blocks(void **state)
{
    struct fixture *f = *state;
    for (unsigned s = 0; s < 3; s++) {
        bool page[SEG_PAGES];
        uint32_t n = model_pages(f, s, page), pages;
        MK_OK(segread_pages(f->m.segread, f->place[s], &pages, &mk_err_));
        assert_int_equal(pages, n);
        for (uint32_t off = 0; off < SEG_BYTES; off += 1777) {
            for (int hole = 0; hole < 2; hole++) {
                uint32_t want = off, got;
                while (want < SEG_BYTES && page[want / PAGE_BYTES] == (hole != 0))
                    want = (want / PAGE_BYTES + 1) * PAGE_BYTES;
                MK_OK(segread_seek(f->m.segread, f->place[s], off, hole != 0, &got, &mk_err_));
                assert_int_equal(got, want);
            }
        }
        uint32_t end;
        MK_OK(segread_seek(f->m.segread, f->place[s], SEG_BYTES, false, &end, &mk_err_));
        assert_int_equal(end, SEG_BYTES);
    }
}

static void holes_hold_zeros_only(void **state)
{
    struct fixture *f = *state;
    for (unsigned s = 0; s < 3; s++) {
        uint32_t at = 0, hole, data;
        while (at < SEG_BYTES) {
            MK_OK(segread_seek(f->m.segread, f->place[s], at, true, &hole, &mk_err_));
            MK_OK(segread_seek(f->m.segread, f->place[s], hole, false, &data, &mk_err_));
            for (uint32_t i = hole; i < data && i < segment_bytes(f, s); i++)
                assert_int_equal(f->data[((uint64_t)s << SEG_SHIFT) + i], 0);
            at = data;
        }
    }
}

static void places_that_are_none_are_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t buf[16];
    struct verr err = {0};
    uint64_t beyond = ref_make(ref_container(f->place[0]), 4000), missing = ref_make(12345678, 0);
    assert_int_equal(segread_read(f->m.segread, REF_ZERO, 0, buf, sizeof buf, &err), -EINVAL);
    assert_int_equal(segread_read(f->m.segread, beyond, 0, buf, sizeof buf, &err), -ENODATA);
    assert_true(segread_read(f->m.segread, missing, 0, buf, sizeof buf, &err) < 0);
}

static void a_block_is_not_taken_for_a_recipe(void **state)
{
    struct fixture *f = *state;
    struct segrcp rcp;
    uint8_t buf[16];
    struct verr err = {0};
    MK_OK(segread_recipe(f->m.segread, f->place[0], &rcp, &mk_err_));
    uint64_t ref = rcp.runs[0].ref == REF_ZERO ? rcp.runs[1].ref : rcp.runs[0].ref;
    segrcp_release(&rcp);
    assert_int_equal(segread_read(f->m.segread, ref, 0, buf, sizeof buf, &err), -EBADMSG);
    assert_non_null(strstr(verr_str(&err), "containers/"));
}

static void a_private_copy_outlives_the_cache(void **state)
{
    struct fixture *f = *state;
    struct segrcp rcp;
    struct segread *sr;
    MK_OK(segread_new(f->m.reader, 1, &sr, &mk_err_));
    MK_OK(segread_recipe(sr, f->place[2], &rcp, &mk_err_));
    segread_free(sr);
    assert_int_equal(rcp.bytes, 700001);
    segrcp_release(&rcp);
}

struct worker { struct fixture *f; struct segread *sr; uint64_t seed; };

static void *hammer(void *arg)
{
    struct worker *w = arg;
    uint8_t *buf = malloc(30000);
    assert_non_null(buf);
    for (unsigned i = 0; i < 400; i++) {
        uint32_t off = (uint32_t)(mk_random(&w->seed) % (SEG_BYTES - 30000));
        expect(w->f, w->sr, (unsigned)(mk_random(&w->seed) % 3), off, (uint32_t)(mk_random(&w->seed) % 30000) + 1, buf);
    }
    free(buf);
    return NULL;
}

static void threads_share_a_cache_that_is_too_small(void **state)
{
    struct fixture *f = *state;
    struct segread *sr;
    pthread_t thread[4];
    struct worker w[4];
    MK_OK(segread_new(f->m.reader, 1, &sr, &mk_err_));
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct worker){ f, sr, mk_random(&f->seed) };
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, &w[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    segread_free(sr);
}

static void the_source_table_answers_alike(void **state)
{
    struct fixture *f = *state;
    struct seg_source src = segread_source(f->m.segread);
    uint8_t a[5000], b[5000];
    uint32_t x, y;
    MK_OK(src.read(src.ctx, f->place[1], 12345, a, sizeof a, &mk_err_));
    MK_OK(segread_read(f->m.segread, f->place[1], 12345, b, sizeof b, &mk_err_));
    assert_memory_equal(a, b, sizeof a);
    MK_OK(src.pages(src.ctx, f->place[1], &x, &mk_err_));
    MK_OK(segread_pages(f->m.segread, f->place[1], &y, &mk_err_));
    assert_int_equal(x, y);
    MK_OK(src.seek(src.ctx, f->place[1], 4096, true, &x, &mk_err_));
    MK_OK(segread_seek(f->m.segread, f->place[1], 4096, true, &y, &mk_err_));
    assert_int_equal(x, y);
}

struct beliefs { struct vid version; unsigned asked, noted; };

static int believes(void *ctx, uint64_t container, const struct vid *version, struct verr *err)
{
    struct beliefs *b = ctx;
    b->asked++;
    return vid_eq(&b->version, version) ? 0 : verr_set(err, ESTALE, "container %llu is another one", (unsigned long long)container);
}

static int notes(void *ctx, uint64_t container, const struct vid *version, struct verr *err)
{
    struct beliefs *b = ctx;
    (void)container;
    (void)err;
    b->version = *version;
    b->noted++;
    return 0;
}

/* The source table, which serves places out of STATE, reads only from the container that is known; segread_read reads from any. */
static void a_place_of_state_is_read_from_the_known_container_only(void **state)
{
    struct fixture *f = *state;
    struct segread *sr;
    struct beliefs b = {.version = {{1}}};
    struct segread_belief belief = {.check = believes, .note = notes, .ctx = &b};
    struct segread_sound sound = {REF_NONE, 0};
    struct verr err = {0};
    uint8_t buf[100];
    uint32_t n;
    MK_OK(segread_new(f->m.reader, 4, &sr, &mk_err_));
    segread_believe(sr, &belief);
    struct seg_source src = segread_source(sr);
    MK_OK(segread_read(sr, f->place[1], 0, buf, sizeof buf, &mk_err_));
    assert_int_equal(b.asked, 0);
    for (int again = 0; again < 2; again++) {       /* a recipe that is cached is no reason to believe it */
        assert_int_equal(src.read(src.ctx, f->place[1], 0, buf, sizeof buf, &err), -EIO);
        assert_int_equal(err.code, EIO);
        assert_int_equal(src.seek(src.ctx, f->place[1], 0, true, &n, &err), -EIO);
        assert_int_equal(src.pages(src.ctx, f->place[1], &n, &err), -EIO);
    }
    assert_int_equal(segread_check(sr, f->place[1], &sound, &err), -ESTALE);
    assert_int_equal(segread_check(sr, ref_make(0, 1), &sound, &err), -ENODATA);

    MK_OK(segread_note(sr, f->place[1], &mk_err_));
    MK_OK(segread_note(sr, f->place[1], &mk_err_));
    assert_int_equal(b.noted, 1);
    MK_OK(src.read(src.ctx, f->place[1], 0, buf, sizeof buf, &mk_err_));
    b.asked = 0;
    MK_OK(src.read(src.ctx, f->place[1], 0, buf, sizeof buf, &mk_err_));
    MK_OK(segread_check(sr, f->place[1], &sound, &mk_err_));
    MK_OK(segread_check(sr, f->place[1], &sound, &mk_err_));
    assert_int_equal(b.asked, 1);
    assert_int_equal(segread_check(sr, ref_make(ref_container(f->place[1]), sound.ordinals), &sound, &err), -ENODATA);
    segread_free(sr);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_segments_and_random_ranges_read_back),
        cmocka_unit_test(bytes_behind_a_short_segment_are_zero),
        cmocka_unit_test(seek_and_pages_follow_the_blocks),
        cmocka_unit_test(holes_hold_zeros_only),
        cmocka_unit_test(places_that_are_none_are_refused),
        cmocka_unit_test(a_block_is_not_taken_for_a_recipe),
        cmocka_unit_test(a_private_copy_outlives_the_cache),
        cmocka_unit_test(threads_share_a_cache_that_is_too_small),
        cmocka_unit_test(the_source_table_answers_alike),
        cmocka_unit_test(a_place_of_state_is_read_from_the_known_container_only),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
