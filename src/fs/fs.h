/* SPDX-License-Identifier: Apache-2.0 */
/* fs: the FUSE front: only user of libfuse. Paths, inodes and handles -> agent, names, live, snapshot. */
#ifndef VARVE_FS_FS_H
#define VARVE_FS_FS_H

#include <stdbool.h>

struct agent;
struct fs;
struct verr;

struct fs_conf {
    const char *store_path;         /* canonical: fsname */
    const char *mountpoint;         /* absolute */
    bool blocks_dense;              /* st_blocks says full size */
    bool sync_close;                /* flush answers when stored */
    bool read_only;
    unsigned threads;               /* FUSE threads; 0: cores + 2 */
};

/* Mounts (as root: default_permissions,allow_other,nosuid,nodev,subtype=varve) and raises read_ahead_kb. The agent is open,
 * not yet recovered: no request is answered before fs_serve. -EBUSY, -ENOENT name the mount point. */
int fs_mount(const struct fs_conf *conf, struct agent *a, struct fs **out, struct verr *err);
/* Serves until umount or fs_stop; returns 0 on a clean end. SIGTERM, SIGINT and SIGHUP stop it. */
int fs_serve(struct fs *f, struct verr *err);
void fs_stop(struct fs *f);
/* Unmounts if still mounted (and allowed to), frees. */
void fs_free(struct fs *f);

#endif
