/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_disk: the object of an open disk and of the set, their locks, and what every file of `live` needs of them: names, errors,
 * the holder, the attributes that change with every write. The lowest of the three headers inside `live`; no other folder includes them:
 *
 *   live_disk.h   this one
 *   live_level.h  levels: their tables and layers as files, and the content that a level shows
 *   live_head.h   the head: journal, durable changes, anchors, recovery
 *
 * tests/lint/order.py keeps the files of this folder in one order: each calls only those that stand before it.
 *
 * Locks of one disk, outermost first:
 *   hold_lock   mutex   what a holder keeps back (live_hold.c); held while the holder gives it, and so around all of the below
 *   sync_lock   mutex   one of fsync, seal, publish, drop, revert, rewrite, point at a time; held across fdatasync
 *   freeze      rwlock  shared by every read and write; exclusive to change cur, lv, cache (which files are read)
 *   seg         rwlock  striped by segment: shared to read entry and slot, exclusive to change them
 *   head_lock   mutex   head, journal, list of files to remove, attributes in the vol file; leaf
 *   live_memo's locks   of the set, never held across I/O; leaves
 *   lfiles' lock        of the set: which files are open (live_files.c); innermost, never held across I/O
 * `freeze` of several disks is taken in the order of their ids (live_freeze). The set's lock is a leaf of its own, never
 * held across I/O of a disk. Changing cur, lv or cache takes freeze exclusively AND head_lock, so either lock suffices to read them.
 *
 * True whenever freeze is free:
 *   1. a page present in the open layer implies the dirty bit of its segment in the live table;
 *   2. an entry "frozen SEQ" names a pending snapshot that is older than the table's own;
 *   3. beyond `size` the live image is zero in every layer and entry;
 *   4. whatever the last durable head names is on disk and reads as it did when that head was written.
 */
#ifndef VARVE_LIVE_LIVE_DISK_H
#define VARVE_LIVE_LIVE_DISK_H

#include "base/verr.h"
#include "live/live.h"
#include "live/live_format.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

enum {
    LIVE_STRIPES = 32,
    SLICE_SEGS = 256,               /* entries in 4 KiB of a table: what batches work on */
    BLOCK_SEGS = 16,                /* slots in 4 KiB of a vol file: what fsync copies */
    CAPTURE_BLOCKS = 256,           /* blocks taken in one go: 1 MiB of memory, 8 GiB of disk */
    JOURNAL_COMPACT = 1 << 20,
    GONE_MOST = 256,                /* files that wait for a durable record before they go */
    NAME_BYTES = 40,
    LIVE_DIR_BYTES = VID_HEX + 8,
};

struct lfile;
struct lfiles {
    pthread_mutex_t lock;           /* guards all below, and of each file what lfile says */
    pthread_cond_t moved;           /* a file is no longer busy */
    struct lfile *hand;             /* in the ring of open files */
    unsigned open, max;
};

/* A file of a disk, open or not: live_files.c. */
struct lfile {
    struct live *l;
    const char *stem, *suffix;      /* constants; suffix NULL: stem is the whole name */
    uint64_t no;
    bool is_volatile;               /* nothing of it needs to be durable */
    bool is_cache;                  /* its name may still be the layer's */
    int fd;                         /* of users alone */
    _Atomic unsigned users;
    _Atomic bool used;              /* since the hand came by */
    _Atomic bool written;           /* since its last fdatasync at the latest */
    bool busy;                      /* } lfiles' lock */
    struct lfile *prev, *next;      /* } */
    uint64_t ino;                   /* 0: never opened. Changed by the thread for which it is busy */
};

struct ltable {
    uint64_t no;
    _Atomic uint64_t memo;          /* owner of its entries in live_memo */
    struct lfile file;
    _Atomic unsigned refs;
    bool fresh;                     /* never fsynced since it was made (head_lock) */
    uint64_t synced_bytes;          /* length known durable (head_lock) */
    _Atomic bool unsynced;          /* written since the last fdatasync */
};

struct llayer {
    struct live *l;
    uint64_t no, memo;              /* memo: owner of its slots in live_memo */
    struct lfile data, map, vol;    /* a cache layer has no map: no durable presence */
    _Atomic unsigned refs;
    bool fresh;                     /* map header never fsynced (head_lock) */
    unsigned readers;               /* of the pending snapshot (head_lock) */
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
    char dir[LIVE_DIR_BYTES];       /* its directory in disks/: hex, or a temporary name while it is made. No descriptor of it is held */
    struct live *next;              /* hash chain     } set lock */
    struct live *older, *newer;     /* unused ones    } */
    unsigned refs;                  /*                } */
    enum live_stage stage;          /*                } */
    bool recovering;                /* the bound of layer space does not apply: it must not keep a disk from opening */

