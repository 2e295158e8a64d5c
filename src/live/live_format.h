/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_format: bytes of a disk's directory in STATE (docs/FORMAT.md "STATE"). Pure functions: no I/O, no locks.
 * Decoders check every field and answer -EBADMSG (damaged or foreign) or -ENOTSUP (newer version).
 */
#ifndef VARVE_LIVE_LIVE_FORMAT_H
#define VARVE_LIVE_LIVE_FORMAT_H

#include "base/id.h"
#include "live/live.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LIVE_HEADER_BYTES = 4096,       /* in front of table, map and vol files */
    LIVE_STATE_OFF = 64,            /* volatile attributes in a vol file's header */
    LIVE_STATE_BYTES = 64,
    LIVE_ENTRY_BYTES = 16,
    LIVE_SLOT_BYTES = 256,
    LIVE_RECORD_HEAD = 64,          /* a journal record's header, and its alignment */
    LIVE_RECORD_MAX = 64 << 20,
    LIVE_PENDING_MAX = 4096,
    LIVE_ANCHOR_MAX = 65536,
    LIVE_PAGES_UNKNOWN = 0xFFFF,    /* in an entry: how many pages the base has is not known */
    LIVE_WORDS = SEG_PAGES / 64
};
#define LIVE_SIZE_MAX (UINT64_C(1) << 47)   /* largest disk: 128 TiB; keeps every product below in 64 bits */

/* ---- headers ---- */
enum live_file { LIVE_TABLE, LIVE_MAP, LIVE_VOL };
/* First 64 bytes of the header page. */
void live_header_encode(enum live_file kind, const struct vid *disk, uint64_t number, uint8_t out[LIVE_STATE_OFF]);
/* 0; -ENODATA: all zero (never completed); -EBADMSG; -ENOTSUP. */
int live_header_decode(enum live_file kind, const struct vid *disk, uint64_t number, const uint8_t in[LIVE_STATE_OFF]);
/* The same of the whole page of a table, map or vol file, the rest of which is zero but for the attributes of a vol file. */
int live_header_page_decode(enum live_file kind, const struct vid *disk, uint64_t number, const uint8_t in[LIVE_HEADER_BYTES]);

/* Since the last freeze. Values of the format. */
enum live_change {
    LIVE_UNCHANGED,
    LIVE_CHANGED,
    LIVE_UNKEPT                     /* not changed, but the snapshot of this state was removed before it was stored */
};

/* Attributes of the live image that survive kill -9 in the open layer's vol file. */
struct live_state {
    uint64_t size, alloc_bytes;
    int64_t mtime_ns;
    uint64_t dirty, unknown;        /* entries of the table that are; believed when clean */
    enum live_change changed;
    bool clean;                     /* everything is durable and counted; cleared before the first change */
};
void live_state_encode(const struct vid *disk, uint64_t number, const struct live_state *s, uint8_t out[LIVE_STATE_BYTES]);
int live_state_decode(const struct vid *disk, uint64_t number, const uint8_t in[LIVE_STATE_BYTES], struct live_state *out);

/* ---- table entry ---- */
struct live_entry {
    enum seg_kind kind;
    bool dirty;
    uint16_t pages;                 /* allocated pages of the base; 0 for SEGK_ZERO */
    uint64_t value;                 /* place or sequence number; 0 for SEGK_ZERO */
};
/* A clean zero entry is sixteen zero bytes, so that tables are sparse. */
void live_entry_encode(const struct vid *disk, uint64_t segment, const struct live_entry *e, uint8_t out[LIVE_ENTRY_BYTES]);
int live_entry_decode(const struct vid *disk, uint64_t segment, const uint8_t in[LIVE_ENTRY_BYTES], struct live_entry *out);

/* ---- presence slot ---- */
enum { LIVE_SLOT_TAGGED = 1u << 0 };
struct live_slot {
    uint64_t present[LIVE_WORDS];   /* bit p % 64 of word p / 64: page p is decided by this layer */
    uint64_t zero[LIVE_WORDS];      /* ... and is zero, whatever the file holds; a subset of present */
    uint64_t place;                 /* of a cache layer: whose content the pages are (flag TAGGED) */
    uint16_t absent;                /* allocated pages (estimated) among those not present */
    uint16_t flags;
};
/* An empty slot is all zero bytes. */
void live_slot_encode(const struct vid *disk, uint64_t segment, const struct live_slot *s, uint8_t out[LIVE_SLOT_BYTES]);
int live_slot_decode(const struct vid *disk, uint64_t segment, const uint8_t in[LIVE_SLOT_BYTES], struct live_slot *out);

/* ---- journal ---- */
struct live_pend {
    struct snapinfo p;
    uint64_t table, layer;          /* file numbers */
    uint64_t table_bytes, map_bytes;    /* these files are at least that long */
};
struct live_head {
    uint64_t size, alloc_bytes;
    int64_t mtime_ns, last_name_s;
    uint64_t next_seq, next_no;
    uint64_t first_seq;             /* snapshots from this one on were frozen from the table that is live now */
    uint64_t table, layer, cache;   /* file numbers; cache 0: none */
    uint64_t table_bytes, map_bytes;    /* these files are at least that long */
    uint32_t marks;
    enum live_change changed;
    unsigned npend, nanchors;
    struct live_pend *pend;         /* ascending sequence */
    struct live_anchor *anchors;
};
enum { LIVE_COMPLETE = 1u << 0 };   /* all files it names were durable before the record was written */
struct live_record {
    uint32_t flags;
    uint64_t length, seq;
    uint64_t synced;                /* the journal was known durable up to here when this was written */
};
size_t live_record_length(const struct live_head *h);
/* Writes the record that stands at that offset of the journal into out (live_record_length bytes). */
void live_record_encode(const struct vid *disk, uint64_t offset, const struct live_record *rec, const struct live_head *h, uint8_t *out);
/* Looks at the header only, which all versions share: 0, or -EBADMSG: not a record of this disk. */
int live_record_peek(const struct vid *disk, const uint8_t in[LIVE_RECORD_HEAD], struct live_record *out);
/* Whole record, -EBADMSG or -ENOTSUP; in has peeked.length bytes. h may be NULL (checksum only). On success h is to be released. */
int live_record_decode(const struct vid *disk, uint64_t offset, const uint8_t *in, size_t len, struct live_record *rec,
                       struct live_head *h);
/* How long the record that begins here must be by what it counts (pending snapshots, anchors, texts), as far as the first n
 * bytes tell it; 0: they end before that can be said. in has peeked. Nothing of it is checked otherwise. */
size_t live_record_claims(const uint8_t *in, size_t n);
/* Deep copy, with room for one more pending snapshot and one more anchor; -ENOMEM. */
int live_head_copy(const struct live_head *from, struct live_head *to);
void live_head_release(struct live_head *h);

#endif
