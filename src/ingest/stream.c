/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream: most of the data that a backup writes are in the parent already. So a stream keeps each segment in memory until it is whole,
 * and compares its keyed digest with that of the parent's segment. An equal segment becomes a pointer and never touches the layer; any
 * other segment is written to the layer in one piece.
 *
 *   FUSE thread   copies into the segment's buffer; a full one goes to the pool           (stream_write, hand_over)
 *   pool          compares; an equal one: anchors the parent, once; else: live_write_held (compare_task)
 *   hold lock     equal segments become entries, in batches, by live_point_held           (point_runs)
 *
 * Order: the anchor is durable in STORE before the stream gives up the first equal buffer, and pinned while the stream exists, so nobody
 * takes it away before there are entries; size and anchor are durable in the journal before any entry (live_point). Data that a stream
 * holds back were never fsynced: a killed daemon loses them, as a crashed kernel loses pages that it has not written back. Other readers
 * and writers of the disk first make the stream put its data into the image (live_hold.c), so they cannot tell that data were held back.
 *
 * Memory: STREAM_BUFFERS segments a stream. When `ingest` has no room for another stream, a handle writes to the layer directly.
 */
#include "ingest/ingest.h"

#include "base/pool.h"
#include "base/verr.h"
#include "level/level.h"
#include "store/snaps.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    STREAM_BUFFERS = 3, RUNS_MAX = 64,
    SPARSE_MAX = 64,
    POINT_SEGS = 256,           /* at most 512 MiB of equal segments wait for their entries in the live image */
    WORDS = SEG_PAGES / 64,
};

struct ingest {
    struct ingest_env env;
    _Atomic unsigned room;      /* how many more streams there may be */
};

enum outcome { OUT_WRITTEN, OUT_EQUAL, OUT_THERE, OUT_LOST };

struct segbuf {
    struct pool_task task;      /* first */
    struct stream *s;
    uint64_t seg;
    uint32_t fill;              /* bytes from its start that are filled in: written, or zero where the live image has nothing */
    bool fresh;                 /* the live image has nothing there: gaps are zero. Else the comparison ends at the first gap */
    uint32_t want;              /* bytes of the whole segment, once handed over */
    uint64_t written[WORDS];    /* a bit for each page into which something was written */
    uint8_t *data;
    struct level *level;
    enum outcome came_to;
    struct verr why;
};

struct run { uint64_t first, count; };

struct stream {
    struct live_holder holder;  /* first */
    struct ingest *in;
    const struct ingest_env *env;
    struct live *l;
    struct snap *parent;
    struct live_anchor anchor;  /* live_point sets its stamp */
    struct snaps_pin pin;
    void (*lost)(void *ctx, uint64_t off, uint64_t len);
    void *ctx;

    pthread_mutex_t lock;       /* guards anchored; not held while STORE is written */
    pthread_cond_t tried;
    enum anchored { ANCHOR_UNTRIED, ANCHOR_UNDER_WAY, ANCHOR_DURABLE, ANCHOR_FAILED } anchored;     /* the parent's anchor */

    /* guarded by the hold lock */
    struct segbuf buf[STREAM_BUFFERS];
    unsigned first, busy;       /* handed over, oldest first */
    struct segbuf *cur;         /* being filled: the buffer behind the busy ones */
    uint64_t next;              /* segments below it have been handed over or skipped */
    struct run runs[RUNS_MAX];  /* equal segments without entries yet */
    unsigned nruns;
    uint64_t equal;             /* segments in `runs` */
    unsigned sparse;            /* how many of the last segments, without a break, were mostly unwritten */
    struct verr failed;         /* code != 0: data that were taken are lost; every call says so until the stream is closed */
};

/* ---- on the pool ---- */

/* Makes the anchor durable, once: a task that comes while another one makes it waits for that. */
static bool anchor_parent(struct stream *s)
{
    const struct live_anchor *an = &s->anchor;
    pthread_mutex_lock(&s->lock);
    while (s->anchored == ANCHOR_UNDER_WAY)
        pthread_cond_wait(&s->tried, &s->lock);
    enum anchored state = s->anchored;
    if (state == ANCHOR_UNTRIED)
        s->anchored = ANCHOR_UNDER_WAY;
    pthread_mutex_unlock(&s->lock);
    if (state != ANCHOR_UNTRIED)
        return state == ANCHOR_DURABLE;
    state = snaps_anchor(s->env->store, live_id(s->l), &an->ref, NULL) == 0 ? ANCHOR_DURABLE : ANCHOR_FAILED;
    pthread_mutex_lock(&s->lock);
    s->anchored = state;
    pthread_cond_broadcast(&s->tried);
    pthread_mutex_unlock(&s->lock);
    return state == ANCHOR_DURABLE;
}

