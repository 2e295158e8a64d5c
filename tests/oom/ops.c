/* SPDX-License-Identifier: Apache-2.0 */
/* The operations: store, snapshots, live images, a round, index, catalog and names, verify, rebuild, dump, recovery, options. */
#include "template.h"

#include "agent/agent_internal.h"
#include "bus/bus.h"
#include "catalog/catalog.h"
#include "check/check.h"
#include "check/dump.h"
#include "cli/options.h"
#include "dedup/dedup.h"
#include "fpindex/fpindex.h"
#include "store/backend_dir.h"
#include "names/names.h"
#include "proto/proto.h"
#include "store/snaps.h"

#include <sys/stat.h>

/* ---- open a store, read a snapshot ---- */

static int run_open(struct verr *err)
{
    struct store *st = NULL;
    int r = store_open(t_store(), &st, err);
    store_close(st);
    return r;
}

static void check_all(int r)
{
    (void)r;
    t_check_all();
}

static int run_read(struct verr *err)
{
    struct t_open o;
    struct snaprcp rcp;
    struct snapattr attr;
    int r = t_open(&o, err);
    if (r == 0)
        r = t_compare(&o, &t_stored, err);
    if (r == 0)
        r = snaps_load(o.st, &t_stored.ref, &rcp, &attr, err);
    t_close(&o);
    return r;
}

/* ---- live images ---- */

enum { MARK_AT = 3000, MARK_LEN = 6000 };
static uint64_t frozen_seq;

static int use_live(bool trusted, struct verr *err)
{
    struct t_open o;
    struct live_set *set = NULL;
    struct live *l = NULL;
    struct snapinfo p;
    struct freeze_req req = {.label = "oom", .note = "a note"};
    uint8_t mark[MARK_LEN], buf[MARK_LEN];
    memset(mark, 0x77, sizeof mark);
    int r = t_open(&o, err);
    if (r == 0)
        r = t_live_open(&o, trusted, &set, &l, err);
    if (r == 0)
        r = live_write(l, MARK_AT, mark, sizeof mark, err);
    if (r == 0)
        r = live_zero(l, SEG_BYTES, 8192, err);
    if (r == 0)
        r = live_fsync(l, err);
    if (r == 0)
        r = live_freeze(&l, 1, &req, &p, err);
    if (r == 0) {
        frozen_seq = p.ref.seq;
        r = live_pending_seal(l, p.ref.seq, err);
    }
    if (r == 0) {
        ssize_t n = live_read(l, MARK_AT, buf, sizeof buf, err);
        r = n < 0 ? (int)n : 0;
        if (r == 0)
            OOM_CHECK(n == MARK_LEN && memcmp(buf, mark, sizeof mark) == 0);
    }
    if (r == 0)
        r = live_pending_drop(l, frozen_seq, err);
    if (l != NULL)
        live_put(l);
    if (set != NULL) {
        struct verr close_err = {0};
        int c = live_set_close(set, r == 0 ? err : &close_err);
        r = r == 0 ? c : r;
    }
    t_close(&o);
    return r;
}

static int run_live(struct verr *err) { return use_live(true, err); }
static int run_recover(struct verr *err) { return use_live(false, err); }

/* What was written stays once it was answered; the mark is there whole or not at all. */
static void check_live(int r)
{
    static uint8_t buf[T_SIZE], want[T_SIZE];
    struct t_open o;
    struct live_set *set = NULL;
    struct live *l = NULL;
    t_check_all();
    OOM_MUST(t_open(&o, err));
    OOM_MUST(t_live_open(&o, true, &set, &l, err));
    OOM_CHECK(live_read(l, 0, buf, sizeof buf, NULL) == T_SIZE);
    memcpy(want, t_pending.data, T_SIZE);
    if (r == 0 || buf[MARK_AT] == 0x77)
        memset(want + MARK_AT, 0x77, MARK_LEN);
    if (r == 0 || memcmp(buf + SEG_BYTES, want + SEG_BYTES, 8192) != 0)
        memset(want + SEG_BYTES, 0, 8192);
    OOM_CHECK(memcmp(buf, want, T_SIZE) == 0);
    live_put(l);
    OOM_MUST(live_set_close(set, err));
    t_close(&o);
}

