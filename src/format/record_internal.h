/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record: what the decoders of records share. The frame around a node record, segment recipe, snapshot recipe or side file
 * (docs/FORMAT.md, "Record frame") is magic (8), version (4), length (4), body, checksum (8): format/seal.h closes and opens it.
 */
#ifndef VARVE_FORMAT_RECORD_INTERNAL_H
#define VARVE_FORMAT_RECORD_INTERNAL_H

#include "base/endian.h"
#include "base/id.h"
#include "format/seal.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RECORD_TAIL = SEAL_BYTES };

static inline int record_bad(const char **why, const char *text)
{
    if (why != NULL)
        *why = text;
    return -EBADMSG;
}

static inline void put_vid(uint8_t *p, const struct vid *id) { memcpy(p, id->b, VID_BYTES); }
static inline struct vid get_vid(const uint8_t *p)
{
    struct vid id;
    memcpy(id.b, p, VID_BYTES);
    return id;
}

static inline bool all_zero(const uint8_t *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

#endif
