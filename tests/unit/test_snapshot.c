/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot: stored snapshots read as files, and what damage of a recipe does to them. */
#include "../lib/mkstore.h"
#include "store/snaps.h"

#include <pthread.h>
#include <sys/stat.h>

enum { SEGMENTS = 6 };

struct fixture {
    struct mkstore m;
    uint8_t *data;
    uint64_t size, seed;
    struct mksnap snap;
};

static void noise(uint8_t *p, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)mk_random(state);
}

/* Segments 1 and 2 are zero, and the end of 0 is; from 3 to 4 data go on; the last one is short. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->seed = mk_seed();
    mk_open(&f->m, NULL);
    f->size = (SEGMENTS - 1) * (uint64_t)SEG_BYTES + 333333;
    f->data = calloc(1, f->size);
    assert_non_null(f->data);
    mk_fill(f->data, SEG_BYTES - 100000, &f->seed);
    mk_fill(f->data + 3 * (size_t)SEG_BYTES, 2 * (size_t)SEG_BYTES, &f->seed);
    noise(f->data + 4 * (size_t)SEG_BYTES - 100000, 200000, &f->seed);
    mk_fill(f->data + 5 * (size_t)SEG_BYTES, 333333, &f->seed);
    mk_snapshot(&f->m, f->data, f->size, &f->snap);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mk_snap_free(&f->snap);
    mk_close(&f->m);
    free(f->data);
    free(f);
    return 0;
}

static void expect(const struct fixture *f, struct snap *s, uint64_t off, size_t len, uint8_t *buf)
{
    size_t want = off >= f->size ? 0 : len < f->size - off ? len : (size_t)(f->size - off);
    struct verr err = {0};
    memset(buf, 0xa5, len);
    ssize_t got = snap_read(s, off, buf, len, &err);
    if (got < 0)
        fail_msg("read of %zu at %llu: %s", len, (unsigned long long)off, verr_str(&err));
    assert_int_equal(got, want);
    if (want > 0)
        assert_memory_equal(buf, f->data + off, want);
}

static void reads_back_whole_and_in_random_ranges(void **state)
{
    struct fixture *f = *state;
    struct snap *s = mk_snap_open(&f->m, &f->snap.rcp);
    uint8_t *buf = malloc(f->size + 100);
    assert_non_null(buf);
    assert_int_equal(snap_header(s)->info.size, f->size);
    expect(f, s, 0, f->size, buf);
    expect(f, s, 0, f->size + 100, buf);
    for (unsigned i = 0; i < 300; i++)
        expect(f, s, mk_random(&f->seed) % (f->size + 1000), (size_t)(mk_random(&f->seed) % (i % 8 ? 70000 : 5000000)), buf);
    free(buf);
    snap_close(s);
}

static void reads_are_short_at_the_end(void **state)
{
    struct fixture *f = *state;
    struct snap *s = mk_snap_open(&f->m, &f->snap.rcp);
    uint8_t buf[100];
    expect(f, s, f->size - 10, sizeof buf, buf);
    assert_int_equal(snap_read(s, f->size, buf, sizeof buf, NULL), 0);
    assert_int_equal(snap_read(s, UINT64_MAX, buf, sizeof buf, NULL), 0);
    snap_close(s);
}

/* Is the page data? From the segments' own answers, which test_segread checks. */
static bool model_page(const struct fixture *f, uint64_t page)
{
    uint64_t at = page * PAGE_BYTES, place = f->snap.place[at >> SEG_SHIFT];
    uint32_t in_segment = (uint32_t)(at & (SEG_BYTES - 1)), to;
    if (place == REF_ZERO)
        return false;
    MK_OK(segread_seek(f->m.segread, place, in_segment, false, &to, &mk_err_));
    return to == in_segment;
}

