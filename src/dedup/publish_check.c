/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish_check: the part of stage 4b that makes all earlier answers mere hints. It runs inside the lease, after the deletion log
 * was read, and checks each reference in the dirty segments of a disk, in order of containers. A block that is not sealed, live,
 * uncondemned and of the right content goes on a list, which complete_segment reads in order of segments.
 *
 * A whole segment that equals the parent's is checked block by block too: its segment recipe may be younger than its blocks,
 * so that a collection may condemn the blocks first.
 */
#include "dedup/dedup_internal.h"

#include "base/extsort.h"
#include "base/verr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* check record: ref be64 | position be64 | len le32 | how u8 | fingerprint 32 ; bad record: position be64 */
enum { CHECK_BYTES = 53, BAD_BYTES = 8, BLOCK_BITS = 16 };
enum { HOW_FP = 1, HOW_PREFIX, HOW_PLACE };

struct bad_list { struct extsort *xs; bool pending; uint64_t pos; };


static int add_check(struct extsort *xs, uint64_t ref, uint64_t index, uint32_t block, uint32_t len, uint8_t how, const struct fp *fp,
                     struct verr *err)
{
    uint8_t rec[CHECK_BYTES];
    put_be64(rec, ref);
    put_be64(rec + 8, index << BLOCK_BITS | block);
    put_le32(rec + 16, len);
    rec[20] = how;
    memcpy(rec + 21, fp->b, FP_BYTES);
    return extsort_add(xs, rec, err);
}

static int add_bad(struct bad_list *bad, uint64_t pos, struct verr *err)
{
    uint8_t rec[BAD_BYTES];
    put_be64(rec, pos);
    return extsort_add(bad->xs, rec, err);
}

/* ---- collecting ---- */

static int collect_blocks(struct round *r, struct extsort *xs, struct plan_seg *s, uint64_t index, bool check_own, struct verr *err)
{
    int rc = resolve_waiting(r, s, err);
    for (uint32_t i = 0; rc == 0 && i < s->nblocks; i++) {
        const struct plan_block *b = &s->b[i];
        if (b->kind == BLK_ZERO || b->kind == BLK_NEW || (b->kind == BLK_OWN && !check_own))
            continue;
        rc = add_check(xs, b->ref, index, i, b->len, HOW_FP, &b->fp, err);
    }
    return rc;
}

static int collect_same(struct round *r, struct extsort *xs, struct bad_list *bad, const struct plan_seg *s, uint64_t index,
                        struct verr *err)
{
    struct segrcp rcp;
    struct fp fp;
    struct verr why = {0};
    struct segread_sound sound = {REF_NONE, 0};
    int rc = segread_check(r->env->segread, s->place, &sound, &why);
    if (rc >= 0)
        rc = segread_recipe(r->env->segread, s->place, &rcp, &why);
    if (rc == -ENOMEM)
        return verr_set(err, ENOMEM, "%s", verr_str(&why));
    if (rc < 0)
        return add_bad(bad, index << BLOCK_BITS | BAD_WHOLE, err);
    memset(&fp, 0, sizeof fp);
    rc = add_check(xs, s->place, index, BAD_WHOLE, 0, HOW_PLACE, &fp, err);
    uint32_t n = 0;
    for (uint32_t i = 0; i < rcp.nruns && rc == 0; i++) {
        const struct segrcp_run *run = &rcp.runs[i];
        for (uint32_t k = 0; run->ref != REF_ZERO && k < run->count && rc == 0; k++, n++) {
            put_le32(fp.b, rcp.prefix[n]);
            rc = add_check(xs, run->ref + k, index, BAD_WHOLE, rcp.len1[n] + 1u, HOW_PREFIX, &fp, err);
        }
    }
    segrcp_release(&rcp);
    return rc;
}

