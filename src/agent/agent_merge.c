/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bound of pending snapshots. Where closes come faster than rounds, or STORE is away for long, a disk's list of pending snapshots
 * would grow with each close, and with it files in STATE, records of the journal and the time of a round. So before a disk with
 * PENDING_KEPT of them is frozen, one is merged into the next younger one: its changes become changes of that one, and its name goes.
 *
 * Which one: never one that was asked for or has a label, is open for reading, is being stored or has failed; never the newest; and no
 * good one whose successor is partial. Of the others the one that its successor followed soonest: of a burst of closes few stay, of a
 * long time a snapshot now and then. If there is none, the list grows: who asks for snapshots gets them.
 *
 * The merging costs a few fdatasyncs (live_drop.c) and comes before the close is answered, so it slows down the writer that causes it.
 */
#include "agent/agent_internal.h"

#include "base/vlog.h"

#include <string.h>

enum { PENDING_KEPT = 64, AT_ONCE = 2 };    /* AT_ONCE: a longer list, of an earlier version, becomes shorter with each close */

struct merging { struct snapinfo p, next; };

static bool may_go(struct live *l, const struct merging *m)
{
    const uint32_t stays = SNAP_STARTED | SNAP_EXPLICIT | SNAP_FAILED;
    if ((m->p.flags & stays) != 0 || (m->next.flags & SNAP_STARTED) != 0 || m->p.label[0] != '\0')
        return false;
    if ((m->p.flags & SNAP_PARTIAL) == 0 && (m->next.flags & SNAP_PARTIAL) != 0)
        return false;
    return !live_pending_held(l, m->p.ref.seq);
}

static bool choose(struct live *l, struct merging *best)
{
    struct merging m;
    int64_t least = INT64_MAX;
    bool any = live_pending(l, 0, &m.p, NULL) == 0;
    for (unsigned i = 1; any && live_pending(l, i, &m.next, NULL) == 0; i++) {
        int64_t gap = m.next.freeze_ns - m.p.freeze_ns;
        if (gap < least && may_go(l, &m)) {
            least = gap;
            *best = m;
        }
        m.p = m.next;
    }
    return least < INT64_MAX;
}

static int merge(struct agent *a, struct live *l, const struct merging *m, struct verr *err)
{
    const struct snaprow row = {.info = m->p};
    agent_waits_follow(a, &m->p.ref.snap, &m->next.ref.snap);
    int r = live_pending_drop(l, m->p.ref.seq, err);
    return r < 0 ? r : agent_row_del(a, &row, err);
}

/* What cannot be merged stays: that is no failure of the freeze. */
void agent_merge_pending(struct agent *a, struct live *l)
{
    char path[PATH_TEXT];
    struct live_attr at;
    struct merging m;
    struct verr err = {0};
    for (unsigned n = 0; n < AT_ONCE && live_attr(l, &at, NULL) == 0 && at.pending >= PENDING_KEPT && choose(l, &m); n++) {
        int r = merge(a, l, &m, &err);
        agent_disk_path(a, live_id(l), path, sizeof path);
        if (r < 0) {
            vlog(VLOG_WARN, "agent", "%s: %u snapshots are pending, and none can be merged: %s", QUOTED(path), at.pending, verr_str(&err));
            return;
        }
        agent_say(a, VLOG_DEBUG, path, "snapshot %llu merged into %llu, because %u are pending", (unsigned long long)m.p.ref.seq,
                    (unsigned long long)m.next.ref.seq, at.pending);
    }
}
