/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names: the tree of directories, disks and snapshots (docs/design/names.md).
 *
 *   record   STORE/nodes/ID: the truth about a directory or disk
 *   row      catalog: what users see. It differs from the record in two cases: of two nodes with one name the younger one is
 *            shown as NAME~HEX4, and a node whose directory is missing is shown in the root as NAME~lost-HEX4
 *
 * A change runs in the turns of the directories that it concerns (names_turn.c): it writes the record, durably, then the row. After a
 * crash between the two, names_reconcile makes the row follow.
 */
#include "names/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "names/names_internal.h"

static const char root_key[] = "root";

int names_open(struct store *st, struct catalog *c, const struct vclock *clock, struct names **out, struct verr *err)
{
    char hex[VID_HEX];
    struct verr why = {0};
    struct names *n = calloc(1, sizeof *n);
    if (n == NULL)
        return verr_set(err, ENOMEM, "names: out of memory");
    n->store = st;
    n->catalog = c;
    n->clock = clock;
    int r = catalog_get(c, root_key, hex, sizeof hex, &why);
    if (r == -ENOENT || r == -ERANGE)
        r = 0;
    else if (r == 0)
        n->root_known = vid_parse(hex, &n->root) == 0;
    if (r < 0)
        goto out_free;
    r = -pthread_mutex_init(&n->root_lock, NULL);
    if (r < 0) {
        verr_set(&why, -r, "names: no mutex");
        goto out_free;
    }
    n->turns = turns_new();
    if (n->turns == NULL) {
        r = verr_set(&why, ENOMEM, "names: out of memory");
        goto out_root;
    }
    *out = n;
    return 0;

out_root:
    pthread_mutex_destroy(&n->root_lock);
out_free:
    free(n);
    return names_end(r, &why, err);
}

void names_close(struct names *n)
{
    if (n == NULL)
        return;
    turns_free(n->turns);
    pthread_mutex_destroy(&n->root_lock);
    free(n);
}

void names_watch(struct names *n, const struct names_hooks *hooks)
{
    n->hooks = *hooks;
}

bool names_root_id(struct names *n, struct vid *out)
{
    pthread_mutex_lock(&n->root_lock);
    bool known = n->root_known;
    *out = n->root;
    pthread_mutex_unlock(&n->root_lock);
    return known;
}

int names_set_root(struct names *n, const struct vid *root, struct verr *err)
{
    struct vid old;
    if (names_root_id(n, &old) && vid_eq(&old, root))
        return 0;
    char hex[VID_HEX];
    vid_hex(root, hex);
    int r = catalog_set(n->catalog, root_key, hex, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&n->root_lock);
    n->root = *root;
    n->root_known = true;
    pthread_mutex_unlock(&n->root_lock);
    return 0;
}

/* ---- steps of a change ---- */

int names_load(struct names *n, const struct vid *id, struct node *rec, struct node *row, struct verr *err)
{
    struct node found, shown;
    int r = catalog_node_by_id(n->catalog, id, &shown, err);
    if (r < 0)
        return r;
    r = store_node_load(n->store, id, &found, err);
    if (r == -ENOENT)
        catalog_node_del(n->catalog, id, NULL);
    if (r < 0)
        return r;
    *rec = found;
    *row = shown;
    return 0;
}

int names_save(struct names *n, struct node *rec, struct node *row, struct verr *err)
{
    rec->version++;
    int r = store_node_update(n->store, rec, err);
    if (r < 0) {
        names_record_doubted(n, rec, err);
        return r;
    }
    fault_point("names.save.after_record");
    struct node shown = *rec;
    shown.parent = row->parent;
    memcpy(shown.name, row->name, sizeof shown.name);
    r = names_rows_done(n, catalog_node_put(n->catalog, &shown, err), err);
    if (r == 0)
        *row = shown;
    return r;
}

int names_touch(struct names *n, const struct vid *dir, int64_t now, struct verr *err)
{
    struct node d;
    int r = catalog_begin(n->catalog, err);
    if (r < 0)
        return r;
    r = catalog_node_by_id(n->catalog, dir, &d, err);
    if (r == 0) {
        d.mtime_ns = d.ctime_ns = now;
        r = catalog_node_put(n->catalog, &d, err);
    } else if (r == -ENOENT) {      /* another host has removed the directory */
        r = 0;
    }
    if (r == 0)
        return catalog_commit(n->catalog, err);
    catalog_rollback(n->catalog);
    return r;
}

