/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuts: cuts and fingerprints of segments that were in memory while a disk was being written, kept for stage 1a, which then need
 * not compute them again after the close. Found by disk, length and keyed digest, all of which 1a has from the bytes that it
 * reads itself: an entry is right for these bytes whatever happened to the disk since, or it is not found.
 *
 * Memory: at most what cuts_new is given; when it is used up, nothing is added. Thread-safe.
 */
#ifndef VARVE_DEDUP_CUTS_H
#define VARVE_DEDUP_CUTS_H

#include "base/id.h"
#include "chunk/chunk.h"
#include "chunk/fingerprint.h"
#include "format/recipe.h"

#include <stddef.h>

struct cuts;
struct cutter;
struct plan_seg;
struct verr;

/* NULL: no memory. */
struct cuts *cuts_new(size_t max_bytes);
void cuts_free(struct cuts *c);
/* Blocks, zero runs and fingerprints of s, of which digest and bytes are set. Where they cannot be kept they are not. */
void cuts_put(struct cuts *c, const struct vid *disk, const struct plan_seg *s);
/* Fills s (kind, blocks, data_pages) if digest and bytes are found, and forgets the entry. */
bool cuts_take(struct cuts *c, const struct vid *disk, struct plan_seg *s);
/* Those of a disk: its round is over, or it is written anew. */
void cuts_forget(struct cuts *c, const struct vid *disk);

/* ---- cutting outside a round. One thread at a time. ---- */
/* chunker is borrowed. NULL: no memory, or err. */
struct cutter *cutter_new(const struct chunker *chunker, struct fper *fper);
void cutter_free(struct cutter *k);
/* Cuts data and keeps the outcome. Trouble is no error: nothing is kept then. */
void cutter_run(struct cutter *k, struct cuts *c, const struct vid *disk, const uint8_t *data, uint32_t bytes,
                const uint8_t digest[DIGEST_BYTES]);

#endif
