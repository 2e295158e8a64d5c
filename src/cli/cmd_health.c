/* SPDX-License-Identifier: Apache-2.0 */
/*
 * varve health: one verdict for monitoring. Each finding is a line of text with a severity; the exit code is that of the worst one.
 */
#include "cli/reports.h"

#include "base/vjson.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum severity { HEALTH_OK = 0, HEALTH_WARNING = 1, HEALTH_CRITICAL = 2 };
static const char *const severity_text[] = {"OK", "WARNING", "CRITICAL"};

#define HOUR_MS INT64_C(3600000)
enum { SHOWN_MAX = 5, FREE_DIVISOR = 5 };

struct health {
    int64_t max_age, verify_age;    /* milliseconds; 0: not asked */
    unsigned min_free;              /* per cent */
    bool json;
    enum severity worst;
    json_t *problems;               /* [{"severity", "path", "problem"}] */
    uint64_t disks;                 /* looked at */
    int64_t oldest;                 /* age of the oldest last good snapshot */
};

__attribute__((format(printf, 4, 5)))
static void problem(struct health *h, enum severity severity, const char *path, const char *fmt, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (severity > h->worst)
        h->worst = severity;
    json_array_append_new(h->problems, json_pack("{ss so so}", "severity", severity_text[severity], "path", vjson_text(path), "problem",
                                                 vjson_text(text)));
}

/* ---- disks ---- */

/* A removed disk gets no snapshots any more, and a name with a dot in front belongs to a program's temporary file. */
static bool counts(const json_t *disk)
{
    const char *path = json_word(disk, "path"), *name = strrchr(path, '/');
    return json_is_true(json_object_get(disk, "live")) && (name == NULL ? path : name + 1)[0] != '.';
}

static void check_age(struct health *h, const char *path, const json_t *disk)
{
    char age[16], limit[16];
    const json_t *good = json_object_get(disk, "last_good");
    bool any = json_is_object(good);
    int64_t seconds = (int64_t)json_number(any ? good : disk, any ? "age_seconds" : "made_age_seconds");
    format_age(seconds, age);
    format_age(h->max_age / 1000, limit);
    if (any && seconds > h->oldest)
        h->oldest = seconds;
    if (seconds * 1000 <= h->max_age)
        return;     /* a disk without a snapshot: not older than a snapshot may be */
    if (any)
        problem(h, HEALTH_CRITICAL, path, "no good snapshot for %s (limit %s)", age, limit);
    else
        problem(h, HEALTH_CRITICAL, path, "no good snapshot, and it was made %s ago (limit %s)", age, limit);
}

static bool has_flag(const json_t *disk, const char *flag)
{
    const json_t *flags = json_object_get(disk, "flags");
    for (size_t i = 0; i < json_array_size(flags); i++)
        if (strcmp(json_string_value(json_array_get(flags, i)), flag) == 0)
            return true;
    return false;
}

static void check_disk(struct health *h, const char *point, const json_t *disk)
{
    char path[2 * PATH_MAX];
    const json_t *failure = json_object_get(disk, "failure");
    snprintf(path, sizeof path, "%s/%s", point, NAME_OF(disk, "path"));
    if (json_is_object(failure))
        problem(h, HEALTH_CRITICAL, path, "%s failed: %s", json_word(failure, "what"), LINE_OF(failure, "reason"));
    else if (strcmp(json_word(disk, "state"), "failed") == 0)
        problem(h, HEALTH_CRITICAL, path, "storing its snapshot failed");
    if (!counts(disk))
        return;
    h->disks++;
    if (has_flag(disk, "partial"))
        problem(h, HEALTH_WARNING, path, "the newest snapshot is partial: its copy was not finished");
    if (h->max_age > 0)
        check_age(h, path, disk);
}

/* ---- the host ---- */

static void check_room(struct health *h, const char *point, const char *name, const json_t *room)
{
    char left[16];
    uint64_t free_bytes = json_number(room, "free"), bytes = json_number(room, "bytes");
    double percent = bytes == 0 ? 0 : (double)free_bytes / (double)bytes * 100;
    format_size(free_bytes, left);
    if (!json_is_object(room))
        problem(h, HEALTH_WARNING, point, "the room in %s cannot be read", name);
    else if (percent < h->min_free)
        problem(h, percent < (double)h->min_free / FREE_DIVISOR ? HEALTH_CRITICAL : HEALTH_WARNING, point,
                "%s is nearly full: %s (%.1f %%) free", name, left, percent);
}

