/* SPDX-License-Identifier: Apache-2.0 */
/* Builders: items straight into the caller's frame; the head comes last, with the checksum over all of it. */
#include "proto/proto_internal.h"

#include "base/hash.h"

_Static_assert(PH_CHECKSUM + 8 == PROTO_HEAD_BYTES, "the checksum ends the head");
_Static_assert(PROTO_HEAD_BYTES + PP_END_BYTES + PROTO_PARTITIONS_MAX * PP_END_ITEM <= PROTO_FRAME_MAX, "an END fits one frame");

/* While a SUMMARY is built its bits stand at the end of the buffer, because their place depends on the references. */
enum { BITS_AT = PROTO_FRAME_MAX - PROTO_SUMMARY_ANSWERS_MAX / 4 };

uint64_t proto_digest(uint64_t digest, const void *item, size_t len)
{
    return hash64_seed(item, len, digest);
}

uint64_t proto_checksum(const uint8_t *frame, size_t len)
{
    return hash64_seed(frame + PROTO_HEAD_BYTES, len - PROTO_HEAD_BYTES, hash64(frame, PH_CHECKSUM));
}

static uint8_t *payload(struct proto_build *b)
{
    return b->frame + PROTO_HEAD_BYTES;
}

static void begin(struct proto_build *b, uint8_t *frame, size_t fixed)
{
    *b = (struct proto_build){.frame = frame, .used = PROTO_HEAD_BYTES + fixed};
    memset(payload(b), 0, fixed);
}

static void begin_at(struct proto_build *b, uint8_t *frame, size_t fixed, uint32_t partition, uint64_t first)
{
    begin(b, frame, fixed);
    put_le32(payload(b) + PP_PARTITION, partition);
    put_le64(payload(b) + PP_FIRST, first);
}

/* Returns the place of the next item, or NULL when the frame is full. */
static uint8_t *room(struct proto_build *b, size_t len)
{
    if (len > PROTO_FRAME_MAX - b->used)
        return NULL;
    uint8_t *at = b->frame + b->used;
    b->used += len;
    b->count++;
    return at;
}

static size_t finish(struct proto_build *b, const struct proto_head *h, enum proto_type type)
{
    uint8_t *f = b->frame;
    put_le32(f + PH_MAGIC, PROTO_MAGIC);
    put_le16(f + PH_VERSION, PROTO_VERSION);
    put_le16(f + PH_TYPE, (uint16_t)type);
    put_le32(f + PH_PAYLOAD, (uint32_t)(b->used - PROTO_HEAD_BYTES));
    put_le32(f + PH_SLOT, h->slot);
    memcpy(f + PH_CLUSTER, h->cluster.b, VID_BYTES);
    memcpy(f + PH_HOST, h->host.b, VID_BYTES);
    put_le64(f + PH_ROUND, h->round);
    put_le64(f + PH_INCARNATION, h->incarnation);
    put_le64(f + PH_SEQUENCE, h->sequence);
    put_le32(f + PH_ATTEMPT, h->attempt);
    put_le32(f + PH_RESERVED, 0);
    put_le64(f + PH_CHECKSUM, proto_checksum(f, b->used));
    return b->used;
}

static size_t finish_counted(struct proto_build *b, const struct proto_head *h, enum proto_type type)
{
    put_le32(payload(b) + PP_COUNT, b->count);
    return finish(b, h, type);
}

/* ---- REQUESTS ---- */

void proto_requests_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first)
{
    begin_at(b, frame, PP_POSITIONAL_BYTES, partition, first);
}

bool proto_requests_add(struct proto_build *b, const uint8_t key[PROTO_KEY_BYTES])
{
    uint8_t *at = room(b, PROTO_KEY_BYTES);
    if (at != NULL)
        memcpy(at, key, PROTO_KEY_BYTES);
    return at != NULL;
}

size_t proto_requests_finish(struct proto_build *b, const struct proto_head *head)
{
    return finish_counted(b, head, PROTO_REQUESTS);
}

/* ---- SUMMARY ---- */

