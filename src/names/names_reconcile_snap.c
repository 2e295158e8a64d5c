/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reconcile_snap: compares snapshots in STORE with rows, disk by disk. A published recipe never changes, so a row that is `stored`
 * and has its file counts without reading the file; side files change, so those are read. Rows that are pending or failed are
 * left alone, unless their recipe is there: then a crash came between its publication and the change of the row.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "format/ref.h"
#include "store/snaps.h"

struct found { uint64_t seq; struct vid id; bool attr, known; };

struct disk_scan {
    struct reconcile *rc;
    struct vid disk;
    struct found *v, *attrs;        /* recipes, side files; sorted by sequence and id after the listing */
    size_t count, cap, attr_count, attr_cap;
};

struct all_scan { struct reconcile *rc; struct vid *disks; size_t count, cap; };

/* ---- the files of one disk ---- */

static int by_seq(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return memcmp(x->id.b, y->id.b, VID_BYTES);
}

static int add(struct found **v, size_t *count, size_t *cap, const struct found *f)
{
    if (*count == *cap) {
        size_t more = *cap == 0 ? 64 : *cap + *cap / 2;
        struct found *p = realloc(*v, more * sizeof *p);
        if (p == NULL)
            return -ENOMEM;
        *v = p;
        *cap = more;
    }
    (*v)[(*count)++] = *f;
    return 0;
}

static int note_file(void *ctx, const struct snaps_file *file)
{
    struct disk_scan *s = ctx;
    const struct found f = {.seq = file->ref.seq, .id = file->ref.snap};
    int r = file->side_file ? add(&s->attrs, &s->attr_count, &s->attr_cap, &f) : add(&s->v, &s->count, &s->cap, &f);
    return r < 0 ? verr_set(s->rc->err, -r, "names: out of memory") : 0;
}

static bool is_temporary(const char *path)
{
    return strrchr(path, '/')[1] == '.';
}

static int note_stray(void *ctx, const char *path)
{
    struct disk_scan *s = ctx;
    if (!is_temporary(path))
        reconcile_report(s->rc, false, "%.150s: not a file of a snapshot", path);
    return 0;
}

static struct found *find(struct found *v, size_t count, uint64_t seq, const struct vid *id)
{
    const struct found key = {.seq = seq, .id = *id};
    return count == 0 ? NULL : bsearch(&key, v, count, sizeof *v, by_seq);
}

static int list_files(struct disk_scan *s)
{
    const struct snaps_walk files = {.file = note_file, .stray = note_stray, .ctx = s};
    int r = snaps_each(s->rc->n->store, SNAPS_STORED, &s->disk, &files, s->rc->err);
    if (r < 0)
        return r;
    if (s->count > 0)
        qsort(s->v, s->count, sizeof *s->v, by_seq);
    for (size_t i = 0; i < s->attr_count; i++) {
        struct found *f = find(s->v, s->count, s->attrs[i].seq, &s->attrs[i].id);
        if (f != NULL)      /* a side file alone is what a crash in the middle of a removal leaves */
            f->attr = true;
    }
    return 0;
}

/* ---- rows of one disk ---- */

/* Removes the row of a recipe that is missing; reports it unless the snapshot was removed on purpose. */
static int row_without_file(struct disk_scan *s, const struct snaprow *row)
{
    int removed = reconcile_was_removed(s->rc, &row->info.ref.disk, row->info.ref.seq, &row->info.ref.snap);
    if (removed == 0) {
        char hex[VID_HEX], file[SNAP_FILE_MAX];
        vid_hex(&row->info.ref.disk, hex);
        store_snap_file(row->info.ref.seq, &row->info.ref.snap, ".rcp", file);
        reconcile_report(s->rc, true, "%s/snapshots/%s/%s is gone, and nobody has removed it: the snapshot is lost", store_path(s->rc->n->store),
                         hex, file);
    }
    return removed < 0 ? removed : catalog_snap_del(s->rc->n->catalog, &row->info.ref.snap, s->rc->err);
}

static int check_rows(struct disk_scan *s)
{
    struct names *n = s->rc->n;
    struct snaprow *rows = malloc(NAMES_BATCH * sizeof *rows);
    if (rows == NULL)
        return verr_set(s->rc->err, ENOMEM, "names: out of memory");
    uint64_t after = 0;
    int got, r = 0;
    do {
        got = catalog_snaps(n->catalog, &s->disk, after, rows, NAMES_BATCH, s->rc->err);
        if (got < 0)
            r = got;
        for (int i = 0; r == 0 && i < got; i++) {
            after = rows[i].info.ref.seq;
            if (rows[i].state != SNAPST_STORED)
                continue;
            struct found *f = find(s->v, s->count, rows[i].info.ref.seq, &rows[i].info.ref.snap);
            if (f != NULL)
                f->known = true;
            else if (snaps_there(n->store, &rows[i].info.ref, NULL) == 0)   /* else the file is there by now, or cannot be looked up */
                r = row_without_file(s, &rows[i]);
        }
    } while (r == 0 && got > 0);
    free(rows);
    return r;
}

