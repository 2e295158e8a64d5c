/* SPDX-License-Identifier: Apache-2.0 */
/* The room that is left where STORE and STATE lie. */
#include "agent/agent_internal.h"

#include <errno.h>
#include <sys/statvfs.h>

static uint64_t less(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

static int state_room(const struct agent *a, struct agent_room *out)
{
    struct statvfs vfs;
    struct live_space space;
    if (fstatvfs(a->state_fd, &vfs) < 0)
        return -errno;
    live_set_space(a->live, &space);
    out->state_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    out->state_free = less((uint64_t)vfs.f_bavail * vfs.f_frsize, STATE_SPARE);
    if (space.layer_limit == 0)
        return 0;
    uint64_t left = less(space.layer_limit, space.layers_bytes);
    if (out->state_free > left)
        out->state_free = left;
    if (out->state_bytes > space.layer_limit)
        out->state_bytes = space.layer_limit;
    return 0;
}

int agent_room(const struct agent *a, struct agent_room *out)
{
    struct statvfs vfs;
    int r = store_space(a->store, &vfs);
    if (r < 0)
        return r;
    out->store_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    out->store_free = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return state_room(a, out);
}

int agent_space(const struct agent *a, struct statvfs *out)
{
    struct statvfs vfs;
    struct agent_room room = {0};
    int r = store_space(a->store, &vfs);
    if (r == 0)
        r = state_room(a, &room);
    if (r < 0)
        return r;
    uint64_t free_blocks = vfs.f_frsize == 0 ? 0 : room.state_free / vfs.f_frsize;
    if (vfs.f_bavail > free_blocks) {
        vfs.f_blocks = less(vfs.f_blocks, less(vfs.f_bfree, free_blocks));
        vfs.f_bfree = vfs.f_bavail = free_blocks;
    }
    *out = vfs;
    return 0;
}
