/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoder: a frame is untrusted until every field of it was checked here, once. The counts must give the payload's
 * length exactly, so that a loop over the items stays inside the frame.
 */
#include "proto/proto_internal.h"

#include <errno.h>

static const char *decode_head(const uint8_t *f, size_t len, struct proto_head *h)
{
    if (len < PROTO_HEAD_BYTES || len > PROTO_FRAME_MAX)
        return "the frame is too short or too long";
    if (get_le32(f + PH_MAGIC) != PROTO_MAGIC)
        return "not a message of varve";
    if (get_le32(f + PH_PAYLOAD) != len - PROTO_HEAD_BYTES)
        return "the frame's length is not what its head says";
    if (get_le64(f + PH_CHECKSUM) != proto_checksum(f, len))
        return "the checksum is wrong";
    *h = (struct proto_head){
        .round = get_le64(f + PH_ROUND), .incarnation = get_le64(f + PH_INCARNATION), .sequence = get_le64(f + PH_SEQUENCE),
        .attempt = get_le32(f + PH_ATTEMPT), .slot = get_le32(f + PH_SLOT), .type = get_le16(f + PH_TYPE),
        .payload_bytes = get_le32(f + PH_PAYLOAD),
    };
    memcpy(h->cluster.b, f + PH_CLUSTER, VID_BYTES);
    memcpy(h->host.b, f + PH_HOST, VID_BYTES);
    if (get_le32(f + PH_RESERVED) != 0)
        return "a reserved field is set";
    return h->sequence == UINT64_MAX ? "the sequence number is out of range" : NULL;
}

/* Fixed part of a payload that begins with partition and count. */
static const char *decode_place(struct proto_msg *m, const uint8_t *p, size_t fixed)
{
    if (m->head.payload_bytes < fixed)
        return "the payload is too short";
    m->partition = get_le32(p + PP_PARTITION);
    m->count = get_le32(p + PP_COUNT);
    m->first = fixed > PP_REFERENCES_BYTES ? get_le64(p + PP_FIRST) : 0;
    m->items = p + fixed;
    if (m->partition >= PROTO_PARTITIONS_MAX)
        return "no slot has such a partition";
    uint64_t end;
    if (__builtin_add_overflow(m->first, m->count, &end))
        return "the positions are out of range";
    return NULL;
}

static const char *decode_items(struct proto_msg *m, const uint8_t *p, size_t fixed, size_t item)
{
    const char *why = decode_place(m, p, fixed);
    if (why == NULL && (uint64_t)m->count * item != m->head.payload_bytes - fixed)
        why = "the count does not fit the payload";
    return why;
}

/* References of other items than entries: a block, or REF_NONE where there may be no answer. */
static const char *check_refs(const uint8_t *refs, uint32_t n, size_t step, bool none)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t ref = get_le64(refs + i * step);
        if (!ref_is_block(ref) && !(none && ref == REF_NONE))
            return "a reference is none";
    }
    return NULL;
}

/* No answer but the known ones, as many duplicates as references, and nothing behind the last answer. */
static const char *check_bits(const struct proto_msg *m)
{
    uint32_t duplicates = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        unsigned a = m->bits[i / 4] >> (i % 4 * 2) & 3;
        if (a > PROTO_DUP_WITH_NEW)
            return "an answer is none of new, duplicate and dup-with-new";
        duplicates += a == PROTO_DUPLICATE;
    }
    if (m->count % 4 != 0 && m->bits[m->count / 4] >> (m->count % 4 * 2) != 0)
        return "answers stand behind the last one";
    return duplicates == m->duplicates ? NULL : "there are not as many references as duplicates";
}

static const char *decode_summary(struct proto_msg *m, const uint8_t *p)
{
    const char *why = decode_place(m, p, PP_SUMMARY_BYTES);
    if (why != NULL)
        return why;
    m->digest = get_le64(p + PP_DIGEST);
    m->duplicates = get_le32(p + PP_DUPLICATES);
    uint64_t refs = (uint64_t)m->duplicates * 8, bits = ((uint64_t)m->count + 3) / 4;
    if (m->count > PROTO_SUMMARY_ANSWERS_MAX || refs + bits != m->head.payload_bytes - PP_SUMMARY_BYTES)
        return "the counts do not fit the payload";
    if (get_le32(p + PP_SUMMARY_RESERVED) != 0)
        return "a reserved field is set";
    m->bits = m->items + refs;
    why = check_refs(m->items, m->duplicates, 8, false);
    return why != NULL ? why : check_bits(m);
}

static const char *decode_end(struct proto_msg *m, const uint8_t *p)
{
    if (m->head.payload_bytes < PP_END_BYTES)
        return "the payload is too short";
    m->count = get_le32(p + PP_END_PARTITIONS);
    m->items = p + PP_END_BYTES;
    if (m->count > PROTO_PARTITIONS_MAX || (uint64_t)m->count * PP_END_ITEM != m->head.payload_bytes - PP_END_BYTES)
        return "the number of partitions does not fit the payload";
    if (get_le32(p + PP_END_RESERVED) != 0)
        return "a reserved field is set";
    return get_le64(p + PP_END_MESSAGES) == m->head.sequence ? NULL : "END counts other messages than its sequence number";
}

static const char *decode_payload(struct proto_msg *m, const uint8_t *p)
{
    const char *why;
    switch (m->head.type) {
    case PROTO_REQUESTS:
        return decode_items(m, p, PP_POSITIONAL_BYTES, PROTO_KEY_BYTES);
    case PROTO_SUMMARY:
        return decode_summary(m, p);
    case PROTO_REFERENCES:
        why = decode_items(m, p, PP_REFERENCES_BYTES, PROTO_KEY_BYTES + 8);
        return why != NULL ? why : check_refs(m->items + PROTO_KEY_BYTES, m->count, PROTO_KEY_BYTES + 8, false);
    case PROTO_NEW_REFERENCES:
    case PROTO_RESOLUTIONS:
        why = decode_items(m, p, PP_POSITIONAL_BYTES, 8);
        return why != NULL ? why : check_refs(m->items, m->count, 8, true);
    default:
        return decode_end(m, p);
    }
}

int proto_decode(const uint8_t *frame, size_t len, struct proto_msg *out, const char **why)
{
    struct proto_msg m = {0};
    int r = -EPROTO;
    const char *text = decode_head(frame, len, &m.head);
    if (text == NULL && get_le16(frame + PH_VERSION) != PROTO_VERSION) {
        text = "another version of the protocol";
        r = -ENOTSUP;
    } else if (text == NULL && (m.head.type < PROTO_REQUESTS || m.head.type > PROTO_RESOLUTIONS_END)) {
        text = "a type of message that this version does not know";
        r = -ENOTSUP;
    } else if (text == NULL) {
        text = decode_payload(&m, frame + PROTO_HEAD_BYTES);
    }
    if (text == NULL) {
        *out = m;
        return 0;
    }
    if (why != NULL)
        *why = text;
    return r;
}

bool proto_answers_next(struct proto_answers *it, enum proto_answer *answer, uint64_t *ref)
{
    const struct proto_msg *m = it->m;
    if (it->at == m->count)
        return false;
    unsigned a = m->bits[it->at / 4] >> (it->at % 4 * 2) & 3;
    it->at++;
    *answer = (enum proto_answer)a;
    *ref = a == PROTO_DUPLICATE ? proto_ref(m, it->refs++) : REF_NONE;
    return true;
}
