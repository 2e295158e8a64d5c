/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dedup_internal: what the stages of a round share. Included inside src/dedup only.
 *
 * One thread runs the stages. Work on one segment that needs no other one (reading, cutting, fingerprints) may run on the pool
 * meanwhile: functions that take a `segwork` and no `round` touch nothing but that segwork.
 */
#ifndef VARVE_DEDUP_DEDUP_INTERNAL_H
#define VARVE_DEDUP_DEDUP_INTERNAL_H

#include "base/pool.h"
#include "base/endian.h"
#include "base/verr.h"
#include "chunk/fingerprint.h"
#include "dedup/answers.h"
#include "dedup/dedup.h"
#include "dedup/owner.h"
#include "dedup/plan.h"
#include "dedup/wire.h"
#include "snapshot/commit.h"

#include <stdio.h>

struct extsort;

/*
 * Memory. M = env.memory. A fixed part holds one segment, its plan and one frame each way. The rest, R, is divided; shares have
 * lower limits, which win over a small M, so that a round takes at least about 5 MB.
 *
 *   fixed                      2 MiB segment, 0.3 MB plan record and blocks, 0.1 MB recipe, 0.3 MB frames      2.8 MB
 *   pool                       2.3 MB for each further segment under way: one more than threads, at most M/4
 *   1a  bundles                R/4 over slots x q partitions
 *       request partitions     R/4 over the partitions this host owns
 *   1b  sort of one partition  R/4, then  answers R/8 + index R/4
 *   2b  answer windows         R/8 over slots x q partitions (kept until 4b)
 *   3a  bundles                R/4;  3b  sorts of references R/4 over slots, resolutions R/8, index R/4
 *   4b  publish check          R/4 + R/16, then  late blocks 2 x R/16
 *   files                      64 KiB each, at most three open at once (a sixteenth of R when that is less)
 */
struct shares {
    size_t bundles, requests, windows;
    size_t sort, sort_half, sort_small, sort_slot, index, file;
};

/* One segment under way, with all buffers that its computing needs. */
struct segwork {
    struct pool_task task;          /* first */
    struct round *r;
    const struct jobstate *js;
    struct seg_entry entry;         /* stage 1a: the segment's entry in the frozen table */
    uint8_t *seg;                   /* SEG_BYTES */
    struct plan_seg s;
    struct level *level;
    int rc;                         /* result of the task; err says why it failed */
    struct verr err;
    struct verr note;               /* code != 0: trouble that costs space only */
};

struct jobstate {
    struct dedup_job *job;
    unsigned index;
    uint64_t nsegs, seed;           /* seed of the checksums in this disk's plan log */
    uint64_t stored;                /* bytes added to containers */
    bool failed, published;
    bool wrote;                     /* new blocks in stage 2b */
};

struct round {
    const struct dedup_env *env;
    const struct store_conf *conf;
    struct jobstate *js;
    unsigned njobs;
    char name[VID_HEX];
    int dirfd;
    uint32_t q, nslots;             /* partitions a slot; slots owned here: 0 .. nslots-1 */
    struct shares mem;
    struct snap *parent_snap;       /* parent of the disk that stage 1a works on, or NULL */
    uint64_t done_bytes, total_bytes;
    uint64_t generations;           /* digest of the names in generations/ when the round began; 0: unknown */
    bool stopped;                   /* env.progress asked for it */

    uint8_t *rec, *blob;            /* PLAN_RECORD_MAX, SEGRCP_BYTES_MAX */
    struct segwork *work;
    unsigned nwork;
    struct plan_seg *cur;           /* work[0]'s: for stages that look at one segment after another */
    struct answers answers;
    struct owner_slot *slots;
    struct wire *wire;
    struct extsort *late;           /* blocks that stage 4b wrote and sealed; NULL: none */
};

static inline void put_be64(uint8_t *p, uint64_t v)
{
    v = htobe64(v);
    memcpy(p, &v, sizeof v);
}

static inline void round_file(char out[32], const char *what, uint32_t number) { snprintf(out, 32, "%s-%04x", what, number); }

/* ---- round.c ---- */
/* Reports bytes done to env.progress. -EINTR: the caller of the round wants it to stop. */
int round_progress(struct round *r, const char *stage, uint64_t bytes, struct verr *err);
/* Tells env.note of a failure that costs space only. */
void round_note(struct round *r, const char *stage, const struct verr *why);
void job_fail(struct jobstate *js, int rc);
void job_fail_why(struct jobstate *js, int rc, const struct verr *why);
uint32_t job_flags(const struct jobstate *js);      /* CONTAINER_SHARED or _PRIVATE */
/* Set the VM's last containers, for all disks of that VM in this round. */
void job_last_blocks(struct round *r, const struct jobstate *js, uint64_t container);
void job_last_recipes(struct round *r, const struct jobstate *js, uint64_t container);
void slot_give_up(struct round *r, uint32_t slot, const char *stage, const struct verr *why);
/* Has the slot of this fingerprint an owner that can answer? */
bool round_owns(const struct round *r, const struct fp *fp);
/* Was a generation opened since the round began? True also when that is unknown. */
bool generations_changed(struct round *r);

