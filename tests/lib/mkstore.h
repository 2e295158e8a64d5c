/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mkstore: a small real store in a temporary directory, with a VM, a disk and snapshots of given bytes, made through the
 * same calls that a backup makes. Everything fails the running cmocka test at once.
 */
#ifndef VARVE_TESTS_MKSTORE_H
#define VARVE_TESTS_MKSTORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store_dirs.h"
#include "base/file.h"
#include "base/verr.h"
#include "chunk/chunk.h"
#include "chunk/fingerprint.h"
#include "format/recipe.h"
#include "snapshot/commit.h"
#include "snapshot/segread.h"
#include "snapshot/snapshot.h"
#include "store/container.h"
#include "store/store.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct mkstore {
    char dir[64];               /* temporary directory; the store is dir/store */
    char path[80];
    struct store *st;
    struct creader *reader;
    struct segread *segread;
    struct fper *fper;
    struct chunker chunker;
    struct node vm, disk;
    struct vid host;
    uint64_t seq;               /* of the last snapshot */
    uint32_t flags;             /* of containers */
};

struct mksnap {
    struct snaprcp rcp;
    uint64_t segments;
    uint64_t *place;            /* REF_ZERO or the place of each segment */
};

#define MK_OK(call) mk_ok((call), &mk_err_, #call, __FILE__, __LINE__)
static __thread struct verr mk_err_;

static inline void mk_ok(int r, const struct verr *err, const char *what, const char *file, int line)
{
    if (r < 0) {
        print_error("%s: %s (%d)\n", what, verr_str(err), r);
        _fail(file, line);
    }
}

/* ---- random bytes with a seed that can be repeated ---- */

