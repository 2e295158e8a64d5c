/* SPDX-License-Identifier: Apache-2.0 */
/* fs_internal: what the files of fs share: the session, pooled requests, and the operations by file. Included inside src/fs only. */
#ifndef VARVE_FS_FS_INTERNAL_H
#define VARVE_FS_FS_INTERNAL_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "agent/agent.h"
#include "base/pool.h"
#include "base/turn.h"
#include "base/verr.h"
#include "fs/fs.h"
#include "fs/fs_point.h"
#include "fs/fs_handle.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    FS_IO_MAX = 1 << 20,            /* largest read and write the kernel sends */
    FS_BLKSIZE = 512 * 1024,
    FS_DISK_BUCKETS = 256,
    FS_PROCS_MAX = 64,              /* processes that are held at a time; others count as unknown */
    FS_GRACE_MS = 1000,             /* how long an exclusive operation waits for a release that is on the way */
    /* Inode numbers of .varve; those of nodes and snapshots begin at 1024. */
    INO_CONTROL = 2, INO_STATUS, INO_METRICS, INO_EVENTS
};
#define FS_CONTROL_NAME ".varve"
#define FS_TIMEOUT_LIVE 1.0
#define FS_TIMEOUT_STORED 86400.0

/*
 * Locks, outermost first. `dirs`: turns of directories (fs_dirs_take); inside them, turns and locks of agent, names and live; only pool
 * workers take them. `lock`: inside it, the locks of the pools. handle.lock: inside it, no other lock of fs; a snapshot's recipe in
 * STORE is opened under it.
 */
struct fs {
    struct fs_conf conf;            /* strings are copies */
    struct agent *agent;
    struct names *names;            /* these come from the agent when serving begins */
    struct catalog *catalog;
    struct live_set *live;
    struct fuse_session *se;
    bool add_flag;                  /* INIT is being answered (fs_device.c) */
    struct fs_point point;          /* where it is mounted */
    struct pool *io;                /* reads that may go to STORE */
    struct pool *ctl;               /* changes of names, freezes, fsync, the queues of disks */
    struct pool *answers;           /* answers parked requests; waits for nobody */
    struct pool *notify;            /* tells the kernel what changed: may wait for the other two, which never wait for it */
    unsigned threads;               /* FUSE threads */
    unsigned inline_max;            /* FUSE threads that may wait for STORE at a time; the others stay free */
    atomic_uint inline_now;
    struct turns *dirs;             /* order changes of names that take several steps, in each directory */

    pthread_mutex_t lock;           /* guards what fs_handle.h says, and handles, disks, procs, settle_stop, gone, parks */
    struct handle *handles;
    struct fs_disk *disks[FS_DISK_BUCKETS];
    struct proc *procs;             /* fs_proc.c */
    unsigned nprocs;
    pthread_t settler;              /* fs_settle.c */
    int settle_fd;                  /* eventfd: the settler looks again; -1: there is none */
    bool settle_stop;
    struct gone *gone[FS_DISK_BUCKETS]; /* fs_gone.c */
    atomic_uint ngone;
    struct park *parks;             /* requests that wait without a thread (fs_wait.c) */

    atomic_bool stopping;
    atomic_bool serving;
    pthread_t main_thread;
    int stop_fd;                    /* eventfd that signal handlers and fs_stop write to */
};

static inline struct fs *fs_of(fuse_req_t req) { return fuse_req_userdata(req); }
static inline struct handle *handle_of(const struct fuse_file_info *fi) { return fi ? (struct handle *)(uintptr_t)fi->fh : NULL; }

