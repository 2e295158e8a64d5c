/* SPDX-License-Identifier: Apache-2.0 */
/* store.conf: an ini file that a person can read, closed by a checksum line (docs/FORMAT.md "store.conf"). */
#ifndef VARVE_FORMAT_STORECONF_H
#define VARVE_FORMAT_STORECONF_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STORE_VERSION = 1, STORECONF_MAX = 4096, STORECONF_KEY_BYTES = 32, STORECONF_VALUE = 81 /* with the final NUL */ };

enum { STORECONF_SHA256 = 1, STORECONF_SHA1 = 2 };   /* = enum fp_kind of chunk/fingerprint.h, which is a layer up */

struct store_conf {
    struct vid id;
    uint32_t version;           /* STORE_VERSION */
    uint32_t fingerprint;       /* enum fp_kind */
    uint32_t block_bytes;       /* average, or the size of fixed blocks */
    bool cdc;
    uint32_t slots;             /* N, 1..4096, power of two */
    uint32_t partitions;        /* q per slot, 1..4096, power of two; the first log2(slots*partitions) bits of a fingerprint choose */
    uint8_t digest_key[STORECONF_KEY_BYTES];
    int64_t created;            /* seconds */
};

/* Defaults: random id and key, sha256, 4096, cdc, 1 slot of 16 partitions; created is 0: the caller has the clock. */
void storeconf_default(struct store_conf *c);
/* Length of the text (a NUL follows it); 0 when a field is not valid. */
size_t storeconf_encode(const struct store_conf *c, char out[STORECONF_MAX]);
/* 0; -EBADMSG (why: which line or key); -ENOTSUP newer version. why may be NULL. */
int storeconf_decode(const char *text, size_t len, struct store_conf *out, char why[128]);

/* Partition (0 .. slots*partitions-1) of a fingerprint whose first 8 bytes are read big-endian. */
uint32_t storeconf_partition(const struct store_conf *c, const uint8_t *fp);

/* ---- what a person chooses for a new store: `varve init` makes its options and their help of this ---- */

struct store_option {
    const char *name;       /* the key, and --NAME of init */
    const char *values;     /* "cdc|fixed" */
    const char *help;
    bool bytes;             /* a length: init takes 4K for 4096 */
};

/* Option i in the order of store.conf; NULL behind the last one. */
const struct store_option *storeconf_option(unsigned i);
/* Value of a key as store.conf has it: decimal numbers, words. "" for a key that does not exist. */
void storeconf_get(const struct store_conf *c, const char *name, char out[STORECONF_VALUE]);
/* Sets a key to such a value. 0, or -EINVAL, and c is as it was; *want (may be NULL): which values there are. */
int storeconf_set(struct store_conf *c, const char *name, const char *value, const char **want);

#endif
