/* SPDX-License-Identifier: Apache-2.0 */
/* The history of a disk, for `varve log`. */
#include "agent/agent_json.h"
#include "store/snaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- groups: disks frozen at one instant ---- */

/*
 * A kill between the journals of a group freeze leaves some of its disks with the snapshot and others without, and a user may remove
 * a snapshot of the group. Each snapshot that is left is whole; the history says how many of the group are left.
 */
struct group { struct vid id; uint32_t members; uint64_t present; };
struct groups { struct group *v; size_t n; };

static int by_id(const void *a, const void *b)
{
    const struct group *x = a, *y = b;
    return memcmp(x->id.b, y->id.b, VID_BYTES);
}

/* NULL: the snapshot was frozen alone. */
static struct group *group_of(const struct groups *g, const struct vid *id)
{
    const struct group key = {.id = *id};
    return g->n == 0 ? NULL : bsearch(&key, g->v, g->n, sizeof *g->v, by_id);
}

static bool pending_members(struct agent *a, const struct snaprow *s, uint32_t *members)
{
    struct snapinfo p;
    struct live *l;
    if (live_get(a->live, &s->info.ref.disk, &l, NULL) < 0)
        return false;
    bool found = live_pending_by_seq(l, s->info.ref.seq, &p, NULL) == 0;
    if (found)
        *members = p.group_members;
    live_put(l);
    return found;
}

static uint32_t members_of(struct agent *a, const struct snaprow *s)
{
    struct snaprcp hdr;
    struct snapattr attr;
    uint32_t members = 1;
    if (s->state != SNAPST_STORED && pending_members(a, s, &members))
        return members;
    /* Stored, or it has been stored since the row was read. */
    return snaps_load(a->store, &s->info.ref, &hdr, &attr, NULL) == 0 ? hdr.info.group_members : 1;
}

static int count_member(void *ctx, const struct snaprow *s)
{
    struct group *g = group_of(ctx, &s->info.group);
    if (g != NULL)
        g->present++;
    return 0;
}

static int groups_of(struct agent *a, const struct snaprow *rows, size_t n, struct groups *out, struct verr *err)
{
    out->v = calloc(n + 1, sizeof *out->v);
    if (out->v == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        uint32_t members = members_of(a, &rows[i]);
        if (members > 1)
            out->v[out->n++] = (struct group){.id = rows[i].info.group, .members = members};
    }
    if (out->n == 0)
        return 0;
    qsort(out->v, out->n, sizeof *out->v, by_id);
    return catalog_snap_each(a->catalog, count_member, out, err);
}

/* ---- rows ---- */

static json_t *snapshot_json(struct agent *a, const struct node *disk, const struct snaprow *s, const struct group *g, bool root)
{
    char id[VID_HEX], host[VID_HEX], when[32], name[NODE_NAME_MAX + 1];
    vid_hex(&s->info.ref.snap, id);
    vid_hex(&s->info.host, host);
    agent_time_text(s->info.freeze_ns, when);
    if (snapname_make(disk->name, s->info.label, s->info.name_s, name) < 0)
        name[0] = '\0';
    json_t *o = json_pack("{so ss so ss so ss so so so so so so sb}", "name", vjson_text(name), "id", id, "sequence",
                          vjson_u64(s->info.ref.seq), "time", when,
                     "flags", agent_flags_json(s->info.flags), "state", agent_state_text(s->state),
                     "host", vjson_text(vid_eq(&s->info.host, &a->host)
                                        ? a->host_name : host), "label", vjson_text(s->info.label), "size", vjson_u64(s->info.size),
                     "allocated", vjson_u64(s->info.alloc_bytes), "dirty_segments", vjson_u64(s->info.dirty_segments), "note", vjson_text(s->info.note), "protected",
                     s->info.protected_);
    if (g != NULL) {
        vid_hex(&g->id, id);
        json_object_set_new(o, "group", json_pack("{ss so so}", "id", id, "members", vjson_u64(g->members), "present", vjson_u64(g->present)));
    }
    if (root) {
        json_object_set_new(o, "added", vjson_u64(s->info.levels.stored));
        json_object_set_new(o, "levels", agent_levels_json(&s->info.levels));
    }
    return o;
}

/* Reads all rows of a disk that the viewer may see. *out: malloc'ed. Returns their number or -errno. */
static int64_t visible_rows(struct agent *a, const struct node *disk, const struct agent_viewer *who, struct snaprow **out, struct verr *err)
{
    enum { STEP = 32 };
    struct snaprow *rows = NULL;
    size_t kept = 0, cap = 0;
    uint64_t after = 0;
    for (;;) {
        if (cap - kept < STEP) {
            cap = cap * 2 + STEP;
            struct snaprow *more = realloc(rows, cap * sizeof *rows);
            if (more == NULL) {
                free(rows);
                return verr_set(err, ENOMEM, "out of memory");
            }
            rows = more;
        }
        int n = catalog_snaps(a->catalog, &disk->id, after, rows + kept, STEP, err);
        if (n <= 0) {
            *out = rows;
            if (n < 0)
                free(rows);
            return n < 0 ? n : (int64_t)kept;
        }
        after = rows[kept + (size_t)n - 1].info.ref.seq;
        for (size_t i = kept, end = kept + (size_t)n; i < end; i++)
            if (who->may_read == NULL || who->may_read(who->ctx, &rows[i]))
                rows[kept++] = rows[i];
    }
}

int agent_log_json(struct agent *a, const struct node *disk, const struct agent_viewer *who, char **text, size_t *len, struct verr *err)
{
    struct snaprow *rows = NULL;
    struct groups groups = {0};
    json_t *list = json_array();
    if (list == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    int64_t n = visible_rows(a, disk, who, &rows, err);
    int r = n < 0 ? (int)n : who->root ? groups_of(a, rows, (size_t)n, &groups, err) : 0;
    for (int64_t i = 0; r == 0 && i < n; i++)
        json_array_append_new(list, snapshot_json(a, disk, &rows[i], group_of(&groups, &rows[i].info.group), who->root));
    if (n >= 0)
        free(rows);
    free(groups.v);
    if (r < 0) {
        json_decref(list);
        return r;
    }
    char id[VID_HEX];
    vid_hex(&disk->id, id);
    return agent_json_text(json_pack("{si so ss sb so}", "schema", 1, "disk", vjson_text(disk->name), "id", id, "live", (disk->flags & NODE_GONE) == 0, "snapshots", list),
                     text, len, err);
}
