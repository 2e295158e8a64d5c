/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vjson.h"
#include "base/vlog.h"

#include <errno.h>
#include <stdarg.h>
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

/* ---- messages ---- */

static bool json_messages;      /* --json was given */

/* A line on stderr; with --json it is an object. exit_with: EXIT_OK for a warning. */
static void say(const struct command *cmd, int exit_with, const char *text)
{
    json_t *doc = json_messages ? json_pack("{si ss ss so si}", "schema", 1, "command", cmd->name, "level",
                                            exit_with == EXIT_OK ? "warning" : "error", "message", vjson_text(text), "exit", exit_with) : NULL;
    if (doc == NULL || json_dumpf(doc, stderr, JSON_COMPACT) < 0)
        fprintf(stderr, "%svarve %s: %s", vlog_mark(exit_with == EXIT_OK ? VLOG_WARN : VLOG_ERROR), cmd->name, text);
    fputc('\n', stderr);
    json_decref(doc);
}

int usage_error(const struct command *cmd, const char *fmt, ...)
{
    struct verr err;
    char text[sizeof err.text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    verr_set(&err, EINVAL, "%s (varve %s --help)", text, cmd->name);
    say(cmd, EXIT_USAGE, err.text);
    return EXIT_USAGE;
}

void report_warning(const struct command *cmd, const char *fmt, ...)
{
    char text[sizeof ((struct verr *)NULL)->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    say(cmd, EXIT_OK, text);
}

static int exit_code(const struct command *cmd, int code)
{
    switch (code) {
    case EBUSY: return EXIT_BUSY;
    case EBADMSG: return EXIT_DAMAGE;
    case EINTR: return EXIT_INTERRUPTED;
    case ENOTDIR: return cmd == &cmd_verify || cmd == &cmd_rebuild ? EXIT_NO_STORE : EXIT_FAIL;
    case ENOENT: return cmd == &cmd_mount || cmd == &cmd_verify || cmd == &cmd_rebuild || cmd == &cmd_status ? EXIT_NO_STORE : EXIT_FAIL;
    case EINVAL:    /* a label that is no label, or that another snapshot has */
    case EEXIST: return cmd == &cmd_snapshot ? EXIT_USAGE : EXIT_FAIL;
    default: return EXIT_FAIL;
    }
}

int report_error(const struct command *cmd, const struct verr *err)
{
    int code = exit_code(cmd, err->code);
    say(cmd, code, verr_str(err));
    return code;
}

int report_errno(const struct command *cmd, const char *path, int code)
{
    struct verr err = {0};
    verr_set(&err, code, "%s: %s", path, code == ENOTTY ? "not in a varve mount" : strerror(code));
    return report_error(cmd, &err);
}

int report_nothing(const struct command *cmd)
{
    say(cmd, EXIT_NO_STORE, "nothing is mounted here (varve mount STORE MOUNTPOINT mounts a store)");
    return EXIT_NO_STORE;
}

/* ---- the program ---- */

static bool wants_json(int argc, char **argv)
{
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
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
        fprintf(stderr, "varve: unknown command \"%s\" (varve --help)\n", name);
        return EXIT_USAGE;
    }
    if (help)
        return print_help(cmd);
    json_messages = wants_json(argc, argv);
    return cmd->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    fill_standard_fds();
    int code = run_program(argc, argv);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "varve: cannot write to standard output: %s\n", strerror(errno));
    return code == EXIT_OK ? EXIT_FAIL : code;
}
