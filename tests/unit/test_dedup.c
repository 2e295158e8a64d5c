/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole rounds over a real store and real live images: what each level finds, that wrong hints cost space and never data,
 * and that a round which is killed anywhere is simply done again. Content is always compared byte for byte.
 */
#include "../lib/mkround.h"

#include "chunk/chunk.h"
#include "chunk/fingerprint.h"
#include "store/store_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>

#include <cmocka.h>

static const struct mkr_options plain;

static struct snap_levels levels(const struct mkround *m, unsigned i)
{
    const struct snaprcp *r = &m->job[i].recipe;
    assert_true(mkr_level_sum(&r->info.levels) == r->info.size);
    return r->info.levels;
}

/* ---- what the levels find ---- */

static void first_backup_reads_back(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 3 * SEG_BYTES + 12345);
    mkr_write_seed(d, 1000, 300000, 1);
    mkr_write_seed(d, 2 * SEG_BYTES - 5000, 10000, 2);
    mkr_write_seed(d, 3 * SEG_BYTES + 12000, 345, 3);
    assert_true(mkr_backup(&m, 0, 1));
    struct snap_levels l = levels(&m, 0);
    assert_true(l.fresh >= 310345 && l.fresh < 310345 + 6 * 70000);
    assert_true(l.zero > 2 * SEG_BYTES);
    assert_int_equal(m.notes, 0);
    assert_true(l.stored > 310345 && l.stored < 700000);
    assert_true(m.job[0].last_blocks != REF_NONE && m.job[0].last_recipes != REF_NONE);
    mkr_free(&m);
}

static void empty_and_zero_disks_are_stored(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    uint8_t zero[8192] = {0};
    mkr_write(mkr_disk(&m, 0, 0, SEG_BYTES + 9000), SEG_BYTES, zero, sizeof zero);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).zero, SEG_BYTES + 9000);
    assert_int_equal(levels(&m, 0).stored, 0);
    mkr_free(&m);
}

static void common_blocks_of_two_disks_are_stored_once(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    for (unsigned i = 0; i < 2; i++)
        mkr_write_seed(mkr_disk(&m, i, i, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 77);
    assert_true(mkr_backup(&m, 0, 2));
    struct snap_levels a = levels(&m, 0), b = levels(&m, 1);
    assert_int_equal(a.fresh, 2 * SEG_BYTES);
    assert_int_equal(b.fresh, 0);
    assert_int_equal(b.dup_new, 2 * SEG_BYTES);
    assert_true(b.stored < 20000);
    assert_int_equal(m.notes, 0);
    mkr_free(&m);
}

static void block_repeated_within_a_disk_is_stored_once(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 4 * SEG_BYTES);
    for (unsigned i = 0; i < 4; i++)
        mkr_write_seed(d, (uint64_t)i * SEG_BYTES, SEG_BYTES, 5);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).fresh, SEG_BYTES);
    assert_int_equal(levels(&m, 0).dup_new, 3 * SEG_BYTES);
    mkr_free(&m);
}

static void later_round_finds_duplicates_in_the_index(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    mkr_write_seed(mkr_disk(&m, 0, 0, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 21);
    assert_true(mkr_backup(&m, 0, 1));
    mkr_write_seed(mkr_disk(&m, 1, 1, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 21);
    assert_true(mkr_backup(&m, 1, 1));
    struct snap_levels l = levels(&m, 1);
    assert_int_equal(l.global, 2 * SEG_BYTES);
    assert_int_equal(l.fresh, 0);
    assert_true(l.stored < 20000);
    mkr_free(&m);
}

static void rewritten_equal_segments_settle_at_level_2(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 3 * SEG_BYTES);
    mkr_write_seed(d, 0, 3 * SEG_BYTES, 8);
    assert_true(mkr_backup(&m, 0, 1));
    mkr_write_seed(d, 0, SEG_BYTES, 8);      /* as the first segment of a seed of its own: other bytes than those of the disk */
    mkr_write(d, 0, d->frozen, SEG_BYTES);   /* and back */
    assert_true(mkr_backup(&m, 0, 1));
    struct snap_levels l = levels(&m, 0);
    assert_int_equal(l.parent_segment, SEG_BYTES);
    assert_int_equal(l.clean, 2 * SEG_BYTES);
    assert_int_equal(l.stored, 0);
    mkr_free(&m);
}

static void one_changed_block_costs_about_one_block(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 8);
    assert_true(mkr_backup(&m, 0, 1));
    mkr_write_seed(d, SEG_BYTES / 2, 512, 9);
    assert_true(mkr_backup(&m, 0, 1));
    struct snap_levels l = levels(&m, 0);
    assert_int_equal(l.clean, SEG_BYTES);
    assert_true(l.fresh > 0 && l.fresh <= 3 * 16384);
    assert_int_equal(l.parent_block + l.fresh + l.global + l.dup_new, SEG_BYTES);
    assert_true(l.parent_block >= SEG_BYTES - 3 * 16384);
    assert_true(l.stored < 60000);
    mkr_free(&m);
}

