/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last `varve verify` of all data, in STATE/verified: a verify of a host says what that host could read, and STORE stays as it is. The
 * program that verified writes the file, whether a daemon runs or not; reports of the daemon read it.
 */
#include "agent/agent_verified.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERIFIED_FILE "verified"
enum { TEXT_MAX = 256 };

int agent_verified_write(const char *state, const struct agent_verified *v, struct verr *err)
{
    char text[TEXT_MAX];
    int n = snprintf(text, sizeof text, "verified 1 ended %" PRId64 " damaged %" PRIu64 " snapshots %" PRIu64 "\n", v->ended_s, v->damaged,
                     v->snapshots);
    int fd = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return verr_set(err, errno, "state directory %s: %s", state, strerror(errno));
    int r = file_replace(fd, VERIFIED_FILE, text, (size_t)n);
    close(fd);
    return r < 0 ? verr_set(err, -r, "%s/" VERIFIED_FILE ": cannot write: %s", state, strerror(-r)) : 0;
}

/* The whole line, or nothing of it: sscanf alone takes a line that was cut off. */
static bool parse(const char *text, struct agent_verified *out)
{
    char again[TEXT_MAX];
    struct agent_verified v;
    /* NOLINTNEXTLINE(cert-err34-c): a number out of range does not come out the same below */
    if (sscanf(text, "verified 1 ended %" SCNd64 " damaged %" SCNu64 " snapshots %" SCNu64, &v.ended_s, &v.damaged, &v.snapshots) != 3)
        return false;
    snprintf(again, sizeof again, "verified 1 ended %" PRId64 " damaged %" PRIu64 " snapshots %" PRIu64 "\n", v.ended_s, v.damaged,
             v.snapshots);
    if (strcmp(text, again) != 0 || v.ended_s < 0)
        return false;
    *out = v;
    return true;
}

int agent_verified_read(int state_fd, struct agent_verified *out)
{
    uint8_t *data;
    size_t len;
    int r = file_load(state_fd, VERIFIED_FILE, TEXT_MAX, &data, &len);
    if (r < 0)
        return r;
    r = strlen((char *)data) == len && parse((char *)data, out) ? 0 : -EBADMSG;
    free(data);
    return r;
}