static inline uint64_t mk_seed(void)
{
    const char *text = getenv("VARVE_SEED");
    uint64_t seed;
    if (text != NULL)
        seed = strtoull(text, NULL, 0);
    else
        random_bytes(&seed, sizeof seed);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static inline uint64_t mk_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Disk-like content: stretches of noise, of text-like bytes and of zeros, at any alignment. */
static inline void mk_fill(uint8_t *p, size_t n, uint64_t *state)
{
    size_t at = 0;
    while (at < n) {
        size_t len = (size_t)(mk_random(state) % 50000) + 1;
        unsigned kind = (unsigned)(mk_random(state) % 4);
        if (len > n - at)
            len = n - at;
        for (size_t i = 0; i < len; i++)
            p[at + i] = kind == 0 ? 0 : kind == 1 ? (uint8_t)('a' + (at + i) / 97 % 26) : (uint8_t)mk_random(state);
        at += len;
    }
}

/* ---- the store ---- */

static inline void mk_reopen_reader(struct mkstore *m)
{
    segread_free(m->segread);
    creader_free(m->reader);
    MK_OK(creader_new(m->st, 1024 * 1024, &m->reader, &mk_err_));
    MK_OK(segread_new(m->reader, 4, &m->segread, &mk_err_));
}

static inline struct node mk_node(struct mkstore *m, const struct vid *parent, enum node_kind kind, const char *name)
{
    struct node n = { .id = vid_random(), .parent = *parent, .version = 1, .kind = kind, .mode = kind == NODE_DIR ? 0755 : 0640 };
    snprintf(n.name, sizeof n.name, "%s", name);
    MK_OK(store_node_create(m->st, &n, &mk_err_));
    return n;
}

struct mk_root { struct store *st; struct vid id; };

static inline int mk_find_root(void *ctx, const struct vid *id)
{
    struct mk_root *r = ctx;
    struct node n;
    MK_OK(store_node_load(r->st, id, &n, &mk_err_));
    if (vid_is_zero(&n.parent))
        r->id = *id;
    return 0;
}

/* conf NULL: defaults with two slots of four partitions. */
static inline void mk_open(struct mkstore *m, const struct store_conf *conf)
{
    struct store_conf c;
    memset(m, 0, sizeof *m);
    memset(&mk_err_, 0, sizeof mk_err_);
    if (conf != NULL) {
        c = *conf;
    } else {
        storeconf_default(&c);
        c.slots = 2;
        c.partitions = 4;
        c.created = 1790000000;
    }
    snprintf(m->dir, sizeof m->dir, "/tmp/varve-mkstore-XXXXXX");
    assert_non_null(mkdtemp(m->dir));
    snprintf(m->path, sizeof m->path, "%s/store", m->dir);
    MK_OK(store_init(m->path, &c, (uid_t)-1, (gid_t)-1, &mk_err_));
    MK_OK(store_open(m->path, &m->st, &mk_err_));
    m->fper = fper_new((enum fp_kind)c.fingerprint, c.digest_key, &mk_err_);
    assert_non_null(m->fper);
    assert_int_equal(chunker_init(&m->chunker, c.cdc, c.block_bytes), 0);
    m->flags = CONTAINER_SHARED;
    m->host = vid_random();
    mk_reopen_reader(m);
    struct mk_root root = { .st = m->st };
    MK_OK(store_node_each(m->st, mk_find_root, &root, &mk_err_));
    m->vm = mk_node(m, &root.id, NODE_DIR, "web");
    m->disk = mk_node(m, &m->vm.id, NODE_DISK, "disk.img");
}

static inline void mk_close(struct mkstore *m)
{
    segread_free(m->segread);
    creader_free(m->reader);
    fper_free(m->fper);
    store_close(m->st);
    assert_int_equal(tree_remove(AT_FDCWD, m->dir), 0);
}

/* ---- segments ---- */

/* Cuts a segment and appends its blocks; the recipe (mk_recipe_free) has references that are good once w is sealed. */
static inline void mk_blocks(struct mkstore *m, struct cwriter *w, const uint8_t *p, size_t n, struct segrcp *rcp)
{
    memset(rcp, 0, sizeof *rcp);
    rcp->bytes = (uint32_t)n;
    rcp->runs = calloc(SEGRCP_RUNS_MAX, sizeof *rcp->runs);
    rcp->len1 = calloc(SEGRCP_BLOCKS_MAX, sizeof *rcp->len1);
    rcp->prefix = calloc(SEGRCP_BLOCKS_MAX, sizeof *rcp->prefix);
    assert_true(rcp->runs != NULL && rcp->len1 != NULL && rcp->prefix != NULL);
    MK_OK(fper_segment(m->fper, p, n, rcp->digest, &mk_err_));
    size_t at = 0;
    while (at < n) {
        bool zero;
        size_t len = chunk_next(&m->chunker, p + at, n - at, &zero);
        struct segrcp_run *run = rcp->nruns > 0 ? &rcp->runs[rcp->nruns - 1] : NULL;
        if (zero) {
            rcp->runs[rcp->nruns++] = (struct segrcp_run){ REF_ZERO, (uint32_t)len };
            at += len;
            continue;
        }
        struct fp fp;
        struct fp_job job = { p + at, len, &fp };
        uint64_t ref;
        MK_OK(fper_batch(m->fper, &job, 1, &mk_err_));
        MK_OK(cwriter_append(w, &fp, p + at, len, &ref, &mk_err_));
        rcp->len1[rcp->nblocks] = (uint16_t)(len - 1);
        memcpy(&rcp->prefix[rcp->nblocks], fp.b, 4);
        rcp->prefix[rcp->nblocks] = le32toh(rcp->prefix[rcp->nblocks]);
        rcp->nblocks++;
        if (run != NULL && run->ref != REF_ZERO && run->ref + run->count == ref)
            run->count++;
        else
            rcp->runs[rcp->nruns++] = (struct segrcp_run){ ref, 1 };
        at += len;
    }
    rcp->data_pages = segrcp_data_pages(rcp);
}

static inline void mk_recipe_free(struct segrcp *rcp)
{
    free(rcp->runs);
    free(rcp->len1);
    free(rcp->prefix);
}

static inline uint64_t mk_recipe(struct mkstore *m, struct cwriter *w, const struct segrcp *rcp)
{
    static uint8_t blob[SEGRCP_BYTES_MAX];
    uint64_t place;
    struct fp fp;
    int len = segrcp_encode(rcp, blob, sizeof blob);
    assert_true(len > 0);
    struct fp_job job = { blob, (size_t)len, &fp };
    MK_OK(fper_batch(m->fper, &job, 1, &mk_err_));
    MK_OK(cwriter_append(w, &fp, blob, (size_t)len, &place, &mk_err_));
    return place;
}

static inline bool mk_all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

/* Blocks sealed, then recipes sealed: place[s] of each segment, REF_ZERO for zero ones. */
static inline void mk_segments(struct mkstore *m, const uint8_t *data, uint64_t size, uint64_t *place)
{
    uint64_t segments = seg_count(size);
    struct cwriter *blocks, *recipes;
    struct segrcp *rcp = calloc(segments + 1, sizeof *rcp);
    assert_non_null(rcp);
    MK_OK(cwriter_open(m->st, CONTAINER_BLOCKS, m->flags, REF_NONE, &blocks, &mk_err_));
    MK_OK(cwriter_open(m->st, CONTAINER_RECIPES, m->flags, REF_NONE, &recipes, &mk_err_));
    for (uint64_t s = 0; s < segments; s++) {
        uint64_t off = s << SEG_SHIFT, n = size - off < SEG_BYTES ? size - off : SEG_BYTES;
        place[s] = mk_all_zero(data + off, n) ? REF_ZERO : 0;
        if (place[s] != REF_ZERO)
            mk_blocks(m, blocks, data + off, n, &rcp[s]);
    }
    MK_OK(cwriter_seal(blocks, &mk_err_));
    for (uint64_t s = 0; s < segments; s++) {
        if (place[s] != REF_ZERO) {
            place[s] = mk_recipe(m, recipes, &rcp[s]);
            mk_recipe_free(&rcp[s]);
        }
    }
    MK_OK(cwriter_seal(recipes, &mk_err_));
    cwriter_free(blocks);
    cwriter_free(recipes);
    free(rcp);
}

/* ---- snapshots ---- */

static inline struct snaprcp mk_header(struct mkstore *m, uint64_t size)
{
    struct snaprcp r = {
        .store = store_conf(m->st)->id, .info.ref.disk = m->disk.id, .vm = m->vm.id, .info.ref.snap = vid_random(),
        .info.host = m->host, .info.group = vid_random(),
        .info.ref.seq = ++m->seq, .epoch = 1, .info.group_members = 1, .info.size = size, .info.freeze_ns = INT64_C(1790000000000000000),
        .info.name_s = 1790000000 + (int64_t)m->seq,
    };
    return r;
}

/* One commit from places; -errno of begin, segment or publish. */
static inline int mk_commit(struct mkstore *m, const struct snaprcp *hdr, const uint64_t *place, struct verr *err)
{
    struct commit *c = NULL;
    int r = commit_begin(m->st, hdr, &c, err);
    for (uint64_t s = 0; r == 0 && s < seg_count(hdr->info.size); s++)
        r = commit_segment(c, s, place[s] == REF_ZERO, place[s], err);
    if (r == 0)
        r = commit_stage(c, hdr, err);
    if (r == 0)
        r = commit_publish(c, err);
    commit_abort(c);
    return r;
}

/* A snapshot of these bytes, all of it written anew. mk_snap_free. */
static inline void mk_snapshot(struct mkstore *m, const uint8_t *data, uint64_t size, struct mksnap *out)
{
    memset(out, 0, sizeof *out);
    out->segments = seg_count(size);
    out->place = calloc(out->segments + 1, sizeof *out->place);
    assert_non_null(out->place);
    mk_segments(m, data, size, out->place);
    out->rcp = mk_header(m, size);
    for (uint64_t s = 0; s < out->segments; s++)
        out->rcp.info.alloc_bytes += out->place[s] != REF_ZERO ? PAGE_BYTES : 0;
    MK_OK(mk_commit(m, &out->rcp, out->place, &mk_err_));
}

static inline void mk_snap_free(struct mksnap *s)
{
    free(s->place);
    s->place = NULL;
}

static inline struct snap *mk_snap_open(struct mkstore *m, const struct snaprcp *rcp)
{
    struct snap *s = NULL;
    MK_OK(snap_open(m->st, m->segread, &rcp->info.ref, &s, &mk_err_));
    return s;
}

/* A side file as another writer would leave it. */
static inline int mk_side_save(struct mkstore *m, const struct snapref *ref, const struct snapattr *a, struct verr *err)
{
    char file[SNAP_FILE_MAX];
    uint8_t data[SNAPATTR_BYTES];
    size_t len = snapattr_encode(a, data);
    int dir = store_disk_dir(m->st, DIR_SNAPSHOTS, &ref->disk, false, err);
    if (dir < 0)
        return dir;
    store_snap_file(ref->seq, &ref->snap, ".attr", file);
    int r = len == 0 ? -EINVAL : file_replace(dir, file, data, len);
    close(dir);
    return r;
}

/* ---- files, to be damaged ---- */

static inline void mk_recipe_path(struct mkstore *m, const struct snaprcp *rcp, const char *suffix, char out[256])
{
    char hex[VID_HEX], file[SNAP_FILE_MAX];
    vid_hex(&rcp->info.ref.disk, hex);
    store_snap_file(rcp->info.ref.seq, &rcp->info.ref.snap, suffix, file);
    snprintf(out, 256, "%s/snapshots/%s/%s", m->path, hex, file);
}

static inline void mk_container_path(struct mkstore *m, uint64_t ref, char out[256])
{
    char name[32];
    container_path(ref_container(ref), name);
    snprintf(out, 256, "%s/containers/%s", m->path, name);
}

static inline uint8_t *mk_load(const char *path, size_t *len)
{
    uint8_t *data = NULL;
    assert_int_equal(file_load(AT_FDCWD, path, 256 * 1024 * 1024, &data, len), 0);
    return data;
}

static inline void mk_store_bytes(const char *path, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite_full(fd, data, len, 0), 0);
    close(fd);
}

static inline void mk_flip(const char *path, uint64_t off, uint8_t mask)
{
    uint8_t byte;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread_full(fd, &byte, 1, (off_t)off), 1);
    byte ^= mask;
    assert_int_equal(pwrite_full(fd, &byte, 1, (off_t)off), 0);
    close(fd);
}

#endif
