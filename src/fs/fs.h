/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs: the FUSE front, and the only user of libfuse. It turns requests of the kernel about names, inodes and handles into calls of
 * agent, names, live and snapshot. fs_stop may be called by any thread; the other functions are called by the main thread only.
 */
#ifndef VARVE_FS_FS_H
#define VARVE_FS_FS_H

#include <stdbool.h>
#include <stdint.h>

struct agent;
struct fs;
struct fs_point;
struct verr;

struct fs_conf {
    const char *store_path;         /* canonical; shown as the mount's source. fs_mount copies both strings */
    const char *mountpoint;         /* absolute */
    bool blocks_dense;              /* st_blocks says full size */
    bool sync_close;                /* a flush is answered when its snapshot is stored */
    int64_t settle_ns;              /* how long nobody has a disk open for writing until its last state is settled */
    bool read_only;
    unsigned threads;               /* FUSE threads; 0: cores + 2 */
    const struct fs_point *dead;    /* a varve mount without a daemon, found at the mount point; NULL: none. fs_mount puts it aside */
    /* Unmounts, for a process that may not any more: 0; 1: detached, because it is in use; -ENOENT: it is not mounted there; other -errno:
     * it stays. NULL: nobody can. */
    int (*unmount)(void *ctx);
    void *unmount_ctx;
};

/* Mounts (as root: default_permissions,allow_other,nosuid,nodev,subtype=varve), answers INIT and raises read_ahead_kb. The agent is
 * borrowed until fs_free; it is open but need not have recovered yet, because fs_serve answers all other requests. -EBUSY: something
 * is mounted there already; -ENOENT: there is no mount point. */
int fs_mount(const struct fs_conf *conf, struct agent *a, struct fs **out, struct verr *err);
/* The device of the mount. */
void fs_device(const struct fs *f, unsigned *dev_major, unsigned *dev_minor);
/* Answers requests until it is unmounted, then finishes those it has accepted. SIGTERM, SIGINT, SIGHUP and fs_stop unmount; while files in
 * it are open, only its name goes, and serving ends when the last of them is closed. On return these signals are ignored. 0, or -errno when
 * serving could not begin or broke off. */
int fs_serve(struct fs *f, struct verr *err);
void fs_stop(struct fs *f);
/* Unmounts what is still mounted, if the process may, and frees. NULL is allowed. */
void fs_free(struct fs *f);

#endif
