/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash: what the daemon says when it dies of a bug. Core dumps are forbidden (they would hold bytes of every disk that is being
 * read), so this is all that a report can have: the signal, the address, and where each frame lies in the program and its
 * libraries (addr2line -e makes lines of that). To stderr, and appended to STATE/crash.txt for a daemon in the background.
 * A stack that overflowed says nothing: there is no other one to say it from.
 */
#include "cli/cli.h"

#include "base/vlog.h"

#include <execinfo.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FRAMES_MAX = 64 };

static char report_path[PATH_MAX];
static const char *mark = "";       /* of a line on stderr (vlog_mark) */

static const char *name_of(int sig)
{
    switch (sig) {
    case SIGSEGV: return "SIGSEGV: bad memory access";
    case SIGBUS: return "SIGBUS: bad memory access";
    case SIGFPE: return "SIGFPE: bad arithmetic";
    case SIGILL: return "SIGILL: bad instruction";
    default: return "SIGABRT: given up";
    }
}

static void report(int fd, const char *head, size_t len, void *const *frames, int n)
{
    if (write(fd, head, len) == (ssize_t)len)
        backtrace_symbols_fd(frames, n, fd);
}

/* snprintf of integers and strings takes no lock and no memory in the libcs that have backtrace. */
static void on_crash(int sig, siginfo_t *info, void *ctx)
{
    void *frames[FRAMES_MAX];
    char head[256];
    (void)ctx;
    int n = backtrace(frames, FRAMES_MAX);
    char cause[64];
    if (info->si_code == SI_USER)       /* systemd's watchdog, for one */
        snprintf(cause, sizeof cause, "sent by process %d", (int)info->si_pid);
    else
        snprintf(cause, sizeof cause, "address %p", info->si_addr);
    int len = snprintf(head, sizeof head, "FATAL varve %s died of %s, %s. This is a bug; please report it with these lines:\n",
                       VARVE_VERSION, name_of(sig), cause);
    if (len >= (int)sizeof head)
        len = (int)sizeof head - 1;
    int fd = open(report_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (write(STDERR_FILENO, mark, strlen(mark)) >= 0)
        report(STDERR_FILENO, head, (size_t)len, frames, n);
    if (fd >= 0) {
        report(fd, head, (size_t)len, frames, n);
        close(fd);
    }
    raise(sig);     /* taken when we return, and fatal: the handler is gone */
}

void report_crashes(const char *state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)state;        /* these say more */
    (void)on_crash;
#else
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    void *frame[1];
    mark = vlog_mark(VLOG_ERROR);
    backtrace(frame, 1);        /* loads what it needs while that is allowed */
    if (snprintf(report_path, sizeof report_path, "%s/crash.txt", state) >= (int)sizeof report_path)
        report_path[0] = '\0';
    struct sigaction sa = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_RESETHAND};
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
        sigaction(fatal[i], &sa, NULL);
#endif
}
