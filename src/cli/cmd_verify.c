/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include "agent/agent_verified.h"
#include "base/clock.h"
#include "base/verr.h"
#include "base/vjson.h"
#include "check/check.h"
#include "cli/asking.h"
#include "store/store.h"
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
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

struct verify {
    struct progress bar;
    char title[64];
    json_t *problems;       /* --json */
};

static int show_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct verify *v = ctx;
    snprintf(v->title, sizeof v->title, "%-10s", what);
    v->bar.title = v->title;
    progress_show(&v->bar, done, total);
    return interrupted;
}

static void show_problem(void *ctx, const struct check_problem *p)
{
    struct verify *v = ctx;
    const char *severity = p->severity == CHECK_DAMAGE ? "damage" : "notice";
    progress_end(&v->bar);
    if (v->problems != NULL) {
        json_t *hits = json_array();
        for (unsigned i = 0; i < p->nhits; i++)
            json_array_append_new(hits, vjson_text(p->hits[i].name));
        json_array_append_new(v->problems, json_pack("{ss so so so sI}", "severity", severity, "file", vjson_text(p->file), "what", vjson_text(p->what),
                                                     "snapshots", hits, "snapshots_total", (json_int_t)p->hits_total));
        return;
    }
    char what[QUOTED_MAX];
    printf("%s: %s: %s\n", severity, QUOTED(p->file), quote_line(p->what, what, sizeof what));
    for (unsigned i = 0; i < p->nhits; i++)
        printf("    hits %s%s\n", QUOTED(p->hits[i].name), p->hits[i].anchor ? " (live image)" : "");
    if (p->hits_total > p->nhits)
        printf("    and %llu more\n", (unsigned long long)(p->hits_total - p->nhits));
}

/* ---- which store, and where the date of the verify is kept ---- */

enum { STATES_MAX = 16 };

struct place {
    char store[PATH_MAX];
    char states[STATES_MAX][1024];  /* of the hosts' mounts of this store that can be seen here */
    unsigned nstates;
};

