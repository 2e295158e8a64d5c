/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz: what the fuzz targets share. A target is one family of decoders of foreign bytes: a table of kinds of records, each
 * with real records out of the encoders (seeds), a way to mend its checksums, and a check of what must hold for any bytes.
 *
 * The same sources build twice: as libFuzzer targets (-Dfuzz=true, clang), and as plain programs that replay every seed, a
 * number of seeded mutations of each, and the files given (fuzz.c). An input is one byte that chooses the kind, then the
 * bytes of the record.
 *
 * Checked beyond "no crash, no sanitizer report": a seed is accepted; what is accepted encodes to the same bytes; what is
 * refused has a reason; nothing behind the record is read (a page without access lies there); no allocation is larger than
 * FUZZ_ALLOC_MAX; what was allocated is freed.
 */
#ifndef VARVE_TESTS_FUZZ_H
#define VARVE_TESTS_FUZZ_H

#include "base/endian.h"
#include "base/hash.h"
#include "base/id.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FUZZ_INPUT_MAX = 512 * 1024, FUZZ_ALLOC_MAX = 64 << 20 };

struct fuzz_kind {
    const char *name;
    size_t fixed;               /* length of every record of this kind; 0: any */
    unsigned slow;              /* replay makes that much fewer mutations; 0 is 1 */
    /* The i-th real record into out (FUZZ_INPUT_MAX bytes): its length, 0 behind the last. */
    size_t (*seed)(unsigned i, uint8_t *out);
    /* Makes the checksums right; NULL: there is none. The length stays. */
    void (*mend)(uint8_t *p, size_t len);
    /* Decodes it. True: accepted. FUZZ_CHECK ends the program when a promise is broken. */
    bool (*feed)(const uint8_t *p, size_t len);
};
extern const char fuzz_family[];
extern const struct fuzz_kind fuzz_kinds[];
extern const unsigned fuzz_nkinds;
/* Once before anything is fed; may be empty. */
void fuzz_setup(void);

#define FUZZ_CHECK(cond) do { if (!(cond)) fuzz_broken(#cond, __FILE__, __LINE__); } while (0)
void fuzz_broken(const char *what, const char *file, int line) __attribute__((noreturn));

/* A repeatable id and repeatable numbers for seeds. */
static inline struct vid fuzz_id(uint8_t n)
{
    struct vid id;
    memset(id.b, 0x40 + n, VID_BYTES);
    id.b[0] = n;
    return id;
}

static inline uint64_t fuzz_next(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* hash64 of all before it, as the last 8 bytes. */
static inline void fuzz_mend_tail(uint8_t *p, size_t len)
{
    if (len >= 8)
        put_le64(p + len - 8, hash64(p, len - 8));
}

#endif
