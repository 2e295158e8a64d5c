/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_level: the levels of a disk (live_disk.h). A level is a table and a layer. Below, what these are as files; then, what a level
 * shows: its own pages, and below them the base that the table's entry names.
 */
#ifndef VARVE_LIVE_LIVE_LEVEL_H
#define VARVE_LIVE_LIVE_LEVEL_H

#include "live/live_disk.h"

/* ---- live_memo.c ---- */
struct lmemo *lmemo_new(void);
void lmemo_free(struct lmemo *m);
uint64_t lmemo_owner(void);         /* a new one */
/* True: *v is filled in. Else read the file and call lmemo_fill with that count. */
bool lmemo_get(struct lmemo *m, uint64_t owner, uint64_t index, void *v, size_t size, uint64_t *count);
void lmemo_fill(struct lmemo *m, uint64_t owner, uint64_t index, const void *v, size_t size, uint64_t count);
/* Called before the file is written with v NULL, and after it with what was written (NULL again if that failed). */
void lmemo_write(struct lmemo *m, uint64_t owner, uint64_t index, const void *v, size_t size);

/* ---- live_slot.c: slots in memory ---- */
enum page_state { PAGE_ABSENT, PAGE_DATA, PAGE_ZERO };
enum page_state lslot_page(const struct live_slot *s, unsigned page);
void lslot_set(struct live_slot *s, unsigned page, enum page_state st);
unsigned lslot_data_pages(const struct live_slot *s);
unsigned lslot_present(const struct live_slot *s);
/* Bytes from off, at most len, whose pages are all in the same state. */
uint32_t lslot_run(const struct live_slot *s, uint32_t off, uint32_t len, enum page_state *st);
/* Allocated pages of a segment as seen from the layer of the slot, base being the pages below. */
unsigned lslot_alloc(const struct live_slot *s, unsigned base);

/* ---- live_table.c ---- */
struct lslice { uint64_t first; struct live_entry e[SLICE_SEGS]; };
int ltable_create(struct live *l, uint64_t no, struct ltable **out, struct verr *err);
int ltable_open(struct live *l, uint64_t no, uint64_t min_bytes, struct ltable **out, struct verr *err);
struct ltable *ltable_ref(struct ltable *t);
void ltable_unref(struct ltable *t);
/* Closes and unlinks a table that was created and never used. */
void ltable_discard(struct live *l, struct ltable *t);
int ltable_get(struct live *l, struct ltable *t, uint64_t seg, struct live_entry *out, struct verr *err);
int ltable_put(struct live *l, struct ltable *t, uint64_t seg, const struct live_entry *e, struct verr *err);
int ltable_slice_get(struct live *l, struct ltable *t, uint64_t first, struct lslice *out, struct verr *err);
int ltable_slice_put(struct live *l, struct ltable *t, const struct lslice *s, struct verr *err);
/* First segment at or after seg whose entry may be other than all zero; UINT64_MAX if none. */
uint64_t ltable_next(struct ltable *t, uint64_t seg);
/* Durable on return: all entries written before the call. */
int ltable_sync(struct live *l, struct ltable *t, struct verr *err);

/* ---- live_space.c ---- */
/* Adds to what the set counts for layers, or for caches; never fails. */
void llayer_charge(struct llayer *ly, int64_t bytes);
/* Moves the layer's bytes to the counter of caches. */
void llayer_to_cache(struct llayer *ly);
/* Bytes that data may still take: what is free without the spare part. Negative: none. INT64_MAX: not looked at. */
int64_t live_room(const struct live_set *set);
/* Room for data before they are written, and the charge for them; or -ENOSPC with nothing changed. */
int live_space_reserve(struct live *l, struct llayer *ly, uint64_t bytes, struct verr *err);

/* ---- live_presence.c ---- */
int llayer_create(struct live *l, uint64_t no, const struct live_state *st, struct llayer **out, struct verr *err);
enum layer_open { LAYER_TRUSTED, LAYER_REBUILD, LAYER_REBUILD_HEADLESS, LAYER_CACHE };
/* REBUILD: vol is made anew from map; HEADLESS: but its header is left out (llayer_vol_header writes it later). */
int llayer_open(struct live *l, uint64_t no, enum layer_open how, uint64_t min_map_bytes, struct llayer **out, struct verr *err);
/* Checks that a layer's map is there, with a whole header and at least that long. Changes nothing. */
int llayer_map_look(struct live *l, uint64_t no, uint64_t min_map_bytes, struct verr *err);
struct llayer *llayer_ref(struct llayer *ly);
void llayer_unref(struct llayer *ly);
void llayer_discard(struct live *l, struct llayer *ly);
int llayer_vol_header(struct live *l, struct llayer *ly, struct verr *err);
/* Does the vol file of that number exist with a whole header? 1, 0, -errno. */
int llayer_vol_valid(struct live *l, uint64_t no, struct verr *err);
int lslot_get(struct live *l, struct llayer *ly, uint64_t seg, struct live_slot *out, struct verr *err);
int lslot_put(struct live *l, struct llayer *ly, uint64_t seg, const struct live_slot *s, struct verr *err);
uint64_t llayer_next(struct llayer *ly, uint64_t seg);
int llayer_read(struct live *l, struct llayer *ly, uint64_t off, void *buf, size_t len, struct verr *err);
int llayer_write(struct live *l, struct llayer *ly, uint64_t off, const void *buf, size_t len, struct verr *err);
/* Gives back the space of pages that are marked zero or not present; no content depends on it. */
void llayer_punch(struct llayer *ly, uint64_t off, uint64_t len);
int llayer_mark_all(struct llayer *ly);     /* every block that has data may differ from map */
/* Makes a layer's data file this disk's own when another disk's directory links it too (a kill in live_take). */
int live_unshare(struct live *l, uint64_t no, struct verr *err);

