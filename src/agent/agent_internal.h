/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the agent.
 *
 * Locks, outermost first: op_lock (freeze, settle, publication's end, removal: whatever moves a snapshot from one state
 * to the next) -> names' and live's own locks -> lock (queue, waiters, progress, events; never held across I/O).
 */
#ifndef VARVE_AGENT_INTERNAL_H
#define VARVE_AGENT_INTERNAL_H

#include "agent/agent.h"

#include "base/pool.h"
#include "base/verr.h"
#include "base/vlog.h"
#include "bus/bus.h"
#include "dedup/dedup.h"
#include "fpindex/fpindex.h"
#include "ingest/ingest.h"
#include "store/publish.h"

#include <pthread.h>
#include <stdatomic.h>

enum { STREAMS_MAX = 2 /* 12 MiB */, EVENTS_MAX = 512, EVENT_TEXT = 240, QUEUE_STEP = 64 };
/* Stays free on the filesystem of STATE, beyond a part of what is to be stored: journals, tables and the catalog grow in it. */
enum { STATE_SPARE = 4 << 20 };
#define BACKOFF_FIRST_NS (INT64_C(5) * 1000000000)
#define BACKOFF_MAX_NS (INT64_C(600) * 1000000000)

struct queued {                 /* a disk that has pending snapshots */
    struct vid disk;
    int64_t retry_ns;           /* monotonic; 0: at once */
    int64_t backoff_ns;
    bool again;                 /* asked for since the last attempt began: if that fails, another comes at once, and counts */
    bool failed;                /* its oldest pending snapshot has failed its last attempt: those behind it do not move either */
};

struct mend;                    /* agent_mend.c */

struct agent_wait {
    struct agent_wait *next;
    uint64_t pass;                  /* the last look at all waits that this one was part of */
    bool begun;                     /* what it waits for was offered another attempt */
    bool looking;                   /* its rows are being read, without the lock */
    bool ended;                     /* answered meanwhile: whoever looks at it frees it */
    struct vid *ids;
    unsigned n;
    int64_t deadline_ns;        /* monotonic; INT64_MAX: none */
    void (*done)(void *ctx, int result);
    void *ctx;
};

struct agent {
    struct agent_conf conf;
    char *state_path;
    char host_name[256];
    struct vid host;
    int state_fd, lock_fd, rounds_fd;
    bool trusted;               /* what the last run left volatile may be believed */
    uid_t uid;
    gid_t gid;

    struct store *store;
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
    unsigned disks_open;        /* disks kept open when nobody uses them */

    pthread_mutex_t op_lock;
    _Atomic unsigned unrecovered;   /* disks that MEND_RECOVER is owed to */

    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t wake;
    bool started, stopping, kicked;
    atomic_bool reserve_short;  /* a reserve is not there: it is to be made again */
    pthread_t thread, timer;
    struct queued *queue;
    unsigned queued, queue_cap;
    struct agent_wait *waits;
    uint64_t wait_pass;
    struct owed_row *owed;      /* rows that the catalog has not taken (agent_rows.c) */
    struct mend *mends;
    struct {
        char stage[32];
        uint64_t done, total;
        uint64_t rounds, published, failed;
        uint64_t asked, wire_bytes;     /* blocks asked for in all rounds; bytes of all messages about them */
        int64_t last_ns;        /* duration of the last round */
        bool running;
    } progress;
    char events[EVENTS_MAX][EVENT_TEXT];
    uint64_t event_count;
    int64_t start_ns;
};

/* STATE (agent_state.c): finds or makes it, and refuses what others own or may write to; sets uid and gid, those of STORE. */
int agent_state_open(struct agent *a, struct verr *err);
/* A directory without our mark must be empty: a mistaken -o state=/etc is not to be taken over. -ENOTEMPTY. */
int agent_state_check_new(struct agent *a, struct verr *err);
/* As root: all of STATE becomes that uid's. -EPERM: names what in it is not ours. */
int agent_state_give(struct agent *a, struct verr *err);

/* The name of this run, durable (agent.c). */
int agent_instance_write(struct agent *a, struct verr *err);

/* Space kept for removals (agent_reserve.c), under op_lock. use: true if there was some and result says that space is what
 * lacks: try again, then call end, which has it made anew. */
void agent_reserve_fill(struct agent *a);
bool agent_reserve_use(struct agent *a, int result);
void agent_reserve_end(struct agent *a);

