/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snaps_links: names of snapshot files, trash and anchors.
 *
 * No file is ever unlinked from snapshots/ or anchors/. It is renamed into trash/, where a collection finds it
 * (docs/design/publishing.md). Each name in trash/ is new, because rename() onto another link of the same file does nothing
 * and still succeeds:
 *
 *     DISKID-s-RANDOM-SEQ-SNAPID.rcp    recipe (or .attr) removed from snapshots/DISKID
 *     DISKID-a-RANDOM-SEQ-SNAPID.rcp    anchor dropped from anchors/DISKID
 */
#include "base/fault.h"
#include "base/hex.h"
#include "base/verr.h"
#include "store/snaps.h"
#include "store/snaps_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRASH_NAME_MAX = 128, SEQ_DIGITS = 16 };

static const char *suffix_text(const char *suffix)
{
    return suffix[0] == '.' ? suffix + 1 : suffix;
}

void store_snap_file(uint64_t seq, const struct vid *snap, const char *suffix, char out[SNAP_FILE_MAX])
{
    char hex[VID_HEX];
    vid_hex(snap, hex);
    snprintf(out, SNAP_FILE_MAX, "%016" PRIx64 "-%s.%s", seq, hex, suffix_text(suffix));
}

int store_snap_file_parse(const char *name, const char *suffix, uint64_t *seq, struct vid *snap)
{
    uint64_t number;
    struct vid id;
    if (hex_number(name, SEQ_DIGITS, &number) < 0 || name[SEQ_DIGITS] != '-')
        return -EINVAL;
    const char *p = name + SEQ_DIGITS + 1;
    if (hex_bytes(p, id.b, VID_BYTES) < 0)
        return -EINVAL;
    p += VID_HEX - 1;
    if (*p != '.' || strcmp(p + 1, suffix_text(suffix)) != 0)
        return -EINVAL;
    *seq = number;
    *snap = id;
    return 0;
}

void store_disk_path(enum store_dir dir, const struct vid *disk, char out[DISK_PATH_MAX])
{
    char hex[VID_HEX];
    vid_hex(disk, hex);
    snprintf(out, DISK_PATH_MAX, "%s/%s", store_dir_names[dir], hex);
}

/* ---- trash ---- */

static int to_trash(struct store *st, const char *from, const struct vid *disk, char kind, const char *name)
{
    char hex[VID_HEX], trash[TRASH_NAME_MAX];
    uint64_t salt;
    vid_hex(disk, hex);
    random_bytes(&salt, sizeof salt);
    snprintf(trash, sizeof trash, "%s-%c-%016" PRIx64 "-%s", hex, kind, salt, name);
    return bk_move(st->b, from, name, "trash", trash);
}

/* Syncs trash/ first, so that a file is never durably removed from one directory before it is durable in the other. */
static int sync_moved(struct store *st, const char *from, struct verr *err)
{
    int r = bk_sync(st->b, "trash");
    if (r < 0)
        return store_fail(st, DIR_TRASH, NULL, r, "fsync of", err);
    fault_point("store.trash.between");
    r = bk_sync(st->b, from);
    return r < 0 ? verr_set(err, -r, "fsync of %s/%s: %s", st->path, from, strerror(-r)) : 0;
}

static int trash_held(struct store *st, const struct snapref *ref, struct verr *err)
{
    char rcp[SNAP_FILE_MAX], attr[SNAP_FILE_MAX], dir[DISK_PATH_MAX];
    store_disk_path(DIR_SNAPSHOTS, &ref->disk, dir);
    store_snap_file(ref->seq, &ref->snap, "rcp", rcp);
    store_snap_file(ref->seq, &ref->snap, "attr", attr);
    /* The recipe moves first: a snapshot that is still there after a crash must not have lost its label or protection. The side file is
     * moved also when the recipe is missing, as after such a crash. */
    int gone = to_trash(st, dir, &ref->disk, 's', rcp);
    int side = gone == 0 || gone == -ENOENT ? to_trash(st, dir, &ref->disk, 's', attr) : 0;
    int r = sync_moved(st, dir, err);
    if (gone < 0)
        return verr_set(err, -gone, "removing snapshot %s/%s/%s: %s", st->path, dir, rcp, strerror(-gone));
    if (r == 0 && side < 0 && side != -ENOENT)
        return verr_set(err, -side, "removing %s/%s/%s: %s", st->path, dir, attr, strerror(-side));
    return r;
}

/* Counts as an edit of the snapshot: another edit could otherwise write a side file after the recipe was moved. */
int snaps_trash(struct store *st, const struct snapref *ref, struct verr *err)
{
    struct snaps_busy b;
    snaps_begin(st, ref, &b);
    int r = trash_held(st, ref, err);
    snaps_end(st, &b);
    return r;
}

