/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parts FILE [MIB]: speed of the parts of the streaming path, each alone on one core, on the first MIB (default 256) of a
 * file: cutting, each path of SHA-256 on the blocks of a segment, the segment's digest. The parts take turns; the median
 * of five turns counts. One line each: name, MB/s.
 */
#include "base/verr.h"
#include "chunk/chunk.h"
#include "chunk/fingerprint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 5, PARTS = 6, BLOCKS_MAX = SEG_BYTES / 1024 + 1 };

static uint8_t *data;
static size_t bytes;                    /* whole segments */
static uint64_t sum;                    /* results go in, so that nothing is optimised away */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Blocks of the segment at p that hold data. */
static size_t cut(const struct chunker *c, const uint8_t *p, struct fp_job *jobs, struct fp *fps)
{
    size_t n = 0;
    for (size_t at = 0, len; at < SEG_BYTES; at += len) {
        bool zero;
        len = chunk_next(c, p + at, SEG_BYTES - at, &zero);
        if (!zero) {
            jobs[n] = (struct fp_job){p + at, len, &fps[n]};
            n++;
        }
    }
    return n;
}

static double cut_all(void)
{
    static struct fp_job jobs[BLOCKS_MAX];
    static struct fp fps[BLOCKS_MAX];
    struct chunker c;
    if (chunker_init(&c, true, 4096) != 0)
        exit(2);
    double begin = seconds();
    for (size_t at = 0; at < bytes; at += SEG_BYTES)
        sum += cut(&c, data + at, jobs, fps);
    return (double)bytes / (seconds() - begin);
}

static double hash_all(struct fper *f)
{
    static struct fp_job jobs[BLOCKS_MAX];
    static struct fp fps[BLOCKS_MAX];
    struct chunker c;
    if (chunker_init(&c, true, 4096) != 0)
        exit(2);
    double took = 0;
    size_t hashed = 0;
    for (size_t at = 0; at < bytes; at += SEG_BYTES) {
        size_t n = cut(&c, data + at, jobs, fps);
        double begin = seconds();
        if (fper_batch(f, jobs, n, NULL) != 0)
            exit(2);
        took += seconds() - begin;
        for (size_t i = 0; i < n; i++)
            hashed += jobs[i].len;
        sum += fps[0].b[0];
    }
    return (double)hashed / took;
}

static double digest_all(struct fper *f)
{
    uint8_t out[DIGEST_BYTES];
    double begin = seconds();
    for (size_t at = 0; at < bytes; at += SEG_BYTES)
        if (fper_segment(f, data + at, SEG_BYTES, out, NULL) != 0)
            exit(2);
    sum += out[0];
    return (double)bytes / (seconds() - begin);
}

/* Segments that hold data, until there are enough. */
static void load(const char *file, size_t want)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    data = fd < 0 ? NULL : malloc(want);
    if (data == NULL) {
        perror(file);
        exit(2);
    }
    off_t at = 0;
    while (bytes + SEG_BYTES <= want && pread(fd, data + bytes, SEG_BYTES, at) == SEG_BYTES) {
        if (data[bytes] != 0 || memcmp(data + bytes, data + bytes + 1, SEG_BYTES - 1) != 0)
            bytes += SEG_BYTES;
        at += SEG_BYTES;
    }
    close(fd);
    if (bytes == 0) {
        fprintf(stderr, "%s: no segment of 2 MiB with data in it\n", file);
        exit(2);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const uint8_t key[DIGEST_KEY_BYTES];
    static const struct { const char *name; enum fp_path path; } paths[] = {
        {"sha256_evp", FP_PATH_EVP}, {"sha256_avx2", FP_PATH_AVX2}, {"sha256_avx512", FP_PATH_AVX512},
    };
    if (argc < 2) {
        fprintf(stderr, "usage: parts FILE [MIB]\n");
        return 2;
    }
    load(argv[1], (size_t)(argc > 2 ? strtoull(argv[2], NULL, 0) : 256) << 20);
    double mbs[PARTS][TURNS] = {{0}};
    struct fper *f = fper_new(FP_SHA256, key, NULL);
    if (f == NULL)
        return 2;
    for (int t = 0; t < TURNS; t++) {
        mbs[0][t] = cut_all() / 1e6;
        mbs[1][t] = digest_all(f) / 1e6;
        for (int p = 0; p < 3; p++)
            mbs[2 + p][t] = fper_force(f, paths[p].path) == 0 ? hash_all(f) / 1e6 : 0;
    }
    for (int p = 0; p < 5; p++) {
        qsort(mbs[p], TURNS, sizeof mbs[p][0], by_value);
        printf("%s %.0f\n", p == 0 ? "cut" : p == 1 ? "segment_digest" : paths[p - 2].name, mbs[p][TURNS / 2]);
    }
    fper_free(f);
    free(data);
    return sum == 1 ? 3 : 0;
}
