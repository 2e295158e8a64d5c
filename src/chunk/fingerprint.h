/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fingerprint: the digests of blocks and segments. Only user of OpenSSL for digests.
 *
 * Takes batches: one message after another leaves most of a CPU idle. SHA-256 has several paths, chosen when a fper is
 * made: 16 messages side by side in AVX-512, the CPU's SHA extensions through EVP, 8 messages in AVX2, plain EVP. All give
 * the same fingerprints; EVP is the reference. Hand over as many blocks at once as there are (a whole segment).
 * A `struct fper` is owned by one thread (EVP contexts are reused); make one per thread.
 */
#ifndef VARVE_CHUNK_FINGERPRINT_H
#define VARVE_CHUNK_FINGERPRINT_H

#include "format/ref.h"

#include <stddef.h>

enum fp_kind { FP_SHA256 = 1, FP_SHA1 = 2 };
enum { DIGEST_KEY_BYTES = 32 };

struct fp_job {
    const void *data;
    size_t len;
    struct fp *out;
};

struct fper;
struct verr;

/* digest_key: the store's key of segment digests. NULL and err on failure. */
struct fper *fper_new(enum fp_kind kind, const uint8_t digest_key[DIGEST_KEY_BYTES], struct verr *err);
void fper_free(struct fper *f);

/* Fingerprints of n blocks, in any order of lengths. 0, or -EIO when OpenSSL fails (err says which call). */
int fper_batch(struct fper *f, const struct fp_job *jobs, size_t n, struct verr *err);

/* Keyed digest of a segment (GMAC-AES-256, nonce 0: a keyed checksum compared against the same disk's parent only,
 * never across VMs). 0 or -EIO. */
int fper_segment(struct fper *f, const void *data, size_t len, uint8_t out[DIGEST_BYTES], struct verr *err);

/* Name of the path in use, for `varve status`: "sha256 (16 lanes, AVX-512)". */
const char *fper_path(const struct fper *f);

/* For tests and measurements: another path than the fastest. -ENOTSUP: not on this CPU, or not for this kind. */
enum fp_path { FP_PATH_EVP, FP_PATH_AVX2, FP_PATH_AVX512 };
int fper_force(struct fper *f, enum fp_path path);

#endif
