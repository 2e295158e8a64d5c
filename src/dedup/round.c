/* SPDX-License-Identifier: Apache-2.0 */
/*
 * round: one pass of all stages over a batch of frozen disks.
 *
 *   STATE/rounds/ID/    made here, removed at the end. A new round removes directories that older rounds left: one process holds
 *                       the lock of STATE and runs one round at a time. Nothing in them is needed after a crash: the round runs
 *                       again from the frozen layers.
 *
 * On one host the stages run one after another in one thread, which lends the computing of segments to a pool. A sender that the bus
 * tells "again" first takes in the frames that wait for this host (wire.c), so no thread blocks and memory stays within the bus's bound.
 */
#include "dedup/dedup_internal.h"

#include "base/extsort.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/verr.h"
#include "store/publish.h"
#include "store/snaps.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    WORK_BYTES = SEG_BYTES + PLAN_RECORD_MAX + PLAN_BLOCKS_MAX * sizeof(struct fp_job) + (int)sizeof(struct segwork),
    FIXED_BYTES = WORK_BYTES + 2 * PLAN_RECORD_MAX + SEGRCP_BYTES_MAX + 2 * BUS_FRAME_MAX,
    REST_MIN = 1024 * 1024, FILE_BUFFER = 64 * 1024, SORT_MIN = 64 * 1024,
};

/* ---- what the stages ask of the round ---- */

int round_progress(struct round *r, const char *stage, uint64_t bytes, struct verr *err)
{
    const struct dedup_env *env = r->env;
    r->done_bytes += bytes;
    if (env->progress == NULL || env->progress(env->progress_ctx, stage, r->done_bytes, r->total_bytes) == 0)
        return 0;
    r->stopped = true;
    return verr_set(err, EINTR, "the round was stopped in %s", stage);
}

void round_note(struct round *r, const char *stage, const struct verr *why)
{
    if (r->env->note != NULL)
        r->env->note(r->env->progress_ctx, stage, why);
}

void job_fail(struct jobstate *js, int rc)
{
    js->failed = true;
    js->job->result = rc < 0 ? rc : -EIO;
}

void job_fail_why(struct jobstate *js, int rc, const struct verr *why)
{
    if (js->job->err != NULL)
        *js->job->err = *why;
    job_fail(js, rc);
}

uint32_t job_flags(const struct jobstate *js)
{
    return js->job->selective ? CONTAINER_PRIVATE : CONTAINER_SHARED;
}

void job_last_blocks(struct round *r, const struct jobstate *js, uint64_t container)
{
    for (unsigned j = 0; j < r->njobs && container != REF_NONE; j++)
        if (vid_eq(&r->js[j].job->vm, &js->job->vm) && r->js[j].job->selective == js->job->selective)
            r->js[j].job->last_blocks = container;
}

void job_last_recipes(struct round *r, const struct jobstate *js, uint64_t container)
{
    for (unsigned j = 0; j < r->njobs && container != REF_NONE; j++)
        if (vid_eq(&r->js[j].job->vm, &js->job->vm) && r->js[j].job->selective == js->job->selective)
            r->js[j].job->last_recipes = container;
}

void slot_give_up(struct round *r, uint32_t slot, const char *stage, const struct verr *why)
{
    r->slots[slot].dead = true;
    round_note(r, stage, why);
}

bool round_owns(const struct round *r, const struct fp *fp)
{
    uint32_t slot = storeconf_partition(r->conf, fp->b) / r->q;
    return slot < r->nslots && !r->slots[slot].dead;
}

/* ---- generations ---- */

/*
 * Sections that this round sealed can be condemned only by a collection that began in a later generation than theirs. If no
 * generation was opened since the round began, they need no check. A generation that is opened after this look revokes the lease,
 * which was taken before it.
 */
bool generations_changed(struct round *r)
{
    return r->generations == 0 || generations_digest(r->env->store) != r->generations;
}

/* ---- setting up ---- */

static size_t at_least(size_t n, size_t floor)
{
    return n < floor ? floor : n;
}

static size_t memory_of(const struct round *r)
{
    return r->env->memory == 0 ? DEDUP_MEMORY_DEFAULT : r->env->memory;
}