static void parent_snapshot_serves_a_table_that_has_none(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 8);
    assert_true(mkr_backup(&m, 0, 1));
    struct verr err;
    uint8_t *copy = malloc(2 * SEG_BYTES);
    memcpy(copy, d->model, 2 * SEG_BYTES);
    assert_int_equal(live_rewrite(d->live, &err), 0);
    mkr_write(d, 0, copy, 2 * SEG_BYTES);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).parent_segment, 2 * SEG_BYTES);
    assert_int_equal(levels(&m, 0).stored, 0);
    free(copy);
    mkr_free(&m);
}

static void selective_disk_asks_nobody_and_offers_nothing(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 4);
    struct mkr_disk *d = mkr_disk(&m, 1, 1, SEG_BYTES);
    d->selective = true;
    mkr_write_seed(d, 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 1, 1));
    assert_int_equal(levels(&m, 1).fresh, SEG_BYTES);
    struct fpindex_stats s;
    fpindex_stats(m.slots[0], &s);
    assert_int_equal(s.entries, 0);
    struct container_info info;
    assert_int_equal(container_walk(m.reader, m.job[1].last_blocks, &info, NULL, NULL, NULL), 0);
    assert_int_equal(info.flags, CONTAINER_PRIVATE);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).fresh, SEG_BYTES);
    mkr_free(&m);
}

struct one_block { struct fp fp; uint64_t ref; };
static int find_one(void *ctx, const struct fp *fp, uint64_t *ref)
{
    const struct one_block *o = ctx;
    if (!fp_eq(fp, &o->fp))
        return 0;
    *ref = o->ref;
    return 1;
}

/* Fingerprint of the first block of data. */
static struct fp first_block(const struct mkround *m, const uint8_t *data, size_t n, size_t *len)
{
    const struct store_conf *c = store_conf(m->st);
    struct chunker ch;
    struct fp fp;
    bool zero;
    struct fper *f = fper_new((enum fp_kind)c->fingerprint, c->digest_key, NULL);
    assert_int_equal(chunker_init(&ch, c->cdc, c->block_bytes), 0);
    *len = chunk_next(&ch, data, n, &zero);
    assert_int_equal(fper_batch(f, &(struct fp_job){data, *len, &fp}, 1, NULL), 0);
    fper_free(f);
    return fp;
}

static void common_set_settles_blocks_before_the_index(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, SEG_BYTES);
    mkr_write_seed(d, 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    size_t len;
    struct one_block one = {.fp = first_block(&m, d->model, SEG_BYTES, &len), .ref = ref_make(m.job[0].last_blocks, 0)};
    struct common_set common = {find_one, &one};
    m.env.common = &common;
    mkr_write_seed(mkr_disk(&m, 1, 1, SEG_BYTES), 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 1, 1));
    assert_int_equal(levels(&m, 1).common, len);
    assert_int_equal(levels(&m, 1).global, SEG_BYTES - len);
    mkr_free(&m);
}

/* ---- hints that are wrong ---- */

struct key_list { uint8_t (*key)[FPKEY_BYTES]; size_t n; };

static int key_order(const void *a, const void *b)
{
    return memcmp(a, b, FPKEY_BYTES);
}

/* An index whose entry for every block of data leads to ref. */
static void plant(struct mkround *m, const uint8_t *data, size_t n, uint64_t ref)
{
    const struct store_conf *c = store_conf(m->st);
    struct verr mkr_err = {0};
    struct key_list k = {calloc(n / 1024 + 2, FPKEY_BYTES), 0};
    for (size_t off = 0, len; off < n; off += len) {
        size_t seg_left = SEG_BYTES - off % SEG_BYTES;
        struct fp fp = first_block(m, data + off, seg_left < n - off ? seg_left : n - off, &len);
        memcpy(k.key[k.n++], fp.b, FPKEY_BYTES);
    }
    qsort(k.key, k.n, FPKEY_BYTES, key_order);
    for (uint32_t s = 0; s < c->slots; s++) {
        struct fpdelta *d;
        MKR_TRY(fpdelta_begin(m->slots[s], &d, &mkr_err));
        for (size_t i = 0; i < k.n; i++)
            if (storeconf_partition(c, k.key[i]) / c->partitions == s && (i == 0 || key_order(k.key[i], k.key[i - 1]) != 0))
                MKR_TRY(fpdelta_add(d, k.key[i], ref, &mkr_err));
        MKR_TRY(fpdelta_commit(d, &mkr_err));
    }
    free(k.key);
}

