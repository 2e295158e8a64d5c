/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_xattr: user.varve.* and, for root, trusted.varve.*; there are no others. `ls -l` asks for security.* and system.* of
 * every file; these are answered before any lock or query.
 *
 * They are read by name and not listed: rsync -X, cp -a and tar --xattrs would copy what is listed to a restored file, of which it is
 * not true, and fail where they cannot set it. For a copy that has them all the same, removing one and setting one to the value that it
 * has do nothing and succeed.
 */
#include "fs/fs_internal.h"

#include "base/hex.h"
#include "store/snaps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define USER "user.varve."
#define TRUSTED "trusted.varve."
enum { VALUE_MAX = 2048 };

static int put_text(char *out, const char *text)
{
    return snprintf(out, VALUE_MAX, "%s", text);
}

static int put_id(char *out, const struct vid *id)
{
    char hex[VID_HEX];
    if (vid_is_zero(id))
        return -ENODATA;
    vid_hex(id, hex);
    return put_text(out, hex);
}

static int put_host(struct fs *f, char *out, const struct vid *host)
{
    return vid_eq(host, agent_host_id(f->agent)) ? put_text(out, agent_host(f->agent)) : put_id(out, host);
}

static int put_flags(char *out, const char *a, const char *b)
{
    return snprintf(out, VALUE_MAX, "%s%s%s", a, a[0] != '\0' && b[0] != '\0' ? "," : "", b);
}

/* The id of the parent snapshot, which may belong to an earlier owner: only callers that may read the parent get it. */
static int put_parent(struct fs *f, fuse_req_t req, const struct snaprow *s, char *out)
{
    struct snaprow parent;
    if (vid_is_zero(&s->info.parent))
        return -ENODATA;
    int rc = catalog_snap_by_id(f->catalog, &s->info.parent, &parent, NULL);
    if (fuse_req_ctx(req)->uid != 0 && (rc < 0 || !fs_may(req, parent.info.uid, parent.info.gid, parent.info.mode, 4)))
        return -ENODATA;
    return put_id(out, &s->info.parent);
}

static int value_snap(struct fs *f, fuse_req_t req, const struct snaprow *s, const char *key, char *out)
{
    if (strcmp(key, "state") == 0)
        return put_text(out, s->state == SNAPST_STORED ? "stored" : s->state == SNAPST_FAILED ? "failed" : "pending");
    if (strcmp(key, "flags") == 0)
        return put_flags(out, s->info.flags & SNAP_PROVISIONAL ? "provisional" : "", s->info.flags & SNAP_PARTIAL ? "partial" : "");
    if (strcmp(key, "id") == 0)
        return put_id(out, &s->info.ref.snap);
    if (strcmp(key, "parent") == 0)
        return put_parent(f, req, s, out);
    if (strcmp(key, "host") == 0)
        return put_host(f, out, &s->info.host);
    if (strcmp(key, "note") == 0)
        return s->info.note[0] != '\0' ? put_text(out, s->info.note) : -ENODATA;
    if (strcmp(key, "protected") == 0)
        return put_text(out, s->info.protected_ ? "1" : "0");
    return -ENODATA;
}

static int value_disk(struct fs *f, const struct node *n, const char *key, char *out, struct verr *err)
{
    if (strcmp(key, "state") == 0)
        return put_text(out, "live");
    if (strcmp(key, "id") == 0)
        return put_id(out, &n->id);
    if (strcmp(key, "host") == 0)
        return put_text(out, agent_host(f->agent));
    if (strcmp(key, "flags") != 0)
        return -ENODATA;
    struct live *l = NULL;
    struct live_attr a;
    int rc = live_get(f->live, &n->id, &l, err);
    if (rc < 0)
        return rc == -ENOENT ? -ENODATA : rc;
    rc = live_attr(l, &a, err);
    live_put(l);
    return rc < 0 ? rc : put_flags(out, a.marks & LIVE_REWRITING ? "rewriting" : "", a.changed ? "changed" : "");
}

