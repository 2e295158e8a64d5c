/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot: a stored snapshot as a file.
 *
 * A recipe is never read whole. A segment is found by binary search over the pages (by the first segment of each), then inside
 * the page. Each page is checked when it is read: its runs are gapless and ascending, the first page begins with segment 0, the
 * last one ends with the last segment, and every page but the last is full. A gap between two pages is noticed when a segment
 * in it is searched: neither page has it, which is damage too.
 */
#include "snapshot/snapshot.h"

#include "base/verr.h"
#include "store/snaps.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES_KEPT = 4 };

typedef char recipe_name[VID_HEX + SNAP_FILE_MAX + 16];     /* snapshots/DISK/FILE, for messages */

struct run_page {
    uint64_t number;        /* 1, 2, ...; 0: free */
    uint64_t used;
    uint32_t n;
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
};

/* lock guards pages and clock; only snap_open writes the other members. */
struct snap {
    struct segread *segread;
    struct bfile *f;
    recipe_name name;
    struct snaprcp hdr;
    uint64_t segments, npages;                  /* pages of runs */
    pthread_mutex_t lock;
    uint64_t clock;
    struct run_page pages[PAGES_KEPT];
};

static uint64_t pages_of_runs(uint64_t nruns)
{
    return nruns / SNAPRCP_PAGE_RUNS + (nruns % SNAPRCP_PAGE_RUNS != 0);
}

/* ---- opening ---- */

/* Where a recipe is, and what it must belong to. */
struct where {
    enum store_dir dir;
    const struct vid *dir_disk;     /* subdirectory */
    const struct vid *disk;         /* NULL: of any disk */
    uint64_t seq;
    const struct vid *id;
};

static int check_header(struct store *st, const struct where *w, const struct snaprcp *h, const char **why)
{
    if (!vid_eq(&h->store, &store_conf(st)->id))
        *why = "belongs to another store";
    else if (w->disk != NULL && !vid_eq(&h->info.ref.disk, w->disk))
        *why = "belongs to another disk";
    else if (!vid_eq(&h->info.ref.snap, w->id) || h->info.ref.seq != w->seq)
        *why = "is another snapshot than its name says";
    else
        return 0;
    return -EBADMSG;
}

static int read_header(struct store *st, struct bfile *f, uint64_t bytes, const char *name, const struct where *w, struct snaprcp *out, struct verr *err)
{
    uint8_t page[SNAPRCP_PAGE];
    ssize_t got = snaps_read(f, page, sizeof page, 0);
    if (got < 0)
        return verr_set(err, (int)-got, "%s: cannot be read: %s", name, strerror((int)-got));
    if (got != SNAPRCP_PAGE)
        return verr_set(err, EBADMSG, "%s: is too short for a snapshot recipe", name);
    const char *why = "damaged";
    int r = snaprcp_decode(page, out, &why);
    if (r == 0)
        r = check_header(st, w, out, &why);
    if (r < 0)
        return verr_set(err, -r, "%s: %s", name, why);
    if (bytes != (1 + pages_of_runs(out->nruns)) * SNAPRCP_PAGE)
        return verr_set(err, EBADMSG, "%s: has %" PRIu64 " bytes, but %" PRIu64 " runs take %" PRIu64, name, bytes, out->nruns,
                        (1 + pages_of_runs(out->nruns)) * SNAPRCP_PAGE);
    return 0;
}

static const char *dir_name(enum store_dir dir)
{
    return dir == DIR_ANCHORS ? "anchors" : "snapshots";
}

static void describe(enum store_dir dir, const struct vid *disk, const char *file, recipe_name out)
{
    char hex[VID_HEX];
    vid_hex(disk, hex);
    snprintf(out, sizeof(recipe_name), "%s/%s/%s", dir_name(dir), hex, file);
}

