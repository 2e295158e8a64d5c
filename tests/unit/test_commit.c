/* SPDX-License-Identifier: Apache-2.0 */
/* commit: runs, the commit point, the fence, the publish check. */
#include "../lib/mkstore.h"

#include "base/endian.h"
#include "base/hash.h"
#include "store/snaps.h"
#include "store/store_internal.h"

#include <sys/stat.h>

static int setup(void **state)
{
    struct mkstore *m = malloc(sizeof *m);
    assert_non_null(m);
    mk_open(m, NULL);
    *state = m;
    return 0;
}

static int teardown(void **state)
{
    mk_close(*state);
    free(*state);
    return 0;
}

struct runs { struct snaprun run[600]; unsigned n; };

static int publish(struct commit *c, const struct snaprcp *final, struct verr *err)
{
    int r = commit_stage(c, final, err);
    return r < 0 ? r : commit_publish(c, err);
}

static int keep_run(void *ctx, const struct snaprun *run)
{
    struct runs *r = ctx;
    assert_true(r->n < 600);
    r->run[r->n++] = *run;
    return 0;
}

static void load_runs(struct mkstore *m, const struct snaprcp *hdr, struct runs *out)
{
    struct snap *s = mk_snap_open(m, hdr);
    out->n = 0;
    MK_OK(snap_each_run(s, keep_run, out, &mk_err_));
    assert_int_equal(snap_header(s)->nruns, out->n);
    snap_close(s);
}

/* ---- runs ---- */

static void equal_neighbours_become_runs(void **state)
{
    struct mkstore *m = *state;
    uint64_t p = ref_make(5, 10), last = ref_make(5, (1u << ORDINAL_BITS) - 1);
    const uint64_t place[] = { REF_ZERO, REF_ZERO, p, p + 1, p + 2, p + 2, p + 4, REF_ZERO, last, last + 1 };
    const struct snaprun want[] = { {0, 2, REF_ZERO}, {2, 3, p}, {5, 1, p + 2}, {6, 1, p + 4}, {7, 1, REF_ZERO}, {8, 1, last},
                                    {9, 1, last + 1} };
    struct snaprcp hdr = mk_header(m, 10 * (uint64_t)SEG_BYTES);
    static struct runs got;
    MK_OK(mk_commit(m, &hdr, place, &mk_err_));
    load_runs(m, &hdr, &got);
    assert_int_equal(got.n, 7);
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(got.run[i].first, want[i].first);
        assert_int_equal(got.run[i].count, want[i].count);
        assert_int_equal(got.run[i].place, want[i].place);
    }
}

static void an_untouched_disk_is_one_run(void **state)
{
    struct mkstore *m = *state;
    enum { N = 20000 };
    static uint64_t place[N];
    for (unsigned i = 0; i < N; i++)
        place[i] = ref_make(5, i);
    struct snaprcp hdr = mk_header(m, N * (uint64_t)SEG_BYTES);
    static struct runs got;
    MK_OK(mk_commit(m, &hdr, place, &mk_err_));
    load_runs(m, &hdr, &got);
    assert_int_equal(got.n, 1);
}

static void a_disk_of_no_bytes_has_no_runs(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, 0);
    uint8_t byte;
    MK_OK(mk_commit(m, &hdr, NULL, &mk_err_));
    struct snap *s = mk_snap_open(m, &hdr);
    assert_int_equal(snap_header(s)->nruns, 0);
    assert_int_equal(snap_read(s, 0, &byte, 1, NULL), 0);
    assert_int_equal(snap_seek(s, 0, true, NULL), -ENXIO);
    snap_close(s);
}

static void gaps_and_bad_places_are_refused(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, 3 * (uint64_t)SEG_BYTES);
    struct commit *c = NULL;
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    MK_OK(commit_segment(c, 0, true, 0, &mk_err_));
    assert_int_equal(commit_segment(c, 2, true, 0, NULL), -EINVAL);
    assert_int_equal(commit_segment(c, 0, true, 0, NULL), -EINVAL);
    assert_int_equal(commit_segment(c, 1, false, REF_NONE, NULL), -EINVAL);
    assert_int_equal(commit_segment(c, 1, false, REF_ZERO, NULL), -EINVAL);
    MK_OK(commit_segment(c, 1, false, ref_make(7, 7), &mk_err_));
    assert_int_equal(publish(c, &hdr, NULL), -EINVAL);      /* one segment is missing */
    commit_abort(c);
    struct snap *s;
    assert_int_equal(snap_open(m->st, m->segread, &hdr.info.ref, &s, NULL), -ENOENT);
}

