/* SPDX-License-Identifier: Apache-2.0 */
/* segread: reads a segment by its place: the segment recipe, of which a few are cached, then blocks by creader. Any thread may call. */
#ifndef VARVE_SNAPSHOT_SEGREAD_H
#define VARVE_SNAPSHOT_SEGREAD_H

#include "format/recipe.h"
#include "live/live.h"

struct creader;
struct segread;

/* recipes: the number of decoded segment recipes that are cached. r is borrowed until segread_free. */
int segread_new(struct creader *r, unsigned recipes, struct segread **out, struct verr *err);
void segread_free(struct segread *sr);

/* Reads len bytes at off of a segment; bytes beyond the recipe's length are zero. off + len <= SEG_BYTES. */
int segread_read(struct segread *sr, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err);
/* The next data or hole at or after off; SEG_BYTES if there is none. In units of 4 KiB: a page with any byte of a block is data. */
int segread_seek(struct segread *sr, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err);
/* The number of 4 KiB pages with data in the segment. */
int segread_pages(struct segread *sr, uint64_t place, uint32_t *out, struct verr *err);
/* Decodes the recipe for the caller, who frees it by segrcp_release. */
int segread_recipe(struct segread *sr, uint64_t place, struct segrcp *out, struct verr *err);
/* The functions above as the table that `live` takes. */
struct seg_source segread_source(struct segread *sr);

#endif
