/* SPDX-License-Identifier: Apache-2.0 */
/* fs_make: mkdir, new disks, and nodes that cannot be made. A disk gets its image first, then its name; agent_recover.c repairs a
 * crash in between. */
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
    struct node dir, node;
    struct fuse_entry_param e;
    int rc = check_new_name(f, op->ino, op->name);
    if (rc == 0)
        rc = fs_dir_node(f, op->ino, &dir, &err);
    if (rc == 0) {
        uint32_t mode = (op->mode & 07777) | (dir.mode & S_ISGID);
        pthread_mutex_lock(&f->tree);
        rc = names_create(f->names, &dir.id, op->name, NODE_DIR, mode, fuse_req_ctx(op->req)->uid, gid_in(op->req, &dir), &node, NULL,
                          &err);
        pthread_mutex_unlock(&f->tree);
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

/* The last sequence number and moment of the history that a removed disk of that name left; a new disk continues after them. */
static int history_end(struct fs *f, const struct vid *disk, uint64_t *min_seq, int64_t *last_name_s, struct verr *err)
{
    enum { BATCH = 32 };
    struct snaprow *rows = calloc(BATCH, sizeof *rows);
    if (rows == NULL)
        return -ENOMEM;
    uint64_t after = 0;
    *min_seq = 1;
    *last_name_s = 0;
    int n;
    while ((n = catalog_snaps(f->catalog, disk, after, rows, BATCH, err)) > 0) {
        for (int i = 0; i < n; i++)
            if (rows[i].info.name_s > *last_name_s)
                *last_name_s = rows[i].info.name_s;
        after = rows[n - 1].info.ref.seq;
        *min_seq = after + 1;
    }
    free(rows);
    return n < 0 ? n : 0;
}

/* What a new name will stand for. */
struct making {
    struct fs *f;
    struct vid disk;                /* the disk whose image was made; zero: none */
};

/* Empties the old image of a removed disk that comes back while the image still serves pending snapshots. The image is durably empty
 * before the disk has a name again, so that a crash does not bring removed data back. */
static int empty_image(struct fs *f, const struct vid *disk, struct verr *err)
{
    struct live *l = NULL;
    int rc = agent_ready(f->agent, disk, err);
    if (rc == 0)
        rc = live_get(f->live, disk, &l, err);
    if (rc == 0)
        rc = live_rewrite(l, err);
    if (rc == 0)
        rc = live_fsync(l, err);
    if (l != NULL)
        live_put(l);
    return rc;
}

static int make_image(void *ctx, const struct node *node, struct verr *err)
{
    struct making *m = ctx;
    uint64_t min_seq;
    int64_t last_name_s;
    struct live *l = NULL;
    int rc = history_end(m->f, &node->id, &min_seq, &last_name_s, err);
    if (rc < 0)
        return rc;
    rc = live_create(m->f->live, &node->id, min_seq, last_name_s, &l, err);
    if (rc == -EEXIST)
        return empty_image(m->f, &node->id, err);
    if (rc < 0)
        return rc;
    m->disk = node->id;
    rc = live_set_marks(l, LIVE_REWRITING, 0, err);
    live_put(l);
    return rc;
}

/* Making the name failed: removes the image that was made for it. When it is unknown whether the name exists, the image stays, marked
 * as unnamed, and recovery decides at the next start. */
static void unmake_image(struct making *m)
{
    struct node rec;
    if (!vid_is_zero(&m->disk) && store_node_load(agent_store(m->f->agent), &m->disk, &rec, NULL) == -ENOENT)
        live_remove(m->f->live, &m->disk, NULL);
}

/* Takes the mark `unnamed` off the image. This need not be durable: recovery removes no unnamed image that has a name or content. */
static void image_named(struct making *m)
{
    struct live *l = NULL;
    if (vid_is_zero(&m->disk) || live_get(m->f->live, &m->disk, &l, NULL) < 0)
        return;
    live_set_marks(l, 0, LIVE_UNNAMED, NULL);
    live_put(l);
}

/* -EAGAIN: the name is that of a removed disk that still has a handle open, so its image cannot be emptied yet. */
static int check_orphan(struct op *op, const struct node *dir, struct verr *err)
{
    struct node gone;
    int rc = catalog_node_by_name(op->f->catalog, &dir->id, op->name, &gone, err);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    struct fs_disk *d = fs_disk_find_ino(op->f, vid_ino(&gone.id));
    if (d == NULL)
        return 0;
    pthread_mutex_lock(&op->f->lock);
    bool going = d->orphan || d->dying;
    pthread_mutex_unlock(&op->f->lock);
    int busy = going ? fs_disk_others(d, NULL, false) : 0;
    fs_disk_put(d);
    if (!going)
        return 0;
    return busy == 2 ? verr_set(err, EBUSY, "the removed %s is still open", op->name) : -EAGAIN;
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
    struct making m = {.f = f};
    rc = names_create_disk(f->names, &dir->id, op->name, op->mode & 0777, fuse_req_ctx(op->req)->uid, gid_in(op->req, dir), make_image, &m,
                           out, err);
    if (rc < 0)
        unmake_image(&m);
    else
        image_named(&m);
    return rc;
}

static void mknod_run(struct op *op)
{
    struct fs *f = op->f;
    struct verr err = {0};
    struct node dir, node;
    struct fuse_entry_param e;
    int rc = fs_dir_node(f, op->ino, &dir, &err);
    if (rc == 0) {
        pthread_mutex_lock(&f->tree);
        rc = fs_make_disk(op, &dir, &node, &err);
        pthread_mutex_unlock(&f->tree);
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
