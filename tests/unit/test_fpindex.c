/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of one slot against a plain table in memory: deltas, tombstones, merges, reopening, both ways to compare;
 * then damage to every page, foreign files, and (with -Dfaults=true) death and errors at every named point.
 */
#include "fpindex/fpindex.h"
#include "store/backend_dir.h"

#include "base/endian.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/verr.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <setjmp.h>
#include <cmocka.h>

/* Slot 1 of 2, 4 partitions each: the first bit of its keys is 1, the next two choose the partition. */
enum { SLOT = 1, PARTITIONS = 4, BITS = 3, KEYS = 6000, MEMORY = 256 * 1024 };

static uint64_t rng;
static char root[64];
static int rootfd = -1;
static struct backend *rootb;

static uint64_t random64(void)
{
    uint64_t z = (rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/varve-fpindex-XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    rootfd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return rootfd < 0 || backend_dir_open(root, &rootb) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    bk_destroy(rootb);
    close(rootfd);
    return tree_remove(AT_FDCWD, root);
}

/* ---- the model: a sorted universe of keys and what each refers to ---- */

struct model { uint8_t key[KEYS][FPKEY_BYTES]; uint64_t ref[KEYS]; };
static struct model model;

static int key_cmp(const void *a, const void *b)
{
    return memcmp(a, b, FPKEY_BYTES);
}

/* A third of the keys share their first 8 bytes with others, so that fences of several pages are equal. */
static void model_init(void)
{
    uint64_t cluster = 0;
    for (int i = 0; i < KEYS; i++) {
        if (i % 300 == 0)
            cluster = random64();
        for (int k = 0; k < 3; k++)
            put_le64(model.key[i] + 8 * k, random64());
        if (i % 900 < 300)
            put_le64(model.key[i], cluster);
        model.key[i][0] |= 0x80;
        model.ref[i] = REF_NONE;
    }
    qsort(model.key, KEYS, FPKEY_BYTES, key_cmp);
}

static uint32_t partition_of(const uint8_t *key)
{
    return (uint32_t)(get_be64(key) >> (64 - BITS)) - SLOT * PARTITIONS;
}

static struct fpindex *open_index(void)
{
    struct fpindex *ix = NULL;
    struct verr err = {0};
    if (fpindex_open(rootb, "", SLOT, PARTITIONS, BITS, &ix, &err) != 0)
        fail_msg("open: %s", verr_str(&err));
    return ix;
}

static struct fpindex_stats stats_of(const struct fpindex *ix)
{
    struct fpindex_stats s;
    fpindex_stats(ix, &s);
    return s;
}

static void merge_now(struct fpindex *ix)
{
    struct verr err = {0};
    if (fpindex_merge(ix, true, MEMORY, &err) != 0)
        fail_msg("merge: %s", verr_str(&err));
}

/* Entries first, first+step... of the model go into one delta, with references that begin at ref. */
static void write_delta(struct fpindex *ix, int first, int last, int step, uint64_t ref)
{
    struct fpdelta *d = NULL;
    assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
    for (int i = first; i < last; i += step) {
        model.ref[i] = ref == REF_NONE ? REF_NONE : ref + (uint64_t)i;
        assert_int_equal(fpdelta_add(d, model.key[i], model.ref[i], NULL), 0);
    }
    assert_int_equal(fpdelta_commit(d, NULL), 0);
}

/* ---- asking ---- */

struct ask { const int *which; int n, at, seen; uint64_t *answers; int fail_next, fail_answer; };

static int ask_next(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct ask *a = ctx;
    if (a->fail_next != 0 && a->at == a->fail_next)
        return -EIO;
    if (a->at == a->n)
        return 0;
    memcpy(key, model.key[a->which[a->at++]], FPKEY_BYTES);
    return 1;
}

static int ask_answer(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct ask *a = ctx;
    assert_memory_equal(key, model.key[a->which[a->seen]], FPKEY_BYTES);
    a->answers[a->seen++] = ref;
    return a->fail_answer != 0 && a->seen == a->fail_answer ? -ENOSPC : 0;
}

/* Answers to every key of the model whose turn it is (one in `sparse`, by chance), some asked twice. REF_ZERO: not asked. */
static void ask_all(struct fpindex *ix, enum fpindex_way way, unsigned sparse, uint64_t seed, uint64_t out[KEYS])
{
    static int which[2 * KEYS];
    static uint64_t answers[2 * KEYS];
    for (int i = 0; i < KEYS; i++)
        out[i] = REF_ZERO;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        struct ask a = {.which = which, .answers = answers};
        struct verr err = {0};
        for (int i = 0; i < KEYS; i++) {
            uint64_t dice = hash64_seed(&i, sizeof i, seed);
            if (partition_of(model.key[i]) != p || dice % sparse != 0)
                continue;
            which[a.n++] = i;
            if (dice >> 32 & 1)
                which[a.n++] = i;
        }
        if (fpindex_compare(ix, p, (uint64_t)a.n, way, MEMORY, ask_next, ask_answer, &a, &err) != 0)
            fail_msg("compare: %s", verr_str(&err));
        assert_int_equal(a.seen, a.n);
        for (int i = 0; i < a.n; i++) {
            assert_true(out[which[i]] == REF_ZERO || out[which[i]] == answers[i]);
            out[which[i]] = answers[i];
        }
    }
}

