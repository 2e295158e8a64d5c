/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ingest: streams. A stream serves a handle that writes a disk from front to back, as cp does with last night's image. It compares the
 * data with a stored snapshot of the disk, its parent, before they reach the layer: a segment that is equal becomes a pointer to the
 * parent's segment, any other segment is written.
 *
 * Threads: every function may be called by any thread; calls for one stream may come side by side. A stream works on the pool.
 * Nothing here waits for the end of a publication. The lock of `ingest` is taken inside any other and never held across I/O.
 */
#ifndef VARVE_INGEST_INGEST_H
#define VARVE_INGEST_INGEST_H

#include "format/snapinfo.h"
#include "live/live.h"
#include "snapshot/snapshot.h"

struct ingest;
struct stream;
struct pool;

struct ingest_env {             /* borrowed: store, segread and pool outlive the ingest */
    struct store *store;
    struct segread *segread;
    struct pool *pool;          /* NULL: the writer's thread does the work */
    unsigned streams;           /* the most that exist at a time; each takes three segments of memory (6 MiB) */
};

int ingest_new(const struct ingest_env *env, struct ingest **out, struct verr *err);
/* All streams have been closed before. NULL is allowed. */
void ingest_free(struct ingest *in);

/* ---- streams ---- */

struct stream_conf {
    struct live *live;          /* borrowed until the stream is closed */
    struct snap *parent;        /* a stored snapshot that the disk may point to; a stream that was opened closes it */
    /* Called by any thread for a range that stream_write took and that cannot be put into the live image. */
    void (*lost)(void *ctx, uint64_t off, uint64_t len);
    void *ctx;
};

/* Is there room for another stream? Another thread may take that room before the caller opens one. */
bool ingest_has_room(struct ingest *in);
/* Opens a stream for a write-only handle. NULL: there is no room, no memory, or the disk has a stream already; the caller keeps the
 * parent and writes with live_write. */
struct stream *stream_open(struct ingest *in, const struct stream_conf *conf);
/* 1: the stream has taken the data; a killed daemon may lose them until stream_flush or a flush of the disk. 0: not taken, write them
 * with live_write. -errno: this write failed, or data of an earlier one were lost. */
int stream_write(struct stream *s, uint64_t off, const void *data, size_t len, struct verr *err);
/* Puts all taken data into the live image. -errno: some of them were lost; every later call says so too. */
int stream_flush(struct stream *s, struct verr *err);
/* Flushes, closes the parent and frees; an error of the flush reaches the caller only through `lost`. NULL is allowed. */
void stream_close(struct stream *s);

/* ---- anchors ----
 * A stream anchors its parent before it gives up the first buffer, but table entries that need the anchor come later. From then until
 * its close the stream has the anchor pinned, and nobody drops it. */

struct anchor_drop {            /* memory of the caller; between begin and end it is linked in the list of `ingest` */
    struct anchor_drop *next;
    const struct live *live;
    struct snapref snap;
};

/* Marks an anchor of the disk as being dropped: a stream that needs it meanwhile writes data instead of pointers. false: a stream has
 * the anchor pinned, and there is nothing to end. true does not mean that the anchor is unused: a stream that was closed before may
 * have left pointers to the snapshot. */
bool ingest_drop_begin(struct ingest *in, struct anchor_drop *d, const struct live *l, const struct live_anchor *an);
void ingest_drop_end(struct ingest *in, struct anchor_drop *d);

#endif
