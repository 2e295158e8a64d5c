/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live: live images in STATE (docs/FORMAT.md "STATE", docs/design/live.md).
 *
 * STATE/disks/DISK/ describes one disk by itself:
 *   journal     append-only log of checksummed *head* records; the last valid one is the state: size, current table,
 *               open layer, pending snapshots, anchors, marks. A record never destroys an older one.
 *   table-N     16 bytes a segment, each with its own checksum: zero | stored PLACE | frozen SEQ, + dirty, + pages allocated
 *   layer-N     sparse file, segment s at s * 2 MiB
 *   layer-N.map durable presence: which pages of a segment the layer decides, and which of them are zero; written only after
 *               the data were fdatasynced
 *   layer-N.vol volatile presence (superset of map), size and mtime: survives kill -9; believed only while STATE's page
 *               cache cannot have been lost (same boot id and same mount instance: live_env.trusted)
 *   cache-N[.vol] layer of a published snapshot: each slot names the place whose content its pages are
 *
 * Reading segment s of the live image, page by page: open layer -> (table says) frozen SEQ: as that pending snapshot has
 * it | stored PLACE: cache layer, else the store | zero.  A pending snapshot reads: its sealed layer -> its own table.
 *
 * Order of durability (live_fsync): fdatasync(table: dirty bits) and fdatasync(layer) -> map -> fdatasync(map) ->
 * journal -> fdatasync(journal). So durable presence implies durable data and a durable dirty bit.
 * Write: dirty bit (pwrite to the table) -> data (pwrite to the layer) -> volatile presence (pwrite), all inside one
 * shared hold of the freeze lock. Freeze holds it exclusively.
 *
 * Threads: every function may be called by any thread. Locks, outermost first: sync mutex (one fsync, seal, publication, drop,
 * revert, rewrite or point of a disk at a time) -> freeze lock (rwlock; live_freeze takes those of all its disks in id order)
 * -> segment lock (striped rwlock) -> head mutex. live_freeze, reads and writes never wait for the sync mutex.
 *
 * A failed fdatasync is final for its disk: every later change of it gives -EIO until the process is started anew.
 */
#ifndef VARVE_LIVE_LIVE_H
#define VARVE_LIVE_LIVE_H

#include "base/clock.h"
#include "base/id.h"
#include "format/ref.h"
#include "format/snapinfo.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct live_set;
struct live;
struct verr;

/* How stored segments are read: given by the layer above (snapshot/segread). off + len <= SEG_BYTES. */
struct seg_source {
    int (*read)(void *ctx, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err);
    /* Next data (hole false) or hole (true) at or after off inside the segment; SEG_BYTES if none. */
    int (*seek)(void *ctx, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err);
    /* Number of allocated 4 KiB pages of the segment. */
    int (*pages)(void *ctx, uint64_t place, uint32_t *out, struct verr *err);
    void *ctx;
};

struct live_env {
    int state_dirfd;                /* STATE/disks is below it */
    struct seg_source source;
    const struct vclock *clock;
    bool trusted;                   /* volatile presence of the last run may be believed */
    uint64_t layer_limit;           /* bytes of open and pending layers (not of caches) together; then writes get ENOSPC. 0: none */
    uint64_t spare;                 /* bytes of STATE's filesystem that data leave free, with 1/32 of the layers' bytes, for storing and
                                     * removing. Caches go while data have less room than `spare`; without room writes get ENOSPC.
                                     * 0: free space is not looked at */
    uint64_t cache_limit;           /* bytes of published layers kept as a read cache; 0: none */
    unsigned open_max;              /* unused disks kept open (LRU) */
    unsigned files_max;             /* files of all disks that stay open: an open disk holds no other descriptor */
};

