/* SPDX-License-Identifier: Apache-2.0 */
/*
 * varve umount: waits until all is stored, unmounts, and waits until the daemon has ended: then nothing uses STORE and STATE any more.
 */
#include "cli/reports.h"

#include "base/clock.h"
#include "cli/asking.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <time.h>
#include <unistd.h>

enum {
    END_MS = 60 * 1000,         /* how long a daemon may take to write back what it holds */
    LEAST_MS = 1000,            /* for the answer to a question at the end of --timeout */
};

struct unmount {
    int64_t timeout_ms, begin_ns;
    bool always, dead_only;
};

enum life { LIVES, DEAD, SILENT };

/* Of --timeout; negative: no limit. */
static int64_t time_left(const struct unmount *u)
{
    int64_t gone = (vclock_mono_ns(&vclock_system) - u->begin_ns) / 1000000;
    return u->timeout_ms < 0 ? -1 : gone > u->timeout_ms ? 0 : u->timeout_ms - gone;
}

struct look {
    const char *point;
    bool found;
};

static int look_at(void *ctx, const char *point)
{
    struct look *l = ctx;
    l->found |= strcmp(l->point, point) == 0;
    return 0;
}

static bool is_mounted(const char *point)
{
    struct look l = {.point = point};
    return each_mount(look_at, &l) > 0 && l.found;
}

/* How long a question may take: no longer than --timeout. */
static int limit_ms(const struct unmount *u)
{
    int64_t left = time_left(u);
    return left < 0 || left > ASK_MS ? ASK_MS : left < LEAST_MS ? LEAST_MS : (int)left;
}

static int answer_path(void *ctx, int fd)
{
    char full[PATH_MAX];
    return realpath(ctx, full) == NULL ? -errno : ask_answer(fd, full, sizeof full);
}