static void seek_merges_across_segments(void **state)
{
    struct fixture *f = *state;
    struct snap *s = mk_snap_open(&f->m, &f->snap.rcp);
    uint64_t pages = (f->size + PAGE_BYTES - 1) / PAGE_BYTES;
    bool *page = calloc(pages, sizeof *page);
    assert_non_null(page);
    for (uint64_t p = 0; p < pages; p++)
        page[p] = model_page(f, p);
    for (uint64_t off = 0; off < f->size; off += 3001) {
        for (int hole = 0; hole < 2; hole++) {
            uint64_t want = off;
            while (want < f->size && page[want / PAGE_BYTES] == (hole != 0))
                want = (want / PAGE_BYTES + 1) * PAGE_BYTES;
            off_t got = snap_seek(s, off, hole != 0, NULL);
            if (want >= f->size)
                assert_int_equal(got, hole != 0 ? (off_t)f->size : -ENXIO);
            else
                assert_int_equal(got, want);
            off_t near = snap_seek_near(s, off, hole != 0, 1, NULL);
            assert_true(near == got || near == -EAGAIN);
            assert_true(near == got || want / SEG_BYTES != off / SEG_BYTES);
        }
    }
    assert_int_equal(snap_seek_near(s, 0, false, 0, NULL), -EAGAIN);
    assert_int_equal(snap_seek(s, f->size, true, NULL), -ENXIO);
    assert_int_equal(snap_seek(s, f->size, false, NULL), -ENXIO);
    free(page);
    snap_close(s);
}

static void holes_between_data_hold_zeros_only(void **state)
{
    struct fixture *f = *state;
    struct snap *s = mk_snap_open(&f->m, &f->snap.rcp);
    uint64_t at = 0, holes = 0;
    while (at < f->size) {
        off_t hole = snap_seek(s, at, true, NULL);
        assert_true(hole >= (off_t)at);
        off_t data = (uint64_t)hole == f->size ? -ENXIO : snap_seek(s, (uint64_t)hole, false, NULL);
        uint64_t end = data == -ENXIO ? f->size : (uint64_t)data;
        assert_true(mk_all_zero(f->data + hole, end - (uint64_t)hole));
        holes += end - (uint64_t)hole;
        at = end;
    }
    assert_true(holes >= 2 * (uint64_t)SEG_BYTES + 90000);
    snap_close(s);
}

/* ---- many runs ---- */

enum { MANY = 3000 };

struct count { uint64_t runs, next; };

static int count_run(void *ctx, const struct snaprun *run)
{
    struct count *c = ctx;
    assert_int_equal(run->first, c->next);
    c->next += run->count;
    c->runs++;
    return 0;
}

/* Zero and data in turn, so that every segment is a run of its own: 12 pages. */
static void many_fragmented_segments(struct fixture *f, struct snaprcp *hdr, uint64_t *place)
{
    for (unsigned s = 0; s < MANY; s++)
        place[s] = s % 2 == 0 ? f->snap.place[0] : REF_ZERO;
    *hdr = mk_header(&f->m, (uint64_t)MANY * SEG_BYTES);
    MK_OK(mk_commit(&f->m, hdr, place, &mk_err_));
}

static void segments_are_found_in_recipes_of_many_pages(void **state)
{
    struct fixture *f = *state;
    static uint64_t place[MANY];
    struct snaprcp hdr;
    many_fragmented_segments(f, &hdr, place);
    struct snap *s = mk_snap_open(&f->m, &hdr);
    assert_int_equal(snap_header(s)->nruns, MANY);
    for (unsigned i = 0; i < 3 * MANY; i++) {
        uint64_t at = i < MANY ? i : mk_random(&f->seed) % MANY, got;
        bool zero;
        uint32_t pages;
        MK_OK(snap_place(s, at, &zero, &got, &pages, &mk_err_));
        assert_int_equal(zero, place[at] == REF_ZERO);
        if (!zero)
            assert_int_equal(got, place[at]);
    }
    bool zero;
    uint64_t got;
    uint32_t pages;
    assert_int_equal(snap_place(s, MANY, &zero, &got, &pages, NULL), -EINVAL);
    struct count c = {0};
    MK_OK(snap_each_run(s, count_run, &c, &mk_err_));
    assert_int_equal(c.runs, MANY);
    assert_int_equal(c.next, MANY);
    /* Across the border of two pages of runs. */
    uint8_t buf[8192];
    assert_int_equal(snap_read(s, 254 * (uint64_t)SEG_BYTES - 4096, buf, sizeof buf, NULL), sizeof buf);
    assert_true(mk_all_zero(buf, 4096));
    assert_memory_equal(buf + 4096, f->data, 4096);
    snap_close(s);
}

