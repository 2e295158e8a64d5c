/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Store: init and open with what can be wrong about a directory, node records, names of snapshot files, disk directories,
 * trash and anchors.
 */
#include "store/publish.h"
#include "store/store_internal.h"

#include "store_fixture.h"
#include "store/snaps.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct mkstore m;

static int setup(void **state)
{
    (void)state;
    return mks_make(&m);
}

static int teardown(void **state)
{
    (void)state;
    mks_remove(&m);
    return 0;
}

static void write_file(int dirfd, const char *name, const char *text)
{
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite_full(fd, text, strlen(text), 0), 0);
    close(fd);
}

static int count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static int entries(int dirfd)
{
    int n = 0;
    assert_int_equal(dir_each(dirfd, count_name, &n), 0);
    return n;
}

static bool exists(int dirfd, const char *name)
{
    return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- init and open ---- */

static int find_root(void *ctx, const struct vid *id)
{
    struct node n;
    assert_int_equal(store_node_load(m.st, id, &n, NULL), 0);
    assert_true(vid_is_zero(&n.parent));
    assert_string_equal(n.name, "root");
    assert_int_equal(n.kind, NODE_DIR);
    assert_int_equal(n.mode, 0755);
    assert_int_equal(n.uid, geteuid());
    ++*(int *)ctx;
    return 0;
}

static void init_makes_a_whole_store(void **state)
{
    (void)state;
    struct stat st;
    int roots = 0;
    for (int i = 0; i < STORE_DIRS; i++) {
        assert_int_equal(fstat(store_dirfd(m.st, (enum store_dir)i), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);
    }
    assert_int_equal(fstatat(store_rootfd(m.st), "store.conf", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(entries(store_rootfd(m.st)), STORE_DIRS + 1);
    assert_true(exists(store_dirfd(m.st, DIR_GENERATIONS), "0000000000000001/leases"));
    assert_true(exists(store_dirfd(m.st, DIR_GENERATIONS), "0000000000000001/deletions"));
    assert_int_equal(store_node_each(m.st, find_root, &roots, NULL), 0);
    assert_int_equal(roots, 1);
    assert_string_equal(store_path(m.st), m.path);
}

static void init_refuses_a_store_and_a_full_directory(void **state)
{
    (void)state;
    struct verr err = {0};
    struct store_conf conf;
    char path[256];
    storeconf_default(&conf);
    assert_int_equal(store_init(m.path, &conf, (uid_t)-1, (gid_t)-1, &err), -EEXIST);
    snprintf(path, sizeof path, "%s/full", m.dir);
    assert_int_equal(mkdir(path, 0700), 0);
    int fd = dir_open(AT_FDCWD, path);
    write_file(fd, "something", "x");
    close(fd);
    assert_int_equal(store_init(path, &conf, (uid_t)-1, (gid_t)-1, &err), -ENOTEMPTY);
    assert_non_null(strstr(err.text, path));
    snprintf(path, sizeof path, "%s/absent/store", m.dir);
    assert_int_equal(store_init(path, &conf, (uid_t)-1, (gid_t)-1, &err), -ENOENT);
}

static void init_accepts_an_empty_directory_with_lost_and_found(void **state)
{
    (void)state;
    struct store_conf conf;
    struct store *st;
    char path[256], lost[300];
    storeconf_default(&conf);
    snprintf(path, sizeof path, "%s/fs", m.dir);
    snprintf(lost, sizeof lost, "%s/lost+found", path);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(mkdir(lost, 0700), 0);
    assert_int_equal(store_init(path, &conf, (uid_t)-1, (gid_t)-1, NULL), 0);
    assert_int_equal(store_open(path, &st, NULL), 0);
    store_close(st);
}

static void assert_owner(int dirfd, const char *name, uid_t uid, gid_t gid)
{
    struct stat st;
    assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_uid, uid);
    assert_int_equal(st.st_gid, gid);
    if (S_ISDIR(st.st_mode)) {
        int fd = dir_open(dirfd, name);
        assert_true(fd >= 0);
        if (strcmp(name, "generations") == 0) {
            assert_owner(fd, "0000000000000001", uid, gid);
            assert_owner(fd, "0000000000000001/leases", uid, gid);
            assert_owner(fd, "0000000000000001/deletions", uid, gid);
        }
        close(fd);
    }
}

static void init_gives_everything_to_the_owner(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    struct store_conf conf;
    struct store *st;
    char path[256];
    storeconf_default(&conf);
    snprintf(path, sizeof path, "%s/given", m.dir);
    assert_int_equal(store_init(path, &conf, 12345, 23456, NULL), 0);
    assert_int_equal(store_open(path, &st, NULL), 0);
    assert_owner(store_rootfd(st), ".", 12345, 23456);
    assert_owner(store_rootfd(st), "store.conf", 12345, 23456);
    for (int i = 0; i < STORE_DIRS; i++)
        assert_owner(store_rootfd(st), store_dir_names[i], 12345, 23456);
    store_close(st);
}

static void open_refuses_what_is_no_store(void **state)
{
    (void)state;
    struct verr err = {0};
    struct store *st = NULL;
    char path[256];
    snprintf(path, sizeof path, "%s/absent", m.dir);
    assert_int_equal(store_open(path, &st, &err), -ENOENT);
    assert_int_equal(store_open(m.dir, &st, &err), -ENOENT);
    assert_non_null(strstr(err.text, "varve init"));
    assert_null(st);
}

static void open_refuses_a_damaged_store_conf(void **state)
{
    (void)state;
    struct verr err = {0};
    struct store *st = NULL;
    uint8_t *text;
    size_t len;
    assert_int_equal(file_load(store_rootfd(m.st), "store.conf", STORECONF_MAX, &text, &len), 0);
    for (size_t i = 0; i < len; i += 7) {
        text[i] ^= 1;
        assert_int_equal(file_replace(store_rootfd(m.st), "store.conf", text, len), 0);
        int r = store_open(m.path, &st, &err);
        assert_true(r == -EBADMSG || r == -ENOTSUP);
        assert_non_null(strstr(err.text, "store.conf"));
        text[i] ^= 1;
    }
    assert_int_equal(file_replace(store_rootfd(m.st), "store.conf", text, len / 2), 0);
    assert_int_equal(store_open(m.path, &st, &err), -EBADMSG);
    assert_int_equal(file_replace(store_rootfd(m.st), "store.conf", text, 0), 0);
    assert_int_equal(store_open(m.path, &st, &err), -EBADMSG);
    free(text);
}

static void open_names_the_directory_that_is_missing(void **state)
{
    (void)state;
    struct verr err = {0};
    struct store *st = NULL;
    for (int i = 0; i < STORE_DIRS; i++) {
        assert_int_equal(renameat(store_rootfd(m.st), store_dir_names[i], store_rootfd(m.st), "away"), 0);
        assert_int_equal(store_open(m.path, &st, &err), -EBADMSG);
        assert_non_null(strstr(err.text, store_dir_names[i]));
        assert_int_equal(renameat(store_rootfd(m.st), "away", store_rootfd(m.st), store_dir_names[i]), 0);
    }
    assert_int_equal(store_open(m.path, &st, &err), 0);
    store_close(st);
}

static void init_that_fails_before_store_conf_leaves_no_store(void **state)
{
    (void)state;
    char path[256];
    struct store *st = NULL;
    snprintf(path, sizeof path, "%s/half", m.dir);
    assert_int_equal(mks_child("init", path, "store.init.before_conf:1=28"), 28);
    assert_int_equal(store_open(path, &st, NULL), -ENOENT);
    snprintf(path, sizeof path, "%s/killed", m.dir);
    assert_int_equal(mks_child("init", path, "store.init.before_conf:1=kill"), 1009);
    assert_int_equal(store_open(path, &st, NULL), -ENOENT);
}

/* ---- nodes ---- */

static struct node some_node(const char *name)
{
    struct node n = {.id = vid_random(), .parent = vid_random(), .version = 1, .kind = NODE_DISK, .mode = 0640};
    snprintf(n.name, sizeof n.name, "%s", name);
    return n;
}

static void node_lives_through_create_update_remove(void **state)
{
    (void)state;
    struct verr err = {0};
    struct node n = some_node("disk.img"), got;
    assert_int_equal(store_node_load(m.st, &n.id, &got, &err), -ENOENT);
    assert_int_equal(store_node_update(m.st, &n, &err), -ENOENT);
    assert_int_equal(store_node_create(m.st, &n, &err), 0);
    assert_int_equal(store_node_create(m.st, &n, &err), -EEXIST);
    n.version = 2;
    snprintf(n.name, sizeof n.name, "other.img");
    assert_int_equal(store_node_update(m.st, &n, &err), 0);
    assert_int_equal(store_node_load(m.st, &n.id, &got, &err), 0);
    assert_string_equal(got.name, "other.img");
    assert_int_equal(got.version, 2);
    assert_int_equal(store_node_remove(m.st, &n.id, &err), 0);
    assert_int_equal(store_node_remove(m.st, &n.id, &err), 0);
    assert_int_equal(store_node_load(m.st, &n.id, &got, &err), -ENOENT);
    n.kind = 99;
    assert_int_equal(store_node_create(m.st, &n, &err), -EINVAL);
}

static void damaged_or_foreign_node_is_refused(void **state)
{
    (void)state;
    struct verr err = {0};
    struct node n = some_node("a"), got;
    struct vid other = vid_random();
    char hex[VID_HEX], hex2[VID_HEX];
    int dir = store_dirfd(m.st, DIR_NODES);
    vid_hex(&n.id, hex);
    vid_hex(&other, hex2);
    assert_int_equal(store_node_create(m.st, &n, &err), 0);
    assert_int_equal(linkat(dir, hex, dir, hex2, 0), 0);
    assert_int_equal(store_node_load(m.st, &other, &got, &err), -EBADMSG);
    assert_non_null(strstr(err.text, hex2));
    write_file(dir, hex, "short");
    assert_int_equal(store_node_load(m.st, &n.id, &got, &err), -EBADMSG);
}

static int stop_at_second(void *ctx, const struct vid *id)
{
    (void)id;
    return ++*(int *)ctx == 2 ? 7 : 0;
}

static int only_count(void *ctx, const struct vid *id)
{
    (void)id;
    ++*(int *)ctx;
    return 0;
}

struct strays { char path[80]; int n; };

static int keep_stray(void *ctx, const char *path)
{
    struct strays *s = ctx;
    snprintf(s->path, sizeof s->path, "%s", path);
    s->n++;
    return 0;
}

static void node_listing_skips_temporaries_and_tells_strange_names_apart(void **state)
{
    (void)state;
    struct verr err = {0};
    struct node a = some_node("a"), b = some_node("b");
    int n = 0;
    store_node_create(m.st, &a, NULL);
    store_node_create(m.st, &b, NULL);
    write_file(store_dirfd(m.st, DIR_NODES), ".tmp-123", "x");
    assert_int_equal(store_node_each(m.st, only_count, &n, &err), 0);
    assert_int_equal(n, 3);
    n = 0;
    assert_int_equal(store_node_each(m.st, stop_at_second, &n, &err), 7);
    struct strays s = {.n = 0};
    assert_int_equal(store_node_strays(m.st, keep_stray, &s, &err), 0);
    assert_int_equal(s.n, 0);
    write_file(store_dirfd(m.st, DIR_NODES), "README", "x");
    n = 0;
    assert_int_equal(store_node_each(m.st, only_count, &n, &err), 0);
    assert_int_equal(n, 3);
    assert_int_equal(store_node_strays(m.st, keep_stray, &s, &err), 0);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.path, "nodes/README");
}

/* ---- snapshot files ---- */

static void snapshot_names_sort_by_sequence_and_parse_back(void **state)
{
    (void)state;
    char a[SNAP_FILE_MAX], b[SNAP_FILE_MAX];
    struct vid id = vid_random(), got;
    uint64_t seq;
    store_snap_file(9, &id, "rcp", a);
    store_snap_file(10, &id, ".rcp", b);
    assert_true(strcmp(a, b) < 0);
    assert_int_equal(store_snap_file_parse(a, "rcp", &seq, &got), 0);
    assert_int_equal(seq, 9);
    assert_true(vid_eq(&id, &got));
    assert_int_equal(store_snap_file_parse(b, ".rcp", &seq, &got), 0);
    assert_int_equal(seq, 10);
    assert_int_equal(store_snap_file_parse(a, "attr", &seq, &got), -EINVAL);
    for (size_t i = 0; i < strlen(a); i++) { /* every shorter name, and every name with a strange character in it */
        char cut[SNAP_FILE_MAX];
        snprintf(cut, sizeof cut, "%.*s", (int)i, a);
        assert_int_equal(store_snap_file_parse(cut, "rcp", &seq, &got), -EINVAL);
        snprintf(cut, sizeof cut, "%s", a);
        cut[i] = '/';
        assert_int_equal(store_snap_file_parse(cut, "rcp", &seq, &got), -EINVAL);
    }
}

static void put_snapshot(const struct vid *disk, uint64_t seq, const struct vid *snap, bool side)
{
    char name[SNAP_FILE_MAX];
    int fd = store_disk_dir(m.st, DIR_SNAPSHOTS, disk, true, NULL);
    assert_true(fd >= 0);
    store_snap_file(seq, snap, "rcp", name);
    write_file(fd, name, "recipe");
    store_snap_file(seq, snap, "attr", name);
    if (side)
        write_file(fd, name, "side");
    close(fd);
}

static void removed_snapshot_goes_to_trash_with_its_side_file(void **state)
{
    (void)state;
    struct verr err = {0};
    struct vid disk = vid_random(), snap = vid_random();
    assert_int_equal(snaps_trash(m.st, &(struct snapref){disk, 1, snap}, &err), -ENOENT);
    put_snapshot(&disk, 1, &snap, true);
    assert_int_equal(snaps_trash(m.st, &(struct snapref){disk, 1, snap}, &err), 0);
    assert_int_equal(entries(store_dirfd(m.st, DIR_TRASH)), 2);
    int fd = store_disk_dir(m.st, DIR_SNAPSHOTS, &disk, false, &err);
    assert_int_equal(entries(fd), 0);
    close(fd);
    assert_int_equal(snaps_trash(m.st, &(struct snapref){disk, 1, snap}, &err), -ENOENT);
    put_snapshot(&disk, 2, &snap, false);
    assert_int_equal(snaps_trash(m.st, &(struct snapref){disk, 2, snap}, &err), 0);
    assert_int_equal(entries(store_dirfd(m.st, DIR_TRASH)), 3);
}

static void side_file_left_by_a_crash_is_removed_next_time(void **state)
{
    (void)state;
    struct vid disk = vid_random(), snap = vid_random();
    char name[SNAP_FILE_MAX];
    put_snapshot(&disk, 1, &snap, true);
    int fd = store_disk_dir(m.st, DIR_SNAPSHOTS, &disk, false, NULL);
    store_snap_file(1, &snap, "rcp", name);
    assert_int_equal(unlinkat(fd, name, 0), 0);
    assert_int_equal(snaps_trash(m.st, &(struct snapref){disk, 1, snap}, NULL), -ENOENT);
    assert_int_equal(entries(fd), 0);
    close(fd);
}

static void anchor_holds_a_snapshot_that_is_removed(void **state)
{
    (void)state;
    struct verr err = {0};
    struct vid from = vid_random(), to = vid_random(), snap = vid_random();
    char name[SNAP_FILE_MAX];
    store_snap_file(5, &snap, "rcp", name);
    assert_int_equal(snaps_anchor(m.st, &to, &(struct snapref){from, 5, snap}, &err), -ENOENT);
    put_snapshot(&from, 5, &snap, false);
    assert_int_equal(snaps_anchor(m.st, &to, &(struct snapref){from, 5, snap}, &err), 0);
    assert_int_equal(snaps_anchor(m.st, &to, &(struct snapref){from, 5, snap}, &err), 0);
    assert_int_equal(snaps_trash(m.st, &(struct snapref){from, 5, snap}, &err), 0);
    int fd = store_disk_dir(m.st, DIR_ANCHORS, &to, false, &err);
    assert_true(exists(fd, name));
    assert_int_equal(snaps_anchor(m.st, &to, &(struct snapref){from, 5, snap}, &err), 0); /* it holds the data: still there */
    close(fd);
}

static void dropped_anchors_never_meet_in_trash(void **state)
{
    (void)state;
    struct verr err = {0};
    struct vid disk = vid_random(), snap = vid_random();
    char name[SNAP_FILE_MAX];
    store_snap_file(1, &snap, "rcp", name);
    assert_int_equal(snaps_unanchor(m.st, &disk, &(struct snapref){disk, 1, snap}, NULL, NULL, &err), 0);
    put_snapshot(&disk, 1, &snap, false);
    for (int i = 1; i <= 3; i++) { /* all of them are links to one file */
        assert_int_equal(snaps_anchor(m.st, &disk, &(struct snapref){disk, 1, snap}, &err), 0);
        assert_int_equal(snaps_unanchor(m.st, &disk, &(struct snapref){disk, 1, snap}, NULL, NULL, &err), 0);
        int fd = store_disk_dir(m.st, DIR_ANCHORS, &disk, false, &err);
        assert_false(exists(fd, name));
        close(fd);
        assert_int_equal(entries(store_dirfd(m.st, DIR_TRASH)), i);
    }
    assert_int_equal(snaps_unanchor(m.st, &disk, &(struct snapref){disk, 1, snap}, NULL, NULL, &err), 0);
    assert_int_equal(snaps_trash(m.st, &(struct snapref){disk, 1, snap}, &err), 0);
    assert_int_equal(entries(store_dirfd(m.st, DIR_TRASH)), 4);
}

static int child(const char *name, const char *path)
{
    struct store_conf conf;
    storeconf_default(&conf);
    return strcmp(name, "init") == 0 ? -store_init(path, &conf, (uid_t)-1, (gid_t)-1, NULL) : 125;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "child") == 0)
        return child(argv[2], argv[3]);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(init_makes_a_whole_store), T(init_refuses_a_store_and_a_full_directory),
        T(init_accepts_an_empty_directory_with_lost_and_found), T(init_gives_everything_to_the_owner),
        T(open_refuses_what_is_no_store), T(open_refuses_a_damaged_store_conf), T(open_names_the_directory_that_is_missing),
#ifdef VARVE_FAULTS
        T(init_that_fails_before_store_conf_leaves_no_store),
#endif
        T(node_lives_through_create_update_remove), T(damaged_or_foreign_node_is_refused),
        T(node_listing_skips_temporaries_and_tells_strange_names_apart), T(snapshot_names_sort_by_sequence_and_parse_back), T(removed_snapshot_goes_to_trash_with_its_side_file),
        T(side_file_left_by_a_crash_is_removed_next_time), T(anchor_holds_a_snapshot_that_is_removed),
        T(dropped_anchors_never_meet_in_trash),
    };
#ifndef VARVE_FAULTS
    (void)init_that_fails_before_store_conf_leaves_no_store;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
