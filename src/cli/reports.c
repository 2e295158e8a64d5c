/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/reports.h"

#include "cli/asking.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Appends one piece. 1: there are more; 0: the text is complete; -errno. */
static int fetch_piece(int fd, unsigned long request, char **text, size_t *len, size_t *cap)
{
    static struct varve_ioc_log req;
    memset(&req, 0, sizeof req);
    req.offset = *len;
    if (ioctl(fd, request, &req) < 0)
        return -errno;
    if (req.len > sizeof req.text)
        return -EPROTO;
    if (*len + req.len + 1 > *cap) {
        *cap = (*len + req.len + 1) * 2;
        char *grown = realloc(*text, *cap);
        if (grown == NULL)
            return -ENOMEM;
        *text = grown;
    }
    memcpy(*text + *len, req.text, req.len);
    *len += req.len;
    (*text)[*len] = '\0';
    return req.len > 0 && *len < req.total;
}

/* The text is malloc'ed, also after an error. 0 or -errno. */
static int fetch_text(int dirfd, const char *path, unsigned long request, char **text, size_t *len)
{
    size_t cap = 0;
    *text = NULL;
    *len = 0;
    int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    int r = fd < 0 ? -errno : 1;
    while (r > 0)
        r = fetch_piece(fd, request, text, len, &cap);
    if (fd >= 0)
        close(fd);
    return r;
}

/* r: how the text was fetched. */
static json_t *parse_report(int r, const char *text, const char *key, int *error)
{
    json_t *doc = r == 0 ? json_loads(text, 0, NULL) : NULL;
    if (json_is_array(json_object_get(doc, key)))
        return doc;
    json_decref(doc);
    *error = r < 0 ? -r : EPROTO;
    return NULL;
}

json_t *report_load(int dirfd, const char *path, unsigned long request, const char *key, int *error)
{
    char *text;
    size_t len;
    int r = fetch_text(dirfd, path, request, &text, &len);
    json_t *doc = parse_report(r, text, key, error);
    free(text);
    return doc;
}

/* ---- of a mount that may not answer ---- */

struct question {
    const char *path;
    unsigned long request;      /* 0: path is a file to read */
};

static int answer_file(const char *path, int fd)
{
    char buf[16384];
    int in = open(path, O_RDONLY | O_CLOEXEC), r = in < 0 ? -errno : 0;
    ssize_t n;
    while (r == 0 && (n = read(in, buf, sizeof buf)) != 0)
        r = n < 0 ? -errno : ask_answer(fd, buf, (size_t)n);
    if (in >= 0)
        close(in);
    return r;
}

/* The mount point first, of a fixed length. */
static int answer_report(void *ctx, int fd)
{
    const struct question *q = ctx;
    char point[PATH_MAX] = "", *text = NULL;
    size_t len = 0;
    if (q->request == 0)
        return answer_file(q->path, fd);
    int r = mount_of(q->path, point);
    if (r == 0)
        r = fetch_text(AT_FDCWD, q->path, q->request, &text, &len);
    if (r == 0)
        r = ask_answer(fd, point, sizeof point);
    if (r == 0)
        r = ask_answer(fd, text, len);
    free(text);
    return r;
}

json_t *report_ask(const char *path, unsigned long request, const char *key, char point[PATH_MAX], int *error)
{
    struct question q = {.path = path, .request = request};
    char *text = NULL;
    size_t len = 0, head = request == 0 ? 0 : PATH_MAX;
    int r = ask(&(struct asking){.question = answer_report, .ctx = &q, .silence_ms = ASK_MS}, &text, &len);
    if (r == 0 && len < head)
        r = -EPROTO;
    if (r == 0 && head > 0)
        memcpy(point, text, PATH_MAX);
    json_t *doc = parse_report(r, r == 0 ? text + head : NULL, key, error);
    free(text);
    return doc;
}

const char *report_reason(int error)
{
    return error == ENOTTY ? "not in a varve mount" : error == ETIMEDOUT ? ask_silence(ASK_MS) : strerror(error);
}

uint64_t json_number(const json_t *o, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

const char *json_word(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s == NULL ? "" : s;
}

int parse_duration(const char *text, int64_t *ms)
{
    static const struct { const char *unit; double seconds; } units[] = {
        {"", 1}, {"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}, {"w", 7 * 86400},
    };
    char *end;
    double n = strtod(text, &end);
    if (text[0] < '0' || text[0] > '9')
        return -EINVAL;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].unit) == 0 && n * units[i].seconds < 1e12) {
            *ms = (int64_t)(n * units[i].seconds * 1000);
            return 0;
        }
    }
    return -EINVAL;
}

void format_age(int64_t seconds, char out[16])
{
    double s = (double)seconds;
    if (seconds < 120)
        snprintf(out, 16, "%.0f s", s);
    else if (seconds < 120 * 60)
        snprintf(out, 16, "%.0f min", s / 60);
    else if (seconds < 72 * 3600)
        snprintf(out, 16, "%.1f h", s / 3600);
    else
        snprintf(out, 16, "%.0f d", s / 86400);
}

struct find_mount {
    const char *path;
    char *best;
};

static int find_mount(void *ctx, const char *point)
{
    struct find_mount *m = ctx;
    size_t n = strlen(point);
    if (strncmp(m->path, point, n) == 0 && (m->path[n] == '/' || m->path[n] == '\0') && n >= strlen(m->best))
        snprintf(m->best, PATH_MAX, "%s", point);
    return 0;
}

int mount_of_full(const char *full, char out[PATH_MAX])
{
    struct find_mount m = {.path = full, .best = out};
    out[0] = '\0';
    int r = each_mount(find_mount, &m);
    return r < 0 ? r : 0;
}

int mount_of(const char *path, char out[PATH_MAX])
{
    char full[PATH_MAX];
    out[0] = '\0';
    return realpath(path, full) == NULL ? -errno : mount_of_full(full, out);
}
