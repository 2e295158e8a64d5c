/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snaps: records of snapshots: recipe headers and side files. Trash and anchors: snaps_links.c.
 *
 * An edit (read, change, write, row) holds no mutex. It is entered in a list, and another edit of the same snapshot waits until it
 * is taken off.
 */
#include "store/snaps.h"

#include "base/fault.h"
#include "base/verr.h"
#include "store/snaps_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- edits under way ---- */

void snaps_state_init(struct snaps_state *s)
{
    *s = (struct snaps_state){0};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->ended, NULL);
}

void snaps_state_release(struct snaps_state *s)
{
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->lock);
}

static bool edited(const struct snaps_state *s, const struct snapref *ref)
{
    for (const struct snaps_busy *b = s->edits; b != NULL; b = b->next)
        if (snapref_eq(&b->ref, ref))
            return true;
    return false;
}

void snaps_begin(struct store *st, const struct snapref *ref, struct snaps_busy *b)
{
    struct snaps_state *s = &st->snaps;
    b->ref = *ref;
    pthread_mutex_lock(&s->lock);
    while (edited(s, ref))
        pthread_cond_wait(&s->ended, &s->lock);
    b->next = s->edits;
    s->edits = b;
    pthread_mutex_unlock(&s->lock);
}

void snaps_end(struct store *st, struct snaps_busy *b)
{
    struct snaps_state *s = &st->snaps;
    pthread_mutex_lock(&s->lock);
    struct snaps_busy **p = &s->edits;
    while (*p != b)
        p = &(*p)->next;
    *p = b->next;
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
}

/* ---- files ---- */

static int file_fail(const struct snapref *ref, const char *suffix, int r, const char *why, struct verr *err)
{
    char hex[VID_HEX], file[SNAP_FILE_MAX];
    vid_hex(&ref->disk, hex);
    store_snap_file(ref->seq, &ref->snap, suffix, file);
    return verr_set(err, -r, "snapshots/%s/%s: %s", hex, file, why);
}

int snaps_header(struct store *st, const struct snapref *ref, struct snaprcp *out, struct verr *err)
{
    uint8_t page[SNAPRCP_PAGE];
    struct snaprcp h;
    struct bfile *f;
    uint64_t bytes;
    int r = snaps_open(st, DIR_SNAPSHOTS, &ref->disk, ref->seq, &ref->snap, &f, &bytes);
    if (r < 0)
        return file_fail(ref, ".rcp", r, strerror(-r), err);
    ssize_t got = bf_read(f, page, sizeof page, 0);
    bf_close(f);
    if (got < 0)
        return file_fail(ref, ".rcp", (int)got, strerror((int)-got), err);
    if (got != SNAPRCP_PAGE)
        return file_fail(ref, ".rcp", -EBADMSG, "too short for a snapshot recipe", err);
    const char *why = "damaged";
    r = snaprcp_decode(page, &h, &why);
    if (r == 0 && !vid_eq(&h.store, &store_conf(st)->id)) {
        r = -EBADMSG;
        why = "belongs to another store";
    } else if (r == 0 && !snapref_eq(&h.info.ref, ref)) {
        r = -EBADMSG;
        why = "belongs to another disk or snapshot than its name says";
    }
    if (r < 0)
        return file_fail(ref, ".rcp", r, why, err);
    *out = h;
    return 0;
}

static void apply_side(const struct snapattr *a, struct snapinfo *s)
{
    memcpy(s->label, a->label, sizeof s->label);
    memcpy(s->note, a->note, sizeof s->note);
    s->flags = (s->flags | a->set_flags) & ~a->clear_flags;
    s->protected_ = a->protected_;
    if (a->owner_set) {
        s->mode = a->mode & 0555;
        s->uid = a->uid;
        s->gid = a->gid;
    }
}

