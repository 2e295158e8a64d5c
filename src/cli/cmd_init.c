/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "base/verr.h"
#include "store/store.h"

#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int set_partitions(struct store_conf *conf, const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || n < 1 || n > 4096 || (n & (n - 1)) != 0)
        return -EINVAL;
    conf->partitions = (uint32_t)n;
    return 0;
}

static int set_block(struct store_conf *conf, const char *text)
{
    uint64_t n;
    if (parse_size(text, &n) < 0 || (n != 4096 && n != 8192 && n != 16384))
        return -EINVAL;
    conf->block_bytes = (uint32_t)n;
    return 0;
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

static int run_init(int argc, char **argv)
{
    static const struct option longs[] = {
        {"block", required_argument, NULL, 'b'}, {"chunking", required_argument, NULL, 'c'}, {"fingerprint", required_argument, NULL, 'f'},
        {"partitions", required_argument, NULL, 'p'}, {"owner", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {0},
    };
    struct store_conf conf;
    struct verr err = {0};
    const char *owner = NULL;
    int c;
    storeconf_default(&conf);
    conf.created = (int64_t)time(NULL);
    while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        switch (c) {
        case 'h':
            return print_help(&cmd_init);
        case 'b':
            if (set_block(&conf, optarg) < 0)
                return usage_error(&cmd_init, "--block %s: give 4K, 8K or 16K", optarg);
            break;
        case 'c':
            if (strcmp(optarg, "cdc") != 0 && strcmp(optarg, "fixed") != 0)
                return usage_error(&cmd_init, "--chunking %s: give cdc or fixed", optarg);
            conf.cdc = optarg[0] == 'c';
            break;
        case 'f':
            if (strcmp(optarg, "sha256") != 0 && strcmp(optarg, "sha1") != 0)
                return usage_error(&cmd_init, "--fingerprint %s: give sha256 or sha1", optarg);
            conf.fingerprint = strcmp(optarg, "sha1") == 0 ? FP_SHA1 : FP_SHA256;
            break;
        case 'p':
            if (set_partitions(&conf, optarg) < 0)
                return usage_error(&cmd_init, "--partitions %s: give a power of two from 1 to 4096", optarg);
            break;
        case 'o':
            owner = optarg;
            break;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind + 1 != argc)
        return usage_error(&cmd_init, "give one STORE");
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    if (owner == NULL && geteuid() == 0 && getpwnam("varve") != NULL)
        owner = "varve";
    if (owner != NULL && find_owner(owner, &uid, &gid, &err) < 0)
        return report_error(&cmd_init, &err);
    if (store_init(argv[optind], &conf, uid, gid, &err) < 0)
        return report_error(&cmd_init, &err);
    char id[VID_HEX];
    vid_hex(&conf.id, id);
    fprintf(stderr, "store %s made in %s%s%s\n", id, argv[optind], owner == NULL ? "" : ", owned by ", owner == NULL ? "" : owner);
    return EXIT_OK;
}

const struct command cmd_init = {
    "init", "make a store",
    "varve init [options] STORE\n\n"
    "STORE is a directory that does not exist yet, or is empty; local or on a shared\n"
    "filesystem.\n\n"
    "  --block 4K|8K|16K         average block size (default 4K)\n"
    "  --chunking cdc|fixed      content-defined blocks (default), or fixed ones\n"
    "  --fingerprint sha256|sha1 (default sha256; sha1 only to study the paper)\n"
    "  --partitions N            index partitions, a power of two (default 16)\n"
    "  --owner ACCOUNT           who owns the store and runs the daemon (default:\n"
    "                            varve if that account exists, else the caller)\n",
    run_init,
};
