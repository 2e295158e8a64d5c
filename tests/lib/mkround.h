/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkround: a real store, a real set of live images and everything a round needs, in a private directory. Each disk keeps
 * a plain copy of what was written through live_write, so that a snapshot can be compared byte for byte.
 */
#ifndef VARVE_TESTS_MKROUND_H
#define VARVE_TESTS_MKROUND_H

#include "store_dirs.h"
#include "base/pool.h"
#include "base/file.h"
#include "base/verr.h"
#include "dedup/dedup.h"
#include "store/publish.h"
#include "store/snaps.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MKR_DISKS = 4, MKR_SLOTS = 8 };

struct mkr_disk {
    struct vid id, vm;
    struct live *live;
    uint8_t *model;                 /* what was written */
    uint8_t *frozen;                /* the same at the last freeze */
    uint64_t size, frozen_size;
    uint64_t epoch;
    uint64_t last_blocks, last_recipes;
    struct snapref parent;
    bool selective;
};

struct mkround {
    char dir[128];
    int dirfd, statefd, workfd;
    struct store *st;
    struct creader *reader;
    struct segread *segread;
    struct live_set *set;
    struct fpindex *slots[MKR_SLOTS];
    struct bus *bus;
    struct pool *pool;
    struct dedup_env env;
    struct mkr_disk disk[MKR_DISKS];
    struct dedup_job job[MKR_DISKS];
    struct verr errs[MKR_DISKS];
    unsigned notes;
    struct verr note;
    void *collector;                /* of a test that changes the store while a round runs */
};

struct mkr_options { uint32_t slots, partitions; bool fixed; size_t memory; size_t bus_bytes; uint64_t rough; unsigned threads; };

