/* SPDX-License-Identifier: Apache-2.0 */
/* live_ops: read, zero, truncate, seek and attributes of the live image: locks and bounds around live_io and live_view. */
#include "live/live_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

ssize_t live_read_within(struct live *l, uint64_t off, void *buf, size_t len, enum live_reach reach, struct verr *err)
{
    if (!live_give_within(l, reach) || !live_reach_lock(&l->freeze, reach, false))
        return -EAGAIN;
    ssize_t r = live_view_read_range(l, &l->cur, atomic_load(&l->size), off, buf, len, reach, err);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

int live_zero(struct live *l, uint64_t off, uint64_t len, struct verr *err)
{
    live_give(l);
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    pthread_rwlock_rdlock(&l->freeze);
    uint64_t size = atomic_load(&l->size), end;
    if (__builtin_add_overflow(off, len, &end) || end > size)
        end = size;
    if (off < end) {
        r = live_zero_range(l, off, end, err);
        live_note_mtime(l);
    }
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

/* Under the exclusive freeze lock: a write beyond the new end must not slip between the zeros and the size. Zeros first:
 * a kill in between leaves a file of the old size that reads zero there, never old data behind a smaller size. */
int live_truncate(struct live *l, uint64_t size, struct verr *err)
{
    if (size > LIVE_SIZE_MAX)
        return live_fail(l, err, EFBIG, "a disk may have %" PRIu64 " bytes", LIVE_SIZE_MAX);
    live_give(l);
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    pthread_rwlock_wrlock(&l->freeze);
    uint64_t old = atomic_load(&l->size);
    if (size != old)
        r = live_set_changed(l, err);
    if (r == 0 && size < old)
        r = live_zero_range(l, size, seg_count(old) << SEG_SHIFT, err);
    if (r == 0) {
        pthread_mutex_lock(&l->head_lock);
        int64_t mtime = atomic_exchange(&l->mtime_ns, (int64_t)live_now(l));
        atomic_store(&l->size, size);
        r = live_state_save(l, err);
        if (r < 0) {
            atomic_store(&l->size, old);
            atomic_store(&l->mtime_ns, mtime);
        }
        pthread_mutex_unlock(&l->head_lock);
    }
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

void live_raise(struct live *l, uint64_t min_seq, int64_t last_name_s)
{
    pthread_mutex_lock(&l->head_lock);
    if (l->head.next_seq < min_seq)
        l->head.next_seq = min_seq;
    if (l->head.last_name_s < last_name_s)
        l->head.last_name_s = last_name_s;
    pthread_mutex_unlock(&l->head_lock);
}

off_t live_seek(struct live *l, uint64_t off, bool hole, struct verr *err)
{
    live_give(l);
    pthread_rwlock_rdlock(&l->freeze);
    off_t r = live_view_seek_range(l, &l->cur, atomic_load(&l->size), off, hole, err);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

int live_has_data(struct live *l, struct verr *err)
{
    enum { STEP = 128 * 1024 };
    uint8_t *buf = malloc(STEP);
    if (buf == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    int answer = 0;
    uint64_t off = 0;
    while (answer == 0) {
        off_t at = live_seek(l, off, false, err);
        if (at == -ENXIO)
            break;
        if (at < 0) {
            answer = (int)at;
            break;
        }
        ssize_t got = live_read(l, (uint64_t)at, buf, STEP, err);
        if (got <= 0) {
            answer = (int)got;
            break;
        }
        answer = !all_zero(buf, (size_t)got);
        off = (uint64_t)at + (uint64_t)got;
    }
    free(buf);
    return answer;
}

int live_attr(struct live *l, struct live_attr *out, struct verr *err)
{
    (void)err;
    struct live_attr a = {0};
    pthread_mutex_lock(&l->head_lock);
    a.size = atomic_load(&l->size);
    a.mtime_ns = atomic_load(&l->mtime_ns);
    a.changed = atomic_load(&l->changed);
    a.dirty_segments = atomic_load(&l->dirty);
    a.marks = l->head.marks;
    a.next_seq = l->head.next_seq;
    a.last_name_s = l->head.last_name_s;
    a.pending = l->head.npend;
    int64_t pages = atomic_load(&l->alloc_pages);
    bool unsure = atomic_load(&l->unknown) > 0;
    pthread_mutex_unlock(&l->head_lock);
    /* Where pages of some segments are unknown the sum is an estimate; it must not say "empty". */
    if (pages <= 0)
        pages = unsure ? 1 : 0;
    uint64_t most = (a.size + PAGE_BYTES - 1) / PAGE_BYTES;
    a.alloc_bytes = ((uint64_t)pages < most ? (uint64_t)pages : most) * PAGE_BYTES;
    *out = a;
    return 0;
}

int live_set_mtime(struct live *l, int64_t mtime_ns, struct verr *err)
{
    pthread_rwlock_rdlock(&l->freeze);
    pthread_mutex_lock(&l->head_lock);
    int64_t old = atomic_exchange(&l->mtime_ns, mtime_ns);
    int r = live_unclean_locked(l, err);
    if (r == 0)
        r = live_state_save(l, err);
    if (r < 0)
        atomic_store(&l->mtime_ns, old);
    pthread_mutex_unlock(&l->head_lock);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

int live_set_marks(struct live *l, uint32_t set, uint32_t clear, struct verr *err)
{
    struct live_head nh;
    pthread_mutex_lock(&l->head_lock);
    int r = 0;
    uint32_t marks = (l->head.marks | set) & ~clear;
    if (marks != l->head.marks) {
        r = live_head_now(l, &nh, err);
        if (r == 0) {
            nh.marks = marks;
            r = ljournal_put(l, &nh, !live_files_fresh(l), err);
            if (r < 0)
                live_head_release(&nh);
        }
    }
    pthread_mutex_unlock(&l->head_lock);
    return r;
}

const struct vid *live_id(const struct live *l)
{
    return &l->id;
}
