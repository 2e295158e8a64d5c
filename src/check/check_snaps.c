/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify, passes 1 and 4: recipes of snapshots, and of anchors whose snapshot has been removed. (An anchor is a link: while
 * the snapshot is there both are one file, which is checked once.)
 */
#include "base/endian.h"
#include "base/verr.h"
#include "check/check_internal.h"
#include "store/snaps.h"
#include "chunk/fingerprint.h"
#include "snapshot/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_BYTES = 16 };

/* One walk over all recipes. fn gets each opened recipe; broken (may be NULL) gets recipes that are damaged. */
struct recipes_walk {
    struct checker *k;
    enum store_dir dir;
    struct vid disk;        /* subdirectory */
    int (*fn)(struct recipes_walk *w, struct snap *s, struct check_hit *hit, struct verr *err);
    int (*broken)(struct recipes_walk *w, struct check_hit *hit, const struct verr *why, struct verr *err);
    uint64_t done;
    struct verr *err;
    bool forks;             /* sequence numbers are collected */
    uint64_t *seqs;         /* of the recipes of one disk */
    size_t nseqs, seqs_cap;
};

static void recipe_file(const struct check_hit *hit, char out[128])
{
    char hex[VID_HEX], file[SNAP_FILE_MAX];
    vid_hex(&hit->disk, hex);
    store_snap_file(hit->seq, &hit->snap, ".rcp", file);
    snprintf(out, 128, "%s/%s/%s", hit->anchor ? "anchors" : "snapshots", hex, file);
}

static int out_of_memory(struct verr *err)
{
    return verr_set(err, ENOMEM, "verify: out of memory");
}

/* ---- sequence numbers ---- */

static int seq_add(struct recipes_walk *w, uint64_t seq)
{
    if (w->nseqs == w->seqs_cap) {
        size_t cap = w->seqs_cap == 0 ? 64 : w->seqs_cap * 2;
        uint64_t *more = reallocarray(w->seqs, cap, sizeof *more);
        if (more == NULL)
            return out_of_memory(w->err);
        w->seqs = more;
        w->seqs_cap = cap;
    }
    w->seqs[w->nseqs++] = seq;
    return 0;
}

