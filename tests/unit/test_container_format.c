/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Container format: header, frame, footer page and trailer round-trip with random values; every flipped bit is found;
 * fields out of range are refused although their checksum is right; a record of another place is not taken for this one.
 */
#include "base/endian.h"
#include "base/hash.h"
#include "format/container.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t rng;

static uint64_t rnd(void)
{
    rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = rng;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void rnd_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)rnd();
}

static int seed_setup(void **state)
{
    (void)state;
    const char *seed = getenv("VARVE_SEED");
    rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
    return 0;
}

static struct container_id rnd_cid(void)
{
    struct container_id id;
    rnd_bytes(id.store.b, VID_BYTES);
    rnd_bytes(id.version.b, VID_BYTES);
    id.container = rnd() % (REF_CONTAINER_MAX + 1);
    return id;
}

static void assert_cid(const struct container_id *a, const struct container_id *b)
{
    assert_true(vid_eq(&a->store, &b->store));
    assert_true(vid_eq(&a->version, &b->version));
    assert_int_equal(a->container, b->container);
}

static struct cheader rnd_header(void)
{
    return (struct cheader){.id = rnd_cid(), .type = (uint32_t)(1 + rnd() % 2), .flags = 1u << rnd() % 3};
}

static struct ctrailer rnd_trailer(void)
{
    struct ctrailer t = {.id = rnd_cid(), .section = (uint32_t)(rnd() % 5)};
    t.entries = (uint32_t)(1 + rnd() % 100000);
    t.first_ordinal = (uint32_t)(rnd() % ((1u << ORDINAL_BITS) - t.entries));
    t.prev_trailer = t.section == 0 ? 0 : 1000 + rnd() % (1u << 26);
    t.section_off = t.section == 0 ? CHEADER_BYTES : t.prev_trailer + CTRAILER_BYTES;
    t.footer_off = t.section_off + 97 + rnd() % (1u << 26);
    return t;
}

enum { PAYLOAD = 600 };

static struct cframe rnd_frame(uint8_t *payload)
{
    struct cframe f = {.id = rnd_cid(), .codec = (uint32_t)(rnd() % 2)};
    f.stored_len = (uint32_t)(1 + rnd() % PAYLOAD);
    f.raw_len = f.codec == FRAME_STORED ? f.stored_len : (uint32_t)(f.stored_len + 1 + rnd() % 100000);
    f.blocks = (uint32_t)(1 + rnd() % f.raw_len);
    f.first_ordinal = (uint32_t)(rnd() % ((1u << ORDINAL_BITS) - f.blocks));
    rnd_bytes(payload, f.stored_len);
    return f;
}

static uint32_t rnd_entries(struct footer_entry *e)
{
    uint32_t n = (uint32_t)(1 + rnd() % FOOTER_PAGE_ENTRIES);
    memset(e, 0, sizeof *e * FOOTER_PAGE_ENTRIES);
    for (uint32_t i = 0; i < n; i++) {
        rnd_bytes(e[i].fp.b, FP_BYTES);
        if (rnd() % 8 == 0)
            continue; /* a tombstone */
        e[i].len = (uint32_t)(1 + rnd() % BLOCK_MAX);
        e[i].in_frame = (uint32_t)(rnd() % (FRAME_RAW_MAX - e[i].len + 1));
        e[i].frame_off = CHEADER_BYTES + (uint32_t)(rnd() % (1u << 26));
    }
    return n;
}

/* ---- round trips ---- */

static void every_record_round_trips(void **state)
{
    (void)state;
    const char *why = "";
    for (int i = 0; i < 500; i++) {
        uint8_t a[CTRAILER_BYTES], b[CTRAILER_BYTES];
        struct cheader h = rnd_header(), h2;
        cheader_encode(&h, a);
        assert_int_equal(cheader_decode(a, &h2, &why), 0);
        assert_cid(&h.id, &h2.id);
        assert_int_equal(h.type, h2.type);
        assert_int_equal(h.flags, h2.flags);
        cheader_encode(&h2, b);
        assert_memory_equal(a, b, CHEADER_BYTES);

        struct ctrailer t = rnd_trailer(), t2;
        ctrailer_encode(&t, a);
        assert_int_equal(ctrailer_decode(a, &t2, &why), 0);
        assert_int_equal(t.section, t2.section);
        assert_int_equal(t.first_ordinal, t2.first_ordinal);
        assert_int_equal(t.entries, t2.entries);
        ctrailer_encode(&t2, b);
        assert_memory_equal(a, b, CTRAILER_BYTES);

        uint8_t payload[PAYLOAD];
        struct cframe f = rnd_frame(payload), f2;
        cframe_encode(&f, payload, a);
        assert_int_equal(cframe_decode(a, &f2, &why), 0);
        assert_int_equal(cframe_check(a, payload, &why), 0);
        assert_int_equal(f.raw_len, f2.raw_len);
        assert_int_equal(f.blocks, f2.blocks);
        cframe_encode(&f2, payload, b);
        assert_memory_equal(a, b, CFRAME_BYTES);
    }
}

