/* SPDX-License-Identifier: Apache-2.0 */
/* live_format_head: the journal's records. Each holds the whole head, so the newest valid one is the state. */
#include "live/live_format.h"

#include "base/endian.h"
#include "format/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIXED_BYTES = 128, ANCHOR_BYTES = 48, PEND_BYTES = 160 };
static const char record_magic[9] = "VARVHEAD";

size_t live_record_length(const struct live_head *h)
{
    size_t n = LIVE_RECORD_HEAD + FIXED_BYTES + (size_t)h->nanchors * ANCHOR_BYTES;
    for (unsigned i = 0; i < h->npend; i++)
        n += PEND_BYTES + strlen(h->pend[i].p.label) + strlen(h->pend[i].p.note);
    return (n + LIVE_RECORD_HEAD - 1) / LIVE_RECORD_HEAD * LIVE_RECORD_HEAD;
}

static void encode_fixed(const struct live_head *h, uint8_t *p)
{
    put_le64(p, h->size);
    put_le64(p + 8, h->alloc_bytes);
    put_le64(p + 16, (uint64_t)h->mtime_ns);
    put_le64(p + 24, (uint64_t)h->last_name_s);
    put_le64(p + 32, h->next_seq);
    put_le64(p + 40, h->next_no);
    put_le64(p + 48, h->table);
    put_le64(p + 56, h->table_bytes);
    put_le64(p + 64, h->layer);
    put_le64(p + 72, h->cache);
    put_le32(p + 80, h->marks);
    put_le32(p + 84, h->changed);
    put_le32(p + 88, h->npend);
    put_le32(p + 92, h->nanchors);
    put_le64(p + 96, h->map_bytes);
    put_le64(p + 104, h->first_seq);
}

static uint8_t *encode_pend(const struct live_pend *lp, uint8_t *p)
{
    const struct snapinfo *s = &lp->p;
    size_t label = strlen(s->label), note = strlen(s->note);
    put_le64(p, s->ref.seq);
    memcpy(p + 8, s->ref.snap.b, VID_BYTES);
    memcpy(p + 24, s->group.b, VID_BYTES);
    put_le32(p + 40, s->group_members);
    put_le32(p + 44, s->flags);
    put_le64(p + 48, s->size);
    put_le64(p + 56, s->alloc_bytes);
    put_le64(p + 64, s->dirty_segments);
    put_le64(p + 72, (uint64_t)s->freeze_ns);
    put_le64(p + 80, (uint64_t)s->name_s);
    put_le64(p + 88, lp->table);
    put_le64(p + 96, lp->layer);
    put_le64(p + 104, lp->table_bytes);
    put_le16(p + 112, (uint16_t)label);
    put_le16(p + 114, (uint16_t)note);
    put_le64(p + 120, lp->map_bytes);
    put_le32(p + 128, s->mode);
    put_le32(p + 132, s->uid);
    put_le32(p + 136, s->gid);
    memcpy(p + PEND_BYTES, s->label, label);
    memcpy(p + PEND_BYTES + label, s->note, note);
    return p + PEND_BYTES + label + note;
}

void live_record_encode(const struct vid *disk, uint64_t offset, const struct live_record *rec, const struct live_head *h, uint8_t *out)
{
    size_t len = live_record_length(h);
    memset(out, 0, len);
    put_le32(out + 12, rec->flags);
    put_le64(out + 16, len);
    put_le64(out + 24, rec->seq);
    put_le64(out + 32, rec->synced);
    uint8_t *p = out + LIVE_RECORD_HEAD;
    encode_fixed(h, p);
    p += FIXED_BYTES;
    for (unsigned i = 0; i < h->nanchors; i++, p += ANCHOR_BYTES) {
        memcpy(p, h->anchors[i].ref.disk.b, VID_BYTES);
        put_le64(p + 16, h->anchors[i].ref.seq);
        memcpy(p + 24, h->anchors[i].ref.snap.b, VID_BYTES);
        put_le64(p + 40, h->anchors[i].stamp);
    }
    for (unsigned i = 0; i < h->npend; i++)
        p = encode_pend(&h->pend[i], p);
    seal_close(&(struct seal){.kind = SEAL_JOURNAL, .id = disk, .number = offset}, out, len);
}

