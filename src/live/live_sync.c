/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_sync: makes a disk durable.
 *
 *   capture (freeze lock exclusive, an instant): changed slots of vol, size
 *   -> fdatasync(table) : dirty bits    -> fdatasync(layer) : data
 *   -> slots into map -> fdatasync(map) : durable presence implies durable data and a durable dirty bit
 *   -> the same for each volatile pending snapshot, which is sealed by it
 *   -> complete record -> fdatasync(journal) : size, marks, freezes
 * Only slots captured before the fdatasync of the data go into map.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"


enum { ROUNDS_MAX = 1000, MTIME_SLACK_NS = 1000000000 };

struct moment {
    struct ltable *table;
    struct llayer *layer;
    struct lcapture slots;
    uint64_t size, last_seq;        /* pending snapshots up to last_seq were frozen before */
    bool more;                      /* more slots wait than were taken */
};

static int take_moment(struct live *l, size_t max, struct moment *m, struct verr *err)
{
    pthread_rwlock_wrlock(&l->freeze);
    int r = llayer_capture(l, l->cur.layer, max, &m->slots, err);
    if (r == 0) {
        m->table = ltable_ref(l->cur.table);
        m->layer = llayer_ref(l->cur.layer);
        m->size = atomic_load(&l->size);
        m->last_seq = l->nlv > 0 ? l->lv[l->nlv - 1].seq : 0;
        m->more = llayer_changed(l->cur.layer) > 0;
    }
    pthread_rwlock_unlock(&l->freeze);
    return r;
}

static int sync_moment(struct live *l, struct moment *m, struct verr *err)
{
    int r = ltable_sync(l, m->table, err);
    if (r == 0)
        r = llayer_data_sync(l, m->layer, err);
    fault_point("live.fsync.after_data");
    if (r == 0)
        r = llayer_map_put(l, m->layer, &m->slots, err);
    if (r < 0)
        llayer_capture_undo(m->layer, &m->slots);
    if (r == 0 && !m->more)
        r = llayer_map_sync(l, m->layer, err);
    fault_point("live.fsync.after_map");
    ltable_unref(m->table);
    llayer_unref(m->layer);
    llayer_capture_free(&m->slots);
    return r;
}

/* The i-th pending level, referenced. sync_lock keeps it pending. False when there is none. */
static bool level_at(struct live *l, unsigned i, struct lview *out, uint32_t *flags)
{
    pthread_mutex_lock(&l->head_lock);
    bool any = i < l->nlv;
    if (any) {
        *out = l->lv[i];
        ltable_ref(out->table);
        llayer_ref(out->layer);
        *flags = l->head.pend[i].p.flags;
    }
    pthread_mutex_unlock(&l->head_lock);
    return any;
}

/* Makes the data of all volatile pending snapshots up to last durable, oldest first: a younger one reads through the older ones. */
static int seal_data(struct live *l, uint64_t last, uint64_t skip, struct verr *err)
{
    struct lview v;
    uint32_t flags = 0;
    int r = 0;
    for (unsigned i = 0; r == 0 && level_at(l, i, &v, &flags); i++) {
        if (v.seq <= last && v.seq != skip && (flags & SNAP_SEALED) == 0) {
            r = llayer_data_sync(l, v.layer, err);
            if (r == 0)
                r = ltable_sync(l, v.table, err);   /* dirty bits before presence */
            if (r == 0)
                r = llayer_seal(l, v.layer, err);
        }
        ltable_unref(v.table);
        llayer_unref(v.layer);
    }
    return r;
}

/* Sets SEALED up to last in nh. True if that changed anything. */
static bool mark_sealed(struct live_head *nh, uint64_t last, uint64_t skip)
{
    bool any = false;
    for (unsigned i = 0; i < nh->npend; i++) {
        struct snapinfo *p = &nh->pend[i].p;
        if (p->ref.seq > last || p->ref.seq == skip || (p->flags & SNAP_SEALED) != 0)
            continue;
        p->flags |= SNAP_SEALED;
        any = true;
    }
    return any;
}

/* True: something changed that only a new record can say. head_lock held. */
static bool record_needed(const struct live *l, const struct live_head *nh, bool sealed)
{
    int64_t drift = nh->mtime_ns - l->head.mtime_ns;
    return sealed || nh->size != l->head.size || nh->changed != l->head.changed || drift >= MTIME_SLACK_NS || drift < 0 ||
           l->next_rec - 1 > l->durable_rec;
}

