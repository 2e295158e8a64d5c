/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery at each start, clean or not. Truth comes from STORE (names, recipes) and from the journals in STATE/disks
 * (pending snapshots, live images); the catalog is brought in line with both. Every step can be repeated: a crash during
 * recovery leaves the same work for the next start.
 *
 *   1. The catalog is opened; nodes and stored snapshots are reconciled with STORE.
 *   2. Each disk with a journal is recovered. A pending snapshot whose recipe is already in STORE is finished (the crash came after
 *      the commit point); the others get their row and are owed to STORE. A disk that changed and whose writer was never seen closing
 *      gets a snapshot, marked partial. An image without a name is removed if its removal was said, else it is named again. What
 *      fails for a reason that may pass is tried again later (agent_work.c), and before the disk is used.
 *   3. Rows of pending snapshots that no journal knows are deleted; stored snapshots that are still provisional become partial.
 */
#include "agent/agent_internal.h"

#include "base/file.h"
#include "base/limits.h"
#include "store/snaps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void agent_report_bad(void *ctx, bool damaged, const char *what)
{
    struct agent *a = ctx;
    vlog(VLOG_WARN, "recover", "%s", what);
    agent_event(a, "%s: %s", damaged ? "damaged" : "strange", what);
}

/* After the drop of privileges: SQLite opens by path, so a parent that the service user cannot pass breaks later, obscurely. */
static int check_reach(struct agent *a, struct verr *err)
{
    const char *const paths[] = {store_path(a->store), a->state_path};
    for (unsigned i = 0; i < 2; i++)
        if (access(paths[i], R_OK | X_OK | (i == 0 && a->conf.read_only ? 0 : W_OK)) < 0)
            return verr_set(err, errno, "%s: uid %u, which owns the store and runs the daemon, cannot use it: %s (look at the mode of its "
                            "parent directories)", paths[i], (unsigned)geteuid(), strerror(errno));
    return 0;
}

static unsigned worker_count(const struct agent *a)
{
    enum { WORKERS_MAX = 8 };   /* more workers only wait for the device */
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (a->conf.workers != 0)
        return a->conf.workers;
    return cores < 1 ? 1 : cores > WORKERS_MAX ? WORKERS_MAX : (unsigned)cores;
}