/* ---- pooled requests (fs_pooled.c) ---- */
struct op {
    struct pool_task task;          /* first; it runs op_run */
    struct fs *f;
    fuse_req_t req;                 /* NULL: the request is parked */
    struct park *park;
    int64_t uid;                    /* who asked, for the log; AGENT_ITSELF: the kernel does not say */
    bool killed;                    /* of a flush: its process has been killed */
    struct proc *proc;              /* of a flush: that process, referenced; NULL: unknown */
    void (*fn)(struct op *op);      /* answers the request; does not free op */
    struct fs_disk *disk;           /* the op runs on its queue and holds a reference; NULL: not on a queue */
    fuse_ino_t ino, ino2;
    struct handle *h, *h2;
    struct fuse_file_info fi;
    bool has_fi;
    bool again;                     /* fn asked to run once more */
    bool at_once;                   /* ... without a pause before */
    int64_t deadline_ns;            /* when op_retry gives up; 0: not asked yet */
    uint64_t off, off2;
    size_t len;
    unsigned flags;
    uint32_t mode;
    struct stat attr;
    char *name, *name2;             /* inside data */
    void *data;                     /* behind the struct */
    size_t data_len;
};
/* Makes an op with copies of name, name2 and data, which may be NULL. NULL: the request was refused or memory is short, and
 * op_new has answered it. */
struct op *op_new(fuse_req_t req, void (*fn)(struct op *), const char *name, const char *name2, const void *data, size_t data_len);
/* The same for flush and release, which are never refused. NULL: no memory, and the request is answered. */
struct op *op_new_always(fuse_req_t req, void (*fn)(struct op *));
void op_submit(struct op *op, struct pool *p);
/* Runs the op on the queue of the disk; takes over the caller's reference. */
void op_submit_disk(struct op *op, struct fs_disk *d);
/* Called by fn: the op goes on with the new op->fn on the queue of the new op->disk. */
void op_move_on(struct op *op);
/* Called by fn when the disk is in use by handles that seem to be closing. True: fn returns at once without an answer, and runs
 * again later. False: FS_GRACE_MS are over. */
bool op_retry(struct op *op);

/* May this FUSE thread do work that may wait for STORE? Some FUSE threads always stay free of it. After true the thread calls
 * fs_inline_leave when it is done. */
bool fs_inline_enter(struct fs *f);
void fs_inline_leave(struct fs *f);

/* ---- errors ---- */
/* The positive errno to answer with for rc, which is -errno. Logs errors that a user cannot cause. */
int fs_errno(const char *what, uint64_t ino, int rc, const struct verr *err);
/* The same for reads and writes of data, where an unexpected error becomes EIO. */
int fs_io_errno(const char *what, uint64_t ino, int rc, const struct verr *err);
/* Answers with the error. */
void fs_reply_fail(fuse_req_t req, const char *what, uint64_t ino, int rc, const struct verr *err);
/* This thread's buffer, at least len bytes long, valid until the thread's next call. NULL: no memory. */
void *fs_thread_buffer(size_t len);
/* Nanoseconds of the wall clock, and of the monotonic one. */
int64_t fs_now_ns(void);
int64_t fs_mono_ns(void);
/* Do owner, group and mode allow the request's process what it wants (bits as in a mode's last digit)? */
bool fs_may(fuse_req_t req, uint32_t uid, uint32_t gid, uint32_t mode, unsigned want);

/* The user for whom the agent answers the request: root sees all, others see the snapshots that they may read. */
struct agent_viewer fs_viewer(fuse_req_t req);

