/* SPDX-License-Identifier: Apache-2.0 */
/* A disk's files in STATE: headers, volatile attributes, table entry, presence slot, journal record. */
#include "fuzz.h"

#include "live/live_format.h"

const char fuzz_family[] = "live";

void fuzz_setup(void)
{
}

static struct vid disk(void)
{
    return fuzz_id(3);
}

static uint64_t seed_of(uint64_t position)
{
    struct vid d = disk();
    return get_le64(d.b) ^ position;
}

/* ---- header ---- */

static size_t header_seed(unsigned i, uint8_t *out)
{
    struct vid d = disk();
    if (i > LIVE_VOL)
        return 0;
    live_header_encode((enum live_file)i, &d, 6, out);
    return LIVE_STATE_OFF;
}

static void header_mend(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p + 56, hash64(p, 56));
}

static bool header_feed(const uint8_t *p, size_t len)
{
    struct vid d = disk();
    unsigned fits = 0;
    (void)len;
    for (unsigned k = LIVE_TABLE; k <= LIVE_VOL; k++) {
        uint8_t again[LIVE_STATE_OFF];
        int r = live_header_decode((enum live_file)k, &d, 6, p);
        FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -ENODATA || r == -ENOTSUP);
        fits += r == 0;
        live_header_encode((enum live_file)k, &d, 6, again);
        FUZZ_CHECK(r != 0 || memcmp(again, p, sizeof again) == 0);
    }
    FUZZ_CHECK(fits <= 1);
    return fits == 1;
}

/* ---- attributes ---- */

static size_t state_seed(unsigned i, uint8_t *out)
{
    struct vid d = disk();
    struct live_state s = {.size = LIVE_SIZE_MAX, .alloc_bytes = 4096, .mtime_ns = -5, .dirty = 3, .unknown = 1, .changed = true, .clean = i == 0};
    if (i > 1)
        return 0;
    live_state_encode(&d, 6, &s, out);
    return LIVE_STATE_BYTES;
}

static void state_mend(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p + 56, hash64_seed(p, 56, seed_of(6)));
}

static bool state_feed(const uint8_t *p, size_t len)
{
    struct vid d = disk();
    struct live_state s;
    uint8_t again[LIVE_STATE_BYTES];
    (void)len;
    int r = live_state_decode(&d, 6, p, &s);
    FUZZ_CHECK(r == 0 || r == -EBADMSG);
    if (r == 0) {
        live_state_encode(&d, 6, &s, again);
        FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    }
    return r == 0;
}

/* ---- table entry ---- */

static size_t entry_seed(unsigned i, uint8_t *out)
{
    static const struct live_entry v[] = {
        {SEGK_ZERO, true, 0, 0}, {SEGK_STORED, false, SEG_PAGES, 0x10000000005}, {SEGK_STORED, true, LIVE_PAGES_UNKNOWN, 9}, {SEGK_FROZEN, true, 3, 7},
        {SEGK_ZERO, false, 0, 0},
    };
    struct vid d = disk();
    if (i >= sizeof v / sizeof v[0])
        return 0;
    live_entry_encode(&d, 12, &v[i], out);
    return LIVE_ENTRY_BYTES;
}

static void entry_mend(uint8_t *p, size_t len)
{
    (void)len;
    put_le32(p + 12, (uint32_t)hash64_seed(p, 12, seed_of(12)));
}

static bool entry_feed(const uint8_t *p, size_t len)
{
    struct vid d = disk();
    struct live_entry e;
    uint8_t again[LIVE_ENTRY_BYTES];
    (void)len;
    int r = live_entry_decode(&d, 12, p, &e);
    FUZZ_CHECK(r == 0 || r == -EBADMSG);
    if (r == 0) {
        live_entry_encode(&d, 12, &e, again);
        FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    }
    return r == 0;
}

/* ---- presence slot ---- */

static size_t slot_seed(unsigned i, uint8_t *out)
{
    struct vid d = disk();
    struct live_slot s = {.place = 0x10000000005, .absent = i == 0 ? 0 : 7, .flags = LIVE_SLOT_TAGGED};
    if (i > 1)
        return 0;
    for (unsigned w = 0; w < LIVE_WORDS; w++) {
        s.present[w] = i == 0 ? UINT64_MAX : UINT64_C(0xff00);
        s.zero[w] = UINT64_C(0x100);
    }
    live_slot_encode(&d, 12, &s, out);
    return LIVE_SLOT_BYTES;
}

