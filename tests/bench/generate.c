/* SPDX-License-Identifier: Apache-2.0 */
/*
 * generate OUT: one day of one VM's disk out of a made-up fleet. Everything follows from the seed: any day of any VM can be
 * written by itself, in any order, at any size, and is the same each time. `generate --help` lists the options.
 *
 * A disk is segments of 2 MiB of four kinds: zero (a hole), random, compressible (words), popular (extents of 64 KiB out
 * of a pool that all VMs share, Zipf-distributed: the first extent is taken most). Each day some segments are dirty, and in
 * a dirty segment some pages of 4 KiB are new. So a page's bytes depend on (seed, VM, page, last day on which it changed).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEG = 2 << 20, PAGE = 4096, EXTENT = 64 << 10, PAGES = SEG / PAGE, EXTENTS = SEG / EXTENT };
enum kind { ZERO, RANDOM, WORDS, POPULAR };

static uint64_t seed = 1, vm, day, size = 1 << 30;
static double dirty = 10, rewrite = 40;                         /* percent of segments a day; of pages in one of them */
static double share_zero = 30, share_random = 10, share_popular = 40;    /* percent; the rest is words */
static uint64_t pool = 100000;                                  /* extents that VMs share */

static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t hash(uint64_t what, uint64_t a, uint64_t b, uint64_t c)
{
    return mix(mix(mix(mix(seed ^ what << 56) ^ a) ^ b) ^ c);
}

/* 0 <= x < 100 */
static double percent(uint64_t h)
{
    return (double)(h >> 11) * (100.0 / 9007199254740992.0);
}

static enum kind kind_of(uint64_t seg)
{
    double x = percent(hash(1, vm, seg, 0));
    if (x < share_zero)
        return ZERO;
    x -= share_zero;
    if (x < share_random)
        return RANDOM;
    return x - share_random < share_popular ? POPULAR : WORDS;
}

/* Day on which the page changed last; 0: never since it was first written. */
static uint64_t changed(uint64_t seg, uint64_t page)
{
    for (uint64_t d = day; d > 0; d--)
        if (percent(hash(2, vm, seg, d)) < dirty && percent(hash(3, vm, seg * PAGES + page, d)) < rewrite)
            return d;
    return 0;
}

static void fill_random(uint8_t *p, uint64_t h)
{
    for (size_t i = 0; i < PAGE; i += 8) {
        h = mix(h);
        memcpy(p + i, &h, 8);
    }
}

/* Words of 3 to 10 letters out of 4096, with a frequency that falls: compresses to about a third. */
static void fill_words(uint8_t *p, uint64_t h)
{
    static uint8_t word[4096][12];
    if (word[0][0] == 0)
        for (unsigned w = 0; w < 4096; w++) {
            uint64_t letters = mix(w);
            size_t n = 3 + (letters & 7);
            for (size_t i = 0; i < n; i++, letters = mix(letters))
                word[w][i] = (uint8_t)('a' + letters % 26);
            word[w][n] = ' ';
            word[w][11] = (uint8_t)(n + 1);
        }
    size_t at = 0;
    while (at < PAGE) {
        h = mix(h);
        const uint8_t *w = word[(h & 4095) >> (h >> 60)];
        size_t n = w[11] < PAGE - at ? w[11] : PAGE - at;
        memcpy(p + at, w, n);
        at += n;
    }
}

/* Rank of an extent, Zipf with exponent 1: the logarithm is uniform. */
static uint64_t rank_of(uint64_t seg, uint64_t extent)
{
    double u = percent(hash(4, vm, seg, extent)) / 100;
    return (uint64_t)pow((double)pool, u) - 1;
}

static void fill_page(uint8_t *p, enum kind kind, uint64_t seg, uint64_t page)
{
    uint64_t d = changed(seg, page), h = hash(5, vm, seg * PAGES + page, d);
    if (kind == POPULAR && d == 0) {    /* what a VM changed is its own */
        uint64_t rank = rank_of(seg, page / (PAGES / EXTENTS));
        h = hash(6, rank, page % (PAGES / EXTENTS), 0);
        kind = rank % 4 == 0 ? RANDOM : WORDS;
    }
    if (kind == RANDOM)
        fill_random(p, h);
    else
        fill_words(p, h);
}

static uint64_t size_of(const char *text)
{
    char *end;
    uint64_t v = strtoull(text, &end, 0);
    for (const char *u = "KMGT"; *end != '\0' && *u != '\0'; u++) {
        v <<= 10;
        if (*end == *u)
            return v;
    }
    return *end == '\0' ? strtoull(text, NULL, 0) : 0;
}

static void options(int argc, char **argv)
{
    static const struct option longs[] = {
        {"seed", 1, 0, 's'}, {"vm", 1, 0, 'v'}, {"day", 1, 0, 'd'}, {"size", 1, 0, 'b'}, {"dirty", 1, 0, 'D'}, {"rewrite", 1, 0, 'w'},
        {"zero", 1, 0, 'z'}, {"random", 1, 0, 'r'}, {"popular", 1, 0, 'p'}, {"pool", 1, 0, 'P'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        switch (c) {
        case 's': seed = strtoull(optarg, NULL, 0); break;
        case 'v': vm = strtoull(optarg, NULL, 0); break;
        case 'd': day = strtoull(optarg, NULL, 0); break;
        case 'b': size = size_of(optarg); break;
        case 'D': dirty = atof(optarg); break;
        case 'w': rewrite = atof(optarg); break;
        case 'z': share_zero = atof(optarg); break;
        case 'r': share_random = atof(optarg); break;
        case 'p': share_popular = atof(optarg); break;
        case 'P': pool = strtoull(optarg, NULL, 0); break;
        default: optind = argc;
        }
    }
    if (optind + 1 != argc || size == 0 || pool == 0) {
        fprintf(stderr, "usage: generate [--seed N] [--vm N] [--day N] [--size BYTES|nM|nG] [--dirty PERCENT of segments a day]\n"
                        "  [--rewrite PERCENT of pages in a dirty segment] [--zero|--random|--popular PERCENT of segments, rest words]\n"
                        "  [--pool EXTENTS] OUT\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static uint8_t buf[SEG];
    options(argc, argv);
    const char *out = argv[optind];
    int fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) {
        fprintf(stderr, "generate: %s: %s\n", out, strerror(errno));
        return 1;
    }
    for (uint64_t seg = 0; seg * SEG < size; seg++) {
        enum kind kind = kind_of(seg);
        size_t n = size - seg * SEG < SEG ? (size_t)(size - seg * SEG) : SEG;
        if (kind == ZERO)
            continue;
        for (uint64_t page = 0; page < PAGES; page++)
            fill_page(buf + page * PAGE, kind, seg, page);
        if (pwrite(fd, buf, n, (off_t)(seg * SEG)) != (ssize_t)n) {
            fprintf(stderr, "generate: writing %s: %s\n", out, strerror(errno));
            return 1;
        }
    }
    return close(fd) == 0 ? 0 : 1;
}
