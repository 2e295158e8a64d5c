/* SPDX-License-Identifier: Apache-2.0 */
/* chunk: cut points and digests, against their properties, known vectors, and slow code that shares nothing with them. */
#include "base/hex.h"
#include "base/verr.h"
#include "chunk/chunk.h"
#include "chunk/fingerprint.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t rng;

static uint64_t rnd(void)
{
    rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = rng;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint8_t *seg;   /* SEG_BYTES and room for insertions */
enum { SEG_ROOM = SEG_BYTES + 65536, PIECES_MAX = SEG_ROOM / 1024 + 16 };

static int setup(void **state)
{
    (void)state;
    const char *seed = getenv("VARVE_SEED");
    rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
    seg = malloc(SEG_ROOM);
    return seg == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    (void)state;
    free(seg);
    return 0;
}

static void fill_random(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(rnd() >> 7);
}

/* Data, zero runs and repeated bytes in pieces of any length. */
static void fill_mixed(uint8_t *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t len = 1 + rnd() % (rnd() % 4 == 0 ? 60000 : 6000);
        if (len > n - at)
            len = n - at;
        uint64_t kind = rnd() % 4;
        if (kind == 0)
            memset(p + at, 0, len);
        else if (kind == 1)
            memset(p + at, (int)(rnd() % 256), len);
        else
            fill_random(p + at, len);
        at += len;
    }
}

struct piece { size_t at, len; bool zero; };
static struct piece pieces[PIECES_MAX], again[PIECES_MAX];

static size_t chunk_all(const struct chunker *c, const uint8_t *p, size_t n, struct piece *out)
{
    size_t count = 0;
    for (size_t at = 0; at < n; count++) {
        assert_true(count < PIECES_MAX);
        out[count].at = at;
        out[count].len = chunk_next(c, p + at, n - at, &out[count].zero);
        assert_in_range(out[count].len, 1, n - at);
        at += out[count].len;
    }
    return count;
}

static struct chunker make(bool cdc, uint32_t avg)
{
    struct chunker c;
    assert_int_equal(chunker_init(&c, cdc, avg), 0);
    return c;
}

static size_t leading_zeros(const uint8_t *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] == 0)
        i++;
    return i;
}

static const uint32_t sizes[] = {4096, 8192, 16384};

static void parameters_follow_the_average(void **state)
{
    (void)state;
    struct chunker c;
    static const uint32_t wrong[] = {0, 1, 1024, 2048, 4095, 6000, 32768, UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(chunker_init(&c, true, wrong[i]), -EINVAL);
        assert_int_equal(chunker_init(&c, false, wrong[i]), -EINVAL);
    }
    for (size_t i = 0; i < 3; i++) {
        c = make(true, sizes[i]);
        assert_true(c.min == sizes[i] / 4 && c.max == sizes[i] * 4 && c.max <= BLOCK_MAX && c.zero_min == 4096);
        int log = i == 0 ? 12 : i == 1 ? 13 : 14;
        assert_int_equal(__builtin_popcountll(c.mask_small), log + 2);
        assert_int_equal(__builtin_popcountll(c.mask_large), log - 2);
    }
}

static void sizes_lie_within_bounds_and_around_the_average(void **state)
{
    (void)state;
    for (size_t s = 0; s < 3; s++) {
        struct chunker c = make(true, sizes[s]);
        size_t blocks = 0, bytes = 0;
        for (int round = 0; round < 4; round++) {
            fill_random(seg, SEG_BYTES);
            size_t n = chunk_all(&c, seg, SEG_BYTES, pieces);
            for (size_t i = 0; i < n; i++) {
                assert_false(pieces[i].zero);
                assert_true(pieces[i].len <= c.max);
                assert_true(pieces[i].len >= c.min || i == n - 1);
            }
            blocks += n;
            bytes += SEG_BYTES;
        }
        assert_in_range(bytes / blocks, sizes[s] * 3 / 4, sizes[s] * 3 / 2);
    }
}

