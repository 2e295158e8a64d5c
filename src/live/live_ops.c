/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_ops: reads, writes and changes of the live image as callers ask for them. Each call lets the holder give its data, checks
 * bounds, takes the freeze lock, and leaves the work to live_view and live_io.
 */
#include "live/live_level.h"

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

static int write_locked(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, struct verr *err)
{
    size_t done = 0;
    if (!live_reach_lock(&l->freeze, reach, false))
        return -EAGAIN;
    int r = live_write_range(l, off, buf, len, reach, &done, err);
    /* The size grows after an error too: no present page may lie beyond it. */
    int g = done > 0 ? live_grow(l, off + done, r == 0 ? err : NULL) : 0;
    if (done > 0)
        live_note_mtime(l);
    pthread_rwlock_unlock(&l->freeze);
    return r < 0 ? r : g;
}

/* True: the write covers whole pages, and no entry has a number of pages that only STORE knows. */
static bool is_local(struct live *l, uint64_t off, size_t len)
{
    return off % PAGE_BYTES == 0 && len % PAGE_BYTES == 0 && atomic_load(&l->unknown) == 0;
}

static int write_bytes(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, struct verr *err)
{
    uint64_t end;
    if (reach == REACH_LOCAL && !is_local(l, off, len))
        return -EAGAIN;
    if (__builtin_add_overflow(off, len, &end) || end > LIVE_SIZE_MAX)
        return live_fail(l, err, EFBIG, "a disk may have %" PRIu64 " bytes", LIVE_SIZE_MAX);
    int r = live_check_failed(l, err);
    if (r < 0 || len == 0)
        return r;
    r = write_locked(l, off, buf, len, reach, err);
    /* Caches give their space to data. */
    if ((r == -ENOSPC || r == -EDQUOT) && atomic_load(&l->set->cache_bytes) > 0) {
        if (reach == REACH_LOCAL)
            return -EAGAIN;
        if (live_set_evict(l->set, NULL) == 0)
            r = write_locked(l, off, buf, len, reach, err);
    }
    return r;
}

int live_write_within(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, struct verr *err)
{
    return live_give_within(l, reach) ? write_bytes(l, off, buf, len, reach, err) : -EAGAIN;
}

int live_write_held(struct live *l, uint64_t off, const void *buf, size_t len, struct verr *err)
{
    return write_bytes(l, off, buf, len, REACH_ALL, err);
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

const struct vid *live_id(const struct live *l)
{
    return &l->id;
}

int live_expect(struct live *l, uint64_t end, struct verr *err)
{
    if (end > LIVE_SIZE_MAX)
        return live_fail(l, err, EFBIG, "a disk may have %llu bytes", (unsigned long long)LIVE_SIZE_MAX);
    int r = live_check_failed(l, err);
    return r < 0 ? r : live_extend(l, end, err);
}
