/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deletions: the deletion log of a generation (docs/FORMAT.md "Deletion log"): which references are condemned. A file
 * generations/G/deletions is complete when its generation appears and never changes; an absent one is an error, never an
 * empty one.
 */
#include "base/endian.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/verr.h"
#include "format/ref.h"
#include "store/lease_internal.h"
#include "store/publish.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOG_VERSION = 8, LOG_STORE = 16, LOG_GENERATION = 32, LOG_COUNT = 40, LOG_REFS = 48, LOG_SUM_BYTES = 8 };
static const char log_magic[] = "varveDEL";
static const size_t log_max = (size_t)1 << 32;

struct deletions {
    uint64_t n;
    uint8_t *file;      /* the refs lie in it, little-endian and ascending */
};

int deletion_log_write(int dirfd, const struct vid *store, uint64_t generation, const uint64_t *refs, uint64_t n)
{
    size_t len;
    if (__builtin_mul_overflow(n, sizeof *refs, &len) || len > log_max - LOG_REFS - LOG_SUM_BYTES)
        return -EFBIG;
    len += LOG_REFS + LOG_SUM_BYTES;
    uint8_t *log = calloc(1, len);
    if (log == NULL)
        return -ENOMEM;
    memcpy(log, log_magic, 8);
    put_le32(log + LOG_VERSION, 1);
    memcpy(log + LOG_STORE, store->b, VID_BYTES);
    put_le64(log + LOG_GENERATION, generation);
    put_le64(log + LOG_COUNT, n);
    for (uint64_t i = 0; i < n; i++)
        put_le64(log + LOG_REFS + i * 8, refs[i]);
    put_le64(log + len - LOG_SUM_BYTES, hash64(log, len - LOG_SUM_BYTES));
    int r = file_publish(dirfd, "deletions", log, len);
    free(log);
    return r;
}

/* The checksum is looked at before the version, so that damage is not called "newer". */
static int log_check(const struct store *st, const uint8_t *log, size_t len, uint64_t generation, const char **why)
{
    *why = "no deletion log";
    if (len < LOG_REFS + LOG_SUM_BYTES || memcmp(log, log_magic, 8) != 0)
        return -EBADMSG;
    *why = "wrong checksum";
    if (get_le64(log + len - LOG_SUM_BYTES) != hash64(log, len - LOG_SUM_BYTES))
        return -EBADMSG;
    *why = "written by another version of varve";
    if (get_le32(log + LOG_VERSION) != 1)
        return -ENOTSUP;
    *why = "reserved bytes are not zero";
    if (get_le32(log + LOG_VERSION + 4) != 0)
        return -EBADMSG;
    *why = "it is of another store or generation";
    if (memcmp(log + LOG_STORE, st->conf.id.b, VID_BYTES) != 0 || get_le64(log + LOG_GENERATION) != generation)
        return -EBADMSG;
    *why = "wrong length";
    uint64_t n = get_le64(log + LOG_COUNT), bytes = len - LOG_REFS - LOG_SUM_BYTES;
    if (bytes % 8 != 0 || n != bytes / 8)
        return -EBADMSG;
    *why = "references are not in order";
    for (uint64_t i = 1; i < n; i++)
        if (get_le64(log + LOG_REFS + i * 8 - 8) >= get_le64(log + LOG_REFS + i * 8))
            return -EBADMSG;
    *why = "a reference is none";
    if (n > 0 && !ref_is_block(get_le64(log + LOG_REFS + n * 8 - 8))) /* reserved ones are the highest */
        return -EBADMSG;
    return 0;
}

static int log_load(struct store *st, uint64_t generation, struct deletions **out, struct verr *err)
{
    char name[64];
    snprintf(name, sizeof name, "%016" PRIx64 "/deletions", generation);
    struct deletions *d = calloc(1, sizeof *d);
    size_t len;
    int r = d == NULL ? -ENOMEM : file_load(st->dirs[DIR_GENERATIONS], name, log_max, &d->file, &len);
    if (r < 0) {
        free(d);
        if (r == -ENOENT || r == -EFBIG || r == -EINVAL || r == -ENOTDIR || r == -ELOOP)
            return verr_set(err, EBADMSG, "%s/generations/%s is missing or no deletion log: nothing can be published safely",
                            st->path, name);
        return store_fail(st, DIR_GENERATIONS, name, r, "reading", err);
    }
    const char *why;
    r = log_check(st, d->file, len, generation, &why);
    if (r < 0) {
        deletions_free(d);
        return verr_set(err, -r, "%s/generations/%s cannot be used: %s", st->path, name, why);
    }
    d->n = get_le64(d->file + LOG_COUNT);
    *out = d;
    return 0;
}

int deletions_load(struct lease *l, struct deletions **out, struct verr *err)
{
    struct store *st = lease_store(l);
    uint64_t generation;
    int r = generation_newest(st, &generation, err);
    return r < 0 ? r : log_load(st, generation, out, err);
}

int deletions_check(struct store *st, uint64_t generation, uint64_t *refs, struct verr *err)
{
    struct deletions *d = NULL;
    int r = log_load(st, generation, &d, err);
    if (r != 0)
        return r;
    *refs = d->n;
    deletions_free(d);
    return 0;
}

bool deletions_has(const struct deletions *d, uint64_t ref)
{
    uint64_t lo = 0, hi = d->n;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2, at = get_le64(d->file + LOG_REFS + mid * 8);
        if (at == ref)
            return true;
        if (at < ref)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

void deletions_free(struct deletions *d)
{
    if (d == NULL)
        return;
    free(d->file);
    free(d);
}
