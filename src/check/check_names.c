/* SPDX-License-Identifier: Apache-2.0 */
/* verify, pass 5: node records, side files, files that are not varve's; and the names of snapshots in hits. */
#include "base/verr.h"
#include "check/check_internal.h"
#include "names/names.h"
#include "snapshot/snapshot.h"
#include "store/snaps.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

static int told(int problem, struct verr *err)
{
    return problem < 0 ? verr_set(err, ENOMEM, "verify: out of memory") : 0;
}

/* ---- names of hits ---- */

/* Puts "DIR/DIR/" of a node's parents into out. 0 or -errno. */
static int parents(struct store *st, const struct vid *id, unsigned depth, char *out, size_t cap)
{
    struct node n;
    if (depth == DEPTH_MAX)
        return -ELOOP;
    int r = store_node_load(st, id, &n, NULL);
    if (r < 0)
        return r;
    if (vid_is_zero(&n.parent)) {
        out[0] = '\0';
        return 0;
    }
    r = parents(st, &n.parent, depth + 1, out, cap);
    if (r < 0)
        return r;
    size_t len = strlen(out);
    if (len + strlen(n.name) + 2 > cap)
        return -ENAMETOOLONG;
    snprintf(out + len, cap - len, "%s/", n.name);
    return 0;
}

void check_hit_name(struct store *st, const struct snaprcp *rcp, struct check_hit *hit)
{
    struct snaprcp now = *rcp;
    struct node disk;
    char name[NODE_NAME_MAX + 1], hex[VID_HEX], snap[VID_HEX];
    snaps_load(st, &rcp->info.ref, &now, NULL, NULL);  /* the present label, which may be newer than the recipe */
    if (store_node_load(st, &rcp->info.ref.disk, &disk, NULL) == 0 &&
        snapname_make(disk.name, now.info.label, now.info.name_s, name) == 0 &&
        parents(st, &disk.parent, 0, hit->name, sizeof hit->name) == 0 && strlen(hit->name) + strlen(name) < sizeof hit->name) {
        memcpy(hit->name + strlen(hit->name), name, strlen(name) + 1);
        return;
    }
    vid_hex(&rcp->info.ref.disk, hex);
    vid_hex(&rcp->info.ref.snap, snap);
    snprintf(hit->name, sizeof hit->name, "disk %s snapshot %s", hex, snap);
}

/* ---- node records ---- */

struct nodes_walk { struct checker *k; struct verr *err; };

static int check_node(void *ctx, const struct vid *id)
{
    struct nodes_walk *w = ctx;
    struct node n, parent;
    struct verr why = {0};
    char hex[VID_HEX], file[64];
    vid_hex(id, hex);
    snprintf(file, sizeof file, "nodes/%s", hex);
    int r = store_node_load(w->k->st, id, &n, &why);
    if (r == -ENOENT)
        return 0;   /* removed since it was listed */
    if (r < 0 && check_is_damage(r))
        return told(check_add(w->k, CHECK_DAMAGE, file, "%s", verr_str(&why)), w->err);
    if (r < 0)
        return verr_set(w->err, -r, "%s", verr_str(&why));
    w->k->rep->nodes++;
    if (vid_is_zero(&n.parent) || store_node_load(w->k->st, &n.parent, &parent, NULL) != -ENOENT)
        return 0;
    /* If the node is not below the same directory any more, it was moved or removed between the two looks, and nothing is wrong. */
    struct vid missing = n.parent;
    if (store_node_load(w->k->st, id, &n, NULL) == 0 && vid_eq(&n.parent, &missing))
        return told(check_add(w->k, CHECK_DAMAGE, file, "the directory of \"%s\" has no record: it cannot be reached", n.name), w->err);
    return 0;
}

static int stray_node(void *ctx, const char *path)
{
    struct nodes_walk *w = ctx;
    return told(check_add(w->k, CHECK_NOTICE, path, "no node record: move it away"), w->err);
}

static int check_nodes(struct checker *k, struct verr *err)
{
    struct nodes_walk w = { .k = k, .err = err };
    int r = store_node_each(k->st, check_node, &w, err);
    return r < 0 ? r : store_node_strays(k->st, stray_node, &w, err);
}