static void check_model(struct fpindex *ix)
{
    static uint64_t out[KEYS];
    static const enum fpindex_way ways[] = {FPINDEX_MERGE, FPINDEX_PROBE, FPINDEX_AUTO};
    static const unsigned sparse[] = {1, 3, 100};
    for (int w = 0; w < 3; w++)
        for (int s = 0; s < 3; s++) {
            ask_all(ix, ways[w], sparse[s], random64(), out);
            for (int i = 0; i < KEYS; i++)
                if (out[i] != REF_ZERO)
                    assert_int_equal(out[i], model.ref[i]);
        }
}

/* ---- files ---- */

struct names { char name[64][80]; int n; };

static int take_name(void *ctx, const char *name)
{
    struct names *l = ctx;
    assert_true(l->n < 64);
    snprintf(l->name[l->n++], 80, "%s", name);
    return 0;
}

static int slot_dir(void)
{
    int fd = dir_open(rootfd, "0001");
    assert_true(fd >= 0);
    return fd;
}

static struct names list_slot(void)
{
    struct names l = {.n = 0};
    int fd = slot_dir();
    assert_int_equal(dir_each(fd, take_name, &l), 0);
    close(fd);
    return l;
}

static int count_names(const char *prefix)
{
    struct names l = list_slot();
    int n = 0;
    for (int i = 0; i < l.n; i++)
        n += strncmp(l.name[i], prefix, strlen(prefix)) == 0;
    return n;
}

static void write_name(const char *name, const void *data, size_t len)
{
    int fd = slot_dir();
    assert_int_equal(file_replace(fd, name, data, len), 0);
    close(fd);
}

static void load_name(const char *name, uint8_t **data, size_t *len)
{
    int fd = slot_dir();
    assert_int_equal(file_load(fd, name, 64 << 20, data, len), 0);
    close(fd);
}

/* ---- tests ---- */

static void an_empty_index_knows_nothing(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    struct fpdelta *d = NULL;
    check_model(ix);
    merge_now(ix);
    assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
    assert_int_equal(fpdelta_commit(d, NULL), 0);
    assert_int_equal(list_slot().n, 0);         /* an empty delta makes no file */
    check_model(ix);
    fpindex_close(ix);
    fpindex_close(NULL);
}

static void random_deltas_merges_and_reopens_follow_the_model(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    for (uint64_t round = 1; round <= 60; round++) {
        struct fpdelta *d = NULL;
        uint64_t share = random64() % 20 + 1, from = random64() % KEYS, to = from + random64() % KEYS;
        assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
        for (uint64_t i = from; i < to && i < KEYS; i++) {
            if (random64() % share != 0)
                continue;
            model.ref[i] = random64() % 4 == 0 ? REF_NONE : ref_make(round, (uint32_t)i);
            assert_int_equal(fpdelta_add(d, model.key[i], model.ref[i], NULL), 0);
            assert_int_equal(fpdelta_add(d, model.key[i], 7, NULL), 0);     /* the first of equal keys wins */
        }
        assert_int_equal(fpdelta_commit(d, NULL), 0);
        if (round % 5 == 0)
            assert_int_equal(fpindex_merge(ix, random64() % 2 == 0, random64() % 2 == 0 ? 1 : MEMORY, NULL), 0);
        if (random64() % 3 == 0) {
            fpindex_close(ix);
            ix = open_index();
        }
        if (round % 3 == 0)
            check_model(ix);
        assert_true(stats_of(ix).deltas <= 13);     /* more than 8 are merged at the next chance */
    }
    merge_now(ix);
    check_model(ix);
    struct fpindex_stats s = stats_of(ix);
    assert_int_equal(s.deltas, 0);
    assert_int_equal(s.damaged_files, 0);
    uint64_t alive = 0;
    for (int i = 0; i < KEYS; i++)
        alive += model.ref[i] != REF_NONE;
    assert_int_equal(s.entries, alive);             /* no tombstone outlives a merge into the base */
    assert_int_equal(count_names("delta-"), 0);
    assert_int_equal(count_names("base-"), PARTITIONS);
    assert_int_equal(count_names(".tmp-"), 0);
    fpindex_close(ix);
}

