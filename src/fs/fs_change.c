/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_change: changes of data become snapshots. disk/due.h decides on which occasions, and of which kind.
 *
 *   write .. flush        the flush freezes the disk: a provisional snapshot. fs_settle.c has what becomes of it
 *   zeros .. flush        nothing is frozen yet: the disk gets its snapshot when it settles
 *   last writer released  with changes that no flush froze (they came through a mapping, or the last descriptor was the kernel's own, as
 *                         that of a loop device): the release freezes them
 *   a write failed        and no later write filled its range before the flush: as if the flush came from a killed process
 *
 * All of these run on the disk's queue (fs_handle.h), so that a release that is still running cannot clear the mark that the next
 * truncating open sets.
 */
#include "fs/fs_internal.h"

#include "base/fault.h"
#include "base/vlog.h"

#include <errno.h>
#include <stdlib.h>

int fs_freeze(struct fs *f, const struct node *node, unsigned flags, const char *label, const char *note, struct snaprow *out,
              struct verr *err)
{
    struct freeze_req fr = {.flags = flags, .label = label, .note = note};
    return agent_freeze(f->agent, node, 1, &fr, out, err);
}

int fs_rewrite(struct fs *f, const struct node *node, struct live *live, struct verr *err)
{
    struct due_case c = {.occasion = DUE_TRUNCATE, .node = node};
    int rc = agent_freeze_due(f->agent, &c, live, NULL, err);
    if (rc < 0)
        return rc;
    /* A new, empty disk gets the mark too: the snapshot of a first copy that is killed is partial as well. */
    return c.attr.size > 0 ? live_rewrite(live, err) : live_set_marks(live, LIVE_REWRITING, 0, err);
}

/* ---- flush ---- */

static void flush_done(fuse_req_t req, int result, const struct verr *why, void *arg)
{
    (void)arg;
    if (result < 0 && why != NULL && why->code != 0)     /* else the flush itself failed, and has said so */
        vlog(VLOG_WARN, "fs", "a close waited for its snapshot to be stored: %s", verr_str(why));
    fuse_reply_err(req, result < 0 ? -result : 0);
}

static int keep_made(struct op *op, struct fs_disk *d, uint64_t seq, bool clean, struct verr *err)
{
    /* The flush waits until the snapshot is stored, so it is settled at once. */
    if (op->f->conf.sync_close)
        return agent_settle(op->f->agent, &d->id, seq, clean, err);
    int rc = fs_made_add(d, seq, clean, op->h, op);
    return rc < 0 ? agent_settle(op->f->agent, &d->id, seq, clean, err) : rc;   /* without memory it cannot be withdrawn any more */
}

static int flush_freeze(struct op *op, struct snaprow *row, struct verr *err)
{
    struct handle *h = op->h;
    struct fs_disk *d = h->disk;
    /* A `cp` that got ENOSPC closes its file as if nothing had happened: the incomplete image is no backup. */
    bool clean = !op->killed && !fs_disk_lacks(d);
    struct node node;
    struct due_case c = {.occasion = DUE_CLOSE, .node = &node, .unclean = !clean};
    int rc = names_by_ino(op->f->names, d->ino, &node, err);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    d->killed = op->killed;
    d->ever_killed = d->ever_killed || !clean;
    d->ever_clean = d->ever_clean || clean;
    int what = due_ask(&c, d->live, err);
    /* Cleared before the freeze: a write from here on may miss this freeze and belongs to the next one. */
    if (what > 0 || (what == 0 && !c.attr.changed && (c.attr.marks & LIVE_REWRITING) == 0))
        atomic_store(&h->changed, false);
    if (what == DUE_NONE && clean && c.attr.changed && c.attr.size > 0 && c.data == DUE_DATA_NO)
        return fs_made_add(d, 0, true, h, op);
    if (what <= 0)
        return what;
    rc = fs_freeze(op->f, &node, due_flags(&c, (enum due)what), NULL, NULL, row, err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0)
        rc = keep_made(op, d, row->info.ref.seq, clean, err);
    if (rc < 0) {
        atomic_store(&h->changed, true);
        return rc;
    }
    return 1;
}