/* ---- anchors ---- */

/* holder (may be NULL): its anchor is the second place to link from. */
static int anchor_link(struct store *st, const char *to, const struct vid *from_disk, const struct vid *holder, const char *name)
{
    char from[DISK_PATH_MAX];
    struct bstat there;
    store_disk_path(DIR_SNAPSHOTS, from_disk, from);
    int r = bk_link(st->b, from, name, to, name);
    /* An anchor that is there keeps the data, even if the snapshot has been removed since. */
    if (r == -EEXIST || (r == -ENOENT && bk_stat_name(st->b, to, name, &there) == 0))
        r = 0;
    if (r == -ENOENT && holder != NULL) {
        store_disk_path(DIR_ANCHORS, holder, from);
        r = bk_link(st->b, from, name, to, name);
    }
    return r;
}

int snaps_anchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err)
{
    return snaps_anchor_shared(st, for_disk, NULL, ref, err);
}

int snaps_anchor_shared(struct store *st, const struct vid *for_disk, const struct vid *holder, const struct snapref *ref, struct verr *err)
{
    char name[SNAP_FILE_MAX], hex[VID_HEX], dir[DISK_PATH_MAX];
    vid_hex(for_disk, hex);
    store_disk_path(DIR_ANCHORS, for_disk, dir);
    store_snap_file(ref->seq, &ref->snap, "rcp", name);
    int r = bk_make_dir(st->b, "anchors", hex);
    if (r < 0)
        return store_fail(st, DIR_ANCHORS, hex, r, "making", err);
    r = anchor_link(st, dir, &ref->disk, holder, name);
    if (r < 0)
        return verr_set(err, -r, "anchoring %s in %s/%s: %s", name, st->path, dir, r == -ENOENT ? "the snapshot is gone" : strerror(-r));
    /* link -> sync -> only now may a pointer rely on it. An old anchor is synced too: its maker may have died before the sync. */
    r = bk_sync(st->b, dir);
    return r < 0 ? store_fail(st, DIR_ANCHORS, hex, r, "fsync of", err) : 0;
}

static int unanchor_going(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err)
{
    char name[SNAP_FILE_MAX], dir[DISK_PATH_MAX];
    store_disk_path(DIR_ANCHORS, for_disk, dir);
    store_snap_file(ref->seq, &ref->snap, "rcp", name);
    int r = snaps_named(st, DIR_ANCHORS, for_disk, 0, NULL);
    if (r <= 0)
        return r < 0 ? verr_set(err, -r, "opening %s/%s: %s", st->path, dir, strerror(-r)) : 0;
    r = to_trash(st, dir, for_disk, 'a', name);
    if (r < 0 && r != -ENOENT)
        return verr_set(err, -r, "dropping anchor %s/%s/%s: %s", st->path, dir, name, strerror(-r));
    return sync_moved(st, dir, err);
}

/* ---- pins ---- */

/* Links the entry. Pins of one anchor stand side by side, an un-anchoring of it stands alone: else -EBUSY. */
static int enter(struct store *st, const struct vid *for_disk, const struct snapref *ref, bool going, struct snaps_pin *p)
{
    struct snaps_state *s = &st->snaps;
    *p = (struct snaps_pin){.for_disk = *for_disk, .ref = *ref, .going = going};
    pthread_mutex_lock(&s->lock);
    const struct snaps_pin *q = s->pins;
    while (q != NULL && !((going || q->going) && vid_eq(&q->for_disk, for_disk) && snapref_eq(&q->ref, ref)))
        q = q->next;
    if (q == NULL) {
        p->next = s->pins;
        s->pins = p;
    }
    pthread_mutex_unlock(&s->lock);
    return q == NULL ? 0 : -EBUSY;
}

int snaps_pin(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct snaps_pin *p)
{
    return enter(st, for_disk, ref, false, p);
}

void snaps_unpin(struct store *st, struct snaps_pin *p)
{
    pthread_mutex_lock(&st->snaps.lock);
    struct snaps_pin **at = &st->snaps.pins;
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    pthread_mutex_unlock(&st->snaps.lock);
}

int snaps_unanchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, bool (*obsolete)(void *ctx), void *ctx,
                   struct verr *err)
{
    struct snaps_pin going;
    int r = enter(st, for_disk, ref, true, &going);
    if (r < 0)
        return verr_set(err, -r, "dropping an anchor: it is in use");
    if (obsolete == NULL || obsolete(ctx))
        r = unanchor_going(st, for_disk, ref, err);
    else
        r = verr_set(err, EBUSY, "dropping an anchor: it is relied on again");
    snaps_unpin(st, &going);
    return r;
}
