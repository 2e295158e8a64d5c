/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_head: the head of a disk and how it changes. The head says what the disk is made of: table and open layer, pending
 * snapshots, anchors, marks, size whose data are durable (live_format.h). A new head is a copy of the last one with the change
 * made in it, and becomes the head when the journal has it.
 *
 * A durable change: live_commit_begin (files that the head names, then their directory: fsync) -> live_commit_put (complete record)
 * -> live_commit_end (fdatasync of the journal; then files go that only older heads name). A change that only has to survive kill -9
 * is one ljournal_put; the next fsync makes it durable.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/file.h"

#include <errno.h>
#include <string.h>

int live_head_now(struct live *l, struct live_head *nh, struct verr *err)
{
    if (live_head_copy(&l->head, nh) < 0)
        return live_fail(l, err, ENOMEM, "no memory");
    int64_t pages = atomic_load(&l->alloc_pages);
    nh->alloc_bytes = pages > 0 ? (uint64_t)pages * PAGE_BYTES : 0;
    nh->mtime_ns = atomic_load(&l->mtime_ns);
    nh->changed = atomic_load(&l->changed);
    nh->table_bytes = l->cur.table->synced_bytes;
    nh->map_bytes = l->cur.layer->map_bytes;
    for (unsigned i = 0; i < nh->npend; i++) {
        nh->pend[i].table_bytes = l->lv[i].table->synced_bytes;
        nh->pend[i].map_bytes = l->lv[i].layer->map_bytes;
    }
    return 0;
}

static const struct lview *fresh_view(const struct live *l)
{
    if (l->cur.table->fresh || l->cur.layer->fresh)
        return &l->cur;
    for (unsigned i = 0; i < l->nlv; i++)
        if (l->lv[i].table->fresh || l->lv[i].layer->fresh)
            return &l->lv[i];
    return NULL;
}

bool live_files_fresh(const struct live *l)
{
    return fresh_view(l) != NULL || l->dir_synced != atomic_load(&l->dir_gen);
}

/* fsyncs one level's files: entries of the table, header of the map. Data need no fsync: a page that map has not is not present. */
static int sync_view(struct live *l, struct ltable *t, struct llayer *ly, struct verr *err)
{
    int r = ltable_sync(l, t, err);
    if (r == 0)
        r = llayer_map_sync(l, ly, err);
    ltable_unref(t);
    llayer_unref(ly);
    return r;
}

static int sync_fresh(struct live *l, struct verr *err)
{
    for (;;) {
        struct ltable *t = NULL;
        struct llayer *ly = NULL;
        pthread_mutex_lock(&l->head_lock);
        const struct lview *v = fresh_view(l);
        if (v != NULL) {
            t = ltable_ref(v->table);
            ly = llayer_ref(v->layer);
        }
        pthread_mutex_unlock(&l->head_lock);
        if (v == NULL)
            break;
        int r = sync_view(l, t, ly, err);
        if (r < 0)
            return r;
    }
    uint64_t gen = atomic_load(&l->dir_gen);
    pthread_mutex_lock(&l->head_lock);
    bool needed = l->dir_synced != gen;
    pthread_mutex_unlock(&l->head_lock);
    if (!needed)
        return 0;
    int r = live_sync_dir(l);
    if (r == -EMFILE || r == -ENFILE)
        return live_fail(l, err, -r, "directory: cannot be opened: %s", strerror(-r));
    if (r < 0) {
        live_distrust(l);
        return live_fail(l, err, EIO, "directory: fsync failed: %s", strerror(-r));
    }
    pthread_mutex_lock(&l->head_lock);
    l->dir_synced = gen;
    pthread_mutex_unlock(&l->head_lock);
    return 0;
}

static void commit_unlock(struct live *l, bool excl)
{
    pthread_mutex_unlock(&l->head_lock);
    if (excl)
        pthread_rwlock_unlock(&l->freeze);
}

