/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ingest: streams. A stream serves a handle that writes a disk from front to back, as cp does with last night's image. It compares the
 * data with a stored snapshot of the disk, its parent, before they reach the layer: a segment that is equal becomes a pointer to the
 * parent's segment, any other segment is written.
 *
 * Threads: every function may be called by any thread; calls for one stream may come side by side. A stream works on the pool.
 * Nothing here waits for the end of a publication.
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
/* Opens a stream for a write-only handle, and pins the parent's anchor (store/snaps.h) until it is closed. NULL: there is no
 * room, no memory, the disk has a stream already, or that anchor is just being taken away; the caller keeps the parent and writes with
 * live_write. */
struct stream *stream_open(struct ingest *in, const struct stream_conf *conf);
/* 1: the stream has taken the data; a killed daemon may lose them until stream_flush or a flush of the disk. 0: not taken, write them
 * with live_write. -errno: this write failed, or data of an earlier one were lost. */
int stream_write(struct stream *s, uint64_t off, const void *data, size_t len, struct verr *err);
/* Puts all taken data into the live image. -errno: some of them were lost; every later call says so too. */
int stream_flush(struct stream *s, struct verr *err);
/* Flushes, closes the parent and frees; an error of the flush reaches the caller only through `lost`. NULL is allowed. */
void stream_close(struct stream *s);

#endif