static int seq_order(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* A sequence number has one recipe. Two come of two daemons that had one STATE, each of which went on with the history in its own way. */
static int seqs_check(struct recipes_walk *w)
{
    char hex[VID_HEX], dir[64];
    if (w->nseqs > 1)
        qsort(w->seqs, w->nseqs, sizeof *w->seqs, seq_order);
    vid_hex(&w->disk, hex);
    snprintf(dir, sizeof dir, "snapshots/%s", hex);
    for (size_t i = 1, n = 2; i < w->nseqs; i++, n++) {
        if (w->seqs[i] != w->seqs[i - 1])
            n = 1;
        else if (n == 2 && check_add(w->k, CHECK_DAMAGE, dir, "sequence number %" PRIu64 " has more than one recipe: two daemons with copies "
                                     "of one state directory have published", w->seqs[i]) < 0)
            return out_of_memory(w->err);
    }
    w->nseqs = 0;
    return 0;
}

/* ---- the walk ---- */

static int walk_recipe(void *ctx, const struct snaps_file *f)
{
    struct recipes_walk *w = ctx;
    if (f->side_file)
        return 0;
    const uint64_t seq = f->ref.seq;
    if (w->forks && w->dir == DIR_SNAPSHOTS && seq_add(w, seq) < 0)
        return -ENOMEM;
    const struct vid *id = &f->ref.snap;
    bool anchor = w->dir == DIR_ANCHORS;
    struct check_hit hit = { .disk = w->disk, .snap = *id, .seq = seq, .anchor = anchor };
    struct verr why = {0};
    struct snap *s = NULL;
    int r = snap_open_in(w->k->st, w->k->segread, w->dir, &w->disk, anchor ? NULL : &w->disk, seq, id, &s, &why);
    if (r == -ENOENT)
        return 0;   /* removed since it was listed */
    if (r < 0 && check_is_damage(r))
        return w->broken != NULL ? w->broken(w, &hit, &why, w->err) : 0;
    if (r < 0)
        return verr_set(w->err, -r, "%s", verr_str(&why));
    if (!anchor || !snaps_anchored(w->k->st, &w->disk, &snap_header(s)->info.ref)) {
        r = w->fn(w, s, &hit, w->err);
        if (r == 0)
            r = check_progress(w->k, "snapshots", ++w->done, 0, w->err);
    }
    snap_close(s);
    return r;
}

static int walk_disk(void *ctx, const struct vid *disk)
{
    struct recipes_walk *w = ctx;
    w->disk = *disk;
    const struct snaps_walk files = {.file = walk_recipe, .ctx = w};
    int r = snaps_each(w->k->st, w->dir == DIR_ANCHORS ? SNAPS_ANCHORED : SNAPS_STORED, disk, &files, w->err);
    return r < 0 ? r : seqs_check(w);
}

static int walk_all(struct recipes_walk *w)
{
    w->dir = DIR_SNAPSHOTS;
    int r = snaps_each_disk(w->k->st, SNAPS_STORED, walk_disk, NULL, w, w->err);
    w->dir = DIR_ANCHORS;
    return r < 0 ? r : snaps_each_disk(w->k->st, SNAPS_ANCHORED, walk_disk, NULL, w, w->err);
}

/* ---- pass 1 ---- */

static int add_broken(struct recipes_walk *w, struct check_hit *hit, const struct verr *why, struct verr *err)
{
    char file[128];
    recipe_file(hit, file);
    snprintf(hit->name, sizeof hit->name, "%s", file);
    int p = check_add(w->k, CHECK_DAMAGE, file, "%s", verr_str(why));
    if (p < 0 || check_hit(w->k, p, hit) < 0)
        return out_of_memory(err);
    return 0;
}

struct run_walk {
    struct checker *k;
    uint32_t n;                                     /* runs in `page` */
    uint8_t page[SNAPRCP_PAGE_RUNS * RUN_BYTES];
    struct fp *digests;
    size_t ndigests, cap;
    int r;                                          /* error of our own that ended the walk */
};

static int close_page(struct run_walk *rw)
{
    if (rw->n == 0)
        return 0;
    if (rw->ndigests == rw->cap) {
        size_t cap = rw->cap == 0 ? 16 : rw->cap * 2;
        struct fp *more = reallocarray(rw->digests, cap, sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        rw->digests = more;
        rw->cap = cap;
    }
    struct fp_job job = { .data = rw->page, .len = rw->n * RUN_BYTES, .out = &rw->digests[rw->ndigests++] };
    rw->n = 0;
    return fper_batch(rw->k->sha256, &job, 1, NULL);
}

static int use_run(void *ctx, const struct snaprun *run)
{
    struct run_walk *rw = ctx;
    uint8_t *p = rw->page + rw->n * RUN_BYTES;
    put_le32(p, run->first);
    put_le32(p + 4, run->count);
    put_le64(p + 8, run->place);
    if (++rw->n == SNAPRCP_PAGE_RUNS)
        rw->r = close_page(rw);
    if (rw->r == 0 && run->place != REF_ZERO)
        rw->r = placeset_add(&rw->k->places, run->place, run->count);
    return rw->r;
}

/* Walks the runs of a recipe. An error of snap_each_run is damage; an error of our own is in rw->r. */
static int check_runs(struct checker *k, struct snap *s, struct verr *why)
{
    struct run_walk *rw = calloc(1, sizeof *rw);
    if (rw == NULL)
        return -ENOMEM;
    rw->k = k;
    int r = snap_each_run(s, use_run, rw, why);
    if (r == 0)
        r = close_page(rw);
    struct fp digest;
    if (r == 0) {
        struct fp_job job = { .data = "", .len = rw->ndigests * sizeof *rw->digests, .out = &digest };
        if (rw->digests != NULL)
            job.data = rw->digests;
        r = fper_batch(k->sha256, &job, 1, NULL);
    }
    if (r == 0 && memcmp(digest.b, snap_header(s)->runs_digest, FP_BYTES) != 0)
        r = verr_set(why, EBADMSG, "its runs do not have the digest that the header says");
    free(rw->digests);
    free(rw);
    return r;
}

static int check_recipe_file(struct recipes_walk *w, struct snap *s, struct check_hit *hit, struct verr *err)
{
    struct verr why = {0};
    if (hit->anchor)
        w->k->rep->anchors++;
    else
        w->k->rep->snapshots++;
    int r = check_runs(w->k, s, &why);
    if (r == 0)
        return 0;
    if (why.code == 0 || !check_is_damage(r))
        return verr_set(err, -r, "verify: %s", why.code != 0 ? verr_str(&why) : strerror(-r));
    char file[128];
    recipe_file(hit, file);
    check_hit_name(w->k->st, snap_header(s), hit);
    int p = check_add(w->k, CHECK_DAMAGE, file, "%s", verr_str(&why));
    if (p < 0 || check_hit(w->k, p, hit) < 0)
        return out_of_memory(err);
    return 0;
}

int check_snapshots(struct checker *k, struct verr *err)
{
    struct recipes_walk w = { .k = k, .fn = check_recipe_file, .broken = add_broken, .err = err, .forks = true };
    int r = walk_all(&w);
    free(w.seqs);
    return r;
}

/* ---- pass 4 ---- */

struct hit_walk { struct checker *k; struct snap *s; struct check_hit *hit; int r; };

static int hit_run(void *ctx, const struct snaprun *run)
{
    struct hit_walk *h = ctx;
    size_t at = 0;
    const struct bad *bad;
    if (run->place == REF_ZERO)
        return 0;
    while (h->r == 0 && (bad = badlist_next(&h->k->recipes, run->place, run->place + run->count - 1, &at)) != NULL) {
        if (h->hit->name[0] == '\0')
            check_hit_name(h->k->st, snap_header(h->s), h->hit);
        h->r = check_hit(h->k, bad->problem, h->hit);
    }
    return h->r;
}

static int find_hits(struct recipes_walk *w, struct snap *s, struct check_hit *hit, struct verr *err)
{
    struct hit_walk h = { .k = w->k, .s = s, .hit = hit };
    struct verr why = {0};
    int r = snap_each_run(s, hit_run, &h, &why);
    if (h.r < 0)
        return out_of_memory(err);
    return r < 0 && !check_is_damage(r) ? verr_set(err, -r, "%s", verr_str(&why)) : 0;    /* damage was told in pass 1 */
}

int check_hits(struct checker *k, struct verr *err)
{
    if (k->recipes.n == 0)
        return 0;
    badlist_sort(&k->recipes);
    struct recipes_walk w = { .k = k, .fn = find_hits, .err = err };
    return walk_all(&w);
}