/* ---- look ---- */

struct look { struct fpindex *merging; uint64_t shown, bytes; int bad, stray; uint8_t last[FPKEY_BYTES]; };

static int look_bad(void *ctx, const char *name, const char *what)
{
    struct look *l = ctx;
    assert_true(name[0] != '\0');
    l->bad += what != NULL;
    l->stray += what == NULL;
    return 0;
}

static int look_entry(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct look *l = ctx;
    const uint8_t *at = bsearch(key, model.key, KEYS, FPKEY_BYTES, key_cmp);
    assert_non_null(at);
    assert_int_equal(ref, model.ref[(size_t)(at - model.key[0]) / FPKEY_BYTES]);
    assert_true(l->shown++ == 0 || memcmp(l->last, key, FPKEY_BYTES) < 0);
    memcpy(l->last, key, FPKEY_BYTES);
    return 0;
}

static int look_step(void *ctx, uint64_t bytes)
{
    struct look *l = ctx;
    l->bytes += bytes;
    if (l->merging != NULL)
        merge_now(l->merging);
    l->merging = NULL;
    return 0;
}

static struct fpindex_stats look_now(struct look *l)
{
    const struct fpindex_look look = {.bad = look_bad, .entry = look_entry, .step = look_step, .ctx = l, .memory = MEMORY};
    struct fpindex_stats s;
    struct verr err = {0};
    l->shown = l->bytes = 0;
    l->bad = l->stray = 0;
    if (fpindex_look(rootb, "", SLOT, PARTITIONS, BITS, &look, &s, &err) != 0)
        fail_msg("look: %s", verr_str(&err));
    return s;
}

static void look_shows_exactly_the_live_entries(void **state)
{
    (void)state;
    model_init();
    struct look l = {.bad = 0};
    struct fpindex_stats s;
    assert_int_equal(fpindex_look(rootb, "", SLOT, PARTITIONS, BITS, &(struct fpindex_look){.ctx = &l}, &s, NULL), -ENOENT);
    struct fpindex *ix = open_index();
    for (int round = 0; round < 8; round++) {
        uint64_t ref = random64() % 4 == 0 ? REF_NONE : ref_make(1 + random64() % 9, 0);
        write_delta(ix, (int)(random64() % 50), KEYS, 1 + (int)(random64() % 7), ref);
        if (round == 3)
            merge_now(ix);
        uint64_t live = 0;
        for (int i = 0; i < KEYS; i++)
            live += model.ref[i] != REF_NONE;
        s = look_now(&l);
        assert_true(l.shown == live && l.bad == 0 && l.stray == 0 && l.bytes > 0);
        assert_int_equal(s.entries, stats_of(ix).entries);
        assert_int_equal(s.deltas + s.bases, list_slot().n);
    }
    write_name("README", "x", 1);
    write_name(".tmp-leftover", "x", 1);
    write_name("delta-0", "x", 1);
    look_now(&l);
    assert_true(l.bad == 1 && l.stray == 1);
    assert_int_equal(count_names("delta-0"), 1);        /* looked at, not set aside */
    fpindex_close(ix);
}

static void look_passes_over_what_a_merge_removes_meanwhile(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    for (int i = 0; i < 4; i++)
        write_delta(ix, i, KEYS, 3, ref_make(1 + (uint64_t)i, 0));
    struct look l = {.merging = ix};
    look_now(&l);
    assert_true(l.merging == NULL && l.bad == 0 && l.stray == 0);
    look_now(&l);
    assert_true(l.shown == KEYS && l.bad == 0);
    fpindex_close(ix);
}

static void an_aborted_delta_leaves_nothing(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    struct fpdelta *d = NULL;
    assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
    for (int i = 0; i < KEYS; i++)
        assert_int_equal(fpdelta_add(d, model.key[i], 1, NULL), 0);
    fpdelta_abort(d);
    fpdelta_abort(NULL);
    assert_int_equal(list_slot().n, 0);
    check_model(ix);
    fpindex_close(ix);
}