struct worker { struct fixture *f; struct snap *s; const uint64_t *place; uint64_t seed; };

static void *hammer(void *arg)
{
    struct worker *w = arg;
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t at = mk_random(&w->seed) % MANY, got;
        bool zero;
        uint32_t pages;
        MK_OK(snap_place(w->s, at, &zero, &got, &pages, &mk_err_));
        assert_int_equal(zero, w->place[at] == REF_ZERO);
    }
    return NULL;
}

static void threads_share_a_handle(void **state)
{
    struct fixture *f = *state;
    static uint64_t place[MANY];
    struct snaprcp hdr;
    many_fragmented_segments(f, &hdr, place);
    struct snap *s = mk_snap_open(&f->m, &hdr);
    pthread_t thread[4];
    struct worker w[4];
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct worker){ f, s, place, mk_random(&f->seed) };
        assert_int_equal(pthread_create(&thread[i], NULL, hammer, &w[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    snap_close(s);
}

/* ---- damage ---- */

/* Every answer that a recipe gives is compared: header, and the place of each segment. True: nothing was wrong with it. */
static bool same_answers(struct fixture *f, const struct snaprcp *rcp, const struct snaprcp *want, const uint64_t *place)
{
    struct snap *s = NULL;
    if (snap_open(f->m.st, f->m.segread, &rcp->info.ref, &s, NULL) < 0)
        return false;
    assert_memory_equal(snap_header(s), want, sizeof *want);
    bool whole = true;
    for (uint64_t i = 0; i < seg_count(want->info.size); i++) {
        bool zero;
        uint64_t got;
        uint32_t pages;
        if (snap_place(s, i, &zero, &got, &pages, NULL) < 0) {
            whole = false;
            continue;
        }
        assert_int_equal(zero, place[i] == REF_ZERO);
        assert_int_equal(got, place[i]);
    }
    snap_close(s);
    return whole;
}

static void a_damaged_byte_never_gives_a_wrong_answer(void **state)
{
    struct fixture *f = *state;
    char path[256];
    size_t len;
    mk_recipe_path(&f->m, &f->snap.rcp, ".rcp", path);
    uint8_t *file = mk_load(path, &len);
    assert_int_equal(len, 2 * SNAPRCP_PAGE);
    struct snap *s = mk_snap_open(&f->m, &f->snap.rcp);
    struct snaprcp want = *snap_header(s);
    snap_close(s);
    assert_true(same_answers(f, &f->snap.rcp, &want, f->snap.place));
    for (size_t i = 0; i < len; i++) {
        uint8_t mask = (uint8_t)(1u << mk_random(&f->seed) % 8);
        mk_flip(path, i, mask);
        if (same_answers(f, &f->snap.rcp, &want, f->snap.place))
            fail_msg("a flipped bit in byte %zu was not noticed", i);
        mk_flip(path, i, mask);
    }
    for (size_t cut = 0; cut < len; cut += 97) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        assert_false(same_answers(f, &f->snap.rcp, &want, f->snap.place));
        mk_store_bytes(path, file, len);
    }
    mk_store_bytes(path, file, len);
    assert_true(same_answers(f, &f->snap.rcp, &want, f->snap.place));
    free(file);
}

static void pages_that_changed_places_are_refused(void **state)
{
    struct fixture *f = *state;
    static uint64_t place[MANY];
    struct snaprcp hdr;
    char path[256];
    size_t len;
    many_fragmented_segments(f, &hdr, place);
    mk_recipe_path(&f->m, &hdr, ".rcp", path);
    uint8_t *file = mk_load(path, &len);
    uint8_t page[SNAPRCP_PAGE];
    memcpy(page, file + 2 * SNAPRCP_PAGE, SNAPRCP_PAGE);
    memmove(file + 2 * SNAPRCP_PAGE, file + 3 * SNAPRCP_PAGE, SNAPRCP_PAGE);
    memcpy(file + 3 * SNAPRCP_PAGE, page, SNAPRCP_PAGE);
    mk_store_bytes(path, file, len);
    struct snap *s = mk_snap_open(&f->m, &hdr);
    bool zero;
    uint64_t got;
    uint32_t pages;
    struct verr err = {0};
    assert_int_equal(snap_place(s, 300, &zero, &got, &pages, &err), -EBADMSG);
    assert_non_null(strstr(verr_str(&err), "snapshots/"));
    snap_close(s);
    free(file);
}

/* Pages that are whole by themselves, with a segment in none of them. */
static void a_gap_between_pages_is_refused(void **state)
{
    struct fixture *f = *state;
    static uint64_t place[300];
    struct snaprun run = { .first = 256, .count = 1, .place = ref_make(5, 5) }, runs[SNAPRCP_PAGE_RUNS];
    char path[256];
    uint8_t page[SNAPRCP_PAGE];
    for (unsigned s = 0; s < 300; s++)
        place[s] = s < 255 ? ref_make(5, 2 * s) : REF_ZERO;     /* 255 runs, and one more in the second page */
    struct snaprcp hdr = mk_header(&f->m, 300 * (uint64_t)SEG_BYTES);
    MK_OK(mk_commit(&f->m, &hdr, place, &mk_err_));
    mk_recipe_path(&f->m, &hdr, ".rcp", path);
    run.count = 300 - 256;
    run.place = REF_ZERO;
    assert_int_equal(snaprcp_page_encode(&hdr.info.ref.snap, 2, &run, 1, page), 0);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite_full(fd, page, sizeof page, 2 * SNAPRCP_PAGE), 0);
    struct snap *s = mk_snap_open(&f->m, &hdr);
    bool zero;
    uint64_t got;
    uint32_t pages;
    assert_int_equal(snap_place(s, 254, &zero, &got, &pages, NULL), 0);
    assert_int_equal(got, place[254]);
    assert_int_equal(snap_place(s, 255, &zero, &got, &pages, NULL), -EBADMSG);
    assert_int_equal(snap_place(s, 256, &zero, &got, &pages, NULL), 0);
    struct count c = {0};
    assert_int_equal(snap_each_run(s, count_run, &c, NULL), -EBADMSG);
    snap_close(s);

    /* A first page that does not begin with segment 0, a last one that ends early. */
    for (unsigned i = 0; i < SNAPRCP_PAGE_RUNS; i++)
        runs[i] = (struct snaprun){ i + 1, 1, ref_make(5, 2 * i) };
    assert_int_equal(snaprcp_page_encode(&hdr.info.ref.snap, 1, runs, SNAPRCP_PAGE_RUNS, page), 0);
    assert_int_equal(pwrite_full(fd, page, sizeof page, SNAPRCP_PAGE), 0);
    s = mk_snap_open(&f->m, &hdr);
    assert_int_equal(snap_place(s, 280, &zero, &got, &pages, NULL), 0);
    assert_int_equal(snap_place(s, 3, &zero, &got, &pages, NULL), -EBADMSG);
    snap_close(s);
    run.count--;
    assert_int_equal(snaprcp_page_encode(&hdr.info.ref.snap, 2, &run, 1, page), 0);
    assert_int_equal(pwrite_full(fd, page, sizeof page, 2 * SNAPRCP_PAGE), 0);
    close(fd);
    s = mk_snap_open(&f->m, &hdr);
    assert_int_equal(snap_place(s, 280, &zero, &got, &pages, NULL), -EBADMSG);
    snap_close(s);
}

