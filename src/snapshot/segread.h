/* SPDX-License-Identifier: Apache-2.0 */
/* segread: segments by place: segment recipe (small cache) -> blocks (creader). Thread-safe. */
#ifndef VARVE_SNAPSHOT_SEGREAD_H
#define VARVE_SNAPSHOT_SEGREAD_H

#include "format/recipe.h"
#include "live/live.h"

struct creader;
struct segread;

/* recipes: number of decoded segment recipes kept. r is borrowed. */
int segread_new(struct creader *r, unsigned recipes, struct segread **out, struct verr *err);
void segread_free(struct segread *sr);

/* Bytes of a segment; beyond the recipe's length they are zero. off + len <= SEG_BYTES. */
int segread_read(struct segread *sr, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err);
/* Next data or hole (4 KiB granularity: a page with any block byte is data) at or after off; SEG_BYTES if none. */
int segread_seek(struct segread *sr, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err);
int segread_pages(struct segread *sr, uint64_t place, uint32_t *out, struct verr *err);
/* A private copy of the decoded recipe: segrcp_release. */
int segread_recipe(struct segread *sr, uint64_t place, struct segrcp *out, struct verr *err);
/* These calls as the table that `live` takes. */
struct seg_source segread_source(struct segread *sr);

#endif
