/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_handle: what is open. A `handle` is what a program's open() made. An `fs_disk` exists for each disk that has a handle
 * or a running operation; it counts the disk's writers.
 *
 * Each fs_disk has a queue. Operations that change the set of its writers, or that must not run beside such a change (open for
 * writing, truncate, flush, release, revert, unlink, copy into it), run there one at a time in order of arrival, on a pool worker.
 *
 * A disk that is renamed onto another one while readers have it open: they go on with the target, as on any filesystem. Their fs_disk
 * stays, without a name, and leads there (`moved`); the target counts their handles as its own.
 *
 * fs.lock guards the table, refs, handles, writers, orphan, dying, node and the list of handles.
 * Only tasks of the disk's queue use killed, ever_killed and ever_clean; they alone change made, under fs.lock.
 */
#ifndef VARVE_FS_FS_HANDLE_H
#define VARVE_FS_FS_HANDLE_H

#include "base/pool.h"
#include "catalog/catalog.h"
#include "live/live.h"
#include "snapshot/snapshot.h"

#include <pthread.h>
#include <stdatomic.h>

struct fs;
struct handle;

/* What a close has made: a provisional snapshot, or none yet of an image of zeros. fs_settle.c settles it. */
struct made {
    uint64_t seq;                   /* 0: the image is zeros */
    bool clean;                     /* the close came from a process that was not killed, and that was refused nothing */
    bool dead;                      /* it came from a killed process */
    bool asked;                     /* a user waits */
    const struct handle *by;        /* the closed handle, while it is not released */
    struct proc *proc;              /* the process that closed it, referenced; NULL: unknown */
};

/* A range whose write failed with an error, and that no write has filled since. */
struct refused {
    uint64_t off, end;
};
enum { REFUSED_MAX = 64 };          /* more become one range that spans them */

struct fs_disk {
    struct fs_disk *next;           /* in its bucket */
    struct fs *f;
    unsigned refs;
    struct vid id;
    uint64_t ino;
    struct live *live;              /* from the first handle on, until the last one is gone */
    struct handle *list;            /* its handles */
    unsigned handles, writers;      /* handles: also those of disks that were moved here */
    struct fs_disk *_Atomic moved;  /* the disk that this one was renamed onto, referenced, until its last handle is closed */
    atomic_uint moved_here;         /* handles of disks that were moved here: their inodes have pages of this disk's data */
    atomic_uint cached;             /* handles through which the kernel may keep pages */
    atomic_bool coherent;           /* a cached handle has been used, so its open has dropped stale pages. Since then the kernel is
                                     * told of each change, and the next open need not drop the pages again. Without a cached
                                     * handle, kernels before 6.6 keep pages that a direct write has made stale */
    bool orphan;                    /* unlinked while open, or moved */
    bool dying;                     /* being unlinked or replaced: opens fail */
    struct node node;               /* while dying and as an orphan: attributes for fstat */

    atomic_bool touched;            /* data changed since the first of the present writers opened the disk */
    bool killed;                    /* the last flush came from a killed process */
    bool ever_clean, ever_killed;   /* there was a clean flush; one of a killed process, or with a write refused */
    struct made *made;              /* in the order of their making */
    unsigned nmade, made_cap;
    atomic_uint made_gen;           /* counts additions and releases */
    int64_t quiet_ns;               /* when the last writer went (monotonic) */
    struct pool_task settle_task;
    bool settle_posted;             /* it is in the queue */

    pthread_mutex_t refused_lock;   /* guards refused and nrefused; never held together with another lock */
    struct refused refused[REFUSED_MAX];
    atomic_uint nrefused;
    atomic_bool size_refused;       /* a change of its size failed, and none has succeeded since */

    struct pool_serial queue;
};

enum handle_kind { HANDLE_DISK = 1, HANDLE_SNAP, HANDLE_LABEL, HANDLE_DIR, HANDLE_TEXT };
enum handle_cut { CUT_NOT, CUT_PERHAPS /* by a rename that may fail yet */, CUT_OFF };
enum label_state { LABEL_NEW = 0, LABEL_TAKEN, LABEL_SPOILT };

/* One line of a directory listing, with what `ls -l` asks of a snapshot. */
struct listed {
    uint64_t ino;
    size_t name_off;
    uint64_t size, alloc_bytes;
    int64_t mtime_ns;
    uint64_t generation;
    uint32_t mode, uid, gid;
    uint8_t kind;                   /* enum entry_kind */
    bool stored;
};
struct listing {
    struct listed *items;
    size_t count, cap;
    char *names;
    size_t names_len, names_cap;
};

struct handle {
    enum handle_kind kind;
    struct handle *next, *prev;     /* in fs.handles */
    struct handle *disk_next;       /* in fs_disk.list */
    pthread_mutex_t lock;           /* guards opening of snap, label_state, listing, text */
    uint64_t ino;

    /* HANDLE_DISK */
    struct fs_disk *disk;
    bool writer;
    bool may_change;                /* a writer, or opened with access mode 3 (ioctl only) */
    bool direct;                    /* write-only: its writes bypass the page cache and arrive as large as the program made them */
    bool keeps_cache;               /* its open leaves the kernel's pages as they are */
    struct stream *_Atomic stream;  /* of a direct handle that writes in large pieces; NULL: none */
    bool stream_asked;              /* guarded by lock: it was decided whether the handle gets a stream */
    _Atomic enum handle_cut cut;    /* the disk got a content that the opener may not be allowed to read: the handle reads no more */
    atomic_bool changed;            /* data changed through it since its last freeze */
    atomic_uint flushing;           /* flushes in the disk's queue or running: one that comes meanwhile is answered behind them */
    atomic_bool idle;               /* its last request was a flush: its release may be on the way */
    atomic_uint made_seen;          /* made_gen of the disk when it last changed data */
    long process;                   /* that opened it for writing; 0: unknown */