static void footer_page_round_trips(void **state)
{
    (void)state;
    const char *why = "";
    for (int i = 0; i < 200; i++) {
        struct footer_entry e[FOOTER_PAGE_ENTRIES], got[FOOTER_PAGE_ENTRIES];
        uint8_t page[FOOTER_PAGE_BYTES];
        struct container_id id = rnd_cid();
        uint32_t n = rnd_entries(e), m = 0;
        footer_page_encode(&id, 77, e, n, page);
        assert_int_equal(footer_page_decode(&id, 77, page, got, &m, &why), 0);
        assert_int_equal(m, n);
        assert_memory_equal(e, got, n * sizeof *e);
    }
}

/* ---- damage ---- */

static void every_flipped_bit_of_header_and_trailer_is_found(void **state)
{
    (void)state;
    struct cheader h = rnd_header();
    struct ctrailer t = rnd_trailer();
    uint8_t a[CHEADER_BYTES], b[CTRAILER_BYTES];
    cheader_encode(&h, a);
    ctrailer_encode(&t, b);
    for (int i = 0; i < CHEADER_BYTES * 8; i++) {
        a[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(cheader_decode(a, &h, NULL), -EBADMSG);
        a[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (int i = 0; i < CTRAILER_BYTES * 8; i++) {
        b[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(ctrailer_decode(b, &t, NULL), -EBADMSG);
        b[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    assert_int_equal(cheader_decode(a, &h, NULL), 0);
    assert_int_equal(ctrailer_decode(b, &t, NULL), 0);
}

static void every_flipped_bit_of_a_frame_is_found(void **state)
{
    (void)state;
    uint8_t payload[PAYLOAD], head[CFRAME_BYTES];
    struct cframe f = rnd_frame(payload);
    cframe_encode(&f, payload, head);
    for (int i = 0; i < CFRAME_BYTES * 8; i++) {
        head[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(cframe_check(head, payload, NULL), -EBADMSG);
        head[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (uint32_t i = 0; i < f.stored_len * 8; i++) {
        payload[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(cframe_check(head, payload, NULL), -EBADMSG);
        payload[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    assert_int_equal(cframe_check(head, payload, NULL), 0);
}

static void every_flipped_byte_of_a_footer_page_is_found(void **state)
{
    (void)state;
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    uint8_t page[FOOTER_PAGE_BYTES];
    struct container_id id = rnd_cid();
    uint32_t n = rnd_entries(e), m = 12345;
    footer_page_encode(&id, 5, e, n, page);
    for (int i = 0; i < FOOTER_PAGE_BYTES; i++) {
        uint8_t flip = (uint8_t)(1 + rnd() % 255);
        page[i] ^= flip;
        assert_int_equal(footer_page_decode(&id, 5, page, e, &m, NULL), -EBADMSG);
        page[i] ^= flip;
    }
    assert_int_equal(m, 12345);
    assert_int_equal(footer_page_decode(&id, 5, page, e, &m, NULL), 0);
}

/* ---- place and range ---- */

static void footer_page_of_another_place_is_refused(void **state)
{
    (void)state;
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    uint8_t page[FOOTER_PAGE_BYTES];
    struct container_id id = rnd_cid(), other;
    uint32_t n = rnd_entries(e), m;
    footer_page_encode(&id, 85, e, n, page);
    assert_int_equal(footer_page_decode(&id, 0, page, e, &m, NULL), -EBADMSG);
    other = id;
    other.container ^= 1;
    assert_int_equal(footer_page_decode(&other, 85, page, e, &m, NULL), -EBADMSG);
    other = id;
    other.version.b[3] ^= 1;
    assert_int_equal(footer_page_decode(&other, 85, page, e, &m, NULL), -EBADMSG);
    other = id;
    other.store.b[15] ^= 1;
    assert_int_equal(footer_page_decode(&other, 85, page, e, &m, NULL), -EBADMSG);
}

static void payload_of_another_frame_is_refused(void **state)
{
    (void)state;
    uint8_t payload[PAYLOAD], a[CFRAME_BYTES], b[CFRAME_BYTES];
    struct cframe f = rnd_frame(payload);
    cframe_encode(&f, payload, a);
    f.first_ordinal ^= 1;
    cframe_encode(&f, payload, b);
    memcpy(b + 88, a + 88, 8); /* the payload's checksum alone is not enough */
    assert_int_equal(cframe_check(b, payload, NULL), -EBADMSG);
}

static void fields_out_of_range_are_refused_under_a_right_checksum(void **state)
{
    (void)state;
    uint8_t payload[PAYLOAD], buf[CTRAILER_BYTES], page[FOOTER_PAGE_BYTES];
    struct cheader h = rnd_header();
    h.type = 3;
    cheader_encode(&h, buf);
    assert_int_equal(cheader_decode(buf, &h, NULL), -EBADMSG);
    h = rnd_header();
    h.flags = 8;
    cheader_encode(&h, buf);
    assert_int_equal(cheader_decode(buf, &h, NULL), -EBADMSG);
    h = rnd_header();
    h.id.container = REF_CONTAINER_MAX + 1;
    cheader_encode(&h, buf);
    assert_int_equal(cheader_decode(buf, &h, NULL), -EBADMSG);

    const struct { uint32_t codec, blocks, raw, stored, first; } frames[] = {
        {0, 1, 0, 0, 0}, {0, 1, FRAME_RAW_MAX + 1, FRAME_RAW_MAX + 1, 0}, {0, 1, 10, 11, 0}, {1, 1, 10, 10, 0}, {1, 1, 10, 0, 0},
        {2, 1, 10, 10, 0}, {0, 0, 10, 10, 0}, {0, 11, 10, 10, 0}, {0, 2, 10, 10, (1u << ORDINAL_BITS) - 1},
        {1, 1, 10, UINT32_MAX, 0}, {0, 2, 10, 10, UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof frames / sizeof *frames; i++) {
        struct cframe f = {.id = rnd_cid(), .codec = frames[i].codec, .blocks = frames[i].blocks, .raw_len = frames[i].raw,
                           .stored_len = 1, .first_ordinal = frames[i].first};
        cframe_encode(&f, payload, buf);
        put_le32(buf + 68, frames[i].stored); /* set behind encode, which would read that much */
        put_le64(buf + 80, hash64(buf, 80));
        assert_int_equal(cframe_decode(buf, &f, NULL), -EBADMSG);
    }

    const struct { uint32_t section, first, entries; uint64_t off, footer, prev; } trailers[] = {
        {0, 0, 0, 128, 300, 0}, {0, 1, 1u << ORDINAL_BITS, 128, 300, 0}, {0, 0, 1, 127, 300, 0}, {0, 0, 1, 128, 127, 0},
        {1, 0, 1, 128, 300, 0}, {0, 0, 1, 428, 900, 300}, {1, 0, 1, 429, 900, 300}, {1, 0, 1, 428, UINT64_MAX, 300},
        {1, 0, 1, 127, 300, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof trailers / sizeof *trailers; i++) {
        struct ctrailer t = {.id = rnd_cid(), .section = trailers[i].section, .first_ordinal = trailers[i].first,
                             .entries = trailers[i].entries, .section_off = trailers[i].off, .footer_off = trailers[i].footer,
                             .prev_trailer = trailers[i].prev};
        ctrailer_encode(&t, buf);
        assert_int_equal(ctrailer_decode(buf, &t, NULL), -EBADMSG);
    }

    const struct { uint32_t off, in, len; } entries[] = {
        {127, 0, 10}, {128, 0, BLOCK_MAX + 1}, {128, FRAME_RAW_MAX, 1}, {128, UINT32_MAX, 5}, {128, 0, UINT32_MAX}, {128, 0, 0}, {0, 1, 0},
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        struct footer_entry e[FOOTER_PAGE_ENTRIES] = {{.frame_off = entries[i].off, .in_frame = entries[i].in, .len = entries[i].len}};
        struct container_id id = rnd_cid();
        uint32_t n;
        footer_page_encode(&id, 0, e, 1, page);
        assert_int_equal(footer_page_decode(&id, 0, page, e, &n, NULL), -EBADMSG);
        footer_page_encode(&id, 0, e, 0, page);
        assert_int_equal(footer_page_decode(&id, 0, page, e, &n, NULL), -EBADMSG);
    }
}

static void newer_version_is_told_from_damage(void **state)
{
    (void)state;
    struct cheader h = rnd_header();
    uint8_t buf[CHEADER_BYTES];
    const char *why = "";
    cheader_encode(&h, buf);
    put_le32(buf + 8, 2);
    assert_int_equal(cheader_decode(buf, &h, &why), -EBADMSG);
    put_le64(buf + 120, hash64(buf, 120));
    assert_int_equal(cheader_decode(buf, &h, &why), -ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_record_round_trips),
        cmocka_unit_test(footer_page_round_trips),
        cmocka_unit_test(every_flipped_bit_of_header_and_trailer_is_found),
        cmocka_unit_test(every_flipped_bit_of_a_frame_is_found),
        cmocka_unit_test(every_flipped_byte_of_a_footer_page_is_found),
        cmocka_unit_test(footer_page_of_another_place_is_refused),
        cmocka_unit_test(payload_of_another_frame_is_refused),
        cmocka_unit_test(fields_out_of_range_are_refused_under_a_right_checksum),
        cmocka_unit_test(newer_version_is_told_from_damage),
    };
    return cmocka_run_group_tests(tests, seed_setup, NULL);
}
