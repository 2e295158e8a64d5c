/* SPDX-License-Identifier: Apache-2.0 */
/* seal: every kind of record opens as it was closed, and nothing else opens: no changed byte, no other place, kind or version. */
#include "format/seal.h"

#include "base/endian.h"
#include "base/hash.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { STORE = 1, ID = 2, VERSION = 4, FILE_NUMBER = 8, NUMBER = 16, RECORD_MAX = 4096 };

/* Which fields of the place each kind is bound to. */
static const struct kind {
    size_t len;
    unsigned bound;
} kinds[SEAL_KINDS] = {
    [SEAL_NODE] = {136, ID | NUMBER},
    [SEAL_SIDE_FILE] = {84, ID | NUMBER},
    [SEAL_SNAPSHOT] = {4096, STORE | ID | NUMBER},
    [SEAL_RUNS] = {4096, ID | NUMBER},
    [SEAL_SEGMENT] = {68, 0},
    [SEAL_OWNER] = {88, STORE | ID | NUMBER},
    [SEAL_DELETIONS] = {56, STORE | NUMBER},
    [SEAL_CONTAINER] = {128, STORE | VERSION | FILE_NUMBER},
    [SEAL_FRAME] = {88, STORE | VERSION | FILE_NUMBER | NUMBER},
    [SEAL_FOOTER] = {4096, STORE | VERSION | FILE_NUMBER | NUMBER},
    [SEAL_TRAILER] = {128, STORE | VERSION | FILE_NUMBER | NUMBER},
    [SEAL_INDEX] = {4096, NUMBER},
    [SEAL_INDEX_PAGE] = {4096, FILE_NUMBER | NUMBER},
    [SEAL_TABLE] = {64, ID | NUMBER},
    [SEAL_MAP] = {64, ID | NUMBER},
    [SEAL_VOL] = {64, ID | NUMBER},
    [SEAL_STATE] = {64, ID | NUMBER},
    [SEAL_ENTRY] = {16, ID | NUMBER},
    [SEAL_SLOT] = {256, ID | NUMBER},
    [SEAL_JOURNAL] = {192, ID | NUMBER},
    [SEAL_PLAN] = {112, FILE_NUMBER | NUMBER},
};

static struct vid ids[3];

static struct seal somewhere(enum seal_kind kind)
{
    return (struct seal){.kind = kind, .store = &ids[0], .id = &ids[1], .version = &ids[2], .file = 0x123456789a, .number = 77};
}

static struct seal closed(enum seal_kind kind, uint8_t record[RECORD_MAX])
{
    struct seal s = somewhere(kind);
    for (size_t i = 0; i < RECORD_MAX; i++)
        record[i] = (uint8_t)(i * 7 + kind);
    seal_close(&s, record, kinds[kind].len);
    return s;
}

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        memset(ids[i].b, 0x30 + (int)i, VID_BYTES);
    return 0;
}

static void a_record_opens_as_it_was_closed(void **state)
{
    (void)state;
    uint8_t record[RECORD_MAX], again[RECORD_MAX];
    for (unsigned k = 0; k < SEAL_KINDS; k++) {
        struct seal s = closed(k, record);
        const char *why = "untouched";
        assert_int_equal(seal_open(&s, record, kinds[k].len, &why), 0);
        assert_string_equal(why, "untouched");
        assert_int_equal(seal_open(&s, record, kinds[k].len, NULL), 0);
        memcpy(again, record, sizeof again);
        seal_close(&s, again, kinds[k].len);
        assert_memory_equal(again, record, sizeof again);
    }
}

static void no_changed_byte_passes_in_any_kind(void **state)
{
    (void)state;
    uint8_t record[RECORD_MAX];
    for (unsigned k = 0; k < SEAL_KINDS; k++) {
        struct seal s = closed(k, record);
        for (size_t i = 0; i < kinds[k].len; i++) {
            const char *why = NULL;
            record[i] ^= 1;
            assert_int_equal(seal_open(&s, record, kinds[k].len, &why), -EBADMSG);
            assert_non_null(why);
            record[i] ^= 1;
        }
        assert_int_equal(seal_open(&s, record, kinds[k].len, NULL), 0);
    }
}

static void a_record_of_another_place_is_refused(void **state)
{
    (void)state;
    uint8_t record[RECORD_MAX];
    struct vid other;
    memset(other.b, 0x55, VID_BYTES);
    for (unsigned k = 0; k < SEAL_KINDS; k++) {
        const struct seal s = closed(k, record);
        struct seal to[5] = {s, s, s, s, s};
        to[0].store = to[1].id = to[2].version = &other;
        to[3].file++;
        to[4].number++;
        for (unsigned field = 0; field < 5; field++) {
            int want = kinds[k].bound & 1u << field ? -EBADMSG : 0;
            assert_int_equal(seal_open(&to[field], record, kinds[k].len, NULL), want);
        }
    }
}

static void a_caller_that_does_not_know_the_place_opens_what_carries_it(void **state)
{
    (void)state;
    static const enum seal_kind carry[] = {
        SEAL_NODE, SEAL_SIDE_FILE, SEAL_SNAPSHOT, SEAL_SEGMENT, SEAL_OWNER, SEAL_DELETIONS, SEAL_CONTAINER, SEAL_FRAME, SEAL_TRAILER,
        SEAL_INDEX, SEAL_TABLE,
    };
    uint8_t record[RECORD_MAX];
    for (size_t i = 0; i < sizeof carry / sizeof carry[0]; i++) {
        closed(carry[i], record);
        assert_int_equal(seal_open(&(struct seal){.kind = carry[i], .anywhere = true}, record, kinds[carry[i]].len, NULL), 0);
    }
}

