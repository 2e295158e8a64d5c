/* SPDX-License-Identifier: Apache-2.0 */
/*
 * late: stage 4b writes blocks after 3b has made its delta. These blocks enter the index by one more delta at the end of the round.
 * Without it the index would keep the entry that the publish check refused; each later round would refuse it again and write
 * another copy of the block. The late delta is newer, so it hides that entry.
 *
 * The index holds hints only: a failure here is noted and costs space. Blocks of slots that this host does not own are left out.
 */
#include "dedup/dedup_internal.h"

#include "base/extsort.h"
#include "base/verr.h"

#include <string.h>

enum { LATE_BYTES = FPKEY_BYTES + 8 };      /* key, reference be64 */

static int late_put(struct round *r, struct extsort **xs, const uint8_t rec[LATE_BYTES], struct verr *err)
{
    if (*xs == NULL)
        *xs = extsort_new(r->dirfd, LATE_BYTES, LATE_BYTES, r->mem.sort_small, err);
    return *xs == NULL ? -1 : extsort_add(*xs, rec, err);
}

static void late_drop(struct round *r, struct extsort **xs, const struct verr *why)
{
    extsort_free(*xs);
    *xs = NULL;
    round_note(r, "stage_4b", why);
}

void late_add(struct round *r, const struct jobstate *js, struct extsort **xs, const struct plan_block *b)
{
    struct verr why = {0};
    uint8_t rec[LATE_BYTES];
    if (js->job->selective || !round_owns(r, &b->fp))
        return;
    memcpy(rec, b->fp.b, FPKEY_BYTES);
    put_be64(rec + FPKEY_BYTES, b->ref);
    if (late_put(r, xs, rec, &why) < 0)
        late_drop(r, xs, &why);
}

void late_keep(struct round *r, struct extsort **xs)
{
    struct verr why = {0};
    uint8_t rec[LATE_BYTES];
    int rc = *xs == NULL ? 0 : extsort_sorted(*xs, &why);
    while (rc == 0 && *xs != NULL && (rc = extsort_next(*xs, rec, &why)) > 0) {
        rc = late_put(r, &r->late, rec, &why);
        if (rc < 0)
            late_drop(r, &r->late, &why);
    }
    if (rc < 0)
        round_note(r, "stage_4b", &why);
    extsort_free(*xs);
    *xs = NULL;
}

/* Adds the records of one slot, from rec on. *have: rec is now the first record of another slot. Of equal keys the first counts. */
static int add_slot(struct round *r, uint32_t slot, uint8_t rec[LATE_BYTES], bool *have, struct verr *err)
{
    struct fpdelta *delta = NULL;
    int rc = fpdelta_begin(r->slots[slot].ix, &delta, err);
    while (rc == 0 && *have && storeconf_partition(r->conf, rec) / r->q == slot) {
        rc = fpdelta_add(delta, rec, get_be64(rec + FPKEY_BYTES), err);
        int next = rc < 0 ? 0 : extsort_next(r->late, rec, err);
        *have = next > 0;
        rc = next < 0 ? next : rc;
    }
    if (rc == 0)
        return fpdelta_commit(delta, err);
    fpdelta_abort(delta);
    return rc;
}

/* Records sorted by key are sorted by slot too. A slot that fails ends the walk, because the sorter itself may have failed. */
void late_commit(struct round *r)
{
    struct verr why = {0};
    uint8_t rec[LATE_BYTES];
    if (r->late == NULL)
        return;
    int rc = extsort_sorted(r->late, &why);
    if (rc == 0)
        rc = extsort_next(r->late, rec, &why);
    bool have = rc > 0;
    while (rc >= 0 && have)
        rc = add_slot(r, storeconf_partition(r->conf, rec) / r->q, rec, &have, &why);
    if (rc < 0)
        round_note(r, "stage_4b", &why);
    extsort_free(r->late);
    r->late = NULL;
}
