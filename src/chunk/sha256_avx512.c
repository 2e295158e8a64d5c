/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16 lanes of SHA-256 in AVX-512: rotation is one instruction, and so is any function of three bits (vpternlog, whose
 * constant is the truth table with the first operand as its highest bit). 8 state words and 16 words of the schedule
 * stay in the 32 registers.
 */
#include "chunk/sha256_lanes.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw")))
#define V __m512i
#define LANES 16
#define ADD(a, b) _mm512_add_epi32(a, b)
#define ROR(a, n) _mm512_ror_epi32(a, n)
#define SHR(a, n) _mm512_srli_epi32(a, n)
#define SPLAT(x) _mm512_set1_epi32((int)(x))
#define XOR3(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0x96)
#define CH(e, f, g) _mm512_ternarylogic_epi32(e, f, g, 0xca)
#define MAJ(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0xe8)
#define GET(s) _mm512_load_si512(s)
#define PUT(s, v) _mm512_store_si512(s, v)
#define LOAD16 load_16

/*
 * Rows (16 words of one lane) into columns (one word of 16 lanes). Words, then pairs of words, are interleaved within
 * each 128-bit quarter; afterwards w[4i + j] holds, in its quarter q, word 4q + j of lanes 4i .. 4i + 3. What is left is a
 * transposition of 4 x 4 quarters for each j.
 */
TARGET static inline void load_16(V *w, const uint8_t *const *p, size_t at)
{
    const V swap = _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);
    for (unsigned i = 0; i < 16; i += 4) {
        V r0 = _mm512_shuffle_epi8(_mm512_loadu_si512(p[i] + at), swap);
        V r1 = _mm512_shuffle_epi8(_mm512_loadu_si512(p[i + 1] + at), swap);
        V r2 = _mm512_shuffle_epi8(_mm512_loadu_si512(p[i + 2] + at), swap);
        V r3 = _mm512_shuffle_epi8(_mm512_loadu_si512(p[i + 3] + at), swap);
        V lo01 = _mm512_unpacklo_epi32(r0, r1), hi01 = _mm512_unpackhi_epi32(r0, r1);
        V lo23 = _mm512_unpacklo_epi32(r2, r3), hi23 = _mm512_unpackhi_epi32(r2, r3);
        w[i] = _mm512_unpacklo_epi64(lo01, lo23);
        w[i + 1] = _mm512_unpackhi_epi64(lo01, lo23);
        w[i + 2] = _mm512_unpacklo_epi64(hi01, hi23);
        w[i + 3] = _mm512_unpackhi_epi64(hi01, hi23);
    }
    for (unsigned j = 0; j < 4; j++) {
        V even_lo = _mm512_shuffle_i32x4(w[j], w[4 + j], 0x88), odd_lo = _mm512_shuffle_i32x4(w[j], w[4 + j], 0xdd);
        V even_hi = _mm512_shuffle_i32x4(w[8 + j], w[12 + j], 0x88), odd_hi = _mm512_shuffle_i32x4(w[8 + j], w[12 + j], 0xdd);
        w[j] = _mm512_shuffle_i32x4(even_lo, even_hi, 0x88);
        w[4 + j] = _mm512_shuffle_i32x4(odd_lo, odd_hi, 0x88);
        w[8 + j] = _mm512_shuffle_i32x4(even_lo, even_hi, 0xdd);
        w[12 + j] = _mm512_shuffle_i32x4(odd_lo, odd_hi, 0xdd);
    }
}

#include "chunk/sha256_rounds.inc"

sha256_kernel *sha256_kernel_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? compress : NULL;
}

#else

sha256_kernel *sha256_kernel_avx512(void) { return NULL; }

#endif
