/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol of sd_notify(3), which its manual promises to keep: one datagram of lines NAME=VALUE to the socket $NOTIFY_SOCKET.
 *
 * The watchdog is fed by a thread that first asks the agent for its backlog, which takes the agent's locks and no I/O: a daemon that is
 * locked up is restarted, one whose STORE hangs is not, because a restart would wait for the same STORE.
 */
#include "cli/service.h"

#include "agent/agent.h"
#include "base/thread.h"
#include "base/vlog.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_EVERY_MS = 10000, STATUS_TEXT = 160 };

static struct {
    int fd;                     /* -1: nobody listens */
    struct sockaddr_un to;
    socklen_t to_len;
    int64_t every_ms;
    struct agent *agent;
    pthread_t thread;
    pthread_mutex_t lock;       /* guards stopping */
    pthread_cond_t wake;
    bool started, stopping;
} service = {.fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

static void tell(const char *text)
{
    if (service.fd >= 0
        && sendto(service.fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&service.to, service.to_len) < 0)
        vlog(VLOG_WARN, "mount", "systemd is not told \"%.40s\": %s", text, strerror(errno));
}

/* Of a watchdog that is meant for another process ($WATCHDOG_PID) nothing is fed. */
static int64_t watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (usec == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    return (int64_t)(strtoull(usec, NULL, 10) / 1000);
}

void service_begin(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t n = path == NULL ? 0 : strlen(path);
    if (n > 1 && n < sizeof service.to.sun_path && (path[0] == '/' || path[0] == '@')) {
        service.to.sun_family = AF_UNIX;
        memcpy(service.to.sun_path, path, n);
        if (path[0] == '@')
            service.to.sun_path[0] = '\0';
        service.to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        service.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    }
    int64_t limit = watchdog_ms();
    service.every_ms = limit > 0 && limit / 3 < STATUS_EVERY_MS ? limit / 3 + 1 : STATUS_EVERY_MS;
    tell("STATUS=mounting: what an earlier run left is put in order");
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static void tell_backlog(void)
{
    char text[STATUS_TEXT];
    struct agent_backlog b;
    agent_backlog(service.agent, &b);
    if (b.waiting == 0 && b.failed == 0)
        snprintf(text, sizeof text, "WATCHDOG=1\nSTATUS=everything is stored");
    else
        snprintf(text, sizeof text, "WATCHDOG=1\nSTATUS=to be stored: snapshots of %u %s; failed and tried again: %u", b.waiting,
                 b.waiting == 1 ? "disk" : "disks", b.failed);
    tell(text);
}

static void *run(void *arg)
{
    (void)arg;
    pthread_mutex_lock(&service.lock);
    while (!service.stopping) {
        pthread_mutex_unlock(&service.lock);
        tell_backlog();
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += service.every_ms / 1000;
        until.tv_nsec += service.every_ms % 1000 * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&service.lock);
        int r = 0;
        while (!service.stopping && r == 0)
            r = pthread_cond_timedwait(&service.wake, &service.lock, &until);
    }
    pthread_mutex_unlock(&service.lock);
    return NULL;
}

void service_ready(struct agent *a)
{
    pthread_condattr_t attr;
    if (service.fd < 0)
        return;
    service.agent = a;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&service.wake, &attr);
    pthread_condattr_destroy(&attr);
    tell("READY=1");
    int r = thread_start(&service.thread, run, NULL);
    service.started = r == 0;
    if (r != 0)
        vlog(VLOG_WARN, "mount", "systemd's watchdog is not fed: %s", strerror(r));
}

void service_stopping(void)
{
    tell("STOPPING=1");
    if (!service.started)
        return;
    pthread_mutex_lock(&service.lock);
    service.stopping = true;
    pthread_cond_broadcast(&service.wake);
    pthread_mutex_unlock(&service.lock);
    pthread_join(service.thread, NULL);
    service.started = false;
}