/* ---- digest ---- */

static struct fp sha256(struct mkstore *m, const void *data, size_t len)
{
    struct fp out;
    struct fp_job job = { data, len, &out };
    MK_OK(fper_batch(m->fper, &job, 1, &mk_err_));
    return out;
}

static void the_digest_is_over_the_digests_of_the_pages(void **state)
{
    struct mkstore *m = *state;
    enum { N = 300 };       /* 255 runs and 45 */
    static uint64_t place[N];
    static uint8_t bytes[N * 16];
    for (unsigned i = 0; i < N; i++) {
        place[i] = ref_make(5, 2 * i);
        put_le32(bytes + 16 * i, i);
        put_le32(bytes + 16 * i + 4, 1);
        put_le64(bytes + 16 * i + 8, place[i]);
    }
    struct fp pages[2] = { sha256(m, bytes, 255 * 16), sha256(m, bytes + 255 * 16, 45 * 16) };
    struct fp want = sha256(m, pages, sizeof pages);
    for (unsigned round = 0; round < 2; round++) {      /* another snapshot with the same runs: the same digest */
        struct snaprcp hdr = mk_header(m, N * (uint64_t)SEG_BYTES);
        MK_OK(mk_commit(m, &hdr, place, &mk_err_));
        struct snap *s = mk_snap_open(m, &hdr);
        assert_memory_equal(snap_header(s)->runs_digest, want.b, FP_BYTES);
        snap_close(s);
    }
}

/* ---- publishing ---- */

static void publish_fills_in_what_was_not_known_before(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES), final, got;
    struct commit *c = NULL;
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    MK_OK(commit_segment(c, 0, false, ref_make(5, 5), &mk_err_));
    final = hdr;
    final.info.alloc_bytes = 8192;
    final.info.flags = SNAP_PARTIAL;
    final.info.levels.fresh = 777;
    snprintf(final.info.label, sizeof final.info.label, "v1.0");
    assert_int_equal(commit_publish(c, NULL), -EINVAL);         /* not staged */
    MK_OK(commit_stage(c, &final, &mk_err_));
    assert_int_equal(snaps_durable(m->st, &hdr.info.ref, &mk_err_), 0);
    assert_int_equal(commit_stage(c, &final, NULL), -EINVAL);
    MK_OK(commit_publish(c, &mk_err_));
    assert_int_equal(commit_publish(c, NULL), -EINVAL);
    commit_abort(c);
    MK_OK(snaps_load(m->st, &hdr.info.ref, &got, NULL, &mk_err_));
    assert_int_equal(got.info.alloc_bytes, 8192);
    assert_int_equal(got.info.flags, SNAP_PARTIAL);
    assert_int_equal(got.info.levels.fresh, 777);
    assert_string_equal(got.info.label, "v1.0");
    assert_true(vid_eq(&got.store, &store_conf(m->st)->id));
}

/* The caller that staged a recipe may still decide against it. */
static void what_is_staged_may_be_given_up(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES);
    struct commit *c = NULL;
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    MK_OK(commit_segment(c, 0, true, 0, &mk_err_));
    MK_OK(commit_stage(c, &hdr, &mk_err_));
    assert_int_equal(commit_segment(c, 1, true, 0, NULL), -EINVAL);
    commit_abort(c);
    assert_int_equal(snaps_durable(m->st, &hdr.info.ref, &mk_err_), 0);
    MK_OK(mk_commit(m, &hdr, (const uint64_t[]){ REF_ZERO }, &mk_err_));
}

