/* SPDX-License-Identifier: Apache-2.0 */
/* store: opens STORE: its backend and store.conf, and checks that its directories are there. */
#include "store/store.h"

#include "base/verr.h"
#include "store/backend_dir.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static int second_node(void *ctx, const char *name)
{
    unsigned *nodes = ctx;
    return name[0] != '.' && ++*nodes > 1;
}

bool store_has_names(struct backend *b)
{
    unsigned nodes = 0;
    return bk_list(b, store_dir_names[DIR_NODES], second_node, &nodes) > 0;
}

static int conf_missing(const struct store *st, struct verr *err)
{
    if (!store_has_names(st->b))
        return verr_set(err, ENOENT, "%s is no varve store: it has no store.conf (varve init makes a store)", st->path);
    return verr_set(err, ENOENT, "%s has lost its store.conf: put it back with `varve init --restore-conf STATE-DIR %s`; a host that "
                    "had the store mounted has a copy in its state directory, /var/lib/varve/ID", st->path, st->path);
}

static int conf_damaged(const struct store *st, const char *why, struct verr *err)
{
    return verr_set(err, EBADMSG, "%s/store.conf is damaged (%s): move it away, then `varve init --restore-conf STATE-DIR %s` puts back "
                    "the copy that a host has in its state directory, /var/lib/varve/ID", st->path, why, st->path);
}

static int conf_load(struct store *st, struct verr *err)
{
    uint8_t *text;
    size_t len;
    int r = bk_load(st->b, "", "store.conf", STORECONF_MAX, &text, &len);
    if (r == -ENOENT)
        return conf_missing(st, err);
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return conf_damaged(st, "too long, or not a file", err);
    if (r < 0)
        return verr_set(err, -r, "reading %s/store.conf: %s", st->path, strerror(-r));
    char why[128] = "";
    r = storeconf_decode((const char *)text, len, &st->conf, why);
    free(text);
    if (r == -ENOTSUP)
        return verr_set(err, ENOTSUP, "%s/store.conf: made by a newer varve (%s): upgrade varve on this host", st->path, why);
    return r < 0 ? conf_damaged(st, why, err) : 0;
}

static int dirs_open(struct store *st, struct verr *err)
{
    for (int i = 0; i < STORE_DIRS; i++) {
        int r = backend_dir_hold(st->b, store_dir_names[i]);
        if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
            return verr_set(err, EBADMSG, "store %s is incomplete: directory %s/ is missing (is part of it not mounted?)",
                            st->path, store_dir_names[i]);
        if (r < 0)
            return verr_set(err, -r, "opening %s/%s: %s", st->path, store_dir_names[i], strerror(-r));
    }
    return 0;
}

int store_open(const char *path, struct store **out, struct verr *err)
{
    return store_open_as(path, NULL, out, err);
}

int store_open_as(const char *path, const struct store_conf *conf, struct store **out, struct verr *err)
{
    struct store *st = calloc(1, sizeof *st);
    if (st == NULL)
        return verr_set(err, ENOMEM, "opening store %s: out of memory", path);
    pthread_mutex_init(&st->claim_lock, NULL);
    snaps_state_init(&st->snaps);

    int r = 0;
    st->path = realpath(path, NULL);
    if (st->path == NULL) {
        r = -errno;
        verr_set(err, -r, "opening store %s: %s", path, strerror(-r));
        goto fail;
    }
    r = backend_dir_open(st->path, &st->b);
    if (r < 0) {
        verr_set(err, -r, "opening store %s: %s", st->path, strerror(-r));
        goto fail;
    }
    if (conf != NULL)
        st->conf = *conf;
    else if ((r = conf_load(st, err)) < 0)
        goto fail;
    if ((r = dirs_open(st, err)) < 0)
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
    bk_destroy(st->b);
    pthread_mutex_destroy(&st->claim_lock);
    snaps_state_release(&st->snaps);
    explicit_bzero(&st->conf, sizeof st->conf);
    free(st->path);
    free(st);
}

const struct store_conf *store_conf(const struct store *st) { return &st->conf; }

bool store_read_only(const struct store *st) { return backend_dir_read_only(st->b); }

void store_refuse_changes(struct store *st) { backend_dir_set_read_only(st->b); }

struct backend *store_index(struct store *st) { return st->b; }

int store_space(const struct store *st, struct statvfs *out) { return bk_space(st->b, out); }

int store_owner(const struct store *st, uid_t *uid, gid_t *gid) { return bk_owner(st->b, uid, gid); }

static void reserve_name(const struct vid *host, char out[64])
{
    char hex[VID_HEX];
    vid_hex(host, hex);
    snprintf(out, 64, ".tmp-reserve-%s", hex);
}

int store_reserve(struct store *st, const struct vid *host, size_t bytes)
{
    char name[64];
    reserve_name(host, name);
    return bk_reserve(st->b, "nodes", name, bytes);
}

int store_unreserve(struct store *st, const struct vid *host)
{
    char name[64];
    reserve_name(host, name);
    return bk_unreserve(st->b, "nodes", name);
}

int store_names_each(struct store *st, enum store_dir dir, int (*fn)(void *ctx, const char *name), void *ctx)
{
    return bk_list(st->b, store_dir_names[dir], fn, ctx);
}

const char *store_path(const struct store *st) { return st->path; }
