/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include <getopt.h>

struct wait_all {
    int64_t timeout_ms;
    int code;
};

static int wait_mount(void *ctx, const char *point)
{
    struct wait_all *w = ctx;
    int code = wait_stored(&cmd_wait, point, w->timeout_ms, NULL);
    if (code != EXIT_OK)
        w->code = code;
    return 0;
}

static int run_wait(int argc, char **argv)
{
    static const struct option longs[] = {{"timeout", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {0}};
    struct wait_all w = {.timeout_ms = -1};
    int c;
    while ((c = next_option(&cmd_wait, argc, argv, ":h", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_wait);
        if (c != 't')
            return EXIT_USAGE;
        if (parse_duration(optarg, &w.timeout_ms) < 0)
            return usage_error(&cmd_wait, "--timeout %s: give seconds, or a time such as 10m", QUOTED(optarg));
    }
    for (int i = optind; i < argc; i++) {
        int code = wait_stored(&cmd_wait, argv[i], w.timeout_ms, NULL);
        if (code != EXIT_OK)
            w.code = code;
    }
    if (optind == argc && each_mount(wait_mount, &w) <= 0)
        return report_nothing(&cmd_wait, NULL);
    return w.code;
}

const struct command cmd_wait = {
    "wait", "wait until snapshots are stored",
    "varve wait [--timeout TIME] [PATH|MOUNTPOINT]...\n\n"
    "Waits for what is pending or provisional there now (default: all mounts); makes\n"
    "no snapshot. Exit code 1 once one of them has failed an attempt, at timeout, or\n"
    "if a mount does not answer for 30 s: the others are waited for.\n\n"
    "  --timeout TIME   seconds, or 10m, 2h (default: no limit)\n",
    run_wait, NULL,
};
