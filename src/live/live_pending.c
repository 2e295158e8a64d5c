/* SPDX-License-Identifier: Apache-2.0 */
/* live_pending: lists, flags and reads pending snapshots. live_publish.c and live_drop.c end them. */
#include "live/live_head.h"
#include "live/live_level.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static int no_such(const struct live *l, int code, uint64_t seq, struct verr *err)
{
    return live_fail(l, err, code, "snapshot %" PRIu64 " is not pending", seq);
}

int live_pending_index(const struct live *l, uint64_t seq, struct verr *err)
{
    for (unsigned i = 0; i < l->head.npend; i++)
        if (l->head.pend[i].p.ref.seq == seq)
            return (int)i;
    return no_such(l, ENOENT, seq, err);
}

int live_pending(struct live *l, unsigned i, struct snapinfo *out, struct verr *err)
{
    pthread_mutex_lock(&l->head_lock);
    bool any = i < l->head.npend;
    if (any)
        *out = l->head.pend[i].p;
    pthread_mutex_unlock(&l->head_lock);
    return any ? 0 : live_fail(l, err, ENOENT, "has no pending snapshot number %u", i);
}

int live_pending_by_seq(struct live *l, uint64_t seq, struct snapinfo *out, struct verr *err)
{
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, err);
    if (i >= 0)
        *out = l->head.pend[i].p;
    pthread_mutex_unlock(&l->head_lock);
    return i < 0 ? i : 0;
}

int live_pending_update(struct live *l, uint64_t seq, uint32_t set, uint32_t clear, const char *label, struct verr *err)
{
    const uint32_t ours = SNAP_PROVISIONAL | SNAP_PARTIAL | SNAP_STARTED | SNAP_FAILED | SNAP_EXPLICIT;
    if (((set | clear) & ~ours) != 0 || (label != NULL && strlen(label) > LABEL_MAX))
        return live_fail(l, err, EINVAL, "flags %#x cannot be set, %#x not cleared, or the label is too long", set, clear);
    struct live_head nh;
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, err), r = i < 0 ? i : live_head_now(l, &nh, err);
    if (r == 0) {
        struct snapinfo *p = &nh.pend[i].p;
        uint32_t flags = (p->flags | set) & ~clear;
        bool differs = flags != p->flags || (label != NULL && strcmp(label, p->label) != 0);
        p->flags = flags;
        if (label != NULL)
            memcpy(p->label, label, strlen(label) + 1);
        if (differs)
            r = ljournal_put(l, &nh, !live_files_fresh(l), err);
        /* STARTED is true of this process alone: the next start clears it whatever the journal says. When a full disk refuses the
         * record, memory clears it all the same, so that the snapshot can be merged or superseded, which makes room. */
        if (r < 0 && (clear & SNAP_STARTED) != 0)
            l->head.pend[i].p.flags &= ~(uint32_t)SNAP_STARTED;
        live_head_release(&nh);
    }
    pthread_mutex_unlock(&l->head_lock);
    return r;
}

/* ---- readers ---- */

int live_pending_hold(struct live *l, uint64_t seq)
{
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, NULL);
    if (i >= 0)
        l->lv[i].layer->readers++;
    pthread_mutex_unlock(&l->head_lock);
    return i < 0 ? i : 0;
}

void live_pending_release(struct live *l, uint64_t seq)
{
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, NULL);
    if (i >= 0)
        l->lv[i].layer->readers--;
    pthread_mutex_unlock(&l->head_lock);
}

bool live_pending_held(struct live *l, uint64_t seq)
{
    pthread_mutex_lock(&l->head_lock);
    int i = live_pending_index(l, seq, NULL);
    bool held = i >= 0 && l->lv[i].layer->readers > 0;
    pthread_mutex_unlock(&l->head_lock);
    return held;
}

/* The level and the size of a pending snapshot. freeze held. */
static const struct lview *view_of(struct live *l, uint64_t seq, uint64_t *size)
{
    struct snapinfo p = {0};
    const struct lview *v = live_view_by_seq(l, seq);
    if (v == NULL || live_pending_by_seq(l, seq, &p, NULL) < 0)
        return NULL;
    *size = p.size;
    return v;
}

ssize_t live_pending_read(struct live *l, uint64_t seq, uint64_t off, void *buf, size_t len, struct verr *err)
{
    uint64_t size = 0;
    pthread_rwlock_rdlock(&l->freeze);
    const struct lview *v = view_of(l, seq, &size);
    ssize_t r = v == NULL ? no_such(l, ESTALE, seq, err) : live_view_read_range(l, v, size, off, buf, len, REACH_ALL, err);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

off_t live_pending_seek(struct live *l, uint64_t seq, uint64_t off, bool hole, struct verr *err)
{
    uint64_t size = 0;
    pthread_rwlock_rdlock(&l->freeze);
    const struct lview *v = view_of(l, seq, &size);
    off_t r = v == NULL ? no_such(l, ESTALE, seq, err) : live_view_seek_range(l, v, size, off, hole, err);
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

int live_pending_entries(struct live *l, uint64_t seq, uint64_t first, struct seg_entry out[PEND_ENTRIES], struct verr *err)
{
    _Static_assert((int)PEND_ENTRIES == (int)SLICE_SEGS, "one read of a slice");
    struct lslice s;
    pthread_rwlock_rdlock(&l->freeze);      /* no segment lock: nothing writes into this table, see the header */
    const struct lview *v = live_view_by_seq(l, seq);
    int r = v == NULL ? no_such(l, ESTALE, seq, err) : ltable_slice_get(l, v->table, first / SLICE_SEGS * SLICE_SEGS, &s, err);
    pthread_rwlock_unlock(&l->freeze);
    for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++) {
        const struct live_entry *e = &s.e[i];
        out[i] = (struct seg_entry){e->kind, e->kind == SEGK_ZERO ? 0 : e->value, e->dirty};
    }
    return r;
}
