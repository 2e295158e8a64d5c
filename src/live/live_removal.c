/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_removal: the file `removed` in a disk's directory. It says that the disk's name is about to go, and the image with it.
 *
 *   `removed`, directory fsynced -> the name's record in STORE goes -> the directory is renamed away and taken apart, `removed` with it
 *
 * A crash in between leaves an image that is known to be removed. An image without a name and without this file stays.
 *
 * The name alone says it and the file is empty: a content would need an fsync of its own, and half of it would say nothing.
 */
#include "live/live.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char said[] = "removed";

/* The directory of a disk, or -errno. */
static int open_dir(int state_dirfd, const struct vid *disk)
{
    char path[sizeof "disks/" + VID_HEX] = "disks/";
    vid_hex(disk, path + strlen(path));
    return dir_open(state_dirfd, path);
}

static int end(const struct vid *disk, int dirfd, int r, const char *what, struct verr *err)
{
    char hex[VID_HEX];
    if (dirfd >= 0)
        close(dirfd);
    if (r >= 0)
        return r;
    vid_hex(disk, hex);
    return verr_set(err, -r, "disks/%s/%s: cannot be %s: %s", hex, said, what, strerror(-r));
}

int live_removal_say(int state_dirfd, const struct vid *disk, struct verr *err)
{
    int dirfd = open_dir(state_dirfd, disk);
    if (dirfd == -ENOENT)
        return 0;
    int r = dirfd < 0 ? dirfd : -fault_errno("live.removal.say");
    if (r == 0) {
        int fd = openat(dirfd, said, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = fd < 0 ? -errno : close(fd) < 0 ? -errno : dir_sync(dirfd);
    }
    return end(disk, dirfd, r, "written", err);
}

int live_removal_unsay(int state_dirfd, const struct vid *disk, struct verr *err)
{
    int dirfd = open_dir(state_dirfd, disk);
    if (dirfd == -ENOENT)
        return 0;
    int r = dirfd < 0 ? dirfd : unlinkat(dirfd, said, 0) < 0 ? -errno : dir_sync(dirfd);
    return end(disk, dirfd, r == -ENOENT ? 0 : r, "taken back", err);
}

int live_removal_said(int state_dirfd, const struct vid *disk, struct verr *err)
{
    struct stat st;
    int dirfd = open_dir(state_dirfd, disk);
    if (dirfd == -ENOENT)
        return 0;
    int r = dirfd < 0 ? dirfd : fstatat(dirfd, said, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : S_ISREG(st.st_mode);
    return end(disk, dirfd, r == -ENOENT ? 0 : r, "read", err);
}
