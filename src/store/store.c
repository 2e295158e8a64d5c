/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store: opening STORE. All directories are opened once, so that later work names files relative to them and a STORE
 * that is renamed or mounted over while it is used is never mixed with another one.
 */
#include "store/store.h"

#include "base/file.h"
#include "base/verr.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const store_dir_names[STORE_DIRS] = {
    [DIR_CONTAINERS] = "containers", [DIR_SNAPSHOTS] = "snapshots", [DIR_ANCHORS] = "anchors",
    [DIR_TRASH] = "trash", [DIR_GENERATIONS] = "generations", [DIR_OWNERS] = "owners",
    [DIR_NODES] = "nodes", [DIR_INDEX] = "index", [DIR_CDS] = "cds",
};

int (store_fail)(const struct store *st, enum store_dir dir, const char *name, int r, const char *doing, struct verr *err)
{
    return verr_set(err, -r, "%s %s/%s%s%s: %s", doing, st->path, store_dir_names[dir], name != NULL ? "/" : "",
                    name != NULL ? name : "", strerror(-r));
}

int dir_revalidate(int dirfd)
{
    struct vid id = vid_random();
    char hex[VID_HEX], name[VID_HEX + 8];
    vid_hex(&id, hex);
    snprintf(name, sizeof name, ".tmp-%s", hex);
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    return unlinkat(dirfd, name, 0) < 0 ? -errno : 0;
}

static int conf_load(struct store *st, struct verr *err)
{
    uint8_t *text;
    size_t len;
    int r = file_load(st->rootfd, "store.conf", STORECONF_MAX, &text, &len);
    if (r == -ENOENT)
        return verr_set(err, ENOENT, "%s is no varve store: it has no store.conf (varve init makes a store)", st->path);
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return verr_set(err, EBADMSG, "%s/store.conf is damaged: not a file of at most %d bytes", st->path, STORECONF_MAX);
    if (r < 0)
        return verr_set(err, -r, "reading %s/store.conf: %s", st->path, strerror(-r));
    char why[128] = "";
    r = storeconf_decode((const char *)text, len, &st->conf, why);
    free(text);
    if (r == -ENOTSUP)
        return verr_set(err, ENOTSUP, "%s/store.conf: made by a newer varve (%s): upgrade varve on this host", st->path, why);
    if (r < 0)
        return verr_set(err, -r, "%s/store.conf is damaged (%s): restore it from a copy", st->path, why);
    return 0;
}

static int dirs_open(struct store *st, struct verr *err)
{
    for (int i = 0; i < STORE_DIRS; i++) {
        int fd = dir_open(st->rootfd, store_dir_names[i]);
        if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
            return verr_set(err, EBADMSG, "store %s is incomplete: directory %s/ is missing (is part of it not mounted?)",
                            st->path, store_dir_names[i]);
        if (fd < 0)
            return verr_set(err, -fd, "opening %s/%s: %s", st->path, store_dir_names[i], strerror(-fd));
        st->dirs[i] = fd;
    }
    return 0;
}

int store_open(const char *path, struct store **out, struct verr *err)
{
    struct store *st = calloc(1, sizeof *st);
    if (st == NULL)
        return verr_set(err, ENOMEM, "opening store %s: out of memory", path);
    st->rootfd = -1;
    for (int i = 0; i < STORE_DIRS; i++)
        st->dirs[i] = -1;
    pthread_mutex_init(&st->claim_lock, NULL);
    pthread_mutex_init(&st->durable_lock, NULL);
    snaps_state_init(&st->snaps);

    int r = 0;
    st->path = realpath(path, NULL);
    if (st->path == NULL) {
        r = -errno;
        verr_set(err, -r, "opening store %s: %s", path, strerror(-r));
        goto fail;
    }
    st->rootfd = dir_open(AT_FDCWD, st->path);
    if (st->rootfd < 0) {
        r = verr_set(err, -st->rootfd, "opening store %s: %s", st->path, strerror(-st->rootfd));
        goto fail;
    }
    if ((r = conf_load(st, err)) < 0 || (r = dirs_open(st, err)) < 0)
        goto fail;
    *out = st;
    return 0;
fail:
    store_close(st);
    return r;
}

void store_close(struct store *st)
{
    if (st == NULL)
        return;
    for (int i = 0; i < STORE_DIRS; i++)
        if (st->dirs[i] >= 0)
            close(st->dirs[i]);
    if (st->rootfd >= 0)
        close(st->rootfd);
    pthread_mutex_destroy(&st->claim_lock);
    snaps_state_release(&st->snaps);
    pthread_mutex_destroy(&st->durable_lock);
    explicit_bzero(&st->conf, sizeof st->conf);
    free(st->path);
    free(st);
}

const struct store_conf *store_conf(const struct store *st) { return &st->conf; }

const char *store_path(const struct store *st) { return st->path; }

int store_dirfd(const struct store *st, enum store_dir dir) { return st->dirs[dir]; }

int store_rootfd(const struct store *st) { return st->rootfd; }