/* Opens the recipe and checks its header. */
static int open_recipe(struct store *st, const struct where *w, recipe_name name, struct snaprcp *hdr, struct bfile **out, struct verr *err)
{
    char file[SNAP_FILE_MAX];
    store_snap_file(w->seq, w->id, ".rcp", file);
    describe(w->dir, w->dir_disk, file, name);
    struct bfile *f;
    uint64_t bytes;
    int r = snaps_open(st, w->dir, w->dir_disk, w->seq, w->id, &f, &bytes);
    if (r < 0)
        return verr_set(err, -r, "%s: %s", name, strerror(-r));
    r = read_header(st, f, bytes, name, w, hdr, err);
    if (r < 0) {
        snaps_close(f);
        return r;
    }
    *out = f;
    return 0;
}

static int open_where(struct store *st, struct segread *sr, const struct where *w, struct snap **out, struct verr *err)
{
    struct snap *s = calloc(1, sizeof *s);
    if (s == NULL)
        return verr_set(err, ENOMEM, "snapshot: out of memory");
    int r = open_recipe(st, w, s->name, &s->hdr, &s->f, err);
    if (r < 0)
        goto out_free;
    s->segread = sr;
    s->segments = seg_count(s->hdr.info.size);
    s->npages = pages_of_runs(s->hdr.nruns);
    int e = pthread_mutex_init(&s->lock, NULL);
    if (e != 0) {
        r = verr_set(err, e, "snapshot: no mutex");
        goto out_close;
    }
    *out = s;
    return 0;

out_close:
    snaps_close(s->f);
out_free:
    free(s);
    return r;
}

int snap_open(struct store *st, struct segread *sr, const struct snapref *ref, struct snap **out, struct verr *err)
{
    const struct where w = { .dir = DIR_SNAPSHOTS, .dir_disk = &ref->disk, .disk = &ref->disk, .seq = ref->seq, .id = &ref->snap };
    return open_where(st, sr, &w, out, err);
}

int snap_open_in(struct store *st, struct segread *sr, enum store_dir dir, const struct vid *dir_disk, const struct vid *disk, uint64_t seq,
                 const struct vid *id, struct snap **out, struct verr *err)
{
    const struct where w = { .dir = dir, .dir_disk = dir_disk, .disk = disk, .seq = seq, .id = id };
    return open_where(st, sr, &w, out, err);
}