static int open_parts(struct agent *a, struct verr *err)
{
    const struct store_conf *sc = store_conf(a->store);
    struct fper *fper = fper_new((enum fp_kind)sc->fingerprint, sc->digest_key, err);
    if (fper == NULL)
        return -err->code;
    snprintf(a->fingerprint_path, sizeof a->fingerprint_path, "%s", fper_path(fper));
    fper_free(fper);
    int r = creader_new(a->store, a->conf.frame_cache, &a->reader, err);
    if (r == 0)
        r = segread_new(a->reader, 64, &a->segread, err);
    if (r < 0)
        return r;
    a->bus = bus_local_new(a->conf.memory / 8, err);
    if (a->bus == NULL)
        return -ENOMEM;
    a->pool = pool_new(worker_count(a), err);
    if (a->pool == NULL)
        return -err->code;
    pool_serial_init(&a->ahead_serial, a->pool, NULL);
    const struct ingest_env env = {.store = a->store, .segread = a->segread, .pool = a->pool, .streams = STREAMS_MAX};
    r = ingest_new(&env, &a->ingest, err);
    if (r < 0)
        return r;
    a->nslots = a->conf.read_only ? 0 : sc->slots;      /* only who stores asks the index */
    a->slots = calloc(a->nslots + 1, sizeof *a->slots);
    if (a->slots == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    unsigned bits = 0;
    while (((uint64_t)1 << bits) < (uint64_t)sc->slots * sc->partitions)
        bits++;
    for (uint32_t i = 0; i < a->nslots && r == 0; i++)
        r = fpindex_open(store_index(a->store), "index", i, sc->partitions, bits, &a->slots[i], err);
    return r;
}

enum { FILES_MOST = 4096, DISKS_MOST = 256 };

static int open_live(struct agent *a, struct verr *err)
{
    struct live_env env = {
        .state_dirfd = a->state_fd,
        .source = segread_source(a->segread),
        .clock = a->conf.clock,
        .trusted = a->trusted,
        .layer_limit = a->conf.layer_limit,
        .spare = STATE_SPARE,
        .cache_limit = a->conf.cache_limit,
        .open_max = DISKS_MOST,
        .files_max = files_allowed(4, FILES_MOST),
    };
    return live_set_open(&env, &a->live, err);
}

static int recover_pendings(struct agent *a, struct live *l, struct verr *err)
{
    struct snapinfo p;
    for (unsigned i = 0; live_pending(l, i, &p, NULL) == 0;) {
        int r = i == 0 ? snaps_durable(a->store, &p.ref, err) : 0;
        if (r < 0)
            return r;
        if (r == 1) {
            r = agent_finish_publication(a, l, &p, true, err);
            if (r < 0)
                return verr_prefix(err, -r, "finishing a published snapshot");
            continue; /* it is no longer the first pending one */
        }
        struct snaprow row;
        /* The writer's handle died with the daemon: whether the writer was done is unknown, unless it was seen releasing the disk. */
        bool provisional = (p.flags & SNAP_PROVISIONAL) != 0, open = provisional && (p.flags & SNAP_CLOSED) != SNAP_CLOSED;
        r = live_pending_update(l, p.ref.seq, open ? SNAP_PARTIAL : 0, SNAP_STARTED | (provisional ? SNAP_CLOSED : 0), NULL, err);
        if (r == 0 && provisional && !open)
            r = agent_settle_mark(l, p.ref.seq, err);
        if (r == 0)
            r = live_pending_by_seq(l, p.ref.seq, &p, err);
        if (r == 0) {
            agent_pending_row(a, &p, &row);
            r = agent_row_put(a, &row, err);
        }
        if (r == 0)
            r = agent_owe_store(a, live_id(l));
        if (r < 0)
            return r;
        i++;
    }
    return 0;
}

static int recover_changed(struct agent *a, struct live *l, const struct node *disk, struct verr *err)
{
    struct due_case c = {.occasion = DUE_RECOVERY, .node = disk};
    struct snaprow row;
    char path[PATH_TEXT];
    int r = agent_freeze_due_locked(a, &c, l, &row, err);
    if (r == 1) {
        agent_snap_path(a, &row.info, path, sizeof path);
        agent_say(a, VLOG_INFO, path, "partial: the disk changed and was not seen closing");
    }
    if (r == 0 && c.data == DUE_DATA_NO) {
        /* Nobody is left who could go on. Whether its last writer was done is known only of a disk that had no snapshot yet: its mark
         * `rewriting` has gone. */
        struct due_case zeros = {.occasion = DUE_ZEROS, .node = disk, .unclean = c.attr.next_seq > 1};
        r = agent_freeze_due_locked(a, &zeros, l, NULL, err);
    }
    return r < 0 ? r : 0;
}

/* A snapshot may be published, but not finished, when power fails: the journal may have lost its freeze (live_publish.c). */
static int raise_numbers(struct agent *a, struct live *l, const struct node *disk, struct verr *err)
{
    struct snaprow last;
    struct live_attr at;
    int r = catalog_snap_latest(a->catalog, &disk->id, &last, err);
    if (r == 0 && live_attr(l, &at, NULL) == 0 && at.next_seq <= last.info.ref.seq) {
        vlog(VLOG_WARN, "recover", "%s: the store has snapshot %llu, which this host's state does not know: the state was put back from an "
             "older copy, or power was lost. The live image may be older than that snapshot; the next one comes behind it", QUOTED(disk->name),
             (unsigned long long)last.info.ref.seq);
        agent_event(a, "%s: the live image may be older than snapshot %llu, which the state does not know", QUOTED(disk->name),
                    (unsigned long long)last.info.ref.seq);
    }
    if (r == 0)
        live_raise(l, last.info.ref.seq + 1, last.info.name_s);
    return r == -ENOENT ? 0 : r;
}

static int recover_named(struct agent *a, struct live *l, const struct node *disk, struct verr *err)
{
    struct live_attr at = {0};
    /* The disk has a name, whatever a crash during its creation or removal left. */
    int r = live_removal_unsay(a->state_fd, &disk->id, err);
    if (r == 0)
        r = live_attr(l, &at, err);
    if (r == 0 && (at.marks & LIVE_UNNAMED) && at.mtime_ns < disk->btime_ns)    /* made ahead, and only its making was durable */
        r = live_set_mtime(l, disk->btime_ns, err);
    if (r == 0 && (at.marks & LIVE_UNNAMED))
        r = live_set_marks(l, 0, LIVE_UNNAMED, err);
    if (r == 0)
        r = raise_numbers(a, l, disk, err);
    if (r == 0)
        agent_lost_look(a, l);
    if (r == 0)
        r = recover_pendings(a, l, err);
    return r == 0 ? recover_changed(a, l, disk, err) : r;
}

/* A crash between image and name of a new disk leaves an image that never had a name nor content. */
static bool is_stillborn(struct live *l)
{
    struct live_attr at;
    return live_attr(l, &at, NULL) == 0 && (at.marks & LIVE_UNNAMED) && at.size == 0 && !at.changed && at.pending == 0 &&
           at.dirty_segments == 0;
}

/* The disk lost its name without a removal: it gets another name, and nothing of it is deleted. */
static int recover_nameless(struct agent *a, struct live *l, struct verr *err)
{
    struct node disk;
    char hex[VID_HEX], path[PATH_TEXT];
    int r = names_adopt(a->names, live_id(l), &disk, err);
    if (r < 0)
        return verr_prefix(err, -r, "giving it a name, because its own was lost");
    vid_hex(live_id(l), hex);
    agent_disk_path(a, &disk.id, path, sizeof path);
    agent_say(a, VLOG_WARN, path, "adopted, because disk %s has lost its name: its image is kept", hex);
    return recover_named(a, l, &disk, err);
}

/* No live name leads to the image. */
static int recover_unnamed(struct agent *a, struct live *l, const struct node *gone, bool *remove, struct verr *err)
{
    int r = agent_removal_certain(a, live_id(l), err);
    if (r < 0)
        return r;
    if (r == 0 && !is_stillborn(l))
        return recover_nameless(a, l, err);
    struct snapinfo p;
    bool pending = live_pending(l, 0, &p, NULL) == 0;
    if (pending && gone == NULL)    /* without record and row, nothing shows a removal */
        return recover_nameless(a, l, err);
    *remove = true;
    return pending ? recover_pendings(a, l, err) : 0;
}

int agent_recover_disk(struct agent *a, const struct vid *id, struct verr *err)
{
    struct node disk;
    struct live *l = NULL;
    bool remove = false, stillborn = false;
    int r = catalog_node_by_id(a->catalog, id, &disk, err);
    if (r < 0 && r != -ENOENT)
        return r;
    bool known = r == 0;
    r = live_get(a->live, id, &l, err);
    if (r == 0 && known && !(disk.flags & NODE_GONE)) {
        r = recover_named(a, l, &disk, err);
    } else if (r == 0) {
        r = recover_unnamed(a, l, known ? &disk : NULL, &remove, err);
        stillborn = is_stillborn(l);
    }
    if (l != NULL)
        live_put(l);
    if (r < 0 || !remove)
        return r;
    return stillborn ? live_remove(a->live, id, err) : agent_forget_if_gone(a, id, err);
}

struct recovering { struct agent *a; struct verr *err; };

static int recover_disk(void *ctx, const struct vid *id)
{
    const struct recovering *rec = ctx;
    struct agent *a = rec->a;
    struct verr err = {0};
    int r = agent_recover_disk(a, id, &err);
    if (r >= 0)
        return 0;
    /* One damaged disk must not keep the others from being served. An error that may pass: recovery is tried again before the disk
     * is used. Damage: its pending snapshots are tried again as snapshots that failed. */
    if (r != -EBADMSG && r != -ENOTSUP) {
        agent_owe(a, id, WORK_RECOVER, 0, &err);
        /* Without memory even to note that, the start fails: pending snapshots would be forgotten until the next one. */
        return work_owes(a->work, id, WORK_BIT(WORK_RECOVER)) ? 0 : verr_set(rec->err, ENOMEM, "recovery: %s", verr_str(&err));
    }
    char hex[VID_HEX];
    vid_hex(id, hex);
    vlog(VLOG_ERROR, "recover", "disk %s: %s", hex, verr_str(&err));
    agent_event(a, "disk %s not recovered: %s", hex, verr_str(&err));
    return agent_owe_store(a, id);
}

struct row_list {
    struct agent *a;
    struct snaprow *rows;
    unsigned n, cap;
};

static int list_row(struct row_list *list, const struct snaprow *s)
{
    if (list->n == list->cap) {
        unsigned cap = list->cap == 0 ? QUEUE_STEP : list->cap * 2;
        struct snaprow *rows = realloc(list->rows, cap * sizeof *rows);
        if (rows == NULL)
            return -ENOMEM;
        list->rows = rows;
        list->cap = cap;
    }
    list->rows[list->n++] = *s;
    return 0;
}

/* Rows of pending snapshots that no journal knows, and stored ones whose handle died with the daemon. */
static int collect_leftover(void *ctx, const struct snaprow *s)
{
    struct row_list *list = ctx;
    struct snapinfo p;
    struct live *l;
    if (s->state == SNAPST_STORED)
        return (s->info.flags & SNAP_PROVISIONAL) && vid_eq(&s->info.host, &list->a->host) ? list_row(list, s) : 0;
    int r = live_get(list->a->live, &s->info.ref.disk, &l, NULL);
    if (r == 0) {
        r = live_pending_by_seq(l, s->info.ref.seq, &p, NULL);
        if (r == 0 && !vid_eq(&p.ref.snap, &s->info.ref.snap))
            r = -ENOENT;    /* a loss of power undid this row's freeze, and another freeze got its number */
        live_put(l);
    }
    return r == -ENOENT ? list_row(list, s) : 0;    /* a row that is known, or in doubt, is kept */
}

static int mend_leftovers(struct agent *a, struct verr *err)
{
    struct row_list list = {.a = a};
    int r = catalog_snap_each(a->catalog, collect_leftover, &list, err);
    for (unsigned i = 0; r == 0 && i < list.n; i++) {
        struct snaprow *row = &list.rows[i];
        struct verr why = {0};
        if (row->state != SNAPST_STORED)
            r = agent_row_del(a, row, err);
        else if (agent_settle_stored(a, &row->info.ref, false, &why) < 0)
            agent_owe_settle(a, &row->info.ref.disk, row->info.ref.seq, false, &why);
    }
    free(list.rows);
    return r;
}

static void names_behind(void *ctx, const struct verr *why)
{
    static const struct vid tree;
    agent_owe(ctx, &tree, WORK_NAMES, 0, why);
}

static int open_names(struct agent *a, struct verr *err)
{
    int r = catalog_open(a->state_fd, a->state_path, &store_conf(a->store)->id, &a->catalog, err);
    if (r == 0)
        r = names_open(a->store, a->catalog, a->conf.clock, &a->names, err);
    const struct names_hooks hooks = {.removal = agent_say_removal, .behind = names_behind, .ctx = a};
    if (r == 0)
        names_watch(a->names, &hooks);
    return r < 0 ? r : names_reconcile(a->names, agent_report_bad, a, err);
}

/* The catalog is a cache: a damaged one is set aside and made anew from STORE; the journals bring pending snapshots back. */
static int open_names_mended(struct agent *a, struct verr *err)
{
    int r = open_names(a, err);
    if (r != -EBADMSG)
        return r;
    vlog(VLOG_WARN, "agent", "%s", verr_str(err));
    names_close(a->names);
    catalog_close(a->catalog, NULL);
    a->names = NULL;
    a->catalog = NULL;
    r = catalog_set_aside(a->state_fd);
    if (r < 0)
        return verr_set(err, -r, "%s/catalog.sqlite: is damaged and cannot be set aside: %s", a->state_path, strerror(-r));
    vlog(VLOG_WARN, "agent", "%s/catalog.sqlite: made anew; the damaged one is catalog.sqlite.damaged beside it", a->state_path);
    *err = (struct verr){0};
    return open_names(a, err);
}

int agent_recover(struct agent *a, struct verr *err)
{
    int r = check_reach(a, err);
    if (r < 0)
        return r;
    agent_events_open(a);
    r = open_names_mended(a, err);
    if (r == 0)
        r = open_parts(a, err);
    if (r == 0)
        r = agent_putback_begin(a, err);
    if (r == 0)
        r = open_live(a, err);
    if (r == 0 && a->trusted)
        r = agent_instance_write(a, err);
    if (r < 0)
        return r;
    r = live_set_each(a->live, recover_disk, &(struct recovering){a, err}, err);
    if (r == 0)
        r = agent_putback_places(a, err);
    if (r == 0)
        r = agent_lost_start(a, err);
    if (r == 0)
        r = mend_leftovers(a, err);
    if (r == 0)
        r = agent_instance_write(a, err);
    if (r == 0 && !a->conf.read_only) {
        const struct work_item reserve = {.kind = WORK_RESERVE};
        struct verr why = {0};
        if (agent_reserve_fill(a, &why) < 0) {
            vlog(VLOG_WARN, "agent", "%s", verr_str(&why));
            r = work_owe_failed(a->work, &reserve, &why) < 0 ? verr_set(err, ENOMEM, "out of memory") : 0;
        }
    }
    return r;
}
