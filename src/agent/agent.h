/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent: the host daemon below the filesystem: opens STATE and STORE, recovers, runs rounds on a thread of its own, and
 * carries out what users ask for (snapshot, revert, wait, rm, rename). `fs` and `cli` call it; it never calls them. Thread-safe once
 * agent_run has returned.
 *
 * STATE/: lock (flock; agent_lock.c), host (host id and name), instance (boot id, mount instance), store (id it belongs to),
 * store.conf (a second copy of STORE's), catalog.sqlite, disks/, rounds/, verified (when `varve verify` ended last).
 */
#ifndef VARVE_AGENT_AGENT_H
#define VARVE_AGENT_AGENT_H

#include "base/clock.h"
#include "catalog/catalog.h"
#include "disk/due.h"
#include "ingest/ingest.h"
#include "live/live.h"
#include "names/names.h"
#include "snapshot/snapshot.h"

#include <sys/types.h>

struct agent;
struct statvfs;

#define STATE_CONF "store.conf"         /* in STATE: a second copy of STORE/store.conf, written at each start that finds another */

struct agent_conf {
    const char *store, *state;          /* paths; state NULL: /var/lib/varve/STOREID */
    const char *host;                   /* NULL: hostname */
    size_t memory;                      /* M of the stages, bytes */
    size_t frame_cache;                 /* decoded frames, bytes */
    uint64_t layer_limit, cache_limit;  /* bytes; 0 = no bound / no cache */
    unsigned workers;                   /* threads that compute segments in a round; 0: cores, at most 8 */
    bool sync_close;
    /* What is stored can be read, and nothing else: STORE is not changed, and no STATE is used but a temporary one for the catalog. */
    bool read_only;
    /* What who started the daemon should know: it waits for another one; NULL: the log alone says so. During agent_open. */
    void (*notice)(void *ctx, const char *text);
    void *notice_ctx;
    const struct vclock *clock;
};
void agent_conf_default(struct agent_conf *conf);

/* Start in three steps, because the mount and the drop of privileges come between them. One thread calls them, in this order.
 * agent_open      as root: opens STORE, takes STATE's lock (waits for a daemon that is shutting down, agent_lock.c), gives STATE to the
 *                 owner of STORE. -EBUSY: another mount holds STATE (err names its pid). -EROFS: STORE lies on a read-only filesystem.
 * agent_recover   after the drop: opens the catalog, reconciles it with STORE, recovers live images and pending snapshots.
 * agent_run       starts the agent's threads. */
int agent_open(const struct agent_conf *conf, struct agent **out, struct verr *err);
int agent_recover(struct agent *a, struct verr *err);
int agent_run(struct agent *a, struct verr *err);
/* The start has succeeded: a STATE that it made stays. Before, agent_close removes it again; that of a read-only mount it always does.
 * agent_run calls this. */
void agent_state_keep(struct agent *a);
/* Directories that stay empty when the daemon may not remove them any more: the path of STATE, and how many directories from its end were
 * made by this start. agent_made_remove removes those that are empty. */
const char *agent_made(const struct agent *a, unsigned *levels);
void agent_made_remove(const char *path, unsigned levels);
/* For who waits for STATE: the mount is there; its device. It is gone, or was asked to go, and the daemon writes back what it holds. */
void agent_mounted(struct agent *a, unsigned dev_major, unsigned dev_minor);
void agent_closing(struct agent *a);
/* The user and group that the daemon becomes: the owner of STORE. */
void agent_owner(const struct agent *a, uid_t *uid, gid_t *gid);
/* Ends the round that runs at its next step (its snapshots stay pending), writes everything back, releases STATE. */
int agent_close(struct agent *a, struct verr *err);

struct names *agent_names(struct agent *a);
struct live_set *agent_live(struct agent *a);
struct store *agent_store(struct agent *a);
struct segread *agent_segread(struct agent *a);
struct catalog *agent_catalog(struct agent *a);
const char *agent_host(const struct agent *a);
const struct vid *agent_host_id(const struct agent *a);
const char *agent_state_path(const struct agent *a);
bool agent_read_only(const struct agent *a);
/* Bytes of the filesystems that STORE and STATE lie on. free: what can still be written there; of STATE less what stays free for
 * journals and removals, and no more than layer_limit, which counts as the size of STATE then, leaves. */
struct agent_room { uint64_t store_bytes, store_free, state_bytes, state_free; };
int agent_room(const struct agent *a, struct agent_room *out);
/* As statvfs(3). What is used is what is used where STORE lies; what is free is the smaller of what STORE and STATE can still take. */
int agent_space(const struct agent *a, struct statvfs *out);
int agent_state_fd(const struct agent *a);

/* Recovers the disk now if its recovery failed at the start. 0: the disk may be used; -errno: not yet. Takes the disk's turn
 * (base/turn.h), so the caller holds none. May wait for STORE. */
int agent_ready(struct agent *a, const struct vid *disk, struct verr *err);
/* The caller failed to freeze what the last writer changed: the agent's thread tries again later. unclean: see disk/due.h. */
void agent_freeze_later(struct agent *a, const struct vid *disk, bool unclean, const struct verr *why);
/* The same for an image of zeros, whose freeze failed when it had settled. */
void agent_zeros_later(struct agent *a, const struct vid *disk, const struct verr *why);

/* ---- what users ask for. Each takes the turn of its disks, so the caller holds none. None waits for a round. ---- */

/* Makes a disk. A removed disk of that name comes back with its id and history, and is empty. Durable on return. -EEXIST: the name is
 * taken. */
struct disk_new {
    struct vid dir;
    const char *name;
    uint32_t mode, uid, gid;
};
int agent_disk_create(struct agent *a, const struct disk_new *d, struct node *out, struct verr *err);
/* Freezes n disks at one instant and enters the pending snapshots into the catalog. out: n rows, or NULL. -EEXIST, before any change:
 * a snapshot of one of the disks has req's label already. -E2BIG: too many disks. -ENOENT, before any change: one of them was removed
 * since the caller looked. */
int agent_freeze(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out,
                 struct verr *err);
/* The same for one disk, l, if a snapshot is due; the caller sets occasion, node and unclean of c. 1: a snapshot was made, *out is its
 * row; 0: none was due. */
int agent_freeze_due(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err);
/* A provisional snapshot is stored only once it is settled, or together with a younger one that is not provisional.
 * agent_settle settles it, pending or stored: clears `provisional`. clean: clears LIVE_REWRITING too if the disk has not changed since;
 * otherwise marks the snapshot partial, also one that is settled already. A settling that fails is tried again later. */
int agent_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err);
/* The writer of a provisional snapshot has ended well and released the disk: if the daemon dies now, the snapshot is good. 0 also if
 * there is no such snapshot. Survives kill -9; after a loss of power the snapshot may be partial. */
