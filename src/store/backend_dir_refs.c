/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_dir_refs: the open directories of STORE. At most DIRS_KEPT unpinned ones stay open; the least recently used is closed first.
 * Before an open directory is used again, its name is checked: if it leads elsewhere, the directory is opened anew.
 */
#include "store/backend_dir_internal.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void dirref_free(struct dirref *d)
{
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}

void dirref_put(struct backend_dir *bd, struct dirref *d)
{
    pthread_mutex_lock(&bd->lock);
    bool last = --d->pins == 0 && !d->listed && d != &bd->root;
    pthread_mutex_unlock(&bd->lock);
    if (last)
        dirref_free(d);
}

void dirref_pin(struct backend_dir *bd, struct dirref *d)
{
    pthread_mutex_lock(&bd->lock);
    d->pins++;
    pthread_mutex_unlock(&bd->lock);
}

/* The caller holds the lock. */
static void unlist(struct backend_dir *bd, struct dirref *d)
{
    for (unsigned i = 0; i < bd->nkept; i++)
        if (bd->kept[i] == d)
            bd->kept[i] = bd->kept[--bd->nkept];
    d->listed = false;
}

static struct dirref *find(struct backend_dir *bd, const char *dir, size_t len, bool held)
{
    struct dirref *found = NULL;
    pthread_mutex_lock(&bd->lock);
    for (unsigned i = 0; i < bd->nkept && found == NULL; i++)
        if (strncmp(bd->kept[i]->dir, dir, len) == 0 && bd->kept[i]->dir[len] == '\0' && (!held || bd->kept[i]->held))
            found = bd->kept[i];
    if (found != NULL) {
        found->pins++;
        found->used = ++bd->tick;
    }
    pthread_mutex_unlock(&bd->lock);
    return found;
}

/* The directory in which dir is opened, pinned: a held one, or else STORE itself. *rest: dir relative to it. */
static struct dirref *above(struct backend_dir *bd, const char *dir, const char **rest)
{
    const char *slash = strchr(dir, '/');
    struct dirref *up = slash == NULL ? NULL : find(bd, dir, (size_t)(slash - dir), true);
    *rest = up == NULL ? dir : slash + 1;
    if (up != NULL)
        return up;
    dirref_pin(bd, &bd->root);
    return &bd->root;
}

int dirref_open(const struct dirref *up, const char *rest, const char *dir, struct dirref **out)
{
    struct stat st;
    struct dirref *d = calloc(1, sizeof *d);
    if (d == NULL)
        return -ENOMEM;
    d->fd = dir_open(up->fd, rest);
    int r = d->fd < 0 ? d->fd : fstat(d->fd, &st) < 0 ? -errno : 0;
    if (r < 0) {
        dirref_free(d);
        return r;
    }
    snprintf(d->dir, sizeof d->dir, "%s", dir);
    d->dev = st.st_dev;
    d->ino = st.st_ino;
    d->pins = 1;
    *out = d;
    return 0;
}

/* Puts the directory into the table. If that is full of pinned ones, the last dirref_put closes this one. */
static void keep(struct backend_dir *bd, struct dirref *d)
{
    struct dirref *oldest = NULL, *gone = NULL;
    pthread_mutex_lock(&bd->lock);
    d->used = ++bd->tick;
    for (unsigned i = 0; i < bd->nkept && bd->nkept == DIRS_KEPT; i++)
        if (bd->kept[i]->pins == 0 && !bd->kept[i]->held && (oldest == NULL || bd->kept[i]->used < oldest->used))
            oldest = bd->kept[i];
    if (oldest != NULL) {
        unlist(bd, oldest);
        gone = oldest;
    }
    if (bd->nkept < DIRS_KEPT) {
        d->listed = true;
        bd->kept[bd->nkept++] = d;
    }
    pthread_mutex_unlock(&bd->lock);
    if (gone != NULL)
        dirref_free(gone);
}

/* Does the name still lead to the open directory? */
static bool current(const struct dirref *up, const char *rest, const struct dirref *d)
{
    struct stat st;
    return fstatat(up->fd, rest, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == d->dev && st.st_ino == d->ino;
}

int dirref_get(struct backend_dir *bd, const char *dir, struct dirref **out)
{
    const char *rest;
    if (strlen(dir) >= DIR_MAX)
        return -ENAMETOOLONG;
    struct dirref *up = above(bd, dir, &rest), *d = dir[0] == '\0' ? up : find(bd, dir, strlen(dir), false);
    if (d == up) {
        *out = d;
        return 0;
    }
    if (d != NULL && !d->held && !current(up, rest, d)) {
        pthread_mutex_lock(&bd->lock);
        unlist(bd, d);
        pthread_mutex_unlock(&bd->lock);
        dirref_put(bd, d);
        d = NULL;
    }
    int r = 0;
    if (d == NULL && (r = dirref_open(up, rest, dir, &d)) == 0)
        keep(bd, d);
    dirref_put(bd, up);
    if (r == 0)
        *out = d;
    return r;
}

/* The kernel says EROFS of a read-only filesystem, mount or btrfs snapshot, also to root; fstatvfs does not know the last. */
void dirref_look(struct backend_dir *bd, const struct dirref *d)
{
    if (faccessat(d->fd, ".", W_OK, 0) < 0 && errno == EROFS)
        bd->read_only = true;
}

int dirref_hold(struct backend_dir *bd, const char *dir)
{
    struct dirref *d;
    int r = dirref_get(bd, dir, &d);
    if (r < 0)
        return r;
    pthread_mutex_lock(&bd->lock);
    d->held = true;
    pthread_mutex_unlock(&bd->lock);
    dirref_look(bd, d);         /* it may be a mount of its own */
    dirref_put(bd, d);
    return 0;
}

void dirref_close_all(struct backend_dir *bd)
{
    while (bd->nkept > 0)
        dirref_free(bd->kept[--bd->nkept]);
    close(bd->root.fd);
}
