/* SPDX-License-Identifier: Apache-2.0 */
/*
 * segment: what stages 1a, 2b and 4b do with one segment of a frozen disk: read it, cut it, fingerprint it, write its new
 * blocks. The three reads must see the same bytes, because a frozen layer is immutable. A segment that differs is cut again
 * and all of its blocks are new: a wrong fingerprint in a footer would give other disks wrong data.
 */
#include "dedup/dedup_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <string.h>

int seg_load(struct segwork *w, uint32_t *bytes, struct verr *err)
{
    const struct dedup_job *job = w->js->job;
    uint64_t segment = w->s.segment, off = segment << SEG_SHIFT, left = job->pend.size - off;
    size_t want = left < SEG_BYTES ? (size_t)left : SEG_BYTES;
    ssize_t got = live_pending_read(job->live, job->pend.ref.seq, off, w->seg, want, err);
    if (got < 0)
        return verr_prefix(err, (int)-got, "reading segment %llu of the frozen disk", (unsigned long long)segment);
    if ((size_t)got != want)
        return verr_set(err, EIO, "reading segment %llu of the frozen disk: %zu bytes expected, %zd there",
                        (unsigned long long)segment, want, got);
    *bytes = (uint32_t)want;
    return 0;
}

int entries_get(struct entries *c, const struct dedup_job *job, uint64_t segment, struct seg_entry *out, struct verr *err)
{
    uint64_t first = segment / PEND_ENTRIES * PEND_ENTRIES;
    if (!c->any || c->first != first) {
        c->any = false;
        int rc = live_pending_entries(job->live, job->pend.ref.seq, first, c->e, err);
        if (rc < 0)
            return rc;
        c->any = true;
        c->first = first;
    }
    *out = c->e[segment - first];
    return 0;
}

int seg_prepare_new(struct segwork *w, struct verr *err)
{
    struct plan_seg *s = &w->s;
    uint32_t bytes;
    int rc = seg_load(w, &bytes, err);
    if (rc < 0)
        return rc;
    if (bytes != s->bytes)
        return verr_set(err, EIO, "segment %llu of the frozen disk changed its length", (unsigned long long)s->segment);
    return level_confirm(w->level, w->seg, s, err);
}

int seg_append_new(struct segwork *w, struct cwriter *cw, struct extsort **late, struct verr *err)
{
    uint32_t off = 0;
    for (uint32_t i = 0; i < w->s.nblocks; i++) {
        struct plan_block *b = &w->s.b[i];
        if (b->kind == BLK_NEW) {
            int rc = cwriter_append(cw, &b->fp, w->seg + off, b->len, &b->ref, err);
            if (rc < 0)
                return verr_prefix(err, -rc, "writing new blocks to the store");
            b->kind = BLK_OWN;
            if (late != NULL)
                late_add(w->r, w->js, late, b);
        }
        off += b->len;
    }
    return 0;
}

bool seg_has(const struct plan_seg *s, enum blk_kind kind)
{
    if (s->kind == PLAN_BLOCKS)
        for (uint32_t i = 0; i < s->nblocks; i++)
            if (s->b[i].kind == kind)
                return true;
    return false;
}

int resolve_waiting(struct round *r, struct plan_seg *s, struct verr *err)
{
    for (uint32_t i = 0; s->kind == PLAN_BLOCKS && i < s->nblocks; i++) {
        struct plan_block *b = &s->b[i];
        uint64_t ref;
        if (b->kind != BLK_WAIT)
            continue;
        int rc = answers_get(&r->answers, storeconf_partition(r->conf, b->fp.b), b->ref, &ref, err);
        if (rc < 0)
            return rc;
        b->kind = ref_is_block(ref) ? BLK_RESOLVED : BLK_NEW;
        b->ref = ref_is_block(ref) ? ref : REF_NONE;
    }
    return 0;
}
