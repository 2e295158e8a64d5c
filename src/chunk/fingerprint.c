/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests through OpenSSL's EVP, and the choice between it and the lanes (sha256_lanes.h). Algorithms are fetched once per
 * fper and contexts are used again: for 4 KiB blocks the implicit fetch of each EVP_DigestInit would cost more than a tenth
 * of the hashing itself.
 */
#include "chunk/fingerprint.h"

#include "base/verr.h"
#include "chunk/sha256_lanes.h"
#include "format/storeconf.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

_Static_assert((int)FP_SHA256 == (int)STORECONF_SHA256 && (int)FP_SHA1 == (int)STORECONF_SHA1, "kinds in store.conf");
_Static_assert((int)DIGEST_KEY_BYTES == (int)STORECONF_KEY_BYTES, "key in store.conf and key of the digest");

struct fper {
    enum fp_kind kind;
    size_t md_len;
    EVP_MD *md;
    EVP_MD_CTX *md_ctx;
    EVP_MAC *mac;
    EVP_MAC_CTX *mac_ctx;   /* keyed once; each segment only sets the nonce again */
    const char *path;
    struct sha256_lanes lanes;      /* kernel NULL: EVP alone */
};

/* True when OpenSSL failed because memory was out: it says so, or that a context could not be made (which has no other cause: the
 * algorithms were fetched before), or it had no memory left to say anything. */
static bool of_memory(unsigned long first)
{
    bool memory = first == 0;
    for (unsigned long code = first; code != 0; code = ERR_get_error())
        memory |= ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE || ERR_GET_REASON(code) == EVP_R_INITIALIZATION_ERROR;
    return memory;
}

static int openssl_error(struct verr *err, const char *call)
{
    char text[160];
    unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, sizeof text);
    if (of_memory(code))
        return verr_set(err, ENOMEM, "no memory for digests (%s)", call);
    return verr_set(err, EIO, "OpenSSL: %s failed: %s", call, text);
}

static int md_setup(struct fper *f, struct verr *err)
{
    f->md = EVP_MD_fetch(NULL, f->kind == FP_SHA1 ? "SHA1" : "SHA256", NULL);
    if (f->md == NULL)
        return openssl_error(err, f->kind == FP_SHA1 ? "EVP_MD_fetch(SHA1)" : "EVP_MD_fetch(SHA256)");
    f->md_ctx = EVP_MD_CTX_new();
    if (f->md_ctx == NULL)
        return openssl_error(err, "EVP_MD_CTX_new");
    int len = EVP_MD_get_size(f->md);
    if (len <= 0 || len > FP_BYTES)
        return verr_set(err, EIO, "OpenSSL: digest of unexpected length %d", len);
    f->md_len = (size_t)len;
    return 0;
}

static int mac_setup(struct fper *f, const uint8_t *key, struct verr *err)
{
    char cipher[] = "AES-256-GCM";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_CIPHER, cipher, 0), OSSL_PARAM_construct_end()};
    f->mac = EVP_MAC_fetch(NULL, "GMAC", NULL);
    if (f->mac == NULL)
        return openssl_error(err, "EVP_MAC_fetch(GMAC)");
    f->mac_ctx = EVP_MAC_CTX_new(f->mac);
    if (f->mac_ctx == NULL)
        return openssl_error(err, "EVP_MAC_CTX_new");
    if (EVP_MAC_init(f->mac_ctx, key, DIGEST_KEY_BYTES, params) != 1)
        return openssl_error(err, "EVP_MAC_init");
    return 0;
}

/* ---- the path ---- */

static bool cpu_has_sha(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
#else
    return false;
#endif
}

/* `few` (sha256_lanes.h): lanes that together are as fast as EVP. Measured: EVP 1.75 GB/s with SHA
 * extensions and about 0.4 without, a lane 0.2. */
