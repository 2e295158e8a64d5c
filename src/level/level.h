/* SPDX-License-Identifier: Apache-2.0 */
/*
 * level: levels 1 to 3 for one segment. Level 1: the segment is zero. Level 2: it equals the same segment of the parent snapshot, or
 * the parent's segment has some of its blocks. Level 3: the common data set has some of its blocks. All other blocks are new to this
 * disk; level 4 (dedup) asks the index about them.
 *
 * A parent's segment recipe keeps 4 bytes of each fingerprint, so a match of a block is a hint that is wrong once in 2^32. References
 * of the common data set are hints too. The publish check compares all 32 bytes with the footer.
 *
 * A `struct level` holds the buffers for computing one segment. One thread at a time uses it; it keeps nothing between segments.
 */
#ifndef VARVE_LEVEL_LEVEL_H
#define VARVE_LEVEL_LEVEL_H

#include "format/recipe.h"
#include "format/ref.h"
#include "snapshot/snapshot.h"

#include <stdbool.h>
#include <stdint.h>

struct level;
struct fper;
struct verr;

/* ---- the parts of a segment ---- */

enum plan_kind {
    PLAN_ZERO = 1,      /* all bytes zero */
    PLAN_SAME,          /* level 2: equal to the parent's segment, at `place` */
    PLAN_BLOCKS,
};
enum blk_kind {
    BLK_ZERO = 1,       /* zero run */
    BLK_PARENT,         /* ref: hint from the parent's segment recipe */
    BLK_COMMON,         /* ref: hint from the common data set */
    BLK_ASKED,          /* only level 4 sets this and the kinds after BLK_NEW. ref: position of the request in its partition's stream */
    BLK_NEW,            /* to be written by this disk */
    BLK_GLOBAL,         /* ref: hint from the index */
    BLK_WAIT,           /* dup-with-new; ref: position, as in BLK_ASKED */
    BLK_RESOLVED,       /* dup-with-new; ref: hint from the resolution */
    BLK_OWN,            /* ref: where this round wrote the block */
    BLK_KINDS
};
struct plan_block { uint32_t len; uint32_t kind; uint64_t ref; struct fp fp; };

/* Blocks and zero runs of a segment: only its last block is shorter than SEG_BYTES / SEGRCP_BLOCKS_MAX. */
enum { PLAN_BLOCKS_MAX = SEGRCP_BLOCKS_MAX + 2 };

struct plan_seg {
    uint64_t segment;
    uint32_t bytes, data_pages, nblocks;
    enum plan_kind kind;
    uint64_t place;                     /* PLAN_SAME */
    uint8_t digest[DIGEST_BYTES];       /* keyed, of all bytes; zero in PLAN_ZERO */
    struct plan_block *b;               /* memory of the caller: room for PLAN_BLOCKS_MAX */
};

/* ---- computing the parts ---- */

/* Level 3: a table of common blocks. find returns 1 and *ref, or 0; several threads call it at a time. */
struct common_set { int (*find)(void *ctx, const struct fp *fp, uint64_t *ref); void *ctx; };

/* common may be NULL: there is no common data set. segread and common are borrowed until level_free. NULL: an error, told in err. */
struct level *level_new(const struct store_conf *conf, struct segread *segread, const struct common_set *common, struct verr *err);
void level_free(struct level *lv);

/* The place of the parent's segment, for level_segment. REF_NONE: the parent is zero there, or ends before it. 0 or -errno. */
int level_parent(struct snap *parent, uint64_t segment, uint64_t *place, struct verr *err);

enum level_depth {
    LEVEL_WHOLE,        /* is the segment zero, or equal to the parent's? Else PLAN_BLOCKS without blocks; the digest may be missing */
    LEVEL_BLOCKS,       /* also cuts the segment into blocks and looks for each */
};
/* Settles s->bytes bytes of a segment, compared with the parent's segment at place `parent` (or REF_NONE): fills in all members of s
 * but segment, bytes and b. A parent that cannot be read costs space only: note says so, and the segment is settled without it.
 * -EIO; -E2BIG: the segment cannot be cut. */
int level_segment(struct level *lv, enum level_depth depth, const uint8_t *data, uint64_t parent, struct plan_seg *s, struct verr *note,
                  struct verr *err);
/* Checks that s is PLAN_BLOCKS and describes these s->bytes bytes, by their digest, which costs a fifth of hashing the blocks again.
 * If not, the segment is cut anew, and all of its blocks are BLK_NEW or BLK_ZERO. */
int level_confirm(struct level *lv, const uint8_t *data, struct plan_seg *s, struct verr *err);

/* The fper of the struct level; only for the thread that uses the struct level. */
struct fper *level_fper(struct level *lv);

#endif
