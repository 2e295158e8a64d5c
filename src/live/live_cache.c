/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_cache: layers of published snapshots, kept to save reads of STORE.
 *
 * A slot of a cache layer is tagged with the place whose content its pages are, and is used only for an entry that says
 * exactly this place. Places never change content, so a stale copy cannot be read, whatever was interrupted. That is also
 * why the cache needs no durability: after a power loss it is dropped.
 */
#include "live/live_level.h"


#include <errno.h>
#include <stdlib.h>

enum { COPY_BYTES = 64 * 1024 };

enum cache_plan live_cache_plan(struct live *l, const struct llayer *ly)
{
    if (l->set->env.cache_limit == 0 || atomic_load(&ly->charged) <= 0)
        return CACHE_NONE;
    if (l->cache == NULL || atomic_load(&ly->charged) >= atomic_load(&l->cache->charged))
        return CACHE_BECOME;
    return CACHE_MERGE;
}

int live_cache_forget(struct live *l, uint64_t seg, const struct live_slot *s)
{
    const struct live_slot none = {0};
    int r = lslot_put(l, l->cache, seg, &none, NULL);
    if (r < 0)
        return r;
    unsigned data = lslot_data_pages(s);
    if (data > 0) {
        llayer_punch(l->cache, seg << SEG_SHIFT, SEG_BYTES);
        llayer_charge(l->cache, -(int64_t)data * PAGE_BYTES);
    }
    return 0;
}

static int copy_pages(struct live *l, struct llayer *from, uint64_t seg, const struct live_slot *fs, struct live_slot *cs)
{
    uint8_t *buf = malloc(COPY_BYTES);
    int r = buf == NULL ? -ENOMEM : 0;
    for (uint32_t off = 0; r == 0 && off < SEG_BYTES;) {
        enum page_state st;
        uint32_t most = SEG_BYTES - off < COPY_BYTES ? SEG_BYTES - off : COPY_BYTES;
        uint32_t n = lslot_run(fs, off, most, &st);
        if (st == PAGE_DATA) {
            r = llayer_read(l, from, (seg << SEG_SHIFT) + off, buf, n, NULL);
            if (r == 0)
                r = llayer_write(l, l->cache, (seg << SEG_SHIFT) + off, buf, n, NULL);
        }
        for (uint32_t p = off / PAGE_BYTES; r == 0 && st != PAGE_ABSENT && p < (off + n) / PAGE_BYTES; p++)
            lslot_set(cs, p, st);
        off += n;
    }
    free(buf);
    return r;
}

/* Where the layer has no page the new place has the content of the place below: the cache keeps its pages of that place. */
static void merge_segment(struct live *l, struct llayer *from, uint64_t seg, const struct live_entry *base, uint64_t place)
{
    struct live_slot fs, cs;
    if (lslot_get(l, from, seg, &fs, NULL) < 0 || lslot_get(l, l->cache, seg, &cs, NULL) < 0 || lslot_present(&fs) == 0)
        return;
    bool keeps = (cs.flags & LIVE_SLOT_TAGGED) != 0 && base->kind == SEGK_STORED && cs.place == base->value;
    const struct live_slot none = {0};
    if (keeps ? lslot_put(l, l->cache, seg, &none, NULL) < 0 : live_cache_forget(l, seg, &cs) < 0)
        return;
    if (!keeps)
        cs = none;
    int64_t before = lslot_data_pages(&cs);
    int r = copy_pages(l, from, seg, &fs, &cs);
    cs.place = place;
    cs.flags = LIVE_SLOT_TAGGED;
    cs.absent = 0;
    if (r == 0)
        r = lslot_put(l, l->cache, seg, &cs, NULL);
    if (r == 0) {
        llayer_charge(l->cache, ((int64_t)lslot_data_pages(&cs) - before) * PAGE_BYTES);
    } else if (before > 0) {
        llayer_punch(l->cache, seg << SEG_SHIFT, SEG_BYTES);
        llayer_charge(l->cache, -before * PAGE_BYTES);
    }
}

static void tag_segment(struct live *l, struct llayer *from, uint64_t seg, uint64_t place)
{
    struct live_slot s;
    if (lslot_get(l, from, seg, &s, NULL) < 0 || lslot_present(&s) == 0)
        return;
    s.place = place;
    s.flags = LIVE_SLOT_TAGGED;
    lslot_put(l, from, seg, &s, NULL);
}

void live_cache_take(struct live *l, enum cache_plan plan, struct llayer *from, uint64_t seg, const struct live_entry *base, uint64_t place)
{
    struct live_set *set = l->set;
    if (plan == CACHE_NONE)
        return;
    pthread_rwlock_t *lock = live_seg_lock(l, seg);
    pthread_rwlock_rdlock(&l->freeze);
    pthread_rwlock_wrlock(lock);
    if (plan == CACHE_BECOME)
        tag_segment(l, from, seg, place);
    else if (l->cache != NULL && atomic_load(&set->cache_bytes) < (int64_t)set->env.cache_limit)
        merge_segment(l, from, seg, base, place);
    pthread_rwlock_unlock(lock);
    pthread_rwlock_unlock(&l->freeze);
}
