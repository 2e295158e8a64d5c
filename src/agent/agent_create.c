/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A new disk, and a removed one whose name is made again. Order: the image is durable and empty -> the record in STORE says that the
 * disk exists, which is the commit (names_create.c) -> the mark `unnamed` goes. A crash in between leaves an image without a name,
 * which recovery removes, or a removed disk that stays removed; never a name without an image, nor one that shows removed data.
 *
 * The image of a removed disk stays while its snapshots are pending, and the end of the last one takes it away. Both happen in the
 * disk's turn: between image and record, nobody may see a removed disk whose image is not needed any more.
 */
#include "agent/agent_internal.h"

#include "base/id.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct making {
    struct agent *a;
    const struct vid *removed;      /* the removed disk whose turn the caller has; NULL: none */
    struct vid disk;                /* the disk whose image was made; zero: none */
};

/* The last sequence number and moment of the history that a removed disk of that name left; a new image continues after them. */
static int history_end(struct agent *a, const struct vid *disk, uint64_t *min_seq, int64_t *last_name_s, struct verr *err)
{
    enum { BATCH = 32 };
    struct snaprow *rows = calloc(BATCH, sizeof *rows);
    if (rows == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    uint64_t after = 0;
    *min_seq = 1;
    *last_name_s = 0;
    int n;
    while ((n = catalog_snaps(a->catalog, disk, after, rows, BATCH, err)) > 0) {
        for (int i = 0; i < n; i++)
            if (rows[i].info.name_s > *last_name_s)
                *last_name_s = rows[i].info.name_s;
        after = rows[n - 1].info.ref.seq;
        *min_seq = after + 1;
    }
    free(rows);
    return n < 0 ? n : 0;
}

/* The old image still serves pending snapshots. It is durably empty before the disk has a name again, so that a crash does not bring
 * removed data back. */
static int empty_image(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct live *l = NULL;
    int r = live_get(a->live, disk, &l, err);
    if (r == 0)
        r = live_renew(l, err);
    if (r == 0)
        r = live_fsync(l, err);
    if (l != NULL)
        live_put(l);
    return r;
}

/* -EAGAIN: the name belongs to a removed disk whose turn the caller has not. */
static int check_turn(const struct making *m, const struct vid *disk, struct verr *err)
{
    struct node known;
    if (m->removed != NULL && vid_eq(m->removed, disk))
        return 0;
    int r = catalog_node_by_id(m->a->catalog, disk, &known, err);
    return r == 0 ? -EAGAIN : r == -ENOENT ? 0 : r;
}

int agent_image_make(struct agent *a, const struct vid *disk, struct live **out, struct verr *err)
{
    uint64_t min_seq = 0;
    int64_t last_name_s = 0;
    int r = history_end(a, disk, &min_seq, &last_name_s, err);
    return r < 0 ? r : live_create(a->live, disk, min_seq, last_name_s, out, err);
}

static int image_again(struct making *m, const struct vid *disk, struct live **out, struct verr *err)
{
    int r = check_turn(m, disk, err);
    return r < 0 ? r : agent_image_make(m->a, disk, out, err);
}

static int take_ready(struct agent *a, struct vid *disk, struct live **out)
{
    struct live *l = NULL;
    int r = live_ready_take(a->live, disk, NULL);
    if (r == 0)
        r = live_get(a->live, disk, &l, NULL);
    if (r == 0)
        r = live_set_mtime(l, vclock_real_ns(a->conf.clock), NULL);
    if (r == 0)
        *out = l;
    else if (l != NULL)
        live_put(l);
    return r;
}

/* A new disk takes an image that was made ahead, with its id. If there is none that can be used, one is made now. */
static int new_image(struct agent *a, struct vid *disk, struct live **out, struct verr *err)
{
    if (take_ready(a, disk, out) == 0)
        return 0;
    *disk = vid_random();
    return live_create(a->live, disk, 1, 0, out, err);
}

static int make_image(void *ctx, struct node *node, struct verr *err)
{
    struct making *m = ctx;
    struct live *l = NULL;
    bool again = !vid_is_zero(&node->id);
    int r = again ? image_again(m, &node->id, &l, err) : new_image(m->a, &node->id, &l, err);
    if (again && r == -EEXIST)
        return empty_image(m->a, &node->id, err);
    if (r < 0)
        return r;
    m->disk = node->id;
    r = live_set_marks(l, LIVE_REWRITING, 0, err);
    live_put(l);
    return r;
}

static void make_ahead(struct pool_task *task)
{
    struct agent *a = (struct agent *)((char *)task - offsetof(struct agent, ahead));
    struct verr why = {0};
    int r = live_ready_make(a->live, &why);
    if (r < 0)      /* a disk that needs one makes it itself, and tells the error if it persists */
        vlog(VLOG_DEBUG, "agent", "images made ahead: %s", verr_str(&why));
    atomic_store(&a->ahead_asked, false);
}

/* One task at a time: the flag goes up here and down at its end. */
static void ask_for_images(struct agent *a)
{
    if (!live_ready_due(a->live) || atomic_exchange(&a->ahead_asked, true))
        return;
    a->ahead = (struct pool_task){.run = make_ahead};
    pool_serial_post(&a->ahead_serial, &a->ahead);
}

/* Making the name failed: removes the image that was made for it. When it is unknown whether the name exists, the image stays, marked
 * as unnamed, and recovery decides at the next start. */
static void unmake_image(struct making *m)
{
    struct node rec;
    if (!vid_is_zero(&m->disk) && store_node_load(m->a->store, &m->disk, &rec, NULL) == -ENOENT)
        live_remove(m->a->live, &m->disk, NULL);
}

/* Takes the mark `unnamed` off the image. This need not be durable: recovery removes no unnamed image that has a name or content. */
static void image_named(struct making *m)
{
    struct live *l = NULL;
    if (vid_is_zero(&m->disk) || live_get(m->a->live, &m->disk, &l, NULL) < 0)
        return;
    live_set_marks(l, 0, LIVE_UNNAMED, NULL);
    live_put(l);
}

static int create_in_turn(struct agent *a, const struct disk_new *d, const struct vid *removed, struct node *out, struct verr *err)
{
    struct making m = {.a = a, .removed = removed};
    int r = names_create_disk(a->names, &d->dir, d->name, d->mode, d->uid, d->gid, make_image, &m, out, err);
    if (r < 0)
        unmake_image(&m);
    else
        image_named(&m);
    ask_for_images(a);
    return r;
}

int agent_disk_create(struct agent *a, const struct disk_new *d, struct node *out, struct verr *err)
{
    struct node old;
    struct turn turn;
    struct verr why;
    int r;
    do {
        why = (struct verr){0};
        r = catalog_node_by_name(a->catalog, &d->dir, d->name, &old, &why);
        bool removed = r == 0 && (old.flags & NODE_GONE) != 0;
        if (removed)            /* a rename that was not finished would strike it again */
            r = agent_tree_ready(a, &why);
        if (removed && r == 0)
            r = agent_ready(a, &old.id, &why);
        if (r < 0 && r != -ENOENT)
            break;
        if (removed)
            turn_take(a->turns, &turn, &old.id, 1);
        r = create_in_turn(a, d, removed ? &old.id : NULL, out, &why);
        if (removed)
            turn_give(a->turns, &turn);
    } while (r == -EAGAIN);
    if (r < 0 && err != NULL)
        *err = why;
    return r;
}