static void fields_that_cannot_be_stored_are_refused(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES), final = hdr;
    struct commit *c = NULL;
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    MK_OK(commit_segment(c, 0, true, 0, &mk_err_));
    final.info.ref.snap = vid_random();
    assert_int_equal(publish(c, &final, NULL), -EINVAL);
    final = hdr;
    snprintf(final.info.label, sizeof final.info.label, "../x");
    assert_int_equal(publish(c, &final, NULL), -EINVAL);
    commit_abort(c);
}

static void nothing_is_published_as_another_than_was_begun(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES), other[5];
    struct commit *c = NULL;
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    MK_OK(commit_segment(c, 0, true, 0, &mk_err_));
    for (unsigned i = 0; i < 5; i++)
        other[i] = hdr;
    other[0].info.ref.disk = other[1].vm = other[2].info.ref.snap = vid_random();
    other[3].info.ref.seq++;
    other[4].epoch++;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(publish(c, &other[i], NULL), -EINVAL);
    MK_OK(publish(c, &hdr, &mk_err_));
    assert_int_equal(commit_segment(c, 1, true, 0, NULL), -EINVAL);
    commit_abort(c);
    commit_abort(NULL);
}

/* As after an attempt whose answer was lost: the first one counts, with its own places. */
static void a_recipe_that_is_there_is_the_snapshot(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES);
    const uint64_t one[] = { ref_make(5, 1) }, two[] = { ref_make(5, 2) };
    static struct runs got;
    MK_OK(mk_commit(m, &hdr, one, &mk_err_));
    MK_OK(mk_commit(m, &hdr, two, &mk_err_));
    load_runs(m, &hdr, &got);
    assert_int_equal(got.run[0].place, one[0]);
}

static void another_file_of_that_name_stays_and_is_an_error(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES), got;
    const uint64_t place[] = { ref_make(5, 1) };
    char dir[DISK_PATH_MAX], file[SNAP_FILE_MAX], path[512];
    store_disk_path(DIR_SNAPSHOTS, &hdr.info.ref.disk, dir);
    store_snap_file(hdr.info.ref.seq, &hdr.info.ref.snap, ".rcp", file);
    snprintf(path, sizeof path, "%s/%s", m->path, dir);
    assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(file_publish(fd, file, "no recipe", 9), 0);
    struct verr err = {0};
    assert_int_equal(mk_commit(m, &hdr, place, &err), -EBADMSG);
    assert_non_null(strstr(err.text, file));
    assert_int_equal(unlinkat(fd, file, 0), 0);
    close(fd);
    MK_OK(mk_commit(m, &hdr, place, &mk_err_));
    MK_OK(snaps_load(m->st, &hdr.info.ref, &got, NULL, &mk_err_));
}

static void nothing_is_left_behind(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES);
    const uint64_t place[] = { REF_ZERO };
    struct commit *c = NULL;
    char path[256];
    MK_OK(mk_commit(m, &hdr, place, &mk_err_));
    hdr = mk_header(m, SEG_BYTES);
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    commit_abort(c);
    snprintf(path, sizeof path, "%s/generations/0000000000000001/leases", m->path);
    assert_int_equal(rmdir(path), 0);       /* empty */
    assert_int_equal(mkdir(path, 0700), 0);
}