static void check_verify(struct health *h, const char *point, const json_t *doc)
{
    char age[16], limit[16];
    const json_t *last = json_object_get(doc, "last_verify");
    bool any = json_is_object(last);
    int64_t seconds = (int64_t)json_number(any ? last : doc, any ? "age_seconds" : "store_age_seconds");
    if (json_number(last, "damaged") > 0)
        problem(h, HEALTH_CRITICAL, point, "the last varve verify found damage (%llu problems, %s)",
                (unsigned long long)json_number(last, "damaged"), json_word(last, "time"));
    if (h->verify_age == 0 || seconds * 1000 <= h->verify_age)
        return;
    format_age(seconds, age);
    format_age(h->verify_age / 1000, limit);
    if (any)
        problem(h, HEALTH_WARNING, point, "the last varve verify is %s old (limit %s)", age, limit);
    else
        problem(h, HEALTH_WARNING, point, "varve verify never ended here, and the store is %s old (limit %s)", age, limit);
}

/* Times are of one form, so that text order is order in time. A verify later than the last damaged read that found nothing answers it. */
static void check_reads(struct health *h, const char *point, const json_t *doc)
{
    const json_t *reads = json_object_get(doc, "damaged_reads"), *verify = json_object_get(doc, "last_verify");
    uint64_t count = json_number(reads, "count");
    bool answered = json_number(verify, "damaged") == 0 && strcmp(json_word(verify, "time"), json_word(reads, "last")) > 0;
    if (count > 0 && !answered)
        problem(h, HEALTH_CRITICAL, point, "%llu reads met damage, the last one at %s: varve verify names what is hit",
                (unsigned long long)count, json_word(reads, "last"));
}

static void check_put_back(struct health *h, const char *point, const json_t *put_back)
{
    uint64_t disks = json_number(put_back, "lost_disks");
    if (disks > 0)
        problem(h, HEALTH_CRITICAL, point, "the store was put back from an older copy (found at %s): %llu live images have lost data, varve "
                "status names them", json_word(put_back, "found"), (unsigned long long)disks);
}

static int check_path(void *ctx, const char *path)
{
    struct health *h = ctx;
    char point[PATH_MAX];
    int error = 0;
    size_t i;
    const json_t *disk;
    json_t *doc = report_ask(path, VARVE_IOC_LIST, "disks", point, &error);
    if (doc == NULL) {
        problem(h, HEALTH_CRITICAL, path, "cannot be asked: %s", report_reason(error));
        return 0;
    }
    json_array_foreach(json_object_get(doc, "disks"), i, disk)
        check_disk(h, point, disk);
    const json_t *room = json_object_get(doc, "room");
    if (!json_is_true(json_object_get(doc, "read_only"))) {     /* what is only read needs none */
        check_room(h, point, "STORE", json_object_get(room, "store"));
        check_room(h, point, "STATE", json_object_get(room, "state"));
    }
    check_verify(h, point, doc);
    check_reads(h, point, doc);
    check_put_back(h, point, json_object_get(doc, "put_back"));
    json_decref(doc);
    return 0;
}

/* ---- the verdict ---- */

/* The worst first, as far as one line may be long. */
static void print_line(const struct health *h)
{
    char oldest[16];
    const json_t *p;
    size_t i, shown = 0, total = json_array_size(h->problems);
    printf("VARVE %s - ", severity_text[h->worst]);
    for (int severity = HEALTH_CRITICAL; severity > HEALTH_OK; severity--) {
        json_array_foreach(h->problems, i, p) {
            if (strcmp(json_word(p, "severity"), severity_text[severity]) == 0 && shown < SHOWN_MAX)
                printf("%s%s: %s", shown++ > 0 ? "; " : "", QUOTED_OF(p, "path"), LINE_OF(p, "problem"));
        }
    }
    if (total > shown)
        printf("; and %zu more (varve health --json)", total - shown);
    format_age(h->oldest, oldest);
    if (total == 0)
        printf("%llu disk%s, the oldest last good snapshot is %s old", (unsigned long long)h->disks, h->disks == 1 ? "" : "s", oldest);
    printf(" | disks=%llu problems=%zu oldest=%llds;;%lld\n", (unsigned long long)h->disks, total, (long long)h->oldest,
           (long long)(h->max_age / 1000));
}

