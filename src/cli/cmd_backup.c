/* SPDX-License-Identifier: Apache-2.0 */
/*
 * varve backup: copy, snapshot, wait, compare. The disks stay open from the copy to the snapshot, so that the copies have one snapshot
 * and not one of each close, and several disks one instant. It exits 0 only if every snapshot is stored, without a flag, and as long as
 * its source.
 */
#include "cli/copy.h"
#include "cli/reports.h"

#include "base/clock.h"
#include "base/vjson.h"
#include "cli/asking.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SOURCES_MAX = 256 /* disks of one instant */, EXIT_UNREADABLE = 3 };

static atomic_int interrupted;

static void on_signal(int sig) { atomic_store(&interrupted, sig); }

struct backup {
    struct copy *copies;
    char **snapshots;           /* of each copy: the path of its snapshot; NULL: none */
    unsigned n;
    bool group;                 /* several sources: DEST is the directory */
    const char *dest, *label, *note;
    bool json;
};

/* ---- where it goes ---- */

static char *dest_of(const struct backup *b, const char *source, bool dir)
{
    const char *slash = strrchr(source, '/');
    char *path;
    if (!dir)
        return strdup(b->dest);
    return asprintf(&path, "%s/%s", b->dest, slash == NULL ? source : slash + 1) < 0 ? NULL : path;
}

/* The name of the disk in its path, and the directory before it. */
static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

static char *dir_of(const char *path)
{
    size_t n = (size_t)(base_of(path) - path);
    return n == 0 ? strdup(".") : strndup(path, n);
}

/* All that can be said before something is changed. -1: go on; else the exit code. */
static int check_dest(const struct backup *b, const struct copy *c)
{
    char point[PATH_MAX], *dir = dir_of(c->dest);
    int r = dir == NULL ? -ENOMEM : mount_of(dir, point);
    free(dir);
    if (r < 0)
        return report_errno(&cmd_backup, c->dest, -r);
    if (point[0] == '\0')
        return report_nothing(&cmd_backup, c->dest);
    if (base_of(c->dest)[0] == '\0' || strchr(base_of(c->dest), '@') != NULL)
        return usage_error(&cmd_backup, "%s: give the name of a disk; @ separates it from those of its snapshots", QUOTED(c->dest));
    for (const struct copy *o = b->copies; o < c; o++)
        if (strcmp(o->dest, c->dest) == 0)
            return usage_error(&cmd_backup, "%s and %s would both become %s", QUOTED(o->source), QUOTED(c->source), QUOTED(c->dest));
    return -1;
}

/* NAME@LABEL.EXT beside the disk; malloc'ed. */
static char *labelled(const char *disk, const char *label)
{
    const char *base = base_of(disk), *dot = strrchr(base, '.');
    char *path;
    if (dot == NULL || dot == base)
        return asprintf(&path, "%s@%s", disk, label) < 0 ? NULL : path;
    return asprintf(&path, "%.*s@%s%s", (int)(dot - disk), disk, label, dot) < 0 ? NULL : path;
}

static int check_label(const struct backup *b, const struct copy *c)
{
    if (b->label[0] == '\0')
        return -1;
    char *path = labelled(c->dest, b->label);
    bool taken = path != NULL && access(path, F_OK) == 0;
    free(path);
    return taken ? usage_error(&cmd_backup, "--label %s: %s has a snapshot of that name already", QUOTED(b->label), QUOTED(c->dest)) : -1;
}

static int prepare(struct backup *b, char **sources)
{
    struct stat st;
    int answers = mount_answers(&cmd_backup, b->dest);
    if (answers != EXIT_OK)
        return answers;
    bool dir = stat(b->dest, &st) == 0 && S_ISDIR(st.st_mode);
    if (b->group && !dir)
        return usage_error(&cmd_backup, "%s: several sources go into a directory", QUOTED(b->dest));
    for (unsigned i = 0; i < b->n; i++) {
        struct copy *c = &b->copies[i];
        c->source = sources[i];
        c->dest = dest_of(b, sources[i], dir);
        if (c->dest == NULL) {
            report_errno(&cmd_backup, sources[i], ENOMEM);
            return EXIT_FAIL;
        }
        int code = check_dest(b, c);
        if (code < 0)
            code = check_label(b, c);
        if (code >= 0)
            return code;
    }
    return -1;
}

/* ---- snapshots ---- */

/* fd: a directory, or a disk that is open for writing. */
static int take(const struct backup *b, int fd, const char *path)
{
    static struct varve_ioc_snapshot req;
    memset(&req, 0, sizeof req);
    snprintf(req.label, sizeof req.label, "%s", b->label);
    snprintf(req.note, sizeof req.note, "%s", b->note);
    int r = ioctl(fd, VARVE_IOC_SNAPSHOT, &req) < 0 ? errno : req.error;
    if (r == 0)
        return 0;
    report_about(&cmd_backup, path, r, "no snapshot of it: %s", r == req.error && req.text[0] != '\0' ? req.text : strerror(r));
    return -r;
}

