/* SPDX-License-Identifier: Apache-2.0 */
/* live_disk: the names of a disk's files, its errors, and what an fsync that failed means for it. */
#include "live/live_disk.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/vlog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void live_name(char out[NAME_BYTES], const char *stem, uint64_t no, const char *suffix)
{
    snprintf(out, NAME_BYTES, "%s-%" PRIu64 "%s", stem, no, suffix);
}

int (live_fail)(const struct live *l, struct verr *err, int code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    if (err == NULL)
        return -code;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return verr_set(err, code, "disks/%s: %s", l->hex, text);
}

/* ---- files by name: each path begins at disks/, so that an open disk holds no descriptor ---- */

enum { PATH_BYTES = LIVE_DIR_BYTES + NAME_BYTES };

static const char *path_of(const struct live *l, const char *name, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/%s", l->dir, name);
    return out;
}

int live_open_file(const struct live *l, const char *name, int flags)
{
    char path[PATH_BYTES];
    int fd = openat(l->set->disksfd, path_of(l, name, path), flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

int live_stat_file(const struct live *l, const char *name, struct stat *st)
{
    char path[PATH_BYTES];
    return fstatat(l->set->disksfd, path_of(l, name, path), st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int live_unlink(const struct live *l, const char *name)
{
    char path[PATH_BYTES];
    return unlinkat(l->set->disksfd, path_of(l, name, path), 0) < 0 ? -errno : 0;
}

int live_rename(const struct live *l, const char *from, const char *to)
{
    char path[PATH_BYTES], to_path[PATH_BYTES];
    return renameat(l->set->disksfd, path_of(l, from, path), l->set->disksfd, path_of(l, to, to_path)) < 0 ? -errno : 0;
}

int live_link(const struct live *from, const char *name, const struct live *to, const char *to_name)
{
    char path[PATH_BYTES], to_path[PATH_BYTES];
    return linkat(from->set->disksfd, path_of(from, name, path), to->set->disksfd, path_of(to, to_name, to_path), 0) < 0 ? -errno : 0;
}

int live_open_dir(const struct live *l)
{
    return dir_open(l->set->disksfd, l->dir);
}

int live_sync_dir(const struct live *l)
{
    int fd = live_open_dir(l);
    if (fd < 0)
        return fd;
    int r = dir_sync(fd);
    close(fd);
    return r;
}

int live_each_file(struct live *l, int (*fn)(void *ctx, const char *name), void *ctx)
{
    int fd = live_open_dir(l);
    if (fd < 0)
        return fd;
    int r = dir_each(fd, fn, ctx);
    close(fd);
    return r;
}

/* ---- volatile presence that may not be believed ---- */

static int remove_volatile(void *ctx, const char *name)
{
    int dirfd = *(const int *)ctx;
    size_t n = strlen(name);
    bool vol = n > 4 && strcmp(name + n - 4, ".vol") == 0;
    if (!vol && strncmp(name, "cache-", 6) != 0)
        return 0;
    /* The first vol file becomes the sign that vol files were removed on purpose, until the disk is recovered: a rename needs no
     * space on a full disk. A vol file that is missing without the sign was lost. */
    if (vol && faccessat(dirfd, LIVE_RECOVER, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return renameat(dirfd, name, dirfd, LIVE_RECOVER) < 0 ? -errno : 0;
    return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int live_forget_volatile(int dirfd)
{
    return dir_each(dirfd, remove_volatile, &dirfd);
}

/* ---- fsync ---- */

static int forget_vol(void *ctx, const char *name)
{
    return strncmp(name, "layer-", 6) == 0 ? remove_volatile(ctx, name) : 0;
}

/* The kernel reports lost pages once; the next fdatasync, also one of a later run, would say that all is well while a page that
 * was lost reads as it was long ago. Without their vol files the next start finds what was durable, as after a power loss. */
void live_distrust(struct live *l)
{
    atomic_store(&l->failed, EIO);
    int fd = live_open_dir(l), r = fd < 0 ? fd : dir_each(fd, forget_vol, &fd);
    if (fd >= 0)
        close(fd);
    if (r < 0)
        vlog(VLOG_ERROR, "live", "disks/%s: after a failed fsync its *.vol files cannot be removed (%s): do it before the next mount",
             l->hex, strerror(-r));
}

int live_sync_fd(struct live *l, int fd, const char *stem, uint64_t no, const char *suffix, struct verr *err)
{
    char point[48];
    snprintf(point, sizeof point, "live.sync.%s%s", stem, suffix);
    int r = fault_errno(point);
    if (r == 0)
        r = fdatasync(fd) < 0 ? errno : 0;
    if (r == 0)
        return 0;
    live_distrust(l);
    return live_fail(l, err, EIO, "%s-%" PRIu64 "%s: fdatasync failed: %s; the disk takes no more changes until it is opened again",
                     stem, no, suffix, strerror(r));
}

int live_check_failed(struct live *l, struct verr *err)
{
    int failed = atomic_load(&l->failed);
    return failed ? live_fail(l, err, failed, "an earlier write to STATE failed: no more changes until it is opened again") : 0;
}
