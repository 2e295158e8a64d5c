/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_change: changes of data become snapshots. disk/due.h decides on which occasions, and of which kind.
 *
 *   write .. flush        the flush freezes the disk: a provisional snapshot
 *   write .. flush write  the write supersedes that snapshot: it is dropped, or becomes partial if a round has begun to store it
 *   last writer released  the release settles each provisional snapshot: clean, or partial if its flush came from a killed process
 *   no flush seen         the release freezes the remaining changes; that snapshot is partial
 *   a write failed        and no later write filled its range before the flush: as if the flush came from a killed process
 *
 * All of these run on the disk's queue (fs_handle.h), so that a release that is still running cannot clear the mark that the next
 * truncating open sets.
 */
#include "fs/fs_internal.h"

#include "base/fault.h"
#include "base/vlog.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int fs_freeze(struct fs *f, const struct node *node, unsigned flags, const char *label, const char *note, struct snaprow *out,
              struct verr *err)
{
    struct freeze_req fr = {.flags = flags, .label = label, .note = note};
    return agent_freeze(f->agent, node, 1, &fr, out, err);
}

/* Drops a provisional snapshot, because its writer goes on to change the disk. If a round has begun to store it, it stays and becomes
 * partial: a state in the middle of the writing. */
static int supersede(struct fs *f, struct fs_disk *d, uint64_t seq, struct verr *err)
{
    int rc = agent_supersede(f->agent, &d->id, seq, err);
    if (rc < 0)
        return rc;
    fs_disk_made_del(d, seq);
    struct verr settle = {0};
    rc = agent_settle(f->agent, &d->id, seq, false, &settle);
    if (rc < 0 && rc != -ENOENT)
        vlog(VLOG_WARN, "fs", "snapshot %llu of a disk stays provisional: %s", (unsigned long long)seq, verr_str(&settle));
    return 0;
}

