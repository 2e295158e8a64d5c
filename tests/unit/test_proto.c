/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: round trips of full and empty frames, damage, random bytes, order of arrival, bytes on the wire. */
#include "proto/proto.h"

#include "base/hash.h"
#include "bus/bus.h"
#include "fpindex/fpindex.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <setjmp.h>
#include <cmocka.h>

_Static_assert((int)PROTO_FRAME_MAX == (int)BUS_FRAME_MAX, "a frame fits the bus");
_Static_assert((int)PROTO_KEY_BYTES == (int)FPKEY_BYTES, "a request carries an index key");

static uint8_t frame[PROTO_FRAME_MAX];
static uint64_t rng;

static uint64_t random64(void)
{
    uint64_t z = (rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static void random_key(uint64_t i, uint8_t key[PROTO_KEY_BYTES])
{
    for (int k = 0; k < 3; k++)
        put_le64(key + 8 * k, hash64_seed(&i, sizeof i, (uint64_t)k));
}

static struct proto_head head_of(uint64_t sequence)
{
    struct proto_head h = {.round = 77, .incarnation = 5, .sequence = sequence, .attempt = 2, .slot = 3};
    memset(h.cluster.b, 0xc1, VID_BYTES);
    memset(h.host.b, 0x0e, VID_BYTES);
    return h;
}

static void check_head(const struct proto_head *got, uint64_t sequence, enum proto_type type)
{
    struct proto_head h = head_of(sequence);
    assert_true(vid_eq(&got->cluster, &h.cluster) && vid_eq(&got->host, &h.host));
    assert_int_equal(got->round, h.round);
    assert_int_equal(got->incarnation, h.incarnation);
    assert_int_equal(got->sequence, sequence);
    assert_int_equal(got->attempt, h.attempt);
    assert_int_equal(got->slot, h.slot);
    assert_int_equal(got->type, type);
}

static struct proto_msg decoded(size_t len)
{
    struct proto_msg m;
    const char *why = "";
    int r = proto_decode(frame, len, &m, &why);
    if (r != 0)
        print_error("decode: %s\n", why);
    assert_int_equal(r, 0);
    return m;
}

/* ---- small frames of each type; also the food of the damage tests ---- */

static size_t build_requests(uint32_t n)
{
    struct proto_build b;
    uint8_t key[PROTO_KEY_BYTES];
    struct proto_head h = head_of(9);
    proto_requests_begin(&b, frame, 11, 1000);
    for (uint32_t i = 0; i < n; i++) {
        random_key(i, key);
        assert_true(proto_requests_add(&b, key));
    }
    return proto_requests_finish(&b, &h);
}

static size_t build_summary(uint32_t n)
{
    struct proto_build b;
    uint8_t key[PROTO_KEY_BYTES];
    struct proto_head h = head_of(9);
    proto_summary_begin(&b, frame, 11, 1000);
    for (uint32_t i = 0; i < n; i++) {
        random_key(i, key);
        assert_true(proto_summary_add(&b, key, (enum proto_answer)(i % 3), i));
    }
    return proto_summary_finish(&b, &h);
}

static size_t build_references(uint32_t n)
{
    struct proto_build b;
    uint8_t key[PROTO_KEY_BYTES];
    struct proto_head h = head_of(9);
    proto_references_begin(&b, frame, 11);
    for (uint32_t i = 0; i < n; i++) {
        random_key(i, key);
        assert_true(proto_references_add(&b, key, i));
    }
    return proto_references_finish(&b, &h);
}

static size_t build_new_references(uint32_t n)
{
    struct proto_build b;
    struct proto_head h = head_of(9);
    proto_new_references_begin(&b, frame, 11, 1000);
    for (uint32_t i = 0; i < n; i++)
        assert_true(proto_new_references_add(&b, i));
    return proto_new_references_finish(&b, &h);
}

static size_t build_resolutions(uint32_t n)
{
    struct proto_build b;
    struct proto_head h = head_of(9);
    proto_resolutions_begin(&b, frame, 11, 1000);
    for (uint32_t i = 0; i < n; i++)
        assert_true(proto_resolutions_add(&b, i % 2 != 0 ? REF_NONE : i));
    return proto_resolutions_finish(&b, &h);
}

static size_t build_end(uint32_t n)
{
    struct proto_build b;
    struct proto_head h = head_of(9);
    proto_end_begin(&b, frame);
    for (uint32_t i = 0; i < n; i++)
        assert_true(proto_end_add(&b, i, ~(uint64_t)i));
    return proto_end_finish(&b, &h, PROTO_SUMMARY_END);
}

static size_t (*const builders[])(uint32_t) = {
    build_requests, build_summary, build_references, build_new_references, build_resolutions, build_end,
};
enum { BUILDERS = sizeof builders / sizeof *builders };

/* ---- round trips ---- */

static void requests_come_back(void **state)
{
    (void)state;
    uint8_t key[PROTO_KEY_BYTES];
    struct proto_msg m = decoded(build_requests(500));
    check_head(&m.head, 9, PROTO_REQUESTS);
    assert_int_equal(m.partition, 11);
    assert_int_equal(m.first, 1000);
    assert_int_equal(m.count, 500);
    for (uint32_t i = 0; i < m.count; i++) {
        random_key(i, key);
        assert_memory_equal(proto_request_key(&m, i), key, PROTO_KEY_BYTES);
    }
}

static void summaries_come_back(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 70; n++) {
        struct proto_msg m = decoded(build_summary(n));
        struct proto_answers it;
        enum proto_answer answer;
        uint8_t key[PROTO_KEY_BYTES];
        uint64_t ref, digest = 0;
        uint32_t i = 0;
        check_head(&m.head, 9, PROTO_SUMMARY);
        assert_int_equal(m.first, 1000);
        assert_int_equal(m.count, n);
        for (proto_answers_begin(&it, &m); proto_answers_next(&it, &answer, &ref); i++) {
            assert_int_equal(answer, i % 3);
            assert_int_equal(ref, answer == PROTO_DUPLICATE ? i : REF_NONE);
            random_key(i, key);
            digest = proto_digest(digest, key, sizeof key);
        }
        assert_int_equal(i, n);
        assert_int_equal(m.digest, digest);
    }
}

static void references_and_resolutions_come_back(void **state)
{
    (void)state;
    uint8_t key[PROTO_KEY_BYTES];
    struct proto_msg m = decoded(build_references(300));
    check_head(&m.head, 9, PROTO_REFERENCES);
    assert_int_equal(m.partition, 11);
    for (uint32_t i = 0; i < 300; i++) {
        random_key(i, key);
        assert_memory_equal(proto_reference_key(&m, i), key, PROTO_KEY_BYTES);
        assert_int_equal(proto_reference_ref(&m, i), i);
    }
    m = decoded(build_new_references(300));
    check_head(&m.head, 9, PROTO_NEW_REFERENCES);
    assert_int_equal(m.first, 1000);
    assert_int_equal(m.count, 300);
    assert_int_equal(proto_ref(&m, 299), 299);
    m = decoded(build_resolutions(300));
    check_head(&m.head, 9, PROTO_RESOLUTIONS);
    assert_int_equal(m.first, 1000);
    assert_int_equal(proto_ref(&m, 298), 298);
    assert_int_equal(proto_ref(&m, 299), REF_NONE);
}

static void an_end_of_all_partitions_fits_one_frame(void **state)
{
    (void)state;
    struct proto_msg m = decoded(build_end(PROTO_PARTITIONS_MAX));
    struct proto_build b;
    check_head(&m.head, 9, PROTO_SUMMARY_END);
    assert_int_equal(m.count, PROTO_PARTITIONS_MAX);
    assert_int_equal(proto_end_items(&m, 4095), 4095);
    assert_int_equal(proto_end_digest(&m, 4095), ~UINT64_C(4095));
    proto_end_begin(&b, frame);
    for (uint32_t i = 0; i < PROTO_PARTITIONS_MAX; i++)
        assert_true(proto_end_add(&b, 0, 0));
    assert_false(proto_end_add(&b, 0, 0));
}

/* The first item that does not fit is refused and nothing of it is in the frame. */
static void full_frames_stay_within_the_limit_and_lose_nothing(void **state)
{
    (void)state;
    struct proto_build b;
    uint8_t key[PROTO_KEY_BYTES];
    struct proto_head h = head_of(0);
    uint32_t n = 0;
    proto_requests_begin(&b, frame, 0, 0);
    for (random_key(n, key); proto_requests_add(&b, key); random_key(n, key))
        n++;
    size_t len = proto_requests_finish(&b, &h);
    assert_in_range(len, PROTO_FRAME_MAX - PROTO_KEY_BYTES + 1, PROTO_FRAME_MAX);
    assert_int_equal(decoded(len).count, n);
    for (unsigned every = 1; every <= 1000; every *= 10) {  /* a duplicate in every 1, 10, 100, 1000 answers */
        struct proto_answers it;
        enum proto_answer answer;
        uint64_t ref;
        proto_summary_begin(&b, frame, 0, 0);
        for (n = 0; proto_summary_add(&b, key, n % every == 0 ? PROTO_DUPLICATE : PROTO_DUP_WITH_NEW, n);)
            n++;
        len = proto_summary_finish(&b, &h);
        struct proto_msg m = decoded(len);
        assert_true(len <= PROTO_FRAME_MAX && len > 16000);
        assert_int_equal(m.count, n);
        n = 0;
        for (proto_answers_begin(&it, &m); proto_answers_next(&it, &answer, &ref); n++) {
            assert_int_equal(answer, n % every == 0 ? PROTO_DUPLICATE : PROTO_DUP_WITH_NEW);
            assert_int_equal(ref, n % every == 0 ? n : REF_NONE);
        }
        assert_int_equal(n, m.count);
    }
    proto_references_begin(&b, frame, 0);
    while (proto_references_add(&b, key, 1))
        ;
    len = proto_references_finish(&b, &h);
    assert_in_range(len, PROTO_FRAME_MAX - 31, PROTO_FRAME_MAX);
    (void)decoded(len);
}

/* ---- damage ---- */

static void every_flipped_bit_is_found(void **state)
{
    (void)state;
    for (int k = 0; k < BUILDERS; k++) {
        size_t len = builders[k](13);
        struct proto_msg m;
        for (size_t i = 0; i < len * 8; i++) {
            frame[i / 8] ^= (uint8_t)(1u << (i % 8));
            assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
            frame[i / 8] ^= (uint8_t)(1u << (i % 8));
        }
        assert_int_equal(proto_decode(frame, len, &m, NULL), 0);
    }
}

static void every_truncation_is_found(void **state)
{
    (void)state;
    for (int k = 0; k < BUILDERS; k++) {
        size_t len = builders[k](100);
        struct proto_msg m;
        for (size_t n = 0; n < len; n++) {
            uint8_t *cut = malloc(n + 1);   /* so that a read behind the end is seen */
            memcpy(cut, frame, n);
            cut = realloc(cut, n > 0 ? n : 1);
            assert_int_equal(proto_decode(cut, n, &m, NULL), -EPROTO);
            free(cut);
        }
        assert_int_equal(proto_decode(frame, len + 1, &m, NULL), -EPROTO);
    }
}

/* As proto_build.c makes it, so that wrong fields reach the checks behind the checksum. */
static void seal(uint8_t *f, size_t len)
{
    put_le64(f + 80, hash64_seed(f + PROTO_HEAD_BYTES, len - PROTO_HEAD_BYTES, hash64(f, 80)));
}

static void walk(const struct proto_msg *m)
{
    struct proto_answers it;
    enum proto_answer answer;
    volatile uint64_t ref, sum = 0;
    uint64_t one = 0;
    switch (m->head.type) {
    case PROTO_REQUESTS:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_request_key(m, i)[PROTO_KEY_BYTES - 1];
        break;
    case PROTO_SUMMARY:
        for (proto_answers_begin(&it, m); proto_answers_next(&it, &answer, &one);)
            sum += one;
        break;
    case PROTO_REFERENCES:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_reference_ref(m, i);
        break;
    case PROTO_NEW_REFERENCES:
    case PROTO_RESOLUTIONS:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_ref(m, i);
        break;
    default:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_end_digest(m, i);
    }
    ref = sum;
    (void)ref;
}

/* With a right checksum: what is accepted can be walked without leaving the frame (the sanitizer looks on). */
static void sealed_nonsense_is_refused_or_harmless(void **state)
{
    (void)state;
    unsigned taken = 0;
    for (int round = 0; round < 20000; round++) {
        size_t len = builders[random64() % BUILDERS]((uint32_t)(random64() % 40));
        uint8_t *f = malloc(len);
        memcpy(f, frame, len);
        for (uint64_t n = random64() % 3 + 1; n > 0; n--) {
            size_t at = random64() % 2 == 0 ? 4 + random64() % 76 : PROTO_HEAD_BYTES + random64() % (len - PROTO_HEAD_BYTES);
            f[at] = (uint8_t)(random64() % 3 == 0 ? random64() : random64() % 12);
        }
        seal(f, len);
        struct proto_msg m;
        int r = proto_decode(f, len, &m, NULL);
        assert_true(r == 0 || r == -EPROTO || r == -ENOTSUP);
        if (r == 0)
            walk(&m);
        taken += r == 0;
        free(f);
    }
    assert_true(taken > 0);
}

static void random_bytes_are_refused(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t len = random64() % 300;
        uint8_t *f = malloc(len + 1);
        for (size_t i = 0; i < len; i++)
            f[i] = (uint8_t)random64();
        if (len >= 12 && round % 2 == 0) {
            memcpy(f, "VRMG", 4);
            put_le16(f + 4, PROTO_VERSION);
            put_le16(f + 6, (uint16_t)(random64() % 11));
            put_le32(f + 8, (uint32_t)(len - PROTO_HEAD_BYTES));
        }
        struct proto_msg m;
        const char *why = NULL;
        assert_int_equal(proto_decode(f, len, &m, &why), -EPROTO);
        assert_non_null(why);
        free(f);
    }
}

