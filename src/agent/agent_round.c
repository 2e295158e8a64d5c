/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's thread: takes the oldest pending snapshot of each disk that owes one, runs one round over the batch, and finishes what
 * was published.
 *
 * Order of durability per snapshot: containers, index, recipe link, directory fsync (dedup_round) -> anchor -> pointers in the tables,
 * head record -> catalog row (agent_publish.c). After a crash between any two, agent_recover finishes the snapshot.
 *
 * The round does not seal a snapshot first: data that are durable in STORE a moment later need not go to STATE's device as well. `varve
 * snapshot`, which promises safety at once, seals before its answer. A snapshot whose attempt failed is sealed, because storing it may
 * take long now.
 */
#include "agent/agent_internal.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/limits.h"
#include "store/snaps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_MAX = 64 };

/* ---- one job ---- */

static void vm_key(const struct vid *vm, const char *what, char out[64])
{
    char hex[VID_HEX];
    vid_hex(vm, hex);
    snprintf(out, 64, "vm.%s.%s", hex, what);
}

/* The container that the VM's last backup ended in. Only the STATE that wrote it goes on in it, and only under the owner epoch of that
 * time: while another host owned the VM, it may have gone on in it, and whether a lock keeps two hosts apart depends on the filesystem. */
static uint64_t vm_container(struct agent *a, const struct vid *vm, uint64_t epoch, const char *what)
{
    char key[64], value[64], *end;
    vm_key(vm, what, key);
    if (catalog_get(a->catalog, key, value, sizeof value, NULL) < 0)
        return REF_NONE;
    uint64_t number = strtoull(value, &end, 10);
    return *end == ' ' && strtoull(end + 1, NULL, 10) == epoch ? number : REF_NONE;
}

static void save_vm_container(struct agent *a, const struct vid *vm, uint64_t epoch, const char *what, uint64_t number)
{
    char key[64], value[64];
    if (number == REF_NONE)
        return;
    vm_key(vm, what, key);
    snprintf(value, sizeof value, "%llu %llu", (unsigned long long)number, (unsigned long long)epoch);
    if (catalog_set(a->catalog, key, value, NULL) < 0)
        vlog(VLOG_WARN, "agent", "the catalog forgot where VM %s goes on; its next backup begins a new container", key);
}

/* What is missing in STORE is no -ENOENT of ours: that would say that nothing is pending. */
static int claim_vm(struct agent *a, const struct vid *vm, uint64_t *epoch, struct verr *err)
{
    struct verr why = {0};
    int r = owner_claim(a->store, vm, &a->host, epoch, &why);
    return r == 0 ? 0 : verr_set(err, r == -ENOENT ? EIO : -r, "%s", verr_str(&why));
}

/* Has the disk a pending snapshot that may be stored? A provisional one may go away, so it is stored only if a younger one must be. */
static bool may_store(struct live *l)
{
    struct snapinfo p;
    for (unsigned i = 0; live_pending(l, i, &p, NULL) == 0; i++)
        if ((p.flags & SNAP_PROVISIONAL) == 0)
            return true;
    return false;
}

/* Fills a job for the oldest pending snapshot of a disk. 0; -ENOENT: nothing is pending any more that may be stored. */
static int prepare_job(struct agent *a, const struct vid *disk, struct dedup_job *job, struct verr *err)
{
    struct node node, vm;
    struct snaprow parent;
    memset(job, 0, sizeof *job);
    job->err = err;
    int r = live_get(a->live, disk, &job->live, err);
    if (r < 0)
        return r;
    struct turn turn;
    turn_take(a->turns, &turn, disk, 1);
    r = may_store(job->live) ? live_pending(job->live, 0, &job->pend, err) : -ENOENT;
    if (r == 0)
        r = live_pending_update(job->live, job->pend.ref.seq, SNAP_STARTED, 0, NULL, err);
    turn_give(a->turns, &turn);
    if (r == 0)
        r = live_pending_by_seq(job->live, job->pend.ref.seq, &job->pend, err);
    bool pending = r == 0;
    if (r == 0)
        r = catalog_node_by_id(a->catalog, disk, &node, err);
    if (r == 0)
        r = catalog_node_by_id(a->catalog, &node.parent, &vm, err);
    if (r == 0) {
        job->vm = vm.id;
        job->selective = (vm.flags & NODE_SELECTIVE) != 0;
        r = claim_vm(a, &vm.id, &job->epoch, err);
    } else if (r == -ENOENT && pending) { /* must not pass for "nothing pending" */
        r = verr_set(err, EIO, "the catalog has no record of the disk or of its directory: unmount, `varve rebuild`, mount");
    }
    if (r == 0 && catalog_snap_latest(a->catalog, disk, &parent, NULL) == 0)
        job->parent = parent.info.ref;
    if (r < 0) {
        if (job->pend.ref.seq != 0) /* not begun after all: the snapshot may be dropped or removed until the next attempt */
            live_pending_update(job->live, job->pend.ref.seq, 0, SNAP_STARTED, NULL, NULL);
        live_put(job->live);
        job->live = NULL;
        return r;
    }
    job->last_blocks = vm_container(a, &job->vm, job->epoch, "blocks");
    job->last_recipes = vm_container(a, &job->vm, job->epoch, "recipes");
    return 0;
}

/* ---- the round ---- */

static int show_progress(void *ctx, const char *stage, uint64_t done, uint64_t total)
{
    struct agent *a = ctx;
    pthread_mutex_lock(&a->lock);
    snprintf(a->progress.stage, sizeof a->progress.stage, "%s", stage);
    a->progress.done = done;
    a->progress.total = total;
    bool stop = a->stopping;
    pthread_mutex_unlock(&a->lock);
    return stop;
}

/* In the disk's turn: from the update of the journal on, the snapshot may be removed. */
static void row_failed(struct agent *a, const struct vid *snap)
{
    struct snaprow row;
    if (agent_row_get(a, snap, &row, NULL) < 0 || row.state != SNAPST_PENDING)
        return;
    fault_point("agent.failed.before_row");
    row.state = SNAPST_FAILED;
    agent_row_put(a, &row, NULL);
}

/* The snapshot shows as failed everywhere until an attempt succeeds; the next attempt comes by itself. */
static void job_failed(struct agent *a, const struct work_item *item, struct live *l, const struct snapinfo *p, int result,
                       const struct verr *err)
{
    if (result == -EINTR) {     /* the daemon stops: the snapshot stays pending, and the next mount stores it */
        work_return(a->work, item);
        return;
    }
    char path[PATH_TEXT];
    int64_t next_ns = 0;
    struct turn turn;
    turn_take(a->turns, &turn, &item->disk, 1);
    if (l != NULL)
        live_pending_update(l, p->ref.seq, SNAP_FAILED, SNAP_STARTED, NULL, NULL);
    row_failed(a, &p->ref.snap);
    turn_give(a->turns, &turn);
    work_failed(a->work, item, err, &next_ns);
    next_ns -= vclock_mono_ns(a->conf.clock);
    long long seconds = next_ns <= 0 ? 0 : (next_ns + 999999999) / 1000000000;
    agent_snap_path(a, p, path, sizeof path);
    agent_say(a, VLOG_ERROR, path, "failed, snapshot %llu: %s (next attempt in %lld s)", (unsigned long long)p->ref.seq,
              verr_str(err), seconds);
    pthread_mutex_lock(&a->lock);
    a->progress.failed++;
    pthread_mutex_unlock(&a->lock);
}

static void job_stored(struct agent *a, const struct work_item *item, struct dedup_job *job)
{
    char path[PATH_TEXT];
    struct snapinfo next;
    pthread_mutex_lock(&a->lock);
    a->progress.published++;
    pthread_mutex_unlock(&a->lock);
    agent_snap_path(a, &job->pend, path, sizeof path);
    agent_lost_again(a, &item->disk);
    agent_say(a, VLOG_INFO, path, "stored, snapshot %llu, %llu bytes added", (unsigned long long)job->pend.ref.seq,
              (unsigned long long)job->recipe.info.levels.stored);
    if (live_pending(job->live, 0, &next, NULL) == 0)
        agent_owe_store(a, &item->disk);    /* cannot fail: the item is in the list already */
    work_done(a->work, item);
    work_nudge(a->work);    /* the cause of other failures (no space, a store out of reach) may have passed */
    live_put(job->live);
    agent_forget_in_turn(a, &item->disk);     /* the image of a removed disk goes with its last pending snapshot */
}

/* It was removed while it was being stored: that is no failure, and what the round has written is space that a collection gives back. */
static void job_removed(struct agent *a, const struct work_item *item, struct dedup_job *job)
{
    struct snapinfo next;
    if (live_pending(job->live, 0, &next, NULL) == 0)
        agent_owe_store(a, &item->disk);    /* cannot fail: the item is in the list already */
    work_done(a->work, item);
    live_put(job->live);
    agent_forget_in_turn(a, &item->disk);
}

static void job_done(struct agent *a, const struct work_item *item, struct dedup_job *job)
{
    int r = job->result;
    if (r == 0) {
        save_vm_container(a, &job->vm, job->epoch, "blocks", job->last_blocks);
        save_vm_container(a, &job->vm, job->epoch, "recipes", job->last_recipes);
        r = agent_finish_publication(a, job->live, &job->pend, false, job->err);
    }
    if (r == 0) {
        job_stored(a, item, job);
    } else if (agent_was_removed(a, job->live, job->pend.ref.seq)) {
        job_removed(a, item, job);
    } else {
        job_failed(a, item, job->live, &job->pend, r, job->err);
        live_put(job->live);
    }
}

/* Finishes a snapshot whose last attempt failed after its recipe was published: nothing is left to store. 1: finished; 0: none. */
static int finish_published(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct live *l;
    struct snapinfo p;
    int r = live_get(a->live, disk, &l, err);
    if (r < 0)
        return r;
    r = live_pending(l, 0, &p, NULL) == 0 ? snaps_durable(a->store, &p.ref, err) : 0;
    if (r == 1) {
        r = agent_finish_publication(a, l, &p, false, err);
        r = r == 0 ? 1 : r == -ENOENT ? 0 : r;      /* -ENOENT: dropped meanwhile */
    }
    live_put(l);
    return r;
}

/* In no turn and without a lock: sealing may write a whole layer to the device. */
static void seal_failed(struct agent *a, const struct vid *disk)
{
    struct live *l;
    struct snapinfo p;
    struct verr err = {0};
    int r = live_get(a->live, disk, &l, &err);
    if (r < 0)
        return;     /* the next attempt says why */
    r = live_pending(l, 0, &p, &err) == 0 ? live_pending_seal(l, p.ref.seq, &err) : 0;
    live_put(l);
    if (r < 0 && r != -ENOENT)
        vlog(VLOG_WARN, "agent", "a snapshot that is not stored yet would not survive a loss of power: %s", verr_str(&err));
}

static int by_vm(const void *a, const void *b)
{
    const struct dedup_job *x = a, *y = b;
    return memcmp(x->vm.b, y->vm.b, VID_BYTES);
}

/* Logs trouble that costs only space: an index page that cannot be read, an answer that did not come. */
static void note_trouble(void *ctx, const char *stage, const struct verr *err)
{
    (void)ctx;
    vlog(VLOG_WARN, stage, "%s", verr_str(err));
}

/* Fills a job for the item's disk. False: the disk has nothing left to store, or the job cannot begin. */
static bool begin_job(struct agent *a, const struct work_item *item, struct dedup_job *job, struct verr *err)
{
    int r = 0;
    if (item->failures > 0)
        while ((r = finish_published(a, &item->disk, err)) == 1)
            ;
    if (r == 0)
        r = prepare_job(a, &item->disk, job, err);
    if (r == -ENOENT) {
        work_done(a->work, item);   /* finished, or dropped meanwhile; a later freeze owes the item again */
        agent_forget_in_turn(a, &item->disk);
    } else if (r < 0) {
        job_failed(a, item, NULL, &job->pend, r, err);
    }
    return r == 0;
}

/* ---- the gate: what is removed is not published, and what is published is removed out of STORE ---- */

struct gate { struct agent *a; struct turn turn; };

/* Takes the disk's turn for the commit point alone, so that a removal comes as a whole before it or behind it: before it, the snapshot is
 * not pending any more, and is refused here; behind it, the removal finds the recipe in STORE (unpublish). */
static int gate_enter(void *ctx, const struct dedup_job *job, struct verr *err)
{
    struct gate *g = ctx;
    struct snapinfo p;
    turn_take(g->a->turns, &g->turn, live_id(job->live), 1);
    int r = live_pending_by_seq(job->live, job->pend.ref.seq, &p, err);
    if (r < 0)
        turn_give(g->a->turns, &g->turn);
    return r;
}

static void gate_leave(void *ctx, const struct dedup_job *job)
{
    struct gate *g = ctx;
    (void)job;
    turn_give(g->a->turns, &g->turn);
}

static void run_jobs(struct agent *a, struct dedup_job *jobs, unsigned njobs, struct verr *err)
{
    struct dedup_traffic traffic = {0};
    struct gate g = {.a = a};
    const struct dedup_gate gate = {.enter = gate_enter, .leave = gate_leave, .ctx = &g};
    struct dedup_env env = {
        .store = a->store, .reader = a->reader, .segread = a->segread, .slots = a->slots, .nslots = a->nslots, .bus = a->bus,
        .host = a->host, .work_dirfd = a->rounds_fd, .memory = a->conf.memory, .pool = a->pool,
        .progress = show_progress, .note = note_trouble, .progress_ctx = a, .traffic = &traffic,
        .gate = &gate,
    };
    qsort(jobs, njobs, sizeof *jobs, by_vm); /* disks of one VM share its containers, one after another */
    int r = dedup_round(&env, jobs, njobs, err);
    if (r < 0 && r != -EINTR)
        vlog(VLOG_ERROR, "agent", "the round could not run to its end: %s", verr_str(err));
    pthread_mutex_lock(&a->lock);
    a->progress.asked += traffic.asked;
    a->progress.wire_bytes += traffic.bytes;
    pthread_mutex_unlock(&a->lock);
}

/* Finds the item of a job's disk: jobs are sorted by VM, and some items have no job. */
static const struct work_item *item_of(const struct work_item *items, unsigned n, const struct vid *disk)
{
    while (n > 1 && !vid_eq(&items->disk, disk)) {
        items++;
        n--;
    }
    return items;
}

static void run_round(struct agent *a, const struct work_item *items, unsigned n)
{
    struct dedup_job *jobs = calloc(n, sizeof *jobs);
    struct verr *errs = calloc(n + 1, sizeof *errs);
    unsigned njobs = 0;
    if (jobs == NULL || errs == NULL) {
        for (unsigned i = 0; i < n; i++)
            work_failed(a->work, &items[i], &(struct verr){.code = ENOMEM}, NULL);
        n = 0;
    }
    for (unsigned i = 0; i < n; i++) {
        errs[njobs] = (struct verr){0};
        if (begin_job(a, &items[i], &jobs[njobs], &errs[njobs]))
            njobs++;
    }
    if (njobs > 0)
        run_jobs(a, jobs, njobs, &errs[n]);
    for (unsigned i = 0; i < njobs; i++)
        job_done(a, item_of(items, n, live_id(jobs[i].live)), &jobs[i]);
    for (unsigned i = 0; i < n; i++)
        if (work_blocked(a->work, &items[i].disk, NULL, NULL))
            seal_failed(a, &items[i].disk);
    free(jobs);
    free(errs);
}

static void one_pass(struct agent *a, const struct work_item *items, unsigned n)
{
    int64_t begin = vclock_mono_ns(a->conf.clock);
    pthread_mutex_lock(&a->lock);
    a->progress.running = true;
    a->progress.rounds++;
    uint64_t failed_before = a->progress.failed;
    pthread_mutex_unlock(&a->lock);
    run_round(a, items, n);
    pthread_mutex_lock(&a->lock);
    a->progress.running = false;
    a->progress.rounds_failed += a->progress.failed > failed_before;
    a->progress.last_ns = vclock_mono_ns(a->conf.clock) - begin;
    a->progress.stage[0] = '\0';
    pthread_mutex_unlock(&a->lock);
    struct verr err = {0};
    if (live_set_evict(a->live, &err) < 0)
        vlog(VLOG_WARN, "agent", "evicting cached segments: %s", verr_str(&err));
}

/* Sleeps until something is due or has changed. False: the daemon stops. */
static bool wait_for_work(struct agent *a)
{
    int64_t next = work_next(a->work, WORK_ALL);
    pthread_mutex_lock(&a->lock);
    if (!a->stopping && !a->kicked && next == INT64_MAX) {
        pthread_cond_wait(&a->wake, &a->lock);
    } else if (!a->stopping && !a->kicked && next > vclock_mono_ns(a->conf.clock)) {
        struct timespec ts = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
        pthread_cond_timedwait(&a->wake, &a->lock, &ts);
    }
    a->kicked = false;
    bool stop = a->stopping;
    pthread_mutex_unlock(&a->lock);
    return !stop;
}

void *agent_thread(void *arg)
{
    struct agent *a = arg;
    struct work_item items[BATCH_MAX];
    /* A low limit of open files makes rounds of few disks. */
    const unsigned batch = files_allowed(64, BATCH_MAX);
    while (wait_for_work(a)) {
        unsigned n = work_take(a->work, WORK_BIT(WORK_STORE), items, batch);
        if (n > 0)
            one_pass(a, items, n);
        agent_work_run(a);
        agent_waits_check(a);
    }
    return NULL;
}
