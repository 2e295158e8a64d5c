/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snaps_links: names of snapshot files, directories of disks, trash and anchors.
 *
 * Nothing is ever unlinked from snapshots/ or anchors/: what goes is renamed into trash/, where a collection finds it
 * (DESIGN section 7). A name in trash/ is new each time, because rename() onto another link of the same file would do
 * nothing and say that it did:
 *
 *     DISKID-s-RANDOM-SEQ-SNAPID.rcp    recipe (or .attr) removed from snapshots/DISKID
 *     DISKID-a-RANDOM-SEQ-SNAPID.rcp    anchor dropped from anchors/DISKID
 */
#include "base/endian.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/verr.h"
#include "store/snaps.h"
#include "store/snaps_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* ---- directories of disks ---- */

static bool durable_known(struct store *st, enum store_dir dir, const struct vid *disk, bool learn)
{
    unsigned slot = (unsigned)(get_le32(disk->b) ^ (unsigned)dir) % DURABLE_DIRS;
    pthread_mutex_lock(&st->durable_lock);
    bool known = st->durable[slot].known && st->durable[slot].dir == (int)dir && vid_eq(&st->durable[slot].disk, disk);
    if (learn) {
        st->durable[slot].disk = *disk;
        st->durable[slot].dir = (int)dir;
        st->durable[slot].known = true;
    }
    pthread_mutex_unlock(&st->durable_lock);
    return known;
}

int store_disk_dir(struct store *st, enum store_dir dir, const struct vid *disk, bool make, struct verr *err)
{
    char hex[VID_HEX];
    vid_hex(disk, hex);
    if (dir != DIR_SNAPSHOTS && dir != DIR_ANCHORS)
        return verr_set(err, EINVAL, "%s/%s has no directories of disks", st->path, store_dir_names[dir]);
    int fd = make ? dir_make(st->dirs[dir], hex) : dir_open(st->dirs[dir], hex);
    if (fd < 0)
        return store_fail(st, dir, hex, fd, make ? "making" : "opening", err);
    /* Also when it was there before: whoever made it may have died before his fsync. */
    if (make && !durable_known(st, dir, disk, false)) {
        int r = dir_sync(st->dirs[dir]);
        if (r < 0) {
            close(fd);
            return store_fail(st, dir, NULL, r, "fsync of", err);
        }
        durable_known(st, dir, disk, true);
    }
    return fd;
}

/* ---- trash ---- */

static int to_trash(struct store *st, int from, const struct vid *disk, char kind, const char *name)
{
    char hex[VID_HEX], trash[TRASH_NAME_MAX];
    uint64_t salt;
    vid_hex(disk, hex);
    random_bytes(&salt, sizeof salt);
    snprintf(trash, sizeof trash, "%s-%c-%016" PRIx64 "-%s", hex, kind, salt, name);
    return renameat(from, name, st->dirs[DIR_TRASH], trash) < 0 ? -errno : 0;
}

/* trash/ first: an entry must never be durably gone here while it is not durably there. */
static int sync_moved(struct store *st, int from, enum store_dir dir, const char *hex, struct verr *err)
{
    int r = dir_sync(st->dirs[DIR_TRASH]);
    if (r < 0)
        return store_fail(st, DIR_TRASH, NULL, r, "fsync of", err);
    fault_point("store.trash.between");
    r = dir_sync(from);
    return r < 0 ? store_fail(st, dir, hex, r, "fsync of", err) : 0;
}

static int trash_held(struct store *st, const struct snapref *ref, struct verr *err)
{
    char rcp[SNAP_FILE_MAX], attr[SNAP_FILE_MAX], hex[VID_HEX];
    vid_hex(&ref->disk, hex);
    store_snap_file(ref->seq, &ref->snap, "rcp", rcp);
    store_snap_file(ref->seq, &ref->snap, "attr", attr);
    int fd = store_disk_dir(st, DIR_SNAPSHOTS, &ref->disk, false, err);
    if (fd < 0)
        return fd;
    /* The recipe first: a snapshot that survives a crash must not have lost its label or its protection. The side file
     * is looked for also when the recipe is gone, which is what such a crash leaves. */
    int gone = to_trash(st, fd, &ref->disk, 's', rcp);
    int side = gone == 0 || gone == -ENOENT ? to_trash(st, fd, &ref->disk, 's', attr) : 0;
    int r = sync_moved(st, fd, DIR_SNAPSHOTS, hex, err);
    close(fd);
    if (gone < 0)
        return verr_set(err, -gone, "removing snapshot %s/snapshots/%s/%s: %s", st->path, hex, rcp, strerror(-gone));
    if (r == 0 && side < 0 && side != -ENOENT)
        return verr_set(err, -side, "removing %s/snapshots/%s/%s: %s", st->path, hex, attr, strerror(-side));
    return r;
}

/* An edit that wrote its side file after the recipe went would leave a side file without a snapshot. */
int snaps_trash(struct store *st, const struct snapref *ref, struct verr *err)
{
    struct snaps_busy b;
    snaps_begin(st, ref, &b);
    int r = trash_held(st, ref, err);
    snaps_end(st, &b);
    return r;
}

/* ---- anchors ---- */