static void check_planted(uint64_t ref, bool of_last_blocks)
{
    struct mkround m;
    mkr_new(&m, &plain);
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    struct mkr_disk *d = mkr_disk(&m, 1, 1, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 1234);
    plant(&m, d->model, 2 * SEG_BYTES, of_last_blocks ? ref_make(m.job[0].last_blocks, (uint32_t)ref) : ref);
    assert_true(mkr_backup(&m, 1, 1));
    assert_int_equal(levels(&m, 1).fresh, 2 * SEG_BYTES);
    assert_int_equal(levels(&m, 1).global, 0);
    mkr_free(&m);
}

static void index_entry_of_another_block_is_refused(void **state)
{
    (void)state;
    check_planted(3, true);
}

static void index_entry_of_an_ordinal_that_is_not_sealed_is_refused(void **state)
{
    (void)state;
    check_planted(100000, true);
}

static void index_entry_of_an_unknown_container_is_refused(void **state)
{
    (void)state;
    check_planted(ref_make(UINT64_C(0x123456789), 5), false);
}

/* Replaces the deletion log of generation 1. */
static void condemn(struct mkround *m, const uint64_t *refs, uint64_t n)
{
    struct verr mkr_err = {0};
    int dir;
    MKR_TRY(dir = dir_open(store_dirfd(m->st, DIR_GENERATIONS), "0000000000000001"));
    assert_int_equal(unlinkat(dir, "deletions", 0), 0);
    MKR_TRY(deletion_log_write(m->st->b, "generations/0000000000000001", &store_conf(m->st)->id, 1, refs, n));
    close(dir);
}

/* What the publish check refused is offered to the index by 4b itself: the wrong entry costs one copy, not one a round. */
static void refused_index_entry_is_replaced_by_what_was_written(void **state)
{
    (void)state;
    static const struct mkr_options slots = {.slots = 4, .partitions = 4};
    struct mkround m;
    mkr_new(&m, &slots);
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    struct mkr_disk *d = mkr_disk(&m, 1, 1, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 1234);
    plant(&m, d->model, 2 * SEG_BYTES, ref_make(m.job[0].last_blocks, 3));
    assert_true(mkr_backup(&m, 1, 1));
    assert_int_equal(levels(&m, 1).fresh, 2 * SEG_BYTES);
    mkr_write(mkr_disk(&m, 2, 2, 2 * SEG_BYTES), 0, d->model, 2 * SEG_BYTES);
    assert_true(mkr_backup(&m, 2, 1));
    assert_int_equal(levels(&m, 2).global, 2 * SEG_BYTES);
    assert_int_equal(levels(&m, 2).fresh, 0);
    assert_true(levels(&m, 2).stored < 20000);
    assert_int_equal(m.notes, 0);
    mkr_free(&m);
}

static void blocks_of_a_selective_disk_are_not_offered_late(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 2 * SEG_BYTES);
    d->selective = true;
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    uint64_t ref = ref_make(m.job[0].last_blocks, 9);
    condemn(&m, &ref, 1);
    mkr_write(d, 0, d->frozen, 2 * SEG_BYTES);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).fresh, SEG_BYTES);       /* written in 4b */
    struct fpindex_stats s;
    fpindex_stats(m.slots[0], &s);
    assert_int_equal(s.entries, 0);
    mkr_free(&m);
}

static void wrong_common_block_is_refused(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    struct mkr_disk *d = mkr_disk(&m, 1, 1, SEG_BYTES);
    mkr_write_seed(d, 0, SEG_BYTES, 1234);
    size_t len;
    struct one_block one = {.fp = first_block(&m, d->model, SEG_BYTES, &len), .ref = ref_make(m.job[0].last_blocks, 1)};
    struct common_set common = {find_one, &one};
    m.env.common = &common;
    assert_true(mkr_backup(&m, 1, 1));
    assert_int_equal(levels(&m, 1).common, 0);
    mkr_free(&m);
}

static void condemned_block_is_written_anew(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    uint64_t refs[2] = {ref_make(m.job[0].last_blocks, 2), ref_make(m.job[0].last_blocks, 9)};
    struct footer_entry e[2];
    assert_int_equal(creader_entries(m.reader, refs[0], 1, &e[0], NULL), 0);
    assert_int_equal(creader_entries(m.reader, refs[1], 1, &e[1], NULL), 0);
    condemn(&m, refs, 2);
    mkr_write_seed(mkr_disk(&m, 1, 1, SEG_BYTES), 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 1, 1));
    assert_int_equal(levels(&m, 1).fresh, e[0].len + e[1].len);
    assert_int_equal(levels(&m, 1).global, SEG_BYTES - e[0].len - e[1].len);
    mkr_free(&m);
}

