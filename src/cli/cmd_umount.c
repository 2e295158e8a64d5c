/* SPDX-License-Identifier: Apache-2.0 */
/*
 * varve umount: waits until all is stored, unmounts, and waits until the daemon has ended: then nothing uses STORE and STATE any more.
 */
#include "cli/reports.h"

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
#include <sys/statvfs.h>
#include <unistd.h>

enum { END_MS = 60 * 1000 };    /* how long a daemon may take to write back what it holds */

struct unmount {
    int64_t timeout_ms;
    bool always, dead_only;
};

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

/* A dead mount answers no question, not even that of realpath: its path is taken as it was given. */
static int find_point(const char *path, char point[PATH_MAX], bool *dead)
{
    struct statvfs vfs;     /* stat may be answered from what the kernel remembers of a dead mount */
    *dead = (realpath(path, point) == NULL || statvfs(point, &vfs) < 0) && (errno == ENOTCONN || errno == ECONNABORTED);
    if (!*dead)
        return access(path, F_OK) < 0 ? -errno : 0;
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

/* A descriptor of the daemon behind a mount, to wait for its end; -1: only root is told. */
static int daemon_of(const char *point)
{
    struct varve_ioc_info info;
    int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    memset(&info, 0, sizeof info);
    int pidfd = ioctl(fd, VARVE_IOC_INFO, &info) == 0 && info.pid > 0 ? pidfd_open(info.pid, 0) : -1;
    close(fd);
    return pidfd;
}

static int unmount_now(const char *point)
{
    if (umount2(point, UMOUNT_NOFOLLOW) == 0)
        return EXIT_OK;
    if (errno == EBUSY)
        return report_about(&cmd_umount, point, EBUSY, "in use: close what is open in it (fuser -vm %s shows who), then umount again",
                           QUOTED(point));
    return report_about(&cmd_umount, point, errno, "cannot unmount: %s", errno == EPERM ? "only root may" : strerror(errno));
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

static int unmount_live(const char *point, const struct unmount *u)
{
    int stored = wait_stored(&cmd_umount, point, u->timeout_ms);
    if (stored != EXIT_OK && !u->always) {
        report_warning(&cmd_umount, "%s stays mounted (--always unmounts all the same: the next mount stores what is left)",
                       QUOTED(point));
        return stored;
    }
    int pidfd = daemon_of(point);
    int code = unmount_now(point);
    if (code == EXIT_OK)
        wait_daemon(point, pidfd);
    else if (pidfd >= 0)
        close(pidfd);
    return code == EXIT_OK ? stored : code;
}

static int unmount(const char *path, const struct unmount *u)
{
    char point[PATH_MAX];
    bool dead;
    int r = find_point(path, point, &dead);
    if (r < 0)
        return report_errno(&cmd_umount, path, -r);
    bool mounted = is_mounted(point);
    if (u->dead_only && (!mounted || !dead))
        return EXIT_OK;
    if (!mounted)
        return report_nothing(&cmd_umount, path);
    return dead ? unmount_dead(point) : unmount_live(point, u);
}

static int run_umount(int argc, char **argv)
{
    static const struct option longs[] = {
        {"timeout", required_argument, NULL, 't'}, {"always", no_argument, NULL, 'a'}, {"dead", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'}, {0},
    };
    struct unmount u = {.timeout_ms = -1};
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
    "stored, or at the timeout: MOUNTPOINT stays mounted; 10 if nothing is mounted\n"
    "there; 11 if files in it are open.\n\n"
    "  --timeout TIME   seconds, or 10m, 2h (default: no limit)\n"
    "  --always         unmount also if not everything could be stored\n"
    "  --dead           only take away a mount whose daemon died\n",
    run_umount, NULL,
};
