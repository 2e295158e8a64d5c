/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content-defined cut points with a gear hash: h = 2h + gear[byte], so a bit of h depends on the bytes behind it only
 * (bit 62 on the last 63), and a cut is where some high bits of h are zero. Before the average size 2 bits more must be
 * zero, after it 2 bits fewer: sizes gather around the average. FastCDC, Xia et al. 2016.
 *
 * Table, masks, minimum and maximum decide which blocks a store can share: they belong to the format (docs/FORMAT.md,
 * "store.conf", chunking) and must never change for an existing store.
 */
#include "chunk/chunk.h"

#include "format/ref.h"

#include <errno.h>
#include <string.h>

/* Entry i of the gear table is output i of splitmix64 started at this seed. */
#define GEAR_SEED UINT64_C(0x7661727665000001)
#define MIX_0(i) (GEAR_SEED + ((uint64_t)(i) + 1) * UINT64_C(0x9e3779b97f4a7c15))
#define MIX_1(z) (((z) ^ ((z) >> 30)) * UINT64_C(0xbf58476d1ce4e5b9))
#define MIX_2(z) (((z) ^ ((z) >> 27)) * UINT64_C(0x94d049bb133111eb))
#define MIX_3(z) ((z) ^ ((z) >> 31))
#define GEAR(i) MIX_3(MIX_2(MIX_1(MIX_0(i))))
#define GEAR_4(i) GEAR(i), GEAR((i) + 1), GEAR((i) + 2), GEAR((i) + 3)
#define GEAR_16(i) GEAR_4(i), GEAR_4((i) + 4), GEAR_4((i) + 8), GEAR_4((i) + 12)
#define GEAR_64(i) GEAR_16(i), GEAR_16((i) + 16), GEAR_16((i) + 32), GEAR_16((i) + 48)

static const uint64_t gear[256] = {GEAR_64(0), GEAR_64(64), GEAR_64(128), GEAR_64(192)};

/* Bytes that the hash looks back on: it is warmed up with them, so that a cut depends on content and not on the block's start. */
enum { GEAR_WINDOW = 64 };

static uint64_t top_bits(unsigned n)
{
    return ((UINT64_C(1) << n) - 1) << (63 - n); /* bits 62 downwards */
}

int chunker_init(struct chunker *c, bool cdc, uint32_t avg)
{
    unsigned bits = avg == 4096 ? 12 : avg == 8192 ? 13 : avg == 16384 ? 14 : 0;
    if (bits == 0)
        return -EINVAL;
    *c = (struct chunker){
        .cdc = cdc, .avg = avg, .min = avg / 4, .max = avg * 4, .zero_min = 4096,
        .mask_small = top_bits(bits + 2), .mask_large = top_bits(bits - 2),
    };
    return 0;
}

/* Number of zero bytes at p. */
static size_t zero_bytes(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (n - i >= 64) {
        uint64_t w[8];
        memcpy(w, p + i, sizeof w);
        if ((w[0] | w[1] | w[2] | w[3] | w[4] | w[5] | w[6] | w[7]) != 0)
            break;
        i += 64;
    }
    while (i < n && p[i] == 0)
        i++;
    return i;
}

/* Length of the zero run that begins here, 0 if it is too short to be one. */
static size_t zero_run(const struct chunker *c, const uint8_t *p, size_t n)
{
    if (p[0] != 0)
        return 0;
    size_t z = zero_bytes(p, n);
    if (z == n)
        return n;
    if (!c->cdc)
        z -= z % c->avg;
    return z < c->zero_min ? 0 : z;
}

/* First cut in (from, end]: its position, or 0. *hash holds the state at from. Two bytes a step: the dependency from step
 * to step is then one shift and one addition, while both tables' loads run ahead. */
static size_t scan(const uint8_t *p, size_t from, size_t end, uint64_t mask, uint64_t *hash)
{
    uint64_t h = *hash;
    size_t i = from;
    for (; i + 2 <= end; i += 2) {
        uint64_t mid = (h << 1) + gear[p[i]];
        h = (mid << 1) + gear[p[i + 1]];
        if ((mid & mask) == 0)
            return i + 1;
        if ((h & mask) == 0)
            return i + 2;
    }
    if (i < end) {
        h = (h << 1) + gear[p[i]];
        if ((h & mask) == 0)
            return i + 1;
    }
    *hash = h;
    return 0;
}

static size_t cut(const struct chunker *c, const uint8_t *p, size_t n)
{
    if (n <= c->min)
        return n;
    size_t end = n < c->max ? n : c->max;
    size_t middle = end < c->avg ? end : c->avg;
    uint64_t h = 0;
    for (size_t i = c->min - GEAR_WINDOW; i < c->min; i++)
        h = (h << 1) + gear[p[i]];
    size_t at = scan(p, c->min, middle, c->mask_small, &h);
    if (at == 0)
        at = scan(p, middle, end, c->mask_large, &h);
    return at == 0 ? end : at;
}

size_t chunk_next(const struct chunker *c, const uint8_t *p, size_t n, bool *zero)
{
    size_t len = zero_run(c, p, n);
    *zero = len != 0;
    if (len != 0)
        return len;
    if (c->cdc)
        return cut(c, p, n);
    return n < c->avg ? n : c->avg;
}
