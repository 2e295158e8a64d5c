/* SPDX-License-Identifier: Apache-2.0 */
/* fs_file: create, open, read, fsync. fs_write.c writes, fs_change.c closes; fs_range.c has fallocate, lseek and copy_file_range. */
#include "fs/fs_internal.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* May the handle change the disk? Access mode 3 needs the right to read and to write, and allows neither: only ioctl. Such a handle may
 * ask for a snapshot but is no writer, or a `varve snapshot` in the background would make a `cp` onto the disk fail with EBUSY. */
static bool flags_may_change(int flags)
{
    return (flags & O_ACCMODE) != O_RDONLY;
}

static bool flags_write(int flags)
{
    return flags_may_change(flags) && (flags & O_ACCMODE) != O_ACCMODE;
}

/* ---- open and create of disks: on the disk's queue ---- */

static int open_live(struct op *op, struct verr *err)
{
    int rc = fs_disk_open_live(op->disk, err);
    if (rc == -ENOENT && agent_read_only(op->f->agent))
        return verr_set(err, EREMOTE, "the live image of this disk is in its host's state directory, which a read-only mount leaves alone: "
                        "read a snapshot");
    if (rc == -ENOENT)
        return verr_set(err, EREMOTE, "the live image of this disk is not on this host (varve adopt takes it over)");
    return rc;
}

/* Does the O_TRUNC of an open, before the handle exists. 1: the disk is in use by handles that are closing, try again. */
static int open_truncate(struct op *op, const struct node *node, struct verr *err)
{
    int busy = fs_disk_others(op->disk, NULL, true);
    if (busy == 1 && op_retry(op))
        return 1;
    if (busy != 0)
        return verr_set(err, EBUSY, "%s is open for writing", node->name);
    fs_will_replace(op->disk);
    struct live *l = NULL;      /* of its own: without a handle nothing keeps that of the disk open */
    int rc = live_get(op->f->live, &op->disk->id, &l, err);
    if (rc < 0)
        return rc;
    rc = op->disk->orphan ? live_truncate(l, 0, err) : fs_rewrite(op->f, node, l, err);
    live_put(l);
    if (rc == 0)
        atomic_store(&op->disk->touched, true);
    return rc;
}

/* A removed disk that is open can be opened again through /proc/PID/fd. */
static int open_node(struct op *op, struct node *out, struct verr *err)
{
    struct fs *f = op->f;
    pthread_mutex_lock(&f->lock);
    bool orphan = op->disk->orphan;
    if (orphan)
        *out = op->disk->node;
    pthread_mutex_unlock(&f->lock);
    int rc = orphan ? 0 : names_by_ino(f->names, op->disk->ino, out, err);
    return rc == -ENOENT ? -ESTALE : rc;
}

/* The kernel may have let the request pass by what the disk was before a rename onto it, that is, by attributes of up to a second ago. */
static bool still_may_open(struct op *op, const struct node *node)
{
    enum { FRESH_S = 10 };
    unsigned want = (flags_write(op->fi.flags) || flags_may_change(op->fi.flags) ? 2 : 0) | ((op->fi.flags & O_ACCMODE) != O_WRONLY ? 4 : 0);
    bool fresh = fs_now_ns() - node->btime_ns < FRESH_S * INT64_C(1000000000);
    return !fresh || (op->flags & O_CREAT) != 0 || fs_may(op->req, node->uid, node->gid, node->mode, want);
}

static int open_disk(struct op *op, struct handle **out, struct verr *err)
{
    struct node node;
    int rc = open_node(op, &node, err);
    if (rc == 0 && !still_may_open(op, &node))
        rc = -EACCES;
    if (rc == 0)
        rc = open_live(op, err);
    if (rc == 0 && (op->fi.flags & O_TRUNC) != 0 && (op->flags & O_CREAT) == 0)
        rc = open_truncate(op, &node, err);
    if (rc != 0)
        return rc;
    struct handle *h = handle_new(op->f, HANDLE_DISK, op->disk->ino);
    if (h == NULL)
        return -ENOMEM;
    /* A handle that can read may be mapped, which needs the page cache: only a write-only handle is direct. */
    h->direct = (op->fi.flags & O_ACCMODE) == O_WRONLY;
    op->fi.direct_io = h->direct;
    while ((rc = fs_disk_attach(op->disk, h, flags_write(op->fi.flags))) == -EAGAIN && (rc = open_live(op, err)) == 0)
        ;
    if (rc < 0) {
        handle_free(op->f, h);
        return rc;
    }
    op->fi.keep_cache = h->keeps_cache;
    h->may_change = flags_may_change(op->fi.flags);
    h->process = h->writer ? fs_task_process(fuse_req_ctx(op->req)->pid) : 0;
    atomic_store(&h->changed, (op->fi.flags & O_TRUNC) != 0 && h->writer);
    *out = h;
    return 0;
}

