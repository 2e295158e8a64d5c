/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space kept for removals. A removal writes, too (a record, a row of the catalog), and must succeed when the last block is taken. One
 * file in STATE and one beside the records in STORE hold some space; a removal that runs out of space gives both up and tries again.
 * The agent's thread makes the files anew once there is room. Their content does not matter, so they are never fsynced.
 */
#include "agent/agent_internal.h"

#include "base/file.h"

#include <errno.h>

enum { STATE_RESERVE = 1 << 20, STORE_RESERVE = 1 << 20 };      /* XFS needs 200 KiB free to make one small file */

int agent_reserve_fill(struct agent *a, struct verr *err)
{
    int r = file_reserve(a->state_fd, "reserve", STATE_RESERVE);
    int s = store_reserve(a->store, &a->host, STORE_RESERVE);
    r = r < 0 ? r : s;
    return r < 0 ? verr_set(err, -r, "there is no room for the reserve that removals need when a disk is full: make room in %s or %s",
                            a->state_path, store_path(a->store)) : 0;
}

bool agent_reserve_use(struct agent *a, int result)
{
    if (result != -ENOSPC && result != -EDQUOT)
        return false;
    bool any = file_unreserve(a->state_fd, "reserve") == 0;
    any = store_unreserve(a->store, &a->host) == 0 || any;
    if (any)
        vlog(VLOG_INFO, "agent", "the reserve of %s and %s is used for a removal", a->state_path, store_path(a->store));
    return true;
}

void agent_reserve_end(struct agent *a)
{
    const struct work_item item = {.kind = WORK_RESERVE};
    if (work_owe(a->work, &item) < 0)
        vlog(VLOG_WARN, "agent", "out of memory: the reserve for removals is made at the next start");
}
