/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_dir: STORE in a directory. Only this file and the table of its open directories (backend_dir_refs.c) make system calls on
 * STORE.
 *
 * Lists: a local filesystem has one host, and its lists are always current. All other filesystems (NFS, SMB, Ceph, FUSE and what is
 * not known as local) may answer from a cache until this host changes the directory itself.
 *
 * Locks: backend_dir.lock guards the table of directories and of durable entries. It is never held across a system call. The caller
 * that opened a bfile owns its descriptor.
 */
#include "store/backend_dir_internal.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { NAME_ROOM = 256, TEMP_NAME = 8 + VID_HEX };

struct dfile {
    struct bfile base;          /* first */
    int fd;
    struct dirref *at;          /* pinned */
    char name[NAME_ROOM];
};

struct dlease {
    struct blease base;         /* first */
    struct dirref *dir, *in;    /* pinned: the lease, and the directory of its name */
    char name[NAME_ROOM];
};

enum { REVOKE_TRIES = 64 };

static struct backend_dir *of(struct backend *b) { return (struct backend_dir *)b; }
static struct dfile *df(struct bfile *f) { return (struct dfile *)f; }

/* The directory for an operation that changes something in it. */
static int get_to_change(struct backend *b, const char *dir, struct dirref **out)
{
    return of(b)->read_only ? -EROFS : dirref_get(of(b), dir, out);
}

static void temp_name(char out[TEMP_NAME])
{
    struct vid id = vid_random();
    char hex[VID_HEX];
    vid_hex(&id, hex);
    snprintf(out, TEMP_NAME, ".tmp-%s", hex);
}

/* ---- records ---- */

static int dir_create(struct backend *b, const char *dir, const char *name, const void *data, size_t len)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = file_publish(d->fd, name, data, len);
    dirref_put(of(b), d);
    return r;
}

static int dir_replace(struct backend *b, const char *dir, const char *name, const void *data, size_t len)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = file_replace(d->fd, name, data, len);
    dirref_put(of(b), d);
    return r;
}

static int dir_load(struct backend *b, const char *dir, const char *name, size_t max, uint8_t **data, size_t *len)
{
    struct dirref *d;
    int r = dirref_get(of(b), dir, &d);
    if (r < 0)
        return r;
    r = file_load(d->fd, name, max, data, len);
    dirref_put(of(b), d);
    return r;
}

static void fill_stat(const struct stat *st, struct bstat *out)
{
    *out = (struct bstat){.bytes = (uint64_t)st->st_size, .mtime = st->st_mtim, .id = {st->st_dev, st->st_ino},
                          .regular = S_ISREG(st->st_mode)};
}

static int dir_stat_name(struct backend *b, const char *dir, const char *name, struct bstat *out)
{
    struct dirref *d;
    struct stat st;
    int r = dirref_get(of(b), dir, &d);
    if (r < 0)
        return r;
    r = fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
    dirref_put(of(b), d);
    if (r == 0)
        fill_stat(&st, out);
    return r;
}

static int two_names(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name,
                     int (*call)(int, const char *, int, const char *))
{
    struct dirref *from, *to;
    int r = get_to_change(b, dir, &from);
    if (r < 0)
        return r;
    r = get_to_change(b, to_dir, &to);
    if (r == 0) {
        r = call(from->fd, name, to->fd, to_name) < 0 ? -errno : 0;
        dirref_put(of(b), to);
    }
    dirref_put(of(b), from);
    return r;
}

static int link_call(int from, const char *name, int to, const char *to_name) { return linkat(from, name, to, to_name, 0); }

static int dir_link(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name)
{
    return two_names(b, dir, name, to_dir, to_name, link_call);
}

static int dir_move(struct backend *b, const char *dir, const char *name, const char *to_dir, const char *to_name)
{
    return two_names(b, dir, name, to_dir, to_name, renameat);
}

static int dir_remove(struct backend *b, const char *dir, const char *name)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = unlinkat(d->fd, name, 0) < 0 ? -errno : 0;
    dirref_put(of(b), d);
    return r;
}

/* ---- lists and entries ---- */

/* Makes and unlinks a file, so that a network filesystem asks its server before the next listing of that directory. In a full
 * filesystem no file can be made; setting the times of the directory takes no space, and has the same effect. */
