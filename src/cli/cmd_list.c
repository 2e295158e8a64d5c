/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include "base/vjson.h"
#include "varve/ioctl.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

struct listing {
    bool json, header;
    json_t *docs;       /* --json */
    int code;
};

static void state_text(const json_t *disk, char *out, size_t cap)
{
    const json_t *flags = json_object_get(disk, "flags");
    bool live = json_is_true(json_object_get(disk, "live"));
    size_t n = (size_t)snprintf(out, cap, "%s%s", live ? "" : "removed,", json_word(disk, "state"));
    for (size_t i = 0; i < json_array_size(flags) && n < cap; i++) {
        const char *flag = json_string_value(json_array_get(flags, i));
        n += (size_t)snprintf(out + n, cap - n, ",%s", flag == NULL ? "" : flag);
    }
}

static void print_disk(const char *point, const json_t *disk)
{
    char age[16] = "-", size[16] = "-", state[64], path[2 * PATH_MAX];
    const json_t *good = json_object_get(disk, "last_good"), *failure = json_object_get(disk, "failure");
    state_text(disk, state, sizeof state);
    if (json_is_object(good))
        format_age((int64_t)json_number(good, "age_seconds"), age);
    if (!json_is_null(json_object_get(disk, "size")))
        format_size(json_number(disk, "size"), size);
    snprintf(path, sizeof path, "%s/%s", point, NAME_OF(disk, "path"));
    printf("%-20s %8s %-18s %10s %-12s %s\n", json_is_object(good) ? json_word(good, "time") : "none", age, state, size,
           QUOTED_OF(disk, "host"), QUOTED(path));
    if (json_is_object(failure))
        printf("    %s failed at %s: %s; next attempt at %s\n", json_word(failure, "what"), json_word(failure, "time"),
               LINE_OF(failure, "reason"), json_word(failure, "next_attempt"));
}

static void print_disks(struct listing *l, const char *point, const json_t *doc)
{
    const json_t *disk;
    size_t i;
    if (!l->header)
        printf("%-20s %8s %-18s %10s %-12s %s\n", "LAST GOOD", "AGE", "STATE", "SIZE", "HOST", "DISK");
    l->header = true;
    json_array_foreach(json_object_get(doc, "disks"), i, disk)
        print_disk(point, disk);
}

static int list_path(void *ctx, const char *path)
{
    struct listing *l = ctx;
    char point[PATH_MAX];
    int error = 0;
    json_t *doc = report_ask(path, VARVE_IOC_LIST, "disks", point, &error);
    if (doc == NULL) {
        l->code = report_about(&cmd_list, path, error, "%s", report_reason(error));
        return 0;
    }
    if (l->json) {
        json_object_set_new(doc, "mountpoint", vjson_text(point));
        json_array_append_new(l->docs, doc);
        return 0;
    }
    print_disks(l, point, doc);
    json_decref(doc);
    return 0;
}

static int run_list(int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct listing l = {0};
    int c;
    while ((c = next_option(&cmd_list, argc, argv, ":h", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_list);
        if (c != 'j')
            return EXIT_USAGE;
        l.json = true;
    }
    l.docs = json_array();
    for (int i = optind; i < argc; i++)
        list_path(&l, argv[i]);
    if (optind == argc && each_mount(list_path, &l) == 0)
        l.code = report_nothing(&cmd_list, NULL);
    if (l.json)
        print_json_list(l.docs, l.code);
    else
        json_decref(l.docs);
    return l.code;
}

const struct command cmd_list = {
    "list", "every disk with its last good snapshot",
    "varve list [--json] [DIRECTORY|DISK|MOUNTPOINT]...\n\n"
    "Default: all varve mounts of this host. LAST GOOD is the freeze of the newest\n"
    "snapshot that is stored and has no flag. STATE is that of the newest snapshot of\n"
    "all, with its flags, or failed while something of the disk has failed and is\n"
    "tried again (the reason follows); removed: only its history is left. SIZE is\n"
    "that of the newest snapshot. Disks that you may not read are left out.\n"
    "Exit code 10 if nothing is mounted.\n\n"
    "  --json   print JSON\n",
    run_list, NULL,
};
