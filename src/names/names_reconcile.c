/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reconcile: makes the catalog's tree follow STORE's node records after a start.
 *
 *   1  records: read every record, keep the fields that decide (about 100 bytes a node)
 *   2  snapshots (names_reconcile_snap.c)
 *   3  drop: nodes that another record replaces (disks become removed ones), removed disks whose last snapshot was removed
 *   4  lost: a node whose directory is missing, or directories that contain each other (two hosts moved them): shown in the root
 *   5  alias: of nodes with one name, the live one, then the oldest one, then that of the lowest id keeps it; the others get ~HEX4
 *   6  rows: rows that are removed or change leave the table first, so that two rows never have one name meanwhile
 *   7  snapshots whose disk has no record: the catalog gets a row of a removed disk for them, so that users can reach them
 *
 * All rows change in one transaction. Removals in STORE come before it and can be repeated.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "store/snaps.h"

enum { WALK_NEW, WALK_NOW, WALK_DONE };
enum { LOST_TOLD = 64 };

void reconcile_report(struct reconcile *rc, bool damaged, const char *fmt, ...)
{
    char text[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (rc->bad != NULL)
        rc->bad(rc->ctx, damaged, text);
}

static int no_memory(struct reconcile *rc)
{
    return verr_set(rc->err, ENOMEM, "names: out of memory for the list of nodes");
}

/* ---- 1: records ---- */

static int by_id(const void *a, const void *b)
{
    const struct rnode *x = a, *y = b;
    return memcmp(x->id.b, y->id.b, VID_BYTES);
}

struct rnode *reconcile_find(struct reconcile *rc, const struct vid *id)
{
    const struct rnode key = {.id = *id};
    return rc->count == 0 ? NULL : bsearch(&key, rc->v, rc->count, sizeof *rc->v, by_id);
}

static int keep(struct reconcile *rc, const struct node *n, bool damaged)
{
    if (rc->count == rc->cap) {
        size_t cap = rc->cap == 0 ? 256 : rc->cap + rc->cap / 2;
        struct rnode *v = realloc(rc->v, cap * sizeof *v);
        if (v == NULL)
            return no_memory(rc);
        rc->v = v;
        rc->cap = cap;
    }
    char *name = strdup(n->name);
    if (name == NULL)
        return no_memory(rc);
    rc->v[rc->count++] = (struct rnode){
        .id = n->id, .parent = n->parent, .replaces = n->replaces, .version = n->version, .btime_ns = n->btime_ns, .kind = n->kind,
        .flags = n->flags, .mode = n->mode, .uid = n->uid, .gid = n->gid, .name = name, .damaged = damaged,
    };
    return 0;
}

static int keep_unreadable(struct reconcile *rc, const struct vid *id)
{
    struct vid *v = realloc(rc->unreadable, (rc->unreadable_count + 1) * sizeof *v);
    if (v == NULL)
        return no_memory(rc);
    rc->unreadable = v;
    v[rc->unreadable_count++] = *id;
    return 0;
}

/* Does the error concern this record only? Then the others are shown nevertheless. */
static bool only_this_one(int r)
{
    return r == -EBADMSG || r == -ENOTSUP || r == -EIO;
}

static int load_one(void *ctx, const struct vid *id)
{
    struct reconcile *rc = ctx;
    struct node n;
    struct verr why = {0};
    int r = store_node_load(rc->n->store, id, &n, &why);
    if (r == -ENOENT)       /* another host has removed it since the listing */
        return 0;
    if (r == 0)
        return keep(rc, &n, false);
    if (!only_this_one(r)) {
        *rc->err = why;
        return r;
    }
    reconcile_report(rc, true, "%s", verr_str(&why));
    r = catalog_node_by_id(rc->n->catalog, id, &n, rc->err);
    if (r == -ENOENT)
        return keep_unreadable(rc, id);
    return r < 0 ? r : keep(rc, &n, true);
}

/* ---- 1b: the root ---- */

static bool older(const struct rnode *a, const struct rnode *b)
{
    if (a->btime_ns != b->btime_ns)
        return a->btime_ns < b->btime_ns;
    return memcmp(a->id.b, b->id.b, VID_BYTES) < 0;
}

/* The most common parent among nodes whose parent has no readable record. */
static bool likely_root(struct reconcile *rc, struct vid *out)
{
    size_t best = 0;
    for (size_t i = 0; i < rc->count; i++) {
        const struct vid *id = &rc->v[i].parent;
        size_t children = 0;
        if (vid_is_zero(id) || vid_eq(id, out) || reconcile_find(rc, id) != NULL)
            continue;
        for (size_t k = 0; k < rc->count; k++)
            children += vid_eq(&rc->v[k].parent, id);
        if (children > best) {
            best = children;
            *out = *id;
        }
    }
    return best > 0;
}

/* Finds the id of a root whose record is damaged or missing and that has no row: the catalog knows the id, or it is guessed. */
static int guess_root(struct reconcile *rc)
{
    struct node root;
    memset(&root, 0, sizeof root);
    if (!names_root_id(rc->n, &root.id) && !likely_root(rc, &root.id))
        return verr_set(rc->err, ENOENT, "%s/nodes: there is no record of the root directory: restore it", store_path(rc->n->store));
    if (catalog_node_by_id(rc->n->catalog, &root.id, &root, NULL) == 0) {
        reconcile_report(rc, true, "nodes: the record of the root directory is gone: shown as it was last");
        int r = keep(rc, &root, true);
        if (r == 0)
            qsort(rc->v, rc->count, sizeof *rc->v, by_id);
        return r;
    }
    root.kind = NODE_DIR;
    root.mode = 0755;
    root.uid = geteuid();
    root.gid = getegid();
    root.atime_ns = root.mtime_ns = root.ctime_ns = root.btime_ns = vclock_real_ns(rc->n->clock);
    memcpy(root.name, "root", sizeof "root");
    reconcile_report(rc, true, "the record of the root directory is damaged or gone: shown with default owner and mode");
    int r = catalog_node_put(rc->n->catalog, &root, rc->err);
    if (r == 0)
        r = keep(rc, &root, true);
    if (r == 0)
        qsort(rc->v, rc->count, sizeof *rc->v, by_id);
    return r;
}

static int choose_root(struct reconcile *rc)
{
    for (int attempt = 0; rc->root == NULL && attempt < 2; attempt++) {
        for (size_t i = 0; i < rc->count; i++) {
            struct rnode *r = &rc->v[i];
            if (vid_is_zero(&r->parent) && r->kind == NODE_DIR && (rc->root == NULL || older(r, rc->root)))
                rc->root = r;
        }
        int r = rc->root == NULL && attempt == 0 ? guess_root(rc) : 0;
        if (r < 0)
            return r;
    }
    return names_set_root(rc->n, &rc->root->id, rc->err);
}

/* ---- 3: nodes to drop ---- */

static int drop(struct reconcile *rc, struct rnode *r)
{
    int e = names_record_remove(rc->n, &r->id, rc->err);
    if (e < 0 && e != -EROFS)   /* a store that is only read keeps the record, and shows it no more */
        return e;
    fault_point("names.reconcile.after_remove");
    r->shown = SHOWN_DROPPED;
    return 0;
}

/* Changes a field or two of a record, and of what is kept of it here. */
static int change_record(struct reconcile *rc, struct rnode *r, uint32_t flags, const struct vid *replaces)
{
    struct node rec;
    int e = store_node_load(rc->n->store, &r->id, &rec, rc->err);
    if (e < 0)
        return e;
    rec.flags |= flags;
    rec.replaces = *replaces;
    rec.version++;
    e = store_node_update(rc->n->store, &rec, rc->err);
    if (e < 0)
        return e;
    r->flags = rec.flags;
    r->replaces = rec.replaces;
    r->version = rec.version;
    return 0;
}

/* A disk that another one replaced is a removed one: it keeps its record, because its snapshots may be known to journals alone yet.
 * NODE_GONE -> `replaces` is cleared, so that the disk can come back. */
static int end_replaced_disk(struct reconcile *rc, struct rnode *by, struct rnode *old)
{
    static const struct vid none;
    if (by->damaged || old->damaged)    /* it could not be cleared, or not be said */
        return 0;
    int r = (old->flags & NODE_GONE) != 0 ? 0 : change_record(rc, old, NODE_GONE, &old->replaces);
    fault_point("names.reconcile.after_gone");
    return r < 0 ? r : change_record(rc, by, 0, &none);
}

static int drop_replaced(struct reconcile *rc)
{
    for (size_t i = 0; i < rc->count; i++) {
        struct rnode *by = &rc->v[i];
        struct rnode *old = vid_is_zero(&by->replaces) ? NULL : reconcile_find(rc, &by->replaces);
        if (old == NULL || old == by || old->shown == SHOWN_DROPPED)
            continue;
        if (old == rc->root || vid_eq(&old->replaces, &by->id)) {
            reconcile_report(rc, false, "nodes: \"%s\" is said to be replaced by \"%s\", but %s: kept", old->name, by->name,
                             old == rc->root ? "is the root directory" : "replaces that one too");
            continue;
        }
        int r = old->kind == NODE_DISK ? end_replaced_disk(rc, by, old) : drop(rc, old);
        if (r < 0)
            return r;
    }
    return 0;
}

/*
 * Drops removed disks without snapshots. While the catalog is new or behind, only the agent's journals know a disk's pending
 * snapshots, so a record is removed only if a row said before this start that the disk is removed. And only if a snapshot of the
 * disk was removed on purpose: the loss of a snapshot is no reason to remove its disk's name.
 */
static int drop_gone(struct reconcile *rc)
{
    for (size_t i = 0; i < rc->count; i++) {
        struct rnode *r = &rc->v[i];
        if (r->kind != NODE_DISK || (r->flags & NODE_GONE) == 0 || r->damaged || r->shown == SHOWN_DROPPED)
            continue;
        struct node row;
        uint64_t snaps = 1;
        int e = catalog_node_by_id(rc->n->catalog, &r->id, &row, rc->err);
        if (e == 0 && (row.flags & NODE_GONE) != 0)
            e = catalog_snap_count(rc->n->catalog, &r->id, &snaps, rc->err);
        if (e == -ENOENT)
            e = 0;
        if (e == 0 && snaps == 0 && (e = reconcile_any_removed(rc, &r->id)) == 1)
            e = drop(rc, r);
        if (e < 0)
            return e;
    }
    return 0;
}

/* ---- 4: lost nodes ---- */

static struct rnode *parent_of(struct reconcile *rc, const struct rnode *r)
{
    struct rnode *p = vid_is_zero(&r->parent) ? NULL : reconcile_find(rc, &r->parent);
    return p == NULL || p->kind != NODE_DIR || p->shown == SHOWN_DROPPED ? NULL : p;
}

static bool walk_ends(const struct reconcile *rc, const struct rnode *r)
{
    return r == rc->root || r->shown == SHOWN_LOST || r->walk == WALK_DONE;
}

/* Walks up from start. A node that is met twice closes a circle: the node with the lowest id in it is cut off from its parent. */
static void cut_circle(struct reconcile *rc, struct rnode *start)
{
    struct rnode *r = start;
    while (!walk_ends(rc, r) && r->walk == WALK_NEW) {
        r->walk = WALK_NOW;
        r = parent_of(rc, r);
    }
    if (!walk_ends(rc, r)) {
        struct rnode *lowest = r;
        for (struct rnode *p = parent_of(rc, r); p != r; p = parent_of(rc, p))
            /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): on a circle each node has a parent */
            if (memcmp(p->id.b, lowest->id.b, VID_BYTES) < 0)
                lowest = p;
        lowest->shown = SHOWN_LOST;
    }
    for (r = start; !walk_ends(rc, r); r = parent_of(rc, r))
        r->walk = WALK_DONE;
}

