/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/guard.h"

#include "agent/agent.h"
#include "base/verr.h"
#include "base/vlog.h"
#include "fs/fs_point.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum word { GUARD_MOUNTED, GUARD_MADE, GUARD_KEEP, GUARD_UNMOUNT };

struct message {
    enum word word;
    unsigned dev_major, dev_minor, levels;
    char path[PATH_MAX];
};

/* ---- the guard ---- */

struct watch {
    const char *mountpoint;
    bool mounted, keep;
    unsigned dev_major, dev_minor, levels;
    char made[PATH_MAX];
};

/* Something else may be mounted over it, or it may have been moved: never takes away what is not ours. */
static int unmount(const struct watch *w, int flags)
{
    struct fs_point p;
    int r = fs_point_find(w->mountpoint, &p);
    if (r < 0)
        return r;
    if (r == 0 || p.dev_major != w->dev_major || p.dev_minor != w->dev_minor)
        return -ENOENT;
    return umount2(w->mountpoint, UMOUNT_NOFOLLOW | flags) < 0 ? -errno : 0;
}

static int unmount_or_detach(const struct watch *w)
{
    int r = unmount(w, 0);
    if (r != -EBUSY)
        return r;
    r = unmount(w, MNT_DETACH);
    return r == 0 ? 1 : r;
}

/* What is mounted and what was made is said once, before the daemon drops its privileges: later words about it are not believed. */
static void hear(struct watch *w, int fd, const struct message *m)
{
    int answer;
    switch (m->word) {
    case GUARD_MOUNTED:
        if (w->mounted)
            break;
        w->mounted = true;
        w->dev_major = m->dev_major;
        w->dev_minor = m->dev_minor;
        break;
    case GUARD_MADE:
        if (w->made[0] != '\0')
            break;
        w->levels = m->levels;
        snprintf(w->made, sizeof w->made, "%.*s", (int)sizeof w->made - 1, m->path);
        break;
    case GUARD_KEEP:
        w->keep = true;
        break;
    case GUARD_UNMOUNT:
        answer = unmount_or_detach(w);
        if (write(fd, &answer, sizeof answer) < 0)
            return;     /* the daemon has died: the socket ends */
    }
}

static void guard_main(int fd, const char *mountpoint)
{
    struct watch w = {.mountpoint = mountpoint};
    struct message m;
    ssize_t n;
    /* Signals are the daemon's; one to the whole group, as Ctrl-C sends it, must not end the guard before it is asked. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    /* Who waits for the start hears of the daemon's end, whatever the guard does. */
    if (fd > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
    if (chdir("/") < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(1);
    while ((n = read(fd, &m, sizeof m)) > 0 || (n < 0 && errno == EINTR))
        if (n == (ssize_t)sizeof m)
            hear(&w, fd, &m);
    if (!w.keep && w.mounted)
        unmount(&w, MNT_DETACH);
    if (!w.keep)
        agent_made_remove(w.made, w.levels);
    _exit(0);
}

/* ---- the daemon ---- */

int guard_start(struct guard *g, const char *mountpoint, struct verr *err)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
        return verr_set(err, errno, "socketpair: %s", strerror(errno));
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

static int say(struct guard *g, const struct message *m)
{
    if (write(g->fd, m, sizeof *m) == (ssize_t)sizeof *m)
        return 0;
    vlog(VLOG_WARN, "mount", "the guard of the mount is gone: %s", strerror(errno));
    return -EPIPE;
}

void guard_mounted(struct guard *g, unsigned dev_major, unsigned dev_minor)
{
    (void)say(g, &(struct message){.word = GUARD_MOUNTED, .dev_major = dev_major, .dev_minor = dev_minor});
}

void guard_made(struct guard *g, const char *path, unsigned levels)
{
    struct message m = {.word = GUARD_MADE, .levels = levels};
    if (snprintf(m.path, sizeof m.path, "%s", path) < (int)sizeof m.path)
        (void)say(g, &m);
}

void guard_keep(struct guard *g) { (void)say(g, &(struct message){.word = GUARD_KEEP}); }

int guard_unmount(struct guard *g)
{
    int answer = 0, r = say(g, &(struct message){.word = GUARD_UNMOUNT});
    ssize_t n = 0;
    if (r < 0)
        return r;
    do
        n = read(g->fd, &answer, sizeof answer);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof answer ? answer : -EPIPE;
}

void guard_end(struct guard *g)
{
    if (g->fd < 0)
        return;
    close(g->fd);
    g->fd = -1;
    while (waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
