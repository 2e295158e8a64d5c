/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored snapshots: removal, label, note, protection, owner; and the reading of their files.
 * What can change of a stored snapshot is in its side file SEQ-SNAPID.attr: replaced whole and durably, then the row.
 */
#include "names/names_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"

/* ---- reading ---- */

static int file_bad(int r, const struct vid *disk, const char *file, const char *why, struct verr *err)
{
    char hex[VID_HEX];
    vid_hex(disk, hex);
    return verr_set(err, -r, "snapshots/%s/%s: %s", hex, file, why);
}

int names_read_header(struct store *st, int dirfd, const struct vid *disk, uint64_t seq, const struct vid *snap, struct snaprcp *out,
                      struct verr *err)
{
    char file[SNAP_FILE_MAX];
    uint8_t page[SNAPRCP_PAGE];
    store_snap_file(seq, snap, ".rcp", file);
    int fd = openat(dirfd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return file_bad(-errno, disk, file, strerror(errno), err);
    ssize_t got = pread_full(fd, page, sizeof page, 0);
    close(fd);
    if (got < 0)
        return file_bad((int)got, disk, file, strerror((int)-got), err);
    if (got != SNAPRCP_PAGE)
        return file_bad(-EBADMSG, disk, file, "too short for a snapshot recipe", err);
    struct snaprcp rcp;
    const char *why = "damaged";
    int r = snaprcp_decode(page, &rcp, &why);
    if (r < 0)
        return file_bad(r, disk, file, why, err);
    if (!vid_eq(&rcp.store, &store_conf(st)->id) || !vid_eq(&rcp.info.ref.disk, disk) || !vid_eq(&rcp.info.ref.snap, snap) ||
        rcp.info.ref.seq != seq)
        return file_bad(-EBADMSG, disk, file, "belongs to another store, disk or snapshot", err);
    *out = rcp;
    return 0;
}

int names_read_attr(struct store *st, int dirfd, const struct vid *disk, uint64_t seq, const struct vid *snap, struct snapattr *out,
                    struct verr *err)
{
    (void)st;
    char file[SNAP_FILE_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    store_snap_file(seq, snap, ".attr", file);
    int r = file_load(dirfd, file, SNAPATTR_BYTES, &data, &len);
    if (r == -ENOENT)
        return 0;
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return file_bad(-EBADMSG, disk, file, "not a side file", err);
    if (r < 0)
        return file_bad(r, disk, file, strerror(-r), err);
    struct snapattr a;
    const char *why = "damaged";
    r = snapattr_decode(data, len, &a, &why);
    free(data);
    if (r == 0 && !vid_eq(&a.snap, snap)) {
        r = -EBADMSG;
        why = "belongs to another snapshot";
    }
    if (r < 0)
        return file_bad(r, disk, file, why, err);
    *out = a;
    return 1;
}

/* ---- side file ---- */

/* What a snapshot without side file says by itself. */
static void attr_of_row(const struct snaprow *s, struct snapattr *a)
{
    memset(a, 0, sizeof *a);
    a->snap = s->info.ref.snap;
    memcpy(a->label, s->info.label, sizeof a->label);
    memcpy(a->note, s->info.note, sizeof a->note);
    a->protected_ = s->info.protected_;
}

/* Durable on return: temporary file -> fdatasync -> rename -> fsync of the directory. */
static int attr_save(struct names *n, int dirfd, const struct snaprow *s, struct snapattr *a, struct verr *err)
{
    char rcp[SNAP_FILE_MAX], file[SNAP_FILE_MAX];
    uint8_t data[SNAPATTR_BYTES];
    store_snap_file(s->info.ref.seq, &s->info.ref.snap, ".rcp", rcp);
    store_snap_file(s->info.ref.seq, &s->info.ref.snap, ".attr", file);
    if (faccessat(dirfd, rcp, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        int e = errno;
        if (e == ENOENT)    /* another host has removed it */
            catalog_snap_del(n->catalog, &s->info.ref.snap, NULL);
        return file_bad(-e, &s->info.ref.disk, rcp, strerror(e), err);
    }
    a->version++;
    size_t len = snapattr_encode(a, data);
    if (len == 0)
        return file_bad(-EINVAL, &s->info.ref.disk, file, "these attributes cannot be stored", err);
    int r = file_replace(dirfd, file, data, len);
    if (r < 0)
        return file_bad(r, &s->info.ref.disk, file, strerror(-r), err);
    fault_point("names.snap_attr.after_file");
    return 0;
}

struct snap_change { const char *label, *note; const bool *protected_; const uint32_t *mode, *uid, *gid; };

static void change_attr(const struct snap_change *ch, struct snapattr *a, const struct snaprow *s)
{
    if (ch->label != NULL) {
        memset(a->label, 0, sizeof a->label);
        memcpy(a->label, ch->label, strlen(ch->label));
    }
    if (ch->note != NULL) {
        memset(a->note, 0, sizeof a->note);
        memcpy(a->note, ch->note, strlen(ch->note));
    }
    if (ch->protected_ != NULL)
        a->protected_ = *ch->protected_;
    if (ch->mode == NULL && ch->uid == NULL && ch->gid == NULL)
        return;
    if (!a->owner_set) {
        a->mode = s->info.mode;
        a->uid = s->info.uid;
        a->gid = s->info.gid;
    }
    a->owner_set = true;
    if (ch->mode != NULL)
        a->mode = *ch->mode & 0777 & ~0222u;
    if (ch->uid != NULL)
        a->uid = *ch->uid;
    if (ch->gid != NULL)
        a->gid = *ch->gid;
}

static void change_row(const struct snap_change *ch, const struct snapattr *a, struct snaprow *s)
{
    if (ch->label != NULL)
        memcpy(s->info.label, a->label, sizeof s->info.label);
    memcpy(s->info.note, a->note, sizeof s->info.note);
    s->info.protected_ = a->protected_;
    if (a->owner_set) {
        s->info.mode = a->mode & ~0222u;
        s->info.uid = a->uid;
        s->info.gid = a->gid;
    }
}

static int change_locked(struct names *n, struct snaprow *s, const struct snap_change *ch, struct verr *err)
{
    int dirfd = store_disk_dir(n->store, DIR_SNAPSHOTS, &s->info.ref.disk, false, err);
    if (dirfd < 0)
        return dirfd;
    struct snapattr a;
    int r = names_read_attr(n->store, dirfd, &s->info.ref.disk, s->info.ref.seq, &s->info.ref.snap, &a, err);
    if (r == 0)
        attr_of_row(s, &a);
    if (r >= 0) {
        change_attr(ch, &a, s);
        r = attr_save(n, dirfd, s, &a, err);
    }
    close(dirfd);
    if (r < 0)
        return r;
    change_row(ch, &a, s);
    return names_rows_done(n, catalog_snap_put(n->catalog, s, err), err);
}

static int load_stored(struct names *n, const struct vid *snap, struct snaprow *out, struct verr *err)
{
    int r = catalog_snap_by_id(n->catalog, snap, out, err);
    if (r == 0 && out->state != SNAPST_STORED)
        r = verr_set(err, EBUSY, "the snapshot is not stored yet: wait for it with `varve wait`");
    return r;
}

int names_snap_set(struct names *n, const struct vid *snap, const char *note, const bool *protected_, const uint32_t *mode,
                   const uint32_t *uid, const uint32_t *gid, struct verr *err)
{
    struct verr why = {0};
    struct snaprow s;
    const struct snap_change ch = {.note = note, .protected_ = protected_, .mode = mode, .uid = uid, .gid = gid};
    if (note != NULL && strnlen(note, sizeof s.info.note) == sizeof s.info.note)
        return verr_set(err, E2BIG, "a note has at most %zu bytes", sizeof s.info.note - 1);
    pthread_mutex_lock(&n->lock);
    int r = load_stored(n, snap, &s, &why);
    if (r == 0)
        r = change_locked(n, &s, &ch, &why);
    pthread_mutex_unlock(&n->lock);
    return names_end(r, &why, err);
}

/* -EEXIST when the name that the label would give belongs to another snapshot, of this disk or, where an extension is
 * missing, of another one. */
static int check_label_free(struct names *n, const struct snaprow *s, const char *label, struct verr *err)
{
    struct snaprow other;
    struct node disk;
    struct entry e;
    char name[NODE_NAME_MAX + 1];
    int r = catalog_snap_by_name(n->catalog, &s->info.ref.disk, label, 0, &other, err);
    if (r == 0)
        return vid_eq(&other.info.ref.snap, &s->info.ref.snap) ? 0 : verr_set(err, EEXIST,
                                                                              "%s: is the label of another snapshot of this disk", label);
    if (r != -ENOENT)
        return r;
    r = catalog_node_by_id(n->catalog, &s->info.ref.disk, &disk, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (snapname_make(disk.name, label, 0, name) < 0)
        return verr_set(err, ENAMETOOLONG, "%s: too long a label for %s", label, disk.name);
    r = names_lookup(n, &disk.parent, name, &e, NULL);
    if (r == 0)
        return verr_set(err, EEXIST, "%s: exists", name);
    return r == -ENOENT ? 0 : verr_set(err, -r, "%s: cannot be looked up", name);
}

int names_snap_relabel(struct names *n, const struct vid *snap, const char *label, struct verr *err)
{
    struct verr why = {0};
    struct snaprow s;
    const struct snap_change ch = {.label = label};
    if (!snapname_label_ok(label))
        return verr_set(err, EINVAL, "%.80s: not a label: 1 to 64 of [A-Za-z0-9._-], not of the form of a timestamp", label);
    pthread_mutex_lock(&n->lock);
    int r = load_stored(n, snap, &s, &why);
    if (r == 0 && strcmp(s.info.label, label) == 0)
        goto out;
    if (r == 0)
        r = check_label_free(n, &s, label, &why);
    if (r == 0)
        r = change_locked(n, &s, &ch, &why);
out:
    pthread_mutex_unlock(&n->lock);
    return names_end(r, &why, err);
}

/* ---- removal ---- */

static int remove_locked(struct names *n, const struct vid *id, struct verr *err)
{
    struct snaprow s;
    struct node disk;
    int r = catalog_snap_by_id(n->catalog, id, &s, err);
    if (r < 0)
        return r;
    if (s.info.protected_)
        return verr_set(err, EPERM, "the snapshot is protected: set user.varve.protected to 0 first");
    /* Deletion runs backwards: the recipe goes into trash/, durably, then the row, then what nothing needs any more. */
    if (s.state == SNAPST_STORED) {
        r = store_snap_trash(n->store, &s.info.ref.disk, s.info.ref.seq, &s.info.ref.snap, err);
        if (r < 0 && r != -ENOENT)
            return names_rows_done(n, r, err);  /* the recipe may be gone or there: whoever reconciles sees which */
        fault_point("names.snap_remove.after_trash");
    }
    r = names_rows_done(n, catalog_snap_del(n->catalog, &s.info.ref.snap, err), err);
    if (r == 0)
        r = catalog_node_by_id(n->catalog, &s.info.ref.disk, &disk, err);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    r = names_drop_if_empty(n, &disk, err);
    return r < 0 ? r : names_touch(n, &disk.parent, vclock_real_ns(n->clock), err);
}

int names_snap_remove(struct names *n, const struct snaprow *s, struct verr *err)
{
    struct verr why = {0};
    pthread_mutex_lock(&n->lock);
    int r = remove_locked(n, &s->info.ref.snap, &why);
    pthread_mutex_unlock(&n->lock);
    return names_end(r, &why, err);
}
