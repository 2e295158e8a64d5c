/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums over all rows. They are added up here, not by SQL: sizes that do not make sense must saturate, not fail. Between
 * batches the mutex is free: with 100 000 snapshots the whole takes a tenth of a second, and lookups must not wait for it.
 */
#include "catalog/catalog_internal.h"

#include <string.h>

enum { SUMS_BATCH = 2048 };

static void add(uint64_t *sum, uint64_t v)
{
    if (__builtin_add_overflow(*sum, v, sum))
        *sum = UINT64_MAX;
}

static void add_row(struct catalog_use *u, struct catalog_totals *t, struct vid *last)
{
    uint64_t *const sums[] = {&t->logical_bytes, &t->alloc_bytes, &t->levels.zero, &t->levels.clean, &t->levels.parent_segment,
                              &t->levels.parent_block, &t->levels.common, &t->levels.global, &t->levels.dup_new, &t->levels.fresh,
                              &t->levels.stored};
    read_id(u, "id", last);
    uint32_t state = (uint32_t)read_int(u, "state", SNAPST_PENDING, SNAPST_FAILED);
    t->pending += state == SNAPST_PENDING;
    t->failed += state == SNAPST_FAILED;
    if (state != SNAPST_STORED)
        return;
    t->snapshots++;
    for (size_t i = 0; i < sizeof sums / sizeof sums[0]; i++)
        add(sums[i], read_u64(u, "size or level"));
}

/* Adds the next batch of rows after *last. Returns how many. */
static int add_batch(struct catalog *c, struct vid *last, bool first, struct catalog_totals *t, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SUMS, &u, err), n = 0;
    if (r < 0)
        return r;
    const struct vid after = *last;
    bind_bytes(&u, after.b, first ? 0 : VID_BYTES);
    bind_int(&u, SUMS_BATCH);
    while ((r = catalog_step(&u, "adding up snapshots", err)) > 0) {
        add_row(&u, t, last);
        n++;
    }
    if (r == 0 && u.bad != NULL)
        r = catalog_bad_row(c, "snaps", u.bad, err);
    catalog_done(&u);
    return r < 0 ? r : n;
}

static int count_disks(struct catalog *c, uint64_t *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_DISK_COUNT, &u, err);
    if (r < 0)
        return r;
    r = catalog_step(&u, "counting disks", err);
    if (r > 0) {
        *out = read_u64(&u, "count");
        r = 0;
    }
    catalog_done(&u);
    return r;
}

int catalog_totals(struct catalog *c, struct catalog_totals *out, struct verr *err)
{
    struct catalog_totals t;
    struct vid last = {{0}};
    memset(&t, 0, sizeof t);
    int r = count_disks(c, &t.disks, err);
    if (r < 0)
        return r;
    bool first = true;
    do {
        r = add_batch(c, &last, first, &t, err);
        first = false;
    } while (r == SUMS_BATCH);
    if (r < 0)
        return r;
    *out = t;
    return 0;
}
