/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's thread: takes the oldest pending snapshot of each queued disk, runs one round over the batch, and finishes what
 * was published.
 *
 * Order of durability per snapshot: round: containers, index, recipe link, directory fsync (dedup_round) -> anchor -> pointers in
 * the tables, head record (live_pending_published) -> catalog row. A crash between any two is finished by agent_recover.
 *
 * It is not sealed first: what is durable in STORE a moment later need not go to STATE's device as well. Who must know it safe at
 * once (varve snapshot) seals it before the answer; and one whose attempt failed is sealed, because it may take long now.
 */
#include "agent/agent_internal.h"

#include "base/fault.h"
#include "base/file.h"
#include "store/snaps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BATCH_MAX = 64, DROPS_MAX = 64 };
#define OWED_RETRY_NS INT64_C(1000000000)

/* ---- the queue of disks ---- */

int agent_queue_disk(struct agent *a, const struct vid *disk)
{
    int r = 0;
    pthread_mutex_lock(&a->lock);
    bool found = false;
    for (unsigned i = 0; i < a->queued && !found; i++)
        found = vid_eq(&a->queue[i].disk, disk);
    if (!found && a->queued == a->queue_cap) {
        struct queued *q = realloc(a->queue, (a->queue_cap + QUEUE_STEP) * sizeof *q);
        if (q == NULL) {
            r = -ENOMEM;
        } else {
            a->queue = q;
            a->queue_cap += QUEUE_STEP;
        }
    }
    if (!found && r == 0)
        a->queue[a->queued++] = (struct queued){.disk = *disk};
    a->kicked = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
    return r;
}

void agent_kick(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued; i++)
        a->queue[i].retry_ns = 0;
    agent_mend_kick(a);
    a->kicked = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
}

/* Up to BATCH_MAX disks (fewer where few files may be open) whose time has come; they stay queued until unqueue_disk. lock held. */
static unsigned due_disks(struct agent *a, int64_t now, struct vid out[BATCH_MAX], int64_t *next_ns)
{
    unsigned n = 0;
    for (unsigned i = 0; i < a->queued; i++) {
        if (a->queue[i].retry_ns <= now && n < BATCH_MAX && n <= a->disks_open / 4) {
            a->queue[i].again = false;
            out[n++] = a->queue[i].disk;
        } else if (a->queue[i].retry_ns > now && a->queue[i].retry_ns < *next_ns)
            *next_ns = a->queue[i].retry_ns;
    }
    return n;
}

void agent_queue_retry(struct agent *a, const struct vid *disk)
{
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued; i++) {
        struct queued *q = &a->queue[i];
        if (!vid_eq(&q->disk, disk))
            continue;
        q->retry_ns = 0;
        q->failed = false;
        q->again = true;
        a->kicked = true;
    }
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
}

/* What kept others from being stored (a full disk, a store out of reach) does so no longer: they need not wait it out. */
static void forget_backoffs(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued; i++)
        a->queue[i] = (struct queued){.disk = a->queue[i].disk};
    pthread_mutex_unlock(&a->lock);
}

static void unqueue_disk(struct agent *a, const struct vid *disk)
{
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued; i++) {
        if (vid_eq(&a->queue[i].disk, disk)) {
            a->queue[i] = a->queue[--a->queued];
            break;
        }
    }
    pthread_mutex_unlock(&a->lock);
}

/* False: another attempt was asked for while this one was running, and comes at once. */
static bool postpone_disk(struct agent *a, const struct vid *disk)
{
    bool final = true;
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued; i++) {
        struct queued *q = &a->queue[i];
        if (!vid_eq(&q->disk, disk))
            continue;
        final = !q->again;
        q->again = false;
        if (!final)
            continue;
        q->backoff_ns = q->backoff_ns == 0 ? BACKOFF_FIRST_NS : q->backoff_ns * 2;
        if (q->backoff_ns > BACKOFF_MAX_NS)
            q->backoff_ns = BACKOFF_MAX_NS;
        q->retry_ns = vclock_mono_ns(a->conf.clock) + q->backoff_ns;
        q->failed = true;
    }
    pthread_mutex_unlock(&a->lock);
    return final;
}

bool agent_failing(struct agent *a, const struct vid *disk)
{
    bool failing = false;
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued && !failing; i++)
        failing = vid_eq(&a->queue[i].disk, disk) && a->queue[i].failed;
    pthread_mutex_unlock(&a->lock);
    return failing;
}

