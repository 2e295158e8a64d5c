/* SPDX-License-Identifier: Apache-2.0 */
/*
 * varve mount: start of the daemon. Order: parse, fork (no thread, no SQLite before), the
 * child takes STATE's lock, opens STORE, mounts, drops privileges, enters the sandbox, recovers, serves, and reports on a pipe;
 * the parent prints the error and exits with its code.
 */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vlog.h"
#include "cli/options.h"
#include "cli/service.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CONFIG_DEFAULT "/etc/varve/varve.conf"

struct report {
    int code;
    struct verr err;
};

/* Tells the parent how the start ended; in the foreground there is no parent (pipe_fd -1). */
static void tell(int pipe_fd, int code, const struct verr *err)
{
    struct report rep = {.code = code};
    if (pipe_fd < 0)
        return;
    if (err != NULL)
        rep.err = *err;
    if (write(pipe_fd, &rep, sizeof rep) != (ssize_t)sizeof rep)
        vlog(VLOG_WARN, "mount", "the starting process went away");
    close(pipe_fd);
}

/* ---- the guard ---- */

/*
 * A start that fails after the drop of privileges could not take its mount away again. So a child that stays root waits
 * until the start is over: 'm' says that the mount is there, 'k' that it is to be kept; the pipe's end without 'k' takes it away.
 */
struct guard {
    pid_t pid;
    int fd;
};

static void guard_main(int fd, const char *mountpoint)
{
    char said;
    bool mounted = false, keep = false;
    while (read(fd, &said, 1) == 1) {
        mounted |= said == 'm';
        keep |= said == 'k';
    }
    if (mounted && !keep)
        umount2(mountpoint, MNT_DETACH);
    _exit(0);
}

static int guard_start(struct guard *g, const char *mountpoint, struct verr *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return verr_set(err, errno, "pipe: %s", strerror(errno));
    g->pid = fork();
    if (g->pid == 0) {
        close(fds[1]);
        guard_main(fds[0], mountpoint);
    }
    close(fds[0]);
    g->fd = fds[1];
    if (g->pid < 0) {
        close(fds[1]);
        return verr_set(err, errno, "fork: %s", strerror(errno));
    }
    return 0;
}

static void guard_say(const struct guard *g, char what)
{
    if (write(g->fd, &what, 1) != 1)
        vlog(VLOG_WARN, "mount", "the guard of the mount is gone");
}

static void guard_end(struct guard *g)
{
    close(g->fd);
    waitpid(g->pid, NULL, 0);
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

static int start_mounted(struct mount_options *o, struct agent *a, struct fs **f, const struct guard *g, struct verr *err)
{
    uid_t uid;
    gid_t gid;
    o->fs.store_path = store_path(agent_store(a));
    int r = check_nesting(o->fs.mountpoint, "state directory", agent_state_path(a), err);
    if (r == 0)
        r = fs_mount(&o->fs, a, f, err);
    if (r < 0)
        return r;
    guard_say(g, 'm');
    agent_owner(a, &uid, &gid);
    report_crashes(agent_state_path(a));
    r = drop_privileges(uid, gid, err);
    if (r == 0)
        r = sandbox_enter(o->fs.store_path, agent_state_path(a), err);
    if (r == 0)
        r = agent_recover(a, err);
    if (r == 0)
        r = agent_run(a, err);
    if (r == 0)
        guard_say(g, 'k');
    return r;
}

static int start_agent(struct mount_options *o, struct agent **a, struct fs **f, struct verr *err)
{
    struct guard g = {.pid = -1, .fd = -1};
    int r = guard_start(&g, o->fs.mountpoint, err); /* before anything is locked or opened, so that it holds none of it */
    if (r < 0)
        return r;
    r = agent_open(&o->agent, a, err);
    if (r == 0)
        r = start_mounted(o, *a, f, &g, err);
    guard_end(&g);
    return r;
}

static int serve(struct mount_options *o, int pipe_fd)
{
    struct agent *a = NULL;
    struct fs *f = NULL;
    struct verr err = {0};
    mallopt(M_ARENA_MAX, 2);
    allow_open_files();
    if (pipe_fd < 0)
        service_begin();    /* a daemon in the background is no service: systemd watches the process that it started */
    int r = start_agent(o, &a, &f, &err);
    if (r < 0) {
        tell(pipe_fd, 1, &err);
        int code = pipe_fd < 0 ? report_error(&cmd_mount, &err) : EXIT_FAIL;
        fs_free(f);
        agent_close(a, NULL);
        return code;
    }
    vlog(VLOG_INFO, "mount", "%s mounted on %s", o->fs.store_path, o->fs.mountpoint);
    tell(pipe_fd, 0, NULL);
    service_ready(a);
    r = fs_serve(f, &err);
    service_stopping();
    if (r < 0)
        vlog(VLOG_ERROR, "mount", "%s", verr_str(&err));
    int rc = agent_close(a, &err);
    fs_free(f);
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
    ssize_t n = read(fds[0], &rep, sizeof rep);
    close(fds[0]);
    if (n != (ssize_t)sizeof rep) {
        int status = 0;
        waitpid(pid, &status, 0);
        fprintf(stderr, "varve mount: the daemon died while starting (%s %d); its log is in syslog\n",
                WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        return EXIT_FAIL;
    }
    return rep.code == 0 ? EXIT_OK : report_error(&cmd_mount, &rep.err);
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
    return r;
}

static int check_mountpoint(const char *path, char full[PATH_MAX], struct verr *err)
{
    struct stat st;
    /* On a dead mount stat fails as soon as the kernel no longer remembers the attributes of its top directory. */
    if (realpath(path, full) == NULL || stat(full, &st) < 0)
        return verr_set(err, errno == ENOENT ? ENOTDIR : errno, "mount point %s: %s%s", path, strerror(errno),
                        errno == ENOTCONN ? " (a dead mount: umount it first)" : "");
    if (!S_ISDIR(st.st_mode))
        return verr_set(err, ENOTDIR, "mount point %s is no directory", path);
    return 0;
}

static int prepare(struct mount_options *o, const char *store, const char *point, char store_full[PATH_MAX], char full[PATH_MAX],
                   struct verr *err)
{
    int r = check_mountpoint(point, full, err);
    if (r < 0)
        return r;
    if (realpath(store, store_full) == NULL)
        return verr_set(err, errno, "store %s: %s%s", store, strerror(errno), errno == ENOENT ? " (varve init makes one)" : "");
    struct stat st;
    if (stat(store_full, &st) == 0 && !S_ISDIR(st.st_mode))
        return verr_set(err, ENOENT, "store %s: is a file, and a store is a directory (varve init makes one)", store);
    r = check_nesting(full, "store", store_full, err);
    if (r < 0)
        return r;
    o->agent.store = store_full;
    o->fs.mountpoint = full;
    return 0;
}

static int run_mount(int argc, char **argv)
{
    static const struct option longs[] = {{"foreground", no_argument, NULL, 'f'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct mount_options o;
    struct verr err = {0};
    char store[PATH_MAX], point[PATH_MAX];
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
    } else if (prepare(&o, argv[optind], argv[optind + 1], store, point, &err) < 0) {
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
    "Returns when the mount is usable. umount MOUNTPOINT is the clean stop.\n\n"
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
    "  -o ro                  refuse all changes\n\n"
    "Options of mount(8), fstab and systemd (_netdev, nofail, x-...) are ignored.\n",
    run_mount, NULL,
};