static void a_merge_leaves_partitions_alone_that_nothing_changed(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    write_delta(ix, 0, KEYS, 1, 1);
    merge_now(ix);
    struct names before = list_slot();
    assert_int_equal(before.n, PARTITIONS);
    write_delta(ix, KEYS - 10, KEYS, 1, 50000);     /* the last partition only */
    assert_int_equal(fpindex_merge(ix, false, MEMORY, NULL), 0);
    assert_int_equal(stats_of(ix).deltas, 1);       /* one small delta is no reason to rewrite a base */
    merge_now(ix);
    struct names after = list_slot();
    int same = 0;
    for (int i = 0; i < before.n; i++)
        for (int k = 0; k < after.n; k++)
            same += strcmp(before.name[i], after.name[k]) == 0;
    assert_int_equal(after.n, PARTITIONS);
    assert_int_equal(same, PARTITIONS - 1);
    check_model(ix);
    fpindex_close(ix);
}

static void nine_deltas_are_merged_without_force(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    for (int i = 0; i < 8; i++) {
        write_delta(ix, i, KEYS, 50, 1);
        assert_int_equal(fpindex_merge(ix, false, MEMORY, NULL), 0);
    }
    assert_int_equal(stats_of(ix).deltas, 8);
    write_delta(ix, 9, KEYS, 50, 1);
    assert_int_equal(fpindex_merge(ix, false, MEMORY, NULL), 0);
    assert_int_equal(stats_of(ix).deltas, 0);
    check_model(ix);
    fpindex_close(ix);
}

static void wrong_input_is_refused(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = NULL;
    struct fpdelta *d = NULL;
    struct verr err = {0};
    assert_int_equal(fpindex_open(rootb, "", 2, 4, 3, &ix, &err), -EINVAL);        /* slots 0 and 1 are all */
    assert_int_equal(fpindex_open(rootb, "", 0, 3, 3, &ix, &err), -EINVAL);
    assert_int_equal(fpindex_open(rootb, "", 0, 0, 3, &ix, &err), -EINVAL);
    assert_null(ix);
    ix = open_index();
    assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
    assert_int_equal(fpdelta_add(d, model.key[5], 1, NULL), 0);
    assert_int_equal(fpdelta_add(d, model.key[4], 1, &err), -EINVAL);           /* descending */
    assert_int_equal(fpdelta_add(d, model.key[6], 1, &err), -EINVAL);           /* an error is final */
    assert_int_equal(fpdelta_commit(d, &err), -EINVAL);
    uint8_t foreign[FPKEY_BYTES] = {0x70};
    assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
    assert_int_equal(fpdelta_add(d, foreign, 1, &err), -EINVAL);                /* slot 0's */
    fpdelta_abort(d);
    assert_int_equal(fpdelta_begin(ix, &d, NULL), 0);
    assert_int_equal(fpdelta_add(d, model.key[0], REF_ZERO, &err), -EINVAL);
    fpdelta_abort(d);
    int down[] = {1, 0}, first[] = {0};
    uint64_t answers[2];
    struct ask a = {.which = down, .n = 2, .answers = answers};
    assert_int_equal(fpindex_compare(ix, 0, 2, FPINDEX_MERGE, MEMORY, ask_next, ask_answer, &a, &err), -EINVAL);
    a = (struct ask){.which = first, .n = 1, .answers = answers};
    assert_int_equal(fpindex_compare(ix, 3, 1, FPINDEX_PROBE, MEMORY, ask_next, ask_answer, &a, &err), -EINVAL);
    assert_int_equal(fpindex_compare(ix, PARTITIONS, 0, FPINDEX_AUTO, MEMORY, ask_next, ask_answer, &a, &err), -EINVAL);
    assert_int_equal(list_slot().n, 0);
    fpindex_close(ix);
}

static void errors_of_the_callbacks_end_the_compare(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    write_delta(ix, 0, KEYS, 1, 1);
    int which[] = {0, 1, 2, 3};
    uint64_t answers[4];
    struct ask a = {.which = which, .n = 4, .answers = answers, .fail_next = 2};
    struct verr err = {0};
    assert_int_equal(fpindex_compare(ix, 0, 4, FPINDEX_MERGE, MEMORY, ask_next, ask_answer, &a, &err), -EIO);
    assert_int_equal(err.code, EIO);
    a = (struct ask){.which = which, .n = 4, .answers = answers, .fail_answer = 2};
    assert_int_equal(fpindex_compare(ix, 0, 4, FPINDEX_PROBE, MEMORY, ask_next, ask_answer, &a, NULL), -ENOSPC);
    assert_int_equal(a.seen, 2);
    fpindex_close(ix);
}

