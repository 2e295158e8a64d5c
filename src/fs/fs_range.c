/* SPDX-License-Identifier: Apache-2.0 */
/* fs_range: fallocate, SEEK_DATA / SEEK_HOLE, copy_file_range. */
#include "fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <unistd.h>

enum {
    COPY_PIECE = 1 << 20,           /* one read and write of a copy */
    COPY_GRAIN = 64 << 10,          /* zeros in pieces of this size become holes */
    COPY_STEP = 8 << 20             /* bytes copied by one request: the answer is short then */
};
#define COPY_MAX UINT64_C(0xffe00000)   /* the answer has 32 bits (and stays a multiple of a segment) */

/* ---- fallocate ---- */

static int falloc(struct op *op, struct verr *err)
{
    struct live *l = op->h->disk->live;
    struct live_attr a;
    uint64_t end, len = op->len;
    int mode = (int)op->mode;
    bool zero = mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) || (mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE;
    if (!zero && (mode & ~FALLOC_FL_KEEP_SIZE) != 0)
        return -EOPNOTSUPP;
    if (__builtin_add_overflow(op->off, len, &end) || end > INT64_MAX)
        return -EFBIG;
    int rc = live_attr(l, &a, err);
    if (rc < 0)
        return rc;
    bool extend = (mode & FALLOC_FL_KEEP_SIZE) == 0 && end > a.size;
    bool clear = zero && op->off < a.size;
    if (!extend && !clear)
        return 0;       /* space is not reserved */
    struct fs_disk *d = op->h->disk;
    rc = fs_will_change(op->h, op->req, err);
    if (rc == 0 && clear) {
        if (len > a.size - op->off)
            len = a.size - op->off;
        rc = live_zero(l, op->off, len, err);
        if (rc < 0)
            fs_disk_refused(d, op->off, len);
        else
            fs_disk_written(d, op->off, len);
    }
    if (rc == 0 && extend) {
        rc = live_truncate(l, end, err);
        fs_disk_resized(d, end, rc);
    }
    return rc;
}

static void falloc_run(struct op *op)
{
    struct verr err = {0};
    int rc = falloc(op, &err);
    fs_inval_moved(op->h->disk, op->off, op->len);
    if (rc == -EOPNOTSUPP)
        fuse_reply_err(op->req, EOPNOTSUPP);
    else
        fuse_reply_err(op->req, rc < 0 ? fs_io_errno("fallocate", op->ino, rc, &err) : 0);
}

void fs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    if (h->kind == HANDLE_LABEL) {
        fs_label_refuse(req, ino, h);
        return;
    }
    if (h->kind != HANDLE_DISK || !h->writer) {
        fuse_reply_err(req, EBADF);
        return;
    }
    struct op *op = op_new(req, falloc_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    op->mode = (uint32_t)mode;
    op->off = (uint64_t)off;
    op->len = (size_t)len;
    op_submit_disk(op, fs_disk_get(op->f, &h->disk->id));
}

/* ---- lseek ---- */

static void lseek_reply(fuse_req_t req, fuse_ino_t ino, off_t n, const struct verr *err)
{
    if (n < 0)
        fuse_reply_err(req, fs_io_errno("seek", ino, (int)n, err));
    else
        fuse_reply_lseek(req, n);
}

static void lseek_run(struct op *op)
{
    struct verr err = {0};
    bool hole = op->flags == SEEK_HOLE;
    off_t n = op->h->kind == HANDLE_SNAP ? fs_snap_handle_seek(op->f, op->h, op->off, hole, &err)
                                         : live_seek(handle_disk(op->h)->live, op->off, hole, &err);
    if (atomic_load(&op->h->cut))
        n = -ESTALE;
    lseek_reply(op->req, op->ino, n, &err);
}

/* Answers a seek on the FUSE thread itself if the answer is near. A cp of a sparse disk seeks twice for each piece of data and waits
 * for the answer: it should not queue behind read-ahead or wake a worker, since the segment recipe is most often in the cache. */
static bool lseek_near(fuse_req_t req, fuse_ino_t ino, struct handle *h, off_t off, bool hole)
{
    struct fs *f = fs_of(req);
    struct verr err = {0};
    if (h->kind != HANDLE_SNAP || !fs_inline_enter(f))
        return false;
    off_t n = fs_snap_handle_seek_near(h, (uint64_t)off, hole, &err);
    fs_inline_leave(f);
    if (n == -EAGAIN)
        return false;
    lseek_reply(req, ino, n, &err);
    return true;
}

void fs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    if ((whence != SEEK_DATA && whence != SEEK_HOLE) || off < 0 || (h->kind != HANDLE_DISK && h->kind != HANDLE_SNAP)) {
        fuse_reply_err(req, off < 0 && (whence == SEEK_DATA || whence == SEEK_HOLE) ? ENXIO : EINVAL);
        return;
    }
    if (lseek_near(req, ino, h, off, whence == SEEK_HOLE))
        return;
    struct op *op = op_new(req, lseek_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    op->off = (uint64_t)off;
    op->flags = (unsigned)whence;
    op_submit(op, op->f->io);
}

/* ---- copy_file_range ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Writes a piece of a copy; runs of zeros are left as holes, or become holes. */
static int copy_out(struct live *l, uint64_t off, const uint8_t *buf, size_t len, struct verr *err)
{
    struct live_attr a;
    int rc = live_attr(l, &a, err);
    for (size_t at = 0; at < len && rc == 0;) {
        size_t n = len - at < COPY_GRAIN ? len - at : (size_t)COPY_GRAIN;
        uint64_t o = off + at;
        if (!all_zero(buf + at, n)) {
            rc = live_write(l, o, buf + at, n, err);
        } else {
            if (o < a.size)
                rc = live_zero(l, o, o + n < a.size ? n : a.size - o, err);
            if (rc == 0 && o + n > a.size)
                rc = live_truncate(l, o + n, err);
        }
        if (o + n > a.size)
            a.size = o + n;
        at += n;
    }
    return rc;
}

