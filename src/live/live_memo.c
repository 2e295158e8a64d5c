/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_memo: the slots and table entries used last, decoded, of all disks together: a fixed number, one place for each. It saves
 * the reads that every read and write of 4 KiB would begin with; the files remain the truth.
 *
 * A reader that misses remembers the place's count, reads the file, and fills the place only if no writer came meanwhile. A writer
 * empties the place before its pwrite (a reader that comes now finds the old or the new bytes in the file, and cannot leave
 * the old ones behind) and fills it after. `owner` names one open layer or table, never used again.
 */
#include "live/live_level.h"

#include <stdlib.h>
#include <string.h>

enum { MEMO_PLACES = 4096, MEMO_LOCKS = 64 };

struct memo_place {
    uint64_t owner, index;          /* owner 0: empty */
    uint64_t count;                 /* of changes by writers, whatever their key */
    union { struct live_slot slot; struct live_entry entry; } v;
};

struct lmemo {
    pthread_mutex_t lock[MEMO_LOCKS];       /* of the places whose number has that rest; innermost */
    struct memo_place place[MEMO_PLACES];
};

static _Atomic uint64_t owners;

uint64_t lmemo_owner(void)
{
    return atomic_fetch_add(&owners, 1) + 1;
}

struct lmemo *lmemo_new(void)
{
    struct lmemo *m = calloc(1, sizeof *m);
    for (unsigned i = 0; m != NULL && i < MEMO_LOCKS; i++)
        pthread_mutex_init(&m->lock[i], NULL);
    return m;
}

void lmemo_free(struct lmemo *m)
{
    for (unsigned i = 0; m != NULL && i < MEMO_LOCKS; i++)
        pthread_mutex_destroy(&m->lock[i]);
    free(m);
}

static struct memo_place *place_lock(struct lmemo *m, uint64_t owner, uint64_t index, pthread_mutex_t **lock)
{
    unsigned n = (unsigned)((owner * UINT64_C(0x9e3779b97f4a7c15) + index) * UINT64_C(0xff51afd7ed558ccd) >> 52) % MEMO_PLACES;
    *lock = &m->lock[n % MEMO_LOCKS];
    pthread_mutex_lock(*lock);
    return &m->place[n];
}

static void place_fill(struct memo_place *p, uint64_t owner, uint64_t index, const void *v, size_t size)
{
    p->owner = owner;
    p->index = index;
    memcpy(&p->v, v, size);
}

bool lmemo_get(struct lmemo *m, uint64_t owner, uint64_t index, void *v, size_t size, uint64_t *count)
{
    pthread_mutex_t *lock;
    struct memo_place *p = place_lock(m, owner, index, &lock);
    bool hit = p->owner == owner && p->index == index;
    if (hit)
        memcpy(v, &p->v, size);
    *count = p->count;
    pthread_mutex_unlock(lock);
    return hit;
}

void lmemo_fill(struct lmemo *m, uint64_t owner, uint64_t index, const void *v, size_t size, uint64_t count)
{
    pthread_mutex_t *lock;
    struct memo_place *p = place_lock(m, owner, index, &lock);
    if (p->count == count)
        place_fill(p, owner, index, v, size);
    pthread_mutex_unlock(lock);
}

void lmemo_write(struct lmemo *m, uint64_t owner, uint64_t index, const void *v, size_t size)
{
    pthread_mutex_t *lock;
    struct memo_place *p = place_lock(m, owner, index, &lock);
    p->count++;
    if (v != NULL)
        place_fill(p, owner, index, v, size);
    else if (p->owner == owner && p->index == index)
        p->owner = 0;
    pthread_mutex_unlock(lock);
}
