/* SPDX-License-Identifier: Apache-2.0 */
/* level: compares a segment with its parent: first as a whole by keyed digest, then block by block by prefix and length. */
#include "level/level.h"

#include "base/endian.h"
#include "base/verr.h"
#include "chunk/chunk.h"
#include "chunk/fingerprint.h"
#include "format/storeconf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PARENT_TABLE = 4096 };       /* power of two, at least twice SEGRCP_BLOCKS_MAX */

struct parent {
    bool have;                      /* rcp is valid */
    struct segrcp rcp;
    uint64_t refs[SEGRCP_BLOCKS_MAX];
    uint16_t table[PARENT_TABLE];   /* block number + 1; 0 is empty */
};

struct level {
    struct segread *segread;
    const struct common_set *common;
    struct chunker chunker;
    struct fper *fper;
    struct parent parent;           /* of the segment under way */
    struct fp_job jobs[PLAN_BLOCKS_MAX];
};

struct level *level_new(const struct store_conf *conf, struct segread *segread, const struct common_set *common, struct verr *err)
{
    struct level *lv = calloc(1, sizeof *lv);
    if (lv == NULL) {
        verr_set(err, ENOMEM, "no memory to compute segments with");
        return NULL;
    }
    lv->segread = segread;
    lv->common = common;
    int rc = chunker_init(&lv->chunker, conf->cdc, conf->block_bytes);
    if (rc < 0)
        verr_set(err, -rc, "store.conf: blocks of %u bytes", conf->block_bytes);
    else
        lv->fper = fper_new((enum fp_kind)conf->fingerprint, conf->digest_key, err);
    if (lv->fper != NULL)
        return lv;
    level_free(lv);
    return NULL;
}

void level_free(struct level *lv)
{
    if (lv == NULL)
        return;
    fper_free(lv->fper);
    free(lv);
}

struct fper *level_fper(struct level *lv)
{
    return lv->fper;
}

/* ---- the parent ---- */

int level_parent(struct snap *parent, uint64_t segment, uint64_t *place, struct verr *err)
{
    bool zero = true;
    uint32_t pages;
    int rc = segment < seg_count(snap_header(parent)->info.size) ? snap_place(parent, segment, &zero, place, &pages, err) : 0;
    if (zero)
        *place = REF_NONE;
    return rc;
}

static uint32_t bucket(uint32_t prefix, uint32_t len)
{
    return ((prefix ^ len * 0x9e3779b1u) * 0x85ebca6bu) >> 20 & (PARENT_TABLE - 1);
}

static void parent_release(struct parent *p)
{
    if (p->have)
        segrcp_release(&p->rcp);
    p->have = false;
}

static void parent_load(struct level *lv, uint64_t place, struct verr *note)
{
    struct parent *p = &lv->parent;
    if (place == REF_NONE || segread_recipe(lv->segread, place, &p->rcp, note) < 0)
        return;
    p->have = true;
    if (p->rcp.nblocks > SEGRCP_BLOCKS_MAX)
        parent_release(p);
}

/* Lists the references of the parent's blocks, and makes a table that finds them by fingerprint prefix and length. */
static void parent_index(struct parent *p)
{
    memset(p->table, 0, sizeof p->table);
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->rcp.nruns; i++) {
        const struct segrcp_run *run = &p->rcp.runs[i];
        if (run->ref == REF_ZERO)
            continue;
        for (uint32_t k = 0; k < run->count && n < p->rcp.nblocks; k++)
            p->refs[n++] = run->ref + k;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = bucket(p->rcp.prefix[i], p->rcp.len1[i] + 1u);
        while (p->table[at] != 0)
            at = (at + 1) & (PARENT_TABLE - 1);
        p->table[at] = (uint16_t)(i + 1);
    }
}

static bool parent_same(const struct parent *p, const struct plan_seg *s)
{
    return p->have && p->rcp.bytes == s->bytes && memcmp(p->rcp.digest, s->digest, DIGEST_BYTES) == 0;
}

static bool parent_find(const struct parent *p, const struct plan_block *b, uint64_t *ref)
{
    uint32_t prefix = get_le32(b->fp.b);
    for (uint32_t at = bucket(prefix, b->len); p->table[at] != 0; at = (at + 1) & (PARENT_TABLE - 1)) {
        uint32_t i = p->table[at] - 1u;
        if (p->rcp.prefix[i] == prefix && p->rcp.len1[i] + 1u == b->len) {
            *ref = p->refs[i];
            return true;
        }
    }
    return false;
}

/* ---- blocks ---- */

