/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_handle: what is open. A `handle` is what a program's open() made; an `fs_disk` exists for each disk that has a handle
 * or an operation running, and counts who writes.
 *
 * Each fs_disk has a queue: what changes the set of its writers, or must not run beside such a change (open for writing,
 * truncate, flush, release, revert, unlink, copy into it), runs there one at a time in order of arrival, on a pool worker.
 *
 * Guarded by fs.lock: the table, refs, handles, writers, orphan, dying, node and the list of handles.
 * Used by tasks of the disk's queue only: clean, ever_clean, made.
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

/* A provisional snapshot that a flush made: settled when the last writer goes. */
struct made {
    uint64_t seq;
    bool clean;                     /* that flush came from a process that was not killed */
};

/* A range that a program was told could not be written, and that nobody has written since. */
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
    struct live *live;              /* from the first handle on, until the last reference goes */
    struct handle *list;            /* its handles */
    unsigned handles, writers;
    atomic_uint cached;             /* handles through which the kernel may keep pages */
    atomic_bool coherent;           /* one of these has been used, so its open has dropped what was old; since then the kernel is
                                     * told of each change: the next open need not drop the pages again. While there is none,
                                     * kernels before 6.6 keep pages that a direct write has made old */
    bool orphan;                    /* unlinked while open */
    bool dying;                     /* being unlinked or replaced: nobody may open it any more */
    struct node node;               /* of an orphan: attributes for fstat */

    atomic_bool touched;            /* data changed since the first of the present writers came */
    bool clean;                     /* the flush after the last change was a clean one */
    bool ever_clean;                /* one of the flushes was */
    struct made *made;
    unsigned nmade, made_cap;

    pthread_mutex_t refused_lock;   /* guards the two below; taken inside no other lock, and no other inside it */
    struct refused refused[REFUSED_MAX];
    atomic_uint nrefused;
    atomic_bool size_refused;       /* a change of its size was refused, and none has succeeded since */

    struct pool_serial queue;
};

enum handle_kind { HANDLE_DISK = 1, HANDLE_SNAP, HANDLE_LABEL, HANDLE_DIR, HANDLE_TEXT };
enum label_state { LABEL_NEW = 0, LABEL_TAKEN, LABEL_SPOILT };

/* One line of a directory listing, with what `ls -l` asks of a snapshot. */
struct listed {
    uint64_t ino;
    size_t name_off;
    uint64_t size, alloc_bytes;
    int64_t mtime_ns;
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
    bool may_change;                /* a writer, or opened with access mode 3: for ioctls alone */
    bool direct;                    /* write-only: its writes come as large as the writer's, past the page cache */
    bool keeps_cache;               /* its open leaves the kernel's pages as they are */
    struct stream *_Atomic stream;  /* of a direct one that writes in large pieces; NULL: none */
    bool stream_asked;              /* handle lock: whether it gets one was decided */
    atomic_bool changed;            /* data changed through it since its last freeze */
    atomic_bool idle;               /* its last request was a flush: its release may be on the way */
    _Atomic uint64_t made_seq;      /* what its last flush made; 0 none */

    /* HANDLE_SNAP */
    struct snapref snap_ref;
    uint64_t snap_size;
    struct live *live;              /* of the snapshot's disk, while it may be pending */
    struct snap *snap;              /* the stored one, once opened */

    /* HANDLE_LABEL */
    struct node label_disk;
    char label[65];
    enum label_state label_state;
    uint64_t label_size;
    struct vid label_snap;          /* what its flush made */

    /* HANDLE_DIR */
    struct vid dir;
    bool control;                   /* it is .varve */
    struct listing listing;

    /* HANDLE_TEXT, and `varve log` on a disk, snapshot or directory */
    uint32_t text_uid;              /* whom the history in text was made for */
    char *text;
    size_t text_len;
};

struct handle *handle_new(struct fs *f, enum handle_kind kind, uint64_t ino);
/* Takes it off the lists and frees it with all it holds. Of a disk: fs_disk_detach comes first. NULL is allowed. */
void handle_free(struct fs *f, struct handle *h);
/* The label handle whose temporary inode that is: copies what attributes need. 0 or -ENOENT. */
int handle_label_by_ino(struct fs *f, uint64_t ino, struct node *disk, uint64_t *size);
void listing_clear(struct listing *l);

/* With a reference: fs_disk_put. NULL: no memory. find: NULL also if it is not there. */
struct fs_disk *fs_disk_get(struct fs *f, const struct vid *id);
struct fs_disk *fs_disk_find_ino(struct fs *f, uint64_t ino);
void fs_disk_put(struct fs_disk *d);
/* Opens the live image (once). -ENOENT: this host has none. */
int fs_disk_open_live(struct fs_disk *d, struct verr *err);
/* Gives the live image back, so that it can be removed. Only when no handle is left. */
void fs_disk_close_live(struct fs_disk *d);
/* Counts the handle. -ESTALE: the disk is going. The handle takes a reference of its own. */
int fs_disk_attach(struct fs_disk *d, struct handle *h, bool writer);
/* Uncounts it. *writers, *handles: how many are left; *orphan. */
void fs_disk_detach(struct fs_disk *d, struct handle *h, unsigned *writers, unsigned *handles, bool *orphan);
/* Others than `me` (NULL: all) that have it open; writers only, or any handle. 0 none; 1 each of them sent a flush last, so that
 * its release may be on the way; 2 some are in use. */
int fs_disk_others(struct fs_disk *d, const struct handle *me, bool writers_only);

/* Runs the task on the disk's queue, and keeps the disk until it has run. */
void fs_disk_submit(struct fs_disk *d, struct pool_task *task);

int fs_disk_made_add(struct fs_disk *d, uint64_t seq, bool clean);
void fs_disk_made_del(struct fs_disk *d, uint64_t seq);

/* What a program was refused is missing in the image, whatever the program does about it: until the same range is written
 * after all, or the image shrinks below it, a snapshot that a close makes is partial. Of any thread. */
void fs_disk_refused(struct fs_disk *d, uint64_t off, uint64_t len);
void fs_disk_written(struct fs_disk *d, uint64_t off, uint64_t len);
void fs_disk_resized(struct fs_disk *d, uint64_t size, int rc);     /* rc: what it came to */
bool fs_disk_lacks(const struct fs_disk *d);
void fs_disk_lacks_nothing(struct fs_disk *d);                      /* its last writer has gone */

#endif
