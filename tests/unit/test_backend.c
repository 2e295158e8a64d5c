/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operations on STORE, as a directory fills it: what base/backend.h promises. */
#include "base/file.h"
#include "store/backend_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];
static int rootfd;
static struct backend *b;

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/varve-backend-XXXXXX");
    if (mkdtemp(root) == NULL || (rootfd = dir_open(AT_FDCWD, root)) < 0)
        return -1;
    return backend_dir_open(root, &b);
}

static int teardown(void **state)
{
    (void)state;
    bk_destroy(b);
    close(rootfd);
    return tree_remove(AT_FDCWD, root);
}

static void assert_holds(const char *dir, const char *name, const char *text)
{
    uint8_t *data;
    size_t len;
    assert_int_equal(bk_load(b, dir, name, 100, &data, &len), 0);
    assert_string_equal((char *)data, text);
    free(data);
}

static void one_creator_gets_a_name(void **state)
{
    (void)state;
    assert_int_equal(bk_create(b, "", "a", "one", 3), 0);
    assert_int_equal(bk_create(b, "", "a", "two", 3), -EEXIST);
    assert_holds("", "a", "one");
    assert_int_equal(bk_replace(b, "", "a", "three", 5), 0);
    assert_holds("", "a", "three");
    assert_int_equal(bk_claim_dir(b, "", "d"), 0);
    assert_int_equal(bk_claim_dir(b, "", "d"), -EEXIST);
    assert_int_equal(bk_make_dir(b, "", "d"), 0);
    assert_int_equal(bk_make_dir(b, "", "a"), -ENOTDIR);
    assert_int_equal(bk_link(b, "", "a", "d", "a"), 0);
    assert_int_equal(bk_link(b, "", "a", "d", "a"), -EEXIST);
    assert_int_equal(bk_move(b, "d", "a", "", "b"), 0);
    assert_int_equal(bk_remove(b, "", "b"), 0);
    assert_int_equal(bk_remove(b, "", "b"), -ENOENT);
}

static int count_name(void *ctx, const char *name)
{
    if (name[0] != '.')
        ++*(int *)ctx;
    return 0;
}

