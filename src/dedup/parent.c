/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parent: level 2, the same segment in the parent snapshot. Its segment recipe keeps 4 bytes of each fingerprint, so a
 * match is a hint of one in 2^32 to be wrong; the publish check compares all 32 bytes with the footer.
 */
#include "dedup/dedup_internal.h"

#include "base/endian.h"
#include "base/verr.h"

#include <errno.h>
#include <string.h>

static uint32_t bucket(uint32_t prefix, uint32_t len)
{
    return ((prefix ^ len * 0x9e3779b1u) * 0x85ebca6bu) >> 20 & (PARENT_TABLE - 1);
}

void parent_clear(struct parent *p)
{
    if (p->have)
        segrcp_release(&p->rcp);
    p->have = false;
}

/* References of the parent's blocks one by one, and a table that finds them by prefix and length. */
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

void parent_load(struct segwork *w)
{
    struct parent *p = &w->parent;
    struct snap *snap = w->r->parent_snap;
    struct segread *segread = w->r->env->segread;
    bool zero = true;
    uint32_t pages;
    parent_clear(p);
    if (w->entry.kind == SEGK_STORED) {
        p->place = w->entry.place;
        zero = false;
    } else if (snap != NULL && w->s.segment < seg_count(snap_header(snap)->info.size)) {
        if (snap_place(snap, w->s.segment, &zero, &p->place, &pages, &w->note) < 0)
            return;
    }
    if (zero || segread_recipe(segread, p->place, &p->rcp, &w->note) < 0)
        return;
    p->have = true;
    if (p->rcp.nblocks > SEGRCP_BLOCKS_MAX) {
        parent_clear(p);
        return;
    }
    parent_index(p);
}

bool parent_same(const struct parent *p, const struct plan_seg *s)
{
    return p->have && p->rcp.bytes == s->bytes && memcmp(p->rcp.digest, s->digest, DIGEST_BYTES) == 0;
}

bool parent_find(const struct parent *p, const struct fp *fp, uint32_t len, uint64_t *ref)
{
    if (!p->have)
        return false;
    uint32_t prefix = get_le32(fp->b);
    for (uint32_t at = bucket(prefix, len); p->table[at] != 0; at = (at + 1) & (PARENT_TABLE - 1)) {
        uint32_t i = p->table[at] - 1u;
        if (p->rcp.prefix[i] == prefix && p->rcp.len1[i] + 1u == len) {
            *ref = p->refs[i];
            return true;
        }
    }
    return false;
}
