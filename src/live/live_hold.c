/* SPDX-License-Identifier: Apache-2.0 */
/* live_hold: the holder of a disk, which keeps data back until live_give asks for them (live.h). */
#include "live/live_disk.h"

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

/* Comes before any other lock of the disk. Costs one load when no data are held back. */
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