/* The request waits in a park, so that a program can be killed while its close waits for a slow STORE; the close goes on. */
static void flush_run(struct op *op)
{
    struct handle *h = op->h;
    struct verr err = {0};
    struct snaprow row;
    int rc = 0;
    fault_point("fs.flush.run");
    /* The stream's writes were answered before; the flush returns their errors now, as it does after the kernel's write-back. */
    int lost = fs_stream_flush(h, &err);
    if (atomic_load(&h->changed) && !h->disk->orphan)
        rc = flush_freeze(op, &row, lost < 0 ? NULL : &err);
    rc = lost < 0 ? lost : rc;
    fs_proc_put(op->f, op->proc);
    atomic_store(&h->idle, true);
    atomic_fetch_sub(&h->flushing, 1);
    if (rc < 0)
        fs_park_end(op->park, -fs_io_errno("close", op->ino, rc, &err), NULL);
    else if (rc > 0 && op->f->conf.sync_close)
        fs_park_wait(op->park, &row.info.ref.snap, 1, true, -1);
    else
        fs_park_end(op->park, 0, NULL);
}

void fs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    /* A flush that is under way has taken `changed` for its freeze, which may fail yet. */
    bool owes = h->kind == HANDLE_DISK && (atomic_load(&h->changed) || atomic_load(&h->flushing) > 0);
    if (h->kind == HANDLE_DISK && !owes)
        atomic_store(&h->idle, true);
    if (!owes && h->kind != HANDLE_LABEL) {
        fuse_reply_err(req, 0);
        return;
    }
    struct op *op = op_new_always(req, h->kind == HANDLE_LABEL ? fs_label_flush : flush_run);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    if (h->kind == HANDLE_LABEL) {
        op_submit(op, op->f->ctl);
        return;
    }
    /* The signal that ends a process also interrupts its flush: the process may be gone before flush_run comes. */
    long process = fs_task_closing(fuse_req_ctx(req)->pid, &op->killed);
    op->proc = op->killed ? NULL : fs_proc_get(op->f, process);
    op->req = NULL;
    struct park *park = op->park = fs_park(op->f, req, true, flush_done, NULL);
    if (park == NULL) {
        fs_proc_put(op->f, op->proc);
        free(op);
        return;
    }
    atomic_fetch_add(&h->flushing, 1);
    fault_point("fs.flush.parked");
    op_submit_disk(op, fs_disk_get(op->f, &h->disk->id));      /* never NULL: the handle's reference keeps the fs_disk */
    fs_park_arm(park);      /* only now may it be answered: the release comes behind the answer, and goes behind the flush */
}

/* ---- release ---- */

/* Is what the writers have left whole? That no flush came says nothing against them. */
static bool left_clean(const struct fs_disk *d)
{
    return (d->ever_clean || !d->ever_killed) && !fs_disk_lacks(d);
}

/* Freezes changes of the last writer that no flush froze. */
static int release_freeze(struct fs *f, struct handle *h, const struct node *node, struct verr *err)
{
    struct snaprow row;
    struct fs_disk *d = h->disk;
    bool clean = left_clean(d);
    struct due_case c = {.occasion = DUE_RELEASE, .node = node, .unclean = !clean};
    int rc = agent_freeze_due(f->agent, &c, d->live, &row, err);
    if (rc == 0 && clean && c.attr.changed && c.attr.size > 0 && c.data == DUE_DATA_NO)
        return fs_made_add(d, 0, true, h, NULL);
    if (rc <= 0)
        return rc;
    rc = fs_made_add(d, row.info.ref.seq, clean, h, NULL);
    return rc < 0 ? agent_settle(f->agent, &d->id, row.info.ref.seq, clean, err) : rc;
}

/* Ends a rewrite that left no snapshot to settle: the disk is a dot-file, or all zeros, or a requested snapshot holds its last state. */
static int release_unmark(struct fs_disk *d, struct verr *err)
{
    struct live_attr a;
    int rc = live_attr(d->live, &a, err);
    return rc < 0 || (a.marks & LIVE_REWRITING) == 0 || a.size == 0 ? rc : live_set_marks(d->live, 0, LIVE_REWRITING, err);
}

