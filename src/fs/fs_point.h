/* SPDX-License-Identifier: Apache-2.0 */
/* fs_point: what is mounted at a place, without touching it: a mount whose daemon does not answer would not let go of who asks. */
#ifndef VARVE_FS_FS_POINT_H
#define VARVE_FS_FS_POINT_H

#include <stdbool.h>
#include <stdint.h>

struct verr;

struct fs_point {
    uint64_t id;                        /* of the mount */
    unsigned dev_major, dev_minor;
    char type[64];
};

/* The topmost mount at an absolute path. 1; 0: nothing is mounted there; -errno. */
int fs_point_find(const char *path, struct fs_point *out);
static inline bool fs_point_same(const struct fs_point *a, const struct fs_point *b)
{
    return a->id == b->id && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

/* Is there a directory that can be mounted on? `dead`, unless NULL, is known to be a varve mount without a daemon; it is put aside: what has
 * files open in it keeps them, and they stay errors. -EBUSY: another FUSE filesystem is mounted there. */
int fs_point_ready(const char *path, const struct fs_point *dead, struct verr *err);

#endif
