/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 3a, VM holder: sends the reference of each block it wrote and sealed to the slot of its fingerprint. Only shared
 * containers enter the index: a selective VM's blocks are its own.
 *
 * The plan of stage 1a knows at which position a block was asked, the result of 2b where it was written: both are read side by
 * side, record by record. A segment that 2b cut again has other blocks than were asked; their references go with their keys.
 */
#include "dedup/dedup_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <stdlib.h>

static uint64_t asked_at(const struct plan_seg *asked, uint32_t i, const struct plan_block *b)
{
    const struct plan_block *a = &asked->b[i];
    bool same = asked->kind == PLAN_BLOCKS && i < asked->nblocks && a->kind == BLK_ASKED && a->len == b->len && fp_eq(&a->fp, &b->fp);
    return same ? a->ref : POS_NONE;
}

static int send_segment(struct round *r, const struct plan_seg *asked, const struct plan_seg *s, struct verr *err)
{
    int rc = 0;
    for (uint32_t i = 0; s->kind == PLAN_BLOCKS && i < s->nblocks && rc == 0; i++) {
        const struct plan_block *b = &s->b[i];
        if (b->kind == BLK_OWN && round_owns(r, &b->fp))
            rc = send_reference(r, &b->fp, asked_at(asked, i, b), b->ref, err);
    }
    return rc;
}

static int open_log(struct round *r, const struct jobstate *js, const char *what, struct seqin *in, struct verr *err)
{
    char name[32];
    round_file(name, what, js->index);
    int rc = seqin_open(in, r->dirfd, name, r->mem.file, err);
    return rc == -ENOENT ? verr_set(err, ENOENT, "%s is gone from the round's directory", name) : rc;
}

static int send_job(struct round *r, const struct jobstate *js, struct plan_seg *asked, struct verr *err)
{
    struct seqin plan = {.buf = NULL}, result = {.buf = NULL};
    int rc = open_log(r, js, "plan", &plan, err);
    if (rc == 0)
        rc = open_log(r, js, "result", &result, err);
    while (rc == 0 && (rc = plan_get(&result, r->cur, js->seed, r->rec, err)) > 0) {
        rc = plan_get(&plan, asked, js->seed, r->rec, err);
        if (rc == 0 || (rc > 0 && asked->segment != r->cur->segment))
            rc = verr_set(err, EBADMSG, "the round's logs of this disk do not agree");
        if (rc > 0)
            rc = send_segment(r, asked, r->cur, err);
    }
    seqin_close(&plan);
    seqin_close(&result);
    return rc;
}

int stage_3a(struct round *r, struct verr *err)
{
    struct plan_seg asked = {.b = calloc(PLAN_BLOCKS_MAX, sizeof *asked.b)};
    int rc = asked.b == NULL ? verr_set(err, ENOMEM, "no memory for the segments of a round") : answers_rewind(&r->answers, err);
    for (unsigned j = 0; j < r->njobs && rc == 0; j++)
        if (!r->js[j].failed && !r->js[j].job->selective)
            rc = send_job(r, &r->js[j], &asked, err);
    free(asked.b);
    return rc < 0 ? rc : send_references_end(r, err);
}