/* ---- a round: pending -> stored ---- */

struct parts {
    struct t_open o;
    struct live_set *set;
    struct live *l;
    struct fpindex *slots[T_SLOTS];
    struct bus *bus;
    int workfd;
};

static void note(void *ctx, const char *stage, const struct verr *why)
{
    (void)ctx;
    (void)stage;
    if (why->code != ENOMEM)
        oom_judged(verr_str(why));
}

static int parts_open(struct parts *p, struct verr *err)
{
    int r = t_open(&p->o, err);
    if (r == 0)
        r = t_live_open(&p->o, true, &p->set, &p->l, err);
    const struct store_conf *c = r == 0 ? store_conf(p->o.st) : NULL;
    for (uint32_t s = 0; r == 0 && s < T_SLOTS; s++)
        r = fpindex_open(store_index(p->o.st), "index", s, c->partitions, (unsigned)__builtin_ctz(c->slots * c->partitions), &p->slots[s], err);
    if (r == 0 && (p->bus = bus_local_new(1 << 20, err)) == NULL)
        r = -ENOMEM;
    return r;
}

static int parts_close(struct parts *p, struct verr *err)
{
    int r = 0;
    if (p->l != NULL)
        live_put(p->l);
    if (p->set != NULL)
        r = live_set_close(p->set, err);
    for (uint32_t s = 0; s < T_SLOTS; s++)
        if (p->slots[s] != NULL) {
            struct fpindex_stats st;
            fpindex_stats(p->slots[s], &st);
            OOM_CHECK(oom_io() || st.damaged_files == 0);      /* an index is a hint */
            fpindex_close(p->slots[s]);
        }
    bus_close(p->bus);
    t_close(&p->o);
    return r;
}

static int publish(struct parts *p, struct dedup_job *job, struct verr *err)
{
    struct snap *snap = NULL;
    struct live_anchor mine = {.ref = {t_disk, job->pend.ref.seq, job->pend.ref.snap}, .stamp = job->pend.ref.seq + 1}, drop[8];
    unsigned dropped;
    int r = snap_open(p->o.st, p->o.segread, &job->pend.ref, &snap, err);
    if (r == 0)
        r = snaps_anchor(p->o.st, &t_disk, &job->pend.ref, err);
    if (r == 0)
        r = live_pending_published(p->l, job->pend.ref.seq, snap_place, snap, &mine, drop, 8, &dropped, err);
    snap_close(snap);
    return r;
}

static int round_in(struct parts *p, struct verr *err)
{
    static struct dedup_job job;
    struct verr job_err = {0};
    memset(&job, 0, sizeof job);
    int r = live_pending(p->l, 0, &job.pend, err);
    if (r == -ENOENT)
        return 0;       /* stored by an earlier try */
    struct dedup_env env = {.store = p->o.st, .reader = p->o.reader, .segread = p->o.segread, .slots = p->slots, .nslots = T_SLOTS, .bus = p->bus,
                            .host = t_host, .work_dirfd = p->workfd, .note = note};
    job.live = p->l;
    job.vm = t_vm;
    job.epoch = 1;
    job.parent = t_stored.ref;
    job.last_blocks = job.last_recipes = REF_NONE;
    job.err = &job_err;
    if (r == 0)
        r = dedup_round(&env, &job, 1, err);
    if (r == 0 && job.result < 0) {
        r = job.result;
        *err = job_err;
    }
    return r == 0 ? publish(p, &job, err) : r;
}

static int run_round(struct verr *err)
{
    struct parts p = {.workfd = -1};
    char rounds[300];
    struct verr close_err = {0};
    snprintf(rounds, sizeof rounds, "%s/rounds", t_state());
    p.workfd = dir_open(AT_FDCWD, rounds);
    int r = p.workfd < 0 ? p.workfd : parts_open(&p, err);
    if (r == 0)
        r = round_in(&p, err);
    int c = parts_close(&p, r == 0 ? err : &close_err);
    if (p.workfd >= 0)
        close(p.workfd);
    return r == 0 ? c : r;
}

