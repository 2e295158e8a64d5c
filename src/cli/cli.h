/* SPDX-License-Identifier: Apache-2.0 */
/* cli: one table of commands, which help comes from. Data go to stdout, everything else to stderr. */
#ifndef VARVE_CLI_CLI_H
#define VARVE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct option;
struct verr;

/* Exit codes (docs/man/varve.1); an unknown one means failure. */
enum { EXIT_OK = 0, EXIT_FAIL = 1, EXIT_USAGE = 2, EXIT_NO_STORE = 10, EXIT_BUSY = 11, EXIT_DAMAGE = 20, EXIT_INTERRUPTED = 130 };

struct command {
    const char *name;
    const char *summary;        /* one line */
    const char *usage;          /* options and operands, at most 80 columns */
    int (*run)(int argc, char **argv);
    void (*options)(void);      /* prints what help says behind usage; NULL: nothing */
};
extern const struct command *const commands[];

extern const struct command cmd_init, cmd_mount, cmd_backup, cmd_snapshot, cmd_log, cmd_list, cmd_health, cmd_status, cmd_wait, cmd_umount, cmd_revert, cmd_verify, cmd_rebuild, cmd_dump;

/* Prints help of a command on stdout; returns EXIT_OK. usage_error: to stderr, with a reason; returns EXIT_USAGE. */
int print_help(const struct command *cmd);
int usage_error(const struct command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Messages are lines on stderr, "varve CMD: text", or with --json objects (docs/json.md). Names in them are quoted, control characters
 * escaped (base/quote.h). Returns the exit code that belongs to the error. */
int report_error(const struct command *cmd, const struct verr *err);
int report_errno(const struct command *cmd, const char *path, int code);
/* The same with an exit code of the command's own. */
int report_exit(const struct command *cmd, int exit_with, const struct verr *err);
void report_warning(const struct command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "PATH: text"; code: an errno, as for report_errno. */
int report_about(const struct command *cmd, const char *path, int code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* Nothing is mounted at the path; NULL: no mount was named, and there is none. Returns EXIT_NO_STORE. */
int report_nothing(const struct command *cmd, const char *path);
/* From now on messages are JSON: --json was given. */
void messages_as_json(void);
/* The command prints its document by itself: stdout is not empty. */
void output_begun(void);
/* The end of a command: with --json a failure that left stdout empty puts its last message there. The exit code, which is EXIT_FAIL if what
 * was printed could not be written. */
int end_output(const struct command *cmd, int code);

/* getopt_long with messages of ours; '?': one was printed, and the exit code is EXIT_USAGE. shorts begins with ':'. */
int next_option(const struct command *cmd, int argc, char **argv, const char *shorts, const struct option *longs);

/* A line of stdout with nothing but a path, for people and scripts: quoted on a terminal, else its bytes, both as `ls` does. One that begins
 * with '-' gets "./" in front, so that no command takes it for an option. */
void print_path(const char *path);

/* A size in bytes: "1048576", "35M" and "35MiB" (powers of 1024), "35MB" (powers of 1000), with or without a blank before the unit. 0 or
 * -EINVAL. */
int parse_size(const char *text, uint64_t *out);
void format_size(uint64_t bytes, char out[16]);      /* "1.4 GiB" */

/* Progress bar on stderr; shows nothing unless stderr is a terminal. bytes: what is counted are bytes, so amounts, rate and the time that
 * is left are shown, too. */
struct progress { const char *title; bool bytes, shown; int64_t begin_ms, last_ms; uint64_t first; };
void progress_show(struct progress *p, uint64_t done, uint64_t total);
void progress_end(struct progress *p);

/* Mount points of varve: calls fn for each (from /proc/self/mountinfo). Count. */
int each_mount(int (*fn)(void *ctx, const char *mountpoint), void *ctx);
/* The same for the mounts of one store (canonical path), without a look at others, which might not answer. */
int each_mount_of(const char *store, int (*fn)(void *ctx, const char *mountpoint), void *ctx);

/* Opens what is missing of 0, 1 and 2 on /dev/null, so that no file of ours becomes one of them. */
void fill_standard_fds(void);

/* Raises the limit of open files as far as the caller's allows (a shell or mount(8) gives 1024 unless asked for more), and warns where it
 * is too low. */
void allow_open_files(void);

/* Drops to uid:gid without capabilities, with no_new_privs. Nothing to do but no_new_privs when not root. 0 or -errno. */
int drop_privileges(uid_t uid, gid_t gid, struct verr *err);
/* After the drop, before any thread: no files but those below STORE and STATE (Landlock), no system calls but those on a list
 * (seccomp). Of this process for good. -errno. */
struct sandbox {
    const char *store, *state;
    bool read_only;             /* STORE is only read, and STATE, which is temporary, is removed at the end */
};
int sandbox_enter(const struct sandbox *box, struct verr *err);
/* From here on a fatal signal says where it happened, on stderr and at the end of STATE/crash.txt, before it ends the process. */
void report_crashes(const char *state);

#endif
