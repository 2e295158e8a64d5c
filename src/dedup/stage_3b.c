/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 3b, slot owner: the references of new blocks, sorted by key, become one delta of the index; merged with the
 * dup-with-new log, which is in order of keys already, they give the resolutions. Leaves resolved-SSSS.
 *
 * The delta is durable before a resolution is sent. A slot that fails here loses its delta, which costs space, not data.
 */
#include "dedup/dedup_internal.h"

#include "base/extsort.h"
#include "base/fault.h"
#include "base/verr.h"

#include <errno.h>
#include <string.h>

enum { REF_REC = FPKEY_BYTES + 8 };

int owner_reference(struct round *r, uint32_t slot, const uint8_t key[FPKEY_BYTES], uint64_t ref, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    uint8_t rec[REF_REC];
    if (!ref_is_block(ref))
        return verr_set(err, EPROTO, "a new-block reference that is none");
    memcpy(rec, key, FPKEY_BYTES);
    put_be64(rec + FPKEY_BYTES, ref);
    if (os->refs == NULL) {
        /* The sort key is the whole record, so that the same reference of a key wins in any order of arrival. */
        os->refs = extsort_new(r->dirfd, REF_REC, REF_REC, r->mem.sort_slot, err);
        if (os->refs == NULL)
            return -ENOMEM;
    }
    os->nrefs++;
    return extsort_add(os->refs, rec, err);
}

struct resolver {
    struct seqin in;                /* dupnew */
    uint8_t head[REQ_BYTES];
    bool have;
    struct extsort *out;
};

static int next_dup(struct resolver *v, struct verr *err)
{
    int rc = seqin_get(&v->in, v->head, REQ_BYTES, err);
    v->have = rc > 0;
    return rc < 0 ? rc : 0;
}

static int resolve_one(struct round *r, struct resolver *v, uint64_t ref, struct verr *err)
{
    uint8_t rec[RESOLVED_BYTES];
    uint32_t part = htobe32(storeconf_partition(r->conf, v->head));
    memcpy(rec, &part, 4);
    memcpy(rec + 4, v->head + FPKEY_BYTES, 8);
    put_be64(rec + 12, ref);
    int rc = extsort_add(v->out, rec, err);
    return rc < 0 ? rc : next_dup(v, err);
}

/* Resolves all requests for this key with ref, and those for smaller keys with REF_NONE: their designated writer failed. */
static int resolve_key(struct round *r, struct resolver *v, const uint8_t *key, uint64_t ref, struct verr *err)
{
    int rc = 0, order;
    while (rc == 0 && v->have && (order = memcmp(v->head, key, FPKEY_BYTES)) <= 0)
        rc = resolve_one(r, v, order == 0 ? ref : REF_NONE, err);
    return rc;
}

static int merge_references(struct round *r, uint32_t slot, struct resolver *v, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    struct fpdelta *delta = NULL;
    uint8_t rec[REF_REC], last[FPKEY_BYTES];
    bool any = false;
    int rc = os->refs == NULL ? 0 : extsort_sorted(os->refs, err);
    if (rc == 0)
        rc = fpdelta_begin(os->ix, &delta, err);
    while (rc == 0 && os->refs != NULL && (rc = extsort_next(os->refs, rec, err)) > 0) {
        rc = 0;
        if (any && memcmp(rec, last, FPKEY_BYTES) == 0)
            continue;
        any = true;
        memcpy(last, rec, FPKEY_BYTES);
        uint64_t ref = get_be64(rec + FPKEY_BYTES);
        rc = fpdelta_add(delta, rec, ref, err);
        if (rc == 0)
            rc = resolve_key(r, v, rec, ref, err);
    }
    while (rc == 0 && v->have)
        rc = resolve_one(r, v, REF_NONE, err);
    if (rc < 0) {
        fpdelta_abort(delta);
        return rc;
    }
    rc = fpdelta_commit(delta, err);
    fault_point("dedup.3b.after_delta");
    return rc;
}

static int write_resolved(struct round *r, uint32_t slot, struct resolver *v, struct verr *err)
{
    char name[32];
    uint8_t rec[RESOLVED_BYTES];
    struct seqout out;
    int rc = extsort_sorted(v->out, err);
    if (rc < 0)
        return rc;
    round_file(name, "resolved", slot);
    rc = seqout_open(&out, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc;
    while ((rc = extsort_next(v->out, rec, err)) > 0 && (rc = seqout_put(&out, rec, sizeof rec, err)) == 0)
        continue;
    int closed = seqout_close(&out, rc == 0 ? err : NULL);
    return rc < 0 ? rc : closed;
}

static int update_slot(struct round *r, uint32_t slot, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    struct resolver v = {.have = false};
    int rc = seqin_over(&v.in, &os->dupnew, r->mem.file, err);
    if (rc == 0)
        rc = next_dup(&v, err);
    if (rc == 0) {
        v.out = extsort_new(r->dirfd, RESOLVED_BYTES, 12, r->mem.sort_half, err);
        rc = v.out == NULL ? -ENOMEM : merge_references(r, slot, &v, err);
    }
    if (rc == 0)
        rc = write_resolved(r, slot, &v, err);
    seqin_close(&v.in);
    seqout_discard(&os->dupnew);
    extsort_free(v.out);
    extsort_free(os->refs);
    os->refs = NULL;
    os->nrefs = 0;
    if (rc < 0)
        return rc;
    struct verr why = {0};      /* a failed merge is no error: a later round merges these deltas */
    if (fpindex_merge(os->ix, false, r->mem.index, &why) < 0)
        round_note(r, "stage_3b", &why);
    return 0;
}

int stage_3b(struct round *r, struct verr *err)
{
    int rc = references_complete(r, err);
    for (uint32_t s = 0; s < r->nslots && rc == 0; s++) {
        struct verr why = {0};
        if (!r->slots[s].dead && update_slot(r, s, &why) < 0)
            slot_give_up(r, s, "stage_3b", &why);
    }
    return rc;
}