/* Reports each missing directory once, up to a number of directories. */
static void report_lost(struct reconcile *rc, const struct rnode *r, struct vid *told, unsigned *ntold)
{
    char hex[VID_HEX];
    for (unsigned i = 0; i < *ntold; i++)
        if (vid_eq(&told[i], &r->parent))
            return;
    if (*ntold == LOST_TOLD)
        return;
    told[(*ntold)++] = r->parent;
    vid_hex(&r->parent, hex);
    reconcile_report(rc, true, "%s/nodes/%s: the record of this directory is gone: what it held is in the root, as \"%s~lost-...\"",
                     store_path(rc->n->store), hex, r->name);
}

static void find_lost(struct reconcile *rc)
{
    struct vid told[LOST_TOLD];
    unsigned ntold = 0;
    for (size_t i = 0; i < rc->count; i++) {
        struct rnode *r = &rc->v[i];
        if (r == rc->root || r->shown == SHOWN_DROPPED || parent_of(rc, r) != NULL)
            continue;
        r->shown = SHOWN_LOST;
        if (!vid_is_zero(&r->parent))
            report_lost(rc, r, told, &ntold);
    }
    for (size_t i = 0; i < rc->count; i++)
        if (rc->v[i].shown != SHOWN_DROPPED)
            cut_circle(rc, &rc->v[i]);
}

