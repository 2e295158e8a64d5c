/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs: the session: mount, INIT, read-ahead, serving, signals, end.
 *
 * fs_mount runs as root in the only thread, before the process drops its privileges. It answers INIT too, because the kernel resets
 * read-ahead to 128 KiB while it handles INIT, so read_ahead_kb can be raised only afterwards. All other requests wait in the kernel
 * until fs_serve starts the threads. That comes after the drop, because capabilities belong to threads.
 */
#include "fs/fs_internal.h"

#include "base/thread.h"
#include "base/vlog.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static void fs_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->max_write = FS_IO_MAX;
    conn->max_readahead = FS_IO_MAX;
    conn->time_gran = 1;
    /* ASYNC_DIO: without it, direct reads and writes by AIO go one at a time. With it the kernel leaves stale pages; see fs_write.c. */
    conn->want |= conn->capable & (FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS
                                   | FUSE_CAP_IOCTL_DIR | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_EXPORT_SUPPORT);
    /* All writes come through the mount, and the daemon invalidates what it changes by itself: a changed mtime need not drop caches.
     * Splice does not pay; the kernel applies the umask; writes reach the live image at once. */
    conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE
                              | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL);
}

static const struct fuse_lowlevel_ops fs_ops = {
    .init = fs_init,
    .lookup = fs_op_lookup,
    .forget = fs_op_forget,
    .getattr = fs_op_getattr,
    .setattr = fs_op_setattr,
    .mknod = fs_op_mknod,
    .mkdir = fs_op_mkdir,
    .unlink = fs_op_unlink,
    .rmdir = fs_op_rmdir,
    .symlink = fs_op_symlink,
    .link = fs_op_link,
    .rename = fs_op_rename,
    .opendir = fs_op_opendir,
    .readdir = fs_op_readdir,
    .readdirplus = fs_op_readdirplus,
    .releasedir = fs_op_releasedir,
    .fsyncdir = fs_op_fsyncdir,
    .statfs = fs_op_statfs,
    .create = fs_op_create,
    .open = fs_op_open,
    .read = fs_op_read,
    .write = fs_op_write,
    .flush = fs_op_flush,
    .release = fs_op_release,
    .fsync = fs_op_fsync,
    .fallocate = fs_op_fallocate,
    .lseek = fs_op_lseek,
    .copy_file_range = fs_op_copy_file_range,
    .setxattr = fs_op_setxattr,
    .getxattr = fs_op_getxattr,
    .listxattr = fs_op_listxattr,
    .removexattr = fs_op_removexattr,
    .ioctl = fs_op_ioctl,
};

__attribute__((format(printf, 2, 0)))
static void fuse_log_line(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    vlog(level <= FUSE_LOG_ERR ? VLOG_WARN : level <= FUSE_LOG_INFO ? VLOG_INFO : VLOG_DEBUG, "fuse", "%s", text);
}

static void raise_read_ahead(const struct fs_point *p)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", p->dev_major, p->dev_minor);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "2048\n", 5) != 5)
        vlog(VLOG_WARN, "fs", "%s: %s: read-ahead stays at the kernel's default", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* ---- making and mounting ---- */

static int session_new(struct fs *f, struct verr *err)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    char *opts = NULL, *fsname = NULL;
    int rc = -ENOMEM;
    if (asprintf(&fsname, "fsname=%s", f->conf.store_path) < 0) {
        fsname = NULL;
        goto out;
    }
    if (fuse_opt_add_opt(&opts, f->conf.read_only ? "ro" : "rw") != 0 || fuse_opt_add_opt_escaped(&opts, fsname) != 0
        || fuse_opt_add_opt(&opts, "subtype=varve,default_permissions,allow_other,nosuid,nodev") != 0)
        goto out;
    if (fuse_opt_add_arg(&args, "varve") != 0 || fuse_opt_add_arg(&args, "-o") != 0 || fuse_opt_add_arg(&args, opts) != 0)
        goto out;
    f->se = fuse_session_new(&args, &fs_ops, sizeof fs_ops, f);
    rc = f->se != NULL ? 0 : -EIO;
out:
    fuse_opt_free_args(&args);
    free(opts);
    free(fsname);
    return rc < 0 ? verr_set(err, -rc, "cannot make the FUSE session: %s", strerror(-rc)) : 0;
}