/* ---- the set ---- */
int live_set_open(const struct live_env *env, struct live_set **out, struct verr *err);
/* Writes back everything (live_fsync of each changed disk); a clean stop. */
int live_set_close(struct live_set *set, struct verr *err);
/* fn for each disk directory in STATE. */
int live_set_each(struct live_set *set, int (*fn)(void *ctx, const struct vid *disk), void *ctx, struct verr *err);
struct live_space { uint64_t layers_bytes, cache_bytes, layer_limit; };
void live_set_space(struct live_set *set, struct live_space *out);

/* ---- one disk ---- */

/* New empty disk whose next sequence number is at least min_seq and whose next snapshot name is later than last_name_s, marked
 * LIVE_UNNAMED. Durable on return. -EEXIST. */
int live_create(struct live_set *set, const struct vid *disk, uint64_t min_seq, int64_t last_name_s, struct live **out, struct verr *err);
/* Images made ahead, under random ids, as live_create makes them with min_seq 1 and last_name_s 0: a disk that takes one waits for no
 * fsync. take: its id, and -ENOENT when there is none; it is opened with live_get, and the caller sets its mtime. due: more are wanted,
 * for which one thread at a time calls make. */
int live_ready_take(struct live_set *set, struct vid *id, struct verr *err);
bool live_ready_due(struct live_set *set);
int live_ready_make(struct live_set *set, struct verr *err);
/* Opens (recovers, at first use) and takes a reference. -ENOENT; -EBADMSG damaged: names the file. */
int live_get(struct live_set *set, const struct vid *disk, struct live **out, struct verr *err);
void live_put(struct live *l);
/* Removes the directory of a disk. A power loss may bring it back whole, with what says that it goes: then the next start removes it.
 * -EBUSY: a snapshot is pending, or the disk is in use. */
int live_remove(struct live_set *set, const struct vid *disk, struct verr *err);
/* Removes it with all its pending snapshots, durably: an image that nobody reads again. Needs no space, unlike dropping the snapshots. */
int live_discard(struct live_set *set, const struct vid *disk, struct verr *err);
const struct vid *live_id(const struct live *l);
/* The next snapshot gets at least that sequence number, and a name later than last_name_s: after a power loss STORE may have a
 * snapshot whose freeze the journal forgot. Changes memory alone, so the caller repeats it at each start; the next record keeps it. */
void live_raise(struct live *l, uint64_t min_seq, int64_t last_name_s);

/* ---- removal, recorded before it begins ----
 * An image without a name may have lost its name. So the caller that removes a name first records the removal in the image's own
 * directory, and recovery removes a nameless image only if it has that record. None of the three calls needs a readable image. */
/* Records the removal; durable on return. 0 also when there is no image of that disk. */
int live_removal_say(int state_dirfd, const struct vid *disk, struct verr *err);
/* Takes the record back: the image stays. Durable on return; 0 also when there is no record. */
int live_removal_unsay(int state_dirfd, const struct vid *disk, struct verr *err);
/* 1: recorded; 0: not; -errno. */
int live_removal_said(int state_dirfd, const struct vid *disk, struct verr *err);

enum live_mark {
    LIVE_REWRITING = 1u << 0,
    LIVE_UNNAMED = 1u << 1,         /* set by live_create: no name leads to the disk yet; the caller clears it once one does */
};
struct live_attr {
    uint64_t size, alloc_bytes;     /* alloc: allocated logical bytes, a multiple of 4096; never 0 for a disk with data */
    int64_t mtime_ns;
    uint32_t marks;                 /* enum live_mark */
    bool changed;                   /* since the last freeze, or unkept */
    bool unkept;                    /* not changed since, but the snapshot of this state was removed (live_pending_remove) */
    uint64_t dirty_segments, next_seq;
    int64_t last_name_s;            /* time in the name of the last snapshot */
    unsigned pending;               /* number of pending snapshots */
};
int live_attr(struct live *l, struct live_attr *out, struct verr *err);
int live_set_mtime(struct live *l, int64_t mtime_ns, struct verr *err);        /* utimens; no change in the sense of `changed` */