#define MKR_TRY(call)                                                                                         \
    do {                                                                                                      \
        int mkr_rc = (call);                                                                                  \
        if (mkr_rc < 0) {                                                                                     \
            fprintf(stderr, "%s:%d: %s: %d (%s)\n", __FILE__, __LINE__, #call, mkr_rc, verr_str(&mkr_err));   \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)

static inline uint64_t mkr_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Bytes that depend on the seed alone. */
static inline void mkr_fill(uint8_t *p, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = mkr_random(&seed);
        memcpy(p + i, &v, n - i < 8 ? n - i : 8);
    }
}

static inline void mkr_note(void *ctx, const char *stage, const struct verr *why)
{
    struct mkround *m = ctx;
    (void)stage;
    m->notes++;
    m->note = *why;
}

/* log2 of slots * partitions: bits of the fingerprint that choose a partition. */
static inline unsigned mkr_bits(const struct store_conf *c)
{
    return (unsigned)__builtin_ctzll((unsigned long long)c->slots * c->partitions);
}

static inline void mkr_open_parts(struct mkround *m, const struct mkr_options *o)
{
    struct verr mkr_err = {0};
    char path[160];
    snprintf(path, sizeof path, "%s/store", m->dir);
    MKR_TRY(store_open(path, &m->st, &mkr_err));
    MKR_TRY(creader_new(m->st, 4 << 20, &m->reader, &mkr_err));
    MKR_TRY(segread_new(m->reader, 16, &m->segread, &mkr_err));
    MKR_TRY(m->dirfd = dir_open(AT_FDCWD, m->dir));
    MKR_TRY(m->statefd = dir_make(m->dirfd, "state"));
    close(dir_make(m->statefd, "disks"));
    MKR_TRY(m->workfd = dir_make(m->statefd, "rounds"));
    struct live_env le = {.state_dirfd = m->statefd, .source = segread_source(m->segread), .clock = &vclock_system, .trusted = true,
                          .open_max = 8};
    MKR_TRY(live_set_open(&le, &m->set, &mkr_err));
    const struct store_conf *c = store_conf(m->st);
    for (uint32_t s = 0; s < c->slots; s++)
        MKR_TRY(fpindex_open(store_index(m->st), "index", s, c->partitions, mkr_bits(c), &m->slots[s], &mkr_err));
    size_t bus_bytes = o->bus_bytes != 0 ? o->bus_bytes : 1 << 20;
    m->bus = o->rough != 0 ? bus_local_new_rough(bus_bytes, o->rough, &mkr_err) : bus_local_new(bus_bytes, &mkr_err);
    MKR_TRY(m->bus == NULL ? -ENOMEM : 0);
    MKR_TRY(o->threads != 0 && (m->pool = pool_new(o->threads, &mkr_err)) == NULL ? -ENOMEM : 0);
    m->env = (struct dedup_env){
        .store = m->st, .reader = m->reader, .segread = m->segread, .slots = m->slots, .nslots = c->slots, .bus = m->bus,
        .work_dirfd = m->workfd, .memory = o->memory, .progress_ctx = m, .note = mkr_note,
        .pool = m->pool,
    };
    memset(m->env.host.b, 7, VID_BYTES);
}

static inline void mkr_close_parts(struct mkround *m)
{
    struct verr mkr_err = {0};
    for (unsigned i = 0; i < MKR_DISKS; i++)
        if (m->disk[i].live != NULL) {
            live_put(m->disk[i].live);
            m->disk[i].live = NULL;
        }
    MKR_TRY(live_set_close(m->set, &mkr_err));
    bus_close(m->bus);
    pool_free(m->pool);
    m->pool = NULL;
    for (unsigned s = 0; s < MKR_SLOTS; s++)
        if (m->slots[s] != NULL)
            fpindex_close(m->slots[s]);
    memset(m->slots, 0, sizeof m->slots);
    segread_free(m->segread);
    creader_free(m->reader);
    store_close(m->st);
    close(m->workfd);
    close(m->statefd);
    close(m->dirfd);
}

/* A new store and state below dir (made by the caller). */
static inline void mkr_init(struct mkround *m, const char *dir, const struct mkr_options *o)
{
    struct verr mkr_err = {0};
    struct store_conf conf;
    char path[160];
    memset(m, 0, sizeof *m);
    snprintf(m->dir, sizeof m->dir, "%s", dir);
    snprintf(path, sizeof path, "%s/store", dir);
    storeconf_default(&conf);
    if (o->slots != 0)
        conf.slots = o->slots;
    if (o->partitions != 0)
        conf.partitions = o->partitions;
    conf.cdc = !o->fixed;
    MKR_TRY(store_init(path, &conf, (uid_t)-1, (gid_t)-1, &mkr_err));
    mkr_open_parts(m, o);
}

static inline void mkr_new(struct mkround *m, const struct mkr_options *o)
{
    char dir[] = "/tmp/varve-round-XXXXXX";
    if (mkdtemp(dir) == NULL)
        abort();
    mkr_init(m, dir, o);
}

/* Closes all, and leaves the directory. */
static inline void mkr_leave(struct mkround *m)
{
    mkr_close_parts(m);
    for (unsigned i = 0; i < MKR_DISKS; i++) {
        free(m->disk[i].model);
        free(m->disk[i].frozen);
    }
}

static inline void mkr_free(struct mkround *m)
{
    mkr_leave(m);
    tree_remove(AT_FDCWD, m->dir);
}

static inline void mkr_id(struct vid *id, uint8_t kind, unsigned i)
{
    memset(id->b, kind, VID_BYTES);
    id->b[0] = (uint8_t)(i + 1);
}

/* Disk i of VM vm, of size bytes of zero. */
static inline struct mkr_disk *mkr_disk(struct mkround *m, unsigned i, unsigned vm, uint64_t size)
{
    struct verr mkr_err = {0};
    struct mkr_disk *d = &m->disk[i];
    mkr_id(&d->id, 0xd1, i);
    mkr_id(&d->vm, 0x33, vm);
    d->size = size;
    d->model = calloc(1, size);
    d->frozen = calloc(1, size);
    d->last_blocks = d->last_recipes = REF_NONE;
    MKR_TRY(owner_claim(m->st, &d->vm, &m->env.host, &d->epoch, &mkr_err));
    MKR_TRY(live_create(m->set, &d->id, 1, 0, &d->live, &mkr_err));
    MKR_TRY(live_truncate(d->live, size, &mkr_err));
    return d;
}

static inline void mkr_write(struct mkr_disk *d, uint64_t off, const void *data, size_t len)
{
    struct verr mkr_err = {0};
    MKR_TRY(live_write(d->live, off, data, len, &mkr_err));
    memcpy(d->model + off, data, len);
}

static inline void mkr_write_seed(struct mkr_disk *d, uint64_t off, size_t len, uint64_t seed)
{
    uint8_t *p = malloc(len);
    mkr_fill(p, len, seed);
    mkr_write(d, off, p, len);
    free(p);
}

/* Freezes and seals disk i and fills in its job. */
static inline void mkr_freeze(struct mkround *m, unsigned i)
{
    struct verr mkr_err = {0};
    struct mkr_disk *d = &m->disk[i];
    struct dedup_job *job = &m->job[i];
    struct freeze_req req = {0};
    memset(job, 0, sizeof *job);
    MKR_TRY(live_freeze(&d->live, 1, &req, &job->pend, &mkr_err));
    MKR_TRY(live_pending_seal(d->live, job->pend.ref.seq, &mkr_err));
    MKR_TRY(live_pending_update(d->live, job->pend.ref.seq, SNAP_STARTED, 0, NULL, &mkr_err));
    MKR_TRY(live_pending_by_seq(d->live, job->pend.ref.seq, &job->pend, &mkr_err));
    memcpy(d->frozen, d->model, d->size);
    d->frozen_size = d->size;
}

static inline void mkr_job(struct mkround *m, unsigned i)
{
    struct mkr_disk *d = &m->disk[i];
    struct dedup_job *job = &m->job[i];
    job->live = d->live;
    job->vm = d->vm;
    job->epoch = d->epoch;
    job->selective = d->selective;
    job->parent = d->parent;
    job->last_blocks = d->last_blocks;
    job->last_recipes = d->last_recipes;
    m->errs[i] = (struct verr){0};
    job->err = &m->errs[i];
}

/* Compares a stored snapshot of disk i with the frozen copy: true when every byte is the same. */
static inline bool mkr_same(struct mkround *m, unsigned i)
{
    struct verr mkr_err = {0};
    struct mkr_disk *d = &m->disk[i];
    struct snap *snap;
    uint8_t *buf = malloc(d->frozen_size + 1);
    MKR_TRY(snap_open(m->st, m->segread, &m->job[i].pend.ref, &snap, &mkr_err));
    ssize_t got = snap_read(snap, 0, buf, d->frozen_size + 1, &mkr_err);
    if (got < 0)
        fprintf(stderr, "snap_read: %s\n", verr_str(&mkr_err));
    bool same = got == (ssize_t)d->frozen_size && memcmp(buf, d->frozen, d->frozen_size) == 0;
    snap_close(snap);
    free(buf);
    return same;
}

/* What the agent does after a job with result 0: anchor, then the live image relies on the recipe. */
static inline void mkr_published(struct mkround *m, unsigned i)
{
    struct verr mkr_err = {0};
    struct mkr_disk *d = &m->disk[i];
    struct dedup_job *job = &m->job[i];
    struct snap *snap;
    struct live_anchor mine = {.ref = job->pend.ref, .stamp = job->pend.ref.seq + 1}, drop[8];
    unsigned dropped;
    MKR_TRY(snap_open(m->st, m->segread, &job->pend.ref, &snap, &mkr_err));
    MKR_TRY(snaps_anchor(m->st, &d->id, &job->pend.ref, &mkr_err));
    MKR_TRY(live_pending_published(d->live, job->pend.ref.seq, snap_place, snap, &mine, drop, 8, &dropped, &mkr_err));
    snap_close(snap);
    d->parent = job->pend.ref;
    d->last_blocks = job->last_blocks;
    d->last_recipes = job->last_recipes;
}

/* Runs a round over disks first..first+n. Prints what went wrong. */
static inline int mkr_round(struct mkround *m, unsigned first, unsigned n)
{
    struct verr err = {0};
    for (unsigned i = first; i < first + n; i++)
        mkr_job(m, i);
    int rc = dedup_round(&m->env, &m->job[first], n, &err);
    if (rc < 0)
        fprintf(stderr, "dedup_round: %d %s\n", rc, verr_str(&err));
    for (unsigned i = first; i < first + n; i++)
        if (m->job[i].result != 0)
            fprintf(stderr, "disk %u: %d %s\n", i, m->job[i].result, verr_str(&m->errs[i]));
    return rc;
}

/* Freeze, round, compare, publish, for disks first..first+n. True when all is well. */
static inline bool mkr_backup(struct mkround *m, unsigned first, unsigned n)
{
    for (unsigned i = first; i < first + n; i++)
        mkr_freeze(m, i);
    if (mkr_round(m, first, n) != 0)
        return false;
    for (unsigned i = first; i < first + n; i++)
        if (m->job[i].result != 0 || !mkr_same(m, i))
            return false;
    for (unsigned i = first; i < first + n; i++)
        mkr_published(m, i);
    return true;
}

/* Levels are a partition of the disk's bytes. */
static inline uint64_t mkr_level_sum(const struct snap_levels *l)
{
    return l->zero + l->clean + l->parent_segment + l->parent_block + l->common + l->global + l->dup_new + l->fresh;
}

#endif
