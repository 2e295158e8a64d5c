/* SPDX-License-Identifier: Apache-2.0 */
/*
 * level: levels 1 to 3 for one segment. Level 1: all of it is zero. Level 2: it is equal to the same segment of the parent snapshot, or
 * some of its blocks are in there. Level 3: blocks that the common data set has. What is left is new to this disk; level 4 (dedup)
 * asks the index about it.
 *
 * A parent's segment recipe keeps 4 bytes of each fingerprint, so a block's match is a hint of which one in 2^32 is wrong, as is what
 * the common data set says: the publish check compares all 32 bytes with the footer.
 *
 * A `struct level` is what one thread at a time computes a segment with. Nothing is kept from one segment to the next.
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

/* ---- what a segment consists of ---- */

enum plan_kind {
    PLAN_ZERO = 1,      /* all bytes zero */
    PLAN_SAME,          /* level 2: the parent's segment, at `place` */
    PLAN_BLOCKS,
};
enum blk_kind {
    BLK_ZERO = 1,       /* zero run */
    BLK_PARENT,         /* ref: hint from the parent's segment recipe */
    BLK_COMMON,         /* ref: hint from the common data set */
    BLK_ASKED,          /* this and what follows BLK_NEW come from level 4. ref: position of the request in the stream of its partition */
    BLK_NEW,            /* to be written by this disk */
    BLK_GLOBAL,         /* ref: hint from the index */
    BLK_WAIT,           /* dup-with-new; ref: position, as in BLK_ASKED */
    BLK_RESOLVED,       /* dup-with-new with its reference */
    BLK_OWN,            /* ref: written by this round */
    BLK_KINDS
};
struct plan_block { uint32_t len; uint32_t kind; uint64_t ref; struct fp fp; };

/* Blocks and zero runs of a segment: no block is shorter than SEG_BYTES / SEGRCP_BLOCKS_MAX but the last. */
enum { PLAN_BLOCKS_MAX = SEGRCP_BLOCKS_MAX + 2 };

struct plan_seg {
    uint64_t segment;
    uint32_t bytes, data_pages, nblocks;
    enum plan_kind kind;
    uint64_t place;                     /* PLAN_SAME */
    uint8_t digest[DIGEST_BYTES];       /* keyed, of all bytes; zero in PLAN_ZERO */
    struct plan_block *b;               /* the caller's: room for PLAN_BLOCKS_MAX */
};

/* ---- computing it ---- */

/* Level 3: a table of common blocks. find returns 1 and *ref, or 0; several threads call it at a time. */
struct common_set { int (*find)(void *ctx, const struct fp *fp, uint64_t *ref); void *ctx; };

/* common may be NULL: there is no common data set. All is borrowed. NULL and err on failure. */
struct level *level_new(const struct store_conf *conf, struct segread *segread, const struct common_set *common, struct verr *err);
void level_free(struct level *lv);

/* Place of the parent's segment, for level_segment; REF_NONE: it is zero there, or behind the parent's end. -errno */
int level_parent(struct snap *parent, uint64_t segment, uint64_t *place, struct verr *err);

enum level_depth {
    LEVEL_WHOLE,        /* is it zero, or the parent's as a whole? Else PLAN_BLOCKS with no block; its digest may be missing */
    LEVEL_BLOCKS,       /* also: which blocks has it? */
};
/* Settles s->bytes bytes of a segment beside the parent's at that place (or REF_NONE): fills in all of s but segment, bytes and b.
 * A parent that cannot be read costs space only: said in note, and the segment is settled without. -EIO, -E2BIG (cannot be cut). */
int level_segment(struct level *lv, enum level_depth depth, const uint8_t *data, uint64_t parent, struct plan_seg *s, struct verr *note,
                  struct verr *err);
/* Is s PLAN_BLOCKS and are these its s->bytes bytes? By the digest, which costs a fifth of hashing the blocks again. If not it is cut
 * anew, and all of its blocks are BLK_NEW or BLK_ZERO. */
int level_confirm(struct level *lv, const uint8_t *data, struct plan_seg *s, struct verr *err);

/* What it computes fingerprints with; of the same thread. */
struct fper *level_fper(struct level *lv);

#endif
