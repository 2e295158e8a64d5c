/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_freeze: freezes disks at one instant.
 *
 * With the freeze locks of all disks held exclusively (in the order of their ids):
 *   1. prepare  for each: a copy of the table with dirty entries turned into "frozen SEQ", an empty layer
 *   2. record   with all head locks: one record each, not fsynced. If one fails, the journals of those before it are cut
 *               back to where they were: a group is never torn
 *   3. switch   in memory
 * Nothing of the old table and layer is touched, so the head before the freeze stays readable until a later one is durable.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct frozen {
    struct live *l;
    unsigned at;                    /* where it stands in the caller's list */
    struct ltable *table;           /* the new ones */
    struct llayer *layer;
    struct lview *lv;
    struct live_head nh, old;
    uint64_t jend;                  /* of the journal before the record */
    bool recorded;
};

static int by_id(const void *a, const void *b)
{
    const struct frozen *x = a, *y = b;
    return memcmp(x->l->id.b, y->l->id.b, VID_BYTES);
}

/* Makes the "frozen" entry of a dirty segment, with its allocated pages as they are now. */
static int freeze_entry(struct live *l, uint64_t seg, uint64_t seq, struct live_entry *e, struct verr *err)
{
    struct live_slot s;
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    if (r < 0)
        return r;
    unsigned pages = lslot_alloc(&s, live_entry_pages(l, e));
    *e = (struct live_entry){SEGK_FROZEN, false, (uint16_t)(pages < SEG_PAGES ? pages : SEG_PAGES), seq};
    return 0;
}

static bool slice_is_zero(const struct lslice *s)
{
    for (unsigned i = 0; i < SLICE_SEGS; i++)
        if (s->e[i].kind != SEGK_ZERO || s->e[i].dirty)
            return false;
    return true;
}

