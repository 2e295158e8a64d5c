/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init: makes a store.
 *
 * Order: directories -> generation 1 (leases/, empty deletion log) -> root node -> fsync of every directory -> store.conf
 * by link -> fsync of the root and of its parent. A crash before the link leaves a directory that no command takes for a
 * store; a crash after it leaves a complete store.
 *
 * A store.conf that was lost is put back by the same link, after the deletion log, which every store has and which names the store
 * that it belongs to, has been compared with it.
 */
#include "store/store.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/verr.h"
#include "format/deletions.h"
#include "store/backend_dir.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct init {
    const char *path;
    const struct store_conf *conf;
    uid_t uid;
    gid_t gid;
    struct backend *b;
    bool made_root;
};

static int failed(const struct init *in, const char *what, int r, struct verr *err)
{
    return verr_set(err, -r, "making store %s: %s: %s", in->path, what, strerror(-r));
}

/* Sets the owner, then fsyncs, so that a file or directory is durable with its owner. */
static int give(const struct init *in, const char *dir, const char *name)
{
    return backend_dir_give(in->b, dir, name, in->uid, in->gid);
}

/* Is there an entry other than lost+found, which an empty filesystem has? */
static int foreign_entry(void *ctx, const char *name)
{
    (void)ctx;
    return strcmp(name, "lost+found") == 0 ? 0 : 1;
}

static int root_open(struct init *in, struct verr *err)
{
    struct bstat st;
    int r = backend_dir_make(in->path, &in->made_root);
    if (r < 0)
        return failed(in, "mkdir", r, err);
    r = backend_dir_open(in->path, &in->b);
    if (r < 0)
        return failed(in, "open", r, err);
    if (bk_stat_name(in->b, "", "store.conf", &st) == 0)
        return verr_set(err, EEXIST, "%s is a varve store already", in->path);
    r = bk_list(in->b, "", foreign_entry, NULL);
    if (r > 0 && store_has_names(in->b))
        return verr_set(err, ENOTEMPTY, "%s is a store that has lost its store.conf: --restore-conf puts it back", in->path);
    if (r > 0)
        return verr_set(err, ENOTEMPTY, "%s is not empty: choose another directory, or remove what an interrupted init left there",
                        in->path);
    return r < 0 ? failed(in, "listing it", r, err) : 0;
}

/* Makes the root of the tree, the only node without a parent. */
static int root_node(const struct init *in)
{
    struct node n = {0};
    n.id = vid_random();
    n.version = 1;
    n.kind = NODE_DIR;
    n.mode = 0755;
    n.uid = in->uid != (uid_t)-1 ? in->uid : geteuid();
    n.gid = in->uid != (uid_t)-1 ? in->gid : getegid();
    n.btime_ns = n.atime_ns = n.mtime_ns = n.ctime_ns = vclock_real_ns(&vclock_system);
    memcpy(n.name, "root", sizeof "root");
    uint8_t record[NODE_RECORD_MAX];
    char hex[VID_HEX];
    vid_hex(&n.id, hex);
    size_t len = node_encode(&n, record);
    int r = len == 0 ? -EINVAL : bk_create(in->b, "nodes", hex, record, len);
    return r < 0 ? r : give(in, "nodes", hex);
}

/* Makes generations/1 with leases/ and an empty deletion log; a missing log would be an error. */
static int first_generation(const struct init *in)
{
    char name[GENERATION_NAME], dir[GENERATION_NAME + 16];
    generation_name(1, name);
    snprintf(dir, sizeof dir, "generations/%s", name);
    int r = bk_claim_dir(in->b, "generations", name);
    if (r == 0)
        r = bk_claim_dir(in->b, dir, "leases");
    if (r == 0)
        r = give(in, dir, "leases");
    if (r == 0)
        r = deletion_log_write(in->b, dir, &in->conf->id, 1, NULL, 0);
    if (r == 0)
        r = give(in, dir, "deletions");
    return r < 0 ? r : give(in, dir, "");
}

