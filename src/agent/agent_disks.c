/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walk over all disks. Snapshots of a disk are read from the newest one back to the first good one: what is not stored is newer than
 * what is, so nothing behind a good one matters. A tree that changes meanwhile may show a disk at its old or its new place.
 */
#include "agent/agent_disks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_BATCH = 64, ROWS_FIRST = 2, ROWS_MORE = 16 };

struct walk {
    struct agent *a;
    const struct agent_viewer *who;
    int (*fn)(void *ctx, const struct disk_report *d);
    void *ctx;
    struct verr *err;
    struct agent_failures failures;
    char *path;
    size_t len, cap;
    struct disk_report disk;
    struct snaprow rows[ROWS_MORE];
};

static bool may_see(const struct walk *w, const struct node *n)
{
    return w->who->may_see == NULL || w->who->may_see(w->who->ctx, n);
}

/* ---- the path ---- */

static int path_push(struct walk *w, const char *name, size_t *before)
{
    size_t n = strlen(name);
    *before = w->len;
    if (w->len + n + 2 > w->cap) {
        size_t cap = (w->len + n + 2) * 2;
        char *grown = realloc(w->path, cap);
        if (grown == NULL)
            return verr_set(w->err, ENOMEM, "out of memory");
        w->path = grown;
        w->cap = cap;
    }
    if (w->len > 0)
        w->path[w->len++] = '/';
    memcpy(w->path + w->len, name, n + 1);
    w->len += n;
    return 0;
}

static void path_pop(struct walk *w, size_t before)
{
    w->len = before;
    w->path[before] = '\0';
}

/* ---- one disk ---- */

static int by_disk(const void *key, const void *item)
{
    return memcmp(key, ((const struct work_failure *)item)->item.disk.b, VID_BYTES);
}

static const struct work_failure *failure_of(const struct walk *w, const struct vid *disk)
{
    const struct agent_failures *f = &w->failures;
    const struct work_failure *found = f->n == 0 ? NULL : bsearch(disk->b, f->v, f->n, sizeof *f->v, by_disk);
    while (found != NULL && found > f->v && vid_eq(&found[-1].item.disk, disk))
        found--;
    return found;
}

static uint64_t bytes_to_store(const struct snapinfo *s)
{
    return s->dirty_segments < s->size / SEG_BYTES ? s->dirty_segments * SEG_BYTES : s->size;
}

/* True: the good one is found. */
static bool add_row(struct disk_report *d, const struct snaprow *s)
{
    if (!d->any)
        d->newest = *s;
    d->any = true;
    d->failed += s->state == SNAPST_FAILED;
    if (s->state != SNAPST_STORED) {
        d->pending++;
        d->pending_bytes += bytes_to_store(&s->info);
    } else if ((s->info.flags & SNAP_RECIPE_FLAGS) == 0) {
        d->last_good = *s;
        d->good = true;
    }
    return d->good;
}

static int read_snapshots(struct walk *w, const struct vid *disk)
{
    uint64_t before = UINT64_MAX;
    unsigned want = ROWS_FIRST;
    for (;;) {
        int n = catalog_snaps_back(w->a->catalog, disk, before, w->rows, want, w->err);
        for (int i = 0; i < n; i++) {
            const struct snaprow *s = &w->rows[i];
            bool visible = w->who->may_read == NULL || w->who->may_read(w->who->ctx, s);
            if (visible && add_row(&w->disk, s))
                return 0;
            before = s->info.ref.seq;
        }
        if (n < (int)want)
            return n < 0 ? n : 0;
        want = ROWS_MORE;
    }
}

static int report_disk(struct walk *w, const struct node *n)
{
    memset(&w->disk, 0, sizeof w->disk);
    int r = read_snapshots(w, &n->id);
    if (r < 0)
        return r;
    if ((n->flags & NODE_GONE) != 0 && !w->disk.any)
        return 0;
    w->disk.path = w->path;
    w->disk.node = n;
    w->disk.failure = failure_of(w, &n->id);
    return w->fn(w->ctx, &w->disk);
}

/* ---- the tree ---- */

static int walk_dir(struct walk *w, const struct vid *dir);

static int walk_node(struct walk *w, const struct node *n)
{
    size_t before;
    if (!may_see(w, n))
        return 0;
    int r = path_push(w, n->name, &before);
    if (r < 0)
        return r;
    r = n->kind == NODE_DIR ? walk_dir(w, &n->id) : report_disk(w, n);
    path_pop(w, before);
    return r;
}

static int walk_dir(struct walk *w, const struct vid *dir)
{
    struct node *batch = malloc(NODES_BATCH * sizeof *batch);
    char after[NODE_NAME_MAX + 1] = "";
    int n, r = 0;
    if (batch == NULL)
        return verr_set(w->err, ENOMEM, "out of memory");
    do {
        n = catalog_children(w->a->catalog, dir, after, batch, NODES_BATCH, w->err);
        for (int i = 0; r >= 0 && i < n; i++)
            r = walk_node(w, &batch[i]);
        if (n > 0)
            memcpy(after, batch[n - 1].name, sizeof after);
    } while (r >= 0 && n == NODES_BATCH);
    free(batch);
    return n < 0 ? n : r;
}

/* The walk begins in the middle of the tree: its path is that of the whole tree all the same. */
static int walk_below(struct walk *w, const struct node *below)
{
    char path[4096];
    size_t before;
    if (!may_see(w, below))
        return 0;
    agent_disk_path(w->a, &below->id, path, sizeof path);
    int r = path_push(w, path, &before);
    if (r < 0)
        return r;
    return below->kind == NODE_DIR ? walk_dir(w, &below->id) : report_disk(w, below);
}

int agent_each_disk(struct agent *a, const struct node *below, const struct agent_viewer *who,
                    int (*fn)(void *ctx, const struct disk_report *d), void *ctx, struct verr *err)
{
    struct node root;
    struct walk *w = calloc(1, sizeof *w);
    if (w == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    w->a = a;
    w->who = who;
    w->fn = fn;
    w->ctx = ctx;
    w->err = err;
    int r = agent_rows_pay(a, err);
    if (r == 0)
        r = agent_failures(a, &w->failures, err);
    if (r == 0 && (below == NULL || vid_is_zero(&below->parent)))
        r = (r = names_root(a->names, &root, err)) < 0 ? r : walk_dir(w, &root.id);
    else if (r == 0)
        r = walk_below(w, below);
    free(w->failures.v);
    free(w->path);
    free(w);
    return r;
}
