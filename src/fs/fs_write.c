/* SPDX-License-Identifier: Apache-2.0 */
/* fs_write: writes to disks, and what of them the kernel's pages must show. */
#include "fs/fs_internal.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

enum { STREAM_WRITE_MIN = 64 << 10 };   /* cp, dd bs=1M, rsync; not fio bs=4k */

void fs_note_use(struct handle *h)
{
    if (atomic_load_explicit(&h->idle, memory_order_relaxed))
        atomic_store(&h->idle, false);
    if (!h->direct && !atomic_load_explicit(&h->disk->coherent, memory_order_relaxed))
        atomic_store(&h->disk->coherent, true);
}

/* A write on its way through the daemon. */
struct writing {
    fuse_req_t req;
    fuse_ino_t ino;
    struct handle *h;
    const void *buf;
    uint64_t off;
    size_t size;
    bool past_cache;                /* it does not come from the kernel's pages, and may leave stale ones there */
    bool on_fuse_thread;
    bool spared;                    /* ... which need not stay free: fs_inline_enter has said so */
};

/* A write of a write-only handle, or of a program that has set O_DIRECT (that may come and go while the file is open). A page that the
 * kernel writes for a shared mapping comes with the flags of any handle. */
static bool writes_past_cache(const struct handle *h, const struct fuse_file_info *fi)
{
    return (h->direct || (fi->flags & O_DIRECT) != 0) && !fi->writepage;
}

/* May the disk's own inode have pages that are stale now? */
static bool leaves_stale(const struct writing *w)
{
    return w->past_cache && atomic_load(&w->h->disk->cached) > 0;
}

static void drop_stale(struct fs *f, const struct writing *w)
{
    if (leaves_stale(w))
        fs_inval_range(f, w->ino, w->off, w->size);
    fs_inval_moved(w->h->disk, w->off, w->size);
}

static void write_seen_run(struct op *op)
{
    const struct writing w = {.ino = op->ino, .h = op->h, .off = op->off, .size = op->len, .past_cache = op->flags != 0};
    fault_point("fs.write.seen");
    drop_stale(op->f, &w);
    fuse_reply_write(op->req, op->len);
}

/* On a FUSE thread: the same, without a change of thread. The others answer what the kernel waits for meanwhile. */
static bool write_seen_here(const struct writing *w)
{
    struct fs *f = fs_of(w->req);
    if (!w->on_fuse_thread || f->threads < 2 || (!w->spared && !fs_inline_enter(f)))
        return false;
    fault_point("fs.write.seen");
    drop_stale(f, w);
    if (!w->spared)
        fs_inline_leave(f);
    fuse_reply_write(w->req, w->size);
    return true;
}

/*
 * Before the answer, the kernel drops the pages that the write has made stale. No kernel does so by itself at the end of a direct write
 * by AIO or io_uring, and some do so only before they send a write: a page that is read meanwhile is stale and would stay. The kernel
 * may wait for a page that is locked by a read, or dirty, and so for a worker of the other pools: hence a pool of its own, or a FUSE
 * thread that need not stay free. The same goes for the pages of inodes that were renamed onto this disk while readers had them open: the
 * kernel does not know that they show the same data.
 */
static void write_done(const struct writing *w)
{
    if (!leaves_stale(w) && atomic_load(&w->h->disk->moved_here) == 0) {
        fuse_reply_write(w->req, w->size);
        return;
    }
    if (write_seen_here(w))
        return;
    struct op *op = op_new_always(w->req, write_seen_run);
    if (op == NULL)
        return;
    op->ino = w->ino;
    op->h = w->h;
    op->off = w->off;
    op->len = w->size;
    op->flags = w->past_cache;
    op_submit(op, op->f->notify);
}

static void stream_lost(void *ctx, uint64_t off, uint64_t len)
{
    fs_disk_refused(ctx, off, len);
}

/* The handle's stream, or NULL. A handle gets one when it first writes a large piece; whether it can have one is decided once. */
static struct stream *stream_of(struct fs *f, struct handle *h, size_t size)
{
    struct stream *s = atomic_load(&h->stream);
    if (s != NULL || !h->direct || !h->writer || size < STREAM_WRITE_MIN)
        return s;
    pthread_mutex_lock(&h->lock);
    if (!h->stream_asked)
        atomic_store(&h->stream, agent_stream_open(f->agent, h->disk->live, stream_lost, h->disk));
    h->stream_asked = true;
    pthread_mutex_unlock(&h->lock);
    return atomic_load(&h->stream);
}

