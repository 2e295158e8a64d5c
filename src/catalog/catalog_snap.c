/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of snapshots. */
#include "base/clock.h"
#include "base/fault.h"
#include "catalog/catalog_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- struct snaprow <-> row ---- */

static bool label_is_sound(const char *label, size_t cap)
{
    size_t len = strnlen(label, cap);
    if (len >= cap)
        return false;
    for (size_t i = 0; i < len; i++) {
        char ch = label[i];
        bool word = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        if (!word && ch != '.' && ch != '_' && ch != '-')
            return false;
    }
    return true;
}

/* Checks a row before it is written and after it is read. Returns NULL, or the column that makes no sense. */
static const char *snap_doubt(const struct snaprow *s)
{
    if (vid_is_zero(&s->info.ref.snap))
        return "id";
    if (vid_is_zero(&s->info.ref.disk))
        return "disk";
    if (s->state < SNAPST_PENDING || s->state > SNAPST_FAILED)
        return "state";
    if (s->info.mode > 07777)
        return "mode";
    if (s->info.name_s < 0 || s->info.name_s > TIME_NAME_MAX)
        return "name_s";
    if (!label_is_sound(s->info.label, sizeof s->info.label))
        return "label";
    if (strnlen(s->info.note, sizeof s->info.note) == sizeof s->info.note)
        return "note";
    return NULL;
}

static void read_levels(struct catalog_use *u, struct snap_levels *l)
{
    l->zero = read_u64(u, "l_zero");
    l->clean = read_u64(u, "l_clean");
    l->parent_segment = read_u64(u, "l_parent_segment");
    l->parent_block = read_u64(u, "l_parent_block");
    l->common = read_u64(u, "l_common");
    l->global = read_u64(u, "l_global");
    l->dup_new = read_u64(u, "l_dup_new");
    l->fresh = read_u64(u, "l_fresh");
    l->stored = read_u64(u, "l_stored");
}

static int read_snap(struct catalog_use *u, struct snaprow *s, struct verr *err)
{
    memset(s, 0, sizeof *s);
    read_id(u, "id", &s->info.ref.snap);
    int64_t ino = read_int(u, "ino", 0, INT64_MAX);
    read_id(u, "disk", &s->info.ref.disk);
    read_id(u, "parent", &s->info.parent);
    read_id(u, "host", &s->info.host);
    read_id(u, "grp", &s->info.group);
    s->info.ref.seq = read_u64(u, "seq");
    s->state = read_u32(u, "state");
    s->info.flags = read_u32(u, "flags");
    s->info.mode = read_u32(u, "mode");
    s->info.uid = read_u32(u, "uid");
    s->info.gid = read_u32(u, "gid");
    s->info.protected_ = read_int(u, "protected", 0, 1) != 0;
    s->info.size = read_u64(u, "size");
    s->info.alloc_bytes = read_u64(u, "alloc_bytes");
    s->info.dirty_segments = read_u64(u, "dirty_segments");
    s->info.freeze_ns = read_int(u, "freeze_ns", INT64_MIN, INT64_MAX);
    s->info.name_s = read_int(u, "name_s", 0, TIME_NAME_MAX);
    read_bytes(u, "label", SQLITE_TEXT, s->info.label, sizeof s->info.label);
    read_bytes(u, "note", SQLITE_BLOB, s->info.note, sizeof s->info.note);
    read_levels(u, &s->info.levels);
    const char *bad = u->bad != NULL ? u->bad : snap_doubt(s);
    if (bad == NULL && (uint64_t)ino != vid_ino(&s->info.ref.snap))
        bad = "ino";
    return bad == NULL ? 0 : catalog_bad_row(u->c, "snaps", bad, err);
}

static void bind_levels(struct catalog_use *u, const struct snap_levels *l)
{
    bind_u64(u, l->zero);
    bind_u64(u, l->clean);
    bind_u64(u, l->parent_segment);
    bind_u64(u, l->parent_block);
    bind_u64(u, l->common);
    bind_u64(u, l->global);
    bind_u64(u, l->dup_new);
    bind_u64(u, l->fresh);
    bind_u64(u, l->stored);
}