/* Is the segment equal to the parent's, and can the table point there? Any error means no. */
static bool is_equal(struct segbuf *b, enum outcome *how)
{
    struct stream *s = b->s;
    struct seg_entry now;
    struct plan_seg plan = {.segment = b->seg, .bytes = b->fill};
    uint64_t place;
    if (level_parent(s->parent, b->seg, &place, NULL) < 0 || live_segment_pure_held(s->l, b->seg, &now, NULL) != 1 ||
        level_segment(b->level, LEVEL_WHOLE, b->data, place, &plan, NULL, NULL) < 0 || plan.kind != PLAN_SAME)
        return false;
    *how = now.kind == SEGK_STORED && now.place == place ? OUT_THERE : OUT_EQUAL;
    return *how == OUT_THERE || anchor_parent(s);
}

static bool is_written(const struct segbuf *b, uint32_t page)
{
    return (b->written[page / 64] >> page % 64 & 1) != 0;
}

/* Writes each run of written pages in one piece. The other pages of the buffer are the same in the live image. */
static int write_out(struct segbuf *b, struct verr *err)
{
    uint32_t end = (b->fill + PAGE_BYTES - 1) / PAGE_BYTES;
    int r = 0;
    for (uint32_t p = 0; p < end && r == 0;) {
        uint32_t from = p;
        while (p < end && is_written(b, p))
            p++;
        uint32_t off = from * PAGE_BYTES, stop = p * PAGE_BYTES < b->fill ? p * PAGE_BYTES : b->fill;
        if (p > from)
            r = live_write_held(b->s->l, (b->seg << SEG_SHIFT) + off, b->data + off, stop - off, err);
        else
            p++;
    }
    return r;
}

static void compare_task(struct pool_task *task)
{
    struct segbuf *b = (struct segbuf *)task;
    if (b->fill < b->want || !is_equal(b, &b->came_to))
        b->came_to = write_out(b, &b->why) < 0 ? OUT_LOST : OUT_WRITTEN;
}

/* ---- under the hold lock ---- */

static void say_lost(struct stream *s, uint64_t seg, uint64_t count, const struct verr *why)
{
    if (s->failed.code == 0)
        s->failed = *why;
    s->lost(s->ctx, seg << SEG_SHIFT, count << SEG_SHIFT);
}

/* Writes the bytes of a run for which no pointer can be set: a segment got local pages meanwhile, or the journal has no room for an
 * anchor. */
static int copy_run(struct stream *s, const struct run *run, struct verr *err)
{
    enum { PIECE = 256 * 1024 };
    uint8_t *buf = malloc(PIECE);
    int r = buf == NULL ? verr_set(err, ENOMEM, "no memory") : 0;
    uint64_t end = (run->first + run->count) << SEG_SHIFT;
    for (uint64_t off = run->first << SEG_SHIFT; r == 0 && off < end;) {
        ssize_t n = snap_read(s->parent, off, buf, PIECE, err);
        if (n <= 0) {
            r = (int)n;
            break;
        }
        r = live_write_held(s->l, off, buf, (size_t)n, err);
        off += (uint64_t)n;
    }
    free(buf);
    return r;
}

static void point_runs(struct stream *s)
{
    struct live_attr at;
    struct verr why = {0};
    int r = s->nruns > 0 ? live_attr(s->l, &at, &why) : 0;
    for (unsigned i = 0; i < s->nruns; i++) {
        const struct run *run = &s->runs[i];
        if (r == 0)
            r = live_point_held(s->l, run->first, run->count, at.size, snap_point, s->parent, &s->anchor, &why);
        if (r < 0)
            r = copy_run(s, run, &why);
        if (r < 0)
            say_lost(s, run->first, run->count, &why);
        r = 0;
    }
    s->nruns = 0;
    s->equal = 0;
}

static void note_equal(struct stream *s, uint64_t seg)
{
    struct run *last = s->nruns > 0 ? &s->runs[s->nruns - 1] : NULL;
    if (last != NULL && last->first + last->count == seg)
        last->count++;
    else
        s->runs[s->nruns++] = (struct run){seg, 1};
    if (++s->equal >= POINT_SEGS || s->nruns == RUNS_MAX)
        point_runs(s);
}

