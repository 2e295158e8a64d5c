/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit: builds a snapshot recipe from runs and publishes it: the end of stage 4b (docs/design/publishing.md).
 *
 * Order: lease taken -> publish check -> block containers sealed -> recipe containers sealed -> recipe staged in the lease and
 * fsynced -> renamed into snapshots/DISK/, directory fsynced (the only commit point). The caller seals; the rest is done here.
 *
 * runs_digest = SHA-256 over the concatenation of one SHA-256 for each page of runs, in order; a page's SHA-256 is over its
 * runs as they stand in it (16 bytes each), without the head of the page, so that equal runs have an equal digest. A disk
 * without segments has the SHA-256 of nothing.
 *
 * A VM has one lease: of the disks of one VM, one commit is open at a time (a second commit_begin would revoke the first
 * one's lease, and the first one's commit_publish would answer -ESTALE). One thread at a time per commit.
 */
#ifndef VARVE_SNAPSHOT_COMMIT_H
#define VARVE_SNAPSHOT_COMMIT_H

#include "format/recipe.h"
#include "store/container.h"
#include "store/publish.h"
#include "store/store.h"

struct commit;

/* Takes the lease of hdr->vm at hdr->epoch and reads the deletion log. The store is borrowed. -ESTALE: the VM has a higher owner
 * epoch, so that this epoch can never publish again. */
int commit_begin(struct store *st, const struct snaprcp *hdr, struct commit **out, struct verr *err);
/* Adds one segment; segments come in ascending order and without gaps from 0. Neighbours that go on in one container become a run. */
int commit_segment(struct commit *c, uint64_t segment, bool zero, uint64_t place, struct verr *err);
/* Makes the staged recipe whole, durable on return: only its name in snapshots/ is missing then. final: the header, with ids and epoch
 * as commit_begin got them; store, number and digest of runs are filled in here. -ESTALE: the lease was revoked. -EINVAL: the size does
 * not fit the segments, ids differ, or the commit was staged or failed before. */
int commit_stage(struct commit *c, const struct snaprcp *final, struct verr *err);
/* THE commit point: gives the staged recipe its name, durable on return. 0 also when the snapshot was published already, perhaps with other
 * places: a caller that relies on places reads the recipe. -ESTALE: the lease was revoked, or nobody knows whether the recipe has its name: call
 * commit_abort, begin again and check again. -EINVAL: it is not staged, or published by this commit. */
int commit_publish(struct commit *c, struct verr *err);
/* Gives the lease back and frees; an unpublished recipe goes with the lease. Called after commit_publish too. NULL is allowed. */
void commit_abort(struct commit *c);

/* Publish check of one block reference against the deletion log that commit_begin read, and the container's footer. 1: the section
 * is sealed, the block is live, not condemned, len bytes long and has the fingerprint fp; 0: the block must be written anew; -errno:
 * an error of device or memory. */
int commit_check(struct commit *c, struct creader *r, uint64_t ref, const struct fp *fp, uint32_t len, struct verr *err);

#endif