static int anchor_link(struct store *st, int to, const struct vid *from_disk, const char *name)
{
    char hex[VID_HEX];
    vid_hex(from_disk, hex);
    int from = dir_open(st->dirs[DIR_SNAPSHOTS], hex);
    int r = from < 0 ? from : 0;
    if (r == 0 && linkat(from, name, to, name, 0) < 0)
        r = -errno;
    if (from >= 0)
        close(from);
    /* An anchor that is there holds the data, even when the snapshot itself has gone since. */
    if (r == -EEXIST || (r == -ENOENT && faccessat(to, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0))
        r = 0;
    return r;
}

int snaps_anchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err)
{
    char name[SNAP_FILE_MAX], hex[VID_HEX];
    vid_hex(for_disk, hex);
    store_snap_file(ref->seq, &ref->snap, "rcp", name);
    int fd = store_disk_dir(st, DIR_ANCHORS, for_disk, true, err);
    if (fd < 0)
        return fd;
    int r = anchor_link(st, fd, &ref->disk, name);
    if (r < 0)
        verr_set(err, -r, "anchoring %s in %s/anchors/%s: %s", name, st->path, hex,
                 r == -ENOENT ? "the snapshot is gone" : strerror(-r));
    /* link -> fsync -> only now may a pointer rely on it; also when it was there: its maker may have died before his. */
    if (r == 0 && (r = dir_sync(fd)) < 0)
        store_fail(st, DIR_ANCHORS, hex, r, "fsync of", err);
    close(fd);
    return r;
}

static int unanchor_going(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err)
{
    char name[SNAP_FILE_MAX], hex[VID_HEX];
    vid_hex(for_disk, hex);
    store_snap_file(ref->seq, &ref->snap, "rcp", name);
    int fd = dir_open(st->dirs[DIR_ANCHORS], hex);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return store_fail(st, DIR_ANCHORS, hex, fd, "opening", err);
    int r = to_trash(st, fd, for_disk, 'a', name);
    if (r < 0 && r != -ENOENT)
        r = verr_set(err, -r, "dropping anchor %s/anchors/%s/%s: %s", st->path, hex, name, strerror(-r));
    else
        r = sync_moved(st, fd, DIR_ANCHORS, hex, err);
    close(fd);
    return r;
}

/* ---- pins ---- */

/* lock held. */
static struct snaps_pin **find_pin(struct snaps_state *s, const struct vid *for_disk, const struct snapref *ref)
{
    struct snaps_pin **p = &s->pins;
    while (*p != NULL && !(vid_eq(&(*p)->for_disk, for_disk) && snapref_eq(&(*p)->ref, ref)))
        p = &(*p)->next;
    return p;
}

/* lock held. The entry of that anchor, made when there is none; NULL: no memory. */
static struct snaps_pin *take_pin(struct snaps_state *s, const struct vid *for_disk, const struct snapref *ref)
{
    struct snaps_pin **at = find_pin(s, for_disk, ref);
    if (*at == NULL && (*at = calloc(1, sizeof **at)) != NULL) {
        (*at)->for_disk = *for_disk;
        (*at)->ref = *ref;
    }
    return *at;
}

/* lock held. */
static void drop_pin(struct snaps_state *s, const struct vid *for_disk, const struct snapref *ref)
{
    struct snaps_pin **at = find_pin(s, for_disk, ref), *p = *at;
    if (p != NULL && p->pins == 0 && !p->going) {
        *at = p->next;
        free(p);
    }
}

int snaps_pin(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err)
{
    struct snaps_state *s = &st->snaps;
    struct snaps_pin *p;
    pthread_mutex_lock(&s->lock);
    while ((p = take_pin(s, for_disk, ref)) != NULL && p->going)
        pthread_cond_wait(&s->ended, &s->lock);
    if (p != NULL)
        p->pins++;
    pthread_mutex_unlock(&s->lock);
    return p != NULL ? 0 : verr_set(err, ENOMEM, "pinning an anchor: out of memory");
}

void snaps_unpin(struct store *st, const struct vid *for_disk, const struct snapref *ref)
{
    struct snaps_state *s = &st->snaps;
    pthread_mutex_lock(&s->lock);
    struct snaps_pin *p = *find_pin(s, for_disk, ref);
    if (p != NULL && p->pins > 0)
        p->pins--;
    drop_pin(s, for_disk, ref);
    pthread_mutex_unlock(&s->lock);
}

int snaps_unanchor(struct store *st, const struct vid *for_disk, const struct snapref *ref, struct verr *err)
{
    struct snaps_state *s = &st->snaps;
    struct snaps_pin *p;
    pthread_mutex_lock(&s->lock);
    while ((p = take_pin(s, for_disk, ref)) != NULL && p->going)
        pthread_cond_wait(&s->ended, &s->lock);
    int r = p == NULL ? -ENOMEM : p->pins > 0 ? -EBUSY : 0;
    if (r == 0)
        p->going = true;
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        return verr_set(err, -r, "dropping an anchor: %s", r == -EBUSY ? "it is in use" : strerror(-r));
    r = unanchor_going(st, for_disk, ref, err);
    pthread_mutex_lock(&s->lock);
    p->going = false;
    drop_pin(s, for_disk, ref);
    pthread_cond_broadcast(&s->ended);
    pthread_mutex_unlock(&s->lock);
    return r;
}
