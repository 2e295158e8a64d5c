/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attempts at what the daemon owes besides storing: a recovery, a settling, a freeze, a removal, rows, names, the reserve, each of
 * which failed for a reason that may pass. disk/work.h keeps the list and says when an attempt is due. An attempt at a freeze freezes
 * what the disk holds then; an attempt at the names compares the tree with STORE as at the start.
 */
#include "agent/agent_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void agent_wake(void *agent)
{
    struct agent *a = agent;
    pthread_mutex_lock(&a->lock);
    a->kicked = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
}

void agent_kick(struct agent *a)
{
    work_nudge(a->work);
}

/* From the end to the front, as the tree is climbed. */
void agent_disk_path(struct agent *a, const struct vid *disk, char *out, size_t cap)
{
    static const char cut[] = "...";
    char hex[VID_HEX];
    struct node n;
    size_t at = cap - 1;
    out[at] = '\0';
    int r = catalog_node_by_id(a->catalog, disk, &n, NULL);
    while (r == 0 && !vid_is_zero(&n.parent)) {
        size_t len = strlen(n.name);
        bool fits = len + sizeof cut < at;
        const char *name = fits ? n.name : cut;
        len = fits ? len : sizeof cut - 1;
        at -= len;
        memcpy(out + at, name, len);
        if (!fits)
            break;
        out[--at] = '/';
        const struct vid up = n.parent;
        r = catalog_node_by_id(a->catalog, &up, &n, NULL);
    }
    at += out[at] == '/';
    memmove(out, out + at, cap - at);
    vid_hex(disk, hex);
    if (out[0] == '\0')
        snprintf(out, cap, "disk:%s", hex);
}

void agent_snap_path(struct agent *a, const struct snapinfo *s, char *out, size_t cap)
{
    char disk[PATH_TEXT], name[NODE_NAME_MAX + 1];
    agent_disk_path(a, &s->ref.disk, disk, sizeof disk);
    char *slash = strrchr(disk, '/'), *base = slash == NULL ? disk : slash + 1;
    struct node node;
    if (catalog_node_by_id(a->catalog, &s->ref.disk, &node, NULL) == 0 && snapname_make(node.name, s->label, s->name_s, name) == 0)
        snprintf(out, cap, "%.*s%s", (int)(base - disk), disk, name);
    else
        snprintf(out, cap, "%s@%llu", disk, (unsigned long long)s->ref.seq);
}

/* ---- owing ---- */

int agent_owe_store(struct agent *a, const struct vid *disk)
{
    const struct work_item item = {.disk = *disk, .kind = WORK_STORE};
    return work_owe(a->work, &item);
}

const char *agent_work_text(enum work_kind kind)
{
    static const char *const text[WORK_KINDS] = {
        [WORK_RECOVER] = "its recovery", [WORK_SETTLE] = "settling a snapshot", [WORK_FREEZE] = "its snapshot", [WORK_ZEROS] = "its snapshot",
        [WORK_FORGET] = "removing its image", [WORK_ROWS] = "its rows in the catalog", [WORK_STORE] = "storing its snapshot",
        [WORK_NAMES] = "its place in the catalog", [WORK_RESERVE] = "the space kept for removals",
    };
    return text[kind];
}

void agent_who_text(struct agent *a, const struct vid *disk, char *out, size_t cap)
{
    if (vid_is_zero(disk))
        snprintf(out, cap, "the tree");
    else
        agent_disk_path(a, disk, out, cap);
}

static void owe_failed(struct agent *a, const struct work_item *item, const struct verr *why)
{
    char path[PATH_TEXT];
    /* Without memory to note the item, the next start does the work: recovery finds all of it by itself. */
    work_owe_failed(a->work, item, why);
    if (work_only_waits(item->kind, why))
        return;
    agent_disk_path(a, &item->disk, path, sizeof path);
    agent_say(a, VLOG_WARN, vid_is_zero(&item->disk) ? NULL : path, "%s failed and will be tried again: %s", agent_work_text(item->kind),
              verr_str(why));
}

void agent_owe(struct agent *a, const struct vid *disk, enum work_kind kind, uint32_t arg, const struct verr *why)
{
    const struct work_item item = {.disk = *disk, .kind = kind, .arg = arg};
    owe_failed(a, &item, why);
}

void agent_owe_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, const struct verr *why)
{
    const struct work_item item = {.disk = *disk, .kind = WORK_SETTLE, .seq = seq, .arg = clean ? WORK_CLEAN : 0};
    owe_failed(a, &item, why);
}

/* ---- attempts, in the turn of the disk ---- */

