/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash64(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

uint64_t hash64_seed(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}

uint64_t hash64_hole(const void *data, size_t len, size_t hole, uint64_t seed)
{
    static const uint8_t zero[8];
    const uint8_t *p = data;
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, seed);
    XXH3_64bits_update(&state, p, hole);
    XXH3_64bits_update(&state, zero, sizeof zero);
    XXH3_64bits_update(&state, p + hole + sizeof zero, len - hole - sizeof zero);
    return XXH3_64bits_digest(&state);
}
