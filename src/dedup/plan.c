/* SPDX-License-Identifier: Apache-2.0 */
/* plan: records of the plan log <-> struct plan_seg. A damaged record is found here, before anything is written because of it. */
#include "dedup/plan.h"

#include "base/endian.h"
#include "base/verr.h"
#include "format/seal.h"

#include <errno.h>
#include <string.h>

enum { PLAN_MAGIC = 0x316c5076 };       /* as the seal writes it: looked at before the length is believed */

int plan_put(struct seqout *o, const struct plan_seg *s, uint64_t seed, uint8_t *rec, struct verr *err)
{
    uint32_t n = s->kind == PLAN_BLOCKS ? s->nblocks : 0;
    size_t len = PLAN_HEAD_BYTES + (size_t)n * PLAN_BLOCK_BYTES;
    memset(rec, 0, PLAN_HEAD_BYTES);
    rec[4] = (uint8_t)s->kind;
    put_le32(rec + 16, s->bytes);
    put_le32(rec + 20, n);
    put_le32(rec + 24, s->data_pages);
    put_le64(rec + 32, s->place);
    memcpy(rec + 40, s->digest, DIGEST_BYTES);
    uint8_t *p = rec + PLAN_HEAD_BYTES;
    for (uint32_t i = 0; i < n; i++, p += PLAN_BLOCK_BYTES) {
        put_le32(p, s->b[i].len);
        put_le32(p + 4, s->b[i].kind);
        put_le64(p + 8, s->b[i].ref);
        memcpy(p + 16, s->b[i].fp.b, FP_BYTES);
    }
    seal_close(&(struct seal){.kind = SEAL_PLAN, .file = seed, .number = s->segment}, rec, len);
    return seqout_put(o, rec, len, err);
}

static bool head_ok(const uint8_t *rec)
{
    uint32_t bytes = get_le32(rec + 16), n = get_le32(rec + 20);
    if (get_le32(rec) != PLAN_MAGIC || rec[4] < PLAN_ZERO || rec[4] > PLAN_BLOCKS || bytes == 0 || bytes > SEG_BYTES)
        return false;
    return rec[4] == PLAN_BLOCKS ? n >= 1 && n <= PLAN_BLOCKS_MAX : n == 0;
}

static bool blocks_decode(const uint8_t *rec, struct plan_seg *s)
{
    uint64_t sum = 0;
    const uint8_t *p = rec + PLAN_HEAD_BYTES;
    for (uint32_t i = 0; i < s->nblocks; i++, p += PLAN_BLOCK_BYTES) {
        struct plan_block *b = &s->b[i];
        b->len = get_le32(p);
        b->kind = get_le32(p + 4);
        b->ref = get_le64(p + 8);
        memcpy(b->fp.b, p + 16, FP_BYTES);
        if (b->kind < BLK_ZERO || b->kind >= BLK_KINDS || b->len == 0 || b->len > SEG_BYTES)
            return false;
        if (b->kind != BLK_ZERO && b->len > BLOCK_MAX)
            return false;
        sum += b->len;
    }
    return s->kind != PLAN_BLOCKS || sum == s->bytes;
}

int plan_get(struct seqin *in, struct plan_seg *s, uint64_t seed, uint8_t *rec, struct verr *err)
{
    int rc = seqin_get(in, rec, PLAN_HEAD_BYTES, err);
    if (rc <= 0)
        return rc;
    if (!head_ok(rec))
        return verr_set(err, EBADMSG, "a plan log below STATE/rounds is damaged (head of a segment's record)");
    s->segment = get_le64(rec + 8);
    s->kind = (enum plan_kind)rec[4];
    s->bytes = get_le32(rec + 16);
    s->nblocks = get_le32(rec + 20);
    s->data_pages = get_le32(rec + 24);
    s->place = get_le64(rec + 32);
    memcpy(s->digest, rec + 40, DIGEST_BYTES);
    size_t tail = (size_t)s->nblocks * PLAN_BLOCK_BYTES;
    if (tail > 0) {
        rc = seqin_get(in, rec + PLAN_HEAD_BYTES, tail, err);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return verr_set(err, EBADMSG, "a plan log below STATE/rounds ends inside a record");
    }
    struct seal at = {.kind = SEAL_PLAN, .anywhere = true, .file = seed};
    if (seal_open(&at, rec, PLAN_HEAD_BYTES + tail, NULL) < 0 || !blocks_decode(rec, s))
        return verr_set(err, EBADMSG, "a plan log below STATE/rounds is damaged (segment %llu)", (unsigned long long)s->segment);
    return 1;
}