static void zero_runs_are_found_exactly_at_block_starts(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct chunker c = make(true, sizes[rnd() % 3]);
        size_t n = round < 3 ? SEG_BYTES : 1 + rnd() % SEG_BYTES;
        fill_mixed(seg, n);
        size_t count = chunk_all(&c, seg, n, pieces), sum = 0;
        for (size_t i = 0; i < count; i++) {
            size_t left = n - pieces[i].at, z = leading_zeros(seg + pieces[i].at, left);
            assert_int_equal(pieces[i].zero, z == left || z >= c.zero_min);
            if (pieces[i].zero)
                assert_int_equal(pieces[i].len, z);
            else
                assert_in_range(pieces[i].len, i == count - 1 ? 1 : c.min, c.max);
            sum += pieces[i].len;
        }
        assert_int_equal(sum, n);
    }
}

static void edges_of_zero_runs(void **state)
{
    (void)state;
    struct chunker c = make(true, 4096);
    bool zero = false;
    memset(seg, 0, SEG_BYTES);
    assert_int_equal(chunk_next(&c, seg, SEG_BYTES, &zero), SEG_BYTES);
    assert_true(zero);
    assert_int_equal(chunk_next(&c, seg, 1, &zero), 1);
    assert_true(zero);
    seg[4096] = 1;
    assert_int_equal(chunk_next(&c, seg, 8192, &zero), 4096);
    assert_true(zero);
    seg[4095] = 1;
    chunk_next(&c, seg, 8192, &zero);
    assert_false(zero);
    seg[0] = 1;
    assert_int_equal(chunk_next(&c, seg, 1, &zero), 1);
    assert_false(zero);
}

static void fixed_blocks_are_cut_at_multiples(void **state)
{
    (void)state;
    for (size_t s = 0; s < 3; s++) {
        struct chunker c = make(false, sizes[s]);
        for (int round = 0; round < 5; round++) {
            size_t n = round == 0 ? SEG_BYTES : 1 + rnd() % SEG_BYTES;
            fill_mixed(seg, n);
            size_t count = chunk_all(&c, seg, n, pieces), sum = 0;
            for (size_t i = 0; i < count; i++) {
                size_t left = n - pieces[i].at, z = leading_zeros(seg + pieces[i].at, left);
                assert_int_equal(pieces[i].at % c.avg, 0);
                assert_int_equal(pieces[i].zero, z == left || z >= c.avg);
                size_t want = !pieces[i].zero ? (left < c.avg ? left : c.avg) : z == left ? left : z / c.avg * c.avg;
                assert_int_equal(pieces[i].len, want);
                sum += pieces[i].len;
            }
            assert_int_equal(sum, n);
        }
    }
}

/* The property that predicted cuts rely on: a block's cut depends on its own bytes alone (and on the segment's end). */
static void chunking_from_any_block_start_gives_the_same_cuts(void **state)
{
    (void)state;
    struct chunker c = make(true, 4096);
    fill_mixed(seg, SEG_BYTES);
    size_t count = chunk_all(&c, seg, SEG_BYTES, pieces);
    uint8_t *copy = malloc(SEG_BYTES);
    assert_non_null(copy);
    for (size_t i = 0; i < count; i += 1 + rnd() % 7) {
        size_t n = SEG_BYTES - pieces[i].at;
        memcpy(copy, seg + pieces[i].at, n);
        assert_int_equal(chunk_all(&c, copy, n, again), count - i);
        for (size_t k = i; k < count; k++)
            assert_true(again[k - i].len == pieces[k].len && again[k - i].zero == pieces[k].zero);
    }
    /* What stands behind a block does not move its cut, as long as as many bytes follow. */
    for (size_t i = 0; i + 1 < count; i++) {
        if (pieces[i].zero || pieces[i].at + 2 * c.max > SEG_BYTES)
            continue;
        bool zero;
        memcpy(copy, seg + pieces[i].at, pieces[i].len);
        fill_random(copy + pieces[i].len, c.max);
        assert_int_equal(chunk_next(&c, copy, pieces[i].len + c.max, &zero), pieces[i].len);
        assert_false(zero);
    }
    free(copy);
}

/* Reads exactly n bytes: allocations of their exact size let the sanitizer see one more. */
static void nothing_behind_the_segment_is_read(void **state)
{
    (void)state;
    struct chunker cdc = make(true, 4096), fixed = make(false, 4096);
    for (size_t n = 1; n < 20000; n += 1 + rnd() % 97) {
        uint8_t *p = malloc(n);
        assert_non_null(p);
        if (rnd() % 4)
            fill_random(p, n);
        else
            memset(p, 0, n);
        bool zero;
        assert_in_range(chunk_next(&cdc, p, n, &zero), 1, n);
        assert_in_range(chunk_next(&fixed, p, n, &zero), 1, n);
        free(p);
    }
}

