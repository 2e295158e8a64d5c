/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seqfile: files of a round that are written once, front to back, and read front to back, through one buffer each.
 * Nothing here is durable: after a crash the round runs again from the frozen layers, and its old directory is removed.
 */
#ifndef VARVE_DEDUP_SEQFILE_H
#define VARVE_DEDUP_SEQFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct verr;

enum { SEQ_NAME = 32 };

/* off: bytes that are in the file. buf NULL and off 0: not open, as in a zeroed object. */
struct seqout { int dirfd, fd; char name[SEQ_NAME]; uint8_t *buf; size_t cap, used; uint64_t off; };
struct seqin { int fd; uint8_t *buf; size_t cap, have, pos; uint64_t off; bool borrowed; };

/* Makes a new file with a buffer of cap bytes. 0 or -errno (-EEXIST: it is there already); an error leaves nothing open. */
int seqout_open(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err);
/* The same, but the file is made only when the buffer is full: most rounds are small and need none. dirfd is borrowed until the
 * spool is discarded. */
int seqout_spool(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err);
int seqout_put(struct seqout *o, const void *data, size_t len, struct verr *err);
/* Ends the writing of a spool; seqin_over and seqout_memory read it until seqout_discard. A spool of up to `keep` bytes stays in
 * memory; a larger one is in its file alone, without buffer and descriptor. */
int seqout_end(struct seqout *o, size_t keep, struct verr *err);
/* The content of a spool that has ended, if it is in memory; NULL: it is in its file. */
static inline const uint8_t *seqout_memory(const struct seqout *o) { return o->off == 0 ? o->buf : NULL; }
/* Closes a spool and removes its file, if it has one. Safe on a zeroed object. */
void seqout_discard(struct seqout *o);
/* Flushes and closes. Safe on an object that is zeroed or closed. */
int seqout_close(struct seqout *o, struct verr *err);
/* Closes without flushing. */
void seqout_drop(struct seqout *o);

/* Opens a file for reading. -ENOENT: there is no such file; err is unchanged then. */
int seqin_open(struct seqin *in, int dirfd, const char *name, size_t cap, struct verr *err);
/* Reads exactly len bytes: 1; 0 at the end of the file; -EBADMSG: the file ends inside them; -errno. */
int seqin_get(struct seqin *in, void *data, size_t len, struct verr *err);
/* Opens a reader of a spool that has ended. It is closed before the spool is discarded. A spool may have several readers. */
int seqin_over(struct seqin *in, const struct seqout *o, size_t cap, struct verr *err);
void seqin_close(struct seqin *in);

#endif
