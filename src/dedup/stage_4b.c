/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 4b, VM holder: takes the resolutions, then completes and publishes one disk after another.
 *
 * Order per disk: lease and deletion log (commit_begin) -> publish check of every reference (publish_check.c) -> refused blocks
 * are read a third time and written as new ones -> segment recipes -> block container sealed -> recipe container sealed ->
 * recipe staged (commit_stage) -> gate: may it still be published? -> commit_publish. When the lease is revoked, all of this is done
 * again, a bounded number of times. At the end the blocks written here enter the index (late.c).
 */
#include "dedup/dedup_internal.h"

#include "base/extsort.h"
#include "base/fault.h"
#include "base/verr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PUBLISH_ATTEMPTS = 3 };

struct completion {
    struct round *r;
    struct jobstate *js;
    struct commit *commit;
    struct cwriter *blocks;         /* opened with the first block that must be written here */
    struct cwriter *recipes;
    struct bad_list *bad;
    struct extsort *late;           /* the blocks written through `blocks` */
    struct snap_levels lv;
    struct segrcp *rcp;             /* scratch */
    bool revoked;
    struct segread_sound sound;
    uint64_t lost;                  /* clean segments that STORE does not have any more */
};

/* ---- one segment recipe ---- */

static void add_run(struct segrcp *rcp, uint64_t ref, uint32_t count)
{
    struct segrcp_run *last = rcp->nruns > 0 ? &rcp->runs[rcp->nruns - 1] : NULL;
    if (last != NULL && ref == REF_ZERO && last->ref == REF_ZERO) {
        last->count += count;
    } else if (last != NULL && ref != REF_ZERO && last->ref != REF_ZERO && last->ref + last->count == ref &&
               ref_container(ref) == ref_container(last->ref)) {
        last->count++;
    } else {
        rcp->runs[rcp->nruns++] = (struct segrcp_run){ref, count};
    }
}

static int build_recipe(struct completion *c, const struct plan_seg *s, struct verr *err)
{
    struct segrcp *rcp = c->rcp;
    rcp->bytes = s->bytes;
    rcp->nruns = rcp->nblocks = 0;
    rcp->data_pages = s->data_pages;
    memcpy(rcp->digest, s->digest, DIGEST_BYTES);
    for (uint32_t i = 0; i < s->nblocks; i++) {
        const struct plan_block *b = &s->b[i];
        if (b->kind == BLK_ZERO) {
            add_run(rcp, REF_ZERO, b->len);
            continue;
        }
        if (!ref_is_block(b->ref) || rcp->nblocks == SEGRCP_BLOCKS_MAX)
            return verr_set(err, EBADMSG, "segment %llu: block %u has no reference", (unsigned long long)s->segment, i);
        add_run(rcp, b->ref, 1);
        rcp->len1[rcp->nblocks] = (uint16_t)(b->len - 1);
        rcp->prefix[rcp->nblocks++] = get_le32(b->fp.b);
    }
    return 0;
}

static int store_recipe(struct completion *c, const struct plan_seg *s, uint64_t *place, struct verr *err)
{
    struct round *r = c->r;
    int rc = build_recipe(c, s, err);
    if (rc < 0)
        return rc;
    int len = segrcp_encode(c->rcp, r->blob, SEGRCP_BYTES_MAX);
    if (len < 0)
        return verr_set(err, -len, "segment %llu: its recipe cannot be encoded (%u blocks)", (unsigned long long)s->segment,
                        c->rcp->nblocks);
    struct fp fp;
    struct fp_job job = {r->blob, (size_t)len, &fp};
    rc = fper_batch(level_fper(r->work[0].level), &job, 1, err);
    if (rc < 0)
        return rc;
    rc = cwriter_append(c->recipes, &fp, r->blob, (size_t)len, place, err);
    return rc < 0 ? verr_prefix(err, -rc, "writing segment recipes to the store") : 0;
}

/* ---- one dirty segment ---- */

