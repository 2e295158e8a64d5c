/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_ioctl: commands on open files (include/varve/ioctl.h). Any other command is ENOTTY. A command reports its own error in its
 * struct (error, text); the ioctl call itself fails only where the command does not apply, or was interrupted.
 */
#include "fs/fs_internal.h"

#include "base/vlog.h"
#include "varve/ioctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void ioc_text(int32_t *error, char text[VARVE_ERROR_TEXT], const char *what, uint64_t ino, int rc, const struct verr *err)
{
    *error = fs_errno(what, ino, rc, err);
    snprintf(text, VARVE_ERROR_TEXT, "%s", err->code != 0 ? verr_str(err) : strerror(*error));
}

/* ---- snapshot ---- */

struct group {
    struct fs *f;
    fuse_req_t req;
    const struct handle *me;        /* through which it is asked */
    enum due_occasion occasion;     /* of a directory: a label is wanted of unchanged disks too */
    struct node *disks;
    uint32_t *flags;                /* of the freeze of each */
    unsigned n, cap;
    bool waited;                    /* for releases, in vain */
    int rc;
    struct verr *err;
};

static int group_add(struct group *g, const struct node *n, enum due_occasion request)
{
    struct live *l = NULL;
    struct due_case c = {.occasion = request, .node = n};
    int rc = live_get(g->f->live, &n->id, &l, g->err);
    if (rc < 0)
        return rc;
    bool closing = !g->waited && fs_disk_closing(g->f, n, g->me);   /* before the look at what was released */
    rc = agent_settle_closed(g->f->agent, &n->id, g->err);
    if (rc < 0) {
        live_put(l);
        return rc;
    }
    rc = due_ask(&c, l, g->err);
    live_put(l);
    if (rc == DUE_PARTIAL && closing)
        return -EAGAIN;
    if (rc <= 0)
        return rc;
    if (g->n == g->cap) {
        unsigned cap = g->cap ? 2 * g->cap : 8;
        struct node *disks = realloc(g->disks, cap * sizeof *disks);
        if (disks != NULL)
            g->disks = disks;
        uint32_t *flags = disks != NULL ? realloc(g->flags, cap * sizeof *flags) : NULL;
        if (flags == NULL)
            return -ENOMEM;
        g->flags = flags;
        g->cap = cap;
    }
    g->disks[g->n] = *n;
    g->flags[g->n++] = due_flags(&c, (enum due)rc);
    return 0;
}

static int group_entry(void *ctx, const char *name, const struct entry *e)
{
    struct group *g = ctx;
    const struct due_case c = {.occasion = DUE_REQUEST_DIR, .node = &e->node};
    (void)name;
    if (e->kind != ENTRY_DISK || !due_possible(&c))
        return 0;
    /* Before anything is asked of the disk: whether it has changed is not for everybody to know. */
    if (!fs_may(g->req, e->node.uid, e->node.gid, e->node.mode, 2))
        g->rc = verr_set(g->err, EACCES, "%s: no permission to write to it; a snapshot of the directory takes all disks in it", name);
    else
        g->rc = group_add(g, &e->node, g->occasion);
    if (g->rc == -ENOENT)
        g->rc = 0;                  /* without a live image */
    return g->rc < 0;
}

static int group_collect(struct op *op, struct group *g)
{
    struct fs *f = op->f;
    struct node node;
    struct handle *h = op->h;
    int rc = names_by_ino(f->names, h->kind == HANDLE_DISK ? handle_disk(h)->ino : h->ino, &node, g->err);
    if (rc < 0)
        return rc == -ENOENT ? verr_set(g->err, ESTALE, "it was removed") : rc;
    if (h->kind == HANDLE_DISK && atomic_load(&h->cut) != CUT_NOT)
        return verr_set(g->err, ESTALE, "%s was replaced by a disk of another owner or mode", node.name);
    if (h->kind == HANDLE_DISK)
        return group_add(g, &node, DUE_REQUEST);
    if (fuse_req_ctx(op->req)->uid != 0 && fuse_req_ctx(op->req)->uid != node.uid)
        return verr_set(g->err, EACCES, "only root and the owner of a directory take snapshots of all its disks");
    rc = names_list(f->names, &node.id, group_entry, g, g->err);
    return rc < 0 ? rc : g->rc;
}

