/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answers: the holder's file of answers: 8 bytes per request it has sent, one region per partition, by position.
 * Stage 2a puts summaries in, 4b puts resolutions over what was "dup-with-new". What nobody has answered reads as new:
 * the file is sparse, and a word is stored complemented so that a hole means REF_NONE.
 */
#ifndef VARVE_DEDUP_ANSWERS_H
#define VARVE_DEDUP_ANSWERS_H

#include "format/ref.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct verr;

#define ANSWER_NEW REF_NONE         /* also: no answer */
#define ANSWER_WAIT REF_ZERO        /* dup-with-new: a resolution will say */

struct answer_window { uint64_t first, resolved; uint32_t n; bool dirty; };     /* resolved: positions before it are through */
struct answers {
    int fd;
    uint32_t parts, width;          /* partitions (0: not open); answers kept in memory per partition while reading */
    uint64_t *base, *count;         /* per partition */
    struct answer_window *win;
    uint8_t *buf;
};

/* count: requests sent per partition (copied). memory: for the windows of all partitions together. */
int answers_open(struct answers *a, int dirfd, const uint64_t *count, uint32_t parts, size_t memory, struct verr *err);
void answers_close(struct answers *a);
/* n answers from position pos on. -EPROTO when they lie outside of what was asked. */
int answers_put(struct answers *a, uint32_t part, uint64_t pos, const uint64_t *refs, uint32_t n, struct verr *err);
/* The reference for the next ANSWER_WAIT of a partition: the n-th call is about the n-th of them. REF_NONE: unresolved. */
int answers_resolve(struct answers *a, uint32_t part, uint64_t ref, struct verr *err);
/* Cheap for ascending positions of a partition. */
int answers_get(struct answers *a, uint32_t part, uint64_t pos, uint64_t *ref, struct verr *err);
/* Writes back and forgets what is in memory: before another walk. */
int answers_rewind(struct answers *a, struct verr *err);

#endif
