/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STATE/lock: which daemon has STATE. The lock is flock; the text says who holds it, and what that one is doing:
 *
 *   PID starting             also a `varve rebuild`
 *   PID mounted MAJ:MIN      the device of its mount
 *   PID closing              it serves no more, and writes back what it holds
 *
 * umount returns before the daemon has ended, so the next start waits for a daemon whose mount is gone. How long depends on what can be
 * seen of it: one that closes is waited for however long it takes; one that is about to find out, or has files open that outlive the
 * mount (umount -l), for a while; one whose mount is there is in use.
 */
#include "agent/agent_internal.h"

#include "base/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STEP_MS = 50, IN_USE_MS = 2000, LEFT_MS = 30000, TELL_FIRST_MS = 1000, TELL_EVERY_MS = 30000, LINE = 64 };

enum doing { DOING_WORK, DOING_LEFT, DOING_CLOSING };
struct holder { int pid; enum doing doing; };

static int is_of_device(void *device, const struct mount_line *m)
{
    char text[32];
    snprintf(text, sizeof text, "%u:%u", m->major, m->minor);
    return strcmp(text, device) == 0;
}

static void look(int fd, struct holder *h)
{
    char text[LINE] = "", word[16] = "", device[32] = "";
    *h = (struct holder){0};
    if (pread(fd, text, sizeof text - 1, 0) <= 0 || sscanf(text, "%*d %15s %31s", word, device) < 1)
        return;
    h->pid = (int)strtol(text, NULL, 10);
    if (strcmp(word, "closing") == 0)
        h->doing = DOING_CLOSING;
    else if (strcmp(word, "mounted") == 0 && mounts_each(h->pid, is_of_device, device) == 0)
        h->doing = DOING_LEFT;  /* an error is none: whether it is mounted cannot be seen */
}

static int in_use(const struct agent *a, const struct holder *h, struct verr *err)
{
    if (h->doing == DOING_LEFT)
        return verr_set(err, EBUSY, "state directory %s is still in use: its varve (pid %d) is unmounted, but files in its mount are open; close "
                        "them, or use another state directory", a->state_path, h->pid);
    return verr_set(err, EBUSY, "state directory %s is in use by another varve (pid %d): unmount that one first, or use another state "
                    "directory",
                    a->state_path, h->pid);
}

static void tell_waiting(const struct agent *a, const struct holder *h, int waited_ms)
{
    char text[512];
    if (waited_ms != TELL_FIRST_MS && waited_ms % TELL_EVERY_MS != 0)
        return;
    snprintf(text, sizeof text, "waiting for the varve that was mounted before (pid %d) to write back what it holds", h->pid);
    agent_notice(a, text);
}

static int wait_for_lock(const struct agent *a, struct verr *err)
{
    const struct timespec step = {0, STEP_MS * 1000000L};
    for (int waited = 0; flock(a->lock_fd, LOCK_EX | LOCK_NB) < 0; waited += STEP_MS) {
        struct holder h;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return verr_set(err, errno, "%s/lock: %s", a->state_path, strerror(errno));
        look(a->lock_fd, &h);
        if ((h.doing == DOING_WORK && waited >= IN_USE_MS) || (h.doing == DOING_LEFT && waited >= LEFT_MS))
            return in_use(a, &h, err);
        if (h.doing != DOING_WORK && waited > 0)
            tell_waiting(a, &h, waited);
        nanosleep(&step, NULL);
    }
    return 0;
}

/* A start that failed removes the lock file that it made: the lock must be that of the file which has the name. */
static bool is_named(const struct agent *a)
{
    struct stat own, there;
    return fstat(a->lock_fd, &own) == 0 && fstatat(a->state_fd, "lock", &there, AT_SYMLINK_NOFOLLOW) == 0 && own.st_ino == there.st_ino;
}

int agent_lock_take(struct agent *a, struct verr *err)
{
    int r;
    do {
        if (a->lock_fd >= 0)
            close(a->lock_fd);
        a->lock_fd = openat(a->state_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = a->lock_fd < 0 ? verr_set(err, errno, "%s/lock: %s", a->state_path, strerror(errno)) : wait_for_lock(a, err);
    } while (r == 0 && !is_named(a));
    return r == 0 ? agent_lock_say(a, "starting", err) : r;
}

int agent_lock_say(struct agent *a, const char *doing, struct verr *err)
{
    char text[LINE];
    /* Of one length, so that a reader never sees the end of a longer text. */
    int n = snprintf(text, sizeof text, "%-15d %-31s\n", (int)getpid(), doing);
    if (pwrite(a->lock_fd, text, (size_t)n, 0) != n || ftruncate(a->lock_fd, n) < 0)
        return verr_set(err, errno, "%s/lock: cannot write: %s", a->state_path, strerror(errno));
    return 0;
}

void agent_mounted(struct agent *a, unsigned dev_major, unsigned dev_minor)
{
    char doing[32];
    struct verr why = {0};
    snprintf(doing, sizeof doing, "mounted %u:%u", dev_major, dev_minor);
    if (agent_lock_say(a, doing, &why) < 0)
        vlog(VLOG_WARN, "agent", "%s", verr_str(&why));
}

void agent_closing(struct agent *a)
{
    struct verr why = {0};
    if (a->lock_fd >= 0 && agent_lock_say(a, "closing", &why) < 0)
        vlog(VLOG_WARN, "agent", "%s", verr_str(&why));
}