static ssize_t copy_read(struct fs *f, struct handle *h, uint64_t off, void *buf, size_t len, struct verr *err)
{
    return h->kind == HANDLE_SNAP ? fs_snap_handle_read(f, h, off, buf, len, err) : fs_disk_handle_read(h, off, buf, len, REACH_ALL, err);
}

static int64_t copy_bytes(struct op *op, uint64_t len, struct verr *err)
{
    uint64_t done = 0;
    if (len > COPY_STEP)
        len = COPY_STEP;
    uint8_t *buf = fs_thread_buffer(COPY_PIECE);
    if (buf == NULL)
        return -ENOMEM;
    while (done < len && !(done > 0 && fuse_req_interrupted(op->req))) {
        size_t want = len - done < COPY_PIECE ? (size_t)(len - done) : (size_t)COPY_PIECE;
        ssize_t n = copy_read(op->f, op->h, op->off + done, buf, want, err);
        int rc = n > 0 ? copy_out(op->h2->disk->live, op->off2 + done, buf, (size_t)n, err) : (int)n;
        if (rc < 0) /* a part was copied: this call returns its length, the next one meets the error again */
            return done > 0 ? (int64_t)done : rc;
        if (n == 0)
            break;
        fs_disk_written(op->h2->disk, op->off2 + done, (uint64_t)n);
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

static int64_t copy_pointers(struct op *op, uint64_t len, struct verr *err)
{
    struct fs *f = op->f;
    struct node dst, src;
    struct snaprow row;
    if (op->off % SEG_BYTES != 0 || op->off2 % SEG_BYTES != 0)
        return 0;
    int rc = names_by_ino(f->names, op->h2->disk->ino, &dst, err);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;      /* the source is unlinked: its bytes are copied instead */
    bool snap = op->h->kind == HANDLE_SNAP;
    rc = snap ? catalog_snap_by_id(f->catalog, &op->h->snap_ref.snap, &row, err) : names_by_ino(f->names, handle_disk(op->h)->ino, &src, err);
    if (rc == 0 && atomic_load(&op->h->cut))
        return -ESTALE;
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    return agent_clone_range(f->agent, op->h2->disk->live, &dst, op->off2, snap ? &row : NULL, snap ? NULL : &src, op->off, len, err);
}

static int64_t copy_size(struct op *op, uint64_t *size, struct verr *err)
{
    struct live_attr a;
    if (op->h->kind == HANDLE_SNAP) {
        *size = op->h->snap_size;
        return 0;
    }
    int rc = live_attr(handle_disk(op->h)->live, &a, err);
    if (rc == 0)
        *size = a.size;
    return rc;
}

static int64_t copy_range(struct op *op, struct verr *err)
{
    uint64_t size = 0, len = op->len < COPY_MAX ? op->len : COPY_MAX;
    int64_t n = copy_size(op, &size, err);
    if (n < 0)
        return n;
    if (op->off >= size)
        return 0;
    if (len > size - op->off)
        len = size - op->off;
    int busy = fs_disk_others(op->h2->disk, op->h2, true);
    if (busy == 1 && op_retry(op))
        return 0;
    if (busy != 0)
        return verr_set(err, EBUSY, "another program has the disk open for writing");
    int rc = fs_will_change(op->h2, op->req, err);
    if (rc < 0) {
        fs_disk_refused(op->h2->disk, op->off2, len);
        return rc;
    }
    /* Whole segments, or a range up to the end of the source, are copied by pointers. */
    n = len >= SEG_BYTES || op->off + len == size ? copy_pointers(op, len, err) : 0;
    if (n > 0)
        fs_disk_written(op->h2->disk, op->off2, (uint64_t)n);
    if (n == 0)
        n = copy_bytes(op, len, err);
    if (n < 0)
        fs_disk_refused(op->h2->disk, op->off2, len);
    return n;
}

static void copy_run(struct op *op)
{
    struct verr err = {0};
    int64_t n = copy_range(op, &err);
    if (op->again)
        return;
    fs_inval_moved(op->h2->disk, op->off2, n > 0 ? (uint64_t)n : op->len);
    if (n < 0)
        fuse_reply_err(op->req, fs_io_errno("copy_file_range", op->ino2, (int)n, &err));
    else
        fuse_reply_write(op->req, (size_t)n);
}

void fs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                           struct fuse_file_info *fi_out, size_t len, int flags)
{
    struct handle *in = handle_of(fi_in), *out = handle_of(fi_out);
    if (out->kind == HANDLE_LABEL) {
        fs_label_refuse(req, ino_out, out);
        return;
    }
    if (flags != 0 || (in->kind != HANDLE_DISK && in->kind != HANDLE_SNAP) || out->kind != HANDLE_DISK || !out->writer) {
        /* On EOPNOTSUPP the kernel copies with reads and writes, which return any other error. */
        fuse_reply_err(req, flags != 0 ? EINVAL : EOPNOTSUPP);
        return;
    }
    struct op *op = op_new(req, copy_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino_in;
    op->ino2 = ino_out;
    op->h = in;
    op->h2 = out;
    op->off = (uint64_t)off_in;
    op->off2 = (uint64_t)off_out;
    op->len = len;
    op_submit_disk(op, fs_disk_get(op->f, &out->disk->id));
}
