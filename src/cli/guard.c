/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/guard.h"

#include "agent/agent.h"
#include "base/verr.h"
#include "base/vlog.h"
#include "fs/fs_point.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DYING_MS = 500 };        /* in which a daemon that is killed closes its files, unless it is stuck */

enum word { GUARD_MOUNTED, GUARD_MADE, GUARD_KEEP, GUARD_UNMOUNT };

struct message {
    enum word word;
    unsigned dev_major, dev_minor, levels;
    char path[PATH_MAX];
};

/* ---- the guard ---- */

static volatile sig_atomic_t orphaned;

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

static void on_orphaned(int sig)
{
    (void)sig;
    orphaned = 1;
}

/* The daemon has been killed, and its files are not closed yet. Ends what waits for its answers; the mount stays, because it is in use here. */
static void abort_connection(const struct watch *w)
{
    int fd = open(w->mountpoint, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);    /* asks the filesystem nothing */
    if (fd < 0)
        return;
    (void)unmount(w, MNT_FORCE);
    close(fd);
}

/* 1: a message; 0: the daemon has ended. */
static int listen_to(struct watch *w, int fd, const sigset_t *waiting, struct message *m)
{
    const struct timespec dying = {.tv_nsec = DYING_MS * 1000000L};
    struct pollfd p = {.fd = fd, .events = POLLIN};
    bool aborted = false;
    for (;;) {
        int ready = ppoll(&p, 1, orphaned && !aborted ? &dying : NULL, waiting);
        if (ready == 0) {
            abort_connection(w);
            aborted = true;
        } else if (ready > 0) {
            ssize_t n = read(fd, m, sizeof *m);
            if (n <= 0 || n == (ssize_t)sizeof *m)      /* other messages are none of the daemon's */
                return n > 0;
        } else if (errno != EINTR) {
            return 0;
        }
    }
}

/* PR_SET_PDEATHSIG: sent when the thread that started the guard ends. That is the daemon's first, which ends only with it. */
static void hear_of_death(pid_t daemon, sigset_t *waiting)
{
    sigset_t mask;
    signal(SIGUSR1, on_orphaned);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, waiting);
    sigdelset(waiting, SIGUSR1);
    prctl(PR_SET_PDEATHSIG, SIGUSR1);
    if (getppid() != daemon)
        orphaned = 1;
}

static void guard_main(int fd, const char *mountpoint, pid_t daemon)
{
    struct watch w = {.mountpoint = mountpoint};
    struct message m;
    sigset_t waiting;
    hear_of_death(daemon, &waiting);
    /* Signals are the daemon's; one to the whole group, as Ctrl-C sends it, must not end the guard before it is asked, nor one that ends the
     * daemon at once, as the watchdog of systemd or Ctrl-\ sends it, before it has heard of that. */
    static const int others[] = {SIGINT, SIGTERM, SIGHUP, SIGABRT, SIGQUIT};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        signal(others[i], SIG_IGN);
    /* Who waits for the start hears of the daemon's end, whatever the guard does. */
    if (fd > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
    if (chdir("/") < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(1);
    while (listen_to(&w, fd, &waiting, &m) > 0)
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
    pid_t self = getpid();
    g->pid = fork();
    if (g->pid == 0) {
        close(fds[1]);
        guard_main(fds[0], mountpoint, self);
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
