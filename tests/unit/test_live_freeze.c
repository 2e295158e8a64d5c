/* SPDX-License-Identifier: Apache-2.0 */
/* Freeze, pending snapshots, publication, drop, pointers, cache. */
#include "live_fake.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { N = 3 };
struct box {
    char root[64], state[96], copy[96];
    struct fake_source src;
    struct live_set *set;
    struct live *l[N];
    struct vid id[N];
    unsigned crashes;
};

static struct verr err;
static const struct live_env cached = {.open_max = 4, .cache_limit = 64 << 20};
static const struct freeze_req plain = {0};

static int box_new(void **state)
{
    struct box *b = calloc(1, sizeof *b);
    assert_non_null(b);
    fake_dir(b->root);
    snprintf(b->state, sizeof b->state, "%s/state", b->root);
    snprintf(b->copy, sizeof b->copy, "%s/copy", b->root);
    assert_int_equal(mkdir(b->state, 0700), 0);
    b->set = open_set(b->state, &b->src, true, &cached);
    for (int i = 0; i < N; i++) {
        b->id[i] = vid_random();
        CHECK(live_create(b->set, &b->id[i], 1, 0, &b->l[i], &err));
        CHECK(live_set_marks(b->l[i], 0, LIVE_UNNAMED, &err));
    }
    *state = b;
    return 0;
}

static void box_close(struct box *b)
{
    for (int i = 0; i < N; i++) {
        live_put(b->l[i]);
        b->l[i] = NULL;
    }
    if (b->set != NULL)
        CHECK(live_set_close(b->set, &err));
    b->set = NULL;
}

static int box_free(void **state)
{
    struct box *b = *state;
    box_close(b);
    fake_free(&b->src);
    fake_remove(b->root);
    free(b);
    return 0;
}

static void box_open(struct box *b, const char *where, bool trusted, const struct live_env *env)
{
    b->set = open_set(where, &b->src, trusted, env);
    for (int i = 0; i < N; i++)
        CHECK(live_get(b->set, &b->id[i], &b->l[i], &err));
}

static void box_crash(struct box *b, bool trusted)
{
    snprintf(b->copy, sizeof b->copy, "%s/copy%u", b->root, b->crashes++);     /* an earlier one may be in use */
    copy_tree(b->state, b->copy);
    box_close(b);
    box_open(b, b->copy, trusted, &cached);
}

static void all(const uint8_t *p, size_t n, int c)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != c)
            fail_msg("byte %zu is %d, not %d", i, p[i], c);
}

static void expect(struct live *l, uint64_t off, size_t n, int c)
{
    uint8_t *buf = malloc(n);
    ssize_t got = live_read(l, off, buf, n, &err);
    CHECK(got);
    assert_int_equal(got, n);
    all(buf, n, c);
    free(buf);
}

static void expect_pending(struct live *l, uint64_t seq, uint64_t off, size_t n, int c)
{
    uint8_t *buf = malloc(n);
    ssize_t got = live_pending_read(l, seq, off, buf, n, &err);
    CHECK(got);
    assert_int_equal(got, n);
    all(buf, n, c);
    free(buf);
}

static struct snapinfo freeze(struct live *l)
{
    struct snapinfo p;
    CHECK(live_freeze(&l, 1, &plain, &p, &err));
    return p;
}

static struct live_attr attr(struct live *l)
{
    struct live_attr a;
    CHECK(live_attr(l, &a, &err));
    return a;
}

/* ---- a publisher: stores dirty segments of the oldest pending snapshot ---- */
enum { SEG_MAX = 16 };
struct recipe { struct live *l; struct box *b; uint64_t seq,
size; unsigned asked; uint64_t place[SEG_MAX]; bool zero[SEG_MAX]; bool hide_pages; };

static int place_of(void *ctx, uint64_t seg, bool *zero, uint64_t *place, uint32_t *pages, struct verr *e)
{
    struct recipe *r = ctx;
    r->asked++;
    assert_true(seg < SEG_MAX);
    *zero = r->zero[seg];
    *place = r->place[seg];
    *pages = UINT32_MAX;
    return r->hide_pages || *zero ? 0 : fake_pages(&r->b->src, *place, pages, e);
}

static struct seg_entry entry_of(struct live *l, uint64_t seq, uint64_t segment)
{
    struct seg_entry slice[PEND_ENTRIES];
    CHECK(live_pending_entries(l, seq, segment, slice, &err));
    return slice[segment % PEND_ENTRIES];
}

static void store(struct box *b, struct live *l, uint64_t seq, struct recipe *r)
{
    static uint8_t seg[SEG_BYTES];
    struct snapinfo p;
    CHECK(live_pending_by_seq(l, seq, &p, &err));
    *r = (struct recipe){.l = l, .b = b, .seq = seq, .size = p.size};
    for (uint64_t i = 0; i < seg_count(p.size); i++) {
        const struct seg_entry e = entry_of(l, seq, i);
        if (e.dirty) {
            memset(seg, 0, sizeof seg);
            CHECK(live_pending_read(l, seq, i << SEG_SHIFT, seg, sizeof seg, &err));
            r->zero[i] = fake_count(seg) == 0;
            r->place[i] = r->zero[i] ? 0 : fake_store(&b->src, seg);
        } else {
            assert_int_not_equal(e.kind, SEGK_FROZEN);
            r->zero[i] = e.kind == SEGK_ZERO;
            r->place[i] = e.place;
        }
    }
}

static unsigned publish(struct box *b, struct live *l, uint64_t seq, struct recipe *r, struct live_anchor drop[8])
{
    struct snapinfo p;
    unsigned dropped = 0;
    CHECK(live_pending_seal(l, seq, &err));
    CHECK(live_pending_by_seq(l, seq, &p, &err));
    assert_true(p.flags & SNAP_SEALED);
    store(b, l, seq, r);
    const struct live_anchor mine = {{*live_id(l), seq, p.ref.snap}, seq + 1};
    CHECK(live_pending_published(l, seq, place_of, r, &mine, drop, 8, &dropped, &err));
    return dropped;
}

/* ---- */

static void frozen_content_stays_while_live_goes_on(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, 10000, 1);
    fake_fill(l, SEG_BYTES, 5000, 1);
    struct freeze_req req = {.flags = SNAP_EXPLICIT | SNAP_SEALED, .label = "before", .note = "a note",
                             .owners = &(struct freeze_owner){.mode = 0640, .uid = 1001, .gid = 1002}};
    struct snapinfo p, q;
    CHECK(live_freeze(&l, 1, &req, &p, &err));
    assert_int_equal(p.ref.seq, 1);
    assert_int_equal(p.flags, SNAP_EXPLICIT);           /* nobody says SEALED but the seal */
    assert_int_equal(p.size, SEG_BYTES + 5000);
    assert_int_equal(p.dirty_segments, 2);
    assert_int_equal(p.alloc_bytes, 5 * PAGE_BYTES);
    assert_int_equal(p.group_members, 1);
    assert_int_equal(p.mode, 0440);                     /* never write bits */
    assert_int_equal(p.uid, 1001);
    assert_int_equal(p.gid, 1002);
    assert_string_equal(p.label, "before");
    assert_false(attr(l).changed);
    assert_int_equal(attr(l).dirty_segments, 0);
    assert_int_equal(attr(l).alloc_bytes, p.alloc_bytes);
    fake_fill(l, 5, 2, 2);
    CHECK(live_truncate(l, 7000, &err));
    expect_pending(l, 1, 0, 10000, 1);
    expect_pending(l, 1, SEG_BYTES, 5000, 1);
    uint8_t c[8];
    assert_int_equal(live_pending_read(l, 1, p.size - 3, c, 8, &err), 3);
    assert_int_equal(live_pending_seek(l, 1, 0, true, &err), 3 * PAGE_BYTES);
    assert_int_equal(live_pending_seek(l, 1, 3 * PAGE_BYTES, false, &err), SEG_BYTES);
    expect(l, 0, 5, 1);
    expect(l, 5, 2, 2);
    CHECK(live_freeze(&l, 1, &plain, &q, &err));
    assert_int_equal(q.ref.seq, 2);
    assert_true(q.name_s > p.name_s);                   /* two in one second have different names */
    assert_int_equal(live_freeze(&l, 1,
                     &(struct freeze_req){.label = "0123456789012345678901234567890123456789012345678901234567890123456"},
                                 &q, &err), -EINVAL);
    box_crash(b, true);
    expect_pending(b->l[0], 1, 0, 10000, 1);
    expect_pending(b->l[0], 2, 5, 2, 2);
    CHECK(live_pending(b->l[0], 0, &q, &err));
    assert_string_equal(q.note, "a note");
    assert_int_equal(live_pending(b->l[0], 2, &q, &err), -ENOENT);
    assert_int_equal(live_pending_read(b->l[0], 3, 0, c, 1, &err), -ESTALE);
}

