/* SPDX-License-Identifier: Apache-2.0 */
/* live_merge: pages of an older layer go into a younger one, which then shows what both together have shown. */
#include "live/live_level.h"

static int copy_run(const struct lmerge *m, uint64_t off, uint64_t len, struct verr *err)
{
    while (len > 0) {
        size_t n = len < MERGE_BYTES ? (size_t)len : MERGE_BYTES;
        int r = llayer_read(m->owner, m->from, off, m->buf, n, err);
        if (r == 0)
            r = llayer_write(m->l, m->to, off, m->buf, n, err);
        if (r < 0)
            return r;
        off += n;
        len -= n;
    }
    return 0;
}

static int copy_data(const struct lmerge *m, uint64_t off, uint64_t len, uint64_t *bytes, struct verr *err)
{
    int r = 0;
    if (m->bounded)
        r = live_space_reserve(m->l, m->to, len, err);
    else
        llayer_charge(m->to, (int64_t)len);
    if (r < 0)
        return r;
    *bytes += len;
    return copy_run(m, off, len, err);
}

/* Estimates the allocated pages below both layers. */
static void merge_estimate(const struct live_slot *from, struct live_slot *s)
{
    unsigned absent = SEG_PAGES - lslot_present(from), left = SEG_PAGES - lslot_present(s);
    unsigned est = absent == 0 ? 0 : (from->absent * left + absent - 1) / absent;
    s->absent = (uint16_t)(est < left ? est : left);
}

int live_merge_pages(const struct lmerge *m, uint64_t seg, const struct live_slot *from, struct live_slot *s, uint64_t *bytes,
                     struct verr *err)
{
    uint64_t start = seg << SEG_SHIFT;
    int r = 0;
    for (unsigned p = 0; r == 0 && p < SEG_PAGES;) {
        enum page_state st = lslot_page(from, p);
        unsigned end = p + 1;
        if (st == PAGE_ABSENT || lslot_page(s, p) != PAGE_ABSENT) {
            p = end;
            continue;
        }
        while (end < SEG_PAGES && lslot_page(from, end) == st && lslot_page(s, end) == PAGE_ABSENT)
            end++;
        if (st == PAGE_DATA)
            r = copy_data(m, start + p * (uint64_t)PAGE_BYTES, (uint64_t)(end - p) * PAGE_BYTES, bytes, err);
        for (; r == 0 && p < end; p++)
            lslot_set(s, p, st);
    }
    merge_estimate(from, s);
    return r;
}