/* Path and id of the newest snapshot of a disk; malloc'ed path, or NULL. */
static char *newest_of(const char *disk, char id[64])
{
    int error = 0;
    char *path = NULL;
    id[0] = '\0';
    json_t *doc = report_load(AT_FDCWD, disk, VARVE_IOC_LIST, "disks", &error);
    if (doc == NULL)
        report_errno(&cmd_backup, disk, error);
    const json_t *newest = json_object_get(json_array_get(json_object_get(doc, "disks"), 0), "newest");
    const char *name = NAME_OF(newest, "name");
    if (name[0] != '\0' && asprintf(&path, "%.*s%s", (int)(base_of(disk) - disk), disk, name) < 0)
        path = NULL;
    snprintf(id, 64, "%s", json_word(newest, "id"));
    json_decref(doc);
    return path;
}

/* Takes the snapshot of one copy. A request for a directory passes over a disk that has nothing to keep (an empty one): before: the newest
 * snapshot from before that request. */
static void find_snapshot(struct backup *b, unsigned i, const char *before)
{
    struct copy *c = &b->copies[i];
    char id[64];
    char *path = newest_of(c->dest, id);
    if (path == NULL || strcmp(id, before) == 0) {
        free(path);
        path = take(b, c->fd, c->dest) == 0 ? newest_of(c->dest, id) : NULL;
    }
    b->snapshots[i] = path;
}

