/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/asking.h"
#include "cli/history.h"
#include "cli/reports.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

static void print_row(const json_t *s)
{
    char size[16], dirty[16], added[16] = "-", clean[16] = "-", parent[16] = "-", global[16] = "-", fresh[16] = "-", state[80], part[40] = "";
    const json_t *levels = json_object_get(s, "levels"), *flags = json_object_get(s, "flags");
    snprintf(state, sizeof state, "%s", json_word(s, "state"));
    for (size_t i = 0; i < json_array_size(flags); i++) {
        const char *flag = json_string_value(json_array_get(flags, i));
        snprintf(state + strlen(state), sizeof state - strlen(state), ",%s", flag == NULL ? "" : flag);
    }
    format_size(json_number(s, "size"), size);
    format_size(json_number(s, "dirty_segments") << 21, dirty);
    if (json_is_object(levels)) {
        format_size(json_number(s, "added"), added);
        format_size(json_number(levels, "clean"), clean);
        format_size(json_number(levels, "parent_segment") + json_number(levels, "parent_block"), parent);
        format_size(json_number(levels, "common") + json_number(levels, "global") + json_number(levels, "dup_with_new"), global);
        format_size(json_number(levels, "new"), fresh);
    }
    const json_t *group = json_object_get(s, "group");
    if (json_number(group, "present") < json_number(group, "members"))
        snprintf(part, sizeof part, "[group %u of %u] ", (unsigned)json_number(group, "present"), (unsigned)json_number(group, "members"));
    printf("%-36s %-10s %10s %10s %10s %10s %10s %10s %10s  %s%s%s\n", QUOTED_OF(s, "name"), state, size, dirty, clean, parent, global, fresh,
           added, json_is_true(json_object_get(s, "protected")) ? "[protected] " : "", part, LINE_OF(s, "note"));
}

static void print_snapshots(const json_t *disk)
{
    const json_t *snaps = json_object_get(disk, "snapshots");
    for (size_t i = 0; i < json_array_size(snaps); i++)
        print_row(json_array_get(snaps, i));
}

static void print_table(const json_t *doc)
{
    printf("%-36s %-10s %10s %10s %10s %10s %10s %10s %10s  %s\n", "NAME", "STATE", "SIZE", "DIRTY", "1:CLEAN", "2:PARENT", "3-4:DUP",
           "NEW", "ADDED", "NOTE");
    if (!json_is_array(doc))
        print_snapshots(doc);
    for (size_t i = 0; i < json_array_size(doc); i++)
        print_snapshots(json_array_get(doc, i));
}

static int run_log(int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool json = false;
    struct verr err = {0};
    int c;
    while ((c = next_option(&cmd_log, argc, argv, ":h", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_log);
        if (c != 'j')
            return EXIT_USAGE;
        json = true;
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_log, "give one PATH");
    json_t *doc = history_of(argv[optind], &err);
    if (doc == NULL)
        return report_error(&cmd_log, &err);
    if (json) {
        print_json(doc);
        return EXIT_OK;
    }
    print_table(doc);
    json_decref(doc);
    return EXIT_OK;
}

const struct command cmd_log = {
    "log", "history of a disk, with what each level removed",
    "varve log [--json] PATH\n\n"
    "PATH is a live disk or one of its snapshots, or a directory: then the histories\n"
    "of all its disks are shown, removed ones too. Columns: DIRTY, the segments that\n"
    "were written since the snapshot before; what level 1 (clean segments), level 2\n"
    "(parent) and levels 3-4 (duplicates elsewhere) settled; NEW blocks; ADDED, bytes\n"
    "that the snapshot added to the store. [group 1 of 2]: two disks were frozen at\n"
    "one instant, and one has no snapshot of it (removed, or a kill came between);\n"
    "this one is whole all the same. For root; others see their own snapshots\n"
    "without what was found elsewhere.\n\n"
    "  --json   print JSON\n",
    run_log, NULL,
};