int agent_closed(struct agent *a, const struct vid *disk, uint64_t seq, struct verr *err);
/* Settles all of the disk's snapshots for which agent_closed was called: somebody asks for a snapshot of it. */
int agent_settle_closed(struct agent *a, const struct vid *disk, struct verr *err);
/* Drops snapshot `seq` if it is pending, provisional and not started: its writer goes on. Survives kill -9 on return, and a loss of power
 * if the snapshot does. 0 also if there is no such snapshot. */
int agent_supersede(struct agent *a, const struct vid *disk, uint64_t seq, struct verr *err);
/* The live image of disk becomes snapshot s (of any disk): freezes changes first where due, anchors, swaps the table. The caller
 * makes sure that no other handle has the disk open for writing. */
int agent_revert(struct agent *a, const struct node *disk, const struct snaprow *s, struct verr *err);
/* copy_file_range of whole segments from a stored snapshot (src_snap) or a live disk (src_disk) to dst.
 * Returns the bytes that dst points to now (whole segments, or up to the end of the source). 0: none; the caller copies bytes. */
int64_t agent_clone_range(struct agent *a, struct live *dst, const struct node *dst_node, uint64_t dst_off, const struct snaprow *src_snap,
                          const struct node *src_disk, uint64_t src_off, uint64_t len, struct verr *err);
/* rm of a disk's name or of a directory; succeeds also when STATE or STORE has no free block. The disk's local data stay until
 * agent_disk_remove. */
int agent_node_remove(struct agent *a, const struct vid *id, struct verr *err);
/* rm of a snapshot in any state: a pending one is dropped, also while a round stores it, which then cannot publish it; a stored one goes to
 * trash/. -EPERM: it is protected. -EBUSY: STATE has no room to drop it while it is being stored or read. */
int agent_snap_remove(struct agent *a, const struct snaprow *s, struct verr *err);
int agent_snap_relabel(struct agent *a, const struct snaprow *s, const char *label, struct verr *err);
/* Removes the local data of a disk whose name is gone, once no pending snapshot needs them. Freezes nothing. What fails is tried again
 * later. */