static void check_round(int r)
{
    t_check_all();
    if (r != 0)
        return;
    struct t_open o;
    OOM_MUST(t_open(&o, err));
    OOM_MUST(t_compare(&o, &t_pending, err));
    t_close(&o);
}

/* ---- index ---- */

enum { KEYS = 400 };

static void key_of(unsigned i, uint8_t key[FPKEY_BYTES])
{
    memset(key, 0, FPKEY_BYTES);
    key[0] = (uint8_t)(i >> 1);
    key[1] = (uint8_t)(i << 7);
    key[2] = (uint8_t)i;
}

struct asked { unsigned next, end, found, missing; };

static int ask(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct asked *a = ctx;
    if (a->next == a->end)
        return 0;
    key_of(a->next++, key);
    return 1;
}

static int told(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct asked *a = ctx;
    (void)key;
    a->found += ref != REF_NONE;
    a->missing += ref == REF_NONE;
    return 0;
}

static int add_keys(struct fpindex *ix, struct verr *err)
{
    struct fpdelta *d = NULL;
    uint8_t key[FPKEY_BYTES];
    int r = fpdelta_begin(ix, &d, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; r == 0 && i < KEYS; i++) {
        key_of(i, key);
        r = fpdelta_add(d, key, ref_make(0x70000, i), err);
    }
    if (r < 0) {
        fpdelta_abort(d);
        return r;
    }
    return fpdelta_commit(d, err);
}

/* Lack of memory may end a compare, but never hides an entry. */
static int compare_keys(struct fpindex *ix, enum fpindex_way way, struct verr *err)
{
    struct asked low = {.end = 256}, high = {.next = 256, .end = KEYS};      /* key_of: the first bit is set from 256 on */
    int r = fpindex_compare(ix, 0, low.end, way, 1 << 20, ask, told, &low, err);
    if (r == 0)
        r = fpindex_compare(ix, 1, KEYS - 256, way, 1 << 20, ask, told, &high, err);
    if (r == 0)
        OOM_CHECK(oom_io() || (low.missing == 0 && high.missing == 0));
    return r;
}

static int run_index(struct verr *err)
{
    struct fpindex *ix = NULL;
    char path[300];
    snprintf(path, sizeof path, "%s/index", t_store());
    struct backend *b;
    int r = backend_dir_open(path, &b);
    if (r < 0)
        return verr_set(err, -r, "opening %s: %s", path, strerror(-r));
    r = fpindex_open(b, "", 0, 2, 1, &ix, err);
    if (r < 0) {
        bk_destroy(b);
        return r;
    }
    r = add_keys(ix, err);
    if (r == 0)
        r = compare_keys(ix, FPINDEX_PROBE, err);
    if (r == 0)
        r = fpindex_merge(ix, true, 1 << 20, err);
    if (r == 0)
        r = compare_keys(ix, FPINDEX_MERGE, err);
    struct fpindex_stats st;
    fpindex_stats(ix, &st);
    OOM_CHECK(oom_io() || st.damaged_files == 0);      /* an index is a hint */
    fpindex_close(ix);
    bk_destroy(b);
    return r;
}

/* ---- catalog and names ---- */

static struct node a_node(unsigned i)
{
    struct node n = {.version = 1, .kind = i == 0 ? NODE_DIR : NODE_DISK, .mode = 0640};
    memset(n.id.b, 0x60, VID_BYTES);
    n.id.b[15] = (uint8_t)i;
    if (i > 0) {
        n.parent = a_node(0).id;
        snprintf(n.name, sizeof n.name, "disk-%u", i);
    }
    return n;
}

static int count_node(void *ctx, const struct node *n)
{
    (void)n;
    ++*(unsigned *)ctx;
    return 0;
}

static int count_snap(void *ctx, const struct snaprow *s)
{
    (void)s;
    ++*(unsigned *)ctx;
    return 0;
}

