/* SPDX-License-Identifier: Apache-2.0 */
/* fs_pooled: requests that a pool worker answers, and what all operations share: errors, buffers, time, permission. */
#include "fs/fs_internal.h"

#include "base/vlog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- pooled requests ---- */

static void op_run(struct pool_task *task)
{
    struct op *op = (struct op *)task;
    op->again = op->at_once = false;
    agent_caller(op->uid);
    op->fn(op);
    agent_caller(AGENT_ITSELF);
    if (!op->again) {
        fs_disk_put(op->disk);
        free(op);
        return;
    }
    if (!op->at_once)
        usleep(1000);
    if (op->disk != NULL)
        fs_disk_submit(op->disk, &op->task);
    else
        pool_submit(op->f->ctl, &op->task);
}

static struct op *op_make(fuse_req_t req, void (*fn)(struct op *), const char *name, const char *name2, const void *data, size_t data_len)
{
    struct fs *f = fs_of(req);
    size_t n1 = name ? strlen(name) + 1 : 0, n2 = name2 ? strlen(name2) + 1 : 0;
    struct op *op = malloc(sizeof *op + n1 + n2 + data_len);
    if (op == NULL) {
        fuse_reply_err(req, ENOMEM);
        return NULL;
    }
    memset(op, 0, sizeof *op);
    op->task.run = op_run;
    op->f = f;
    op->req = req;
    op->uid = fuse_req_ctx(req)->uid;
    op->fn = fn;
    char *p = (char *)(op + 1);
    op->data = p;                           /* before the names, so that it is aligned for structs */
    op->data_len = data_len;
    if (data != NULL)
        memcpy(p, data, data_len);
    p += data_len;
    op->name = n1 ? memcpy(p, name, n1) : NULL;
    op->name2 = n2 ? memcpy(p + n1, name2, n2) : NULL;
    return op;
}

struct op *op_new(fuse_req_t req, void (*fn)(struct op *), const char *name, const char *name2, const void *data, size_t data_len)
{
    struct fs *f = fs_of(req);
    if (pool_full(f->ctl) || pool_full(f->io)) {
        fuse_reply_err(req, EAGAIN);
        return NULL;
    }
    return op_make(req, fn, name, name2, data, data_len);
}

struct op *op_new_always(fuse_req_t req, void (*fn)(struct op *))
{
    return op_make(req, fn, NULL, NULL, NULL, 0);
}

void op_submit(struct op *op, struct pool *p)
{
    pool_submit(p, &op->task);
}

void op_submit_disk(struct op *op, struct fs_disk *d)
{
    op->disk = d;
    fs_disk_submit(d, &op->task);
}

void op_move_on(struct op *op)
{
    op->again = op->at_once = true;
}

bool op_retry(struct op *op)
{
    int64_t now = fs_mono_ns();
    if (op->deadline_ns == 0)
        op->deadline_ns = now + FS_GRACE_MS * INT64_C(1000000);
    op->again = now < op->deadline_ns && !atomic_load(&op->f->stopping);
    return op->again;
}

bool fs_inline_enter(struct fs *f)
{
    if (atomic_fetch_add(&f->inline_now, 1) < f->inline_max)
        return true;
    atomic_fetch_sub(&f->inline_now, 1);
    return false;
}

void fs_inline_leave(struct fs *f)
{
    atomic_fetch_sub(&f->inline_now, 1);
}

/* ---- errors ---- */

static bool errno_is_plain(int e)
{
    switch (e) {
    case ENOENT: case EEXIST: case ENOTEMPTY: case EBUSY: case EINVAL: case EPERM: case EACCES: case EROFS: case ENOSPC: case EDQUOT:
    case ENAMETOOLONG: case ENOTDIR: case EISDIR: case ESTALE: case ENXIO: case EOPNOTSUPP: case ENODATA: case ERANGE: case EINTR:
    case EFBIG: case ENOTTY: case ENOMEM: case EREMOTE: case ETIMEDOUT: case EXDEV: case EBADF: case EAGAIN: case EMLINK: case E2BIG:
        return true;
    default:
        return false;
    }
}

static int fail_errno(const char *what, uint64_t ino, int rc, const struct verr *err, bool plain)
{
    int e = rc < 0 ? -rc : EIO;
    const char *text = err != NULL && err->code != 0 ? verr_str(err) : strerror(e);
    if (!plain) {
        vlog(VLOG_ERROR, "fs", "%s of inode %llu: %s", what, (unsigned long long)ino, text);
        return EIO;
    }
    if (e == ENOSPC || e == EDQUOT || e == ENOMEM || e == EREMOTE)
        vlog(VLOG_WARN, "fs", "%s of inode %llu: %s", what, (unsigned long long)ino, text);
    else
        vlog(VLOG_DEBUG, "fs", "%s of inode %llu: %s", what, (unsigned long long)ino, text);
    return e;
}

