/* SPDX-License-Identifier: Apache-2.0 */
/* seqfile: buffered sequential writing and reading of the round's files. */
#include "dedup/seqfile.h"

#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int seqout_spool(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err)
{
    memset(o, 0, sizeof *o);
    o->fd = -1;
    o->dirfd = dirfd;
    snprintf(o->name, sizeof o->name, "%s", name);
    o->buf = malloc(cap);
    if (o->buf == NULL)
        return verr_set(err, ENOMEM, "no memory to write %s in the round's directory", name);
    o->cap = cap;
    return 0;
}

static int make_file(struct seqout *o, struct verr *err)
{
    o->fd = openat(o->dirfd, o->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (o->fd < 0)
        return verr_set(err, errno, "cannot make %s in the round's directory below STATE/rounds: %s", o->name, strerror(errno));
    return 0;
}

int seqout_open(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err)
{
    int rc = seqout_spool(o, dirfd, name, cap, err);
    if (rc == 0)
        rc = make_file(o, err);
    if (rc < 0)
        seqout_drop(o);
    return rc;
}

static int seqout_flush(struct seqout *o, struct verr *err)
{
    int rc = o->fd < 0 ? make_file(o, err) : 0;
    if (rc < 0)
        return rc;
    rc = pwrite_bulk(o->fd, o->buf, o->used, (off_t)o->off);
    if (rc < 0)
        return verr_set(err, -rc, "cannot write a file of the round below STATE/rounds: %s", strerror(-rc));
    o->off += o->used;
    o->used = 0;
    return 0;
}

int seqout_put(struct seqout *o, const void *data, size_t len, struct verr *err)
{
    const uint8_t *p = data;
    while (len > 0) {
        if (o->used == o->cap) {
            int rc = seqout_flush(o, err);
            if (rc < 0)
                return rc;
        }
        size_t n = o->cap - o->used < len ? o->cap - o->used : len;
        memcpy(o->buf + o->used, p, n);
        o->used += n;
        p += n;
        len -= n;
    }
    return 0;
}

static void let_go(struct seqout *o)
{
    if (o->buf != NULL && o->fd >= 0)
        close(o->fd);
    free(o->buf);
    o->buf = NULL;
    o->fd = -1;
}

int seqout_end(struct seqout *o, size_t keep, struct verr *err)
{
    int rc = 0;
    if (o->off == 0 && o->used <= keep) {
        uint8_t *fits = o->used == 0 ? NULL : realloc(o->buf, o->used);
        o->buf = fits != NULL ? fits : o->buf;
        return 0;
    }
    if (o->used > 0)
        rc = seqout_flush(o, err);
    let_go(o);
    return rc;
}

void seqout_discard(struct seqout *o)
{
    if (o->off > 0 || (o->buf != NULL && o->fd >= 0))
        (void)unlinkat(o->dirfd, o->name, 0);
    seqout_drop(o);
}

int seqout_close(struct seqout *o, struct verr *err)
{
    int rc = 0;
    if (o->buf != NULL && o->used > 0)
        rc = seqout_flush(o, err);
    seqout_drop(o);
    return rc;
}

void seqout_drop(struct seqout *o)
{
    let_go(o);
    memset(o, 0, sizeof *o);
    o->fd = -1;
}

int seqin_open(struct seqin *in, int dirfd, const char *name, size_t cap, struct verr *err)
{
    memset(in, 0, sizeof *in);
    in->fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (in->fd < 0) {
        int code = errno;
        if (code == ENOENT)
            return -ENOENT;
        return verr_set(err, code, "cannot open %s in the round's directory below STATE/rounds: %s", name, strerror(code));
    }
    in->buf = malloc(cap);
    if (in->buf == NULL) {
        close(in->fd);
        in->fd = -1;
        return verr_set(err, ENOMEM, "no memory to read %s in the round's directory", name);
    }
    in->cap = cap;
    return 0;
}

int seqin_over(struct seqin *in, const struct seqout *o, size_t cap, struct verr *err)
{
    if (seqout_memory(o) == NULL && o->off > 0)
        return seqin_open(in, o->dirfd, o->name, cap, err);
    *in = (struct seqin){.fd = -1, .buf = o->buf, .have = o->used, .borrowed = true};
    return 0;
}

int seqin_get(struct seqin *in, void *data, size_t len, struct verr *err)
{
    uint8_t *p = data;
    size_t done = 0;
    while (done < len) {
        if (in->pos == in->have) {
            ssize_t got = in->fd < 0 ? 0 : pread_full(in->fd, in->buf, in->cap, (off_t)in->off);
            if (got < 0)
                return verr_set(err, (int)-got, "cannot read a file of the round below STATE/rounds: %s", strerror((int)-got));
            if (got == 0)
                return done == 0 ? 0 : verr_set(err, EBADMSG, "a file of the round below STATE/rounds ends inside a record");
            in->off += (uint64_t)got;
            in->have = (size_t)got;
            in->pos = 0;
        }
        size_t n = in->have - in->pos < len - done ? in->have - in->pos : len - done;
        memcpy(p + done, in->buf + in->pos, n);
        in->pos += n;
        done += n;
    }
    return 1;
}

void seqin_close(struct seqin *in)
{
    if (!in->borrowed && in->buf != NULL) {
        close(in->fd);
        free(in->buf);
    }
    memset(in, 0, sizeof *in);
    in->fd = -1;
}
