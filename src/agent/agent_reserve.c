/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lets things be removed when the last block is taken: a removal writes, too (a record, a row of the catalog). One file
 * in STATE and one beside the records in STORE hold some space; a removal that meets the end of space gives both up and tries
 * again. The agent's thread makes them anew once there is room. They hold nothing, so neither is ever fsynced.
 */
#include "agent/agent_internal.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { STATE_RESERVE = 1 << 20, STORE_RESERVE = 1 << 20 };      /* XFS wants 200 KiB free to make one small file */

/* ".tmp-": no reader of the store looks at it. */
static void store_name(const struct agent *a, char out[64])
{
    char hex[VID_HEX];
    vid_hex(&a->host, hex);
    snprintf(out, 64, ".tmp-reserve-%s", hex);
}

/* 1 made, 0 there already, -errno. Written, not only allocated: not every filesystem can do the latter. */
static int fill_one(int dirfd, const char *name, size_t len)
{
    static const uint8_t nothing[64 << 10] = {1};   /* not all zero: a filesystem that compresses must not make a hole of it */
    if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    struct statvfs vfs;     /* a full disk is asked every second: it is left alone until there is room */
    if (fstatvfs(dirfd, &vfs) == 0 && vfs.f_blocks > 0 && (uint64_t)vfs.f_bavail * vfs.f_frsize < FILE_SPARE + len)
        return -ENOSPC;
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int r = 0;
    for (size_t off = 0; r == 0 && off < len; off += sizeof nothing)
        r = pwrite_full(fd, nothing, sizeof nothing, (off_t)off);
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r < 0)
        unlinkat(dirfd, name, 0);
    return r < 0 ? r : 1;
}

int agent_reserve_fill(struct agent *a, struct verr *err)
{
    char name[64];
    store_name(a, name);
    int r = fill_one(a->state_fd, "reserve", STATE_RESERVE);
    int s = fill_one(store_dirfd(a->store, DIR_NODES), name, STORE_RESERVE);
    r = r < 0 ? r : s;
    return r < 0 ? verr_set(err, -r, "there is no room for the reserve that removals need when a disk is full: make room in %s or %s",
                            a->state_path, store_path(a->store)) : 0;
}

/* Emptied first: some filesystems free what an unlink leaves only later. */
static bool give_up(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0)
        close(fd);
    return unlinkat(dirfd, name, 0) == 0;
}

bool agent_reserve_use(struct agent *a, int result)
{
    char name[64];
    if (result != -ENOSPC && result != -EDQUOT)
        return false;
    store_name(a, name);
    bool any = give_up(a->state_fd, "reserve");
    any = give_up(store_dirfd(a->store, DIR_NODES), name) || any;
    if (any)
        vlog(VLOG_INFO, "agent", "the reserve of %s and %s is used for a removal", a->state_path, store_path(a->store));
    return any;
}

void agent_reserve_end(struct agent *a)
{
    const struct work_item item = {.kind = WORK_RESERVE};
    if (work_owe(a->work, &item) < 0)
        vlog(VLOG_WARN, "agent", "out of memory: the reserve for removals is made at the next start");
}