static void clear_removes_every_file(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    write_delta(ix, 0, KEYS, 1, 1);
    merge_now(ix);
    write_delta(ix, 0, KEYS, 2, 90000);
    write_name(".tmp-left", "x", 1);
    write_name(".damaged-delta-1", "x", 1);
    assert_int_equal(fpindex_clear(ix, NULL), 0);
    assert_int_equal(list_slot().n, 0);
    for (int i = 0; i < KEYS; i++)
        model.ref[i] = REF_NONE;
    check_model(ix);
    write_delta(ix, 0, KEYS, 3, 5);
    check_model(ix);
    fpindex_close(ix);
}

static void one_partition_and_no_bits_work_too(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = NULL;
    assert_int_equal(fpindex_open(rootb, "", 0, 1, 0, &ix, NULL), 0);
    write_delta(ix, 0, KEYS, 2, 1);
    merge_now(ix);
    write_delta(ix, 0, KEYS, 3, 100000);
    static int which[KEYS];
    static uint64_t answers[KEYS];
    for (int i = 0; i < KEYS; i++)
        which[i] = i;
    for (int way = FPINDEX_AUTO; way <= FPINDEX_PROBE; way++) {
        struct ask a = {.which = which, .n = KEYS, .answers = answers};
        assert_int_equal(fpindex_compare(ix, 0, KEYS, (enum fpindex_way)way, MEMORY, ask_next, ask_answer, &a, NULL), 0);
        assert_memory_equal(answers, model.ref, sizeof answers);
    }
    fpindex_close(ix);
}

static void the_rates_decide_between_scan_and_probe(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    static uint64_t out[KEYS];
    write_delta(ix, 0, KEYS, 1, 1);
    merge_now(ix);
    fpindex_set_rates(ix, 1e12, 1.0);
    ask_all(ix, FPINDEX_AUTO, 50, 1, out);
    struct fpindex_stats s = stats_of(ix);
    assert_true(s.scans == PARTITIONS && s.probes == 0);
    fpindex_set_rates(ix, 1.0, 1e-9);
    ask_all(ix, FPINDEX_AUTO, 50, 1, out);
    s = stats_of(ix);
    assert_true(s.scans == PARTITIONS && s.probes > 0);
    fpindex_close(ix);
}

/* ---- damage ---- */

static void leftovers_of_a_crash_are_ignored_and_swept(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    uint8_t *data[PARTITIONS];
    size_t len[PARTITIONS];
    write_delta(ix, 0, KEYS, 2, 1);
    merge_now(ix);
    fpindex_close(ix);
    struct names old = list_slot();
    assert_int_equal(old.n, PARTITIONS);
    for (int i = 0; i < old.n; i++)
        load_name(old.name[i], &data[i], &len[i]);
    ix = open_index();
    write_delta(ix, 0, KEYS, 1, 70000);
    merge_now(ix);
    fpindex_close(ix);
    for (int i = 0; i < old.n; i++)                 /* killed between link of the new base and unlink of the old one */
        write_name(old.name[i], data[i], len[i]);
    write_name(".tmp-0123", data[0], len[0]);
    ix = open_index();
    check_model(ix);
    assert_int_equal(count_names("base-"), 2 * PARTITIONS);
    assert_int_equal(stats_of(ix).damaged_files, 0);
    write_delta(ix, 0, KEYS, 5, 80000);
    assert_int_equal(count_names("base-"), PARTITIONS);
    assert_int_equal(count_names(".tmp-"), 0);
    check_model(ix);
    fpindex_close(ix);
    for (int i = 0; i < old.n; i++)
        free(data[i]);
}

static void a_file_of_the_wrong_size_is_set_aside(void **state)
{
    (void)state;
    for (int more = -1; more <= 1; more += 2) {
        model_init();
        struct fpindex *ix = open_index();
        write_delta(ix, 0, KEYS, 1, 1);
        fpindex_close(ix);
        int fd = slot_dir(), file = openat(fd, "delta-1", O_RDWR | O_CLOEXEC);
        struct stat st;
        assert_int_equal(fstat(file, &st), 0);
        assert_int_equal(ftruncate(file, st.st_size + more * PAGE_BYTES), 0);
        close(file);
        ix = open_index();
        assert_int_equal(stats_of(ix).damaged_files, 1);
        assert_int_equal(count_names(".damaged-delta-1"), 1);
        model_init();
        check_model(ix);
        assert_int_equal(fpindex_clear(ix, NULL), 0);
        fpindex_close(ix);
        close(fd);
    }
}

