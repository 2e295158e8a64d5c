/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting until snapshots are stored, for several commands. */
#include "cli/reports.h"

#include "base/clock.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Shows how far the round is. Only root may read that: others see no bar. */
static void show_round(struct progress *bar, const char *mountpoint)
{
    char path[PATH_MAX];
    json_t *doc, *round;
    if (snprintf(path, sizeof path, "%s/.varve/status.json", mountpoint) >= (int)sizeof path)
        return;
    doc = json_load_file(path, 0, NULL);
    if (doc == NULL)
        return;
    round = json_object_get(doc, "round");
    if (json_is_true(json_object_get(round, "running")))
        progress_show(bar, (uint64_t)json_integer_value(json_object_get(round, "done")),
                      (uint64_t)json_integer_value(json_object_get(round, "total")));
    json_decref(doc);
}

/* Asks again every half second: an interrupt answers soon, and the bar moves. Only the first request has what failed tried again. */
int wait_stored(const struct command *cmd, const char *path, int64_t timeout_ms)
{
    struct progress bar = {.title = "storing", .bytes = true};
    struct varve_ioc_wait req;
    char point[PATH_MAX];
    int found = mount_of(path, point);
    if (found < 0)
        return report_errno(cmd, path, -found);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return report_errno(cmd, path, errno);
    int64_t begin = vclock_mono_ns(&vclock_system);
    uint32_t flags = VARVE_WAIT_BEGINS;
    int r;
    for (;;) {
        int64_t left = timeout_ms < 0 ? 500 : timeout_ms - (vclock_mono_ns(&vclock_system) - begin) / 1000000;
        memset(&req, 0, sizeof req);
        req.pending = flags;
        flags = 0;
        req.timeout_ms = left > 500 ? 500 : left < 0 ? 0 : left;
        r = ioctl(fd, VARVE_IOC_WAIT, &req) < 0 ? errno : req.error;
        if (r != ETIMEDOUT || (timeout_ms >= 0 && left <= 500))
            break;
        if (isatty(STDERR_FILENO))
            show_round(&bar, point);
    }
    progress_end(&bar);
    close(fd);
    if (r == 0)
        return EXIT_OK;
    if (r == ETIMEDOUT)
        return report_about(cmd, path, r, "%u snapshot(s) still not stored after %lld s", req.pending, (long long)(timeout_ms / 1000));
    if (r == EIO)
        return report_about(cmd, path, r, "%s", req.text[0] != '\0' ? req.text : "storing a snapshot failed");
    return report_errno(cmd, path, r);
}