void proto_summary_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first)
{
    begin_at(b, frame, PP_SUMMARY_BYTES, partition, first);
}

bool proto_summary_add(struct proto_build *b, const uint8_t key[PROTO_KEY_BYTES], enum proto_answer answer, uint64_t ref)
{
    if (b->count == PROTO_SUMMARY_ANSWERS_MAX || (answer == PROTO_DUPLICATE && b->used + 8 > BITS_AT))
        return false;
    if (answer == PROTO_DUPLICATE) {
        put_le64(b->frame + b->used, ref);
        b->used += 8;
        b->duplicates++;
    }
    uint8_t *bits = b->frame + BITS_AT + b->count / 4;
    if (b->count % 4 == 0)
        *bits = 0;
    *bits |= (uint8_t)((unsigned)answer << (b->count % 4 * 2));
    b->count++;
    b->digest = proto_digest(b->digest, key, PROTO_KEY_BYTES);
    return true;
}

size_t proto_summary_finish(struct proto_build *b, const struct proto_head *head)
{
    size_t bits = ((size_t)b->count + 3) / 4;
    memmove(b->frame + b->used, b->frame + BITS_AT, bits);
    b->used += bits;
    put_le64(payload(b) + PP_DIGEST, b->digest);
    put_le32(payload(b) + PP_DUPLICATES, b->duplicates);
    return finish_counted(b, head, PROTO_SUMMARY);
}

/* ---- REFERENCES ---- */

void proto_references_begin(struct proto_build *b, uint8_t *frame, uint32_t partition)
{
    begin(b, frame, PP_REFERENCES_BYTES);
    put_le32(payload(b) + PP_PARTITION, partition);
}

bool proto_references_add(struct proto_build *b, const uint8_t key[PROTO_KEY_BYTES], uint64_t ref)
{
    uint8_t *at = room(b, PROTO_KEY_BYTES + 8);
    if (at == NULL)
        return false;
    memcpy(at, key, PROTO_KEY_BYTES);
    put_le64(at + PROTO_KEY_BYTES, ref);
    return true;
}

size_t proto_references_finish(struct proto_build *b, const struct proto_head *head)
{
    return finish_counted(b, head, PROTO_REFERENCES);
}

/* ---- NEW_REFERENCES, RESOLUTIONS ---- */

static bool add_ref(struct proto_build *b, uint64_t ref)
{
    uint8_t *at = room(b, 8);
    if (at != NULL)
        put_le64(at, ref);
    return at != NULL;
}

void proto_new_references_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first)
{
    begin_at(b, frame, PP_POSITIONAL_BYTES, partition, first);
}

bool proto_new_references_add(struct proto_build *b, uint64_t ref)
{
    return add_ref(b, ref);
}

size_t proto_new_references_finish(struct proto_build *b, const struct proto_head *head)
{
    return finish_counted(b, head, PROTO_NEW_REFERENCES);
}

void proto_resolutions_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first)
{
    begin_at(b, frame, PP_POSITIONAL_BYTES, partition, first);
}

bool proto_resolutions_add(struct proto_build *b, uint64_t ref)
{
    return add_ref(b, ref);
}

size_t proto_resolutions_finish(struct proto_build *b, const struct proto_head *head)
{
    return finish_counted(b, head, PROTO_RESOLUTIONS);
}

/* ---- END ---- */

void proto_end_begin(struct proto_build *b, uint8_t *frame)
{
    begin(b, frame, PP_END_BYTES);
}

bool proto_end_add(struct proto_build *b, uint64_t items, uint64_t digest)
{
    uint8_t *at = b->count < PROTO_PARTITIONS_MAX ? room(b, PP_END_ITEM) : NULL;
    if (at == NULL)
        return false;
    put_le64(at, items);
    put_le64(at + 8, digest);
    return true;
}

size_t proto_end_finish(struct proto_build *b, const struct proto_head *head, enum proto_type type)
{
    put_le64(payload(b) + PP_END_MESSAGES, head->sequence);
    put_le32(payload(b) + PP_END_PARTITIONS, b->count);
    return finish(b, head, type);
}
