/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seqfile: the round's files that are written once, front to back, and read front to back, through one buffer each.
 * Nothing here is durable: a round that dies is done again from the frozen layers, and its directory is removed.
 */
#ifndef VARVE_DEDUP_SEQFILE_H
#define VARVE_DEDUP_SEQFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct verr;

enum { SEQ_NAME = 32 };

/* buf NULL and off 0: not open. A zeroed object is a closed one. off > 0: so much of it is in its file. */
struct seqout { int dirfd, fd; char name[SEQ_NAME]; uint8_t *buf; size_t cap, used; uint64_t off; };
struct seqin { int fd; uint8_t *buf; size_t cap, have, pos; uint64_t off; bool borrowed; };

/* Makes a file (it must not exist) with a buffer of cap bytes. 0 or -errno; on failure nothing is held. */
int seqout_open(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err);
/* The same, but the file is made only when the buffer is full: most rounds are small and need none. dirfd is borrowed. */
int seqout_spool(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err);
int seqout_put(struct seqout *o, const void *data, size_t len, struct verr *err);
/* Ends the writing of a spool, which is read with seqin_over and seqout_memory until seqout_discard. Up to `keep` bytes stay in
 * memory; otherwise all of it is in its file, and neither buffer nor descriptor is held. */
int seqout_end(struct seqout *o, size_t keep, struct verr *err);
/* What was put into a spool that has ended, if it is in memory; NULL when it is in its file. */
static inline const uint8_t *seqout_memory(const struct seqout *o) { return o->off == 0 ? o->buf : NULL; }
/* Closes a spool and removes its file, if it has one. Safe on a zeroed object. */
void seqout_discard(struct seqout *o);
/* Flushes and closes; also safe on an object that was zeroed or closed already. */
int seqout_close(struct seqout *o, struct verr *err);
/* Closes without flushing. */
void seqout_drop(struct seqout *o);

/* -ENOENT when there is no such file: err is left alone then. */
int seqin_open(struct seqin *in, int dirfd, const char *name, size_t cap, struct verr *err);
/* Exactly len bytes: 1; 0 at the end of the file; -EBADMSG when the file ends inside them; -errno. */
int seqin_get(struct seqin *in, void *data, size_t len, struct verr *err);
/* A reader of a spool that has ended: it must end before the spool is discarded. Several may read one spool. */
int seqin_over(struct seqin *in, const struct seqout *o, size_t cap, struct verr *err);
void seqin_close(struct seqin *in);

#endif