static void condemned_block_of_an_equal_parent_segment_is_written_anew(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    uint64_t ref = ref_make(m.job[0].last_blocks, 9);
    condemn(&m, &ref, 1);
    mkr_write(d, 0, d->frozen, 2 * SEG_BYTES);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).parent_segment, SEG_BYTES);
    assert_int_equal(levels(&m, 0).fresh, SEG_BYTES);
    mkr_free(&m);
}

static void condemned_segment_recipe_is_not_used_again(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, 2 * SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    uint64_t place = ref_make(m.job[0].last_recipes, 1);
    condemn(&m, &place, 1);
    mkr_write(d, 0, d->frozen, 2 * SEG_BYTES);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(levels(&m, 0).parent_segment, SEG_BYTES);
    assert_int_equal(levels(&m, 0).fresh, SEG_BYTES);
    mkr_free(&m);
}

/* A collection that goes through two generations while the round runs: it condemns what the round itself has written. */
struct collector { struct mkround *m; uint64_t refs[4]; bool done; };

static int collect_in_2b(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    struct collector *c = ((struct mkround *)ctx)->collector;
    struct verr mkr_err = {0};
    (void)done;
    (void)total;
    if (strcmp(stage, "stage_2b") != 0 || c->done)
        return 0;
    c->done = true;
    int dir, gens = store_dirfd(c->m->st, DIR_GENERATIONS);
    MKR_TRY(dir = dir_make(gens, "0000000000000002"));
    close(dir_make(dir, "leases"));
    MKR_TRY(deletion_log_write(c->m->st->b, "generations/0000000000000002", &store_conf(c->m->st)->id, 2, c->refs, 4));
    close(dir);
    return 0;
}

static int no_condemned(void *ctx, const struct snaprun *run)
{
    struct collector *c = ctx;
    for (uint32_t i = 0; run->place != REF_ZERO && i < run->count; i++) {
        struct segrcp rcp;
        assert_int_equal(segread_recipe(c->m->segread, run->place + i, &rcp, NULL), 0);
        for (uint32_t k = 0; k < rcp.nruns; k++)
            for (unsigned n = 0; n < 4 && rcp.runs[k].ref != REF_ZERO; n++)
                assert_false(c->refs[n] >= rcp.runs[k].ref && c->refs[n] - rcp.runs[k].ref < rcp.runs[k].count);
        segrcp_release(&rcp);
    }
    return 0;
}

static void own_blocks_are_checked_when_a_generation_was_opened(void **state)
{
    (void)state;
    struct mkround m;
    struct container_info info;
    struct snap *snap;
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, 2 * SEG_BYTES);
    mkr_write_seed(d, 0, SEG_BYTES, 4);
    assert_true(mkr_backup(&m, 0, 1));
    assert_int_equal(container_walk(m.reader, d->last_blocks, &info, NULL, NULL, NULL), 0);
    struct collector c = {.m = &m};
    for (unsigned i = 0; i < 4; i++)
        c.refs[i] = ref_make(d->last_blocks, (uint32_t)info.entries + i * 3);
    m.collector = &c;
    m.env.progress = collect_in_2b;
    mkr_write_seed(d, SEG_BYTES, SEG_BYTES, 5);
    mkr_freeze(&m, 0);
    assert_int_equal(mkr_round(&m, 0, 1), 0);
    assert_true(c.done && m.job[0].result == 0 && mkr_same(&m, 0));
    struct footer_entry e;
    assert_int_equal(creader_entries(m.reader, c.refs[3], 1, &e, NULL), 0);     /* they are blocks that this round wrote */
    assert_int_equal(snap_open(m.st, m.segread, &m.job[0].pend.ref, &snap, NULL), 0);
    assert_int_equal(snap_each_run(snap, no_condemned, &c, NULL), 0);
    snap_close(snap);
    mkr_free(&m);
}

static void adopted_vm_fences_the_round(void **state)
{
    (void)state;
    struct mkround m;
    char hex[VID_HEX], name[64];
    mkr_new(&m, &plain);
    struct mkr_disk *d = mkr_disk(&m, 0, 0, SEG_BYTES);
    mkr_write_seed(d, 0, SEG_BYTES, 4);
    mkr_freeze(&m, 0);
    vid_hex(&d->vm, hex);
    snprintf(name, sizeof name, "%s.%016llx", hex, (unsigned long long)d->epoch + 1);    /* what adoption leaves */
    assert_int_equal(file_publish(store_dirfd(m.st, DIR_OWNERS), name, "x", 1), 0);
    assert_int_equal(mkr_round(&m, 0, 1), 0);
    assert_int_equal(m.job[0].result, -ESTALE);
    mkr_free(&m);
}