int live_record_peek(const struct vid *disk, const uint8_t in[LIVE_RECORD_HEAD], struct live_record *out)
{
    if (memcmp(in, record_magic, 8) != 0 || memcmp(in + 40, disk->b, VID_BYTES) != 0)
        return -EBADMSG;
    struct live_record r = {get_le32(in + 12), get_le64(in + 16), get_le64(in + 24), get_le64(in + 32)};
    if (r.length < LIVE_RECORD_HEAD + FIXED_BYTES || r.length > LIVE_RECORD_MAX || r.length % LIVE_RECORD_HEAD != 0)
        return -EBADMSG;
    *out = r;
    return 0;
}

static int decode_fixed(const uint8_t *p, struct live_head *h)
{
    h->size = get_le64(p);
    h->alloc_bytes = get_le64(p + 8);
    h->mtime_ns = (int64_t)get_le64(p + 16);
    h->last_name_s = (int64_t)get_le64(p + 24);
    h->next_seq = get_le64(p + 32);
    h->next_no = get_le64(p + 40);
    h->table = get_le64(p + 48);
    h->table_bytes = get_le64(p + 56);
    h->layer = get_le64(p + 64);
    h->cache = get_le64(p + 72);
    h->marks = get_le32(p + 80);
    uint32_t changed = get_le32(p + 84);
    h->changed = (enum live_change)changed;
    h->npend = get_le32(p + 88);
    h->nanchors = get_le32(p + 92);
    h->map_bytes = get_le64(p + 96);
    h->first_seq = get_le64(p + 104);
    bool ok = h->size <= LIVE_SIZE_MAX && changed <= LIVE_UNKEPT && h->npend <= LIVE_PENDING_MAX && h->nanchors <= LIVE_ANCHOR_MAX &&
              h->table != 0 && h->table < h->next_no && h->layer != 0 && h->layer < h->next_no && h->cache < h->next_no &&
              h->next_seq > 0 && h->last_name_s >= 0 && h->last_name_s <= TIME_NAME_MAX && h->first_seq <= h->next_seq && (h->marks & ~(uint32_t)(LIVE_REWRITING | LIVE_UNNAMED)) == 0 &&
              get_le64(p + 112) == 0 && get_le64(p + 120) == 0;
    return ok ? 0 : -EBADMSG;
}

static bool zeros(const uint8_t *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return any == 0;
}

static int copy_text(char *out, const uint8_t *p, size_t n)
{
    if (memchr(p, '\0', n) != NULL)
        return -EBADMSG;
    memcpy(out, p, n);
    out[n] = '\0';
    return 0;
}

/* One pending snapshot at *pos of the record; moves *pos behind it. */
static int decode_pend(const struct vid *disk, const uint8_t *in, size_t len, size_t *pos, const struct live_head *h, struct live_pend *lp)
{
    if (len - *pos < PEND_BYTES)
        return -EBADMSG;
    const uint8_t *p = in + *pos;
    struct snapinfo *s = &lp->p;
    s->ref.disk = *disk;
    s->ref.seq = get_le64(p);
    memcpy(s->ref.snap.b, p + 8, VID_BYTES);
    memcpy(s->group.b, p + 24, VID_BYTES);
    s->group_members = get_le32(p + 40);
    s->flags = get_le32(p + 44);
    s->size = get_le64(p + 48);
    s->alloc_bytes = get_le64(p + 56);
    s->dirty_segments = get_le64(p + 64);
    s->freeze_ns = (int64_t)get_le64(p + 72);
    s->name_s = (int64_t)get_le64(p + 80);
    lp->table = get_le64(p + 88);
    lp->layer = get_le64(p + 96);
    lp->table_bytes = get_le64(p + 104);
    lp->map_bytes = get_le64(p + 120);
    s->mode = get_le32(p + 128);
    s->uid = get_le32(p + 132);
    s->gid = get_le32(p + 136);
    size_t label = get_le16(p + 112), note = get_le16(p + 114);
    if (label > LABEL_MAX || note > NOTE_MAX || len - *pos - PEND_BYTES < label + note)
        return -EBADMSG;
    if (s->name_s < 0 || s->name_s > TIME_NAME_MAX || s->ref.seq == 0 || vid_is_zero(&s->ref.snap) || get_le32(p + 116) != 0 ||
        !zeros(p + 140, 20))
        return -EBADMSG;
    if (s->ref.seq >= h->next_seq || s->size > LIVE_SIZE_MAX || (s->flags & ~(uint32_t)SNAP_PENDING_FLAGS) != 0 ||
        (s->mode & ~0555u) != 0 ||
        lp->table == 0 || lp->table >= h->next_no || lp->layer == 0 || lp->layer >= h->next_no)
        return -EBADMSG;
    if (copy_text(s->label, p + PEND_BYTES, label) < 0 || copy_text(s->note, p + PEND_BYTES + label, note) < 0)
        return -EBADMSG;
    *pos += PEND_BYTES + label + note;
    return 0;
}