/* What a collector or an adopter does: whatever is in the lease goes. */
static void revoke_leases(struct mkstore *m)
{
    char path[256];
    snprintf(path, sizeof path, "%s/generations/0000000000000001/leases", m->path);
    assert_int_equal(tree_remove(AT_FDCWD, path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void a_revoked_lease_fences_and_a_new_commit_succeeds(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES);
    const uint64_t place[] = { ref_make(5, 1) };
    struct commit *c = NULL;
    struct snap *s;
    MK_OK(commit_begin(m->st, &hdr, &c, &mk_err_));
    MK_OK(commit_segment(c, 0, false, place[0], &mk_err_));
    revoke_leases(m);
    assert_int_equal(publish(c, &hdr, NULL), -ESTALE);
    commit_abort(c);
    assert_int_equal(snap_open(m->st, m->segread, &hdr.info.ref, &s, NULL), -ENOENT);
    MK_OK(mk_commit(m, &hdr, place, &mk_err_));
    snap_close(mk_snap_open(m, &hdr));
}

static void a_second_commit_of_the_vm_fences_the_first(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp a = mk_header(m, SEG_BYTES), b = mk_header(m, SEG_BYTES);
    struct commit *first = NULL, *second = NULL;
    MK_OK(commit_begin(m->st, &a, &first, &mk_err_));
    MK_OK(commit_begin(m->st, &b, &second, &mk_err_));
    MK_OK(commit_segment(first, 0, true, 0, &mk_err_));
    MK_OK(commit_segment(second, 0, true, 0, &mk_err_));
    assert_int_equal(publish(first, &a, NULL), -ESTALE);
    MK_OK(publish(second, &b, &mk_err_));
    commit_abort(first);
    commit_abort(second);
}

static void a_newer_owner_epoch_fences_for_good(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES);
    struct commit *c = NULL;
    uint64_t epoch;
    hdr.vm = vid_random();
    MK_OK(owner_claim(m->st, &hdr.vm, &m->host, &epoch, &mk_err_));
    hdr.epoch = 0;      /* older than the owner's */
    assert_int_equal(commit_begin(m->st, &hdr, &c, NULL), -ESTALE);
}

/* ---- publish check ---- */

struct checked { struct mkstore *m; struct snaprcp hdr; struct commit *c; struct cwriter *w; struct fp fp[3]; uint64_t ref[3]; };

static void append_block(struct checked *k, unsigned i, const char *text)
{
    k->fp[i] = sha256(k->m, text, strlen(text));
    MK_OK(cwriter_append(k->w, &k->fp[i], text, strlen(text), &k->ref[i], &mk_err_));
}

/* Three sealed blocks of 5 bytes. */
static void check_begin(struct mkstore *m, struct checked *k)
{
    memset(k, 0, sizeof *k);
    k->m = m;
    MK_OK(cwriter_open(m->st, CONTAINER_BLOCKS, CONTAINER_SHARED, REF_NONE, &k->w, &mk_err_));
    append_block(k, 0, "alpha");
    append_block(k, 1, "bravo");
    append_block(k, 2, "delta");
    MK_OK(cwriter_seal(k->w, &mk_err_));
    k->hdr = mk_header(m, SEG_BYTES);
}

static void check_commit(struct checked *k)
{
    MK_OK(commit_begin(k->m->st, &k->hdr, &k->c, &mk_err_));
    mk_reopen_reader(k->m);
}

static void check_end(struct checked *k)
{
    commit_abort(k->c);
    cwriter_free(k->w);
}

static void publish_check_knows_good_references_from_wrong_ones(void **state)
{
    struct mkstore *m = *state;
    struct checked k;
    check_begin(m, &k);
    check_commit(&k);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(commit_check(k.c, m->reader, k.ref[i], &k.fp[i], 5, NULL), 1);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[1], 5, NULL), 0);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[0], 6, NULL), 0);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[2] + 1, &k.fp[0], 5, NULL), 0);
    assert_int_equal(commit_check(k.c, m->reader, ref_make(99999999, 0), &k.fp[0], 5, NULL), 0);
    assert_int_equal(commit_check(k.c, m->reader, REF_NONE, &k.fp[0], 5, NULL), 0);
    assert_int_equal(commit_check(k.c, m->reader, REF_ZERO, &k.fp[0], 5, NULL), 0);
    check_end(&k);
}

static void publish_check_refuses_what_is_not_sealed(void **state)
{
    struct mkstore *m = *state;
    struct checked k;
    check_begin(m, &k);
    append_block(&k, 0, "later");
    check_commit(&k);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[0], 5, NULL), 0);
    MK_OK(cwriter_seal(k.w, &mk_err_));
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[0], 5, NULL), 1);
    check_end(&k);
}

/* As FORMAT.md has it: magic, version, store, generation, count, references, checksum. */
static void condemn(struct mkstore *m, uint64_t ref)
{
    uint8_t log[64] = "varveDEL";
    char path[256];
    put_le32(log + 8, 1);
    memcpy(log + 16, store_conf(m->st)->id.b, VID_BYTES);
    put_le64(log + 32, 1);
    put_le64(log + 40, 1);
    put_le64(log + 48, ref);
    put_le64(log + 56, hash64(log, 56));
    snprintf(path, sizeof path, "%s/generations/0000000000000001/deletions", m->path);
    mk_store_bytes(path, log, sizeof log);
}

