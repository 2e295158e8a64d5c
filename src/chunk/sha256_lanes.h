/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sha256_lanes: SHA-256 (FIPS 180-4) of many messages side by side, one message in each 32-bit lane of a vector. Included
 * inside src/chunk only; callers use fingerprint.h.
 *
 * The scheduler (sha256_lanes.c) knows nothing of vectors: it keeps every lane busy and pads. A kernel knows nothing of
 * messages: it runs the compression function on whole 64-byte blocks.
 */
#ifndef VARVE_CHUNK_SHA256_LANES_H
#define VARVE_CHUNK_SHA256_LANES_H

#include "chunk/fingerprint.h"

#include <stddef.h>
#include <stdint.h>

enum { SHA256_LANES_MAX = 16, SHA256_BLOCK = 64, SHA256_WINDOW = 1024 };

/* Runs `blocks` 64-byte blocks of each lane: lane l's begin at p[l]. state: 8 rows (a..h) of `lanes` words, aligned to 64. */
typedef void sha256_kernel(uint32_t *state, const uint8_t *const *p, size_t blocks);

extern const uint32_t sha256_k[64];

struct sha256_lanes {
    sha256_kernel *kernel;
    unsigned lanes;             /* <= SHA256_LANES_MAX */
    unsigned few;               /* below so many busy lanes one message at a time is faster */
    uint16_t order[SHA256_WINDOW];
};

/* The kernels of this CPU; NULL where it (or the compiler's target) has none. */
sha256_kernel *sha256_kernel_avx512(void);      /* 16 lanes */
sha256_kernel *sha256_kernel_avx2(void);        /* 8 lanes */

/*
 * Fingerprints of n <= SHA256_WINDOW jobs, longest first. Returns the number of jobs left out, because they are so much
 * longer than the rest that lanes would stand idle beside them: jobs[order[0]] .. are those.
 */
size_t sha256_lanes_run(struct sha256_lanes *s, const struct fp_job *jobs, size_t n);

#endif