static void group_has_one_instant(void **state)
{
    struct box *b = *state;
    for (int i = 0; i < N; i++)
        fake_fill(b->l[i], 0, 100, i + 1);
    struct snapinfo p[N];
    struct live *order[N] = {b->l[2], b->l[0], b->l[1]};
    CHECK(live_freeze(order, N, &plain, p, &err));
    for (int i = 0; i < N; i++) {
        struct snapinfo q;
        assert_true(vid_eq(&p[i].group, &p[0].group));
        assert_int_equal(p[i].freeze_ns, p[0].freeze_ns);
        assert_int_equal(p[i].group_members, N);
        CHECK(live_pending_by_seq(order[i], p[i].ref.seq, &q, &err));
        assert_true(vid_eq(&q.ref.snap, &p[i].ref.snap));       /* in the order of the call */
    }
    struct live *twice[2] = {b->l[1], b->l[1]};
    assert_int_equal(live_freeze(twice, 2, &plain, p, &err), -EINVAL);
}

static void pending_flags_are_journalled(void **state)
{
    struct box *b = *state;
    struct snapinfo p = freeze(b->l[0]);
    CHECK(live_pending_update(b->l[0], p.ref.seq, SNAP_STARTED | SNAP_FAILED, 0, "new-label", &err));
    CHECK(live_pending_update(b->l[0], p.ref.seq, 0, SNAP_FAILED, NULL, &err));
    assert_int_equal(live_pending_update(b->l[0], p.ref.seq, SNAP_SEALED, 0, NULL, &err), -EINVAL);
    assert_int_equal(live_pending_update(b->l[0], 77, SNAP_FAILED, 0, NULL, &err), -ENOENT);
    box_crash(b, true);
    CHECK(live_pending_by_seq(b->l[0], p.ref.seq, &p, &err));
    assert_int_equal(p.flags, SNAP_STARTED);
    assert_string_equal(p.label, "new-label");
}

static void power_loss_keeps_sealed_and_drops_volatile(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, 10000, 1);
    struct snapinfo p = freeze(l);
    fake_fill(l, 0, 5000, 2);
    CHECK(live_pending_seal(l, p.ref.seq, &err));
    fake_fill(l, 50000, 5000, 2);
    struct snapinfo q = freeze(l);
    fake_fill(l, 0, 100, 3);
    box_crash(b, false);
    l = b->l[0];
    expect_pending(l, p.ref.seq, 0, 10000, 1);
    assert_int_equal(live_pending_by_seq(l, q.ref.seq, &q, &err), -ENOENT);
    assert_int_equal(attr(l).size, 10000);
    expect(l, 0, 10000, 1);
    struct snapinfo again = freeze(l);
    assert_true(again.ref.seq > p.ref.seq);
}

/* Sealing the older one wrote a head that is complete, and names the younger one too. */
static void power_loss_drops_a_volatile_one_behind_a_sealed_one(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, 10000, 1);
    struct snapinfo p = freeze(l);
    fake_fill(l, 0, 5000, 2);
    struct snapinfo q = freeze(l);
    fake_fill(l, 0, 100, 3);
    CHECK(live_pending_seal(l, p.ref.seq, &err));
    CHECK(live_pending_by_seq(l, q.ref.seq, &q, &err));
    assert_false(q.flags & SNAP_SEALED);
    box_crash(b, false);
    l = b->l[0];
    expect_pending(l, p.ref.seq, 0, 10000, 1);
    assert_int_equal(live_pending_by_seq(l, q.ref.seq, &q, &err), -ENOENT);
    expect(l, 0, 10000, 1);
}

static void fsync_seals_what_was_frozen(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, 10000, 1);
    struct snapinfo p = freeze(l);
    fake_fill(l, 0, 5000, 2);
    struct snapinfo q = freeze(l);
    fake_fill(l, 0, 100, 3);
    CHECK(live_fsync(l, &err));
    CHECK(live_pending_by_seq(l, q.ref.seq, &q, &err));
    assert_true(q.flags & SNAP_SEALED);
    box_crash(b, false);
    l = b->l[0];
    expect_pending(l, p.ref.seq, 0, 10000, 1);
    expect_pending(l, q.ref.seq, 0, 5000, 2);
    expect_pending(l, q.ref.seq, 5000, 5000, 1);
    expect(l, 0, 100, 3);
    expect(l, 100, 4900, 2);
    assert_int_equal(attr(l).dirty_segments, 1);
    assert_true(attr(l).changed);
}

static unsigned count_files(const char *state, const struct vid *id, const char *prefix)
{
    char dir[200], hex[VID_HEX];
    vid_hex(id, hex);
    snprintf(dir, sizeof dir, "%s/disks/%s", state, hex);
    DIR *d = opendir(dir);
    unsigned n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(d);
    return n;
}

static void published_segments_are_read_from_the_store(void **state)
{
    struct box *b = *state;
    box_close(b);
    box_open(b, b->state, true, NULL);                  /* no cache */
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8];
    fake_fill(l, 0, SEG_BYTES, 1);
    fake_fill(l, 3 * SEG_BYTES, 5000, 1);
    struct snapinfo p = freeze(l), q;
    fake_fill(l, 10, 10, 2);
    q = freeze(l);
    fake_fill(l, 20, 10, 3);
    CHECK(live_pending_seal(l, q.ref.seq, &err));
    /* not the oldest */
    assert_int_equal(live_pending_published(l, q.ref.seq, place_of, &r, NULL, drop, 8, &(unsigned){0}, &err), -EINVAL);
    uint64_t alloc = attr(l).alloc_bytes;
    assert_int_equal(publish(b, l, p.ref.seq, &r, drop), 0);
    assert_int_equal(r.asked, 2);                       /* the dirty ones only */
    assert_int_equal(attr(l).alloc_bytes, alloc);
    uint8_t c;
    assert_int_equal(live_pending_read(l, p.ref.seq, 0, &c, 1, &err), -ESTALE);
    unsigned reads = b->src.reads;
    expect(l, 3 * SEG_BYTES, 5000, 1);
    assert_true(b->src.reads > reads);
    expect(l, 0, 10, 1);
    expect(l, 10, 10, 2);
    expect(l, 20, 10, 3);
    expect_pending(l, q.ref.seq, 10, 10, 2);
    expect_pending(l, q.ref.seq, 20, 10, 1);
    assert_int_equal(live_seek(l, SEG_BYTES, false, &err), 3 * SEG_BYTES);
    struct seg_entry e;
    assert_int_equal(live_segment_pure(l, 3, &e, &err), 1);
    assert_int_equal(e.place, r.place[3]);
    assert_int_equal(live_segment_pure(l, 0, &e, &err), 0);
    assert_int_equal(publish(b, l, q.ref.seq, &r, drop), 1);     /* the first one's anchor */
    assert_int_equal(drop[0].ref.seq, p.ref.seq);
    CHECK(live_anchor_gone(l, &drop[0], &err));
    CHECK(live_anchor_gone(l, &drop[0], &err));     /* a caller that was killed before it knew asks again */
    struct live_anchor a;
    CHECK(live_anchor_at(l, 0, &a, &err));
    assert_int_equal(a.ref.seq, q.ref.seq);
    assert_int_equal(live_anchor_at(l, 1, &a, &err), -ENOENT);
    assert_int_equal(count_files(b->state, &b->id[0], "layer-"), 3);
    assert_int_equal(count_files(b->state, &b->id[0], "table-"), 1);
    box_crash(b, false);
    expect(b->l[0], 3 * SEG_BYTES, 5000, 1);
    expect(b->l[0], 10, 10, 2);
}

