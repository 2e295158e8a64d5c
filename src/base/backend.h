/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend: access to STORE as one table of operations. Only an implementation of the table knows how STORE is kept: store/backend_dir.c
 * keeps it in a directory; docs/design/backend.md says how an object store with conditional PUT would fill each entry.
 *
 * An object is named by (dir, name): dir is a path relative to STORE without a slash at its ends ("" is STORE itself), name is a
 * name in it; for containers it may be a path. Names that begin with ".tmp-" belong to the backend; callers ignore them in lists. A
 * symbolic link is never followed (-ELOOP).
 *
 * Every operation returns 0 or a count, else -errno. Any thread may call it; one thread at a time uses a bfile or blease, but `read`
 * and `stat` of one bfile may run side by side. No operation holds a lock across I/O, and none retries.
 * A change of a STORE that is read-only, or was opened so, is -EROFS, before any effect.
 * Unless an operation promises more, names are durable only after `sync` of their directory, and data of a bfile after `fsync`.
 */
#ifndef VARVE_BASE_BACKEND_H
#define VARVE_BASE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct statvfs;

struct backend { const struct backend_ops *ops; };
struct bfile { struct backend *b; };        /* an open object; it keeps its content when its name is removed */
struct blease { struct backend *b; };       /* a place to stage objects, which another host can take away */

struct bstat {
    uint64_t bytes;
    struct timespec mtime;
    uint64_t id[2];         /* equal ids: the same object, even under different names */
    bool regular;           /* a file, not a directory or the like */
};

enum bhint { BHINT_NONE, BHINT_RANDOM, BHINT_SEQUENTIAL };

typedef int (*blist_fn)(void *ctx, const char *name);

struct backend_ops {
    /* ---- records: small objects, read and written whole ---- */

    /* Makes a new object with all of the data. Object and name are durable on return. -EEXIST: the name is taken, nothing has changed. */
    int (*create)(struct backend *b, const char *dir, const char *name, const void *data, size_t len);
    /* The same for a name that may be taken: a reader sees the old or the new content. Durable on return. */
    int (*replace)(struct backend *b, const char *dir, const char *name, const void *data, size_t len);
    /* Reads the whole content, at most max bytes, into malloc'ed memory with a NUL behind it. -ENOENT; -EFBIG; -EINVAL: not a file. */
    int (*load)(struct backend *b, const char *dir, const char *name, size_t max, uint8_t **data, size_t *len);
    /* Is an object of that name in dir? 1 or 0, as new as the call, like a list. 0 also when there is no dir. */
    int (*look)(struct backend *b, const char *dir, const char *name);
    /* What an object or a directory is; the answer may come from a cache. -ENOENT: there is none. */
    int (*stat_name)(struct backend *b, const char *dir, const char *name, struct bstat *out);
    /* Gives the object a second name. -EEXIST: that is taken; -ENOENT: there is no such object. Not durable before sync. */
    int (*link)(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name);
    /* Gives the object another name, which must be new. The caller syncs to_dir before dir, so that a power cut never loses both names. */
    int (*move)(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name);
    /* Removes the name. -ENOENT. Not durable before sync. */
    int (*remove)(struct backend *b, const char *dir, const char *name);

    /* ---- directories ---- */

    /* Calls fn for each name in dir. The list is as new as the call, never an older one from a cache: where other hosts may write too,
     * the backend first makes and removes an object of its own in dir (in a full store it changes dir otherwise), and an error of
     * that is an error of the list. Only the list of a store that cannot be written to (-EROFS) may be older. An answer of fn other
     * than 0 ends the list and is returned; fn may remove the name that it gets. -ENOENT, -ENOTDIR, -ELOOP: dir is no directory. */
    int (*list)(struct backend *b, const char *dir, blist_fn fn, void *ctx);
    /* Makes durable all names made, moved or removed in dir before the call. After an error nobody knows which of them are durable. */
    int (*sync)(struct backend *b, const char *dir);
    /* Makes dir/name. -EEXIST: it is there; of several hosts only one succeeds. Not durable before sync of dir. */
    int (*claim_dir)(struct backend *b, const char *dir, const char *name);
    /* Makes dir/name when there is none. Its entry is durable on return, also when another host has made it. */
    int (*make_dir)(struct backend *b, const char *dir, const char *name);
    /* Removes all objects in dir, durable on return. */
    int (*clear)(struct backend *b, const char *dir);

    /* ---- reading ranges ---- */