/* ---- data. off, len in bytes; any alignment. ---- */
/* REACH_LOCAL: works on local files alone; -EAGAIN when the call would wait for STORE, or for a lock whose owner may wait for STORE.
 * Part of the bytes may be done then; the same call with REACH_ALL does all of them. */
enum live_reach { REACH_ALL, REACH_LOCAL };
ssize_t live_read_within(struct live *l, uint64_t off, void *buf, size_t len, enum live_reach reach, struct verr *err);
int live_write_within(struct live *l, uint64_t off, const void *buf, size_t len, enum live_reach reach, struct verr *err);
static inline ssize_t live_read(struct live *l, uint64_t off, void *buf, size_t len, struct verr *err)      /* short at end of file */
{
    return live_read_within(l, off, buf, len, REACH_ALL, err);
}
static inline int live_write(struct live *l, uint64_t off, const void *buf, size_t len, struct verr *err)   /* all or an error */
{
    return live_write_within(l, off, buf, len, REACH_ALL, err);
}
/* Shrinks or extends. size 0 of a disk that has data or changes: see live_rewrite. */
int live_truncate(struct live *l, uint64_t size, struct verr *err);
/* New empty table and layer, size 0, mark REWRITING: one head record, not durable before the next fsync. Sets
 * `changed`, drops the cache. Unsnapshotted changes must have been frozen before. */
int live_rewrite(struct live *l, struct verr *err);
/* The same for a removed disk whose name is made again: as in a new image, nothing has changed that a snapshot could keep. */
int live_renew(struct live *l, struct verr *err);
int live_set_marks(struct live *l, uint32_t set, uint32_t clear, struct verr *err);
int live_zero(struct live *l, uint64_t off, uint64_t len, struct verr *err);                      /* punch hole / zero range, size kept */
off_t live_seek(struct live *l, uint64_t off, bool hole, struct verr *err);                       /* SEEK_DATA / SEEK_HOLE; -ENXIO */
int live_fsync(struct live *l, struct verr *err);       /* durable on return: all writes, size, marks and freezes before the call */
/* true unless every byte of the disk is zero (reads at most until the first non-zero byte). 1, 0 or -errno. */
int live_has_data(struct live *l, struct verr *err);

/* ---- freeze and pending snapshots ---- */
/* A pending snapshot is a struct snapinfo with flags of SNAP_PENDING_FLAGS. */
struct freeze_owner { uint32_t mode, uid, gid; };
/* owners: one for each disk, in the order of the list; NULL: the snapshots belong to root, mode 0. each: flags of single disks besides
 * `flags`, in that order too; NULL: none. */
struct freeze_req { uint32_t flags; const char *label, *note; const struct freeze_owner *owners; const uint32_t *each; };

/* Freezes n disks at one instant (same group id). Instant: no fsync; survives kill -9. out[i] gets each record.
 * A disk that stands twice in the list is an error. Clears `changed`; snap id, seq and name are chosen here. */
int live_freeze(struct live **l, unsigned n, const struct freeze_req *req, struct snapinfo *out, struct verr *err);
/* Pending snapshots in order of sequence: the i-th. 0 or -ENOENT. */
int live_pending(struct live *l, unsigned i, struct snapinfo *out, struct verr *err);
int live_pending_by_seq(struct live *l, uint64_t seq, struct snapinfo *out, struct verr *err);
/* Changes flags (or, label non-NULL, the label) of a pending snapshot; journalled. -ENOENT. */
int live_pending_update(struct live *l, uint64_t seq, uint32_t set, uint32_t clear, const char *label, struct verr *err);
/* Makes it durable: layer, map, table, journal (order above), then flag SNAP_SEALED in a durable record. */
int live_pending_seal(struct live *l, uint64_t seq, struct verr *err);
/* Drops a pending snapshot: its dirty set goes into the next younger one or the live table, its data into that layer, in one durable
 * record. Who stores it meanwhile (it is STARTED) gets -ESTALE from its next read. -EBUSY if the next younger one is STARTED. Of the
 * youngest one, if the live image has not changed since, the freeze is taken back: nothing is copied, its name is free again, and the
 * record is durable if the snapshot was. */