static bool changed_by_list(const char *dir)
{
    const struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct stat st;
    int n = 0;
    assert_int_equal(utimensat(rootfd, dir, old, 0), 0);
    assert_int_equal(bk_list(b, dir, count_name, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(fstatat(rootfd, dir, &st, 0), 0);
    return st.st_mtim.tv_sec != 1;
}

/* What makes a network filesystem look again: a change of that directory by this host, of every directory. */
static void a_list_of_a_shared_directory_follows_an_own_change(void **state)
{
    (void)state;
    const char *const dirs[] = {"snapshots", "trash", "snapshots/disk"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mkdirat(rootfd, dirs[i], 0700), 0);
        assert_int_equal(bk_create(b, dirs[i], "x", "", 0), 0);
        if (i == 0)
            assert_int_equal(unlinkat(rootfd, "snapshots/x", 0), 0);
    }
    backend_dir_set_shared(b);
    for (int i = 0; i < 3; i++)
        assert_true(changed_by_list(dirs[i]));
    int n = 0;
    assert_int_equal(bk_list(b, "snapshots", count_name, &n), 0);
    assert_int_equal(n, 1);     /* nothing of ours stays */
    assert_int_equal(bk_list(b, "absent", count_name, &n), -ENOENT);
}

static void a_directory_that_was_exchanged_is_opened_anew(void **state)
{
    (void)state;
    assert_int_equal(bk_claim_dir(b, "", "top"), 0);
    assert_int_equal(backend_dir_hold(b, "top"), 0);
    assert_int_equal(bk_claim_dir(b, "top", "sub"), 0);
    assert_int_equal(bk_create(b, "top/sub", "x", "old", 3), 0);
    assert_int_equal(renameat(rootfd, "top/sub", rootfd, "top/aside"), 0);
    assert_int_equal(bk_create(b, "top/sub", "x", "new", 3), -ENOENT);
    assert_int_equal(bk_claim_dir(b, "top", "sub"), 0);
    assert_int_equal(bk_create(b, "top/sub", "x", "new", 3), 0);
    assert_holds("top/sub", "x", "new");
    assert_holds("top/aside", "x", "old");
    /* But a held one is that directory for good. */
    assert_int_equal(renameat(rootfd, "top", rootfd, "moved"), 0);
    assert_holds("top/sub", "x", "new");
}

static void more_directories_than_are_kept_open(void **state)
{
    (void)state;
    char dir[16], text[16];
    struct bfile *f[200];
    for (int i = 0; i < 200; i++) {
        snprintf(dir, sizeof dir, "d%d", i);
        assert_int_equal(bk_claim_dir(b, "", dir), 0);
        assert_int_equal(bk_create(b, dir, "x", dir, strlen(dir)), 0);
        assert_int_equal(bk_open(b, dir, "x", BHINT_NONE, &f[i]), 0);
    }
    for (int i = 0; i < 200; i++) {
        snprintf(dir, sizeof dir, "d%d", i);
        ssize_t n = bf_read(f[i], text, sizeof text, 0);
        assert_int_equal(n, strlen(dir));
        assert_memory_equal(text, dir, (size_t)n);
        assert_int_equal(bf_is_named(f[i]), 1);
        bf_close(f[i]);
        assert_holds(dir, "x", dir);
    }
}

static void *use_directories(void *arg)
{
    uintptr_t seed = (uintptr_t)arg, failed = 0;
    for (unsigned i = 0; i < 400; i++) {
        char dir[16], name[24];
        uint8_t *data;
        size_t len;
        seed = seed * 1103515245 + 12345;
        snprintf(dir, sizeof dir, "d%u", (unsigned)(seed >> 16) % 100);
        snprintf(name, sizeof name, "%u-%u", (unsigned)(uintptr_t)arg, i);
        failed += bk_create(b, dir, name, dir, strlen(dir)) != 0;
        if (bk_load(b, dir, name, 100, &data, &len) == 0) {
            failed += strcmp((char *)data, dir) != 0;
            free(data);
        } else {
            failed++;
        }
    }
    return (void *)failed;
}

static void threads_use_more_directories_than_are_kept(void **state)
{
    (void)state;
    pthread_t t[4];
    for (unsigned i = 0; i < 100; i++) {
        char dir[16];
        snprintf(dir, sizeof dir, "d%u", i);
        assert_int_equal(bk_claim_dir(b, "", dir), 0);
    }
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, use_directories, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        assert_null(failed);
    }
}

static void one_writer_appends(void **state)
{
    (void)state;
    struct bfile *f, *other;
    struct bstat st;
    assert_int_equal(bk_append_new(b, "", "c", &f), 0);
    assert_int_equal(bf_write(f, "abc", 3, 0, true), 0);
    assert_int_equal(bf_fsync(f), 0);
    assert_int_equal(bk_append_new(b, "", "c", &other), -EEXIST);
    assert_int_equal(bk_append_again(b, "", "c", &other), -EWOULDBLOCK);
    bf_close(f);
    assert_int_equal(bk_append_again(b, "", "c", &other), 0);
    assert_int_equal(bf_truncate(other, 1), 0);
    assert_int_equal(bf_stat(other, &st), 0);
    assert_int_equal(st.bytes, 1);
    bf_close(other);
    bf_close(NULL);
    assert_int_equal(bk_append_again(b, "", "absent", &other), -ENOENT);
}

static void a_lease_that_was_taken_away_publishes_nothing(void **state)
{
    (void)state;
    struct blease *l;
    struct bfile *f, *late;
    assert_int_equal(bk_lease(b, "leases", "vm", &l), -ENOENT);
    assert_int_equal(bk_claim_dir(b, "", "leases"), 0);
    assert_int_equal(bk_lease(b, "leases", "vm", &l), 0);
    assert_int_equal(bl_stage(l, "r", &late), 0);
    assert_int_equal(bl_stage(l, "r", &f), -EEXIST);
    assert_int_equal(bk_revoke(b, "leases", "vm"), 0);
    assert_int_equal(faccessat(rootfd, "leases/vm", F_OK, 0), -1);
    assert_int_equal(bf_publish(late, "", "r"), -ESTALE);
    assert_int_equal(bk_look(b, "", "r"), 0);
    assert_int_equal(bl_stage(l, "r", &f), -ENOENT);
    assert_int_equal(bk_revoke(b, "leases", "vm"), 0);      /* there is none */
    bl_release(l);
    bf_close(late);
}

