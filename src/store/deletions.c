/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deletions: the deletion log of a generation (format/deletions.h): which references are condemned. The file
 * generations/G/deletions is complete when its generation appears, and never changes. A missing file is an error and does not
 * count as an empty log.
 */
#include "base/verr.h"
#include "format/deletions.h"
#include "store/lease_internal.h"
#include "store/publish.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct deletions {
    uint8_t *file;
    struct deletion_log log;    /* points into it */
};

int deletion_log_write(struct backend *b, const char *dir, const struct vid *store, uint64_t generation, const uint64_t *refs, uint64_t n)
{
    size_t len = deletion_log_bytes(n);
    if (len == 0)
        return -EFBIG;
    uint8_t *log = malloc(len);
    if (log == NULL)
        return -ENOMEM;
    deletion_log_encode(store, generation, refs, n, log);
    int r = bk_create(b, dir, "deletions", log, len);
    free(log);
    return r;
}

static int log_load(struct store *st, uint64_t generation, struct deletions **out, struct verr *err)
{
    char name[64];
    snprintf(name, sizeof name, "%016" PRIx64 "/deletions", generation);
    struct deletions *d = calloc(1, sizeof *d);
    size_t len;
    int r = d == NULL ? -ENOMEM : bk_load(st->b, "generations", name, DELETION_LOG_MAX, &d->file, &len);
    if (r < 0) {
        free(d);
        if (r == -ENOENT || r == -EFBIG || r == -EINVAL || r == -ENOTDIR || r == -ELOOP)
            return verr_set(err, EBADMSG, "%s/generations/%s is missing or no deletion log: nothing can be published safely",
                            st->path, name);
        return store_fail(st, DIR_GENERATIONS, name, r, "reading", err);
    }
    const char *why;
    r = deletion_log_decode(d->file, len, &(struct deletion_log){.store = st->conf.id, .generation = generation}, &d->log, &why);
    if (r < 0) {
        deletions_free(d);
        return verr_set(err, -r, "%s/generations/%s cannot be used: %s", st->path, name, why);
    }
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
    *refs = d->log.n;
    deletions_free(d);
    return 0;
}

bool deletions_has(const struct deletions *d, uint64_t ref)
{
    return deletion_log_has(&d->log, ref);
}

void deletions_free(struct deletions *d)
{
    if (d == NULL)
        return;
    free(d->file);
    free(d);
}
