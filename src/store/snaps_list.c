/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snaps_list: lists records of snapshots. It reads only names, from listings that the backend makes anew (base/backend.h), and opens
 * no record.
 */
#include "base/backend.h"
#include "base/verr.h"
#include "store/snaps.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { PATH_ROOM = 400, SALT_DIGITS = 16, TRASH_PREFIX = 32 + 3 + SALT_DIGITS + 1 /* DISKID-s-RANDOM- */ };

struct listing {
    enum snaps_where where;
    const struct vid *disk;
    const struct snaps_walk *walk;
    int (*fn_disk)(void *ctx, const struct vid *disk);
    bool stopped;               /* an answer of the caller's function ended the walk */
};

static enum store_dir dir_of(enum snaps_where where)
{
    return where == SNAPS_STORED ? DIR_SNAPSHOTS : where == SNAPS_ANCHORED ? DIR_ANCHORS : DIR_TRASH;
}

static bool trash_name(const char *name, struct snaps_file *f)
{
    char hex[VID_HEX];
    snprintf(hex, sizeof hex, "%.32s", name);
    if (strlen(name) < TRASH_PREFIX || vid_parse(hex, &f->ref.disk) < 0 || name[32] != '-' || name[34] != '-' ||
        name[TRASH_PREFIX - 1] != '-' || strspn(name + 35, "0123456789abcdef") != SALT_DIGITS || (name[33] != 's' && name[33] != 'a'))
        return false;
    f->anchor = name[33] == 'a';
    return true;
}

static int show_file(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct snaps_file f = {.anchor = l->where == SNAPS_ANCHORED, .name = name};
    char path[PATH_ROOM], hex[VID_HEX];
    const char *rest = name;
    bool known = true;
    if (l->disk != NULL)
        f.ref.disk = *l->disk;
    else if ((known = trash_name(name, &f)))
        rest = name + TRASH_PREFIX;
    f.side_file = known && !f.anchor && store_snap_file_parse(rest, ".attr", &f.ref.seq, &f.ref.snap) == 0;
    known = known && (f.side_file || store_snap_file_parse(rest, ".rcp", &f.ref.seq, &f.ref.snap) == 0);
    int r = 0;
    if (known) {
        r = l->walk->file(l->walk->ctx, &f);
    } else if (l->walk->stray != NULL) {
        vid_hex(&f.ref.disk, hex);
        snprintf(path, sizeof path, "%s/%s%s%s", store_dir_names[dir_of(l->where)], l->disk != NULL ? hex : "", l->disk != NULL ? "/" : "",
                 name);
        r = l->walk->stray(l->walk->ctx, path);
    }
    l->stopped = r != 0;
    return r;
}

int snaps_each(struct store *st, enum snaps_where where, const struct vid *disk, const struct snaps_walk *walk, struct verr *err)
{
    struct listing l = {.where = where, .disk = where == SNAPS_TRASH ? NULL : disk, .walk = walk};
    char hex[VID_HEX] = "", dir[PATH_ROOM];
    if (l.disk != NULL)
        vid_hex(disk, hex);
    snprintf(dir, sizeof dir, "%s%s%s", store_dir_names[dir_of(where)], hex[0] != '\0' ? "/" : "", hex);
    int r = bk_list(st->b, dir, show_file, &l);
    if (r == -ENOENT && !l.stopped)
        return 0;       /* the first recipe makes the directory: a missing one means no snapshot, a failed listing is an error */
    return r < 0 && !l.stopped ? store_fail(st, dir_of(where), hex[0] != '\0' ? hex : NULL, r, "listing", err) : r;
}

static int show_disk(void *ctx, const char *name)
{
    struct listing *l = ctx;
    struct vid id;
    char path[PATH_ROOM];
    int r = 0;
    if (vid_parse(name, &id) == 0) {
        r = l->fn_disk(l->walk->ctx, &id);
    } else if (l->walk->stray != NULL) {
        snprintf(path, sizeof path, "%s/%s", store_dir_names[dir_of(l->where)], name);
        r = l->walk->stray(l->walk->ctx, path);
    }
    l->stopped = r != 0;
    return r;
}

int snaps_each_disk(struct store *st, enum snaps_where where, int (*fn)(void *ctx, const struct vid *disk),
                    int (*stray)(void *ctx, const char *path), void *ctx, struct verr *err)
{
    const struct snaps_walk walk = {.stray = stray, .ctx = ctx};
    struct listing l = {.where = where, .walk = &walk, .fn_disk = fn};
    int r = bk_list(st->b, store_dir_names[dir_of(where)], show_disk, &l);
    return r < 0 && !l.stopped ? store_fail(st, dir_of(where), NULL, r, "listing", err) : r;
}

int snaps_there(struct store *st, const struct snapref *ref, struct verr *err)
{
    char dir[DISK_PATH_MAX], file[SNAP_FILE_MAX];
    store_disk_path(DIR_SNAPSHOTS, &ref->disk, dir);
    store_snap_file(ref->seq, &ref->snap, ".rcp", file);
    int r = bk_look(st->b, dir, file);
    return r < 0 ? verr_set(err, -r, "looking at %s/%s/%s: %s", st->path, dir, file, strerror(-r)) : r;
}