static int look_again(int fd)
{
    char name[TEMP_NAME];
    temp_name(name);
    int own = openat(fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (own < 0 && (errno == ENOSPC || errno == EDQUOT))
        return futimens(fd, NULL) < 0 ? -errno : 0;
    if (own < 0)
        return errno == EROFS ? 0 : -errno;
    close(own);
    return unlinkat(fd, name, 0) < 0 ? -errno : 0;
}

static int dir_list(struct backend *b, const char *dir, blist_fn fn, void *ctx)
{
    struct dirref *d;
    int r = dirref_get(of(b), dir, &d);
    if (r < 0)
        return r;
    r = of(b)->shared && !of(b)->read_only ? look_again(d->fd) : 0;
    if (r == 0)
        r = dir_each(d->fd, fn, ctx);
    dirref_put(of(b), d);
    return r;
}

static int is_name(void *ctx, const char *name) { return strcmp(*(const char *const *)ctx, name) == 0; }

/* Elsewhere than on a local filesystem the kernel may remember for a while what a name leads to, but not what a list says. */
static int dir_look(struct backend *b, const char *dir, const char *name)
{
    struct bstat there;
    int r = of(b)->shared ? dir_list(b, dir, is_name, &name) : dir_stat_name(b, dir, name, &there);
    if (r == 0 && !of(b)->shared)
        r = 1;
    return r == -ENOENT ? 0 : r;
}

static int sync_of(struct backend *b, const char *dir)
{
    struct dirref *d;
    int r = dirref_get(of(b), dir, &d);
    if (r < 0)
        return r;
    r = dir_sync(d->fd);
    dirref_put(of(b), d);
    return r;
}

static int dir_claim(struct backend *b, const char *dir, const char *name)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = mkdirat(d->fd, name, 0700) < 0 ? -errno : 0;
    dirref_put(of(b), d);
    return r;
}

/* Is dir/name known to be durable? learn: the caller has just fsynced it; it is known from now on. */
static bool durable_known(struct backend_dir *bd, const char *dir, const char *name, bool learn)
{
    uint64_t digest = hash64_seed(name, strlen(name), hash64(dir, strlen(dir))) | 1;
    uint64_t *slot = &bd->durable[digest / 2 % DURABLE_ENTRIES];
    pthread_mutex_lock(&bd->lock);
    bool known = *slot == digest;
    if (learn)
        *slot = digest;
    pthread_mutex_unlock(&bd->lock);
    return known;
}

/* Fsyncs also a directory that was there before: the process that made it may have died before its fsync. */
static int dir_make_dir(struct backend *b, const char *dir, const char *name)
{
    struct stat st;
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    if (mkdirat(d->fd, name, 0700) < 0)
        r = errno != EEXIST ? -errno : fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
    if (r == 0 && !durable_known(of(b), dir, name, false)) {
        r = dir_sync(d->fd);
        if (r == 0)
            durable_known(of(b), dir, name, true);
    }
    dirref_put(of(b), d);
    return r;
}

static int clear_entry(void *ctx, const char *name) { return tree_remove(*(const int *)ctx, name); }

static int dir_clear(struct backend *b, const char *dir)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = dir_each(d->fd, clear_entry, &d->fd);
    if (r == 0)
        r = dir_sync(d->fd);
    dirref_put(of(b), d);
    return r;
}

/* ---- open objects ---- */