static void wrong_fields_under_a_right_checksum_are_refused(void **state)
{
    (void)state;
    struct proto_msg m;
    size_t len = build_requests(5);
    put_le32(frame + PROTO_HEAD_BYTES + 4, 6);              /* count */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_requests(5);
    put_le64(frame + PROTO_HEAD_BYTES + 8, UINT64_MAX - 2); /* positions overflow */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_requests(5);
    put_le32(frame + PROTO_HEAD_BYTES, PROTO_PARTITIONS_MAX);
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_summary(6);
    frame[len - 1] |= 0x0c;                                 /* a fourth kind of answer */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_summary(6);
    frame[len - 1] |= 0x80;                                 /* behind the last answer */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_summary(6);
    frame[len - 2] = 0;                                     /* fewer duplicates than references */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_end(4);
    put_le32(frame + PROTO_HEAD_BYTES + 12, 1);             /* reserved */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
    len = build_end(4);
    put_le64(frame + PROTO_HEAD_BYTES, 10);                 /* other number of messages */
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -EPROTO);
}

static void other_versions_and_types_are_told_apart_from_damage(void **state)
{
    (void)state;
    struct proto_msg m;
    size_t len = build_requests(5);
    put_le16(frame + 4, PROTO_VERSION + 1);
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -ENOTSUP);
    len = build_requests(5);
    put_le16(frame + 6, 200);
    seal(frame, len);
    assert_int_equal(proto_decode(frame, len, &m, NULL), -ENOTSUP);
}

