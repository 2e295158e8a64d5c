/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rebuild: makes index and catalog anew from the files whose content they repeat.
 *
 * Index: footers of all shared containers -> one external sort by fingerprint -> for each slot: clear, one delta, merge.
 * deletions_load needs a lease, so rebuild holds one of a VM that does not exist; the log is then as new as the generation of
 * this lease. If a collection condemns blocks later, their entries are wrong hints, which the publish check refuses; so rebuild
 * need not be atomic against a collection.
 */
#include "check/check.h"

#include "base/endian.h"
#include "base/extsort.h"
#include "base/file.h"
#include "base/verr.h"
#include "catalog/catalog.h"
#include "fpindex/fpindex.h"
#include "live/live.h"
#include "names/names.h"
#include "store/container.h"
#include "store/publish.h"
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MEMORY_DEFAULT = 32 * 1024 * 1024, READER_BYTES = 1024 * 1024, RECORD = FPKEY_BYTES + 8 };

struct rebuild {
    struct store *st;
    const struct check_opts *o;
    struct check_rebuilt *rep;
    struct creader *reader;
    struct deletions *deletions;
    struct extsort *sort;
    size_t memory;
    struct verr *err;
};

static void tell(const struct check_opts *o, enum check_severity severity, const char *file, const char *what)
{
    const struct check_problem p = { .severity = severity, .file = file, .what = what };
    if (o != NULL && o->problem != NULL)
        o->problem(o->ctx, &p);
}

static int progress(const struct check_opts *o, const char *what, uint64_t done, uint64_t total, struct verr *err)
{
    if (o != NULL && o->progress != NULL && o->progress(o->ctx, what, done, total) != 0)
        return verr_set(err, EINTR, "stopped");
    return 0;
}

/* ---- footers -> sorter ---- */

struct entry_walk { struct rebuild *b; int r; };

static int add_entry(void *ctx, uint64_t ref, const struct footer_entry *e)
{
    struct entry_walk *w = ctx;
    if (e->len == 0)
        return 0;
    if (deletions_has(w->b->deletions, ref)) {
        w->b->rep->condemned++;
        return 0;
    }
    uint8_t record[RECORD];
    memcpy(record, e->fp.b, FPKEY_BYTES);
    put_le64(record + FPKEY_BYTES, ref);
    w->r = extsort_add(w->b->sort, record, w->b->err);
    w->b->rep->entries += w->r == 0;
    return w->r;
}

/* Adds the blocks of a shared container. A first walk, without a function, tells the kind of container. */
static int add_container(void *ctx, uint64_t number)
{
    struct rebuild *b = ctx;
    struct container_info info = {0};
    struct entry_walk w = { .b = b };
    struct verr why = {0};
    int r = container_walk(b->reader, number, &info, NULL, NULL, &why);
    if (r == 0 && (info.type != CONTAINER_BLOCKS || (info.flags & CONTAINER_SHARED) == 0))
        return 0;
    if (r == 0)
        r = container_walk(b->reader, number, &info, add_entry, &w, &why);
    if (w.r < 0)
        return w.r;     /* the sorter's error, which is in b->err */
    if (r == -ENOENT)
        return 0;
    if (r == -EBADMSG || r == -EIO || r == -ENODATA || r == -ENOTSUP) {
        char file[64], path[32];
        container_path(number, path);
        snprintf(file, sizeof file, "containers/%s", path);
        tell(b->o, CHECK_DAMAGE, file, verr_str(&why));
        b->rep->skipped++;
        return 0;
    }
    if (r < 0)
        return verr_set(b->err, -r, "%s", verr_str(&why));
    b->rep->containers++;
    return progress(b->o, "containers", b->rep->containers, 0, b->err);
}

static int tell_stray(void *ctx, const char *path)
{
    tell(ctx, CHECK_NOTICE, path, "not a container: move it away");
    return 0;
}

/* ---- sorter -> slots ---- */

struct pending_record { bool have; uint8_t bytes[RECORD]; };

static int next_record(struct rebuild *b, struct pending_record *p, struct verr *err)
{
    int r = extsort_next(b->sort, p->bytes, err);
    p->have = r > 0;
    return r < 0 ? r : 0;
}

/* Puts all records up to the slot's last partition into one delta. */
static int fill_slot(struct rebuild *b, struct fpindex *ix, uint32_t slot, struct pending_record *p, struct verr *err)
{
    const struct store_conf *conf = store_conf(b->st);
    struct fpdelta *d = NULL;
    int r = fpdelta_begin(ix, &d, err);
    while (r == 0 && p->have && storeconf_partition(conf, p->bytes) / conf->partitions == slot) {
        r = fpdelta_add(d, p->bytes, get_le64(p->bytes + FPKEY_BYTES), err);
        if (r == 0)
            r = next_record(b, p, err);
    }
    if (r == 0)
        return fpdelta_commit(d, err);
    if (d != NULL)
        fpdelta_abort(d);
    return r;
}

