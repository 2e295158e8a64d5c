/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_anchor: the stored snapshots that the entries of a disk's tables point into, as its head lists them. An anchor's stamp is
 * the sequence number of the first snapshot whose publication makes the anchor obsolete: that snapshot is frozen after the last
 * entry that relies on the anchor was made, so its recipe holds whatever the entries name, and its own anchor takes over.
 */
#include "live/live_head.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

int live_list_anchor(struct live *l, struct live_head *nh, const struct live_anchor *anchor, uint64_t stamp, bool *changed,
                     struct verr *err)
{
    unsigned i = 0;
    while (i < nh->nanchors && !snapref_eq(&nh->anchors[i].ref, &anchor->ref))
        i++;
    bool lifts = i == nh->nanchors || nh->anchors[i].stamp < stamp;
    if (i >= LIVE_ANCHOR_MAX)
        return live_fail(l, err, ENOSPC, "%u anchors are listed already", nh->nanchors);
    if (i == nh->nanchors)
        nh->anchors[nh->nanchors++] = *anchor;
    if (lifts)
        nh->anchors[i].stamp = stamp;
    if (changed != NULL)
        *changed = lifts;
    return 0;
}

unsigned live_anchors_obsolete(const struct live_head *h, uint64_t seq, const struct live_anchor *mine, struct live_anchor *drop,
                               unsigned max)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->nanchors && n < max; i++)
        if (h->anchors[i].stamp <= seq && (mine == NULL || !snapref_eq(&h->anchors[i].ref, &mine->ref)))
            drop[n++] = h->anchors[i];
    return n;
}

int live_anchor_at(struct live *l, unsigned i, struct live_anchor *out, struct verr *err)
{
    pthread_mutex_lock(&l->head_lock);
    bool any = i < l->head.nanchors;
    if (any)
        *out = l->head.anchors[i];
    pthread_mutex_unlock(&l->head_lock);
    return any ? 0 : live_fail(l, err, ENOENT, "has no anchor number %u", i);
}

int live_anchor_gone(struct live *l, const struct live_anchor *a, struct verr *err)
{
    struct live_head nh;
    pthread_mutex_lock(&l->head_lock);
    int r = live_head_now(l, &nh, err);
    if (r == 0) {
        unsigned i = 0;
        while (i < nh.nanchors && !snapref_eq(&nh.anchors[i].ref, &a->ref))
            i++;
        if (i == nh.nanchors) {
            r = 0;                  /* gone already */
        } else if (nh.anchors[i].stamp != a->stamp) {
            r = live_fail(l, err, ESTALE, "the anchor of snapshot %" PRIu64 " is relied on again", a->ref.seq);
        } else {
            memmove(&nh.anchors[i], &nh.anchors[i + 1], (nh.nanchors - i - 1) * sizeof *nh.anchors);
            nh.nanchors--;
            r = ljournal_put(l, &nh, !live_files_fresh(l), err);
        }
        live_head_release(&nh);
    }
    pthread_mutex_unlock(&l->head_lock);
    return r;
}