static void fs_release(struct fs *f)
{
    if (f->stop_fd >= 0)
        close(f->stop_fd);
    fs_gone_free(f);
    pthread_mutex_destroy(&f->lock);
    turns_free(f->dirs);
    free((char *)f->conf.store_path);
    free((char *)f->conf.mountpoint);
    free(f);
}

int fs_mount(const struct fs_conf *conf, struct agent *a, struct fs **out, struct verr *err)
{
    struct fs *f = calloc(1, sizeof *f);
    if (f == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    f->conf = *conf;
    f->conf.dead = NULL;
    f->conf.store_path = strdup(conf->store_path);
    f->conf.mountpoint = strdup(conf->mountpoint);
    f->agent = a;
    pthread_mutex_init(&f->lock, NULL);
    f->dirs = turns_new();
    f->settle_fd = -1;
    f->stop_fd = eventfd(0, EFD_CLOEXEC);
    int rc = -ENOMEM;
    if (f->conf.store_path == NULL || f->conf.mountpoint == NULL || f->dirs == NULL || f->stop_fd < 0) {
        verr_set(err, ENOMEM, "out of memory");
        goto out;
    }
    rc = fs_point_ready(f->conf.mountpoint, conf->dead, err);
    if (rc < 0)
        goto out;
    fuse_set_log_func(fuse_log_line);
    rc = session_new(f, err);
    if (rc < 0)
        goto out;
    errno = 0;
    if (fuse_session_mount(f->se, f->conf.mountpoint) != 0) {
        int e = errno != 0 ? errno : EPERM;
        rc = verr_set(err, e, "cannot mount on %s: %s (is /dev/fuse there, and are you root?)", f->conf.mountpoint, strerror(e));
        fuse_session_destroy(f->se);
        goto out;
    }
    rc = fs_device_use(f, err);
    if (rc == 0)
        rc = fs_answer_init(f, err);
    if (rc == 0 && fs_point_find(f->conf.mountpoint, &f->point) != 1)
        rc = verr_set(err, EIO, "%s is mounted, but is not in /proc/self/mountinfo", f->conf.mountpoint);
    if (rc < 0) {
        fuse_session_unmount(f->se);
        fuse_session_destroy(f->se);
        goto out;
    }
    raise_read_ahead(&f->point);
    agent_mounted(a, f->point.dev_major, f->point.dev_minor);
    *out = f;
    return 0;
out:
    fs_release(f);
    return rc;
}

void fs_device(const struct fs *f, unsigned *dev_major, unsigned *dev_minor)
{
    *dev_major = f->point.dev_major;
    *dev_minor = f->point.dev_minor;
}

/* ---- signals ---- */

static int signal_fd = -1;

static void on_signal(int sig)
{
    (void)sig;
    int keep = errno;
    uint64_t one = 1;
    if (signal_fd >= 0 && write(signal_fd, &one, sizeof one) < 0) {
        /* The counter is full: a stop is pending already. */
    }
    errno = keep;
}

static const int stop_signals[] = {SIGTERM, SIGINT, SIGHUP};

static void signals_set(void)
{
    /* No SA_RESTART: the main thread's wait inside libfuse's loop must end. */
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < sizeof stop_signals / sizeof stop_signals[0]; i++)
        sigaction(stop_signals[i], &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* What is accepted is finished, and what is held is written back, however often one is told to stop. */
static void signals_ignore(void)
{
    for (size_t i = 0; i < sizeof stop_signals / sizeof stop_signals[0]; i++)
        signal(stop_signals[i], SIG_IGN);
}

/* Without an unmount: the mount stays dead, and what is open in it was cut off. The main thread sleeps in libfuse's loop and looks at the
 * exit flag only when a signal interrupts its sleep, so this thread sends signals until the main thread has left the loop. */
static void end_session(struct fs *f)
{
    atomic_store(&f->stopping, true);
    fuse_session_exit(f->se);
    while (atomic_load(&f->serving)) {
        /* NOLINTNEXTLINE(bugprone-bad-signal-to-kill-thread): handled, so it ends no thread; it interrupts libfuse's sleep. */
        pthread_kill(f->main_thread, SIGTERM);
        usleep(50000);
    }
}

static unsigned open_handles(struct fs *f)
{
    unsigned n = 0;
    pthread_mutex_lock(&f->lock);
    for (const struct handle *h = f->handles; h != NULL; h = h->next)
        n++;
    pthread_mutex_unlock(&f->lock);
    return n;
}

/* The kernel ends the session, and with it the loop, when nobody uses the mount any more: then everything has been closed. */
static bool unmount(struct fs *f)
{
    const char *point = f->conf.mountpoint;
    int r = f->conf.unmount == NULL ? -ENOSYS : f->conf.unmount(f->conf.unmount_ctx);
    if (r == 1)
        vlog(VLOG_INFO, "fs", "told to stop: %s is unmounted, and the daemon ends when the %u open files are closed", point, open_handles(f));
    else if (r == -ENOENT)
        vlog(VLOG_INFO, "fs", "told to stop: %s is unmounted already, and the daemon ends when the %u open files are closed", point,
             open_handles(f));
    else if (r < 0)
        vlog(VLOG_ERROR, "fs", "told to stop: cannot unmount %s (%s): it stays, without a daemon: umount it", point, strerror(-r));
    return r == 0 || r == 1 || r == -ENOENT;
}

/* A signal may hit any thread; this thread does what it asks for. */
static void *stop_thread(void *arg)
{
    struct fs *f = arg;
    uint64_t n;
    bool unmounted = true;
    while (unmounted) {
        while (read(f->stop_fd, &n, sizeof n) < 0 && errno == EINTR)
            ;
        if (!atomic_load(&f->serving))
            return NULL;
        unmounted = unmount(f);
    }
    end_session(f);
    return NULL;
}

void fs_stop(struct fs *f)
{
    uint64_t one = 1;
    if (write(f->stop_fd, &one, sizeof one) < 0)
        vlog(VLOG_WARN, "fs", "cannot ask the filesystem to stop: %s", strerror(errno));
}

/* ---- serving ---- */

/* Ends handles for which no release came. unmounted: nobody has a file open any more, so a handle whose last request was a flush was
 * closed. The others were open when the daemon was stopped, or were cut off by a forced unmount: recovery at the next mount finds their
 * disks changed. */
static void end_handles(struct fs *f, bool unmounted)
{
    for (struct handle *h = f->handles, *next; unmounted && h != NULL; h = next) {
        next = h->next;
        if (h->kind == HANDLE_DISK && atomic_load(&h->idle))
            fs_close_disk(f, h);
    }
    while (f->handles != NULL) {
        struct handle *h = f->handles;
        struct fs_disk *d = h->disk;
        unsigned writers;
        bool orphan;
        fs_stream_close(h);
        if (d != NULL)
            fs_disk_detach(h, &writers, &orphan);
        handle_free(f, h);
        fs_disk_put(d);
    }
}

static int pools_new(struct fs *f, unsigned cores, struct verr *err)
{
    unsigned readers = cores + 2 < 4 ? 4 : cores + 2 > 16 ? 16 : cores + 2;
    if ((f->io = pool_new(readers, err)) == NULL || (f->ctl = pool_new(8, err)) == NULL || (f->answers = pool_new(1, err)) == NULL ||
        (f->notify = pool_new(1, err)) == NULL)
        return -err->code;
    return 0;
}

static int run_loop(struct fs *f, struct verr *err)
{
    struct fuse_loop_config *cfg = fuse_loop_cfg_create();
    if (cfg == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    /* After the drop of privileges /dev/fuse may be out of reach: then all threads read from one descriptor. */
    int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    fuse_loop_cfg_set_clone_fd(cfg, dev >= 0);
    if (dev >= 0)
        close(dev);
    fuse_loop_cfg_set_max_threads(cfg, f->threads);
    fuse_loop_cfg_set_idle_threads(cfg, f->threads);
    int rc = fuse_session_loop_mt(f->se, cfg);
    fuse_loop_cfg_destroy(cfg);
    if (rc < 0 && !atomic_load(&f->stopping))
        return verr_set(err, -rc, "the FUSE session on %s broke: %s", f->conf.mountpoint, strerror(-rc));
    return 0;
}

int fs_serve(struct fs *f, struct verr *err)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cores = online > 0 ? (unsigned)online : 1;
    f->threads = f->conf.threads != 0 ? f->conf.threads : cores + 2;
    f->inline_max = f->threads > 2 ? f->threads - 2 : 1;
    f->names = agent_names(f->agent);
    f->catalog = agent_catalog(f->agent);
    f->live = agent_live(f->agent);
    f->main_thread = pthread_self();
    bool unmounted = false;
    int rc = pools_new(f, cores, err);
    if (rc == 0)
        rc = fs_settle_start(f, err);
    if (rc < 0)
        goto out;
    signal_fd = f->stop_fd;
    atomic_store(&f->serving, true);
    pthread_t stopper;
    int failed = thread_start(&stopper, stop_thread, f);
    if (failed != 0) {
        rc = verr_set(err, failed, "cannot start a thread: %s", strerror(failed));
        fs_settle_stop(f);
        goto out;
    }
    signals_set();
    rc = run_loop(f, err);
    agent_closing(f->agent);    /* before all else: a new mount waits for us from here on */
    unmounted = rc == 0 && !atomic_load(&f->stopping);
    atomic_store(&f->stopping, true);
    atomic_store(&f->serving, false);
    fs_stop(f);
    pthread_join(stopper, NULL);
    signals_ignore();
    signal_fd = -1;
    fs_wait_end(f);
    fs_settle_stop(f);
out:
    /* The pools finish all accepted requests: flushes freeze, names become durable. */
    pool_free(f->io);
    pool_free(f->ctl);
    pool_free(f->answers);      /* these last: the others submit to them */
    pool_free(f->notify);
    f->io = f->ctl = f->answers = f->notify = NULL;
    end_handles(f, unmounted);
    fs_settle_end(f);   /* here and not in fs_free, because the agent closes before that */
    return rc;
}

/* ---- end ---- */

/* A session that stays mounted cannot be destroyed cleanly: it ends with the process. */
static struct fuse_session *volatile left_mounted;     /* volatile: the compiler keeps the store, so the session stays reachable */

static bool session_ended(struct fs *f)
{
    struct pollfd pfd = {.fd = fuse_session_fd(f->se)};
    return poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLERR) != 0;
}

void fs_free(struct fs *f)
{
    if (f == NULL)
        return;
    int failed = 0;
    if (!session_ended(f) && umount2(f->conf.mountpoint, MNT_DETACH) != 0)
        failed = errno;
    if (session_ended(f)) {
        fuse_session_unmount(f->se);
        fuse_session_destroy(f->se);
    } else {
        /* Still mounted, or detached with files open: every access to it gets ENOTCONN from now on. */
        if (failed != 0)
            vlog(VLOG_WARN, "fs", "%s stays mounted without a daemon (%s): umount it", f->conf.mountpoint, strerror(failed));
        close(fuse_session_fd(f->se));
        left_mounted = f->se;
    }
    fs_release(f);
}