static void recipes_of_other_disks_and_names_are_refused(void **state)
{
    struct fixture *f = *state;
    struct snaprcp other = f->snap.rcp;
    char from[256], to[256];
    struct snap *s = NULL;
    struct verr err = {0};
    assert_int_equal(snap_open(f->m.st, f->m.segread, &(struct snapref){other.info.ref.disk, 99999, other.info.ref.snap}, &s, &err),
                     -ENOENT);
    other.info.ref.disk = vid_random();
    assert_int_equal(snap_open(f->m.st, f->m.segread, &other.info.ref, &s, NULL), -ENOENT);
    int dir = store_disk_dir(f->m.st, DIR_SNAPSHOTS, &other.info.ref.disk, true, NULL);
    assert_true(dir >= 0);
    close(dir);
    mk_recipe_path(&f->m, &f->snap.rcp, ".rcp", from);
    mk_recipe_path(&f->m, &other, ".rcp", to);
    assert_int_equal(link(from, to), 0);
    assert_int_equal(snap_open(f->m.st, f->m.segread, &other.info.ref, &s, &err), -EBADMSG);
    assert_non_null(strstr(verr_str(&err), "another disk"));
    other = f->snap.rcp;
    other.info.ref.seq += 1000;
    mk_recipe_path(&f->m, &other, ".rcp", to);
    assert_int_equal(link(from, to), 0);
    assert_int_equal(snap_open(f->m.st, f->m.segread, &other.info.ref, &s, &err), -EBADMSG);
    assert_int_equal(unlink(to), 0);
}

