/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "agent/agent.h"
#include "base/quote.h"
#include "base/verr.h"
#include "check/check.h"
#include "store/store.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

struct rebuild {
    struct progress bar;
    char title[64];
    uint64_t damaged;
};

static int show_progress(void *ctx, const char *what, uint64_t done, uint64_t total)
{
    struct rebuild *rb = ctx;
    snprintf(rb->title, sizeof rb->title, "%-10s", what);
    rb->bar.title = rb->title;
    progress_show(&rb->bar, done, total);
    return interrupted;
}

static void show_problem(void *ctx, const struct check_problem *p)
{
    struct rebuild *rb = ctx;
    progress_end(&rb->bar);
    if (p->severity == CHECK_DAMAGE)
        rb->damaged++;
    report_warning(&cmd_rebuild, "%s: %s", QUOTED(p->file), p->what);
}

static int rebuild_all(struct agent *a, bool index, bool catalog, struct rebuild *rb, struct verr *err)
{
    struct store *st = agent_store(a);
    const struct check_opts opts = {.problem = show_problem, .progress = show_progress, .ctx = rb};
    uid_t uid;
    gid_t gid;
    agent_owner(a, &uid, &gid);
    int r = drop_privileges(uid, gid, err);
    if (r == 0 && index) {
        struct check_rebuilt rep = {0};
        r = check_rebuild_index(st, agent_state_fd(a), 0, &opts, &rep, err);
        progress_end(&rb->bar);
        if (r == 0)
            printf("index: %llu fingerprints of %llu containers (%llu damaged and left out, %llu fingerprints condemned)\n",
                   (unsigned long long)rep.entries, (unsigned long long)rep.containers, (unsigned long long)rep.skipped,
                   (unsigned long long)rep.condemned);
    }
    if (r == 0 && catalog) {
        r = check_rebuild_catalog(st, agent_state_fd(a), agent_state_path(a), &vclock_system, &opts, err);
        progress_end(&rb->bar);
        if (r == 0)
            printf("catalog: made anew from %s; pending snapshots come back at the next mount\n", QUOTED(store_path(st)));
    }
    return r;
}

static int run_rebuild(int argc, char **argv)
{
    static const struct option longs[] = {
        {"state", required_argument, NULL, 's'}, {"index", no_argument, NULL, 'i'}, {"catalog", no_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'}, {0},
    };
    struct agent_conf conf;
    struct agent *a = NULL;
    struct verr err = {0};
    struct rebuild rb = {0};
    bool index = false, catalog = false;
    int c;
    agent_conf_default(&conf);
    while ((c = next_option(&cmd_rebuild, argc, argv, ":h", longs)) != -1) {
        switch (c) {
        case 'h': return print_help(&cmd_rebuild);
        case 's': conf.state = optarg; break;
        case 'i': index = true; break;
        case 'c': catalog = true; break;
        default: return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_rebuild, "give one STORE");
    if (!index && !catalog)
        index = catalog = true;
    conf.store = argv[optind];
    signal(SIGINT, on_interrupt);
    int r = agent_open(&conf, &a, &err);
    if (r == 0)
        r = rebuild_all(a, index, catalog, &rb, &err);
    if (r == 0)
        agent_state_keep(a);
    agent_close(a, NULL);
    if (r < 0)
        return report_error(&cmd_rebuild, &err);
    return rb.damaged > 0 ? EXIT_DAMAGE : EXIT_OK;
}

const struct command cmd_rebuild = {
    "rebuild", "make catalog and index anew from the rest",
    "varve rebuild [--state DIR] [--index] [--catalog] STORE\n\n"
    "Recreates the index from the containers and the catalog from the recipes and\n"
    "names in STORE (default: both). Refused while the store is mounted here.\n\n"
    "  --state DIR   local state (default /var/lib/varve/STOREID)\n"
    "  --index       the index only\n"
    "  --catalog     the catalog only\n",
    run_rebuild, NULL,
};
