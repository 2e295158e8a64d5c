/* SPDX-License-Identifier: Apache-2.0 */
/* live_hold: data that a holder keeps back, and the moment when he must give them (live.h). */
#include "live/live_internal.h"

#include <errno.h>

int live_hold_begin(struct live *l, struct live_holder *h)
{
    int r = 0;
    pthread_mutex_lock(&l->hold_lock);
    if (l->holder != NULL)
        r = -EBUSY;
    else
        l->holder = h;
    pthread_mutex_unlock(&l->hold_lock);
    return r;
}

void live_hold_end(struct live *l)
{
    pthread_mutex_lock(&l->hold_lock);
    l->holder = NULL;
    atomic_store(&l->held, false);
    pthread_mutex_unlock(&l->hold_lock);
}

void live_hold_lock(struct live *l)
{
    pthread_mutex_lock(&l->hold_lock);
}

void live_hold_unlock(struct live *l, bool holds)
{
    atomic_store(&l->held, holds);
    pthread_mutex_unlock(&l->hold_lock);
}

/* Before any other lock of the disk. Costs one load when nobody holds anything back. */
void live_give(struct live *l)
{
    if (!atomic_load(&l->held))
        return;
    pthread_mutex_lock(&l->hold_lock);
    if (l->holder != NULL && atomic_load(&l->held))
        l->holder->give(l->holder);
    atomic_store(&l->held, false);
    pthread_mutex_unlock(&l->hold_lock);
}

int live_expect(struct live *l, uint64_t end, struct verr *err)
{
    if (end > LIVE_SIZE_MAX)
        return live_fail(l, err, EFBIG, "a disk may have %llu bytes", (unsigned long long)LIVE_SIZE_MAX);
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    pthread_rwlock_rdlock(&l->freeze);
    r = live_set_changed(l, err);
    if (r == 0)
        r = live_grow(l, end, err);
    if (r == 0)
        live_note_mtime(l);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}