/* Returns when the data of all snapshots of the group are durable on this host. */
static int group_seal(struct group *g, const struct snaprow *rows)
{
    int rc = 0;
    for (unsigned i = 0; i < g->n && rc == 0; i++) {
        struct live *l = NULL;
        rc = live_get(g->f->live, &g->disks[i].id, &l, g->err);
        if (rc < 0)
            return rc;
        rc = live_pending_seal(l, rows[i].info.ref.seq, g->err);
        live_put(l);
        if (rc == -ENOENT || rc == -ESTALE)
            rc = 0;                 /* the snapshot is stored already */
    }
    return rc;
}

/* -EAGAIN: a disk is partial as long as a release that is on the way has not come; unless waited. */
static int snapshot(struct op *op, struct varve_ioc_snapshot *io, bool waited, struct verr *err)
{
    struct group g = {.f = op->f, .req = op->req, .me = op->h, .err = err, .waited = waited,
                      .occasion = io->label[0] ? DUE_REQUEST : DUE_REQUEST_DIR};
    struct freeze_req fr = {.label = io->label[0] ? io->label : NULL, .note = io->note[0] ? io->note : NULL};
    struct snaprow *rows = NULL;
    if (memchr(io->label, '\0', sizeof io->label) == NULL || memchr(io->note, '\0', sizeof io->note) == NULL || io->flags != 0
        || strlen(io->note) > NOTE_MAX || (fr.label != NULL && !fs_label_valid(fr.label, strlen(fr.label))))
        return verr_set(err, EINVAL, "label: [A-Za-z0-9._-], up to 64, not of the form of a time; note: up to %d bytes", NOTE_MAX);
    int rc;
    do {        /* -ENOENT: a disk was removed meanwhile, and is not found any more */
        g.n = 0;
        rc = group_collect(op, &g);
        fr.each = g.flags;
        free(rows);
        rows = NULL;
        if (rc == 0 && g.n > 0) {
            rows = calloc(g.n, sizeof *rows);
            rc = rows == NULL ? -ENOMEM : agent_freeze(op->f->agent, g.disks, g.n, &fr, rows, err);
        }
    } while (rc == -ENOENT && g.n > 0);
    if (rc == 0 && g.n > 0) {
        io->count = g.n;
        char name[NODE_NAME_MAX + 1];
        if (snapname_make(g.disks[0].name, rows[0].info.label, rows[0].info.name_s, name) == 0)
            snprintf(io->name, sizeof io->name, "%s", name);
        rc = group_seal(&g, rows);
    }
    free(rows);
    free(g.disks);
    free(g.flags);
    return rc;
}

static void snapshot_run(struct op *op)
{
    struct varve_ioc_snapshot *io = op->data;
    struct verr err = {0};
    io->count = 0;
    io->error = 0;
    io->name[0] = io->text[0] = '\0';
    int rc = snapshot(op, io, false, &err);
    if (rc == -EAGAIN && op_retry(op))
        return;
    if (rc == -EAGAIN)
        rc = snapshot(op, io, true, &err);
    if (rc < 0)
        ioc_text(&io->error, io->text, "snapshot", op->ino, rc, &err);
    fuse_reply_ioctl(op->req, 0, io, sizeof *io);
}

/* ---- revert: on the disk's queue ---- */

static int revert(struct op *op, struct varve_ioc_revert *io, struct verr *err)
{
    struct fs *f = op->f;
    struct vid id;
    struct node node;
    struct snaprow row;
    char text[VID_HEX];
    io->snapshot_id[sizeof io->snapshot_id - 1] = '\0';
    if (vid_parse(io->snapshot_id, &id) < 0)
        return verr_set(err, EINVAL, "not a snapshot's id (see user.varve.id): %s", io->snapshot_id);
    vid_hex(&id, text);
    int rc = catalog_snap_by_id(f->catalog, &id, &row, err);
    /* Knowing an id is no permission: the caller must be allowed to read the snapshot, even in the disk's own history, part of which
     * may belong to an earlier owner. Both cases get one answer, so that callers cannot probe which ids exist. */
    if (rc == -ENOENT || (rc == 0 && !fs_may(op->req, row.info.uid, row.info.gid, row.info.mode, 4)))
        return verr_set(err, ENOENT, "there is no snapshot %s that you may read", text);
    if (rc < 0)
        return rc;
    rc = names_by_ino(f->names, op->h->disk->ino, &node, err);
    if (rc == -ENOENT || (rc == 0 && (node.flags & NODE_GONE) != 0))
        return verr_set(err, ESTALE, "the disk was removed");
    if (atomic_load(&op->h->cut) != CUT_NOT)    /* while this request was in the queue */
        return verr_set(err, ESTALE, "%s was replaced by a disk of another owner or mode", node.name);
    if (rc < 0)
        return rc;
    int busy = fs_disk_others(op->h->disk, op->h, true);
    if (busy == 1 && op_retry(op))
        return 0;
    if (busy != 0)
        return verr_set(err, EBUSY, "%s: another program has it open for writing", node.name);
    fs_made_released(op->h->disk, op->h);       /* what it flushed was a state before the revert */
    fs_will_replace(op->h->disk);
    rc = agent_revert(f->agent, &node, &row, err);
    if (rc == 0)
        atomic_store(&op->h->changed, false);
    return rc;
}

