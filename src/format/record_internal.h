/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record: the frame that node records, segment recipes, snapshot recipes and side files share (docs/FORMAT.md, "Record
 * frame"): magic (8), version (4), length (4), body, hash64 of everything before it (8). Frame and checksum keep this
 * shape in every version, so that a newer record is told from a damaged one.
 */
#ifndef VARVE_FORMAT_RECORD_INTERNAL_H
#define VARVE_FORMAT_RECORD_INTERNAL_H

#include "base/endian.h"
#include "base/hash.h"
#include "base/id.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { RECORD_VERSION = 1, RECORD_HEAD = 16, RECORD_TAIL = 8, RECORD_MAGIC = 8 };

static inline int record_bad(const char **why, const char *text)
{
    if (why != NULL)
        *why = text;
    return -EBADMSG;
}

static inline int record_newer(const char **why)
{
    if (why != NULL)
        *why = "written by a newer version of varve";
    return -ENOTSUP;
}

/* Puts the head and the checksum around a body that stands in its place already. */
static inline void record_close(uint8_t *out, const char *magic, size_t len)
{
    memcpy(out, magic, RECORD_MAGIC);
    put_le32(out + 8, RECORD_VERSION);
    put_le32(out + 12, (uint32_t)len);
    put_le64(out + len - RECORD_TAIL, hash64(out, len - RECORD_TAIL));
}

/* Magic, length, checksum, version, in this order. min: head, smallest body and tail. */
static inline int record_check(const uint8_t *data, size_t len, size_t min, size_t max, const char *magic, const char **why)
{
    if (len < RECORD_HEAD + RECORD_TAIL)
        return record_bad(why, "shorter than a record");
    if (memcmp(data, magic, RECORD_MAGIC) != 0)
        return record_bad(why, "wrong magic");
    if (get_le32(data + 12) != len)
        return record_bad(why, "length does not agree with the file (torn write?)");
    if (get_le64(data + len - RECORD_TAIL) != hash64(data, len - RECORD_TAIL))
        return record_bad(why, "checksum is wrong");
    uint32_t version = get_le32(data + 8);
    if (version > RECORD_VERSION)
        return record_newer(why);
    if (version != RECORD_VERSION)
        return record_bad(why, "version 0");
    if (len < min || len > max)
        return record_bad(why, "length out of range");
    return 0;
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