    int (*open)(struct backend *b, const char *dir, const char *name, enum bhint hint, struct bfile **out);
    /* Reads n bytes at off, fewer only at the end of the object. Allocates nothing and copies once, into buf. */
    ssize_t (*read)(struct bfile *f, void *buf, size_t n, uint64_t off);
    int (*stat)(struct bfile *f, struct bstat *out);
    /* 1: the name of f still leads to f; else 0. */
    int (*is_named)(struct bfile *f);
    /* Data that were written and not fsynced may be lost. */
    void (*close)(struct bfile *f);

    /* ---- appending: until close, one writer of all hosts has the object ---- */

    /* Makes a new, empty object. -EEXIST. */
    int (*append_new)(struct backend *b, const char *dir, const char *name, struct bfile **out);
    /* Opens an existing object. -EWOULDBLOCK: another writer has it; -ESTALE: its name leads elsewhere meanwhile. */
    int (*append_again)(struct backend *b, const char *dir, const char *name, struct bfile **out);
    /* Writes exactly len bytes at off. spare: -ENOSPC also when fewer than FILE_SPARE bytes would stay free (base/file.h). */
    int (*write)(struct bfile *f, const void *data, size_t len, uint64_t off, bool spare);
    /* Begins to write [off, off + len) to disk (len 0: all from off on), and makes nothing durable. -EIO, -ENOSPC, -EDQUOT: earlier writes
     * have failed, which is as final as an error of fsync. */
    int (*start)(struct bfile *f, uint64_t off, uint64_t len);
    /* Makes all data written to f durable. An error is final for f: its content is unknown. */
    int (*fsync)(struct bfile *f);
    /* Cuts f to len bytes, to give space back. */
    int (*truncate)(struct bfile *f, uint64_t len);

    /* ---- naming: an object is written where no reader looks, then gets its name ---- */

    /* Makes a new object in dir, which name_it names. */
    int (*temp)(struct backend *b, const char *dir, struct bfile **out);
    /* Names a temp object, whole or not at all. The caller fsyncs f before and syncs dir after. 0 also when dir/name is this very object
     * already, because an earlier attempt succeeded. -EEXIST: it is another one. */
    int (*name_it)(struct bfile *f, const char *dir, const char *name);
    /* Removes the name that temp gave; 0 also when it is removed already. Closing an object without another name then frees its space. */
    int (*unname)(struct bfile *f);

    /* ---- publishing: the same out of a lease, which another host can take away ---- */

    /* Makes the lease dir/name, of a name that was never used before. -ENOENT, -ESTALE: dir was closed. Not durable: a lease need not
     * outlast a crash. */
    int (*lease)(struct backend *b, const char *dir, const char *name, struct blease **out);
    /* Makes a new object in the lease. -EEXIST: the lease has one of that name; -ENOENT, -ESTALE: the lease was taken away. */
    int (*stage)(struct blease *l, const char *name, struct bfile **out);
    /* THE commit point: the staged object leaves the lease and becomes dir/name, whole or not at all; an object that has that name already
     * is replaced. The caller fsyncs f before and syncs dir after. -ESTALE: the lease was taken away, or the answer to an earlier request
     * was lost: only a look at dir/name, under a new lease, can tell. */
    int (*publish)(struct bfile *f, const char *dir, const char *name);
    /* Takes a lease away, this host's or another one's: when this has returned 0 nothing that was staged in it can be published any
     * more, and a loss of power does not bring it back. 0 also when there is none. -EBUSY: its publisher makes new objects all the time. */
    int (*revoke)(struct backend *b, const char *dir, const char *name);
    /* Removes the lease with all objects that are left in it. Its bfiles have been closed before. */
    void (*release)(struct blease *l);

    /* ---- the whole ---- */

    int (*space)(struct backend *b, struct statvfs *out);
    /* The user and group to whom all of STORE belongs. */
    int (*owner)(struct backend *b, uid_t *uid, gid_t *gid);
    /* Reserves bytes of space in an object of its own, so that a removal, which writes too, works in a full store. 1: made, 0: it is
     * there already, -ENOSPC. Never durable. */
    int (*reserve)(struct backend *b, const char *dir, const char *name, size_t bytes);
    /* Gives the space back at once. 0, or -ENOENT. */
    int (*unreserve)(struct backend *b, const char *dir, const char *name);
    void (*destroy)(struct backend *b);
};

/* ---- calls of these operations: bk_ on a backend, bf_ on a bfile, bl_ on a lease ---- */

static inline int bk_create(struct backend *b, const char *dir, const char *name, const void *data, size_t len)
{
    return b->ops->create(b, dir, name, data, len);
}

static inline int bk_replace(struct backend *b, const char *dir, const char *name, const void *data, size_t len)
{
    return b->ops->replace(b, dir, name, data, len);
}