/* ---- the same result whatever the way ---- */

struct outcome { struct snap_levels l[3]; };

static void run_series(const struct mkr_options *o, bool merge, bool probe, struct outcome *out)
{
    struct mkround m;
    mkr_new(&m, o);
    m.env.force_merge = merge;
    m.env.force_probe = probe;
    struct mkr_disk *a = mkr_disk(&m, 0, 0, 3 * SEG_BYTES), *b = mkr_disk(&m, 1, 0, 3 * SEG_BYTES), *c = mkr_disk(&m, 2, 1, 2 * SEG_BYTES);
    mkr_write_seed(a, 0, 3 * SEG_BYTES, 1);
    mkr_write(b, SEG_BYTES / 2, a->model, SEG_BYTES);
    mkr_write_seed(c, 0, SEG_BYTES, 7);
    assert_true(mkr_backup(&m, 0, 3));
    mkr_write(c, 4096, a->model + SEG_BYTES, SEG_BYTES);
    mkr_write(b, 0, a->model, 4000);
    mkr_write_seed(a, 12345, 10000, 3);
    assert_true(mkr_backup(&m, 0, 3));
    for (unsigned i = 0; i < 3; i++) {
        out->l[i] = levels(&m, i);
        out->l[i].stored = 0;   /* depends on random ids a little: not compared */
    }
    mkr_free(&m);
}

static void same_series(const struct mkr_options *o, bool merge, bool probe)
{
    struct outcome want, got;
    run_series(&(struct mkr_options){.slots = o->slots, .partitions = o->partitions, .fixed = o->fixed}, false, false, &want);
    run_series(o, merge, probe, &got);
    assert_memory_equal(&want, &got, sizeof want);
}

static void merge_and_probe_give_the_same_result(void **state)
{
    (void)state;
    same_series(&plain, true, false);
    same_series(&plain, false, true);
}

static void tiny_memory_gives_the_same_result(void **state)
{
    (void)state;
    same_series(&(struct mkr_options){.memory = 2 * 1000 * 1000, .slots = 4, .partitions = 8}, false, false);
}

static void any_number_of_threads_gives_the_same_result(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++)
        same_series(&(struct mkr_options){.threads = threads}, false, false);
}

static void rough_bus_gives_the_same_result(void **state)
{
    (void)state;
    const char *text = getenv("VARVE_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)vclock_system.real_ns(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)seed);
    same_series(&(struct mkr_options){.rough = seed | 1, .bus_bytes = 2000, .memory = 3 * 1000 * 1000, .slots = 2, .partitions = 4},
                false, false);
}

static void fixed_blocks_work_too(void **state)
{
    (void)state;
    struct outcome out;
    run_series(&(struct mkr_options){.fixed = true}, false, false, &out);
    assert_true(out.l[0].parent_block > 0);
}

static void random_disks_always_read_back(void **state)
{
    (void)state;
    const char *text = getenv("VARVE_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)vclock_system.real_ns(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)seed);
    struct mkround m;
    mkr_new(&m, &(struct mkr_options){.memory = 12 * 1000 * 1000, .threads = 2});
    for (unsigned i = 0; i < 3; i++)
        mkr_disk(&m, i, i % 2, 2 * SEG_BYTES + 10000 * i);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned w = 0; w < 12; w++) {
            struct mkr_disk *d = &m.disk[mkr_random(&seed) % 3], *from = &m.disk[mkr_random(&seed) % 3];
            size_t len = 1 + mkr_random(&seed) % 200000;
            uint64_t off = mkr_random(&seed) % (d->size - len), src = mkr_random(&seed) % (from->size - len);
            if (mkr_random(&seed) % 3 == 0) {
                mkr_write_seed(d, off, len, mkr_random(&seed) % 8);
            } else {
                uint8_t *p = malloc(len);
                memcpy(p, from->model + src, len);
                mkr_write(d, off, p, len);
                free(p);
            }
        }
        assert_true(mkr_backup(&m, 0, 3));
        for (unsigned i = 0; i < 3; i++)
            levels(&m, i);
    }
    mkr_free(&m);
}

/* ---- one disk's trouble ---- */