static int answer_info(void *ctx, int out)
{
    struct varve_ioc_info info = {0};
    int fd = open(ctx, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = ioctl(fd, VARVE_IOC_INFO, &info) == 0 ? ask_answer(out, &info, sizeof info) : 0;
    close(fd);
    return r;
}

/* 1; 0: the path lies in no varve mount; -errno. */
static int ask_mount(const char *path, int silence_ms, struct varve_ioc_info *info)
{
    char *text = NULL;
    size_t len = 0;
    int r = ask(&(struct asking){.question = answer_info, .ctx = (void *)path, .silence_ms = silence_ms}, &text, &len);
    if (r == 0 && len == sizeof *info) {
        memcpy(info, text, sizeof *info);
        info->store[sizeof info->store - 1] = info->state[sizeof info->state - 1] = '\0';
        r = 1;
    }
    free(text);
    return r;
}

static int add_state(void *ctx, const char *point)
{
    struct place *p = ctx;
    struct varve_ioc_info info = {0};
    /* Only root is told the state directory. A mount that hangs gets no date, and holds up no verify. */
    if (ask_mount(point, ASK_MS, &info) == 1 && strcmp(info.store, p->store) == 0 && info.state[0] != '\0' && p->nstates < STATES_MAX)
        snprintf(p->states[p->nstates++], sizeof p->states[0], "%s", info.state);
    return 0;
}

/* PATH is a mount point (or anything in one), or a STORE. */
static int find_store(const char *path, const char *state, struct place *p)
{
    struct varve_ioc_info info;
    int r = ask_mount(path, ACT_MS, &info);
    if (r < 0)
        return r;
    if (realpath(r == 1 ? info.store : path, p->store) == NULL)
        return -errno;
    if (state != NULL)
        snprintf(p->states[p->nstates++], sizeof p->states[0], "%s", state);
    else
        each_mount_of(p->store, add_state, p);
    return 0;
}

/* Where a mount without a state option keeps it. */
static void default_state(struct place *p, const struct store *st)
{
    char id[VID_HEX];
    vid_hex(&store_conf(st)->id, id);
    snprintf(p->states[0], sizeof p->states[0], "/var/lib/varve/%s", id);
    p->nstates = access(p->states[0], F_OK) == 0;
}

/* The date is for `varve health` and the metrics of a mount: a verify counts without it. */
static void record(const struct place *p, const struct check_report *rep)
{
    const struct agent_verified v = {.ended_s = vclock_real_ns(&vclock_system) / 1000000000, .damaged = rep->damaged,
                                     .snapshots = rep->snapshots};
    for (unsigned i = 0; i < p->nstates; i++) {
        struct verr err = {0};
        if (agent_verified_write(p->states[i], &v, &err) < 0)
            report_warning(&cmd_verify, "the date of this verify is not recorded: %s", verr_str(&err));
    }
    if (p->nstates == 0)
        report_warning(&cmd_verify, "the date of this verify is not recorded: %s is not mounted here, and no state directory of it is "
                       "known (--state)", QUOTED(p->store));
}

static void print_report(const struct check_report *r, bool data)
{
    char read[16];
    format_size(r->bytes_read, read);
    printf("%llu snapshots, %llu removed ones that live images rely on, %llu side files, %llu names; ",
           (unsigned long long)r->snapshots, (unsigned long long)r->anchors, (unsigned long long)r->side_files,
           (unsigned long long)r->nodes);
    printf("%llu containers, %llu sections, %llu blocks, %llu segment recipes\n", (unsigned long long)r->containers,
           (unsigned long long)r->sections, (unsigned long long)r->blocks, (unsigned long long)r->recipes);
    printf("%s read%s; %llu damaged, %llu notices, %llu snapshots hit%s\n", read, data ? "" : " (no data: --quick)",
           (unsigned long long)r->damaged, (unsigned long long)r->notices, (unsigned long long)r->snapshots_hit,
           r->damaged == 0 ? ": all is well" : "");
}

static json_t *report_json(const struct check_report *r)
{
    return json_pack("{si sI sI sI sI sI sI sI sI sI sI sI sI}", "schema", 1, "snapshots", (json_int_t)r->snapshots, "anchors", (json_int_t)r->anchors,
                     "side_files", (json_int_t)r->side_files, "names", (json_int_t)r->nodes, "containers", (json_int_t)r->containers,
                     "sections", (json_int_t)r->sections, "blocks", (json_int_t)r->blocks, "recipes", (json_int_t)r->recipes,
                     "bytes_read", (json_int_t)r->bytes_read, "damaged", (json_int_t)r->damaged, "notices", (json_int_t)r->notices,
                     "snapshots_hit", (json_int_t)r->snapshots_hit);
}

static int verify_store(struct place *p, bool data, bool json)
{
    const char *path = p->store;
    struct verr err = {0};
    struct store *st = NULL;
    struct verify v = {.problems = json ? json_array() : NULL};
    struct check_report rep = {0};
    int r = store_open(path, &st, &err);
    uid_t uid = 0;
    gid_t gid = 0;
    if (r == 0 && (r = store_owner(st, &uid, &gid)) < 0)
        verr_set(&err, -r, "%s: %s", QUOTED(path), strerror(-r));
    if (r == 0 && p->nstates == 0)
        default_state(p, st);
    if (r == 0)
        r = drop_privileges(uid, gid, &err);
    if (r == 0) {
        const struct check_opts opts = {.read_data = data, .problem = show_problem, .progress = show_progress, .ctx = &v};
        r = check_verify(st, &opts, &rep, &err);
        progress_end(&v.bar);
    }
    store_close(st);
    if (r == 0 && data)
        record(p, &rep);
    if (r < 0) {
        json_decref(v.problems);
        return report_error(&cmd_verify, &err);
    }
    if (json) {
        json_t *doc = report_json(&rep);
        json_object_set_new(doc, "problems", v.problems);
        print_json(doc);
    } else {
        print_report(&rep, data);
    }
    return rep.damaged > 0 ? EXIT_DAMAGE : EXIT_OK;
}

static int run_verify(int argc, char **argv)
{
    static const struct option longs[] = {{"quick", no_argument, NULL, 'q'}, {"json", no_argument, NULL, 'j'},
                                          {"state", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool data = true, json = false;
    static struct place place;
    const char *state = NULL;
    int c;
    while ((c = next_option(&cmd_verify, argc, argv, ":h", longs)) != -1) {
        switch (c) {
        case 'h': return print_help(&cmd_verify);
        case 'q': data = false; break;
        case 'j': json = true; break;
        case 's': state = optarg; break;
        default: return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_verify, "give one MOUNTPOINT or STORE");
    int r = find_store(argv[optind], state, &place);
    if (r == -ETIMEDOUT)
        return report_about(&cmd_verify, argv[optind], ETIMEDOUT, "%s (the path of STORE can be verified)", ask_silence(ACT_MS));
    if (r < 0)
        return report_errno(&cmd_verify, argv[optind], -r);
    signal(SIGINT, on_interrupt);
    return verify_store(&place, data, json);
}

const struct command cmd_verify = {
    "verify", "read and check everything that is stored",
    "varve verify [--quick] [--json] [--state DIR] MOUNTPOINT|STORE\n\n"
    "Reads each container once, recomputes every fingerprint, follows every\n"
    "snapshot's recipe. Names each damaged file and the snapshots that it hits.\n"
    "Changes nothing; may run while the store is mounted. Exit code 20 if damage was\n"
    "found. When it ended is kept in the state directory of this host, for `varve\n"
    "health` and metrics.\n\n"
    "  --quick       structure only: no block is read, and no date is kept\n"
    "  --state DIR   keep the date there (default: where the store is mounted, else\n"
    "                /var/lib/varve/STOREID if there is one)\n"
    "  --json        print JSON\n",
    run_verify, NULL,
};