/* Counts the 4 KiB pages that blocks touch: `st_blocks` of the snapshot is made from them. */
static uint32_t count_pages(const struct plan_seg *s)
{
    uint32_t off = 0, next = 0, pages = 0;
    for (uint32_t i = 0; i < s->nblocks; i++) {
        uint32_t end = off + s->b[i].len;
        if (s->b[i].kind != BLK_ZERO) {
            uint32_t from = off / PAGE_BYTES, to = (end - 1) / PAGE_BYTES + 1;
            if (from < next)
                from = next;
            pages += to - from;
            next = to;
        }
        off = end;
    }
    return pages;
}

/* Cuts and fingerprints the segment; every block becomes BLK_NEW or BLK_ZERO. */
static int cut(struct level *lv, const uint8_t *data, struct plan_seg *s, struct verr *err)
{
    uint32_t off = 0, n = 0, jobs = 0;
    while (off < s->bytes) {
        bool zero;
        size_t len = chunk_next(&lv->chunker, data + off, s->bytes - off, &zero);
        if (n == PLAN_BLOCKS_MAX || len == 0 || len > s->bytes - off)
            return verr_set(err, E2BIG, "segment %llu cannot be cut into at most %d blocks", (unsigned long long)s->segment,
                            PLAN_BLOCKS_MAX);
        struct plan_block *b = &s->b[n++];
        memset(b, 0, sizeof *b);
        b->len = (uint32_t)len;
        b->kind = zero ? BLK_ZERO : BLK_NEW;
        b->ref = zero ? REF_ZERO : REF_NONE;
        if (!zero)
            lv->jobs[jobs++] = (struct fp_job){data + off, len, &b->fp};
        off += (uint32_t)len;
    }
    s->kind = PLAN_BLOCKS;
    s->nblocks = n;
    s->data_pages = count_pages(s);
    return jobs == 0 ? 0 : fper_batch(lv->fper, lv->jobs, jobs, err);
}

static void settle_blocks(struct level *lv, struct plan_seg *s)
{
    if (lv->parent.have)
        parent_index(&lv->parent);
    for (uint32_t i = 0; i < s->nblocks; i++) {
        struct plan_block *b = &s->b[i];
        uint64_t ref;
        if (b->kind == BLK_ZERO)
            continue;
        if (lv->parent.have && parent_find(&lv->parent, b, &ref)) {
            b->kind = BLK_PARENT;
            b->ref = ref;
        } else if (lv->common != NULL && lv->common->find(lv->common->ctx, &b->fp, &ref) > 0) {
            b->kind = BLK_COMMON;
            b->ref = ref;
        }
    }
}

/* ---- the segment ---- */

static bool is_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static int settle(struct level *lv, enum level_depth depth, const uint8_t *data, uint64_t place, struct plan_seg *s, struct verr *note,
                  struct verr *err)
{
    parent_load(lv, place, note);
    const struct parent *p = &lv->parent;
    if (depth == LEVEL_WHOLE && !(p->have && p->rcp.bytes == s->bytes))
        return 0;
    int rc = fper_segment(lv->fper, data, s->bytes, s->digest, err);
    if (rc < 0)
        return rc;
    if (parent_same(p, s)) {
        s->kind = PLAN_SAME;
        s->place = place;
        s->data_pages = p->rcp.data_pages;
        return 0;
    }
    if (depth == LEVEL_WHOLE)
        return 0;
    rc = cut(lv, data, s, err);
    if (rc == 0)
        settle_blocks(lv, s);
    return rc;
}

int level_segment(struct level *lv, enum level_depth depth, const uint8_t *data, uint64_t parent, struct plan_seg *s, struct verr *note,
                  struct verr *err)
{
    s->kind = PLAN_BLOCKS;
    s->nblocks = s->data_pages = 0;
    s->place = REF_NONE;
    memset(s->digest, 0, sizeof s->digest);
    if (is_zero(data, s->bytes)) {
        s->kind = PLAN_ZERO;
        return 0;
    }
    int rc = settle(lv, depth, data, parent, s, note, err);
    parent_release(&lv->parent);
    return rc;
}

int level_confirm(struct level *lv, const uint8_t *data, struct plan_seg *s, struct verr *err)
{
    uint8_t digest[DIGEST_BYTES];
    int rc = fper_segment(lv->fper, data, s->bytes, digest, err);
    if (rc < 0 || (s->kind == PLAN_BLOCKS && memcmp(digest, s->digest, DIGEST_BYTES) == 0))
        return rc;
    memcpy(s->digest, digest, DIGEST_BYTES);
    return cut(lv, data, s, err);
}