    pthread_mutex_t hold_lock;      /* taken first: live_hold.c */
    struct live_holder *holder;
    _Atomic bool held;              /* the holder has data that are not in the live image */

    pthread_mutex_t sync_lock;
    pthread_rwlock_t freeze;
    pthread_rwlock_t segs[LIVE_STRIPES];
    pthread_mutex_t head_lock;

    struct lview cur;
    struct lview *lv;               /* parallel to head.pend */
    unsigned nlv;
    struct llayer *cache;

    _Atomic uint64_t size;
    _Atomic int64_t mtime_ns;
    _Atomic enum live_change changed;
    _Atomic int64_t alloc_pages;
    _Atomic uint64_t dirty;         /* dirty entries of the live table */
    _Atomic uint64_t unknown;       /* entries of the live table whose pages are unknown */
    _Atomic bool clean;             /* as the vol file says: nothing was changed since all was durable */
    _Atomic int failed;             /* errno of an fsync that failed: final */

    /* head_lock from here on */
    struct live_head head;          /* as in the last record; head.size is the size whose data are durable */
    uint64_t next_no;
    struct lfile journal;
    uint64_t jend, jsynced;
    bool jtorn;                     /* part of a record lies behind jend */
    uint64_t next_rec, durable_rec; /* number of the next record; of the last durable one */
    _Atomic uint64_t dir_gen;       /* counts files made */
    uint64_t dir_synced;
    struct lgone *gone;
    unsigned ngone, gone_cap;
};

enum { SET_BUCKETS = 256, LIVE_READY_MOST = 16 };
struct live_set {
    struct live_env env;
    int disksfd;
    pthread_mutex_t lock;
    pthread_cond_t moved;           /* a disk left OPENING or CLOSING */
    struct live *buckets[SET_BUCKETS];
    struct live *oldest, *newest;   /* unused open disks */
    unsigned unused;
    struct vid ready[LIVE_READY_MOST];  /* images made ahead */
    unsigned nready, made;          /* made: disks since the set was opened */
    _Atomic int64_t layer_bytes, cache_bytes;
    struct lmemo *memo;
    struct lfiles *files;
    _Atomic int64_t granted;        /* bytes that data may take before the free room is looked up again */
};

