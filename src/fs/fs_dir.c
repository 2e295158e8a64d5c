/* SPDX-License-Identifier: Apache-2.0 */
/* fs_dir: lookup, listings, rmdir, unlink. fs_make.c makes nodes, fs_rename.c renames them. */
#include "fs/fs_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

/* ---- lookup ---- */

static int lookup_node(struct fs *f, const struct node *dir, const char *name, struct fuse_entry_param *e, struct verr *err)
{
    struct entry entry;
    if (strlen(name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    int rc = names_lookup(f->names, &dir->id, name, &entry, err);
    return rc < 0 ? rc : fs_entry_of(f, &entry, e, err);
}

void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *f = fs_of(req);
    struct verr err = {0};
    struct node dir;
    struct fuse_entry_param e;
    uint64_t control = control_lookup(parent, name);
    int rc;
    if (control != 0) {
        memset(&e, 0, sizeof e);
        e.ino = control;
        e.attr_timeout = e.entry_timeout = FS_TIMEOUT_STORED;
        control_stat(control, &e.attr);
        rc = 0;
    } else if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        rc = fs_export_lookup(f, parent, name[1] == '.', &e, &err);
    } else if (ino_is_control(parent)) {
        rc = -ENOENT;
    } else {
        rc = fs_dir_node(f, parent, &dir, &err);
        if (rc == 0)
            rc = lookup_node(f, &dir, name, &e, &err);
    }
    if (rc == -ENOENT)
        fuse_reply_err(req, ENOENT);        /* too common for a line even in a debug log */
    else if (rc < 0)
        fs_reply_fail(req, "lookup", parent, rc, &err);
    else
        fuse_reply_entry(req, &e);
}

/* ---- listings: taken whole at the first read, so that offsets stay valid while entries come and go ---- */

static int listing_add(struct listing *l, const char *name, const struct listed *item)
{
    size_t len = strlen(name) + 1;
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        struct listed *items = realloc(l->items, cap * sizeof *items);
        if (items == NULL)
            return -ENOMEM;
        l->items = items;
        l->cap = cap;
    }
    if (l->names_cap - l->names_len < len) {
        size_t cap = l->names_cap ? 2 * l->names_cap : 4096;
        char *names = realloc(l->names, cap);
        if (names == NULL)
            return -ENOMEM;
        l->names = names;
        l->names_cap = cap;
    }
    memcpy(l->names + l->names_len, name, len);
    l->items[l->count] = *item;
    l->items[l->count++].name_off = l->names_len;
    l->names_len += len;
    return 0;
}

static int list_entry(void *ctx, const char *name, const struct entry *e)
{
    struct listed item = {.kind = (uint8_t)e->kind, .ino = vid_ino(&e->node.id)};
    if (e->kind == ENTRY_SNAP) {
        const struct snaprow *s = &e->snap;
        item = (struct listed){.kind = ENTRY_SNAP, .ino = vid_ino(&s->info.ref.snap), .size = s->info.size,
                               .alloc_bytes = s->info.alloc_bytes,
                               .mtime_ns = s->info.freeze_ns, .mode = s->info.mode, .uid = s->info.uid, .gid = s->info.gid,
                               .stored = s->state == SNAPST_STORED && (s->info.flags & SNAP_PROVISIONAL) == 0,
                               .generation = fs_generation_snap(&s->info.ref.snap)};
    }
    return listing_add(ctx, name, &item);
}

static int list_dir(struct fs *f, struct handle *h, struct verr *err)
{
    struct node dir, parent;
    listing_clear(&h->listing);
    int rc = fs_dir_node(f, h->ino, &dir, err);
    if (rc < 0)
        return rc;
    uint64_t up = NAMES_ROOT_INO;
    if (h->ino != NAMES_ROOT_INO && names_by_ino(f->names, vid_ino(&dir.parent), &parent, NULL) == 0 && !vid_is_zero(&parent.parent))
        up = vid_ino(&parent.id);
    rc = listing_add(&h->listing, ".", &(struct listed){.kind = ENTRY_DIR, .ino = h->ino});
    if (rc == 0)
        rc = listing_add(&h->listing, "..", &(struct listed){.kind = ENTRY_DIR, .ino = up});
    return rc < 0 ? rc : names_list(f->names, &dir.id, list_entry, &h->listing, err);
}

int control_list(struct handle *h)
{
    listing_clear(&h->listing);
    int rc = listing_add(&h->listing, ".", &(struct listed){.kind = ENTRY_DIR, .ino = INO_CONTROL});
    if (rc == 0)
        rc = listing_add(&h->listing, "..", &(struct listed){.kind = ENTRY_DIR, .ino = NAMES_ROOT_INO});
    static const struct { const char *name; uint64_t ino; } files[] = {
        {"status.json", INO_STATUS}, {"metrics", INO_METRICS}, {"events", INO_EVENTS}};
    for (size_t i = 0; i < sizeof files / sizeof files[0] && rc == 0; i++)
        rc = listing_add(&h->listing, files[i].name, &(struct listed){.kind = ENTRY_DISK, .ino = files[i].ino});
    return rc;
}