/* The snapshots of all whole copies, at one instant if there are several sources. */
static void take_all(struct backup *b, unsigned whole)
{
    char (*before)[64] = calloc(b->n, sizeof *before);
    int dir = b->group && whole > 0 ? open(b->dest, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    for (unsigned i = 0; before != NULL && i < b->n; i++)
        if (b->copies[i].fd >= 0)
            free(newest_of(b->copies[i].dest, before[i]));
    bool ok = before != NULL && whole > 0 && (!b->group || (dir >= 0 && take(b, dir, b->dest) == 0));
    for (unsigned i = 0; ok && i < b->n; i++)
        if (b->copies[i].fd >= 0)
            find_snapshot(b, i, before[i]);
    for (unsigned i = 0; i < b->n; i++)
        if (b->copies[i].fd >= 0)
            close(b->copies[i].fd);
    if (dir >= 0)
        close(dir);
    free(before);
}

/* ---- the end ---- */

struct outcome {
    off_t size;
    char state[32], flags[64];
};

static int answer_outcome(void *ctx, int fd)
{
    struct outcome o = {0};
    struct stat st;
    if (stat(ctx, &st) < 0 || getxattr(ctx, "user.varve.state", o.state, sizeof o.state - 1) < 0
        || getxattr(ctx, "user.varve.flags", o.flags, sizeof o.flags - 1) < 0)
        return -errno;
    o.size = st.st_size;
    return ask_answer(fd, &o, sizeof o);
}

/* What the mount says of the snapshot, when the wait for it is over. */
static int compare(const struct copy *c, const char *snapshot)
{
    struct outcome o = {0};
    char *text = NULL;
    size_t len = 0;
    int r = ask(&(struct asking){.question = answer_outcome, .ctx = (void *)snapshot, .silence_ms = ACT_MS}, &text, &len);
    if (r == 0 && len != sizeof o)
        r = -EPROTO;
    if (r == 0)
        memcpy(&o, text, sizeof o);
    free(text);
    if (r == -ETIMEDOUT)
        return report_about(&cmd_backup, snapshot, ETIMEDOUT, "%s", ask_silence(ACT_MS));
    if (r < 0)
        return report_errno(&cmd_backup, snapshot, -r);
    if ((uint64_t)o.size == c->size && strcmp(o.state, "stored") == 0 && o.flags[0] == '\0')
        return EXIT_OK;
    return report_about(&cmd_backup, snapshot, EIO, "%s%s%s, %lld bytes instead of %llu", o.state, o.flags[0] != '\0' ? ", " : "", o.flags,
                       (long long)o.size, (unsigned long long)c->size);
}

static int end_one(struct backup *b, unsigned i)
{
    const struct copy *c = &b->copies[i];
    if (c->result == COPY_UNREADABLE || c->result == COPY_FAILED || c->result == COPY_STOPPED) {
        if (c->result == COPY_FAILED)
            return report_error(&cmd_backup, &c->err);
        return report_exit(&cmd_backup, c->result == COPY_UNREADABLE ? EXIT_UNREADABLE : EXIT_INTERRUPTED, &c->err);
    }
    if (b->snapshots[i] == NULL)
        return EXIT_FAIL;       /* take has said why */
    int code = wait_stored(&cmd_backup, b->snapshots[i], -1, NULL);
    return code != EXIT_OK ? code : compare(c, b->snapshots[i]);
}

static json_t *end_json(const struct backup *b, unsigned i, int code)
{
    const struct copy *c = &b->copies[i];
    return json_pack("{so so so so sb so}", "source", vjson_text(c->source), "disk", vjson_text(c->dest), "snapshot",
                     b->snapshots[i] != NULL ? vjson_text(b->snapshots[i]) : json_null(), "size", vjson_u64(c->size), "ok", code == EXIT_OK,
                     "error", c->err.code != 0 ? vjson_text(verr_str(&c->err)) : json_null());
}

/* An interrupt counts most, then a source that could not be read: the disk has a partial snapshot. */
static int worse(int a, int b)
{
    static const int order[] = {EXIT_INTERRUPTED, EXIT_UNREADABLE, EXIT_DAMAGE, EXIT_BUSY, EXIT_FAIL};
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
        if (a == order[i] || b == order[i])
            return order[i];
    return a > b ? a : b;
}

static int run_all(struct backup *b)
{
    unsigned whole = 0;
    int code = EXIT_OK;
    int64_t begin = vclock_mono_ns(&vclock_system);
    copy_all(b->copies, b->n, &interrupted);
    for (unsigned i = 0; i < b->n; i++)
        whole += b->copies[i].result == COPY_WHOLE;
    take_all(b, atomic_load(&interrupted) != 0 ? 0 : whole);
    json_t *list = json_array();
    for (unsigned i = 0; i < b->n; i++) {
        int one = atomic_load(&interrupted) != 0 && b->copies[i].result == COPY_WHOLE ? EXIT_INTERRUPTED : end_one(b, i);
        code = worse(code, one);
        json_array_append_new(list, end_json(b, i, one));
        if (!b->json && one == EXIT_OK)
            print_path(b->snapshots[i]);
    }
    if (b->json) {
        json_t *doc = json_pack("{si sb sf sO}", "schema", 1, "ok", code == EXIT_OK, "seconds",
                                (double)(vclock_mono_ns(&vclock_system) - begin) / 1e9, "backups", list);
        print_json(doc);
    }
    json_decref(list);
    return code;
}

/* False: *code is the exit code. */
static bool parse_options(struct backup *b, int argc, char **argv, int *code)
{
    static const struct option longs[] = {
        {"label", required_argument, NULL, 'l'}, {"note", required_argument, NULL, 't'}, {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'}, {0},
    };
    int c;
    while ((c = next_option(&cmd_backup, argc, argv, ":h", longs)) != -1) {
        switch (c) {
        case 'h': *code = print_help(&cmd_backup); return false;
        case 'j': b->json = true; break;
        case 'l': b->label = optarg; break;
        case 't': b->note = optarg; break;
        default: *code = EXIT_USAGE; return false;
        }
    }
    if (argc - optind < 2 || argc - optind > SOURCES_MAX + 1) {
        *code = usage_error(&cmd_backup, "give SOURCE... (at most %d) and DEST", SOURCES_MAX);
        return false;
    }
    size_t n = strlen(b->label);
    if (n > 64 || strspn(b->label, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != n || strlen(b->note) > 1024) {
        *code = usage_error(&cmd_backup, "--label takes up to 64 of A-Z a-z 0-9 . _ -, --note up to 1024 bytes");
        return false;
    }
    b->n = (unsigned)(argc - optind - 1);
    b->group = b->n > 1;
    b->dest = argv[argc - 1];
    return true;
}

static int run_backup(int argc, char **argv)
{
    struct backup b = {.label = "", .note = ""};
    int code;
    if (!parse_options(&b, argc, argv, &code))
        return code;
    b.copies = calloc(b.n, sizeof *b.copies);
    b.snapshots = calloc(b.n, sizeof *b.snapshots);
    /* A second one ends it at once, also where a copy waits for a mount that does not answer. */
    const struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    if (b.copies == NULL || b.snapshots == NULL)
        code = report_errno(&cmd_backup, b.dest, ENOMEM);
    else if ((code = prepare(&b, argv + optind)) < 0)
        code = run_all(&b);
    for (unsigned i = 0; b.copies != NULL && b.snapshots != NULL && i < b.n; i++) {
        free(b.copies[i].dest);
        free(b.snapshots[i]);
    }
    free(b.copies);
    free(b.snapshots);
    return code;
}

const struct command cmd_backup = {
    "backup", "copy images in, and return when they are stored",
    "varve backup [--label LABEL] [--note TEXT] [--json] SOURCE... DEST\n\n"
    "Copies files or block devices into DEST, a disk in a varve mount, or a directory\n"
    "there (several at a time; holes stay holes), takes the snapshot, waits until it\n"
    "is in the store, compares sizes, and prints the path of the snapshot. Several\n"
    "sources become one group: all changed disks of the directory are frozen at one\n"
    "instant, as by `varve snapshot`. Exit code 0 only if all of this went well; 3 if\n"
    "a source could not be read, 130 if interrupted: the disk then has a snapshot\n"
    "with the flag partial, and the one before is still the last good one; 11 if a\n"
    "disk is in use; 10 if DEST is in no varve mount; 1 otherwise.\n\n"
    "  --label LABEL   name it NAME@LABEL.EXT: [A-Za-z0-9._-], up to 64\n"
    "  --note TEXT     kept with it (user.varve.note)\n"
    "  --json          print JSON\n",
    run_backup, NULL,
};