int live_pending_drop(struct live *l, uint64_t seq, struct verr *err);
/* The same for its user's sake: a live image that has not changed since is `unkept` then, and durably so if the snapshot was. */
int live_pending_remove(struct live *l, uint64_t seq, struct verr *err);

/* Reading a pending snapshot. -ESTALE: no longer pending (published or dropped): open the stored one. Short at its end. */
ssize_t live_pending_read(struct live *l, uint64_t seq, uint64_t off, void *buf, size_t len, struct verr *err);
off_t live_pending_seek(struct live *l, uint64_t seq, uint64_t off, bool hole, struct verr *err);

/* A reader holds a pending snapshot, so that it is not merged into the next one meanwhile: -ENOENT, it is not pending. It may be
 * published all the same; releasing it does nothing then. */
int live_pending_hold(struct live *l, uint64_t seq);
void live_pending_release(struct live *l, uint64_t seq);
bool live_pending_held(struct live *l, uint64_t seq);

/* The frozen table. base: what the segment was before this snapshot's own writes. */
enum seg_kind { SEGK_ZERO, SEGK_STORED, SEGK_FROZEN };
struct seg_entry { enum seg_kind kind; uint64_t place; bool dirty; };
/* The entries of the PEND_ENTRIES segments that `first` is among, in one read: out[i] is that of segment
 * first / PEND_ENTRIES * PEND_ENTRIES + i; entries behind the end are zero. Only of the oldest pending snapshot, once it is STARTED: a
 * pending snapshot's table changes only when an older snapshot ends, so this table does not change. -ESTALE: no longer pending. */
enum { PEND_ENTRIES = 256 };
int live_pending_entries(struct live *l, uint64_t seq, uint64_t first, struct seg_entry out[PEND_ENTRIES], struct verr *err);

/* What a published recipe says of a segment, asked for by live_pending_published for each dirty one. */
typedef int (*live_place_fn)(void *ctx, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err);
/* The recipe of seq is published, its directory fsynced and the recipe anchored (seq sealed or not: STORE has its data): entries that
 * say "frozen seq" become stored places (live table and younger pending tables) -> fdatasync -> head record without seq -> its layer
 * becomes cache or goes. Anchors whose stamp is <= seq are returned to be dropped. Only the oldest pending may be published. */
struct live_anchor { struct snapref ref; uint64_t stamp; };
int live_pending_published(struct live *l, uint64_t seq, live_place_fn fn, void *ctx, const struct live_anchor *mine,
                           struct live_anchor *drop, unsigned drop_max, unsigned *dropped, struct verr *err);
/* Anchors that the head lists: the i-th. 0 or -ENOENT. For recovery and status. */
int live_anchor_at(struct live *l, unsigned i, struct live_anchor *out, struct verr *err);
/* Takes a dropped anchor off the list once STORE has un-anchored it. -ESTALE: the anchor has another stamp by now, so entries rely on
 * it again (revert and point lift the stamp of an anchor that is listed already): the caller keeps it anchored. */
int live_anchor_gone(struct live *l, const struct live_anchor *a, struct verr *err);

/* ---- pointers ---- */

/* What to do about changes that no snapshot holds: LIVE_KEEP refuses with -EBUSY (the caller freezes them first), LIVE_DROP throws
 * them away in the same record that brings the new content. */
enum live_unsaved { LIVE_KEEP, LIVE_DROP };
struct live_target {
    uint64_t size, alloc_bytes;     /* alloc: as in struct live_attr */
    live_place_fn fn;               /* called for every segment, ascending */
    void *ctx;
    const struct live_anchor *anchor;   /* durable in STORE; its stamp is chosen by live (next_seq), as in live_point. NULL: none */
};
/* Revert: a new table from the target's fn, a new layer, size, anchor on the list: one head record, durable on return.
 * Clears `changed` (the content is a stored snapshot's) and REWRITING, drops the cache. */