static int collect(struct round *r, const struct jobstate *js, struct extsort *xs, struct bad_list *bad, bool check_own, struct verr *err)
{
    struct seqin in;
    char name[32];
    uint64_t index = 0;
    round_file(name, "result", js->index);
    int rc = seqin_open(&in, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc == -ENOENT ? verr_set(err, ENOENT, "%s is gone from the round's directory", name) : rc;
    rc = answers_rewind(&r->answers, err);
    while (rc >= 0 && (rc = plan_get(&in, r->cur, js->seed, r->rec, err)) > 0) {
        rc = 0;
        if (r->cur->kind == PLAN_SAME)
            rc = collect_same(r, xs, bad, r->cur, index, err);
        else if (r->cur->kind == PLAN_BLOCKS)
            rc = collect_blocks(r, xs, r->cur, index, check_own, err);
        if (rc < 0)
            break;
        index++;
    }
    seqin_close(&in);
    return rc;
}

/* ---- checking ---- */

/* 1: good, 0: bad, -errno. A damaged or missing container is an answer (bad); an error of device or memory is -errno. */
static int look(int rc, struct verr *why, struct verr *err)
{
    if (rc >= 0)
        return rc;
    if (rc == -EBADMSG || rc == -ENODATA || rc == -ENOENT || rc == -EINVAL || rc == -ENOTSUP)
        return 0;
    return verr_set(err, -rc, "publish check: %s", verr_str(why));
}

static int check_one(struct round *r, struct commit *c, const uint8_t rec[CHECK_BYTES], struct verr *err)
{
    uint64_t ref = get_be64(rec);
    uint32_t len = get_le32(rec + 16);
    struct verr why = {0};
    struct fp fp;
    memcpy(fp.b, rec + 21, FP_BYTES);
    if (!ref_is_block(ref))
        return 0;
    if (rec[20] != HOW_FP) {
        /* Only a prefix of the fingerprint is known, or nothing: the footer says whether the block is sealed and live, commit_check
         * whether it is condemned. */
        struct footer_entry e;
        int rc = creader_entries(r->env->reader, ref, 1, &e, &why);
        if (rc < 0)
            return look(rc, &why, err);
        if (rec[20] == HOW_PREFIX && (e.len != len || memcmp(e.fp.b, fp.b, 4) != 0))
            return 0;
        fp = e.fp;
        len = e.len;
    }
    return look(commit_check(c, r->env->reader, ref, &fp, len, &why), &why, err);
}

static int check_all(struct round *r, struct commit *c, struct extsort *xs, struct bad_list *bad, struct verr *err)
{
    uint8_t rec[CHECK_BYTES], last[CHECK_BYTES];
    uint64_t container = REF_NONE;
    int good = -1, rc = extsort_sorted(xs, err);
    if (rc < 0)
        return rc;
    while ((rc = extsort_next(xs, rec, err)) > 0) {
        if (ref_container(get_be64(rec)) != container) {
            container = ref_container(get_be64(rec));
            creader_forget(r->env->reader, container);      /* so that the footer is read after the deletion log was */
        }
        /* References to a popular block follow each other: the footer is read once for all of them. */
        if (good < 0 || memcmp(rec, last, 8) != 0 || memcmp(rec + 16, last + 16, CHECK_BYTES - 16) != 0) {
            good = check_one(r, c, rec, err);
            if (good < 0)
                return good;
            memcpy(last, rec, sizeof last);
        }
        if (good == 0) {
            rc = add_bad(bad, get_be64(rec + 8), err);
            if (rc < 0)
                return rc;
        }
    }
    return rc;
}

int publish_check(struct round *r, const struct jobstate *js, struct commit *c, bool check_own, struct bad_list **out, struct verr *err)
{
    struct bad_list *bad = calloc(1, sizeof *bad);
    if (bad == NULL)
        return verr_set(err, ENOMEM, "no memory for the publish check");
    struct extsort *xs = NULL;
    int rc = -ENOMEM;
    bad->xs = extsort_new(r->dirfd, BAD_BYTES, BAD_BYTES, r->mem.sort_small, err);
    if (bad->xs != NULL)
        xs = extsort_new(r->dirfd, CHECK_BYTES, 8, r->mem.sort, err);
    if (xs == NULL) {
        rc = err != NULL && err->code != 0 ? -err->code : -ENOMEM;
        goto out;
    }
    rc = collect(r, js, xs, bad, check_own, err);
    if (rc == 0)
        rc = check_all(r, c, xs, bad, err);
    if (rc == 0)
        rc = extsort_sorted(bad->xs, err);
out:
    extsort_free(xs);
    if (rc < 0) {
        bad_free(bad);
        return rc;
    }
    *out = bad;
    return 0;
}

int bad_next(struct bad_list *bad, uint64_t index, uint32_t *block, struct verr *err)
{
    if (!bad->pending) {
        uint8_t rec[BAD_BYTES];
        int rc = extsort_next(bad->xs, rec, err);
        if (rc <= 0)
            return rc;
        bad->pos = get_be64(rec);
        bad->pending = true;
    }
    if (bad->pos >> BLOCK_BITS != index)
        return 0;
    *block = (uint32_t)(bad->pos & ((1u << BLOCK_BITS) - 1));
    bad->pending = false;
    return 1;
}

void bad_free(struct bad_list *bad)
{
    if (bad == NULL)
        return;
    extsort_free(bad->xs);
    free(bad);
}
