/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the agent.
 *
 * Order: the turn of the disk (disk/turn.h: what moves a snapshot of it from one state to the next: freeze, settle, the end of a
 * publication, removal) -> names' and live's own locks -> rows_lock -> lock (waiters, progress, events; never held across I/O).
 */
#ifndef VARVE_AGENT_INTERNAL_H
#define VARVE_AGENT_INTERNAL_H

#include "agent/agent.h"

#include "base/pool.h"
#include "base/verr.h"
#include "base/vlog.h"
#include "bus/bus.h"
#include "dedup/dedup.h"
#include "disk/turn.h"
#include "disk/work.h"
#include "fpindex/fpindex.h"
#include "ingest/ingest.h"
#include "store/publish.h"

#include <pthread.h>
#include <stdatomic.h>

enum { STREAMS_MAX = 2 /* 12 MiB */, EVENTS_MAX = 512, EVENT_TEXT = 240, QUEUE_STEP = 64 };
/* Stays free on the filesystem of STATE, beyond a part of what is to be stored: journals, tables and the catalog grow in it. */
enum { STATE_SPARE = 4 << 20 };
struct agent_wait {
    struct agent_wait *next;
    uint64_t pass;                  /* the last look at all waits that this one was part of */
    bool looking;                   /* its rows are being read, without the lock */
    bool ended;                     /* answered meanwhile: the thread that looks at it frees it */
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

    struct turns *turns;        /* whose operation runs on a disk */
    struct work *work;          /* what is owed to disks: its lock is innermost */
    pthread_mutex_t rows_lock;  /* held while a row of a snapshot goes to the catalog, so that an owed one never comes behind a newer */

    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t wake;
    bool started, stopping, kicked;
    pthread_t thread, timer;
    struct agent_wait *waits;
    uint64_t wait_pass;
    struct owed_row *owed;      /* rows that the catalog has not taken (agent_rows.c) */
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

/* Space kept for removals (agent_reserve.c). use: true if there was some and result says that space is what
 * lacks: try again, then call end, which has it made anew. fill: -errno: there is no room for it yet. */
int agent_reserve_fill(struct agent *a, struct verr *err);
bool agent_reserve_use(struct agent *a, int result);
void agent_reserve_end(struct agent *a);

/* rounds (agent_round.c) */
void *agent_thread(void *agent);
/* The recipe of a pending snapshot is published: anchor, pointers, catalog (agent_publish.c). has_turn: the caller has the disk's turn;
 * else nobody waits for it while STORE is written. */
int agent_finish_publication(struct agent *a, struct live *l, const struct snapinfo *p, bool has_turn, struct verr *err);

/* removal (agent_removal.c) */
/* Is it certain that the disk was removed: its record says so, or it has none and its image says so? 1, 0, -errno. */
int agent_removal_certain(struct agent *a, const struct vid *disk, struct verr *err);
/* Removes the local data of a disk that was removed for certain, once nothing is pending. In the disk's turn. */
int agent_forget_if_gone(struct agent *a, const struct vid *disk, struct verr *err);
/* rm of the only pending snapshot of a removed disk: 1 the image went with it, 0 it has to be dropped,
 * -EBUSY that too, because the image is in use. In the disk's turn. */
int agent_discard_if_gone(struct agent *a, const struct vid *disk, struct verr *err);
/* names' hook: what is about to lose its name says so. */
int agent_say_removal(void *agent, const struct vid *id, bool stays, struct verr *err);

/* rows that the catalog may not take at once (agent_rows.c). What they say has happened already, so put and del fail for
 * want of memory only. Put and del in the turn of the row's disk. */
int agent_row_put(struct agent *a, const struct snaprow *row, struct verr *err);
int agent_row_del(struct agent *a, const struct snaprow *row, struct verr *err);
int agent_row_get(struct agent *a, const struct vid *snap, struct snaprow *out, struct verr *err);
int agent_row_by_seq(struct agent *a, const struct vid *disk, uint64_t seq, struct snaprow *out, struct verr *err);
/* Offers what is owed again; else its error. Before a disk's snapshots are counted in the catalog. */
int agent_rows_pay(struct agent *a, struct verr *err);
void agent_rows_free(struct agent *a);

/* rows (agent_ops.c) */
void agent_pending_row(struct agent *a, const struct snapinfo *p, struct snaprow *out);
int agent_freeze_locked(struct agent *a, const struct node *disks, unsigned n, const struct freeze_req *req, struct snaprow *out,
                        struct verr *err);
/* agent_freeze_due; In the disk's turn. */
int agent_freeze_due_locked(struct agent *a, struct due_case *c, struct live *l, struct snaprow *out, struct verr *err);

/* Settles a stored snapshot whose writer is gone: clears `provisional`, sets `partial` unless clean. In the disk's turn. */
int agent_settle_stored(struct agent *a, const struct snapref *snap, bool clean, struct verr *err);

/* waiting (agent_wait.c) */
void agent_waits_check(struct agent *a);        /* after a change of state; no lock held; the agent's thread only */
void *agent_timer(void *agent);                 /* ends waits at their deadlines, whatever the agent's thread is doing */
void agent_waits_end(struct agent *a);          /* at shutdown, after both threads: -EINTR to all */

/* what is owed (agent_work.c) */
/* The disk's oldest pending snapshot is to be stored. -ENOMEM. */
int agent_owe_store(struct agent *a, const struct vid *disk);
/* An attempt failed: says so in log and events, and has another made later. disk zero: the tree of names. */
void agent_owe(struct agent *a, const struct vid *disk, enum work_kind kind, uint32_t arg, const struct verr *why);
void agent_owe_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, const struct verr *why);
/* What is due but for storing; the agent's thread. */
void agent_work_run(struct agent *a);
void agent_wake(void *agent);
/* "VM/NAME" of a disk below the mount, for messages; its id where the catalog does not know it. */
void agent_disk_path(struct agent *a, const struct vid *disk, char *out, size_t cap);
/* In the disk's turn. */
int agent_recover_disk(struct agent *a, const struct vid *disk, struct verr *err);
int agent_settle_late(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, struct verr *err);
void agent_report_bad(void *agent, bool damaged, const char *what);

#endif
