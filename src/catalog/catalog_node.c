/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of directories and disks. */
#include "catalog/catalog_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- struct node <-> row ---- */

/* Checks a node before it is written and after it is read. Returns NULL, or the column that makes no sense. */
static const char *node_doubt(const struct node *n)
{
    if (vid_is_zero(&n->id))
        return "id";
    if (vid_eq(&n->id, &n->parent))
        return "parent";
    if (n->kind != NODE_DIR && n->kind != NODE_DISK)
        return "kind";
    if (n->kind == NODE_DIR && (n->flags & NODE_GONE) != 0)
        return "flags";
    if (n->mode > 07777)
        return "mode";
    size_t len = strnlen(n->name, sizeof n->name);
    if (len > NODE_NAME_MAX)
        return "name";
    if (!vid_is_zero(&n->parent) && (len == 0 || memchr(n->name, '/', len) != NULL))
        return "name";
    return NULL;
}

static int read_node(struct catalog_use *u, struct node *out, struct verr *err)
{
    struct node n;
    memset(&n, 0, sizeof n);
    read_id(u, "id", &n.id);
    int64_t ino = read_int(u, "ino", 0, INT64_MAX);
    read_id(u, "parent", &n.parent);
    read_id(u, "replaces", &n.replaces);
    n.version = read_u64(u, "version");
    n.kind = read_u32(u, "kind");
    n.flags = read_u32(u, "flags");
    n.mode = read_u32(u, "mode");
    n.uid = read_u32(u, "uid");
    n.gid = read_u32(u, "gid");
    n.atime_ns = read_int(u, "atime_ns", INT64_MIN, INT64_MAX);
    n.mtime_ns = read_int(u, "mtime_ns", INT64_MIN, INT64_MAX);
    n.ctime_ns = read_int(u, "ctime_ns", INT64_MIN, INT64_MAX);
    n.btime_ns = read_int(u, "btime_ns", INT64_MIN, INT64_MAX);
    read_bytes(u, "name", SQLITE_BLOB, n.name, sizeof n.name);
    const char *bad = u->bad != NULL ? u->bad : node_doubt(&n);
    if (bad == NULL && (uint64_t)ino != vid_ino(&n.id))
        bad = "ino";
    if (bad != NULL)
        return catalog_bad_row(u->c, "nodes", bad, err);
    *out = n;
    return 0;
}

int catalog_node_put(struct catalog *c, const struct node *n, struct verr *err)
{
    const char *bad = node_doubt(n);
    if (bad != NULL)
        return verr_set(err, EINVAL, "%s: a node without sensible %s is not entered", c->path, bad);
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_PUT, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, &n->id);
    bind_u64(&u, vid_ino(&n->id));
    bind_id(&u, &n->parent);
    bind_id(&u, &n->replaces);
    bind_u64(&u, n->version);
    bind_int(&u, n->kind);
    bind_int(&u, n->flags);
    bind_int(&u, n->mode);
    bind_int(&u, n->uid);
    bind_int(&u, n->gid);
    bind_int(&u, n->atime_ns);
    bind_int(&u, n->mtime_ns);
    bind_int(&u, n->ctime_ns);
    bind_int(&u, n->btime_ns);
    bind_bytes(&u, n->name, strlen(n->name));
    return catalog_run(&u, "entering a node", err);
}

int catalog_node_del(struct catalog *c, const struct vid *id, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_DEL, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, id);
    return catalog_run(&u, "removing a node", err);
}

/* ---- searches ---- */

/* Runs a search whose parameters are bound, and reads its only row. */
static int one_node(struct catalog_use *u, struct node *out, struct verr *err)
{
    int r = catalog_step(u, "looking for a node", err);
    if (r == 0)
        r = verr_set(err, ENOENT, "no such directory or disk");
    else if (r > 0)
        r = read_node(u, out, err);
    catalog_done(u);
    return r;
}

int catalog_node_by_id(struct catalog *c, const struct vid *id, struct node *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_BY_ID, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, id);
    return one_node(&u, out, err);
}

int catalog_node_by_ino(struct catalog *c, uint64_t ino, struct node *out, struct verr *err)
{
    if (ino > INT64_MAX)
        return verr_set(err, ENOENT, "no such directory or disk");
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_BY_INO, &u, err);
    if (r < 0)
        return r;
    bind_u64(&u, ino);
    return one_node(&u, out, err);
}

int catalog_node_by_name(struct catalog *c, const struct vid *parent, const char *name, struct node *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_BY_NAME, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, parent);
    bind_bytes(&u, name, strlen(name));
    return one_node(&u, out, err);
}

static int many_nodes(struct catalog_use *u, struct node *out, unsigned max, struct verr *err)
{
    unsigned n = 0;
    int r = 0;
    while (n < max && (r = catalog_step(u, "listing nodes", err)) > 0) {
        r = read_node(u, &out[n], err);
        if (r < 0)
            break;
        n++;
    }
    catalog_done(u);
    return r < 0 ? r : (int)n;
}

int catalog_children(struct catalog *c, const struct vid *parent, const char *after, struct node *out, unsigned max, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_CHILDREN, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, parent);
    bind_bytes(&u, after, strlen(after));
    bind_int(&u, max);
    return many_nodes(&u, out, max, err);
}

int catalog_child_count(struct catalog *c, const struct vid *parent, uint64_t *dirs, uint64_t *all, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_COUNT, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, parent);
    uint64_t found_dirs = 0, found = 0;
    while ((r = catalog_step(&u, "counting nodes", err)) > 0) {
        uint32_t kind = read_u32(&u, "kind");
        uint64_t n = read_u64(&u, "count");
        found_dirs += kind == NODE_DIR ? n : 0;
        found += n;
    }
    if (r == 0 && u.bad != NULL)
        r = catalog_bad_row(c, "nodes", u.bad, err);
    catalog_done(&u);
    if (r == 0) {
        *dirs = found_dirs;
        *all = found;
    }
    return r;
}

static int node_batch(struct catalog *c, const struct vid *after, bool first, struct node *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_NODE_EACH, &u, err);
    if (r < 0)
        return r;
    bind_bytes(&u, after->b, first ? 0 : VID_BYTES);
    bind_int(&u, CATALOG_BATCH);
    return many_nodes(&u, out, CATALOG_BATCH, err);
}

int catalog_node_each(struct catalog *c, int (*fn)(void *ctx, const struct node *n), void *ctx, struct verr *err)
{
    struct node *batch = malloc(CATALOG_BATCH * sizeof *batch);
    if (batch == NULL)
        return verr_set(err, ENOMEM, "catalog: out of memory");
    struct vid after = {{0}};
    bool first = true;
    int n, r = 0;
    do {
        n = node_batch(c, &after, first, batch, err);
        if (n < 0)
            r = n;
        for (int i = 0; r == 0 && i < n; i++)
            r = fn(ctx, &batch[i]);
        if (n > 0)
            after = batch[n - 1].id;
        first = false;
    } while (r == 0 && n == CATALOG_BATCH);
    free(batch);
    return r;
}