static int commit(struct live *l, uint64_t size, uint64_t last, uint64_t skip, struct verr *err)
{
    struct live_head nh;
    int r = live_commit_begin(l, false, &nh, err);
    if (r < 0)
        return r;
    nh.size = size;
    bool sealed = mark_sealed(&nh, last, skip);
    if (record_needed(l, &nh, sealed))
        r = live_commit_put(l, &nh, err);
    return live_commit_end(l, false, &nh, r, err);
}

int live_fsync_locked(struct live *l, uint64_t skip, struct verr *err)
{
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    struct moment m = {0};
    for (unsigned round = 0;; round++) {
        r = take_moment(l, round < ROUNDS_MAX ? CAPTURE_BLOCKS : SIZE_MAX, &m, err);
        if (r == 0)
            r = sync_moment(l, &m, err);
        if (r < 0)
            return r;
        if (!m.more)
            break;
    }
    if (skip == SEAL_NONE)
        m.last_seq = 0;
    r = seal_data(l, m.last_seq, skip, err);
    return r < 0 ? r : commit(l, m.size, m.last_seq, skip, err);
}

int live_fsync(struct live *l, struct verr *err)
{
    live_give(l);
    pthread_mutex_lock(&l->sync_lock);
    int r = live_fsync_locked(l, 0, err);
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}

/* The newest volatile snapshot whose data show through the live image; 0: none. */
static uint64_t newest_shown(struct live *l)
{
    uint64_t seq = 0;
    pthread_mutex_lock(&l->head_lock);
    for (unsigned i = 0; i < l->head.npend; i++) {
        const struct snapinfo *p = &l->head.pend[i].p;
        if (p->ref.seq >= l->head.first_seq && (p->flags & SNAP_SEALED) == 0)
            seq = p->ref.seq;
    }
    pthread_mutex_unlock(&l->head_lock);
    return seq;
}

static int seal_up_to(struct live *l, uint64_t seq, struct verr *err)
{
    int r = seal_data(l, seq, 0, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&l->head_lock);
    uint64_t size = live_sealed_size(l, seq);
    pthread_mutex_unlock(&l->head_lock);
    return commit(l, size, seq, 0, err);
}

int live_seal_shown(struct live *l, struct verr *err)
{
    uint64_t seq = newest_shown(l);
    return seq == 0 ? 0 : seal_up_to(l, seq, err);
}

int live_pending_seal(struct live *l, uint64_t seq, struct verr *err)
{
    struct snapinfo p;
    pthread_mutex_lock(&l->sync_lock);
    int r = live_check_failed(l, err);
    if (r == 0)
        r = live_pending_by_seq(l, seq, &p, err);
    if (r == 0 && (p.flags & SNAP_SEALED) == 0)
        r = seal_up_to(l, seq, err);
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}

int live_sync_younger(struct live *l, unsigned i, struct verr *err)
{
    struct lview v;
    uint32_t flags = 0;
    int r = 0;
    for (unsigned k = i + 1; r == 0 && level_at(l, k, &v, &flags); k++) {
        r = ltable_sync(l, v.table, err);
        ltable_unref(v.table);
        llayer_unref(v.layer);
    }
    if (r < 0)
        return r;
    pthread_mutex_lock(&l->head_lock);
    struct ltable *t = ltable_ref(l->cur.table);
    pthread_mutex_unlock(&l->head_lock);
    r = ltable_sync(l, t, err);
    ltable_unref(t);
    return r;
}

/* Writes the last record once more, durably. The copy says that the journal was durable up to it, so that damage of the record before
 * is told from a torn append after a power loss too; damage of the copy loses nothing. */
static int say_again(struct live *l, struct verr *err)
{
    struct live_head nh;
    int r = live_commit_begin(l, false, &nh, err);
    return r < 0 ? r : live_commit_end(l, false, &nh, live_commit_put(l, &nh, err), err);
}

int live_tidy(struct live *l, struct verr *err)
{
    pthread_mutex_lock(&l->head_lock);
    bool much = l->jend >= JOURNAL_COMPACT || l->ngone >= GONE_MOST;
    pthread_mutex_unlock(&l->head_lock);
    return much ? say_again(l, err) : 0;
}

int live_make_clean(struct live *l, struct verr *err)
{
    live_give(l);
    if (atomic_load(&l->clean))
        return 0;
    pthread_mutex_lock(&l->sync_lock);
    int r = live_fsync_locked(l, 0, err);
    if (r == 0)
        r = say_again(l, err);
    if (r == 0) {
        pthread_mutex_lock(&l->head_lock);
        atomic_store(&l->clean, true);
        r = live_state_save(l, err);
        pthread_mutex_unlock(&l->head_lock);
    }
    pthread_mutex_unlock(&l->sync_lock);
    return r;
}
