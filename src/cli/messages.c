/* SPDX-License-Identifier: Apache-2.0 */
/* What commands say: messages on stderr, documents and paths on stdout, and the options they are called with. */
#include "cli/reports.h"

#include "base/quote.h"
#include "base/verr.h"
#include "base/vjson.h"
#include "base/vlog.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MESSAGE_MAX = 2 * QUOTED_MAX };

static bool json_messages;      /* --json was given */
static bool json_printed;       /* stdout has its document */
static json_t *last_error;      /* with --json */

void messages_as_json(void) { json_messages = true; }

/* ---- messages ---- */

/* A line on stderr; with --json it is an object. exit_with: EXIT_OK for a warning. */
static void say(const struct command *cmd, int exit_with, const char *what)
{
    char text[MESSAGE_MAX];
    quote_line(what, text, sizeof text);
    json_t *doc = json_messages ? json_pack("{si ss ss so si}", "schema", 1, "command", cmd->name, "level",
                                            exit_with == EXIT_OK ? "warning" : "error", "message", vjson_text(text), "exit", exit_with) : NULL;
    char *line = vjson_dump(doc, JSON_COMPACT);
    if (line != NULL)
        fprintf(stderr, "%s\n", line);
    else
        fprintf(stderr, "%svarve %s: %s\n", vlog_mark(exit_with == EXIT_OK ? VLOG_WARN : VLOG_ERROR), cmd->name, text);
    free(line);
    if (exit_with == EXIT_OK || doc == NULL) {
        json_decref(doc);
        return;
    }
    json_decref(last_error);
    last_error = doc;
}

int usage_error(const struct command *cmd, const char *fmt, ...)
{
    char text[QUOTED_MAX], whole[MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s (varve %s --help)", text, cmd->name);
    say(cmd, EXIT_USAGE, whole);
    return EXIT_USAGE;
}

void report_warning(const struct command *cmd, const char *fmt, ...)
{
    char text[MESSAGE_MAX];
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

int report_exit(const struct command *cmd, int exit_with, const struct verr *err)
{
    say(cmd, exit_with, verr_str(err));
    return exit_with;
}

/* The path comes whole: a struct verr has no room for a long one. */
int report_about(const struct command *cmd, const char *path, int code, const char *fmt, ...)
{
    char why[QUOTED_MAX], text[MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    snprintf(text, sizeof text, "%s: %s", QUOTED(path), why);
    int exit_with = exit_code(cmd, code);
    say(cmd, exit_with, text);
    return exit_with;
}

int report_errno(const struct command *cmd, const char *path, int code)
{
    return report_about(cmd, path, code, "%s", code == ENOTTY ? "not in a varve mount" : strerror(code));
}

int report_nothing(const struct command *cmd, const char *path)
{
    char text[MESSAGE_MAX];
    snprintf(text, sizeof text, "%s%s", path == NULL ? "" : QUOTED(path),
             path == NULL ? "nothing is mounted here (varve mount STORE MOUNTPOINT mounts a store)" : ": no store is mounted there");
    say(cmd, EXIT_NO_STORE, text);
    return EXIT_NO_STORE;
}

/* ---- options ---- */

int next_option(const struct command *cmd, int argc, char **argv, const char *shorts, const struct option *longs)
{
    opterr = 0;     /* getopt's own messages are no JSON, and carry the bytes of the word as they are */
    int c = getopt_long(argc, argv, shorts, longs, NULL);
    if (c != '?' && c != ':')
        return c;
    const char *word = argv[optind - 1];
    char letter[] = {'-', (char)optopt, '\0'};
    bool is_long = strncmp(word, "--", 2) == 0;
    if (c == ':')
        usage_error(cmd, "%s needs a value", is_long ? QUOTED(word) : letter);
    else if (is_long && optopt != 0)
        usage_error(cmd, "%s: this option takes no value", QUOTED(word));
    else
        usage_error(cmd, "unknown option %s", is_long || optopt == 0 ? QUOTED(word) : QUOTED(letter));
    return '?';
}

/* ---- stdout ---- */

void print_json(json_t *doc)
{
    char *text = vjson_dump(doc, JSON_INDENT(2));
    if (text != NULL) {
        printf("%s\n", text);
        json_printed = true;
    }
    free(text);
    json_decref(doc);
}

void print_json_list(json_t *list, int code)
{
    if (json_array_size(list) > 0 || code == EXIT_OK)
        print_json(list);
    else
        json_decref(list);
}

void output_begun(void) { json_printed = true; }

int end_output(const struct command *cmd, int code)
{
    if (json_messages && !json_printed && code != EXIT_OK && last_error != NULL)
        print_json(json_incref(last_error));
    json_decref(last_error);
    last_error = NULL;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    struct verr err = {0};
    verr_set(&err, errno, "cannot write to standard output: %s", strerror(errno));
    report_error(cmd, &err);
    return code == EXIT_OK ? EXIT_FAIL : code;
}

void print_path(const char *path)
{
    char named[QUOTED_MAX];
    snprintf(named, sizeof named, "%s%s", path[0] == '-' ? "./" : "", path);
    printf("%s\n", isatty(STDOUT_FILENO) ? QUOTED(named) : named);
}