/* Segments under way besides the one that is being used: one for each thread, and one that waits. */
static size_t extra_work(const struct round *r)
{
    size_t threads = pool_threads(r->env->pool), room = memory_of(r) / 4 / WORK_BYTES;
    size_t want = threads == 0 ? 0 : threads + 1;
    return want < room ? want : room;
}

static void share_memory(struct round *r)
{
    size_t m = memory_of(r), fixed = FIXED_BYTES + (extra_work(r) * WORK_BYTES);
    size_t rest = m > fixed + REST_MIN ? m - fixed : REST_MIN;
    r->mem.bundles = rest / 4;
    r->mem.requests = rest / 4;
    r->mem.windows = rest / 8;
    r->mem.sort = at_least(rest / 4, SORT_MIN);
    r->mem.sort_half = at_least(rest / 8, SORT_MIN);
    r->mem.sort_small = at_least(rest / 16, SORT_MIN);
    r->mem.sort_slot = at_least(rest / 4 / at_least(r->nslots, 1), SORT_MIN);
    r->mem.index = at_least(rest / 4, SORT_MIN);
    r->mem.file = rest / 16 < FILE_BUFFER ? rest / 16 : FILE_BUFFER;
}

static int alloc_slots(struct round *r, struct verr *err)
{
    enum { WIDTH_MIN = 16, WIDTH_MAX = 2048 };
    uint64_t parts = (uint64_t)r->nslots * r->q;
    size_t width = r->mem.requests / REQ_BYTES / at_least(parts, 1);
    if (width < WIDTH_MIN)
        return verr_set(err, ENOMEM, "%llu index partitions need more than the %zu bytes of a round's memory: raise it",
                        (unsigned long long)parts, r->env->memory);
    r->slots = calloc(at_least(r->nslots, 1), sizeof *r->slots);
    if (r->slots == NULL)
        return verr_set(err, ENOMEM, "no memory for the slots of the index");
    for (uint32_t s = 0; s < r->nslots; s++) {
        struct owner_slot *os = &r->slots[s];
        os->ix = r->env->slots[s];
        os->dead = os->ix == NULL;
        os->width = width > WIDTH_MAX ? WIDTH_MAX : (uint32_t)width;
        os->got = calloc(r->q, sizeof *os->got);
        os->fill = calloc(r->q, sizeof *os->fill);
        os->fresh_of = calloc(r->q, sizeof *os->fresh_of);
        os->buf = malloc((size_t)r->q * os->width * REQ_BYTES);
        if (os->got == NULL || os->fill == NULL || os->buf == NULL || os->fresh_of == NULL)
            return verr_set(err, ENOMEM, "no memory for the requests of slot %u", s);
    }
    return 0;
}

static int alloc_buffers(struct round *r, struct verr *err)
{
    r->rec = malloc(PLAN_RECORD_MAX);
    r->blob = malloc(SEGRCP_BYTES_MAX);
    r->js = calloc(at_least(r->njobs, 1), sizeof *r->js);
    if (r->rec == NULL || r->blob == NULL || r->js == NULL)
        return verr_set(err, ENOMEM, "no memory for the buffers of a round");
    return line_alloc_work(r, 1 + (unsigned)extra_work(r), err);
}

static int remove_stale(void *ctx, const char *name)
{
    return tree_remove(*(const int *)ctx, name);
}

static int make_directory(struct round *r, struct verr *err)
{
    struct vid id = vid_random();
    int work = r->env->work_dirfd;
    int rc = dir_each(work, remove_stale, &work);
    if (rc < 0)
        return verr_set(err, -rc, "cannot remove the files of an older round in STATE/rounds: %s", strerror(-rc));
    vid_hex(&id, r->name);
    r->dirfd = dir_make(work, r->name);
    return r->dirfd < 0 ? verr_set(err, -r->dirfd, "cannot make a directory in STATE/rounds: %s", strerror(-r->dirfd)) : 0;
}

/*
 * Has an earlier round, killed after its link, published the snapshot? Then the recipe is there under the snapshot's id, which is
 * random, so no one else made it. Its directory entry may not be durable yet.
 */
