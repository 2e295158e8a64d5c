/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapshot: stored snapshots as files: open, read, seek. Any thread may use a handle, several at a time. A handle holds the open
 * recipe and a few cached pages of runs, so its memory does not depend on the size of the disk.
 *
 * Errors of all functions: -EBADMSG names the damaged file; -EIO and the like are those of the device.
 */
#ifndef VARVE_SNAPSHOT_SNAPSHOT_H
#define VARVE_SNAPSHOT_SNAPSHOT_H

#include "format/recipe.h"
#include "snapshot/segread.h"
#include "store/store.h"

#include <sys/types.h>

struct snap;

/* Opens the recipe and checks its header; sr is borrowed until snap_close. -ENOENT; -EBADMSG: also a recipe of another store or disk. */
int snap_open(struct store *st, struct segread *sr, const struct snapref *ref, struct snap **out, struct verr *err);
/* The same from DIR_SNAPSHOTS or DIR_ANCHORS; dir_disk names the subdirectory. disk: the disk that the snapshot must belong to; NULL:
 * any disk, because an anchor may be of another one. sr may be NULL for a caller that reads only runs. */
int snap_open_in(struct store *st, struct segread *sr, enum store_dir dir, const struct vid *dir_disk, const struct vid *disk, uint64_t seq,
                 const struct vid *id, struct snap **out, struct verr *err);
void snap_close(struct snap *s);
const struct snaprcp *snap_header(const struct snap *s);
/* The number of bytes read: less than len only at the end of the snapshot. */
ssize_t snap_read(struct snap *s, uint64_t off, void *buf, size_t len, struct verr *err);
/* The next data or hole at or after off; the end counts as a hole. -ENXIO: off is at or after the end, or there are no more data. */
off_t snap_seek(struct snap *s, uint64_t off, bool hole, struct verr *err);
/* The same, but gives up with -EAGAIN after `steps` steps, each of which reads at most one segment recipe. */
off_t snap_seek_near(struct snap *s, uint64_t off, bool hole, uint64_t steps, struct verr *err);
/* The place of a segment, or *zero. Has the type live_place_fn; snap is a struct snap. *pages: 0, or UINT32_MAX (unknown). */
int snap_place(void *snap, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err);
/* The same for a place that enters a table of STATE: what is known of its container is durable on return (segread_note). */
int snap_point(void *snap, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err);
/* Calls fn for each run in order, without a lock held. An answer other than 0 stops and is returned. */
int snap_each_run(struct snap *s, int (*fn)(void *ctx, const struct snaprun *run), void *ctx, struct verr *err);

#endif
