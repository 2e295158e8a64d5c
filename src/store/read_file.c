/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_file: the open containers of a reader: at most OPEN_MAX descriptors, fewer under a low limit of open files; the least recently
 * used one is closed first. The version id and sections that were read through a descriptor are freed with it.
 */
#include "base/verr.h"
#include "store/layout_internal.h"
#include "store/read_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cfile_fail(const struct creader *r, const struct cfile *c, int code, const char *what, struct verr *err)
{
    return verr_set(err, code, "%s/containers/%s: %s", r->st->path, c->name, what);
}

static void cfile_free(struct cfile *c)
{
    bf_close(c->f);
    pthread_mutex_destroy(&c->lock);
    free(c->section);
    free(c);
}

static struct cfile *cfile_new(uint64_t number)
{
    struct cfile *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->number = number;
    container_path(number, c->name);
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

/* ---- the list; the caller holds r->lock ---- */

static struct cfile *listed(struct creader *r, uint64_t number)
{
    for (unsigned i = 0; i < r->nfiles; i++)
        if (r->files[i]->number == number)
            return r->files[i];
    return NULL;
}

static void unlist(struct creader *r, struct cfile *c)
{
    for (unsigned i = 0; i < r->nfiles; i++)
        if (r->files[i] == c) {
            r->files[i] = r->files[--r->nfiles];
            break;
        }
    c->listed = false;
}

/* Closes the least recently used file that is not pinned; false: all are pinned. */
static bool close_oldest(struct creader *r)
{
    struct cfile *oldest = NULL;
    for (unsigned i = 0; i < r->nfiles; i++)
        if (r->files[i]->pins == 0 && (oldest == NULL || r->files[i]->used < oldest->used))
            oldest = r->files[i];
    if (oldest == NULL)
        return false;
    unlist(r, oldest);
    r->nopen--;
    cfile_free(oldest);
    return true;
}

static struct cfile *pin(struct creader *r, uint64_t number)
{
    struct cfile *c;
    pthread_mutex_lock(&r->lock);
    /* Each thread pins one file at a time, so the threads that wait here have none pinned, and a pinned file will be unpinned. */
    while ((c = listed(r, number)) == NULL && r->nopen >= r->open_max && !close_oldest(r))
        pthread_cond_wait(&r->unpinned, &r->lock);
    if (c == NULL && (c = cfile_new(number)) != NULL) {
        c->listed = true;
        r->files[r->nfiles++] = c;
        r->nopen++;
    }
    if (c != NULL) {
        c->pins++;
        c->used = ++r->tick;
    }
    pthread_mutex_unlock(&r->lock);
    return c;
}

void cfile_put(struct creader *r, struct cfile *c)
{
    pthread_mutex_lock(&r->lock);
    if (--c->pins == 0) {
        if (!c->listed) {
            r->nopen--;
            cfile_free(c);
        }
        pthread_cond_broadcast(&r->unpinned);
    }
    pthread_mutex_unlock(&r->lock);
}

void cfile_drop(struct creader *r, struct cfile *c)
{
    pthread_mutex_lock(&r->lock);
    if (c->listed)
        unlist(r, c);
    pthread_mutex_unlock(&r->lock);
}

void cfile_forget(struct creader *r, uint64_t number)
{
    pthread_mutex_lock(&r->lock);
    struct cfile *c = listed(r, number);
    if (c != NULL) {
        unlist(r, c);
        if (c->pins == 0) {
            r->nopen--;
            cfile_free(c);
        }
    }
    pthread_mutex_unlock(&r->lock);
}

void cfile_free_all(struct creader *r)
{
    while (r->nfiles > 0)
        cfile_free(r->files[--r->nfiles]);
}

/* ---- opening; the caller holds c->lock ---- */

/* Notes size and mtime before the sections are read, so that look_again notices a section that is sealed meanwhile. */
static int stamp(struct cfile *c, struct bstat *st)
{
    int r = bf_stat(c->f, st);
    if (r < 0)
        return r;
    c->seen_size = st->bytes;
    c->seen_mtime = st->mtime;
    return 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Handles a file without a header: its writer died before the header reached the disk. If a section was sealed in it, that is damage. */
static int born(struct cfile *c, const uint8_t *head, size_t n, const char **why)
{
    if (n == CHEADER_BYTES && !is_zero(head, n))
        return -EBADMSG;
    c->id.container = c->number;
    int r = sections_any(c, c->seen_size);
    if (r != 0) {
        *why = "header is empty, but sections follow";
        return r < 0 ? r : -EBADMSG;
    }
    c->unborn = true;
    return 0;
}

static int header_read(struct creader *r, struct cfile *c, const char **why)
{
    uint8_t head[CHEADER_BYTES];
    struct cheader h;
    ssize_t n = bf_read(c->f, head, sizeof head, 0);
    if (n < 0)
        return (int)n;
    c->id.store = r->st->conf.id;
    int code = n == CHEADER_BYTES ? cheader_decode(head, &h, why) : -EBADMSG;
    if (code == -EBADMSG)
        return born(c, head, (size_t)n, why);
    if (code < 0)
        return code;
    *why = "header is of another store or container";
    if (!vid_eq(&h.id.store, &r->st->conf.id) || h.id.container != c->number)
        return -EBADMSG;
    c->id = h.id;
    c->type = h.type;
    c->flags = h.flags;
    c->sealed_end = CHEADER_BYTES;
    return sections_load(c, c->seen_size);
}

static int cfile_open(struct creader *r, struct cfile *c, struct verr *err)
{
    struct bstat st = {0};
    const char *why = "header is damaged";
    int code = bk_open(r->st->b, "containers", c->name, BHINT_NONE, &c->f);
    if (code == 0)
        code = stamp(c, &st);
    if (code == -ENOENT)
        return cfile_fail(r, c, ENODATA, "there is no such container", err);
    if (code == 0 && !st.regular)
        return cfile_fail(r, c, EBADMSG, "not a regular file", err);
    if (code == 0)
        code = header_read(r, c, &why);
    if (code == -EBADMSG || code == -ENOTSUP)
        return cfile_fail(r, c, -code, why, err);
    if (code < 0)
        return cfile_fail(r, c, -code, strerror(-code), err);
    c->opened = true;
    return 0;
}

int cfile_get(struct creader *r, uint64_t number, struct cfile **out, struct verr *err)
{
    struct cfile *c = pin(r, number);
    if (c == NULL)
        return verr_set(err, ENOMEM, "opening a container: out of memory");
    pthread_mutex_lock(&c->lock);
    int code = 0;
    if (!c->opened && c->f != NULL) /* another thread failed to open it, and is about to drop it */
        code = cfile_fail(r, c, ESTALE, "could not be opened", err);
    else if (!c->opened)
        code = cfile_open(r, c, err);
    pthread_mutex_unlock(&c->lock);
    if (code < 0) {
        cfile_drop(r, c);
        cfile_put(r, c);
        return code;
    }
    *out = c;
    return 0;
}

/* ---- sections ---- */

static bool lookup(const struct cfile *c, uint32_t ordinal, struct section *out)
{
    uint32_t lo = 0, hi = c->nsections;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const struct section *s = &c->section[mid];
        if (ordinal < s->first_ordinal) {
            hi = mid;
        } else if (ordinal - s->first_ordinal >= s->entries) {
            lo = mid + 1;
        } else {
            *out = *s;
            return true;
        }
    }
    return false;
}

/* Has the file grown, or been replaced, since the last look? */
static int look_again(struct cfile *c)
{
    struct bstat st;
    uint64_t size = c->seen_size;
    struct timespec mtime = c->seen_mtime;
    if (!bf_is_named(c->f))
        return -ESTALE;
    int code = stamp(c, &st);
    if (code < 0 || (size == c->seen_size && mtime.tv_sec == c->seen_mtime.tv_sec && mtime.tv_nsec == c->seen_mtime.tv_nsec))
        return code;
    code = c->unborn ? -ESTALE : sections_load(c, c->seen_size);
    if (code < 0)
        c->seen_size = 0; /* the look failed: the next one must look again */
    return code;
}

int cfile_section(struct creader *r, struct cfile *c, uint32_t ordinal, struct section *out, struct verr *err)
{
    pthread_mutex_lock(&c->lock);
    int code = 0;
    bool found = lookup(c, ordinal, out);
    if (!found) {
        code = look_again(c);
        found = code == 0 && lookup(c, ordinal, out);
    }
    bool damaged = c->damaged;
    pthread_mutex_unlock(&c->lock);
    if (code < 0)
        return cfile_fail(r, c, -code, strerror(-code), err);
    if (found)
        return 0;
    if (damaged)
        return cfile_fail(r, c, EBADMSG, "a section inside the file is damaged", err);
    return verr_set(err, ENODATA, "%s/containers/%s: no sealed section has ordinal %u", r->st->path, c->name, ordinal);
}
