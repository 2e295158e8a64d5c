/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 3a, VM holder: sends key and reference of each block it wrote and sealed to the slot of its fingerprint. Only
 * shared containers enter the index: a selective VM's blocks are its own.
 */
#include "dedup/dedup_internal.h"

#include "base/verr.h"

#include <errno.h>

static int send_job(struct round *r, const struct jobstate *js, struct verr *err)
{
    struct seqin in;
    char name[32];
    round_file(name, "result", js->index);
    int rc = seqin_open(&in, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc == -ENOENT ? verr_set(err, ENOENT, "%s is gone from the round's directory", name) : rc;
    while ((rc = plan_get(&in, r->cur, js->seed, r->rec, err)) > 0) {
        rc = 0;
        for (uint32_t i = 0; r->cur->kind == PLAN_BLOCKS && i < r->cur->nblocks && rc == 0; i++) {
            const struct plan_block *b = &r->cur->b[i];
            if (b->kind == BLK_OWN && round_owns(r, &b->fp))
                rc = send_reference(r, &b->fp, b->ref, err);
        }
        if (rc < 0)
            break;
    }
    seqin_close(&in);
    return rc;
}

int stage_3a(struct round *r, struct verr *err)
{
    int rc = 0;
    for (unsigned j = 0; j < r->njobs && rc == 0; j++)
        if (!r->js[j].failed && !r->js[j].job->selective)
            rc = send_job(r, &r->js[j], err);
    return rc < 0 ? rc : send_references_end(r, err);
}