static void revert_run(struct op *op)
{
    struct varve_ioc_revert *io = op->data;
    struct verr err = {0};
    struct fs *f = op->f;
    uint64_t ino = op->h->disk->ino;
    io->error = 0;
    io->text[0] = '\0';
    int rc = revert(op, io, &err);
    if (op->again)
        return;
    if (rc < 0) {
        ioc_text(&io->error, io->text, "revert", op->ino, rc, &err);
    } else {
        /* Before the answer, so that the caller reads nothing stale after it. This cannot deadlock: an ioctl holds no lock of the
         * inode, and other threads answer reads of pages that are under way. */
        fs_inval_inode(f, ino);
        fs_inval_moved(op->disk, 0, 0);
    }
    fuse_reply_ioctl(op->req, 0, io, sizeof *io);
}

/* ---- copy: on the disk's queue ---- */

static int copy_end(struct handle *h, uint32_t what, struct verr *err)
{
    struct fs_disk *d = h->disk;
    if (!h->writer || d->orphan)
        return verr_set(err, EBADF, "only who writes the disk says how its copy ended");
    if (what == VARVE_COPY_BROKEN) {
        fs_disk_refused(d, UINT64_MAX - 1, 1);  /* no write can fill that gap: every snapshot that a close makes is partial */
        return 0;
    }
    if (what != VARVE_COPY_WHOLE)
        return verr_set(err, EINVAL, "a copy ends whole or broken, and not as %u", what);
    int rc = fs_stream_flush(h, err);
    if (rc == 0 && fs_disk_lacks(d))
        rc = verr_set(err, EIO, "a write to it has failed, and nothing was written there since");
    return rc < 0 ? rc : live_set_marks(d->live, 0, LIVE_REWRITING, err);
}

static void copy_run(struct op *op)
{
    struct varve_ioc_copy *io = op->data;
    struct verr err = {0};
    io->error = 0;
    io->text[0] = '\0';
    int rc = copy_end(op->h, io->what, &err);
    if (rc < 0)
        ioc_text(&io->error, io->text, "copy", op->ino, rc, &err);
    fuse_reply_ioctl(op->req, 0, io, sizeof *io);
}

/* ---- wait ---- */

static void wait_reply(fuse_req_t req, int result, const struct verr *why, void *arg)
{
    struct varve_ioc_wait *io = arg;
    if (result == -EINTR) {
        fuse_reply_err(req, EINTR);
    } else {
        io->error = -result;
        snprintf(io->text, sizeof io->text, "%s",
                 result == 0 ? "" : why != NULL && why->code != 0 ? verr_str(why) : strerror(-result));
        fuse_reply_ioctl(req, 0, io, sizeof *io);
    }
    free(io);
}

static int wait_ids(struct op *op, struct vid **ids, unsigned *n, struct verr *err)
{
    struct fs *f = op->f;
    struct handle *h = op->h;
    struct node node;
    if (h->kind == HANDLE_SNAP) {
        *ids = malloc(sizeof **ids);
        if (*ids == NULL)
            return -ENOMEM;
        (*ids)[0] = h->snap_ref.snap;
        *n = 1;
        return 0;
    }
    const struct agent_viewer who = fs_viewer(op->req);
    bool all = h->kind == HANDLE_TEXT || h->control || h->ino == NAMES_ROOT_INO;
    int rc = all ? 0 : names_by_ino(f->names, h->kind == HANDLE_DISK ? handle_disk(h)->ino : h->ino, &node, err);
    return rc < 0 ? rc : agent_pending_ids(f->agent, all ? NULL : &node, &who, ids, n, err);
}

