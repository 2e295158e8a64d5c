/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 1a, VM holder: reads the dirty segments of each frozen disk, settles what levels 1-3 can, and asks the slots for
 * the rest. Leaves plan-J per disk. Requests go out in the order of the plan, so that the n-th answer of a partition
 * belongs to the n-th block that was asked there; the plan keeps n.
 */
#include "dedup/dedup_internal.h"

#include "base/fault.h"
#include "base/verr.h"

#include <errno.h>
#include <string.h>

/* Levels 2 and 3 for each block; the rest is new, or to be asked. */
static int settle_blocks(struct round *r, const struct jobstate *js, const struct parent *p, struct plan_seg *s)
{
    const struct common_set *common = r->env->common;
    for (uint32_t i = 0; i < s->nblocks; i++) {
        struct plan_block *b = &s->b[i];
        uint64_t ref;
        if (b->kind == BLK_ZERO)
            continue;
        if (parent_find(p, &b->fp, b->len, &ref)) {
            b->kind = BLK_PARENT;
            b->ref = ref;
        } else if (common != NULL && common->find(common->ctx, &b->fp, &ref) > 0) {
            b->kind = BLK_COMMON;
            b->ref = ref;
        } else if (!js->job->selective && round_owns(r, &b->fp)) {
            b->kind = BLK_ASKED;
        }
    }
    return 0;
}

/* One dirty segment into r->cur. An error is one of this disk: its frozen data cannot be read. */
static int plan_segment(struct round *r, struct jobstate *js, struct parent *p, const struct seg_entry *e, uint64_t segment,
                        struct verr *err)
{
    struct plan_seg *s = &r->cur;
    s->segment = segment;
    s->nblocks = s->data_pages = 0;
    s->place = REF_NONE;
    memset(s->digest, 0, sizeof s->digest);
    int rc = fault_errno("dedup.1a.segment");
    if (rc != 0)
        return verr_set(err, rc, "reading segment %llu of the frozen disk: %s", (unsigned long long)segment, strerror(rc));
    rc = seg_load(r, js, segment, &s->bytes, err);
    if (rc < 0)
        return rc;
    if (seg_is_zero(r->seg, s->bytes)) {
        s->kind = PLAN_ZERO;
        return 0;
    }
    rc = fper_segment(r->fper, r->seg, s->bytes, s->digest, err);
    if (rc < 0)
        return rc;
    parent_load(r, p, e, segment);
    if (parent_same(p, s)) {
        s->kind = PLAN_SAME;
        s->place = p->place;
        s->data_pages = p->rcp.data_pages;
        return 0;
    }
    rc = seg_cut(r, s, err);
    return rc < 0 ? rc : settle_blocks(r, js, p, s);
}

/* Positions go into the plan's record before it is written; then the keys go out. An error is one of the whole round. */
static int ask_segment(struct round *r, struct plan_seg *s, struct verr *err)
{
    for (uint32_t i = 0; s->kind == PLAN_BLOCKS && i < s->nblocks; i++) {
        struct plan_block *b = &s->b[i];
        if (b->kind == BLK_ASKED) {
            int rc = send_request(r, &b->fp, &b->ref, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int plan_segments(struct round *r, struct jobstate *js, struct parent *p, struct seqout *plan, struct verr *err)
{
    for (uint64_t i = 0; i < js->nsegs && !js->failed; i++) {
        struct seg_entry e;
        int rc = live_pending_entry(js->job->live, js->job->pend.seq, i, &e, js->job->err);
        if (rc == 0 && !e.dirty) {
            if (e.kind != SEGK_FROZEN)
                continue;
            rc = verr_set(js->job->err, EINVAL, "segment %llu still waits for an older snapshot of this disk: publish that one first",
                          (unsigned long long)i);
        }
        if (rc == 0)
            rc = plan_segment(r, js, p, &e, i, js->job->err);
        if (rc < 0) {
            job_fail(js, rc);
            break;
        }
        rc = ask_segment(r, &r->cur, err);
        if (rc == 0)
            rc = plan_put(plan, &r->cur, js->seed, r->rec, err);
        if (rc == 0)
            rc = round_progress(r, "stage_1a", r->cur.bytes, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int plan_job(struct round *r, struct jobstate *js, struct parent *p, struct verr *err)
{
    char name[32];
    struct seqout plan;
    struct verr note = {0};
    round_file(name, "plan", js->index);
    int rc = seqout_open(&plan, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc;
    p->snap = NULL;
    if (!vid_is_zero(&js->job->parent_snap) &&
        snap_open(r->env->store, r->env->segread, live_id(js->job->live), js->job->parent_seq, &js->job->parent_snap, &p->snap,
                  &note) < 0) {
        p->snap = NULL;     /* without its parent a disk is stored all the same, only dearer */
        round_note(r, "stage_1a", &note);
    }
    rc = plan_segments(r, js, p, &plan, err);
    parent_clear(p);
    snap_close(p->snap);
    p->snap = NULL;
    if (rc < 0) {
        seqout_drop(&plan);
        return rc;
    }
    return seqout_close(&plan, err);
}

int stage_1a(struct round *r, struct verr *err)
{
    int rc = 0;
    for (unsigned j = 0; j < r->njobs && rc == 0; j++)
        if (!r->js[j].failed)
            rc = plan_job(r, &r->js[j], r->parent, err);
    return rc < 0 ? rc : send_requests_end(r, err);
}