static void count_segment(struct snap_levels *lv, const struct plan_seg *s)
{
    if (s->kind == PLAN_ZERO)
        lv->zero += s->bytes;
    if (s->kind == PLAN_SAME)
        lv->parent_segment += s->bytes;
    for (uint32_t i = 0; s->kind == PLAN_BLOCKS && i < s->nblocks; i++) {
        uint32_t len = s->b[i].len;
        switch ((enum blk_kind)s->b[i].kind) {
        case BLK_ZERO: lv->zero += len; break;
        case BLK_PARENT: lv->parent_block += len; break;
        case BLK_COMMON: lv->common += len; break;
        case BLK_GLOBAL: lv->global += len; break;
        case BLK_RESOLVED: lv->dup_new += len; break;
        default: lv->fresh += len; break;
        }
    }
}

/* Marks blocks that the publish check refused as new. *whole: the whole segment was refused; seg_prepare_new cuts it again. */
static int apply_bad(struct completion *c, struct plan_seg *s, uint64_t index, bool *whole, struct verr *err)
{
    uint32_t i;
    int rc;
    *whole = false;
    while ((rc = bad_next(c->bad, index, &i, err)) > 0) {
        if (i == BAD_WHOLE || s->kind != PLAN_BLOCKS || i >= s->nblocks)
            *whole = true;
        else
            s->b[i].kind = BLK_NEW;
    }
    return rc;
}

static int write_missing(struct completion *c, struct plan_seg *s, bool whole, struct verr *err)
{
    if (!whole && !seg_has(s, BLK_NEW))
        return 0;
    struct jobstate *js = c->js;
    if (c->blocks == NULL) {
        int rc = cwriter_open(c->r->env->store, CONTAINER_BLOCKS, job_flags(js), js->job->last_blocks, &c->blocks, err);
        if (rc < 0)
            return verr_prefix(err, -rc, "opening a container in the store");
    }
    if (whole)
        s->kind = PLAN_SAME;    /* not PLAN_BLOCKS: seg_prepare_new cuts it again */
    struct segwork *w = &c->r->work[0];     /* s is its segment */
    w->js = js;
    int rc = seg_prepare_new(w, err);
    return rc < 0 ? rc : seg_append_new(w, c->blocks, &c->late, err);
}

static int complete_segment(struct completion *c, struct plan_seg *s, uint64_t index, struct verr *err)
{
    bool whole;
    uint64_t place = s->place;
    int rc = resolve_waiting(c->r, s, err);
    if (rc == 0)
        rc = apply_bad(c, s, index, &whole, err);
    if (rc == 0)
        rc = write_missing(c, s, whole, err);
    if (rc == 0 && s->kind == PLAN_BLOCKS)
        rc = store_recipe(c, s, &place, err);
    if (rc < 0)
        return rc;
    count_segment(&c->lv, s);
    return commit_segment(c->commit, s->segment, s->kind == PLAN_ZERO, s->kind == PLAN_ZERO ? REF_ZERO : place, err);
}

/* ---- all segments of the disk ---- */

/*
 * A clean segment is what the live table says, and STORE may have been put back from an older copy since. The recipe keeps the place, so
 * that the segment is an error until that copy is replaced by a newer one; but a place that is another file's by now would show another
 * disk's bytes, and PLACE_OF_NONE, in a container that no host ever makes, stands for it. 0, or -errno of device or memory.
 */
#define PLACE_OF_NONE ref_make(0, 1)
static int clean_place(struct completion *c, uint64_t *place, struct verr *err)
{
    struct verr why = {0};
    int rc = segread_check(c->r->env->segread, *place, &c->sound, &why);
    if (rc == 0)
        return 0;
    if (rc != -ENODATA && rc != -ENOENT && rc != -EBADMSG && rc != -ENOTSUP && rc != -ESTALE)
        return verr_set(err, -rc, "%s", verr_str(&why));
    if (rc == -ESTALE)
        *place = PLACE_OF_NONE;
    if (c->lost++ == 0)
        round_note(c->r, "stage_4b", &why);
    return 0;
}

/* A snapshot that lacks some of its segments says so, before it is published and for good. */
static int mark_lost(struct completion *c, struct verr *err)
{
    struct dedup_job *job = c->js->job;
    if (c->lost == 0)
        return 0;
    job->recipe.info.flags |= SNAP_PARTIAL;
    int rc = live_pending_update(job->live, job->pend.ref.seq, SNAP_PARTIAL, 0, NULL, err);
    return rc < 0 ? verr_prefix(err, -rc, "marking a snapshot whose segments are lost") : 0;
}

