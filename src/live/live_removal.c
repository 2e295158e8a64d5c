/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_removal: the file `removed` in a disk's directory. It says that the disk's name is about to go, and the image with it.
 *
 *   `removed`, fsynced -> the name's record in STORE goes -> the directory is renamed away and taken apart, `removed` with it
 *
 * A crash in between leaves an image that is known to be removed. An image without a name and without this file stays.
 */
#include "live/live.h"
#include "live/live_format.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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
    uint8_t record[LIVE_STATE_OFF];
    int dirfd = open_dir(state_dirfd, disk);
    if (dirfd == -ENOENT)
        return 0;
    live_header_encode(LIVE_REMOVED, disk, 0, record);
    int r = dirfd < 0 ? dirfd : -fault_errno("live.removal.say");
    if (r == 0)
        r = file_replace(dirfd, said, record, sizeof record);
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
    uint8_t *record = NULL;
    size_t len = 0;
    int dirfd = open_dir(state_dirfd, disk);
    if (dirfd == -ENOENT)
        return 0;
    int r = dirfd < 0 ? dirfd : file_load(dirfd, said, LIVE_STATE_OFF, &record, &len);
    if (r == 0) /* a kill leaves no half of it: what is no whole record says nothing */
        r = len == LIVE_STATE_OFF && live_header_decode(LIVE_REMOVED, disk, 0, record) == 0;
    else if (r == -ENOENT || r == -EFBIG || r == -EINVAL || r == -ELOOP)
        r = 0;
    free(record);
    return end(disk, dirfd, r, "read", err);
}