static void no_kind_opens_as_another_one_with_a_magic(void **state)
{
    (void)state;
    uint8_t record[RECORD_MAX];
    for (unsigned k = 0; k < SEAL_KINDS; k++) {
        closed(k, record);
        for (unsigned other = 0; other < SEAL_KINDS; other++) {
            struct seal s = somewhere(other);
            bool twins = (k == SEAL_STATE || k == SEAL_SLOT) && (other == SEAL_STATE || other == SEAL_SLOT);
            if (other != k && !twins && kinds[other].len <= kinds[k].len)
                assert_int_equal(seal_open(&s, record, kinds[k].len, NULL), -EBADMSG);
        }
    }
}

/* The checksum is looked at first: only an intact record is of a newer version. */
static void newer_is_told_from_damaged(void **state)
{
    (void)state;
    static const enum seal_kind tailed[] = {
        SEAL_NODE, SEAL_SIDE_FILE, SEAL_SNAPSHOT, SEAL_SEGMENT, SEAL_OWNER, SEAL_DELETIONS, SEAL_CONTAINER, SEAL_FRAME, SEAL_TRAILER,
        SEAL_INDEX, SEAL_TABLE, SEAL_MAP, SEAL_VOL,
    };
    uint8_t record[RECORD_MAX];
    for (size_t i = 0; i < sizeof tailed / sizeof tailed[0]; i++) {
        size_t len = kinds[tailed[i]].len;
        struct seal s = closed(tailed[i], record);
        const char *why = NULL;
        put_le32(record + 8, 2);
        assert_int_equal(seal_open(&s, record, len, &why), -EBADMSG);
        put_le64(record + len - 8, hash64(record, len - 8));
        assert_int_equal(seal_open(&s, record, len, &why), -ENOTSUP);
        assert_non_null(strstr(why, "newer"));
        assert_int_equal(seal_open(&s, record, len, NULL), -ENOTSUP);
        put_le32(record + 8, 0);
        put_le64(record + len - 8, hash64(record, len - 8));
        assert_int_equal(seal_open(&s, record, len, &why), -EBADMSG);
    }
}

/* A newer version may be shorter than this one's smallest record, and is none the less told as newer. */
static void short_records_are_refused_unless_newer(void **state)
{
    (void)state;
    static const enum seal_kind of_any_length[] = {SEAL_NODE, SEAL_SIDE_FILE, SEAL_SNAPSHOT, SEAL_SEGMENT, SEAL_OWNER, SEAL_DELETIONS};
    uint8_t record[RECORD_MAX];
    for (size_t i = 0; i < sizeof of_any_length / sizeof of_any_length[0]; i++) {
        struct seal s = closed(of_any_length[i], record);
        bool framed = of_any_length[i] != SEAL_OWNER && of_any_length[i] != SEAL_DELETIONS;
        for (size_t len = 0; len < kinds[of_any_length[i]].len; len++) {
            if (len >= 24) {
                if (framed)
                    put_le32(record + 12, (uint32_t)len);
                put_le64(record + len - 8, hash64(record, len - 8));
            }
            assert_int_equal(seal_open(&s, record, len, NULL), -EBADMSG);
            closed(of_any_length[i], record);
        }
        put_le32(record + 8, 2);
        put_le32(record + 12, 24);
        put_le64(record + 16, hash64(record, 16));
        assert_int_equal(seal_open(&s, record, 24, NULL), -ENOTSUP);
    }
}

static void a_payload_fits_its_record_only(void **state)
{
    (void)state;
    uint8_t record[2][RECORD_MAX], payload[1000];
    const char *why = NULL;
    size_t len = kinds[SEAL_FRAME].len;
    memset(payload, 'p', sizeof payload);
    for (unsigned i = 0; i < 2; i++) {
        struct seal s = somewhere(SEAL_FRAME);
        s.number = i;
        memset(record[i], 0, RECORD_MAX);
        seal_close(&s, record[i], len);
        seal_close_payload(record[i], len, payload, sizeof payload);
        assert_int_equal(seal_open_payload(record[i], len, payload, sizeof payload, &why), 0);
        assert_int_equal(seal_open(&s, record[i], len, &why), 0);
    }
    put_le64(record[0] + len, get_le64(record[1] + len));
    assert_int_equal(seal_open_payload(record[0], len, payload, sizeof payload, &why), -EBADMSG);
    assert_non_null(strstr(why, "payload"));
    payload[999] ^= 1;
    assert_int_equal(seal_open_payload(record[1], len, payload, sizeof payload, NULL), -EBADMSG);
    payload[999] ^= 1;
    assert_int_equal(seal_open_payload(record[1], len, payload, sizeof payload - 1, NULL), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_opens_as_it_was_closed),
        cmocka_unit_test(no_changed_byte_passes_in_any_kind),
        cmocka_unit_test(a_record_of_another_place_is_refused),
        cmocka_unit_test(a_caller_that_does_not_know_the_place_opens_what_carries_it),
        cmocka_unit_test(no_kind_opens_as_another_one_with_a_magic),
        cmocka_unit_test(newer_is_told_from_damaged),
        cmocka_unit_test(short_records_are_refused_unless_newer),
        cmocka_unit_test(a_payload_fits_its_record_only),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
