/* SPDX-License-Identifier: Apache-2.0 */
/* node: the records in nodes/, one file per directory or disk, named by its id. Format: format/node.h. */
#include "base/verr.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int store_node_create(struct store *st, const struct node *node, struct verr *err)
{
    uint8_t record[NODE_RECORD_MAX];
    char hex[VID_HEX];
    vid_hex(&node->id, hex);
    size_t len = node_encode(node, record);
    int r = len == 0 ? -EINVAL : bk_create(st->b, "nodes", hex, record, len);
    return r < 0 ? store_fail(st, DIR_NODES, hex, r, "creating", err) : 0;
}

int store_node_update(struct store *st, const struct node *node, struct verr *err)
{
    uint8_t record[NODE_RECORD_MAX];
    char hex[VID_HEX];
    vid_hex(&node->id, hex);
    /* A late change must not bring back a record that was removed. */
    struct bstat there;
    int r = bk_stat_name(st->b, "nodes", hex, &there);
    if (r < 0)
        return store_fail(st, DIR_NODES, hex, r, "updating", err);
    size_t len = node_encode(node, record);
    r = len == 0 ? -EINVAL : bk_replace(st->b, "nodes", hex, record, len);
    return r < 0 ? store_fail(st, DIR_NODES, hex, r, "updating", err) : 0;
}

int store_node_load(struct store *st, const struct vid *id, struct node *out, struct verr *err)
{
    char hex[VID_HEX];
    vid_hex(id, hex);
    uint8_t *data;
    size_t len;
    int r = bk_load(st->b, "nodes", hex, NODE_RECORD_MAX, &data, &len);
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return verr_set(err, EBADMSG, "%s/nodes/%s is damaged: not a file of at most %d bytes", st->path, hex, NODE_RECORD_MAX);
    if (r < 0)
        return store_fail(st, DIR_NODES, hex, r, "reading", err);
    const char *why = "";
    struct node node;
    r = node_decode(data, len, &node, &why);
    free(data);
    if (r == 0 && !vid_eq(&node.id, id)) {
        why = "it is the record of another node";
        r = -EBADMSG;
    }
    if (r == -EBADMSG)
        return verr_set(err, EBADMSG, "%s/nodes/%s is damaged: %s", st->path, hex, why);
    if (r < 0)
        return verr_set(err, -r, "%s/nodes/%s: %s", st->path, hex, why);
    *out = node;
    return 0;
}

int store_node_remove(struct store *st, const struct vid *id, struct verr *err)
{
    char hex[VID_HEX];
    vid_hex(id, hex);
    int r = bk_remove(st->b, "nodes", hex);
    if (r < 0 && r != -ENOENT)
        return store_fail(st, DIR_NODES, hex, r, "removing", err);
    r = bk_sync(st->b, "nodes");
    return r < 0 ? store_fail(st, DIR_NODES, NULL, r, "fsync of", err) : 0;
}

struct each {
    int (*fn)(void *ctx, const struct vid *id);     /* NULL: the walk is for strays */
    int (*stray)(void *ctx, const char *path);
    void *ctx;
    bool listing;   /* true: an error comes from the listing; false: from one of the functions */
};

static int each_entry(void *ctx, const char *name)
{
    struct each *e = ctx;
    struct vid id;
    if (name[0] == '.')
        return 0;
    bool record = vid_parse(name, &id) == 0;
    if (record != (e->fn != NULL))
        return 0;
    char path[8 + NODE_NAME_MAX];
    snprintf(path, sizeof path, "nodes/%s", name);
    int r = record ? e->fn(e->ctx, &id) : e->stray(e->ctx, path);
    e->listing = r == 0;
    return r;
}

static int each(struct store *st, struct each *e, struct verr *err)
{
    int r = bk_list(st->b, "nodes", each_entry, e);
    return r < 0 && e->listing ? store_fail(st, DIR_NODES, NULL, r, "listing", err) : r;
}

int store_node_each(struct store *st, int (*fn)(void *ctx, const struct vid *id), void *ctx, struct verr *err)
{
    return each(st, &(struct each){.fn = fn, .ctx = ctx, .listing = true}, err);
}

int store_node_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err)
{
    return each(st, &(struct each){.stray = fn, .ctx = ctx, .listing = true}, err);
}
