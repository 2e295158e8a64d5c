/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fingerprint: the digests of blocks and segments. Only user of OpenSSL for digests.
 *
 * Takes batches, so that a run-time choice between EVP and lanes of vector code fits in without changing callers
 * (issue "Fast"); the EVP path is the reference that every other path must equal.
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

/* Fingerprints of n blocks. 0, or -EIO when OpenSSL fails (err says which call). */
int fper_batch(struct fper *f, const struct fp_job *jobs, size_t n, struct verr *err);

/* Keyed digest of a segment (GMAC-AES-256, nonce 0: a keyed checksum compared against the same disk's parent only,
 * never across VMs). 0 or -EIO. */
int fper_segment(struct fper *f, const void *data, size_t len, uint8_t out[DIGEST_BYTES], struct verr *err);

/* Name of the path in use, for `varve status`: "sha256 (OpenSSL EVP)". */
const char *fper_path(const struct fper *f);

#endif