/* ---- order ---- */

static void frames_are_taken_once_and_in_order(void **state)
{
    (void)state;
    struct proto_head h = head_of(0);
    struct proto_in *in = proto_in_new(&h.cluster, 77, 2);
    h.type = PROTO_REQUESTS;
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    assert_int_equal(proto_in_check(in, &h), PROTO_AGAIN);
    h.sequence = 2;
    assert_int_equal(proto_in_check(in, &h), PROTO_GAP);
    h.sequence = 1;
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    h.sequence = 2;
    h.type = PROTO_REQUESTS_END;                            /* of the same stream */
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    h.sequence = 0;
    assert_int_equal(proto_in_check(in, &h), PROTO_AGAIN);
    h.type = PROTO_NEW_REFERENCES;                          /* another topic */
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    h.sequence = 1;
    h.type = PROTO_REFERENCES_END;
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    proto_in_free(in);
}

static void strangers_are_told_from_participants(void **state)
{
    (void)state;
    struct proto_head h = head_of(0), other;
    struct proto_in *in = proto_in_new(&h.cluster, 77, 2);
    h.type = PROTO_SUMMARY;
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    h.sequence = 1;
    other = h;
    other.round++;
    assert_int_equal(proto_in_check(in, &other), PROTO_FOREIGN);
    other = h;
    other.attempt--;
    assert_int_equal(proto_in_check(in, &other), PROTO_FOREIGN);
    other = h;
    other.incarnation++;
    assert_int_equal(proto_in_check(in, &other), PROTO_FOREIGN);
    other = h;
    other.cluster.b[0]++;
    assert_int_equal(proto_in_check(in, &other), PROTO_FOREIGN);
    assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
    proto_in_free(in);
}

