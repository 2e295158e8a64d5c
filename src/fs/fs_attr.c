/* SPDX-License-Identifier: Apache-2.0 */
/* fs_attr: what an inode number stands for, its struct stat, and setattr. */
#include "fs/fs_internal.h"

#include "base/vlog.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static struct timespec ts_of(int64_t ns)
{
    struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    if (ts.tv_nsec < 0) {
        ts.tv_sec--;
        ts.tv_nsec += 1000000000;
    }
    return ts;
}

static int64_t ns_of(struct timespec ts)
{
    int64_t ns;
    if (__builtin_mul_overflow((int64_t)ts.tv_sec, INT64_C(1000000000), &ns) || __builtin_add_overflow(ns, (int64_t)ts.tv_nsec, &ns))
        return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

/* ---- what it is ---- */

static int what_unnamed(struct fs *f, uint64_t ino, struct what *out, struct verr *err)
{
    struct fs_disk *d = fs_disk_find_ino(f, ino), *to = d != NULL ? fs_disk_moved(d) : NULL;
    if (to != NULL) {
        int rc = fs_what(f, to->ino, out, err);
        out->moved = true;
        fs_disk_put(to);
        fs_disk_put(d);
        return rc;
    }
    if (d != NULL) {
        pthread_mutex_lock(&f->lock);
        bool orphan = d->orphan || (d->dying && d->handles > 0);    /* the name goes a moment before the mark comes */
        if (orphan)
            out->node = d->node;
        pthread_mutex_unlock(&f->lock);
        fs_disk_put(d);
        if (orphan) {
            out->kind = WHAT_ORPHAN;
            return 0;
        }
    }
    if (fs_gone_find(f, ino, &out->gone)) {
        out->kind = WHAT_GONE;
        return 0;
    }
    if (handle_label_by_ino(f, ino, &out->node, &out->size) == 0) {
        out->kind = WHAT_LABEL;
        return 0;
    }
    return -ESTALE;
}

int fs_what(struct fs *f, uint64_t ino, struct what *out, struct verr *err)
{
    out->moved = false;
    if (ino_is_control(ino)) {
        out->kind = WHAT_CONTROL;
        return 0;
    }
    int rc = names_by_ino(f->names, ino, &out->node, err);
    if (rc == 0 && (out->node.flags & NODE_GONE) == 0) {
        out->kind = WHAT_NODE;
        return 0;
    }
    if (rc < 0 && rc != -ENOENT)
        return rc;
    rc = names_snap_by_ino(f->names, ino, &out->snap, err);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if (err != NULL)        /* lookups that failed on the way are no error */
        *err = (struct verr){0};
    if (rc < 0)
        return what_unnamed(f, ino, out, err);
    out->kind = WHAT_SNAP;
    return 0;
}

int fs_dir_node(struct fs *f, uint64_t ino, struct node *out, struct verr *err)
{
    if (ino_is_control(ino))
        return -EPERM;
    int rc = names_by_ino(f->names, ino, out, err);
    if (rc < 0)
        return rc == -ENOENT ? -ESTALE : rc;
    return out->kind == NODE_DIR ? 0 : -ENOTDIR;
}

/* ---- stat ---- */

static blkcnt_t blocks_of(const struct fs *f, uint64_t size, uint64_t alloc)
{
    uint64_t bytes = f->conf.blocks_dense ? size : alloc;
    return (blkcnt_t)(bytes / 512 + (bytes % 512 != 0));
}

static void stat_times(struct stat *st, int64_t atime, int64_t mtime, int64_t ctime_ns)
{
    st->st_atim = ts_of(atime);
    st->st_mtim = ts_of(mtime);
    st->st_ctim = ts_of(ctime_ns);
}

static int stat_disk(struct fs *f, const struct node *n, struct stat *st, struct verr *err)
{
    st->st_mode = S_IFREG | (n->mode & 0777);
    st->st_nlink = 1;
    st->st_blksize = FS_BLKSIZE;
    stat_times(st, n->atime_ns, n->mtime_ns, n->ctime_ns);
    struct live *l = NULL;
    struct live_attr a;
    int rc = live_get(f->live, &n->id, &l, err);
    if (rc == -ENOENT)      /* the live image is on another host, or is being made at this moment */
        return 0;
    if (rc < 0)
        return rc;
    rc = live_attr(l, &a, err);
    live_put(l);
    if (rc < 0)
        return rc;
    st->st_size = (off_t)a.size;
    st->st_blocks = blocks_of(f, a.size, a.alloc_bytes);
    stat_times(st, n->atime_ns, a.mtime_ns, a.mtime_ns > n->ctime_ns ? a.mtime_ns : n->ctime_ns);
    return 0;
}

static int stat_dir(struct fs *f, const struct node *n, struct stat *st, struct verr *err)
{
    uint64_t dirs = 0, all = 0;
    int rc = catalog_child_count(f->catalog, &n->id, &dirs, &all, err);
    if (rc < 0)
        return rc;
    st->st_mode = S_IFDIR | (n->mode & 07777);
    st->st_nlink = (nlink_t)(2 + dirs);
    st->st_size = 4096;
    st->st_blksize = 4096;
    stat_times(st, n->atime_ns, n->mtime_ns, n->ctime_ns);
    return 0;
}

int fs_stat_node(struct fs *f, const struct node *n, struct stat *st, struct verr *err)
{
    memset(st, 0, sizeof *st);
    st->st_ino = vid_is_zero(&n->parent) ? NAMES_ROOT_INO : vid_ino(&n->id);
    st->st_uid = n->uid;
    st->st_gid = n->gid;
    return n->kind == NODE_DIR ? stat_dir(f, n, st, err) : stat_disk(f, n, st, err);
}

/* cp, rsync and tar give a copy the mode of its source, and its owner must be able to copy the next snapshot over it. So who owns a
 * snapshot and may read it is shown the right to write, which no record of a snapshot holds. Opening one for writing is EROFS for all. */
static mode_t snap_mode(uint32_t mode)
{
    return (mode & 0555) | (mode & 0400) >> 1;
}

void fs_stat_listed(struct fs *f, const struct listed *item, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = item->ino;
    st->st_mode = S_IFREG | snap_mode(item->mode);
    st->st_nlink = 1;
    st->st_uid = item->uid;
    st->st_gid = item->gid;
    st->st_size = (off_t)item->size;
    st->st_blocks = blocks_of(f, item->size, item->alloc_bytes);
    st->st_blksize = FS_BLKSIZE;
    stat_times(st, item->mtime_ns, item->mtime_ns, item->mtime_ns);
}

void fs_stat_snap(struct fs *f, const struct snaprow *s, struct stat *st)
{
    struct listed item = {.ino = vid_ino(&s->info.ref.snap), .size = s->info.size, .alloc_bytes = s->info.alloc_bytes,
                          .mtime_ns = s->info.freeze_ns,
                          .mode = s->info.mode, .uid = s->info.uid, .gid = s->info.gid};
    fs_stat_listed(f, &item, st);
}

void fs_stat_label(struct fs *f, uint64_t ino, const struct node *disk, uint64_t size, struct stat *st)
{
    struct listed item = {.ino = ino, .size = size, .alloc_bytes = size, .mtime_ns = fs_now_ns(), .mode = 0440,
                          .uid = disk->uid, .gid = disk->gid};
    fs_stat_listed(f, &item, st);
}

static double snap_timeout(const struct snaprow *s)
{
    return s->state == SNAPST_STORED && (s->info.flags & SNAP_PROVISIONAL) == 0 ? FS_TIMEOUT_STORED : FS_TIMEOUT_LIVE;
}

int fs_stat(struct fs *f, uint64_t ino, const struct what *w, struct stat *st, double *timeout, struct verr *err)
{
    *timeout = w->moved ? 0 : FS_TIMEOUT_LIVE;      /* they change by another inode, too */
    switch (w->kind) {
    case WHAT_CONTROL:
        control_stat(ino, st);
        return 0;
    case WHAT_SNAP:
        fs_stat_snap(f, &w->snap, st);
        *timeout = snap_timeout(&w->snap);
        return 0;
    case WHAT_LABEL:
        fs_stat_label(f, ino, &w->node, w->size, st);
        *timeout = 0;
        return 0;
    case WHAT_ORPHAN: {
        int rc = fs_stat_node(f, &w->node, st, err);
        st->st_nlink = 0;
        return rc;
    }
    case WHAT_GONE:
        *st = w->gone;
        return 0;
    case WHAT_NODE:
        break;
    }
    return fs_stat_node(f, &w->node, st, err);
}

static void entry_init(struct fuse_entry_param *e, double timeout)
{
    memset(e, 0, sizeof *e);
    e->attr_timeout = timeout;
    e->entry_timeout = timeout;
}

int fs_entry_of_node(struct fs *f, const struct node *n, struct fuse_entry_param *out, struct verr *err)
{
    entry_init(out, FS_TIMEOUT_LIVE);
    int rc = fs_stat_node(f, n, &out->attr, err);
    /* After a rename onto a disk the kernel has the source's inode under the target's name. A timeout of 0 makes the kernel look the
     * name up at each use. An invalidation would wait for the directory's lock, and the mount of a daemon that is killed meanwhile
     * could not be removed. */
    if (n->kind == NODE_DISK)
        out->entry_timeout = 0;
    out->ino = out->attr.st_ino;
    out->generation = fs_generation_node(n);
    return rc;
}

int fs_entry_of(struct fs *f, const struct entry *e, struct fuse_entry_param *out, struct verr *err)
{
    if (e->kind != ENTRY_SNAP)
        return fs_entry_of_node(f, &e->node, out, err);
    entry_init(out, snap_timeout(&e->snap));
    fs_stat_snap(f, &e->snap, &out->attr);
    out->ino = out->attr.st_ino;
    out->generation = fs_generation_snap(&e->snap.info.ref.snap);
    return 0;
}

void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)fi;
    struct fs *f = fs_of(req);
    struct verr err = {0};
    struct what w;
    struct stat st;
    double timeout = 0;
    int rc = fs_what(f, ino, &w, &err);
    if (rc == 0)
        rc = fs_stat(f, ino, &w, &st, &timeout, &err);
    if (rc < 0)
        fs_reply_fail(req, "getattr", ino, rc, &err);
    else
        fuse_reply_attr(req, &st, timeout);
}

