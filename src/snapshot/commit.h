/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit: builds a snapshot recipe from runs and publishes it (DESIGN section 7): what stage 4b ends with.
 *
 * Order: block containers sealed -> recipe containers sealed -> publish check inside the lease -> recipe staged and
 * fdatasynced in the lease -> link() into snapshots/DISK/, directory fsynced (the only commit point).
 *
 * runs_digest = SHA-256 over the concatenation of one SHA-256 for each page of runs, in order; a page's SHA-256 is over its
 * runs as they stand in it (16 bytes each), without the head of the page, so that equal runs have an equal digest. A disk
 * without segments has the SHA-256 of nothing.
 *
 * A VM has one lease: of the disks of one VM, one commit is open at a time (a second commit_begin would take the first
 * one's lease over, and its commit_publish would answer -ESTALE).
 */
#ifndef VARVE_SNAPSHOT_COMMIT_H
#define VARVE_SNAPSHOT_COMMIT_H

#include "format/recipe.h"
#include "store/container.h"
#include "store/publish.h"
#include "store/store.h"

struct commit;

/* Lease of hdr->vm at hdr->epoch is taken here and the deletion log read. -ESTALE: fenced for good (higher owner epoch). */
int commit_begin(struct store *st, const struct snaprcp *hdr, struct commit **out, struct verr *err);
/* One segment, ascending and without gaps from 0; equal neighbours become runs. */
int commit_segment(struct commit *c, uint64_t segment, bool zero, uint64_t place, struct verr *err);
/* Stages and publishes; -ESTALE: revoked: commit_abort, begin again (and check again). fills in levels, alloc, flags given. */
int commit_publish(struct commit *c, const struct snaprcp *final, struct verr *err);
void commit_abort(struct commit *c);   /* also after publish: frees; releases the lease */

/* Publish check of one block reference, against the deletion log that commit_begin read and the footer: the section is
 * sealed, the ordinal live, not condemned, the length len and the fingerprint fp. 1 good, 0 to be written anew, -errno. */
int commit_check(struct commit *c, struct creader *r, uint64_t ref, const struct fp *fp, uint32_t len, struct verr *err);

#endif
