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
/* ---- places that STORE does not vouch for ----
 * A recipe in STORE and the containers that it names come from one copy of STORE. A place that stands in STATE does not: when STORE is
 * put back from an older copy, the container's number may be another file's by now. So such places are checked against what the host
 * knows of the container. */

/* check: 0: the container of that number is the one in which the host's places lie; -ESTALE: it is another one; -errno. note: the same,
 * and a place of it is about to enter STATE: durable on return. Any thread. */
struct segread_belief {
    int (*check)(void *ctx, uint64_t container, const struct vid *version, struct verr *err);
    int (*note)(void *ctx, uint64_t container, const struct vid *version, struct verr *err);
    void *ctx;
};
/* What the last check of a row of places found, so that the next one need not ask again. Begins as {REF_NONE, 0}. */
struct segread_sound { uint64_t container; uint32_t ordinals; };
/* Before the first use. Without a call every container is believed. */
void segread_believe(struct segread *sr, const struct segread_belief *b);
/* Checks the container of a place, and that the place is in a sealed section of it. -ESTALE: another container has the number by now;
 * -ENODATA: the container or the ordinal is not there; -EBADMSG: damage; other errors are those of device and memory. */
int segread_check(struct segread *sr, uint64_t place, struct segread_sound *sound, struct verr *err);
/* Called with a place out of STORE before it enters STATE. Errors as of segread_check. */
int segread_note(struct segread *sr, uint64_t place, struct verr *err);
/* segread_read, _seek and _pages as the table that `live` takes: places out of STATE, each checked as by segread_check. */
struct seg_source segread_source(struct segread *sr);

#endif