static bool published_before(struct round *r, struct jobstate *js, struct verr *why)
{
    struct dedup_job *job = js->job;
    struct snap *snap;
    int rc = snap_open(r->env->store, r->env->segread, &job->pend.ref, &snap, why);
    if (rc == -ENOENT)
        return false;
    if (rc == 0) {
        job->recipe = *snap_header(snap);
        snap_close(snap);
    }
    if (rc == 0)
        rc = snaps_durable(r->env->store, &job->pend.ref, why);
    rc = rc == 0 ? verr_set(why, ENOENT, "the snapshot's recipe has just gone from the store") : rc < 0 ? rc : 0;
    if (rc < 0)
        job_fail_why(js, rc, why);
    else
        job->result = 0;
    js->published = rc == 0;
    js->failed = true;      /* makes all stages skip this job; its result stays 0 */
    return true;
}

static void begin_jobs(struct round *r, struct dedup_job *jobs)
{
    for (unsigned j = 0; j < r->njobs; j++) {
        struct jobstate *js = &r->js[j];
        struct verr why = {0};
        js->job = &jobs[j];
        js->index = j;
        js->nsegs = seg_count(jobs[j].pend.size);
        js->seed = hash64_seed(r->name, sizeof r->name, j);
        jobs[j].result = -EINPROGRESS;
        if (js->nsegs > UINT32_MAX)
            job_fail_why(js, verr_set(&why, EFBIG, "the disk has more segments than a recipe can name"), &why);
        else if (!published_before(r, js, &why))
            r->total_bytes += 3 * (jobs[j].pend.dirty_segments << SEG_SHIFT);
    }
}

static int round_begin(struct round *r, const struct dedup_env *env, struct dedup_job *jobs, unsigned njobs, struct verr *err)
{
    memset(r, 0, sizeof *r);
    r->env = env;
    r->conf = store_conf(env->store);
    r->njobs = njobs;
    r->dirfd = -1;
    r->q = r->conf->partitions;
    r->nslots = env->nslots < r->conf->slots ? env->nslots : r->conf->slots;
    share_memory(r);
    int rc = alloc_buffers(r, err);
    if (rc == 0)
        rc = alloc_slots(r, err);
    if (rc == 0)
        rc = make_directory(r, err);
    if (rc == 0)
        rc = wire_open(r, &r->wire, err);
    if (rc == 0) {
        r->generations = generations_digest(env->store);
        begin_jobs(r, jobs);
    }
    return rc;
}

static void round_end(struct round *r)
{
    wire_close(r->wire);
    answers_close(&r->answers);
    extsort_free(r->late);
    for (uint32_t s = 0; r->slots != NULL && s < r->nslots; s++) {
        extsort_free(r->slots[s].refs);
        seqout_drop(&r->slots[s].dupnew);
        seqout_drop(&r->slots[s].fresh);
        free(r->slots[s].fresh_of);
        free(r->slots[s].got);
        free(r->slots[s].fill);
        free(r->slots[s].buf);
    }
    free(r->slots);
    free(r->rec);
    free(r->blob);
    line_free_work(r);
    free(r->js);
    if (r->dirfd >= 0) {
        close(r->dirfd);
        tree_remove(r->env->work_dirfd, r->name);   /* the next round removes what an error leaves here */
    }
}

/* ---- the round ---- */

static int run_stages(struct round *r, struct verr *err)
{
    static int (*const stages[])(struct round *, struct verr *) = {
        stage_1a, stage_1b, stage_2a, stage_2b, stage_3a, stage_3b, stage_4a, stage_4b,
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof stages / sizeof stages[0] && rc == 0; i++)
        rc = stages[i](r, err);
    return rc;
}

int dedup_round(const struct dedup_env *env, struct dedup_job *jobs, unsigned njobs, struct verr *err)
{
    struct round r;
    struct verr why = {0};
    int rc = round_begin(&r, env, jobs, njobs, &why);
    bool begun = rc == 0;
    if (rc == 0)
        rc = run_stages(&r, &why);
    for (unsigned j = 0; rc < 0 && j < njobs; j++) {
        if (begun && (r.js[j].published || r.js[j].failed))
            continue;
        jobs[j].result = rc;
        if (jobs[j].err != NULL)
            *jobs[j].err = why;
    }
    if (env->traffic != NULL && r.wire != NULL)
        wire_traffic(r.wire, env->traffic);
    round_end(&r);
    if (rc < 0 && err != NULL)
        *err = why;
    return rc;
}
