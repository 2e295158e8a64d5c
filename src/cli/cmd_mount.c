/* SPDX-License-Identifier: Apache-2.0 */
/*
 * varve mount: start of the daemon. Order: parse, fork (no thread, no SQLite before), the
 * child takes STATE's lock, opens STORE, mounts, drops privileges, enters the sandbox, recovers, serves, and reports on a pipe;
 * the parent prints the error and exits with its code.
 */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vlog.h"
#include "cli/asking.h"
#include "cli/guard.h"
#include "cli/options.h"
#include "cli/service.h"
#include "fs/fs_point.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_DEFAULT "/etc/varve/varve.conf"

/* What the daemon tells who started it; in the foreground there is nobody (pipe_fd -1). */
enum told { TOLD_NOTICE, TOLD_READY, TOLD_FAILED };
struct report {
    enum told told;
    struct verr err;
};

static void send_report(int pipe_fd, const struct report *rep)
{
    if (write(pipe_fd, rep, sizeof *rep) != (ssize_t)sizeof *rep)
        vlog(VLOG_WARN, "mount", "the starting process went away");
}

/* How the start ended. */
static void tell(int pipe_fd, enum told told, const struct verr *err)
{
    struct report rep = {.told = told};
    if (pipe_fd < 0)
        return;
    if (err != NULL)
        rep.err = *err;
    send_report(pipe_fd, &rep);
    close(pipe_fd);
}

/* In the foreground the log is on stderr already. */
static void tell_notice(void *ctx, const char *text)
{
    int pipe_fd = (int)(intptr_t)ctx;
    struct report rep = {.told = TOLD_NOTICE};
    verr_set(&rep.err, EINPROGRESS, "%s", text);
    if (pipe_fd >= 0)
        send_report(pipe_fd, &rep);
}

/* ---- start ---- */