static int fill_catalog(struct catalog *c, struct verr *err)
{
    int r = catalog_begin(c, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; r == 0 && i < 4; i++) {
        struct node n = a_node(i);
        r = catalog_node_put(c, &n, err);
        struct snaprow s = {.info.ref.snap = n.id, .info.ref.disk = n.id, .info.host = n.id, .info.group = n.id, .info.ref.seq = i + 1,
                            .state = SNAPST_STORED, .info.mode = 0440, .info.name_s = 1000 + i,
                            .info.note = "a note"};
        s.info.ref.snap.b[0] = 0x61;
        if (r == 0 && i > 0)
            r = catalog_snap_put(c, &s, err);
    }
    if (r < 0) {
        catalog_rollback(c);
        return r;
    }
    return catalog_commit(c, err);
}

static int read_catalog(struct catalog *c, struct verr *err)
{
    struct node n, want = a_node(2), rows[8];
    struct snaprow s;
    struct catalog_totals t;
    unsigned nodes = 0, snaps = 0;
    char value[32];
    int r = catalog_node_by_id(c, &want.id, &n, err);
    if (r == 0)
        OOM_CHECK(strcmp(n.name, want.name) == 0);
    if (r == 0)
        r = catalog_node_by_name(c, &want.parent, "disk-3", &n, err);
    if (r == 0) {
        r = catalog_children(c, &want.parent, "", rows, 8, err);
        if (r >= 0)
            OOM_CHECK(r == 3);
        r = r < 0 ? r : 0;
    }
    if (r == 0)
        r = catalog_node_each(c, count_node, &nodes, err);
    if (r == 0)
        r = catalog_snap_each(c, count_snap, &snaps, err);
    if (r == 0)
        OOM_CHECK(nodes == 4 && snaps == 3);
    if (r == 0)
        r = catalog_snap_latest(c, &want.id, &s, err);
    if (r == 0)
        r = catalog_totals(c, &t, err);
    if (r == 0)
        OOM_CHECK(t.snapshots == 3);
    if (r == 0)
        r = catalog_set(c, "key", "value", err);
    if (r == 0)
        r = catalog_get(c, "key", value, sizeof value, err);
    if (r == 0)
        OOM_CHECK(strcmp(value, "value") == 0);
    return r;
}

static int run_catalog(struct verr *err)
{
    struct catalog *c = NULL;
    struct vid store = a_node(9).id;
    struct verr close_err = {0};
    int fd = t_statefd();
    int r = fd < 0 ? fd : catalog_open(fd, t_state(), &store, &c, err);
    if (r == 0) {
        r = fill_catalog(c, err);
        if (r == 0)
            r = read_catalog(c, err);
        int e = catalog_close(c, r == 0 ? err : &close_err);
        r = r == 0 ? e : r;
    }
    if (fd >= 0)
        close(fd);
    return r;
}

/* Nothing but an empty STATE, or a whole catalog that was made before. */
static void prepare_catalog(void)
{
    t_prepare_empty();
}

static void check_catalog(int r)
{
    struct catalog *c = NULL;
    struct vid store = a_node(9).id;
    int fd = t_statefd();
    OOM_MUST(catalog_open(fd, t_state(), &store, &c, err));
    if (r == 0)
        OOM_MUST(read_catalog(c, err));
    OOM_MUST(catalog_close(c, err));
    close(fd);
}

static void bad_name(void *ctx, bool damaged, const char *what)
{
    (void)ctx;
    (void)damaged;
    oom_judged(what);
}

static int look_up(struct names *n, struct verr *err)
{
    struct entry e;
    struct node root, changed;
    int r = names_root(n, &root, err);
    if (r == 0)
        r = names_lookup(n, &root.id, "web", &e, err);
    if (r == 0)
        r = names_lookup(n, &t_vm, "disk.img", &e, err);
    if (r == 0) {
        struct node v = e.node;
        v.mode = 0600;
        r = names_setattr(n, &e.node.id, SET_MODE, &v, &changed, err);
    }
    if (r == 0)
        r = names_snap_set(n, &t_stored.ref.snap, "noted", NULL, NULL, NULL, NULL, err);
    if (r == 0)
        r = names_snap_relabel(n, &t_stored.ref.snap, "gold", err);
    if (r == 0)
        r = names_lookup(n, &t_vm, "disk@gold.img", &e, err);
    if (r == 0)
        OOM_CHECK(e.kind == ENTRY_SNAP && strcmp(e.snap.info.note, "noted") == 0);
    return r;
}