int live_revert(struct live *l, const struct live_target *to, enum live_unsaved unsaved, struct verr *err);
/* rename onto an existing disk: dst takes the content of src and its anchors; dst keeps id and history, and so does src: its pending
 * snapshots and their layers stay its own. What shows through them is copied (-ENOSPC: dst is as it was), the rest is taken over
 * without a copy. src has no writers; the caller has linked src's anchors for dst in STORE. Durable on return, as is all of src, which
 * still has its content: the caller removes it next; after a kill in between both have it. */
enum live_taking { TAKE_OVER, TAKE_COPY /* nothing is shared: src is read on */ };
int live_take(struct live *dst, struct live *src, enum live_unsaved unsaved, enum live_taking how, struct verr *err);
/* After live_take, when src does not go after all: dst gets a copy of the data that both share, so that writes to one are not
 * seen by the other. If that fails, neither disk accepts changes until the process is started anew; the next open makes the copy. */
int live_own(struct live *dst, struct live *src, struct verr *err);
/* copy_file_range: points count whole segments (or the last, short one at end of file) at stored places without moving data,
 * extends size to at least new_size, sets `changed`. -EOPNOTSUPP if a segment has pages in the open layer (caller copies bytes). */
int live_point(struct live *l, uint64_t first_segment, uint64_t count, uint64_t new_size, live_place_fn fn, void *ctx,
               const struct live_anchor *anchor, struct verr *err);
/* 1: live_point may point to what the live segment is: its kind is STORED or ZERO and the open layer has none of its pages. 0; -errno. */
int live_segment_pure(struct live *l, uint64_t segment, struct seg_entry *out, struct verr *err);

/* ---- what is believed of STORE ---- */
/* Calls fn for each segment of the live image, and with `pending` of each pending snapshot, that a table says is stored and that the
 * layer above it does not have whole. An answer other than 0 ends the walk and is returned. Held back data are not given. */
typedef int (*live_believed_fn)(void *ctx, uint64_t segment, uint64_t place);
int live_believed_each(struct live *l, bool pending, live_believed_fn fn, void *ctx, struct verr *err);

/* ---- cache budget ---- */
/* Brings published layers below cache_limit (least recently published disk first). Each segment: check, durable table
 * change, punch, under its exclusive lock. Called by the agent; never from a FUSE thread. */
int live_set_evict(struct live_set *set, struct verr *err);

/* ---- data held back ----
 * A holder (a stream that writes the disk in one go) may keep some of its data back for a while. The public calls that read, change,
 * freeze or sync the live image call give() first, which brings all of these data into the live image by the calls below; these do not
 * call give(). The holder reports to its own writer what could not be brought there. give() runs under the hold lock, which the holder
 * takes for its own work too, and which comes before all other locks of the disk. */
struct live_holder { void (*give)(struct live_holder *h); };
int live_hold_begin(struct live *l, struct live_holder *h);        /* -EBUSY: there is one */
void live_hold_end(struct live *l);                                 /* the holder has nothing left to give */
void live_hold_lock(struct live *l);
void live_hold_unlock(struct live *l, bool holds);                  /* holds: the holder has data to give */
/* The data held back end at `end`: sets `changed`, size and mtime as if they had been written. */
int live_expect(struct live *l, uint64_t end, struct verr *err);
int live_write_held(struct live *l, uint64_t off, const void *buf, size_t len, struct verr *err);
int live_point_held(struct live *l, uint64_t first_segment, uint64_t count, uint64_t new_size, live_place_fn fn, void *ctx,
                    const struct live_anchor *anchor, struct verr *err);
int live_segment_pure_held(struct live *l, uint64_t segment, struct seg_entry *out, struct verr *err);

#endif