static void foreign_and_torn_files_are_set_aside(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index(), *other = NULL;
    uint8_t *data;
    size_t len;
    write_delta(ix, 0, KEYS, 1, 1);
    fpindex_close(ix);
    load_name("delta-1", &data, &len);
    write_name("delta-2", data, len);               /* right bytes, other name */
    write_name("delta-3", data, len - 1);           /* torn */
    write_name("delta-4", data, 100);
    write_name("delta-05", data, len);              /* no name that we give */
    write_name("base-0001-3", data, len);
    write_name("base-x", "", 0);
    write_name("README", "not ours", 8);
    assert_int_equal(fpindex_open(rootb, "", 0, PARTITIONS, BITS, &other, NULL), 0);
    fpindex_close(other);
    ix = open_index();
    assert_int_equal(stats_of(ix).damaged_files, 6);
    assert_int_equal(count_names(".damaged-"), 6);
    assert_int_equal(count_names("README"), 1);
    assert_int_equal(count_names("delta-"), 1);
    check_model(ix);
    write_delta(ix, 0, KEYS, 2, 90000);
    assert_int_equal(count_names("delta-5"), 1);    /* the numbers of damaged ones are not used again */
    check_model(ix);
    fpindex_close(ix);
    ix = open_index();
    assert_int_equal(stats_of(ix).damaged_files, 0);
    check_model(ix);
    fpindex_close(ix);
    free(data);
}

static void files_of_another_slot_are_foreign(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    uint8_t *data;
    size_t len;
    write_delta(ix, 0, KEYS, 1, 1);
    fpindex_close(ix);
    load_name("delta-1", &data, &len);
    assert_int_equal(mkdirat(rootfd, "0000", 0700), 0);
    int fd = dir_open(rootfd, "0000");
    assert_int_equal(file_replace(fd, "delta-1", data, len), 0);
    assert_int_equal(fpindex_open(rootb, "", 0, PARTITIONS, BITS, &ix, NULL), 0);
    struct fpindex_stats s = stats_of(ix);
    assert_true(s.damaged_files == 1 && s.entries == 0);
    assert_int_equal(faccessat(fd, ".damaged-delta-1", F_OK, 0), 0);
    fpindex_close(ix);
    close(fd);
    free(data);
}

static void an_intact_file_of_a_newer_version_is_refused_and_left(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    struct verr err = {0};
    uint8_t *data;
    size_t len;
    write_delta(ix, 0, KEYS, 1, 1);
    fpindex_close(ix);
    load_name("delta-1", &data, &len);
    put_le32(data + 8, 2);
    put_le64(data + 4088, hash64(data, 4088));
    write_name("delta-1", data, len);
    assert_int_equal(fpindex_open(rootb, "", SLOT, PARTITIONS, BITS, &ix, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "delta-1"));
    assert_int_equal(count_names("delta-1"), 1);
    free(data);
}

/* Answers with page `page` of the file broken: nothing but hints may be missing, and both ways must agree. */
static void check_damaged(const char *name, const uint8_t *data, size_t len, size_t page, size_t pages)
{
    static uint64_t merged[KEYS], probed[KEYS];
    uint8_t *bad = malloc(len);
    memcpy(bad, data, len);
    bad[page * PAGE_BYTES + random64() % PAGE_BYTES] ^= (uint8_t)(1u << random64() % 8);
    write_name(name, bad, len);
    struct fpindex *ix = open_index();
    ask_all(ix, FPINDEX_MERGE, 1, 1, merged);
    ask_all(ix, FPINDEX_PROBE, 1, 1, probed);
    assert_memory_equal(merged, probed, sizeof merged);
    int lost = 0;
    for (int i = 0; i < KEYS; i++) {
        assert_true(merged[i] == model.ref[i] || merged[i] == REF_NONE);
        lost += merged[i] != model.ref[i];
    }
    assert_int_equal(stats_of(ix).damaged_files, 1);
    if (page == 0)
        assert_true(lost > 127 && count_names(".damaged-") == 1);
    else if (page == pages - 1)
        assert_int_equal(lost, 0);                  /* fences hold no entries */
    else
        assert_in_range(lost, 1, 127);
    fpindex_close(ix);
    int fd = slot_dir();
    assert_int_equal(tree_remove(fd, name), 0);
    char aside[100];
    snprintf(aside, sizeof aside, ".damaged-%s", name);
    assert_int_equal(tree_remove(fd, aside), 0);
    close(fd);
    write_name(name, data, len);
    free(bad);
}