/* ---- live_disk.c ---- */
int live_fail(const struct live *l, struct verr *err, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
#ifdef __clang_analyzer__
#define live_fail(...) verr_negative((live_fail)(__VA_ARGS__))
#endif
#define LIVE_MISSING "is missing, or the journal has lost its newest records"
#define LIVE_RECOVER "recover"      /* in a disk's directory: its vol files were removed because they may not be believed */
/* A file name of the disk: "table-7", "layer-3.vol". */
void live_name(char out[NAME_BYTES], const char *stem, uint64_t no, const char *suffix);
/* Files of the disk by their names in its directory: as the system calls, -errno. */
int live_open_file(const struct live *l, const char *name, int flags);
int live_stat_file(const struct live *l, const char *name, struct stat *st);
int live_unlink(const struct live *l, const char *name);
int live_rename(const struct live *l, const char *from, const char *to);
int live_link(const struct live *from, const char *name, const struct live *to, const char *to_name);
/* Its directory, for a moment: the caller closes it. */
int live_open_dir(const struct live *l);
int live_sync_dir(const struct live *l);
/* dir_each */
int live_each_file(struct live *l, int (*fn)(void *ctx, const char *name), void *ctx);
/* Removes the vol files and the cache of the disk in that directory and leaves LIVE_RECOVER. 0 or -errno. */
int live_forget_volatile(int dirfd);
/* An fsync failed: no more changes, and the next start believes only what is durable. */
void live_distrust(struct live *l);
/* fdatasync; a failure is final for the disk. */
int live_sync_fd(struct live *l, int fd, const char *stem, uint64_t no, const char *suffix, struct verr *err);
/* 0, or the error of every change after a failed fsync. */
int live_check_failed(struct live *l, struct verr *err);

/* ---- live_files.c: files that are open only while they are used. Any thread; -errno as the system calls. ---- */
/* max: the number of files of all disks that stay open; 0: no bound. */
struct lfiles *lfiles_new(unsigned max);
void lfiles_free(struct lfiles *fs);
/* The file "STEM-NO SUFFIX" (or, suffix NULL, STEM) in the disk's directory. Opens nothing. */
void lfile_init(struct lfile *f, struct live *l, const char *stem, uint64_t no, const char *suffix);
/* It belongs to a cache from now on: its name changes, now or later, from "layer" to "cache". */
void lfile_to_cache(struct lfile *f);
/* Opens it for the first time, with these flags besides O_RDWR. */
int lfile_open(struct lfile *f, int flags);
/* True: lfile_open opened or made it, and neither lfile_end nor lfile_shut came since. */
bool lfile_known(const struct lfile *f);
/* Its descriptor, good until lfile_done. -EBADMSG: it is gone, or it is another file by now. */
int lfile_use(struct lfile *f);
void lfile_done(struct lfile *f);
/* Closes it for good. Nobody uses it. */
void lfile_end(struct lfile *f);
/* The same, but durable before; the next use opens what the name leads to then. */
void lfile_shut(struct lfile *f);
ssize_t lfile_read(struct lfile *f, void *buf, size_t n, off_t off);
int lfile_write(struct lfile *f, const void *buf, size_t n, off_t off);
int lfile_stat(struct lfile *f, struct stat *st);
off_t lfile_seek(struct lfile *f, off_t off, int whence);
int lfile_truncate(struct lfile *f, off_t size);
void lfile_times(struct lfile *f, const struct timespec times[2]);
void lfile_punch(struct lfile *f, off_t off, off_t len);        /* a failure costs only space */
void lfile_start(struct lfile *f);                              /* starts to write back; durable is only what lfile_sync made so */
int lfile_sync(struct lfile *f, struct verr *err);              /* live_sync_fd */

static inline pthread_rwlock_t *live_seg_lock(struct live *l, uint64_t seg) { return &l->segs[seg % LIVE_STRIPES]; }
/* Takes the lock of a segment, or freeze. False: reach is REACH_LOCAL and another thread, which may wait for STORE, has the lock. */
static inline bool live_reach_lock(pthread_rwlock_t *lock, enum live_reach reach, bool excl)
{
    if (reach == REACH_LOCAL)
        return (excl ? pthread_rwlock_trywrlock(lock) : pthread_rwlock_tryrdlock(lock)) == 0;
    return (excl ? pthread_rwlock_wrlock(lock) : pthread_rwlock_rdlock(lock)) == 0;
}
static inline uint64_t live_now(const struct live *l) { return (uint64_t)vclock_real_ns(l->set->env.clock); }

/* ---- live_hold.c ---- */
/* The holder gives what it keeps back. Every public call that reads, changes, freezes or syncs the live image begins with it. */
void live_give(struct live *l);
/* False: reach is REACH_LOCAL and the holder has data to give. */
static inline bool live_give_within(struct live *l, enum live_reach reach)
{
    if (!atomic_load(&l->held))
        return true;
    if (reach == REACH_ALL)
        live_give(l);
    return reach == REACH_ALL;
}

/* ---- live_state.c ---- */
int live_state_get(struct live *l, struct llayer *ly, struct live_state *out, struct verr *err);
int live_state_put(struct live *l, struct llayer *ly, const struct live_state *st, struct verr *err);
/* Writes the attributes into the vol file. head_lock held. */
int live_state_save(struct live *l, struct verr *err);
/* Takes the clean mark off the vol file before the first change. _locked: head_lock held. */
int live_unclean(struct live *l, struct verr *err);
int live_unclean_locked(struct live *l, struct verr *err);
int live_set_changed(struct live *l, struct verr *err);
/* The same for a snapshot that is taken back. LIVE_UNKEPT leaves what has changed as it is. */
int live_set_change(struct live *l, enum live_change to, struct verr *err);
/* Size at least end, in the vol file. freeze held. */
int live_grow(struct live *l, uint64_t end, struct verr *err);
void live_note_mtime(struct live *l);
/* As a write that ends at `end`, without its data: `changed`, size, mtime. Takes freeze. */
int live_extend(struct live *l, uint64_t end, struct verr *err);
void live_alloc_add(struct live *l, int64_t pages);

#endif
