/* SPDX-License-Identifier: Apache-2.0 */
/* seqfile: buffered sequential writing and reading of the round's files. */
#include "dedup/seqfile.h"

#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int seqout_open(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err)
{
    memset(o, 0, sizeof *o);
    o->fd = -1;
    o->buf = malloc(cap);
    if (o->buf == NULL)
        return verr_set(err, ENOMEM, "no memory to write %s in the round's directory", name);
    o->cap = cap;
    o->fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (o->fd < 0) {
        int code = errno;
        seqout_drop(o);
        return verr_set(err, code, "cannot make %s in the round's directory below STATE/rounds: %s", name, strerror(code));
    }
    return 0;
}

static int seqout_flush(struct seqout *o, struct verr *err)
{
    int rc = pwrite_bulk(o->fd, o->buf, o->used, (off_t)o->off);
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
    if (o->buf != NULL && o->fd >= 0)
        close(o->fd);
    free(o->buf);
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

int seqin_get(struct seqin *in, void *data, size_t len, struct verr *err)
{
    uint8_t *p = data;
    size_t done = 0;
    while (done < len) {
        if (in->pos == in->have) {
            ssize_t got = pread_full(in->fd, in->buf, in->cap, (off_t)in->off);
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
    if (in->buf != NULL)
        close(in->fd);
    free(in->buf);
    memset(in, 0, sizeof *in);
    in->fd = -1;
}
