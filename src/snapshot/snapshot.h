/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot: stored snapshots as files: open, read, seek. A handle is thread-safe and holds the recipe's
 * descriptor only: runs are read page by page (a page cache of a few pages per handle), so size does not matter.
 */
#ifndef VARVE_SNAPSHOT_SNAPSHOT_H
#define VARVE_SNAPSHOT_SNAPSHOT_H

#include "format/recipe.h"
#include "snapshot/segread.h"
#include "store/store.h"

#include <sys/types.h>

struct snap;

/* -ENOENT, -EBADMSG (damaged or of another store or disk: names the file). */
int snap_open(struct store *st, struct segread *sr, const struct snapref *ref, struct snap **out, struct verr *err);
/* The same out of another directory of recipes: dir DIR_SNAPSHOTS or DIR_ANCHORS, dir_disk names the subdirectory. disk: the
 * disk the snapshot must belong to; NULL: any (an anchor may be of another disk). sr may be NULL: runs only. */
int snap_open_in(struct store *st, struct segread *sr, enum store_dir dir, const struct vid *dir_disk, const struct vid *disk, uint64_t seq,
                 const struct vid *id, struct snap **out, struct verr *err);
void snap_close(struct snap *s);
const struct snaprcp *snap_header(const struct snap *s);
ssize_t snap_read(struct snap *s, uint64_t off, void *buf, size_t len, struct verr *err);          /* short at the end */
off_t snap_seek(struct snap *s, uint64_t off, bool hole, struct verr *err);                        /* -ENXIO at or after the end */
/* The same, giving up with -EAGAIN when the answer is not found in that many steps (each reads one segment recipe at most). */
off_t snap_seek_near(struct snap *s, uint64_t off, bool hole, uint64_t steps, struct verr *err);
/* Place of a segment: zero or place. Same shape as live_place_fn with ctx = struct snap; pages may be UINT32_MAX (unknown). */
int snap_place(void *snap, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err);
/* fn for each run in order. */
int snap_each_run(struct snap *s, int (*fn)(void *ctx, const struct snaprun *run), void *ctx, struct verr *err);

#endif
