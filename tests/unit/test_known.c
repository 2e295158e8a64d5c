/* SPDX-License-Identifier: Apache-2.0 */
/* What a host knows of containers: it outlives the process, contradicts what came back from an older copy, and is never unlearned. */
#include "agent/agent_known.h"

#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char path[64];
static int state_fd;
static struct known *k;
static struct verr err;

static void again(void)
{
    known_close(k);
    k = NULL;
    err = (struct verr){0};
    assert_int_equal(known_open(state_fd, &k, &err), 0);
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/var/tmp/test_known.XXXXXX");
    assert_non_null(mkdtemp(path));
    state_fd = open(path, O_RDONLY | O_DIRECTORY);
    assert_true(state_fd >= 0);
    again();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    known_close(k);
    k = NULL;
    close(state_fd);
    return tree_remove(AT_FDCWD, path);
}

static void settle(void)
{
    assert_true(known_is_new(k));
    assert_int_equal(known_settle(k, &err), 0);
    again();
    assert_false(known_is_new(k));
}

static void claims_are_remembered(void **state)
{
    (void)state;
    settle();
    assert_int_equal(known_claim(k), 0);
    assert_int_equal(known_claimed(k, 5, &err), 0);
    assert_int_equal(known_claimed(k, 3, &err), 0);
    assert_int_equal(known_claimed(k, 5, &err), 0);
    assert_int_equal(known_claim(k), 5);
    again();
    assert_int_equal(known_claim(k), 5);
}

static void a_container_has_one_file_for_ever(void **state)
{
    (void)state;
    const uint64_t number = (UINT64_C(9) << 16) + 300;
    struct vid one = vid_random(), two = vid_random();
    settle();
    assert_int_equal(known_note(k, number, &one, &err), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(known_note(k, number, &one, &err), 0);
        assert_int_equal(known_check(k, number, &one, &err), 0);
        assert_int_equal(known_note(k, number, &two, &err), -ESTALE);
        assert_int_equal(known_check(k, number, &two, &err), -ESTALE);
        assert_int_equal(known_check(k, number, &one, &err), 0);
        again();
    }
    assert_int_equal(known_claim(k), 9);        /* its numbers are in use, by this host or another */
    assert_int_equal(known_check(k, number + 1, &two, &err), 0);        /* unknown: learned */
    assert_int_equal(known_check(k, number + 1, &one, &err), -ESTALE);
}

static void until_it_is_settled_each_start_begins_anew(void **state)
{
    (void)state;
    assert_int_equal(known_claimed(k, 4, &err), 0);
    assert_int_equal(known_claim(k), 4);
    again();
    assert_true(known_is_new(k));
    assert_int_equal(known_claim(k), 0);
}

static void a_damaged_entry_is_unknown(void **state)
{
    (void)state;
    struct vid one = vid_random(), two = vid_random();
    settle();
    assert_int_equal(known_note(k, 1 << 16, &one, &err), 0);
    int fd = openat(state_fd, "containers/000001", O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, 4), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, 4), 1);
    close(fd);
    assert_int_equal(known_check(k, 1 << 16, &two, &err), 0);
    assert_int_equal(known_check(k, 1 << 16, &two, &err), 0);
    assert_int_equal(known_check(k, 1 << 16, &one, &err), -ESTALE);
}

struct seen { unsigned claims, containers; uint64_t sum; };

static int see_claim(void *ctx, uint32_t claim)
{
    struct seen *s = ctx;
    s->claims++;
    s->sum += claim;
    return 0;
}

static int see_container(void *ctx, uint64_t container)
{
    struct seen *s = ctx;
    s->containers++;
    s->sum += container;
    return 0;
}

static void all_is_listed(void **state)
{
    (void)state;
    struct vid v = vid_random();
    struct seen s = {0};
    const uint64_t a = (2 << 16) + 1, b = (2 << 16) + 65535, c = 7 << 16;
    settle();
    assert_int_equal(known_claimed(k, 1, &err), 0);
    assert_int_equal(known_note(k, a, &v, &err), 0);
    assert_int_equal(known_note(k, b, &v, &err), 0);
    assert_int_equal(known_note(k, c, &v, &err), 0);
    assert_int_equal(known_each(k, &(struct known_walk){.claim = see_claim, .container = see_container, .ctx = &s}, &err), 0);
    assert_int_equal(s.claims, 3);
    assert_int_equal(s.containers, 3);
    assert_true(s.sum == 1 + 2 + 7 + a + b + c);
}