static void an_anchor_is_opened_whatever_its_disk(void **state)
{
    struct fixture *f = *state;
    struct vid clone = vid_random();
    struct snap *s = NULL;
    MK_OK(snaps_anchor(f->m.st, &clone, &f->snap.rcp.info.ref, &mk_err_));
    MK_OK(snap_open_in(f->m.st, f->m.segread, DIR_ANCHORS, &clone, NULL, f->snap.rcp.info.ref.seq, &f->snap.rcp.info.ref.snap, &s,
                       &mk_err_));
    assert_true(vid_eq(&snap_header(s)->info.ref.disk, &f->snap.rcp.info.ref.disk));
    snap_close(s);
    assert_int_equal(snap_open_in(f->m.st, NULL, DIR_ANCHORS, &clone, &clone, f->snap.rcp.info.ref.seq, &f->snap.rcp.info.ref.snap, &s,
                                  NULL), -EBADMSG);
}

/* ---- attributes, listings ---- */

static void side_file_replaces_label_note_and_flags(void **state)
{
    struct fixture *f = *state;
    struct snaprcp hdr = mk_header(&f->m, f->size), got;
    hdr.info.flags = SNAP_PROVISIONAL;
    snprintf(hdr.info.label, sizeof hdr.info.label, "first");
    MK_OK(mk_commit(&f->m, &hdr, f->snap.place, &mk_err_));
    struct snapattr a;
    MK_OK(snaps_load(f->m.st, &hdr.info.ref, &got, &a, &mk_err_));
    assert_string_equal(got.info.label, "first");
    assert_string_equal(a.label, "first");
    assert_int_equal(got.info.flags, SNAP_PROVISIONAL);
    assert_false(a.protected_);

    a.version++;
    snprintf(a.label, sizeof a.label, "before-upgrade");
    snprintf(a.note, sizeof a.note, "kernel 6.18");
    a.clear_flags = SNAP_PROVISIONAL;
    a.protected_ = true;
    MK_OK(mk_side_save(&f->m, &hdr.info.ref, &a, &mk_err_));
    struct snapattr b;
    MK_OK(snaps_load(f->m.st, &hdr.info.ref, &got, &b, &mk_err_));
    assert_string_equal(got.info.label, "before-upgrade");
    assert_string_equal(got.info.note, "kernel 6.18");
    assert_int_equal(got.info.flags, 0);
    assert_true(b.protected_);
    MK_OK(snaps_load(f->m.st, &hdr.info.ref, &got, NULL, &mk_err_));

    snprintf(a.label, sizeof a.label, "no/slash");
    assert_int_equal(mk_side_save(&f->m, &hdr.info.ref, &a, NULL), -EINVAL);
    char path[256];
    mk_recipe_path(&f->m, &hdr, ".attr", path);
    mk_flip(path, 20, 1);
    struct verr err = {0};
    assert_int_equal(snaps_load(f->m.st, &hdr.info.ref, &got, NULL, &err), -EBADMSG);
    assert_non_null(strstr(verr_str(&err), ".attr"));
}