/* ---- attributes (fs_attr.c) ---- */
/* What an inode number stands for. fs_what: -ESTALE when it stands for nothing any more; the kernel then looks the name up again. */
struct what {
    enum { WHAT_NODE = 1, WHAT_SNAP, WHAT_ORPHAN, WHAT_LABEL, WHAT_CONTROL, WHAT_GONE } kind;
    bool moved;                     /* the number is that of a disk that was renamed onto the one here while it was open */
    struct node node;               /* WHAT_NODE, WHAT_ORPHAN: the node; WHAT_LABEL: the disk that gets a snapshot */
    struct snaprow snap;            /* WHAT_SNAP */
    uint64_t size;                  /* WHAT_LABEL */
    struct stat gone;               /* WHAT_GONE: a directory, snapshot or closed disk that was removed while the kernel still knows it */
};
int fs_what(struct fs *f, uint64_t ino, struct what *out, struct verr *err);
int fs_stat(struct fs *f, uint64_t ino, const struct what *w, struct stat *st, double *timeout, struct verr *err);
int fs_stat_node(struct fs *f, const struct node *n, struct stat *st, struct verr *err);
void fs_stat_snap(struct fs *f, const struct snaprow *s, struct stat *st);
void fs_stat_listed(struct fs *f, const struct listed *item, struct stat *st);
void fs_stat_label(struct fs *f, uint64_t ino, const struct node *disk, uint64_t size, struct stat *st);
int fs_entry_of(struct fs *f, const struct entry *e, struct fuse_entry_param *out, struct verr *err);
int fs_entry_of_node(struct fs *f, const struct node *n, struct fuse_entry_param *out, struct verr *err);

/* ---- inode numbers that outlive the kernel's inode (fs_export.c) ---- */
/* The generation that goes with an inode number wherever it is told to the kernel, which takes another one for another object. */
uint64_t fs_generation_node(const struct node *n);
uint64_t fs_generation_snap(const struct vid *id);
/* The entry of "." (up: "..") in an inode of any kind. -ESTALE: it stands for nothing that has a name. */
int fs_export_lookup(struct fs *f, uint64_t ino, bool up, struct fuse_entry_param *e, struct verr *err);

/* ---- what was removed while the kernel still knows it (fs_gone.c) ---- */
/* Called before a removal that the kernel asked for is answered: the attributes, which it had before, stay until the kernel forgets the
 * inode. */
void fs_gone_add(struct fs *f, const struct stat *st);
bool fs_gone_find(struct fs *f, uint64_t ino, struct stat *out);
void fs_gone_set(struct fs *f, uint64_t ino, const struct stat *attr, unsigned to_set);
void fs_gone_free(struct fs *f);

/* The node of a directory. -ENOTDIR: the inode is something else. */
int fs_dir_node(struct fs *f, uint64_t ino, struct node *out, struct verr *err);
/* Finds the directory op->ino, and op->ino2 unless it is 0, and takes their turns: no other request changes names in them. -errno: no
 * turn was taken. On a pool worker. */
struct fs_dirs { struct turn turn; struct vid ids[2]; struct node dir, dir2; };
int fs_dirs_take(struct op *op, struct fs_dirs *d, struct verr *err);
void fs_dirs_give(struct op *op, struct fs_dirs *d);

/* ---- changes of data (fs_change.c) ---- */
/* Truncates to size 0: freezes what is due, then empties the image and marks it LIVE_REWRITING. On the disk's queue, without another
 * writer. */
int fs_rewrite(struct fs *f, const struct node *node, struct live *live, struct verr *err);
/* Freezes one disk. flags: as due_flags (disk/due.h) gives them. */
int fs_freeze(struct fs *f, const struct node *node, unsigned flags, const char *label, const char *note, struct snaprow *out,
              struct verr *err);
/* Notes that a handle reads or writes its disk: it is in use, and the kernel has finished its open. */
void fs_note_use(struct handle *h);
/* Ends a handle on a disk and frees it. The last writer's end freezes remaining changes; the last handle's end removes an orphan. On the
 * disk's queue. */
void fs_close_disk(struct fs *f, struct handle *h);
/* Of a handle on a disk: puts what its stream (ingest/ingest.h) holds back into the live image. */
int fs_stream_flush(struct handle *h, struct verr *err);
void fs_stream_close(struct handle *h);