static int run_names(struct verr *err)
{
    struct store *st = NULL;
    struct catalog *c = NULL;
    struct names *n = NULL;
    struct verr close_err = {0};
    int fd = t_statefd();
    int r = fd < 0 ? fd : store_open(t_store(), &st, err);
    if (r == 0)
        r = catalog_open(fd, t_state(), &store_conf(st)->id, &c, err);
    if (r == 0)
        r = names_open(st, c, &vclock_system, &n, err);
    if (r == 0)
        r = names_reconcile(n, bad_name, NULL, err);
    if (r == 0)
        r = look_up(n, err);
    names_close(n);
    int e = catalog_close(c, r == 0 ? err : &close_err);
    store_close(st);
    if (fd >= 0)
        close(fd);
    return r == 0 ? e : r;
}

/* ---- verify, rebuild, dump ---- */

static void problem(void *ctx, const struct check_problem *p)
{
    char text[400];
    (void)ctx;
    snprintf(text, sizeof text, "%s: %s", p->file, p->what);
    oom_judged(text);
}

static int run_verify(struct verr *err)
{
    struct store *st = NULL;
    struct check_opts o = {.read_data = true, .problem = problem};
    struct check_report rep;
    int r = store_open(t_store(), &st, err);
    if (r == 0)
        r = check_verify(st, &o, &rep, err);
    if (r == 0)
        OOM_CHECK(oom_io() || (rep.damaged == 0 && rep.snapshots == 1 && rep.containers == 2 && rep.blocks > 0));
    store_close(st);
    return r;
}

static int run_rebuild_index(struct verr *err)
{
    struct store *st = NULL;
    struct check_opts o = {.problem = problem};
    struct check_rebuilt done;
    int fd = t_statefd();
    int r = fd < 0 ? fd : store_open(t_store(), &st, err);
    if (r == 0)
        r = check_rebuild_index(st, fd, 1 << 20, &o, &done, err);
    if (r == 0)
        OOM_CHECK(oom_io() || (done.skipped == 0 && done.entries > 0));
    store_close(st);
    if (fd >= 0)
        close(fd);
    return r;
}

static int run_rebuild_catalog(struct verr *err)
{
    struct store *st = NULL;
    struct check_opts o = {.problem = problem};
    int fd = t_statefd();
    int r = fd < 0 ? fd : store_open(t_store(), &st, err);
    if (r == 0)
        r = check_rebuild_catalog(st, fd, t_state(), &vclock_system, &o, err);
    store_close(st);
    if (fd >= 0)
        close(fd);
    return r;
}

struct dumping { char dir[400]; FILE *out; int r; struct verr *err; };

static int dump_one(void *ctx, const char *name)
{
    struct dumping *d = ctx;
    char path[700];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", d->dir, name);
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || strncmp(name, "layer-", 6) == 0 || strncmp(name, "cache-", 6) == 0)
        return 0;
    d->r = dump_file(path, true, d->out, d->err);
    return d->r;
}

static int run_dump(struct verr *err)
{
    static const char *const dirs[] = {"store/containers/000001", "store", "store/owners", "store/nodes", "store/index/0000",
                                       "store/generations/0000000000000001"};
    struct dumping d = {.err = err};
    char hex[VID_HEX];
    static char sink[1 << 20];
    d.out = fmemopen(sink, sizeof sink, "w");
    if (d.out == NULL)
        return -ENOMEM;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < sizeof dirs / sizeof dirs[0] + 2; i++) {
        vid_hex(&t_disk, hex);
        if (i < sizeof dirs / sizeof dirs[0])
            snprintf(d.dir, sizeof d.dir, "%s/work/%s", oom_dir(), dirs[i]);
        else
            snprintf(d.dir, sizeof d.dir, "%s/work/%s/%s", oom_dir(), i % 2 ? "store/snapshots" : "state/disks", hex);
        int fd = dir_open(AT_FDCWD, d.dir);
        r = fd < 0 ? fd : dir_each(fd, dump_one, &d);
        if (fd >= 0)
            close(fd);
        rewind(d.out);
    }
    fclose(d.out);
    return r;
}