static int clean_segment(struct completion *c, const struct seg_entry *e, uint64_t segment, struct verr *err)
{
    uint64_t left = c->js->job->pend.size - (segment << SEG_SHIFT);
    uint64_t bytes = left < SEG_BYTES ? left : SEG_BYTES;
    if (e->kind == SEGK_FROZEN)
        return verr_set(err, EINVAL, "segment %llu still waits for an older snapshot of this disk", (unsigned long long)segment);
    if (e->kind == SEGK_ZERO) {
        c->lv.zero += bytes;
        return commit_segment(c->commit, segment, true, REF_ZERO, err);
    }
    uint64_t place = e->place;
    int rc = clean_place(c, &place, err);
    c->lv.clean += bytes;
    return rc < 0 ? rc : commit_segment(c->commit, segment, false, place, err);
}

static int complete_segments(struct completion *c, struct seqin *result, struct verr *err)
{
    struct round *r = c->r;
    const struct dedup_job *job = c->js->job;
    struct entries cache = {.any = false};
    uint64_t index = 0;
    for (uint64_t i = 0; i < c->js->nsegs; i++) {
        struct seg_entry e;
        int rc = entries_get(&cache, job, i, &e, err);
        if (rc < 0)
            return rc;
        if (!e.dirty) {
            rc = clean_segment(c, &e, i, err);
        } else {
            rc = plan_get(result, r->cur, c->js->seed, r->rec, err);
            if (rc >= 0 && (rc == 0 || r->cur->segment != i))
                rc = verr_set(err, EBADMSG, "the round's log of this disk does not have segment %llu", (unsigned long long)i);
            if (rc > 0)
                rc = complete_segment(c, r->cur, index++, err);
            if (rc == 0 && round_progress(r, "stage_4b", r->cur->bytes, err) < 0) {
                r->stopped = true;
                rc = -EINTR;
            }
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Blocks before the recipes that name them; both before the snapshot recipe that names those. */
static int seal_both(struct completion *c, struct verr *err)
{
    struct dedup_job *job = c->js->job;
    if (c->blocks != NULL) {
        int rc = cwriter_seal(c->blocks, err);
        if (rc < 0)
            return verr_prefix(err, -rc, "sealing new blocks in the store");
        c->js->stored += cwriter_stored(c->blocks);
        late_keep(c->r, &c->late);
        job_last_blocks(c->r, c->js, cwriter_container(c->blocks));
    }
    int rc = cwriter_seal(c->recipes, err);
    if (rc < 0)
        return verr_prefix(err, -rc, "sealing segment recipes in the store");
    c->js->stored += cwriter_stored(c->recipes);
    if (cwriter_container(c->recipes) != REF_NONE) {
        job->last_recipes = cwriter_container(c->recipes);
        job_last_recipes(c->r, c->js, job->last_recipes);
    }
    return 0;
}

static void fill_header(const struct round *r, const struct jobstate *js, struct snaprcp *h)
{
    struct dedup_job *job = js->job;
    const struct snapinfo *p = &job->pend;
    struct snapinfo now;
    /* Flags and label are read as late as possible: the writer's release may come while the round runs, and a change that the recipe
     * does not hold needs a side file. */
    if (live_pending_by_seq(job->live, p->ref.seq, &now, NULL) == 0)
        job->pend = now;
    *h = (struct snaprcp){.info = *p, .store = r->conf->id, .vm = job->vm, .epoch = job->epoch};
    h->info.flags &= SNAP_RECIPE_FLAGS;
    h->info.parent = job->parent.snap;
    h->info.host = r->env->host;
    /* Some dirty segments may lie behind the end of the disk. */
    if (h->info.dirty_segments > seg_count(p->size))
        h->info.dirty_segments = seg_count(p->size);
}

static int complete_files(struct completion *c, struct verr *err)
{
    struct round *r = c->r;
    struct seqin result;
    char name[32];
    int rc = cwriter_open(r->env->store, CONTAINER_RECIPES, job_flags(c->js), c->js->job->last_recipes, &c->recipes, err);
    if (rc < 0)
        return verr_prefix(err, -rc, "opening a recipe container in the store");
    round_file(name, "result", c->js->index);
    rc = seqin_open(&result, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc == -ENOENT ? verr_set(err, ENOENT, "%s is gone from the round's directory", name) : rc;
    rc = answers_rewind(&r->answers, err);
    if (rc == 0)
        rc = complete_segments(c, &result, err);
    if (rc == 0)
        rc = mark_lost(c, err);
    seqin_close(&result);
    return rc < 0 ? rc : seal_both(c, err);
}

/* The commit point, between the two calls of the gate. A job that the gate refuses has left nothing but blocks that no recipe names. */
static int pass_gate(struct completion *c, struct verr *err)
{
    const struct dedup_env *env = c->r->env;
    int rc = env->gate == NULL ? 0 : env->gate->enter(env->gate->ctx, c->js->job, err);
    if (rc < 0)
        return rc == -ESTALE ? -ECANCELED : rc;     /* ESTALE would say that the lease was revoked */
    rc = commit_publish(c->commit, err);
    if (env->gate != NULL)
        env->gate->leave(env->gate->ctx, c->js->job);
    return rc;
}

/* One attempt under one lease. c->revoked: the lease was revoked before the link, try again. */
static int publish_once(struct completion *c, bool check_own, struct snaprcp *hdr, struct verr *err)
{
    int rc = commit_begin(c->r->env->store, hdr, &c->commit, err);
    if (rc < 0)
        return rc;
    check_own = check_own || generations_changed(c->r);
    rc = publish_check(c->r, c->js, c->commit, check_own, &c->bad, err);
    if (rc == 0)
        rc = complete_files(c, err);
    if (rc == 0) {
        hdr->info.levels = c->lv;
        hdr->info.levels.stored = c->js->stored;
        fault_point("dedup.4b.before_publish");
        rc = commit_stage(c->commit, hdr, err);
        if (rc == 0)
            rc = pass_gate(c, err);
        c->revoked = rc == -ESTALE;
        if (rc == 0)
            fault_point("dedup.4b.after_publish");
    }
    return rc;
}

static void completion_end(struct completion *c)
{
    bad_free(c->bad);
    extsort_free(c->late);
    cwriter_free(c->blocks);
    cwriter_free(c->recipes);
    if (c->commit != NULL)
        commit_abort(c->commit);
    c->bad = NULL;
    c->late = NULL;
    c->blocks = c->recipes = NULL;
    c->commit = NULL;
}

static int publish_job(struct round *r, struct jobstate *js, struct segrcp *rcp, struct verr *err)
{
    struct snaprcp *hdr = &js->job->recipe;
    bool again = true;
    int rc = -ESTALE;
    fill_header(r, js, hdr);
    for (unsigned attempt = 0; attempt < PUBLISH_ATTEMPTS && again; attempt++) {
        struct completion c = {.r = r, .js = js, .rcp = rcp, .sound = {REF_NONE, 0}};
        rc = publish_once(&c, attempt > 0, hdr, err);
        again = c.revoked;
        completion_end(&c);
    }
    return rc;
}

static struct segrcp *scratch_recipe(struct segrcp *rcp)
{
    memset(rcp, 0, sizeof *rcp);
    rcp->runs = malloc(SEGRCP_RUNS_MAX * sizeof *rcp->runs);
    rcp->len1 = malloc(SEGRCP_BLOCKS_MAX * sizeof *rcp->len1);
    rcp->prefix = malloc(SEGRCP_BLOCKS_MAX * sizeof *rcp->prefix);
    return rcp->runs != NULL && rcp->len1 != NULL && rcp->prefix != NULL ? rcp : NULL;
}

int stage_4b(struct round *r, struct verr *err)
{
    struct segrcp rcp;
    int rc = resolutions_complete(r, err);
    if (scratch_recipe(&rcp) == NULL && rc == 0)
        rc = verr_set(err, ENOMEM, "no memory for a segment recipe");
    for (unsigned j = 0; j < r->njobs && rc == 0; j++) {
        struct jobstate *js = &r->js[j];
        if (js->failed)
            continue;
        struct verr why = {0};      /* its own, so that an attempt that failed leaves no error when a later one succeeds */
        int one = publish_job(r, js, &rcp, &why);
        if (one == 0)
            js->job->result = 0;
        else
            job_fail_why(js, one, &why);
        js->published = one == 0;
        if (r->stopped)
            rc = verr_set(err, EINTR, "the round was stopped");
    }
    late_commit(r);
    free(rcp.runs);
    free(rcp.len1);
    free(rcp.prefix);
    return rc;
}
