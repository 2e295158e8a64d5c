/* SPDX-License-Identifier: Apache-2.0 */
/* Checksums that frame bytes of ours (XXH3; source: xxhash.com). They find damage, never adversaries: content has fingerprints. */
#ifndef VARVE_BASE_HASH_H
#define VARVE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *data, size_t len);
uint64_t hash64_seed(const void *data, size_t len, uint64_t seed);
/* hash64_seed of the same bytes with the 8 at `hole` taken as zero. */
uint64_t hash64_hole(const void *data, size_t len, size_t hole, uint64_t seed);

#endif