static void trouble_of_one_disk_leaves_the_others_alone(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    for (unsigned i = 0; i < 3; i++)
        mkr_write_seed(mkr_disk(&m, i, i, 2 * SEG_BYTES), 0, 2 * SEG_BYTES, 55);
    for (unsigned i = 0; i < 3; i++)
        mkr_freeze(&m, i);
    uint64_t seq = m.job[0].pend.ref.seq;
    m.job[0].pend.ref.seq = 999;        /* cannot be read: no such pending snapshot */
    assert_int_equal(mkr_round(&m, 0, 3), 0);
    assert_true(m.job[0].result < 0);
    assert_true(m.errs[0].code != 0);
    m.job[0].pend.ref.seq = seq;
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(m.job[i].result, 0);
        assert_true(mkr_same(&m, i));
    }
    assert_int_equal(mkr_round(&m, 0, 1), 0);
    assert_true(mkr_same(&m, 0));
    assert_int_equal(levels(&m, 0).global, 2 * SEG_BYTES);
    mkr_free(&m);
}

/* The first disk cannot be read any further once its first segment was asked for. */
static int spoil_first(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    struct mkround *m = ctx;
    (void)done;
    (void)total;
    if (strcmp(stage, "stage_1a") == 0)
        m->job[0].pend.ref.seq = 999;
    return 0;
}

/* Numbers of "new" answers whose blocks were not written are passed over: what comes behind them still finds its keys. */
static void references_behind_a_failed_disk_are_right(void **state)
{
    (void)state;
    struct mkround m;
    struct dedup_traffic traffic = {0};
    mkr_new(&m, &plain);
    for (unsigned i = 0; i < 2; i++) {
        mkr_write_seed(mkr_disk(&m, i, i, 4 * SEG_BYTES), 0, 4 * SEG_BYTES, 60 + i);
        mkr_freeze(&m, i);
    }
    m.env.progress = spoil_first;
    m.env.traffic = &traffic;
    assert_int_equal(mkr_round(&m, 0, 2), 0);
    m.env.progress = NULL;
    assert_true(m.job[0].result < 0);
    assert_int_equal(m.job[1].result, 0);
    assert_int_equal(levels(&m, 1).fresh, 4 * SEG_BYTES);
    assert_true(traffic.asked > 4 * SEG_BYTES / 65536 && traffic.bytes < 48 * traffic.asked);
    assert_int_equal(m.notes, 0);
    mkr_write_seed(mkr_disk(&m, 2, 2, 4 * SEG_BYTES), 0, 4 * SEG_BYTES, 61);
    assert_true(mkr_backup(&m, 2, 1));
    assert_int_equal(levels(&m, 2).global, 4 * SEG_BYTES);
    assert_int_equal(levels(&m, 2).fresh, 0);
    mkr_free(&m);
}

/* ---- a snapshot goes while it is stored ---- */

struct going { struct mkround *m; const char *stage; bool gone; unsigned in; };

static int drop_first(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    struct mkround *m = ctx;
    struct going *g = m->collector;
    struct verr mkr_err = {0};
    (void)done;
    (void)total;
    if (!g->gone && strcmp(stage, g->stage) == 0) {
        MKR_TRY(live_pending_drop(m->disk[0].live, m->job[0].pend.ref.seq, &mkr_err));
        g->gone = true;
    }
    return 0;
}

static int gate_enter(void *ctx, const struct dedup_job *job, struct verr *err)
{
    struct going *g = ctx;
    struct snapinfo p;
    assert_int_equal(g->in, 0);
    assert_int_equal(snaps_durable(g->m->st, &job->pend.ref, err), 0);
    int r = live_pending_by_seq(job->live, job->pend.ref.seq, &p, err);
    g->in += r == 0;
    return r;
}

static void gate_leave(void *ctx, const struct dedup_job *job)
{
    struct going *g = ctx;
    struct verr err = {0};
    assert_int_equal(snaps_durable(g->m->st, &job->pend.ref, &err), 1);
    g->in--;
}

/* The others of the round, which rely on the same blocks, are stored; so is the disk's next snapshot. */
static void removed_snapshot_is_not_published(void **state)
{
    (void)state;
    static const char *const stages[] = {"stage_1a", "stage_2b", "stage_4b"};
    for (unsigned k = 0; k < 2 * (unsigned)(sizeof stages / sizeof stages[0]); k++) {
        struct mkround m;
        mkr_new(&m, &plain);
        struct going g = {.m = &m, .stage = stages[k / 2]};
        const struct dedup_gate gate = {.enter = gate_enter, .leave = gate_leave, .ctx = &g};
        for (unsigned i = 0; i < 3; i++) {
            mkr_write_seed(mkr_disk(&m, i, i, 3 * SEG_BYTES), 0, 3 * SEG_BYTES, 55);
            mkr_freeze(&m, i);
        }
        if (k % 2 != 0)         /* with it, the drop takes the freeze back; else the live image gets its pages */
            mkr_write_seed(&m.disk[0], SEG_BYTES, 5000, 3);
        m.collector = &g;
        m.env.progress = drop_first;
        m.env.gate = &gate;
        assert_int_equal(mkr_round(&m, 0, 3), 0);
        assert_true(g.gone);
        assert_true(m.job[0].result < 0);
        struct verr err = {0};
        assert_int_equal(snaps_durable(m.st, &m.job[0].pend.ref, &err), 0);
        for (unsigned i = 1; i < 3; i++) {
            assert_int_equal(m.job[i].result, 0);
            assert_true(mkr_same(&m, i));
            mkr_published(&m, i);
        }
        m.env.progress = NULL;
        assert_true(mkr_backup(&m, 0, 1));
        assert_int_equal(g.in, 0);
        mkr_free(&m);
    }
}

