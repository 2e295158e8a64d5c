/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/asking.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10, ERRNO_MAX = 255, WAIT_MS = 1000, REAP_MS = 2, KILLED_MS = 500 };

static const int ends[] = {SIGINT, SIGTERM, SIGHUP};

const char *ask_silence(int silence_ms)
{
    static char text[96];
    snprintf(text, sizeof text, "does not answer for %d s: its daemon hangs", silence_ms / 1000);
    return text;
}

int ask_answer(int fd, const void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, (const char *)data + at, len - at);
        if (n < 0 && errno != EINTR)
            return -errno;
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* ---- the child ---- */

/* A child that is stuck keeps nothing of the parent's: not the pipe that somebody reads the parent's output from, nor a lock. */
static int leave_files(int fd)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    for (int i = STDIN_FILENO; i <= STDERR_FILENO; i++)
        if (dup2(null, i) < 0)
            return -errno;
    if (fd > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0U, 0);
    return 0;
}

/* A handler of the parent's would keep a signal from ending the child; one that is ignored stays so. */
static void leave_handlers(void)
{
    struct sigaction sa;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (sigaction(ends[i], NULL, &sa) == 0 && sa.sa_handler != SIG_IGN)
            signal(ends[i], SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
}

__attribute__((noreturn))
static void be_child(const struct asking *a, int fd, pid_t parent)
{
    leave_handlers();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int r = getppid() == parent ? leave_files(fd) : -EPIPE;     /* a parent that has ended before sends no signal */
    if (r == 0)
        r = a->question(a->ctx, fd);
    _exit(r < 0 && -r <= ERRNO_MAX ? -r : r < 0 ? EIO : 0);
}

/* ---- the parent ---- */

struct hearing {
    const struct asking *a;
    struct pollfd p;
    char *text;
    size_t len, cap;
    int silent_ms;
};

/* Waits in steps: of the time that this process was stopped for (Ctrl-Z), which its child may have been, too, one step counts as silence.
 * 0: there is something to read. */
static int listen_for(struct hearing *h)
{
    for (;;) {
        int rest = h->a->more != NULL ? h->a->more(h->a->more_ctx, h->text, &h->len, h->silent_ms) : h->a->silence_ms - h->silent_ms;
        if (rest <= 0)
            return -ETIMEDOUT;
        int step = rest < WAIT_MS ? rest : WAIT_MS, ready = poll(&h->p, 1, step);
        if (ready != 0)
            return ready < 0 ? -errno : 0;
        h->silent_ms += step;
    }
}

/* Until the child has closed its end. */
static int hear(struct hearing *h)
{
    for (;;) {
        if (h->len + PIECE + 1 > h->cap) {
            h->cap = h->len + 2 * (PIECE + 1);
            char *grown = realloc(h->text, h->cap);
            if (grown == NULL)
                return -ENOMEM;
            h->text = grown;
        }
        int r = listen_for(h);
        if (r < 0)
            return r;
        ssize_t n = read(h->p.fd, h->text + h->len, PIECE);
        if (n < 0)
            return -errno;
        h->len += (size_t)n;
        h->text[h->len] = '\0';
        if (n == 0)
            return 0;
        h->silent_ms = 0;
    }
}

/* False: it still runs. */
static bool reap(pid_t pid, int limit_ms, int *status)
{
    const struct timespec pause = {.tv_nsec = REAP_MS * 1000000L};
    for (int ms = 0; ms < limit_ms; ms += REAP_MS) {
        pid_t r = waitpid(pid, status, WNOHANG);
        if (r != 0)
            return r == pid;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* The child may be stuck in the kernel: then it ends by itself when the mount does, and is nobody's to wait for. */
static int end(pid_t pid, int r)
{
    int status = 0;
    if (r == 0 && !reap(pid, ACT_MS, &status))
        r = -ETIMEDOUT;
    if (r < 0) {
        kill(pid, SIGKILL);
        reap(pid, KILLED_MS, &status);
        return r;
    }
    if (!WIFSIGNALED(status))
        return -WEXITSTATUS(status);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (WTERMSIG(status) == ends[i])
            return -EINTR;      /* Ctrl-C goes to both */
    return -EIO;
}

int ask(const struct asking *a, char **text, size_t *len)
{
    int fds[2];
    struct hearing h = {.a = a, .p.events = POLLIN};
    pid_t self = getpid();
    signal(SIGCHLD, SIG_DFL);       /* ignored, as a caller may leave it, it would hide how the child ended */
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        be_child(a, fds[1], self);
    int r = pid < 0 ? -errno : 0;
    h.p.fd = fds[0];
    close(fds[1]);
    if (r == 0)
        r = end(pid, hear(&h));
    close(fds[0]);
    if (r == 0 && text != NULL) {
        *text = h.text;
        *len = h.len;
        return 0;
    }
    free(h.text);
    return r;
}