static void slot_mend(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p + 248, hash64_seed(p, 248, seed_of(12)));
}

static bool slot_feed(const uint8_t *p, size_t len)
{
    struct vid d = disk();
    struct live_slot s;
    uint8_t again[LIVE_SLOT_BYTES];
    (void)len;
    int r = live_slot_decode(&d, 12, p, &s);
    FUZZ_CHECK(r == 0 || r == -EBADMSG);
    if (r == 0) {
        for (unsigned w = 0; w < LIVE_WORDS; w++)
            FUZZ_CHECK((s.zero[w] & ~s.present[w]) == 0);
        live_slot_encode(&d, 12, &s, again);
        FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    }
    return r == 0;
}

/* ---- journal record ---- */

enum { OFFSET = 4096 };

static size_t record_seed(unsigned i, uint8_t *out)
{
    struct vid d = disk();
    struct live_pend pend[3];
    struct live_anchor anchors[2] = {{{fuzz_id(3), 1, fuzz_id(5)}, 2}, {{fuzz_id(6), 4, fuzz_id(7)}, 5}};
    struct live_record rec = {.flags = LIVE_COMPLETE, .seq = 8, .synced = OFFSET};
    struct live_head h = {.size = 1 << 30, .alloc_bytes = 4096, .mtime_ns = 1, .last_name_s = 2, .next_seq = 9, .next_no = 20, .first_seq = 3,
                          .table = 5, .layer = 6, .cache = 7, .table_bytes = 8192, .map_bytes = 8192, .marks = LIVE_REWRITING, .changed = true,
                          .npend = i == 0 ? 0 : 3, .nanchors = i == 0 ? 0 : 2, .pend = pend, .anchors = anchors};
    if (i > 1)
        return 0;
    memset(pend, 0, sizeof pend);
    for (unsigned k = 0; k < 3; k++) {
        pend[k].p = (struct snapinfo){.ref.seq = 3 + k, .ref.snap = fuzz_id((uint8_t)(10 + k)), .group = fuzz_id(20), .group_members = 1,
                                      .flags = SNAP_SEALED,
                                     .size = 1 << 20, .label = "before-upgrade", .note = "a note"};
        pend[k].table = 8 + k;
        pend[k].layer = 11 + k;
    }
    memset(pend[2].p.label, 'l', LABEL_MAX);
    memset(pend[2].p.note, 'n', NOTE_MAX);
    live_record_encode(&d, OFFSET, &rec, &h, out);
    return live_record_length(&h);
}

static void record_mend(uint8_t *p, size_t len)
{
    if (len < LIVE_RECORD_HEAD)
        return;
    put_le64(p + 16, len);
    put_le64(p + 56, 0);
    put_le64(p + 56, hash64_seed(p, len, OFFSET));
}

static void record_again(const struct live_record *rec, const struct live_head *h, const uint8_t *p, size_t len)
{
    struct vid d = disk();
    FUZZ_CHECK(live_record_length(h) == len && rec->length == len);
    uint8_t *out = malloc(len);
    FUZZ_CHECK(out != NULL);
    live_record_encode(&d, OFFSET, rec, h, out);
    FUZZ_CHECK(memcmp(out, p, len) == 0);
    free(out);
}

static bool record_feed(const uint8_t *p, size_t len)
{
    struct vid d = disk();
    struct live_record rec;
    struct live_head h = {0};
    int r = live_record_decode(&d, OFFSET, p, len, &rec, &h);
    FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -ENOTSUP);
    if (r < 0)
        return false;
    FUZZ_CHECK(h.npend <= LIVE_PENDING_MAX && h.nanchors <= LIVE_ANCHOR_MAX && h.size <= LIVE_SIZE_MAX);
    record_again(&rec, &h, p, len);
    struct live_head copy;
    FUZZ_CHECK(live_head_copy(&h, &copy) == 0 && copy.npend == h.npend && copy.nanchors == h.nanchors);
    live_head_release(&copy);
    live_head_release(&h);
    return true;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"header", LIVE_STATE_OFF, 0, header_seed, header_mend, header_feed},
    {"state", LIVE_STATE_BYTES, 0, state_seed, state_mend, state_feed},
    {"entry", LIVE_ENTRY_BYTES, 0, entry_seed, entry_mend, entry_feed},
    {"slot", LIVE_SLOT_BYTES, 0, slot_seed, slot_mend, slot_feed},
    {"record", 0, 0, record_seed, record_mend, record_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