/* ---- live_map.c ---- */
struct lcapture { uint64_t *index; uint8_t *data; size_t n; };
/* Copies up to max changed blocks of vol and takes them off the bitmap. */
int llayer_capture(struct live *l, struct llayer *ly, size_t max, struct lcapture *out, struct verr *err);
int llayer_map_put(struct live *l, struct llayer *ly, const struct lcapture *c, struct verr *err);
void llayer_capture_undo(struct llayer *ly, const struct lcapture *c);
void llayer_capture_free(struct lcapture *c);
uint64_t llayer_changed(struct llayer *ly);
int llayer_data_sync(struct live *l, struct llayer *ly, struct verr *err);
int llayer_map_sync(struct live *l, struct llayer *ly, struct verr *err);
/* Makes a layer that nobody writes durable: data -> fdatasync -> map -> fdatasync. */
int llayer_seal(struct live *l, struct llayer *ly, struct verr *err);

/* ---- live_base.c ---- */
/* Content of a stored place: cache layer, else the source. */
int live_stored_read(struct live *l, uint64_t seg, uint64_t place, uint32_t off, uint8_t *buf, uint32_t len, enum live_reach reach,
                     struct verr *err);
/* First byte of [off, end) of a stored place that is a hole (or data); end if there is none. */
int live_stored_seek(struct live *l, uint64_t place, uint32_t off, uint32_t end, bool hole, uint32_t *out, struct verr *err);
/* A clean entry that says what a recipe says of the segment. */
int live_entry_ask(live_place_fn fn, void *ctx, uint64_t seg, struct live_entry *e, struct verr *err);
/* Allocated pages of the entry's base; asks the source where the entry does not know. */
unsigned live_entry_pages(struct live *l, const struct live_entry *e);
/* Sets `changed`, and the dirty bit of the segment in the live table. The segment's lock is held exclusively. */
int live_mark_dirty(struct live *l, uint64_t seg, struct live_entry *e, struct verr *err);
/* The bit alone, for data that are no change. */
int live_entry_dirty(struct live *l, uint64_t seg, struct live_entry *e, struct verr *err);

/* ---- live_view.c. freeze held. ---- */
const struct lview *live_view_by_seq(const struct live *l, uint64_t seq);
/* First segment at or after seg whose entry or slot may be other than all zero; UINT64_MAX if none. */
uint64_t live_view_next(const struct lview *v, uint64_t seg);
int live_view_read(struct live *l, const struct lview *v, uint64_t seg, uint32_t off, uint8_t *buf, uint32_t len, enum live_reach reach,
                   struct verr *err);
/* What v shows of a segment where its layer has no page: e is its table's entry. */
int live_below_read(struct live *l, const struct lview *v, const struct live_entry *e, uint64_t seg, uint32_t off, uint8_t *buf,
                    uint32_t len, enum live_reach reach, struct verr *err);
ssize_t live_view_read_range(struct live *l, const struct lview *v, uint64_t size, uint64_t off, void *buf, size_t len,
                             enum live_reach reach, struct verr *err);
off_t live_view_seek_range(struct live *l, const struct lview *v, uint64_t size, uint64_t off, bool hole, struct verr *err);

/* The level that an entry "frozen SEQ" of v's table leads to. NULL: it is not pending, which is damage; err says so. */
const struct lview *live_view_below(struct live *l, const struct lview *v, const struct live_entry *e, uint64_t seg, struct verr *err);

/* ---- live_merge.c ---- */
enum { MERGE_BYTES = 128 * 1024 };
struct lmerge {
    struct live *owner;             /* of `from` */
    struct llayer *from;
    struct live *l;                 /* of `to` */
    struct llayer *to;
    uint8_t *buf;                   /* MERGE_BYTES */
    bool bounded;                   /* the bound of layer space applies */
};
/* Copies the pages of a segment that `to` has not, and marks them in s, the slot of `to`, which the caller writes then. *bytes: grows by
 * the data copied, for which `to` is charged. */
int live_merge_pages(const struct lmerge *m, uint64_t seg, const struct live_slot *from, struct live_slot *s, uint64_t *bytes,
                     struct verr *err);

/* ---- live_io.c. freeze held, shared or exclusive. ---- */
int live_zero_range(struct live *l, uint64_t off, uint64_t end, struct verr *err);
int live_write_range(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, size_t *done, struct verr *err);

/* ---- live_cache.c ---- */
/* Does the layer of a published snapshot become the cache layer, is it copied into the one there is, or does it go? */
enum cache_plan { CACHE_NONE, CACHE_BECOME, CACHE_MERGE };
enum cache_plan live_cache_plan(struct live *l, const struct llayer *ly);
/* Takes in one segment of that layer, now that its place is known. base: the entry below the layer. An error only costs the cache
 * its copy. */
void live_cache_take(struct live *l, enum cache_plan plan, struct llayer *from, uint64_t seg, const struct live_entry *base,
                     uint64_t place);
/* Empties a segment of the cache, whose slot is s: slot first, so that no kill leaves a tag over pages that are going. */
int live_cache_forget(struct live *l, uint64_t seg, const struct live_slot *s);

#endif