static void round_that_published_before_says_so(void **state)
{
    (void)state;
    struct mkround m;
    mkr_new(&m, &plain);
    mkr_write_seed(mkr_disk(&m, 0, 0, SEG_BYTES), 0, SEG_BYTES, 4);
    mkr_freeze(&m, 0);
    assert_int_equal(mkr_round(&m, 0, 1), 0);
    struct snaprcp first = m.job[0].recipe;
    memset(&m.job[0].recipe, 0, sizeof first);
    assert_int_equal(mkr_round(&m, 0, 1), 0);
    assert_int_equal(m.job[0].result, 0);
    assert_true(vid_eq(&m.job[0].recipe.info.ref.snap, &first.info.ref.snap) && m.job[0].recipe.info.levels.fresh == SEG_BYTES);
    mkr_published(&m, 0);
    mkr_free(&m);
}

/* ---- killed at each fault point ----
 * Each phase is a process of its own, because fault points are read from the environment once. */

static void prepare(const char *dir)
{
    struct mkround m;
    mkr_init(&m, dir, &plain);
    for (unsigned i = 0; i < 2; i++) {
        mkr_write_seed(mkr_disk(&m, i, i, 2 * SEG_BYTES), 0, SEG_BYTES + 300000, 31);
        mkr_freeze(&m, i);
    }
    mkr_leave(&m);
}

/* Opens what `prepare` left, with the disks' copies made again. */
static void resume(struct mkround *m, const char *dir)
{
    struct verr mkr_err = {0};
    memset(m, 0, sizeof *m);
    snprintf(m->dir, sizeof m->dir, "%s", dir);
    mkr_open_parts(m, &plain);
    for (unsigned i = 0; i < 2; i++) {
        struct mkr_disk *d = &m->disk[i];
        mkr_id(&d->id, 0xd1, i);
        mkr_id(&d->vm, 0x33, i);
        d->size = d->frozen_size = 2 * SEG_BYTES;
        d->last_blocks = d->last_recipes = REF_NONE;
        d->model = calloc(1, d->size);
        d->frozen = calloc(1, d->size);
        mkr_fill(d->frozen, SEG_BYTES + 300000, 31);
        MKR_TRY(owner_claim(m->st, &d->vm, &m->env.host, &d->epoch, &mkr_err));
        MKR_TRY(live_get(m->set, &d->id, &d->live, &mkr_err));
        MKR_TRY(live_pending(d->live, 0, &m->job[i].pend, &mkr_err));
    }
}

/* 0 when all is well: for "round" and "finish", published with the right content; for "fails", each disk has failed with
 * ENOSPC and says that it was the store. */
static int run_phase(const char *phase, const char *dir)
{
    struct mkround m;
    if (strcmp(phase, "prepare") == 0) {
        prepare(dir);
        return 0;
    }
    resume(&m, dir);
    bool fails = strcmp(phase, "fails") == 0;
    bool ok = mkr_round(&m, 0, 2) == 0;
    for (unsigned i = 0; i < 2; i++) {
        if (fails)
            ok = ok && m.job[i].result == -ENOSPC && strstr(m.errs[i].text, "store") != NULL &&
                 strstr(m.errs[i].text, "frozen disk") == NULL;
        else
            ok = ok && m.job[i].result == 0 && mkr_same(&m, i);
    }
    for (unsigned i = 0; ok && !fails && i < 2; i++)
        mkr_published(&m, i);
    mkr_leave(&m);
    return ok ? 0 : 1;
}

