/* SPDX-License-Identifier: Apache-2.0 */
/* A walk over all disks in order of their names, with what reports say of each. It reads the catalog alone, in batches. */
#ifndef VARVE_AGENT_AGENT_DISKS_H
#define VARVE_AGENT_AGENT_DISKS_H

#include "agent/agent_json.h"

/* A snapshot is good if it is stored and has no flag. The newest and the good one may be the same. */
struct disk_report {
    const char *path;                       /* below the mount */
    const struct node *node;
    bool any, good;                         /* newest, last_good are filled in */
    struct snaprow newest, last_good;
    uint64_t pending, failed;               /* snapshots that are not stored; of them, whose last attempt failed */
    uint64_t pending_bytes;                 /* written segments of these, whole */
    const struct work_failure *failure;     /* the disk's first one, or NULL */
};
/* Calls fn for each disk below a node (NULL: everywhere; a disk: itself) that the viewer may see. A removed disk comes only if the viewer
 * may read one of its newest snapshots. An answer of fn below 0 ends the walk and is returned. */
int agent_each_disk(struct agent *a, const struct node *below, const struct agent_viewer *who,
                    int (*fn)(void *ctx, const struct disk_report *d), void *ctx, struct verr *err);

#endif