static void published_layer_becomes_cache(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8];
    struct live_space space;
    fake_fill(l, 0, 2 * SEG_BYTES, 1);
    publish(b, l, freeze(l).ref.seq, &r, drop);
    assert_int_equal(count_files(b->state, &b->id[0], "cache-"), 2);
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, 2 * SEG_BYTES);
    assert_int_equal(space.layers_bytes, 0);
    b->src.away = true;                                 /* all is local */
    expect(l, 0, 2 * SEG_BYTES, 1);
    fake_fill(l, 100, 100, 2);                                /* so is the rest of an edge page */
    b->src.away = false;
    publish(b, l, freeze(l).ref.seq, &r, drop);             /* small: merged into the cache */
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, 2 * SEG_BYTES);
    b->src.away = true;
    expect(l, 0, 100, 1);
    expect(l, 100, 100, 2);
    expect(l, 200, SEG_BYTES, 1);
    b->src.away = false;
    box_crash(b, true);
    b->src.away = true;
    expect(b->l[0], 100, 100, 2);
    expect(b->l[0], 200, SEG_BYTES, 1);
    b->src.away = false;
    box_crash(b, false);                                /* a cache does not outlive a power loss */
    expect(b->l[0], 100, 100, 2);
    assert_int_equal(count_files(b->copy, &b->id[0], "cache-"), 0);
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, 0);
}

/* The cache must never show what a segment was before. */
static void cache_is_used_for_its_own_place_only(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r1, r2;
    struct live_anchor drop[8];
    fake_fill(l, 0, 2 * SEG_BYTES, 1);
    publish(b, l, freeze(l).ref.seq, &r1, drop);
    fake_fill(l, SEG_BYTES, SEG_BYTES, 2);
    struct snapinfo p = freeze(l);
    fake_fill(l, SEG_BYTES, 100, 3);
    publish(b, l, p.ref.seq, &r2, drop);
    expect(l, SEG_BYTES, 100, 3);
    expect(l, SEG_BYTES + 100, SEG_BYTES - 100, 2);
    freeze(l);
    const struct live_anchor a = {{b->id[0], 1, vid_random()}, 0};
    CHECK(live_revert(l, &(struct live_target){2 * SEG_BYTES, 2 * SEG_BYTES, place_of, &r1, &a}, LIVE_KEEP, &err));
    expect(l, 0, 2 * SEG_BYTES, 1);
}

static void eviction_starts_with_the_oldest_publication(void **state)
{
    struct box *b = *state;
    struct recipe r;
    struct live_anchor drop[8];
    struct live_space space;
    for (int i = 0; i < N; i++) {
        fake_fill(b->l[i], 0, SEG_BYTES, i + 1);
        publish(b, b->l[i], freeze(b->l[i]).ref.seq, &r, drop);
        usleep(20000);
    }
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, N * SEG_BYTES);
    CHECK(live_set_evict(b->set, &err));
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, N * SEG_BYTES);
    box_close(b);
    const struct live_env small = {.open_max = 4, .cache_limit = 2 * SEG_BYTES};
    box_open(b, b->state, true, &small);
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, N * SEG_BYTES);
    CHECK(live_set_evict(b->set, &err));
    live_set_space(b->set, &space);
    assert_int_equal(space.cache_bytes, 2 * SEG_BYTES);
    b->src.away = true;
    uint8_t c;
    assert_int_equal(live_read(b->l[0], 0, &c, 1, &err), -EIO);
    expect(b->l[1], 0, SEG_BYTES, 2);
    expect(b->l[2], 0, SEG_BYTES, 3);
    b->src.away = false;
    expect(b->l[0], 0, SEG_BYTES, 1);
}

static void dropped_changes_go_to_the_next(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, SEG_BYTES, 1);
    fake_fill(l, 2 * SEG_BYTES, 4096, 1);
    struct snapinfo p = freeze(l);
    fake_fill(l, 100, 100, 2);
    struct snapinfo q = freeze(l);
    fake_fill(l, 2 * SEG_BYTES, 10, 3);
    uint64_t alloc = attr(l).alloc_bytes;
    CHECK(live_pending_drop(l, p.ref.seq, &err));           /* into q */
    const struct seg_entry e = entry_of(l, q.ref.seq, 0);
    assert_true(e.dirty && e.kind == SEGK_ZERO);
    assert_true(entry_of(l, q.ref.seq, 2).dirty);
    CHECK(live_pending_by_seq(l, q.ref.seq, &q, &err));
    assert_int_equal(q.dirty_segments, 2);
    expect_pending(l, q.ref.seq, 0, 100, 1);
    expect_pending(l, q.ref.seq, 100, 100, 2);
    expect_pending(l, q.ref.seq, 2 * SEG_BYTES, 4096, 1);
    expect(l, 2 * SEG_BYTES, 10, 3);
    assert_int_equal(attr(l).alloc_bytes, alloc);
    assert_int_equal(live_pending_drop(l, p.ref.seq, &err), -ENOENT);
    CHECK(live_pending_seal(l, q.ref.seq, &err));
    box_crash(b, false);
    l = b->l[0];
    expect_pending(l, q.ref.seq, 100, 100, 2);
    expect_pending(l, q.ref.seq, 2 * SEG_BYTES, 4096, 1);
    CHECK(live_pending_drop(l, q.ref.seq, &err));
    assert_int_equal(attr(l).pending, 0);
    expect(l, 0, 100, 1);
    expect(l, 200, SEG_BYTES - 200, 1);
}

struct reading { struct live *l; uint64_t seq; atomic_int wrong; };

/* What a round does: reads a snapshot of SEG_BYTES of 1 until it is gone. */
static void *read_until_gone(void *ctx)
{
    struct reading *r = ctx;
    uint8_t *buf = malloc(SEG_BYTES);
    ssize_t got;
    while ((got = live_pending_read(r->l, r->seq, 0, buf, SEG_BYTES, NULL)) == SEG_BYTES)
        for (size_t i = 0; i < SEG_BYTES; i++)
            r->wrong += buf[i] != 1;
    r->wrong += got != -ESTALE;
    free(buf);
    return NULL;
}

/* A snapshot goes while a round stores it. successor: 0: the unchanged live image, 1: a changed one, 2: a younger snapshot. */
static void drop_started(struct box *b, int successor)
{
    struct live *l = b->l[0];
    struct snapinfo q = {0};
    struct seg_entry slice[PEND_ENTRIES];
    struct recipe r;
    struct live_anchor drop[8];
    pthread_t reader;
    fake_fill(l, 0, SEG_BYTES, 1);
    struct snapinfo p = freeze(l);
    CHECK(live_pending_update(l, p.ref.seq, SNAP_STARTED, 0, NULL, &err));
    if (successor > 0)
        fake_fill(l, 100, 100, 2);
    if (successor > 1)
        q = freeze(l);
    struct reading reading = {l, p.ref.seq, 0};
    assert_int_equal(pthread_create(&reader, NULL, read_until_gone, &reading), 0);
    usleep(2000);
    CHECK(live_pending_drop(l, p.ref.seq, &err));
    pthread_join(reader, NULL);
    assert_int_equal(reading.wrong, 0);
    assert_int_equal(live_pending_entries(l, p.ref.seq, 0, slice, &err), -ESTALE);
    assert_int_equal(live_pending_published(l, p.ref.seq, place_of, &r, NULL, drop, 8, &(unsigned){0}, &err), -ENOENT);
    if (successor < 2) {
        q = freeze(l);
        assert_true(q.ref.seq > p.ref.seq);
    }
    CHECK(live_pending_seal(l, q.ref.seq, &err));
    for (int trusted = 1; trusted >= 0; trusted--) {
        box_crash(b, trusted);
        l = b->l[0];
        assert_int_equal(attr(l).pending, 1);
        expect_pending(l, q.ref.seq, 0, 100, 1);
        expect_pending(l, q.ref.seq, 100, 100, successor > 0 ? 2 : 1);
        expect_pending(l, q.ref.seq, 200, SEG_BYTES - 200, 1);
    }
    publish(b, l, q.ref.seq, &r, drop);
    expect(l, 0, 100, 1);
    expect(l, 100, 100, successor > 0 ? 2 : 1);
    expect(l, 200, SEG_BYTES - 200, 1);
}

