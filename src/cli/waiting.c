/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting until snapshots are stored, for several commands, and whether a mount answers at all. */
#include "cli/reports.h"

#include "base/clock.h"
#include "cli/asking.h"
#include "varve/ioctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { ROUND_MS = 500, LATE_MS = 1000 /* after --timeout: for the answer of a daemon that lives */ };

/* What one request was answered; the first one says where the mount is (EINPROGRESS, and its mount point as the text). */
struct round {
    int32_t result;             /* 0: all is stored; a positive errno; ETIMEDOUT: not yet */
    uint32_t pending;
    uint64_t done, total;       /* of what is stored now; total 0: nothing to show */
    char text[PATH_MAX];
};

struct wait {
    const char *path;
    int64_t timeout_ms, begin_ns;
    bool shows;                 /* a bar */
    /* of the parent */
    struct progress bar;
    struct round last;
    char point[PATH_MAX];       /* "": not heard yet */
    bool heard, hangs, interrupted;
    int silent_ms, lived_ms;    /* since the last answer; at which silence another question was answered */
};

static int64_t left_ms(const struct wait *w)
{
    return w->timeout_ms < 0 ? INT32_MAX : w->timeout_ms - (vclock_mono_ns(&vclock_system) - w->begin_ns) / 1000000;
}

/* ---- does it live? ---- */

