/* SPDX-License-Identifier: Apache-2.0 */
/* names with several threads: they make, move, replace and remove the same few names, as the agent does in the turns of the disks. No
 * change may be lost, and what the catalog says at the end is what a new catalog learns from STORE. A change that hangs in one directory
 * stops no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../lib/store_dirs.h"
#include "base/file.h"
#include "base/turn.h"
#include "base/verr.h"
#include "format/ref.h"
#include "names/names.h"

enum { THREADS = 6, OPS = 1000, DEPTH = 3 };

static char top[64], store_dir[96], state_dir[96];
static int state_fd;
static struct store *st;
static struct catalog *c;
static struct names *n;
static struct node root;
static struct turns *disks;
static atomic_uint unexpected, damaged, done[8];
static atomic_ullong seqs;

static void note_bad(void *ctx, bool is_damaged, const char *what)
{
    (void)ctx;
    (void)is_damaged;
    print_error("%s\n", what);
    atomic_fetch_add(&damaged, 1);
}

static void must(int r, const struct verr *err)
{
    if (r < 0)
        print_error("%s\n", verr_str(err));
    assert_true(r >= 0);
}

static void open_all(void)
{
    struct verr err = {0};
    must(store_open(store_dir, &st, &err), &err);
    must(catalog_open(state_fd, state_dir, &store_conf(st)->id, &c, &err), &err);
    must(names_open(st, c, &vclock_system, &n, &err), &err);
    must(names_reconcile(n, note_bad, NULL, &err), &err);
    must(names_root(n, &root, &err), &err);
}

static void close_all(void)
{
    names_close(n);
    catalog_close(c, NULL);
    store_close(st);
}

static int setup(void **state)
{
    struct store_conf conf;
    struct verr err = {0};
    (void)state;
    strcpy(top, "/tmp/varve-threads-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(store_dir, sizeof store_dir, "%s/store", top);
    snprintf(state_dir, sizeof state_dir, "%s/state", top);
    assert_int_equal(mkdir(state_dir, 0700), 0);
    state_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    storeconf_default(&conf);
    must(store_init(store_dir, &conf, (uid_t)-1, (gid_t)-1, &err), &err);
    disks = turns_new();
    open_all();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_all();
    turns_free(disks);
    close(state_fd);
    tree_remove(AT_FDCWD, top);
    return 0;
}

/* ---- one thread ---- */

static void expect(int r, const struct verr *err, unsigned kind)
{
    static const int plain[] = {ENOENT, EEXIST, ENOTEMPTY, EINVAL, ENOTDIR, EISDIR, EBUSY, EPERM};
    bool known = r >= 0;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        known = known || r == -plain[i];
    if (!known) {
        print_error("%d: %s\n", r, verr_str(err));
        atomic_fetch_add(&unexpected, 1);
    }
    if (r >= 0)
        atomic_fetch_add(&done[kind], 1);
}

static const char *some_name(unsigned *seed)
{
    static const char *const names[] = {"a", "b", "c", "a.b"};
    return names[(unsigned)rand_r(seed) % 4];
}

/* A directory, up to DEPTH below the root. */
static struct vid some_dir(unsigned *seed)
{
    struct vid at = root.id;
    struct entry e;
    for (unsigned depth = (unsigned)rand_r(seed) % (DEPTH + 1); depth > 0; depth--)
        if (names_lookup(n, &at, some_name(seed), &e, NULL) == 0 && e.kind == ENTRY_DIR)
            at = e.node.id;
    return at;
}

static bool some_node(unsigned *seed, struct node *out)
{
    struct vid dir = some_dir(seed);
    return catalog_node_by_name(c, &dir, some_name(seed), out, NULL) == 0;
}

static bool some_snap(unsigned *seed, struct snaprow *out)
{
    struct node disk;
    struct snaprow rows[4];
    if (!some_node(seed, &disk) || disk.kind != NODE_DISK)
        return false;
    int got = catalog_snaps(c, &disk.id, 0, rows, 4, NULL);
    if (got > 0)
        *out = rows[(unsigned)rand_r(seed) % (unsigned)got];
    return got > 0;
}

/* Publishes a snapshot of the disk if it still has a name: the recipe, then the row. In the disk's turn. */
static int publish(const struct vid *disk, struct verr *err)
{
    struct snaprcp h;
    struct node now;
    uint8_t page[SNAPRCP_PAGE];
    char file[SNAP_FILE_MAX];
    memset(&h, 0, sizeof h);
    int r = catalog_node_by_id(c, disk, &now, err);
    if (r < 0 || now.kind != NODE_DISK || (now.flags & NODE_GONE))
        return r;
    h.store = store_conf(st)->id;
    h.vm = now.parent;
    h.epoch = 1;
    h.nruns = 1;
    h.info.ref = (struct snapref){*disk, 1 + atomic_fetch_add(&seqs, 1), vid_random()};
    h.info.host = vid_random();
    h.info.group = vid_random();
    h.info.group_members = 1;
    h.info.size = 2 * (uint64_t)SEG_BYTES;
    h.info.alloc_bytes = 4096;
    h.info.freeze_ns = 5;
    h.info.name_s = 1700000000 + (int64_t)h.info.ref.seq;
    h.info.levels.fresh = SEG_BYTES;
    h.info.dirty_segments = 1;
    h.info.mode = 0400;
    if (snaprcp_encode(&h, page) < 0)
        return -EIO;
    store_snap_file(h.info.ref.seq, &h.info.ref.snap, ".rcp", file);
    int fd = store_disk_dir(st, DIR_SNAPSHOTS, disk, true, err);
    if (fd < 0)
        return fd;
    r = file_publish(fd, file, page, sizeof page);
    close(fd);
    const struct snaprow row = {.info = h.info, .state = SNAPST_STORED};
    return r < 0 ? r : catalog_snap_put(c, &row, err);
}

