/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dedup: one round of the levels over a batch of frozen disks (docs/PROTOCOL.md, papers: "Parallel Deduplication with
 * Batch Scheduling", stages 1-4). Each stage is a file of its own; they talk only through the bus and through files in
 * the round's directory, so that the same code runs for one host and for many.
 *
 *   stage_1a  VM holder: read dirty segments, chunk, fingerprint, levels 2-3; requests -> slots       plan, sent log
 *   stage_1b  slot owner: request partitions -> compare with the index -> summaries                    requests, dup-with-new
 *   stage_2a  VM holder: collect summaries                                                             answers
 *   stage_2b  VM holder: read dirty segments again, write new blocks, seal                             result log, containers
 *   stage_3a  VM holder: new-block references -> slots
 *   stage_3b  slot owner: merge into the index (one delta), resolve dup-with-new                       resolved
 *   stage_4a  slot owner: resolutions -> VM holder
 *   stage_4b  VM holder: complete recipes, publish check, publish
 *
 * On the right: what a stage leaves for later stages (docs/DEDUP.md), in memory while it fits the stage's buffers, else in files.
 *
 * Memory: all buffers of a stage together stay below env.memory (M, default 35 MB).
 */
#ifndef VARVE_DEDUP_DEDUP_H
#define VARVE_DEDUP_DEDUP_H

#include "bus/bus.h"
#include "catalog/catalog.h"
#include "fpindex/fpindex.h"
#include "level/level.h"
#include "live/live.h"
#include "snapshot/snapshot.h"
#include "store/container.h"

struct pool;

enum { DEDUP_MEMORY_DEFAULT = 35 * 1000 * 1000 };

struct dedup_traffic { uint64_t bytes, asked; };    /* bytes of frames sent over the bus; blocks that were asked for */

struct dedup_job;

/* Asked at the commit point of a job, by the round's thread: enter just before its recipe gets its name, leave just after, whether that
 * succeeded or not. What the caller keeps out between the two finds the snapshot not published before, and published after. */
struct dedup_gate {
    int (*enter)(void *ctx, const struct dedup_job *job, struct verr *err);    /* -errno: the job ends with it, and leave is not called */
    void (*leave)(void *ctx, const struct dedup_job *job);
    void *ctx;
};

struct dedup_env {
    struct store *store;
    struct creader *reader;
    struct segread *segread;
    struct fpindex *const *slots;       /* one per slot this host owns: all of them on one host */
    uint32_t nslots;
    struct bus *bus;
    const struct common_set *common;    /* NULL: there is no common data set */
    struct vid host;
    int work_dirfd;                     /* STATE/rounds: a directory per round, removed at its end */
    size_t memory;                      /* M */
    struct pool *pool;                  /* computes segments side by side; NULL: this thread alone */
    bool force_merge, force_probe;      /* tests */
    const struct dedup_gate *gate;      /* NULL: every snapshot may be published */
    /* Called now and then with the bytes of this round, done and in total; non-zero stops the round with -EINTR. May be NULL. */
    int (*progress)(void *ctx, const char *stage, uint64_t done, uint64_t total);
    void *progress_ctx;
    struct dedup_traffic *traffic;      /* added to at the end of the round; may be NULL */
    /* Trouble that costs space, never data (parent or index unreadable, slot given up): for the log. ctx = progress_ctx. May be NULL. */
    void (*note)(void *ctx, const char *stage, const struct verr *why);
};

/* One frozen disk in the batch: input, then result. */
struct dedup_job {
    struct live *live;                  /* referenced by the caller during the round */
    struct snapinfo pend;               /* the oldest pending of its disk, started; sealed or not. It may be dropped during the round:
                                         * then its job ends with an error, at the gate at the latest */
    struct vid vm;                      /* directory of the disk: its containers, its lease */
    uint64_t epoch;                     /* owner epoch of the VM */
    bool selective;                     /* stops after level 3 */
    struct snapref parent;              /* newest stored snapshot of the disk, for level 2 when the table has none; snap zero: none */
    uint64_t last_blocks, last_recipes; /* containers to go on in, or REF_NONE; updated by the round */
    /* result */
    int result;                         /* 0 published; else -errno: stays pending, err says why */
    struct verr *err;                   /* caller's, one per job */
    struct snaprcp recipe;              /* as published */
};

/* Runs stages 1a-4b to the end for all jobs. 0: the round ran; each job has its own result. -errno: the round could not go on (STATE,
 * memory, stopped); each job's result is set then too, and jobs that were published before keep result 0.
 * A job whose snapshot is in the store already (an earlier round died after its link) gets result 0 and that recipe.
 * Jobs of one VM must agree in `selective`, last_blocks and last_recipes. One round at a time per STATE.
 * After a job's result is 0 its recipe is published and durable; the caller anchors it and tells `live` and `catalog`. */
int dedup_round(const struct dedup_env *env, struct dedup_job *jobs, unsigned njobs, struct verr *err);

#endif