/* Whatever is answered is an answer. The daemon answers this without STORE, which may hang by itself; others than root ask the directory. */
static int answer_touch(void *ctx, int out)
{
    const char *path = ctx, *slash = strrchr(path, '/');
    char point[PATH_MAX], name[PATH_MAX + 8];
    struct varve_ioc_info info;
    (void)out;
    int n = snprintf(name, sizeof name, "%.*s.", slash == NULL ? 0 : (int)(slash - path) + 1, path);
    if ((mount_of(path, point) < 0 && (n >= PATH_MAX || mount_of(name, point) < 0)) || point[0] == '\0')
        return 0;
    snprintf(name, sizeof name, "%s/.varve", point);
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && (fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return 0;
    (void)ioctl(fd, VARVE_IOC_INFO, &info);
    close(fd);
    return 0;
}

static int touch(const char *path, int silence_ms)
{
    return ask(&(struct asking){.question = answer_touch, .ctx = (void *)path, .silence_ms = silence_ms}, NULL, NULL);
}

struct patience {
    const char *path;
    int lived_ms;               /* at this silence it was seen to live */
};

static int be_patient(void *ctx, char *text, size_t *len, int silent_ms)
{
    struct patience *p = ctx;
    (void)text, (void)len;
    if (silent_ms - p->lived_ms >= ASK_MS) {
        int r = touch(p->path, ASK_MS);
        if (r == -ETIMEDOUT || r == -EINTR)
            return 0;
        p->lived_ms = silent_ms;
    }
    return ASK_MS - (silent_ms - p->lived_ms);
}

int ask_while_alive(int (*question)(void *path, int fd), const char *path, char **text, size_t *len)
{
    struct patience p = {.path = path};
    const struct asking a = {.question = question, .ctx = (void *)path, .more = be_patient, .more_ctx = &p};
    return ask(&a, text, len);
}

/* Did this program inherit a disk that is open for writing, as from a shell after `exec 3<>DISK`? Then the end of a child
 * would be a close of that disk, and make a snapshot before the command does. */
static bool holds_disk(void)
{
    char path[PATH_MAX], point[PATH_MAX];
    bool holds = false;
    const struct dirent *d;
    DIR *fds = opendir("/proc/self/fd");
    while (fds != NULL && !holds && (d = readdir(fds)) != NULL) {
        int flags = fcntl((int)strtol(d->d_name, NULL, 10), F_GETFL);
        ssize_t n = d->d_type != DT_LNK || flags < 0 || (flags & O_ACCMODE) == O_RDONLY ? -1
                                                                    : readlinkat(dirfd(fds), d->d_name, path, sizeof path - 1);
        path[n < 0 ? 0 : n] = '\0';
        holds = path[0] == '/' && mount_of_full(path, point) == 0 && point[0] != '\0';
    }
    if (fds != NULL)
        closedir(fds);
    return holds;
}

int mount_answers(const struct command *cmd, const char *path)
{
    int r = holds_disk() ? 0 : touch(path, ACT_MS);
    if (r == -ETIMEDOUT)
        return report_about(cmd, path, ETIMEDOUT, "%s; nothing was done", ask_silence(ACT_MS));
    return r == -EINTR ? report_errno(cmd, path, EINTR) : EXIT_OK;
}

/* ---- the child ---- */

/* How far the round is. Only root may read that: others see no bar. */
static void read_round(struct round *out, const char *mountpoint)
{
    char path[PATH_MAX];
    json_t *doc, *round;
    if (snprintf(path, sizeof path, "%s/.varve/status.json", mountpoint) >= (int)sizeof path)
        return;
    doc = json_load_file(path, 0, NULL);
    if (doc == NULL)
        return;
    round = json_object_get(doc, "round");
    if (json_is_true(json_object_get(round, "running"))) {
        out->done = json_number(round, "done");
        out->total = json_number(round, "total");
    }
    json_decref(doc);
}

/* Asks again every half second: the parent hears that the daemon lives, and the bar moves. Only the first request has what failed tried
 * again. */
static int answer_rounds(void *ctx, int out)
{
    const struct wait *w = ctx;
    uint32_t flags = VARVE_WAIT_BEGINS;
    char point[PATH_MAX];
    int r = mount_of(w->path, point), fd = r < 0 ? -1 : open(w->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return r < 0 ? r : -errno;
    struct round where = {.result = EINPROGRESS};
    memcpy(where.text, point, sizeof point);
    r = ask_answer(out, &where, sizeof where);
    for (bool goes_on = true; r == 0 && goes_on;) {
        int64_t left = left_ms(w);
        struct varve_ioc_wait req = {.pending = flags, .timeout_ms = left > ROUND_MS ? ROUND_MS : left < 0 ? 0 : left};
        struct round round = {.result = ioctl(fd, VARVE_IOC_WAIT, &req) < 0 ? errno : req.error, .pending = req.pending};
        memcpy(round.text, req.text, sizeof req.text);
        flags = 0;
        goes_on = round.result == ETIMEDOUT && left > ROUND_MS;
        if (goes_on && w->shows)
            read_round(&round, point);
        r = ask_answer(out, &round, sizeof round);
    }
    close(fd);
    return r;
}

/* ---- the parent ---- */

static void hear_round(struct wait *w, const char *at)
{
    memcpy(&w->last, at, sizeof w->last);
    w->lived_ms = 0;
    if (w->last.result == EINPROGRESS) {
        memcpy(w->point, w->last.text, sizeof w->point);
        return;
    }
    w->heard = true;
    progress_show(&w->bar, w->last.done, w->last.total);
}

/* A request for a disk can wait for STORE longer than that: a daemon hangs that does not answer what needs no STORE, either. */
static bool lives(struct wait *w, int64_t left)
{
    int r = touch(w->point[0] != '\0' ? w->point : w->path, left < ASK_MS ? (int)left : ASK_MS);
    w->interrupted = r == -EINTR;
    w->hangs = r == -ETIMEDOUT && left >= ASK_MS;
    return r != -EINTR && r != -ETIMEDOUT;
}

static int hear_rounds(void *ctx, char *text, size_t *len, int silent_ms)
{
    const int limit = ACT_MS - ASK_MS;
    struct wait *w = ctx;
    size_t at = 0;
    for (; *len - at >= sizeof w->last; at += sizeof w->last)
        hear_round(w, text + at);
    memmove(text, text + at, *len - at);
    *len -= at;
    w->silent_ms = silent_ms;
    int64_t left = left_ms(w) + LATE_MS;
    int64_t rest = limit - (silent_ms - w->lived_ms);
    if (rest <= 0 && left > 0) {
        if (!lives(w, left))
            return 0;
        w->lived_ms = silent_ms;
        rest = limit;
    }
    return (int)(left < rest ? left : rest);
}

/* No answer came, or none in time. */
static int report_late(const struct command *cmd, const struct wait *w, bool answered)
{
    if (w->hangs)
        return report_about(cmd, w->path, ETIMEDOUT, "%s", ask_silence(ACT_MS));
    if (!answered)
        return report_about(cmd, w->path, ETIMEDOUT, "does not answer within the time of --timeout");
    return report_about(cmd, w->path, ETIMEDOUT, "%u snapshot(s) still not stored after %lld s", w->last.pending,
                        (long long)(w->timeout_ms / 1000));
}

int wait_stored(const struct command *cmd, const char *path, int64_t timeout_ms, bool *silent)
{
    struct wait w = {.path = path, .timeout_ms = timeout_ms, .begin_ns = vclock_mono_ns(&vclock_system), .shows = isatty(STDERR_FILENO),
                     .bar = {.title = "storing", .bytes = true}};
    int r = ask(&(struct asking){.question = answer_rounds, .ctx = &w, .more = hear_rounds, .more_ctx = &w}, NULL, NULL);
    progress_end(&w.bar);
    const bool answered = w.heard && !w.hangs && (w.silent_ms < ASK_MS || w.lived_ms > 0);
    if (silent != NULL)
        *silent = w.hangs;
    if (w.interrupted)
        r = -EINTR;
    if (r == -ETIMEDOUT)
        return report_late(cmd, &w, answered);
    if (r < 0)
        return report_errno(cmd, path, -r);
    if (!w.heard)
        return report_errno(cmd, path, EPROTO);
    if (w.last.result == 0)
        return EXIT_OK;
    if (w.last.result == ETIMEDOUT)
        return report_late(cmd, &w, true);
    if (w.last.result == EIO)
        return report_about(cmd, path, EIO, "%s", w.last.text[0] != '\0' ? w.last.text : "storing a snapshot failed");
    return report_errno(cmd, path, w.last.result);
}
