/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_internal: what the files of `live` share. Nobody else includes it.
 *
 * Locks of one disk, outermost first:
 *   hold_lock   mutex   what a holder keeps back (live_hold.c); held while he gives it, and so around all of the below
 *   sync_lock   mutex   one of fsync, seal, publish, drop, revert, rewrite, point at a time; held across fdatasync
 *   freeze      rwlock  shared by every read and write; exclusive to change cur, lv, cache (which files are read)
 *   seg         rwlock  striped by segment: shared to read entry and slot, exclusive to change them
 *   head_lock   mutex   head, journal, list of files to remove, attributes in the vol file; leaf
 *   live_memo's locks   of the set, never held across I/O; leaves
 * `freeze` of several disks is taken in the order of their ids (live_freeze). The set's lock is a leaf of its own, never
 * held across I/O of a disk. Changing cur, lv or cache takes freeze exclusively AND head_lock, so either lock suffices to read them.
 *
 * True whenever freeze is free:
 *   1. a page present in the open layer implies the dirty bit of its segment in the live table;
 *   2. an entry "frozen SEQ" names a pending snapshot that is older than the table's own;
 *   3. beyond `size` the live image is zero in every layer and entry;
 *   4. whatever the last durable head names is on disk and reads as it did when that head was written.
 */
#ifndef VARVE_LIVE_LIVE_INTERNAL_H
#define VARVE_LIVE_LIVE_INTERNAL_H

#include "base/verr.h"
#include "live/live.h"
#include "live/live_format.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum {
    LIVE_STRIPES = 32,
    SLICE_SEGS = 256,               /* entries in 4 KiB of a table: what batches work on */
    BLOCK_SEGS = 16,                /* slots in 4 KiB of a vol file: what fsync copies */
    CAPTURE_BLOCKS = 256,           /* blocks taken in one go: 1 MiB of memory, 8 GiB of disk */
    JOURNAL_COMPACT = 1 << 20,
    NAME_BYTES = 40,
};

struct ltable {
    uint64_t no;
    _Atomic uint64_t memo;          /* owner of its entries in live_memo */
    int fd;
    _Atomic unsigned refs;
    bool fresh;                     /* never fsynced since it was made (head_lock) */
    uint64_t synced_bytes;          /* length known durable (head_lock) */
    _Atomic bool unsynced;          /* written since the last fdatasync */
};

struct llayer {
    struct live *l;
    uint64_t no, memo;              /* memo: owner of its slots in live_memo */
    int fd, mapfd, volfd;           /* mapfd -1: a cache layer has no durable presence */
    _Atomic unsigned refs;
    bool fresh;                     /* map header never fsynced (head_lock) */
    uint64_t map_bytes;             /* length of map known durable (head_lock) */
    _Atomic bool unsynced;          /* data written since the last fdatasync */
    _Atomic bool map_unsynced;      /* map written since the last fdatasync */
    _Atomic bool is_cache;          /* which counter of the set its bytes are in */
    _Atomic int64_t charged;
    pthread_mutex_t lock;           /* the bitmap below */
    uint64_t *blocks;               /* bit per 4 KiB of vol that may differ from map */
    size_t words;
    uint64_t changed_blocks;
};

/* One level of a disk: the live image (seq UINT64_MAX) or a pending snapshot. */
struct lview {
    uint64_t seq;
    struct ltable *table;
    struct llayer *layer;
};

enum gone_kind { GONE_TABLE, GONE_LAYER, GONE_CACHE, BECOMES_CACHE };
struct lgone { enum gone_kind kind; uint64_t no; uint64_t rec; };

enum live_stage { LIVE_OPENING, LIVE_OPEN, LIVE_CLOSING };

struct live {
    struct live_set *set;
    struct vid id;
    char hex[VID_HEX];
    struct live *next;              /* hash chain     } set lock */
    struct live *older, *newer;     /* unused ones    } */
    unsigned refs;                  /*                } */
    enum live_stage stage;          /*                } */
    int dirfd;
    bool recovering;                /* the bound of layer space does not hold: it must not keep a disk from opening */

    pthread_mutex_t hold_lock;      /* taken first: live_hold.c */
    struct live_holder *holder;
    _Atomic bool held;              /* the holder has data that are not in the live image */