static void a_freeze_is_taken_back_while_it_is_stored(void **state) { drop_started(*state, 0); }
static void what_is_stored_goes_to_the_live_image(void **state) { drop_started(*state, 1); }
static void what_is_stored_goes_to_the_next(void **state) { drop_started(*state, 2); }

/* A round knows the dirty set of what it stores. */
static void nothing_goes_into_what_is_stored(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, 100, 1);
    struct snapinfo p = freeze(l);
    fake_fill(l, 0, 10, 2);
    struct snapinfo q = freeze(l);
    CHECK(live_pending_update(l, q.ref.seq, SNAP_STARTED, 0, NULL, &err));
    assert_int_equal(live_pending_drop(l, p.ref.seq, &err), -EBUSY);
    CHECK(live_pending_drop(l, q.ref.seq, &err));
    expect_pending(l, p.ref.seq, 0, 100, 1);
    expect(l, 0, 10, 2);
}

static unsigned files_of(struct box *b, struct live *l)
{
    char hex[VID_HEX], path[256];
    unsigned n = 0;
    vid_hex(live_id(l), hex);
    snprintf(path, sizeof path, "%s/disks/%s", b->state, hex);
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

static int zero_place(void *ctx, uint64_t seg, bool *zero, uint64_t *place, uint32_t *pages, struct verr *e)
{
    (void)ctx, (void)seg, (void)place, (void)e;
    *zero = true;
    *pages = 0;
    return 0;
}

/* The freeze of an image that is not written afterwards is taken back by pointers: no file is left over, no byte copied, and the name
 * is free again. crash: after which kind of end the result is looked at; 2: none. */
static void take_back(struct box *b, bool sealed, int crash)
{
    struct live *l = b->l[0];
    fake_fill(l, 3 * SEG_BYTES, 4096, 5);
    struct snapinfo older = freeze(l);
    fake_fill(l, 0, SEG_BYTES, 1);
    fake_fill(l, 2 * SEG_BYTES, 4096, 1);
    CHECK(live_fsync(l, &err));
    const unsigned files = files_of(b, l);
    struct snapinfo p = freeze(l);
    if (sealed)
        CHECK(live_pending_seal(l, p.ref.seq, &err));
    CHECK(live_set_mtime(l, 77, &err));
    CHECK(live_pending_drop(l, p.ref.seq, &err));
    assert_int_equal(files_of(b, l), files);
    if (crash < 2)
        box_crash(b, crash == 1);
    l = b->l[0];
    const struct live_attr a = attr(l);
    assert_true(a.changed);
    assert_int_equal(a.pending, 1);
    assert_int_equal(a.dirty_segments, 2);
    assert_int_equal(a.last_name_s, p.name_s - 1);
    if (crash > 0)
        assert_int_equal(a.mtime_ns, 77);
    expect(l, 0, SEG_BYTES, 1);
    expect(l, 2 * SEG_BYTES, 4096, 1);
    fake_fill(l, 10, 10, 2);
    struct snapinfo q = freeze(l);
    assert_true(q.name_s == p.name_s || q.name_s == q.freeze_ns / 1000000000);
    assert_int_equal(q.dirty_segments, 2);
    expect_pending(l, q.ref.seq, 0, 10, 1);
    expect_pending(l, q.ref.seq, 10, 10, 2);
    expect_pending(l, q.ref.seq, 3 * SEG_BYTES, 4096, 5);
    expect_pending(l, older.ref.seq, 3 * SEG_BYTES, 4096, 5);
}

static void a_volatile_freeze_is_taken_back(void **state) { take_back(*state, false, 2); }
static void a_volatile_freeze_is_taken_back_before_a_kill(void **state) { take_back(*state, false, 1); }
static void a_sealed_freeze_is_taken_back_before_a_kill(void **state) { take_back(*state, true, 1); }
static void a_sealed_freeze_is_taken_back_before_a_power_loss(void **state) { take_back(*state, true, 0); }

/* Nothing is changed, but the image is another one since. */
static void a_freeze_before_a_revert_is_not_taken_back(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, SEG_BYTES, 1);
    struct snapinfo p = freeze(l);
    const struct live_target to = {.size = SEG_BYTES, .fn = zero_place};
    CHECK(live_revert(l, &to, LIVE_KEEP, &err));
    CHECK(live_pending_drop(l, p.ref.seq, &err));
    expect(l, 0, SEG_BYTES, 0);
}

static void dropped_changes_of_the_youngest_go_to_the_live_image(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, SEG_BYTES, 1);
    struct snapinfo p = freeze(l);
    CHECK(live_pending_seal(l, p.ref.seq, &err));
    fake_fill(l, 10, 10, 2);
    CHECK(live_pending_drop(l, p.ref.seq, &err));
    assert_true(attr(l).changed);
    assert_int_equal(attr(l).dirty_segments, 1);
    assert_int_equal(attr(l).alloc_bytes, SEG_BYTES);
    for (int trusted = 1; trusted >= 0; trusted--) {
        box_crash(b, trusted);
        l = b->l[0];
        expect(l, 0, 10, 1);
        expect(l, 10, 10, 2);
        expect(l, 20, SEG_BYTES - 20, 1);
        assert_int_equal(attr(l).pending, 0);
    }
}

/* The state is there, and no snapshot of it; the next write makes a changed one of it. */
static void remove_youngest(struct box *b, bool sealed, bool write_before_the_kill)
{
    struct live *l = b->l[0];
    fake_fill(l, 0, SEG_BYTES, 1);
    struct snapinfo p = freeze(l);
    if (sealed)
        CHECK(live_pending_seal(l, p.ref.seq, &err));
    CHECK(live_pending_remove(l, p.ref.seq, &err));
    assert_true(attr(l).changed && attr(l).unkept);
    for (unsigned i = 0; i < 2; i++) {
        if ((i == 0) == write_before_the_kill) {
            fake_fill(l, SEG_BYTES, 10, 2);
        } else {
            box_crash(b, true);
            l = b->l[0];
        }
        assert_true(attr(l).changed);
        assert_int_equal(attr(l).unkept, i == 0 && !write_before_the_kill);
        expect(l, 0, SEG_BYTES, 1);
    }
    p = freeze(l);                                      /* has both */
    assert_int_equal(p.dirty_segments, 2);
    assert_false(attr(l).changed || attr(l).unkept);
}

static void a_removed_state_is_unkept_until_it_changes(void **state) { remove_youngest(*state, false, false); }
static void a_removed_sealed_state_is_unkept_until_it_changes(void **state) { remove_youngest(*state, true, false); }
static void a_change_of_a_removed_state_survives_a_kill(void **state) { remove_youngest(*state, false, true); }
static void a_change_of_a_removed_sealed_state_survives_a_kill(void **state) { remove_youngest(*state, true, true); }