#ifdef VARVE_FAULTS
static int spawn(const char *phase, const char *dir, const char *fault)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (fault != NULL)
            setenv("VARVE_FAULT", fault, 1);
        execl("/proc/self/exe", "test_dedup", "--phase", phase, dir, (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}
#endif

static void round_killed_anywhere_is_done_again(void **state)
{
    (void)state;
#ifndef VARVE_FAULTS
    skip();
#else
    static const char *const points[] = {
        "dedup.1a.segment:2=kill", "dedup.1a.segment:3=kill", "dedup.2b.after_seal:1=kill", "dedup.2b.after_seal:2=kill",
        "dedup.3b.after_delta:1=kill", "dedup.4b.before_publish:1=kill", "dedup.4b.before_publish:2=kill",
        "dedup.4b.after_publish:1=kill", "dedup.4b.after_publish:2=kill",
    };
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        char dir[] = "/tmp/varve-killed-XXXXXX";
        assert_non_null(mkdtemp(dir));
        assert_int_equal(spawn("prepare", dir, NULL), 0);
        int status = spawn("round", dir, points[i]);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("%s: was not reached (status %#x)", points[i], (unsigned)status);
        if (spawn("finish", dir, NULL) != 0)
            fail_msg("%s: the second round did not publish the right content", points[i]);
        tree_remove(AT_FDCWD, dir);
    }
#endif
}

static void round_that_failed_is_done_again(void **state)
{
    (void)state;
#ifndef VARVE_FAULTS
    skip();
#else
    static const struct { const char *phase, *fault; bool expected; } cases[] = {
        {"round", "dedup.1a.segment:1=5", false},       /* the source cannot be read: one disk fails */
        {"fails", "store.append.write:1+=28", true},    /* no space in the store, from the first frame on */
        {"fails", "store.seal.fdatasync:1+=28", true},
        {"round", "fpindex.publish.link:1=5", true},    /* an index is a hint: the round goes on without it */
        {"round", "store.publish.rename:1=116", true},  /* the lease was revoked: a new one, and the check again */
        {"round", "store.publish.rename:1+=116", false}, /* revoked time and again */
        {"round", "store.publish.answer:1=116", true},  /* renamed, and the answer was lost: the next lease finds it */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[] = "/tmp/varve-errors-XXXXXX";
        assert_non_null(mkdtemp(dir));
        assert_int_equal(spawn("prepare", dir, NULL), 0);
        if ((spawn(cases[i].phase, dir, cases[i].fault) == 0) != cases[i].expected)
            fail_msg("%s: not what was expected", cases[i].fault);
        if (strcmp(cases[i].phase, "fails") == 0 || !cases[i].expected)
            assert_int_equal(spawn("finish", dir, NULL), 0);
        tree_remove(AT_FDCWD, dir);
    }
#endif
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--phase") == 0)
        return run_phase(argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_backup_reads_back),
        cmocka_unit_test(empty_and_zero_disks_are_stored),
        cmocka_unit_test(common_blocks_of_two_disks_are_stored_once),
        cmocka_unit_test(block_repeated_within_a_disk_is_stored_once),
        cmocka_unit_test(later_round_finds_duplicates_in_the_index),
        cmocka_unit_test(rewritten_equal_segments_settle_at_level_2),
        cmocka_unit_test(one_changed_block_costs_about_one_block),
        cmocka_unit_test(parent_snapshot_serves_a_table_that_has_none),
        cmocka_unit_test(selective_disk_asks_nobody_and_offers_nothing),
        cmocka_unit_test(common_set_settles_blocks_before_the_index),
        cmocka_unit_test(index_entry_of_another_block_is_refused),
        cmocka_unit_test(index_entry_of_an_ordinal_that_is_not_sealed_is_refused),
        cmocka_unit_test(index_entry_of_an_unknown_container_is_refused),
        cmocka_unit_test(refused_index_entry_is_replaced_by_what_was_written),
        cmocka_unit_test(blocks_of_a_selective_disk_are_not_offered_late),
        cmocka_unit_test(wrong_common_block_is_refused),
        cmocka_unit_test(condemned_block_is_written_anew),
        cmocka_unit_test(condemned_block_of_an_equal_parent_segment_is_written_anew),
        cmocka_unit_test(condemned_segment_recipe_is_not_used_again),
        cmocka_unit_test(own_blocks_are_checked_when_a_generation_was_opened),
        cmocka_unit_test(adopted_vm_fences_the_round),
        cmocka_unit_test(merge_and_probe_give_the_same_result),
        cmocka_unit_test(tiny_memory_gives_the_same_result),
        cmocka_unit_test(any_number_of_threads_gives_the_same_result),
        cmocka_unit_test(rough_bus_gives_the_same_result),
        cmocka_unit_test(fixed_blocks_work_too),
        cmocka_unit_test(random_disks_always_read_back),
        cmocka_unit_test(trouble_of_one_disk_leaves_the_others_alone),
        cmocka_unit_test(references_behind_a_failed_disk_are_right),
        cmocka_unit_test(removed_snapshot_is_not_published),
        cmocka_unit_test(round_that_published_before_says_so),
        cmocka_unit_test(round_killed_anywhere_is_done_again),
        cmocka_unit_test(round_that_failed_is_done_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
