/* SPDX-License-Identifier: Apache-2.0 */
/*
 * init: makes a store.
 *
 * Order: directories -> generation 1 (leases/, empty deletion log) -> root node -> fsync of every directory -> store.conf
 * by link -> fsync of the root and of its parent. A crash before the link leaves a directory that no command takes for a
 * store; one after it leaves a whole store.
 */
#include "store/store.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/verr.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct init {
    const char *path;
    const struct store_conf *conf;
    uid_t uid;
    gid_t gid;
    int root;
    bool made_root;
};

static int failed(const struct init *in, const char *what, int r, struct verr *err)
{
    return verr_set(err, -r, "making store %s: %s: %s", in->path, what, strerror(-r));
}

/* Owner, then fsync: so that a file or directory is durable with the owner it must have. */
static int give(const struct init *in, int fd)
{
    if (in->uid != (uid_t)-1 && fchown(fd, in->uid, in->gid) < 0)
        return -errno;
    return fsync(fd) < 0 ? -errno : 0;
}

static int give_file(const struct init *in, int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int r = give(in, fd);
    close(fd);
    return r;
}

/* lost+found is what an empty filesystem has. */
static int foreign_entry(void *ctx, const char *name)
{
    (void)ctx;
    return strcmp(name, "lost+found") == 0 ? 0 : 1;
}

static int root_open(struct init *in, struct verr *err)
{
    if (mkdir(in->path, 0700) == 0)
        in->made_root = true;
    else if (errno != EEXIST)
        return failed(in, "mkdir", -errno, err);
    in->root = open(in->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (in->root < 0)
        return failed(in, "open", -errno, err);
    if (faccessat(in->root, "store.conf", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return verr_set(err, EEXIST, "%s is a varve store already", in->path);
    int r = dir_each(in->root, foreign_entry, NULL);
    if (r > 0)
        return verr_set(err, ENOTEMPTY, "%s is not empty: choose another directory, or remove what an interrupted init left there",
                        in->path);
    return r < 0 ? failed(in, "listing it", r, err) : 0;
}

/* The root of the tree: the only node without a parent. */
static int root_node(const struct init *in, int dirfd)
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
    int r = len == 0 ? -EINVAL : file_publish(dirfd, hex, record, len);
    return r < 0 ? r : give_file(in, dirfd, hex);
}

/* generations/1 with leases/ and an empty deletion log: an absent log is an error in every generation. */
static int first_generation(const struct init *in, int dirfd)
{
    char name[GENERATION_NAME];
    generation_name(1, name);
    int gen = dir_make(dirfd, name);
    if (gen < 0)
        return gen;
    int leases = dir_make(gen, "leases");
    int r = leases < 0 ? leases : give(in, leases);
    if (leases >= 0)
        close(leases);
    if (r == 0)
        r = deletion_log_write(gen, &in->conf->id, 1, NULL, 0);
    if (r == 0)
        r = give_file(in, gen, "deletions");
    if (r == 0)
        r = give(in, gen);
    close(gen);
    return r;
}

static int make_dir(const struct init *in, enum store_dir dir)
{
    int fd = dir_make(in->root, store_dir_names[dir]);
    if (fd < 0)
        return fd;
    int r = 0;
    if (dir == DIR_GENERATIONS)
        r = first_generation(in, fd);
    else if (dir == DIR_NODES)
        r = root_node(in, fd);
    if (r == 0)
        r = give(in, fd);
    close(fd);
    return r;
}

/* store.conf last, complete and with its owner before it gets its name. */
static int publish_conf(const struct init *in)
{
    static const char temp[] = ".tmp-store.conf";
    char text[STORECONF_MAX];
    size_t len = storeconf_encode(in->conf, text);
    int r = len == 0 ? -EINVAL : file_publish(in->root, temp, text, len);
    explicit_bzero(text, sizeof text);
    if (r < 0)
        return r;
    r = give_file(in, in->root, temp);
    if (r == 0)
        r = -fault_errno("store.init.before_conf");
    if (r == 0 && linkat(in->root, temp, in->root, "store.conf", 0) < 0)
        r = -errno;
    unlinkat(in->root, temp, 0);
    return r < 0 ? r : dir_sync(in->root);
}

static int sync_parent(const struct init *in)
{
    int parent = openat(in->root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return errno == EACCES ? 0 : -errno; /* a parent that we may not read was not changed by us either */
    int r = dir_sync(parent);
    close(parent);
    return r;
}

static int build(struct init *in, struct verr *err)
{
    int r = root_open(in, err);
    if (r < 0)
        return r;
    for (int i = 0; i < STORE_DIRS; i++)
        if ((r = make_dir(in, (enum store_dir)i)) < 0)
            return failed(in, store_dir_names[i], r, err);
    if ((r = give(in, in->root)) < 0)
        return failed(in, "owner and fsync", r, err);
    if (in->made_root && (r = sync_parent(in)) < 0)
        return failed(in, "fsync of the directory above", r, err);
    if ((r = publish_conf(in)) < 0)
        return failed(in, "store.conf", r, err);
    return 0;
}

int store_init(const char *path, const struct store_conf *conf, uid_t uid, gid_t gid, struct verr *err)
{
    struct init in = {.path = path, .conf = conf, .uid = uid, .gid = gid, .root = -1};
    int r = build(&in, err);
    if (in.root >= 0)
        close(in.root);
    return r;
}