/* ---- one job ---- */

static void vm_key(const struct vid *vm, const char *what, char out[64])
{
    char hex[VID_HEX];
    vid_hex(vm, hex);
    snprintf(out, 64, "vm.%s.%s", hex, what);
}

static uint64_t vm_container(struct agent *a, const struct vid *vm, const char *what)
{
    char key[64], value[32];
    vm_key(vm, what, key);
    if (catalog_get(a->catalog, key, value, sizeof value, NULL) < 0)
        return REF_NONE;
    return strtoull(value, NULL, 10);
}

static void save_vm_container(struct agent *a, const struct vid *vm, const char *what, uint64_t number)
{
    char key[64], value[32];
    if (number == REF_NONE)
        return;
    vm_key(vm, what, key);
    snprintf(value, sizeof value, "%llu", (unsigned long long)number);
    if (catalog_set(a->catalog, key, value, NULL) < 0)
        vlog(VLOG_WARN, "agent", "the catalog forgot where VM %s goes on; its next backup begins a new container", key);
}

/* Fills a job for the oldest pending snapshot of a disk. 0; -ENOENT: nothing pending any more. */
static int prepare_job(struct agent *a, const struct vid *disk, struct dedup_job *job, struct verr *err)
{
    struct node node, vm;
    struct snaprow parent;
    memset(job, 0, sizeof *job);
    job->err = err;
    int r = live_get(a->live, disk, &job->live, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&a->op_lock);
    r = live_pending(job->live, 0, &job->pend, err);
    if (r == 0)
        r = live_pending_update(job->live, job->pend.ref.seq, SNAP_STARTED, 0, NULL, err);
    pthread_mutex_unlock(&a->op_lock);
    if (r == 0)
        r = live_pending_by_seq(job->live, job->pend.ref.seq, &job->pend, err);
    bool pending = r == 0;
    if (r == 0)
        r = catalog_node_by_id(a->catalog, disk, &node, err);
    if (r == 0)
        r = catalog_node_by_id(a->catalog, &node.parent, &vm, err);
    if (r == -ENOENT && pending) /* it must not be taken for "nothing pending" */
        r = verr_set(err, EIO, "the catalog has no record of the disk or of its directory: unmount, `varve rebuild`, mount");
    if (r == 0) {
        job->vm = vm.id;
        job->selective = (vm.flags & NODE_SELECTIVE) != 0;
        r = owner_claim(a->store, &vm.id, &a->host, &job->epoch, err);
    }
    if (r == 0 && catalog_snap_latest(a->catalog, disk, &parent, NULL) == 0)
        job->parent = parent.info.ref;
    if (r < 0) {
        if (job->pend.ref.seq != 0) /* not begun after all: it may be dropped or removed until the next attempt */
            live_pending_update(job->live, job->pend.ref.seq, 0, SNAP_STARTED, NULL, NULL);
        live_put(job->live);
        job->live = NULL;
        return r;
    }
    job->last_blocks = vm_container(a, &job->vm, "blocks");
    job->last_recipes = vm_container(a, &job->vm, "recipes");
    return 0;
}

/* ---- after the commit point ---- */

/* What was settled while the round ran, or is known only now, goes into the side file. Compared with what STORE says now, not with
 * the recipe alone: an attempt before a loss of power may have written that file, and the journal fell back behind it. */
static int carry(void *ctx, struct snapinfo *s)
{
    const struct snapinfo *p = ctx;
    s->flags = p->flags & SNAP_RECIPE_FLAGS;
    memcpy(s->label, p->label, sizeof s->label);
    return 0;
}

static int carry_flags(struct agent *a, struct snapinfo *p, struct snaprcp *hdr, struct verr *err)
{
    const struct snaps_change ch = {.change = carry, .ctx = p};
    hdr->info.flags = p->flags & SNAP_RECIPE_FLAGS;
    return snaps_edit(a->store, &p->ref, &ch, NULL, err);
}