static void a_state_is_unkept_only_if_nobody_changed_it(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    fake_fill(l, 0, SEG_BYTES, 1);
    struct snapinfo p = freeze(l), q;
    fake_fill(l, 10, 10, 4);
    CHECK(live_pending_remove(l, p.ref.seq, &err));
    assert_true(attr(l).changed && !attr(l).unkept);
    p = freeze(l);
    CHECK(live_pending_seal(l, p.ref.seq, &err));
    fake_fill(l, 0, 10, 5);
    q = freeze(l);
    CHECK(live_pending_remove(l, q.ref.seq, &err));
    CHECK(live_pending_remove(l, p.ref.seq, &err));     /* by a copy: the younger one was taken back before it */
    assert_true(attr(l).changed && attr(l).unkept);
    expect(l, 0, 10, 5);
    expect(l, 10, 10, 4);
    CHECK(live_pending_drop(l, freeze(l).ref.seq, &err));       /* its writer goes on */
    assert_true(attr(l).changed && !attr(l).unkept);
}

static void what_is_local_needs_no_source(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8];
    static uint8_t buf[2 * PAGE_BYTES];
    fake_fill(l, 0, 2 * SEG_BYTES, 1);
    struct snapinfo p = freeze(l);
    publish(b, l, p.ref.seq, &r, drop);
    struct live_anchor a = {{b->id[0], p.ref.seq, p.ref.snap}, 0};
    r.hide_pages = true;
    CHECK(live_revert(l, &(struct live_target){r.size, 2 * SEG_BYTES, place_of, &r, &a}, LIVE_KEEP, &err));   /* drops the cache: all is stored */
    unsigned before = b->src.reads;
    assert_int_equal(live_read_within(l, 0, buf, PAGE_BYTES, REACH_LOCAL, &err), -EAGAIN);
    assert_int_equal(live_write_within(l, 0, buf, PAGE_BYTES, REACH_LOCAL, &err), -EAGAIN);     /* its pages are unknown */
    assert_int_equal(b->src.reads, before);
    fake_fill(l, 0, 2 * PAGE_BYTES, 2);
    fake_fill(l, SEG_BYTES, PAGE_BYTES, 2);
    before = b->src.reads;
    assert_int_equal(live_read_within(l, 0, buf, 2 * PAGE_BYTES, REACH_LOCAL, &err), 2 * PAGE_BYTES);
    all(buf, 2 * PAGE_BYTES, 2);
    assert_int_equal(live_read_within(l, PAGE_BYTES, buf, 2 * PAGE_BYTES, REACH_LOCAL, &err), -EAGAIN);
    memset(buf, 3, sizeof buf);
    CHECK(live_write_within(l, 0, buf, 2 * PAGE_BYTES, REACH_LOCAL, &err));
    CHECK(live_write_within(l, 9 * PAGE_BYTES, buf, PAGE_BYTES, REACH_LOCAL, &err));
    assert_int_equal(live_write_within(l, 20 * PAGE_BYTES + 1, buf, PAGE_BYTES, REACH_LOCAL, &err), -EAGAIN);
    assert_int_equal(b->src.reads, before);
    expect(l, 0, 2 * PAGE_BYTES, 3);
    expect(l, 2 * PAGE_BYTES, 7 * PAGE_BYTES, 1);
    expect(l, 9 * PAGE_BYTES, PAGE_BYTES, 3);
    expect(l, 10 * PAGE_BYTES, SEG_BYTES - 10 * PAGE_BYTES, 1);
}

/* What the caller gives up goes with the record that brings the new content, and not before. */
static void dropped_changes_go_with_the_new_content(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8];
    fake_fill(l, 0, 2 * SEG_BYTES, 1);
    struct snapinfo p = freeze(l);
    publish(b, l, p.ref.seq, &r, drop);
    struct live_anchor a = {{b->id[0], p.ref.seq, p.ref.snap}, 0};
    fake_fill(l, 0, 3 * SEG_BYTES, 2);
    CHECK(live_revert(l, &(struct live_target){r.size, 2 * SEG_BYTES, place_of, &r, &a}, LIVE_DROP, &err));
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            box_crash(b, i == 1);
        expect(b->l[0], 0, 2 * SEG_BYTES, 1);
        assert_int_equal(attr(b->l[0]).size, r.size);
        assert_int_equal(attr(b->l[0]).dirty_segments, 0);
        assert_false(attr(b->l[0]).changed);
    }
}

static void dropped_changes_go_with_the_taken_content(void **state)
{
    struct box *b = *state;
    fake_fill(b->l[0], 0, 100, 2);
    fake_fill(b->l[1], 0, 200, 3);
    assert_int_equal(live_take(b->l[0], b->l[1], LIVE_KEEP, TAKE_OVER, &err), -EBUSY);
    expect(b->l[0], 0, 100, 2);
    CHECK(live_take(b->l[0], b->l[1], LIVE_DROP, TAKE_OVER, &err));
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            box_crash(b, i == 1);
        expect(b->l[0], 0, 200, 3);
        assert_int_equal(attr(b->l[0]).size, 200);
        assert_true(attr(b->l[0]).changed);
    }
}

static void revert_changes_pointers_only(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8];
    fake_fill(l, 0, 2 * SEG_BYTES, 1);
    fake_fill(l, 5 * SEG_BYTES, 100, 1);
    struct snapinfo p = freeze(l);
    publish(b, l, p.ref.seq, &r, drop);
    fake_fill(l, 0, 6 * SEG_BYTES + 5, 2);
    struct live_anchor a = {{b->id[0], p.ref.seq, p.ref.snap}, 0};
    assert_int_equal(live_revert(l, &(struct live_target){r.size, 0, place_of, &r, &a}, LIVE_KEEP, &err), -EBUSY);
    struct snapinfo q = freeze(l);
    CHECK(live_set_marks(l, LIVE_REWRITING, 0, &err));
    r.hide_pages = true;
    const uint64_t alloc = 2 * SEG_BYTES + PAGE_BYTES;
    CHECK(live_revert(l, &(struct live_target){r.size, alloc, place_of, &r, &a}, LIVE_KEEP, &err));
    assert_false(attr(l).changed);                      /* it is a stored snapshot's content */
    assert_int_equal(attr(l).marks, 0);
    assert_int_equal(attr(l).alloc_bytes, alloc);
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            box_crash(b, i == 1);
        l = b->l[0];
        assert_int_equal(attr(l).size, r.size);
        expect(l, 0, 2 * SEG_BYTES, 1);
        expect(l, 2 * SEG_BYTES, 3 * SEG_BYTES, 0);
        expect(l, 5 * SEG_BYTES, 100, 1);
        assert_int_equal(attr(l).alloc_bytes, alloc);
        assert_int_equal(attr(l).dirty_segments, 0);
        struct live_anchor got;
        CHECK(live_anchor_at(l, 0, &got, &err));
        assert_int_equal(got.stamp, q.ref.seq + 1);         /* lifted: the next freeze is the first to hold it */
    }
    fake_fill(l, 0, 10, 4);                                   /* now the pages are asked for */
    assert_int_equal(attr(l).alloc_bytes, alloc);
    CHECK(live_zero(l, 0, SEG_BYTES, &err));
    assert_int_equal(attr(l).alloc_bytes, alloc - SEG_BYTES);
    CHECK(live_pending_drop(l, live_pending(l, 0, &q, &err) == 0 ? q.ref.seq : 0, &err));      /* nothing of it is below any more */
    expect(l, SEG_BYTES, SEG_BYTES, 1);
}

static void anchor_relied_on_again_is_not_taken_off(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8], a;
    fake_fill(l, 0, 100, 1);
    struct snapinfo p = freeze(l);
    publish(b, l, p.ref.seq, &r, drop);
    fake_fill(l, 0, 100, 2);
    struct recipe r2;
    assert_int_equal(publish(b, l, freeze(l).ref.seq, &r2, drop), 1);
    a = drop[0];
    CHECK(live_revert(l, &(struct live_target){r.size, 0, place_of, &r, &a}, LIVE_KEEP, &err));
    assert_int_equal(live_anchor_gone(l, &drop[0], &err), -ESTALE);
    CHECK(live_anchor_at(l, 0, &a, &err));
    assert_int_equal(a.ref.seq, p.ref.seq);
}