static int copy_table(struct live *l, uint64_t seq, struct ltable *to, struct verr *err)
{
    struct lslice *s = calloc(1, sizeof *s);
    if (s == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    int r = 0;
    for (uint64_t seg = ltable_next(l->cur.table, 0); r == 0 && seg != UINT64_MAX; seg = ltable_next(l->cur.table, s->first + SLICE_SEGS)) {
        r = ltable_slice_get(l, l->cur.table, seg / SLICE_SEGS * SLICE_SEGS, s, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++)
            if (s->e[i].dirty)
                r = freeze_entry(l, s->first + i, seq, &s->e[i], err);
        if (r == 0 && !slice_is_zero(s))
            r = ltable_slice_put(l, to, s, err);
    }
    free(s);
    return r;
}

static void fill_pending(const struct frozen *f, const struct freeze_req *req, const struct vid *group, unsigned n, int64_t now,
                         struct snapinfo *p)
{
    struct live *l = f->l;
    memset(p, 0, sizeof *p);
    pthread_mutex_lock(&l->head_lock);
    int64_t last_name_s = l->head.last_name_s;
    p->ref.seq = l->head.next_seq;
    pthread_mutex_unlock(&l->head_lock);
    p->ref.disk = *live_id(l);
    p->ref.snap = vid_random();
    p->group = *group;
    p->group_members = n;
    p->flags = (req->flags | (req->each != NULL ? req->each[f->at] : 0)) & (SNAP_PROVISIONAL | SNAP_PARTIAL | SNAP_EXPLICIT);
    p->size = atomic_load(&l->size);
    struct live_attr a;
    live_attr(l, &a, NULL);
    /* Only its writer's flush and release settle an unfinished rewrite. The caller that asks for the freeze decides by the mark too
     * (disk/due.h); here the mark is read where it cannot change any more. */
    if ((a.marks & LIVE_REWRITING) != 0 && (p->flags & SNAP_PROVISIONAL) == 0)
        p->flags |= SNAP_PARTIAL;
    p->alloc_bytes = a.alloc_bytes;
    p->dirty_segments = a.dirty_segments;
    p->freeze_ns = now;
    int64_t now_s = now / 1000000000;
    p->name_s = now_s > last_name_s ? now_s : last_name_s < TIME_NAME_MAX ? last_name_s + 1 : TIME_NAME_MAX;
    if (req->owners != NULL) {
        p->mode = req->owners[f->at].mode & 0555;
        p->uid = req->owners[f->at].uid;
        p->gid = req->owners[f->at].gid;
    }
    if (req->label != NULL)
        memcpy(p->label, req->label, strlen(req->label) + 1);
    if (req->note != NULL)
        memcpy(p->note, req->note, strlen(req->note) + 1);
}

/* The head with one more pending level and new open files. head_lock held until the record is written. */
static int next_head(struct frozen *f, const struct snapinfo *p, struct verr *err)
{
    struct live *l = f->l;
    int r = live_head_now(l, &f->nh, err);
    if (r == 0 && live_head_copy(&l->head, &f->old) < 0)
        r = live_fail(l, err, ENOMEM, "no memory");
    if (r < 0)
        return r;
    struct live_head *h = &f->nh;
    h->pend[h->npend++] = (struct live_pend){*p, h->table, h->layer, h->table_bytes, h->map_bytes};
    h->table = f->table->no;
    h->layer = f->layer->no;
    h->table_bytes = h->map_bytes = 0;
    h->next_seq = p->ref.seq + 1;
    h->last_name_s = p->name_s;
    h->changed = false;
    return 0;
}

static int prepare(struct frozen *f, const struct freeze_req *req, const struct vid *group, unsigned n, int64_t now, struct snapinfo *out,
                   struct verr *err)
{
    struct live *l = f->l;
    int r = live_check_failed(l, err);
    if (r < 0)
        return r;
    if (l->nlv >= LIVE_PENDING_MAX)
        return live_fail(l, err, ENOSPC, "%u snapshots are pending already", l->nlv);
    struct snapinfo p;
    fill_pending(f, req, group, n, now, &p);
    const struct live_state st = {
        .size = p.size, .alloc_bytes = p.alloc_bytes, .mtime_ns = atomic_load(&l->mtime_ns), .unknown = atomic_load(&l->unknown)};
    f->lv = malloc((l->nlv + 1) * sizeof *f->lv);
    if (f->lv == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    r = ltable_create(l, live_new_no(l), &f->table, err);
    if (r == 0)
        r = llayer_create(l, live_new_no(l), &st, &f->layer, err);
    if (r == 0)
        r = copy_table(l, p.ref.seq, f->table, err);
    if (r == 0)
        *out = p;
    return r;
}

static void take_back(struct frozen *f)
{
    struct live *l = f->l;
    if (f->recorded) {
        if (lfile_truncate(&l->journal, (off_t)f->jend) < 0)
            atomic_store(&l->failed, EIO);
        l->jend = f->jend;
        l->next_rec--;
        live_head_release(&l->head);
        l->head = f->old;
        f->old = (struct live_head){0};
        f->recorded = false;
    }
}

static int record_all(struct frozen *f, unsigned n, const struct snapinfo *got, struct verr *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        struct live *l = f[i].l;
        int fault = fault_errno("live.freeze.record");
        f[i].jend = l->jend;
        r = fault ? live_fail(l, err, fault, "fault at the freeze record") : next_head(&f[i], &got[i], err);
        if (r == 0)
            r = ljournal_put(l, &f[i].nh, false, err);
        f[i].recorded = r == 0;
    }
    for (unsigned i = n; r < 0 && i-- > 0;)
        take_back(&f[i]);
    return r;
}

static void switch_over(struct frozen *f, uint64_t seq)
{
    struct live *l = f->l;
    if (l->nlv > 0)
        memcpy(f->lv, l->lv, l->nlv * sizeof *f->lv);
    f->lv[l->nlv] = (struct lview){seq, l->cur.table, l->cur.layer};
    free(l->lv);
    l->lv = f->lv;
    l->nlv++;
    l->cur = (struct lview){UINT64_MAX, f->table, f->layer};
    atomic_store(&l->dirty, 0);
    atomic_store(&l->changed, false);
    f->lv = NULL;
    f->table = NULL;
    f->layer = NULL;
}

static void frozen_free(struct frozen *f)
{
    ltable_discard(f->l, f->table);
    llayer_discard(f->l, f->layer);
    free(f->lv);
    live_head_release(&f->nh);
    live_head_release(&f->old);
}

static int freeze_all(struct frozen *f, unsigned n, const struct freeze_req *req, struct snapinfo *got, struct verr *err)
{
    struct vid group = vid_random();
    int64_t now = (int64_t)live_now(f[0].l);
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = prepare(&f[i], req, &group, n, now, &got[i], err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < n; i++)
        pthread_mutex_lock(&f[i].l->head_lock);
    r = record_all(f, n, got, err);
    if (r == 0)
        fault_point("live.freeze.recorded");
    for (unsigned i = 0; r == 0 && i < n; i++)
        switch_over(&f[i], got[i].ref.seq);
    for (unsigned i = n; i-- > 0;)
        pthread_mutex_unlock(&f[i].l->head_lock);
    return r;
}

static int check_request(struct frozen *f, unsigned n, const struct freeze_req *req, struct verr *err)
{
    if ((req->label != NULL && strlen(req->label) > LABEL_MAX) || (req->note != NULL && strlen(req->note) > NOTE_MAX))
        return verr_set(err, EINVAL, "a label may have %d characters, a note %d", LABEL_MAX, NOTE_MAX);
    qsort(f, n, sizeof *f, by_id);
    for (unsigned i = 1; i < n; i++)
        if (by_id(&f[i - 1], &f[i]) == 0)
            return live_fail(f[i].l, err, EINVAL, "is twice in the list of disks to freeze");
    return 0;
}

int live_freeze(struct live **l, unsigned n, const struct freeze_req *req, struct snapinfo *out, struct verr *err)
{
    if (n == 0)
        return verr_set(err, EINVAL, "no disk to freeze");
    struct frozen *f = calloc(n, sizeof *f);
    struct snapinfo *got = calloc(n, sizeof *got);
    int r = f == NULL || got == NULL ? verr_set(err, ENOMEM, "no memory to freeze %u disks", n) : 0;
    for (unsigned i = 0; r == 0 && i < n; i++)
        f[i] = (struct frozen){.l = l[i], .at = i};
    if (r == 0)
        r = check_request(f, n, req, err);
    if (r == 0) {
        for (unsigned i = 0; i < n; i++)
            live_give(f[i].l);
        for (unsigned i = 0; i < n; i++)
            pthread_rwlock_wrlock(&f[i].l->freeze);
        r = freeze_all(f, n, req, got, err);
        for (unsigned i = n; i-- > 0;)
            pthread_rwlock_unlock(&f[i].l->freeze);
        for (unsigned i = 0; i < n; i++)
            frozen_free(&f[i]);
        for (unsigned i = 0; r == 0 && i < n; i++)
            out[f[i].at] = got[i];
    }
    free(f);
    free(got);
    return r;
}