/* ---- 5: names that several nodes have ---- */

/* Sorts the node that keeps the name first: a damaged one (its row stays), then live before removed, then old before young. */
static int by_claim(const void *a, const void *b)
{
    const struct rnode *x = *(struct rnode *const *)a, *y = *(struct rnode *const *)b;
    int d = memcmp(x->parent.b, y->parent.b, VID_BYTES);
    if (d == 0)
        d = strcmp(x->name, y->name);
    if (d == 0)
        d = (int)y->damaged - (int)x->damaged;
    if (d == 0)
        d = (int)(x->flags & NODE_GONE) - (int)(y->flags & NODE_GONE);
    if (d == 0)
        d = older(x, y) ? -1 : 1;
    return d;
}

static int find_aliases(struct reconcile *rc)
{
    struct rnode **v = malloc((rc->count + 1) * sizeof *v);
    if (v == NULL)
        return no_memory(rc);
    size_t n = 0;
    for (size_t i = 0; i < rc->count; i++)
        if (rc->v[i].shown == SHOWN_PLAIN && &rc->v[i] != rc->root)
            v[n++] = &rc->v[i];
    qsort(v, n, sizeof *v, by_claim);
    for (size_t i = 0; i < n; i++) {
        bool taken = i > 0 && vid_eq(&v[i]->parent, &v[i - 1]->parent) && strcmp(v[i]->name, v[i - 1]->name) == 0;
        bool unfit = v[i]->kind == NODE_DISK ? names_check_disk_name(v[i]->name) < 0 : names_check_node_name(v[i]->name) < 0;
        if (taken || (unfit && !v[i]->damaged))
            v[i]->shown = SHOWN_ALIAS;
    }
    free(v);
    return 0;
}