static void point_needs_untouched_segments(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0], *m = b->l[1];
    struct recipe r;
    struct live_anchor drop[8];
    fake_fill(l, 0, 3 * SEG_BYTES + 1000, 1);
    struct snapinfo p = freeze(l);
    publish(b, l, p.ref.seq, &r, drop);
    const struct live_anchor a = {{b->id[0], p.ref.seq, p.ref.snap}, 0};
    fake_fill(m, SEG_BYTES + 5, 1, 9);
    assert_int_equal(live_point(m, 0, 4, r.size, place_of, &r, &a, &err), -EOPNOTSUPP);
    expect(m, 0, SEG_BYTES, 0);
    assert_int_equal(live_anchor_at(m, 0, &drop[0], &err), -ENOENT);
    struct snapinfo q = freeze(m);
    assert_int_equal(live_point(m, 0, 5, r.size, place_of, &r, &a, &err), -EINVAL);
    CHECK(live_point(m, 0, 4, r.size, place_of, &r, &a, &err));
    assert_int_equal(attr(m).size, r.size);
    assert_int_equal(attr(m).alloc_bytes, 3 * SEG_BYTES + PAGE_BYTES);
    assert_int_equal(attr(m).dirty_segments, 0);
    assert_true(attr(m).changed);
    expect(m, 0, 3 * SEG_BYTES + 1000, 1);
    expect_pending(m, q.ref.seq, 0, SEG_BYTES + 5, 0);
    CHECK(live_anchor_at(m, 0, &drop[0], &err));
    assert_int_equal(drop[0].stamp, q.ref.seq + 1);
    CHECK(live_pending_drop(m, q.ref.seq, &err));           /* what it had there is replaced */
    expect(m, SEG_BYTES, 100, 1);
    CHECK(live_fsync(m, &err));
    box_crash(b, false);
    expect(b->l[1], 0, 3 * SEG_BYTES + 1000, 1);
    CHECK(live_truncate(b->l[1], 4 * SEG_BYTES, &err));
    expect(b->l[1], 3 * SEG_BYTES + 1000, 5000, 0);
}

/* ---- faults, in a child ---- */

enum { SLOW_BYTES = 10000 };
static int freezes_done;

static void *write_slowly(void *l)
{
    static uint8_t data[SLOW_BYTES];
    memset(data, 2, sizeof data);
    return live_write(l, 0, data, sizeof data, NULL) < 0 ? l : NULL;
}

static void *freeze_now(void *l)
{
    struct snapinfo p;
    struct live *one = l;
    int r = live_freeze(&one, 1, &plain, &p, NULL);
    __atomic_store_n(&freezes_done, 1, __ATOMIC_SEQ_CST);
    return r < 0 ? l : NULL;
}

/* A write stands between its dirty bit and its data (the fault point pauses while the file is there): what does a freeze do? */
static int freeze_during_a_write(struct live *l, const char *state)
{
    static uint8_t back[SLOW_BYTES];
    char file[128];
    pthread_t writer, freezer;
    void *bad[2];
    snprintf(file, sizeof file, "%s-pause", state);
    setenv("VARVE_FAULT_PAUSE", file, 1);
    int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || close(fd) < 0 || pthread_create(&writer, NULL, write_slowly, l) != 0)
        return 110;
    for (struct live_attr a = {0}; a.dirty_segments == 0; usleep(1000))
        live_attr(l, &a, NULL);
    if (pthread_create(&freezer, NULL, freeze_now, l) != 0)
        return 111;
    usleep(300000);
    bool waits = __atomic_load_n(&freezes_done, __ATOMIC_SEQ_CST) == 0;
    unlink(file);
    pthread_join(writer, &bad[0]);
    pthread_join(freezer, &bad[1]);
    if (bad[0] != NULL || bad[1] != NULL || live_pending_read(l, 1, 0, back, sizeof back, NULL) != SLOW_BYTES)
        return 112;
    for (size_t i = 0; i < sizeof back; i++)
        if (back[i] != 2)
            return 113;
    return waits ? 7 : 8;
}

static int child(const char *what, const char *state, char *const hex[N])
{
    static struct fake_source src;
    struct live *l[N] = {NULL};
    struct vid id[N];
    struct snapinfo p[N];
    struct live_set *set = open_set(state, &src, true, &cached);
    for (int i = 0; i < N; i++)
        if (vid_parse(hex[i], &id[i]) < 0 || live_get(set, &id[i], &l[i], NULL) < 0)
            return 100;
    if (strcmp(what, "drop") == 0)
        return live_pending_drop(l[0], 1, NULL) == 0 ? 0 : 101;
    if (strcmp(what, "take") == 0)
        return live_take(l[0], l[1], LIVE_KEEP, TAKE_OVER, NULL) == 0 ? 0 : 105;
    if (strcmp(what, "write") == 0)
        return freeze_during_a_write(l[0], state);
    int r = live_freeze(l, N, &plain, p, NULL);
    for (int i = 0; i < N; i++) {
        struct live_attr a;
        live_attr(l[i], &a, NULL);
        if (a.pending != (r == 0 ? 1u : 0u) || a.changed != (r < 0) || a.next_seq != (r == 0 ? 2u : 1u))
            return 102;
    }
    /* And the next one works, on journals that were cut back. */
    if (r < 0 && live_freeze(l, N, &plain, p, NULL) < 0)
        return 103;
    for (int i = 0; i < N; i++)
        live_put(l[i]);
    return live_set_close(set, NULL) < 0 ? 104 : r == 0 ? 0 : 5;
}

#ifdef VARVE_FAULTS
static int run_child(const struct box *b, const char *fault, const char *what)
{
    char hex[N][VID_HEX];
    for (int i = 0; i < N; i++)
        vid_hex(&b->id[i], hex[i]);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("VARVE_FAULT", fault, 1);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
        execl("/proc/self/exe", "test_live_freeze", "child", what, b->state, hex[0], hex[1], hex[2], (char *)NULL);
        _exit(99);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}
#endif

static void group_is_never_torn(void **state)
{
#ifndef VARVE_FAULTS
    (void)state;
    skip();
#else
    struct box *b = *state;
    char keep[96];
    snprintf(keep, sizeof keep, "%s/keep", b->root);
    for (int i = 0; i < N; i++)
        fake_fill(b->l[i], 0, 100, i + 1);
    box_close(b);
    copy_tree(b->state, keep);
    static const char *const faults[] = {"live.freeze.record:1=28", "live.freeze.record:2=28", "live.freeze.record:3=28",
                                         "live.table.create:2=5", "live.layer.create:3=5", "live.table.slice:2=5", "live.journal.put:2=28"};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        fake_remove(b->state);
        copy_tree(keep, b->state);
        assert_int_equal(run_child(b, faults[i], "freeze"), 5);
        box_open(b, b->state, true, &cached);
        struct snapinfo p, q;
        for (int k = 0; k < N; k++) {
            CHECK(live_pending(b->l[k], 0, k == 0 ? &q : &p, &err));
            assert_true(k == 0 || vid_eq(&p.group, &q.group));
            expect_pending(b->l[k], 1, 0, 100, k + 1);
            assert_int_equal(count_files(b->state, &b->id[k], "table-"), 2);     /* what failed left nothing */
        }
        box_close(b);
    }
    box_open(b, b->state, true, &cached);
#endif
}

static void freeze_waits_for_a_write_to_end(void **state)
{
#ifndef VARVE_FAULTS
    (void)state;
    skip();
#else
    struct box *b = *state;
    box_close(b);
    assert_int_equal(run_child(b, "live.write.after_dirty:1=pause", "write"), 7);
    box_open(b, b->state, true, &cached);
#endif
}