static void cuts_resynchronise_after_an_insertion(void **state)
{
    (void)state;
    struct chunker c = make(true, 4096);
    for (int round = 0; round < 10; round++) {
        fill_random(seg, SEG_BYTES);
        size_t count = chunk_all(&c, seg, SEG_BYTES, pieces);
        size_t at = 300000 + rnd() % 300000, more = 1 + rnd() % 5000;
        memmove(seg + at + more, seg + at, SEG_BYTES - at);
        fill_random(seg + at, more);
        size_t count2 = chunk_all(&c, seg, SEG_BYTES + more, again), same = 0, k = 0;
        for (size_t i = 0; i < count; i++) {
            size_t end = pieces[i].at + pieces[i].len; /* the same end, moved by the insertion */
            if (end < at + 200000)
                continue;
            while (k < count2 && again[k].at + again[k].len < end + more)
                k++;
            assert_true(k < count2 && again[k].at + again[k].len == end + more && again[k].len == pieces[i].len);
            same++;
        }
        assert_true(same > 100);
    }
}

/* Cut points decide which blocks a store shares: these numbers belong to the format. */
static void cut_points_never_change(void **state)
{
    (void)state;
    static const uint64_t want[3] = {UINT64_C(0x52cd97791ba15451), UINT64_C(0x5568f298a01c76a1), UINT64_C(0x287c85110413fbd9)};
    for (size_t s = 0; s < 3; s++) {
        struct chunker c = make(true, sizes[s]);
        uint64_t h = UINT64_C(0xcbf29ce484222325), keep = rng; /* FNV-1a over the lengths */
        rng = 1;
        for (int k = 0; k < 8; k++) { /* 16 MiB: enough blocks that end right at the average, where the mask changes */
            fill_random(seg, SEG_BYTES);
            size_t n = chunk_all(&c, seg, SEG_BYTES, pieces);
            for (size_t i = 0; i < n; i++)
                h = (h ^ pieces[i].len) * UINT64_C(0x100000001b3);
        }
        rng = keep;
        if (h != want[s])
            fail_msg("average %u: hash 0x%016llx", sizes[s], (unsigned long long)h);
    }
}

/* The definition, one byte at a time, with the table computed anew. */
static size_t slow_cut(const struct chunker *c, const uint8_t *p, size_t n)
{
    static uint64_t table[256];
    if (table[0] == 0) {
        uint64_t keep = rng;
        rng = UINT64_C(0x7661727665000001);
        for (int i = 0; i < 256; i++)
            table[i] = rnd();
        rng = keep;
    }
    for (size_t len = c->min + 1; len < n && len < c->max; len++) {
        uint64_t h = 0;
        for (size_t i = len - 63; i < len; i++)
            h = (h << 1) + table[p[i]];
        if ((h & (len <= c->avg ? c->mask_small : c->mask_large)) == 0)
            return len;
    }
    return n < c->max ? n : c->max;
}

static void cuts_equal_those_of_the_plain_definition(void **state)
{
    (void)state;
    struct chunker c = make(true, 4096);
    fill_mixed(seg, SEG_BYTES);
    size_t count = chunk_all(&c, seg, SEG_BYTES, pieces);
    for (size_t i = 0; i < count; i += 1 + rnd() % 4) {
        if (!pieces[i].zero)
            assert_int_equal(pieces[i].len, slow_cut(&c, seg + pieces[i].at, SEG_BYTES - pieces[i].at));
    }
    for (int i = 0; i < 200; i++) { /* short rests, even and odd */
        size_t n = 1 + rnd() % 9000;
        fill_random(seg, n);
        bool zero;
        assert_int_equal(chunk_next(&c, seg, n, &zero), slow_cut(&c, seg, n));
    }
}

/* ---- fingerprints ---- */

static const uint8_t zero_key[DIGEST_KEY_BYTES];

static struct fper *fper_make(enum fp_kind kind, const uint8_t *key)
{
    struct verr err = {0};
    struct fper *f = fper_new(kind, key, &err);
    if (f == NULL)
        fail_msg("%s", verr_str(&err));
    return f;
}