static void every_damaged_page_loses_its_own_hints_only(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    write_delta(ix, 0, KEYS, 2, 1);
    merge_now(ix);
    write_delta(ix, 1, KEYS, 2, 50000);             /* other keys than the base, so that nothing older shows through */
    fpindex_close(ix);
    struct names l = list_slot();
    assert_int_equal(l.n, PARTITIONS + 1);
    for (int i = 0; i < l.n; i++) {
        uint8_t *data;
        size_t len;
        load_name(l.name[i], &data, &len);
        for (size_t page = 0; page < len / PAGE_BYTES; page++)
            check_damaged(l.name[i], data, len, page, len / PAGE_BYTES);
        free(data);
    }
    ix = open_index();
    check_model(ix);
    fpindex_close(ix);
}

static void random_damage_never_fails_a_compare_or_a_merge(void **state)
{
    (void)state;
    static uint64_t out[KEYS];
    model_init();
    struct fpindex *ix = open_index();
    write_delta(ix, 0, KEYS, 2, 1);
    merge_now(ix);
    write_delta(ix, 1, KEYS, 2, 50000);
    fpindex_close(ix);
    for (int round = 0; round < 40; round++) {
        struct names l = list_slot();
        for (int n = 0; n < 6; n++) {
            uint8_t *data;
            size_t len;
            const char *name = l.name[random64() % (uint64_t)l.n];
            if (name[0] == '.')
                continue;
            load_name(name, &data, &len);
            if (len > PAGE_BYTES) {
                data[PAGE_BYTES + random64() % (len - PAGE_BYTES)] ^= 0x10;     /* the header is another test */
                write_name(name, data, len);
            }
            free(data);
        }
        ix = open_index();
        for (int way = FPINDEX_AUTO; way <= FPINDEX_PROBE; way++) {
            ask_all(ix, (enum fpindex_way)way, 1, 1, out);
            for (int i = 0; i < KEYS; i++)
                assert_true(out[i] == model.ref[i] || out[i] == REF_NONE);
        }
        if (round % 8 == 7) {
            write_delta(ix, 0, KEYS, 1, 1000);
            merge_now(ix);
            check_model(ix);                        /* what was damaged is gone, what is new is whole */
        }
        fpindex_close(ix);
    }
}

static void a_file_that_vanishes_is_a_lost_hint(void **state)
{
    (void)state;
    model_init();
    struct fpindex *ix = open_index();
    write_delta(ix, 0, KEYS, 2, 1);
    write_delta(ix, 1, KEYS, 2, 1);
    int fd = slot_dir();
    assert_int_equal(unlinkat(fd, "delta-1", 0), 0);
    close(fd);
    for (int i = 0; i < KEYS; i += 2)
        model.ref[i] = REF_NONE;
    check_model(ix);
    assert_int_equal(stats_of(ix).damaged_files, 1);
    merge_now(ix);
    check_model(ix);
    fpindex_close(ix);
}

#ifdef VARVE_FAULTS

/* ---- death and errors at every named point: the test runs itself as a child ---- */

enum { STEPS = 12 };

/* Step s of the child's work: s % 4 == 3 merges, the others write a delta. Returns 0 or -errno. */
static int work_step(struct fpindex *ix, int s)
{
    struct fpdelta *d = NULL;
    if (s % 4 == 3)
        return fpindex_merge(ix, true, MEMORY, NULL);
    int r = fpdelta_begin(ix, &d, NULL);
    if (r < 0)
        return r;
    for (int i = s; i < KEYS && r == 0; i += 2 + s)
        r = fpdelta_add(d, model.key[i], s % 3 == 2 && i % 2 == 0 ? REF_NONE : ref_make((uint64_t)s + 1, (uint32_t)i), NULL);
    if (r == 0)
        return fpdelta_commit(d, NULL);
    fpdelta_abort(d);
    return r;
}

static void model_step(int s)
{
    for (int i = s; s % 4 != 3 && i < KEYS; i += 2 + s)
        model.ref[i] = s % 3 == 2 && i % 2 == 0 ? REF_NONE : ref_make((uint64_t)s + 1, (uint32_t)i);
}

/* Writes a byte to descriptor 1 for every step that is done; ends at the first error. */
static int child_main(const char *dir)
{
    struct fpindex *ix = NULL;
    rng = 4711;
    model_init();
    rootfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rootfd < 0 || backend_dir_open(dir, &rootb) < 0 || fpindex_open(rootb, "", SLOT, PARTITIONS, BITS, &ix, NULL) != 0)
        return 4;
    for (int s = 0; s < STEPS; s++) {
        if (work_step(ix, s) != 0) {
            fpindex_close(ix);
            return 3;
        }
        if (write(1, "x", 1) != 1)
            return 4;
    }
    fpindex_close(ix);
    return 0;
}

