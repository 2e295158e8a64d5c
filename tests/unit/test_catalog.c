/* SPDX-License-Identifier: Apache-2.0 */
/* The catalog: searches, order, transactions, and refusal of files and rows that make no sense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/verr.h"
#include "catalog/catalog.h"

struct fixture {
    char dir[64];
    int fd;
    struct vid store;
    struct catalog *c;
    struct verr err;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/varve-catalog-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    f->store = vid_random();
    assert_int_equal(catalog_open(f->fd, f->dir, &f->store, &f->c, &f->err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    catalog_close(f->c, NULL);
    close(f->fd);
    tree_remove(AT_FDCWD, f->dir);
    free(f);
    return 0;
}

static int reopen(struct fixture *f)
{
    if (f->c != NULL)
        assert_int_equal(catalog_close(f->c, &f->err), 0);
    f->c = NULL;
    memset(&f->err, 0, sizeof f->err);
    return catalog_open(f->fd, f->dir, &f->store, &f->c, &f->err);
}

static struct node make_node(const struct vid *parent, const char *name, uint32_t kind)
{
    struct node n = {.id = vid_random(), .parent = *parent, .version = 3, .kind = kind, .mode = 0640, .uid = 1, .gid = UINT32_MAX,
                     .atime_ns = -5, .mtime_ns = INT64_MAX, .ctime_ns = INT64_MIN, .btime_ns = 7};
    snprintf(n.name, sizeof n.name, "%s", name);
    return n;
}

static struct snaprow make_snap(const struct vid *disk, uint64_t seq, uint32_t state, const char *label)
{
    struct snaprow s;
    memset(&s, 0, sizeof s);
    s.info.ref.snap = vid_random();
    s.info.ref.disk = *disk;
    s.info.parent = vid_random();
    s.info.host = vid_random();
    s.info.group = vid_random();
    s.info.ref.seq = seq;
    s.state = state;
    s.info.flags = SNAP_PARTIAL;
    s.info.mode = 0440;
    s.info.size = 1000 + seq;
    s.info.alloc_bytes = 100;
    s.info.dirty_segments = 4;
    s.info.freeze_ns = -1;
    s.info.name_s = 1000000 + (int64_t)seq;
    snprintf(s.info.label, sizeof s.info.label, "%s", label);
    snprintf(s.info.note, sizeof s.info.note, "note \xff of %d", (int)seq);
    s.info.levels = (struct snap_levels){1, 2, 3, 4, 5, 6, 7, 8, 9};
    return s;
}

/* Field by field: structs have holes. */
static void assert_same_node(const struct node *a, const struct node *b)
{
    assert_memory_equal(&a->id, &b->id, sizeof a->id);
    assert_memory_equal(&a->parent, &b->parent, sizeof a->parent);
    assert_memory_equal(&a->replaces, &b->replaces, sizeof a->replaces);
    assert_true(a->version == b->version && a->kind == b->kind && a->flags == b->flags && a->mode == b->mode && a->uid == b->uid);
    assert_true(a->gid == b->gid && a->atime_ns == b->atime_ns && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns);
    assert_true(a->btime_ns == b->btime_ns);
    assert_string_equal(a->name, b->name);
}

static void assert_same_snap(const struct snaprow *a, const struct snaprow *b)
{
    assert_memory_equal(&a->info.ref.snap, &b->info.ref.snap, sizeof a->info.ref.snap);
    assert_memory_equal(&a->info.ref.disk, &b->info.ref.disk, sizeof a->info.ref.disk);
    assert_memory_equal(&a->info.parent, &b->info.parent, sizeof a->info.parent);
    assert_memory_equal(&a->info.host, &b->info.host, sizeof a->info.host);
    assert_memory_equal(&a->info.group, &b->info.group, sizeof a->info.group);
    assert_true(a->info.ref.seq == b->info.ref.seq && a->state == b->state && a->info.flags == b->info.flags &&
                a->info.mode == b->info.mode && a->info.uid == b->info.uid);
    assert_true(a->info.gid == b->info.gid && a->info.protected_ == b->info.protected_ && a->info.size == b->info.size &&
                a->info.alloc_bytes == b->info.alloc_bytes);
    assert_true(a->info.dirty_segments == b->info.dirty_segments && a->info.freeze_ns == b->info.freeze_ns &&
                a->info.name_s == b->info.name_s);
    assert_string_equal(a->info.label, b->info.label);
    assert_string_equal(a->info.note, b->info.note);
    assert_memory_equal(&a->info.levels, &b->info.levels, sizeof a->info.levels);
}