static int settle_one(struct names *n, const struct vid *id, const struct node *leaving, struct verr *err)
{
    struct node rec, row;
    int r = names_load(n, id, &rec, &row, err);
    if (r == -ENOENT || r == -EBADMSG)
        return 0;
    if (r < 0 || strcmp(rec.name, leaving->name) != 0 || !vid_eq(&rec.parent, &row.parent))
        return r;
    memcpy(rec.name, row.name, sizeof rec.name);
    return names_save(n, &rec, &row, err);
}

int names_settle_namesakes(struct names *n, const struct node *row, struct verr *err)
{
    char after[NODE_NAME_MAX + 2];
    struct node other;
    size_t len = strlen(row->name);
    if (len + 1 > NODE_NAME_MAX)
        return 0;
    memcpy(after, row->name, len);
    memcpy(after + len, "~", 2);
    for (;;) {
        int r = catalog_children(n->catalog, &row->parent, after, &other, 1, err);
        if (r <= 0 || strncmp(other.name, row->name, len) != 0 || other.name[len] != '~')
            return r < 0 ? r : 0;
        memcpy(after, other.name, sizeof other.name);
        r = settle_one(n, &other.id, row, err);
        if (r < 0)
            return r;
    }
}

int names_rows_done(struct names *n, int r, const struct verr *why)
{
    static const struct verr unknown = {.text = "the catalog could not be changed"};
    if (r < 0 && n->hooks.behind != NULL)
        n->hooks.behind(n->hooks.ctx, why != NULL ? why : &unknown);
    return r;
}

bool names_record_doubted(struct names *n, const struct node *rec, const struct verr *why)
{
    struct node there;
    if (store_node_load(n->store, &rec->id, &there, NULL) < 0 || there.version != rec->version || !vid_eq(&there.replaces, &rec->replaces))
        return false;
    names_rows_done(n, -EIO, why);
    return true;
}

int names_record_remove(struct names *n, const struct vid *id, struct verr *err)
{
    int r = n->hooks.removal != NULL ? n->hooks.removal(n->hooks.ctx, id, false, err) : 0;
    if (r < 0)
        return r;
    int fault = fault_errno("names.remove.said");
    r = fault == 0 ? store_node_remove(n->store, id, err) : verr_set(err, fault, "removing a record: fault injected");
    if (r < 0 && n->hooks.removal != NULL)
        n->hooks.removal(n->hooks.ctx, id, true, NULL);
    return r;
}

int names_end_replaced(struct names *n, const struct vid *id, struct node *rec, struct verr *err)
{
    uint64_t snaps = 0;
    int r = catalog_snap_count(n->catalog, id, &snaps, err);
    if (r < 0)
        return r;
    r = store_node_load(n->store, id, rec, err);
    if (r == -ENOENT)
        return 0;
    if (r == 0 && (rec->flags & NODE_GONE) != 0)
        return 1;
    if (snaps == 0)     /* its record is not needed, even if it cannot be read */
        return r == 0 || r == -EBADMSG || r == -ENOTSUP ? names_record_remove(n, id, err) : r;
    if (r != 0)
        return r;
    rec->flags |= NODE_GONE;
    rec->ctime_ns = vclock_real_ns(n->clock);
    rec->version++;
    r = store_node_update(n->store, rec, err);
    if (r == 0)
        return 1;
    names_record_doubted(n, rec, err);      /* perhaps not durable: `replaces` must go on saying it */
    return r;
}

int names_drop(struct names *n, const struct node *row, struct verr *err)
{
    struct node rec;
    int r = 0;
    /* A node that this one replaced, and whose own end failed then, would come back once no record says that it is replaced. */
    if (!vid_is_zero(&row->replaces))
        r = names_end_replaced(n, &row->replaces, &rec, err);
    if (r >= 0)
        r = names_record_remove(n, &row->id, err);
    if (r < 0)
        return r;
    fault_point("names.drop.after_record");
    return names_rows_done(n, catalog_node_del(n->catalog, &row->id, err), err);
}

int names_drop_if_empty(struct names *n, const struct node *row, struct verr *err)
{
    uint64_t snaps;
    if (row->kind != NODE_DISK || (row->flags & NODE_GONE) == 0)
        return 0;
    int r = catalog_snap_count(n->catalog, &row->id, &snaps, err);
    if (r < 0 || snaps > 0)
        return r;
    r = names_drop(n, row, err);
    return r < 0 ? r : 1;
}
