/* SPDX-License-Identifier: Apache-2.0 */
/*
 * passthrough [--direct] DIR MOUNTPOINT: a FUSE filesystem that hands everything on to the files of one flat directory:
 * the least that a filesystem in user space costs, to compare with. Runs in the foreground until it is unmounted.
 * --direct: direct I/O on every handle; otherwise through the page cache, which is kept from one open to the next.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 1024, NAME_BYTES = 256 };

static int dirfd_;
static bool direct;
static char names[FILES_MAX][NAME_BYTES];       /* inode FUSE_ROOT_ID + 1 + i; never forgotten */
static size_t nnames;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *name_of(fuse_ino_t ino) { return ino == FUSE_ROOT_ID ? "." : names[ino - FUSE_ROOT_ID - 1]; }

static fuse_ino_t ino_of(const char *name)
{
    size_t i = 0;
    pthread_mutex_lock(&lock);
    while (i < nnames && strcmp(names[i], name) != 0)
        i++;
    if (i == nnames && nnames < FILES_MAX && strlen(name) < NAME_BYTES)
        strcpy(names[nnames++], name);
    pthread_mutex_unlock(&lock);
    return i < nnames ? FUSE_ROOT_ID + 1 + i : 0;
}

static int entry_of(const char *name, struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){.attr_timeout = 1, .entry_timeout = 1};
    if (fstatat(dirfd_, name, &e->attr, AT_SYMLINK_NOFOLLOW) < 0)
        return errno;
    e->ino = e->attr.st_ino = ino_of(name);
    return e->ino == 0 ? ENFILE : 0;
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e;
    (void)parent;
    int rc = entry_of(name, &e);
    if (rc != 0)
        fuse_reply_err(req, rc);
    else
        fuse_reply_entry(req, &e);
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;
    if ((fi != NULL ? fstat((int)fi->fh, &st) : fstatat(dirfd_, name_of(ino), &st, 0)) < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    st.st_ino = ino;
    fuse_reply_attr(req, &st, 1);
}

static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set, struct fuse_file_info *fi)
{
    if ((set & FUSE_SET_ATTR_SIZE) != 0) {
        int fd = fi != NULL ? (int)fi->fh : openat(dirfd_, name_of(ino), O_WRONLY | O_CLOEXEC);
        int rc = fd < 0 || ftruncate(fd, attr->st_size) < 0 ? errno : 0;
        if (fi == NULL && fd >= 0)
            close(fd);
        if (rc != 0) {
            fuse_reply_err(req, rc);
            return;
        }
    }
    do_getattr(req, ino, fi);   /* mode and times are of no interest here */
}

static void set_handle(struct fuse_file_info *fi, int fd)
{
    fi->fh = (uint64_t)fd;
    fi->direct_io = direct;
    fi->keep_cache = !direct;
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    int fd = openat(dirfd_, name_of(ino), (fi->flags & ~(O_DIRECT | O_NOFOLLOW)) | O_CLOEXEC);
    if (fd < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    set_handle(fi, fd);
    fuse_reply_open(req, fi);
}

static void do_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct fuse_entry_param e;
    (void)parent;
    int fd = openat(dirfd_, name, ((fi->flags & ~(O_DIRECT | O_NOFOLLOW)) | O_CREAT) | O_CLOEXEC, mode);
    int rc = fd < 0 ? errno : entry_of(name, &e);
    if (rc != 0) {
        fuse_reply_err(req, rc);
        return;
    }
    set_handle(fi, fd);
    fuse_reply_create(req, &e, fi);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    static _Thread_local char *buf;
    (void)ino;
    if (buf == NULL)
        buf = malloc(1 << 20);
    ssize_t n = buf == NULL || size > 1 << 20 ? -1 : pread((int)fi->fh, buf, size, off);
    if (n < 0)
        fuse_reply_err(req, EIO);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    ssize_t n = pwrite((int)fi->fh, buf, size, off);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_write(req, (size_t)n);
}

static void do_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    fuse_reply_err(req, close((int)fi->fh) < 0 ? errno : 0);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    (void)ino;
    fuse_reply_err(req, (datasync ? fdatasync((int)fi->fh) : fsync((int)fi->fh)) < 0 ? errno : 0);
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent;
    fuse_reply_err(req, unlinkat(dirfd_, name, 0) < 0 ? errno : 0);
}

static void do_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    (void)ino;
    off_t at = lseek((int)fi->fh, off, whence);
    if (at < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_lseek(req, at);
}

static const struct fuse_lowlevel_ops ops = {
    .lookup = do_lookup, .getattr = do_getattr, .setattr = do_setattr, .open = do_open, .create = do_create, .read = do_read,
    .write = do_write, .release = do_release, .fsync = do_fsync, .unlink = do_unlink, .lseek = do_lseek,
};

int main(int argc, char **argv)
{
    direct = argc > 1 && strcmp(argv[1], "--direct") == 0;
    if (argc != 3 + direct) {
        fprintf(stderr, "usage: passthrough [--direct] DIR MOUNTPOINT\n");
        return 2;
    }
    dirfd_ = open(argv[1 + direct], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char *fuse_argv[] = {argv[0], (char *)"-oallow_other,fsname=passthrough", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(2, fuse_argv);
    struct fuse_session *se = dirfd_ < 0 ? NULL : fuse_session_new(&args, &ops, sizeof ops, NULL);
    if (se == NULL || fuse_session_mount(se, argv[2 + direct]) != 0) {
        perror(argv[1 + direct]);
        return 1;
    }
    struct fuse_loop_config *loop = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(loop, 1);
    fuse_loop_cfg_set_max_threads(loop, (unsigned)sysconf(_SC_NPROCESSORS_ONLN) + 2);
    fuse_set_signal_handlers(se);
    int rc = fuse_session_loop_mt(se, loop);
    fuse_loop_cfg_destroy(loop);
    fuse_session_unmount(se);
    fuse_session_destroy(se);
    return rc != 0;
}