static void take_oldest(struct stream *s)
{
    struct segbuf *b = &s->buf[s->first];
    pool_wait(s->env->pool, &b->task);
    s->first = (s->first + 1) % STREAM_BUFFERS;
    s->busy--;
    if (b->came_to == OUT_EQUAL)
        note_equal(s, b->seg);
    else if (b->came_to == OUT_LOST)
        say_lost(s, b->seg, 1, &b->why);
}

static void fill_zeros(struct segbuf *b, uint32_t to)
{
    if (b->fresh && to > b->fill) {
        memset(b->data + b->fill, 0, to - b->fill);
        b->fill = to;
    }
}

/* Counts segments that are mostly unwritten. For a writer that skips most of the disk, comparing costs more than it saves. */
static void look_how_full(struct stream *s, const struct segbuf *b)
{
    unsigned pages = 0;
    for (unsigned i = 0; i < WORDS; i++)
        pages += (unsigned)__builtin_popcountll(b->written[i]);
    s->sparse = pages < SEG_PAGES / 4 ? s->sparse + 1 : 0;
}

static void hand_over(struct stream *s)
{
    struct segbuf *b = s->cur;
    if (b == NULL)
        return;
    s->cur = NULL;
    s->next = b->seg + 1;
    struct live_attr at = {0};
    uint64_t start = b->seg << SEG_SHIFT;
    b->want = SEG_BYTES;            /* live_expect has raised the size to the end of the write */
    if (live_attr(s->l, &at, NULL) == 0 && at.size > start && at.size - start < SEG_BYTES)
        b->want = (uint32_t)(at.size - start);
    fill_zeros(b, b->want);
    look_how_full(s, b);
    b->task.run = compare_task;
    s->busy++;
    pool_lend(s->env->pool, &b->task);
}

static void give_all(struct live_holder *h)
{
    struct stream *s = (struct stream *)h;
    hand_over(s);
    while (s->busy > 0)
        take_oldest(s);
    point_runs(s);
    s->next = 0;                /* nothing is held back: the writer may go on anywhere */
}

static int new_buffer(struct stream *s, struct segbuf *b)
{
    if (b->data == NULL)
        b->data = malloc(SEG_BYTES);
    if (b->level == NULL)
        b->level = level_new(store_conf(s->env->store), s->env->segread, NULL, NULL);
    b->s = s;
    return b->data == NULL || b->level == NULL ? -ENOMEM : 0;
}

/* A buffer for the segment. NULL: the segment cannot be equal (the parent has nothing there, or it is not written from its beginning),
 * or there is no memory. */
static struct segbuf *begin_segment(struct stream *s, uint64_t seg, uint32_t off)
{
    struct seg_entry now;
    uint64_t place;
    s->next = seg;
    if (level_parent(s->parent, seg, &place, NULL) < 0 || place == REF_NONE ||
        live_segment_pure_held(s->l, seg, &now, NULL) != 1 || (off != 0 && now.kind != SEGK_ZERO))
        return NULL;
    if (s->busy == STREAM_BUFFERS)
        take_oldest(s);
    struct segbuf *b = &s->buf[(s->first + s->busy) % STREAM_BUFFERS];
    if (new_buffer(s, b) < 0)
        return NULL;
    b->seg = seg;
    b->fill = 0;
    b->fresh = now.kind == SEGK_ZERO;
    b->why = (struct verr){0};
    memset(b->written, 0, sizeof b->written);
    return b;
}

/* Takes a piece that lies in one segment and not before the pieces that came earlier. */
static int write_piece(struct stream *s, uint64_t off, const uint8_t *data, uint32_t len, struct verr *err)
{
    uint64_t seg = off >> SEG_SHIFT;
    uint32_t in = (uint32_t)(off & (SEG_BYTES - 1));
    if (s->cur != NULL && (s->cur->seg != seg || (in > s->cur->fill && !s->cur->fresh)))
        hand_over(s);
    if (s->cur == NULL && seg >= s->next)
        s->cur = begin_segment(s, seg, in);
    struct segbuf *b = s->cur;
    if (b == NULL)
        return live_write_held(s->l, off, data, len, err);
    fill_zeros(b, in);
    memcpy(b->data + in, data, len);
    b->fill = in + len;
    for (uint32_t p = in / PAGE_BYTES; p <= (in + len - 1) / PAGE_BYTES; p++)
        b->written[p / 64] |= UINT64_C(1) << p % 64;
    if (b->fill == SEG_BYTES)
        hand_over(s);
    return 0;
}