static int value_trusted(struct fs *f, const struct snaprow *s, const char *key, char *out, struct verr *err)
{
    const struct snap_levels *v = &s->info.levels;
    if (s->state != SNAPST_STORED)
        return -ENODATA;
    if (strcmp(key, "levels") == 0)
        return snprintf(out, VALUE_MAX,
                        "zero=%llu,clean=%llu,parent_segment=%llu,parent_block=%llu,common=%llu,global=%llu,dup_new=%llu,fresh=%llu,"
                        "stored=%llu",
                        (unsigned long long)v->zero, (unsigned long long)v->clean, (unsigned long long)v->parent_segment,
                        (unsigned long long)v->parent_block, (unsigned long long)v->common, (unsigned long long)v->global,
                        (unsigned long long)v->dup_new, (unsigned long long)v->fresh, (unsigned long long)v->stored);
    if (strcmp(key, "digest") != 0)
        return -ENODATA;        /* there is no unique_bytes until a collection has counted it */
    struct snaprcp *r = malloc(sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    int rc = snaps_load(agent_store(f->agent), &s->info.ref, r, NULL, err);
    if (rc == 0)
        hex_print(r->runs_digest, FP_BYTES, out);
    free(r);
    return rc < 0 ? rc : 2 * FP_BYTES;
}

/* Puts the value into out. Its length, or -errno. */
static int value_of(struct fs *f, fuse_req_t req, uint64_t ino, const char *name, char *out, struct verr *err)
{
    struct what w;
    bool trusted = strncmp(name, TRUSTED, sizeof TRUSTED - 1) == 0;
    const char *key = name + (trusted ? sizeof TRUSTED : sizeof USER) - 1;
    if (trusted && fuse_req_ctx(req)->uid != 0)
        return -ENODATA;
    int rc = fs_what(f, ino, &w, err);
    if (rc < 0)
        return rc;
    if (w.kind == WHAT_SNAP)
        return trusted ? value_trusted(f, &w.snap, key, out, err) : value_snap(f, req, &w.snap, key, out);
    if (trusted || (w.kind != WHAT_NODE && w.kind != WHAT_ORPHAN))
        return -ENODATA;
    if (w.node.kind == NODE_DISK)
        return value_disk(f, &w.node, key, out, err);
    return strcmp(key, "id") == 0 ? put_id(out, &w.node.id) : -ENODATA;
}

/* ---- get ---- */

static void reply_value(fuse_req_t req, const char *value, size_t len, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(req, len);
    else if (len > size)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, len);
}

static void get_now(struct fs *f, fuse_req_t req, uint64_t ino, const char *name, size_t size)
{
    struct verr err = {0};
    char value[VALUE_MAX];
    int n = value_of(f, req, ino, name, value, &err);
    if (n < 0)
        fs_reply_fail(req, "getxattr", ino, n, &err);
    else
        reply_value(req, value, (size_t)n, size);
}

static void get_run(struct op *op)
{
    get_now(op->f, op->req, op->ino, op->name, op->len);
}

static bool name_is_ours(const char *name)
{
    return strncmp(name, USER, sizeof USER - 1) == 0 || strncmp(name, TRUSTED, sizeof TRUSTED - 1) == 0;
}

void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    if (!name_is_ours(name) || ino_is_control(ino)) {
        fuse_reply_err(req, ENODATA);
        return;
    }
    if (name[0] == 'u') {
        get_now(fs_of(req), req, ino, name, size);
        return;
    }
    struct op *op = op_new(req, get_run, name, NULL, NULL, 0);      /* trusted.varve.digest reads a recipe in STORE */
    if (op == NULL)
        return;
    op->ino = ino;
    op->len = size;
    op_submit(op, op->f->io);
}

void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct verr err = {0};
    struct what w;
    int rc = fs_what(fs_of(req), ino, &w, &err);
    if (rc < 0)
        fs_reply_fail(req, "listxattr", ino, rc, &err);
    else
        reply_value(req, "", 0, size);
}

/* ---- set ---- */