    pthread_mutex_t sync_lock;
    pthread_rwlock_t freeze;
    pthread_rwlock_t segs[LIVE_STRIPES];
    pthread_mutex_t head_lock;
    unsigned inited;                /* how many of the locks above exist */

    struct lview cur;
    struct lview *lv;               /* parallel to head.pend */
    unsigned nlv;
    struct llayer *cache;

    _Atomic uint64_t size;
    _Atomic int64_t mtime_ns;
    _Atomic bool changed;
    _Atomic int64_t alloc_pages;
    _Atomic uint64_t dirty;         /* dirty entries of the live table */
    _Atomic uint64_t unknown;       /* entries of the live table whose pages are unknown */
    _Atomic bool clean;             /* as the vol file says: nothing was changed since all was durable */
    _Atomic int failed;             /* errno of an fsync that failed: final */

    /* head_lock from here on */
    struct live_head head;          /* as in the last record; head.size is the size whose data are durable */
    uint64_t next_no;
    int jfd;
    uint64_t jend, jsynced;
    bool jtorn;                     /* behind jend lies a part of a record */
    uint64_t next_rec, durable_rec; /* number of the next record; of the last durable one */
    _Atomic uint64_t dir_gen;       /* counts files made */
    uint64_t dir_synced;
    struct lgone *gone;
    unsigned ngone, gone_cap;
};

enum { SET_BUCKETS = 256 };
struct live_set {
    struct live_env env;
    int disksfd;
    pthread_mutex_t lock;
    pthread_cond_t moved;           /* a disk left OPENING or CLOSING */
    struct live *buckets[SET_BUCKETS];
    struct live *oldest, *newest;   /* unused open disks */
    unsigned unused;
    _Atomic int64_t layer_bytes, cache_bytes;
    struct lmemo *memo;
    _Atomic int64_t granted;        /* of the room seen last, what may still be taken without another look */
};

/* ---- errors (live_set.c) ---- */
int live_fail(const struct live *l, struct verr *err, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
#ifdef __clang_analyzer__
#define live_fail(...) verr_negative((live_fail)(__VA_ARGS__))
#endif
#define LIVE_MISSING "is missing, or the journal has lost its newest records"
#define LIVE_RECOVER "recover"      /* in a disk's directory: its vol files were taken away because they may not be believed */
/* A file name of the disk: "table-7", "layer-3.vol". */
void live_name(char out[NAME_BYTES], const char *stem, uint64_t no, const char *suffix);
/* An fsync failed: no more changes, and the next start believes only what is durable. */
void live_distrust(struct live *l);
/* fdatasync; a failure is final for the disk. */
int live_sync_fd(struct live *l, int fd, const char *stem, uint64_t no, const char *suffix, struct verr *err);
int live_check_failed(struct live *l, struct verr *err);

static inline pthread_rwlock_t *live_seg_lock(struct live *l, uint64_t seg) { return &l->segs[seg % LIVE_STRIPES]; }
/* Takes the lock of a segment, or freeze. False: REACH_LOCAL, and somebody holds it: he may wait for STORE. */
static inline bool live_reach_lock(pthread_rwlock_t *lock, enum live_reach reach, bool excl)
{
    if (reach == REACH_LOCAL)
        return (excl ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock)) == 0;
    return (excl ? pthread_rwlock_wrlock(lock) : pthread_rwlock_rdlock(lock)) == 0;
}
static inline uint64_t live_now(const struct live *l) { return (uint64_t)vclock_real_ns(l->set->env.clock); }

/* ---- live_memo.c ---- */
struct lmemo *lmemo_new(void);
void lmemo_free(struct lmemo *m);
uint64_t lmemo_owner(void);         /* a new one */
/* True: *v is filled in. Else read the file and call lmemo_fill with that count. */
bool lmemo_get(struct lmemo *m, uint64_t owner, uint64_t index, void *v, size_t size, uint64_t *count);
void lmemo_fill(struct lmemo *m, uint64_t owner, uint64_t index, const void *v, size_t size, uint64_t count);
/* Before the file is written with v NULL, after it with what was written (NULL again if that failed). */
void lmemo_write(struct lmemo *m, uint64_t owner, uint64_t index, const void *v, size_t size);

