/* SPDX-License-Identifier: Apache-2.0 */
/* delta: the entries that one round adds to a slot, in one file for all its partitions, so that a small round costs one fsync. */
#include "fpindex/fpindex_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

enum { DELTA_BUFFER = 256 * 1024 };

struct fpdelta {
    struct fpindex *ix;
    struct fpi_writer *w;
};

int fpdelta_begin(struct fpindex *ix, struct fpdelta **out, struct verr *err)
{
    int r = fpi_sweep(ix, err);
    if (r < 0)
        return r;
    struct fpdelta *d = calloc(1, sizeof *d);
    if (d == NULL)
        return verr_set(err, ENOMEM, "index/%04" PRIu32 ": no memory for a delta", ix->slot);
    d->ix = ix;
    r = fpi_writer_begin(ix, FPI_DELTA, DELTA_BUFFER, &d->w, err);
    if (r < 0) {
        free(d);
        return r;
    }
    *out = d;
    return 0;
}

int fpdelta_add(struct fpdelta *d, const uint8_t key[FPKEY_BYTES], uint64_t ref, struct verr *err)
{
    return fpi_writer_add(d->w, key, ref, err);
}

int fpdelta_commit(struct fpdelta *d, struct verr *err)
{
    struct fpindex *ix = d->ix;
    struct fpi_header h;
    if (fpi_writer_empty(d->w)) {
        fpdelta_abort(d);
        return 0;
    }
    /* The number is used up even if the commit fails, because the name may be durable nevertheless. */
    uint64_t number = ix->next_delta++;
    int r = fpi_writer_publish(d->w, 0, &number, &h, err);
    if (number >= ix->next_delta)
        ix->next_delta = number + 1;
    if (r == 0 && (r = fpi_delta_insert(ix, &h)) < 0)
        verr_set(err, -r, "index/%04" PRIu32 ": no memory to use the new delta before the next open", ix->slot);
    fpdelta_abort(d);
    return r;
}

void fpdelta_abort(struct fpdelta *d)
{
    if (d == NULL)
        return;
    fpi_writer_free(d->w);
    free(d);
}