static void open_disk_run(struct op *op)
{
    struct verr err = {0};
    struct handle *h = NULL;
    int rc = open_disk(op, &h, &err);
    if (op->again)
        return;
    if (rc < 0) {
        fs_reply_fail(op->req, "open", op->ino, rc, &err);
        return;
    }
    op->fi.fh = (uintptr_t)h;
    if (fuse_reply_open(op->req, &op->fi) == -ENOENT)
        fs_close_disk(op->f, h);    /* the kernel has dropped the request: no release will come */
}

static void create_open_run(struct op *op)
{
    struct verr err = {0};
    struct handle *h = NULL;
    struct node node;
    struct fuse_entry_param e;
    int rc = open_disk(op, &h, &err);
    if (rc == 0)
        rc = names_by_ino(op->f->names, op->disk->ino, &node, &err);
    if (rc == 0)
        rc = fs_entry_of_node(op->f, &node, &e, &err);
    if (rc < 0) {
        if (h != NULL)
            fs_close_disk(op->f, h);
        fs_reply_fail(op->req, "create", op->ino, rc, &err);
        return;
    }
    op->fi.fh = (uintptr_t)h;
    if (fuse_reply_create(op->req, &e, &op->fi) == -ENOENT)
        fs_close_disk(op->f, h);
}

static void create_run(struct op *op)
{
    struct fs *f = op->f;
    struct verr err = {0};
    struct fs_dirs d;
    struct node node;
    int rc = fs_dirs_take(op, &d, &err);
    if (rc == 0) {
        rc = fs_make_disk(op, &d.dir, &node, &err);
        fs_dirs_give(op, &d);
    }
    if (rc == -EAGAIN) {
        if (op_retry(op))
            return;
        rc = verr_set(&err, EBUSY, "the removed %s is still open", op->name);
    }
    if (rc == -EEXIST && (op->fi.flags & O_EXCL) == 0 && control_lookup(op->ino, op->name) == 0)
        rc = -ESTALE;       /* another request made the file a moment ago: the kernel looks it up and opens it */
    if (rc == 0 && (op->disk = fs_disk_get(f, &node.id)) == NULL)
        rc = -ENOMEM;
    if (rc < 0) {
        fs_reply_fail(op->req, "create", op->ino, rc, &err);
        return;
    }
    op->flags = O_CREAT;
    op->fn = create_open_run;
    op_move_on(op);
}

void fs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    if (ino_is_control(parent)) {
        fuse_reply_err(req, EPERM);
        return;
    }
    struct op *op = op_new(req, strchr(name, '@') != NULL ? fs_label_create : create_run, name, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = parent;
    op->mode = mode;
    op->fi = *fi;
    op_submit(op, op->f->ctl);
}

/* ---- open of snapshots ---- */

int fs_snap_handle_open(struct fs *f, const struct snaprow *s, struct handle **out, struct verr *err)
{
    struct handle *h = handle_new(f, HANDLE_SNAP, vid_ino(&s->info.ref.snap));
    if (h == NULL)
        return -ENOMEM;
    h->snap_ref = s->info.ref;
    h->snap_size = s->info.size;
    int rc = 0;
    if (s->state != SNAPST_STORED) {
        rc = live_get(f->live, &s->info.ref.disk, &h->live, err);
        if (rc == -ENOENT)      /* the snapshot was stored a moment ago, and its disk removed */
            rc = 0;
        h->held = h->live != NULL && live_pending_hold(h->live, h->snap_ref.seq) == 0;
    }
    if (rc == 0 && h->live == NULL)
        rc = snap_open(agent_store(f->agent), agent_segread(f->agent), &s->info.ref, &h->snap, err);
    if (rc < 0) {
        handle_free(f, h);
        return rc == -ENOENT ? -ESTALE : rc;
    }
    *out = h;
    return 0;
}