static void kill_during_a_drop_is_before_or_after(void **state)
{
#ifndef VARVE_FAULTS
    (void)state;
    skip();
#else
    struct box *b = *state;
    char keep[96];
    snprintf(keep, sizeof keep, "%s/keep", b->root);
    fake_fill(b->l[0], 0, SEG_BYTES, 1);
    freeze(b->l[0]);
    fake_fill(b->l[0], 0, 10, 2);
    box_close(b);
    copy_tree(b->state, keep);
    static const char *const faults[] = {"live.drop.after_merge:1=kill", "live.drop.after_rewrite:1=kill",
                                         "live.journal.before_sync:1=kill", "live.journal.after_sync:1=kill"};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        for (int trusted = 0; trusted < 2; trusted++) {
            fake_remove(b->state);
            copy_tree(keep, b->state);
            assert_int_equal(run_child(b, faults[i], "drop"), -9);
            box_open(b, b->state, trusted, &cached);
            expect(b->l[0], 0, 10, 2);
            expect(b->l[0], 10, SEG_BYTES - 10, 1);
            if (attr(b->l[0]).pending > 0)
                expect_pending(b->l[0], 1, 0, SEG_BYTES, 1);
            box_close(b);
        }
    }
    box_open(b, b->state, true, &cached);
#endif
}

/* l[0] takes what l[1] has: pages in its layer, a stored segment below, zeros. */
static struct snapinfo prepare_take(struct box *b)
{
    struct recipe r;
    struct live_anchor drop[8];
    fake_fill(b->l[0], 0, 3 * SEG_BYTES, 1);
    struct snapinfo kept = freeze(b->l[0]);
    fake_fill(b->l[1], 0, 2 * SEG_BYTES, 2);
    struct snapinfo p = freeze(b->l[1]);
    publish(b, b->l[1], p.ref.seq, &r, drop);
    fake_fill(b->l[1], 100, 5000, 3);
    fake_fill(b->l[1], 4 * SEG_BYTES, 10, 4);
    return kept;
}

static void expect_taken(struct live *l)
{
    assert_int_equal(attr(l).size, 4 * SEG_BYTES + 10);
    expect(l, 0, 100, 2);
    expect(l, 100, 5000, 3);
    expect(l, 5100, 2 * SEG_BYTES - 5100, 2);
    expect(l, 2 * SEG_BYTES, 2 * SEG_BYTES, 0);
    expect(l, 4 * SEG_BYTES, 10, 4);
}

static void taken_content_is_the_targets_own(void **state)
{
    struct box *b = *state;
    struct snapinfo kept = prepare_take(b), p;
    struct live_anchor a;
    CHECK(live_take(b->l[0], b->l[1], LIVE_KEEP, TAKE_OVER, &err));
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            box_crash(b, i == 1);
        expect_taken(b->l[0]);
        assert_true(attr(b->l[0]).changed);
        CHECK(live_pending_by_seq(b->l[0], kept.ref.seq, &p, &err));       /* its history stays */
        expect_pending(b->l[0], kept.ref.seq, 0, 3 * SEG_BYTES, 1);
        CHECK(live_anchor_at(b->l[0], 0, &a, &err));                   /* what the stored segment relies on */
        assert_true(vid_eq(&a.ref.disk, &b->id[1]));
    }
    assert_int_equal(live_take(b->l[1], b->l[0], LIVE_KEEP, TAKE_OVER, &err), -EBUSY);        /* l[1] has changes of its own */
    assert_int_equal(live_take(b->l[2], b->l[2], LIVE_KEEP, TAKE_OVER, &err), -EINVAL);
}

/* A disk that got ranges of several snapshots relies on all of them, and so does who takes its content. */
static void taken_content_comes_with_all_its_anchors(void **state)
{
    enum { ANCHORS = 7 };
    struct box *b = *state;
    static uint8_t seg[SEG_BYTES];
    struct recipe r = {.b = b};
    struct live_anchor a;
    for (unsigned i = 0; i < ANCHORS; i++) {
        memset(seg, (int)i + 1, sizeof seg);
        r.place[i] = fake_store(&b->src, seg);
        const struct live_anchor an = {{b->id[2], i + 1, vid_random()}, 0};
        CHECK(live_point(b->l[1], i, 1, (i + 1) * (uint64_t)SEG_BYTES, place_of, &r, &an, &err));
    }
    CHECK(live_take(b->l[0], b->l[1], LIVE_KEEP, TAKE_OVER, &err));
    for (int pass = 0; pass < 3; pass++) {
        if (pass > 0)
            box_crash(b, pass == 1);
        unsigned n = 0;
        while (live_anchor_at(b->l[0], n, &a, NULL) == 0)
            n++;
        assert_int_equal(n, ANCHORS);
        for (unsigned i = 0; i < ANCHORS; i++)
            expect(b->l[0], i * (uint64_t)SEG_BYTES, SEG_BYTES, (int)i + 1);
    }
}

enum { SEEN_SEGS = 4, SEEN_BYTES = SEEN_SEGS * SEG_BYTES, SEEN_MAX = 24 };
/* What a disk and its pending snapshots show. */
struct seen {
    uint8_t *live, *pending[SEEN_MAX];
    uint64_t size, seq[SEEN_MAX];
    unsigned n;
};

static void seen_free(struct seen *s)
{
    free(s->live);
    for (unsigned i = 0; i < s->n; i++)
        free(s->pending[i]);
}

static struct seen look_at(struct live *l)
{
    struct seen s = {.live = calloc(1, SEEN_BYTES), .size = attr(l).size};
    struct snapinfo p;
    CHECK(live_read(l, 0, s.live, SEEN_BYTES, &err));
    for (; live_pending(l, s.n, &p, NULL) == 0; s.n++) {
        assert_true(s.n < SEEN_MAX);
        s.seq[s.n] = p.ref.seq;
        s.pending[s.n] = calloc(1, SEEN_BYTES);
        CHECK(live_pending_read(l, p.ref.seq, 0, s.pending[s.n], SEEN_BYTES, &err));
    }
    return s;
}

static void expect_live_as(struct live *l, const struct seen *want)
{
    struct seen now = look_at(l);
    assert_int_equal(now.size, want->size);
    assert_memory_equal(now.live, want->live, SEEN_BYTES);
    seen_free(&now);
}

static void expect_pending_as(struct live *l, const struct seen *want)
{
    struct seen now = look_at(l);
    assert_int_equal(now.n, want->n);
    for (unsigned i = 0; i < now.n; i++) {
        assert_int_equal(now.seq[i], want->seq[i]);
        assert_memory_equal(now.pending[i], want->pending[i], SEEN_BYTES);
    }
    seen_free(&now);
}

/* The next crash comes where this one has led. */
static void crash_on(struct box *b, bool trusted)
{
    box_crash(b, trusted);
    memcpy(b->state, b->copy, sizeof b->state);
}

static void change_somehow(struct box *b, struct live *l, unsigned *seed)
{
    struct recipe r;
    struct live_anchor drop[8];
    struct snapinfo p;
    uint64_t off = (uint64_t)rand_r(seed) % (SEEN_BYTES - 300000);
    switch (rand_r(seed) % 8) {
    case 0: CHECK(live_zero(l, off, (uint64_t)rand_r(seed) % 300000, &err)); return;
    case 1: CHECK(live_truncate(l, off, &err)); return;
    case 2: case 3:
        if (attr(l).pending < SEEN_MAX - 1)
            freeze(l);
        return;
    case 4:
        if (live_pending(l, 0, &p, NULL) == 0 && rand_r(seed) % 2 == 0)
            publish(b, l, p.ref.seq, &r, drop);
        return;
    case 5:
        if (live_pending(l, (unsigned)rand_r(seed) % 3, &p, NULL) == 0 && rand_r(seed) % 2 == 0)
            CHECK(live_pending_drop(l, p.ref.seq, &err));
        return;
    default: fake_fill(l, off, (size_t)rand_r(seed) % 300000, rand_r(seed) & 127); return;
    }
}