int fs_will_change(struct fs *f, struct handle *h, struct verr *err)
{
    uint64_t seq = atomic_exchange(&h->made_seq, 0);
    atomic_store(&h->changed, true);
    atomic_store(&h->idle, false);
    atomic_store(&h->disk->touched, true);
    if (seq == 0)
        return 0;
    int rc = supersede(f, h->disk, seq, err);
    if (rc < 0)
        atomic_store(&h->made_seq, seq);
    return rc;
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

/* ---- was the writer killed? ---- */

enum { PF_SIGNALED = 0x400 };

/* Reads field 9 of /proc/PID/stat. -errno: hidepid or another pid namespace hides the process, or it has ended. */
static int task_flags(long pid, unsigned long *flags)
{
    char path[48], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return -EIO;
    text[n] = '\0';
    const char *p = strrchr(text, ')');     /* the name in parentheses may hold anything */
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it from an unsigned int */
    if (p == NULL || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %lu", flags) != 1)
        return -EIO;
    return 0;
}

/* The leader of a task, from /proc/PID/status, which can be read without waiting for a lock. *ending: the task has given up its
 * memory; an ending task does so before it closes its files. 0: the file cannot be read. */
static long task_leader(long pid, bool *ending)
{
    char path[48], line[256];
    long tgid = 0;
    *ending = true;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *fp = fopen(path, "re");
    if (fp == NULL)
        return 0;
    while (fgets(line, sizeof line, fp) != NULL) {
        if (strncmp(line, "Tgid:", 5) == 0)
            tgid = strtol(line + 5, NULL, 10);
        else if (strncmp(line, "VmSize:", 7) == 0)
            *ending = false;
    }
    fclose(fp);
    return tgid;
}

/*
 * Was the process killed? To be asked before its flush is answered, or may be answered: an ended process cannot be looked at.
 * exit_group() too ends sibling threads by a signal, and any of them may close the files: so a process counts as killed only if
 * its leader was signalled as well. A process that cannot be looked at counts as clean.
 *
 * /proc/PID/stat is read only of a task that is ending. An exec closes its close-on-exec files while it holds the lock that a reader
 * of that file needs: the exec would wait for this flush, and this flush for the exec.
 */
static bool writer_killed(long pid)
{
    unsigned long flags = 0;
    bool ending;
    long leader = pid > 0 ? task_leader(pid, &ending) : 0;
    if (leader <= 0 || !ending || task_flags(pid, &flags) < 0 || (flags & PF_SIGNALED) == 0)
        return false;
    return leader == pid || task_flags(leader, &flags) < 0 || (flags & PF_SIGNALED) != 0;
}

bool fs_task_killed(long pid)
{
    char path[48], line[256];
    const unsigned long long kill_bit = 1ULL << (SIGKILL - 1);  /* any signal that ends a process becomes this one in its threads */
    bool killed = false;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *fp = pid > 0 ? fopen(path, "re") : NULL;
    while (fp != NULL && !killed && fgets(line, sizeof line, fp) != NULL)
        killed = (strncmp(line, "SigPnd:", 7) == 0 || strncmp(line, "ShdPnd:", 7) == 0) && (strtoull(line + 7, NULL, 16) & kill_bit) != 0;
    if (fp != NULL)
        fclose(fp);
    return killed;
}

/* ---- flush ---- */

static void flush_done(fuse_req_t req, int result, const struct verr *why, void *arg)
{
    (void)arg;
    if (result < 0 && why != NULL && why->code != 0)     /* else the flush itself failed, and has said so */
        vlog(VLOG_WARN, "fs", "a close waited for its snapshot to be stored: %s", verr_str(why));
    fuse_reply_err(req, result < 0 ? -result : 0);
}

static int flush_freeze(struct fs *f, struct handle *h, bool killed, struct snaprow *row, struct verr *err)
{
    struct fs_disk *d = h->disk;
    /* A `cp` that got ENOSPC closes its file as if nothing had happened: the incomplete image is no backup. */
    bool clean = !killed && !fs_disk_lacks(d);
    struct node node;
    struct due_case c = {.occasion = DUE_CLOSE, .node = &node, .unclean = !clean};
    int rc = names_by_ino(f->names, d->ino, &node, err);
    if (rc < 0)
        return rc == -ENOENT ? 0 : rc;
    d->clean = clean;
    d->ever_clean = d->ever_clean || clean;
    int what = due_ask(&c, d->live, err);
    /* Cleared before the freeze: a write from here on may miss this freeze and belongs to the next one. */
    if (what > 0 || (what == 0 && !c.attr.changed && (c.attr.marks & LIVE_REWRITING) == 0))
        atomic_store(&h->changed, false);
    if (what <= 0)
        return what;
    rc = fs_freeze(f, &node, due_flags(&c, (enum due)what), NULL, NULL, row, err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && f->conf.sync_close)      /* the flush waits until the snapshot is stored, so it cannot be settled by the release */
        rc = agent_settle(f->agent, &d->id, row->info.ref.seq, clean, err);
    else if (rc == 0)
        rc = fs_disk_made_add(d, row->info.ref.seq, clean);
    if (rc < 0) {
        atomic_store(&h->changed, true);
        return rc;
    }
    atomic_store(&h->made_seq, f->conf.sync_close ? 0 : row->info.ref.seq);
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
        rc = flush_freeze(op->f, h, op->killed, &row, lost < 0 ? NULL : &err);
    rc = lost < 0 ? lost : rc;
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
    op->killed = writer_killed(fuse_req_ctx(req)->pid);
    op->req = NULL;
    struct park *park = op->park = fs_park(op->f, req, true, flush_done, NULL);
    if (park == NULL) {
        free(op);
        return;
    }
    atomic_fetch_add(&h->flushing, 1);
    fault_point("fs.flush.parked");
    op_submit_disk(op, fs_disk_get(op->f, &h->disk->id));      /* never NULL: the handle's reference keeps the fs_disk */
    fs_park_arm(park);      /* only now may it be answered: the release comes behind the answer, and goes behind the flush */
}

/* ---- release ---- */

/* Freezes changes of the last writer that no flush froze: it wrote through a mapping after its close, or no flush came. */
static int release_freeze(struct fs *f, struct fs_disk *d, const struct node *node, struct verr *err)
{
    struct snaprow row;
    bool clean = d->ever_clean && !fs_disk_lacks(d);
    struct due_case c = {.occasion = DUE_RELEASE, .node = node, .unclean = !clean};
    int rc = agent_freeze_due(f->agent, &c, d->live, &row, err);
    return rc <= 0 ? rc : fs_disk_made_add(d, row.info.ref.seq, clean);
}

/* Ends a rewrite that left nothing to settle: the disk is a dot-file, or a requested snapshot holds its last state. */
static int release_unmark(struct fs_disk *d, struct verr *err)
{
    struct live_attr a;
    int rc = live_attr(d->live, &a, err);
    if (rc < 0 || (a.marks & LIVE_REWRITING) == 0)
        return rc;
    rc = live_has_data(d->live, err);
    return rc <= 0 ? rc : live_set_marks(d->live, 0, LIVE_REWRITING, err);
}

/* Freezes and unmarks what is left to do for a disk that has a name. */
static void release_rest(struct fs *f, struct fs_disk *d)
{
    struct verr err = {0};
    struct node node;
    int rc = names_by_ino(f->names, d->ino, &node, &err);
    if (rc == 0 && atomic_load(&d->touched))
        rc = release_freeze(f, d, &node, &err);
    if (rc < 0 && rc != -ENOENT && atomic_load(&d->touched))
        agent_freeze_later(f->agent, &d->id, !d->ever_clean || fs_disk_lacks(d), &err);
    if (rc < 0 && rc != -ENOENT)
        fs_errno("release", d->ino, rc, &err);
    if (rc == 0 && atomic_load(&d->touched) && d->clean && !fs_disk_lacks(d) && d->nmade == 0 && (rc = release_unmark(d, &err)) < 0)
        fs_errno("release", d->ino, rc, &err);
}

/* Of a removed disk nothing is frozen any more, but the snapshots that its flushes made are settled: waiters wait for that. */
static void last_writer_gone(struct fs *f, struct fs_disk *d, bool removed)
{
    if (!removed)
        release_rest(f, d);
    for (unsigned i = 0; i < d->nmade; i++) {
        struct verr settle = {0};
        int src = agent_settle(f->agent, &d->id, d->made[i].seq, d->made[i].clean, &settle);
        if (src < 0 && src != -ENOENT)
            fs_errno("release", d->ino, src, &settle);
    }
    d->nmade = 0;
    fs_disk_lacks_nothing(d);
    atomic_store(&d->touched, false);
    d->clean = d->ever_clean = false;
}

void fs_close_disk(struct fs *f, struct handle *h)
{
    struct fs_disk *d = h->disk;
    unsigned writers, handles;
    bool orphan, writer = h->writer;
    pthread_mutex_lock(&f->lock);
    bool last = writer && d->writers == 1, removed = d->orphan;
    pthread_mutex_unlock(&f->lock);
    fs_stream_close(h);
    /* Before the detach: an operation that waits until the disk has no writer finds everything settled. */
    if (last)
        last_writer_gone(f, d, removed);
    fs_disk_detach(d, h, &writers, &handles, &orphan);
    if (orphan && handles == 0) {
        struct verr err = {0};
        struct node node;
        pthread_mutex_lock(&f->lock);
        node = d->node;
        pthread_mutex_unlock(&f->lock);
        fs_disk_close_live(d);
        int rc = agent_disk_remove(f->agent, &node, &err);
        if (rc < 0)
            fs_errno("removal", d->ino, rc, &err);
        pthread_mutex_lock(&f->lock);
        d->orphan = false;
        d->dying = true;        /* until its last reference is given back; the next open makes a new fs_disk */
        pthread_mutex_unlock(&f->lock);
    }
    handle_free(f, h);
    fs_disk_put(d);
}

static void release_run(struct op *op)
{
    struct handle *h = op->h;
    if (h->kind == HANDLE_DISK)
        fs_close_disk(op->f, h);
    else
        handle_free(op->f, h);
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
    op->h = h;
    op_submit_disk(op, fs_disk_get(f, &h->disk->id));
}
