/* SPDX-License-Identifier: Apache-2.0 */
/* turn: whose turns a change takes. The ids are known from the catalog only, where they may change until the turns are taken; so the
 * catalog is asked again in these turns, and if the ids differ, all of it is done anew. */
#include "names/names_internal.h"

#include <errno.h>

/* What a directory takes in addition when it moves to another one. No node has this id. */
static const struct vid moves;

static void add(struct names_turn *t, const struct vid *id)
{
    t->ids[t->n++] = *id;
}

/* The directory of the node, and the node itself if it is one. */
static int add_node(struct names *n, struct names_turn *t, const struct vid *id, struct node *row, struct verr *err)
{
    int r = catalog_node_by_id(n->catalog, id, row, err);
    if (r == 0 && !vid_is_zero(&row->parent))
        add(t, &row->parent);
    if (r == 0 && row->kind == NODE_DIR)
        add(t, id);
    return r;
}

static int collect(struct names *n, const struct concerned *c, struct names_turn *t, struct verr *err)
{
    struct node row = {0}, there;
    int r = 0;
    t->n = 0;
    if (c->other != NULL)
        r = add_node(n, t, c->other, &row, err);
    if (r == 0 && c->node != NULL)
        r = add_node(n, t, c->node, &row, err);
    if (r == -ENOENT && c->perhaps)
        r = 0;
    if (r < 0 || c->dir == NULL)
        return r;
    add(t, c->dir);
    if (c->name == NULL)
        return 0;
    if (row.kind == NODE_DIR && !vid_eq(&row.parent, c->dir))
        add(t, &moves);
    r = catalog_node_by_name(n->catalog, c->dir, c->name, &there, err);
    if (r == 0 && there.kind == NODE_DIR)
        add(t, &there.id);
    return r == -ENOENT ? 0 : r;
}

static bool same_ids(const struct names_turn *a, const struct names_turn *b)
{
    for (unsigned i = 0; i < a->n && i < b->n; i++)
        if (!vid_eq(&a->ids[i], &b->ids[i]))
            return false;
    return a->n == b->n;
}

int names_turn_take(struct names *n, const struct concerned *c, struct names_turn *t, struct verr *err)
{
    for (;;) {
        struct names_turn now;
        int r = collect(n, c, t, err);
        if (r < 0)
            return r;
        turn_take(n->turns, &t->turn, t->ids, t->n);
        r = collect(n, c, &now, err);
        if (r == 0 && same_ids(t, &now))
            return 0;
        turn_give(n->turns, &t->turn);
        if (r < 0)
            return r;
    }
}

void names_turn_give(struct names *n, struct names_turn *t)
{
    turn_give(n->turns, &t->turn);
}