static int stored_row(struct agent *a, const struct snapinfo *p, const struct snaprcp *hdr, struct verr *err)
{
    struct snaprow row;
    int r = agent_row_get(a, &p->ref.snap, &row, err);
    if (r == -ENOENT)
        agent_pending_row(a, p, &row);
    else if (r < 0)
        return r;
    row.state = SNAPST_STORED;
    row.info.flags = hdr->info.flags;
    row.info.parent = hdr->info.parent;
    row.info.alloc_bytes = hdr->info.alloc_bytes;
    row.info.levels = hdr->info.levels;
    row.info.mode = hdr->info.mode;
    row.info.uid = hdr->info.uid;
    row.info.gid = hdr->info.gid;
    memcpy(row.info.label, p->label, sizeof row.info.label);
    return agent_row_put(a, &row, err);
}

/* False: since the publication entries were made that rely on the anchor, which lifted its stamp. */
static bool still_obsolete(struct live *l, const struct live_anchor *an)
{
    struct live_anchor now;
    for (unsigned i = 0; live_anchor_at(l, i, &now, NULL) == 0; i++)
        if (snapref_eq(&now.ref, &an->ref))
            return now.stamp == an->stamp;
    return true;
}

/* An anchor that cannot be dropped, or that a stream has pinned, stays listed; the next publication retries. Mark, then look at the
 * stamp: while the marks stand no stream makes entries that rely on an anchor, and those made before have lifted its stamp. */
static void drop_anchors(struct agent *a, struct live *l, const struct live_anchor *drop, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct verr why = {0};
        struct anchor_drop mark;
        if (!ingest_drop_begin(a->ingest, &mark, l, &drop[i]))
            continue;
        int r = 0;
        if (still_obsolete(l, &drop[i])) {
            r = snaps_unanchor(a->store, live_id(l), &drop[i].ref, &why);
            if (r == 0)
                r = live_anchor_gone(l, &drop[i], &why);
        }
        ingest_drop_end(a->ingest, &mark);
        if (r < 0)
            vlog(VLOG_WARN, "agent", "an anchor stays for now: %s", verr_str(&why));
    }
}

