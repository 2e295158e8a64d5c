/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_rename: snapshots get labels, directories and disks get names, a disk may move onto another (docs/posix.md, "Closing,
 * renaming, removing"). A rename onto a disk, or to the name of a removed one, runs on the queue of the target; the source has
 * no writer.
 */
#include "fs/fs_internal.h"

#include "base/quote.h"
#include "base/vlog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

struct move {
    struct entry from, to;
    bool replaces;                  /* `to` exists */
    bool revives;                   /* `to` is a removed disk with snapshots */
    struct fs_dirs dirs;            /* the old directory and the new one */
};

/* A name of which only snapshots remain: a disk that gets it goes on with that history. */
static int find_removed(struct op *op, struct move *m, struct verr *err)
{
    uint64_t snaps = 0;
    int rc = catalog_node_by_name(op->f->catalog, &m->dirs.dir2.id, op->name2, &m->to.node, err);
    if (rc == 0 && (m->to.node.flags & NODE_GONE) != 0 && m->to.node.kind == NODE_DISK)
        rc = catalog_snap_count(op->f->catalog, &m->to.node.id, &snaps, err);
    m->revives = snaps > 0;
    return rc == -ENOENT ? 0 : rc;
}

static int move_lookup(struct op *op, struct move *m, struct verr *err)
{
    struct fs *f = op->f;
    if (strlen(op->name) > NODE_NAME_MAX || strlen(op->name2) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    if (control_lookup(op->ino, op->name) != 0 || control_lookup(op->ino2, op->name2) != 0)
        return -EPERM;
    int rc = names_lookup(f->names, &m->dirs.dir.id, op->name, &m->from, err);
    if (rc < 0)
        return rc;
    rc = names_lookup(f->names, &m->dirs.dir2.id, op->name2, &m->to, err);
    m->replaces = rc == 0;
    if (rc == -ENOENT && m->from.kind == ENTRY_DISK)
        return find_removed(op, m, err);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- snapshots ---- */

bool fs_label_valid(const char *label, size_t len)
{
    static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    char name[2 + 65 + 1];
    struct snapname sn;
    if (len == 0 || len > 64 || strspn(label, chars) < len)
        return false;
    if (memchr(label, '.', len) != NULL)
        return true;        /* a snapshot's moment has no dot */
    snprintf(name, sizeof name, "x@%.*s", (int)len, label);
    return snapname_parse(name, &sn) == 1 && sn.label[0] != '\0';
}

int fs_label_of(const char *disk, const char *name, char label[65])
{
    const char *dot = strrchr(disk, '.');
    if (dot == NULL || dot == disk)
        dot = disk + strlen(disk);
    size_t base = (size_t)(dot - disk), ext = strlen(dot), len = strlen(name);
    if (len <= base + 1 + ext || strncmp(name, disk, base) != 0 || name[base] != '@' || strcmp(name + len - ext, dot) != 0)
        return -EINVAL;
    size_t n = len - base - 1 - ext;
    if (!fs_label_valid(name + base + 1, n))
        return -EINVAL;
    memcpy(label, name + base + 1, n);
    label[n] = '\0';
    return 0;
}

static int move_snap(struct op *op, const struct move *m, struct verr *err)
{
    char label[65];
    if (op->ino != op->ino2 || fs_label_of(m->from.node.name, op->name2, label) < 0)
        return verr_set(err, EINVAL, "a snapshot can only be renamed to another label of its disk");
    if (m->replaces)
        return m->to.kind == ENTRY_SNAP && vid_eq(&m->to.snap.info.ref.snap, &m->from.snap.info.ref.snap) ? 0 : -EEXIST;
    return agent_snap_relabel(op->f->agent, &m->from.snap, label, err);
}

/* ---- disks and directories ---- */

static int move_node(struct op *op, const struct move *m, struct verr *err)
{
    struct fs *f = op->f;
    const struct node *n = &m->from.node;
    struct stat was;
    bool replaced = m->replaces && fs_stat_node(f, &m->to.node, &was, NULL) == 0;
    int rc = names_rename(f->names, &n->id, &m->dirs.dir2.id, op->name2, err);
    if (rc == 0 && replaced)
        fs_gone_add(f, &was);
    return rc;
}

/* A finished temporary file got its final name: from now on its content counts. If it has a writer, the close freezes it. */
static int freeze_named(struct op *op, struct verr *err)
{
    struct fs *f = op->f;
    struct node now;
    struct live *l = NULL;
    struct due_case c = {.occasion = DUE_NAMED, .node = &now};
    if (fs_disk_others(op->disk, NULL, true) != 0)
        return 0;
    int rc = names_by_ino(f->names, op->disk->ino, &now, err);
    if (rc == 0)
        rc = live_get(f->live, &now.id, &l, err);
    if (rc == 0)
        rc = agent_freeze_due(f->agent, &c, l, NULL, err);
    if (l != NULL)
        live_put(l);
    return rc == -ENOENT || rc > 0 ? 0 : rc;
}

static void named_run(struct op *op)
{
    struct verr err = {0};
    int rc = freeze_named(op, &err);
    fuse_reply_err(op->req, rc < 0 ? fs_errno("rename", op->ino, rc, &err) : 0);
}

/* The rename goes on on the queue of the disk, where its releases run: the last one has come before, or it sees the new name. */
static bool freezes_named(struct op *op, const struct move *m)
{
    const struct node *n = &m->from.node;
    if (m->from.kind != ENTRY_DISK || n->name[0] != '.' || m->replaces || m->revives)
        return false;
    struct fs_disk *d = fs_disk_get(op->f, &n->id);
    if (d == NULL) {
        vlog(VLOG_WARN, "fs", "%s gets its snapshot with its next change: out of memory", QUOTED(op->name2));
        return false;
    }
    fs_disk_put(op->disk);
    op->disk = d;
    op->fn = named_run;
    op_move_on(op);
    return true;
}

/* Owner and mode decide who may open a disk. Readers of the target go on with the source's content only if they are the same for both. */
static bool same_rights(const struct node *a, const struct node *b)
{
    return a->uid == b->uid && a->gid == b->gid && a->mode == b->mode;
}

/* The answer to fs_disk_others as an error: 0: nobody else; -EBUSY; -EAGAIN: releases are on the way. */
static int move_busy(int others, const char *what, struct verr *err)
{
    if (others == 2)
        return verr_set(err, EBUSY, "%s is open", what);
    return others == 1 ? -EAGAIN : 0;
}

/* A removed disk whose name is taken comes back with another image: nobody may use the one it had. */
static int check_target(struct op *op, const struct move *m, struct verr *err)
{
    const struct node *to = &m->to.node;
    if ((to->flags & NODE_GONE) != 0)
        return fs_check_removed(op->f, to, op->disk, err);
    return move_busy(fs_disk_others(op->disk, NULL, true), op->name2, err);
}

static void set_dying(struct fs_disk *d, bool dying)
{
    pthread_mutex_lock(&d->f->lock);
    d->dying = dying;
    pthread_mutex_unlock(&d->f->lock);
}

static bool is_open(struct fs_disk *d)
{
    pthread_mutex_lock(&d->f->lock);
    bool open = d->handles > 0;
    pthread_mutex_unlock(&d->f->lock);
    return open;
}

/* Ends the source. Readers that have it open go on with the target. Only the last of them ends the image: reads may be under way. */
static void end_source(struct fs_disk *src, const struct node *from, struct fs_disk *target)
{
    struct verr why = {0};
    pthread_mutex_lock(&src->f->lock);
    bool open = src->handles > 0;
    src->orphan = open;
    pthread_mutex_unlock(&src->f->lock);
    int moved = open ? fs_disk_open_live(target, &why) : 0;
    if (open && moved == 0)
        fs_disk_move(src, target);
    else if (open)
        vlog(VLOG_WARN, "fs", "readers of %s go on with what it was: %s", QUOTED(from->name), verr_str(&why));
    if (open)
        return;
    fs_disk_close_live(src);
    int rc = agent_disk_remove(src->f->agent, from, &why);
    if (rc < 0)                     /* it is tried again; the rename has happened */
        fs_errno("removal", src->ino, rc, &why);
}

static int move_onto_disk(struct op *op, const struct move *m, struct verr *err)
{
    struct fs *f = op->f;
    struct fs_disk *src = fs_disk_get(f, &m->from.node.id);
    if (src == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&f->lock);
    src->dying = true;              /* opens of the source fail from here on */
    src->node = m->from.node;       /* its open handles need it once the name is gone */
    pthread_mutex_unlock(&f->lock);
    int rc = check_target(op, m, err);
    if (rc == 0)
        rc = move_busy(fs_disk_others(src, NULL, true), op->name, err);
    if (rc == 0) {
        fs_will_replace(op->disk);
        fs_will_replace(src);
        bool cut = !same_rights(&m->from.node, &m->to.node);
        if (cut)
            fs_disk_cut(op->disk, CUT_PERHAPS);
        rc = agent_disk_replace(f->agent, &m->from.node, &m->to.node, is_open(src), err);
        if (cut)
            fs_disk_cut(op->disk, rc < 0 ? CUT_NOT : CUT_OFF);
    }
    if (rc < 0) {
        set_dying(src, false);
    } else {
        set_dying(op->disk, false); /* it may have been a removed one */
        end_source(src, &m->from.node, op->disk);
    }
    fs_disk_put(src);
    return rc;
}

/* Checks whether the rename is allowed. 1: go on; 0: nothing to do; -errno. */
static int move_check(struct op *op, const struct move *m)
{
    if (m->replaces && (op->flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (strchr(op->name2, '@') != NULL)
        return -EINVAL;
    bool disk = m->from.kind == ENTRY_DISK;
    int rc = disk ? names_check_disk_name(op->name2) : 0;
    if (rc < 0 || !m->replaces)
        return rc < 0 ? rc : 1;
    if (vid_eq(&m->from.node.id, &m->to.node.id))
        return 0;
    if (disk && m->to.kind == ENTRY_DIR)
        return -EISDIR;
    return !disk && m->to.kind != ENTRY_DIR ? -ENOTDIR : 1;
}

static int move_run(struct op *op, struct move *m, struct verr *err)
{
    int rc = move_lookup(op, m, err);
    if (rc < 0)
        return rc;
    if (m->from.kind == ENTRY_SNAP)
        return m->replaces && (op->flags & RENAME_NOREPLACE) ? -EEXIST : move_snap(op, m, err);
    rc = move_check(op, m);
    if (rc <= 0)
        return rc;
    bool onto = (m->replaces || m->revives) && m->from.kind == ENTRY_DISK;
    if (onto && (op->disk == NULL || !vid_eq(&op->disk->id, &m->to.node.id)))
        return -ESTALE;     /* another disk got the name while this request waited */
    return onto ? move_onto_disk(op, m, err) : move_node(op, m, err);
}

static void rename_run(struct op *op)
{
    struct verr err = {0};
    struct move m = {0};
    struct fs *f = op->f;
    int rc = fs_dirs_take(op, &m.dirs, &err);
    if (rc == 0) {
        rc = move_run(op, &m, &err);
        fs_dirs_give(op, &m.dirs);
    }
    if (rc == -EAGAIN) {
        if (op_retry(op))
            return;
        rc = verr_set(&err, EBUSY, "the disk is open");
    }
    if (rc == 0 && freezes_named(op, &m))
        return;
    /* Before the answer, so that nobody reads an old page after it. The kernel holds locks of directories and inodes for a rename, but
     * none that an invalidation, or a read of a page, waits for. */
    if (rc == 0 && m.from.kind == ENTRY_DISK && (m.replaces || m.revives) && !vid_eq(&m.from.node.id, &m.to.node.id)) {
        fs_inval_inode(f, vid_ino(&m.to.node.id));
        fs_inval_moved(op->disk, 0, 0);
    }
    fuse_reply_err(op->req, rc < 0 ? fs_errno("rename", op->ino, rc, &err) : 0);
}

void fs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned int flags)
{
    struct fs *f = fs_of(req);
    struct node dir, there;
    if ((flags & ~(unsigned)RENAME_NOREPLACE) != 0 || ino_is_control(parent) || ino_is_control(newparent)) {
        fuse_reply_err(req, (flags & ~(unsigned)RENAME_NOREPLACE) != 0 ? EINVAL : EPERM);
        return;
    }
    struct op *op = op_new(req, rename_run, name, newname, NULL, 0);
    if (op == NULL)
        return;
    op->ino = parent;
    op->ino2 = newparent;
    op->flags = flags;
    struct fs_disk *d = NULL;
    /* On the queue of the disk that has the name, or had it and left snapshots. */
    if (strlen(newname) <= NODE_NAME_MAX && fs_dir_node(f, newparent, &dir, NULL) == 0
        && catalog_node_by_name(f->catalog, &dir.id, newname, &there, NULL) == 0 && there.kind == NODE_DISK)
        d = fs_disk_get(f, &there.id);
    if (d != NULL)
        op_submit_disk(op, d);
    else
        op_submit(op, f->ctl);
}
