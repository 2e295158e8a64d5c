/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of snapshots that the catalog refused. The catalog is a cache: what a journal or a recipe says has happened, even if SQLite
 * refuses the row (STATE is full, its device has an error). The agent keeps such a row in memory and takes it for the row of its
 * snapshot. WORK_ROWS (disk/work.h) has owed rows offered again until the catalog takes them; so does each operation that counts,
 * lists or removes snapshots. After a restart, recovery makes the rows anew.
 */
#include "agent/agent_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct owed_row {
    struct owed_row *next;
    struct snaprow row;             /* if deleted: only its id counts */
    bool deleted;
};

/* lock held */
static struct owed_row **find(struct agent *a, const struct vid *snap)
{
    struct owed_row **p = &a->owed;
    while (*p != NULL && !vid_eq(&(*p)->row.info.ref.snap, snap))
        p = &(*p)->next;
    return p;
}

static int owe(struct agent *a, const struct snaprow *row, bool deleted, const struct verr *why)
{
    pthread_mutex_lock(&a->lock);
    struct owed_row **p = find(a, &row->info.ref.snap);
    if (*p == NULL)
        *p = calloc(1, sizeof **p);
    bool ok = *p != NULL;
    if (ok) {
        (*p)->row = *row;
        (*p)->deleted = deleted;
    }
    pthread_mutex_unlock(&a->lock);
    const struct work_item item = {.kind = WORK_ROWS};
    return ok ? work_owe_failed(a->work, &item, why) : -ENOMEM;
}

/* lock held */
static void paid(struct agent *a, const struct vid *snap)
{
    struct owed_row **p = find(a, snap), *gone = *p;
    if (gone != NULL) {
        *p = gone->next;
        free(gone);
    }
}

static int settle_locked(struct agent *a, const struct snaprow *row, bool deleted, struct verr *err)
{
    struct verr why = {0};
    int r = deleted ? catalog_snap_del(a->catalog, &row->info.ref.snap, &why) : catalog_snap_put(a->catalog, row, &why);
    if (r == 0) {
        pthread_mutex_lock(&a->lock);
        paid(a, &row->info.ref.snap);
        pthread_mutex_unlock(&a->lock);
        return 0;
    }
    vlog(VLOG_WARN, "agent", "the catalog does not take snapshot %llu yet: %s", (unsigned long long)row->info.ref.seq, verr_str(&why));
    r = owe(a, row, deleted, &why);
    return r < 0 ? verr_set(err, -r, "out of memory") : 0;
}

static int settle_row(struct agent *a, const struct snaprow *row, bool deleted, struct verr *err)
{
    pthread_mutex_lock(&a->rows_lock);
    int r = settle_locked(a, row, deleted, err);
    pthread_mutex_unlock(&a->rows_lock);
    return r;
}

int agent_row_put(struct agent *a, const struct snaprow *row, struct verr *err)
{
    return settle_row(a, row, false, err);
}

int agent_row_del(struct agent *a, const struct snaprow *row, struct verr *err)
{
    return settle_row(a, row, true, err);
}

int agent_row_get(struct agent *a, const struct vid *snap, struct snaprow *out, struct verr *err)
{
    pthread_mutex_lock(&a->lock);
    const struct owed_row *o = *find(a, snap);
    bool owed = o != NULL, deleted = owed && o->deleted;
    if (owed && !deleted)
        *out = o->row;
    pthread_mutex_unlock(&a->lock);
    if (deleted)
        return verr_set(err, ENOENT, "the snapshot is gone");
    return owed ? 0 : catalog_snap_by_id(a->catalog, snap, out, err);  /* without the lock: the catalog may take long */
}

int agent_row_by_seq(struct agent *a, const struct vid *disk, uint64_t seq, struct snaprow *out, struct verr *err)
{
    pthread_mutex_lock(&a->lock);
    const struct owed_row *o = a->owed;
    while (o != NULL && (o->deleted || o->row.info.ref.seq != seq || !vid_eq(&o->row.info.ref.disk, disk)))
        o = o->next;
    if (o != NULL)
        *out = o->row;
    pthread_mutex_unlock(&a->lock);
    if (o != NULL)
        return 0;
    int n = catalog_snaps(a->catalog, disk, seq - 1, out, 1, err);
    if (n < 0)
        return n;
    return n == 1 && out->info.ref.seq == seq ? 0 : verr_set(err, ENOENT, "there is no such snapshot");
}

static bool first_owed(struct agent *a, struct owed_row *out)
{
    pthread_mutex_lock(&a->lock);
    bool any = a->owed != NULL;
    if (any)
        *out = *a->owed;
    pthread_mutex_unlock(&a->lock);
    return any;
}

/* Stops at the first row that the catalog refuses: it would refuse the others too. */
static int pay_locked(struct agent *a, struct verr *err)
{
    struct owed_row o;
    bool any = false;
    while (first_owed(a, &o)) {
        int r = o.deleted ? catalog_snap_del(a->catalog, &o.row.info.ref.snap, err) : catalog_snap_put(a->catalog, &o.row, err);
        if (r < 0)
            return r;
        any = true;
        pthread_mutex_lock(&a->lock);
        paid(a, &o.row.info.ref.snap);
        pthread_mutex_unlock(&a->lock);
    }
    if (any) {
        /* A note or an owner may have been set meanwhile, in STORE and in the row as it was: STORE knows. */
        const struct work_item item = {.kind = WORK_NAMES};
        work_owe(a->work, &item);
        vlog(VLOG_INFO, "agent", "the catalog has caught up");
    }
    return 0;
}

int agent_rows_pay(struct agent *a, struct verr *err)
{
    pthread_mutex_lock(&a->rows_lock);
    int r = pay_locked(a, err);
    pthread_mutex_unlock(&a->rows_lock);
    return r;
}

void agent_rows_free(struct agent *a)
{
    while (a->owed != NULL) {
        struct owed_row *o = a->owed;
        a->owed = o->next;
        free(o);
    }
}