static void attributes_need_their_snapshot(void **state)
{
    struct fixture *f = *state;
    struct snapattr a = { .snap = vid_random(), .version = 1 };
    struct snaprcp got;
    assert_int_equal(snaps_load(f->m.st, &(struct snapref){f->m.disk.id, 1, a.snap}, &got, NULL, NULL), -ENOENT);
}

struct seen { const struct vid *want; unsigned n, found; };

static int see_snap(void *ctx, const struct snaps_file *f)
{
    struct seen *s = ctx;
    if (f->side_file)
        return 0;
    s->n++;
    s->found += vid_eq(&f->ref.snap, s->want);
    return 0;
}

static int see_disk(void *ctx, const struct vid *disk)
{
    struct seen *s = ctx;
    s->n++;
    s->found += vid_eq(disk, s->want);
    return 0;
}

static int stop(void *ctx, const struct snaps_file *f)
{
    (void)ctx, (void)f;
    return -EXFULL;
}

static void listings_show_what_there_is(void **state)
{
    struct fixture *f = *state;
    struct seen s = { .want = &f->snap.rcp.info.ref.snap }, d = { .want = &f->m.disk.id };
    struct vid nobody = vid_random();
    MK_OK(snaps_each(f->m.st, SNAPS_STORED, &f->m.disk.id, &(struct snaps_walk){.file = see_snap, .ctx = &s}, &mk_err_));
    assert_int_equal(s.found, 1);
    assert_true(s.n <= f->m.seq);
    MK_OK(snaps_each_disk(f->m.st, SNAPS_STORED, see_disk, NULL, &d, &mk_err_));
    assert_int_equal(d.found, 1);
    s.n = 0;
    assert_int_equal(snaps_each(f->m.st, SNAPS_STORED, &nobody, &(struct snaps_walk){.file = see_snap, .ctx = &s}, NULL), 0);
    assert_int_equal(s.n, 0);
    assert_int_equal(snaps_each(f->m.st, SNAPS_STORED, &f->m.disk.id, &(struct snaps_walk){.file = stop, .ctx = NULL}, NULL), -EXFULL);
}

static void a_listing_that_fails_is_not_empty(void **state)
{
    struct fixture *f = *state;
    struct vid disk = vid_random();
    char hex[VID_HEX], path[256];
    struct seen s = { .want = &disk };
    struct verr err = {0};
    vid_hex(&disk, hex);
    snprintf(path, sizeof path, "%s/snapshots/%s", f->m.path, hex);
    mk_store_bytes(path, "x", 1);
    assert_true(snaps_each(f->m.st, SNAPS_STORED, &disk, &(struct snaps_walk){.file = see_snap, .ctx = &s}, &err) < 0);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_back_whole_and_in_random_ranges),
        cmocka_unit_test(reads_are_short_at_the_end),
        cmocka_unit_test(seek_merges_across_segments),
        cmocka_unit_test(holes_between_data_hold_zeros_only),
        cmocka_unit_test(segments_are_found_in_recipes_of_many_pages),
        cmocka_unit_test(threads_share_a_handle),
        cmocka_unit_test(a_damaged_byte_never_gives_a_wrong_answer),
        cmocka_unit_test(pages_that_changed_places_are_refused),
        cmocka_unit_test(a_gap_between_pages_is_refused),
        cmocka_unit_test(recipes_of_other_disks_and_names_are_refused),
        cmocka_unit_test(an_anchor_is_opened_whatever_its_disk),
        cmocka_unit_test(side_file_replaces_label_note_and_flags),
        cmocka_unit_test(attributes_need_their_snapshot),
        cmocka_unit_test(listings_show_what_there_is),
        cmocka_unit_test(a_listing_that_fails_is_not_empty),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
