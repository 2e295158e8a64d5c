/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container: header, frames, footer pages and trailers of a container file as bytes.
 *
 * All records but the footer page begin alike (magic, version, one word of their own, store, container, version id), so
 * that a reader knows from the first 56 bytes whether what it holds belongs to the file and place it asked for.
 */
#include "format/container.h"

#include "base/endian.h"
#include "format/seal.h"

#include <errno.h>
#include <stdbool.h>

/* Common beginning, behind magic (8) and version (4). */
enum { AT_WORD = 12, AT_STORE = 16, AT_CONTAINER = 32, AT_VERSION_ID = 40 };
/* Header (word: type). */
enum { HDR_FLAGS = 56, HDR_SUM = 120 };
/* Frame (word: codec). */
enum { FRM_FIRST = 56, FRM_BLOCKS = 60, FRM_RAW = 64, FRM_STORED = 68, FRM_RESERVED = 72, FRM_SUM = 80, FRM_DATA_SUM = 88 };
/* Trailer (word: section). */
enum { TRL_FIRST = 56, TRL_ENTRIES = 60, TRL_SECTION_OFF = 64, TRL_FOOTER_OFF = 72, TRL_PREV = 80, TRL_RESERVED = 88, TRL_SUM = 120 };
/* Footer page and entry. */
enum { PG_COUNT = 4, PG_SUM = 8 };
enum { ENT_FP = 0, ENT_FRAME_OFF = 32, ENT_IN_FRAME = 36, ENT_LEN = 40, ENT_RESERVED = 44 };

_Static_assert(HDR_SUM + 8 == CHEADER_BYTES, "header");
_Static_assert(FRM_DATA_SUM + 8 == CFRAME_BYTES, "frame");
_Static_assert(TRL_SUM + 8 == CTRAILER_BYTES, "trailer");
_Static_assert(FOOTER_PAGE_HEAD + FOOTER_PAGE_ENTRIES * FOOTER_ENTRY_BYTES == FOOTER_PAGE_BYTES, "footer page");
_Static_assert(PG_SUM + 8 == FOOTER_PAGE_HEAD && ENT_RESERVED + 4 == FOOTER_ENTRY_BYTES, "footer entry");

