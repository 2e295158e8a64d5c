/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trash: which snapshots were removed on purpose: every removal of a snapshot moves its recipe into trash/. A recipe that is neither in
 * snapshots/ nor in trash/ was lost: that is reported, and nothing is removed because of it. A reconcile lists trash/ once, when it
 * first needs it.
 */
#include "names/names_internal.h"

#include "store/snaps.h"

#include "base/hex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/snaps.h"

static int by_place(const void *a, const void *b)
{
    const struct trashed *x = a, *y = b;
    int d = memcmp(x->disk.b, y->disk.b, VID_BYTES);
    if (d == 0 && x->seq != y->seq)
        d = x->seq < y->seq ? -1 : 1;
    return d != 0 ? d : memcmp(x->snap.b, y->snap.b, VID_BYTES);
}

static int note(void *ctx, const struct snaps_file *f)
{
    struct reconcile *rc = ctx;
    const struct trashed t = {.disk = f->ref.disk, .seq = f->ref.seq, .snap = f->ref.snap};
    if (f->anchor || f->side_file)
        return 0;
    if (rc->trash_count == rc->trash_cap) {
        size_t cap = rc->trash_cap == 0 ? 64 : rc->trash_cap * 2;
        struct trashed *v = realloc(rc->trash, cap * sizeof *v);
        if (v == NULL)
            return -ENOMEM;
        rc->trash = v;
        rc->trash_cap = cap;
    }
    rc->trash[rc->trash_count++] = t;
    return 0;
}

static int list(struct reconcile *rc)
{
    const struct snaps_walk files = {.file = note, .ctx = rc};
    int r = rc->trash_listed ? 0 : snaps_each(rc->n->store, SNAPS_TRASH, NULL, &files, rc->err);
    if (r == -ENOMEM)
        return verr_set(rc->err, ENOMEM, "names: out of memory");
    if (r < 0)
        return r;
    if (!rc->trash_listed && rc->trash_count > 0)
        qsort(rc->trash, rc->trash_count, sizeof *rc->trash, by_place);
    rc->trash_listed = true;
    return 0;
}

int reconcile_was_removed(struct reconcile *rc, const struct vid *disk, uint64_t seq, const struct vid *snap)
{
    int r = list(rc);
    const struct trashed key = {.disk = *disk, .seq = seq, .snap = *snap};
    return r < 0 ? r : rc->trash_count > 0 && bsearch(&key, rc->trash, rc->trash_count, sizeof *rc->trash, by_place) != NULL;
}

int reconcile_any_removed(struct reconcile *rc, const struct vid *disk)
{
    if (snaps_named(rc->n->store, DIR_SNAPSHOTS, disk, 0, NULL) == 0)
        return 1;           /* the disk never had a stored snapshot, so none was lost */
    int r = list(rc);
    for (size_t i = 0; r == 0 && i < rc->trash_count; i++)
        if (vid_eq(&rc->trash[i].disk, disk))
            return 1;
    return r;
}