/* Does the write lie behind all data that are held back, so that the stream can take it? */
static bool goes_on(const struct stream *s, uint64_t off)
{
    uint64_t seg = off >> SEG_SHIFT;
    return s->cur != NULL ? seg > s->cur->seg || (seg == s->cur->seg && (off & (SEG_BYTES - 1)) >= s->cur->fill) : seg >= s->next;
}

static int write_pieces(struct stream *s, uint64_t off, const uint8_t *data, size_t len, struct verr *err)
{
    int r = live_expect(s->l, off + len, err);
    for (size_t done = 0; done < len && r == 0;) {
        uint64_t left = SEG_BYTES - ((off + done) & (SEG_BYTES - 1));
        uint32_t n = len - done < left ? (uint32_t)(len - done) : (uint32_t)left;
        r = write_piece(s, off + done, data + done, n, err);
        done += n;
    }
    return r;
}

/* ---- public ---- */

int stream_write(struct stream *s, uint64_t off, const void *data, size_t len, struct verr *err)
{
    uint64_t end;
    if (len == 0 || __builtin_add_overflow(off, len, &end))
        return 0;
    live_hold_lock(s->l);
    int r = s->failed.code != 0 ? -s->failed.code : s->sparse < SPARSE_MAX && goes_on(s, off);
    if (s->failed.code != 0 && err != NULL)
        *err = s->failed;
    if (r == 0) {               /* the write goes backwards: the caller's live_write first makes this stream give its data */
        live_hold_unlock(s->l, true);
        return 0;
    }
    if (r == 1) {
        r = write_pieces(s, off, data, len, err);
        r = r < 0 ? r : 1;
    }
    live_hold_unlock(s->l, true);
    return r;
}

int stream_flush(struct stream *s, struct verr *err)
{
    live_hold_lock(s->l);
    give_all(&s->holder);
    int r = s->failed.code != 0 ? -s->failed.code : 0;
    if (r < 0 && err != NULL)
        *err = s->failed;
    live_hold_unlock(s->l, false);
    return r;
}

static void stream_free(struct stream *s)
{
    pthread_cond_destroy(&s->tried);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void stream_close(struct stream *s)
{
    if (s == NULL)
        return;
    stream_flush(s, NULL);
    live_hold_end(s->l);
    /* Behind the last entry: from here on its lifted stamp keeps the anchor. */
    snaps_unpin(s->env->store, &s->pin);
    snap_close(s->parent);
    for (unsigned i = 0; i < STREAM_BUFFERS; i++) {
        free(s->buf[i].data);
        level_free(s->buf[i].level);
    }
    atomic_fetch_add(&s->in->room, 1);
    stream_free(s);
}

static bool take_room(struct ingest *in)
{
    unsigned room = atomic_load(&in->room);
    while (room > 0 && !atomic_compare_exchange_weak(&in->room, &room, room - 1)) {
    }
    return room > 0;
}

struct stream *stream_open(struct ingest *in, const struct stream_conf *conf)
{
    struct stream *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->tried, NULL);
    s->holder.give = give_all;
    s->in = in;
    s->env = &in->env;
    s->l = conf->live;
    s->parent = conf->parent;
    s->anchor = (struct live_anchor){.ref = snap_header(conf->parent)->info.ref};
    s->lost = conf->lost;
    s->ctx = conf->ctx;
    if (take_room(in)) {
        if (snaps_pin(in->env.store, live_id(s->l), &s->anchor.ref, &s->pin) == 0) {
            if (live_hold_begin(s->l, &s->holder) == 0)
                return s;
            snaps_unpin(in->env.store, &s->pin);
        }
        atomic_fetch_add(&in->room, 1);
    }
    stream_free(s);
    return NULL;
}

/* ---- ingest ---- */

int ingest_new(const struct ingest_env *env, struct ingest **out, struct verr *err)
{
    struct ingest *in = calloc(1, sizeof *in);
    if (in == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    in->env = *env;
    atomic_init(&in->room, env->streams);
    *out = in;
    return 0;
}

void ingest_free(struct ingest *in)
{
    free(in);
}

bool ingest_has_room(struct ingest *in)
{
    return atomic_load(&in->room) > 0;
}
