/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the agent.
 *
 * Order of locks: the turn of the disk (base/turn.h; taken by what moves a snapshot from one state to the next: freeze, settling, commit
 * point and end of a publication, removal) -> the locks of names and live -> check_lock -> rows_lock -> lock (waiters, owed rows, progress;
 * never held across I/O) -> the locks of work and of events.
 *
 * "In the disk's turn": the caller holds it, or calls at the start, before the agent has other threads.
 */
#ifndef VARVE_AGENT_INTERNAL_H
#define VARVE_AGENT_INTERNAL_H

#include "agent/agent.h"
#include "agent/agent_known.h"

#include "base/pool.h"
#include "base/quote.h"
#include "base/turn.h"
#include "base/verr.h"
#include "base/vlog.h"
#include "bus/bus.h"
#include "dedup/dedup.h"
#include "disk/work.h"
#include "fpindex/fpindex.h"
#include "ingest/ingest.h"
#include "store/publish.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

enum { STREAMS_MAX = 2 /* 12 MiB */, EVENTS_MAX = 512, EVENT_TEXT = 2 * QUOTED_MAX + 700, PATH_TEXT = 4096, QUEUE_STEP = 64 };
/* Stays free on the filesystem of STATE, beyond a part of what is to be stored: journals, tables and the catalog grow in it. */
enum { STATE_SPARE = 4 << 20 };
struct agent_wait {
    struct agent_wait *next;
    uint64_t pass;                  /* the last look at all waits that this one was part of */
    bool looking;                   /* a thread that has check_lock reads its rows, without the lock */
    bool ended;                     /* the timer answered it; if `looking`, that thread frees it */
    struct vid *ids;
    unsigned n;
    int64_t deadline_ns;        /* monotonic; INT64_MAX: none */
    agent_wait_fn done;
    void *ctx;
    struct verr why;
};

struct agent {
    struct agent_conf conf;
    char *state_path;
    char host_name[256];
    struct vid host;
    int state_fd, lock_fd, rounds_fd;
    bool trusted;               /* what the last run left volatile may be believed */
    unsigned made;              /* directories of STATE's path, from its end, that this start made */
    bool goes;                  /* STATE's content goes at the end (agent_temp.c) */
    uid_t uid;
    gid_t gid;

    struct store *store;
    struct known *known;
    struct creader *reader;
    struct segread *segread;
    struct catalog *catalog;
    struct names *names;
    struct live_set *live;
    struct bus *bus;
    struct pool *pool;          /* of the round that runs, and of streams */
    struct ingest *ingest;
    char fingerprint_path[64];  /* which code computes fingerprints, for status */
    struct fpindex **slots;
    uint32_t nslots;

    struct pool_serial ahead_serial;
    struct pool_task ahead;     /* makes images of new disks ahead; the caller's while ahead_asked is false */
    _Atomic bool ahead_asked;

    struct {
        pthread_mutex_t lock;   /* taken after the turn of a disk; held while STATE/put-back is written, and nothing else is taken */
        bool behind;            /* STORE lacks what STATE has seen in it */
        bool found;             /* STORE is older than STATE */
        int64_t found_s;
        struct lost_disk *disks;
        unsigned n;
    } lost;                     /* agent_lost.c */

    struct turns *turns;        /* which operation runs on a disk */
    struct work *work;          /* what is owed to disks */
    pthread_mutex_t check_lock; /* held while the waits are looked at, before rows_lock */
    pthread_mutex_t rows_lock;  /* held while a row goes to the catalog: an owed row must not overwrite a newer one */

    struct {
        pthread_mutex_t lock;       /* innermost; held while a line goes to STATE */
        char *line[EVENTS_MAX];     /* of event number n: n modulo EVENTS_MAX; NULL: memory was out */
        uint64_t count;
        int fd;                     /* STATE/events; -1: not kept there */
        uint64_t bytes;             /* of it */
    } events;                       /* agent_events.c */

    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t wake;
    bool started, stopping, kicked;
    pthread_t thread, timer;
    struct agent_wait *waits;
    uint64_t wait_pass;
    struct owed_row *owed;      /* rows that the catalog refused (agent_rows.c) */
    struct {
        char stage[32];
        uint64_t done, total;
        uint64_t rounds, rounds_failed, published, failed;      /* rounds_failed: rounds with a snapshot that was not stored */
        uint64_t asked, wire_bytes;     /* blocks asked for in all rounds; bytes of all messages about them */
        int64_t last_ns;        /* duration of the last round */
        bool running;
    } progress;
    uint64_t damaged_reads;
    int64_t damaged_ns;         /* wall clock: the last one */
    int64_t start_ns;
};

