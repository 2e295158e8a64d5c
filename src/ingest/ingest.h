/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ingest: streams, that is handles that write a disk from front to back, as cp does with last night's image. A stream compares what is
 * written with a stored snapshot of the disk, its parent, before anything reaches the layer: a segment that is equal becomes a pointer
 * to the parent's, any other one is written.
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

struct ingest_env {             /* borrowed; all of it outlives the ingest */
    struct store *store;
    struct segread *segread;
    struct pool *pool;          /* NULL: the writer's thread does the work */
    unsigned streams;           /* so many at a time; each takes three segments of memory (6 MiB) */
};

int ingest_new(const struct ingest_env *env, struct ingest **out, struct verr *err);
/* All streams are closed. NULL is allowed. */
void ingest_free(struct ingest *in);

/* ---- streams ---- */

struct stream_conf {
    struct live *live;          /* borrowed until the stream is closed */
    struct snap *parent;        /* a stored snapshot that the disk may point to; the stream closes it, if there is one */
    /* Of a range that was taken and cannot be put into the live image; called by any thread. */
    void (*lost)(void *ctx, uint64_t off, uint64_t len);
    void *ctx;
};

/* Is there room for another stream? It may be taken meanwhile. */
bool ingest_has_room(struct ingest *in);
/* NULL: no stream (no room, no memory, or the disk has one), and the caller keeps the parent: write with live_write. Only for the
 * disk's write-only handles. */
struct stream *stream_open(struct ingest *in, const struct stream_conf *conf);
/* 1: taken; durable, or safe from a kill, no sooner than after a flush or an fsync. 0: not taken, write it with live_write. -errno:
 * also when something taken before was lost. */
int stream_write(struct stream *s, uint64_t off, const void *data, size_t len, struct verr *err);
/* All that was taken is in the live image; -errno: not all. */
int stream_flush(struct stream *s, struct verr *err);
/* Flushes and frees. NULL is allowed. */
void stream_close(struct stream *s);

/* ---- anchors ----
 * A stream anchors its parent before it gives up the first buffer, and no entry of a table may say so for a while. From then to its
 * close it has the parent pinned, and nobody drops that anchor. */

struct anchor_drop {            /* the caller's; between begin and end the list of `ingest` has it */
    struct anchor_drop *next;
    const struct live *live;
    struct snapref snap;
};

/* Marks an anchor of the disk as being dropped: a stream that wants it meanwhile writes instead of pointing. false, and nothing to
 * end: a stream has it pinned. A stream that was closed before may have pointed to the snapshot: true says nothing about that. */
bool ingest_drop_begin(struct ingest *in, struct anchor_drop *d, const struct live *l, const struct live_anchor *an);
void ingest_drop_end(struct ingest *in, struct anchor_drop *d);

#endif