/* ---- live_table.c ---- */
struct lslice { uint64_t first; struct live_entry e[SLICE_SEGS]; };
int ltable_create(struct live *l, uint64_t no, struct ltable **out, struct verr *err);
int ltable_open(struct live *l, uint64_t no, uint64_t min_bytes, struct ltable **out, struct verr *err);
struct ltable *ltable_ref(struct ltable *t);
void ltable_unref(struct ltable *t);
/* Takes a created, never used table back: closed and unlinked. */
void ltable_discard(struct live *l, struct ltable *t);
int ltable_get(struct live *l, struct ltable *t, uint64_t seg, struct live_entry *out, struct verr *err);
int ltable_put(struct live *l, struct ltable *t, uint64_t seg, const struct live_entry *e, struct verr *err);
int ltable_slice_get(struct live *l, struct ltable *t, uint64_t first, struct lslice *out, struct verr *err);
int ltable_slice_put(struct live *l, struct ltable *t, const struct lslice *s, struct verr *err);
/* First segment at or after seg whose entry may be other than all zero; UINT64_MAX if none. */
uint64_t ltable_next(struct ltable *t, uint64_t seg);
/* Durable on return: all entries written before the call. */
int ltable_sync(struct live *l, struct ltable *t, struct verr *err);

/* ---- live_presence.c ---- */
int llayer_create(struct live *l, uint64_t no, const struct live_state *st, struct llayer **out, struct verr *err);
enum layer_open { LAYER_TRUSTED, LAYER_REBUILD, LAYER_REBUILD_HEADLESS, LAYER_CACHE };
/* REBUILD: vol is made anew from map; HEADLESS: but its header is left out (llayer_vol_header writes it later). */
int llayer_open(struct live *l, uint64_t no, enum layer_open how, uint64_t min_map_bytes, struct llayer **out, struct verr *err);
/* Is a layer's map there, with a whole header and that long? Changes nothing. */
int llayer_map_look(struct live *l, uint64_t no, uint64_t min_map_bytes, struct verr *err);
struct llayer *llayer_ref(struct llayer *ly);
void llayer_unref(struct llayer *ly);
void llayer_discard(struct live *l, struct llayer *ly);
int llayer_vol_header(struct live *l, struct llayer *ly, struct verr *err);
/* Does the vol file of that number exist with a whole header? 1, 0, -errno. */
int llayer_vol_valid(struct live *l, uint64_t no, struct verr *err);
int llayer_state_get(struct live *l, struct llayer *ly, struct live_state *out, struct verr *err);
int llayer_state_put(struct live *l, struct llayer *ly, const struct live_state *st, struct verr *err);
int lslot_get(struct live *l, struct llayer *ly, uint64_t seg, struct live_slot *out, struct verr *err);
int lslot_put(struct live *l, struct llayer *ly, uint64_t seg, const struct live_slot *s, struct verr *err);
uint64_t llayer_next(struct llayer *ly, uint64_t seg);
int llayer_read(struct live *l, struct llayer *ly, uint64_t off, void *buf, size_t len, struct verr *err);
int llayer_write(struct live *l, struct llayer *ly, uint64_t off, const void *buf, size_t len, struct verr *err);
/* Gives the space of pages that are marked zero (or not present) back; content does not depend on it. */
void llayer_punch(struct llayer *ly, uint64_t off, uint64_t len);
void llayer_charge(struct llayer *ly, int64_t bytes);
/* Adds bytes to what layers take, or -ENOSPC with nothing changed. */
/* Bytes that data may still take: what is free without the spare part. Negative: none. INT64_MAX: not looked at. */
int64_t live_room(const struct live_set *set);
/* Room for data before they are written, and the charge for them. -ENOSPC. */
int live_space_reserve(struct live *l, struct llayer *ly, uint64_t bytes, struct verr *err);
/* Moves its bytes to the set's cache counter. */
void llayer_to_cache(struct llayer *ly);
int llayer_mark_all(struct llayer *ly);     /* every block that has data may differ from map */

struct lcapture { uint64_t *index; uint8_t *data; size_t n; };
/* Copies up to max changed blocks of vol and takes them off the bitmap. */
int llayer_capture(struct live *l, struct llayer *ly, size_t max, struct lcapture *out, struct verr *err);
int llayer_map_put(struct live *l, struct llayer *ly, const struct lcapture *c, struct verr *err);
void llayer_capture_undo(struct llayer *ly, const struct lcapture *c);
void llayer_capture_free(struct lcapture *c);
uint64_t llayer_changed(struct llayer *ly);
int llayer_data_sync(struct live *l, struct llayer *ly, struct verr *err);
int llayer_map_sync(struct live *l, struct llayer *ly, struct verr *err);
/* Of a layer nobody writes: data -> fdatasync -> map -> fdatasync. */
int llayer_seal(struct live *l, struct llayer *ly, struct verr *err);

