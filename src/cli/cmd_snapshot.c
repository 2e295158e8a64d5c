/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vjson.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_target(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    /* Access mode 3: the kernel checks the right to read and write, and the disk does not count as in use by us. */
    int fd = open(path, (S_ISDIR(st.st_mode) ? O_RDONLY | O_DIRECTORY : O_ACCMODE) | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* What programs have stored through shared mappings of a disk may still lie in the kernel, where the daemon does not see it. */
static int write_mapped(int fd)
{
    const unsigned all = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) && sync_file_range(fd, 0, 0, all) < 0 ? -errno : 0;
}

static int take_one(const char *path, const char *label, const char *note, json_t *list)
{
    static struct varve_ioc_snapshot req;
    int fd = open_target(path);
    if (fd < 0)
        return report_errno(&cmd_snapshot, path, -fd);
    int wrote = write_mapped(fd);
    if (wrote < 0) {
        struct verr err = {0};
        close(fd);
        verr_set(&err, -wrote, "%s: what a program stored through a mapping could not be written, so no snapshot was made: %s", path,
                 strerror(-wrote));
        return report_error(&cmd_snapshot, &err);
    }
    memset(&req, 0, sizeof req);
    snprintf(req.label, sizeof req.label, "%s", label);
    snprintf(req.note, sizeof req.note, "%s", note);
    int r = ioctl(fd, VARVE_IOC_SNAPSHOT, &req) < 0 ? errno : req.error;
    close(fd);
    if (r != 0 && req.text[0] != '\0') {
        struct verr err = {.code = r};
        verr_set(&err, r, "%s: %s", path, req.text);
        return report_error(&cmd_snapshot, &err);
    }
    if (r != 0)
        return report_errno(&cmd_snapshot, path, r);
    if (list != NULL)
        json_array_append_new(list, json_pack("{so so si}", "path", vjson_text(path), "name", vjson_text(req.name), "count", (int)req.count));
    else if (req.count == 0)
        fprintf(stderr, "%s: nothing changed, no snapshot made\n", path);
    else
        printf("%s%s\n", req.name, req.count > 1 ? " ..." : "");
    return EXIT_OK;
}

static int run_snapshot(int argc, char **argv)
{
    static const struct option longs[] = {
        {"label", required_argument, NULL, 'l'}, {"note", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'}, {0},
    };
    const char *label = "", *note = "";
    bool json = false;
    int c;
    while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        switch (c) {
        case 'h': return print_help(&cmd_snapshot);
        case 'j': json = true; break;
        case 'l': label = optarg; break;
        case 't': note = optarg; break;
        default: return EXIT_USAGE;
        }
    }
    if (optind == argc)
        return usage_error(&cmd_snapshot, "give at least one PATH");
    if (strlen(label) > 64 || strlen(note) > 1024)
        return usage_error(&cmd_snapshot, "--label takes up to 64 bytes, --note up to 1024");
    json_t *list = json ? json_array() : NULL;
    int code = EXIT_OK;
    for (int i = optind; i < argc; i++) {
        int one = take_one(argv[i], label, note, list);
        if (one != EXIT_OK)
            code = one;
    }
    if (list != NULL) {
        json_dumpf(list, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(list);
    }
    return code;
}

const struct command cmd_snapshot = {
    "snapshot", "take snapshots now",
    "varve snapshot [--label LABEL] [--note TEXT] [--json] PATH...\n\n"
    "PATH is a live disk in a varve mount, or a directory: then all its changed disks\n"
    "are frozen at one instant. Returns when the data are safe on this host (power\n"
    "loss included); `varve wait` waits until they are in the store. Prints names.\n\n"
    "  --label LABEL   name it NAME@LABEL.EXT: [A-Za-z0-9._-], up to 64\n"
    "  --note TEXT     kept with it (user.varve.note)\n"
    "  --json          print JSON\n",
    run_snapshot, NULL,
};