/* Sets the note or the protection of a snapshot. */
static int set_value(struct fs *f, const struct snaprow *s, const char *key, const char *value, size_t len, struct verr *err)
{
    if (strcmp(key, "note") == 0) {
        char text[NOTE_MAX + 1];
        if (len > NOTE_MAX)
            return -E2BIG;
        if (len > 0 && memchr(value, '\0', len) != NULL)
            return -EINVAL;
        if (len > 0)
            memcpy(text, value, len);
        text[len] = '\0';
        return names_snap_set(f->names, &s->info.ref.snap, text, NULL, NULL, NULL, NULL, err);
    }
    if (len != 1 || (value[0] != '0' && value[0] != '1'))
        return -EINVAL;
    bool on = value[0] == '1';
    return names_snap_set(f->names, &s->info.ref.snap, NULL, &on, NULL, NULL, NULL, err);
}

static bool name_is_writable(const char *name)
{
    return strcmp(name, USER "note") == 0 || strcmp(name, USER "protected") == 0;
}

/* The kernel asks for the right to write, and an owner is shown one that he does not have (snap_mode): note and protection are root's. */
static bool may_set(const struct op *op)
{
    return fuse_req_ctx(op->req)->uid == 0;
}

/* The present value of the op's attribute. Its length, or -errno; -ENODATA: there is none. */
static int present_value(struct op *op, char value[VALUE_MAX], struct verr *err)
{
    return value_of(op->f, op->req, op->ino, op->name, value, err);
}

static int set_xattr(struct op *op, struct verr *err)
{
    struct what w;
    char value[VALUE_MAX];
    int n = present_value(op, value, err);
    if (n < 0 && n != -ENODATA)
        return n;
    if ((op->flags & XATTR_CREATE) && n >= 0)
        return -EEXIST;
    if ((op->flags & XATTR_REPLACE) && n < 0)
        return -ENODATA;
    if (n >= 0 && (size_t)n == op->data_len && (n == 0 || memcmp(value, op->data, op->data_len) == 0))
        return 0;
    int rc = fs_what(op->f, op->ino, &w, err);
    if (rc < 0)
        return rc;
    if (w.kind != WHAT_SNAP || !name_is_writable(op->name))
        return -EOPNOTSUPP;
    return !may_set(op) ? -EACCES : set_value(op->f, &w.snap, op->name + sizeof USER - 1, op->data, op->data_len, err);
}

static void set_run(struct op *op)
{
    struct verr err = {0};
    int rc = set_xattr(op, &err);
    fuse_reply_err(op->req, rc < 0 ? fs_errno("setxattr", op->ino, rc, &err) : 0);
}

void fs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    /* All other names get EOPNOTSUPP: `cp -a` first sets system.posix_acl_access, and omits chmod if that succeeds. */
    if (!name_is_ours(name) || ino_is_control(ino)) {
        fuse_reply_err(req, EOPNOTSUPP);
        return;
    }
    struct op *op = op_new(req, set_run, name, NULL, value, size);
    if (op == NULL)
        return;
    op->ino = ino;
    op->flags = (unsigned)flags;
    op_submit(op, op->f->ctl);
}

static int remove_xattr(struct op *op, struct verr *err)
{
    struct what w;
    char value[VALUE_MAX];
    int n = present_value(op, value, err);
    if (n < 0)
        return n;
    int rc = fs_what(op->f, op->ino, &w, err);
    if (rc < 0 || w.kind != WHAT_SNAP || !name_is_writable(op->name))
        return rc;
    if (!may_set(op))
        return -EACCES;
    bool note = strcmp(op->name, USER "note") == 0;
    return set_value(op->f, &w.snap, op->name + sizeof USER - 1, note ? "" : "0", note ? 0 : 1, err);
}

static void remove_run(struct op *op)
{
    struct verr err = {0};
    int rc = remove_xattr(op, &err);
    fuse_reply_err(op->req, rc < 0 ? fs_errno("removexattr", op->ino, rc, &err) : 0);
}

void fs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    if (!name_is_ours(name) || ino_is_control(ino)) {
        fuse_reply_err(req, ENODATA);
        return;
    }
    struct op *op = op_new(req, remove_run, name, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op_submit(op, op->f->ctl);
}
