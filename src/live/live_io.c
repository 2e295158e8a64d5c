/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_io: writes and zeroes ranges of the live image (live_view.c reads it).
 *
 * A write that touches a page for the first time, under its segment's exclusive lock:
 *   reserve space -> dirty bit (table) -> complete the two edge pages from below -> data (layer) -> presence (vol)
 * A kill between any two steps leaves either the old content with a dirty bit too many, or the new content with its dirty bit.
 * Rewriting present pages needs none of that: one pwrite under the shared lock.
 */
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <string.h>

/* ---- writing ---- */

/* True: all pages of [off, off + n) are data of this layer. */
static bool all_data(const struct live_slot *s, uint32_t off, uint32_t n)
{
    enum page_state st;
    return lslot_run(s, off, n, &st) == n && st == PAGE_DATA;
}

/* Writes a page that the write covers in part and that is not data yet: the rest of the page comes from below. */
static int write_edge(struct live *l, const struct live_slot *s, const struct live_entry *e, uint64_t seg, uint32_t off, const uint8_t *buf,
                      uint32_t n, struct verr *err)
{
    uint8_t page[PAGE_BYTES];
    uint32_t start = off / PAGE_BYTES * PAGE_BYTES;
    int r = 0;
    if (lslot_page(s, off / PAGE_BYTES) == PAGE_ZERO)
        memset(page, 0, sizeof page);
    else
        r = live_below_read(l, &l->cur, e, seg, start, page, PAGE_BYTES, REACH_ALL, err);
    if (r < 0)
        return r;
    memcpy(page + (off - start), buf, n);
    return llayer_write(l, l->cur.layer, (seg << SEG_SHIFT) + start, page, PAGE_BYTES, err);
}

static bool needs_edge(const struct live_slot *s, uint32_t off, uint32_t n)
{
    return n < PAGE_BYTES && lslot_page(s, off / PAGE_BYTES) != PAGE_DATA;
}

static int write_pages(struct live *l, const struct live_slot *s, const struct live_entry *e, uint64_t seg, uint32_t off,
                       const uint8_t *buf, uint32_t n, struct verr *err)
{
    uint32_t in = off % PAGE_BYTES, head = in == 0 ? 0 : PAGE_BYTES - in;
    if (head > n)
        head = n;
    uint32_t tail = (off + n) % PAGE_BYTES;
    if (tail > n - head)
        tail = 0;                   /* all in the first page */
    if (head > 0 && needs_edge(s, off, head)) {
        int r = write_edge(l, s, e, seg, off, buf, head, err);
        if (r < 0)
            return r;
        off += head;
        buf += head;
        n -= head;
    }
    if (tail > 0 && needs_edge(s, off + n - tail, tail)) {
        int r = write_edge(l, s, e, seg, off + n - tail, buf + n - tail, tail, err);
        if (r < 0)
            return r;
        n -= tail;
    }
    return n == 0 ? 0 : llayer_write(l, l->cur.layer, (seg << SEG_SHIFT) + off, buf, n, err);
}

/* Marks the pages of [first, end) in the slot; keeps the estimate of allocated pages below. */
static void slot_cover(struct live_slot *s, unsigned base, unsigned first, unsigned end, enum page_state st)
{
    unsigned absent = SEG_PAGES - lslot_present(s), touched = 0;
    if (absent == SEG_PAGES)
        s->absent = (uint16_t)base;
    for (unsigned p = first; p < end; p++) {
        touched += lslot_page(s, p) == PAGE_ABSENT;
        lslot_set(s, p, st);
    }
    if (touched == 0)
        return;
    /* The estimate takes the allocated pages below to be spread evenly over the absent ones. It rounds up what stays uncovered, so
     * that a segment with allocated pages does not become empty by estimate alone. */
    unsigned left = absent - touched, keep = s->absent - s->absent * touched / absent;
    s->absent = (uint16_t)(keep < left ? keep : left);
}

static unsigned count_new(const struct live_slot *s, unsigned first, unsigned end)
{
    unsigned n = 0;
    for (unsigned p = first; p < end; p++)
        n += lslot_page(s, p) != PAGE_DATA;
    return n;
}

static int cover_and_save(struct live *l, struct live_slot *s, const struct live_entry *e, uint64_t seg, unsigned first, unsigned end,
                          enum page_state st, struct verr *err)
{
    unsigned before = lslot_alloc(s, e->pages);
    slot_cover(s, e->pages, first, end, st);
    int r = lslot_put(l, l->cur.layer, seg, s, err);
    if (r == 0)
        live_alloc_add(l, (int64_t)lslot_alloc(s, e->pages) - (int64_t)before);
    return r;
}

static int write_new(struct live *l, uint64_t seg, uint32_t off, const uint8_t *buf, uint32_t n, struct verr *err)
{
    struct live_slot s;
    struct live_entry e;
    unsigned first = off / PAGE_BYTES, end = (off + n + PAGE_BYTES - 1) / PAGE_BYTES;
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    if (r == 0)
        r = ltable_get(l, l->cur.table, seg, &e, err);
    if (r < 0)
        return r;
    uint64_t bytes = (uint64_t)count_new(&s, first, end) * PAGE_BYTES;
    r = live_space_reserve(l, l->cur.layer, bytes, err);
    if (r < 0)
        return r;
    r = live_mark_dirty(l, seg, &e, err);
    int fault = r == 0 ? fault_errno("live.write.after_dirty") : 0;
    if (fault)
        r = live_fail(l, err, fault, "fault after the dirty bit");
    if (r == 0)
        r = write_pages(l, &s, &e, seg, off, buf, n, err);
    fault = r == 0 ? fault_errno("live.write.after_data") : 0;
    if (fault)
        r = live_fail(l, err, fault, "fault after the data");
    if (r == 0)
        r = cover_and_save(l, &s, &e, seg, first, end, PAGE_DATA, err);
    if (r < 0)
        llayer_charge(l->cur.layer, -(int64_t)bytes);
    return r;
}