/* ---- a daemon's start: recovery ---- */

static int start_agent(unsigned pending, struct verr *err)
{
    struct agent_conf conf;
    struct agent *a = NULL;
    char *text = NULL;
    size_t len;
    struct vid *ids = NULL;
    unsigned n = 0;
    const struct agent_viewer root = {.root = true};
    struct verr close_err = {0};
    agent_conf_default(&conf);
    conf.store = t_store();
    conf.state = t_state();
    conf.host = "oom";
    conf.clock = &vclock_system;
    int r = agent_open(&conf, &a, err);
    if (r == 0)
        r = agent_recover(a, err);
    if (r == 0)
        r = agent_pending_ids(a, NULL, &root, &ids, &n, err);
    if (r == 0) {       /* none is forgotten */
        bool all = n == pending || (n > 0 && n + 1 == pending && oom_lost());
        bool older = n > 0 && (vid_eq(&ids[0], &t_pending.ref.snap) || vid_eq(&ids[n - 1], &t_pending.ref.snap));
        OOM_CHECK((all && older) || work_owes(a->work, &t_disk, WORK_BIT(WORK_RECOVER)));
    }
    free(ids);
    if (r == 0)
        r = agent_status_json(a, &text, &len, err);
    free(text);
    text = NULL;
    if (r == 0)
        r = agent_list_json(a, NULL, &root, &text, &len, err);
    free(text);
    if (a != NULL) {
        int c = agent_close(a, r == 0 ? err : &close_err);
        r = r == 0 ? c : r;
    }
    return r;
}

static int run_agent(struct verr *err) { return start_agent(1, err); }
static int run_agent_killed(struct verr *err) { return start_agent(2, err); }

/* The same where a catalog is there already: compared instead of made. */
static void prepare_again_names(void)
{
    t_prepare();
    OOM_MUST(run_names(err));
}

static void prepare_again_agent(void)
{
    t_prepare();
    OOM_MUST(run_agent(err));
}

/* A daemon killed after a freeze that nobody has synced: it must be there after the next start, whatever that one lacks. Only a failed
 * fsync, behind which the kernel may have dropped what was written, leaves what a power loss leaves: it is whole or gone. */
static uint64_t volatile_seq;

static void prepare_killed(void)
{
    char state[300], aside[300];
    struct t_open o;
    struct live_set *set = NULL;
    struct live *l = NULL;
    struct snapinfo p;
    struct freeze_req req = {0};
    uint8_t mark[MARK_LEN];
    memset(mark, 0x77, sizeof mark);
    prepare_again_agent();
    OOM_MUST(t_open(&o, err));
    OOM_MUST(t_live_open(&o, true, &set, &l, err));
    OOM_MUST(live_write(l, MARK_AT, mark, sizeof mark, err));
    OOM_MUST(live_freeze(&l, 1, &req, &p, err));
    volatile_seq = p.ref.seq;
    snprintf(state, sizeof state, "%s", t_state());
    snprintf(aside, sizeof aside, "%.250s.killed", state);
    oom_copy(state, aside);
    live_put(l);
    OOM_MUST(live_set_close(set, err));
    t_close(&o);
    OOM_MUST(tree_remove(AT_FDCWD, state));
    OOM_MUST(rename(aside, state));
}