/* ---- what closes made, until it is settled (fs_settle.c). On the disk's queue where nothing else is said. ---- */
/* seq 0: an image of zeros. by: the handle that was closed; op: its flush, NULL: no flush came. -ENOMEM. */
int fs_made_add(struct fs_disk *d, uint64_t seq, bool clean, struct handle *by, struct op *op);
bool fs_made_any(struct fs_disk *d);            /* is a snapshot among it? */
void fs_made_released(struct fs_disk *d, const struct handle *h);
/* Called before data change through a handle, by that request: marks the handle as changed, and withdraws or settles what the change
 * concerns (due_changed). Nothing is to be done while made_seen of the handle is made_gen of the disk. */
int fs_will_change(struct handle *h, fuse_req_t req, struct verr *err);
/* Called before the disk gets another content as a whole: emptied, reverted, replaced, removed. */
void fs_will_replace(struct fs_disk *d);
void fs_settle_due(struct fs_disk *d);          /* settles what due_settles says */
void fs_settle_released(struct fs_disk *d);     /* ... whatever is released */
/* Any thread, from here on. */
void fs_settle_look(struct fs *f);              /* something may be due earlier */
/* A user waits for what is pending of one disk (NULL: of all). Returns a disk that is to be settled first, referenced: the caller calls
 * fs_settle_due on its queue, and asks again. */
struct fs_disk *fs_settle_ask(struct fs *f, const struct fs_disk *only);
int fs_settle_start(struct fs *f, struct verr *err);
void fs_settle_stop(struct fs *f);
/* After all pools have ended: settles what is released, forgets the rest. */
void fs_settle_end(struct fs *f);

/* ---- processes (fs_proc.c) ---- */
struct pollfd;
/* The process of a task that closes a file; 0: unknown. *killed: a signal ends it. To be asked before its flush is answered, or may be
 * answered: an ended process cannot be looked at. */
long fs_task_closing(long pid, bool *killed);
/* The process of a task that waits for its request; 0: unknown, or a thread of the kernel. */
long fs_task_process(long pid);
/* Has the task a pending signal that kills it? False also when this cannot be read. */
bool fs_task_killed(long pid);
/* A reference; NULL: unknown, or too many. */
struct proc *fs_proc_get(struct fs *f, long tgid);
void fs_proc_put(struct fs *f, struct proc *p);
/* fs.lock held. NULL is allowed: unknown. */
void fs_proc_ref_locked(struct proc *p);
bool fs_proc_ended_locked(struct proc *p);
bool fs_proc_is_locked(struct proc *p, long tgid);
/* Fills out with those not known to have ended, at most FS_PROCS_MAX. */
unsigned fs_proc_poll_locked(struct fs *f, struct pollfd *out);

/* ---- waiting for the agent (fs_wait.c) ---- */
/* A thread kept for answers calls reply(req, result, why, arg) when all snapshots of `ids` are stored, one has failed, the timeout is
 * over, the request is interrupted or the daemon stops. why may be NULL or empty. reply frees arg; the agent copies ids. begins: see
 * agent_wait_start. */
typedef void (*fs_wait_fn)(fuse_req_t req, int result, const struct verr *why, void *arg);
void fs_wait(struct fs *f, fuse_req_t req, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms, fs_wait_fn reply, void *arg);
/* The same in steps, for a request that first waits for the queue of its disk: fs_park, then one call of fs_park_end or fs_park_wait.
 * After fs_park the caller no longer uses the request. unless_killed: only a signal that kills the requesting task interrupts the
 * request. NULL: no memory, and the request is answered. */
struct park *fs_park(struct fs *f, fuse_req_t req, bool unless_killed, fs_wait_fn reply, void *arg);
/* Once, by who called fs_park, when everything that must come before the answer is in its queue: until then there is no answer and no
 * interrupt. p is not the caller's any more. */
void fs_park_arm(struct park *p);
void fs_park_end(struct park *p, int result, const struct verr *why);
void fs_park_wait(struct park *p, const struct vid *ids, unsigned n, bool begins, int64_t timeout_ms);
/* Called when serving ends: answers every request that waits for the agent with -EINTR. */
void fs_wait_end(struct fs *f);

