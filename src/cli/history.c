/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/history.h"

#include "cli/asking.h"
#include "cli/reports.h"
#include "varve/ioctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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

struct listing {
    int fd, out;                    /* the directory; where the answer goes */
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
        if (r == 0)
            r = ask_answer(l->out, " ", 1);     /* many disks take their time, and are no silence */
        free(names[i]);
    }
    free(names);
    return r;
}

static json_t *of_dir(const char *dir, int out, struct verr *err)
{
    struct listing l = {.dir = dir, .out = out, .fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), .disks = json_array(), .known = json_object()};
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

/* ---- asked ---- */

/* Blanks, then the JSON; or a NUL and the error. */
static int answer_history(void *ctx, int out)
{
    const char *path = ctx;
    struct verr err = {0};
    struct stat st;
    json_t *doc = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? of_dir(path, out, &err) : load(AT_FDCWD, path, &err);
    char *text = vjson_dump(doc, JSON_COMPACT);
    if (doc != NULL && text == NULL)
        verr_set(&err, ENOMEM, "%s: out of memory", QUOTED(path));
    int r = ask_answer(out, text != NULL ? text : "", text != NULL ? strlen(text) : 1);
    if (r == 0 && text == NULL)
        r = ask_answer(out, &err, sizeof err);
    free(text);
    json_decref(doc);
    return r;
}

json_t *history_of(const char *path, struct verr *err)
{
    char *text = NULL;
    size_t len = 0;
    int r = ask_while_alive(answer_history, path, &text, &len);
    size_t at = r == 0 ? strspn(text, " ") : 0;
    json_t *doc = r == 0 ? json_loads(text + at, 0, NULL) : NULL;
    if (r == -ETIMEDOUT)
        verr_set(err, ETIMEDOUT, "%s: %s", QUOTED(path), ask_silence(2 * ASK_MS));
    else if (r == 0 && doc == NULL && len == at + 1 + sizeof *err)
        memcpy(err, text + at + 1, sizeof *err);
    else if (doc == NULL)
        failed(err, path, r < 0 ? -r : EPROTO);
    free(text);
    return doc;
}
