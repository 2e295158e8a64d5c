/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/verr.h"
#include "check/dump.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>

static int run_dump(int argc, char **argv)
{
    static const struct option longs[] = {{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool json = false;
    int c, code = EXIT_OK;
    while ((c = next_option(&cmd_dump, argc, argv, ":h", longs)) != -1) {
        if (c == 'h')
            return print_help(&cmd_dump);
        if (c != 'j')
            return EXIT_USAGE;
        json = true;
    }
    if (optind == argc)
        return usage_error(&cmd_dump, "give at least one FILE");
    for (int i = optind; i < argc; i++) {
        struct verr err = {0};
        if (json)
            output_begun();
        if (dump_file(argv[i], json, stdout, &err) < 0)
            code = report_error(&cmd_dump, &err);
    }
    return code;
}

const struct command cmd_dump = {
    "dump", "print any file of ours as text or JSON",
    "varve dump [--json] FILE...\n\n"
    "Containers, snapshot recipes, side files, node records, store.conf, index files,\n"
    "deletion logs, and the local files of live images. docs/FORMAT.md explains the\n"
    "fields.\n\n"
    "  --json   print JSON\n",
    run_dump, NULL,
};