/* ---- a row from files ---- */

/* Two hosts may have given two snapshots of a disk the same label or time: the later one gets the name of another time. */
static int keep_names_apart(struct names *n, struct snaprow *row, struct verr *err)
{
    struct snaprow other;
    for (;;) {
        int r = catalog_snap_by_name(n->catalog, &row->info.ref.disk, row->info.label, row->info.name_s, &other, err);
        if (r < 0)
            return r == -ENOENT ? 0 : r;
        if (vid_eq(&other.info.ref.snap, &row->info.ref.snap))
            return 0;
        if (row->info.label[0] != '\0')
            memset(row->info.label, 0, sizeof row->info.label);
        else
            row->info.name_s++;
    }
}

/* Reports a damaged file; a row that was there stays. */
static int damaged(struct disk_scan *s, int r, const struct verr *why)
{
    if (r == -EBADMSG || r == -ENOTSUP || r == -EIO) {
        reconcile_report(s->rc, true, "%s", verr_str(why));
        return 0;
    }
    if (r == -ENOENT)       /* removed by another host since the listing */
        return 0;
    return verr_set(s->rc->err, -r, "%s", verr_str(why));
}

static int enter(struct disk_scan *s, const struct found *f)
{
    struct reconcile *rc = s->rc;
    const struct snapref ref = {s->disk, f->seq, f->id};
    struct snaprcp header;
    struct verr why = {0};
    int r = snaps_header(rc->n->store, &ref, &header, &why);
    if (r < 0)
        return damaged(s, r, &why);
    if (f->attr) {
        r = snaps_side(rc->n->store, &ref, &header, NULL, &why);
        if (r < 0 && (r = damaged(s, r, &why)) < 0)
            return r;
        if (r == 0 && f->known)
            return 0;
    }
    struct snaprow row = {.info = header.info, .state = SNAPST_STORED};
    row.info.mode &= 0555;
    r = keep_names_apart(rc->n, &row, rc->err);
    if (r == 0)
        r = catalog_snap_put(rc->n->catalog, &row, rc->err);
    if (r == -EINVAL)       /* a header whose checksum is right, but which no varve writes */
        return damaged(s, -EBADMSG, rc->err);
    return r;
}

static int scan_disk(struct reconcile *rc, const struct vid *disk)
{
    struct disk_scan s = {.rc = rc, .disk = *disk};
    int r = list_files(&s);
    if (r == 0)
        r = check_rows(&s);
    for (size_t i = 0; r == 0 && i < s.count; i++)
        if (!s.v[i].known || s.v[i].attr)
            r = enter(&s, &s.v[i]);
    free(s.v);
    free(s.attrs);
    return r;
}

/* ---- all disks ---- */

static int stray_disk(void *ctx, const char *path)
{
    struct all_scan *a = ctx;
    if (!is_temporary(path))
        reconcile_report(a->rc, false, "%.120s: not the directory of a disk", path);
    return 0;
}

static int note_disk(void *ctx, const struct vid *id)
{
    struct all_scan *a = ctx;
    if (a->count == a->cap) {
        size_t cap = a->cap == 0 ? 256 : a->cap + a->cap / 2;
        struct vid *v = realloc(a->disks, cap * sizeof *v);
        if (v == NULL)
            return verr_set(a->rc->err, ENOMEM, "names: out of memory");
        a->disks = v;
        a->cap = cap;
    }
    a->disks[a->count++] = *id;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, VID_BYTES);
}

/* Checks rows of disks that have no directory in snapshots/. */
static int check_others(struct all_scan *a)
{
    struct vid disks[NAMES_BATCH], after = {{0}};
    int got, r = 0;
    do {
        got = catalog_snap_disks(a->rc->n->catalog, &after, disks, NAMES_BATCH, a->rc->err);
        if (got < 0)
            return got;
        for (int i = 0; r == 0 && i < got; i++) {
            after = disks[i];
            if (a->count > 0 && bsearch(&disks[i], a->disks, a->count, sizeof *a->disks, by_bytes) != NULL)
                continue;
            struct disk_scan s = {.rc = a->rc, .disk = disks[i]};
            r = check_rows(&s);
        }
    } while (r == 0 && got == NAMES_BATCH);
    return r;
}

int reconcile_snaps(struct reconcile *rc)
{
    struct all_scan a = {.rc = rc};
    int r = snaps_each_disk(rc->n->store, SNAPS_STORED, note_disk, stray_disk, &a, rc->err);
    if (r < 0)
        goto out;
    if (a.count > 0)
        qsort(a.disks, a.count, sizeof *a.disks, by_bytes);
    for (size_t i = 0; r == 0 && i < a.count; i++)
        r = scan_disk(rc, &a.disks[i]);
    if (r == 0)
        r = check_others(&a);
out:
    free(a.disks);
    return r;
}
