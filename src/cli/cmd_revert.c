/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include "cli/asking.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* DIR/NAME@SUFFIX.EXT -> DIR/NAME.EXT */
static int live_path(const char *snap, char out[PATH_MAX])
{
    const char *slash = strrchr(snap, '/'), *name = slash == NULL ? snap : slash + 1;
    const char *at = strchr(name, '@');
    if (at == NULL || at == name)
        return -EINVAL;
    const char *dot = strrchr(at, '.');
    int n = snprintf(out, PATH_MAX, "%.*s%s", (int)(at - snap), snap, dot == NULL ? "" : dot);
    return n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

struct stored {
    struct stat st;
    char id[40];
};

/* Blanks while it waits, then a struct stored. */
static int answer_stored(void *ctx, int out)
{
    struct varve_ioc_wait wait;
    struct stored s = {0};
    int fd = open(ctx, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fstat(fd, &s.st) < 0 ? -errno : 0;
    do {
        wait = (struct varve_ioc_wait){.timeout_ms = 500};
        if (r == 0)
            r = ioctl(fd, VARVE_IOC_WAIT, &wait) < 0 ? -errno : ask_answer(out, " ", 1);
    } while (r == 0 && wait.error == ETIMEDOUT);
    if (r == 0 && fgetxattr(fd, "user.varve.id", s.id, sizeof s.id - 1) < 0)
        r = -errno;
    close(fd);
    return r == 0 ? ask_answer(out, &s, sizeof s) : r;
}

/* Waits until the snapshot is stored (a pending one has no recipe to point to) and reads its id and attributes: for as long as STORE takes, and
 * in a child, so that Ctrl-C ends it whatever the daemon does. */
static int stored_id(const char *snap, struct stored *s)
{
    char *text = NULL;
    size_t len = 0;
    int code = mount_answers(&cmd_revert, snap);
    if (code != EXIT_OK)
        return code;
    int r = ask(&(struct asking){.question = answer_stored, .ctx = (void *)snap, .silence_ms = INT_MAX}, &text, &len);
    if (r == 0 && len < sizeof *s)
        r = -EPROTO;
    if (r == 0)
        memcpy(s, text + len - sizeof *s, sizeof *s);
    free(text);
    return r < 0 ? report_errno(&cmd_revert, snap, -r) : EXIT_OK;
}

/* Is `disk` a name for a disk in the mount of that device? Asked before a file of that name is made. 0, or a positive errno. */
static int check_target(const char *disk, dev_t dev)
{
    const char *slash = strrchr(disk, '/');
    char dir[PATH_MAX];
    struct stat st;
    if (strchr(slash == NULL ? disk : slash + 1, '@') != NULL)
        return EINVAL;
    int n = snprintf(dir, sizeof dir, "%.*s/.", slash == NULL ? 1 : (int)(slash - disk), slash == NULL ? "." : disk);
    if (n >= (int)sizeof dir)
        return ENAMETOOLONG;
    if (stat(disk, &st) < 0 && stat(dir, &st) < 0)
        return errno;
    return st.st_dev == dev ? 0 : EXDEV;
}

static int report_target(const char *disk, int error)
{
    return report_about(&cmd_revert, disk, error, "%s", error == EXDEV    ? "not in the varve mount that the snapshot is in"
                                                       : error == EINVAL ? "the name of a snapshot cannot be that of a disk"
                                                                         : strerror(error));
}

/* mode: of the disk, if it is made. */
static int revert_to(const char *disk, const char *id, mode_t mode)
{
    static struct varve_ioc_revert req;
    int fd = open(disk, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    bool made = fd >= 0;
    if (!made && errno == EEXIST)
        fd = open(disk, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return report_errno(&cmd_revert, disk, errno);
    memset(&req, 0, sizeof req);
    snprintf(req.snapshot_id, sizeof req.snapshot_id, "%s", id);
    int r = ioctl(fd, VARVE_IOC_REVERT, &req) < 0 ? errno : req.error;
    close(fd);
    if (r == 0)
        return EXIT_OK;
    if (made && r != EBUSY)     /* EBUSY: somebody writes to it already */
        unlink(disk);
    return report_about(&cmd_revert, disk, r, "%s", req.text[0] != '\0' ? req.text
                                                   : r == EBUSY ? "another process has it open for writing: stop it first" : strerror(r));
}

static int run_revert(int argc, char **argv)
{
    static const struct option longs[] = {{"to", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {0}};
    char disk[PATH_MAX], disk_of[PATH_MAX];
    const char *to = NULL;
    int c;
    while ((c = next_option(&cmd_revert, argc, argv, ":h", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_revert);
        if (c != 't')
            return EXIT_USAGE;
        to = optarg;
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_revert, "give one SNAPSHOT");
    if (to == NULL && live_path(argv[optind], disk) < 0)
        return usage_error(&cmd_revert, "%s is no snapshot's name (NAME@WHEN.EXT)", QUOTED(argv[optind]));
    const char *target = to == NULL ? disk : to;
    struct stored s = {0};
    struct stat live;
    int code = stored_id(argv[optind], &s);
    if (code != EXIT_OK)
        return code;
    int wrong = check_target(target, s.st.st_dev);
    if (wrong != 0)
        return report_target(target, wrong);
    /* A snapshot shows not all rights to write that its disk has: a disk that is made of it has those of the live disk. */
    bool known = live_path(argv[optind], disk_of) == 0 && stat(disk_of, &live) == 0;
    return revert_to(target, s.id, ((known ? live : s.st).st_mode & 0777) | 0200);
}

const struct command cmd_revert = {
    "revert", "roll a disk back to a snapshot, or clone one",
    "varve revert [--to DISK] SNAPSHOT\n\n"
    "The live image becomes the snapshot: pointers change, no data are copied. What\n"
    "was not snapshotted yet is snapshotted first, unless the disk's name begins with\n"
    "a dot or all of it is zero. A disk that a process has open for writing is\n"
    "refused. A removed live image comes back.\n\n"
    "  --to DISK   make another disk (new or existing) the same as SNAPSHOT\n\n"
    "A disk that is made by it has the mode of the snapshot's live disk.\n",
    run_revert, NULL,
};
