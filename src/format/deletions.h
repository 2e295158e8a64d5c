/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deletion log: the references that a generation condemns, docs/FORMAT.md "Deletion log". File STORE/generations/G/deletions;
 * complete when its generation appears, and never changed.
 */
#ifndef VARVE_FORMAT_DELETIONS_H
#define VARVE_FORMAT_DELETIONS_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DELETION_LOG_MAX ((size_t)1 << 32)      /* bytes of the longest log */

struct deletion_log {
    struct vid store;
    uint64_t generation;
    uint64_t n;             /* references */
    const uint8_t *refs;    /* n of 8 bytes, ascending, in the bytes that were decoded: borrowed from them */
};

/* Bytes of a log of n references; 0: more than a log can have. */
size_t deletion_log_bytes(uint64_t n);
/* refs: n references of blocks, ascending, none twice (decode refuses others). out: deletion_log_bytes(n), not 0. */
void deletion_log_encode(const struct vid *store, uint64_t generation, const uint64_t *refs, uint64_t n, uint8_t *out);
/* Checks every field and reference. want: of which store and generation it must be (nothing else of it is looked at); NULL: any.
 * 0; -EBADMSG: damaged, or another one than is wanted (why: a constant text); -ENOTSUP: a newer version. */
int deletion_log_decode(const uint8_t *data, size_t len, const struct deletion_log *want, struct deletion_log *out, const char **why);

uint64_t deletion_log_ref(const struct deletion_log *log, uint64_t i);
bool deletion_log_has(const struct deletion_log *log, uint64_t ref);

#endif