/* With a fault point at the second fdatasync: exit status 0 if the entry came into another file, with the one before. */
static int child(const char *dir)
{
    const struct vid one = vid_random(), two = vid_random();
    struct stat before, after;
    struct known *own;
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || known_open(fd, &own, NULL) < 0 || known_note(own, 1 << 16, &one, NULL) < 0)
        return 2;
    bool ok = fstatat(fd, "containers.new/000001", &before, 0) == 0 && known_note(own, (1 << 16) + 1, &two, NULL) == 0 &&
              fstatat(fd, "containers.new/000001", &after, 0) == 0 && before.st_ino != after.st_ino &&
              known_check(own, 1 << 16, &two, NULL) == -ESTALE && known_check(own, (1 << 16) + 1, &one, NULL) == -ESTALE;
    known_close(own);
    close(fd);
    return !ok;
}

/* The second fdatasync fails, and so does the first attempt at another file. 0: the entry was refused then, and is there, with the one before,
 * after the next attempt; 3: nothing failed. */
static int child_twice(const char *dir)
{
    const struct vid one = vid_random(), two = vid_random();
    struct known *own = NULL;
    int fd = open(dir, O_RDONLY | O_DIRECTORY), r = 2;
    if (fd >= 0 && known_open(fd, &own, NULL) == 0 && known_note(own, 1 << 16, &one, NULL) == 0) {
        bool refused = known_note(own, (1 << 16) + 1, &two, NULL) < 0;
        bool ok = known_note(own, (1 << 16) + 1, &two, NULL) == 0 && known_check(own, 1 << 16, &two, NULL) == -ESTALE &&
                  known_check(own, (1 << 16) + 1, &one, NULL) == -ESTALE;
        r = !ok ? 1 : refused ? 0 : 3;
    }
    known_close(own);
    close(fd);
    return r;
}

/* As a kernel does that drops the page which it could not write: what was read before is there again. Waits until it was written. */
static void drop_second_entry(pid_t writer)
{
    const struct timespec tick = {0, 1000 * 1000};
    static const uint8_t none[32];
    struct stat st = {0};
    siginfo_t ended = {0};
    while ((fstatat(state_fd, "containers.new/000001", &st, 0) < 0 || st.st_size < 64) &&
           waitid(P_PID, (id_t)writer, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == 0)
        nanosleep(&tick, NULL);
    int fd = openat(state_fd, "containers.new/000001", O_WRONLY);
    assert_int_equal(pwrite(fd, none, sizeof none, 32), sizeof none);
    close(fd);
}

static void a_file_whose_fsync_failed_is_made_anew(void **state)
{
    (void)state;
#ifndef VARVE_FAULTS
    skip();
#endif
    int status = 0;
    char pause[96];
    snprintf(pause, sizeof pause, "%s/pause", path);
    close(open(pause, O_WRONLY | O_CREAT, 0600));
    pid_t pid = fork();
    if (pid == 0) {
        setenv("VARVE_FAULT", "agent.known.fdatasync:2=pause,agent.known.fdatasync:2=5", 1);
        setenv("VARVE_FAULT_PAUSE", pause, 1);
        execl("/proc/self/exe", "test_known", path, NULL);
        _exit(9);
    }
    drop_second_entry(pid);
    unlink(pause);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* A full disk, a quota: what could not be made anew is tried again, without a new start. */
static void what_cannot_be_made_anew_is_tried_again(void **state)
{
    (void)state;
#ifndef VARVE_FAULTS
    skip();
#endif
    bool seen = false;
    for (int call = 1; call <= 6 && !seen; call++) {    /* which dir_sync is that of the other file */
        int status = 0;
        char fault[96], dir[sizeof path + 8];
        snprintf(fault, sizeof fault, "agent.known.fdatasync:2=5,base.dir_sync:%d=5", call);
        snprintf(dir, sizeof dir, "%s/%d", path, call);
        assert_int_equal(mkdir(dir, 0700), 0);
        pid_t pid = fork();
        if (pid == 0) {
            setenv("VARVE_FAULT", fault, 1);
            execl("/proc/self/exe", "test_known", dir, "twice", NULL);
            _exit(9);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1 && WEXITSTATUS(status) != 9);
        seen = WEXITSTATUS(status) == 0;
    }
    assert_true(seen);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return argc > 2 ? child_twice(argv[1]) : child(argv[1]);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(claims_are_remembered), T(a_container_has_one_file_for_ever), T(until_it_is_settled_each_start_begins_anew),
        T(a_damaged_entry_is_unknown), T(all_is_listed), T(a_file_whose_fsync_failed_is_made_anew),
        T(what_cannot_be_made_anew_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