static bool is_below(const char *path, const char *dir)
{
    size_t n = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* A mount point inside STORE or STATE, or above them: the daemon would wait for itself, or hide its files from itself. */
static int check_nesting(const char *mountpoint, const char *what, const char *dir, struct verr *err)
{
    if (is_below(mountpoint, dir))
        return verr_set(err, EINVAL, "mount point %s lies inside the %s %s: the daemon would wait for itself", mountpoint, what, dir);
    if (is_below(dir, mountpoint))
        return verr_set(err, EINVAL, "the %s %s lies inside the mount point %s, which would hide it: mount elsewhere", what, dir, mountpoint);
    return 0;
}

static int start_mounted(struct mount_options *o, struct agent *a, struct fs **f, struct guard *g, struct verr *err)
{
    uid_t uid;
    gid_t gid;
    unsigned levels, dev_major, dev_minor;
    const struct sandbox box = {.store = store_path(agent_store(a)), .state = agent_state_path(a), .read_only = o->agent.read_only};
    o->fs.store_path = box.store;
    const char *made = agent_made(a, &levels);
    guard_made(g, made, levels);
    int r = check_nesting(o->fs.mountpoint, "state directory", box.state, err);
    if (r == 0)
        r = fs_mount(&o->fs, a, f, err);
    if (r < 0)
        return r;
    fs_device(*f, &dev_major, &dev_minor);
    guard_mounted(g, dev_major, dev_minor);
    agent_owner(a, &uid, &gid);
    report_crashes(box.state);
    r = drop_privileges(uid, gid, err);
    if (r == 0)
        r = sandbox_enter(&box, err);
    if (r == 0)
        r = agent_recover(a, err);
    if (r == 0)
        r = agent_run(a, err);
    if (r == 0)
        guard_keep(g);
    return r;
}

static int unmount(void *guard) { return guard_unmount(guard); }

static int start_agent(struct mount_options *o, struct agent **a, struct fs **f, struct guard *g, struct verr *err)
{
    int r = guard_start(g, o->fs.mountpoint, err);  /* before anything is locked or opened, so that it holds none of it */
    if (r < 0)
        return r;
    o->fs.unmount = unmount;
    o->fs.unmount_ctx = g;
    r = agent_open(&o->agent, a, err);
    return r == 0 ? start_mounted(o, *a, f, g, err) : r;
}

static int serve(struct mount_options *o, int pipe_fd)
{
    struct agent *a = NULL;
    struct fs *f = NULL;
    struct guard g = {.pid = -1, .fd = -1};
    struct verr err = {0};
    mallopt(M_ARENA_MAX, 2);
    allow_open_files();
    if (pipe_fd < 0)
        service_begin();    /* a daemon in the background is no service: systemd watches the process that it started */
    o->agent.notice = tell_notice;
    o->agent.notice_ctx = (void *)(intptr_t)pipe_fd;     /* NOLINT(performance-no-int-to-ptr): a number */
    int r = start_agent(o, &a, &f, &g, &err);
    if (r < 0) {
        agent_close(a, NULL);
        guard_end(&g);
        fs_free(f);
        tell(pipe_fd, TOLD_FAILED, &err);       /* last: what it made has gone again */
        return pipe_fd < 0 ? report_error(&cmd_mount, &err) : EXIT_FAIL;
    }
    vlog(VLOG_INFO, "mount", "%s mounted on %s", o->fs.store_path, o->fs.mountpoint);
    tell(pipe_fd, TOLD_READY, NULL);
    service_ready(a);
    r = fs_serve(f, &err);
    service_stopping();
    if (r < 0)
        vlog(VLOG_ERROR, "mount", "%s", verr_str(&err));
    int rc = agent_close(a, &err);
    fs_free(f);
    guard_end(&g);
    if (rc < 0)
        vlog(VLOG_ERROR, "mount", "stopping: %s", verr_str(&err));
    vlog(VLOG_INFO, "mount", "stopped");
    return r < 0 || rc < 0 ? EXIT_FAIL : EXIT_OK;
}

static int start_daemon(struct mount_options *o)
{
    int fds[2];
    struct report rep;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return report_errno(&cmd_mount, "pipe", errno);
    pid_t pid = fork();
    if (pid < 0)
        return report_errno(&cmd_mount, "fork", errno);
    if (pid == 0) {
        close(fds[0]);
        setsid();
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
            dup2(null, 0);
            dup2(null, 1);
            dup2(null, 2);
            close(null);    /* 0 to 2 are open: it is none of them */
        }
        if (chdir("/") < 0)
            _exit(EXIT_FAIL);
        exit(serve(o, fds[1]));
    }
    close(fds[1]);
    ssize_t n;
    while ((n = read(fds[0], &rep, sizeof rep)) == (ssize_t)sizeof rep && rep.told == TOLD_NOTICE)
        fprintf(stderr, "varve mount: %s\n", verr_str(&rep.err));
    close(fds[0]);
    if (n != (ssize_t)sizeof rep) {
        int status = 0;
        waitpid(pid, &status, 0);
        fprintf(stderr, "varve mount: the daemon died while starting (%s %d); its log is in syslog\n",
                WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        return EXIT_FAIL;
    }
    return rep.told == TOLD_READY ? EXIT_OK : report_error(&cmd_mount, &rep.err);
}

static int load_options(struct mount_options *o, const char *store, const char *text, struct verr *err)
{
    char *config = options_find_config(text), *full = realpath(store, NULL);
    int r = config != NULL ? options_load(o, config, full, false, stderr, err) : options_load(o, CONFIG_DEFAULT, full, true, stderr, err);
    free(config);
    free(full);
    if (r == 0)
        r = options_parse(o, text, err);
    o->agent.state = o->state;
    o->agent.host = o->host;
    o->agent.sync_close = o->fs.sync_close;
    o->agent.read_only = o->fs.read_only;
    return r;
}

/* ---- where it is mounted ---- */

enum { DYING_TRIES = 200 };

static int touch(void *ctx, int fd)
{
    struct statvfs vfs;
    (void)fd;
    return statvfs(ctx, &vfs) < 0 ? -errno : 0;
}

/* The mount point's absolute path. Nothing below the last name is touched when a FUSE filesystem is mounted there: it may not answer. */
static int resolve(const char *path, char full[PATH_MAX], struct fs_point *at)
{
    char parent[PATH_MAX], dir[PATH_MAX];
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    const char *slash = memrchr(path, '/', n), *name = slash == NULL ? path : slash + 1;
    size_t len = n - (size_t)(name - path);
    bool plain = len > 0 && !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
    if (plain && snprintf(parent, sizeof parent, "%.*s", (int)(name - path), slash == NULL ? "" : path) < (int)sizeof parent
        && realpath(slash == NULL ? "." : parent, dir) != NULL
        && snprintf(full, PATH_MAX, "%s/%.*s", strcmp(dir, "/") == 0 ? "" : dir, (int)len, name) < PATH_MAX
        && fs_point_find(full, at) == 1 && strncmp(at->type, "fuse", 4) == 0)
        return 1;
    return realpath(path, full) == NULL ? -errno : 0;
}

/* What a mount says when it is touched. A daemon that is dying closes one /dev/fuse after the other: what waits for an answer gets
 * ECONNABORTED, and the mount is dead (ENOTCONN) a moment later. */
static int ask_mount(const char *full)
{
    const struct timespec step = {0, 50 * 1000000L};
    int r = -ECONNABORTED;
    for (int tries = 0; r == -ECONNABORTED && tries < DYING_TRIES; tries++) {
        if (tries > 0)
            nanosleep(&step, NULL);
        r = ask(&(struct asking){.question = touch, .ctx = (void *)full, .silence_ms = ASK_MS}, NULL, NULL);
    }
    return r;
}

/* A mount that is there already: -EBUSY, unless it is a varve whose daemon has died. */
static int check_mounted(const char *full, const struct fs_point *at, struct verr *err)
{
    if (strcmp(at->type, "fuse.varve") != 0)
        return verr_set(err, EBUSY, "%s: a %s filesystem is mounted there already (umount it first)", full, at->type);
    int r = ask_mount(full);
    if (r == -ENOTCONN || r == -ECONNABORTED)
        return 0;
    if (r == -ETIMEDOUT)
        return verr_set(err, EBUSY, "%s: a varve is mounted there already, and does not answer: end it, and umount it", full);
    if (r < 0)
        return verr_set(err, EBUSY, "%s: a varve is mounted there already, and answers \"%s\": umount it first", full, strerror(-r));
    return verr_set(err, EBUSY, "%s: a varve is mounted there already (umount it first)", full);
}

static int check_mountpoint(const char *path, char full[PATH_MAX], struct fs_point *at, bool *dead, struct verr *err)
{
    struct stat st;
    int r = resolve(path, full, at);
    *dead = r == 1;
    if (r == 1)
        return check_mounted(full, at, err);
    if (r == 0 && stat(full, &st) < 0)
        r = -errno;
    if (r != 0)
        return verr_set(err, r == -ENOENT ? ENOTDIR : -r, "mount point %s: %s%s", path, strerror(-r),
                        r == -ENOTCONN ? " (a dead mount: varve umount --dead it first)" : "");
    if (!S_ISDIR(st.st_mode))
        return verr_set(err, ENOTDIR, "mount point %s is no directory", path);
    return 0;
}

/* The paths that the options lead to. */
struct places {
    char store[PATH_MAX], point[PATH_MAX];
    struct fs_point at;         /* what is mounted on the mount point already: a dead varve */
};

static int prepare(struct mount_options *o, const char *store, const char *point, struct places *p, struct verr *err)
{
    struct stat st;
    bool dead;
    int r = check_mountpoint(point, p->point, &p->at, &dead, err);
    if (r < 0)
        return r;
    if (realpath(store, p->store) == NULL)
        return verr_set(err, errno, "store %s: %s%s", store, strerror(errno), errno == ENOENT ? " (varve init makes one)" : "");
    if (stat(p->store, &st) == 0 && !S_ISDIR(st.st_mode))
        return verr_set(err, ENOENT, "store %s: is a file, and a store is a directory (varve init makes one)", store);
    r = check_nesting(p->point, "store", p->store, err);
    if (r < 0)
        return r;
    o->agent.store = p->store;
    o->fs.mountpoint = p->point;
    o->fs.dead = dead ? &p->at : NULL;
    return 0;
}

static int run_mount(int argc, char **argv)
{
    static const struct option longs[] = {{"foreground", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct mount_options o;
    struct verr err = {0};
    struct places places;
    char *text = NULL;
    bool foreground = false;
    int c;
    while ((c = next_option(&cmd_mount, argc, argv, ":fho:", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_mount);
        if (c == 'f') {
            foreground = true;
        } else if (c == 'o') {
            char *joined;
            if (asprintf(&joined, "%s%s%s", text == NULL ? "" : text, text == NULL ? "" : ",", optarg) < 0)
                return report_errno(&cmd_mount, "-o", ENOMEM);
            free(text);
            text = joined;
        } else {
            return EXIT_USAGE;
        }
    }
    if (optind + 2 != argc) {
        free(text);
        return usage_error(&cmd_mount, "give STORE and MOUNTPOINT");
    }
    options_init(&o);
    int code;
    if (load_options(&o, argv[optind], text == NULL ? "" : text, &err) < 0) {
        report_error(&cmd_mount, &err);
        code = EXIT_USAGE;
    } else if (prepare(&o, argv[optind], argv[optind + 1], &places, &err) < 0) {
        code = report_error(&cmd_mount, &err);
    } else {
        /* What a caller left open is not ours to keep: for months, and through the drop of privileges. */
        closefrom(3);
        vlog_open(!foreground, o.debug ? VLOG_DEBUG : VLOG_INFO);
        code = foreground ? serve(&o, -1) : start_daemon(&o);
    }
    options_release(&o);
    free(text);
    return code;
}

const struct command cmd_mount = {
    "mount", "mount a store",
    "varve mount STORE MOUNTPOINT [-f] [-o OPTION[,OPTION...]]\n\n"
    "Returns when the mount is usable. The dead mount of a daemon that was killed is\n"
    "put aside. umount MOUNTPOINT is the clean stop. Ctrl-C and SIGTERM unmount, too;\n"
    "while files are open, the daemon goes on until they are closed.\n\n"
    "  -f, --foreground       stay in the foreground, log to stderr\n"
    "  -o state=DIR           local state (default /var/lib/varve/STOREID)\n"
    "  -o host=NAME           name of this host (default: hostname)\n"
    "  -o config=FILE         configuration (default /etc/varve/varve.conf)\n"
    "  -o sync_close          close() of a changed disk returns when it is stored\n"
    "  -o settle=SECONDS      quiet time after which a close's snapshot is final (2)\n"
    "  -o blocks=real|dense   st_blocks: allocated bytes (default), or full size\n"
    "  -o memory=SIZE         limit M of the deduplication stages (default 35 MB)\n"
    "  -o frame_cache=SIZE    decoded frames kept (default 16M)\n"
    "  -o cache_size=SIZE     local copies of stored segments (default 8G)\n"
    "  -o layer_limit=SIZE    bound of local unsaved data (default 0: none)\n"
    "  -o threads=N           FUSE threads (default: cores + 2)\n"
    "  -o workers=N           threads computing in a round (default: cores, up to 8)\n"
    "  -o debug               log more\n"
    "  -o ro                  only read what is stored; writes nothing into STORE and\n"
    "                         uses no local state, so STORE may be a read-only medium\n\n"
    "Options of mount(8), fstab and systemd (_netdev, nofail, x-...) are ignored.\n",
    run_mount, NULL,
};
