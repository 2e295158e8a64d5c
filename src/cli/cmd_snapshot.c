/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vjson.h"
#include "cli/asking.h"
#include "cli/history.h"
#include "cli/reports.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_target(const char *path, bool *is_dir)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    *is_dir = S_ISDIR(st.st_mode);
    /* Access mode 3: the kernel checks the right to read and write, and the disk does not count as in use by us. */
    int fd = open(path, (*is_dir ? O_RDONLY | O_DIRECTORY : O_ACCMODE) | O_CLOEXEC);
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

/* ---- what was taken ---- */

/* The group in which the snapshot of that name was taken, or NULL. */
static const json_t *group_of(const json_t *disks, const char *name)
{
    json_t *wanted = vjson_text(name);
    const json_t *group = NULL;
    for (size_t i = 0; group == NULL && i < json_array_size(disks); i++) {
        const json_t *snaps = json_object_get(json_array_get(disks, i), "snapshots");
        for (size_t k = 0; group == NULL && k < json_array_size(snaps); k++)
            if (json_equal(json_object_get(json_array_get(snaps, k), "name"), wanted))
                group = json_object_get(json_array_get(snaps, k), "group");
    }
    json_decref(wanted);
    return group;
}

static void add_members(json_t *names, const json_t *snaps, const json_t *group)
{
    for (size_t k = 0; k < json_array_size(snaps); k++) {
        const json_t *snap = json_array_get(snaps, k), *other = json_object_get(snap, "group");
        if (other != NULL && strcmp(json_word(other, "id"), json_word(group, "id")) == 0)
            json_array_append(names, json_object_get(snap, "name"));
    }
}

/* The names of the snapshots that one request made. Who may not see the whole group is told its first one. */
static json_t *names_taken(const char *path, const struct varve_ioc_snapshot *req)
{
    struct verr err = {0};
    json_t *names = json_array(), *disks = req->count > 1 ? history_of(path, &err) : NULL;
    const json_t *group = group_of(disks, req->name);
    for (size_t i = 0; group != NULL && i < json_array_size(disks); i++)
        add_members(names, json_object_get(json_array_get(disks, i), "snapshots"), group);
    if (json_array_size(names) == 0 && req->count > 0)
        json_array_append_new(names, vjson_text(req->name));
    json_decref(disks);
    return names;
}

/* Prints paths that `varve revert` takes. */
static void print_taken(const char *path, bool is_dir, const json_t *names)
{
    const char *slash = strrchr(path, '/');
    int dir = is_dir ? (int)strlen(path) : slash != NULL ? (int)(slash - path) + 1 : 0;
    for (size_t i = 0; i < json_array_size(names); i++) {
        char name[NAME_MAX + 1], whole[2 * PATH_MAX];
        vjson_bytes(json_string_value(json_array_get(names, i)), name, sizeof name);
        snprintf(whole, sizeof whole, "%.*s%s%s", dir, path, is_dir && (dir == 0 || path[dir - 1] != '/') ? "/" : "", name);
        print_path(whole);
    }
    if (json_array_size(names) == 0)
        fprintf(stderr, "%s: nothing changed, no snapshot made\n", QUOTED(path));
}

static int take_one(const char *path, const char *label, const char *note, json_t *list)
{
    static struct varve_ioc_snapshot req;
    bool is_dir = false;
    int code = mount_answers(&cmd_snapshot, path);
    if (code != EXIT_OK)
        return code;
    int fd = open_target(path, &is_dir);
    if (fd < 0)
        return report_errno(&cmd_snapshot, path, -fd);
    int wrote = write_mapped(fd);
    if (wrote < 0) {
        close(fd);
        return report_about(&cmd_snapshot, path, -wrote, "what a program stored through a mapping could not be written, so no snapshot was "
                           "made: %s", strerror(-wrote));
    }
    memset(&req, 0, sizeof req);
    snprintf(req.label, sizeof req.label, "%s", label);
    snprintf(req.note, sizeof req.note, "%s", note);
    int r = ioctl(fd, VARVE_IOC_SNAPSHOT, &req) < 0 ? errno : req.error;
    close(fd);
    if (r != 0 && req.text[0] != '\0')
        return report_about(&cmd_snapshot, path, r, "%s", req.text);
    if (r != 0)
        return report_errno(&cmd_snapshot, path, r);
    json_t *names = names_taken(path, &req);
    if (list == NULL)
        print_taken(path, is_dir, names);
    else
        json_array_append_new(list, json_pack("{si so so si sO}", "schema", 1, "path", vjson_text(path), "name", vjson_text(req.name), "count",
                                              (int)req.count, "names", names));
    json_decref(names);
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
    while ((c = next_option(&cmd_snapshot, argc, argv, ":h", longs)) != -1) {
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
    if (list != NULL)
        print_json_list(list, code);
    return code;
}

const struct command cmd_snapshot = {
    "snapshot", "take snapshots now",
    "varve snapshot [--label LABEL] [--note TEXT] [--json] PATH...\n\n"
    "PATH is a live disk in a varve mount, or a directory: then all its changed disks\n"
    "are frozen at one instant; with a label, unchanged ones too. Returns when the\n"
    "data are safe on this host (power loss included); `varve wait` waits until they\n"
    "are in the store. Prints the paths of the snapshots.\n\n"
    "  --label LABEL   name it NAME@LABEL.EXT: [A-Za-z0-9._-], up to 64\n"
    "  --note TEXT     kept with it (user.varve.note)\n"
    "  --json          print JSON\n",
    run_snapshot, NULL,
};
