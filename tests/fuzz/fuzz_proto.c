/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of a round as they come off the bus: every type, walked to the last item, and their order of arrival. */
#include "fuzz.h"

#include "proto/proto.h"
#include "proto/proto_internal.h"

const char fuzz_family[] = "proto";
static volatile uint64_t sink;      /* what is read must not be optimised away */

void fuzz_setup(void)
{
}

static struct proto_head the_head(void)
{
    return (struct proto_head){.cluster = fuzz_id(1), .host = fuzz_id(2), .round = 5, .incarnation = 3, .sequence = 11, .attempt = 1, .slot = 2};
}

static size_t requests_seed(unsigned i, uint8_t *out)
{
    struct proto_build b;
    struct proto_head h = the_head();
    uint8_t key[PROTO_KEY_BYTES];
    if (i > 1)
        return 0;
    proto_requests_begin(&b, out, 3, i == 0 ? 0 : 1000);
    for (unsigned k = 0; k < (i == 0 ? 3u : 100000u); k++) {
        memset(key, (int)k, sizeof key);
        if (!proto_requests_add(&b, key))
            break;
    }
    return proto_requests_finish(&b, &h);
}

static size_t summary_seed(unsigned i, uint8_t *out)
{
    struct proto_build b;
    struct proto_head h = the_head();
    const uint8_t key[PROTO_KEY_BYTES] = {1};
    static const unsigned counts[] = {1, 9, 70000};
    if (i >= sizeof counts / sizeof counts[0])
        return 0;
    proto_summary_begin(&b, out, 4095, i);
    for (unsigned k = 0; k < counts[i]; k++)
        if (!proto_summary_add(&b, key, (enum proto_answer)(k % 3), ref_make(0x10000, k)))
            break;
    return proto_summary_finish(&b, &h);
}

static size_t references_seed(unsigned i, uint8_t *out)
{
    struct proto_build b;
    struct proto_head h = the_head();
    const uint8_t key[PROTO_KEY_BYTES] = {7};
    if (i > 0)
        return 0;
    proto_references_begin(&b, out, 0);
    for (unsigned k = 0; k < 5; k++)
        proto_references_add(&b, key, ref_make(0x10000, k));
    return proto_references_finish(&b, &h);
}

static size_t refs_seed(unsigned i, uint8_t *out)
{
    struct proto_build b;
    struct proto_head h = the_head();
    if (i > 1)
        return 0;
    if (i == 0) {
        proto_new_references_begin(&b, out, 1, 50);
        for (unsigned k = 0; k < 4; k++)
            proto_new_references_add(&b, ref_make(0x10000, k));
        return proto_new_references_finish(&b, &h);
    }
    proto_resolutions_begin(&b, out, 1, 50);
    for (unsigned k = 0; k < 4; k++)
        proto_resolutions_add(&b, REF_NONE);
    return proto_resolutions_finish(&b, &h);
}

static size_t end_seed(unsigned i, uint8_t *out)
{
    static const enum proto_type types[] = {PROTO_REQUESTS_END, PROTO_SUMMARY_END, PROTO_REFERENCES_END, PROTO_RESOLUTIONS_END};
    struct proto_build b;
    struct proto_head h = the_head();
    if (i >= sizeof types / sizeof types[0])
        return 0;
    proto_end_begin(&b, out);
    for (unsigned k = 0; k < (i == 3 ? PROTO_PARTITIONS_MAX : 4u); k++)
        proto_end_add(&b, k, k * 3);
    return proto_end_finish(&b, &h, types[i]);
}

static void frame_mend(uint8_t *p, size_t len)
{
    if (len < PROTO_HEAD_BYTES)
        return;
    put_le32(p + PH_PAYLOAD, (uint32_t)(len - PROTO_HEAD_BYTES));
    put_le64(p + PH_CHECKSUM, proto_checksum(p, len));
}

/* Reads every item, as the stages do. */
static void walk(const struct proto_msg *m)
{
    struct proto_answers it;
    enum proto_answer answer;
    uint64_t ref, sum = 0;
    uint32_t n = 0;
    switch (m->head.type) {
    case PROTO_REQUESTS:
        for (uint32_t i = 0; i < m->count; i++)
            sum += get_le64(proto_request_key(m, i) + PROTO_KEY_BYTES - 8);
        break;
    case PROTO_SUMMARY:
        proto_answers_begin(&it, m);
        for (; proto_answers_next(&it, &answer, &ref); n++) {
            FUZZ_CHECK(answer <= PROTO_DUP_WITH_NEW);
            sum += ref;
        }
        FUZZ_CHECK(n == m->count && it.refs == m->duplicates);
        break;
    case PROTO_REFERENCES:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_reference_ref(m, i) + *proto_reference_key(m, i);
        break;
    case PROTO_NEW_REFERENCES:
    case PROTO_RESOLUTIONS:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_ref(m, i);
        break;
    default:
        for (uint32_t i = 0; i < m->count; i++)
            sum += proto_end_items(m, i) + proto_end_digest(m, i);
    }
    sink = sum;
}