/* ---- 6: rows ---- */

static int drop_row(void *ctx, const struct node *row)
{
    struct reconcile *rc = ctx;
    struct rnode *r = reconcile_find(rc, &row->id);
    bool goes = r == NULL || r->shown == SHOWN_DROPPED;
    if (r != NULL && !goes) {
        bool same = r->shown == SHOWN_PLAIN && row->version == r->version && vid_eq(&row->parent, &r->parent) &&
                    strcmp(row->name, r->name) == 0;
        r->write = !same;
        goes = !same && !r->damaged;
    }
    return goes ? catalog_node_del(rc->n->catalog, &row->id, rc->err) : 0;
}

static int fetch(struct reconcile *rc, const struct rnode *r, struct node *out)
{
    int e = r->damaged ? catalog_node_by_id(rc->n->catalog, &r->id, out, rc->err) : store_node_load(rc->n->store, &r->id, out, rc->err);
    if (e == 0)
        out->version = r->version;  /* if the record has changed since step 1, the next reconcile notices */
    return e;
}

static int put_plain(struct reconcile *rc, struct rnode *r)
{
    struct node n;
    int e = fetch(rc, r, &n);
    if (e < 0)
        return e == -ENOENT ? 0 : e;
    n.parent = r->parent;
    memset(n.name, 0, sizeof n.name);
    memcpy(n.name, r->name, strlen(r->name));
    e = catalog_node_put(rc->n->catalog, &n, rc->err);
    if (e == -EEXIST)       /* as an alias, then */
        r->shown = SHOWN_ALIAS;
    return e == -EEXIST ? 0 : e;
}

