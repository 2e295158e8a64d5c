/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Container file, docs/FORMAT.md "Container": bytes <-> structs, pure. Decoders return 0, -EBADMSG (why: a constant text) or
 * -ENOTSUP (a newer version).
 * Header, every frame and every trailer carry store id, container number, the file's random version id and a first
 * ordinal, all under the checksum, so that bytes of another file, place or version are never taken for these.
 */
#ifndef VARVE_FORMAT_CONTAINER_H
#define VARVE_FORMAT_CONTAINER_H

#include "base/id.h"
#include "format/ref.h"

#include <stddef.h>

enum { CONTAINER_BLOCKS = 1, CONTAINER_RECIPES = 2 };
enum { CONTAINER_SHARED = 1, CONTAINER_PRIVATE = 2, CONTAINER_CDS = 4 };
enum {
    CONTAINER_FULL = 64 * 1024 * 1024,  /* a section is appended only to files below this size */
    CHEADER_BYTES = 128, CFRAME_BYTES = 96, CTRAILER_BYTES = 128,
    FOOTER_ENTRY_BYTES = 48, FOOTER_PAGE_BYTES = 4096, FOOTER_PAGE_HEAD = 16, FOOTER_PAGE_ENTRIES = 85,
};

struct container_id {       /* what header, frame and trailer have in common */
    struct vid store;
    uint64_t container;
    struct vid version;     /* random, new with each file version: caches are keyed by it */
};

struct cheader { struct container_id id; uint32_t type, flags; };

enum { FRAME_STORED = 0, FRAME_ZSTD = 1 };
struct cframe { struct container_id id; uint32_t first_ordinal, blocks, codec, raw_len, stored_len; };

struct footer_entry {
    struct fp fp;
    uint32_t frame_off;     /* of the frame header in the file */
    uint32_t in_frame;      /* offset of the block in the decoded frame */
    uint32_t len;           /* bytes; 0 = tombstone: the ordinal is dead */
    uint32_t reserved;
};

struct ctrailer {
    struct container_id id;
    uint32_t section;               /* 0, 1, ... */
    uint32_t first_ordinal, entries;
    uint64_t section_off, footer_off, prev_trailer;  /* prev_trailer: 0 in the first section */
};

void cheader_encode(const struct cheader *h, uint8_t out[CHEADER_BYTES]);
int cheader_decode(const uint8_t in[CHEADER_BYTES], struct cheader *out, const char **why);
/* Two checksums: of the header, and of the payload (stored_len bytes), which fits no other header. */
void cframe_encode(const struct cframe *f, const void *payload, uint8_t out[CFRAME_BYTES]);
/* Fields only (bounds checked); the checksum of the payload is checked by cframe_check. */
int cframe_decode(const uint8_t in[CFRAME_BYTES], struct cframe *out, const char **why);
int cframe_check(const uint8_t in[CFRAME_BYTES], const void *payload, const char **why);
/* One page of up to FOOTER_PAGE_ENTRIES entries, n of them given; id and page number go into the checksum. */
void footer_page_encode(const struct container_id *id, uint32_t first_ordinal, const struct footer_entry *e, uint32_t n,
                        uint8_t out[FOOTER_PAGE_BYTES]);
int footer_page_decode(const struct container_id *id, uint32_t first_ordinal, const uint8_t in[FOOTER_PAGE_BYTES],
                       struct footer_entry *out, uint32_t *n, const char **why);
void ctrailer_encode(const struct ctrailer *t, uint8_t out[CTRAILER_BYTES]);
int ctrailer_decode(const uint8_t in[CTRAILER_BYTES], struct ctrailer *out, const char **why);

#endif