static int decode_lists(const struct vid *disk, const uint8_t *in, size_t len, struct live_head *h)
{
    size_t pos = LIVE_RECORD_HEAD + FIXED_BYTES;
    if ((len - pos) / ANCHOR_BYTES < h->nanchors)
        return -EBADMSG;
    h->anchors = calloc((size_t)h->nanchors + 1, sizeof *h->anchors);
    h->pend = calloc((size_t)h->npend + 1, sizeof *h->pend);
    if (h->anchors == NULL || h->pend == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < h->nanchors; i++, pos += ANCHOR_BYTES) {
        memcpy(h->anchors[i].ref.disk.b, in + pos, VID_BYTES);
        h->anchors[i].ref.seq = get_le64(in + pos + 16);
        memcpy(h->anchors[i].ref.snap.b, in + pos + 24, VID_BYTES);
        h->anchors[i].stamp = get_le64(in + pos + 40);
        if (vid_is_zero(&h->anchors[i].ref.disk) || vid_is_zero(&h->anchors[i].ref.snap))
            return -EBADMSG;
    }
    for (unsigned i = 0; i < h->npend; i++) {
        int r = decode_pend(disk, in, len, &pos, h, &h->pend[i]);
        if (r < 0)
            return r;
        if (i > 0 && h->pend[i].p.ref.seq <= h->pend[i - 1].p.ref.seq)
            return -EBADMSG;
    }
    /* Nothing but the padding may be left. */
    return len - pos < LIVE_RECORD_HEAD && zeros(in + pos, len - pos) ? 0 : -EBADMSG;
}

int live_record_decode(const struct vid *disk, uint64_t offset, const uint8_t *in, size_t len, struct live_record *rec, struct live_head *h)
{
    if (len < LIVE_RECORD_HEAD)
        return -EBADMSG;
    int r = live_record_peek(disk, in, rec);
    if (r < 0)
        return r;
    if (rec->length != len)
        return -EBADMSG;
    r = seal_open(&(struct seal){.kind = SEAL_JOURNAL, .id = disk, .number = offset}, in, len, NULL);
    if (r < 0)
        return r;
    if ((rec->flags & ~(uint32_t)LIVE_COMPLETE) != 0 || rec->synced > offset)
        return -EBADMSG;
    if (h == NULL)
        return 0;
    struct live_head got = {0};
    r = decode_fixed(in + LIVE_RECORD_HEAD, &got);
    if (r == 0)
        r = decode_lists(disk, in, len, &got);
    if (r < 0) {
        live_head_release(&got);
        return r;
    }
    *h = got;
    return 0;
}

size_t live_record_claims(const uint8_t *in, size_t n)
{
    if (n < LIVE_RECORD_HEAD + FIXED_BYTES)
        return 0;
    uint32_t npend = get_le32(in + LIVE_RECORD_HEAD + 88), nanchors = get_le32(in + LIVE_RECORD_HEAD + 92);
    size_t pos = LIVE_RECORD_HEAD + FIXED_BYTES + (size_t)nanchors * ANCHOR_BYTES;
    for (; npend > 0; npend--) {
        if (pos > n || n - pos < PEND_BYTES)
            return 0;
        pos += PEND_BYTES + (size_t)get_le16(in + pos + 112) + get_le16(in + pos + 114);
    }
    return (pos + LIVE_RECORD_HEAD - 1) / LIVE_RECORD_HEAD * LIVE_RECORD_HEAD;
}

int live_head_copy(const struct live_head *from, struct live_head *to)
{
    struct live_head h = *from;
    h.anchors = calloc((size_t)h.nanchors + 1, sizeof *h.anchors);
    h.pend = calloc((size_t)h.npend + 1, sizeof *h.pend);
    if (h.anchors == NULL || h.pend == NULL) {
        live_head_release(&h);
        return -ENOMEM;
    }
    if (h.nanchors > 0)
        memcpy(h.anchors, from->anchors, h.nanchors * sizeof *h.anchors);
    if (h.npend > 0)
        memcpy(h.pend, from->pend, h.npend * sizeof *h.pend);
    *to = h;
    return 0;
}

void live_head_release(struct live_head *h)
{
    free(h->anchors);
    free(h->pend);
    h->anchors = NULL;
    h->pend = NULL;
    h->nanchors = 0;
    h->npend = 0;
}