/* NAME + mark + the first digits of the id, with NAME shortened so that a disk's snapshots can still be named. */
static void alias_name(const struct rnode *r, const char *mark, int digits, char out[NODE_NAME_MAX + 1])
{
    char hex[VID_HEX];
    vid_hex(&r->id, hex);
    size_t tail = strlen(mark) + (size_t)digits, len = strlen(r->name);
    size_t room = (r->kind == NODE_DISK ? DISK_NAME_MAX : NODE_NAME_MAX) - tail;
    if (len > room) {
        len = room;
        while (len > 0 && ((unsigned char)r->name[len] & 0xc0) == 0x80)     /* not inside a UTF-8 character */
            len--;
    }
    snprintf(out, NODE_NAME_MAX + 1, "%.*s%s%.*s", (int)len, r->name, mark, digits, hex);
    for (char *p = out; *p != '\0'; p++)
        if (*p == '@' || *p == '/')
            *p = '_';
}

static int put_alias(struct reconcile *rc, struct rnode *r)
{
    struct node n, other;
    int e = fetch(rc, r, &n);
    if (e < 0)
        return e == -ENOENT ? 0 : e;
    bool lost = r->shown == SHOWN_LOST;
    n.parent = lost ? rc->root->id : r->parent;
    for (int digits = 4; digits < VID_HEX; digits *= 2) {
        char name[NODE_NAME_MAX + 1];
        alias_name(r, lost ? "~lost-" : "~", digits, name);
        e = catalog_node_by_name(rc->n->catalog, &n.parent, name, &other, rc->err);
        if (e == 0 && !vid_eq(&other.id, &n.id))
            continue;
        if (e < 0 && e != -ENOENT)
            return e;
        memset(n.name, 0, sizeof n.name);
        memcpy(n.name, name, strlen(name));
        return catalog_node_put(rc->n->catalog, &n, rc->err);
    }
    reconcile_report(rc, false, "nodes: no free name for \"%s\"", r->name);
    return 0;
}

static int put_rows(struct reconcile *rc)
{
    for (size_t i = 0; i < rc->count; i++)
        rc->v[i].write = true;
    int r = catalog_node_each(rc->n->catalog, drop_row, rc, rc->err);
    for (size_t i = 0; r == 0 && i < rc->count; i++)
        if (rc->v[i].shown == SHOWN_PLAIN && rc->v[i].write)
            r = put_plain(rc, &rc->v[i]);
    for (size_t i = 0; r == 0 && i < rc->count; i++)
        if (rc->v[i].shown == SHOWN_ALIAS || rc->v[i].shown == SHOWN_LOST)
            r = put_alias(rc, &rc->v[i]);
    return r;
}

/* ---- 7: snapshots without a disk ---- */

/* Makes the node of a removed disk for snapshots without one: in its VM's directory if the recipe names one that exists, else in the
 * root. */