static void wait_run(struct op *op);

/* On the queue of a disk of zeros that gets its snapshot because the user waits. */
static void wait_settle_run(struct op *op)
{
    fs_settle_due(op->disk);
    op->fn = wait_run;
    op_move_on(op);
}

static void wait_run(struct op *op)
{
    struct verr err = {0};
    struct vid *ids = NULL;
    unsigned n = 0;
    struct handle *h = op->h;
    struct fs_disk *d = h->kind != HANDLE_SNAP ? fs_settle_ask(op->f, h->kind == HANDLE_DISK ? handle_disk(h) : NULL) : NULL;
    if (d != NULL) {
        fs_disk_put(op->disk);
        op->disk = d;
        op->fn = wait_settle_run;
        op_move_on(op);
        return;
    }
    struct varve_ioc_wait *io = malloc(sizeof *io);
    if (io == NULL) {
        fuse_reply_err(op->req, ENOMEM);
        return;
    }
    memcpy(io, op->data, sizeof *io);
    bool begins = (io->pending & VARVE_WAIT_BEGINS) != 0;
    io->error = 0;
    io->text[0] = '\0';
    if (begins)
        agent_hurry(op->f->agent);      /* a freeze that failed and is tried again is no pending snapshot yet */
    int rc = wait_ids(op, &ids, &n, &err);
    io->pending = n;
    if (rc < 0) {
        ioc_text(&io->error, io->text, "wait", op->ino, rc, &err);
        fuse_reply_ioctl(op->req, 0, io, sizeof *io);
        free(io);
    } else if (n == 0) {
        wait_reply(op->req, 0, NULL, io);
    } else {
        fs_wait(op->f, op->req, ids, n, begins, io->timeout_ms, wait_reply, io);
    }
    free(ids);
}

/* ---- info, log, list ---- */

static void info_reply(struct fs *f, fuse_req_t req)
{
    struct varve_ioc_info io;
    char hex[VID_HEX];
    memset(&io, 0, sizeof io);
    vid_hex(&store_conf(agent_store(f->agent))->id, hex);
    snprintf(io.store, sizeof io.store, "%s", f->conf.store_path);
    if (fuse_req_ctx(req)->uid == 0) {
        snprintf(io.state, sizeof io.state, "%s", agent_state_path(f->agent));
        io.pid = (int32_t)getpid();
    }
    snprintf(io.host, sizeof io.host, "%s", agent_host(f->agent));
    snprintf(io.store_id, sizeof io.store_id, "%s", hex);
    io.version = 1;
    fuse_reply_ioctl(req, 0, &io, sizeof io);
}

static int log_text(struct op *op, char **text, size_t *len, struct verr *err)
{
    const struct handle *h = op->h;
    const struct agent_viewer who = fs_viewer(op->req);
    struct node node;
    int rc = catalog_node_by_id(op->f->catalog, h->kind == HANDLE_SNAP ? &h->snap_ref.disk : &handle_disk(h)->id, &node, err);
    return rc < 0 ? rc : agent_log_json(op->f->agent, &node, &who, text, len, err);
}

static int list_text(struct op *op, char **text, size_t *len, struct verr *err)
{
    const struct handle *h = op->h;
    const struct agent_viewer who = fs_viewer(op->req);
    struct node node;
    bool all = h->ino == NAMES_ROOT_INO;
    int rc = all ? 0 : names_by_ino(op->f->names, h->kind == HANDLE_DISK ? handle_disk(h)->ino : h->ino, &node, err);
    return rc < 0 ? rc : agent_list_json(op->f->agent, all ? NULL : &node, &who, text, len, err);
}

/* A call for offset 0 makes the whole text, which the handle keeps, so that all pieces come from one text. */
static int keep_text(struct op *op, unsigned cmd, uint64_t offset, struct verr *err)
{
    struct handle *h = op->h;
    char *text = NULL;
    size_t len = 0;
    uint32_t uid = fuse_req_ctx(op->req)->uid;
    if (offset != 0 && h->text != NULL && h->text_uid == uid && h->text_cmd == cmd)
        return 0;
    int rc = cmd == VARVE_IOC_LIST ? list_text(op, &text, &len, err) : log_text(op, &text, &len, err);
    if (rc < 0)
        return rc;
    free(h->text);
    h->text = text;
    h->text_uid = uid;
    h->text_cmd = cmd;
    h->text_len = len;
    return 0;
}

