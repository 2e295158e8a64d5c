/* SPDX-License-Identifier: Apache-2.0 */
/* JSON reports of a daemon, fetched by commands, and their values. */
#ifndef VARVE_CLI_REPORTS_H
#define VARVE_CLI_REPORTS_H

#include "cli/cli.h"

#include "base/quote.h"
#include "base/vjson.h"

#include <jansson.h>
#include <limits.h>

/* Fetches and parses a text that the daemon hands out in pieces: VARVE_IOC_LOG, VARVE_IOC_LIST. A text without the array `key` counts as
 * wrong. NULL: *error is an errno. */
json_t *report_load(int dirfd, const char *path, unsigned long request, const char *key, int *error);
/* The same of a mount that may not answer: ETIMEDOUT after ASK_MS (asking.h). point: the mount point that path lies in. request 0: the text is
 * the content of the file path, and point is not set. */
json_t *report_ask(const char *path, unsigned long request, const char *key, char point[PATH_MAX], int *error);
/* What such an error means, for messages. Valid until the next call. */
const char *report_reason(int error);

/* Prints a document on stdout, and takes it over. Of a list nothing, if it is empty because all failed: see end_output. */
void print_json(json_t *doc);
void print_json_list(json_t *list, int code);

/* Members of an object: 0 or "" if there is none of that type. A name, path or other text of users comes as JSON has it (vjson_text). */
uint64_t json_number(const json_t *o, const char *key);
const char *json_word(const json_t *o, const char *key);
/* The bytes of such a text, in a buffer that lives as long as the block around the call; and the same as it is printed. */
#define NAME_OF(o, key) vjson_bytes(json_word((o), (key)), (char[PATH_MAX]){0}, PATH_MAX)
#define QUOTED_OF(o, key) QUOTED(NAME_OF((o), (key)))
/* A text of users that is no name, such as a note or a reason, as a part of a line. */
#define LINE_OF(o, key) quote_line(NAME_OF((o), (key)), (char[PATH_MAX]){0}, PATH_MAX)

/* "90s", "15m", "26h", "2d", or seconds ("0.5") -> milliseconds. 0 or -EINVAL. */
int parse_duration(const char *text, int64_t *ms);
/* Seconds in one unit: "5 min", "2.3 h", "12 d". */
void format_age(int64_t seconds, char out[16]);

/* Waits until all that is pending or provisional at the path now is stored; what failed is tried again first. timeout_ms < 0: no limit.
 * Prints why it ended otherwise, and shows progress. *silent, unless it is NULL: the daemon does not answer. The exit code. */
int wait_stored(const struct command *cmd, const char *path, int64_t timeout_ms, bool *silent);
/* Asks in a child something about a path that may take as long as STORE does: it ends with -ETIMEDOUT only if the daemon answers nothing else,
 * either, for twice ASK_MS. Otherwise as ask (asking.h). */
int ask_while_alive(int (*question)(void *path, int fd), const char *path, char **text, size_t *len);
/* Before a command acts on the mount that a path lies in, or, of a path that is not there, its directory: one that hangs by then is reported,
 * and nothing begun that could not be cut off. EXIT_OK also for what lies in no mount; else the exit code. */
int mount_answers(const struct command *cmd, const char *path);

/* The mount point of varve that a path lies in; "" if it lies in none. 0; -errno: the path cannot be looked at. */
int mount_of(const char *path, char out[PATH_MAX]);
/* The same of an absolute path without links; no filesystem is asked. */
int mount_of_full(const char *full, char out[PATH_MAX]);

#endif