int catalog_snap_put(struct catalog *c, const struct snaprow *s, struct verr *err)
{
    const char *bad = snap_doubt(s);
    if (bad != NULL)
        return verr_set(err, EINVAL, "%s: a snapshot without sensible %s is not entered", c->path, bad);
    int fault = fault_errno("catalog.snap.put");
    if (fault != 0)
        return verr_set(err, fault, "%s: entering a snapshot: fault injected", c->path);
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_PUT, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, &s->info.ref.snap);
    bind_u64(&u, vid_ino(&s->info.ref.snap));
    bind_id(&u, &s->info.ref.disk);
    bind_id(&u, &s->info.parent);
    bind_id(&u, &s->info.host);
    bind_id(&u, &s->info.group);
    bind_u64(&u, s->info.ref.seq);
    bind_int(&u, s->state);
    bind_int(&u, s->info.flags);
    bind_int(&u, s->info.mode);
    bind_int(&u, s->info.uid);
    bind_int(&u, s->info.gid);
    bind_int(&u, s->info.protected_ ? 1 : 0);
    bind_u64(&u, s->info.size);
    bind_u64(&u, s->info.alloc_bytes);
    bind_u64(&u, s->info.dirty_segments);
    bind_int(&u, s->info.freeze_ns);
    bind_int(&u, s->info.name_s);
    bind_text(&u, s->info.label);
    bind_bytes(&u, s->info.note, strlen(s->info.note));
    bind_levels(&u, &s->info.levels);
    return catalog_run(&u, "entering a snapshot", err);
}

int catalog_snap_del(struct catalog *c, const struct vid *id, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_DEL, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, id);
    return catalog_run(&u, "removing a snapshot", err);
}

/* ---- searches ---- */

static int one_snap(struct catalog_use *u, struct snaprow *out, struct verr *err)
{
    struct snaprow s;
    int r = catalog_step(u, "looking for a snapshot", err);
    if (r == 0)
        r = verr_set(err, ENOENT, "no such snapshot");
    else if (r > 0 && (r = read_snap(u, &s, err)) == 0)
        *out = s;
    catalog_done(u);
    return r;
}

static int snap_by_vid(struct catalog *c, enum catalog_sql which, const struct vid *id, struct snaprow *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, which, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, id);
    return one_snap(&u, out, err);
}

int catalog_snap_by_id(struct catalog *c, const struct vid *id, struct snaprow *out, struct verr *err)
{
    return snap_by_vid(c, SQL_SNAP_BY_ID, id, out, err);
}

int catalog_snap_latest(struct catalog *c, const struct vid *disk, struct snaprow *out, struct verr *err)
{
    return snap_by_vid(c, SQL_SNAP_LATEST, disk, out, err);
}

int catalog_snap_by_ino(struct catalog *c, uint64_t ino, struct snaprow *out, struct verr *err)
{
    if (ino > INT64_MAX)
        return verr_set(err, ENOENT, "no such snapshot");
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_BY_INO, &u, err);
    if (r < 0)
        return r;
    bind_u64(&u, ino);
    return one_snap(&u, out, err);
}

int catalog_snap_by_name(struct catalog *c, const struct vid *disk, const char *label, int64_t name_s, struct snaprow *out,
                         struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, label[0] != '\0' ? SQL_SNAP_BY_LABEL : SQL_SNAP_BY_TIME, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, disk);
    if (label[0] != '\0')
        bind_text(&u, label);
    else
        bind_int(&u, name_s);
    return one_snap(&u, out, err);
}

/* Reads the rows of a search whose parameters are bound, at most max. With whole_seqs the search yields one row more: when it has
 * the seq of the last one, all rows of that seq are left to the next page. */