    /* HANDLE_SNAP */
    struct snapref snap_ref;
    uint64_t snap_size;
    struct live *live;              /* of the snapshot's disk, while it may be pending */
    bool held;                      /* as a pending one, against being merged */
    struct snap *snap;              /* the stored one, once opened */

    /* HANDLE_LABEL */
    struct node label_disk;
    char label[65];
    enum label_state label_state;
    uint64_t label_size;
    struct vid label_snap;          /* the snapshot that its flush made */

    /* HANDLE_DIR */
    struct vid dir;
    bool control;                   /* the directory is .varve */
    struct listing listing;

    /* HANDLE_TEXT, and `varve log` or `varve list` on a disk, snapshot or directory */
    uint32_t text_uid;              /* the user that text was made for */
    unsigned text_cmd;              /* the ioctl that it answers */
    char *text;
    size_t text_len;
};

struct handle *handle_new(struct fs *f, enum handle_kind kind, uint64_t ino);
/* Takes the handle off the lists and frees it with all it holds. A handle on a disk is detached first. NULL is allowed. */
void handle_free(struct fs *f, struct handle *h);
/* Finds the label handle that has this temporary inode, and copies what its attributes need. 0 or -ENOENT. */
int handle_label_by_ino(struct fs *f, uint64_t ino, struct node *disk, uint64_t *size);
void listing_clear(struct listing *l);

/* Both return a reference, which fs_disk_put gives back. fs_disk_get makes an fs_disk that is missing; NULL: no memory.
 * fs_disk_find_ino returns NULL when there is none. */
struct fs_disk *fs_disk_get(struct fs *f, const struct vid *id);
struct fs_disk *fs_disk_find_ino(struct fs *f, uint64_t ino);
void fs_disk_put(struct fs_disk *d);
/* The disk whose data the handle reads: its own, or the one that it was moved to. The handle is attached, or fs.lock is held. */
static inline struct fs_disk *handle_disk(const struct handle *h)
{
    struct fs_disk *d = h->disk;
    for (struct fs_disk *next; (next = atomic_load(&d->moved)) != NULL;)
        d = next;
    return d;
}
/* From here on the readers of d read `to`, whose live image is open and which is not moved itself. Nothing is done if d has none. */
void fs_disk_move(struct fs_disk *d, struct fs_disk *to);
/* The disk that d was moved to, as a reference; NULL: none. */
struct fs_disk *fs_disk_moved(struct fs_disk *d);
/* Cuts off all handles that read the disk's data, with CUT_PERHAPS at first. Then CUT_OFF makes that last, CUT_NOT takes it back. */
void fs_disk_cut(struct fs_disk *d, enum handle_cut to);
/* An inode other than the disk's own, through whose handles its data are read: the lowest above `after`. 0: there is none. */
uint64_t fs_disk_moved_ino(struct fs_disk *d, uint64_t after);
/* Opens the live image (once). -ENOENT: this host has none. */
int fs_disk_open_live(struct fs_disk *d, struct verr *err);
/* Gives the live image back, so that it can be removed, unless the disk has a handle. */
void fs_disk_close_live(struct fs_disk *d);
/* Adds the handle to the disk's; it takes a reference of its own. -ESTALE: the disk is dying, or was removed and is not open any more;
 * -EAGAIN: its live image was closed a moment ago. */
int fs_disk_attach(struct fs_disk *d, struct handle *h, bool writer);
/* Takes the handle off its disk. *writers: how many are left; *orphan: the disk has no name any more. */
void fs_disk_detach(struct handle *h, unsigned *writers, bool *orphan);
/* Looks at the disk's handles (only writers, or all) except `me`, which may be NULL. 0: there is none; 1: the last request of each
 * was a flush, so that its release may be on the way; 2: some are in use. */
int fs_disk_others(struct fs_disk *d, const struct handle *me, bool writers_only);

/* Has the last writer of the disk been closed, but not yet released? Who takes a snapshot of it waits for that, for FS_GRACE_MS: the
 * release says that what was closed is whole. Handle `me` does not count. */
bool fs_disk_closing(struct fs *f, const struct node *disk, const struct handle *me);

/* Runs the task on the disk's queue. The queue holds a reference to the disk until the task has run. */
void fs_disk_submit(struct fs_disk *d, struct pool_task *task);

/* A failed write leaves a gap in the image, however the program goes on. Until a write fills the same range, or the image shrinks
 * below it, a snapshot that a close makes is partial. Any thread may call these. */
void fs_disk_refused(struct fs_disk *d, uint64_t off, uint64_t len);
void fs_disk_written(struct fs_disk *d, uint64_t off, uint64_t len);
void fs_disk_resized(struct fs_disk *d, uint64_t size, int rc);     /* rc: result of the attempt to give it that size */
bool fs_disk_lacks(const struct fs_disk *d);
void fs_disk_lacks_nothing(struct fs_disk *d);                      /* forgets all gaps: the last writer has closed the disk */

#endif
