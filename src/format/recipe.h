/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segment recipe and snapshot recipe (docs/FORMAT.md): bytes <-> structs, pure.
 *
 * Segment recipe: one blob in a recipe container: runs of references (zero runs included), then per block a 2-byte length
 * (stored as length - 1) and a 4-byte fingerprint prefix, and the segment's keyed digest.
 * Snapshot recipe: a file of 4 KiB pages: page 0 header, then pages of 16-byte runs, each page with its checksum, so that
 * a disk of any size is read page by page.
 */
#ifndef VARVE_FORMAT_RECIPE_H
#define VARVE_FORMAT_RECIPE_H

#include "base/id.h"
#include "format/ref.h"
#include "format/snapinfo.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- segment recipe ---- */
enum { SEGRCP_BLOCKS_MAX = SEG_BYTES / 1024, SEGRCP_RUNS_MAX = 2 * SEGRCP_BLOCKS_MAX + 1, SEGRCP_BYTES_MAX = BLOCK_MAX };

struct segrcp_run {
    uint64_t ref;       /* first reference, or REF_ZERO */
    uint32_t count;     /* blocks with consecutive references; for REF_ZERO: bytes */
};
struct segrcp {
    uint32_t bytes;                 /* length of the segment: SEG_BYTES, less for the last one */
    uint32_t nruns, nblocks;        /* blocks: without zero runs */
    uint8_t digest[DIGEST_BYTES];
    uint32_t data_pages;            /* allocated 4 KiB pages: those that a non-zero block touches */
    struct segrcp_run *runs;        /* memory owned by the holder of the struct */
    uint16_t *len1;                 /* nblocks lengths - 1 */
    uint32_t *prefix;               /* nblocks fingerprint prefixes (first 4 bytes, little-endian) */
};
/* Pages that the blocks touch, from runs and lengths: what `data_pages` must be. 0 when runs and lengths disagree. */
uint32_t segrcp_data_pages(const struct segrcp *r);
/* Length written: at most SEGRCP_BYTES_MAX (always true for min block 1 KiB: checked, -E2BIG otherwise, also when cap is too
 * small). -EINVAL: what decode would refuse (sums, references, data_pages). */
int segrcp_encode(const struct segrcp *r, uint8_t *out, size_t cap);
/* Checks every field and that runs and lengths add up to `bytes`. Arrays are carved out of one malloc: segrcp_release.
 * -EBADMSG (why), -ENOMEM, -ENOTSUP. */
int segrcp_decode(const uint8_t *data, size_t len, struct segrcp *out, const char **why);
void segrcp_release(struct segrcp *r);

/* ---- snapshot recipe ---- */
enum { SNAPRCP_PAGE = 4096, SNAPRCP_PAGE_RUNS = 255 };
struct snaprcp {
    struct snapinfo info;               /* flags of SNAP_RECIPE_FLAGS */
    struct vid store, vm;
    uint64_t epoch;                     /* owner epoch of the VM */
    uint64_t nruns;
    uint8_t runs_digest[FP_BYTES];      /* SHA-256 over the SHA-256 of each page's runs, in order: the cost follows the change */
};
struct snaprun { uint32_t first, count; uint64_t place; };      /* REF_ZERO, or consecutive places place, place+1, ... */

/* 0, or -EINVAL for what decode would refuse (out is all zero then, and must not be stored): a zero store, disk or snap id,
 * unknown flags, label not [A-Za-z0-9._-]{0,64}, nruns not 1..segments (0 for an empty disk), alloc_bytes over the segments. */
int snaprcp_encode(const struct snaprcp *r, uint8_t out[SNAPRCP_PAGE]) __attribute__((warn_unused_result));
int snaprcp_decode(const uint8_t in[SNAPRCP_PAGE], struct snaprcp *out, const char **why);
/* Runs page number `page` (1, 2, ...) of snapshot `snap`; n runs, 1..SNAPRCP_PAGE_RUNS; every page but the last is full. Runs
 * of a page follow each other without gap or overlap (checked); across pages the reader checks it. 0 or -EINVAL as above.
 * The n runs lie encoded at out + SNAPRCP_PAGE - 16 * SNAPRCP_PAGE_RUNS, 16 bytes each: what the page's part of runs_digest is over. */
int snaprcp_page_encode(const struct vid *snap, uint64_t page, const struct snaprun *runs, uint32_t n, uint8_t out[SNAPRCP_PAGE])
    __attribute__((warn_unused_result));
int snaprcp_page_decode(const struct vid *snap, uint64_t page, const uint8_t in[SNAPRCP_PAGE], struct snaprun *out, uint32_t *n,
                        const char **why);

/* ---- side file: mutable attributes of a snapshot (SEQ-SNAPID.attr) ---- */
enum { SNAPATTR_BYTES = 2048 };
struct snapattr {
    struct vid snap;
    uint64_t version;
    char label[LABEL_MAX + 1], note[NOTE_MAX + 1];
    bool protected_;
    uint32_t set_flags, clear_flags;    /* of SNAP_RECIPE_FLAGS: (recipe's | set) & ~clear */
    uint32_t mode, uid, gid;
    bool owner_set;
    int64_t verified_s;
};
/* Length; 0 when a field is not valid (mode beyond 0777, unknown flags, label as above). */
size_t snapattr_encode(const struct snapattr *a, uint8_t out[SNAPATTR_BYTES]);
int snapattr_decode(const uint8_t *data, size_t len, struct snapattr *out, const char **why);

#endif