int fs_stream_flush(struct handle *h, struct verr *err)
{
    struct stream *s = h->kind == HANDLE_DISK ? atomic_load(&h->stream) : NULL;
    return s != NULL ? stream_flush(s, err) : 0;
}

void fs_stream_close(struct handle *h)
{
    stream_close(atomic_exchange(&h->stream, NULL));
}

static int write_disk(struct fs *f, struct handle *h, uint64_t off, const void *buf, size_t size, struct verr *err)
{
    fault_point("fs.write.before");
    struct stream *s = stream_of(f, h, size);
    int rc = s != NULL ? stream_write(s, off, buf, size, err) : 0;
    return rc == 0 ? live_write(h->disk->live, off, buf, size, err) : rc;
}

static void write_reply(const struct writing *w, int rc, const struct verr *err)
{
    if (rc < 0) {
        if (rc != -EFBIG)   /* beyond the largest offset of an image, so nothing is missing in it */
            fs_disk_refused(w->h->disk, w->off, w->size);
        fuse_reply_err(w->req, fs_io_errno("write", w->ino, rc, err));
    } else {
        fs_disk_written(w->h->disk, w->off, w->size);
        write_done(w);
    }
}

static void write_now(const struct writing *w)
{
    struct verr err = {0};
    int rc = write_disk(fs_of(w->req), w->h, w->off, w->buf, w->size, &err);
    write_reply(w, rc, &err);
}

/* Does a small write that touches only local files on the FUSE thread itself: it does not wait for STORE, so no thread need be kept
 * free. */
static bool write_local(const struct writing *w)
{
    enum { SMALL = 64 * 1024 };     /* the cost of handing a larger write to a worker does not matter */
    struct verr err = {0};
    int rc = w->size < SMALL ? live_write_within(w->h->disk->live, w->off, w->buf, w->size, REACH_LOCAL, &err) : -EAGAIN;
    if (rc == -EAGAIN)
        return false;
    write_reply(w, rc, &err);
    return true;
}

static struct writing writing_of(struct op *op)
{
    return (struct writing){.req = op->req, .ino = op->ino, .h = op->h, .buf = op->data, .off = op->off, .size = op->data_len,
                            .past_cache = writes_past_cache(op->h, &op->fi)};
}

/* On the disk's queue: the first write after a close may withdraw or settle what that made. */
static void write_first_run(struct op *op)
{
    struct verr err = {0};
    struct writing w = writing_of(op);
    int rc = fs_will_change(op->h, op->req, &err);
    if (rc < 0) {
        fs_disk_refused(op->h->disk, op->off, op->data_len);
        fuse_reply_err(op->req, fs_io_errno("write", op->ino, rc, &err));
    } else {
        write_now(&w);
    }
}

static void write_run(struct op *op)
{
    struct writing w = writing_of(op);
    write_now(&w);
}

/* On the FUSE thread, if a thread may be spared: false, and nothing is done. */
static bool write_here(struct writing *w)
{
    struct fs *f = fs_of(w->req);
    /* Set before the data are written: a flush that runs meanwhile must not see an unchanged handle. */
    atomic_store(&w->h->changed, true);
    atomic_store(&w->h->disk->touched, true);
    fs_note_use(w->h);
    if (write_local(w))
        return true;
    if (!fs_inline_enter(f))
        return false;
    w->spared = true;
    write_now(w);
    fs_inline_leave(f);
    return true;
}

void fs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct fs *f = fs_of(req);
    struct handle *h = handle_of(fi);
    if (h->kind == HANDLE_LABEL) {
        fs_label_refuse(req, ino, h);
        return;
    }
    if (h->kind != HANDLE_DISK) {
        fuse_reply_err(req, EBADF);
        return;
    }
    struct writing w = {.req = req, .ino = ino, .h = h, .buf = buf, .off = (uint64_t)off, .size = size,
                        .past_cache = writes_past_cache(h, fi), .on_fuse_thread = true};
    bool first = atomic_load(&h->made_seen) != atomic_load(&h->disk->made_gen);
    if (!first && write_here(&w))
        return;
    struct op *op = op_new(req, first ? write_first_run : write_run, NULL, NULL, buf, size);
    if (op == NULL) {
        fs_disk_refused(h->disk, (uint64_t)off, size);
        return;
    }
    op->ino = ino;
    op->h = h;
    op->off = (uint64_t)off;
    op->fi = *fi;
    if (first)
        op_submit_disk(op, fs_disk_get(f, &h->disk->id));
    else
        op_submit(op, f->io);
}