static void print_document(const struct health *h)
{
    json_t *doc = json_pack("{si ss sI sI sO}", "schema", 1, "health", severity_text[h->worst], "disks", (json_int_t)h->disks,
                            "oldest_seconds", (json_int_t)h->oldest, "problems", h->problems);
    print_json(doc);
}

static int parse_percent(const char *text, unsigned *out)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*end == '%')
        end++;
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n > 100)
        return -EINVAL;
    *out = (unsigned)n;
    return 0;
}

/* -1: go on; else the exit code. */
static int parse_options(struct health *h, int argc, char **argv)
{
    static const struct option longs[] = {
        {"max-age", required_argument, NULL, 'a'}, {"verify-age", required_argument, NULL, 'v'}, {"min-free", required_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0},
    };
    int c;
    while ((c = next_option(&cmd_health, argc, argv, ":h", longs)) != -1) {
        switch (c) {
        case 'h': return print_help(&cmd_health);
        case 'j': h->json = true; break;
        case 'a':
            if (parse_duration(optarg, &h->max_age) < 0)
                return usage_error(&cmd_health, "--max-age %s: give a time such as 26h, 90m or 2d (0: do not ask)", QUOTED(optarg));
            break;
        case 'v':
            if (parse_duration(optarg, &h->verify_age) < 0)
                return usage_error(&cmd_health, "--verify-age %s: give a time such as 35d (0: do not ask)", QUOTED(optarg));
            break;
        case 'f':
            if (parse_percent(optarg, &h->min_free) < 0)
                return usage_error(&cmd_health, "--min-free %s: give 0 to 100 per cent", QUOTED(optarg));
            break;
        default: return EXIT_USAGE;
        }
    }
    return -1;
}

static int run_health(int argc, char **argv)
{
    struct health h = {.max_age = 26 * HOUR_MS, .verify_age = 35 * 24 * HOUR_MS, .min_free = 5};
    int code = parse_options(&h, argc, argv);
    if (code >= 0)
        return code;
    h.problems = json_array();
    for (int i = optind; i < argc; i++)
        check_path(&h, argv[i]);
    if (optind == argc && each_mount(check_path, &h) <= 0)
        problem(&h, HEALTH_CRITICAL, "varve", "nothing is mounted here");
    if (h.json)
        print_document(&h);
    else
        print_line(&h);
    json_decref(h.problems);
    return (int)h.worst;
}

const struct command cmd_health = {
    "health", "one verdict on all backups, for monitoring",
    "varve health [--max-age TIME] [--verify-age TIME] [--min-free N] [--json]\n"
    "             [DIRECTORY|DISK|MOUNTPOINT]...\n\n"
    "Prints one line and exits as monitoring plugins do: 0 all is well; 1 warning; 2\n"
    "critical, which a wrong call and a mount that cannot be asked are too. Default:\n"
    "all varve mounts of this host. Disks that you may not read are left out.\n\n"
    "critical  no good snapshot (stored, no flag) younger than --max-age; something\n"
    "          of a disk failed; reads met damage, or the last verify did; live\n"
    "          images lost data because the store was put back from an older copy;\n"
    "          nothing is mounted; STORE or STATE has less than a fifth of --min-free\n"
    "          free\n"
    "warning   the newest snapshot is partial; STORE or STATE has less than\n"
    "          --min-free free; the last `varve verify` is older than --verify-age\n\n"
    "  --max-age TIME      age of the last good snapshot: a number and s, m, h or d\n"
    "                      (default 26h; 0: do not ask)\n"
    "  --verify-age TIME   age of the last varve verify (default 35d; 0: do not ask)\n"
    "  --min-free N        room in STORE and in STATE, in per cent (default 5)\n"
    "  --json              print JSON\n",
    run_health, NULL,
};
