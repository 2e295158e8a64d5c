/* SPDX-License-Identifier: Apache-2.0 */
/* Parts that the stages of a round are made of: plan log, answers, cutting, level 2, what a slot owner answers. */
#include "../lib/mkround.h"

#include "dedup/dedup_internal.h"
#include "proto/proto_internal.h"
#include "snapshot/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char tmp[] = "/tmp/varve-stages-XXXXXX";
static int tmpfd;

static int group_setup(void **state)
{
    (void)state;
    return mkdtemp(tmp) == NULL || (tmpfd = dir_open(AT_FDCWD, tmp)) < 0 ? -1 : 0;
}

static int group_teardown(void **state)
{
    (void)state;
    close(tmpfd);
    return tree_remove(AT_FDCWD, tmp);
}

/* ---- spools ---- */

static bool has_file(const char *name) { return faccessat(tmpfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0; }

/* n bytes through a spool with a buffer of 100, of which `keep` may stay in memory; read twice, side by side. */
static void spool_gives_back(size_t n, size_t keep, bool in_memory)
{
    struct seqout o;
    struct seqin a, b;
    uint8_t x, y;
    assert_int_equal(seqout_spool(&o, tmpfd, "spool", 100, NULL), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(seqout_put(&o, &(uint8_t){(uint8_t)i}, 1, NULL), 0);
    assert_int_equal(seqout_end(&o, keep, NULL), 0);
    assert_int_equal(has_file("spool"), !in_memory);
    assert_int_equal(seqout_memory(&o) != NULL, in_memory);
    assert_int_equal(seqin_over(&a, &o, 64, NULL), 0);
    assert_int_equal(seqin_over(&b, &o, 64, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(seqin_get(&a, &x, 1, NULL), 1);
        assert_int_equal(x, (uint8_t)i);
        if (i % 2 == 0)
            assert_int_equal(seqin_get(&b, &y, 1, NULL), 1);
    }
    assert_int_equal(seqin_get(&a, &x, 1, NULL), 0);
    seqin_close(&a);
    seqin_close(&b);
    seqout_discard(&o);
    assert_false(has_file("spool"));
    seqout_discard(&o);
}

static void spool_has_a_file_only_when_it_outgrows_its_buffer(void **state)
{
    (void)state;
    spool_gives_back(0, 0, true);
    spool_gives_back(60, 100, true);
    spool_gives_back(100, 100, true);
    spool_gives_back(60, 59, false);
    spool_gives_back(101, 100, false);
    spool_gives_back(1000, 100, false);
}

/* ---- plan log ---- */

static void sample_segment(struct plan_seg *s, uint64_t segment)
{
    s->segment = segment;
    s->kind = PLAN_BLOCKS;
    s->bytes = 4096 + 5000;
    s->data_pages = 2;
    s->nblocks = 2;
    s->place = REF_NONE;
    mkr_fill(s->digest, DIGEST_BYTES, segment);
    s->b[0] = (struct plan_block){.len = 4096, .kind = BLK_ZERO, .ref = REF_ZERO};
    s->b[1] = (struct plan_block){.len = 5000, .kind = BLK_ASKED, .ref = 17};
    mkr_fill(s->b[1].fp.b, FP_BYTES, segment + 1);
}

static void write_plan(const char *name, uint64_t seed)
{
    struct plan_block b[PLAN_BLOCKS_MAX];
    struct plan_seg s = {.b = b};
    struct seqout o;
    uint8_t *rec = malloc(PLAN_RECORD_MAX);
    assert_int_equal(seqout_open(&o, tmpfd, name, 100, NULL), 0);
    for (uint64_t i = 0; i < 3; i++) {
        sample_segment(&s, i * 2);
        assert_int_equal(plan_put(&o, &s, seed, rec, NULL), 0);
    }
    assert_int_equal(seqout_close(&o, NULL), 0);
    free(rec);
}

/* Number of records read before the end (>= 0) or -errno. */
static int read_plan(const char *name, uint64_t seed)
{
    struct plan_block *b = calloc(PLAN_BLOCKS_MAX, sizeof *b), want_b[PLAN_BLOCKS_MAX];
    struct plan_seg s = {.b = b}, want = {.b = want_b};
    struct seqin in;
    uint8_t *rec = malloc(PLAN_RECORD_MAX);
    int n = 0, rc;
    assert_int_equal(seqin_open(&in, tmpfd, name, 77, NULL), 0);
    while ((rc = plan_get(&in, &s, seed, rec, NULL)) > 0) {
        sample_segment(&want, (uint64_t)n * 2);
        assert_true(s.segment == want.segment && s.bytes == want.bytes && s.nblocks == 2 && s.kind == PLAN_BLOCKS);
        assert_memory_equal(s.digest, want.digest, DIGEST_BYTES);
        assert_memory_equal(&s.b[1], &want.b[1], sizeof s.b[1]);
        n++;
    }
    seqin_close(&in);
    free(b);
    free(rec);
    return rc < 0 ? rc : n;
}

static void plan_log_round_trips(void **state)
{
    (void)state;
    write_plan("plan-a", 42);
    assert_int_equal(read_plan("plan-a", 42), 3);
}

static void plan_log_of_another_disk_is_refused(void **state)
{
    (void)state;
    write_plan("plan-b", 42);
    assert_int_equal(read_plan("plan-b", 43), -EBADMSG);
}

static void plan_log_with_any_flipped_bit_is_refused(void **state)
{
    (void)state;
    write_plan("plan-c", 42);
    int fd = openat(tmpfd, "plan-c", O_RDWR);
    off_t end = lseek(fd, 0, SEEK_END);
    for (off_t at = 0; at < end; at += 3) {
        uint8_t c;
        assert_int_equal(pread(fd, &c, 1, at), 1);
        c ^= 0x10;
        assert_int_equal(pwrite(fd, &c, 1, at), 1);
        assert_int_equal(read_plan("plan-c", 42), -EBADMSG);
        c ^= 0x10;
        assert_int_equal(pwrite(fd, &c, 1, at), 1);
    }
    assert_int_equal(ftruncate(fd, end - 1), 0);
    assert_int_equal(read_plan("plan-c", 42), -EBADMSG);
    close(fd);
}

/* ---- answers ---- */

static void answers_that_did_not_come_read_as_new(void **state)
{
    (void)state;
    const uint64_t count[2] = {100, 5};
    const uint64_t refs[2] = {ref_make(3, 4), ANSWER_WAIT};
    struct answers a;
    uint64_t ref;
    assert_int_equal(answers_open(&a, tmpfd, count, 2, 256, NULL), 0);
    assert_int_equal(answers_put(&a, 0, 50, refs, 2, NULL), 0);
    assert_int_equal(answers_put(&a, 0, 99, refs, 2, NULL), -EPROTO);
    assert_int_equal(answers_put(&a, 2, 0, refs, 1, NULL), -EPROTO);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(answers_get(&a, 0, i, &ref, NULL), 0);
        assert_true(ref == (i == 50 ? refs[0] : i == 51 ? ANSWER_WAIT : ANSWER_NEW));
    }
    assert_int_equal(answers_get(&a, 1, 4, &ref, NULL), 0);
    assert_true(ref == ANSWER_NEW);
    assert_int_equal(answers_get(&a, 1, 5, &ref, NULL), -EBADMSG);
    answers_close(&a);
    unlinkat(tmpfd, "answers", 0);
}

static void resolutions_go_to_the_waiting_ones_in_order(void **state)
{
    (void)state;
    const uint64_t count[1] = {300};
    struct answers a;
    uint64_t ref, wait = ANSWER_WAIT;
    assert_int_equal(answers_open(&a, tmpfd, count, 1, 64, NULL), 0);
    for (uint64_t i = 7; i < 300; i += 50)
        assert_int_equal(answers_put(&a, 0, i, &wait, 1, NULL), 0);
    for (uint32_t k = 0; k < 6; k++)
        assert_int_equal(answers_resolve(&a, 0, k == 2 ? REF_NONE : ref_make(9, k), NULL), 0);
    assert_int_equal(answers_resolve(&a, 0, ref_make(9, 9), NULL), -EPROTO);
    assert_int_equal(answers_rewind(&a, NULL), 0);
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t k = i / 50;
        assert_int_equal(answers_get(&a, 0, i, &ref, NULL), 0);
        assert_true(ref == (i % 50 != 7 ? ANSWER_NEW : k == 2 ? ANSWER_WAIT : ref_make(9, (uint32_t)k)));
    }
    answers_close(&a);
    unlinkat(tmpfd, "answers", 0);
}

/* ---- segments ---- */

static void segment_that_reads_differently_is_cut_again(void **state)
{
    (void)state;
    struct mkround m;
    struct verr err = {0};
    mkr_new(&m, &(struct mkr_options){0});
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 5);
    mkr_freeze(&m, 0);
    mkr_job(&m, 0);
    const struct store_conf *conf = store_conf(m.st);
    struct round r = {.env = &m.env, .conf = conf};
    struct jobstate js = {.job = &m.job[0]};
    struct cwriter *cw;
    assert_int_equal(line_alloc_work(&r, 1, &err), 0);
    struct segwork *w = &r.work[0];
    struct plan_seg *s = &w->s;
    w->js = &js;
    assert_int_equal(seg_load(w, &s->bytes, &err), 0);
    assert_int_equal(level_segment(w->level, LEVEL_BLOCKS, w->seg, REF_NONE, s, NULL, &err), 0);
    assert_int_equal(s->data_pages, SEG_PAGES);
    struct fp right = s->b[2].fp;
    s->b[2].fp.b[31] ^= 1;                       /* what 1a saw is not what is there now */
    s->digest[3] ^= 1;
    s->b[1].kind = BLK_GLOBAL;
    s->b[1].ref = ref_make(1, 1);
    assert_int_equal(cwriter_open(m.st, CONTAINER_BLOCKS, CONTAINER_SHARED, REF_NONE, &cw, &err), 0);
    assert_int_equal(seg_prepare_new(w, &err), 0);
    assert_int_equal(seg_append_new(w, cw, NULL, &err), 0);
    assert_int_equal(cwriter_seal(cw, &err), 0);
    assert_true(fp_eq(&s->b[2].fp, &right));
    for (uint32_t i = 0; i < s->nblocks; i++) {
        struct footer_entry e;
        assert_int_equal(s->b[i].kind, BLK_OWN);
        assert_int_equal(creader_entries(m.reader, s->b[i].ref, 1, &e, &err), 0);
        assert_true(fp_eq(&e.fp, &s->b[i].fp) && e.len == s->b[i].len);
    }
    cwriter_free(cw);
    line_free_work(&r);
    mkr_free(&m);
}

