/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_base: what a segment is below a level's layer, as the table's entry says.
 *
 *   zero     nothing is stored or frozen: it reads as zero
 *   stored   a place in STORE: read from the cache layer where that has this very place, else from the source
 *   frozen   the content that an older pending snapshot shows (live_view.c goes there)
 *
 * An entry also says how many pages of its base are allocated, and whether the level's own layer changes the segment (dirty).
 */
#include "live/live_level.h"

#include <errno.h>
#include <string.h>

/* ---- stored places ---- */

int live_stored_read(struct live *l, uint64_t seg, uint64_t place, uint32_t off, uint8_t *buf, uint32_t len, enum live_reach reach,
                     struct verr *err)
{
    const struct seg_source *src = &l->set->env.source;
    struct live_slot s;
    /* Damage in the cache is a miss. */
    if (l->cache == NULL || lslot_get(l, l->cache, seg, &s, NULL) < 0 || (s.flags & LIVE_SLOT_TAGGED) == 0 || s.place != place)
        return reach == REACH_ALL ? src->read(src->ctx, place, off, buf, len, err) : -EAGAIN;
    while (len > 0) {
        enum page_state st;
        uint32_t n = lslot_run(&s, off, len, &st);
        if (st == PAGE_ZERO) {
            memset(buf, 0, n);
        } else if (st == PAGE_ABSENT || llayer_read(l, l->cache, (seg << SEG_SHIFT) + off, buf, n, NULL) < 0) {
            int r = reach == REACH_ALL ? src->read(src->ctx, place, off, buf, n, err) : -EAGAIN;
            if (r < 0)
                return r;
        }
        off += n;
        buf += n;
        len -= n;
    }
    return 0;
}

int live_stored_seek(struct live *l, uint64_t place, uint32_t off, uint32_t end, bool hole, uint32_t *out, struct verr *err)
{
    const struct seg_source *src = &l->set->env.source;
    uint32_t found = 0;
    int r = src->seek(src->ctx, place, off, hole, &found, err);
    if (r == 0)
        *out = found < off ? off : found < end ? found : end;
    return r;
}

/* ---- entries ---- */

int live_entry_ask(live_place_fn fn, void *ctx, uint64_t seg, struct live_entry *e, struct verr *err)
{
    bool zero = true;
    uint64_t place = 0;
    uint32_t pages = UINT32_MAX;
    int r = fn(ctx, seg, &zero, &place, &pages, err);
    if (r < 0)
        return r;
    if (zero)
        *e = (struct live_entry){SEGK_ZERO, false, 0, 0};
    else
        *e = (struct live_entry){SEGK_STORED, false, pages <= SEG_PAGES ? (uint16_t)pages : LIVE_PAGES_UNKNOWN, place};
    return 0;
}

/* Only a stored base can be unknown. The source's answer serves st_blocks alone, so its failure is no error. */
unsigned live_entry_pages(struct live *l, const struct live_entry *e)
{
    if (e->pages != LIVE_PAGES_UNKNOWN)
        return e->pages;
    const struct seg_source *src = &l->set->env.source;
    uint32_t pages = 0;
    if (e->kind != SEGK_STORED || src->pages(src->ctx, e->value, &pages, NULL) < 0 || pages > SEG_PAGES)
        return SEG_PAGES;
    return pages;
}

int live_mark_dirty(struct live *l, uint64_t seg, struct live_entry *e, struct verr *err)
{
    int r = live_set_changed(l, err);
    return r < 0 ? r : live_entry_dirty(l, seg, e, err);
}

int live_entry_dirty(struct live *l, uint64_t seg, struct live_entry *e, struct verr *err)
{
    if (e->dirty)
        return 0;
    bool unknown = e->pages == LIVE_PAGES_UNKNOWN;
    struct live_entry marked = *e;
    marked.pages = (uint16_t)live_entry_pages(l, e);
    marked.dirty = true;
    int r = ltable_put(l, l->cur.table, seg, &marked, err);
    if (r < 0)
        return r;
    *e = marked;
    atomic_fetch_add(&l->dirty, 1);
    if (unknown)
        atomic_fetch_sub(&l->unknown, 1);
    return 0;
}