/* STATE (agent_state.c): finds or makes it, and refuses one that another user owns or may write to. Sets uid and gid to STORE's. */
int agent_state_open(struct agent *a, struct verr *err);
void agent_state_name(const struct agent *a, char out[PATH_MAX]);       /* its path, of the settings or by default */
int agent_state_check_owner(struct agent *a, struct verr *err);
int agent_state_close_to_others(struct agent *a, struct verr *err);     /* once it is known to be ours */
/* -ENOTEMPTY: the directory is not empty and lacks our mark (a mistaken -o state=/etc must not be taken over). */
int agent_state_check_new(struct agent *a, struct verr *err);
/* As root: gives all of STATE to a->uid. -EPERM: STATE has a file that is not ours; err names it. */
int agent_state_give(struct agent *a, struct verr *err);

/* STATE/lock (agent_lock.c). _take: -EBUSY: another process has it, and is not about to end; may wait. _say: what its holder is doing. */
int agent_lock_take(struct agent *a, struct verr *err);
int agent_lock_say(struct agent *a, const char *doing, struct verr *err);

/* A STATE that goes again (agent_temp.c). _make: that of a read-only mount. _tell: says that the host's own is left alone. _remove: removes
 * what this start has made, unless it is kept. */
#define AGENT_TEMP_DIR "/var/tmp"
int agent_temp_make(struct agent *a, struct verr *err);
void agent_temp_tell(struct agent *a);
void agent_temp_remove(struct agent *a);

/* Tells who started the daemon, and the log. */
void agent_notice(const struct agent *a, const char *text);

/* Writes the name of this run to STATE (agent.c). Durable on return. */
int agent_instance_write(struct agent *a, struct verr *err);

/* A store that was put back from an older copy (agent_putback.c). _begin: before the first place is read; _places: before the first number
 * is taken. */
int agent_putback_begin(struct agent *a, struct verr *err);
int agent_putback_places(struct agent *a, struct verr *err);
/* Live images that point to what STORE has lost (agent_lost.c). _look: at the recovery of a disk, in its turn: misses its anchors in STORE.
 * _start: after all disks; says what was found. _again: counts a listed disk anew, after a change that may have mended it. */
void agent_lost_look(struct agent *a, struct live *l);
int agent_lost_start(struct agent *a, struct verr *err);
void agent_lost_again(struct agent *a, const struct vid *disk);

/* Space kept for removals (agent_reserve.c). fill makes it; -errno: there is no room yet. use gives it up if result says that space
 * ran out; true: the caller tries again, also when another removal has just given it up, and then calls end, after which the agent's
 * thread makes it anew. */
int agent_reserve_fill(struct agent *a, struct verr *err);
bool agent_reserve_use(struct agent *a, int result);
void agent_reserve_end(struct agent *a);

/* rounds (agent_round.c) */
void *agent_thread(void *agent);
/* Finishes a pending snapshot whose recipe is published: anchor, pointers, catalog (agent_publish.c). has_turn: the caller has the
 * disk's turn; otherwise the function takes it, but not while it writes to STORE. */
int agent_finish_publication(struct agent *a, struct live *l, const struct snapinfo *p, bool has_turn, struct verr *err);

/* Was the pending snapshot removed (or merged) since the caller began to store it? Waits for a removal that is under way, whose first step
 * takes the recipe out of STORE. The caller has no turn. */
bool agent_was_removed(struct agent *a, struct live *l, uint64_t seq);

/* An empty image, marked LIVE_UNNAMED, that goes on after the history of the disk (agent_create.c). -EEXIST. In the disk's turn. */
int agent_image_make(struct agent *a, const struct vid *disk, struct live **out, struct verr *err);

/* removal (agent_removal.c) */
/* 1: the disk was removed for certain (its record says so, or it has no record and its image says so); 0: in doubt; -errno. */
int agent_removal_certain(struct agent *a, const struct vid *disk, struct verr *err);
/* Removes the local data of a disk if it was removed for certain and has no pending snapshot; otherwise changes nothing. 0 or -errno.
 * In the disk's turn. */
int agent_forget_if_gone(struct agent *a, const struct vid *disk, struct verr *err);
/* The same for a caller without the disk's turn. What fails is owed, and tried again. */
void agent_forget_in_turn(struct agent *a, const struct vid *disk);
/* rm of the only pending snapshot of a removed disk. 1: the image went with it; 0: the caller drops the snapshot; -EBUSY: the same,
 * because the image is in use. In the disk's turn. */
int agent_discard_if_gone(struct agent *a, const struct vid *disk, struct verr *err);
/* Hook of names, called before a disk loses its name: its image says so durably, or no longer if it stays. */
int agent_say_removal(void *agent, const struct vid *id, bool stays, struct verr *err);

