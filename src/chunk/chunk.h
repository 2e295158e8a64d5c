/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chunk: cuts a segment into blocks. Content-defined (gear hash with normalised cut points; FastCDC, Xia et al. 2016)
 * or fixed. Pure: no I/O, no allocation; any thread.
 *
 * The chunker restarts at each block start, so a block's cut depends on its own bytes alone.
 * Zero runs: at a block start, a run of zero bytes of at least `zero_min` bytes (or up to the end of the segment) is
 * one zero run, not a block; with fixed blocks it is rounded down to whole blocks (the last one may be short).
 */
#ifndef VARVE_CHUNK_CHUNK_H
#define VARVE_CHUNK_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct chunker {
    bool cdc;                              /* false: fixed blocks of avg bytes */
    uint32_t avg, min, max, zero_min;      /* bytes; max <= BLOCK_MAX */
    uint64_t mask_small, mask_large;       /* before and after avg: normalised cut points */
};

/* avg is 4096, 8192 or 16384 (-EINVAL otherwise): min = avg/4, max = avg*4 (<= BLOCK_MAX), zero_min = 4096. 0 on success. */
int chunker_init(struct chunker *c, bool cdc, uint32_t avg);

/* Length (1..n) of the next block or zero run at p; *zero tells which. n >= 1 bytes remain in the segment. */
size_t chunk_next(const struct chunker *c, const uint8_t *p, size_t n, bool *zero);

#endif