static inline int bk_load(struct backend *b, const char *dir, const char *name, size_t max, uint8_t **data, size_t *len)
{
    return b->ops->load(b, dir, name, max, data, len);
}

static inline int bk_look(struct backend *b, const char *dir, const char *name)
{
    return b->ops->look(b, dir, name);
}

static inline int bk_stat_name(struct backend *b, const char *dir, const char *name, struct bstat *out)
{
    return b->ops->stat_name(b, dir, name, out);
}

static inline int bk_link(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name)
{
    return b->ops->link(b, dir, name, to_dir, to_name);
}

static inline int bk_move(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name)
{
    return b->ops->move(b, dir, name, to_dir, to_name);
}

static inline int bk_remove(struct backend *b, const char *dir, const char *name)
{
    return b->ops->remove(b, dir, name);
}

static inline int bk_list(struct backend *b, const char *dir, blist_fn fn, void *ctx)
{
    return b->ops->list(b, dir, fn, ctx);
}

static inline int bk_sync(struct backend *b, const char *dir)
{
    return b->ops->sync(b, dir);
}

static inline int bk_claim_dir(struct backend *b, const char *dir, const char *name)
{
    return b->ops->claim_dir(b, dir, name);
}

static inline int bk_make_dir(struct backend *b, const char *dir, const char *name)
{
    return b->ops->make_dir(b, dir, name);
}

static inline int bk_clear(struct backend *b, const char *dir)
{
    return b->ops->clear(b, dir);
}

static inline int bk_open(struct backend *b, const char *dir, const char *name, enum bhint hint, struct bfile **out)
{
    return b->ops->open(b, dir, name, hint, out);
}

static inline ssize_t bf_read(struct bfile *f, void *buf, size_t n, uint64_t off)
{
    return f->b->ops->read(f, buf, n, off);
}

static inline int bf_stat(struct bfile *f, struct bstat *out)
{
    return f->b->ops->stat(f, out);
}

static inline int bf_is_named(struct bfile *f)
{
    return f->b->ops->is_named(f);
}

static inline void bf_close(struct bfile *f)
{
    if (f != NULL)
        f->b->ops->close(f);
}

static inline int bk_append_new(struct backend *b, const char *dir, const char *name, struct bfile **out)
{
    return b->ops->append_new(b, dir, name, out);
}

static inline int bk_append_again(struct backend *b, const char *dir, const char *name, struct bfile **out)
{
    return b->ops->append_again(b, dir, name, out);
}

static inline int bf_write(struct bfile *f, const void *data, size_t len, uint64_t off, bool spare)
{
    return f->b->ops->write(f, data, len, off, spare);
}

static inline int bf_start(struct bfile *f, uint64_t off, uint64_t len)
{
    return f->b->ops->start(f, off, len);
}

static inline int bf_fsync(struct bfile *f)
{
    return f->b->ops->fsync(f);
}

static inline int bf_truncate(struct bfile *f, uint64_t len)
{
    return f->b->ops->truncate(f, len);
}

static inline int bk_temp(struct backend *b, const char *dir, struct bfile **out)
{
    return b->ops->temp(b, dir, out);
}

static inline int bf_name(struct bfile *f, const char *dir, const char *name)
{
    return f->b->ops->name_it(f, dir, name);
}

static inline int bf_unname(struct bfile *f)
{
    return f->b->ops->unname(f);
}

static inline int bk_lease(struct backend *b, const char *dir, const char *name, struct blease **out)
{
    return b->ops->lease(b, dir, name, out);
}

static inline int bl_stage(struct blease *l, const char *name, struct bfile **out)
{
    return l->b->ops->stage(l, name, out);
}

static inline int bf_publish(struct bfile *f, const char *dir, const char *name)
{
    return f->b->ops->publish(f, dir, name);
}

static inline int bk_revoke(struct backend *b, const char *dir, const char *name)
{
    return b->ops->revoke(b, dir, name);
}

static inline void bl_release(struct blease *l)
{
    if (l != NULL)
        l->b->ops->release(l);
}

static inline int bk_space(struct backend *b, struct statvfs *out)
{
    return b->ops->space(b, out);
}

static inline int bk_owner(struct backend *b, uid_t *uid, gid_t *gid)
{
    return b->ops->owner(b, uid, gid);
}

static inline int bk_reserve(struct backend *b, const char *dir, const char *name, size_t bytes)
{
    return b->ops->reserve(b, dir, name, bytes);
}

static inline int bk_unreserve(struct backend *b, const char *dir, const char *name)
{
    return b->ops->unreserve(b, dir, name);
}

static inline void bk_destroy(struct backend *b)
{
    if (b != NULL)
        b->ops->destroy(b);
}

#endif
