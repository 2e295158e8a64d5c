/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static void line(const char *name, uint64_t bytes, const char *what)
{
    char size[16];
    format_size(bytes, size);
    printf("  %-18s %12s  %s\n", name, size, what);
}

static void print_levels(const json_t *totals, const json_t *l)
{
    line("logical", json_number(totals, "logical_bytes"), "sizes of all snapshots");
    line("zero", json_number(l, "zero"), "holes and zero runs");
    line("level 1: clean", json_number(l, "clean"), "segments not written since the snapshot before");
    line("level 2: segment", json_number(l, "parent_segment"), "rewritten with the same bytes");
    line("level 2: block", json_number(l, "parent_block"), "blocks of the same segment in the parent");
    line("level 3: common", json_number(l, "common"), "common data set");
    line("level 4: global", json_number(l, "global"), "duplicates anywhere in the store");
    line("level 4: same round", json_number(l, "dup_with_new"), "duplicates of blocks new in the same round");
    line("unique", json_number(totals, "unique_bytes"), "new blocks");
    line("stored", json_number(totals, "stored_bytes"), "bytes they take in the store, compressed");
}

static void print_room(const char *name, const json_t *room, const char *what)
{
    char a[16], b[16];
    format_size(json_number(room, "free"), a);
    format_size(json_number(room, "bytes"), b);
    if (json_is_object(room))
        printf("  %-18s %12s  of %s\n", name, a, b);
    else
        printf("  %-18s %12s  the filesystem of %s cannot be asked\n", name, "unknown", what);
}

static void print_failures(const json_t *failures)
{
    const json_t *f;
    size_t i;
    json_array_foreach(failures, i, f) {
        printf("  FAILED %s: %s: %s\n", QUOTED_OF(f, "path"), json_word(f, "what"), LINE_OF(f, "reason"));
        printf("         at %s (attempt %llu); the next attempt comes at %s\n", json_word(f, "time"),
               (unsigned long long)json_number(f, "attempts"), json_word(f, "next_attempt"));
    }
}

static void print_put_back(const json_t *put_back)
{
    const json_t *d;
    size_t i;
    if (!json_is_object(put_back))
        return;
    printf("  PUT BACK: the store is older than this host's state, found at %s; %llu disks have lost segments\n", json_word(put_back, "found"),
           (unsigned long long)json_number(put_back, "lost_disks"));
    json_array_foreach(json_object_get(put_back, "disks"), i, d)
        printf("  LOST %s: %llu of %llu segments of the live image are errors to readers\n", QUOTED_OF(d, "path"),
               (unsigned long long)json_number(d, "lost_segments"), (unsigned long long)json_number(d, "segments"));
}

static void print_status(const char *point, const json_t *doc)
{
    const json_t *store = json_object_get(doc, "store"), *host = json_object_get(doc, "host"), *totals = json_object_get(doc, "totals"),
                 *round = json_object_get(doc, "round"), *index = json_object_get(doc, "index"), *memory = json_object_get(doc, "memory"),
                 *local = json_object_get(doc, "local");
    char a[16], b[16];
    printf("%s: store %s on host %s (pid %llu)\n", QUOTED(point), QUOTED_OF(store, "path"), QUOTED_OF(host, "name"),
           (unsigned long long)json_number(host, "pid"));
    if (json_is_true(json_object_get(doc, "read_only")))
        printf("  read-only: shows what is stored\n");
    printf("  id %s, state in %s\n", json_word(store, "id"), QUOTED_OF(host, "state"));
    printf("  %llu disks, %llu snapshots stored, %llu pending, %llu failed\n", (unsigned long long)json_number(totals, "disks"),
           (unsigned long long)json_number(totals, "snapshots"), (unsigned long long)json_number(totals, "pending"),
           (unsigned long long)json_number(totals, "failed"));
    print_levels(totals, json_object_get(doc, "levels"));
    format_size(json_number(local, "layers_bytes"), a);
    format_size(json_number(local, "cache_bytes"), b);
    printf("  local space        %12s  of it cache %s\n", a, b);
    const json_t *room = json_object_get(doc, "room");
    print_room("free in STORE", json_object_get(room, "store"), "STORE");
    print_room("free in STATE", json_object_get(room, "state"), "STATE");
    format_size(json_number(index, "bytes"), a);
    printf("  index              %12s  %llu fingerprints, fingerprints by %s\n", a, (unsigned long long)json_number(index, "entries"),
           json_word(store, "fingerprint_path")[0] != '\0' ? json_word(store, "fingerprint_path") : json_word(store, "fingerprint"));
    format_size(json_number(memory, "rss_anon"), a);
    format_size(json_number(memory, "rss_peak"), b);
    printf("  memory             %12s  peak with files %s\n", a, b);
    if (json_is_true(json_object_get(round, "running"))) {
        format_size(json_number(round, "done"), a);
        format_size(json_number(round, "total"), b);
        printf("  round %llu: %s, %s of %s\n", (unsigned long long)json_number(round, "rounds"), json_word(round, "stage"), a, b);
    } else {
        printf("  no round runs; %llu rounds so far, the last took %.1f s\n", (unsigned long long)json_number(round, "rounds"),
               json_real_value(json_object_get(round, "last_seconds")));
    }
    print_failures(json_object_get(doc, "failures"));
    print_put_back(json_object_get(doc, "put_back"));
}

/* A snapshot that failed before the daemon was started again is failed in its row only, until its next attempt ends. */
static bool has_failed(const json_t *doc)
{
    return json_array_size(json_object_get(doc, "failures")) > 0 || json_number(json_object_get(doc, "totals"), "failed") > 0 ||
           json_number(json_object_get(doc, "put_back"), "lost_disks") > 0;
}

struct show {
    bool json;
    json_t *list;
    int code;
};

static int show_mount(void *ctx, const char *point)
{
    struct show *s = ctx;
    char path[PATH_MAX];
    int error = 0;
    if (snprintf(path, sizeof path, "%s/.varve/status.json", point) >= (int)sizeof path)
        return 0;
    json_t *doc = report_ask(path, 0, "failures", NULL, &error);
    if (doc == NULL) {
        s->code = report_about(&cmd_status, path, error, "%s", error == ENOENT ? "not a varve mount" : report_reason(error));
        return 0;
    }
    if (has_failed(doc) && s->code == EXIT_OK)
        s->code = EXIT_FAIL;
    if (s->json) {
        json_object_set_new(doc, "mountpoint", vjson_text(point));
        json_array_append_new(s->list, doc);
        return 0;
    }
    print_status(point, doc);
    json_decref(doc);
    return 0;
}

static int run_status(int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct show s = {0};
    int c;
    while ((c = next_option(&cmd_status, argc, argv, ":h", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_status);
        if (c != 'j')
            return EXIT_USAGE;
        s.json = true;
    }
    s.list = json_array();
    for (int i = optind; i < argc; i++)
        show_mount(&s, argv[i]);
    if (optind == argc && each_mount(show_mount, &s) == 0)
        s.code = report_nothing(&cmd_status, NULL);
    if (s.json)
        print_json_list(s.list, s.code);
    else
        json_decref(s.list);
    return s.code;
}

const struct command cmd_status = {
    "status", "what is stored, what runs now, what each level found",
    "varve status [--json] [MOUNTPOINT]...\n\n"
    "For root. Default: all varve mounts of this host. Exit code 1 if something has\n"
    "failed and is tried again (path, reason and time are shown), or live images\n"
    "have lost data because the store was put back from an older copy, 10 if\n"
    "nothing is mounted.\n\n"
    "  --json   print JSON\n",
    run_status, NULL,
};
