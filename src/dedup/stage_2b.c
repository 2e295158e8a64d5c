/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 2b, VM holder: reads dirty segments a second time and appends their new blocks, in disk order, to the VM's own
 * containers; then seals. Leaves result-J: the plan with the answers applied. A block whose answer is missing is new.
 *
 * Disks of one VM that follow each other share a writer, so that one container is never open twice. A writer that fails
 * fails every disk that wrote through it: none of their references is sealed.
 */
#include "dedup/dedup_internal.h"

#include "base/fault.h"
#include "base/verr.h"

#include <errno.h>
#include <string.h>

/* Applies the answers to the blocks that were asked. */
static int apply_answers(struct round *r, struct plan_seg *s, struct verr *err)
{
    for (uint32_t i = 0; s->kind == PLAN_BLOCKS && i < s->nblocks; i++) {
        struct plan_block *b = &s->b[i];
        uint64_t ref;
        if (b->kind != BLK_ASKED)
            continue;
        int rc = answers_get(&r->answers, storeconf_partition(r->conf, b->fp.b), b->ref, &ref, err);
        if (rc < 0)
            return rc;
        if (ref == ANSWER_WAIT) {
            b->kind = BLK_WAIT;
        } else {
            b->kind = ref_is_block(ref) ? BLK_GLOBAL : BLK_NEW;
            b->ref = ref;
        }
    }
    return 0;
}

static bool same_writer(const struct jobstate *a, const struct jobstate *b)
{
    return vid_eq(&a->job->vm, &b->job->vm) && a->job->selective == b->job->selective;
}

/* Seals the container that the disks first..end wrote through w, and frees w. Bytes that reach the file only now count for the last
 * of these disks. */
static void seal_group(struct round *r, struct cwriter *w, unsigned first, unsigned end)
{
    struct verr why = {0};
    uint64_t before = cwriter_stored(w);
    struct jobstate *last = NULL;
    int rc = cwriter_seal(w, &why);
    if (rc < 0)
        rc = verr_prefix(&why, -rc, "sealing new blocks in the store");
    for (unsigned j = first; j < end; j++) {
        struct jobstate *js = &r->js[j];
        if (js->failed || !js->wrote)
            continue;
        last = js;
        if (rc < 0)
            job_fail_why(js, rc, &why);
    }
    if (rc == 0 && last != NULL) {
        last->stored += cwriter_stored(w) - before;
        job_last_blocks(r, last, cwriter_container(w));
    }
    cwriter_free(w);
    fault_point("dedup.2b.after_seal");
}

struct backing_up { struct jobstate *js; struct cwriter *cw; struct seqout *result; };

/* On the pool. */
static void prepare_task(struct pool_task *task)
{
    struct segwork *w = (struct segwork *)task;
    w->rc = seg_prepare_new(w, &w->err);
}

/* Called in disk order: writes the segment's new blocks into the container, and the segment into result-J. */
static int use_prepared(void *ctx, struct segwork *w, struct verr *err)
{
    struct backing_up *b = ctx;
    struct round *r = w->r;
    if (b->js->failed)
        return 0;
    if (w->rc == 0 && seg_has(&w->s, BLK_NEW))
        w->rc = seg_append_new(w, b->cw, NULL, &w->err);
    if (w->rc < 0) {
        job_fail_why(b->js, w->rc, &w->err);
        return 0;
    }
    int rc = plan_put(b->result, &w->s, b->js->seed, r->rec, err);
    return rc < 0 ? rc : round_progress(r, "stage_2b", w->s.bytes, err);
}

static int back_up_job(struct round *r, struct backing_up *b, struct seqin *plan, struct verr *err)
{
    struct jobstate *js = b->js;
    struct line line = {.r = r, .use = use_prepared, .ctx = b};
    uint64_t before = cwriter_stored(b->cw);
    int rc = 0;
    while (!js->failed) {
        struct segwork *w;
        rc = line_take(&line, &w, err);
        if (rc == 0)
            rc = plan_get(plan, &w->s, js->seed, r->rec, err);
        if (rc <= 0)
            break;
        rc = apply_answers(r, &w->s, err);
        if (rc < 0)
            break;
        w->js = js;
        bool new = seg_has(&w->s, BLK_NEW);
        js->wrote = js->wrote || new;
        line_go(&line, new ? prepare_task : NULL);
    }
    rc = line_end(&line, rc < 0 ? rc : 0, err);
    js->stored += cwriter_stored(b->cw) - before;
    return rc;
}

static int back_up_files(struct round *r, struct jobstate *js, struct cwriter *w, struct verr *err)
{
    char name[32];
    struct seqin plan;
    struct seqout result;
    round_file(name, "plan", js->index);
    int rc = seqin_open(&plan, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc == -ENOENT ? verr_set(err, ENOENT, "%s is gone from the round's directory", name) : rc;
    round_file(name, "result", js->index);
    rc = seqout_open(&result, r->dirfd, name, r->mem.file, err);
    if (rc == 0) {
        struct backing_up b = {js, w, &result};
        rc = back_up_job(r, &b, &plan, err);
        int rc2 = seqout_close(&result, rc == 0 ? err : NULL);
        if (rc == 0)
            rc = rc2;
    }
    seqin_close(&plan);
    return rc;
}

static struct cwriter *open_group(struct round *r, struct jobstate *js)
{
    struct cwriter *w;
    int rc = cwriter_open(r->env->store, CONTAINER_BLOCKS, job_flags(js), js->job->last_blocks, &w, js->job->err);
    if (rc == 0) {
        cwriter_use_pool(w, r->env->pool);
        return w;
    }
    job_fail(js, verr_prefix(js->job->err, -rc, "opening a container in the store"));
    return NULL;
}

int stage_2b(struct round *r, struct verr *err)
{
    struct cwriter *w = NULL;
    unsigned first = 0;
    int rc = answers_rewind(&r->answers, err);
    for (unsigned j = 0; j < r->njobs && rc == 0; j++) {
        struct jobstate *js = &r->js[j];
        if (js->failed)
            continue;
        if (w != NULL && !same_writer(&r->js[first], js)) {
            seal_group(r, w, first, j);
            w = NULL;
        }
        if (w == NULL) {
            first = j;
            w = open_group(r, js);
            if (w == NULL)
                continue;
        }
        rc = back_up_files(r, js, w, err);
        if (rc == 0 && js->failed) {    /* the writer itself may have failed: it is not used any further */
            seal_group(r, w, first, j);
            w = NULL;
        }
    }
    if (w != NULL && rc == 0)
        seal_group(r, w, first, r->njobs);
    else
        cwriter_free(w);
    return rc;
}