/* ---- parts of operations that other files use ---- */
bool fs_label_valid(const char *label, size_t len);
/* LABEL out of NAME@LABEL.EXT for the disk NAME.EXT. -EINVAL: the name has another form, or LABEL is not a valid label. */
int fs_label_of(const char *disk, const char *name, char label[65]);
/* CREATE of a name with an at sign, and FLUSH of the handle that it opened. Both answer. */
void fs_label_create(struct op *op);
void fs_label_flush(struct op *op);
/* A change of data or size through a label handle: answers EROFS, and the handle takes no snapshot; one that it has taken goes. */
void fs_label_refuse(fuse_req_t req, fuse_ino_t ino, struct handle *h);
/* -ESTALE: the handle was cut off, whatever was read. */
ssize_t fs_disk_handle_read(struct handle *h, uint64_t off, void *buf, size_t len, enum live_reach reach, struct verr *err);
int fs_snap_handle_open(struct fs *f, const struct snaprow *s, struct handle **out, struct verr *err);
ssize_t fs_snap_handle_read(struct fs *f, struct handle *h, uint64_t off, void *buf, size_t len, struct verr *err);
off_t fs_snap_handle_seek(struct fs *f, struct handle *h, uint64_t off, bool hole, struct verr *err);
/* The same for a stored snapshot that is open already, if the answer is near `off`. -EAGAIN: fs_snap_handle_seek finds the answer. */
off_t fs_snap_handle_seek_near(struct handle *h, uint64_t off, bool hole, struct verr *err);
/* Makes the kernel drop its attributes and pages of the inode, all of them or those of the range. Not called on a FUSE thread. */
void fs_inval_inode(struct fs *f, uint64_t ino);
void fs_inval_range(struct fs *f, uint64_t ino, uint64_t off, uint64_t len);
/* The pages of the inodes of disks that were renamed onto this one while they were open. len 0: up to the end. */
void fs_inval_moved(struct fs_disk *d, uint64_t off, uint64_t len);
/* Makes a disk: an empty live image, then its record. The caller has the turn of `dir`. -EAGAIN: an unlinked image of that history is still
 * open; the caller tries again by op_retry. */
int fs_make_disk(struct op *op, const struct node *dir, struct node *out, struct verr *err);
/* May a removed disk come back? -EBUSY: somebody still has it open; -EAGAIN: it is just being closed. mine: its fs_disk, if the caller
 * runs on that disk's queue and clears its mark `dying`; else NULL. */
int fs_check_removed(struct fs *f, const struct node *gone, const struct fs_disk *mine, struct verr *err);

/* .varve (fs_control.c) */
static inline bool ino_is_control(uint64_t ino) { return ino >= INO_CONTROL && ino <= INO_EVENTS; }
uint64_t control_lookup(uint64_t parent, const char *name);     /* 0: the name does not belong to .varve */
void control_stat(uint64_t ino, struct stat *st);
void control_open(fuse_req_t req, uint64_t ino, const struct fuse_file_info *fi);
int control_list(struct handle *h);

/* fs_device.c. fs_device_use: after fuse_session_mount, before the first request. fs_answer_init: the process has no other thread yet that
 * reads requests. */
int fs_device_use(struct fs *f, struct verr *err);
int fs_answer_init(struct fs *f, struct verr *err);

/* ---- operations ---- */
void fs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup);
void fs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi);
void fs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void fs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void fs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void fs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void fs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent, const char *newname, unsigned int flags);
void fs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fs_op_statfs(fuse_req_t req, fuse_ino_t ino);
void fs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void fs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi);
void fs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi);
void fs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi);
void fs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi);
void fs_op_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in, fuse_ino_t ino_out, off_t off_out,
                           struct fuse_file_info *fi_out, size_t len, int flags);
void fs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void fs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void fs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi, unsigned flags, const void *in_buf,
                 size_t in_bufsz, size_t out_bufsz);

#endif