static void rebuild_summary(const struct proto_msg *m, struct proto_build *b, uint8_t *out)
{
    const uint8_t key[PROTO_KEY_BYTES] = {0};
    struct proto_answers it;
    enum proto_answer answer;
    uint64_t ref;
    proto_summary_begin(b, out, m->partition, m->first);
    proto_answers_begin(&it, m);
    while (proto_answers_next(&it, &answer, &ref))
        FUZZ_CHECK(proto_summary_add(b, key, answer, ref));
    b->digest = m->digest;      /* of keys, which a summary does not carry */
}

/* The frame that the builders make of the message. */
static size_t rebuild(const struct proto_msg *m, uint8_t *out)
{
    struct proto_build b;
    uint32_t i = 0;
    switch (m->head.type) {
    case PROTO_REQUESTS:
        proto_requests_begin(&b, out, m->partition, m->first);
        while (i < m->count)
            FUZZ_CHECK(proto_requests_add(&b, proto_request_key(m, i++)));
        return proto_requests_finish(&b, &m->head);
    case PROTO_SUMMARY:
        rebuild_summary(m, &b, out);
        return proto_summary_finish(&b, &m->head);
    case PROTO_REFERENCES:
        proto_references_begin(&b, out, m->partition);
        for (; i < m->count; i++)
            FUZZ_CHECK(proto_references_add(&b, proto_reference_key(m, i), proto_reference_ref(m, i)));
        return proto_references_finish(&b, &m->head);
    case PROTO_NEW_REFERENCES:
        proto_new_references_begin(&b, out, m->partition, m->first);
        while (i < m->count)
            FUZZ_CHECK(proto_new_references_add(&b, proto_ref(m, i++)));
        return proto_new_references_finish(&b, &m->head);
    case PROTO_RESOLUTIONS:
        proto_resolutions_begin(&b, out, m->partition, m->first);
        while (i < m->count)
            FUZZ_CHECK(proto_resolutions_add(&b, proto_ref(m, i++)));
        return proto_resolutions_finish(&b, &m->head);
    default:
        proto_end_begin(&b, out);
        for (; i < m->count; i++)
            FUZZ_CHECK(proto_end_add(&b, proto_end_items(m, i), proto_end_digest(m, i)));
        return proto_end_finish(&b, &m->head, (enum proto_type)m->head.type);
    }
}

static bool frame_feed(const uint8_t *p, size_t len)
{
    static uint8_t again[PROTO_FRAME_MAX];
    struct proto_msg m;
    const char *why = NULL;
    if (proto_decode(p, len, &m, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    walk(&m);
    FUZZ_CHECK(rebuild(&m, again) == len && memcmp(again, p, len) == 0);
    return true;
}

/* ---- order of arrival: any number of heads, 40 bytes each: sender, slot, type, incarnation, sequence ---- */

enum { ARRIVAL = 32, ARRIVALS_MAX = 256 };

static size_t order_seed(unsigned i, uint8_t *out)
{
    if (i > 0)
        return 0;
    memset(out, 0, ARRIVAL * 40);
    for (unsigned k = 0; k < 40; k++) {
        uint8_t *p = out + k * ARRIVAL;
        p[0] = (uint8_t)(k % 20);
        p[1] = (uint8_t)(k % 3);
        p[2] = PROTO_REQUESTS;
        put_le64(p + 16, k / 20);
    }
    return ARRIVAL * 40;
}

static bool order_feed(const uint8_t *p, size_t len)
{
    struct vid cluster = fuzz_id(1);
    struct proto_in *in = proto_in_new(&cluster, 5, 1);
    bool any = false;
    FUZZ_CHECK(in != NULL);
    for (size_t i = 0; i < ARRIVALS_MAX && (i + 1) * ARRIVAL <= len; i++) {
        const uint8_t *q = p + i * ARRIVAL;
        struct proto_head h = the_head();
        h.host = fuzz_id(q[0]);
        h.slot = q[1];
        h.type = q[2];
        h.incarnation = get_le64(q + 8);
        h.sequence = get_le64(q + 16);
        int r = proto_in_check(in, &h);
        FUZZ_CHECK(r >= PROTO_ACCEPT && r <= PROTO_FOREIGN);
        FUZZ_CHECK(r != PROTO_ACCEPT || proto_in_check(in, &h) == PROTO_AGAIN);
        any |= r == PROTO_ACCEPT;
    }
    proto_in_free(in);
    return any;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"requests", 0, 0, requests_seed, frame_mend, frame_feed},
    {"summary", 0, 0, summary_seed, frame_mend, frame_feed},
    {"references", 0, 0, references_seed, frame_mend, frame_feed},
    {"refs", 0, 0, refs_seed, frame_mend, frame_feed},
    {"end", 0, 0, end_seed, frame_mend, frame_feed},
    {"order", 0, 0, order_seed, NULL, order_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