static void publish_check_refuses_what_is_condemned(void **state)
{
    struct mkstore *m = *state;
    struct checked k;
    check_begin(m, &k);
    condemn(m, k.ref[1]);
    check_commit(&k);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[0], 5, NULL), 1);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[1], &k.fp[1], 5, NULL), 0);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[2], &k.fp[2], 5, NULL), 1);
    check_end(&k);
}

static void a_commit_needs_the_deletion_log(void **state)
{
    struct mkstore *m = *state;
    struct snaprcp hdr = mk_header(m, SEG_BYTES);
    struct commit *c = NULL;
    char path[256];
    snprintf(path, sizeof path, "%s/generations/0000000000000001/deletions", m->path);
    assert_int_equal(unlink(path), 0);
    assert_true(commit_begin(m->st, &hdr, &c, NULL) < 0);
    condemn(m, ref_make(1, 1));
}

/* Makes an ordinal of the first section a tombstone, as a collection does. */
static void kill_ordinal(struct mkstore *m, uint64_t ref)
{
    char path[256];
    size_t len;
    const char *why = "";
    mk_container_path(m, ref, path);
    uint8_t *file = mk_load(path, &len);
    struct ctrailer t;
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    uint32_t n;
    assert_int_equal(ctrailer_decode(file + len - CTRAILER_BYTES, &t, &why), 0);
    assert_int_equal(footer_page_decode(&t.id, t.first_ordinal, file + t.footer_off, e, &n, &why), 0);
    memset(&e[ref_ordinal(ref) - t.first_ordinal], 0, sizeof e[0]);
    footer_page_encode(&t.id, t.first_ordinal, e, n, file + t.footer_off);
    mk_store_bytes(path, file, len);
    free(file);
}

static void publish_check_refuses_tombstones_and_damaged_footers(void **state)
{
    struct mkstore *m = *state;
    struct checked k;
    char path[256];
    size_t len;
    check_begin(m, &k);
    kill_ordinal(m, k.ref[1]);
    check_commit(&k);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[0], 5, NULL), 1);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[1], &k.fp[1], 5, NULL), 0);
    mk_container_path(m, k.ref[0], path);
    free(mk_load(path, &len));
    mk_flip(path, len - CTRAILER_BYTES - FOOTER_PAGE_BYTES + 40, 1);
    mk_reopen_reader(m);
    assert_int_equal(commit_check(k.c, m->reader, k.ref[0], &k.fp[0], 5, NULL), 0);
    check_end(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_neighbours_become_runs),
        cmocka_unit_test(an_untouched_disk_is_one_run),
        cmocka_unit_test(a_disk_of_no_bytes_has_no_runs),
        cmocka_unit_test(gaps_and_bad_places_are_refused),
        cmocka_unit_test(the_digest_is_over_the_digests_of_the_pages),
        cmocka_unit_test(publish_fills_in_what_was_not_known_before),
        cmocka_unit_test(what_is_staged_may_be_given_up),
        cmocka_unit_test(fields_that_cannot_be_stored_are_refused),
        cmocka_unit_test(nothing_is_published_as_another_than_was_begun),
        cmocka_unit_test(a_recipe_that_is_there_is_the_snapshot),
        cmocka_unit_test(another_file_of_that_name_stays_and_is_an_error),
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(a_revoked_lease_fences_and_a_new_commit_succeeds),
        cmocka_unit_test(a_second_commit_of_the_vm_fences_the_first),
        cmocka_unit_test(a_newer_owner_epoch_fences_for_good),
        cmocka_unit_test(publish_check_knows_good_references_from_wrong_ones),
        cmocka_unit_test(publish_check_refuses_what_is_not_sealed),
        cmocka_unit_test(publish_check_refuses_what_is_condemned),
        cmocka_unit_test(publish_check_refuses_tombstones_and_damaged_footers),
        cmocka_unit_test(a_commit_needs_the_deletion_log),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