/* Opens name in d and takes over d's pin, also on failure. */
static int file_open(struct backend *b, struct dirref *d, const char *name, int flags, struct dfile **out)
{
    struct dfile *f = calloc(1, sizeof *f);
    int r = f == NULL ? -ENOMEM : strlen(name) >= sizeof f->name ? -ENAMETOOLONG : 0;
    if (r == 0) {
        f->fd = openat(d->fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = f->fd < 0 ? -errno : 0;
    }
    if (r < 0) {
        free(f);
        dirref_put(of(b), d);
        return r;
    }
    f->base.b = b;
    f->at = d;
    memcpy(f->name, name, strlen(name) + 1);
    *out = f;
    return 0;
}

static int open_in(struct backend *b, const char *dir, const char *name, int flags, struct dfile **out)
{
    struct dirref *d;
    int r = (flags & O_ACCMODE) == O_RDONLY ? dirref_get(of(b), dir, &d) : get_to_change(b, dir, &d);
    return r < 0 ? r : file_open(b, d, name, flags, out);
}

/* O_NONBLOCK, so that the daemon does not hang on a foreign FIFO. */
static int dir_open_file(struct backend *b, const char *dir, const char *name, enum bhint hint, struct bfile **out)
{
    struct dfile *f;
    int r = open_in(b, dir, name, O_RDONLY | O_NONBLOCK, &f);
    if (r < 0)
        return r;
    if (hint != BHINT_NONE) /* without RANDOM the kernel reads 128 KiB for a probe of one page */
        (void)posix_fadvise(f->fd, 0, 0, hint == BHINT_RANDOM ? POSIX_FADV_RANDOM : POSIX_FADV_SEQUENTIAL);
    *out = &f->base;
    return 0;
}

static ssize_t file_read(struct bfile *f, void *buf, size_t n, uint64_t off) { return pread_full(df(f)->fd, buf, n, (off_t)off); }

static int file_stat(struct bfile *f, struct bstat *out)
{
    struct stat st;
    if (fstat(df(f)->fd, &st) < 0)
        return -errno;
    fill_stat(&st, out);
    return 0;
}

static bool same_inode(int fd, int dirfd, const char *name)
{
    struct stat own, there;
    return fstat(fd, &own) == 0 && fstatat(dirfd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && own.st_dev == there.st_dev &&
           own.st_ino == there.st_ino;
}

static int file_is_named(struct bfile *f) { return same_inode(df(f)->fd, df(f)->at->fd, df(f)->name); }

static void file_close(struct bfile *f)
{
    close(df(f)->fd);   /* also releases the lock */
    dirref_put(of(f->b), df(f)->at);
    free(df(f));
}

/* Locks the file. wait: for a new file, which another process may lock for a moment until it sees that it cannot go on in it. */
static int file_lock(int fd, bool wait)
{
    while (flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) < 0)
        if (!wait || errno != EINTR)
            return wait && (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP) ? 0 : -errno;
    return 0;
}

static int dir_append_new(struct backend *b, const char *dir, const char *name, struct bfile **out)
{
    struct dfile *f;
    int r = open_in(b, dir, name, O_RDWR | O_CREAT | O_EXCL, &f);
    if (r < 0)
        return r;
    r = file_lock(f->fd, true);
    if (r < 0) {
        file_close(&f->base);
        return r;
    }
    *out = &f->base;
    return 0;
}

/* Locks the file, then checks that its name still leads to it, so that two writers of one name never append to the same file. */
static int dir_append_again(struct backend *b, const char *dir, const char *name, struct bfile **out)
{
    struct dfile *f;
    int r = open_in(b, dir, name, O_RDWR, &f);
    if (r < 0)
        return r;
    r = file_lock(f->fd, false);
    if (r == 0 && !file_is_named(&f->base))
        r = -ESTALE;
    if (r == 0)
        *out = &f->base;
    else
        file_close(&f->base);
    return r;
}

static int file_write(struct bfile *f, const void *data, size_t len, uint64_t off, bool spare)
{
    return spare ? pwrite_bulk(df(f)->fd, data, len, (off_t)off) : pwrite_full(df(f)->fd, data, len, (off_t)off);
}

/* Returns only errors of writes. Any other error means that this filesystem cannot start write-back, which does no harm. */
static int file_start(struct bfile *f, uint64_t off, uint64_t len)
{
    if (sync_file_range(df(f)->fd, (off_t)off, (off_t)len, SYNC_FILE_RANGE_WRITE) == 0)
        return 0;
    return errno == EIO || errno == ENOSPC || errno == EDQUOT ? -errno : 0;
}

static int file_fsync(struct bfile *f) { return fdatasync(df(f)->fd) < 0 ? -errno : 0; }

static int file_truncate(struct bfile *f, uint64_t len) { return ftruncate(df(f)->fd, (off_t)len) < 0 ? -errno : 0; }

/* ---- naming ---- */

static int dir_temp(struct backend *b, const char *dir, struct bfile **out)
{
    struct dfile *f;
    char name[TEMP_NAME];
    temp_name(name);
    int r = open_in(b, dir, name, O_RDWR | O_CREAT | O_EXCL, &f);
    if (r == 0)
        *out = &f->base;
    return r;
}

/* Names the file. If the name is taken, compares inodes: while f is open, no other file can have its inode number. */
static int file_name_it(struct bfile *f, const char *dir, const char *name)
{
    struct dirref *to;
    int r = dirref_get(of(f->b), dir, &to);
    if (r < 0)
        return r;
    if (linkat(df(f)->at->fd, df(f)->name, to->fd, name, 0) < 0)
        r = -errno;
    if ((r == -EEXIST || r == -ENOENT) && same_inode(df(f)->fd, to->fd, name))
        r = 0;
    dirref_put(of(f->b), to);
    return r;
}

static int file_unname(struct bfile *f)
{
    return unlinkat(df(f)->at->fd, df(f)->name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

/* ---- publishing ---- */

static int dir_lease(struct backend *b, const char *dir, const char *name, struct blease **out)
{
    struct dlease *l = calloc(1, sizeof *l);
    int r = l == NULL ? -ENOMEM : strlen(name) >= sizeof l->name ? -ENAMETOOLONG : get_to_change(b, dir, &l->in);
    if (r < 0) {
        free(l);
        return r;
    }
    l->base.b = b;
    memcpy(l->name, name, strlen(name) + 1);
    r = mkdirat(l->in->fd, name, 0700) < 0 ? -errno : dirref_open(l->in, name, dir, &l->dir);
    if (r == 0) {
        *out = &l->base;
        return 0;
    }
    dirref_put(of(b), l->in);
    free(l);
    return r;
}

static int lease_stage_file(struct blease *lease, const char *name, struct bfile **out)
{
    struct dlease *l = (struct dlease *)lease;
    struct dfile *f;
    dirref_pin(of(lease->b), l->dir);
    int r = file_open(lease->b, l->dir, name, O_RDWR | O_CREAT | O_EXCL, &f);
    if (r == 0)
        *out = &f->base;
    return r;
}

/*
 * rename, and not link: a rename names its source by directory and name, so that it fails once the lease is gone. A link names the source
 * by its inode: a server that keeps removed files (a trash) would give a recipe its name out of a lease that was taken away.
 */
static int file_publish_staged(struct bfile *f, const char *dir, const char *name)
{
    struct dirref *to;
    int r = dirref_get(of(f->b), dir, &to);
    if (r < 0)
        return r;
    if (renameat(df(f)->at->fd, df(f)->name, to->fd, name) < 0)
        r = errno == ENOENT ? -ESTALE : -errno;
    dirref_put(of(f->b), to);
    return r;
}

static bool gone(int r) { return r == -ENOENT || r == -ESTALE; }

/* Empties and removes the lease. -ENOTEMPTY: something was staged in it meanwhile. */
static int lease_remove(int in, const char *name)
{
    int fd = dir_open(in, name);
    if (fd < 0)
        return gone(fd) ? 0 : fd;
    int r = dir_each(fd, clear_entry, &fd);
    close(fd);
    if (r < 0 && !gone(r))
        return r;
    return unlinkat(in, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* The fsync also covers what another revoker has removed and not fsynced. */
static int dir_revoke(struct backend *b, const char *dir, const char *name)
{
    struct dirref *in;
    int r = get_to_change(b, dir, &in);
    if (r < 0)
        return r;
    r = -ENOTEMPTY;
    for (int i = 0; i < REVOKE_TRIES && (r == -ENOTEMPTY || r == -EEXIST); i++)
        r = lease_remove(in->fd, name);
    if (r == 0)
        r = dir_sync(in->fd);
    dirref_put(of(b), in);
    return r == -ENOTEMPTY || r == -EEXIST ? -EBUSY : r;
}

static void lease_release_dir(struct blease *lease)
{
    struct dlease *l = (struct dlease *)lease;
    (void)lease_remove(l->in->fd, l->name); /* a lease that stays is revoked by this VM's next one */
    dirref_put(of(lease->b), l->dir);
    dirref_put(of(lease->b), l->in);
    free(l);
}

/* ---- the whole ---- */

static int dir_space(struct backend *b, struct statvfs *out) { return fstatvfs(of(b)->root.fd, out) < 0 ? -errno : 0; }

static int dir_owner(struct backend *b, uid_t *uid, gid_t *gid)
{
    struct stat st;
    if (fstat(of(b)->root.fd, &st) < 0)
        return -errno;
    *uid = st.st_uid;
    *gid = st.st_gid;
    return 0;
}

static int dir_reserve(struct backend *b, const char *dir, const char *name, size_t bytes)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = file_reserve(d->fd, name, bytes);
    dirref_put(of(b), d);
    return r;
}

static int dir_unreserve(struct backend *b, const char *dir, const char *name)
{
    struct dirref *d;
    int r = get_to_change(b, dir, &d);
    if (r < 0)
        return r;
    r = file_unreserve(d->fd, name);
    dirref_put(of(b), d);
    return r;
}

static void dir_destroy(struct backend *b)
{
    struct backend_dir *bd = of(b);
    dirref_close_all(bd);
    pthread_mutex_destroy(&bd->lock);
    free(bd);
}

static const struct backend_ops dir_ops = {
    .create = dir_create, .replace = dir_replace, .load = dir_load, .look = dir_look, .stat_name = dir_stat_name, .link = dir_link,
    .move = dir_move, .remove = dir_remove, .list = dir_list, .sync = sync_of, .claim_dir = dir_claim, .make_dir = dir_make_dir, .clear = dir_clear,
    .open = dir_open_file, .read = file_read, .stat = file_stat, .is_named = file_is_named, .close = file_close,
    .append_new = dir_append_new, .append_again = dir_append_again, .write = file_write, .start = file_start, .fsync = file_fsync,
    .truncate = file_truncate, .temp = dir_temp, .name_it = file_name_it, .unname = file_unname, .lease = dir_lease,
    .stage = lease_stage_file, .publish = file_publish_staged, .revoke = dir_revoke, .release = lease_release_dir, .space = dir_space,
    .owner = dir_owner, .reserve = dir_reserve, .unreserve = dir_unreserve, .destroy = dir_destroy,
};

/* ---- opening and making ---- */

/* Is it a filesystem that only one host can mount? */
static bool is_local(int fd)
{
    static const uint32_t local[] = {0xef53 /* ext */, 0x58465342 /* xfs */, 0x9123683e /* btrfs */, 0x01021994 /* tmpfs */,
                                     0xf2f52010 /* f2fs */, 0x2fc12fc1 /* zfs */};
    struct statfs fs;
    bool found = false;
    for (size_t i = 0; fstatfs(fd, &fs) == 0 && i < sizeof local / sizeof local[0]; i++)
        found = found || (uint32_t)fs.f_type == local[i];
    return found;
}

int backend_dir_open(const char *path, struct backend **out)
{
    int fd = dir_open(AT_FDCWD, path);
    if (fd < 0)
        return fd;
    struct backend_dir *bd = calloc(1, sizeof *bd);
    if (bd == NULL) {
        close(fd);
        return -ENOMEM;
    }
    bd->base.ops = &dir_ops;
    bd->root.fd = fd;
    bd->shared = !is_local(fd);
    dirref_look(bd, &bd->root);
    pthread_mutex_init(&bd->lock, NULL);
    *out = &bd->base;
    return 0;
}

int backend_dir_hold(struct backend *b, const char *dir) { return dirref_hold(of(b), dir); }

bool backend_dir_read_only(const struct backend *b) { return ((const struct backend_dir *)b)->read_only; }

void backend_dir_set_read_only(struct backend *b) { of(b)->read_only = true; }

void backend_dir_set_shared(struct backend *b) { of(b)->shared = true; }

int backend_dir_make(const char *path, bool *made)
{
    *made = mkdir(path, 0700) == 0;
    return *made || errno == EEXIST ? 0 : -errno;
}

int backend_dir_give(struct backend *b, const char *dir, const char *name, uid_t uid, gid_t gid)
{
    struct dfile *f;
    int r = open_in(b, dir, name[0] == '\0' ? "." : name, O_RDONLY, &f);
    if (r < 0)
        return r;
    if (uid != (uid_t)-1 && fchown(f->fd, uid, gid) < 0)
        r = -errno;
    if (r == 0 && fsync(f->fd) < 0)
        r = -errno;
    file_close(&f->base);
    return r;
}

int backend_dir_sync_parent(struct backend *b)
{
    int parent = openat(of(b)->root.fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        return errno == EACCES ? 0 : -errno;
    int r = dir_sync(parent);
    close(parent);
    return r;
}