static int make_dir(const struct init *in, enum store_dir dir)
{
    int r = bk_claim_dir(in->b, "", store_dir_names[dir]);
    if (r == 0 && dir == DIR_GENERATIONS)
        r = first_generation(in);
    else if (r == 0 && dir == DIR_NODES)
        r = root_node(in);
    return r < 0 ? r : give(in, store_dir_names[dir], "");
}

/* Makes store.conf, last of all; it is complete and has its owner before it gets its name. */
static int publish_conf(const struct init *in)
{
    static const char temp[] = ".tmp-store.conf";
    char text[STORECONF_MAX];
    size_t len = storeconf_encode(in->conf, text);
    int r = len == 0 ? -EINVAL : bk_create(in->b, "", temp, text, len);
    explicit_bzero(text, sizeof text);
    if (r < 0)
        return r;
    r = give(in, "", temp);
    if (r == 0)
        r = -fault_errno("store.init.before_conf");
    if (r == 0)
        r = bk_link(in->b, "", temp, "", "store.conf");
    (void)bk_remove(in->b, "", temp);
    return r < 0 ? r : bk_sync(in->b, "");
}

static int build(struct init *in, struct verr *err)
{
    int r = root_open(in, err);
    if (r < 0)
        return r;
    for (int i = 0; i < STORE_DIRS; i++)
        if ((r = make_dir(in, (enum store_dir)i)) < 0)
            return failed(in, store_dir_names[i], r, err);
    if ((r = give(in, "", "")) < 0)
        return failed(in, "owner and fsync", r, err);
    if (in->made_root && (r = backend_dir_sync_parent(in->b)) < 0)
        return failed(in, "fsync of the directory above", r, err);
    if ((r = publish_conf(in)) < 0)
        return failed(in, "store.conf", r, err);
    return 0;
}

int store_init(const char *path, const struct store_conf *conf, uid_t uid, gid_t gid, struct verr *err)
{
    struct init in = {.path = path, .conf = conf, .uid = uid, .gid = gid};
    int r = build(&in, err);
    bk_destroy(in.b);
    return r;
}

/* ---- a store.conf that was lost ---- */

/* The store that the deletion log of the newest generation belongs to. */
static int data_belong_to(struct store *st, struct vid *store, struct verr *err)
{
    char name[GENERATION_NAME + 16], generation[GENERATION_NAME];
    const char *why = "";
    struct deletion_log log;
    uint64_t newest;
    uint8_t *data;
    size_t len;
    int r = generation_newest(st, &newest, err);
    if (r < 0)
        return r;
    generation_name(newest, generation);
    snprintf(name, sizeof name, "%s/deletions", generation);
    r = bk_load(st->b, store_dir_names[DIR_GENERATIONS], name, DELETION_LOG_MAX, &data, &len);
    if (r < 0)
        return store_fail(st, DIR_GENERATIONS, name, r, "reading", err);
    r = deletion_log_decode(data, len, NULL, &log, &why);
    if (r == 0)
        *store = log.store;
    free(data);
    return r < 0 ? verr_set(err, -r, "%s/generations/%s, which says whose data these are, cannot be used: %s", st->path, name, why) : 0;
}

static int check_belongs(struct store *st, struct verr *err)
{
    char want[VID_HEX], have[VID_HEX];
    struct vid store;
    int r = data_belong_to(st, &store, err);
    if (r < 0 || vid_eq(&store, &st->conf.id))
        return r;
    vid_hex(&st->conf.id, want);
    vid_hex(&store, have);
    return verr_set(err, EINVAL, "the copy is of store %s, but %s holds data of store %s", want, st->path, have);
}

int store_restore_conf(const char *path, const struct store_conf *conf, struct verr *err)
{
    struct store *st;
    int r = store_open_as(path, conf, &st, err);
    if (r < 0)
        return r;
    const struct init in = {.path = st->path, .conf = conf, .uid = (uid_t)-1, .gid = (gid_t)-1, .b = st->b};
    r = check_belongs(st, err);
    if (r == 0 && (r = publish_conf(&in)) == -EEXIST)
        verr_set(err, EEXIST, "%s has a store.conf already, and nothing was changed: move it away if it is damaged", st->path);
    else if (r < 0 && err->code == 0)
        failed(&in, "store.conf", r, err);
    store_close(st);
    return r;
}
