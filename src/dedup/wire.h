/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire: the stages' side of the bus: bundles items into frames of `proto`, sends them, and hands arriving frames to their stage.
 * When the bus tells a sender "again", the sender first takes in the frames that wait for this host. A request that gets lost has no
 * answer, which means "new"; only a round that is stopped and failures of STATE are errors of the round. One thread at a time.
 */
#ifndef VARVE_DEDUP_WIRE_H
#define VARVE_DEDUP_WIRE_H

#include "fpindex/fpindex.h"
#include "proto/proto.h"

struct dedup_traffic;
struct round;
struct wire;
struct verr;

/* Discards frames that an older round left on the bus. Memory: two frames, and the round's share for bundles. */
int wire_open(struct round *r, struct wire **out, struct verr *err);
void wire_close(struct wire *w);
/* Adds to *t what was sent so far. */
void wire_traffic(const struct wire *w, struct dedup_traffic *t);

/* ---- holder -> slot owner ---- */
/* *pos: position of the request in the stream of its partition. */
int send_request(struct round *r, const struct fp *fp, uint64_t *pos, struct verr *err);
/* Sends the last bundles, and END to every slot, and makes the file of answers (r->answers). */
int send_requests_end(struct round *r, struct verr *err);
/* Sends the reference of a block that was asked at position pos of its partition; POS_NONE: the block was not asked, or its position
 * is not known. References in ascending order of position go by number (8 bytes), others with their key (32). */
#define POS_NONE UINT64_MAX
int send_reference(struct round *r, const struct fp *fp, uint64_t pos, uint64_t ref, struct verr *err);
int send_references_end(struct round *r, struct verr *err);

/* ---- slot owner -> holder; part is the number in the slot ---- */
int send_summary(struct round *r, uint32_t slot, uint32_t part, uint64_t pos, const uint8_t key[FPKEY_BYTES], uint64_t answer,
                 struct verr *err);
int send_summaries_end(struct round *r, uint32_t slot, struct verr *err);
/* Called for each dup-with-new answer exactly once, in order of position. REF_NONE: the block was not written. */
int send_resolution(struct round *r, uint32_t slot, uint32_t part, uint64_t ref, struct verr *err);
int send_resolutions_end(struct round *r, uint32_t slot, struct verr *err);

/* ---- receiving: each takes in frames until every slot that is alive has its END; a slot whose END does not come is given up ---- */
int requests_complete(struct round *r, struct verr *err);
int summaries_complete(struct round *r, struct verr *err);
int references_complete(struct round *r, struct verr *err);
int resolutions_complete(struct round *r, struct verr *err);

#endif