int fs_errno(const char *what, uint64_t ino, int rc, const struct verr *err)
{
    return fail_errno(what, ino, rc, err, rc < 0 && errno_is_plain(-rc));
}

int fs_io_errno(const char *what, uint64_t ino, int rc, const struct verr *err)
{
    static const int plain[] = {ENOSPC, EDQUOT, EFBIG, EINTR, ENOMEM, ENXIO, ESTALE, EINVAL, EROFS, EBUSY, EREMOTE};
    bool is = false;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        is = is || rc == -plain[i];
    return fail_errno(what, ino, rc, err, is);
}

void fs_reply_fail(fuse_req_t req, const char *what, uint64_t ino, int rc, const struct verr *err)
{
    fuse_reply_err(req, fs_errno(what, ino, rc, err));
}

/* ---- buffers of threads ---- */

struct thread_buffer {
    void *mem;
    size_t len;
};

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void buffer_gone(void *arg)
{
    struct thread_buffer *b = arg;
    free(b->mem);
    free(b);
}

static void buffer_init(void)
{
    pthread_key_create(&buffer_key, buffer_gone);
}

void *fs_thread_buffer(size_t len)
{
    pthread_once(&buffer_once, buffer_init);
    struct thread_buffer *b = pthread_getspecific(buffer_key);
    if (b == NULL) {
        b = calloc(1, sizeof *b);
        if (b == NULL)
            return NULL;
        if (pthread_setspecific(buffer_key, b) != 0) {
            free(b);
            return NULL;
        }
    }
    if (b->len < len) {
        /* Sizes in steps, so that threads with small requests hold no large buffer. */
        size_t want = len <= 128 * 1024 ? 128 * 1024 : len <= FS_IO_MAX ? FS_IO_MAX : len;
        void *mem = NULL;
        if (posix_memalign(&mem, 4096, want) != 0)
            return NULL;
        free(b->mem);
        b->mem = mem;
        b->len = want;
    }
    return b->mem;
}

/* ---- time, permission ---- */

int64_t fs_now_ns(void)
{
    return vclock_real_ns(&vclock_system);
}

int64_t fs_mono_ns(void)
{
    return vclock_mono_ns(&vclock_system);
}

static bool in_groups(fuse_req_t req, uint32_t gid)
{
    if (fuse_req_ctx(req)->gid == gid)
        return true;
    gid_t few[64];
    int n = fuse_req_getgroups(req, 64, few);
    if (n <= 64) {
        for (int i = 0; i < n; i++)
            if (few[i] == gid)
                return true;
        return false;
    }
    gid_t *many = calloc((size_t)n, sizeof *many);
    int got = many != NULL ? fuse_req_getgroups(req, n, many) : 0;
    bool found = false;
    for (int i = 0; i < got && i < n && !found; i++)
        found = many[i] == gid;
    free(many);
    return found;
}

bool fs_may(fuse_req_t req, uint32_t uid, uint32_t gid, uint32_t mode, unsigned want)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    if (ctx->uid == 0)
        return true;
    if (ctx->uid == uid)
        mode >>= 6;
    else if (in_groups(req, gid))
        mode >>= 3;
    return (mode & want) == want;
}

static bool may_read_snap(void *ctx, const struct snaprow *s)
{
    return fs_may(ctx, s->info.uid, s->info.gid, s->info.mode, 4);
}

static bool may_see_node(void *ctx, const struct node *n)
{
    return fs_may(ctx, n->uid, n->gid, n->mode, n->kind == NODE_DIR ? 5 : 4);
}

struct agent_viewer fs_viewer(fuse_req_t req)
{
    return (struct agent_viewer){.may_read = may_read_snap, .may_see = may_see_node, .ctx = req, .root = fuse_req_ctx(req)->uid == 0};
}

void fs_inval_range(struct fs *f, uint64_t ino, uint64_t off, uint64_t len)
{
    int rc = fuse_lowlevel_notify_inval_inode(f->se, ino, (off_t)off, (off_t)len);
    if (rc < 0 && rc != -ENOENT)
        vlog(VLOG_WARN, "fs", "the kernel did not drop its cache of inode %llu: %s", (unsigned long long)ino, strerror(-rc));
}

void fs_inval_moved(struct fs_disk *d, uint64_t off, uint64_t len)
{
    for (uint64_t ino = 0; (ino = fs_disk_moved_ino(d, ino)) != 0;)
        fs_inval_range(d->f, ino, off, len);
}

void fs_inval_inode(struct fs *f, uint64_t ino)
{
    fs_inval_range(f, ino, 0, 0);
}
