/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_view: what a disk looks like from one of its levels, page by page: the level's layer -> its table's entry: frozen
 * (the same question to that older level) | stored (cache layer, else the source) | zero.
 * Sequences only fall on the way down, so damage cannot make a circle.
 */
#include "live/live_level.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

const struct lview *live_view_by_seq(const struct live *l, uint64_t seq)
{
    unsigned lo = 0, hi = l->nlv;
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        if (l->lv[mid].seq < seq)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < l->nlv && l->lv[lo].seq == seq ? &l->lv[lo] : NULL;
}

const struct lview *live_view_below(struct live *l, const struct lview *v, const struct live_entry *e, uint64_t seg, struct verr *err)
{
    const struct lview *below = e->value < v->seq ? live_view_by_seq(l, e->value) : NULL;
    if (below == NULL)
        live_fail(l, err, EBADMSG, "table-%" PRIu64 ": segment %" PRIu64 " is frozen in snapshot %" PRIu64 ", which is not pending",
                  v->table->no, seg, e->value);
    return below;
}

int live_below_read(struct live *l, const struct lview *v, const struct live_entry *e, uint64_t seg, uint32_t off, uint8_t *buf,
                    uint32_t len, enum live_reach reach, struct verr *err)
{
    if (e->kind == SEGK_ZERO) {
        memset(buf, 0, len);
        return 0;
    }
    if (e->kind == SEGK_STORED)
        return live_stored_read(l, seg, e->value, off, buf, len, reach, err);
    const struct lview *below = live_view_below(l, v, e, seg, err);
    return below == NULL ? -EBADMSG : live_view_read(l, below, seg, off, buf, len, reach, err);
}

int live_view_read(struct live *l, const struct lview *v, uint64_t seg, uint32_t off, uint8_t *buf, uint32_t len, enum live_reach reach,
                   struct verr *err)
{
    struct live_slot slot;
    struct live_entry e;
    bool have_entry = false;
    int r = lslot_get(l, v->layer, seg, &slot, err);
    while (r == 0 && len > 0) {
        enum page_state st;
        uint32_t n = lslot_run(&slot, off, len, &st);
        if (st == PAGE_ZERO) {
            memset(buf, 0, n);
        } else if (st == PAGE_DATA) {
            r = llayer_read(l, v->layer, (seg << SEG_SHIFT) + off, buf, n, err);
        } else {
            if (!have_entry)
                r = ltable_get(l, v->table, seg, &e, err);
            have_entry = true;
            if (r == 0)
                r = live_below_read(l, v, &e, seg, off, buf, n, reach, err);
        }
        off += n;
        buf += n;
        len -= n;
    }
    return r;
}

ssize_t live_view_read_range(struct live *l, const struct lview *v, uint64_t size, uint64_t off, void *buf, size_t len,
                             enum live_reach reach, struct verr *err)
{
    if (off >= size || len == 0)
        return 0;
    if (len > size - off)
        len = (size_t)(size - off);
    if (len > SSIZE_MAX)
        len = SSIZE_MAX;
    uint8_t *p = buf;
    for (size_t left = len; left > 0;) {
        uint64_t seg = off >> SEG_SHIFT;
        uint32_t in = (uint32_t)(off & (SEG_BYTES - 1));
        uint32_t n = left < SEG_BYTES - in ? (uint32_t)left : SEG_BYTES - in;
        pthread_rwlock_t *lock = live_seg_lock(l, seg);
        if (!live_reach_lock(lock, reach, false))
            return -EAGAIN;
        int r = live_view_read(l, v, seg, in, p, n, reach, err);
        pthread_rwlock_unlock(lock);
        if (r < 0)
            return r;
        p += n;
        off += n;
        left -= n;
    }
    return (ssize_t)len;
}

/* ---- data and holes ---- */

static int view_seek(struct live *l, const struct lview *v, uint64_t seg, uint32_t off, uint32_t end, bool hole, uint32_t *out,
                     struct verr *err);

/* First byte of [off, end) that is a hole (or data) below v's layer; end if none. */
static int below_seek(struct live *l, const struct lview *v, const struct live_entry *e, uint64_t seg, uint32_t off, uint32_t end,
                      bool hole, uint32_t *out, struct verr *err)
{
    if (e->kind == SEGK_ZERO) {
        *out = hole ? off : end;
        return 0;
    }
    if (e->kind == SEGK_FROZEN) {
        const struct lview *below = live_view_below(l, v, e, seg, err);
        return below == NULL ? -EBADMSG : view_seek(l, below, seg, off, end, hole, out, err);
    }
    return live_stored_seek(l, e->value, off, end, hole, out, err);
}

static int view_seek(struct live *l, const struct lview *v, uint64_t seg, uint32_t off, uint32_t end, bool hole, uint32_t *out,
                     struct verr *err)
{
    struct live_slot slot;
    struct live_entry e;
    bool have_entry = false;
    int r = lslot_get(l, v->layer, seg, &slot, err);
    while (r == 0 && off < end) {
        enum page_state st;
        uint32_t n = lslot_run(&slot, off, end - off, &st), found = off + n;
        if (st == PAGE_ABSENT) {
            if (!have_entry)
                r = ltable_get(l, v->table, seg, &e, err);
            have_entry = true;
            if (r == 0)
                r = below_seek(l, v, &e, seg, off, off + n, hole, &found, err);
        } else if ((st == PAGE_ZERO) == hole) {
            found = off;
        }
        if (r == 0 && found < off + n) {
            *out = found;
            return 0;
        }
        off += n;
    }
    if (r == 0)
        *out = end;
    return r;
}

/* Skips what is a hole in both table and vol file. */
uint64_t live_view_next(const struct lview *v, uint64_t seg)
{
    uint64_t t = ltable_next(v->table, seg);
    uint64_t y = t == seg ? seg : llayer_next(v->layer, seg);
    return t < y ? t : y;
}

off_t live_view_seek_range(struct live *l, const struct lview *v, uint64_t size, uint64_t off, bool hole, struct verr *err)
{
    if (off >= size)
        return -ENXIO;
    while (off < size) {
        uint64_t seg = off >> SEG_SHIFT;
        if (!hole) {
            uint64_t next = live_view_next(v, seg);
            if (next > (size - 1) >> SEG_SHIFT)
                break;
            if (next > seg) {
                seg = next;
                off = seg << SEG_SHIFT;
            }
        }
        uint64_t start = seg << SEG_SHIFT;
        uint32_t end = size - start < SEG_BYTES ? (uint32_t)(size - start) : SEG_BYTES;
        uint32_t found = 0;
        pthread_rwlock_t *lock = live_seg_lock(l, seg);
        pthread_rwlock_rdlock(lock);
        int r = view_seek(l, v, seg, (uint32_t)(off - start), end, hole, &found, err);
        pthread_rwlock_unlock(lock);
        if (r < 0)
            return r;
        if (found < end)
            return (off_t)(start + found);
        off = start + end;
    }
    return hole ? (off_t)size : -ENXIO;
}