/* The snapshot is not pending any more: from now on the handle reads the stored one. */
static int snap_switch(struct fs *f, struct handle *h, struct verr *err)
{
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    if (h->snap == NULL) {
        struct snap *s = NULL;
        rc = snap_open(agent_store(f->agent), agent_segread(f->agent), &h->snap_ref, &s, err);
        if (rc == 0)
            __atomic_store_n(&h->snap, s, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&h->lock);
    return rc == -ENOENT ? -ESTALE : rc;
}

ssize_t fs_snap_handle_read(struct fs *f, struct handle *h, uint64_t off, void *buf, size_t len, struct verr *err)
{
    struct snap *s = __atomic_load_n(&h->snap, __ATOMIC_ACQUIRE);
    if (s == NULL && h->live != NULL) {
        ssize_t n = live_pending_read(h->live, h->snap_ref.seq, off, buf, len, err);
        if (n != -ESTALE)
            return n;
    }
    if (s == NULL) {
        int rc = snap_switch(f, h, err);
        if (rc < 0)
            return rc;
        s = __atomic_load_n(&h->snap, __ATOMIC_ACQUIRE);
    }
    return snap_read(s, off, buf, len, err);
}

off_t fs_snap_handle_seek(struct fs *f, struct handle *h, uint64_t off, bool hole, struct verr *err)
{
    struct snap *s = __atomic_load_n(&h->snap, __ATOMIC_ACQUIRE);
    if (s == NULL && h->live != NULL) {
        off_t n = live_pending_seek(h->live, h->snap_ref.seq, off, hole, err);
        if (n != -ESTALE)
            return n;
    }
    if (s == NULL) {
        int rc = snap_switch(f, h, err);
        if (rc < 0)
            return rc;
        s = __atomic_load_n(&h->snap, __ATOMIC_ACQUIRE);
    }
    return snap_seek(s, off, hole, err);
}

off_t fs_snap_handle_seek_near(struct handle *h, uint64_t off, bool hole, struct verr *err)
{
    enum { NEAR_SEGMENTS = 16 };
    struct snap *s = __atomic_load_n(&h->snap, __ATOMIC_ACQUIRE);
    return s == NULL ? -EAGAIN : snap_seek_near(s, off, hole, NEAR_SEGMENTS, err);
}

static void open_snap_run(struct op *op)
{
    struct fs *f = op->f;
    struct verr err = {0};
    struct snaprow s;
    struct handle *h = NULL;
    int rc = names_snap_by_ino(f->names, op->ino, &s, &err);
    if (rc == 0)
        rc = fs_snap_handle_open(f, &s, &h, &err);
    if (rc < 0) {
        fs_reply_fail(op->req, "open", op->ino, rc == -ENOENT ? -ESTALE : rc, &err);
        return;
    }
    op->fi.fh = (uintptr_t)h;
    op->fi.keep_cache = 1;      /* the content of a snapshot never changes */
    op->fi.noflush = 1;
    if (fuse_reply_open(op->req, &op->fi) == -ENOENT)
        handle_free(f, h);
}

void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *f = fs_of(req);
    struct verr err = {0};
    struct what w;
    struct fs_disk *d = NULL;
    if (ino_is_control(ino)) {
        control_open(req, ino, fi);
        return;
    }
    int rc = fs_what(f, ino, &w, &err);
    bool disk = rc == 0 && (w.kind == WHAT_NODE || w.kind == WHAT_ORPHAN);
    if (rc == 0 && !disk && w.kind != WHAT_SNAP)
        rc = -ESTALE;
    if (rc == 0 && w.kind == WHAT_SNAP && (flags_may_change(fi->flags) || (fi->flags & O_TRUNC)))
        rc = -EROFS;
    if (rc == 0 && w.kind == WHAT_NODE && w.node.kind != NODE_DISK)
        rc = -EISDIR;
    if (rc == 0 && w.moved)     /* through /proc/PID/fd: it is the name that can be opened */
        rc = -ESTALE;
    if (rc == 0 && disk && (d = fs_disk_get(f, &w.node.id)) == NULL)
        rc = -ENOMEM;
    if (rc < 0) {
        fs_reply_fail(req, "open", ino, rc, &err);
        return;
    }
    struct op *op = op_new(req, d != NULL ? open_disk_run : open_snap_run, NULL, NULL, NULL, 0);
    if (op == NULL) {
        fs_disk_put(d);
        return;
    }
    op->ino = ino;
    op->fi = *fi;
    if (d != NULL)
        op_submit_disk(op, d);
    else
        op_submit(op, f->io);
}

