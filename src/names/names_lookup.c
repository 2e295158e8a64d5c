/* SPDX-License-Identifier: Apache-2.0 */
/* lookup: lookups in the tree and listings of directories. They read only the catalog, and take no lock of names. */
#include "names/names_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int names_root(struct names *n, struct node *out, struct verr *err)
{
    struct vid root;
    if (!names_root_id(n, &root))
        return verr_set(err, ENOENT, "the root directory is not known before the first names_reconcile");
    return catalog_node_by_id(n->catalog, &root, out, err);
}

int names_by_ino(struct names *n, uint64_t ino, struct node *out, struct verr *err)
{
    return ino == NAMES_ROOT_INO ? names_root(n, out, err) : catalog_node_by_ino(n->catalog, ino, out, err);
}

int names_snap_by_ino(struct names *n, uint64_t ino, struct snaprow *out, struct verr *err)
{
    return catalog_snap_by_ino(n->catalog, ino, out, err);
}

/* Finds the snapshot that a parsed name stands for. */
static int find_snap(struct names *n, const struct vid *parent, const struct snapname *s, struct entry *out, struct verr *err)
{
    struct entry e;
    int r = catalog_node_by_name(n->catalog, parent, s->disk, &e.node, err);
    if (r < 0)
        return r;
    if (e.node.kind != NODE_DISK)
        return verr_set(err, ENOENT, "%s is a directory: it has no snapshots of its own", s->disk);
    r = catalog_snap_by_name(n->catalog, &e.node.id, s->label, s->name_s, &e.snap, err);
    if (r < 0)
        return r;
    e.kind = ENTRY_SNAP;
    *out = e;
    return 0;
}

int names_lookup(struct names *n, const struct vid *parent, const char *name, struct entry *out, struct verr *err)
{
    if (strchr(name, '@') == NULL) {
        struct node node;
        int r = catalog_node_by_name(n->catalog, parent, name, &node, err);
        if (r == 0 && (node.flags & NODE_GONE) != 0)
            r = verr_set(err, ENOENT, "%s was removed; its snapshots are still there", name);
        if (r < 0)
            return r;
        memset(out, 0, sizeof *out);
        out->kind = node.kind == NODE_DIR ? ENTRY_DIR : ENTRY_DISK;
        out->node = node;
        return 0;
    }
    /* A dot behind '@' begins the extension. If there is no such snapshot, the dot may belong to the label of a disk that has none. */
    struct snapname s;
    int r = -ENOENT;
    struct verr why = {.code = ENOENT, .text = "no such snapshot"};
    if (snapname_parse(name, &s) > 0)
        r = find_snap(n, parent, &s, out, &why);
    if (r == -ENOENT && snapname_parse_whole(name, &s) > 0)
        r = find_snap(n, parent, &s, out, &why);
    return names_end(r, &why, err);
}

/* ---- listing ---- */

struct list {
    struct names *n;
    int (*fn)(void *ctx, const char *name, const struct entry *e);
    void *ctx;
    struct verr *err;
    struct entry entry;
    char name[NODE_NAME_MAX + 1];
    struct node nodes[NAMES_BATCH];
    struct snaprow snaps[NAMES_BATCH];
};

static int list_snaps(struct list *l, const struct node *disk)
{
    uint64_t after = 0;
    for (;;) {
        int got = catalog_snaps(l->n->catalog, &disk->id, after, l->snaps, NAMES_BATCH, l->err);
        if (got <= 0)
            return got;
        for (int i = 0; i < got; i++) {
            const struct snaprow *s = &l->snaps[i];
            if (snapname_make(disk->name, s->info.label, s->info.name_s, l->name) < 0)
                return verr_set(l->err, ENAMETOOLONG, "%s: no room for the names of its snapshots", disk->name);
            l->entry.kind = ENTRY_SNAP;
            l->entry.snap = *s;
            int r = l->fn(l->ctx, l->name, &l->entry);
            if (r != 0)
                return r;
        }
        after = l->snaps[got - 1].info.ref.seq;
    }
}

static int list_node(struct list *l, const struct node *node)
{
    l->entry.node = *node;
    if ((node->flags & NODE_GONE) == 0) {
        l->entry.kind = node->kind == NODE_DIR ? ENTRY_DIR : ENTRY_DISK;
        memset(&l->entry.snap, 0, sizeof l->entry.snap);
        int r = l->fn(l->ctx, node->name, &l->entry);
        if (r != 0)
            return r;
    }
    return node->kind == NODE_DISK ? list_snaps(l, node) : 0;
}

int names_list(struct names *n, const struct vid *dir, int (*fn)(void *ctx, const char *name, const struct entry *e), void *ctx,
               struct verr *err)
{
    struct list *l = calloc(1, sizeof *l);
    if (l == NULL)
        return verr_set(err, ENOMEM, "names: out of memory");
    l->n = n;
    l->fn = fn;
    l->ctx = ctx;
    l->err = err;
    char after[NODE_NAME_MAX + 1] = "";
    int got, r = 0;
    do {
        got = catalog_children(n->catalog, dir, after, l->nodes, NAMES_BATCH, err);
        if (got < 0)
            r = got;
        for (int i = 0; r == 0 && i < got; i++)
            r = list_node(l, &l->nodes[i]);
        if (got > 0)
            memcpy(after, l->nodes[got - 1].name, sizeof after);
    } while (r == 0 && got == NAMES_BATCH);
    free(l);
    return r > 0 ? 0 : r;
}