/* Freezes and unmarks what is left to do for a disk that has a name. */
static void release_rest(struct fs *f, struct handle *h)
{
    struct fs_disk *d = h->disk;
    struct verr err = {0};
    struct node node;
    if (!atomic_load(&d->touched))
        return;
    int rc = names_by_ino(f->names, d->ino, &node, &err);
    if (rc == 0)
        rc = release_freeze(f, h, &node, &err);
    if (rc < 0 && rc != -ENOENT) {
        agent_freeze_later(f->agent, &d->id, !left_clean(d), &err);
        fs_errno("release", d->ino, rc, &err);
    }
    if (rc == 0 && !d->killed && left_clean(d) && !fs_made_any(d) && (rc = release_unmark(d, &err)) < 0)
        fs_errno("release", d->ino, rc, &err);
}

/* Of a disk whose last handle may have gone: it needs no open files, and without a name no image either. Of two threads one finds that it
 * goes. */
static void close_unused(struct fs *f, struct fs_disk *d)
{
    struct verr err = {0};
    struct node node;
    struct fs_disk *to = NULL;
    fs_disk_close_live(d);
    pthread_mutex_lock(&f->lock);
    bool goes = d->orphan && d->handles == 0;
    if (goes) {
        node = d->node;
        d->orphan = false;
        d->dying = true;        /* until its last reference is given back; the next open makes a new fs_disk */
    }
    pthread_mutex_unlock(&f->lock);
    if (!goes)
        return;
    int rc = agent_disk_remove(f->agent, &node, &err);
    if (rc < 0)
        fs_errno("removal", d->ino, rc, &err);
    pthread_mutex_lock(&f->lock);
    to = atomic_exchange(&d->moved, NULL);      /* only now can its name come back */
    pthread_mutex_unlock(&f->lock);
    fs_disk_put(to);
}

/* The same of the disk and of those that it leads to. Where a disk leads is looked up before it is closed: that clears it. */
static void close_chain(struct fs *f, struct fs_disk *d)
{
    struct fs_disk *next;
    for (struct fs_disk *at = d; at != NULL; at = next) {
        next = fs_disk_moved(at);
        close_unused(f, at);
        if (at != d)
            fs_disk_put(at);
    }
}

void fs_close_disk(struct fs *f, struct handle *h)
{
    struct fs_disk *d = h->disk;
    unsigned writers;
    bool orphan, writer = h->writer;
    pthread_mutex_lock(&f->lock);
    bool last = writer && d->writers == 1, removed = d->orphan;
    pthread_mutex_unlock(&f->lock);
    fs_stream_close(h);
    /* Before the detach: an operation that waits until the disk has no writer finds everything frozen. Of a removed disk nothing is
     * frozen any more, but the snapshots that its flushes made are settled: waiters wait for that. */
    if (last && !removed)
        release_rest(f, h);
    fault_point("fs.release.after_rest");
    fs_made_released(d, h);
    if (last) {
        fs_disk_lacks_nothing(d);
        atomic_store(&d->touched, false);
        d->killed = d->ever_clean = d->ever_killed = false;
    }
    fs_disk_detach(h, &writers, &orphan);
    if (writer && orphan)
        fs_settle_released(d);
    else if (writer)
        fs_settle_due(d);
    fs_settle_look(f);
    close_chain(f, d);
    handle_free(f, h);
    fs_disk_put(d);
}

static void release_run(struct op *op)
{
    struct fs_disk *now = handle_disk(op->h);
    if (now != op->disk) {      /* moved while this release was in the queue: its last handle ends on the queue of the other disk */
        fs_disk_put(op->disk);
        op->disk = fs_disk_get(op->f, &now->id);
        op_move_on(op);
        return;
    }
    fs_close_disk(op->f, op->h);
    fuse_reply_err(op->req, 0);
}

void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *f = fs_of(req);
    struct handle *h = handle_of(fi);
    if (h->kind != HANDLE_DISK) {
        handle_free(f, h);
        fuse_reply_err(req, 0);
        return;
    }
    /* Without memory the handle stays and its disk counts as in use. */
    struct op *op = op_new_always(req, release_run);
    if (op == NULL)
        return;
    op->ino = ino;
    op->uid = AGENT_ITSELF;     /* the last reference to a file may go in another process than that of its user */
    op->h = h;
    op_submit_disk(op, fs_disk_get(f, &handle_disk(h)->id));
}