static int build_slot(struct rebuild *b, uint32_t slot, struct pending_record *p, struct verr *err)
{
    const struct store_conf *conf = store_conf(b->st);
    unsigned bits = (unsigned)__builtin_ctz(conf->slots) + (unsigned)__builtin_ctz(conf->partitions);
    struct fpindex *ix = NULL;
    int r = fpindex_open(store_index(b->st), "index", slot, conf->partitions, bits, &ix, err);
    if (r < 0)
        return r;
    r = fpindex_clear(ix, err);
    if (r == 0)
        r = fill_slot(b, ix, slot, p, err);
    if (r == 0)
        r = fpindex_merge(ix, true, b->memory, err);
    fpindex_close(ix);
    if (r == 0)
        b->rep->slots++;
    return r;
}

static int build_slots(struct rebuild *b, struct verr *err)
{
    struct pending_record p = {0};
    uint32_t slots = store_conf(b->st)->slots;
    int r = extsort_sorted(b->sort, err);
    if (r == 0)
        r = next_record(b, &p, err);
    for (uint32_t slot = 0; r == 0 && slot < slots; slot++) {
        r = build_slot(b, slot, &p, err);
        if (r == 0)
            r = progress(b->o, "index", slot + 1, slots, err);
    }
    return r;
}

int check_rebuild_index(struct store *st, int work_dirfd, size_t memory, const struct check_opts *o, struct check_rebuilt *rep,
                        struct verr *err)
{
    struct verr why = {0};
    struct rebuild b = { .st = st, .o = o, .rep = rep, .memory = memory != 0 ? memory : MEMORY_DEFAULT, .err = &why };
    struct lease *lease = NULL;
    struct vid nobody = vid_random();
    *rep = (struct check_rebuilt){0};
    int r = lease_take(st, &nobody, 1, &lease, &why);
    if (r == 0)
        r = deletions_load(lease, &b.deletions, &why);
    if (r == 0)
        r = creader_new(st, READER_BYTES, &b.reader, &why);
    if (r == 0 && (b.sort = extsort_new(work_dirfd, RECORD, FPKEY_BYTES, b.memory, &why)) == NULL)
        r = -(why.code != 0 ? why.code : ENOMEM);
    if (r == 0)
        r = container_each(st, add_container, &b, &why);
    if (r == 0)
        r = container_strays(st, tell_stray, (void *)(uintptr_t)o, &why);
    if (r == 0)
        r = build_slots(&b, &why);
    extsort_free(b.sort);
    creader_free(b.reader);
    deletions_free(b.deletions);
    if (lease != NULL)
        lease_release(lease);
    if (r < 0)
        return verr_set(err, -r, "rebuilding the index: %s", verr_str(&why));
    return 0;
}

/* ---- catalog ---- */

static void bad_record(void *ctx, bool damaged, const char *what)
{
    const struct check_opts *o = ctx;
    tell(o, damaged ? CHECK_DAMAGE : CHECK_NOTICE, "nodes, snapshots", what);
}

/* Removes SQLite's log first: SQLite could replay a log that stays beside a new, empty database. */
static int remove_catalog(int state_dirfd, struct verr *err)
{
    static const char *const names[] = { "catalog.sqlite-wal", "catalog.sqlite-shm", "catalog.sqlite-journal", "catalog.sqlite.sum",
                                         "catalog.sqlite" };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof names / sizeof names[0]; i++) {
        if (unlinkat(state_dirfd, names[i], 0) < 0 && errno != ENOENT)
            return verr_set(err, errno, "%s: cannot be removed: %s", names[i], strerror(errno));
        r = dir_sync(state_dirfd);
    }
    return r < 0 ? verr_set(err, -r, "STATE: cannot be synced: %s", strerror(-r)) : 0;
}

static int say_removal(void *ctx, const struct vid *id, bool stays, struct verr *err)
{
    const int *state_dirfd = ctx;
    return stays ? live_removal_unsay(*state_dirfd, id, err) : live_removal_say(*state_dirfd, id, err);
}

int check_rebuild_catalog(struct store *st, int state_dirfd, const char *state_path, const struct vclock *clock, const struct check_opts *o,
                          struct verr *err)
{
    struct catalog *c = NULL;
    struct names *n = NULL;
    int r = remove_catalog(state_dirfd, err);
    if (r == 0)
        r = catalog_open(state_dirfd, state_path, &store_conf(st)->id, &c, err);
    if (r < 0)
        return r;
    r = names_open(st, c, clock, &n, err);
    const struct names_hooks hooks = {.removal = say_removal, .ctx = &state_dirfd};
    if (r == 0)
        names_watch(n, &hooks);
    if (r == 0)
        r = names_reconcile(n, bad_record, (void *)(uintptr_t)o, err);
    names_close(n);
    int closed = catalog_close(c, r == 0 ? err : NULL);
    return r < 0 ? r : closed;
}
