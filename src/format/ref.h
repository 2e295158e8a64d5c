/* SPDX-License-Identifier: Apache-2.0 */
/*
 * References, fingerprints and sizes that all formats share (docs/FORMAT.md, "Basic types").
 *
 * reference  64 bits: container number (40) << 24 | ordinal (24). Issued once, never changed.
 * place      the reference of a segment recipe: the same 64 bits, in a recipe container.
 */
#ifndef VARVE_FORMAT_REF_H
#define VARVE_FORMAT_REF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    SEG_SHIFT = 21,
    SEG_BYTES = 1 << SEG_SHIFT,     /* 2 MiB: the unit of levels 1 and 2, of recipes and of tables */
    PAGE_BYTES = 4096,              /* granularity of presence in a layer */
    SEG_PAGES = SEG_BYTES / PAGE_BYTES,
    FP_BYTES = 32,
    DIGEST_BYTES = 16,              /* keyed segment digest */
    ORDINAL_BITS = 24,
    FRAME_RAW_MAX = 128 * 1024,     /* uncompressed bytes in one frame */
    BLOCK_MAX = 64 * 1024           /* longest block of any store option */
};

#define REF_NONE UINT64_MAX             /* no reference; in the index: a tombstone */
#define REF_ZERO (UINT64_MAX - 1)       /* a run of zero bytes in a segment recipe; a zero segment in a snapshot recipe */
#define REF_CONTAINER_MAX ((UINT64_C(1) << 40) - 2)

struct fp {
    uint8_t b[FP_BYTES]; /* SHA-256, or SHA-1 followed by 12 zero bytes */
};

static inline uint64_t ref_make(uint64_t container, uint32_t ordinal) { return container << ORDINAL_BITS | ordinal; }
static inline uint64_t ref_container(uint64_t ref) { return ref >> ORDINAL_BITS; }
static inline uint32_t ref_ordinal(uint64_t ref) { return (uint32_t)(ref & ((1u << ORDINAL_BITS) - 1)); }
static inline bool ref_is_block(uint64_t ref) { return ref_container(ref) <= REF_CONTAINER_MAX; }
static inline bool fp_eq(const struct fp *a, const struct fp *b) { return memcmp(a->b, b->b, FP_BYTES) == 0; }

/* Number of segments of a disk of that many bytes. */
static inline uint64_t seg_count(uint64_t bytes) { return (bytes >> SEG_SHIFT) + ((bytes & (SEG_BYTES - 1)) != 0); }

#endif