/* ---- the round's directory ---- */

static int count_entry(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static void round_removes_its_files_and_those_of_older_rounds(void **state)
{
    (void)state;
    struct mkround m;
    int n = 0;
    mkr_new(&m, &(struct mkr_options){0});
    struct mkr_disk *d = mkr_disk(&m, 0, 0, SEG_BYTES);
    mkr_write_seed(d, 0, 100000, 5);
    int stale = dir_make(m.workfd, "0123456789abcdef0123456789abcdef");
    assert_int_equal(file_replace(stale, "plan-0000", "x", 1), 0);
    close(stale);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(dir_each(m.workfd, count_entry, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(m.notes, 0);
    mkr_free(&m);
}

static int stop_in_2b(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    (void)ctx;
    (void)done;
    (void)total;
    return strcmp(stage, "stage_2b") == 0;
}

static void stopped_round_leaves_snapshots_pending(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &(struct mkr_options){0});
    mkr_write_seed(mkr_disk(&m, 0, 0, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 9);
    mkr_freeze(&m, 0);
    m.env.progress = stop_in_2b;
    assert_int_equal(mkr_round(&m, 0, 1), -EINTR);
    assert_int_equal(m.job[0].result, -EINTR);
    m.env.progress = NULL;
    assert_int_equal(mkr_round(&m, 0, 1), 0);
    assert_int_equal(m.job[0].result, 0);
    assert_true(mkr_same(&m, 0));
    mkr_free(&m);
}

/* A bus on which nothing arrives: every request stays without an answer. */
struct deaf { struct bus bus; unsigned sent; };
static int deaf_send(struct bus *b, enum bus_topic t, uint32_t p, const void *f, size_t n, struct verr *err)
{
    (void)t, (void)p, (void)f, (void)n, (void)err;
    ((struct deaf *)b)->sent++;
    return 0;
}
static int deaf_receive(struct bus *b, enum bus_topic t, uint32_t p, void *buf, struct verr *err)
{
    (void)b, (void)t, (void)p, (void)buf, (void)err;
    return 0;
}
static int deaf_commit(struct bus *b, enum bus_topic t, uint32_t p, struct verr *err)
{
    (void)b, (void)t, (void)p, (void)err;
    return 0;
}

static void missing_answers_mean_new_and_the_round_ends(void **state)
{
    (void)state;
    static const struct bus_ops ops = {.send = deaf_send, .receive = deaf_receive, .commit = deaf_commit};
    struct deaf deaf = {.bus = {&ops}};
    struct mkround m;
    mkr_new(&m, &(struct mkr_options){0});
    struct bus *real = m.bus;
    m.env.bus = &deaf.bus;
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 9);
    assert_true(mkr_backup(&m, 0, 1));
    assert_true(deaf.sent > 0);
    assert_true(m.notes > 0);
    assert_int_equal(m.job[0].recipe.info.levels.fresh, SEG_BYTES);
    m.env.bus = real;
    mkr_free(&m);
}

/* Damages every n-th frame on its way. */
struct noisy { struct bus bus; struct bus *real; unsigned seen; };
static int noisy_send(struct bus *b, enum bus_topic t, uint32_t p, const void *f, size_t n, struct verr *err)
{
    return bus_send(((struct noisy *)b)->real, t, p, f, n, err);
}
static int noisy_receive(struct bus *b, enum bus_topic t, uint32_t p, void *buf, struct verr *err)
{
    struct noisy *z = (struct noisy *)b;
    int n = bus_receive(z->real, t, p, buf, err);
    if (n > 0 && ++z->seen % 3 == 0)
        ((uint8_t *)buf)[n / 2] ^= 1;
    return n;
}
static int noisy_commit(struct bus *b, enum bus_topic t, uint32_t p, struct verr *err)
{
    return bus_commit(((struct noisy *)b)->real, t, p, err);
}

static void damaged_messages_cost_space_only(void **state)
{
    (void)state;
    static const struct bus_ops ops = {.send = noisy_send, .receive = noisy_receive, .commit = noisy_commit};
    struct mkround m;
    mkr_new(&m, &(struct mkr_options){.slots = 4, .partitions = 2});
    struct noisy noisy = {.bus = {&ops}, .real = m.bus};
    m.env.bus = &noisy.bus;
    mkr_write_seed(mkr_disk(&m, 0, 0, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 9);
    mkr_write_seed(mkr_disk(&m, 1, 1, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 9);
    assert_true(mkr_backup(&m, 0, 2));
    assert_true(m.notes > 0);
    mkr_free(&m);
}

/* Summaries that are intact, but say that they answer other requests than were sent. */
struct stranger { struct bus bus; struct bus *real; unsigned seen; };
static int stranger_send(struct bus *b, enum bus_topic t, uint32_t p, const void *f, size_t n, struct verr *err)
{
    return bus_send(((struct stranger *)b)->real, t, p, f, n, err);
}
static int stranger_receive(struct bus *b, enum bus_topic t, uint32_t p, void *buf, struct verr *err)
{
    struct stranger *z = (struct stranger *)b;
    uint8_t *frame = buf;
    int n = bus_receive(z->real, t, p, buf, err);
    if (n > PROTO_HEAD_BYTES && get_le16(frame + PH_TYPE) == PROTO_SUMMARY) {
        frame[PROTO_HEAD_BYTES + PP_DIGEST] ^= 1;
        put_le64(frame + PH_CHECKSUM, proto_checksum(frame, (size_t)n));
        z->seen++;
    }
    return n;
}
static int stranger_commit(struct bus *b, enum bus_topic t, uint32_t p, struct verr *err)
{
    return bus_commit(((struct stranger *)b)->real, t, p, err);
}

static void summary_of_other_requests_is_not_used(void **state)
{
    (void)state;
    static const struct bus_ops ops = {.send = stranger_send, .receive = stranger_receive, .commit = stranger_commit};
    struct mkround m;
    mkr_new(&m, &(struct mkr_options){0});
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 9);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(m.notes, 0);
    struct stranger stranger = {.bus = {&ops}, .real = m.bus};
    m.env.bus = &stranger.bus;
    mkr_write_seed(mkr_disk(&m, 1, 1, SEG_BYTES), 0, SEG_BYTES, 9);
    assert_true(mkr_backup(&m, 1, 1));
    assert_true(stranger.seen > 0);
    assert_true(m.notes > 0);
    assert_int_equal(m.job[1].recipe.info.levels.fresh, SEG_BYTES);
    mkr_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spool_has_a_file_only_when_it_outgrows_its_buffer),
        cmocka_unit_test(plan_log_round_trips),
        cmocka_unit_test(plan_log_of_another_disk_is_refused),
        cmocka_unit_test(plan_log_with_any_flipped_bit_is_refused),
        cmocka_unit_test(answers_that_did_not_come_read_as_new),
        cmocka_unit_test(resolutions_go_to_the_waiting_ones_in_order),
        cmocka_unit_test(segment_that_reads_differently_is_cut_again),
        cmocka_unit_test(round_removes_its_files_and_those_of_older_rounds),
        cmocka_unit_test(stopped_round_leaves_snapshots_pending),
        cmocka_unit_test(missing_answers_mean_new_and_the_round_ends),
        cmocka_unit_test(damaged_messages_cost_space_only),
        cmocka_unit_test(summary_of_other_requests_is_not_used),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