/* ---- setattr ---- */

enum { SET_TIMES = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME };

static int setattr_snap(struct op *op, const struct snaprow *s, struct verr *err)
{
    uint32_t mode = op->attr.st_mode & 0777 & ~0222u, uid = op->attr.st_uid, gid = op->attr.st_gid;
    const uint32_t *pm = op->flags & FUSE_SET_ATTR_MODE ? &mode : NULL, *pu = op->flags & FUSE_SET_ATTR_UID ? &uid : NULL;
    const uint32_t *pg = op->flags & FUSE_SET_ATTR_GID ? &gid : NULL;
    /* `touch` of a label that exists would take no snapshot, and must not look as if it had. Times that are named, as `cp -p` and
     * rsync do, are ignored. */
    if (op->flags & (FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW))
        return -EROFS;
    if (pm == NULL && pu == NULL && pg == NULL)
        return 0;
    return names_snap_set(op->f->names, &s->info.ref.snap, NULL, NULL, pm, pu, pg, err);
}

/* The attributes of the node record that change, as bits; fills their values into v. */
static unsigned setattr_values(const struct op *op, bool disk, struct node *v)
{
    unsigned what = 0;
    if (op->flags & FUSE_SET_ATTR_MODE) {
        v->mode = op->attr.st_mode & (disk ? 0777u : 07777u);
        what |= SET_MODE;
    }
    if (op->flags & FUSE_SET_ATTR_UID) {
        v->uid = op->attr.st_uid;
        what |= SET_UID;
    }
    if (op->flags & FUSE_SET_ATTR_GID) {
        v->gid = op->attr.st_gid;
        what |= SET_GID;
    }
    if (op->flags & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW)) {
        v->atime_ns = op->flags & FUSE_SET_ATTR_ATIME_NOW ? fs_now_ns() : ns_of(op->attr.st_atim);
        what |= SET_ATIME;
    }
    if (op->flags & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
        v->mtime_ns = op->flags & FUSE_SET_ATTR_MTIME_NOW ? fs_now_ns() : ns_of(op->attr.st_mtim);
        what |= SET_MTIME;
    }
    return what;
}

