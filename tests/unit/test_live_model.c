/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations on one disk against a model in memory. Now and then STATE is copied as a kill -9 or a power loss would
 * leave it, also in the middle of an operation (before any of its syncs), opened, and compared:
 *   kill -9     exactly the model before or after the operation
 *   power loss  each page as it was at some moment since the last acknowledged fsync; sealed snapshots exactly, and the live
 *               image exactly as the newest one, if that is sealed and nothing was changed since
 * VARVE_SEED and VARVE_STEPS choose the run. Before it, two certain cases of a power loss; after it, threads write while another
 * freezes.
 */
#include "live_power.h"

#include "base/clock.h"
#include "base/hash.h"

#include <pthread.h>

enum { SEGS = 5, PENDS = 5, STORED = 4, HISTORY = 96 };
#define DISK_MAX ((uint64_t)SEGS * SEG_BYTES)
#define PAGES (SEGS * SEG_PAGES)

struct image { uint64_t size; uint8_t *data; };
struct mpend { struct image img; uint64_t seq; bool sealed, started; struct vid snap; };
struct mstored { struct image img; bool zero[SEGS]; uint64_t place[SEGS]; uint32_t pages[SEGS]; struct vid snap; uint64_t seq; };

static struct {
    char root[64], state[96], copy[96], disk_dir[160];
    struct vid disk;
    struct fake_source src;
    struct live_set *set;
    struct live *l;
    struct image img, other;        /* the model; in the middle of an operation: what it may also be */
    bool in_flight;
    uint64_t leaving;               /* pending snapshot that the operation takes away */
    uint64_t still;                 /* newest snapshot, if nothing was changed since; 0: something was */
    struct mpend pend[PENDS];
    unsigned npend;
    struct mstored stored[STORED];
    unsigned nstored;
    uint64_t history[PAGES][HISTORY];
    uint16_t versions[PAGES];
    uint64_t rng;
    uint32_t marks;
    unsigned long step, cuts, kills;
    unsigned hook_rate;
    bool changing;                  /* a file that is closed to make room is synced in the middle of a change */
    bool checking;
} m;

static struct verr err;