/* Runs the child with a fault; *done: steps it acknowledged. Its exit code, or 9 when it was killed. */
static int run_child(const char *fault, int *done)
{
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(p[1], 1);
        setenv("VARVE_FAULT", fault, 1);
        execl("/proc/self/exe", "test_fpindex", "--child", root, (char *)NULL);
        _exit(5);
    }
    close(p[1]);
    char c;
    for (*done = 0; read(p[0], &c, 1) == 1;)
        ++*done;
    close(p[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static bool same_as_model(struct fpindex *ix)
{
    static uint64_t merged[KEYS], probed[KEYS];
    ask_all(ix, FPINDEX_MERGE, 1, 1, merged);
    ask_all(ix, FPINDEX_PROBE, 1, 1, probed);
    assert_memory_equal(merged, probed, sizeof merged);
    return memcmp(merged, model.ref, sizeof merged) == 0;
}

static void check_after_fault(int done)
{
    struct fpindex *ix = open_index();
    rng = 4711;
    model_init();
    for (int s = 0; s < done; s++)
        model_step(s);
    if (!same_as_model(ix)) {       /* the step under way is there or not there, as a whole */
        assert_true(done < STEPS);
        model_step(done);
        assert_true(same_as_model(ix));
    }
    assert_int_equal(stats_of(ix).damaged_files, 0);
    write_delta(ix, 0, KEYS, 7, 123456);
    merge_now(ix);
    assert_true(same_as_model(ix));
    fpindex_close(ix);
    assert_int_equal(count_names("."), 0);
    assert_int_equal(count_names("delta-"), 0);
    assert_int_equal(tree_remove(rootfd, "0001"), 0);
}

static void a_fault_at_any_point_keeps_what_was_acknowledged(void **state)
{
    (void)state;
    static const char *const points[] = {
        "fpindex.write.data", "fpindex.write.sync", "fpindex.publish.link", "fpindex.publish.after_link", "base.dir_sync",
        "fpindex.merge.after_publish", "fpindex.merge.unlink", "fpindex.merge.before_drop",
    };
    static const char *const actions[] = {"=kill", "=28", "+=5"};
    unsigned fired = 0;
    for (size_t p = 0; p < sizeof points / sizeof *points; p++)
        for (size_t a = 0; a < 3; a++)
            for (int n = 1;; n += n < 4 ? 1 : 5) {
                char fault[100];
                int done;
                snprintf(fault, sizeof fault, "%s:%d%s", points[p], n, actions[a]);
                int code = run_child(fault, &done);
                if (code == 4 && done == 0) {       /* the directory itself could not be made durable */
                    assert_int_equal(tree_remove(rootfd, "0001"), 0);
                    continue;
                }
                assert_true(code == 0 || code == 3 || code == SIGKILL);
                assert_int_equal(code == 0, done == STEPS);
                check_after_fault(done);
                fired += code != 0;
                if (code == 0)
                    break;                          /* the point is not passed so often, or can only kill */
            }
    assert_true(fired > 50);
}

#endif

int main(int argc, char **argv)
{
#ifdef VARVE_FAULTS
    if (argc == 3 && strcmp(argv[1], "--child") == 0)
        return child_main(argv[2]);
#endif
    (void)argc;
    (void)argv;
    const char *text = getenv("VARVE_SEED");
    rng = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_empty_index_knows_nothing),
        TEST(random_deltas_merges_and_reopens_follow_the_model),
        TEST(look_shows_exactly_the_live_entries),
        TEST(look_passes_over_what_a_merge_removes_meanwhile),
        TEST(an_aborted_delta_leaves_nothing),
        TEST(a_merge_leaves_partitions_alone_that_nothing_changed),
        TEST(nine_deltas_are_merged_without_force),
        TEST(wrong_input_is_refused),
        TEST(errors_of_the_callbacks_end_the_compare),
        TEST(clear_removes_every_file),
        TEST(one_partition_and_no_bits_work_too),
        TEST(the_rates_decide_between_scan_and_probe),
        TEST(leftovers_of_a_crash_are_ignored_and_swept),
        TEST(a_file_of_the_wrong_size_is_set_aside),
        TEST(foreign_and_torn_files_are_set_aside),
        TEST(files_of_another_slot_are_foreign),
        TEST(an_intact_file_of_a_newer_version_is_refused_and_left),
        TEST(every_damaged_page_loses_its_own_hints_only),
        TEST(random_damage_never_fails_a_compare_or_a_merge),
        TEST(a_file_that_vanishes_is_a_lost_hint),
#ifdef VARVE_FAULTS
        TEST(a_fault_at_any_point_keeps_what_was_acknowledged),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