/* ---- read ---- */

static void read_reply(fuse_req_t req, fuse_ino_t ino, const char *buf, ssize_t n, const struct verr *err)
{
    if (n < 0) {
        int e = fs_io_errno("read", ino, (int)n, err);
        if (e == EIO)
            agent_damaged_read(fs_of(req)->agent);
        fuse_reply_err(req, e);
    } else {
        fuse_reply_buf(req, buf, (size_t)n);
    }
}

/* The check comes last: the mark is set before the disk gets the content that the handle is not to see. */
ssize_t fs_disk_handle_read(struct handle *h, uint64_t off, void *buf, size_t len, enum live_reach reach, struct verr *err)
{
    ssize_t n = live_read_within(handle_disk(h)->live, off, buf, len, reach, err);
    return atomic_load(&h->cut) ? -ESTALE : n;
}

static void read_now(struct fs *f, fuse_req_t req, fuse_ino_t ino, struct handle *h, uint64_t off, size_t len)
{
    struct verr err = {0};
    char *buf = fs_thread_buffer(len);
    ssize_t n = -ENOMEM;
    if (buf != NULL && h->kind == HANDLE_SNAP)
        n = fs_snap_handle_read(f, h, off, buf, len, &err);
    else if (buf != NULL)
        n = fs_disk_handle_read(h, off, buf, len, REACH_ALL, &err);
    read_reply(req, ino, buf, n, &err);
}

/* Reads data of this host on the FUSE thread itself: this does not wait for STORE, so no thread need be kept free. */
static bool read_local(fuse_req_t req, fuse_ino_t ino, struct handle *h, uint64_t off, size_t len)
{
    struct verr err = {0};
    char *buf = fs_thread_buffer(len);
    ssize_t n = buf != NULL ? fs_disk_handle_read(h, off, buf, len, REACH_LOCAL, &err) : -EAGAIN;
    if (n == -EAGAIN)
        return false;
    read_reply(req, ino, buf, n, &err);
    return true;
}

static void read_run(struct op *op)
{
    read_now(op->f, op->req, op->ino, op->h, op->off, op->len);
}

static void read_text(fuse_req_t req, const struct handle *h, size_t size, off_t off)
{
    size_t at = (size_t)off < h->text_len ? (size_t)off : h->text_len;
    size_t n = h->text_len - at < size ? h->text_len - at : size;
    /* Replies from a copy: as soon as the reader has the reply it may close the handle, which frees the text while this thread still
     * uses it (ASan reads it after writev). */
    char *buf = fs_thread_buffer(n + 1);     /* n is 0 at the end of the text */
    if (buf == NULL) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    memcpy(buf, h->text + at, n);
    fuse_reply_buf(req, buf, n);
}

void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct fs *f = fs_of(req);
    struct handle *h = handle_of(fi);
    if (h->kind == HANDLE_TEXT || h->kind == HANDLE_LABEL) {
        read_text(req, h, size, off);
        return;
    }
    if (h->kind == HANDLE_DISK) {
        fault_point("fs.read");
        fs_note_use(h);
        if (read_local(req, ino, h, (uint64_t)off, size))
            return;
        if (fs_inline_enter(f)) {
            read_now(f, req, ino, h, (uint64_t)off, size);
            fs_inline_leave(f);
            return;
        }
    }
    struct op *op = op_new(req, read_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    op->off = (uint64_t)off;
    op->len = size;
    op_submit(op, f->io);
}

/* ---- fsync ---- */

static void fsync_run(struct op *op)
{
    struct verr err = {0};
    int rc = fs_stream_flush(op->h, &err);
    if (rc == 0)
        rc = live_fsync(handle_disk(op->h)->live, &err);
    fuse_reply_err(op->req, rc < 0 ? fs_io_errno("fsync", op->ino, rc, &err) : 0);
}

void fs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)datasync;
    struct handle *h = handle_of(fi);
    if (h == NULL || h->kind != HANDLE_DISK) {
        fuse_reply_err(req, 0);
        return;
    }
    struct op *op = op_new(req, fsync_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    op_submit(op, op->f->ctl);
}