static void check_killed(int r)
{
    struct t_open o;
    struct live_set *set = NULL;
    struct live *l = NULL;
    struct snapinfo p;
    uint8_t buf[MARK_LEN], mark[MARK_LEN];
    (void)r;
    memset(mark, 0x77, sizeof mark);
    OOM_MUST(t_open(&o, err));
    OOM_MUST(t_live_open(&o, true, &set, &l, err));
    bool there = live_pending_by_seq(l, volatile_seq, &p, NULL) == 0;
    OOM_CHECK(there || oom_lost());
    if (there)
        OOM_CHECK(live_pending_read(l, volatile_seq, MARK_AT, buf, sizeof buf, NULL) == MARK_LEN && memcmp(buf, mark, sizeof mark) == 0);
    live_put(l);
    OOM_MUST(live_set_close(set, err));
    t_close(&o);
}

/* ---- order of messages ---- */

/* per: streams of a sender; it decides whether the table grows for a sender or for a stream of his. */
static int many_senders(unsigned per)
{
    struct vid cluster = t_vm;
    struct proto_in *in = proto_in_new(&cluster, 1, 1);
    int r = in == NULL ? -ENOMEM : 0;
    for (unsigned i = 0; r == 0 && i < 100; i++) {
        struct proto_head h = {.cluster = cluster, .round = 1, .attempt = 1, .incarnation = 1, .type = PROTO_REQUESTS, .slot = i % per};
        memset(h.host.b, (int)(i / per), VID_BYTES);
        r = proto_in_check(in, &h);
        OOM_CHECK(r < 0 || r == PROTO_ACCEPT);
    }
    proto_in_free(in);
    return r;
}

static int run_order(struct verr *err)
{
    int r = many_senders(3);
    if (r == 0)
        r = many_senders(2);
    return r < 0 ? verr_set(err, -r, "order of messages") : 0;
}

/* ---- options ---- */

static void prepare_options(void)
{
    char path[300];
    const char text[] = "[mount]\nstate = /s\nhost = h\nmemory = 64M\n";
    snprintf(path, sizeof path, "%s/varve.conf", oom_dir());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    OOM_MUST(pwrite_full(fd, text, sizeof text - 1, 0));
    close(fd);
}

static int run_options(struct verr *err)
{
    struct mount_options o;
    char path[300];
    snprintf(path, sizeof path, "%s/varve.conf", oom_dir());
    options_init(&o);
    int r = options_load(&o, path, NULL, false, NULL, err);
    if (r == 0)
        r = options_parse(&o, "rw,state=/t,threads=3,host=k", err);
    if (r == 0)
        OOM_CHECK(strcmp(o.state, "/t") == 0 && strcmp(o.host, "k") == 0 && o.fs.threads == 3);
    options_release(&o);
    return r;
}

static void check_nothing(int r)
{
    (void)r;
}

const struct oom_op oom_ops[] = {
    {"open-store", t_prepare, run_open, check_all, NULL, 0},
    {"read-snapshot", t_prepare, run_read, check_all, NULL, 0},
    {"live", t_prepare, run_live, check_live, NULL, 0},
    {"recover-live", t_prepare, run_recover, check_live, NULL, 0},
    {"round", t_prepare, run_round, check_round, NULL, 0},
    {"index", t_prepare, run_index, check_all, NULL, 0},
    {"catalog", prepare_catalog, run_catalog, check_catalog, NULL, 20},
    {"names", t_prepare, run_names, check_all, NULL, 40},
    {"verify", t_prepare, run_verify, check_all, NULL, 0},
    {"rebuild-index", t_prepare, run_rebuild_index, check_all, NULL, 0},
    {"rebuild-catalog", t_prepare, run_rebuild_catalog, check_all, NULL, 40},
    {"dump", t_prepare, run_dump, check_all, NULL, 40},
    {"agent", t_prepare, run_agent, check_all, NULL, 40},
    {"names-again", prepare_again_names, run_names, check_all, NULL, 40},
    {"agent-again", prepare_again_agent, run_agent, check_all, NULL, 40},
    {"agent-killed", prepare_killed, run_agent_killed, check_killed, NULL, 40},
    {"order", prepare_options, run_order, check_nothing, NULL, 0},
    {"options", prepare_options, run_options, check_nothing, NULL, 0},
};
const unsigned oom_nops = sizeof oom_ops / sizeof oom_ops[0];
