/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots of STORE against rows, disk by disk. A recipe never changes once it is published, so a row that is `stored` and
 * has its file is believed without reading it; side files change, so those are read. Rows that are pending or failed are
 * left alone, unless the recipe is there: then a crash came between its publication and the row.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "format/ref.h"
#include "store/snaps.h"

struct found { uint64_t seq; struct vid id; bool attr, known; };

struct disk_scan {
    struct reconcile *rc;
    struct vid disk;
    int dirfd;
    struct found *v, *attrs;        /* recipes, side files; by sequence and id, once sorted */
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

static int note_file(void *ctx, const char *name)
{
    struct disk_scan *s = ctx;
    struct found f = {0};
    if (name[0] == '.')
        return 0;
    int r = 0;
    if (store_snap_file_parse(name, ".rcp", &f.seq, &f.id) == 0) {
        r = add(&s->v, &s->count, &s->cap, &f);
    } else if (store_snap_file_parse(name, ".attr", &f.seq, &f.id) == 0) {
        r = add(&s->attrs, &s->attr_count, &s->attr_cap, &f);
    } else {
        char hex[VID_HEX];
        vid_hex(&s->disk, hex);
        reconcile_report(s->rc, false, "snapshots/%s/%.100s: not a file of a snapshot", hex, name);
    }
    return r;
}

static struct found *find(struct found *v, size_t count, uint64_t seq, const struct vid *id)
{
    const struct found key = {.seq = seq, .id = *id};
    return count == 0 ? NULL : bsearch(&key, v, count, sizeof *v, by_seq);
}

static int list_files(struct disk_scan *s)
{
    int r = dir_each(s->dirfd, note_file, s);
    if (r < 0) {
        char hex[VID_HEX];
        vid_hex(&s->disk, hex);
        return verr_set(s->rc->err, -r, "%s/snapshots/%s: cannot be listed: %s", store_path(s->rc->n->store), hex, strerror(-r));
    }
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

/* Absent in the listing is not absent: a recipe may have been published, and its row entered, after it. */
static bool file_is_gone(const struct disk_scan *s, const struct snaprow *row)
{
    struct stat st;
    char file[SNAP_FILE_MAX];
    store_snap_file(row->info.ref.seq, &row->info.ref.snap, ".rcp", file);
    return s->dirfd < 0 || (fstatat(s->dirfd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT);
}

/* The row of a recipe that is gone goes too; if nobody removed it, that is told. */
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
            else if (file_is_gone(s, &rows[i]))
                r = row_without_file(s, &rows[i]);
        }
    } while (r == 0 && got > 0);
    free(rows);
    return r;
}

/* ---- row out of files ---- */

/* Two of one disk may have one label or time, when two hosts gave it: the one that comes later gets another time's name. */
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

/* A damaged file is reported; the row that was there stays. */
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
    s.dirfd = store_disk_dir(rc->n->store, DIR_SNAPSHOTS, disk, false, rc->err);
    if (s.dirfd < 0)
        return s.dirfd;
    int r = list_files(&s);
    if (r == 0)
        r = check_rows(&s);
    for (size_t i = 0; r == 0 && i < s.count; i++)
        if (!s.v[i].known || s.v[i].attr)
            r = enter(&s, &s.v[i]);
    close(s.dirfd);
    free(s.v);
    free(s.attrs);
    return r;
}

/* ---- all disks ---- */

static int note_disk(void *ctx, const char *name)
{
    struct all_scan *a = ctx;
    struct vid id;
    if (name[0] == '.')
        return 0;
    if (vid_parse(name, &id) < 0) {
        reconcile_report(a->rc, false, "snapshots/%.100s: not the directory of a disk", name);
        return 0;
    }
    if (a->count == a->cap) {
        size_t cap = a->cap == 0 ? 256 : a->cap + a->cap / 2;
        struct vid *v = realloc(a->disks, cap * sizeof *v);
        if (v == NULL)
            return -ENOMEM;
        a->disks = v;
        a->cap = cap;
    }
    a->disks[a->count++] = id;
    return 0;
}

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, VID_BYTES);
}

/* Rows of disks that have no directory. */
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
            /* The directory is made with the first snapshot: it may be younger than the listing. */
            struct disk_scan s = {.rc = a->rc, .disk = disks[i]};
            s.dirfd = store_disk_dir(a->rc->n->store, DIR_SNAPSHOTS, &disks[i], false, a->rc->err);
            if (s.dirfd < 0 && s.dirfd != -ENOENT)
                return s.dirfd;
            r = check_rows(&s);
            if (s.dirfd >= 0)
                close(s.dirfd);
        }
    } while (r == 0 && got == NAMES_BATCH);
    return r;
}

int reconcile_snaps(struct reconcile *rc)
{
    struct all_scan a = {.rc = rc};
    int r = dir_each(store_dirfd(rc->n->store, DIR_SNAPSHOTS), note_disk, &a);
    if (r < 0) {
        r = verr_set(rc->err, -r, "%s/snapshots: cannot be listed: %s", store_path(rc->n->store), strerror(-r));
        goto out;
    }
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