static void change_node(unsigned *seed, struct verr *err)
{
    struct node node, other;
    struct turn turn;
    if (!some_node(seed, &node))
        return;
    unsigned kind = (unsigned)rand_r(seed) % 5;
    if (kind == 2) {            /* does not ask for the disk's turn */
        expect(names_setattr(n, &node.id, SET_MODE | SET_UID, &(struct node){.mode = 0700, .uid = *seed % 1000}, NULL, err), err, 3);
        return;
    }
    struct vid ids[2] = {node.id, node.id}, dir = some_dir(seed);
    bool two = kind == 0 && some_node(seed, &other) && other.kind == NODE_DISK;
    if (two)
        ids[1] = other.id;
    turn_take(disks, &turn, ids, 2);
    if (two)
        expect(names_replace(n, &node.id, &other.id, err), err, 4);
    else if (kind == 1)
        expect(publish(&node.id, err), err, 5);
    else if (kind == 3)
        expect(names_remove(n, &node.id, err), err, 2);
    else
        expect(names_rename(n, &node.id, &dir, some_name(seed), err), err, 1);
    turn_give(disks, &turn);
}

static void change_snap(unsigned *seed, struct verr *err)
{
    static const char *const labels[] = {"x", "b.x", "y"};
    struct snaprow s;
    struct turn turn;
    if (!some_snap(seed, &s))
        return;
    const struct vid disk = s.info.ref.disk;
    turn_take(disks, &turn, &disk, 1);
    if (rand_r(seed) % 2 == 0)
        expect(names_snap_relabel(n, &s.info.ref.snap, labels[(unsigned)rand_r(seed) % 3], err), err, 6);
    else
        expect(names_snap_remove(n, &s, err), err, 7);
    turn_give(disks, &turn);
}

static void *change_things(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < OPS; i++) {
        struct verr err = {0};
        unsigned what = (unsigned)rand_r(&seed) % 100;
        struct vid dir = some_dir(&seed);
        struct node made;
        if (what < 30)
            expect(names_create(n, &dir, some_name(&seed), what < 18 ? NODE_DIR : NODE_DISK, 0700, 1, 2, &made, NULL, &err), &err, 0);
        else if (what < 85)
            change_node(&seed, &err);
        else if (what < 98)
            change_snap(&seed, &err);
        else
            expect(names_reconcile(n, note_bad, NULL, &err), &err, 0);
    }
    return NULL;
}

/* ---- all rows, as text ---- */

struct text { char *s; size_t len; };

static void add_line(struct text *t, const char *line)
{
    size_t len = strlen(line);
    t->s = realloc(t->s, t->len + len + 1);
    assert_non_null(t->s);
    memcpy(t->s + t->len, line, len + 1);
    t->len += len;
}

static int add_node(void *ctx, const struct node *node)
{
    char line[600], id[VID_HEX], parent[VID_HEX];
    vid_hex(&node->id, id);
    vid_hex(&node->parent, parent);
    snprintf(line, sizeof line, "%s in %s: %s kind %u flags %u mode %o uid %u version %llu\n", id, parent, node->name, node->kind,
             node->flags, node->mode, node->uid, (unsigned long long)node->version);
    add_line(ctx, line);
    assert_null(strchr(node->name, '~'));       /* no two of one name, no circle, nothing lost */
    return 0;
}

static int add_snap(void *ctx, const struct snaprow *s)
{
    char line[600], id[VID_HEX], disk[VID_HEX];
    vid_hex(&s->info.ref.snap, id);
    vid_hex(&s->info.ref.disk, disk);
    snprintf(line, sizeof line, "%s of %s: %s state %u\n", id, disk, s->info.label, s->state);
    add_line(ctx, line);
    return 0;
}

static struct text all_rows(void)
{
    struct text t = {0};
    struct verr err = {0};
    must(catalog_node_each(c, add_node, &t, &err), &err);
    must(catalog_snap_each(c, add_snap, &t, &err), &err);
    return t;
}