void snap_close(struct snap *s)
{
    if (s == NULL)
        return;
    snaps_close(s->f);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const struct snaprcp *snap_header(const struct snap *s)
{
    return &s->hdr;
}

/* ---- runs ---- */

/* Checks that a page is at its place in this file. The decoder, which sees one page alone, has checked that its runs follow each
 * other. */
static int check_page(const struct snap *s, const struct run_page *p)
{
    uint32_t want = SNAPRCP_PAGE_RUNS;
    if (p->number == s->npages)
        want = (uint32_t)(s->hdr.nruns - (s->npages - 1) * SNAPRCP_PAGE_RUNS);
    if (p->n != want || (p->number == 1 && p->runs[0].first != 0))
        return -EBADMSG;
    const struct snaprun *last = &p->runs[p->n - 1];
    uint64_t next = (uint64_t)last->first + last->count;
    if (next > s->segments || (next == s->segments) != (p->number == s->npages))
        return -EBADMSG;
    return 0;
}

static int load_page(struct snap *s, struct run_page *p, uint64_t number, struct verr *err)
{
    uint8_t raw[SNAPRCP_PAGE];
    p->number = 0;
    ssize_t got = snaps_read(s->f, raw, sizeof raw, number * SNAPRCP_PAGE);
    if (got < 0)
        return verr_set(err, (int)-got, "%s: cannot be read: %s", s->name, strerror((int)-got));
    if (got != SNAPRCP_PAGE)
        return verr_set(err, EBADMSG, "%s: ends before page %" PRIu64, s->name, number);
    const char *why = "damaged";
    int r = snaprcp_page_decode(&s->hdr.info.ref.snap, number, raw, p->runs, &p->n, &why);
    if (r < 0)
        return verr_set(err, -r, "%s: page %" PRIu64 ": %s", s->name, number, why);
    p->number = number;
    if (check_page(s, p) < 0) {
        p->number = 0;
        return verr_set(err, EBADMSG, "%s: page %" PRIu64 ": its runs do not cover the disk without gaps", s->name, number);
    }
    p->used = ++s->clock;
    return 0;
}

/* Page `number`, from the cache or read into it. The caller holds the lock; the page is valid until the caller releases the lock or
 * asks for another page. */
static int page_locked(struct snap *s, uint64_t number, struct run_page **out, struct verr *err)
{
    struct run_page *oldest = &s->pages[0];
    for (unsigned i = 0; i < PAGES_KEPT; i++) {
        struct run_page *p = &s->pages[i];
        if (p->number == number) {
            p->used = ++s->clock;
            *out = p;
            return 0;
        }
        if (p->number == 0 || (oldest->number != 0 && p->used < oldest->used))
            oldest = p;
    }
    int r = load_page(s, oldest, number, err);
    if (r == 0)
        *out = oldest;
    return r;
}

static bool page_has(const struct run_page *p, uint64_t segment)
{
    const struct snaprun *last = &p->runs[p->n - 1];
    return p->runs[0].first <= segment && segment < (uint64_t)last->first + last->count;
}

/* The page that holds the segment. Cached pages are tried first, because most reads are sequential. */
static int search_locked(struct snap *s, uint64_t segment, struct run_page **out, struct verr *err)
{
    for (unsigned i = 0; i < PAGES_KEPT; i++) {
        if (s->pages[i].number != 0 && page_has(&s->pages[i], segment)) {
            s->pages[i].used = ++s->clock;
            *out = &s->pages[i];
            return 0;
        }
    }
    uint64_t lo = 1, hi = s->npages + 1;
    struct run_page *p = NULL;
    while (hi - lo > 1) {
        uint64_t mid = lo + (hi - lo) / 2;
        int r = page_locked(s, mid, &p, err);
        if (r < 0)
            return r;
        if (p->runs[0].first <= segment)
            lo = mid;
        else
            hi = mid;
    }
    int r = page_locked(s, lo, &p, err);
    if (r < 0)
        return r;
    if (!page_has(p, segment))
        return verr_set(err, EBADMSG, "%s: segment %" PRIu64 " is in no page", s->name, segment);
    *out = p;
    return 0;
}

/* The run that holds the segment (< s->segments). */
static int find_run(struct snap *s, uint64_t segment, struct snaprun *out, struct verr *err)
{
    struct run_page *p = NULL;
    pthread_mutex_lock(&s->lock);
    int r = search_locked(s, segment, &p, err);
    if (r == 0) {
        uint32_t lo = 0, hi = p->n;
        while (hi - lo > 1) {
            uint32_t mid = lo + (hi - lo) / 2;
            if (p->runs[mid].first <= segment)
                lo = mid;
            else
                hi = mid;
        }
        *out = p->runs[lo];
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

int snap_place(void *snap, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err)
{
    struct snap *s = snap;
    if (segment >= s->segments)
        return verr_set(err, EINVAL, "%s: has no segment %" PRIu64, s->name, segment);
    struct snaprun run;
    int r = find_run(s, segment, &run, err);
    if (r < 0)
        return r;
    *zero = run.place == REF_ZERO;
    *place = *zero ? REF_ZERO : run.place + (segment - run.first);
    *pages = *zero ? 0 : UINT32_MAX;
    return 0;
}

int snap_point(void *snap, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err)
{
    struct snap *s = snap;
    int r = snap_place(snap, segment, zero, place, pages, err);
    return r == 0 && !*zero ? segread_note(s->segread, *place, err) : r;
}

int snap_each_run(struct snap *s, int (*fn)(void *ctx, const struct snaprun *run), void *ctx, struct verr *err)
{
    struct run_page *copy = malloc(sizeof *copy);   /* fn runs outside the lock */
    if (copy == NULL)
        return verr_set(err, ENOMEM, "snapshot: out of memory");
    uint64_t next = 0;
    int r = 0;
    for (uint64_t number = 1; r == 0 && number <= s->npages; number++) {
        struct run_page *p = NULL;
        pthread_mutex_lock(&s->lock);
        r = page_locked(s, number, &p, err);
        if (r == 0)
            *copy = *p;
        pthread_mutex_unlock(&s->lock);
        if (r == 0 && copy->runs[0].first != next)
            r = verr_set(err, EBADMSG, "%s: segment %" PRIu64 " is in no page", s->name, next);
        for (uint32_t i = 0; r == 0 && i < copy->n; i++) {
            r = fn(ctx, &copy->runs[i]);
            next = (uint64_t)copy->runs[i].first + copy->runs[i].count;
        }
    }
    free(copy);
    return r;
}

/* ---- data ---- */

ssize_t snap_read(struct snap *s, uint64_t off, void *buf, size_t len, struct verr *err)
{
    if (off >= s->hdr.info.size)
        return 0;
    if (len > s->hdr.info.size - off)
        len = (size_t)(s->hdr.info.size - off);
    if (len > SSIZE_MAX)
        len = SSIZE_MAX;
    size_t done = 0;
    while (done < len) {
        uint64_t at = off + done;
        uint32_t in_segment = (uint32_t)(at & (SEG_BYTES - 1));
        size_t n = SEG_BYTES - in_segment;
        if (n > len - done)
            n = len - done;
        bool zero = false;
        uint64_t place = 0;
        uint32_t pages = 0;
        int r = snap_place(s, at >> SEG_SHIFT, &zero, &place, &pages, err);
        if (r < 0)
            return r;
        if (zero)
            memset((uint8_t *)buf + done, 0, n);
        else if ((r = segread_read(s->segread, place, in_segment, (uint8_t *)buf + done, n, err)) < 0)
            return verr_prefix(err, -r, "%s", s->name);
        done += n;
    }
    return (ssize_t)done;
}

/* One step of a seek: passes over a whole zero run, or looks into one segment. *found: *at is the answer. */
static int seek_step(struct snap *s, uint64_t *at, bool hole, bool *found, struct verr *err)
{
    struct snaprun run = {0};
    int r = find_run(s, *at >> SEG_SHIFT, &run, err);
    if (r < 0)
        return r;
    if (run.place == REF_ZERO) {
        *found = hole;
        if (!hole)
            *at = ((uint64_t)run.first + run.count) << SEG_SHIFT;
        return 0;
    }
    uint64_t segment = *at >> SEG_SHIFT;
    uint32_t in_segment = (uint32_t)(*at & (SEG_BYTES - 1)), to = 0;
    r = segread_seek(s->segread, run.place + (segment - run.first), in_segment, hole, &to, err);
    if (r < 0)
        return verr_prefix(err, -r, "%s", s->name);
    *found = to < SEG_BYTES;
    *at = (segment << SEG_SHIFT) + to;
    return 0;
}

off_t snap_seek_near(struct snap *s, uint64_t off, bool hole, uint64_t steps, struct verr *err)
{
    if (off >= s->hdr.info.size)
        return verr_set(err, ENXIO, "%s: seek at or after the end", s->name);
    uint64_t at = off;
    bool found = false;
    while (!found && at < s->hdr.info.size) {
        if (steps-- == 0)
            return -EAGAIN;
        int r = seek_step(s, &at, hole, &found, err);
        if (r < 0)
            return r;
    }
    if (at < s->hdr.info.size)
        return (off_t)at;
    if (hole)
        return (off_t)s->hdr.info.size;      /* the end of a file is a hole */
    return verr_set(err, ENXIO, "%s: no data up to the end", s->name);
}

off_t snap_seek(struct snap *s, uint64_t off, bool hole, struct verr *err)
{
    return snap_seek_near(s, off, hole, UINT64_MAX, err);
}
