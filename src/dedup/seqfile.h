/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seqfile: the round's files that are written once, front to back, and read front to back, through one buffer each.
 * Nothing here is durable: a round that dies is done again from the frozen layers, and its directory is removed.
 */
#ifndef VARVE_DEDUP_SEQFILE_H
#define VARVE_DEDUP_SEQFILE_H

#include <stddef.h>
#include <stdint.h>

struct verr;

/* buf NULL: not open. A zeroed object is a closed one. */
struct seqout { int fd; uint8_t *buf; size_t cap, used; uint64_t off; };
struct seqin { int fd; uint8_t *buf; size_t cap, have, pos; uint64_t off; };

/* Makes a file (it must not exist) with a buffer of cap bytes. 0 or -errno; on failure nothing is held. */
int seqout_open(struct seqout *o, int dirfd, const char *name, size_t cap, struct verr *err);
int seqout_put(struct seqout *o, const void *data, size_t len, struct verr *err);
/* Flushes and closes; also safe on an object that was zeroed or closed already. */
int seqout_close(struct seqout *o, struct verr *err);
/* Closes without flushing. */
void seqout_drop(struct seqout *o);

/* -ENOENT when there is no such file: err is left alone then. */
int seqin_open(struct seqin *in, int dirfd, const char *name, size_t cap, struct verr *err);
/* Exactly len bytes: 1; 0 at the end of the file; -EBADMSG when the file ends inside them; -errno. */
int seqin_get(struct seqin *in, void *data, size_t len, struct verr *err);
void seqin_close(struct seqin *in);

#endif