static int many_snaps(struct catalog_use *u, struct snaprow *out, unsigned max, bool whole_seqs, struct verr *err)
{
    struct snaprow more;
    unsigned n = 0;
    int r = 0;
    while (n < max && (r = catalog_step(u, "listing snapshots", err)) > 0) {
        r = read_snap(u, &out[n], err);
        if (r < 0)
            break;
        n++;
    }
    if (r >= 0 && n == max && max > 0 && whole_seqs && (r = catalog_step(u, "listing snapshots", err)) > 0) {
        r = read_snap(u, &more, err);
        if (r == 0 && more.info.ref.seq == out[n - 1].info.ref.seq) {
            unsigned keep = n;
            while (keep > 0 && out[keep - 1].info.ref.seq == more.info.ref.seq)
                keep--;
            n = keep > 0 ? keep : n;
        }
    }
    catalog_done(u);
    return r < 0 ? r : (int)n;
}

int catalog_snaps(struct catalog *c, const struct vid *disk, uint64_t after, struct snaprow *out, unsigned max, struct verr *err)
{
    if (after >= INT64_MAX)
        return 0;
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_LIST, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, disk);
    bind_u64(&u, after);
    bind_int(&u, (int64_t)max + 1);
    return many_snaps(&u, out, max, true, err);
}

int catalog_snaps_back(struct catalog *c, const struct vid *disk, uint64_t before, struct snaprow *out, unsigned max, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_BACK, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, disk);
    bind_u64(&u, before < INT64_MAX ? before : INT64_MAX);
    bind_int(&u, (int64_t)max);
    return many_snaps(&u, out, max, false, err);
}

int catalog_snap_count(struct catalog *c, const struct vid *disk, uint64_t *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_COUNT, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, disk);
    r = catalog_step(&u, "counting snapshots", err);
    if (r > 0) {
        *out = read_u64(&u, "count");
        r = 0;
    }
    catalog_done(&u);
    return r;
}

int catalog_snap_edit(struct catalog *c, const struct vid *id, int (*fn)(void *ctx, struct snaprow *s), void *ctx, struct snaprow *out,
                      struct verr *err)
{
    struct snaprow row;
    int r = catalog_begin(c, err);
    if (r < 0)
        return r;
    r = catalog_snap_by_id(c, id, &row, err);
    if (r == 0)
        r = fn(ctx, &row);
    if (r == 0)
        r = catalog_snap_put(c, &row, err);
    if (r < 0) {
        catalog_rollback(c);
        return r;
    }
    r = catalog_commit(c, err);
    if (r == 0 && out != NULL)
        *out = row;
    return r;
}

static int snap_batch(struct catalog *c, const struct vid *after, bool first, struct snaprow *out, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_EACH, &u, err);
    if (r < 0)
        return r;
    bind_bytes(&u, after->b, first ? 0 : VID_BYTES);
    bind_int(&u, CATALOG_BATCH);
    return many_snaps(&u, out, CATALOG_BATCH, false, err);
}

int catalog_snap_each(struct catalog *c, int (*fn)(void *ctx, const struct snaprow *s), void *ctx, struct verr *err)
{
    struct snaprow *batch = malloc(CATALOG_BATCH * sizeof *batch);
    if (batch == NULL)
        return verr_set(err, ENOMEM, "catalog: out of memory");
    struct vid after = {{0}};
    bool first = true;
    int n, r = 0;
    do {
        n = snap_batch(c, &after, first, batch, err);
        if (n < 0)
            r = n;
        for (int i = 0; r == 0 && i < n; i++)
            r = fn(ctx, &batch[i]);
        if (n > 0)
            after = batch[n - 1].info.ref.snap;
        first = false;
    } while (r == 0 && n == CATALOG_BATCH);
    free(batch);
    return r;
}

int catalog_snap_disks(struct catalog *c, const struct vid *after, struct vid *out, unsigned max, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SNAP_DISKS, &u, err);
    if (r < 0)
        return r;
    bind_id(&u, after);
    bind_int(&u, max);
    unsigned n = 0;
    while (n < max && (r = catalog_step(&u, "listing disks", err)) > 0)
        read_id(&u, "disk", &out[n++]);
    if (r >= 0 && u.bad != NULL)
        r = catalog_bad_row(c, "snaps", u.bad, err);
    catalog_done(&u);
    return r < 0 ? r : (int)n;
}
