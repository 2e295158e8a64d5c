/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/history.h"

#include "cli/reports.h"
#include "varve/ioctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static json_t *failed(struct verr *err, const char *path, int code)
{
    verr_set(err, code, "%s: %s", QUOTED(path), code == ENOTTY ? "not in a varve mount" : strerror(code));
    return NULL;
}

static json_t *load(int dirfd, const char *name, struct verr *err)
{
    int error = 0;
    json_t *doc = report_load(dirfd, name, VARVE_IOC_LOG, "snapshots", &error);
    return doc != NULL ? doc : failed(err, name, error);
}

json_t *history_of_disk(const char *path, struct verr *err)
{
    return load(AT_FDCWD, path, err);
}

struct listing {
    int fd;
    const char *dir;
    json_t *disks, *known;          /* the result; names of snapshots in it */
};

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_file(const struct dirent *d)
{
    return d->d_type == DT_REG;
}

/* Adds the history to which the name belongs, unless an earlier name did: a disk comes before its snapshots. */
static int add_disk(struct listing *l, const char *name, struct verr *err)
{
    struct verr why = {0};
    json_t *as_known = vjson_text(name);
    bool known = json_object_get(l->known, json_string_value(as_known)) != NULL;
    json_decref(as_known);
    if (known)
        return 0;
    json_t *doc = load(l->fd, name, &why);
    if (doc == NULL && (why.code == ENOENT || why.code == EACCES))
        return 0;       /* removed meanwhile, or not for this user */
    if (doc == NULL)
        return verr_set(err, why.code, "%s/%s", QUOTED(l->dir), why.text);
    const json_t *snaps = json_object_get(doc, "snapshots");
    for (size_t i = 0; i < json_array_size(snaps); i++)
        json_object_set_new(l->known, json_word(json_array_get(snaps, i), "name"), json_true());
    return json_array_append_new(l->disks, doc) < 0 ? verr_set(err, ENOMEM, "%s: out of memory", QUOTED(l->dir)) : 0;
}

static int add_all(struct listing *l, struct verr *err)
{
    struct varve_ioc_info info;
    struct dirent **names = NULL;
    int r = 0, n = -1;
    /* Every file of a varve mount answers this. */
    if (ioctl(l->fd, VARVE_IOC_INFO, &info) == 0)
        n = scandirat(l->fd, ".", &names, is_file, by_name);
    if (n < 0) {
        r = -errno;
        failed(err, l->dir, -r);
    }
    for (int i = 0; i < n; i++) {
        if (r == 0)
            r = add_disk(l, names[i]->d_name, err);
        free(names[i]);
    }
    free(names);
    return r;
}

json_t *history_of_dir(const char *dir, struct verr *err)
{
    struct listing l = {.dir = dir, .fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .disks = json_array(), .known = json_object()};
    int r = l.fd < 0 ? -errno : 0;
    if (r < 0)
        failed(err, dir, -r);
    else
        r = add_all(&l, err);
    if (l.fd >= 0)
        close(l.fd);
    json_decref(l.known);
    if (r == 0)
        return l.disks;
    json_decref(l.disks);
    return NULL;
}