static int setattr_size_of(struct op *op, struct fs_disk *d, struct live *l, const struct node *n, struct verr *err)
{
    int rc = 0;
    struct handle *h = op->h != NULL && op->h->kind == HANDLE_DISK ? op->h : NULL;
    uint64_t size = (uint64_t)op->attr.st_size;
    if (size == 0) {
        int busy = fs_disk_others(d, h, true);
        if (busy == 2 || (busy == 1 && !op_retry(op)))
            return verr_set(err, EBUSY, "another program has the disk open for writing");
        if (busy == 1)
            return 0;
    }
    if (h != NULL) {
        rc = fs_will_change(h, op->req, err);
        if (rc < 0)
            return rc;
    }
    if (h == NULL || size == 0)
        fs_will_replace(d);
    atomic_store(&d->touched, true);
    if (size != 0)
        rc = live_truncate(l, size, err);
    else if (d->orphan)
        rc = live_truncate(l, 0, err);
    else
        rc = fs_rewrite(op->f, n, l, err);
    if (h != NULL)
        fs_disk_resized(d, size, rc);
    fs_inval_moved(d, size, 0);
    /* truncate(2) by path comes without a close that could freeze the change, unless the disk has a writer. */
    struct due_case c = {.occasion = DUE_RESIZED, .node = n};
    if (rc == 0 && h == NULL && !d->orphan && d->writers == 0)
        rc = agent_freeze_due(op->f->agent, &c, l, NULL, err);
    return rc < 0 ? rc : 0;
}

