/* SPDX-License-Identifier: Apache-2.0 */
/* 8 lanes of SHA-256 in AVX2: rotation takes three instructions; the schedule lives in memory, which costs little. */
#include "chunk/sha256_lanes.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx2")))
#define V __m256i
#define LANES 8
#define ADD(a, b) _mm256_add_epi32(a, b)
#define SHR(a, n) _mm256_srli_epi32(a, n)
#define ROR(a, n) _mm256_or_si256(_mm256_srli_epi32(a, n), _mm256_slli_epi32(a, 32 - (n)))
#define SPLAT(x) _mm256_set1_epi32((int)(x))
#define XOR(a, b) _mm256_xor_si256(a, b)
#define AND(a, b) _mm256_and_si256(a, b)
#define XOR3(a, b, c) XOR(XOR(a, b), c)
#define CH(e, f, g) XOR(AND(XOR(f, g), e), g)
#define MAJ(a, b, c) XOR(AND(XOR(a, b), XOR(b, c)), b)
#define GET(s) _mm256_load_si256((const __m256i *)(const void *)(s))
#define PUT(s, v) _mm256_store_si256((__m256i *)(void *)(s), v)
#define LOAD16 load_16

/* Word j of lanes 0..3 in the lower half, of lanes 4..7 in the upper one: row i is loaded as two halves of 128 bits, so that
 * interleaving within halves is all there is to do. */
TARGET static inline void load_4(V *w, const uint8_t *const *p, size_t at)
{
    const V swap = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
    V r[4];
    for (unsigned i = 0; i < 4; i++) {
        __m128i lower = _mm_loadu_si128((const __m128i *)(const void *)(p[i] + at));
        __m128i upper = _mm_loadu_si128((const __m128i *)(const void *)(p[i + 4] + at));
        r[i] = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(lower), upper, 1), swap);
    }
    V lo01 = _mm256_unpacklo_epi32(r[0], r[1]), hi01 = _mm256_unpackhi_epi32(r[0], r[1]);
    V lo23 = _mm256_unpacklo_epi32(r[2], r[3]), hi23 = _mm256_unpackhi_epi32(r[2], r[3]);
    w[0] = _mm256_unpacklo_epi64(lo01, lo23);
    w[1] = _mm256_unpackhi_epi64(lo01, lo23);
    w[2] = _mm256_unpacklo_epi64(hi01, hi23);
    w[3] = _mm256_unpackhi_epi64(hi01, hi23);
}

TARGET static inline void load_16(V *w, const uint8_t *const *p, size_t at)
{
    for (unsigned i = 0; i < 16; i += 4)
        load_4(w + i, p, at + 4 * i);
}

#include "chunk/sha256_rounds.inc"

sha256_kernel *sha256_kernel_avx2(void) { return __builtin_cpu_supports("avx2") ? compress : NULL; }

#else

sha256_kernel *sha256_kernel_avx2(void) { return NULL; }

#endif