void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs *f = fs_of(req);
    struct verr err = {0};
    struct node dir;
    struct stat gone;
    int rc = ino_is_control(ino) ? 0 : fs_dir_node(f, ino, &dir, &err);
    if (rc == -ESTALE && fs_gone_find(f, ino, &gone))
        rc = S_ISDIR(gone.st_mode) ? 0 : -ENOTDIR;      /* the kernel lists nothing of a directory that it has removed */
    struct handle *h = rc == 0 ? handle_new(f, HANDLE_DIR, ino) : NULL;
    if (rc == 0 && h == NULL)
        rc = -ENOMEM;
    if (h == NULL) {
        fs_reply_fail(req, "opendir", ino, rc, &err);
        return;
    }
    h->control = ino_is_control(ino);
    fi->fh = (uintptr_t)h;
    if (fuse_reply_open(req, fi) == -ENOENT)
        handle_free(f, h);
}

/* Attributes of one line for readdirplus. An entry that was removed meanwhile gets inode 0: the kernel then looks it up itself. */
static void plus_entry(struct fs *f, const struct handle *h, const struct listed *item, struct fuse_entry_param *e)
{
    struct verr err = {0};
    struct what w;
    memset(e, 0, sizeof *e);
    if (!h->control && item->kind == ENTRY_SNAP) {
        fs_stat_listed(f, item, &e->attr);
        e->attr_timeout = e->entry_timeout = item->stored ? FS_TIMEOUT_STORED : FS_TIMEOUT_LIVE;
        e->ino = item->ino;
        e->generation = item->generation;
    } else if (fs_what(f, item->ino, &w, &err) == 0 && fs_stat(f, item->ino, &w, &e->attr, &e->attr_timeout, &err) == 0) {
        e->entry_timeout = item->kind == ENTRY_DISK && !h->control ? 0 : e->attr_timeout;  /* see fs_entry_of_node */
        e->ino = item->ino;
        e->generation = w.kind == WHAT_NODE ? fs_generation_node(&w.node) : 0;
    } else {
        e->attr.st_ino = item->ino;
        e->attr.st_mode = item->kind == ENTRY_DIR ? S_IFDIR : S_IFREG;
    }
}

static size_t put_line(fuse_req_t req, char *buf, size_t room, const struct handle *h, size_t i, bool plus)
{
    const struct listed *item = &h->listing.items[i];
    const char *name = h->listing.names + item->name_off;
    if (!plus || i < 2) {       /* "." and "..": without attributes, also in readdirplus */
        struct fuse_entry_param e = {0};
        e.attr.st_ino = item->ino;
        e.attr.st_mode = item->kind == ENTRY_DIR ? S_IFDIR : S_IFREG;
        return plus ? fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)(i + 1))
                    : fuse_add_direntry(req, buf, room, name, &e.attr, (off_t)(i + 1));
    }
    struct fuse_entry_param e;
    if (fuse_add_direntry_plus(req, NULL, 0, name, NULL, 0) > room)
        return room + 1;        /* the line does not fit: its attributes are not needed */
    plus_entry(fs_of(req), h, item, &e);
    return fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)(i + 1));
}

static void read_dir(fuse_req_t req, size_t size, off_t off, struct handle *h, bool plus)
{
    struct fs *f = fs_of(req);
    struct verr err = {0};
    int rc = 0;
    char *buf = fs_thread_buffer(size);
    size_t used = 0;
    pthread_mutex_lock(&h->lock);
    if (off == 0 || h->listing.items == NULL)
        rc = h->control ? control_list(h) : list_dir(f, h, &err);
    if (buf == NULL)
        rc = -ENOMEM;
    for (size_t i = (size_t)off; rc == 0 && i < h->listing.count; i++) {
        size_t n = put_line(req, buf + used, size - used, h, i, plus);
        if (n > size - used)
            break;
        used += n;
    }
    pthread_mutex_unlock(&h->lock);
    if (rc < 0)
        fs_reply_fail(req, "readdir", h->ino, rc, &err);
    else
        fuse_reply_buf(req, buf, used);
}

void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    read_dir(req, size, off, handle_of(fi), false);
}

void fs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    read_dir(req, size, off, handle_of(fi), true);
}

void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    handle_free(fs_of(req), handle_of(fi));
    fuse_reply_err(req, 0);
}

/* Names are durable when the call that changes them returns. */
void fs_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    (void)datasync;
    (void)fi;
    fuse_reply_err(req, 0);
}

static void statfs_run(struct op *op)
{
    struct statvfs st;
    int r = agent_space(op->f->agent, &st);
    if (r < 0) {
        struct verr err = {0};
        verr_set(&err, -r, "the store's filesystem: %s", strerror(-r));
        fs_reply_fail(op->req, "statfs", op->ino, r, &err);
        return;
    }
    st.f_namemax = NODE_NAME_MAX;
    fuse_reply_statfs(op->req, &st);
}