int fper_force(struct fper *f, enum fp_path path)
{
    enum { FEW = 3, FEW_SHA = 9 };
    if (path == FP_PATH_EVP) {
        f->lanes.kernel = NULL;
        f->path = f->kind == FP_SHA1 ? "sha1 (OpenSSL EVP)" :
                  cpu_has_sha()      ? "sha256 (OpenSSL EVP, SHA extensions)" : "sha256 (OpenSSL EVP)";
        return 0;
    }
    sha256_kernel *kernel = path == FP_PATH_AVX512 ? sha256_kernel_avx512() : sha256_kernel_avx2();
    if (f->kind != FP_SHA256 || kernel == NULL)
        return -ENOTSUP;
    f->lanes.kernel = kernel;
    f->lanes.lanes = path == FP_PATH_AVX512 ? 16 : 8;
    f->lanes.few = cpu_has_sha() ? FEW_SHA : FEW;
    f->path = path == FP_PATH_AVX512 ? "sha256 (16 lanes, AVX-512)" : "sha256 (8 lanes, AVX2)";
    return 0;
}

static void fastest_path(struct fper *f)
{
    if (fper_force(f, FP_PATH_AVX512) == 0 || (!cpu_has_sha() && fper_force(f, FP_PATH_AVX2) == 0))
        return;
    (void)fper_force(f, FP_PATH_EVP);
}

const char *fper_path(const struct fper *f)
{
    return f->path;
}

struct fper *fper_new(enum fp_kind kind, const uint8_t digest_key[DIGEST_KEY_BYTES], struct verr *err)
{
    if (kind != FP_SHA256 && kind != FP_SHA1) {
        verr_set(err, EINVAL, "unknown kind of fingerprint %d", (int)kind);
        return NULL;
    }
    struct fper *f = calloc(1, sizeof *f);
    if (f == NULL) {
        verr_set(err, ENOMEM, "no memory for digest contexts");
        return NULL;
    }
    f->kind = kind;
    if (md_setup(f, err) < 0 || mac_setup(f, digest_key, err) < 0) {
        fper_free(f);
        return NULL;
    }
    fastest_path(f);
    return f;
}

void fper_free(struct fper *f)
{
    if (f == NULL)
        return;
    EVP_MD_CTX_free(f->md_ctx);
    EVP_MD_free(f->md);
    EVP_MAC_CTX_free(f->mac_ctx); /* wipes the key schedule */
    EVP_MAC_free(f->mac);
    free(f);
}

static int evp_one(struct fper *f, const struct fp_job *job, struct verr *err)
{
    struct fp fp = {{0}};
    unsigned len = 0;
    if (EVP_DigestInit_ex2(f->md_ctx, f->md, NULL) != 1)
        return openssl_error(err, "EVP_DigestInit_ex2");
    if (EVP_DigestUpdate(f->md_ctx, job->data, job->len) != 1)
        return openssl_error(err, "EVP_DigestUpdate");
    if (EVP_DigestFinal_ex(f->md_ctx, fp.b, &len) != 1 || len != f->md_len)
        return openssl_error(err, "EVP_DigestFinal_ex");
    *job->out = fp;
    return 0;
}

int fper_batch(struct fper *f, const struct fp_job *jobs, size_t n, struct verr *err)
{
    int rc = 0;
    if (f->lanes.kernel == NULL) {
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = evp_one(f, &jobs[i], err);
        return rc;
    }
    for (size_t at = 0, some; at < n && rc == 0; at += some) {
        some = n - at < SHA256_WINDOW ? n - at : SHA256_WINDOW;
        size_t left_out = sha256_lanes_run(&f->lanes, jobs + at, some);
        for (size_t i = 0; i < left_out && rc == 0; i++)
            rc = evp_one(f, &jobs[at + f->lanes.order[i]], err);
    }
    return rc;
}

int fper_segment(struct fper *f, const void *data, size_t len, uint8_t out[DIGEST_BYTES], struct verr *err)
{
    /* The nonce is always zero: the digest is a keyed checksum and is never published as a MAC (header). Setting it again
     * is what starts a new message; the key stays. */
    uint8_t nonce[12] = {0}, tag[DIGEST_BYTES];
    size_t tag_len = 0;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_IV, nonce, sizeof nonce), OSSL_PARAM_construct_end()};
    if (EVP_MAC_init(f->mac_ctx, NULL, 0, params) != 1)
        return openssl_error(err, "EVP_MAC_init");
    if (len != 0 && EVP_MAC_update(f->mac_ctx, data, len) != 1)
        return openssl_error(err, "EVP_MAC_update");
    if (EVP_MAC_final(f->mac_ctx, tag, &tag_len, sizeof tag) != 1 || tag_len != sizeof tag)
        return openssl_error(err, "EVP_MAC_final");
    memcpy(out, tag, sizeof tag);
    return 0;
}