static int bad(const char **why, const char *text)
{
    if (why != NULL)
        *why = text;
    return -EBADMSG;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static struct seal seal_in(enum seal_kind kind, const struct container_id *id, uint64_t number)
{
    return (struct seal){.kind = kind, .store = &id->store, .version = &id->version, .file = id->container, .number = number};
}

/* The record says which container it belongs to; the caller compares that with what it asked for. */
static int open_any(enum seal_kind kind, const uint8_t *in, size_t len, struct container_id *id, const char **why)
{
    int r = seal_open(&(struct seal){.kind = kind, .anywhere = true}, in, len, why);
    if (r < 0)
        return r;
    memcpy(id->store.b, in + AT_STORE, VID_BYTES);
    id->container = get_le64(in + AT_CONTAINER);
    memcpy(id->version.b, in + AT_VERSION_ID, VID_BYTES);
    if (id->container > REF_CONTAINER_MAX)
        return bad(why, "container number out of range");
    return 0;
}

static bool ordinals_fit(uint32_t first, uint32_t count)
{
    return (uint64_t)first + count <= UINT64_C(1) << ORDINAL_BITS;
}

/* ---- header ---- */

void cheader_encode(const struct cheader *h, uint8_t out[CHEADER_BYTES])
{
    struct seal s = seal_in(SEAL_CONTAINER, &h->id, 0);
    memset(out, 0, CHEADER_BYTES);
    put_le32(out + AT_WORD, h->type);
    put_le32(out + HDR_FLAGS, h->flags);
    seal_close(&s, out, CHEADER_BYTES);
}

int cheader_decode(const uint8_t in[CHEADER_BYTES], struct cheader *out, const char **why)
{
    struct cheader h = {0};
    int r = open_any(SEAL_CONTAINER, in, CHEADER_BYTES, &h.id, why);
    if (r < 0)
        return r;
    h.type = get_le32(in + AT_WORD);
    h.flags = get_le32(in + HDR_FLAGS);
    if (h.type != CONTAINER_BLOCKS && h.type != CONTAINER_RECIPES)
        return bad(why, "unknown type of container");
    if (h.flags & ~(uint32_t)(CONTAINER_SHARED | CONTAINER_PRIVATE | CONTAINER_CDS))
        return bad(why, "unknown flags");
    if ((h.flags & CONTAINER_SHARED) != 0 && (h.flags & CONTAINER_PRIVATE) != 0)
        return bad(why, "shared and private at once");
    if (!all_zero(in + HDR_FLAGS + 4, HDR_SUM - HDR_FLAGS - 4))
        return bad(why, "reserved bytes are not zero");
    *out = h;
    return 0;
}

/* ---- frame ---- */

void cframe_encode(const struct cframe *f, const void *payload, uint8_t out[CFRAME_BYTES])
{
    struct seal s = seal_in(SEAL_FRAME, &f->id, f->first_ordinal);
    memset(out, 0, CFRAME_BYTES);
    put_le32(out + AT_WORD, f->codec);
    put_le32(out + FRM_BLOCKS, f->blocks);
    put_le32(out + FRM_RAW, f->raw_len);
    put_le32(out + FRM_STORED, f->stored_len);
    seal_close(&s, out, FRM_DATA_SUM);
    seal_close_payload(out, FRM_DATA_SUM, payload, f->stored_len);
}

static int frame_lengths(const struct cframe *f, const char **why)
{
    if (f->raw_len == 0 || f->raw_len > FRAME_RAW_MAX)
        return bad(why, "length of the decoded frame out of range");
    if (f->codec == FRAME_STORED && f->stored_len != f->raw_len)
        return bad(why, "length of a stored frame differs from its content");
    if (f->codec == FRAME_ZSTD && (f->stored_len == 0 || f->stored_len >= f->raw_len))
        return bad(why, "length of a compressed frame out of range");
    if (f->codec != FRAME_STORED && f->codec != FRAME_ZSTD)
        return bad(why, "unknown codec");
    if (f->blocks == 0 || f->blocks > f->raw_len || !ordinals_fit(f->first_ordinal, f->blocks))
        return bad(why, "number of blocks out of range");
    return 0;
}

int cframe_decode(const uint8_t in[CFRAME_BYTES], struct cframe *out, const char **why)
{
    struct cframe f = {0};
    int r = open_any(SEAL_FRAME, in, FRM_DATA_SUM, &f.id, why);
    if (r < 0)
        return r;
    f.codec = get_le32(in + AT_WORD);
    f.first_ordinal = get_le32(in + FRM_FIRST);
    f.blocks = get_le32(in + FRM_BLOCKS);
    f.raw_len = get_le32(in + FRM_RAW);
    f.stored_len = get_le32(in + FRM_STORED);
    if (!all_zero(in + FRM_RESERVED, FRM_SUM - FRM_RESERVED))
        return bad(why, "reserved bytes are not zero");
    r = frame_lengths(&f, why);
    if (r == 0)
        *out = f;
    return r;
}

int cframe_check(const uint8_t in[CFRAME_BYTES], const void *payload, const char **why)
{
    struct cframe f;
    int r = cframe_decode(in, &f, why);
    return r < 0 ? r : seal_open_payload(in, FRM_DATA_SUM, payload, f.stored_len, why);
}

/* ---- footer page ---- */

void footer_page_encode(const struct container_id *id, uint32_t first_ordinal, const struct footer_entry *e, uint32_t n,
                        uint8_t out[FOOTER_PAGE_BYTES])
{
    struct seal s = seal_in(SEAL_FOOTER, id, first_ordinal);
    memset(out, 0, FOOTER_PAGE_BYTES);
    put_le32(out + PG_COUNT, n);
    for (uint32_t i = 0; i < n && i < FOOTER_PAGE_ENTRIES; i++) {
        uint8_t *p = out + FOOTER_PAGE_HEAD + (size_t)i * FOOTER_ENTRY_BYTES;
        memcpy(p + ENT_FP, e[i].fp.b, FP_BYTES);
        put_le32(p + ENT_FRAME_OFF, e[i].frame_off);
        put_le32(p + ENT_IN_FRAME, e[i].in_frame);
        put_le32(p + ENT_LEN, e[i].len);
    }
    seal_close(&s, out, FOOTER_PAGE_BYTES);
}

static int entry_decode(const uint8_t *p, struct footer_entry *e, const char **why)
{
    memcpy(e->fp.b, p + ENT_FP, FP_BYTES);
    e->frame_off = get_le32(p + ENT_FRAME_OFF);
    e->in_frame = get_le32(p + ENT_IN_FRAME);
    e->len = get_le32(p + ENT_LEN);
    e->reserved = get_le32(p + ENT_RESERVED);
    if (e->reserved != 0)
        return bad(why, "reserved bytes of a footer entry are not zero");
    if (e->len > BLOCK_MAX || e->in_frame > FRAME_RAW_MAX - e->len)
        return bad(why, "block of a footer entry out of range");
    if (e->len == 0 ? e->frame_off != 0 || e->in_frame != 0 : e->frame_off < CHEADER_BYTES)
        return bad(why, "frame of a footer entry out of range");
    return 0;
}

int footer_page_decode(const struct container_id *id, uint32_t first_ordinal, const uint8_t in[FOOTER_PAGE_BYTES],
                       struct footer_entry *out, uint32_t *n, const char **why)
{
    struct seal s = seal_in(SEAL_FOOTER, id, first_ordinal);
    int r = seal_open(&s, in, FOOTER_PAGE_BYTES, why);
    if (r < 0)
        return r;
    uint32_t count = get_le32(in + PG_COUNT);
    if (count == 0 || count > FOOTER_PAGE_ENTRIES || !ordinals_fit(first_ordinal, count))
        return bad(why, "number of entries of a footer page out of range");
    size_t used = FOOTER_PAGE_HEAD + (size_t)count * FOOTER_ENTRY_BYTES;
    if (!all_zero(in + used, FOOTER_PAGE_BYTES - used))
        return bad(why, "unused bytes of a footer page are not zero");
    struct footer_entry e;
    for (uint32_t i = 0; i < count; i++) /* all of them before the first goes out */
        if (entry_decode(in + FOOTER_PAGE_HEAD + (size_t)i * FOOTER_ENTRY_BYTES, &e, why) < 0)
            return -EBADMSG;
    for (uint32_t i = 0; i < count; i++)
        entry_decode(in + FOOTER_PAGE_HEAD + (size_t)i * FOOTER_ENTRY_BYTES, &out[i], why);
    *n = count;
    return 0;
}

/* ---- trailer ---- */

void ctrailer_encode(const struct ctrailer *t, uint8_t out[CTRAILER_BYTES])
{
    struct seal s = seal_in(SEAL_TRAILER, &t->id, t->section);
    memset(out, 0, CTRAILER_BYTES);
    put_le32(out + TRL_FIRST, t->first_ordinal);
    put_le32(out + TRL_ENTRIES, t->entries);
    put_le64(out + TRL_SECTION_OFF, t->section_off);
    put_le64(out + TRL_FOOTER_OFF, t->footer_off);
    put_le64(out + TRL_PREV, t->prev_trailer);
    seal_close(&s, out, CTRAILER_BYTES);
}

/* Offsets are bounded by 32 bits first (entries hold no larger ones), so that later sums cannot overflow. */
static int trailer_offsets(const struct ctrailer *t, const char **why)
{
    if (t->section_off > UINT32_MAX || t->footer_off > UINT32_MAX || t->prev_trailer > UINT32_MAX)
        return bad(why, "offset of a trailer out of range");
    uint64_t begins = t->section == 0 ? CHEADER_BYTES : t->prev_trailer + CTRAILER_BYTES;
    if ((t->section == 0) != (t->prev_trailer == 0) || t->section_off != begins || t->footer_off < t->section_off)
        return bad(why, "offsets of a trailer contradict each other");
    return 0;
}

int ctrailer_decode(const uint8_t in[CTRAILER_BYTES], struct ctrailer *out, const char **why)
{
    struct ctrailer t = {0};
    int r = open_any(SEAL_TRAILER, in, CTRAILER_BYTES, &t.id, why);
    if (r < 0)
        return r;
    t.section = get_le32(in + AT_WORD);
    t.first_ordinal = get_le32(in + TRL_FIRST);
    t.entries = get_le32(in + TRL_ENTRIES);
    t.section_off = get_le64(in + TRL_SECTION_OFF);
    t.footer_off = get_le64(in + TRL_FOOTER_OFF);
    t.prev_trailer = get_le64(in + TRL_PREV);
    if (t.entries == 0 || !ordinals_fit(t.first_ordinal, t.entries))
        return bad(why, "number of entries of a trailer out of range");
    if (!all_zero(in + TRL_RESERVED, TRL_SUM - TRL_RESERVED))
        return bad(why, "reserved bytes are not zero");
    r = trailer_offsets(&t, why);
    if (r == 0)
        *out = t;
    return r;
}
