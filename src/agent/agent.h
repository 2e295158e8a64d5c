/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent: the host daemon below the filesystem: opens STATE and STORE, recovers, runs rounds on a thread of its own, and
 * carries out what users ask for (snapshot, revert, wait, rm, rename). `fs` and `cli` call it; it never calls them.
 *
 * STATE/: lock (flock, pid inside), host (host id and name), instance (boot id, mount instance), store (id it belongs to),
 * catalog.sqlite, disks/, rounds/.
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

struct agent_conf {
    const char *store, *state;          /* paths; state NULL: /var/lib/varve/STOREID */
    const char *host;                   /* NULL: hostname */
    size_t memory;                      /* M of the stages, bytes */
    size_t frame_cache;                 /* decoded frames, bytes */
    uint64_t layer_limit, cache_limit;  /* bytes; 0 = no bound / no cache */
    unsigned workers;                   /* threads that compute segments in a round; 0: cores, at most 8 */
    bool sync_close;
    const struct vclock *clock;
};
void agent_conf_default(struct agent_conf *conf);

/* Start in three steps, because the mount and the drop of privileges come between (DESIGN section 12, "Start").
 * 1. as root: takes STATE's lock (waits up to 30 s for a daemon that is shutting down), opens STORE, gives STATE to the
 *    owner of STORE. -EBUSY: another mount holds it (err names pid). 2. after the drop: catalog, reconcile, recover live
 *    images and pending snapshots. 3. the agent thread. */
int agent_open(const struct agent_conf *conf, struct agent **out, struct verr *err);
int agent_recover(struct agent *a, struct verr *err);
int agent_run(struct agent *a, struct verr *err);
/* Who the daemon is to be: the owner of STORE. */
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
int agent_space(const struct agent *a, struct statvfs *out);    /* of STORE, as statvfs(3) */
int agent_state_fd(const struct agent *a);

/* A disk whose recovery failed at the start is recovered before anybody uses it: 0, also when there is nothing to do; -errno: it
 * may not be used yet. May wait for STORE. */
int agent_ready(struct agent *a, const struct vid *disk, struct verr *err);
/* The last writer's changes could not be frozen: tries again later. unclean: see disk/due.h. */
void agent_freeze_later(struct agent *a, const struct vid *disk, bool unclean, const struct verr *why);

/* ---- what users ask for. None of these waits for a round. ---- */

/* Freezes n disks (nodes) at one instant and enters the pending snapshots into the catalog. seqs may be NULL.
 * label: taken (by any snapshot of that disk) -> -EEXIST before any change. */
int agent_freeze(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out,
                 struct verr *err);
/* The same of one disk, l, where a snapshot is due (occasion, node and unclean of c are given). 1: made, and *out tells of it;
 * 0: none was due. */
int agent_freeze_due(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err);
/* Settles a provisional snapshot when its writer's handle is released: clears `provisional` (and LIVE_REWRITING on the disk),
 * or marks it partial. Pending or stored. */
int agent_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err);
/* If a pending, provisional, not started snapshot `seq` exists, drops it: a later change through the same handle supersedes it.
 * 0 also if not. */
int agent_supersede(struct agent *a, const struct vid *disk, uint64_t seq, struct verr *err);
/* The live image of disk becomes snapshot s (of any disk): freezes changes first where due, anchors, swaps the table. The caller has
 * made sure that nobody else has the disk open for writing. */
int agent_revert(struct agent *a, const struct node *disk, const struct snaprow *s, struct verr *err);
/* copy_file_range of whole segments from a stored snapshot (src_snap) or a live disk (src_disk) to dst.
 * Returns bytes pointed to (a multiple of a segment, or up to the end of the source), 0 if nothing could be: copy bytes. */
int64_t agent_clone_range(struct agent *a, struct live *dst, const struct node *dst_node, uint64_t dst_off, const struct snaprow *src_snap,
                          const struct node *src_disk, uint64_t src_off, uint64_t len, struct verr *err);
/* rm of a disk's name or of a directory, also where the last block is taken. What it leaves: agent_disk_remove. */
int agent_node_remove(struct agent *a, const struct vid *id, struct verr *err);
/* rm of a snapshot in any state: pending ones are dropped (-EBUSY while a round works on it), stored ones go to trash/. */
int agent_snap_remove(struct agent *a, const struct snaprow *s, struct verr *err);
int agent_snap_relabel(struct agent *a, const struct snaprow *s, const char *label, struct verr *err);
/* unlink of a disk whose name is gone already: its local data go once no pending snapshot needs them. Freezes nothing. */
int agent_disk_remove(struct agent *a, const struct node *disk, struct verr *err);
/* rename of disk source onto disk target: content moves, history stays (DESIGN section 12, mv). Freezes the result. */
int agent_disk_replace(struct agent *a, const struct node *source, const struct node *target, struct verr *err);

/* A stream (ingest.h) for a write-only handle that writes the disk from front to back. The newest stored snapshot of the disk is its
 * parent. NULL: none (no such snapshot, no memory, other streams, or the disk has one); write with live_write. lost: as in ingest.h. */
struct stream *agent_stream_open(struct agent *a, struct live *l, void (*lost)(void *ctx, uint64_t off, uint64_t len), void *ctx);

/* Room was made, or something else has changed for the better: what has failed is tried again soon (work_nudge). */
void agent_kick(struct agent *a);

/* Waiting: done is called once, from the agent's thread or at once, with 0 when each snapshot in ids is stored, -EIO when one cannot
 * be for now (why, valid during the call: which disk, the reason, the time of the next attempt), -ETIMEDOUT, -EINTR at shutdown.
 * begins: what has failed before gets an attempt at once, and the answer is what that one came to; else a failed attempt is the
 * answer. A snapshot behind a failed one has failed too. timeout_ms < 0: none. The caller's thread does not block. */
typedef void (*agent_wait_fn)(void *ctx, int result, const struct verr *why);
int agent_wait_start(struct agent *a, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms, agent_wait_fn done, void *ctx,
                     struct verr *err);
/* Whom an answer is for. Snapshots that may_read refuses do not exist for him; NULL: all do. may_read must not call the agent. */
struct agent_viewer {
    bool (*may_read)(void *ctx, const struct snaprow *s);
    void *ctx;
    bool root;      /* also what tells of other owners' data: which blocks were found elsewhere, bytes added */
};
/* What is pending or provisional now: below a node (NULL: everywhere). malloc'ed ids. -EIO: the catalog cannot be trusted now. */
int agent_pending_ids(struct agent *a, const struct node *below, const struct agent_viewer *who, struct vid **ids, unsigned *n,
                      struct verr *err);

/* status.json and metrics (Prometheus text): malloc'ed text. events: bounded ring of lines. */
int agent_status_json(struct agent *a, char **text, size_t *len, struct verr *err);
int agent_metrics(struct agent *a, char **text, size_t *len, struct verr *err);
int agent_events(struct agent *a, char **text, size_t *len, struct verr *err);
/* A disk's history with sizes: for `varve log` (JSON, malloc'ed). */
int agent_log_json(struct agent *a, const struct node *disk, const struct agent_viewer *who, char **text, size_t *len, struct verr *err);
void agent_event(struct agent *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