int snaps_side(struct store *st, const struct snapref *ref, struct snaprcp *rcp, struct snapattr *attr, struct verr *err)
{
    char file[SNAP_FILE_MAX], dir[DISK_PATH_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    struct snapattr a;
    store_disk_path(DIR_SNAPSHOTS, &ref->disk, dir);
    store_snap_file(ref->seq, &ref->snap, ".attr", file);
    int r = bk_load(st->b, dir, file, SNAPATTR_BYTES, &data, &len);
    if (r == -ENOENT)
        return 0;
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return file_fail(ref, ".attr", -EBADMSG, "not a side file", err);
    if (r < 0)
        return file_fail(ref, ".attr", r, strerror(-r), err);
    const char *why = "damaged";
    r = snapattr_decode(data, len, &a, &why);
    free(data);
    if (r == 0 && !vid_eq(&a.snap, &ref->snap)) {
        r = -EBADMSG;
        why = "belongs to another snapshot";
    }
    if (r < 0) {
        file_fail(ref, ".attr", r, why, err);
        return verr_prefix(err, -r, "a side file is damaged; removing it gives the snapshot its first label and note back");
    }
    if (rcp != NULL)
        apply_side(&a, &rcp->info);
    if (attr != NULL)
        *attr = a;
    return 1;
}

/* Makes the attributes of a snapshot without a side file from its recipe. */
static void side_of_recipe(const struct snapinfo *s, struct snapattr *a)
{
    *a = (struct snapattr){.snap = s->ref.snap};
    memcpy(a->label, s->label, sizeof a->label);
    memcpy(a->note, s->note, sizeof a->note);
}

int snaps_load(struct store *st, const struct snapref *ref, struct snaprcp *out, struct snapattr *attr, struct verr *err)
{
    struct snaprcp rcp;
    struct snapattr side;
    int r = snaps_header(st, ref, &rcp, err);
    if (r == 0) {
        side_of_recipe(&rcp.info, &side);
        r = snaps_side(st, ref, &rcp, &side, err);
    }
    if (r < 0)
        return r;
    *out = rcp;
    if (attr != NULL)
        *attr = side;
    return 0;
}

int snaps_durable(struct store *st, const struct snapref *ref, struct verr *err)
{
    char dir[DISK_PATH_MAX];
    store_disk_path(DIR_SNAPSHOTS, &ref->disk, dir);
    int r = snaps_there(st, ref, err);
    if (r != 1)
        return r;
    /* Its publisher may have been killed between rename and sync of the directory: without that sync nothing may rely on the recipe. The
     * second look: a file server that came back between rename and sync may have forgotten the name. */
    r = bk_sync(st->b, dir);
    return r < 0 ? file_fail(ref, ".rcp", r, strerror(-r), err) : snaps_there(st, ref, err);
}

/* ---- open files ---- */

int snaps_open(struct store *st, enum store_dir dir, const struct vid *disk, uint64_t seq, const struct vid *snap, struct bfile **out,
               uint64_t *bytes)
{
    char file[SNAP_FILE_MAX], path[DISK_PATH_MAX];
    struct bstat stat;
    struct bfile *f;
    store_disk_path(dir, disk, path);
    store_snap_file(seq, snap, ".rcp", file);
    int r = bk_open(st->b, path, file, BHINT_NONE, &f);
    if (r < 0)
        return r;
    r = bf_stat(f, &stat);
    if (r < 0) {
        bf_close(f);
        return r;
    }
    *bytes = stat.bytes;
    *out = f;
    return 0;
}

int snaps_open_trash(struct store *st, const char *name, struct bfile **out)
{
    struct bstat stat;
    struct bfile *f;
    int r = bk_open(st->b, "trash", name, BHINT_NONE, &f);
    if (r < 0)
        return r;
    r = bf_stat(f, &stat);
    if (r == 0 && !stat.regular)
        r = -EBADMSG;
    if (r == 0)
        *out = f;
    else
        bf_close(f);
    return r;
}

ssize_t snaps_read(struct bfile *f, void *buf, size_t n, uint64_t off) { return bf_read(f, buf, n, off); }

void snaps_close(struct bfile *f) { bf_close(f); }

int snaps_names_each(struct store *st, enum store_dir dir, const struct vid *disk, int (*fn)(void *ctx, const char *name), void *ctx)
{
    char path[DISK_PATH_MAX];
    store_disk_path(dir, disk, path);
    return bk_list(st->b, path, fn, ctx);
}

int snaps_named(struct store *st, enum store_dir dir, const struct vid *disk, uint64_t seq, const struct vid *snap)
{
    char file[SNAP_FILE_MAX], path[DISK_PATH_MAX];
    struct bstat stat;
    store_disk_path(dir, disk, path);
    if (snap != NULL)
        store_snap_file(seq, snap, ".rcp", file);
    int r = snap != NULL ? bk_stat_name(st->b, path, file, &stat) : bk_stat_name(st->b, "", path, &stat);
    return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

bool snaps_anchored(struct store *st, const struct vid *for_disk, const struct snapref *ref)
{
    char file[SNAP_FILE_MAX], path[DISK_PATH_MAX];
    struct bstat anchor, snap;
    store_snap_file(ref->seq, &ref->snap, ".rcp", file);
    store_disk_path(DIR_ANCHORS, for_disk, path);
    bool both = bk_stat_name(st->b, path, file, &anchor) == 0;
    store_disk_path(DIR_SNAPSHOTS, &ref->disk, path);
    both = both && bk_stat_name(st->b, path, file, &snap) == 0;
    return both && anchor.id[0] == snap.id[0] && anchor.id[1] == snap.id[1];
}

/* ---- edit ---- */

/* Puts the values of `now` that differ from `was` into the side file's record. False: none differs. */
static bool side_follows(const struct snapinfo *was, const struct snapinfo *now, struct snapattr *a)
{
    bool owner = now->mode != was->mode || now->uid != was->uid || now->gid != was->gid;
    uint32_t on = now->flags & ~was->flags, off = was->flags & ~now->flags;
    if (!owner && on == 0 && off == 0 && now->protected_ == was->protected_ && strcmp(now->label, was->label) == 0 &&
        strcmp(now->note, was->note) == 0)
        return false;
    a->set_flags = (a->set_flags | on) & ~off;
    a->clear_flags = (a->clear_flags | off) & ~on;
    a->protected_ = now->protected_;
    memset(a->label, 0, sizeof a->label);
    memset(a->note, 0, sizeof a->note);
    memcpy(a->label, now->label, strnlen(now->label, sizeof a->label));
    memcpy(a->note, now->note, strnlen(now->note, sizeof a->note));
    if (owner) {
        a->owner_set = true;
        a->mode = now->mode;
        a->uid = now->uid;
        a->gid = now->gid;
    }
    a->version++;
    return true;
}

/* write -> fsync -> rename -> fsync of the directory: a crash leaves the old or the new side file. */
static int write_side(struct store *st, const struct snapref *ref, const struct snapattr *a, struct verr *err)
{
    char file[SNAP_FILE_MAX], dir[DISK_PATH_MAX];
    uint8_t data[SNAPATTR_BYTES];
    size_t len = snapattr_encode(a, data);
    if (len == 0)
        return file_fail(ref, ".attr", -EINVAL, "label, note, mode or flags cannot be stored", err);
    store_disk_path(DIR_SNAPSHOTS, &ref->disk, dir);
    store_snap_file(ref->seq, &ref->snap, ".attr", file);
    int r = bk_replace(st->b, dir, file, data, len);
    return r < 0 ? file_fail(ref, ".attr", r, strerror(-r), err) : 0;
}

static int edit_held(struct store *st, const struct snapref *ref, const struct snaps_change *ch, struct snapinfo *out, struct verr *err)
{
    struct snaprcp rcp;
    struct snapattr side;
    int r = snaps_load(st, ref, &rcp, &side, err);
    if (r < 0)
        return r;
    struct snapinfo now = rcp.info;
    r = ch->change(ch->ctx, &now);
    if (r < 0)
        return file_fail(ref, ".attr", r, "the change is refused", err);
    if (side_follows(&rcp.info, &now, &side)) {
        r = write_side(st, ref, &side, err);
        if (r < 0)
            return r;
        fault_point("names.snap_attr.after_file");
    }
    if (out != NULL)
        *out = now;
    return ch->then != NULL ? ch->then(ch->ctx, &now, err) : 0;
}

int snaps_edit(struct store *st, const struct snapref *ref, const struct snaps_change *ch, struct snapinfo *out, struct verr *err)
{
    struct snaps_busy b;
    snaps_begin(st, ref, &b);
    int r = edit_held(st, ref, ch, out, err);
    snaps_end(st, &b);
    return r;
}
