/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/fs_point.h"

#include "base/mounts.h"
#include "base/verr.h"
#include "base/vlog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

struct find { const char *path; bool found; struct fs_point *out; };

static int find(void *ctx, const struct mount_line *m)
{
    struct find *f = ctx;
    if (strcmp(m->point, f->path) != 0)
        return 0;
    f->found = true;        /* the last line of a path is the mount on top */
    *f->out = (struct fs_point){.id = m->id, .dev_major = m->major, .dev_minor = m->minor};
    snprintf(f->out->type, sizeof f->out->type, "%s", m->type);
    return 0;
}

int fs_point_find(const char *path, struct fs_point *out)
{
    struct find f = {.path = path, .out = out};
    int r = mounts_each(0, find, &f);
    return r < 0 ? r : f.found;
}

/* A connection without a daemon never gets one again, so the mount is still dead if it is still the same. */
static int put_aside(const char *path, struct verr *err)
{
    if (umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) < 0)
        return verr_set(err, errno, "%s: a dead mount is there, and cannot be unmounted: %s", path, strerror(errno));
    vlog(VLOG_WARN, "fs", "%s: the daemon that was mounted there had died; its mount is put aside", path);
    return 0;
}

int fs_point_ready(const char *path, const struct fs_point *dead, struct verr *err)
{
    struct fs_point p = {0};
    int r = fs_point_find(path, &p);
    if (r == 1 && dead != NULL && fs_point_same(&p, dead)) {
        r = put_aside(path, err);
        if (r < 0)
            return r;
        r = fs_point_find(path, &p);
    }
    if (r == 1 && strncmp(p.type, "fuse", 4) == 0)
        return verr_set(err, EBUSY, "%s: a %s filesystem is mounted there already (umount it first)", path, p.type);
    struct stat st;
    if (stat(path, &st) != 0)
        return verr_set(err, errno, "mount point %s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return verr_set(err, ENOTDIR, "mount point %s is not a directory", path);
    return 0;
}