static int setattr_size(struct op *op, struct fs_disk *d, const struct node *n, struct verr *err)
{
    struct live *l = NULL;
    int rc = agent_ready(op->f->agent, &d->id, err);
    if (rc == 0)                /* without a handle nothing keeps that of the disk open */
        rc = live_get(op->f->live, &d->id, &l, err);
    if (rc < 0)
        return rc == -ENOENT ? -EREMOTE : rc;
    rc = setattr_size_of(op, d, l, n, err);
    live_put(l);
    return rc;
}

/* An open disk that was removed has no record: what fchmod and the like set holds for its handles only. */
static void setattr_orphan(struct fs *f, struct node *v)
{
    struct fs_disk *d = fs_disk_find_ino(f, vid_ino(&v->id));
    v->ctime_ns = fs_now_ns();
    pthread_mutex_lock(&f->lock);
    if (d != NULL && d->orphan)
        d->node = *v;
    pthread_mutex_unlock(&f->lock);
    fs_disk_put(d);
}

/* The kernel has looked at the owner and mode that it remembers of an inode. Since then a rename may have brought those of another disk,
 * and it may not be told for as long as a descriptor is all that leads there. A writer cannot have been renamed onto. */
static int setattr_may(const struct op *op, const struct node *n)
{
    const unsigned now = FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW, times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME;
    const uint32_t uid = fuse_req_ctx(op->req)->uid;
    bool writer = op->h != NULL && op->h->kind == HANDLE_DISK && op->h->writer;
    if (n->kind != NODE_DISK || uid == 0 || uid == n->uid || writer)
        return 0;
    if (op->flags & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) || ((op->flags & times) != 0 && (op->flags & now) == 0))
        return -EPERM;
    return op->flags & (now | FUSE_SET_ATTR_SIZE) && !fs_may(op->req, n->uid, n->gid, n->mode, 2) ? -EACCES : 0;
}