/* Takes the locks at a moment when all files of the head are durable. */
static int commit_lock(struct live *l, bool excl, struct verr *err)
{
    for (;;) {
        int r = sync_fresh(l, err);
        if (r < 0)
            return r;
        if (excl)
            pthread_rwlock_wrlock(&l->freeze);
        pthread_mutex_lock(&l->head_lock);
        if (!live_files_fresh(l))
            return 0;
        commit_unlock(l, excl);         /* a freeze came between */
    }
}

int live_commit_begin(struct live *l, bool excl, struct live_head *nh, struct verr *err)
{
    int r = commit_lock(l, excl, err);
    if (r < 0)
        return r;
    r = excl && ljournal_gone_room(l, LEVEL_FILES) < 0 ? live_fail(l, err, ENOMEM, "no memory") : live_head_now(l, nh, err);
    if (r < 0)
        commit_unlock(l, excl);
    return r;
}

int live_commit_end(struct live *l, bool excl, struct live_head *nh, int r, struct verr *err)
{
    live_head_release(nh);
    commit_unlock(l, excl);
    return r < 0 ? r : ljournal_sync(l, err);
}

int live_commit_put(struct live *l, struct live_head *nh, struct verr *err)
{
    if (l->jend < JOURNAL_COMPACT)
        return ljournal_put(l, nh, true, err);
    return ljournal_replace(l, nh, err);
}

void live_table_goes(struct live *l, struct ltable *t)
{
    ljournal_gone(l, GONE_TABLE, t->no);
    ltable_unref(t);
}

void live_layer_goes(struct live *l, struct llayer *ly)
{
    ljournal_gone(l, atomic_load(&ly->is_cache) ? GONE_CACHE : GONE_LAYER, ly->no);
    llayer_charge(ly, -atomic_load(&ly->charged));
    llayer_unref(ly);
}

uint64_t live_new_no(struct live *l)
{
    pthread_mutex_lock(&l->head_lock);
    uint64_t no = l->next_no++;
    pthread_mutex_unlock(&l->head_lock);
    return no;
}

/* That size is the size of seq: its data show through the live image, the zeros behind a shrunk end among them (rule 3 of
 * live_disk.h), so the live image is durably what seq is if nothing was written since. Younger writes that reached the disk lie in the
 * open layer and are cut off at the size; live_point, which changes entries, seals seq before (live_seal_shown). A snapshot of an
 * earlier table says nothing about this one. */
uint64_t live_sealed_size(const struct live *l, uint64_t seq)
{
    uint64_t size = l->head.size;
    for (unsigned i = 0; i < l->head.npend; i++) {
        const struct snapinfo *p = &l->head.pend[i].p;
        if (p->ref.seq == seq && p->ref.seq >= l->head.first_seq && (p->flags & SNAP_SEALED) == 0)
            size = p->size;
    }
    return size;
}

/* ---- small changes ---- */

int live_set_marks(struct live *l, uint32_t set, uint32_t clear, struct verr *err)
{
    struct live_head nh;
    pthread_mutex_lock(&l->head_lock);
    int r = 0;
    uint32_t marks = (l->head.marks | set) & ~clear;
    if (marks != l->head.marks) {
        r = live_head_now(l, &nh, err);
        if (r == 0) {
            nh.marks = marks;
            r = ljournal_put(l, &nh, !live_files_fresh(l), err);
            if (r < 0)
                live_head_release(&nh);
        }
    }
    pthread_mutex_unlock(&l->head_lock);
    return r;
}

void live_raise(struct live *l, uint64_t min_seq, int64_t last_name_s)
{
    pthread_mutex_lock(&l->head_lock);
    if (l->head.next_seq < min_seq)
        l->head.next_seq = min_seq;
    if (l->head.last_name_s < last_name_s)
        l->head.last_name_s = last_name_s;
    pthread_mutex_unlock(&l->head_lock);
}