static void thousands_of_streams_are_kept_apart(void **state)
{
    (void)state;
    struct proto_head h = head_of(0);
    struct proto_in *in = proto_in_new(&h.cluster, 77, 2);
    h.type = PROTO_RESOLUTIONS;
    for (uint64_t s = 0; s < 3; s++)
        for (unsigned host = 0; host < 50; host++)
            for (h.slot = 0; h.slot < 40; h.slot++) {
                h.host.b[0] = (uint8_t)host;
                h.sequence = s;
                assert_int_equal(proto_in_check(in, &h), PROTO_ACCEPT);
                assert_int_equal(proto_in_check(in, &h), PROTO_AGAIN);
            }
    proto_in_free(in);
    proto_in_free(NULL);
}

/* ---- bytes on the wire ---- */

/* All stages of 200000 requests of one slot of 16 partitions: below 48 bytes a block whatever share of them is new. */
static void all_stages_stay_below_48_bytes_a_block(void **state)
{
    (void)state;
    enum { N = 200000, Q = 16 };
    static const unsigned new_percent[] = {0, 50, 100};
    for (unsigned k = 0; k < 3; k++) {
        struct proto_build req, sum, ref, res;
        struct proto_head h = head_of(0);
        static uint8_t f[4][PROTO_FRAME_MAX];
        uint8_t key[PROTO_KEY_BYTES] = {0};
        size_t bytes = 0;
        for (unsigned p = 0; p < Q; p++) {
            proto_requests_begin(&req, f[0], p, 0);
            proto_summary_begin(&sum, f[1], p, 0);
            proto_new_references_begin(&ref, f[2], p, 0);
            proto_resolutions_begin(&res, f[3], p, 0);
            for (unsigned i = 0; i < N / Q; i++) {
                enum proto_answer a = i % 100 < new_percent[k] ? PROTO_NEW : i % 2 != 0 ? PROTO_DUPLICATE : PROTO_DUP_WITH_NEW;
                if (!proto_requests_add(&req, key)) {
                    bytes += proto_requests_finish(&req, &h);
                    proto_requests_begin(&req, f[0], p, i);
                    assert_true(proto_requests_add(&req, key));
                }
                if (!proto_summary_add(&sum, key, a, 1)) {
                    bytes += proto_summary_finish(&sum, &h);
                    proto_summary_begin(&sum, f[1], p, i);
                    assert_true(proto_summary_add(&sum, key, a, 1));
                }
                if (a == PROTO_NEW && !proto_new_references_add(&ref, 1)) {
                    bytes += proto_new_references_finish(&ref, &h);
                    proto_new_references_begin(&ref, f[2], p, i);
                    assert_true(proto_new_references_add(&ref, 1));
                }
                if (a == PROTO_DUP_WITH_NEW && !proto_resolutions_add(&res, 1)) {
                    bytes += proto_resolutions_finish(&res, &h);
                    proto_resolutions_begin(&res, f[3], p, i);
                    assert_true(proto_resolutions_add(&res, 1));
                }
            }
            bytes += proto_requests_finish(&req, &h) + proto_summary_finish(&sum, &h) + proto_new_references_finish(&ref, &h) +
                     proto_resolutions_finish(&res, &h);
        }
        proto_end_begin(&req, f[0]);
        for (unsigned p = 0; p < Q; p++)
            assert_true(proto_end_add(&req, 0, 0));
        bytes += 4 * proto_end_finish(&req, &h, PROTO_REQUESTS_END);
        print_message("%u %% new: %.2f bytes a block\n", new_percent[k], (double)bytes / N);
        assert_true(bytes < 33 * (size_t)N);
    }
}

int main(void)
{
    const char *text = getenv("VARVE_SEED");
    rng = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_come_back),
        cmocka_unit_test(summaries_come_back),
        cmocka_unit_test(references_and_resolutions_come_back),
        cmocka_unit_test(an_end_of_all_partitions_fits_one_frame),
        cmocka_unit_test(full_frames_stay_within_the_limit_and_lose_nothing),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(every_truncation_is_found),
        cmocka_unit_test(sealed_nonsense_is_refused_or_harmless),
        cmocka_unit_test(random_bytes_are_refused),
        cmocka_unit_test(wrong_fields_under_a_right_checksum_are_refused),
        cmocka_unit_test(other_versions_and_types_are_told_apart_from_damage),
        cmocka_unit_test(frames_are_taken_once_and_in_order),
        cmocka_unit_test(strangers_are_told_from_participants),
        cmocka_unit_test(thousands_of_streams_are_kept_apart),
        cmocka_unit_test(all_stages_stay_below_48_bytes_a_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