static void assert_hex(const uint8_t *got, size_t n, const char *want)
{
    char text[2 * FP_BYTES + 1];
    hex_print(got, n, text);
    assert_string_equal(text, want);
}

static void sha_vectors_are_met_in_one_batch(void **state)
{
    (void)state;
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    static const char two_blocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    struct fp out[4];
    const struct fp_job jobs[4] = {{"", 0, &out[0]}, {"abc", 3, &out[1]}, {two_blocks, 56, &out[2]}, {million, 1000000, &out[3]}};
    struct fper *f = fper_make(FP_SHA256, zero_key);
    assert_non_null(strstr(fper_path(f), "sha256"));
    for (int twice = 0; twice < 2; twice++) {
        memset(out, 0xee, sizeof out);
        assert_int_equal(fper_batch(f, jobs, 4, NULL), 0);
        assert_hex(out[0].b, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_hex(out[1].b, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_hex(out[2].b, 32, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        assert_hex(out[3].b, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
    assert_int_equal(fper_batch(f, NULL, 0, NULL), 0);
    fper_free(f);
    f = fper_make(FP_SHA1, zero_key);
    assert_string_equal(fper_path(f), "sha1 (OpenSSL EVP)");
    memset(out, 0xee, sizeof out);
    assert_int_equal(fper_batch(f, jobs, 4, NULL), 0);
    assert_hex(out[0].b, 32, "da39a3ee5e6b4b0d3255bfef95601890afd80709000000000000000000000000");
    assert_hex(out[1].b, 32, "a9993e364706816aba3e25717850c26c9cd0d89d000000000000000000000000");
    assert_hex(out[2].b, 32, "84983e441c3bd26ebaae4aa1f95129e5e54670f1000000000000000000000000");
    assert_hex(out[3].b, 32, "34aa973cd4c4daa4f61eeb2bdbad27316534016f000000000000000000000000");
    fper_free(f);
    fper_free(NULL);
    free(million);
}

/* ---- the paths of SHA-256 ---- */

static const struct { enum fp_path path; const char *name; } lane_paths[] = {
    {FP_PATH_AVX2, "sha256 (8 lanes, AVX2)"}, {FP_PATH_AVX512, "sha256 (16 lanes, AVX-512)"},
};
enum { LANE_PATHS = 2, JOBS_MAX = 9000 };

/* A fper on that path; NULL where this CPU has none (said once, so that a log shows what was not tested). */
static struct fper *fper_on(int which)
{
    struct fper *f = fper_make(FP_SHA256, zero_key);
    if (fper_force(f, lane_paths[which].path) == 0) {
        assert_string_equal(fper_path(f), lane_paths[which].name);
        return f;
    }
    print_message("not on this CPU: %s\n", lane_paths[which].name);
    fper_free(f);
    return NULL;
}

/* The same jobs on that path and through EVP. Each message lies in memory of its own exact size when `alone`, so that a
 * sanitizer sees a read past its end. */
static void assert_equals_evp(struct fper *lanes, const size_t *len, const size_t *at, size_t n, bool alone)
{
    static struct fp got[JOBS_MAX], want[JOBS_MAX];
    static struct fp_job jobs[JOBS_MAX];
    struct fper *evp = fper_make(FP_SHA256, zero_key);
    assert_int_equal(fper_force(evp, FP_PATH_EVP), 0);
    assert_non_null(strstr(fper_path(evp), "sha256 (OpenSSL EVP"));
    memset(got, 0xee, sizeof got);
    for (size_t i = 0; i < n; i++) {
        uint8_t *copy = alone ? malloc(len[i] == 0 ? 1 : len[i]) : NULL;
        if (alone)
            memcpy(copy, seg + at[i], len[i]);
        jobs[i] = (struct fp_job){alone ? copy : seg + at[i], len[i], &want[i]};
    }
    assert_int_equal(fper_batch(evp, jobs, n, NULL), 0);
    for (size_t i = 0; i < n; i++)
        jobs[i].out = &got[i];
    assert_int_equal(fper_batch(lanes, jobs, n, NULL), 0);
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof got[i]) != 0)
            fail_msg("%s: job %zu of %zu, %zu bytes, differs from EVP", fper_path(lanes), i, n, len[i]);
    for (size_t i = 0; alone && i < n; i++)
        free((void *)(uintptr_t)jobs[i].data);
    fper_free(evp);
}

static void every_path_equals_evp_at_every_length(void **state)
{
    (void)state;
    static size_t len[JOBS_MAX], at[JOBS_MAX];
    fill_random(seg, SEG_BYTES);
    for (int w = 0; w < LANE_PATHS; w++) {
        struct fper *f = fper_on(w);
        if (f == NULL)
            continue;
        for (size_t i = 0; i <= 4400; i++) { /* all lengths side by side; unaligned starts */
            len[i] = i;
            at[i] = rnd() % (SEG_BYTES - 4400);
        }
        assert_equals_evp(f, len, at, 4401, true);
        for (size_t n = 0; n <= 4400; n += n < 260 ? 1 : 61) { /* one length in all lanes, another content in each */
            for (size_t i = 0; i < 33; i++)
                len[i] = n;
            assert_equals_evp(f, len, at, 33, false);
        }
        fper_free(f);
    }
}

static void every_path_equals_evp_on_random_batches(void **state)
{
    (void)state;
    static size_t len[JOBS_MAX], at[JOBS_MAX];
    fill_random(seg, SEG_BYTES);
    for (int w = 0; w < LANE_PATHS; w++) {
        struct fper *f = fper_on(w);
        for (int round = 0; f != NULL && round < 300; round++) {
            /* Few and many, of like and of very unlike lengths: some go through EVP beside the lanes. */
            size_t n = rnd() % (round % 50 == 0 ? JOBS_MAX : 80);
            size_t longest = round % 50 == 0 ? 600 : (size_t[]){70, 300, 5000, BLOCK_MAX, SEG_BYTES / 4}[rnd() % 5];
            for (size_t i = 0; i < n; i++) {
                len[i] = rnd() % 8 == 0 ? rnd() % (longest + 1) : rnd() % (1 + longest / (1 + rnd() % 60));
                at[i] = rnd() % (SEG_BYTES - len[i]);
            }
            assert_equals_evp(f, len, at, n, round % 4 == 0);
        }
        fper_free(f);
    }
}

static void other_kinds_stay_with_evp(void **state)
{
    (void)state;
    struct fper *f = fper_make(FP_SHA1, zero_key);
    assert_int_equal(fper_force(f, FP_PATH_AVX512), -ENOTSUP);
    assert_int_equal(fper_force(f, FP_PATH_AVX2), -ENOTSUP);
    assert_int_equal(fper_force(f, FP_PATH_EVP), 0);
    assert_string_equal(fper_path(f), "sha1 (OpenSSL EVP)");
    fper_free(f);
}

static void unknown_kinds_are_refused(void **state)
{
    (void)state;
    struct verr err = {0};
    assert_null(fper_new((enum fp_kind)3, zero_key, &err));
    assert_int_equal(err.code, EINVAL);
}

/* GHASH by its definition, bit by bit, for the key of 32 zero bytes: E(0) and E(nonce 0, counter 1) are those of the
 * published AES-256-GCM test with zero key and zero nonce. */
static void slow_gmac(const uint8_t *data, size_t len, uint8_t out[16])
{
    static const uint8_t h[16] = {0xdc, 0x95, 0xc0, 0x78, 0xa2, 0x40, 0x89, 0x89, 0xad, 0x48, 0xa2, 0x14, 0x92, 0x84, 0x20, 0x87};
    static const uint8_t mask[16] = {0x53, 0x0f, 0x8a, 0xfb, 0xc7, 0x45, 0x36, 0xb9, 0xa9, 0x63, 0xb4, 0xf1, 0xc4, 0xcb, 0x73, 0x8b};
    uint8_t y[16] = {0};
    size_t blocks = (len + 15) / 16;
    for (size_t b = 0; b <= blocks; b++) {
        uint8_t x[16] = {0};
        if (b < blocks)
            memcpy(x, data + 16 * b, len - 16 * b < 16 ? len - 16 * b : 16);
        else
            for (int i = 0; i < 8; i++)
                x[i] = (uint8_t)((uint64_t)len * 8 >> (56 - 8 * i)); /* bits of data; bits of cipher text are 0 */
        uint8_t z[16] = {0}, v[16];
        memcpy(v, h, 16);
        for (int i = 0; i < 16; i++)
            x[i] ^= y[i];
        for (int bit = 0; bit < 128; bit++) {
            if (x[bit / 8] >> (7 - bit % 8) & 1)
                for (int i = 0; i < 16; i++)
                    z[i] ^= v[i];
            int carry = v[15] & 1;
            for (int i = 15; i > 0; i--)
                v[i] = (uint8_t)(v[i] >> 1 | v[i - 1] << 7);
            v[0] = (uint8_t)(v[0] >> 1 ^ (carry ? 0xe1 : 0));
        }
        memcpy(y, z, 16);
    }
    for (int i = 0; i < 16; i++)
        out[i] = y[i] ^ mask[i];
}

static void segment_digest_is_gmac(void **state)
{
    (void)state;
    struct fper *f = fper_make(FP_SHA256, zero_key);
    fill_random(seg, 70000);
    for (size_t n = 0; n < 70000; n = n < 300 ? n + 1 : n * 2 + rnd() % 16) {
        uint8_t got[DIGEST_BYTES], want[DIGEST_BYTES];
        assert_int_equal(fper_segment(f, seg, n, got, NULL), 0);
        slow_gmac(seg, n, want);
        assert_memory_equal(got, want, DIGEST_BYTES);
    }
    fper_free(f);
}

static void segment_digest_depends_on_key_and_every_byte(void **state)
{
    (void)state;
    uint8_t key[DIGEST_KEY_BYTES], a[DIGEST_BYTES], b[DIGEST_BYTES];
    fill_random(key, sizeof key);
    struct fper *f = fper_make(FP_SHA256, key), *same = fper_make(FP_SHA1, key);
    key[31] ^= 1;
    struct fper *other = fper_make(FP_SHA256, key);
    fill_random(seg, SEG_BYTES);
    assert_int_equal(fper_segment(f, seg, SEG_BYTES, a, NULL), 0);
    assert_int_equal(fper_segment(same, seg, SEG_BYTES, b, NULL), 0);
    assert_memory_equal(a, b, DIGEST_BYTES);
    assert_int_equal(fper_segment(other, seg, SEG_BYTES, b, NULL), 0);
    assert_memory_not_equal(a, b, DIGEST_BYTES);
    for (int i = 0; i < 50; i++) {
        size_t at = i == 0 ? 0 : i == 1 ? SEG_BYTES - 1 : rnd() % SEG_BYTES;
        seg[at] ^= (uint8_t)(1u << rnd() % 8);
        assert_int_equal(fper_segment(f, seg, SEG_BYTES, b, NULL), 0);
        assert_memory_not_equal(a, b, DIGEST_BYTES);
        memcpy(a, b, DIGEST_BYTES);
    }
    assert_int_equal(fper_segment(f, seg, SEG_BYTES - 1, b, NULL), 0);
    assert_memory_not_equal(a, b, DIGEST_BYTES);
    fper_free(f);
    fper_free(same);
    fper_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_follow_the_average),
        cmocka_unit_test(sizes_lie_within_bounds_and_around_the_average),
        cmocka_unit_test(zero_runs_are_found_exactly_at_block_starts),
        cmocka_unit_test(edges_of_zero_runs),
        cmocka_unit_test(fixed_blocks_are_cut_at_multiples),
        cmocka_unit_test(chunking_from_any_block_start_gives_the_same_cuts),
        cmocka_unit_test(nothing_behind_the_segment_is_read),
        cmocka_unit_test(cuts_resynchronise_after_an_insertion),
        cmocka_unit_test(cut_points_never_change),
        cmocka_unit_test(cuts_equal_those_of_the_plain_definition),
        cmocka_unit_test(sha_vectors_are_met_in_one_batch),
        cmocka_unit_test(every_path_equals_evp_at_every_length),
        cmocka_unit_test(every_path_equals_evp_on_random_batches),
        cmocka_unit_test(other_kinds_stay_with_evp),
        cmocka_unit_test(unknown_kinds_are_refused),
        cmocka_unit_test(segment_digest_is_gmac),
        cmocka_unit_test(segment_digest_depends_on_key_and_every_byte),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
