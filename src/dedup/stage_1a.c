/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 1a, VM holder: reads the dirty segments of each frozen disk, settles blocks by levels 1-3, and asks the slots for the
 * others. Leaves plan-J per disk. Requests go out in the order of the plan, so that the n-th answer of a partition belongs to
 * the n-th block that was asked there; the plan keeps n.
 *
 * Segments are computed side by side (line.c); requests and the plan are written by this thread, in order.
 */
#include "dedup/dedup_internal.h"

#include "base/fault.h"
#include "base/verr.h"

#include <errno.h>
#include <string.h>

/* The place to compare with: the table's own pointer, which is newer than the parent snapshot, or else the parent's segment. */
static uint64_t parent_place(struct segwork *w)
{
    uint64_t place = REF_NONE;
    if (w->entry.kind == SEGK_STORED)
        return w->entry.place;
    if (w->r->parent_snap == NULL || level_parent(w->r->parent_snap, w->s.segment, &place, &w->note) < 0)
        return REF_NONE;
    return place;
}

/* On the pool: settles blocks by levels 1 to 3; the others are new or will be asked. */
static void plan_task(struct pool_task *task)
{
    struct segwork *w = (struct segwork *)task;
    struct plan_seg *s = &w->s;
    w->rc = seg_load(w, &s->bytes, &w->err);
    if (w->rc == 0)
        w->rc = level_segment(w->level, LEVEL_BLOCKS, w->seg, parent_place(w), s, &w->note, &w->err);
    for (uint32_t i = 0; w->rc == 0 && s->kind == PLAN_BLOCKS && i < s->nblocks; i++)
        if (s->b[i].kind == BLK_NEW && !w->js->job->selective && round_owns(w->r, &s->b[i].fp))
            s->b[i].kind = BLK_ASKED;
}

/* Puts the positions into the plan's record, writes the record and sends the keys. An error ends the whole round. */
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

struct planning { struct jobstate *js; struct seqout plan; };

/* Uses the results of plan_task in order. An error of plan_task concerns this disk only: its frozen data cannot be read. */
static int use_plan(void *ctx, struct segwork *w, struct verr *err)
{
    struct planning *p = ctx;
    struct round *r = w->r;
    if (p->js->failed)
        return 0;
    if (w->note.code != 0)
        round_note(r, "stage_1a", &w->note);
    if (w->rc < 0) {
        job_fail_why(p->js, w->rc, &w->err);
        return 0;
    }
    int rc = ask_segment(r, &w->s, err);
    if (rc == 0)
        rc = plan_put(&p->plan, &w->s, p->js->seed, r->rec, err);
    return rc < 0 ? rc : round_progress(r, "stage_1a", w->s.bytes, err);
}

/* 1: the segment is dirty and goes through the line. 0: nothing to do for it. An error concerns this disk only. */
static int entry_of(const struct jobstate *js, struct entries *cache, uint64_t segment, struct seg_entry *e, struct verr *why)
{
    int rc = entries_get(cache, js->job, segment, e, why);
    if (rc < 0)
        return rc;
    if (!e->dirty && e->kind == SEGK_FROZEN)
        return verr_set(why, EINVAL, "segment %llu still waits for an older snapshot of this disk: publish that one first",
                        (unsigned long long)segment);
    rc = e->dirty ? fault_errno("dedup.1a.segment") : 0;
    if (rc != 0)
        return verr_set(why, rc, "reading segment %llu of the frozen disk: %s", (unsigned long long)segment, strerror(rc));
    return e->dirty;
}

static int plan_segments(struct round *r, struct planning *p, struct verr *err)
{
    struct line line = {.r = r, .use = use_plan, .ctx = p};
    struct entries cache = {.any = false};
    int rc = 0;
    for (uint64_t i = 0; i < p->js->nsegs && !p->js->failed && rc == 0; i++) {
        struct seg_entry e;
        struct verr why = {0};
        struct segwork *w;
        int found = entry_of(p->js, &cache, i, &e, &why);
        if (found < 0)
            job_fail_why(p->js, found, &why);
        if (found <= 0)
            continue;
        rc = line_take(&line, &w, err);
        if (rc < 0)
            break;
        w->js = p->js;
        w->entry = e;
        w->s.segment = i;
        line_go(&line, plan_task);
    }
    return line_end(&line, rc, err);
}

static int plan_job(struct round *r, struct jobstate *js, struct verr *err)
{
    char name[32];
    struct planning p = {.js = js};
    struct verr note = {0};
    round_file(name, "plan", js->index);
    int rc = seqout_open(&p.plan, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc;
    r->parent_snap = NULL;
    if (!vid_is_zero(&js->job->parent.snap) &&
        snap_open(r->env->store, r->env->segread, &js->job->parent, &r->parent_snap,
                  &note) < 0) {
        r->parent_snap = NULL;      /* a disk is stored without its parent too, at a higher cost */
        round_note(r, "stage_1a", &note);
    }
    rc = plan_segments(r, &p, err);
    snap_close(r->parent_snap);
    r->parent_snap = NULL;
    if (rc < 0) {
        seqout_drop(&p.plan);
        return rc;
    }
    return seqout_close(&p.plan, err);
}

int stage_1a(struct round *r, struct verr *err)
{
    int rc = 0;
    for (unsigned j = 0; j < r->njobs && rc == 0; j++)
        if (!r->js[j].failed)
            rc = plan_job(r, &r->js[j], err);
    return rc < 0 ? rc : send_requests_end(r, err);
}
