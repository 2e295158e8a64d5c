/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "agent/agent.h"
#include "base/file.h"
#include "base/quote.h"
#include "base/verr.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OPTIONS_MAX = 16, OPTION = 256 /* returned by getopt_long: OPTION + number of the store option */ };

/* The options of the store as getopt_long takes them, with --owner, --restore-conf and --help. */
static void long_options(struct option longs[OPTIONS_MAX])
{
    const struct store_option *o;
    unsigned n = 0;
    for (; n < OPTIONS_MAX - 4 && (o = storeconf_option(n)) != NULL; n++)
        longs[n] = (struct option){o->name, required_argument, NULL, OPTION + (int)n};
    longs[n] = (struct option){"owner", required_argument, NULL, 'o'};
    longs[n + 1] = (struct option){"restore-conf", required_argument, NULL, 'r'};
    longs[n + 2] = (struct option){"help", no_argument, NULL, 'h'};
    longs[n + 3] = (struct option){0};
}

static int set_option(struct store_conf *conf, const struct store_option *o, const char *text)
{
    char plain[24];
    const char *value = text, *want;
    uint64_t bytes;
    if (o->bytes && parse_size(text, &bytes) == 0) {
        snprintf(plain, sizeof plain, "%llu", (unsigned long long)bytes);
        value = plain;
    }
    if (storeconf_set(conf, o->name, value, &want) < 0)
        return usage_error(&cmd_init, "--%s %s: give %s", o->name, QUOTED(text), want);
    return EXIT_OK;
}

static void print_options(void)
{
    const struct store_option *o;
    struct store_conf conf;
    storeconf_default(&conf);
    for (unsigned i = 0; (o = storeconf_option(i)) != NULL; i++) {
        char left[32], value[STORECONF_VALUE];
        snprintf(left, sizeof left, "%s %s", o->name, o->values);
        storeconf_get(&conf, o->name, value);
        printf("  --%-24s %s (default %s)\n", left, o->help, value);
    }
    printf("  --%-24s %s\n%29s%s\n", "owner ACCOUNT", "who owns the store and runs the daemon (default:", "",
           "varve if that account exists, else the caller)");
    printf("  --%-24s %s\n%29s%s\n", "restore-conf STATE-DIR", "put back the store.conf that STORE has lost, from", "",
           "a state directory that it was mounted with");
}

static int find_owner(const char *name, uid_t *uid, gid_t *gid, struct verr *err)
{
    const struct passwd *pw = getpwnam(name);
    if (pw == NULL)
        return verr_set(err, EINVAL, "--owner %s: there is no such account", name);
    *uid = pw->pw_uid;
    *gid = pw->pw_gid;
    return 0;
}

static int make_store(const char *path, const struct store_conf *conf, const char *owner)
{
    struct verr err = {0};
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    if (owner == NULL && geteuid() == 0 && getpwnam("varve") != NULL)
        owner = "varve";
    if (owner != NULL && find_owner(owner, &uid, &gid, &err) < 0)
        return report_error(&cmd_init, &err);
    if (store_init(path, conf, uid, gid, &err) < 0)
        return report_error(&cmd_init, &err);
    char id[VID_HEX];
    vid_hex(&conf->id, id);
    fprintf(stderr, "store %s made in %s%s%s\n", id, QUOTED(path), owner == NULL ? "" : ", owned by ", owner == NULL ? "" : owner);
    return EXIT_OK;
}

/* ---- --restore-conf ---- */

static int copy_load(const char *state, struct store_conf *conf, struct verr *err)
{
    char why[128] = "";
    uint8_t *text;
    size_t len;
    int dir = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return verr_set(err, errno, "state directory %s: %s", state, strerror(errno));
    int r = file_load(dir, STATE_CONF, STORECONF_MAX, &text, &len);
    close(dir);
    if (r < 0)
        return verr_set(err, -r, "%s/" STATE_CONF ": %s%s", state, strerror(-r),
                        r == -ENOENT ? " (no mount has used this state directory since varve keeps a copy)" : "");
    r = storeconf_decode((const char *)text, len, conf, why);
    explicit_bzero(text, len);
    free(text);
    return r < 0 ? verr_set(err, -r, "%s/" STATE_CONF ": %s: take another host's state directory", state, why) : 0;
}

static int restore_conf(const char *state, const char *path)
{
    char id[VID_HEX];
    struct store_conf conf = {0};
    struct verr err = {0};
    struct stat st;
    int r = copy_load(state, &conf, &err);
    if (r == 0 && stat(path, &st) < 0)
        r = verr_set(&err, errno, "store %s: %s", path, strerror(errno));
    if (r == 0)
        r = drop_privileges(st.st_uid, st.st_gid, &err);
    if (r == 0)
        r = store_restore_conf(path, &conf, &err);
    vid_hex(&conf.id, id);
    explicit_bzero(&conf, sizeof conf);
    if (r < 0)
        return report_error(&cmd_init, &err);
    fprintf(stderr, "store.conf of store %s put back in %s\n", id, QUOTED(path));
    return EXIT_OK;
}

static int run_init(int argc, char **argv)
{
    struct option longs[OPTIONS_MAX];
    struct store_conf conf;
    const char *owner = NULL, *state = NULL;
    bool choice = false;        /* an option for a new store */
    int c;
    long_options(longs);
    storeconf_default(&conf);
    conf.created = (int64_t)time(NULL);
    while ((c = next_option(&cmd_init, argc, argv, ":h", longs)) != -1) {
        switch (c) {
        case 'h':
            return print_help(&cmd_init);
        case 'o':
            owner = optarg;
            choice = true;
            break;
        case 'r':
            state = optarg;
            break;
        default:
            if (c < OPTION)
                return EXIT_USAGE;
            if (set_option(&conf, storeconf_option((unsigned)(c - OPTION)), optarg) != EXIT_OK)
                return EXIT_USAGE;
            choice = true;
        }
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_init, "give one STORE");
    if (state != NULL)
        return choice ? usage_error(&cmd_init, "--restore-conf takes no other option") : restore_conf(state, argv[optind]);
    return make_store(argv[optind], &conf, owner);
}

const struct command cmd_init = {
    "init", "make a store",
    "varve init [options] STORE\n"
    "       varve init --restore-conf STATE-DIR STORE\n\n"
    "STORE is a directory that does not exist yet, or is empty; local or on a shared\n"
    "filesystem.\n\n",
    run_init, print_options,
};
