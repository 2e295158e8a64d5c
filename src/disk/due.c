/* SPDX-License-Identifier: Apache-2.0 */
#include "disk/due.h"

static bool is_rewriting(const struct due_case *c)
{
    return (c->attr.marks & LIVE_REWRITING) != 0;
}

bool due_possible(const struct due_case *c)
{
    if (c->node->flags & NODE_GONE)
        return false;
    return c->occasion == DUE_REQUEST || c->node->name[0] != '.';
}

/* Nobody asks, nothing is about to be lost, and no handle has just written: on these occasions what was removed stays removed. */
static bool comes_by_itself(enum due_occasion o)
{
    return o == DUE_RELEASE || o == DUE_SETTLED || o == DUE_LATE || o == DUE_RECOVERY || o == DUE_ZEROS;
}

/* Has the disk a state that no snapshot holds, or does the occasion ask for a snapshot of an unchanged disk too? */
static bool is_wanted(const struct due_case *c)
{
    if (c->occasion == DUE_REQUEST || (c->occasion == DUE_CLOSE && is_rewriting(c)))
        return true;
    return c->attr.changed && !(c->attr.unkept && comes_by_itself(c->occasion));
}

static bool is_partial(const struct due_case *c)
{
    switch (c->occasion) {
    case DUE_RECOVERY:
        return true;
    case DUE_SETTLED:
    case DUE_ZEROS:
    case DUE_CLOSE:     /* the same writer's end settles the snapshot and takes the mark away */
    case DUE_RELEASE:
        return c->unclean;
    case DUE_LATE:      /* a later writer may have set the mark */
        return c->unclean || is_rewriting(c);
    case DUE_TRUNCATE:
    case DUE_REVERT:
    case DUE_REPLACED:
    case DUE_RESIZED:
    case DUE_NAMED:
    case DUE_REQUEST:
    case DUE_REQUEST_DIR:
        break;
    }
    return is_rewriting(c);
}

enum due due(const struct due_case *c)
{
    bool asked_for = c->occasion == DUE_REQUEST || c->occasion == DUE_REQUEST_DIR;
    if (!due_possible(c) || !is_wanted(c))
        return DUE_NONE;
    bool any_data = asked_for || c->occasion == DUE_SETTLED, zeros = c->occasion == DUE_ZEROS;
    if (!asked_for && c->attr.size == 0)
        return DUE_NONE;
    if (zeros && is_rewriting(c))       /* a writer is in the middle of it, or was when the daemon died */
        return DUE_NONE;
    if (!any_data && c->data == DUE_DATA_UNKNOWN)
        return DUE_ASK_DATA;
    if (!any_data && (c->data == DUE_DATA_NO) != zeros)
        return DUE_NONE;
    return is_partial(c) ? DUE_PARTIAL : DUE_SNAPSHOT;
}

uint32_t due_flags(const struct due_case *c, enum due what)
{
    uint32_t flags = what == DUE_PARTIAL ? SNAP_PARTIAL : 0;
    if (what != DUE_SNAPSHOT && what != DUE_PARTIAL)
        return 0;
    if (c->occasion == DUE_CLOSE || c->occasion == DUE_RELEASE)
        flags |= SNAP_PROVISIONAL;
    if (c->occasion == DUE_REQUEST || c->occasion == DUE_REQUEST_DIR)
        flags |= SNAP_EXPLICIT;
    return flags;
}

bool due_settles(const struct due_made *m)
{
    if (!m->released)
        return false;
    if (!m->open && m->quiet_ns >= m->settle_ns)
        return true;
    /* Nobody can withdraw the snapshot any more. An image of zeros is often filled by the next process. */
    return m->ended && (m->frozen || (m->asked && !m->open));
}

enum due_fate due_changed(const struct due_made *m, enum due_change change)
{
    /* A file server opens and closes for others. */
    if (change == DUE_SAME_PROCESS && m->settle_ns == 0)
        change = DUE_OTHER_PROCESS;
    if (change == DUE_SAME_HANDLE || change == DUE_SAME_PROCESS)
        return DUE_WITHDRAWN;
    if (!m->released)
        return DUE_STAYS;
    return m->frozen ? DUE_SETTLES : DUE_WITHDRAWN;
}