void fs_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct op *op = op_new(req, statfs_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op_submit(op, op->f->ctl);
}

/* ---- turns of directories ---- */

int fs_dirs_take(struct op *op, struct fs_dirs *d, struct verr *err)
{
    unsigned n = 1;
    int rc = fs_dir_node(op->f, op->ino, &d->dir, err);
    if (rc == 0 && op->ino2 != 0) {
        rc = fs_dir_node(op->f, op->ino2, &d->dir2, err);
        d->ids[n++] = d->dir2.id;
    }
    if (rc < 0)
        return rc;
    d->ids[0] = d->dir.id;
    turn_take(op->f->dirs, &d->turn, d->ids, n);
    return 0;
}

void fs_dirs_give(struct op *op, struct fs_dirs *d)
{
    turn_give(op->f->dirs, &d->turn);
}

/* ---- removing ---- */

/* On the disk's queue, so that no open for writing runs meanwhile; `dying` makes opens for reading fail. */
static int unlink_disk(struct fs *f, struct fs_disk *d, const struct node *node, struct verr *err)
{
    fs_will_replace(d);
    pthread_mutex_lock(&f->lock);
    d->dying = true;
    d->node = *node;                /* before the name goes: its open handles need the node */
    pthread_mutex_unlock(&f->lock);
    int rc = agent_node_remove(f->agent, &node->id, err);
    pthread_mutex_lock(&f->lock);
    bool open = d->handles > 0;
    if (rc < 0) {
        d->dying = false;
    } else if (open) {
        d->orphan = true;
    }
    pthread_mutex_unlock(&f->lock);
    if (rc < 0 || open)
        return rc;
    fs_disk_close_live(d);
    rc = agent_disk_remove(f->agent, node, err);
    /* The name is removed already. An image that could not be removed only costs space; recovery finds it at the next start. */
    if (rc < 0)
        fs_errno("removal", d->ino, rc, err);
    return 0;
}

/* Looks the name up and removes what it stands for, in the turn of the directory. */
static int remove_named(struct op *op, int (*fn)(struct op *op, const struct entry *e, struct verr *err), struct verr *err)
{
    struct fs_dirs d;
    struct entry e;
    if (strlen(op->name) > NODE_NAME_MAX)
        return -ENAMETOOLONG;
    int rc = fs_dirs_take(op, &d, err);
    if (rc < 0)
        return rc;
    rc = names_lookup(op->f->names, &d.dir.id, op->name, &e, err);
    if (rc == 0) {
        struct fuse_entry_param was;
        bool known = fs_entry_of(op->f, &e, &was, NULL) == 0;
        rc = fn(op, &e, err);
        if (rc == 0 && known)
            fs_gone_add(op->f, &was.attr);
    }
    fs_dirs_give(op, &d);
    return rc;
}

static int unlink_entry(struct op *op, const struct entry *e, struct verr *err)
{
    if (e->kind == ENTRY_DIR)
        return -EISDIR;
    if (e->kind == ENTRY_SNAP)
        return agent_snap_remove(op->f->agent, &e->snap, err);
    if (op->disk == NULL || !vid_eq(&op->disk->id, &e->node.id))
        return -ESTALE;     /* another disk got the name while this request waited */
    int rc = unlink_disk(op->f, op->disk, &e->node, err);
    return rc == -EAGAIN ? -ESTALE : rc;
}

static void unlink_run(struct op *op)
{
    struct verr err = {0};
    int rc = remove_named(op, unlink_entry, &err);
    fuse_reply_err(op->req, rc < 0 ? fs_errno("unlink", op->ino, rc, &err) : 0);
}

void fs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs *f = fs_of(req);
    struct node dir;
    struct entry e;
    if (ino_is_control(parent)) {
        fuse_reply_err(req, EPERM);
        return;
    }
    struct op *op = op_new(req, unlink_run, name, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = parent;
    struct fs_disk *d = NULL;
    if (strlen(name) <= NODE_NAME_MAX && fs_dir_node(f, parent, &dir, NULL) == 0 && names_lookup(f->names, &dir.id, name, &e, NULL) == 0
        && e.kind == ENTRY_DISK)
        d = fs_disk_get(f, &e.node.id);
    if (d != NULL)
        op_submit_disk(op, d);
    else
        op_submit(op, f->ctl);
}

static int rmdir_entry(struct op *op, const struct entry *e, struct verr *err)
{
    return e->kind == ENTRY_DIR ? agent_node_remove(op->f->agent, &e->node.id, err) : -ENOTDIR;
}

static void rmdir_run(struct op *op)
{
    struct verr err = {0};
    int rc = remove_named(op, rmdir_entry, &err);
    fuse_reply_err(op->req, rc < 0 ? fs_errno("rmdir", op->ino, rc, &err) : 0);
}

void fs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (ino_is_control(parent) || control_lookup(parent, name) != 0) {
        fuse_reply_err(req, EPERM);
        return;
    }
    struct op *op = op_new(req, rmdir_run, name, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = parent;
    op_submit(op, op->f->ctl);
}