/* Freezes what the last writer left (DUE_LATE): the freeze at its release failed; or an image of zeros (DUE_ZEROS): that at its settling. */
static int try_freeze(struct agent *a, const struct vid *disk, enum due_occasion occasion, bool unclean, struct verr *err)
{
    struct node node;
    struct live *l = NULL;
    struct due_case late = {.occasion = occasion, .node = &node, .unclean = unclean};
    int r = catalog_node_by_id(a->catalog, disk, &node, err);
    if (r == 0 && !due_possible(&late))
        return 0;
    if (r == 0)
        r = live_get(a->live, disk, &l, err);
    if (r == 0)
        r = agent_freeze_due_locked(a, &late, l, NULL, err);
    if (l != NULL)
        live_put(l);
    return r;
}

static int attempt(struct agent *a, const struct work_item *item, struct verr *err)
{
    int r = 0;
    if (item->kind == WORK_RECOVER)
        r = agent_recover_disk(a, &item->disk, err);
    else if (item->kind == WORK_SETTLE)
        r = agent_settle_late(a, &item->disk, item->seq, (item->arg & WORK_CLEAN) != 0, err);
    else if (item->kind == WORK_FREEZE)
        r = try_freeze(a, &item->disk, DUE_LATE, (item->arg & WORK_PARTIAL) != 0, err);
    else if (item->kind == WORK_ZEROS)
        r = try_freeze(a, &item->disk, DUE_ZEROS, false, err);
    else if (item->kind == WORK_FORGET)
        r = agent_forget_if_gone(a, &item->disk, err);
    else if (item->kind == WORK_ROWS)
        r = agent_rows_pay(a, err);
    else if (item->kind == WORK_RESERVE)
        r = agent_reserve_fill(a, err);
    return r == -ENOENT && item->kind != WORK_RECOVER ? 0 : r;      /* -ENOENT: removed meanwhile */
}

static void end(struct agent *a, const struct work_item *item, int r, const struct verr *why)
{
    char path[PATH_TEXT];
    if (r >= 0)
        work_done(a->work, item);
    else
        work_failed(a->work, item, why, NULL);
    if (item->kind == WORK_RESERVE || (r >= 0 && item->failures == 0) || (r < 0 && work_only_waits(item->kind, why)))
        return;
    agent_who_text(a, &item->disk, path, sizeof path);
    if (r < 0)
        vlog(VLOG_WARN, "agent", "%s: %s failed again: %s", QUOTED(path), agent_work_text(item->kind), verr_str(why));
    else
        agent_say(a, VLOG_DEBUG, vid_is_zero(&item->disk) ? NULL : path, "%s succeeded at last", agent_work_text(item->kind));
}

static int forget_one(void *ctx, const struct vid *disk)
{
    agent_forget_in_turn(ctx, disk);
    return 0;
}

/* Compares the tree of names with STORE, in the turn of the tree (the zero id), then removes images whose records are gone, each in its
 * own turn. 0 also if that is no longer owed. */
static int try_tree(struct agent *a, struct verr *err)
{
    static const struct vid tree;
    struct work_item item;
    struct turn turn;
    turn_take(a->turns, &turn, &tree, 1);
    bool any = work_take_one(a->work, &tree, WORK_NAMES, &item);
    int r = any ? names_reconcile(a->names, agent_report_bad, a, err) : 0;
    if (any)
        end(a, &item, r, err);
    turn_give(a->turns, &turn);
    return any && r >= 0 ? live_set_each(a->live, forget_one, a, err) : r;
}

static bool is_stopping(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    bool stopping = a->stopping;
    pthread_mutex_unlock(&a->lock);
    return stopping;
}

/* Takes the turn before the item, so that two attempts at one disk cannot meet: the second would recover a disk that is in use by
 * then. 0 also if the item is no longer owed. */
static int try_disk(struct agent *a, const struct vid *disk, enum work_kind kind, struct verr *err)
{
    struct work_item item;
    struct turn turn;
    int r = 0;
    turn_take(a->turns, &turn, disk, 1);
    if (work_take_one(a->work, disk, kind, &item)) {
        r = attempt(a, &item, err);
        end(a, &item, r, err);
    }
    turn_give(a->turns, &turn);
    return r;
}

void agent_work_run(struct agent *a)
{
    struct work_item item;
    while (!is_stopping(a) && work_look(a->work, WORK_ALL & ~WORK_BIT(WORK_STORE), &item)) {
        struct verr err = {0};
        if (item.kind == WORK_NAMES)
            try_tree(a, &err);
        else
            try_disk(a, &item.disk, item.kind, &err);
    }
}

int agent_ready(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct verr why = {0};
    if (!work_owes(a->work, disk, WORK_BIT(WORK_RECOVER)))
        return 0;
    int r = try_disk(a, disk, WORK_RECOVER, &why);
    if (r < 0 && err != NULL)
        *err = why;
    return r;
}

void agent_hurry(struct agent *a)
{
    struct verr why = {0};
    agent_tree_ready(a, &why);      /* an error is told by the list of what is owed */
    work_hurry(a->work);
}

int agent_tree_ready(struct agent *a, struct verr *err)
{
    static const struct vid tree;
    return work_owes(a->work, &tree, WORK_BIT(WORK_NAMES)) ? try_tree(a, err) : 0;
}
