/* SPDX-License-Identifier: Apache-2.0 */
/* Owner record: which host owns a VM, docs/FORMAT.md "Owner record". File STORE/owners/VM.EPOCH; never changed. */
#ifndef VARVE_FORMAT_OWNER_H
#define VARVE_FORMAT_OWNER_H

#include "base/id.h"

#include <stddef.h>
#include <stdint.h>

enum { OWNER_BYTES = 88 };

struct owner_record {
    struct vid store, vm, host;
    uint64_t epoch;
};

/* 0, or -EINVAL for what decode would refuse: a zero host. */
int owner_encode(const struct owner_record *o, uint8_t out[OWNER_BYTES]) __attribute__((warn_unused_result));
/* Checks every field. want: of which store, VM and epoch it must be (its host is not looked at); NULL: any.
 * 0; -EBADMSG: damaged, or another one than is wanted (why: a constant text); -ENOTSUP: a newer version. */
int owner_decode(const uint8_t *data, size_t len, const struct owner_record *want, struct owner_record *out, const char **why);

#endif