/* queue (agent_round.c) */
int agent_queue_disk(struct agent *a, const struct vid *disk);
/* An attempt at once for a disk whose last one has failed. */
void agent_queue_retry(struct agent *a, const struct vid *disk);
void *agent_thread(void *agent);
/* The recipe of a pending snapshot is published: anchor, pointers, catalog. op_lock is held. */
int agent_finish_publication(struct agent *a, struct live *l, const struct snapinfo *p, struct verr *err);

/* removal (agent_removal.c) */
/* Is it certain that the disk was removed: its record says so, or it has none and its image says so? 1, 0, -errno. */
int agent_removal_certain(struct agent *a, const struct vid *disk, struct verr *err);
/* Removes the local data of a disk that was removed for certain, once nothing is pending. op_lock is held. */
int agent_forget_if_gone(struct agent *a, const struct vid *disk, struct verr *err);
/* rm of the only pending snapshot of a removed disk: 1 the image went with it, 0 it has to be dropped,
 * -EBUSY that too, because the image is in use. op_lock is held. */
int agent_discard_if_gone(struct agent *a, const struct vid *disk, struct verr *err);
/* names' hook: what is about to lose its name says so. */
int agent_say_removal(void *agent, const struct vid *id, bool stays, struct verr *err);

/* rows that the catalog may not take at once (agent_rows.c). What they say has happened already, so put and del fail for
 * want of memory only. op_lock is held by whoever changes one. */
int agent_row_put(struct agent *a, const struct snaprow *row, struct verr *err);
int agent_row_del(struct agent *a, const struct snaprow *row, struct verr *err);
int agent_row_get(struct agent *a, const struct vid *snap, struct snaprow *out, struct verr *err);
int agent_row_by_seq(struct agent *a, const struct vid *disk, uint64_t seq, struct snaprow *out, struct verr *err);
/* Offers what is owed again; else its error. Before anybody counts a disk's snapshots in the catalog. op_lock is held. */
int agent_rows_pay(struct agent *a, struct verr *err);
/* The same without op_lock, which is taken only when something is owed. */
int agent_rows_settle(struct agent *a, struct verr *err);
void agent_rows_free(struct agent *a);

/* rows (agent_ops.c) */
void agent_pending_row(struct agent *a, const struct snapinfo *p, struct snaprow *out);
int agent_freeze_locked(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out,
                        struct verr *err);
/* agent_freeze_due; op_lock is held. */
int agent_freeze_due_locked(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err);

/* Settles a stored snapshot whose writer is gone: clears `provisional`, sets `partial` unless clean. op_lock is held. */
int agent_settle_stored(struct agent *a, const struct snapref *snap, bool clean, struct verr *err);

/* waiting (agent_wait.c) */
void agent_waits_begin(struct agent *a);        /* who waits for what has failed gets another attempt; the agent's thread only */
void agent_waits_check(struct agent *a);        /* after a change of state; no lock held; the agent's thread only */
void *agent_timer(void *agent);                 /* ends waits at their deadlines, whatever the agent's thread is doing */
void agent_waits_end(struct agent *a);          /* at shutdown, after both threads: -EINTR to all */

/* trying again (agent_mend.c) */
enum mend_what { MEND_RECOVER = 1, MEND_SETTLE = 2, MEND_FREEZE = 4, MEND_FORGET = 8, MEND_NAMES = 16,
                 MEND_UNCLEAN = 32 };   /* with MEND_FREEZE: its writer was refused something, or never seen closing */
/* Notes that it failed, says so in log and events, and tries again later. disk zero: the tree of names (MEND_NAMES). */
void agent_mend(struct agent *a, const struct vid *disk, unsigned what, const struct verr *why);
void agent_mend_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, const struct verr *why);
bool agent_mend_owes(struct agent *a, const struct vid *disk);          /* something that a wait would wait for in vain */
int64_t agent_mend_next(struct agent *a);       /* when the next attempt is due; lock held */
void agent_mend_kick(struct agent *a);          /* all at once; lock held */
void agent_mend_run(struct agent *a);           /* what is due; the agent's thread */
void agent_mend_end(struct agent *a);           /* at shutdown */
bool agent_failing(struct agent *a, const struct vid *disk);            /* its last attempt to be stored failed (agent_round.c) */
/* op_lock is held. */
int agent_recover_disk(struct agent *a, const struct vid *disk, struct verr *err);
int agent_settle_late(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err);
void agent_report_bad(void *agent, bool damaged, const char *what);

#endif