/* ---- directories of recipes ---- */

struct files_walk {
    struct checker *k;
    enum store_dir dir;
    struct vid disk;
    char hex[VID_HEX];
    uint64_t recipes;
    struct verr *err;
};

static int check_side_file(struct files_walk *w, const char *name, uint64_t seq, const struct vid *snap)
{
    char file[128];
    struct verr why = {0};
    snprintf(file, sizeof file, "snapshots/%s/%s", w->hex, name);
    if (snaps_named(w->k->st, DIR_SNAPSHOTS, &w->disk, seq, snap) == 0)
        return told(check_add(w->k, CHECK_NOTICE, file, "side file without its snapshot: left by an interrupted removal"), w->err);
    w->k->rep->side_files++;
    int r = snaps_side(w->k->st, &(struct snapref){w->disk, seq, *snap}, NULL, NULL, &why);
    if (r >= 0 || !check_is_damage(r))
        return r >= 0 ? 0 : verr_set(w->err, -r, "%s", verr_str(&why));
    struct check_hit hit = { .disk = w->disk, .snap = *snap, .seq = seq };
    int p = check_add(w->k, CHECK_DAMAGE, file, "%s", verr_str(&why));
    snprintf(hit.name, sizeof hit.name, "%s", file);
    return told(p < 0 || check_hit(w->k, p, &hit) < 0 ? -ENOMEM : 0, w->err);
}

static int check_file(void *ctx, const char *name)
{
    struct files_walk *w = ctx;
    uint64_t seq;
    struct vid snap;
    char file[400];
    if (store_snap_file_parse(name, ".rcp", &seq, &snap) == 0) {
        w->recipes++;
        return 0;
    }
    if (w->dir == DIR_SNAPSHOTS && store_snap_file_parse(name, ".attr", &seq, &snap) == 0)
        return check_side_file(w, name, seq, &snap);
    snprintf(file, sizeof file, "%s/%s/%s", w->dir == DIR_SNAPSHOTS ? "snapshots" : "anchors", w->hex, name);
    bool temp = strncmp(name, ".tmp-", 5) == 0;
    return told(check_add(w->k, CHECK_NOTICE, file, "%s", temp ? "temporary file of a writer that runs now or has died" :
                          "not a file of ours: move it away"), w->err);
}

static int check_disk_dir(void *ctx, const char *name)
{
    struct files_walk *w = ctx;
    const char *dir = w->dir == DIR_SNAPSHOTS ? "snapshots" : "anchors";
    char file[400];
    snprintf(file, sizeof file, "%s/%s", dir, name);
    if (vid_parse(name, &w->disk) < 0)
        return strncmp(name, ".tmp-", 5) == 0 ? 0 :
               told(check_add(w->k, CHECK_NOTICE, file, "not a directory of ours: move it away"), w->err);
    vid_hex(&w->disk, w->hex);
    w->recipes = 0;
    int r = snaps_names_each(w->k->st, w->dir, &w->disk, check_file, w);
    if (r < 0)
        return w->err != NULL && w->err->code != 0 ? r : verr_set(w->err, -r, "%s: cannot be listed: %s", file, strerror(-r));
    struct node n;
    if (w->dir == DIR_SNAPSHOTS && w->recipes > 0 && store_node_load(w->k->st, &w->disk, &n, NULL) == -ENOENT)
        r = told(check_add(w->k, CHECK_DAMAGE, file, "its disk has no record in nodes/: its snapshots cannot be reached"), w->err);
    return r;
}

static int check_files(struct checker *k, enum store_dir dir, struct verr *err)
{
    struct verr why = {0};
    struct files_walk w = { .k = k, .dir = dir, .err = &why };
    int r = store_names_each(k->st, dir, check_disk_dir, &w);
    if (r < 0)
        return verr_set(err, -r, "%s", why.code != 0 ? verr_str(&why) : strerror(-r));
    return 0;
}

int check_names(struct checker *k, struct verr *err)
{
    int r = check_nodes(k, err);
    if (r == 0)
        r = check_files(k, DIR_SNAPSHOTS, err);
    return r == 0 ? check_files(k, DIR_ANCHORS, err) : r;
}