static uint64_t next_random(void)
{
    m.rng += UINT64_C(0x9E3779B97F4A7C15);
    uint64_t z = m.rng;
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static unsigned rnd(unsigned n)
{
    return (unsigned)(next_random() % n);
}

static void image_new(struct image *i)
{
    i->size = 0;
    i->data = calloc(1, DISK_MAX);
    assert_non_null(i->data);
}

static void image_copy(struct image *to, const struct image *from)
{
    to->size = from->size;
    memcpy(to->data, from->data, DISK_MAX);
}

/* ---- history of pages, for power losses ---- */

static void remember(const struct image *i)
{
    for (unsigned p = 0; p < PAGES; p++) {
        uint64_t h = hash64(i->data + p * (size_t)PAGE_BYTES, PAGE_BYTES);
        unsigned n = m.versions[p], k = 0;
        while (k < n && m.history[p][k] != h)
            k++;
        if (k == n && n < HISTORY)
            m.history[p][m.versions[p]++] = h;
    }
}

static void forget_history(void)
{
    memset(m.versions, 0, sizeof m.versions);
    remember(&m.img);
}

static bool known_version(unsigned p, const uint8_t *page)
{
    uint64_t h = hash64(page, PAGE_BYTES);
    if (m.versions[p] == HISTORY)
        return true;
    for (unsigned k = 0; k < m.versions[p]; k++)
        if (m.history[p][k] == h)
            return true;
    return false;
}

/* ---- comparing ---- */

static bool same(struct live *l, const struct image *i, bool report)
{
    static uint8_t buf[SEG_BYTES + 1];
    struct live_attr a;
    CHECK(live_attr(l, &a, &err));
    if (a.size != i->size) {
        if (report)
            fail_msg("step %lu: size %llu, model %llu", m.step, (unsigned long long)a.size, (unsigned long long)i->size);
        return false;
    }
    for (uint64_t off = 0; off < i->size; off += SEG_BYTES) {
        ssize_t got = live_read(l, off, buf, SEG_BYTES, &err);
        CHECK(got);
        size_t want = i->size - off < SEG_BYTES ? (size_t)(i->size - off) : SEG_BYTES;
        assert_int_equal(got, want);
        if (memcmp(buf, i->data + off, want) != 0) {
            size_t k = 0;
            while (buf[k] == i->data[off + k])
                k++;
            if (report)
                fail_msg("step %lu: byte %llu differs", m.step, (unsigned long long)(off + k));
            return false;
        }
    }
    return true;
}

static void same_pending(struct live *l, const struct mpend *p)
{
    static uint8_t buf[SEG_BYTES];
    struct snapinfo q;
    CHECK(live_pending_by_seq(l, p->seq, &q, &err));
    assert_int_equal(q.size, p->img.size);
    assert_true(vid_eq(&q.ref.snap, &p->snap));
    for (uint64_t off = 0; off < q.size; off += SEG_BYTES) {
        ssize_t got = live_pending_read(l, p->seq, off, buf, SEG_BYTES, &err);
        CHECK(got);
        if (memcmp(buf, p->img.data + off, (size_t)got) != 0)
            fail_msg("step %lu: snapshot %llu differs at segment %llu", m.step, (unsigned long long)p->seq,
                     (unsigned long long)(off >> SEG_SHIFT));
    }
}

/* What is beyond the size must be zero: seen by extending. Only on copies. */
static void zero_behind(struct live *l)
{
    static uint8_t buf[SEG_BYTES];
    struct live_attr a;
    CHECK(live_attr(l, &a, &err));
    uint64_t end = DISK_MAX + 2 * SEG_BYTES;
    CHECK(live_truncate(l, end, &err));
    for (uint64_t off = a.size; off < end;) {
        size_t n = SEG_BYTES - (off & (SEG_BYTES - 1));
        ssize_t got = live_read(l, off, buf, n, &err);
        CHECK(got);
        if (got > 0 && (buf[0] != 0 || memcmp(buf, buf + 1, (size_t)got - 1) != 0))
            fail_msg("step %lu: data behind the end at %llu", m.step, (unsigned long long)off);
        off += n;
    }
}

static struct live *open_copy(struct live_set **set, bool trusted)
{
    struct live *l = NULL;
    const struct live_env env = {.open_max = 2, .cache_limit = 64 << 20, .layer_limit = trusted ? 0 : 1};
    *set = open_set(m.copy, &m.src, trusted, &env);
    int r = live_get(*set, &m.disk, &l, &err);
    if (r < 0)
        fail_msg("step %lu: %s copy does not open: %s", m.step, trusted ? "kill" : "power loss", verr_str(&err));
    return l;
}

/* Each page is what it was at some time. */
static void pages_known(struct live *l)
{
    static uint8_t buf[SEG_BYTES];
    struct live_attr a;
    CHECK(live_attr(l, &a, &err));
    for (uint64_t off = 0; off < a.size; off += SEG_BYTES) {
        ssize_t got = live_read(l, off, buf, SEG_BYTES, &err);
        CHECK(got);
        for (unsigned p = 0; (p + 1) * (ssize_t)PAGE_BYTES <= got; p++)
            if (!known_version((unsigned)(off / PAGE_BYTES) + p, buf + p * (size_t)PAGE_BYTES))
                fail_msg("step %lu: page %u of segment %llu was never so", m.step, p, (unsigned long long)(off >> SEG_SHIFT));
    }
}

static void check_kill(void)
{
    fake_remove(m.copy);
    copy_tree(m.state, m.copy);
    struct live_set *set;
    struct live *l = open_copy(&set, true);
    if (m.changing)
        pages_known(l);
    else if (!m.in_flight || !same(l, &m.other, false))
        same(l, &m.img, true);
    for (unsigned i = 0; i < m.npend; i++)
        if (m.pend[i].seq != m.leaving)
            same_pending(l, &m.pend[i]);
    zero_behind(l);
    live_put(l);
    CHECK(live_set_close(set, &err));
    m.kills++;
}

/* A snapshot that is pending after a power loss has all of its data, sealed before or not. */
static void whole_or_gone(struct live *l)
{
    struct snapinfo q;
    for (unsigned i = 0; live_pending(l, i, &q, NULL) == 0; i++) {
        unsigned k = 0;
        while (k < m.npend && m.pend[k].seq != q.ref.seq)
            k++;
        if (k == m.npend)
            fail_msg("step %lu: snapshot %llu is pending again", m.step, (unsigned long long)q.ref.seq);
        same_pending(l, &m.pend[k]);
    }
}

/* Is it durable that the live image is what it is? */
static bool still_sealed(void)
{
    for (unsigned i = 0; i < m.npend; i++)
        if (m.pend[i].seq == m.still)
            return m.pend[i].sealed;
    return m.still != 0;            /* published */
}

static void check_power(void)
{
    static const unsigned rates[] = {0, 100, 500, 900, 1000};
    char dir[192];
    fake_remove(m.copy);
    snprintf(dir, sizeof dir, "%s/disks", m.copy);
    assert_int_equal(mkdir(m.copy, 0700), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    snprintf(dir, sizeof dir, "%s%s", m.copy, m.disk_dir + strlen(m.state));
    assert_int_equal(mkdir(dir, 0700), 0);
    power_cut(dir, rates[rnd(5)], rnd);
    if (getenv("VARVE_KEEP") != NULL) {
        fake_remove(getenv("VARVE_KEEP"));
        copy_tree(m.copy, getenv("VARVE_KEEP"));
    }
    struct live_set *set;
    struct live *l = open_copy(&set, false);
    for (unsigned i = 0; i < m.npend; i++)
        if (m.pend[i].sealed && m.pend[i].seq != m.leaving)
            same_pending(l, &m.pend[i]);
    whole_or_gone(l);
    pages_known(l);
    if (still_sealed())
        same(l, &m.img, true);
    zero_behind(l);
    live_put(l);
    CHECK(live_set_close(set, &err));
    m.cuts++;
}

/* Before a sync takes effect. */
static void hook(void)
{
    /* Files are closed, and synced before, while something is only looked at, too: the buffers of that are in use. */
    if (m.checking || (!m.in_flight && !m.changing) || m.hook_rate == 0 || rnd(m.hook_rate) != 0)
        return;
    m.checking = true;
    power.on = false;
    if (rnd(3) == 0)
        check_kill();
    else
        check_power();
    power.on = true;
    m.checking = false;
}

static void begin_op(void)
{
    image_copy(&m.other, &m.img);
    m.in_flight = true;
    m.leaving = 0;
}

static void end_op(void)
{
    m.in_flight = false;
    m.leaving = 0;
}

/* ---- operations ---- */

static uint64_t some_offset(void)
{
    uint64_t off = next_random() % DISK_MAX;
    switch (rnd(4)) {
    case 0: return off / PAGE_BYTES * PAGE_BYTES;
    case 1: return off / SEG_BYTES * SEG_BYTES;
    default: return off;
    }
}

static size_t some_length(uint64_t off, size_t most)
{
    size_t n = 1 + rnd(rnd(3) == 0 ? (unsigned)most : 20000);
    if (rnd(3) == 0)
        n = (n + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    return off + n > DISK_MAX ? (size_t)(DISK_MAX - off) : n;
}

/* As a filesystem does: what can be had without STORE at once, the rest with it. */
static int write_somehow(struct live *l, uint64_t off, const void *buf, size_t n, struct verr *e)
{
    int r = live_write_within(l, off, buf, n, REACH_LOCAL, e);
    return r == -EAGAIN ? live_write(l, off, buf, n, e) : r;
}

static ssize_t read_somehow(struct live *l, uint64_t off, void *buf, size_t n, struct verr *e)
{
    ssize_t r = live_read_within(l, off, buf, n, REACH_LOCAL, e);
    return r == -EAGAIN ? live_read(l, off, buf, n, e) : r;
}

static void op_write(void)
{
    m.still = 0;
    static uint8_t buf[3 * SEG_BYTES];
    uint64_t off = some_offset();
    size_t n = some_length(off, rnd(8) == 0 ? 2 * SEG_BYTES : 300000);
    uint64_t word = rnd(10) == 0 ? 0 : next_random();
    for (size_t i = 0; i < n; i += 8, word *= 3) {
        size_t k = n - i < 8 ? n - i : 8;
        memcpy(buf + i, &word, k);
    }
    memcpy(m.img.data + off, buf, n);
    if (off + n > m.img.size)
        m.img.size = off + n;
    remember(&m.img);
    m.changing = true;
    CHECK(write_somehow(m.l, off, buf, n, &err));
    m.changing = false;
}

static void op_truncate(void)
{
    uint64_t size = rnd(12) == 0 ? 0 : some_offset();
    m.still = 0;
    if (size < m.img.size)
        memset(m.img.data + size, 0, m.img.size - size);
    m.img.size = size;
    remember(&m.img);
    m.changing = true;
    CHECK(live_truncate(m.l, size, &err));
    m.changing = false;
}

static void op_zero(void)
{
    uint64_t off = some_offset();
    size_t n = some_length(off, 3 * SEG_BYTES);
    uint64_t end = off + n < m.img.size ? off + n : m.img.size;
    if (off < end)
        memset(m.img.data + off, 0, end - off);
    m.still = 0;
    remember(&m.img);
    m.changing = true;
    CHECK(live_zero(m.l, off, n, &err));
    m.changing = false;
}

static void op_read(void)
{
    static uint8_t buf[3 * SEG_BYTES];
    uint64_t off = some_offset();
    size_t n = some_length(off, 2 * SEG_BYTES), want = off >= m.img.size ? 0 : m.img.size - off < n ? (size_t)(m.img.size - off) : n;
    ssize_t got = read_somehow(m.l, off, buf, n, &err);
    CHECK(got);
    assert_int_equal(got, want);
    assert_memory_equal(buf, m.img.data + off, want);
}

/* Data and holes must cover the image; what is called a hole must read zero. */
static void check_seek(void)
{
    uint64_t off = 0;
    while (off < m.img.size) {
        off_t data = live_seek(m.l, off, false, &err);
        if (data == -ENXIO)
            data = (off_t)m.img.size;
        CHECK(data);
        for (uint64_t k = off; k < (uint64_t)data; k++)
            if (m.img.data[k] != 0)
                fail_msg("step %lu: hole with data at %llu", m.step, (unsigned long long)k);
        if ((uint64_t)data == m.img.size)
            break;
        off_t hole = live_seek(m.l, (uint64_t)data, true, &err);
        CHECK(hole);
        assert_true(hole > data);
        off = (uint64_t)hole;
    }
    assert_int_equal(live_seek(m.l, m.img.size, false, &err), -ENXIO);
}

static void op_freeze(void)
{
    if (m.npend == PENDS)
        return;
    struct snapinfo p;
    const struct freeze_req req = {.flags = rnd(2) ? SNAP_EXPLICIT : 0, .label = rnd(3) ? NULL : "some-label"};
    begin_op();
    CHECK(live_freeze(&m.l, 1, &req, &p, &err));
    end_op();
    assert_int_equal(p.size, m.img.size);
    struct mpend *q = &m.pend[m.npend++];
    image_copy(&q->img, &m.img);
    q->seq = p.ref.seq;
    q->snap = p.ref.snap;
    q->sealed = q->started = false;
    m.still = q->seq;
    struct live_attr a;
    CHECK(live_attr(m.l, &a, &err));
    assert_false(a.changed);
    assert_int_equal(a.dirty_segments, 0);
}

static void all_sealed(uint64_t up_to)
{
    for (unsigned i = 0; i < m.npend; i++)
        if (m.pend[i].seq <= up_to)
            m.pend[i].sealed = true;
}

static void op_fsync(void)
{
    begin_op();
    CHECK(live_fsync(m.l, &err));
    end_op();
    all_sealed(UINT64_MAX);
    forget_history();
}

static void op_seal(void)
{
    if (m.npend == 0)
        return;
    struct mpend *p = &m.pend[rnd(m.npend)];
    begin_op();
    CHECK(live_pending_seal(m.l, p->seq, &err));
    end_op();
    all_sealed(p->seq);
}

static void forget_pending(unsigned i)
{
    struct mpend gone = m.pend[i];
    memmove(&m.pend[i], &m.pend[i + 1], (m.npend - i - 1) * sizeof gone);
    m.pend[--m.npend] = gone;       /* keeps its buffer */
}

static int place_of(void *ctx, uint64_t seg, bool *zero, uint64_t *place, uint32_t *pages, struct verr *e)
{
    (void)e;
    const struct mstored *s = ctx;
    if (seg >= seg_count(s->img.size)) {
        *zero = true;
        return 0;
    }
    *zero = s->zero[seg];
    *place = s->place[seg];
    *pages = s->pages[seg];
    return 0;
}

static void place_segment(struct mstored *s, uint64_t seg, const uint8_t *bytes)
{
    s->zero[seg] = fake_count(bytes) == 0;
    s->place[seg] = s->zero[seg] ? 0 : fake_store(&m.src, bytes);
    s->pages[seg] = rnd(4) == 0 ? UINT32_MAX : fake_count(bytes);
}

/* As stage 4b would: dirty segments get new places, clean ones keep the table's. */
static void op_publish(void)
{
    if (m.npend == 0)
        return;
    struct mpend *p = &m.pend[0];
    if (!p->sealed && rnd(2) == 0) {
        CHECK(live_pending_seal(m.l, p->seq, &err));
        p->sealed = true;
    }
    CHECK(live_pending_update(m.l, p->seq, SNAP_STARTED, 0, NULL, &err));
    struct mstored *s = &m.stored[m.nstored < STORED ? m.nstored : rnd(STORED)];
    if (m.nstored < STORED)
        m.nstored++;
    image_copy(&s->img, &p->img);
    s->snap = p->snap;
    s->seq = p->seq;
    for (uint64_t seg = 0; seg < seg_count(p->img.size); seg++) {
        struct seg_entry slice[PEND_ENTRIES];
        CHECK(live_pending_entries(m.l, p->seq, seg, slice, &err));
        const struct seg_entry e = slice[seg % PEND_ENTRIES];
        const uint8_t *bytes = p->img.data + seg * SEG_BYTES;
        if (e.dirty) {
            place_segment(s, seg, bytes);
            continue;
        }
        assert_int_not_equal(e.kind, SEGK_FROZEN);
        s->zero[seg] = e.kind == SEGK_ZERO;
        s->place[seg] = e.place;
        s->pages[seg] = fake_count(bytes);
        if (e.kind == SEGK_ZERO)
            assert_int_equal(fake_count(bytes), 0);
        else
            assert_memory_equal(fake_seg(&m.src, e.place, &err), bytes, SEG_BYTES);
    }
    const struct live_anchor mine = {{m.disk, p->seq, p->snap}, p->seq + 1};
    struct live_anchor drop[64];
    unsigned dropped = 0;
    begin_op();
    m.leaving = p->seq;
    CHECK(live_pending_published(m.l, p->seq, place_of, s, &mine, drop, 64, &dropped, &err));
    end_op();
    for (unsigned i = 0; i < dropped; i++)
        CHECK(live_anchor_gone(m.l, &drop[i], &err));
    assert_int_equal(live_pending_read(m.l, p->seq, 0, drop, 1, &err), -ESTALE);
    forget_pending(0);
}

static void op_drop(void)
{
    if (m.npend == 0)
        return;
    unsigned i = rnd(m.npend);
    m.still = 0;
    begin_op();
    m.leaving = m.pend[i].seq;
    CHECK((rnd(2) == 0 ? live_pending_drop : live_pending_remove)(m.l, m.pend[i].seq, &err));
    end_op();
    forget_pending(i);
}

static void op_rewrite(void)
{
    op_freeze();
    if (m.npend == PENDS)
        return;
    m.still = 0;
    begin_op();
    memset(m.img.data, 0, DISK_MAX);
    m.img.size = 0;
    remember(&m.img);
    CHECK(live_rewrite(m.l, &err));
    end_op();
    struct live_attr a;
    CHECK(live_attr(m.l, &a, &err));
    assert_int_equal(a.marks, LIVE_REWRITING);
    assert_int_equal(a.alloc_bytes, 0);
    CHECK(live_set_marks(m.l, 0, LIVE_REWRITING, &err));
}

static void op_revert(void)
{
    if (m.nstored == 0 || m.npend == PENDS)
        return;
    op_freeze();
    struct mstored *s = &m.stored[rnd(m.nstored)];
    const struct live_anchor a = {{m.disk, s->seq, s->snap}, 0};
    uint64_t alloc = 0;
    for (unsigned i = 0; i < SEGS; i++)
        alloc += fake_count(s->img.data + i * (size_t)SEG_BYTES) * (uint64_t)PAGE_BYTES;
    m.still = 0;
    begin_op();
    image_copy(&m.img, &s->img);
    remember(&m.img);
    CHECK(live_revert(m.l, &(struct live_target){s->img.size, alloc, place_of, s, &a}, LIVE_KEEP, &err));
    end_op();
    forget_history();
}

static void op_point(void)
{
    if (m.nstored == 0)
        return;
    struct mstored *s = &m.stored[rnd(m.nstored)];
    uint64_t segs = seg_count(s->img.size);
    if (segs == 0)
        return;
    uint64_t first = rnd((unsigned)segs), count = 1 + rnd((unsigned)(segs - first)), end = (first + count) * SEG_BYTES;
    uint64_t size = end < s->img.size ? end : s->img.size;
    if (size < m.img.size && size % SEG_BYTES != 0)
        return;                     /* only at the end of the file may a segment be short */
    bool pure = true;
    for (uint64_t seg = first; seg < first + count; seg++) {
        struct seg_entry e;
        int r = live_segment_pure(m.l, seg, &e, &err);
        CHECK(r);
        pure = pure && (r == 1 || e.kind == SEGK_FROZEN);
        if (r == 0 && e.kind != SEGK_FROZEN)
            pure = false;
    }
    const struct live_anchor a = {{m.disk, s->seq, s->snap}, 0};
    m.still = 0;
    begin_op();
    struct image after = {.data = malloc(DISK_MAX)};
    assert_non_null(after.data);
    image_copy(&after, &m.img);
    memcpy(after.data + first * SEG_BYTES, s->img.data + first * SEG_BYTES, count * SEG_BYTES);
    if (size > after.size)
        after.size = size;
    remember(&after);
    int r = live_point(m.l, first, count, size, place_of, s, &a, &err);
    if (r == -EOPNOTSUPP) {
        free(after.data);
    } else {
        CHECK(r);
        assert_true(pure);
        free(m.img.data);
        m.img = after;
    }
    end_op();
}

static void open_main(bool trusted)
{
    const struct live_env env = {.open_max = 2, .cache_limit = rnd(2) ? 8 << 20 : rnd(2) ? 64 << 20 : 0};
    m.set = open_set(m.state, &m.src, trusted, &env);
    CHECK(live_get(m.set, &m.disk, &m.l, &err));
}

static void op_reopen(void)
{
    begin_op();
    live_put(m.l);
    CHECK(live_set_close(m.set, &err));     /* syncs */
    all_sealed(UINT64_MAX);
    forget_history();
    open_main(rnd(3) != 0);
    end_op();
    same(m.l, &m.img, true);
    for (unsigned i = 0; i < m.npend; i++)
        same_pending(m.l, &m.pend[i]);
}

static void op_check(void)
{
    same(m.l, &m.img, true);
    for (unsigned i = 0; i < m.npend; i++)
        same_pending(m.l, &m.pend[i]);
    check_seek();
    m.checking = true;
    power.on = false;
    check_kill();
    check_power();
    power.on = true;
    m.checking = false;
}

static void op_small(void)
{
    struct live_attr a;
    CHECK(live_attr(m.l, &a, &err));
    uint64_t pages = 0;
    for (unsigned i = 0; i < SEGS; i++)
        pages += fake_count(m.img.data + i * (size_t)SEG_BYTES);
    if (pages > 0)
        assert_true(a.alloc_bytes > 0);
    assert_int_equal(a.pending, m.npend);
    assert_int_equal(live_has_data(m.l, &err), pages > 0);
    CHECK(live_set_mtime(m.l, (int64_t)rnd(1000000), &err));
    CHECK(live_set_evict(m.set, &err));
}

static void one_step(void)
{
    static void (*const ops[])(void) = {
        op_write, op_write, op_write, op_write, op_write, op_write, op_write, op_write, op_write, op_write, op_write, op_write,
        op_truncate, op_zero, op_zero, op_read, op_read, op_freeze, op_freeze, op_freeze, op_fsync, op_fsync, op_seal, op_publish,
        op_publish, op_publish, op_drop, op_drop, op_rewrite, op_revert, op_point, op_point, op_point, op_reopen, op_check, op_small,
    };
    unsigned k = rnd(sizeof ops / sizeof ops[0]);
    if (getenv("VARVE_TRACE") != NULL)
        fprintf(stderr, "%lu: op %u size %llu pend %u\n", m.step, k, (unsigned long long)m.img.size, m.npend);
    ops[k]();
}

static void set_up(void)
{
    char hex[VID_HEX], shadow[160];
    fake_dir(m.root);
    snprintf(m.state, sizeof m.state, "%s/state", m.root);
    snprintf(m.copy, sizeof m.copy, "%s/copy", m.root);
    snprintf(shadow, sizeof shadow, "%s/shadow", m.root);
    assert_int_equal(mkdir(m.state, 0700), 0);
    assert_int_equal(mkdir(shadow, 0700), 0);
    m.disk = vid_random();
    vid_hex(&m.disk, hex);
    snprintf(m.disk_dir, sizeof m.disk_dir, "%s/disks/%s", m.state, hex);
    image_new(&m.img);
    image_new(&m.other);
    for (unsigned i = 0; i < PENDS; i++)
        image_new(&m.pend[i].img);
    for (unsigned i = 0; i < STORED; i++)
        image_new(&m.stored[i].img);
    const struct live_env env = {.open_max = 2, .cache_limit = 8 << 20};
    m.set = open_set(m.state, &m.src, true, &env);
    CHECK(live_create(m.set, &m.disk, 1, 0, &m.l, &err));
    CHECK(live_set_marks(m.l, 0, LIVE_UNNAMED, &err));
    power_watch(m.disk_dir, shadow);
    power.hook = hook;
    forget_history();
}

static void tear_down(void)
{
    power.on = false;
    live_put(m.l);
    CHECK(live_set_close(m.set, &err));
    free(m.img.data);
    free(m.other.data);
    for (unsigned i = 0; i < PENDS; i++)
        free(m.pend[i].img.data);
    for (unsigned i = 0; i < STORED; i++)
        free(m.stored[i].img.data);
    fake_free(&m.src);
    fake_remove(m.root);
}

/* ---- presence never gets ahead of data ---- */

/* What a disk holds that writes the map at once and everything else only when it must. */
static void cut_with_map(const char *to)
{
    static struct power_entry now[POWER_ENTRIES];
    int n = power_list(power.dir, now);
    for (int i = 0; i < n; i++) {
        char path[sizeof power.dir + sizeof now[i].name];
        size_t len = strlen(now[i].name);
        bool map = len > 4 && strcmp(now[i].name + len - 4, ".map") == 0;
        snprintf(path, sizeof path, "%s/%.*s", power.dir, (int)sizeof now[i].name - 1, now[i].name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        power_write(to, now[i].name, now[i].file, fd, map ? 1000 : 0, rnd);
        close(fd);
    }
}

static void cut_before_a_sync(void)
{
    static uint8_t buf[SEG_BYTES];
    char dir[192];
    if (m.checking)
        return;
    m.checking = true;
    power.on = false;
    fake_remove(m.copy);
    snprintf(dir, sizeof dir, "%s/disks", m.copy);
    assert_true(mkdir(m.copy, 0700) == 0 && mkdir(dir, 0700) == 0);
    snprintf(dir, sizeof dir, "%s%s", m.copy, m.disk_dir + strlen(m.state));
    assert_int_equal(mkdir(dir, 0700), 0);
    cut_with_map(dir);
    struct live_set *set;
    struct live *l = open_copy(&set, false);
    assert_int_equal(live_read(l, 0, buf, SEG_BYTES, &err), SEG_BYTES);
    for (size_t i = 0; i < SEG_BYTES; i += PAGE_BYTES)
        if (buf[i] != 1 && buf[i] != 2)
            fail_msg("sync %lu: page %zu is %u: neither old nor new", m.cuts, i / PAGE_BYTES, buf[i]);
    live_put(l);
    CHECK(live_set_close(set, &err));
    power.on = true;
    m.checking = false;
    m.cuts++;
}

static void power_loss_in_an_fsync_shows_old_or_new(void **state)
{
    (void)state;
    static uint8_t data[SEG_BYTES];
    const struct freeze_req req = {0};
    struct snapinfo p;
    m.rng = 1;
    set_up();
    power.hook = NULL;
    memset(data, 1, sizeof data);
    CHECK(live_write(m.l, 0, data, sizeof data, &err));
    CHECK(live_freeze(&m.l, 1, &req, &p, &err));        /* what follows goes to a layer that has nothing yet */
    CHECK(live_fsync(m.l, &err));
    memset(data, 2, sizeof data);
    CHECK(live_write(m.l, 10 * PAGE_BYTES, data, 100 * PAGE_BYTES, &err));
    power.hook = cut_before_a_sync;
    m.cuts = 0;
    CHECK(live_fsync(m.l, &err));
    assert_true(m.cuts >= 3);                           /* table, layer, map */
    cut_before_a_sync();
    tear_down();
    m.cuts = 0;
}

/* ---- a snapshot that is durable makes the live image durable that equals it ---- */

static void resize(uint64_t size, uint8_t fill)
{
    uint64_t old = m.img.size;
    m.still = 0;
    if (size > old) {
        memset(m.img.data + old, fill, size - old);
        CHECK(live_write(m.l, old, m.img.data + old, size - old, &err));
    } else {
        memset(m.img.data + size, 0, old - size);
        CHECK(live_truncate(m.l, size, &err));
    }
    m.img.size = size;
    remember(&m.img);
}

static void unwritten_live_image_is_the_sealed_snapshot(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {3 * SEG_BYTES, SEG_BYTES + 5000, 2 * SEG_BYTES + 1, 4096, 4 * SEG_BYTES, 3 * SEG_BYTES, 70000};
    m.rng = 1;
    m.step = 0;
    set_up();
    power.hook = NULL;
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++, m.step++) {
        resize(sizes[i], (uint8_t)(i + 1));
        op_freeze();
        if (i % 2 == 0)
            op_seal();
        else
            op_publish();
        while (i % 2 == 1 && m.npend > 0)
            op_publish();
        power.on = false;
        for (unsigned k = 0; k < 12; k++)
            check_power();
        power.on = true;
    }
    tear_down();
    m.npend = m.nstored = 0;
    m.still = m.cuts = 0;
}

static unsigned long env_number(const char *name, unsigned long otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? strtoul(text, NULL, 0) : otherwise;
}

/* The entries of a publication are durable before its head: a power loss between them leaves the older head, and its size. */
static void nothing_shows_behind_the_end_of_an_older_head(void **state)
{
    (void)state;
    m.rng = 1;
    set_up();
    for (m.step = 0; m.step < 12; m.step++) {
        m.hook_rate = 0;
        resize(SEG_BYTES / 2 + 100, 1);
        op_freeze();
        op_fsync();
        resize(0, 0);
        resize(3 * SEG_BYTES - 200, 2);
        op_freeze();
        resize(SEG_BYTES + 300, 3);
        op_publish();
        resize(4 * SEG_BYTES, 4);
        m.hook_rate = 1;
        m.cuts = 0;
        op_publish();
        assert_true(m.cuts + m.kills > 0);
    }
    tear_down();
}

static void random_operations_agree_with_the_model(void **state)
{
    (void)state;
    unsigned long steps = env_number("VARVE_STEPS", 0), seed;
    random_bytes(&seed, sizeof seed);
    seed = env_number("VARVE_SEED", seed % 1000000);
    m.rng = seed;
    m.hook_rate = 12;
    print_message("VARVE_SEED=%lu\n", seed);
    set_up();
    int64_t until = vclock_mono_ns(&vclock_system) + INT64_C(10) * 1000000000;
    for (m.step = 0; steps > 0 ? m.step < steps : vclock_mono_ns(&vclock_system) < until; m.step++)
        one_step();
    op_check();
    print_message("%lu steps, %lu kills, %lu power losses\n", m.step, m.kills, m.cuts);
    tear_down();
}

/* ---- threads ---- */

enum { WRITERS = 4, AREA = 3 * SEG_BYTES / 2, ROUNDS = 150, PUBLISHED = 6, PLACES = 64 };
static struct live *shared;
static struct fake_source shared_src;
static int stop_freezing;

/* Writes only inside its own area; every page begins with its own number and a counter that only grows. */
static void *writer(void *arg)
{
    uint64_t me = (uint64_t)(uintptr_t)arg, seed = me * 7919 + 1;
    uint64_t page[PAGE_BYTES / 8], back[PAGE_BYTES / 8];
    for (uint64_t i = 0; i < ROUNDS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint64_t at = me * AREA + (seed >> 33) % (AREA / PAGE_BYTES) * PAGE_BYTES;
        for (unsigned k = 0; k < PAGE_BYTES / 8; k++)
            page[k] = at ^ i;
        struct verr e = {0};
        if (write_somehow(shared, at, page, sizeof page, &e) < 0 || read_somehow(shared, at, back, sizeof back, &e) != (ssize_t)sizeof back ||
            memcmp(page, back, sizeof page) != 0)
            return (void *)1;
    }
    return NULL;
}

static int place_frozen(void *seq, uint64_t seg, bool *zero, uint64_t *place, uint32_t *pages, struct verr *e)
{
    uint8_t *bytes = calloc(1, SEG_BYTES);
    ssize_t got = bytes == NULL ? -ENOMEM : live_pending_read(shared, *(uint64_t *)seq, seg << SEG_SHIFT, bytes, SEG_BYTES, e);
    if (got >= 0) {
        *zero = false;
        *place = fake_store(&shared_src, bytes);
        *pages = fake_count(bytes);
    }
    free(bytes);
    return got < 0 ? (int)got : 0;
}

static int publish_frozen(uint64_t seq, struct verr *e)
{
    unsigned dropped = 0;
    struct live_anchor drop[4];
    return live_pending_published(shared, seq, place_frozen, &seq, NULL, drop, 4, &dropped, e);
}

static void *freezer(void *arg)
{
    int published = 0;
    (void)arg;
    while (!__atomic_load_n(&stop_freezing, __ATOMIC_SEQ_CST)) {
        struct snapinfo p, q;
        struct verr e = {0};
        const struct freeze_req req = {0};
        if (live_freeze(&shared, 1, &req, &p, &e) < 0 || live_freeze(&shared, 1, &req, &q, &e) < 0)
            return (void *)1;
        /* A frozen page never changes and is never torn. */
        for (uint64_t at = 0; at < p.size; at += 64 * PAGE_BYTES) {
            uint64_t a[PAGE_BYTES / 8], b[PAGE_BYTES / 8];
            if (live_pending_read(shared, p.ref.seq, at, a, sizeof a, &e) < 0 ||
                live_pending_read(shared, p.ref.seq, at, b, sizeof b, &e) < 0 ||
                memcmp(a, b, sizeof a) != 0 || memcmp(a, a + 1, sizeof a - 8) != 0)
                return (void *)1;
        }
        if (live_fsync(shared, &e) < 0)
            return (void *)1;
        if ((published++ < PUBLISHED ? publish_frozen(p.ref.seq, &e) : live_pending_drop(shared, p.ref.seq, &e)) < 0)
            return (void *)1;
        struct live_attr a;
        if (live_pending_drop(shared, q.ref.seq, &e) < 0 || live_attr(shared, &a, &e) < 0 || live_set_mtime(shared, 5, &e) < 0)
            return (void *)1;
        usleep(1000);               /* the freeze lock prefers writers: let the others write */
    }
    return NULL;
}

static void threads_write_while_one_freezes(void **state)
{
    (void)state;
    char root[64];
    struct vid disk = vid_random();
    const struct live_env env = {.open_max = 2, .cache_limit = 4 << 20};
    fake_dir(root);
    shared_src = (struct fake_source){.seg = calloc(PLACES, sizeof(uint8_t *)), .cap = PLACES};     /* never moves */
    assert_non_null(shared_src.seg);
    struct live_set *set = open_set(root, &shared_src, true, &env);
    CHECK(live_create(set, &disk, 1, 0, &shared, &err));
    CHECK(live_truncate(shared, WRITERS * (uint64_t)AREA, &err));
    pthread_t t[WRITERS + 1];
    stop_freezing = 0;
    assert_int_equal(pthread_create(&t[WRITERS], NULL, freezer, NULL), 0);
    for (uintptr_t i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, writer, (void *)i), 0);
    for (unsigned i = 0; i <= WRITERS; i++) {
        void *bad = NULL;
        if (i == WRITERS)
            __atomic_store_n(&stop_freezing, 1, __ATOMIC_SEQ_CST);
        assert_int_equal(pthread_join(t[i], &bad), 0);
        assert_null(bad);
    }
    live_put(shared);
    CHECK(live_set_close(set, &err));
    fake_free(&shared_src);
    fake_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_loss_in_an_fsync_shows_old_or_new),
        cmocka_unit_test(unwritten_live_image_is_the_sealed_snapshot),
        cmocka_unit_test(nothing_shows_behind_the_end_of_an_older_head),
        cmocka_unit_test(random_operations_agree_with_the_model),
        cmocka_unit_test(threads_write_while_one_freezes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