static void text_run(struct op *op, unsigned cmd)
{
    struct varve_ioc_log *io = op->data;
    struct handle *h = op->h;
    struct verr err = {0};
    pthread_mutex_lock(&h->lock);
    int rc = keep_text(op, cmd, io->offset, &err);
    if (rc == 0) {
        uint64_t left = io->offset < h->text_len ? h->text_len - io->offset : 0;
        io->total = h->text_len;
        io->len = (uint32_t)(left < sizeof io->text ? left : sizeof io->text);
        memset(io->text, 0, sizeof io->text);
        if (io->len > 0)
            memcpy(io->text, h->text + io->offset, io->len);
    }
    pthread_mutex_unlock(&h->lock);
    if (rc < 0)
        fs_reply_fail(op->req, cmd == VARVE_IOC_LIST ? "list" : "log", op->ino, rc, &err);
    else
        fuse_reply_ioctl(op->req, 0, io, sizeof *io);
}

static void log_run(struct op *op) { text_run(op, VARVE_IOC_LOG); }
static void list_run(struct op *op) { text_run(op, VARVE_IOC_LIST); }

/* ---- dispatch ---- */

static const struct command {
    unsigned cmd;
    size_t size;
    void (*run)(struct op *op);
    bool disk, dir, snap, any;      /* on which handles */
    bool write;                     /* a disk must be open for writing */
    bool queue;                     /* runs on the disk's queue */
} commands[] = {
    {VARVE_IOC_SNAPSHOT, sizeof(struct varve_ioc_snapshot), snapshot_run, true, true, false, false, true, false},
    {VARVE_IOC_REVERT, sizeof(struct varve_ioc_revert), revert_run, true, false, false, false, true, true},
    {VARVE_IOC_COPY, sizeof(struct varve_ioc_copy), copy_run, true, false, false, false, true, true},
    {VARVE_IOC_WAIT, sizeof(struct varve_ioc_wait), wait_run, true, true, true, true, false, false},
    {VARVE_IOC_LOG, sizeof(struct varve_ioc_log), log_run, true, false, true, false, false, false},
    {VARVE_IOC_LIST, sizeof(struct varve_ioc_log), list_run, true, true, false, false, false, false},
};

static bool command_fits(const struct command *c, const struct handle *h)
{
    switch (h->kind) {
    case HANDLE_DISK:
        return c->disk;
    case HANDLE_DIR:
        return h->control ? c->any : c->dir;
    case HANDLE_SNAP:
        return c->snap;
    case HANDLE_TEXT:
        return c->any;
    case HANDLE_LABEL:
        break;
    }
    return false;
}

static void command_start(const struct command *c, fuse_req_t req, fuse_ino_t ino, struct handle *h, const void *in, size_t in_len)
{
    if (!command_fits(c, h) || in_len < c->size) {
        fuse_reply_err(req, ENOTTY);
        return;
    }
    if (c->write && agent_read_only(fs_of(req)->agent)) {       /* the kernel refuses other changes, but knows no ioctl */
        fuse_reply_err(req, EROFS);
        return;
    }
    if (h->kind == HANDLE_DISK && atomic_load(&h->cut) != CUT_NOT) {
        fuse_reply_err(req, ESTALE);
        return;
    }
    if (c->write && h->kind == HANDLE_DISK && !h->may_change) {
        fuse_reply_err(req, EBADF);
        return;
    }
    struct op *op = op_new(req, c->run, NULL, NULL, in, c->size);
    if (op == NULL)
        return;
    op->ino = ino;
    op->h = h;
    if (c->queue)
        op_submit_disk(op, fs_disk_get(op->f, &h->disk->id));
    else
        op_submit(op, op->f->ctl);
}

void fs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned flags, const void *in_buf,
                 size_t in_bufsz, size_t out_bufsz)
{
    (void)arg;
    (void)flags;        /* FUSE_IOCTL_DIR says what the handle's kind says as well */
    struct handle *h = handle_of(fi);
    if (cmd == VARVE_IOC_INFO && out_bufsz >= sizeof(struct varve_ioc_info)) {
        info_reply(fs_of(req), req);
        return;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (commands[i].cmd == cmd && out_bufsz >= commands[i].size) {
            command_start(&commands[i], req, ino, h, in_buf, in_bufsz);
            return;
        }
    }
    fuse_reply_err(req, ENOTTY);
}