static int write_segment(struct live *l, uint64_t seg, uint32_t off, const uint8_t *buf, uint32_t n, enum live_reach reach,
                         struct verr *err)
{
    pthread_rwlock_t *lock = live_seg_lock(l, seg);
    struct live_slot s;
    if (!live_reach_lock(lock, reach, false))
        return -EAGAIN;
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    bool simple = r == 0 && all_data(&s, off, n);
    if (simple)
        r = live_set_changed(l, err);
    if (simple && r == 0)
        r = llayer_write(l, l->cur.layer, (seg << SEG_SHIFT) + off, buf, n, err);
    pthread_rwlock_unlock(lock);
    if (simple || r < 0)
        return r;
    if (!live_reach_lock(lock, reach, true))
        return -EAGAIN;
    r = write_new(l, seg, off, buf, n, err);
    pthread_rwlock_unlock(lock);
    return r;
}

int live_write_range(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, size_t *done, struct verr *err)
{
    const uint8_t *p = buf;
    size_t put = 0;
    int r = 0;
    while (r == 0 && put < len) {
        uint64_t at = off + put, seg = at >> SEG_SHIFT;
        uint32_t in = (uint32_t)(at & (SEG_BYTES - 1));
        uint32_t n = len - put < SEG_BYTES - in ? (uint32_t)(len - put) : SEG_BYTES - in;
        r = write_segment(l, seg, in, p + put, n, reach, err);
        if (r == 0)
            put += n;
    }
    *done = put;
    return r;
}

/* ---- zeroing whole pages ---- */

static int zero_pages(struct live *l, uint64_t seg, unsigned first, unsigned end, struct verr *err)
{
    struct live_slot s;
    struct live_entry e = {0};
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    if (r == 0)
        r = ltable_get(l, l->cur.table, seg, &e, err);
    if (r < 0)
        return r;
    unsigned data = 0, zero = 0;
    for (unsigned p = first; p < end; p++) {
        data += lslot_page(&s, p) == PAGE_DATA;
        zero += lslot_page(&s, p) == PAGE_ZERO;
    }
    if (zero == end - first || (e.kind == SEGK_ZERO && data == 0))
        return 0;                   /* reads as zero already */
    r = live_mark_dirty(l, seg, &e, err);
    if (r == 0)
        r = cover_and_save(l, &s, &e, seg, first, end, PAGE_ZERO, err);
    if (r < 0 || data == 0)
        return r;
    llayer_punch(l->cur.layer, (seg << SEG_SHIFT) + first * (uint64_t)PAGE_BYTES, (uint64_t)(end - first) * PAGE_BYTES);
    llayer_charge(l->cur.layer, -(int64_t)data * PAGE_BYTES);
    return 0;
}

/* Zeroes part of one page: writes zeros, unless the part reads as zero. */
static int zero_edge(struct live *l, uint64_t seg, uint32_t off, uint32_t n, struct verr *err)
{
    static const uint8_t zeros[PAGE_BYTES];
    uint8_t now[PAGE_BYTES];
    pthread_rwlock_t *lock = live_seg_lock(l, seg);
    pthread_rwlock_rdlock(lock);
    int r = live_view_read(l, &l->cur, seg, off, now, n, REACH_ALL, err);
    pthread_rwlock_unlock(lock);
    if (r < 0 || memcmp(now, zeros, n) == 0)
        return r;
    return write_segment(l, seg, off, zeros, n, REACH_ALL, err);
}

static int zero_segment(struct live *l, uint64_t seg, uint32_t off, uint32_t end, struct verr *err)
{
    uint32_t first = (off + PAGE_BYTES - 1) / PAGE_BYTES, last = end / PAGE_BYTES;
    int r = 0;
    if (first > last)               /* inside one page */
        return zero_edge(l, seg, off, end - off, err);
    if (off % PAGE_BYTES != 0)
        r = zero_edge(l, seg, off, first * PAGE_BYTES - off, err);
    if (r == 0 && first < last) {
        pthread_rwlock_t *lock = live_seg_lock(l, seg);
        pthread_rwlock_wrlock(lock);
        r = zero_pages(l, seg, first, last, err);
        pthread_rwlock_unlock(lock);
    }
    if (r == 0 && end % PAGE_BYTES != 0)
        r = zero_edge(l, seg, last * PAGE_BYTES, end % PAGE_BYTES, err);
    return r;
}

int live_zero_range(struct live *l, uint64_t off, uint64_t end, struct verr *err)
{
    while (off < end) {
        uint64_t seg = off >> SEG_SHIFT;
        uint64_t next = live_view_next(&l->cur, seg);
        if (next > seg) {           /* nothing but zero segments up to there */
            if (next > (end - 1) >> SEG_SHIFT)
                return 0;
            seg = next;
            off = seg << SEG_SHIFT;
        }
        uint64_t start = seg << SEG_SHIFT;
        uint32_t stop = end - start < SEG_BYTES ? (uint32_t)(end - start) : SEG_BYTES;
        int r = zero_segment(l, seg, (uint32_t)(off - start), stop, err);
        if (r < 0)
            return r;
        off = start + stop;
    }
    return 0;
}
