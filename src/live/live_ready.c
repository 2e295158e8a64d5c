/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_ready: images made ahead (docs/design/live.md, "Images made ahead"). Each is empty, durable, marked LIVE_UNNAMED, and lies in a
 * directory `.ready-ID`. A new disk takes one with its id: the rename to `ID` is all that is left to do, and need not be durable, because
 * after a power loss the image is there under the one name or the other, and a start gives it the final one (live_ready_enter).
 */
#include "live/live_head.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- taking ---- */

static bool pop(struct live_set *set, struct vid *id)
{
    pthread_mutex_lock(&set->lock);
    bool any = set->nready > 0;
    if (any)
        *id = set->ready[--set->nready];
    set->made++;
    pthread_mutex_unlock(&set->lock);
    return any;
}

int live_ready_take(struct live_set *set, struct vid *id, struct verr *err)
{
    char from[LIVE_READY_NAME], hex[VID_HEX];
    if (!pop(set, id))
        return -ENOENT;
    live_ready_name(id, from);
    vid_hex(id, hex);
    if (renameat(set->disksfd, from, set->disksfd, hex) < 0)
        return verr_set(err, errno, "disks/%s: cannot be renamed: %s", from, strerror(errno));
    return 0;
}

/* ---- making ---- */

/* As many as disks were made so far, up to a bound: who makes one disk wants few, who makes a thousand wants many at a time. */
static unsigned wanted(struct live_set *set)
{
    pthread_mutex_lock(&set->lock);
    unsigned most = set->made < LIVE_READY_MOST ? set->made : LIVE_READY_MOST;
    unsigned n = set->nready <= most / 2 ? most - set->nready : 0;
    pthread_mutex_unlock(&set->lock);
    return n;
}

bool live_ready_due(struct live_set *set)
{
    return wanted(set) > 0;
}

int live_ready_make(struct live_set *set, struct verr *err)
{
    struct vid ids[LIVE_READY_MOST];
    unsigned n = wanted(set);
    for (unsigned i = 0; i < n; i++)
        ids[i] = vid_random();
    int r = n > 0 ? live_write_ready(set, ids, n, err) : 0;
    if (r < 0 || n == 0)
        return r;
    pthread_mutex_lock(&set->lock);
    memcpy(set->ready + set->nready, ids, n * sizeof ids[0]);
    set->nready += n;
    pthread_mutex_unlock(&set->lock);
    return 0;
}

/* ---- start and end of a set ---- */

static int enter_one(void *ctx, const char *name)
{
    const struct live_set *set = ctx;
    if (strncmp(name, LIVE_READY, strlen(LIVE_READY)) != 0)
        return 0;
    return renameat(set->disksfd, name, set->disksfd, name + strlen(LIVE_READY)) < 0 && errno != ENOENT ? -errno : 0;
}

int live_ready_enter(struct live_set *set)
{
    return dir_each(set->disksfd, enter_one, set);
}

void live_ready_remove(struct live_set *set)
{
    for (unsigned i = 0; i < set->nready; i++)
        live_unmake_ready(set, &set->ready[i]);     /* what stays is an image without name and content at the next start */
    set->nready = 0;
}