/* ---- segment.c ---- */
/* A walk through the frozen table, a slice at a time, because reading each entry alone costs 1 us for each segment of the disk. */
struct entries { bool any; uint64_t first; struct seg_entry e[PEND_ENTRIES]; };
int entries_get(struct entries *c, const struct dedup_job *job, uint64_t segment, struct seg_entry *out, struct verr *err);
/* Reads segment w->s.segment of w->js into w->seg. */
int seg_load(struct segwork *w, uint32_t *bytes, struct verr *err);
/* Reads the segment again for its BLK_NEW blocks. A segment that differs from its plan, or is not PLAN_BLOCKS, is cut anew, and all
 * of its blocks are BLK_NEW. */
int seg_prepare_new(struct segwork *w, struct verr *err);
/* Called after seg_prepare_new: writes the BLK_NEW blocks, which become BLK_OWN, and adds them to *late (late.c); late may be NULL. */
int seg_append_new(struct segwork *w, struct cwriter *cw, struct extsort **late, struct verr *err);
bool seg_has(const struct plan_seg *s, enum blk_kind kind);
/* BLK_WAIT -> BLK_RESOLVED, or BLK_NEW where no resolution came. */
int resolve_waiting(struct round *r, struct plan_seg *s, struct verr *err);

/* ---- line.c: segments under way on the pool, used in their order ---- */
struct line {
    struct round *r;
    /* Gets each computed segment, in order. An error ends the round: segments that are still under way are dropped. */
    int (*use)(void *ctx, struct segwork *w, struct verr *err);
    void *ctx;
    unsigned first, busy;
};
/* *w: a segwork that the caller fills in (js, s, entry). When all are under way, waits for the oldest and uses it. */
int line_take(struct line *l, struct segwork **w, struct verr *err);
/* Starts the segwork that was taken last. run NULL: nothing is computed, the segwork only waits for its turn. */
void line_go(struct line *l, void (*run)(struct pool_task *task));
/* Waits for all that are under way, and uses them if rc is 0. Returns rc, or the first error of use. */
int line_end(struct line *l, int rc, struct verr *err);
/* Makes work[0 .. nwork-1]. line_free_work frees them, also after an error. */
int line_alloc_work(struct round *r, unsigned nwork, struct verr *err);
void line_free_work(struct round *r);

/* ---- publish_check.c ---- */
struct bad_list;
enum { BAD_WHOLE = 0xffff };        /* instead of a block number: the whole segment */
int publish_check(struct round *r, const struct jobstate *js, struct commit *c, bool check_own, struct bad_list **out, struct verr *err);
/* The next refused block of the index-th dirty segment: 1; 0: there are no more; -errno. */
int bad_next(struct bad_list *bad, uint64_t index, uint32_t *block, struct verr *err);
void bad_free(struct bad_list *bad);

/* ---- late.c: puts blocks of stage 4b into the index. A failure is noted and costs space only. ---- */
/* Adds a block that was just written to *xs, the unsealed blocks of one attempt. The first block makes *xs. */
void late_add(struct round *r, const struct jobstate *js, struct extsort **xs, const struct plan_block *b);
/* Keeps the blocks of *xs, which are sealed now, and frees *xs. */
void late_keep(struct round *r, struct extsort **xs);
/* Adds all kept blocks to the index: one delta for each slot that has some. */
void late_commit(struct round *r);

/* ---- slot owner, per received item ---- */
int owner_request(struct round *r, uint32_t slot, uint32_t part, uint32_t sender, const uint8_t key[FPKEY_BYTES], struct verr *err);
int owner_reference(struct round *r, uint32_t slot, const uint8_t key[FPKEY_BYTES], uint64_t ref, struct verr *err);

/* ---- stages. 0, or -errno when the round cannot go on; the error of one disk is in its job. ---- */
int stage_1a(struct round *r, struct verr *err);
int stage_1b(struct round *r, struct verr *err);
int stage_2a(struct round *r, struct verr *err);
int stage_2b(struct round *r, struct verr *err);
int stage_3a(struct round *r, struct verr *err);
int stage_3b(struct round *r, struct verr *err);
int stage_4a(struct round *r, struct verr *err);
int stage_4b(struct round *r, struct verr *err);

#endif
