/* SPDX-License-Identifier: Apache-2.0 */
/* live_format: headers, table entries and presence slots. The journal's records are in live_format_head.c. */
#include "live/live_format.h"

#include "base/endian.h"
#include "format/seal.h"

#include <errno.h>
#include <string.h>

enum { ENTRY_KIND_MASK = 3, ENTRY_DIRTY = 4, ENTRY_FLAGS = 7 };

_Static_assert(4096 % LIVE_SLOT_BYTES == 0 && 512 % LIVE_SLOT_BYTES == 0, "a slot never crosses a sector: it is never torn");
_Static_assert(512 % LIVE_ENTRY_BYTES == 0, "an entry never crosses a sector");
_Static_assert((int)SEG_PAGES < (int)LIVE_PAGES_UNKNOWN, "counts of pages fit 16 bits");

static const enum seal_kind header_kinds[] = {
    [LIVE_TABLE] = SEAL_TABLE, [LIVE_MAP] = SEAL_MAP, [LIVE_VOL] = SEAL_VOL,
};

/* A record of another disk or position that turns up here does not pass. */
static struct seal seal_at(enum seal_kind kind, const struct vid *disk, uint64_t position)
{
    return (struct seal){.kind = kind, .id = disk, .number = position};
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

void live_header_encode(enum live_file kind, const struct vid *disk, uint64_t number, uint8_t out[LIVE_STATE_OFF])
{
    struct seal s = seal_at(header_kinds[kind], disk, number);
    memset(out, 0, LIVE_STATE_OFF);
    seal_close(&s, out, LIVE_STATE_OFF);
}

int live_header_decode(enum live_file kind, const struct vid *disk, uint64_t number, const uint8_t in[LIVE_STATE_OFF])
{
    if (all_zero(in, LIVE_STATE_OFF))
        return -ENODATA;
    struct seal s = seal_at(header_kinds[kind], disk, number);
    int r = seal_open(&s, in, LIVE_STATE_OFF, NULL);
    if (r < 0)
        return r;
    return get_le32(in + 12) == 0 && all_zero(in + 40, 16) ? 0 : -EBADMSG;
}

int live_header_page_decode(enum live_file kind, const struct vid *disk, uint64_t number, const uint8_t in[LIVE_HEADER_BYTES])
{
    size_t used = kind == LIVE_VOL ? LIVE_STATE_OFF + LIVE_STATE_BYTES : LIVE_STATE_OFF;
    if (!all_zero(in + used, LIVE_HEADER_BYTES - used))
        return -EBADMSG;
    return live_header_decode(kind, disk, number, in);
}

void live_state_encode(const struct vid *disk, uint64_t number, const struct live_state *s, uint8_t out[LIVE_STATE_BYTES])
{
    struct seal at = seal_at(SEAL_STATE, disk, number);
    memset(out, 0, LIVE_STATE_BYTES);
    put_le64(out, s->size);
    put_le64(out + 8, s->alloc_bytes);
    put_le64(out + 16, (uint64_t)s->mtime_ns);
    put_le32(out + 24, s->changed);
    put_le32(out + 28, s->clean);
    put_le64(out + 32, s->dirty);
    put_le64(out + 40, s->unknown);
    seal_close(&at, out, LIVE_STATE_BYTES);
}

int live_state_decode(const struct vid *disk, uint64_t number, const uint8_t in[LIVE_STATE_BYTES], struct live_state *out)
{
    struct seal s = seal_at(SEAL_STATE, disk, number);
    if (seal_open(&s, in, LIVE_STATE_BYTES, NULL) < 0)
        return -EBADMSG;
    uint64_t size = get_le64(in);
    uint32_t changed = get_le32(in + 24), clean = get_le32(in + 28);
    if (size > LIVE_SIZE_MAX || changed > LIVE_UNKEPT || clean > 1 || get_le64(in + 48) != 0)
        return -EBADMSG;
    *out = (struct live_state){.size = size, .alloc_bytes = get_le64(in + 8), .mtime_ns = (int64_t)get_le64(in + 16),
                               .dirty = get_le64(in + 32), .unknown = get_le64(in + 40), .changed = (enum live_change)changed,
                               .clean = clean == 1};
    return 0;
}

void live_entry_encode(const struct vid *disk, uint64_t segment, const struct live_entry *e, uint8_t out[LIVE_ENTRY_BYTES])
{
    struct seal s = seal_at(SEAL_ENTRY, disk, segment);
    memset(out, 0, LIVE_ENTRY_BYTES);
    if (e->kind == SEGK_ZERO && !e->dirty)
        return;
    put_le64(out, e->kind == SEGK_ZERO ? 0 : e->value);
    put_le16(out + 8, (uint16_t)((unsigned)e->kind | (e->dirty ? ENTRY_DIRTY : 0u)));
    put_le16(out + 10, e->kind == SEGK_ZERO ? 0 : e->pages);
    seal_close(&s, out, LIVE_ENTRY_BYTES);
}

/* What no writer writes means nothing, though the checksum be right: it is refused, not guessed. */
static bool entry_makes_sense(unsigned kind, unsigned flags, unsigned pages, uint64_t value)
{
    switch (kind) {
    case SEGK_ZERO:
        return value == 0 && pages == 0 && (flags & ENTRY_DIRTY) != 0;   /* a clean one is zero bytes */
    case SEGK_STORED:
        return ref_is_block(value) && (pages <= SEG_PAGES || pages == LIVE_PAGES_UNKNOWN);
    case SEGK_FROZEN:
        return value != 0 && pages <= SEG_PAGES;
    default:
        return false;
    }
}

int live_entry_decode(const struct vid *disk, uint64_t segment, const uint8_t in[LIVE_ENTRY_BYTES], struct live_entry *out)
{
    if (all_zero(in, LIVE_ENTRY_BYTES)) {
        *out = (struct live_entry){SEGK_ZERO, false, 0, 0};
        return 0;
    }
    struct seal s = seal_at(SEAL_ENTRY, disk, segment);
    if (seal_open(&s, in, LIVE_ENTRY_BYTES, NULL) < 0)
        return -EBADMSG;
    unsigned flags = get_le16(in + 8), kind = flags & ENTRY_KIND_MASK;
    unsigned pages = get_le16(in + 10);
    uint64_t value = get_le64(in);
    if ((flags & ~(unsigned)ENTRY_FLAGS) != 0 || !entry_makes_sense(kind, flags, pages, value))
        return -EBADMSG;
    *out = (struct live_entry){(enum seg_kind)kind, (flags & ENTRY_DIRTY) != 0, (uint16_t)pages, value};
    return 0;
}

static bool slot_empty(const struct live_slot *s)
{
    uint64_t any = s->absent | s->flags;
    for (unsigned i = 0; i < LIVE_WORDS; i++)
        any |= s->present[i];
    return any == 0;
}

void live_slot_encode(const struct vid *disk, uint64_t segment, const struct live_slot *s, uint8_t out[LIVE_SLOT_BYTES])
{
    struct seal at = seal_at(SEAL_SLOT, disk, segment);
    memset(out, 0, LIVE_SLOT_BYTES);
    if (slot_empty(s))
        return;
    for (unsigned i = 0; i < LIVE_WORDS; i++) {
        put_le64(out + 8 * i, s->present[i]);
        put_le64(out + 64 + 8 * i, s->zero[i]);
    }
    put_le64(out + 128, s->place);
    put_le16(out + 136, s->absent);
    put_le16(out + 138, s->flags);
    seal_close(&at, out, LIVE_SLOT_BYTES);
}

int live_slot_decode(const struct vid *disk, uint64_t segment, const uint8_t in[LIVE_SLOT_BYTES], struct live_slot *out)
{
    if (all_zero(in, LIVE_SLOT_BYTES)) {
        memset(out, 0, sizeof *out);
        return 0;
    }
    struct seal at = seal_at(SEAL_SLOT, disk, segment);
    if (seal_open(&at, in, LIVE_SLOT_BYTES, NULL) < 0)
        return -EBADMSG;
    struct live_slot s = {.place = get_le64(in + 128), .absent = get_le16(in + 136), .flags = get_le16(in + 138)};
    unsigned present = 0;
    for (unsigned i = 0; i < LIVE_WORDS; i++) {
        s.present[i] = get_le64(in + 8 * i);
        s.zero[i] = get_le64(in + 64 + 8 * i);
        if ((s.zero[i] & ~s.present[i]) != 0)
            return -EBADMSG;
        present += (unsigned)__builtin_popcountll(s.present[i]);
    }
    if (s.absent > SEG_PAGES - present || (s.flags & ~(unsigned)LIVE_SLOT_TAGGED) != 0 || !all_zero(in + 140, 108))
        return -EBADMSG;
    if ((s.flags & LIVE_SLOT_TAGGED) != 0 ? !ref_is_block(s.place) : s.place != 0)
        return -EBADMSG;
    if (slot_empty(&s))
        return -EBADMSG;    /* that is zero bytes */
    *out = s;
    return 0;
}
