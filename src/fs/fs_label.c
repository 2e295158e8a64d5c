/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_label: `touch DISK@LABEL.EXT`. CREATE opens a label handle, the first FLUSH takes the snapshot; a change of data or size fails and
 * spoils the handle, which then takes none. While the handle is open, its temporary inode has attributes of its own; the name leads to the
 * snapshot.
 */
#include "fs/fs_internal.h"

#include "base/vlog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Finds the live disk that NAME@LABEL.EXT belongs to, and the label. The label may hold dots if the disk has no extension. */
static int label_disk(struct op *op, const struct node *dir, struct entry *e, char label[65], struct verr *err)
{
    struct snapname sn;
    if (strlen(op->name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    if (snapname_parse(op->name, &sn) != 1)
        return verr_set(err, EINVAL, "%s: not a snapshot's name (NAME@LABEL.EXT, label [A-Za-z0-9._-]{1,64})", op->name);
    int rc = names_lookup(op->f->names, &dir->id, sn.disk, e, err);
    if (rc == -ENOENT) {
        snprintf(sn.disk, sizeof sn.disk, "%.*s", (int)strcspn(op->name, "@"), op->name);
        rc = names_lookup(op->f->names, &dir->id, sn.disk, e, err);
    }
    if (rc == 0 && e->kind != ENTRY_DISK)
        rc = -ENOENT;
    if (rc < 0)
        return rc;
    if (fs_label_of(sn.disk, op->name, label) < 0)
        return verr_set(err, EINVAL, "%s: a label must not have the form of a time", op->name);
    return 0;
}

static int label_check(struct op *op, const struct node *disk, const char *label, uint64_t *size, struct verr *err)
{
    struct snaprow row;
    struct live_attr a;
    struct live *l = NULL;
    int rc = catalog_snap_by_name(op->f->catalog, &disk->id, label, 0, &row, err);
    if (rc != -ENOENT)
        return rc == 0 ? -EEXIST : rc;
    /* The kernel has checked the rights on the directory; a snapshot also needs the right to write to the disk. */
    if (!fs_may(op->req, disk->uid, disk->gid, disk->mode, 2))
        return -EACCES;
    rc = live_get(op->f->live, &disk->id, &l, err);
    if (rc < 0)
        return rc;
    rc = live_attr(l, &a, err);
    live_put(l);
    if (rc == 0)
        *size = a.size;
    return rc;
}

void fs_label_create(struct op *op)
{
    struct fs *f = op->f;
    struct verr err = {0};
    struct node dir;
    struct entry e;
    char label[65];
    uint64_t size = 0;
    int rc = fs_dir_node(f, op->ino, &dir, &err);
    if (rc == 0)
        rc = label_disk(op, &dir, &e, label, &err);
    if (rc == 0)
        rc = label_check(op, &e.node, label, &size, &err);
    struct vid id = vid_random();
    struct handle *h = rc == 0 ? handle_new(f, HANDLE_LABEL, vid_ino(&id)) : NULL;
    if (rc == 0 && h == NULL)
        rc = -ENOMEM;
    if (h == NULL) {
        fs_reply_fail(op->req, "create", op->ino, rc, &err);
        return;
    }
    pthread_mutex_lock(&f->lock);
    h->label_disk = e.node;
    h->label_size = size;
    memcpy(h->label, label, sizeof h->label);
    pthread_mutex_unlock(&f->lock);
    struct fuse_entry_param param;
    memset(&param, 0, sizeof param);
    param.ino = h->ino;
    fs_stat_label(f, h->ino, &e.node, size, &param.attr);
    op->fi.fh = (uintptr_t)h;
    op->fi.direct_io = 1;
    if (fuse_reply_create(op->req, &param, &op->fi) == -ENOENT)
        handle_free(f, h);
}

/* -EAGAIN: the disk is partial as long as a release that is on the way has not come; unless waited. */
static int label_take(struct fs *f, struct handle *h, bool waited, struct snaprow *row, struct verr *err)
{
    struct node node;
    struct live *l = NULL;
    struct due_case c = {.occasion = DUE_REQUEST, .node = &node};
    int rc = names_by_ino(f->names, vid_ino(&h->label_disk.id), &node, err);
    bool closing = rc == 0 && !waited && fs_disk_closing(f, &node, NULL);   /* before the look at what was released */
    if (rc == 0)
        rc = agent_settle_closed(f->agent, &node.id, err);
    if (rc == 0)
        rc = live_get(f->live, &node.id, &l, err);
    if (rc < 0)
        return rc;
    rc = due_ask(&c, l, err);
    live_put(l);
    if (rc == DUE_PARTIAL && closing)
        return -EAGAIN;
    return rc < 0 ? rc : fs_freeze(f, &node, due_flags(&c, (enum due)rc), h->label, NULL, row, err);
}

static void label_stored(fuse_req_t req, int result, const struct verr *why, void *arg)
{
    (void)arg;
    (void)why;
    fuse_reply_err(req, result < 0 ? -result : 0);
}

void fs_label_flush(struct op *op)
{
    struct handle *h = op->h;
    struct verr err = {0};
    struct snaprow row;
    pthread_mutex_lock(&h->lock);
    bool take = h->label_state == LABEL_NEW;
    if (take)
        h->label_state = LABEL_TAKEN;       /* of two flushes at the same time only one takes the snapshot */
    pthread_mutex_unlock(&h->lock);
    int rc = take ? label_take(op->f, h, false, &row, &err) : 0;
    bool later = rc == -EAGAIN && op_retry(op);
    if (rc == -EAGAIN && !later)
        rc = label_take(op->f, h, true, &row, &err);
    pthread_mutex_lock(&h->lock);
    if (rc < 0)
        h->label_state = LABEL_NEW;
    else if (take)
        h->label_snap = row.info.ref.snap;
    pthread_mutex_unlock(&h->lock);
    if (later)
        return;
    if (rc < 0) {
        fuse_reply_err(op->req, fs_errno("snapshot", op->ino, rc, &err));
    } else if (take && op->f->conf.sync_close) {
        fs_wait(op->f, op->req, &row.info.ref.snap, 1, true, -1, label_stored, NULL);
    } else {
        fuse_reply_err(op->req, 0);
    }
}

/* A shell's redirection moves the descriptor, which flushes it before the command writes: the snapshot that this flush made is removed
 * again. */
static void label_spoil_run(struct op *op)
{
    struct handle *h = op->h;
    struct snaprow row;
    struct verr err = {0};
    pthread_mutex_lock(&h->lock);
    bool made = h->label_state == LABEL_TAKEN && !vid_is_zero(&h->label_snap);
    if (!made)
        h->label_state = LABEL_SPOILT;
    pthread_mutex_unlock(&h->lock);
    if (made && catalog_snap_by_id(op->f->catalog, &h->label_snap, &row, &err) == 0) {
        int rc = agent_snap_remove(op->f->agent, &row, &err);
        if (rc < 0)
            vlog(VLOG_WARN, "fs", "the snapshot %s, which a program tried to write to, stays: %s", h->label, verr_str(&err));
    }
    pthread_mutex_lock(&h->lock);
    h->label_state = LABEL_SPOILT;
    pthread_mutex_unlock(&h->lock);
    fuse_reply_err(op->req, EROFS);
}

void fs_label_refuse(fuse_req_t req, fuse_ino_t ino, struct handle *h)
{
    struct op *op = op_new(req, label_spoil_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    op_submit(op, op->f->ctl);
}