int agent_finish_publication(struct agent *a, struct live *l, const struct snapinfo *pending, struct verr *err)
{
    struct vid disk = *live_id(l);
    struct snapinfo p;
    struct snap *snap = NULL;
    struct verr why = {0};
    int r = live_pending_by_seq(l, pending->ref.seq, &p, err);
    if (r == 0)
        r = snaps_anchor(a->store, &disk, &p.ref, err);
    if (r == 0)
        r = snap_open(a->store, a->segread, &p.ref, &snap, err);
    if (r < 0)
        return r;
    struct snaprcp hdr = *snap_header(snap);
    struct live_anchor mine = {.ref = {disk, p.ref.seq, p.ref.snap}, .stamp = p.ref.seq + 1};
    struct live_anchor drop[DROPS_MAX];
    unsigned dropped = 0;
    r = carry_flags(a, &p, &hdr, err);
    int fault = fault_errno("agent.finish.before_pointers");
    if (r == 0 && fault != 0)
        r = verr_set(err, fault, "finishing a snapshot: fault injected");
    if (r == 0)
        r = live_pending_published(l, p.ref.seq, snap_place, snap, &mine, drop, DROPS_MAX, &dropped, err);
    fault_point("agent.finish.after_pointers");
    if (r == 0)
        drop_anchors(a, l, drop, dropped);
    snap_close(snap);
    /* Once it is pending no more nothing here is tried again, and what the recipe says is true: the row comes in any case. */
    struct snapinfo still;
    if (r < 0 && live_pending_by_seq(l, p.ref.seq, &still, NULL) != -ENOENT)
        return r;
    if (r < 0)
        vlog(VLOG_ERROR, "agent", "a snapshot is stored, but its disk fails: %s", verr_str(err));
    /* It is stored, whatever the catalog says: nothing from here on is a failure of the snapshot. */
    if (stored_row(a, &p, &hdr, &why) < 0)
        agent_mend(a, &(struct vid){{0}}, MEND_NAMES, &why);
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

static void job_failed(struct agent *a, const struct vid *disk, struct live *l, const struct snapinfo *p, int result,
                       const struct verr *err)
{
    if (result == -EINTR)
        return; /* we are stopping: it stays pending and completes at the next mount */
    char hex[VID_HEX];
    vid_hex(disk, hex);
    vlog(VLOG_ERROR, "agent", "disk %s, snapshot %llu: %s", hex, (unsigned long long)p->ref.seq, verr_str(err));
    agent_event(a, "snapshot %llu of disk %s failed: %s", (unsigned long long)p->ref.seq, hex, verr_str(err));
    struct snaprow row;
    bool final = postpone_disk(a, disk);
    if (l != NULL)
        live_pending_update(l, p->ref.seq, SNAP_FAILED, SNAP_STARTED, NULL, NULL);
    if (final && agent_row_get(a, &p->ref.snap, &row, NULL) == 0 && row.state == SNAPST_PENDING) {
        row.state = SNAPST_FAILED;
        agent_row_put(a, &row, NULL);
    }
    pthread_mutex_lock(&a->lock);
    a->progress.failed++;
    pthread_mutex_unlock(&a->lock);
}

static void job_done(struct agent *a, struct dedup_job *job)
{
    struct vid disk = *live_id(job->live);
    struct snapinfo next;
    pthread_mutex_lock(&a->op_lock);
    int r = job->result;
    if (r == 0) {
        save_vm_container(a, &job->vm, "blocks", job->last_blocks);
        save_vm_container(a, &job->vm, "recipes", job->last_recipes);
        r = agent_finish_publication(a, job->live, &job->pend, job->err);
    }
    if (r == 0) {
        pthread_mutex_lock(&a->lock);
        a->progress.published++;
        pthread_mutex_unlock(&a->lock);
        char hex[VID_HEX];
        vid_hex(&disk, hex);
        agent_event(a, "snapshot %llu of disk %s stored, %llu bytes added", (unsigned long long)job->pend.ref.seq, hex,
                    (unsigned long long)job->recipe.info.levels.stored);
        forget_backoffs(a);
        if (live_pending(job->live, 0, &next, NULL) != 0)
            unqueue_disk(a, &disk);
    } else {
        job_failed(a, &disk, job->live, &job->pend, r, job->err);
    }
    live_put(job->live);
    struct verr err = {0};
    if (r == 0 && agent_forget_if_gone(a, &disk, &err) < 0)
        agent_mend(a, &disk, MEND_FORGET, &err);
    pthread_mutex_unlock(&a->op_lock);
}

/* Under op_lock, and after a second look: a freeze that came since found the disk queued and did not queue it again. */
static void unqueue_idle(struct agent *a, const struct vid *disk)
{
    struct live *l;
    struct snapinfo p;
    pthread_mutex_lock(&a->op_lock);
    int r = live_get(a->live, disk, &l, NULL);
    if (r == 0) {
        r = live_pending(l, 0, &p, NULL);
        live_put(l);
    }
    if (r == -ENOENT)
        unqueue_disk(a, disk);
    pthread_mutex_unlock(&a->op_lock);
}

/* Since its last success: also when somebody asked for another attempt. */
static bool has_failed(struct agent *a, const struct vid *disk)
{
    bool failed = false;
    pthread_mutex_lock(&a->lock);
    for (unsigned i = 0; i < a->queued && !failed; i++)
        failed = vid_eq(&a->queue[i].disk, disk) && a->queue[i].backoff_ns > 0;
    pthread_mutex_unlock(&a->lock);
    return failed;
}

/* An attempt that failed after its recipe was published has nothing to store any more: it is finished. 1 done, 0 nothing to do. */
static int finish_published(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct live *l;
    struct snapinfo p;
    pthread_mutex_lock(&a->op_lock);
    int r = live_get(a->live, disk, &l, err);
    if (r == 0) {
        r = live_pending(l, 0, &p, NULL) == 0 ? snaps_durable(a->store, &p.ref, err) : 0;
        if (r == 1)
            r = agent_finish_publication(a, l, &p, err) < 0 ? -EIO : 1;
        live_put(l);
    }
    pthread_mutex_unlock(&a->op_lock);
    if (r == 1)
        forget_backoffs(a);
    return r;
}

/* No lock is held: it may write a whole layer to the device. */
static void seal_failed(struct agent *a, const struct vid *disk)
{
    struct live *l;
    struct snapinfo p;
    struct verr err = {0};
    if (!has_failed(a, disk))
        return;
    int r = live_get(a->live, disk, &l, &err);
    if (r < 0)
        return;     /* nothing pending, or the next attempt says why */
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

/* Trouble that costs space only: an index page that cannot be read, an answer that did not come. */
static void note_trouble(void *ctx, const char *stage, const struct verr *err)
{
    (void)ctx;
    vlog(VLOG_WARN, stage, "%s", verr_str(err));
}

static void run_round(struct agent *a, const struct vid *disks, unsigned n)
{
    static const struct verr no_error;
    struct dedup_job *jobs = calloc(n, sizeof *jobs);
    struct verr *errs = calloc(n + 1, sizeof *errs);
    unsigned njobs = 0;
    for (unsigned i = 0; jobs != NULL && errs != NULL && i < n; i++) {
        errs[njobs] = no_error;
        int r = 0;
        if (has_failed(a, &disks[i]))
            while ((r = finish_published(a, &disks[i], &errs[njobs])) == 1)
                ;
        if (r == 0)
            r = prepare_job(a, &disks[i], &jobs[njobs], &errs[njobs]);
        if (r == 0)
            njobs++;
        else if (r == -ENOENT)
            unqueue_idle(a, &disks[i]); /* dropped meanwhile */
        else
            job_failed(a, &disks[i], NULL, &jobs[njobs].pend, r, &errs[njobs]);
    }
    if (njobs > 0) {
        struct dedup_traffic traffic = {0};
        struct dedup_env env = {
            .store = a->store, .reader = a->reader, .segread = a->segread, .slots = a->slots, .nslots = a->nslots, .bus = a->bus,
            .host = a->host, .work_dirfd = a->rounds_fd, .memory = a->conf.memory, .pool = a->pool,
            .progress = show_progress, .note = note_trouble, .progress_ctx = a, .traffic = &traffic,
        };
        qsort(jobs, njobs, sizeof *jobs, by_vm); /* disks of one VM share its containers, one after another */
        int r = dedup_round(&env, jobs, njobs, &errs[n]);
        if (r < 0 && r != -EINTR)
            vlog(VLOG_ERROR, "agent", "the round could not run to its end: %s", verr_str(&errs[n]));
        pthread_mutex_lock(&a->lock);
        a->progress.asked += traffic.asked;
        a->progress.wire_bytes += traffic.bytes;
        pthread_mutex_unlock(&a->lock);
        for (unsigned i = 0; i < njobs; i++)
            job_done(a, &jobs[i]);
    }
    for (unsigned i = 0; i < n; i++)
        seal_failed(a, &disks[i]);
    free(jobs);
    free(errs);
}

static void one_pass(struct agent *a, const struct vid *disks, unsigned n)
{
    int64_t begin = vclock_mono_ns(a->conf.clock);
    pthread_mutex_lock(&a->lock);
    a->progress.running = true;
    a->progress.rounds++;
    pthread_mutex_unlock(&a->lock);
    run_round(a, disks, n);
    pthread_mutex_lock(&a->lock);
    a->progress.running = false;
    a->progress.last_ns = vclock_mono_ns(a->conf.clock) - begin;
    a->progress.stage[0] = '\0';
    pthread_mutex_unlock(&a->lock);
    struct verr err = {0};
    if (live_set_evict(a->live, &err) < 0)
        vlog(VLOG_WARN, "agent", "evicting cached segments: %s", verr_str(&err));
}

void *agent_thread(void *arg)
{
    struct agent *a = arg;
    struct vid disks[BATCH_MAX];
    for (;;) {
        agent_waits_begin(a);
        pthread_mutex_lock(&a->lock);
        int64_t now = vclock_mono_ns(a->conf.clock);
        int64_t next = agent_mend_next(a);
        unsigned n = a->stopping ? 0 : due_disks(a, now, disks, &next);
        if ((a->owed != NULL || atomic_load(&a->reserve_short)) && next > now + OWED_RETRY_NS)
            next = now + OWED_RETRY_NS;
        if (n == 0 && !a->stopping && !a->kicked && next > now) {
            if (next == INT64_MAX) {
                pthread_cond_wait(&a->wake, &a->lock);
            } else {
                struct timespec ts = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
                pthread_cond_timedwait(&a->wake, &a->lock, &ts);
            }
        }
        a->kicked = false;
        bool stop = a->stopping;
        pthread_mutex_unlock(&a->lock);
        if (stop)
            return NULL;
        if (n > 0)
            one_pass(a, disks, n);
        agent_mend_run(a);
        agent_rows_settle(a, NULL);
        if (atomic_load(&a->reserve_short)) {
            pthread_mutex_lock(&a->op_lock);
            agent_reserve_fill(a);
            pthread_mutex_unlock(&a->op_lock);
        }
        agent_waits_check(a);
    }
}
