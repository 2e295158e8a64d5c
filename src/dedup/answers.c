/* SPDX-License-Identifier: Apache-2.0 */
/* answers: one sparse file, positional writes, a window of a few hundred answers per partition for reading. */
#include "dedup/answers.h"

#include "base/endian.h"
#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WIDTH_MIN = 8, WIDTH_MAX = 8192, PUT_BATCH = 512 };

static int file_error(struct verr *err, int rc)
{
    return verr_set(err, -rc, "the round's answers file below STATE/rounds: %s", strerror(-rc));
}

int answers_open(struct answers *a, int dirfd, const uint64_t *count, uint32_t parts, size_t memory, struct verr *err)
{
    memset(a, 0, sizeof *a);
    size_t some = parts > 0 ? parts : 1;
    size_t width = memory / 8 / some;
    a->width = width < WIDTH_MIN ? WIDTH_MIN : width > WIDTH_MAX ? WIDTH_MAX : (uint32_t)width;
    a->parts = parts;
    a->fd = openat(dirfd, "answers", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (a->fd < 0) {
        int code = errno;
        memset(a, 0, sizeof *a);
        return file_error(err, -code);
    }
    a->base = calloc(some, sizeof *a->base);
    a->count = calloc(some, sizeof *a->count);
    a->win = calloc(some, sizeof *a->win);
    a->buf = malloc(some * a->width * 8);
    if (a->base == NULL || a->count == NULL || a->win == NULL || a->buf == NULL) {
        answers_close(a);
        return verr_set(err, ENOMEM, "no memory for the answers of %u partitions", parts);
    }
    uint64_t base = 0;
    for (uint32_t i = 0; i < parts; i++) {
        a->base[i] = base;
        a->count[i] = count[i];
        base += count[i];
    }
    return 0;
}

void answers_close(struct answers *a)
{
    if (a->parts > 0)
        close(a->fd);
    free(a->base);
    free(a->count);
    free(a->win);
    free(a->buf);
    memset(a, 0, sizeof *a);
}

int answers_put(struct answers *a, uint32_t part, uint64_t pos, const uint64_t *refs, uint32_t n, struct verr *err)
{
    if (part >= a->parts || pos > a->count[part] || n > a->count[part] - pos)
        return verr_set(err, EPROTO, "an answer for requests %llu+%u of partition %u, which were never sent",
                        (unsigned long long)pos, n, part);
    uint8_t raw[PUT_BATCH * 8];
    while (n > 0) {
        uint32_t k = n < PUT_BATCH ? n : PUT_BATCH;
        for (uint32_t i = 0; i < k; i++)
            put_le64(raw + i * 8, ~refs[i]);
        int rc = pwrite_full(a->fd, raw, k * 8, (off_t)((a->base[part] + pos) * 8));
        if (rc < 0)
            return file_error(err, rc);
        refs += k;
        pos += k;
        n -= k;
    }
    return 0;
}

static uint8_t *window(const struct answers *a, uint32_t part)
{
    return a->buf + (size_t)part * a->width * 8;
}

static int write_back(struct answers *a, uint32_t part, struct verr *err)
{
    struct answer_window *w = &a->win[part];
    if (!w->dirty)
        return 0;
    int rc = pwrite_bulk(a->fd, window(a, part), (size_t)w->n * 8, (off_t)((a->base[part] + w->first) * 8));
    if (rc < 0)
        return file_error(err, rc);
    w->dirty = false;
    return 0;
}

int answers_get(struct answers *a, uint32_t part, uint64_t pos, uint64_t *ref, struct verr *err)
{
    if (part >= a->parts || pos >= a->count[part])
        return verr_set(err, EBADMSG, "a plan log below STATE/rounds names a request that was never sent");
    struct answer_window *w = &a->win[part];
    uint8_t *buf = window(a, part);
    if (pos < w->first || pos - w->first >= w->n) {
        uint64_t left = a->count[part] - pos;
        uint32_t n = left < a->width ? (uint32_t)left : a->width;
        int rc = write_back(a, part, err);
        if (rc < 0)
            return rc;
        ssize_t got = pread_full(a->fd, buf, (size_t)n * 8, (off_t)((a->base[part] + pos) * 8));
        if (got < 0)
            return file_error(err, (int)got);
        memset(buf + got, 0, (size_t)n * 8 - (size_t)got);     /* behind the last answer in the file: no answer */
        w->first = pos;
        w->n = n;
    }
    *ref = ~get_le64(buf + (pos - w->first) * 8);
    return 0;
}

int answers_resolve(struct answers *a, uint32_t part, uint64_t ref, struct verr *err)
{
    struct answer_window *w = &a->win[part];
    for (;;) {
        uint64_t now;
        if (part >= a->parts || w->resolved >= a->count[part])
            return verr_set(err, EPROTO, "more resolutions than dup-with-new answers in partition %u", part);
        int rc = answers_get(a, part, w->resolved, &now, err);
        if (rc < 0)
            return rc;
        uint64_t pos = w->resolved++;
        if (now != ANSWER_WAIT)
            continue;
        if (ref_is_block(ref)) {
            put_le64(window(a, part) + (pos - w->first) * 8, ~ref);
            w->dirty = true;
        }
        return 0;
    }
}

int answers_rewind(struct answers *a, struct verr *err)
{
    for (uint32_t i = 0; i < a->parts; i++) {
        int rc = write_back(a, i, err);
        if (rc < 0)
            return rc;
        a->win[i].n = 0;
    }
    return 0;
}