static void stand_in(struct reconcile *rc, const struct snaprow *s, struct node *out)
{
    char hex[VID_HEX];
    struct snaprcp rcp;
    memset(out, 0, sizeof *out);
    out->id = s->info.ref.disk;
    out->parent = rc->root->id;
    out->kind = NODE_DISK;
    out->flags = NODE_GONE;
    out->mode = s->info.mode;
    out->uid = s->info.uid;
    out->gid = s->info.gid;
    out->atime_ns = out->mtime_ns = out->ctime_ns = out->btime_ns = s->info.freeze_ns;
    vid_hex(&s->info.ref.disk, hex);
    snprintf(out->name, sizeof out->name, "lost-%.8s", hex);
    if (snaps_header(rc->n->store, &s->info.ref, &rcp, NULL) == 0) {
        const struct rnode *vm = reconcile_find(rc, &rcp.vm);
        if (vm != NULL && vm->kind == NODE_DIR && vm->shown != SHOWN_DROPPED)
            out->parent = vm->id;
    }
}

static int adopt_snaps(struct reconcile *rc, const struct vid *disk)
{
    struct snaprow latest;
    struct node n;
    int r = catalog_node_by_id(rc->n->catalog, disk, &n, rc->err);
    if (r != -ENOENT)
        return r;
    r = catalog_snap_latest(rc->n->catalog, disk, &latest, rc->err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;    /* the disk has only pending snapshots, which the agent knows */
    stand_in(rc, &latest, &n);
    reconcile_report(rc, true, "snapshots of a disk without node record are shown as those of %s", n.name);
    r = catalog_node_put(rc->n->catalog, &n, rc->err);
    if (r == -EEXIST) {
        vid_hex(disk, n.name + strlen("lost-"));
        r = catalog_node_put(rc->n->catalog, &n, rc->err);
    }
    return r;
}

static int adopt_all(struct reconcile *rc)
{
    struct vid disks[NAMES_BATCH], after = {{0}};
    int got, r = 0;
    do {
        got = catalog_snap_disks(rc->n->catalog, &after, disks, NAMES_BATCH, rc->err);
        if (got < 0)
            return got;
        for (int i = 0; r == 0 && i < got; i++)
            r = adopt_snaps(rc, &disks[i]);
        if (got > 0)
            after = disks[got - 1];
    } while (r == 0 && got == NAMES_BATCH);
    return r;
}

/* ---- all of it ---- */

static int report_stray(void *ctx, const char *path)
{
    reconcile_report(ctx, false, "%s/%.300s is no node record: move it away", store_path(((struct reconcile *)ctx)->n->store), path);
    return 0;
}

static int reconcile_in_turn(struct reconcile *rc)
{
    int r = store_node_each(rc->n->store, load_one, rc, rc->err);
    if (r == 0)
        r = store_node_strays(rc->n->store, report_stray, rc, rc->err);
    if (r < 0)
        return r;
    if (rc->count > 0)
        qsort(rc->v, rc->count, sizeof *rc->v, by_id);
    r = reconcile_snaps(rc);
    if (r == 0)
        r = choose_root(rc);
    if (r == 0)
        r = drop_replaced(rc);
    if (r == 0)
        r = drop_gone(rc);
    if (r < 0)
        return r;
    find_lost(rc);
    r = find_aliases(rc);
    if (r == 0)
        r = put_rows(rc);
    return r < 0 ? r : adopt_all(rc);
}

int names_reconcile(struct names *n, void (*bad)(void *ctx, bool damaged, const char *what), void *ctx, struct verr *err)
{
    struct verr why = {0};
    struct reconcile rc = {.n = n, .bad = bad, .ctx = ctx, .err = &why};
    struct turn turn;
    turn_take_all(n->turns, &turn);
    int r = catalog_begin(n->catalog, &why);
    if (r == 0) {
        r = reconcile_in_turn(&rc);
        if (r == 0)
            r = catalog_commit(n->catalog, &why);
        else
            catalog_rollback(n->catalog);
    }
    turn_give(n->turns, &turn);
    for (size_t i = 0; i < rc.count; i++)
        free(rc.v[i].name);
    free(rc.v);
    free(rc.unreadable);
    free(rc.trash);
    return names_end(r, &why, err);
}