/* The source has pending snapshots: they stay as they are, whatever is done to the target and whatever crash comes. */
static void taken_content_leaves_the_pending_snapshots_of_its_source(void **state)
{
    enum { TAKES = 24, CHANGES = 9 };
    struct box *b = *state;
    const char *given = getenv("VARVE_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 10) : (unsigned)getpid(), shown = 0;
    print_message("VARVE_SEED=%u\n", seed);
    for (int take = 0; take < TAKES; take++) {
        for (int i = 0; i < CHANGES; i++)
            change_somehow(b, b->l[1], &seed);
        struct seen want = look_at(b->l[1]);
        shown += want.n > 0;
        CHECK(live_take(b->l[0], b->l[1], LIVE_DROP, take % 4 == 3 ? TAKE_COPY : TAKE_OVER, &err));
        if (take % 3 > 0)
            crash_on(b, take % 3 == 1);
        else if (take % 4 != 3)
            CHECK(live_own(b->l[0], b->l[1], &err));
        expect_live_as(b->l[0], &want);
        assert_true(attr(b->l[0]).changed);
        expect_live_as(b->l[1], &want);
        expect_pending_as(b->l[1], &want);
        for (int i = 0; i < CHANGES; i++)
            change_somehow(b, b->l[0], &seed);
        if (take % 2 > 0)
            crash_on(b, true);
        expect_live_as(b->l[1], &want);
        expect_pending_as(b->l[1], &want);
        seen_free(&want);
    }
    assert_true(shown > 0);
}

/* Nobody removes the source after all: from then on each has its own. */
static void both_keep_what_was_taken(void **state)
{
    struct box *b = *state;
    prepare_take(b);
    CHECK(live_take(b->l[0], b->l[1], LIVE_KEEP, TAKE_OVER, &err));
    CHECK(live_own(b->l[0], b->l[1], &err));
    expect_taken(b->l[0]);
    fake_fill(b->l[0], 4 * SEG_BYTES, 10, 9);
    fake_fill(b->l[1], 100, 10, 8);
    CHECK(live_fsync(b->l[0], &err));
    CHECK(live_fsync(b->l[1], &err));
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            box_crash(b, i == 1);
        expect(b->l[0], 4 * SEG_BYTES, 10, 9);
        expect(b->l[1], 100, 10, 8);
        expect(b->l[1], 4 * SEG_BYTES, 10, 4);
        expect(b->l[0], 100, 5000, 3);
    }
}

static void kill_during_a_take_is_before_or_after(void **state)
{
#ifndef VARVE_FAULTS
    (void)state;
    skip();
#else
    struct box *b = *state;
    char keep[96];
    snprintf(keep, sizeof keep, "%s/keep", b->root);
    prepare_take(b);
    CHECK(live_fsync(b->l[1], &err));
    box_close(b);
    copy_tree(b->state, keep);
    for (int after = 0; after < 2; after++) {
        for (int trusted = 0; trusted < 2; trusted++) {
            fake_remove(b->state);
            copy_tree(keep, b->state);
            assert_int_equal(run_child(b, after ? "live.take.after_record:1=kill" : "live.take.before_record:1=kill", "take"), -9);
            box_open(b, b->state, trusted, &cached);
            expect_taken(b->l[1]);
            if (!after) {
                expect(b->l[0], 0, 3 * SEG_BYTES, 1);
            } else {
                expect_taken(b->l[0]);
                fake_fill(b->l[0], 4 * SEG_BYTES, 10, 9);     /* both have it, and each its own */
                fake_fill(b->l[1], 100, 10, 8);
                expect(b->l[1], 4 * SEG_BYTES, 10, 4);
                expect(b->l[0], 100, 5000, 3);
            }
            box_close(b);
        }
    }
    box_open(b, b->state, true, &cached);
#endif
}

/* Nothing is durable between one rewrite and the next, and the files of the earlier ones go all the same. */
static void many_rewrites_leave_few_files(void **state)
{
    enum { REWRITES = 700 };
    struct box *b = *state;
    struct live *l = b->l[0];
    char path[160], hex[VID_HEX];
    struct stat st;
    for (int i = 0; i < REWRITES; i++) {
        fake_fill(l, 0, 10, i & 127);
        CHECK(live_rewrite(l, &err));
    }
    assert_true(count_files(b->state, &b->id[0], "layer-") < REWRITES);
    vid_hex(&b->id[0], hex);
    snprintf(path, sizeof path, "%s/disks/%s/journal", b->state, hex);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 2 << 20);
    fake_fill(l, 0, 10, 7);
    box_crash(b, false);                                /* of what was never synced a power loss leaves nothing */
    assert_int_equal(attr(b->l[0]).size, 0);
    box_crash(b, true);                                 /* what was there when the set was closed */
    expect(b->l[0], 0, 10, 7);
}

static void reader_holds_what_is_pending(void **state)
{
    struct box *b = *state;
    struct live *l = b->l[0];
    struct recipe r;
    struct live_anchor drop[8];
    fake_fill(l, 0, 100, 1);
    uint64_t first = freeze(l).ref.seq;
    fake_fill(l, 0, 100, 2);
    uint64_t second = freeze(l).ref.seq;
    assert_int_equal(live_pending_hold(l, second + 1), -ENOENT);
    CHECK(live_pending_hold(l, first));
    CHECK(live_pending_hold(l, first));
    live_pending_release(l, first);
    assert_true(live_pending_held(l, first));
    assert_false(live_pending_held(l, second));
    publish(b, l, first, &r, drop);
    live_pending_release(l, first);                     /* it is pending no more */
    assert_false(live_pending_held(l, first));
    CHECK(live_pending_hold(l, second));
    live_pending_release(l, second);
    assert_false(live_pending_held(l, second));
}

int main(int argc, char **argv)
{
    if (argc == 4 + N && strcmp(argv[1], "child") == 0)
        return child(argv[2], argv[3], argv + 4);
#define T(name) cmocka_unit_test_setup_teardown(name, box_new, box_free)
    const struct CMUnitTest tests[] = {
        T(frozen_content_stays_while_live_goes_on), T(group_has_one_instant), T(pending_flags_are_journalled),
        T(power_loss_keeps_sealed_and_drops_volatile), T(power_loss_drops_a_volatile_one_behind_a_sealed_one),
        T(fsync_seals_what_was_frozen),
        T(published_segments_are_read_from_the_store), T(published_layer_becomes_cache), T(cache_is_used_for_its_own_place_only),
        T(eviction_starts_with_the_oldest_publication), T(dropped_changes_go_to_the_next),
        T(a_freeze_is_taken_back_while_it_is_stored), T(what_is_stored_goes_to_the_live_image), T(what_is_stored_goes_to_the_next),
        T(nothing_goes_into_what_is_stored),
        T(a_volatile_freeze_is_taken_back), T(a_volatile_freeze_is_taken_back_before_a_kill),
        T(a_sealed_freeze_is_taken_back_before_a_kill), T(a_sealed_freeze_is_taken_back_before_a_power_loss),
        T(a_freeze_before_a_revert_is_not_taken_back), T(dropped_changes_of_the_youngest_go_to_the_live_image),
        T(a_removed_state_is_unkept_until_it_changes), T(a_removed_sealed_state_is_unkept_until_it_changes),
        T(a_change_of_a_removed_state_survives_a_kill), T(a_change_of_a_removed_sealed_state_survives_a_kill),
        T(a_state_is_unkept_only_if_nobody_changed_it), T(revert_changes_pointers_only),
        T(dropped_changes_go_with_the_new_content), T(dropped_changes_go_with_the_taken_content),
        T(what_is_local_needs_no_source),
        T(anchor_relied_on_again_is_not_taken_off), T(point_needs_untouched_segments), T(group_is_never_torn), T(both_keep_what_was_taken),
        T(freeze_waits_for_a_write_to_end),
        T(kill_during_a_drop_is_before_or_after), T(taken_content_is_the_targets_own), T(taken_content_comes_with_all_its_anchors),
        T(taken_content_leaves_the_pending_snapshots_of_its_source), T(kill_during_a_take_is_before_or_after),
        T(many_rewrites_leave_few_files), T(reader_holds_what_is_pending),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