/* Rows that the catalog may refuse (agent_rows.c). What a row says has happened already, so put and del keep a refused row and fail
 * only with -ENOMEM. Put and del in the turn of the row's disk. */
int agent_row_put(struct agent *a, const struct snaprow *row, struct verr *err);
int agent_row_del(struct agent *a, const struct snaprow *row, struct verr *err);
int agent_row_get(struct agent *a, const struct vid *snap, struct snaprow *out, struct verr *err);
int agent_row_by_seq(struct agent *a, const struct vid *disk, uint64_t seq, struct snaprow *out, struct verr *err);
/* Offers the owed rows again. 0: the catalog has all rows; -errno: it still refuses one. Called before snapshots are counted, listed or
 * removed in the catalog. */
int agent_rows_pay(struct agent *a, struct verr *err);
void agent_rows_free(struct agent *a);

/* What an operation looks at first in the turns of its disks: -ENOENT: one of them was removed since the caller looked
 * (agent_ops.c). */
int agent_still_named(struct agent *a, const struct vid *disks, unsigned n, struct verr *err);

/* rows (agent_ops.c) */
void agent_pending_row(struct agent *a, const struct snapinfo *p, struct snaprow *out);
/* The same as agent_freeze and agent_freeze_due, in the disk's turn. */
int agent_freeze_locked(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out,
                        struct verr *err);
int agent_freeze_due_locked(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err);

/* Settles a stored snapshot whose writer is gone: clears `provisional`, sets `partial` unless clean. In the disk's turn. */
int agent_settle_stored(struct agent *a, const struct snapref *snap, bool clean, struct verr *err);

/* Makes room in the disk's list of pending snapshots before a freeze (agent_merge.c). In the disk's turn. */
void agent_merge_pending(struct agent *a, struct live *l);

/* waiting (agent_wait.c) */
/* Whoever waits for snapshot `from` waits for `to` instead, which holds its data. Before `from` goes. */
void agent_waits_follow(struct agent *a, const struct vid *from, const struct vid *to);
void agent_waits_check(struct agent *a);        /* answers the waits that are over; any thread, with no turn and no lock of the agent */
void *agent_timer(void *agent);                 /* ends waits at their deadlines, whatever the agent's thread is doing */
void agent_waits_end(struct agent *a);          /* at shutdown, after both threads ended: -EINTR to all */

/* what is owed (agent_work.c) */
/* The agent's thread stores the disk's oldest pending snapshot next. -ENOMEM. */
int agent_owe_store(struct agent *a, const struct vid *disk);
/* The caller's attempt failed: log and events say so, and the agent's thread tries again later. disk zero: the tree of names. */
void agent_owe(struct agent *a, const struct vid *disk, enum work_kind kind, uint32_t arg, const struct verr *why);
void agent_owe_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, const struct verr *why);
/* Does all due work except storing. The agent's thread only. */
void agent_work_run(struct agent *a);
/* The catalog has all names that STORE has: 0, also when nothing was owed. The caller has no turn. */
int agent_tree_ready(struct agent *a, struct verr *err);
void agent_wake(void *agent);
/* "VM/NAME" of a disk below the mount, its bytes (messages quote them); "disk:ID" if the catalog does not know the disk. Of a path that does
 * not fit, "..." and its end. */
void agent_disk_path(struct agent *a, const struct vid *disk, char *out, size_t cap);
/* The path of a snapshot below the mount, as bytes. */
void agent_snap_path(struct agent *a, const struct snapinfo *s, char *out, size_t cap);
/* Something was done to what lies at that path (NULL: the tree), or failed: one line of the log at that level, and an event, with the user
 * for whom it was done. Takes no lock but its own. */
void agent_say(struct agent *a, enum vlog_level level, const char *path, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Reads the events of earlier runs and opens STATE/events for those of this one; before the first event. */
void agent_events_open(struct agent *a);
void agent_events_close(struct agent *a);
/* The same, and "the tree" for the zero id. */
void agent_who_text(struct agent *a, const struct vid *disk, char *out, size_t cap);
/* What an item of that kind does, for messages: "storing its snapshot". */
const char *agent_work_text(enum work_kind kind);
/* Both in the disk's turn. */
int agent_recover_disk(struct agent *a, const struct vid *disk, struct verr *err);
/* Clears LIVE_REWRITING if snapshot seq is the newest state of the disk: it is known to be whole. */
int agent_settle_mark(struct live *l, uint64_t seq, struct verr *err);
int agent_settle_late(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err);
void agent_report_bad(void *agent, bool damaged, const char *what);

#endif