/* slots in memory */
enum page_state { PAGE_ABSENT, PAGE_DATA, PAGE_ZERO };
enum page_state lslot_page(const struct live_slot *s, unsigned page);
void lslot_set(struct live_slot *s, unsigned page, enum page_state st);
unsigned lslot_data_pages(const struct live_slot *s);
unsigned lslot_present(const struct live_slot *s);
/* Bytes from off, at most len, whose pages are all in the same state. */
uint32_t lslot_run(const struct live_slot *s, uint32_t off, uint32_t len, enum page_state *st);
/* Allocated pages of a segment as seen from the layer of the slot, base being the pages below. */
unsigned lslot_alloc(const struct live_slot *s, unsigned base);

/* ---- live_hold.c ---- */
/* The holder gives what he keeps back. Every public call that reads, changes, freezes or syncs the live image begins with it. */
void live_give(struct live *l);
/* False: REACH_LOCAL, and there is something to be given. */
static inline bool live_give_within(struct live *l, enum live_reach reach)
{
    if (!atomic_load(&l->held))
        return true;
    if (reach == REACH_ALL)
        live_give(l);
    return reach == REACH_ALL;
}

/* ---- live_journal.c ---- */
struct ljournal_scan {
    uint8_t *data;
    size_t len;
    uint64_t end;                   /* of the chain */
    uint64_t last, complete;        /* offsets of the last record and the last complete one; UINT64_MAX none */
    bool damaged;                   /* behind the chain stands what no torn append leaves */
};
int ljournal_scan(struct live *l, struct ljournal_scan *out, struct verr *err);
int ljournal_head(struct live *l, const struct ljournal_scan *s, uint64_t offset, struct live_record *rec, struct live_head *h,
                  struct verr *err);
int ljournal_open(struct live *l, struct verr *err);
/* Appends nh and makes it the head (nh is moved from). head_lock held. Not durable. complete: every file it names is durable. */
int ljournal_put(struct live *l, struct live_head *nh, bool complete, struct verr *err);
/* Replaces the journal by one complete record of nh: durable on return, nh moved from. head_lock held (or nobody else yet). */
int ljournal_replace(struct live *l, struct live_head *nh, struct verr *err);
/* Makes the last record durable, then removes files that only older heads named. sync_lock held. */
int ljournal_sync(struct live *l, struct verr *err);
/* A file that goes once the current head is durable. head_lock held. Call with room made by ljournal_gone_room. */
int ljournal_gone_room(struct live *l, unsigned n);
void ljournal_gone(struct live *l, enum gone_kind kind, uint64_t no);
/* Copy of the head with volatile attributes filled in. head_lock held. */
int live_head_now(struct live *l, struct live_head *nh, struct verr *err);
bool live_files_fresh(const struct live *l);                    /* head_lock held */
/* Locks head_lock (and freeze exclusively, if excl) at a moment when all files of the head are durable. sync_lock held. */
int live_commit_lock(struct live *l, bool excl, struct verr *err);
void live_commit_unlock(struct live *l, bool excl);
/* Between the two: a complete record. Durable after ljournal_sync. */
int live_commit_put(struct live *l, struct live_head *nh, struct verr *err);
uint64_t live_new_no(struct live *l);

/* ---- live_io.c, live_view.c, live_zero.c ---- */
int live_state_save(struct live *l, struct verr *err);          /* volatile attributes -> vol file. head_lock held. */
int live_set_changed(struct live *l, struct verr *err);
/* Size at least end, in the vol file. freeze held. */
int live_grow(struct live *l, uint64_t end, struct verr *err);
/* Takes the clean mark off the vol file before the first change. _locked: head_lock held. */
int live_unclean(struct live *l, struct verr *err);
int live_unclean_locked(struct live *l, struct verr *err);
void live_note_mtime(struct live *l);
int live_mark_dirty(struct live *l, uint64_t seg, struct live_entry *e, struct verr *err);
unsigned live_entry_pages(struct live *l, const struct live_entry *e);
void live_alloc_add(struct live *l, int64_t pages);
const struct lview *live_view_by_seq(const struct live *l, uint64_t seq);
int live_view_read(struct live *l, const struct lview *v, uint64_t seg, uint32_t off, uint8_t *buf, uint32_t len, enum live_reach reach,
                   struct verr *err);