/* ---- transactions and faults ---- */

static void failed_commit_leaves_nothing_behind(void **state)
{
#ifdef VARVE_FAULTS
    struct fixture *f = *state;     /* main() lets the second commit of the process fail: the first one made the schema */
    char value[16];
    assert_int_equal(catalog_begin(f->c, &f->err), 0);
    assert_int_equal(catalog_set(f->c, "a", "1", &f->err), 0);
    assert_int_equal(catalog_commit(f->c, &f->err), -EIO);
    assert_int_equal(catalog_get(f->c, "a", value, sizeof value, &f->err), -ENOENT);
    assert_int_equal(catalog_set(f->c, "a", "2", &f->err), 0);
    assert_int_equal(catalog_get(f->c, "a", value, sizeof value, &f->err), 0);
    assert_string_equal(value, "2");
#else
    (void)state;
    skip();
#endif
}

static void rolled_back_part_dooms_the_whole(void **state)
{
    struct fixture *f = *state;
    char value[16];
    assert_int_equal(catalog_begin(f->c, &f->err), 0);
    assert_int_equal(catalog_set(f->c, "outer", "1", &f->err), 0);
    assert_int_equal(catalog_begin(f->c, &f->err), 0);
    assert_int_equal(catalog_set(f->c, "inner", "1", &f->err), 0);
    catalog_rollback(f->c);
    assert_int_equal(catalog_commit(f->c, &f->err), -ECANCELED);
    assert_int_equal(catalog_get(f->c, "outer", value, sizeof value, &f->err), -ENOENT);

    assert_int_equal(catalog_begin(f->c, &f->err), 0);
    assert_int_equal(catalog_begin(f->c, &f->err), 0);
    assert_int_equal(catalog_set(f->c, "both", "1", &f->err), 0);
    assert_int_equal(catalog_commit(f->c, &f->err), 0);
    assert_int_equal(catalog_commit(f->c, &f->err), 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(catalog_get(f->c, "both", value, sizeof value, &f->err), 0);
}

static void *count_up(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < 200; i++) {
        char value[16] = "0";
        assert_int_equal(catalog_begin(f->c, NULL), 0);
        catalog_get(f->c, "counter", value, sizeof value, NULL);
        snprintf(value, sizeof value, "%d", atoi(value) + 1);
        assert_int_equal(catalog_set(f->c, "counter", value, NULL), 0);
        assert_int_equal(catalog_commit(f->c, NULL), 0);
    }
    return NULL;
}

static void transactions_of_threads_do_not_mix(void **state)
{
    struct fixture *f = *state;
    pthread_t t[3];
    char value[16];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, count_up, f), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(catalog_get(f->c, "counter", value, sizeof value, &f->err), 0);
    assert_string_equal(value, "600");
}

