/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/quote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct command *const commands[] = {
    &cmd_init, &cmd_mount, &cmd_backup, &cmd_snapshot, &cmd_log, &cmd_list, &cmd_health, &cmd_status, &cmd_wait, &cmd_umount, &cmd_revert, &cmd_verify, &cmd_rebuild, &cmd_dump, NULL,
};

static int help_all(FILE *out)
{
    fprintf(out, "varve: snapshots of virtual-machine disks as files\n\nusage: varve COMMAND [options] ...\n\n");
    for (const struct command *const *c = commands; *c != NULL; c++)
        fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
    fprintf(out, "\nvarve COMMAND --help tells more, man varve-COMMAND all of it. varve --version\nprints the version.\n");
    return EXIT_OK;
}

int print_help(const struct command *cmd)
{
    printf("varve %s: %s\n\nusage: %s", cmd->name, cmd->summary, cmd->usage);
    if (cmd->options != NULL)
        cmd->options();
    printf("\nmore: man varve-%s\n", cmd->name);
    return EXIT_OK;
}

static const struct command *find_command(const char *name)
{
    for (const struct command *const *c = commands; *c != NULL; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

/* ---- the program ---- */

/* Asked before the options are read, because a wrong one is reported as JSON, too. getopt takes beginnings of the word as well. */
static bool wants_json(int argc, char **argv)
{
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        size_t n = strcspn(argv[i], "=");
        if (n > 2 && strncmp(argv[i], "--json", n) == 0)
            return true;
    }
    return false;
}

static int run_program(int argc, char **argv)
{
    if (argc < 2) {
        help_all(stderr);
        return EXIT_USAGE;
    }
    const bool help = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (help && argc == 2))
        return help_all(stdout);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        printf("varve %s\n", VARVE_VERSION);
        return EXIT_OK;
    }
    const char *name = argv[help ? 2 : 1];
    const struct command *cmd = find_command(name);
    if (cmd == NULL) {
        fprintf(stderr, "varve: unknown command %s (varve --help)\n", QUOTED(name));
        return EXIT_USAGE;
    }
    if (help)
        return print_help(cmd);
    if (wants_json(argc, argv))
        messages_as_json();
    return end_output(cmd, cmd->run(argc - 1, argv + 1));
}

int main(int argc, char **argv)
{
    fill_standard_fds();
    int code = run_program(argc, argv);
    if (ferror(stdout))
        return code;        /* end_output has said so */
    if (fflush(stdout) == 0)
        return code;
    fprintf(stderr, "varve: cannot write to standard output: %s\n", strerror(errno));
    return code == EXIT_OK ? EXIT_FAIL : code;
}
