/* SPDX-License-Identifier: Apache-2.0 */
/* Container header, frame with its payload, footer page, trailer. */
#include "fuzz.h"

#include "format/container.h"

const char fuzz_family[] = "container";

void fuzz_setup(void)
{
}

static struct container_id the_id(void)
{
    return (struct container_id){.store = fuzz_id(1), .container = 0x10002, .version = fuzz_id(2)};
}

/* ---- header ---- */

static size_t header_seed(unsigned i, uint8_t *out)
{
    if (i >= 2)
        return 0;
    struct cheader h = {.id = the_id(), .type = i == 0 ? CONTAINER_BLOCKS : CONTAINER_RECIPES, .flags = i == 0 ? CONTAINER_SHARED : CONTAINER_PRIVATE};
    cheader_encode(&h, out);
    return CHEADER_BYTES;
}

static bool header_feed(const uint8_t *p, size_t len)
{
    struct cheader h;
    const char *why = NULL;
    uint8_t again[CHEADER_BYTES];
    (void)len;
    if (cheader_decode(p, &h, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    cheader_encode(&h, again);
    FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    return true;
}

/* ---- frame: 96 bytes and the payload ---- */

static size_t frame_seed(unsigned i, uint8_t *out)
{
    static const struct { uint32_t codec, raw, stored, blocks; } v[] = {
        {FRAME_STORED, 1, 1, 1}, {FRAME_STORED, 4096, 4096, 2}, {FRAME_ZSTD, FRAME_RAW_MAX, 300, 40}, {FRAME_ZSTD, 65536, 65535, 65536},
    };
    if (i >= sizeof v / sizeof v[0])
        return 0;
    struct cframe f = {.id = the_id(), .first_ordinal = i * 100, .blocks = v[i].blocks, .codec = v[i].codec, .raw_len = v[i].raw, .stored_len = v[i].stored};
    memset(out + CFRAME_BYTES, (int)('a' + i), v[i].stored);
    cframe_encode(&f, out + CFRAME_BYTES, out);
    return CFRAME_BYTES + v[i].stored;
}

static void frame_mend(uint8_t *p, size_t len)
{
    if (len < CFRAME_BYTES)
        return;
    put_le64(p + 80, hash64(p, 80));
    uint32_t stored = get_le32(p + 68);
    if (stored <= len - CFRAME_BYTES)
        put_le64(p + 88, hash64_seed(p + CFRAME_BYTES, stored, get_le64(p + 80)));
}

/* A caller reads the payload that the decoded header names, so no more than that may be touched. */
static bool frame_feed(const uint8_t *p, size_t len)
{
    struct cframe f;
    const char *why = NULL;
    uint8_t again[CFRAME_BYTES];
    if (len < CFRAME_BYTES)
        return false;
    if (cframe_decode(p, &f, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(f.raw_len <= FRAME_RAW_MAX && f.stored_len <= FRAME_RAW_MAX);
    if (f.stored_len > len - CFRAME_BYTES || cframe_check(p, p + CFRAME_BYTES, &why) < 0)
        return false;
    cframe_encode(&f, p + CFRAME_BYTES, again);
    FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    return true;
}

/* ---- footer page ---- */

static size_t page_seed(unsigned i, uint8_t *out)
{
    static const uint32_t counts[] = {1, 7, FOOTER_PAGE_ENTRIES};
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    struct container_id id = the_id();
    if (i >= sizeof counts / sizeof counts[0])
        return 0;
    memset(e, 0, sizeof e);
    for (uint32_t k = 0; k < counts[i]; k++) {
        memset(e[k].fp.b, (int)k, FP_BYTES);
        if (k % 5 != 3)
            e[k] = (struct footer_entry){.fp = e[k].fp, .frame_off = 128 + k * 4096, .in_frame = k * 100, .len = 100 + k};
    }
    footer_page_encode(&id, 77, e, counts[i], out);
    return FOOTER_PAGE_BYTES;
}

static void page_mend(uint8_t *p, size_t len)
{
    struct container_id id = the_id();
    uint8_t where[2 * VID_BYTES + 8 + 4 + 8];
    (void)len;
    memcpy(where, id.store.b, VID_BYTES);
    memcpy(where + VID_BYTES, id.version.b, VID_BYTES);
    put_le64(where + 2 * VID_BYTES, id.container);
    put_le32(where + 2 * VID_BYTES + 8, 77);
    memcpy(where + 2 * VID_BYTES + 12, p, 8);
    put_le64(p + 8, hash64_seed(p + FOOTER_PAGE_HEAD, FOOTER_PAGE_BYTES - FOOTER_PAGE_HEAD, hash64(where, sizeof where)));
}

static bool page_feed(const uint8_t *p, size_t len)
{
    struct footer_entry *e = malloc(FOOTER_PAGE_ENTRIES * sizeof *e);
    struct container_id id = the_id();
    const char *why = NULL;
    uint8_t again[FOOTER_PAGE_BYTES];
    uint32_t n = 0;
    (void)len;
    int r = footer_page_decode(&id, 77, p, e, &n, &why);
    FUZZ_CHECK(r < 0 ? why != NULL : n >= 1 && n <= FOOTER_PAGE_ENTRIES);
    if (r == 0) {
        footer_page_encode(&id, 77, e, n, again);
        FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
        FUZZ_CHECK(footer_page_decode(&id, 78, p, e, &n, &why) < 0);    /* it belongs to one place only */
    }
    free(e);
    return r == 0;
}

/* ---- trailer ---- */

static size_t trailer_seed(unsigned i, uint8_t *out)
{
    struct ctrailer t = {.id = the_id(), .section = i, .first_ordinal = i * 1000, .entries = 1000, .section_off = CHEADER_BYTES,
                         .footer_off = 1 << 20, .prev_trailer = 0};
    if (i >= 2)
        return 0;
    if (i == 1) {
        t.prev_trailer = 1 << 19;
        t.section_off = t.prev_trailer + CTRAILER_BYTES;
    }
    ctrailer_encode(&t, out);
    return CTRAILER_BYTES;
}

static bool trailer_feed(const uint8_t *p, size_t len)
{
    struct ctrailer t;
    const char *why = NULL;
    uint8_t again[CTRAILER_BYTES];
    (void)len;
    if (ctrailer_decode(p, &t, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    ctrailer_encode(&t, again);
    FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    return true;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"header", CHEADER_BYTES, 0, header_seed, fuzz_mend_tail, header_feed},
    {"frame", 0, 0, frame_seed, frame_mend, frame_feed},
    {"footer-page", FOOTER_PAGE_BYTES, 0, page_seed, page_mend, page_feed},
    {"trailer", CTRAILER_BYTES, 0, trailer_seed, fuzz_mend_tail, trailer_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