int live_below_read(struct live *l, const struct lview *v, const struct live_entry *e, uint64_t seg, uint32_t off, uint8_t *buf,
                    uint32_t len, enum live_reach reach, struct verr *err);
ssize_t live_view_read_range(struct live *l, const struct lview *v, uint64_t size, uint64_t off, void *buf, size_t len,
                             enum live_reach reach, struct verr *err);
off_t live_view_seek_range(struct live *l, const struct lview *v, uint64_t size, uint64_t off, bool hole, struct verr *err);
/* freeze held (shared or exclusive) by the caller. */
int live_zero_range(struct live *l, uint64_t off, uint64_t end, struct verr *err);
int live_write_range(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, size_t *done, struct verr *err);

/* ---- live_sync.c ---- */
/* sync_lock held. skip: a pending snapshot that is about to be dropped, and so is not sealed; 0 none. SEAL_NONE: seals none,
 * because in recovery volatile ones have lost data. */
#define SEAL_NONE UINT64_MAX
int live_fsync_locked(struct live *l, uint64_t skip, struct verr *err);
/* Seals what shows through the live image, before something younger is said of it durably. sync_lock held. */
int live_seal_shown(struct live *l, struct verr *err);
/* Durable size of the live image once seq, not sealed until now, is durable here or in STORE. head_lock held. */
uint64_t live_sealed_size(const struct live *l, uint64_t seq);
/* Makes all durable and says so in the vol file, so that the next open need not look. Nobody else uses the disk. */
int live_make_clean(struct live *l, struct verr *err);
/* fdatasync of the tables of all levels younger than the i-th pending one. sync_lock held. */
int live_sync_younger(struct live *l, unsigned i, struct verr *err);

/* ---- live_drop.c ---- */
int live_pending_drop_locked(struct live *l, uint64_t seq, struct verr *err);   /* sync_lock held */
int live_drop_at(struct live *l, unsigned i, struct verr *err);     /* the same by position, started or not */

/* ---- live_cache.c ---- */
/* Content of a stored place: cache layer, else the source. */
int live_stored_read(struct live *l, uint64_t seg, uint64_t place, uint32_t off, uint8_t *buf, uint32_t len, enum live_reach reach,
                     struct verr *err);
/* Does the layer of a published snapshot become the cache layer, is it copied into the one there is, or does it go? */
enum cache_plan { CACHE_NONE, CACHE_BECOME, CACHE_MERGE };
enum cache_plan live_cache_plan(struct live *l, const struct llayer *ly);
/* One segment of it whose place is known now. base: the entry below the layer. Errors only cost the cache its copy. */
void live_cache_take(struct live *l, enum cache_plan plan, struct llayer *from, uint64_t seg, const struct live_entry *base,
                     uint64_t place);

/* ---- live_point.c, live_take.c ---- */
/* A new table and layer on their way to take the place of the old ones. */
struct live_fresh {
    struct ltable *table;
    struct llayer *layer;
    uint64_t size, unknown, dirty;
    int64_t alloc_pages;
    bool changed;                   /* the content is no stored snapshot's */
};
int live_make_fresh(struct live *l, struct live_fresh *f, struct verr *err);        /* makes the layer */
void live_discard_fresh(struct live *l, struct live_fresh *f);
void live_name_fresh(struct live_head *nh, const struct live_fresh *f);
void live_use_fresh(struct live *l, struct live_fresh *f);
int live_list_anchor(struct live *l, struct live_head *nh, const struct live_anchor *anchor, bool *changed, struct verr *err);
/* A layer's data file that another disk's directory links too (a kill in live_take) becomes this disk's own. */
int live_unshare(struct live *l, uint64_t no, struct verr *err);

/* ---- live_recover.c ---- */
int live_recover(struct live *l, struct verr *err);
int live_write_new(struct live_set *set, const struct vid *disk, uint64_t min_seq, int64_t last_name_s, struct verr *err);

/* ---- live_set.c ---- */
void live_release(struct live *l);      /* closes and frees; no I/O that could lose anything */

#endif