int agent_disk_remove(struct agent *a, const struct node *disk, struct verr *err);
/* rename of disk source onto disk target, which may be a removed one with snapshots: the target keeps its id and history and takes the
 * content (docs/posix.md). Snapshots of the source stay under its name, as those of a removed disk. Freezes the result. read_on: the source's
 * image is open, and reads may be under way in it. The caller calls agent_disk_remove for the source once nobody
 * uses it. -EAGAIN: the target is gone, look it up again. */
int agent_disk_replace(struct agent *a, const struct node *source, const struct node *target, bool read_on, struct verr *err);

/* Opens a stream (ingest.h) for a write-only handle that writes the disk from front to back. Its parent is the newest stored snapshot
 * of the disk. NULL: there is no stream (no such snapshot, no memory, too many streams, or the disk has one already); the caller uses
 * live_write. lost: as in ingest.h. */
struct stream *agent_stream_open(struct agent *a, struct live *l, void (*lost)(void *ctx, uint64_t off, uint64_t len), void *ctx);

/* The caller made room, or removed another cause of failures: what has failed is tried again soon (work_nudge). */
void agent_kick(struct agent *a);
/* A user begins to wait: names that the catalog lacks are entered, and all else that has failed is tried again at once (work_hurry). */
void agent_hurry(struct agent *a);

/* Waits for snapshots without blocking the caller. done is called once, by any thread (this call may do it), with
 *   0            each snapshot in ids is stored and settled, or gone
 *   -EIO         a snapshot cannot be stored for now, or the catalog cannot be read; why (valid during the call) says which disk, the
 *                reason and the time of the next attempt. With the other results why says nothing and may be NULL
 *   -ETIMEDOUT   the time is over
 *   -EINTR       the daemon stops
 * begins: what failed before is tried again at once, and the result of that attempt is the answer; otherwise the failure is the answer.
 * A snapshot behind a failed one of its disk counts as failed. timeout_ms < 0: no limit. */
typedef void (*agent_wait_fn)(void *ctx, int result, const struct verr *why);
int agent_wait_start(struct agent *a, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms, agent_wait_fn done, void *ctx,
                     struct verr *err);
/* The user that an answer is for. The answer leaves out snapshots that may_read refuses, disks that may_see refuses, and all below a
 * directory that it refuses; NULL: none. Neither may call the agent. */
struct agent_viewer {
    bool (*may_read)(void *ctx, const struct snaprow *s);
    bool (*may_see)(void *ctx, const struct node *n);
    void *ctx;
    bool root;      /* the answer also has what tells of other owners' data: blocks found elsewhere, bytes added */
};
/* Ids (malloc'ed) of the snapshots that are pending or provisional now below a node (NULL: everywhere). -errno: the catalog cannot be
 * read, or still lacks rows. */
int agent_pending_ids(struct agent *a, const struct node *below, const struct agent_viewer *who, struct vid **ids, unsigned *n,
                      struct verr *err);

/* Disks with snapshots that are not stored, and what has failed and is tried again. Takes locks of the agent, and reads no file. */
struct agent_backlog { unsigned waiting, failed; };
void agent_backlog(struct agent *a, struct agent_backlog *out);
/* status.json, metrics (Prometheus text) and the last events, one a line. The text is malloc'ed. */
int agent_status_json(struct agent *a, char **text, size_t *len, struct verr *err);
int agent_metrics(struct agent *a, char **text, size_t *len, struct verr *err);
int agent_events(struct agent *a, char **text, size_t *len, struct verr *err);
/* A disk's history with sizes: for `varve log` (JSON, malloc'ed). */
int agent_log_json(struct agent *a, const struct node *disk, const struct agent_viewer *who, char **text, size_t *len, struct verr *err);
/* Every disk below a node (NULL: everywhere; a disk: itself), removed ones with a history too, with its newest snapshot, its last good
 * one and what failed: for `varve list` and `varve health` (JSON, malloc'ed). Reads the catalog only, a few rows of each disk. */
int agent_list_json(struct agent *a, const struct node *below, const struct agent_viewer *who, char **text, size_t *len, struct verr *err);
/* A read of a disk or snapshot was answered with EIO: counted in reports. Any thread. */
void agent_damaged_read(struct agent *a);
/* The user on whose behalf the calling thread works from now on: log and events name the user. */
enum { AGENT_ITSELF = -1 };
void agent_caller(int64_t uid);
void agent_event(struct agent *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