static int setattr_node(struct op *op, const struct what *w, struct verr *err)
{
    struct node v = w->node;
    bool disk = w->node.kind == NODE_DISK;
    int rc = setattr_may(op, &v);
    if (rc < 0)
        return rc;
    if (op->flags & FUSE_SET_ATTR_SIZE)
        rc = disk ? setattr_size(op, op->disk, &w->node, err) : -EISDIR;
    if (rc < 0 || op->again)
        return rc;
    unsigned what = setattr_values(op, disk, &v);
    if (disk && (what & SET_MTIME)) {
        struct live *l = NULL;
        rc = live_get(op->f->live, &w->node.id, &l, err);
        if (rc == 0) {
            rc = live_set_mtime(l, v.mtime_ns, err);
            live_put(l);
            what &= ~(unsigned)SET_MTIME;
        }
        if (rc == -ENOENT)
            rc = 0;
    }
    if (rc == 0 && what != 0 && w->kind == WHAT_NODE)
        rc = names_setattr(op->f->names, &w->node.id, what, &v, NULL, err);
    if (rc == 0 && what != 0 && w->kind == WHAT_ORPHAN)
        setattr_orphan(op->f, &v);
    return rc;
}

static void setattr_run(struct op *op)
{
    struct verr err = {0};
    struct what w;
    struct stat st;
    double timeout = 0;
    int rc = fs_what(op->f, op->ino, &w, &err);
    if (rc == 0) {
        switch (w.kind) {
        case WHAT_CONTROL:
            rc = op->flags & ~(unsigned)FUSE_SET_ATTR_SIZE ? -EPERM : 0;
            break;
        case WHAT_SNAP:
            rc = setattr_snap(op, &w.snap, &err);
            break;
        case WHAT_LABEL:        /* `touch` sets times after its open */
            rc = op->flags & FUSE_SET_ATTR_SIZE ? -EROFS : 0;
            break;
        case WHAT_NODE:
        case WHAT_ORPHAN:
            rc = setattr_node(op, &w, &err);
            break;
        case WHAT_GONE:
            rc = op->flags & FUSE_SET_ATTR_SIZE ? -ESTALE : 0;
            if (rc == 0)
                fs_gone_set(op->f, op->ino, &op->attr, op->flags);
            break;
        }
    }
    if (op->again)
        return;
    if (rc == 0)
        rc = fs_what(op->f, op->ino, &w, &err);
    if (rc == 0)
        rc = fs_stat(op->f, op->ino, &w, &st, &timeout, &err);
    if (rc < 0)
        fs_reply_fail(op->req, "setattr", op->ino, rc, &err);
    else
        fuse_reply_attr(op->req, &st, timeout);
}

void fs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    struct fs *f = fs_of(req);
    struct handle *h = handle_of(fi);
    if ((to_set & FUSE_SET_ATTR_SIZE) && h != NULL && h->kind == HANDLE_LABEL) {
        fs_label_refuse(req, ino, h);
        return;
    }
    struct op *op = op_new(req, setattr_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->attr = *attr;
    op->flags = (unsigned)to_set;
    op->h = h;
    if ((to_set & FUSE_SET_ATTR_SIZE) == 0) {
        op_submit(op, f->ctl);
        return;
    }
    struct verr err = {0};
    struct what w;
    int rc = fs_what(f, ino, &w, &err);
    if (rc < 0 || (w.kind != WHAT_NODE && w.kind != WHAT_ORPHAN) || w.node.kind != NODE_DISK) {
        op_submit(op, f->ctl);      /* a worker meets the same error and answers with it */
        return;
    }
    struct fs_disk *d = fs_disk_get(f, &w.node.id);
    if (d == NULL)
        op_submit(op, f->ctl);
    else
        op_submit_disk(op, d);
}
