/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answers: the VM holder's file of answers: 8 bytes for each request it has sent, one region per partition, by position.
 * Stage 2a puts summaries in; 4b overwrites the "dup-with-new" answers with their resolutions. A request without an answer
 * reads as new: the file is sparse, and a word is stored complemented so that a hole means REF_NONE. One thread at a time.
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

struct answer_window { uint64_t first, resolved; uint32_t n; bool dirty; };     /* resolved: no ANSWER_WAIT is left before it */
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
/* Puts n answers from position pos on. -EPROTO: they lie outside of the requests that were sent. */
int answers_put(struct answers *a, uint32_t part, uint64_t pos, const uint64_t *refs, uint32_t n, struct verr *err);
/* Puts the reference for the next ANSWER_WAIT of a partition: the n-th call answers the n-th of them. REF_NONE: unresolved. */
int answers_resolve(struct answers *a, uint32_t part, uint64_t ref, struct verr *err);
/* Reads one answer; cheap for ascending positions of a partition. */
int answers_get(struct answers *a, uint32_t part, uint64_t pos, uint64_t *ref, struct verr *err);
/* Writes back and forgets all windows, so that another walk can begin. */
int answers_rewind(struct answers *a, struct verr *err);

#endif