/* Asks the daemon for something that it knows without STORE. stat may be answered from what the kernel remembers of a dead mount. */
static int answer_touch(void *ctx, int out)
{
    (void)out;
    int fd = open(ctx, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int take_literally(const char *path, char point[PATH_MAX])
{
    if (path[0] == '/' && snprintf(point, PATH_MAX, "%s", path) < PATH_MAX) {
        size_t n = strlen(point);
        while (n > 1 && point[n - 1] == '/')
            point[--n] = '\0';
        return 0;
    }
    char here[PATH_MAX];
    if (getcwd(here, sizeof here) == NULL)
        return -errno;
    return snprintf(point, PATH_MAX, "%s/%s", here, path) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* A dead mount may answer no question, not even that of realpath, and one whose daemon hangs none: then its path is taken as it was given. */
static int find_point(const char *path, const struct unmount *u, char point[PATH_MAX], enum life *life)
{
    char *full = NULL;
    size_t len = 0;
    int r = ask(&(struct asking){.question = answer_path, .ctx = (void *)path, .silence_ms = limit_ms(u)}, &full, &len);
    const bool found = r == 0 && len == PATH_MAX;
    if (found) {
        memcpy(point, full, PATH_MAX);
        r = ask(&(struct asking){.question = answer_touch, .ctx = point, .silence_ms = limit_ms(u)}, NULL, NULL);
    }
    free(full);
    *life = r == -ENOTCONN || r == -ECONNABORTED ? DEAD : r == -ETIMEDOUT ? SILENT : LIVES;
    if (found)
        return r == -EINTR ? r : 0;
    return *life == LIVES ? r : take_literally(path, point);
}

static int answer_pid(void *ctx, int out)
{
    struct varve_ioc_info info = {0};
    int fd = open(ctx, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 || ioctl(fd, VARVE_IOC_INFO, &info) < 0 ? -errno : ask_answer(out, &info.pid, sizeof info.pid);
    if (fd >= 0)
        close(fd);
    return r;
}

/* A descriptor of the daemon behind a mount, to wait for its end; -1: only root is told, or it does not answer (*silent). */
static int daemon_of(const char *point, bool *silent)
{
    char *text = NULL;
    size_t len = 0;
    int32_t pid = 0;
    int r = ask(&(struct asking){.question = answer_pid, .ctx = (void *)point, .silence_ms = ASK_MS}, &text, &len);
    if (r == 0 && len == sizeof pid)
        memcpy(&pid, text, sizeof pid);
    free(text);
    *silent = r == -ETIMEDOUT;
    return pid > 0 ? pidfd_open(pid, 0) : -1;
}

static int answer_unmounted(void *ctx, int fd)
{
    (void)fd;
    return umount2(ctx, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

/* The kernel writes back what programs have stored through mappings, and waits for the daemon with it. */
static int unmount_now(const char *point, bool silent)
{
    enum { TRIES = 30 };
    const struct timespec pause = {.tv_nsec = 100 * 1000000L};
    const struct asking a = {.question = answer_unmounted, .ctx = (void *)point, .silence_ms = silent ? ASK_MS : END_MS};
    int r = ask(&a, NULL, NULL);
    for (unsigned i = 0; r == -EBUSY && silent && i < TRIES; i++) {     /* a child that was given up may still be ending */
        nanosleep(&pause, NULL);
        r = ask(&a, NULL, NULL);
    }
    if (r == 0 || (r == -ETIMEDOUT && !is_mounted(point)))
        return EXIT_OK;
    if (r == -EBUSY)
        return report_about(&cmd_umount, point, EBUSY, "in use: close what is open in it (fuser -vm %s shows who), then umount again%s",
                            QUOTED(point), silent ? "; what waits for its daemon ends with that one" : "");
    if (r == -ETIMEDOUT)
        return report_about(&cmd_umount, point, ETIMEDOUT, "cannot unmount: %s", ask_silence(a.silence_ms));
    return report_about(&cmd_umount, point, -r, "cannot unmount: %s", r == -EPERM ? "only root may" : strerror(-r));
}

static void wait_daemon(const char *point, int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    if (pidfd < 0)
        return;
    if (poll(&p, 1, END_MS) == 0)
        report_warning(&cmd_umount, "%s is unmounted, but its daemon still runs after %d s: it is mounted in another place too, or still "
                       "writes", QUOTED(point), END_MS / 1000);
    close(pidfd);
}

static int unmount_dead(const char *point)
{
    if (umount2(point, UMOUNT_NOFOLLOW) < 0 && umount2(point, UMOUNT_NOFOLLOW | MNT_DETACH) < 0)
        return report_errno(&cmd_umount, point, errno);
    report_warning(&cmd_umount, "%s: its daemon had died; what it had not stored completes at the next mount", QUOTED(point));
    return EXIT_OK;
}

#define HOW_TO_END "its daemon can be ended by kill -9 (its pid is the first word of the file lock in the state directory)"

static int unmount_live(const char *point, const struct unmount *u)
{
    bool silent = false;
    int stored = wait_stored(&cmd_umount, point, time_left(u), &silent);
    if (stored != EXIT_OK && !u->always) {
        report_warning(&cmd_umount, "%s stays mounted (--always unmounts all the same: the next mount stores what is left)%s",
                       QUOTED(point), silent ? "; " HOW_TO_END ", then varve umount --dead" : "");
        return stored;
    }
    int pidfd = silent ? -1 : daemon_of(point, &silent);
    int code = unmount_now(point, silent);
    if (code == EXIT_OK && silent)
        report_warning(&cmd_umount, "%s is unmounted, but its daemon may run on, and then holds the state directory: " HOW_TO_END,
                       QUOTED(point));
    if (code == EXIT_OK)
        wait_daemon(point, pidfd);
    else if (pidfd >= 0)
        close(pidfd);
    return code == EXIT_OK ? stored : code;
}

static int unmount(const char *path, const struct unmount *u)
{
    char point[PATH_MAX];
    enum life life;
    int r = find_point(path, u, point, &life);
    if (r < 0)
        return report_errno(&cmd_umount, path, -r);
    bool mounted = is_mounted(point);
    if (life == SILENT && (u->dead_only || !mounted))
        return report_about(&cmd_umount, path, ETIMEDOUT, "%s; " HOW_TO_END, ask_silence(ASK_MS));
    if (u->dead_only && (!mounted || life != DEAD))
        return EXIT_OK;
    if (!mounted)
        return report_nothing(&cmd_umount, path);
    return life == DEAD ? unmount_dead(point) : unmount_live(point, u);
}

static int run_umount(int argc, char **argv)
{
    static const struct option longs[] = {
        {"timeout", required_argument, NULL, 't'}, {"always", no_argument, NULL, 'a'}, {"dead", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'}, {0},
    };
    struct unmount u = {.timeout_ms = -1, .begin_ns = vclock_mono_ns(&vclock_system)};
    int c;
    while ((c = next_option(&cmd_umount, argc, argv, ":h", longs)) != -1) {
        switch (c) {
        case 'h': return print_help(&cmd_umount);
        case 'a': u.always = true; break;
        case 'd': u.dead_only = true; break;
        case 't':
            if (parse_duration(optarg, &u.timeout_ms) < 0)
                return usage_error(&cmd_umount, "--timeout %s: give seconds, or a time such as 10m", QUOTED(optarg));
            break;
        default: return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_umount, "give one MOUNTPOINT");
    return unmount(argv[optind], &u);
}

const struct command cmd_umount = {
    "umount", "wait until all is stored, then unmount",
    "varve umount [--timeout TIME] [--always] MOUNTPOINT\n"
    "varve umount --dead MOUNTPOINT\n\n"
    "Waits until everything pending is in the store, unmounts, and returns when the\n"
    "daemon has ended. (umount(8) does not wait: what is pending stays in the state\n"
    "directory, and the next mount stores it.) Exit code 1 if a snapshot could not be\n"
    "stored, at the timeout, or if the daemon does not answer for 30 s: MOUNTPOINT\n"
    "stays mounted; 10 if nothing is mounted there; 11 if files in it are open.\n\n"
    "  --timeout TIME   seconds, or 10m, 2h (default: no limit)\n"
    "  --always         unmount also if not everything could be stored\n"
    "  --dead           only take away a mount whose daemon died\n",
    run_umount, NULL,
};