static void killed_process_keeps_commits_and_loses_the_rest(void **state)
{
    struct fixture *f = *state;
    char value[16];
    struct vid root = {{0}};
    const struct node kept = make_node(&root, "kept", NODE_DIR);
    assert_int_equal(catalog_close(f->c, &f->err), 0);
    f->c = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        struct catalog *c;
        if (catalog_open(f->fd, f->dir, &f->store, &c, NULL) < 0 || catalog_node_put(c, &kept, NULL) < 0 || catalog_begin(c, NULL) < 0 ||
            catalog_set(c, "open", "1", NULL) < 0)
            _exit(1);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    struct stat wal;
    assert_int_equal(fstatat(f->fd, "catalog.sqlite-wal", &wal, 0), 0);
    assert_int_equal(reopen(f), 0);
    struct node n;
    assert_int_equal(catalog_node_by_id(f->c, &kept.id, &n, &f->err), 0);
    assert_int_equal(catalog_get(f->c, "open", value, sizeof value, &f->err), -ENOENT);

    /* And a log whose database is gone is not taken for part of the next one. */
    assert_int_equal(catalog_close(f->c, &f->err), 0);
    f->c = NULL;
    pid = fork();
    if (pid == 0) {
        struct catalog *c;
        _exit(catalog_open(f->fd, f->dir, &f->store, &c, NULL) < 0 || catalog_set(c, "old", "1", NULL) < 0);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(unlinkat(f->fd, "catalog.sqlite", 0), 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(catalog_get(f->c, "old", value, sizeof value, &f->err), -ENOENT);
    assert_int_equal(catalog_node_by_id(f->c, &kept.id, &n, &f->err), -ENOENT);
}

static void second_process_is_kept_out(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork();
    if (pid == 0) {
        struct catalog *c;
        _exit(catalog_open(f->fd, f->dir, &f->store, &c, NULL) == -EBUSY ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

/* ---- nodes ---- */

static void node_is_found_by_id_inode_and_name(void **state)
{
    struct fixture *f = *state;
    struct vid zero = {{0}};
    struct node root = make_node(&zero, "root", NODE_DIR), got;
    struct node disk = make_node(&root.id, "k\xc3\xa4se\xff.img", NODE_DISK);
    disk.replaces = vid_random();
    disk.flags = NODE_GONE;
    assert_int_equal(catalog_node_put(f->c, &root, &f->err), 0);
    assert_int_equal(catalog_node_put(f->c, &disk, &f->err), 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(catalog_node_by_id(f->c, &disk.id, &got, &f->err), 0);
    assert_same_node(&got, &disk);
    assert_int_equal(catalog_node_by_ino(f->c, vid_ino(&disk.id), &got, &f->err), 0);
    assert_same_node(&got, &disk);
    assert_int_equal(catalog_node_by_name(f->c, &root.id, disk.name, &got, &f->err), 0);
    assert_same_node(&got, &disk);
    assert_int_equal(catalog_node_by_name(f->c, &disk.id, disk.name, &got, &f->err), -ENOENT);
    assert_int_equal(catalog_node_by_ino(f->c, UINT64_MAX, &got, &f->err), -ENOENT);
    disk.version = 4;
    strcpy(disk.name, "other.img");
    assert_int_equal(catalog_node_put(f->c, &disk, &f->err), 0);
    assert_int_equal(catalog_node_by_id(f->c, &disk.id, &got, &f->err), 0);
    assert_same_node(&got, &disk);
    assert_int_equal(catalog_node_del(f->c, &disk.id, &f->err), 0);
    assert_int_equal(catalog_node_del(f->c, &disk.id, &f->err), 0);
    assert_int_equal(catalog_node_by_name(f->c, &root.id, disk.name, &got, &f->err), -ENOENT);
}

static void one_name_belongs_to_one_node(void **state)
{
    struct fixture *f = *state;
    struct vid parent = vid_random();
    struct node live = make_node(&parent, "disk.img", NODE_DISK), gone = make_node(&parent, "disk.img", NODE_DISK), got;
    gone.flags = NODE_GONE;
    assert_int_equal(catalog_node_put(f->c, &gone, &f->err), 0);
    assert_int_equal(catalog_node_put(f->c, &live, &f->err), -EEXIST);
    assert_int_equal(catalog_node_by_name(f->c, &parent, "disk.img", &got, &f->err), 0);
    assert_same_node(&got, &gone);
}

static void senseless_node_is_refused(void **state)
{
    struct fixture *f = *state;
    struct vid parent = vid_random(), zero = {{0}};
    struct node good = make_node(&parent, "a", NODE_DIR), n = good;
    n.kind = 3;
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    n = good;
    n.name[0] = '\0';
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    n = good;
    strcpy(n.name, "a/b");
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    n = good;
    n.parent = n.id;
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    n = good;
    n.id = zero;
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    n = good;
    n.mode = 010000;
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    n = good;
    n.version = (uint64_t)INT64_MAX + 1;
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), -EINVAL);
    assert_int_equal(catalog_node_put(f->c, &good, &f->err), 0);
}

static void children_come_in_order_and_in_batches(void **state)
{
    struct fixture *f = *state;
    struct vid parent = vid_random(), other = vid_random();
    char after[256] = "", last[256] = "";
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d", i * 7919 % 200);
        struct node n = make_node(&parent, name, i % 4 == 0 ? NODE_DIR : NODE_DISK);
        assert_int_equal(catalog_node_put(f->c, &n, &f->err), 0);
        n = make_node(&other, name, NODE_DIR);
        assert_int_equal(catalog_node_put(f->c, &n, &f->err), 0);
    }
    struct node batch[7];
    int total = 0, got;
    while ((got = catalog_children(f->c, &parent, after, batch, 7, &f->err)) > 0) {
        for (int i = 0; i < got; i++) {
            assert_true(strcmp(last, batch[i].name) < 0);
            assert_memory_equal(&batch[i].parent, &parent, sizeof parent);
            strcpy(last, batch[i].name);
        }
        strcpy(after, last);
        total += got;
    }
    assert_int_equal(got, 0);
    assert_int_equal(total, 200);
    uint64_t dirs, all;
    assert_int_equal(catalog_child_count(f->c, &parent, &dirs, &all, &f->err), 0);
    assert_int_equal(dirs, 50);
    assert_int_equal(all, 200);
}

static int drop_node(void *ctx, const struct node *n)
{
    struct fixture *f = ctx;
    return catalog_node_del(f->c, &n->id, &f->err);
}

static int stop_third(void *ctx, const struct node *n)
{
    (void)n;
    return ++*(int *)ctx == 3 ? 42 : 0;
}

static void each_may_change_rows_and_stops_when_told(void **state)
{
    struct fixture *f = *state;
    struct vid parent = vid_random();
    int seen = 0;
    uint64_t dirs, all;
    for (int i = 0; i < 200; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d", i);
        struct node n = make_node(&parent, name, NODE_DISK);
        assert_int_equal(catalog_node_put(f->c, &n, &f->err), 0);
    }
    assert_int_equal(catalog_node_each(f->c, stop_third, &seen, &f->err), 42);
    assert_int_equal(seen, 3);
    assert_int_equal(catalog_node_each(f->c, drop_node, f, &f->err), 0);
    assert_int_equal(catalog_child_count(f->c, &parent, &dirs, &all, &f->err), 0);
    assert_int_equal(all, 0);
}

/* ---- snapshots ---- */

static void snapshot_is_found_by_id_inode_label_and_time(void **state)
{
    struct fixture *f = *state;
    struct vid disk = vid_random();
    struct snaprow a = make_snap(&disk, 1, SNAPST_STORED, ""), b = make_snap(&disk, 2, SNAPST_PENDING, "v1.2"), got;
    b.info.protected_ = true;
    assert_int_equal(catalog_snap_put(f->c, &a, &f->err), 0);
    assert_int_equal(catalog_snap_put(f->c, &b, &f->err), 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(catalog_snap_by_id(f->c, &b.info.ref.snap, &got, &f->err), 0);
    assert_same_snap(&got, &b);
    assert_int_equal(catalog_snap_by_ino(f->c, vid_ino(&a.info.ref.snap), &got, &f->err), 0);
    assert_same_snap(&got, &a);
    assert_int_equal(catalog_snap_by_name(f->c, &disk, "v1.2", 0, &got, &f->err), 0);
    assert_same_snap(&got, &b);
    assert_int_equal(catalog_snap_by_name(f->c, &disk, "", a.info.name_s, &got, &f->err), 0);
    assert_same_snap(&got, &a);
    assert_int_equal(catalog_snap_by_name(f->c, &disk, "", b.info.name_s, &got, &f->err), -ENOENT);     /* it has a label */
    assert_int_equal(catalog_snap_latest(f->c, &disk, &got, &f->err), 0);
    assert_same_snap(&got, &a);                                                                     /* b is not stored */
    uint64_t n;
    assert_int_equal(catalog_snap_count(f->c, &disk, &n, &f->err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(catalog_snap_del(f->c, &a.info.ref.snap, &f->err), 0);
    assert_int_equal(catalog_snap_latest(f->c, &disk, &got, &f->err), -ENOENT);
}

static void snapshots_come_by_sequence_and_none_is_lost_between_pages(void **state)
{
    struct fixture *f = *state;
    struct vid disk = vid_random(), other = vid_random();
    for (int i = 0; i < 60; i++) {
        struct snaprow s = make_snap(&disk, 1 + (uint64_t)(i * 37 % 60) / 2, SNAPST_STORED, "");   /* each sequence twice */
        assert_int_equal(catalog_snap_put(f->c, &s, &f->err), 0);
        s = make_snap(&other, (uint64_t)i + 1, SNAPST_STORED, "");
        assert_int_equal(catalog_snap_put(f->c, &s, &f->err), 0);
    }
    struct snaprow page[7];
    uint64_t after = 0;
    int got, total = 0;
    while ((got = catalog_snaps(f->c, &disk, after, page, 7, &f->err)) > 0) {
        for (int i = 0; i < got; i++) {
            assert_true(page[i].info.ref.seq > after);
            assert_true(i == 0 || page[i].info.ref.seq >= page[i - 1].info.ref.seq);
        }
        after = page[got - 1].info.ref.seq;
        total += got;
    }
    assert_int_equal(got, 0);
    assert_int_equal(total, 60);
    assert_int_equal(catalog_snaps(f->c, &disk, UINT64_MAX, page, 7, &f->err), 0);
    uint64_t before = UINT64_MAX;
    for (total = 0; (got = catalog_snaps_back(f->c, &other, before, page, 7, &f->err)) > 0; total += got) {
        for (int i = 0; i < got; i++)
            assert_int_equal(page[i].info.ref.seq, 60 - total - i);
        before = page[got - 1].info.ref.seq;
    }
    assert_int_equal(got, 0);
    assert_int_equal(total, 60);
    struct vid disks[3], zero = {{0}};
    assert_int_equal(catalog_snap_disks(f->c, &zero, disks, 3, &f->err), 2);
    assert_int_equal(catalog_snap_disks(f->c, &disks[0], disks, 3, &f->err), 1);
}

static void senseless_snapshot_is_refused(void **state)
{
    struct fixture *f = *state;
    struct vid disk = vid_random();
    struct snaprow good = make_snap(&disk, 1, SNAPST_STORED, "ok"), s = good;
    s.state = 4;
    assert_int_equal(catalog_snap_put(f->c, &s, &f->err), -EINVAL);
    s = good;
    strcpy(s.info.label, "a@b");
    assert_int_equal(catalog_snap_put(f->c, &s, &f->err), -EINVAL);
    s = good;
    s.info.size = UINT64_MAX;
    assert_int_equal(catalog_snap_put(f->c, &s, &f->err), -EINVAL);
    s = good;
    s.info.name_s = -1;
    assert_int_equal(catalog_snap_put(f->c, &s, &f->err), -EINVAL);
    s = good;
    memset(s.info.note, 'x', sizeof s.info.note);
    assert_int_equal(catalog_snap_put(f->c, &s, &f->err), -EINVAL);
    assert_int_equal(catalog_snap_put(f->c, &good, &f->err), 0);
}

static void totals_add_up_and_saturate(void **state)
{
    struct fixture *f = *state;
    struct vid dir = vid_random();
    struct node a = make_node(&dir, "a", NODE_DISK), b = make_node(&dir, "b", NODE_DISK);
    b.flags = NODE_GONE;
    assert_int_equal(catalog_node_put(f->c, &a, &f->err), 0);
    assert_int_equal(catalog_node_put(f->c, &b, &f->err), 0);
    for (uint64_t i = 1; i <= 5; i++) {
        struct snaprow s = make_snap(&a.id, i, i == 4 ? SNAPST_PENDING : i == 5 ? SNAPST_FAILED : SNAPST_STORED, "");
        s.info.alloc_bytes = INT64_MAX;
        assert_int_equal(catalog_snap_put(f->c, &s, &f->err), 0);
    }
    struct catalog_totals t;
    assert_int_equal(catalog_totals(f->c, &t, &f->err), 0);
    assert_int_equal(t.disks, 1);
    assert_int_equal(t.snapshots, 3);
    assert_int_equal(t.pending, 1);
    assert_int_equal(t.failed, 1);
    assert_int_equal(t.logical_bytes, 3006);
    assert_true(t.alloc_bytes == UINT64_MAX);
    assert_int_equal(t.levels.stored, 27);
}

static void setting_longer_than_the_buffer_is_an_error(void **state)
{
    struct fixture *f = *state;
    char value[4];
    assert_int_equal(catalog_get(f->c, "k", value, sizeof value, &f->err), -ENOENT);
    assert_int_equal(catalog_set(f->c, "k", "abc", &f->err), 0);
    assert_int_equal(catalog_get(f->c, "k", value, sizeof value, &f->err), 0);
    assert_string_equal(value, "abc");
    assert_int_equal(catalog_set(f->c, "k", "abcd", &f->err), 0);
    assert_int_equal(catalog_get(f->c, "k", value, sizeof value, &f->err), -ERANGE);
}

/* ---- files and rows that make no sense ---- */

/* As after a kill: there is no checksum of the whole file, so other checks are reached. */
static void patch(struct fixture *f, off_t off, const void *bytes, size_t len)
{
    unlinkat(f->fd, "catalog.sqlite.sum", 0);
    int fd = openat(f->fd, "catalog.sqlite", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite_full(fd, bytes, len, off), 0);
    close(fd);
}

/* Replaces each occurrence of `from` in the closed file. */
static unsigned patch_all(struct fixture *f, const char *from, const char *to)
{
    uint8_t *data;
    size_t len, n = strlen(from);
    unsigned found = 0;
    assert_int_equal(file_load(f->fd, "catalog.sqlite", 1 << 24, &data, &len), 0);
    for (size_t i = 0; i + n <= len; i++) {
        if (memcmp(data + i, from, n) == 0) {
            patch(f, (off_t)i, to, n);
            found++;
        }
    }
    free(data);
    return found;
}

static void assert_says_rebuild(const struct fixture *f)
{
    assert_int_equal(f->err.code, EBADMSG);
    assert_non_null(strstr(f->err.text, "catalog.sqlite"));
    assert_non_null(strstr(f->err.text, "varve rebuild"));
}

static void close_catalog(struct fixture *f)
{
    assert_int_equal(catalog_close(f->c, &f->err), 0);
    f->c = NULL;
}

static void row_that_makes_no_sense_is_damage(void **state)
{
    struct fixture *f = *state;
    struct vid disk = vid_random();
    struct snaprow s = make_snap(&disk, 1, SNAPST_STORED, "marklabel"), good = make_snap(&disk, 2, SNAPST_STORED, ""), got;
    struct node n = make_node(&disk, "markname", NODE_DIR), node;
    assert_int_equal(catalog_snap_put(f->c, &s, &f->err), 0);
    assert_int_equal(catalog_snap_put(f->c, &good, &f->err), 0);
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), 0);
    close_catalog(f);
    assert_true(patch_all(f, "marklabel", "mark@abel") > 0);
    assert_true(patch_all(f, "markname", "mark/ame") > 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(catalog_snap_by_id(f->c, &s.info.ref.snap, &got, &f->err), -EBADMSG);
    assert_says_rebuild(f);
    assert_non_null(strstr(f->err.text, "label"));
    memset(&f->err, 0, sizeof f->err);
    assert_int_equal(catalog_node_by_id(f->c, &n.id, &node, &f->err), -EBADMSG);
    assert_says_rebuild(f);
    assert_int_equal(catalog_snap_by_id(f->c, &good.info.ref.snap, &got, &f->err), 0);
}

static void damaged_file_is_refused(void **state)
{
    struct fixture *f = *state;
    struct vid parent = vid_random();
    uint8_t junk[4096];
    memset(junk, 0x5a, sizeof junk);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d", i);
        struct node n = make_node(&parent, name, NODE_DISK);
        assert_int_equal(catalog_node_put(f->c, &n, &f->err), 0);
    }
    close_catalog(f);
    patch(f, 10 * 4096, junk, sizeof junk);
    assert_int_equal(reopen(f), -EBADMSG);
    assert_says_rebuild(f);
    patch(f, 0, junk, 100);
    assert_int_equal(reopen(f), -EBADMSG);
    assert_says_rebuild(f);
    /* What the message says helps: with the file away, a new one is made. */
    assert_int_equal(unlinkat(f->fd, "catalog.sqlite", 0), 0);
    assert_int_equal(reopen(f), 0);
}

/* A bit that SQLite cannot miss: a character of a name, after a clean stop. */
static void value_changed_at_rest_is_damage(void **state)
{
    struct fixture *f = *state;
    struct vid parent = vid_random();
    struct node n = make_node(&parent, "markname", NODE_DISK), got;
    assert_int_equal(catalog_node_put(f->c, &n, &f->err), 0);
    close_catalog(f);
    assert_int_equal(reopen(f), 0);         /* the sum fits, and goes */
    assert_true(faccessat(f->fd, "catalog.sqlite.sum", F_OK, 0) < 0);
    close_catalog(f);
    uint8_t *sum;
    size_t len;
    assert_int_equal(file_load(f->fd, "catalog.sqlite.sum", 100, &sum, &len), 0);
    assert_int_equal(patch_all(f, "markname", "merkname") > 0, 1);
    assert_int_equal(file_replace(f->fd, "catalog.sqlite.sum", sum, len), 0);
    free(sum);
    assert_int_equal(reopen(f), -EBADMSG);
    assert_says_rebuild(f);
    assert_int_equal(catalog_set_aside(f->fd), 0);
    assert_int_equal(reopen(f), 0);
    assert_int_equal(catalog_node_by_id(f->c, &n.id, &got, &f->err), -ENOENT);
}

static void foreign_and_newer_files_are_refused(void **state)
{
    struct fixture *f = *state;
    const struct vid mine = f->store;
    f->store = vid_random();
    assert_int_equal(reopen(f), -EBADMSG);
    assert_says_rebuild(f);
    f->store = mine;
    static const uint8_t two[4] = {0, 0, 0, 2}, one[4] = {0, 0, 0, 1}, alien[4] = {1, 2, 3, 4};
    patch(f, 60, two, sizeof two);          /* user_version */
    assert_int_equal(reopen(f), -EBADMSG);
    assert_says_rebuild(f);
    patch(f, 60, one, sizeof one);
    assert_int_equal(reopen(f), 0);
    close_catalog(f);
    patch(f, 68, alien, sizeof alien);      /* application_id */
    assert_int_equal(reopen(f), -EBADMSG);
    assert_says_rebuild(f);
    assert_int_equal(unlinkat(f->fd, "catalog.sqlite", 0), 0);
    assert_int_equal(symlinkat("/nowhere", f->fd, "catalog.sqlite"), 0);
    assert_int_equal(reopen(f), -EBADMSG);
    assert_int_equal(unlinkat(f->fd, "catalog.sqlite", 0), 0);
    assert_int_equal(reopen(f), 0);
}

static void file_is_private_and_closed_without_a_log(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    assert_int_equal(catalog_set(f->c, "k", "v", &f->err), 0);
    assert_int_equal(fstatat(f->fd, "catalog.sqlite-wal", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    close_catalog(f);
    assert_int_equal(fstatat(f->fd, "catalog.sqlite", &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(fstatat(f->fd, "catalog.sqlite-wal", &st, 0) < 0 || st.st_size == 0);
    assert_true(fstatat(f->fd, "catalog.sqlite-shm", &st, 0) < 0);
    assert_int_equal(reopen(f), 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    setenv("VARVE_FAULT", "catalog.commit.before:2=5", 1);
    const struct CMUnitTest tests[] = {
        T(failed_commit_leaves_nothing_behind),     /* must be the first */
        T(rolled_back_part_dooms_the_whole),
        T(transactions_of_threads_do_not_mix),
        T(killed_process_keeps_commits_and_loses_the_rest),
        T(second_process_is_kept_out),
        T(node_is_found_by_id_inode_and_name),
        T(one_name_belongs_to_one_node),
        T(senseless_node_is_refused),
        T(children_come_in_order_and_in_batches),
        T(each_may_change_rows_and_stops_when_told),
        T(snapshot_is_found_by_id_inode_label_and_time),
        T(snapshots_come_by_sequence_and_none_is_lost_between_pages),
        T(senseless_snapshot_is_refused),
        T(totals_add_up_and_saturate),
        T(setting_longer_than_the_buffer_is_an_error),
        T(row_that_makes_no_sense_is_damage),
        T(damaged_file_is_refused),
        T(value_changed_at_rest_is_damage),
        T(foreign_and_newer_files_are_refused),
        T(file_is_private_and_closed_without_a_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