static void changes_beside_each_other_keep_store_and_catalog_alike(void **state)
{
    pthread_t thread[THREADS];
    (void)state;
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, change_things, (void *)(uintptr_t)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&unexpected), 0);
    for (unsigned i = 0; i < 8; i++)
        assert_true(atomic_load(&done[i]) > 0);     /* each kind of change has happened */
    struct text before = all_rows();
    close_all();
    unlinkat(state_fd, "catalog.sqlite", 0);
    open_all();
    struct text after = all_rows();
    assert_string_equal(before.s, after.s);
    assert_int_equal(atomic_load(&damaged), 0);
    free(before.s);
    free(after.s);
}

static struct node make(const struct vid *dir, const char *name, enum node_kind kind)
{
    struct verr err = {0};
    struct node made;
    must(names_create(n, dir, name, kind, 0700, 0, 0, &made, NULL, &err), &err);
    return made;
}

/* ---- directories that move below each other ---- */

struct moving { struct vid node, to; int result; };

static void *move_dir(void *arg)
{
    struct moving *m = arg;
    m->result = names_rename(n, &m->node, &m->to, "moved", NULL);
    return NULL;
}

/* p/x goes below q/y, and q/y below p/x: the two have no directory in common, but only one may happen. */
static void directories_that_move_at_once_make_no_circle(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 100; round++) {
        struct node p = make(&root.id, "p", NODE_DIR), q = make(&root.id, "q", NODE_DIR), x = make(&p.id, "x", NODE_DIR);
        struct node y = make(&q.id, "y", NODE_DIR), in_x = make(&x.id, "in", NODE_DIR), in_y = make(&y.id, "in", NODE_DIR);
        struct moving m[2] = {{x.id, in_y.id, 0}, {y.id, in_x.id, 0}};
        pthread_t thread[2];
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, move_dir, &m[i]), 0);
        for (unsigned i = 0; i < 2; i++)
            pthread_join(thread[i], NULL);
        assert_int_equal(m[0].result + m[1].result, -EINVAL);
        unsigned first = m[0].result == 0 ? 0 : 1;      /* the one that moved is in the other */
        const struct vid order[2][6] = {{in_x.id, x.id, in_y.id, y.id, p.id, q.id}, {in_y.id, y.id, in_x.id, x.id, p.id, q.id}};
        for (unsigned i = 0; i < 6; i++)
            assert_int_equal(names_remove(n, &order[first][i], NULL), 0);
    }
}

/* ---- a change that hangs ---- */

struct hanging { struct vid dir; sem_t began, go; int result; };

static int hang(void *ctx, struct node *node, struct verr *err)
{
    struct hanging *h = ctx;
    (void)err;
    node->id = vid_random();
    sem_post(&h->began);
    sem_wait(&h->go);
    return 0;
}

static void *make_slowly(void *arg)
{
    struct hanging *h = arg;
    struct node made;
    h->result = names_create_disk(n, &h->dir, "slow", 0600, 0, 0, hang, h, &made, NULL);
    return NULL;
}

static void *remove_dir(void *arg)
{
    struct hanging *h = arg;
    h->result = names_remove(n, &h->dir, NULL);
    return NULL;
}

static void a_change_that_hangs_stops_its_directory_alone(void **state)
{
    struct verr err = {0};
    pthread_t maker, remover;
    (void)state;
    struct node slow = make(&root.id, "slow", NODE_DIR), one = make(&root.id, "one", NODE_DIR), two = make(&root.id, "two", NODE_DIR);
    struct hanging h = {.dir = slow.id}, removal = {.dir = slow.id};
    sem_init(&h.began, 0, 0);
    sem_init(&h.go, 0, 0);
    assert_int_equal(pthread_create(&maker, NULL, make_slowly, &h), 0);
    sem_wait(&h.began);
    /* Each of these hangs here if it waits for the one that hangs. */
    struct node disk = make(&one.id, "disk", NODE_DISK), target = make(&two.id, "target", NODE_DISK), dir = make(&one.id, "dir", NODE_DIR);
    must(names_setattr(n, &disk.id, SET_MODE, &(struct node){.mode = 0644}, NULL, &err), &err);
    must(names_setattr(n, &two.id, SET_MODE, &(struct node){.mode = 0711}, NULL, &err), &err);
    must(names_rename(n, &disk.id, &two.id, "moved", &err), &err);
    must(names_replace(n, &disk.id, &target.id, &err), &err);
    must(names_rename(n, &dir.id, &two.id, "dir", &err), &err);
    must(names_remove(n, &dir.id, &err), &err);
    must(names_rename(n, &two.id, &one.id, "two", &err), &err);
    must(names_remove(n, &target.id, &err), &err);
    /* A removal of the directory comes after it, and finds what it made. */
    assert_int_equal(pthread_create(&remover, NULL, remove_dir, &removal), 0);
    sem_post(&h.go);
    pthread_join(maker, NULL);
    pthread_join(remover, NULL);
    assert_true((h.result == 0 && removal.result == -ENOTEMPTY));
    sem_destroy(&h.began);
    sem_destroy(&h.go);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(changes_beside_each_other_keep_store_and_catalog_alike, setup, teardown),
        cmocka_unit_test_setup_teardown(directories_that_move_at_once_make_no_circle, setup, teardown),
        cmocka_unit_test_setup_teardown(a_change_that_hangs_stops_its_directory_alone, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