static void a_staged_object_leaves_the_lease(void **state)
{
    (void)state;
    struct blease *l;
    struct bfile *f;
    assert_int_equal(bk_claim_dir(b, "", "leases"), 0);
    assert_int_equal(bk_lease(b, "leases", "vm", &l), 0);
    assert_int_equal(bk_lease(b, "leases", "vm", &l), -EEXIST);
    assert_int_equal(bl_stage(l, "r", &f), 0);
    assert_int_equal(bf_write(f, "text", 4, 0, false), 0);
    assert_int_equal(bk_create(b, "", "to", "old", 3), 0);
    assert_int_equal(bf_publish(f, "", "to"), 0);
    assert_holds("", "to", "text");
    assert_int_equal(bk_look(b, "leases/vm", "r"), 0);
    assert_int_equal(bf_publish(f, "", "to"), -ESTALE);     /* its answer was lost: nobody knows */
    bf_close(f);
    assert_int_equal(bl_stage(l, "left", &f), 0);
    bf_close(f);
    bl_release(l);
    assert_int_equal(faccessat(rootfd, "leases/vm", F_OK, 0), -1);
}

static void a_look_is_as_new_as_the_call(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        if (shared)
            backend_dir_set_shared(b);
        assert_int_equal(bk_look(b, "", "n"), 0);
        assert_int_equal(bk_look(b, "nowhere", "n"), 0);
        assert_int_equal(bk_create(b, "", "n", "x", 1), 0);
        assert_int_equal(bk_look(b, "", "n"), 1);
        assert_int_equal(bk_look(b, "", "nn"), 0);
        assert_int_equal(bk_look(b, "n", "n"), -ENOTDIR);
        assert_int_equal(bk_remove(b, "", "n"), 0);
    }
}

static void temporary_objects_are_named_once(void **state)
{
    (void)state;
    struct bfile *f;
    assert_int_equal(bk_temp(b, "", &f), 0);
    assert_int_equal(bf_write(f, "text", 4, 0, false), 0);
    assert_int_equal(bk_create(b, "", "taken", "x", 1), 0);
    assert_int_equal(bf_name(f, "", "taken"), -EEXIST);
    assert_int_equal(bf_name(f, "", "free"), 0);
    assert_int_equal(bf_unname(f), 0);
    assert_int_equal(bf_unname(f), 0);
    bf_close(f);
    assert_holds("", "free", "text");
    int n = 0;
    assert_int_equal(bk_list(b, "", count_name, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(bk_clear(b, ""), 0);
    n = 0;
    assert_int_equal(bk_list(b, "", count_name, &n), 0);
    assert_int_equal(n, 0);
}

static void any_name_that_a_list_gives_can_be_opened(void **state)
{
    (void)state;
    char name[256];
    struct bfile *f;
    memset(name, 'n', 255);
    name[255] = '\0';
    assert_int_equal(bk_create(b, "", name, "x", 1), 0);
    assert_int_equal(bk_open(b, "", name, BHINT_NONE, &f), 0);
    bf_close(f);
}

static void a_link_is_not_followed(void **state)
{
    (void)state;
    uint8_t *data;
    size_t len;
    struct bfile *f;
    assert_int_equal(symlinkat("/etc/passwd", rootfd, "link"), 0);
    assert_int_equal(symlinkat("/etc", rootfd, "dir"), 0);
    assert_int_equal(bk_load(b, "", "link", 1 << 20, &data, &len), -ELOOP);
    assert_int_equal(bk_open(b, "", "link", BHINT_RANDOM, &f), -ELOOP);
    assert_true(bk_load(b, "dir", "passwd", 1 << 20, &data, &len) < 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(one_creator_gets_a_name), T(a_list_of_a_shared_directory_follows_an_own_change), T(a_directory_that_was_exchanged_is_opened_anew),
        T(more_directories_than_are_kept_open),
        T(threads_use_more_directories_than_are_kept), T(one_writer_appends), T(a_lease_that_was_taken_away_publishes_nothing),
        T(a_staged_object_leaves_the_lease), T(a_look_is_as_new_as_the_call),
        T(temporary_objects_are_named_once), T(any_name_that_a_list_gives_can_be_opened), T(a_link_is_not_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
