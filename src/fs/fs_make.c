/* SPDX-License-Identifier: Apache-2.0 */
/* fs_make: mkdir, new disks (agent_create.c makes them), and nodes that cannot be made. */
#include "fs/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The group of a node made in dir: a setgid directory passes on its own. */
static uint32_t gid_in(fuse_req_t req, const struct node *dir)
{
    return dir->mode & S_ISGID ? dir->gid : fuse_req_ctx(req)->gid;
}

static int check_new_name(const struct fs *f, uint64_t parent, const char *name)
{
    (void)f;
    if (strlen(name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    if (strchr(name, '@') != NULL)
        return -EINVAL;
    return control_lookup(parent, name) != 0 ? -EEXIST : 0;
}

static void mkdir_run(struct op *op)
{
    struct fs *f = op->f;
    struct verr err = {0};
    struct fs_dirs d;
    struct node node;
    struct fuse_entry_param e;
    int rc = check_new_name(f, op->ino, op->name);
    if (rc == 0)
        rc = fs_dirs_take(op, &d, &err);
    if (rc == 0) {
        uint32_t mode = (op->mode & 07777) | (d.dir.mode & S_ISGID);
        rc = names_create(f->names, &d.dir.id, op->name, NODE_DIR, mode, fuse_req_ctx(op->req)->uid, gid_in(op->req, &d.dir), &node, NULL,
                          &err);
        fs_dirs_give(op, &d);
    }
    if (rc == 0)
        rc = fs_entry_of_node(f, &node, &e, &err);
    if (rc < 0)
        fs_reply_fail(op->req, "mkdir", op->ino, rc, &err);
    else
        fuse_reply_entry(op->req, &e);
}

void fs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct op *op = op_new(req, mkdir_run, name, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = parent;
    op->mode = mode;
    op_submit(op, op->f->ctl);
}

int fs_check_removed(struct fs *f, const struct node *gone, const struct fs_disk *mine, struct verr *err)
{
    struct fs_disk *d = fs_disk_find_ino(f, vid_ino(&gone->id));
    if (d == NULL)
        return 0;
    pthread_mutex_lock(&f->lock);
    bool going = d->orphan || atomic_load(&d->moved) != NULL || (d->dying && (d != mine || d->handles > 0));
    pthread_mutex_unlock(&f->lock);
    int busy = going ? fs_disk_others(d, NULL, false) : 0;
    fs_disk_put(d);
    if (!going)
        return 0;
    return busy == 2 ? verr_set(err, EBUSY, "the removed %s is still open", gone->name) : -EAGAIN;
}

static int check_orphan(struct op *op, const struct node *dir, struct verr *err)
{
    struct node gone;
    int rc = catalog_node_by_name(op->f->catalog, &dir->id, op->name, &gone, err);
    return rc == 0 ? fs_check_removed(op->f, &gone, NULL, err) : rc == -ENOENT ? 0 : rc;
}

int fs_make_disk(struct op *op, const struct node *dir, struct node *out, struct verr *err)
{
    struct fs *f = op->f;
    int rc = check_new_name(f, op->ino, op->name);
    if (rc == 0)
        rc = names_check_disk_name(op->name);
    if (rc == 0)
        rc = check_orphan(op, dir, err);
    if (rc < 0)
        return rc;
    const struct disk_new d = {
        .dir = dir->id, .name = op->name, .mode = op->mode & 0777, .uid = fuse_req_ctx(op->req)->uid, .gid = gid_in(op->req, dir)};
    return agent_disk_create(f->agent, &d, out, err);
}

static void mknod_run(struct op *op)
{
    struct fs *f = op->f;
    struct verr err = {0};
    struct fs_dirs d;
    struct node node;
    struct fuse_entry_param e;
    int rc = fs_dirs_take(op, &d, &err);
    if (rc == 0) {
        rc = fs_make_disk(op, &d.dir, &node, &err);
        fs_dirs_give(op, &d);
    }
    if (rc == -EAGAIN) {
        if (op_retry(op))
            return;
        rc = -EBUSY;
    }
    if (rc == 0)
        rc = fs_entry_of_node(f, &node, &e, &err);
    if (rc < 0)
        fs_reply_fail(op->req, "mknod", op->ino, rc, &err);
    else
        fuse_reply_entry(op->req, &e);
}

void fs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    (void)rdev;
    if (strchr(name, '@') != NULL || !S_ISREG(mode) || ino_is_control(parent)) {
        fuse_reply_err(req, strchr(name, '@') != NULL ? EINVAL : EPERM);
        return;
    }
    struct op *op = op_new(req, mknod_run, name, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = parent;
    op->mode = mode;
    op_submit(op, op->f->ctl);
}

void fs_op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link;
    (void)parent;
    fuse_reply_err(req, strchr(name, '@') != NULL ? EINVAL : EPERM);
}

void fs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
    (void)ino;
    (void)newparent;
    fuse_reply_err(req, strchr(newname, '@') != NULL ? EINVAL : EPERM);
}
