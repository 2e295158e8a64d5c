/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire: sending. Keys go into the holder's sent log (24 bytes a request, by position) before they go on the bus: the digests of
 * summaries are checked against this log. The first keys of each partition are kept in the memory that bundles do not need; only a
 * round that asks for more keys has files (sent-PPPPPPPP).
 */
#include "dedup/wire_internal.h"

#include "base/file.h"
#include "base/verr.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH_MIN = 16, WIDTH_MAX = 4000, KEPT_MAX = 4096, SEND_TRIES = 5000 };

_Static_assert(PROTO_HEAD_BYTES + 64 + WIDTH_MAX * ITEM_BYTES <= PROTO_FRAME_MAX, "a bundle fits one frame");
_Static_assert((int)PROTO_FRAME_MAX == (int)BUS_FRAME_MAX && (int)PROTO_KEY_BYTES == (int)FPKEY_BYTES, "bus, index and messages agree");

void sent_name(char out[32], uint32_t part)
{
    snprintf(out, 32, "sent-%08x", part);
}

/* ---- one frame ---- */

static const enum bus_topic bus_topics[] = {BUS_REQUESTS, BUS_SUMMARIES, BUS_REFERENCES, BUS_RESOLUTIONS};

/* Sends the frame in w->out. When the bus does not take it, the slot is given up, and the answer is 0 too. */
static int send_frame(struct round *r, enum wire_topic topic, uint32_t slot, size_t len, struct verr *err)
{
    struct wire *w = r->wire;
    uint32_t partition = topic == WT_REQUESTS || topic == WT_REFERENCES ? slot : 0;     /* this host is partition 0 of its own bus */
    const struct timespec tick = {0, 1000 * 1000};
    struct verr why = {0};
    for (unsigned tries = 0;; tries++) {
        int rc = bus_send(r->env->bus, bus_topics[topic], partition, w->out, len, &why);
        if (rc == 0)
            break;
        if (rc != -EAGAIN || tries == SEND_TRIES) {
            slot_give_up(r, slot, "bus", &why);
            return 0;
        }
        int got = wire_drain(r, err);
        if (got < 0)
            return got;
        if (got == 0 && tries > 64)
            nanosleep(&tick, NULL);
        if (got > 0)
            tries = 0;
    }
    w->slot[slot].sequence[topic]++;
    w->bytes += len;
    return 0;
}

static const struct proto_head *head_of(struct wire *w, enum wire_topic topic, uint32_t slot)
{
    w->head.slot = slot;
    w->head.sequence = w->slot[slot].sequence[topic];
    return &w->head;
}

/* Sends the END of a stream to or from a slot, with counts and digests of its partitions. */
static int send_end(struct round *r, enum wire_topic topic, enum proto_type type, uint32_t slot, struct verr *err)
{
    struct wire *w = r->wire;
    struct proto_build b;
    if (r->slots[slot].dead)
        return 0;
    proto_end_begin(&b, w->out);
    for (uint32_t p = 0; p < r->q; p++)
        proto_end_add(&b, w->count[slot * r->q + p], w->digest[slot * r->q + p]);
    return send_frame(r, topic, slot, proto_end_finish(&b, head_of(w, topic, slot), type), err);
}

/* ---- bundles of the holder ---- */

static int log_sent(struct round *r, uint32_t part, struct verr *err)
{
    struct wire *w = r->wire;
    char name[32];
    uint32_t n = w->fill[part];
    uint8_t *keys = w->out;     /* free now, and large enough for the keys of a bundle */
    for (uint32_t i = 0; i < n; i++)
        memcpy(keys + (size_t)i * FPKEY_BYTES, w->items + ((size_t)part * w->width + i) * ITEM_BYTES, FPKEY_BYTES);
    uint64_t first = w->sent[part] - n;
    uint32_t k = first >= w->kept_width ? 0 : w->kept_width - (uint32_t)first < n ? w->kept_width - (uint32_t)first : n;
    memcpy(w->kept + ((size_t)part * w->kept_width + (k > 0 ? first : 0)) * FPKEY_BYTES, keys, (size_t)k * FPKEY_BYTES);
    if (k == n)
        return 0;
    sent_name(name, part);
    int fd = openat(r->dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = fd < 0 ? -errno
                    : pwrite_bulk(fd, keys + (size_t)k * FPKEY_BYTES, (size_t)(n - k) * FPKEY_BYTES, (off_t)((first + k) * FPKEY_BYTES));
    if (fd >= 0)
        close(fd);
    return rc < 0 ? verr_set(err, -rc, "cannot write %s in the round's directory: %s", name, strerror(-rc)) : 0;
}

static int flush_bundle(struct round *r, enum wire_topic topic, uint32_t part, struct verr *err)
{
    struct wire *w = r->wire;
    uint32_t slot = part / r->q, n = w->fill[part];
    const uint8_t *item = w->items + (size_t)part * w->width * ITEM_BYTES;
    struct proto_build b;
    size_t len;
    if (n == 0)
        return 0;
    if (topic == WT_REQUESTS) {
        int rc = log_sent(r, part, err);
        if (rc < 0)
            return rc;
        proto_requests_begin(&b, w->out, part % r->q, w->sent[part] - n);
        for (uint32_t i = 0; i < n; i++)
            proto_requests_add(&b, item + (size_t)i * ITEM_BYTES);
        len = proto_requests_finish(&b, head_of(w, topic, slot));
    } else if (w->fresh[part].numbered) {
        proto_new_references_begin(&b, w->out, part % r->q, w->fresh[part].first);
        for (uint32_t i = 0; i < n; i++)
            proto_new_references_add(&b, get_le64(item + (size_t)i * ITEM_BYTES + FPKEY_BYTES));
        len = proto_new_references_finish(&b, head_of(w, topic, slot));
    } else {
        proto_references_begin(&b, w->out, part % r->q);
        for (uint32_t i = 0; i < n; i++)
            proto_references_add(&b, item + (size_t)i * ITEM_BYTES, get_le64(item + (size_t)i * ITEM_BYTES + FPKEY_BYTES));
        len = proto_references_finish(&b, head_of(w, topic, slot));
    }
    w->fill[part] = 0;
    return r->slots[slot].dead ? 0 : send_frame(r, topic, slot, len, err);
}

/* Adds an item to a bundle that has room. The frame will hold its bytes from..end: of a request the key alone. */
static void add_item(struct wire *w, uint32_t part, const uint8_t *key, uint64_t ref, size_t from, size_t end)
{
    uint8_t *item = w->items + ((size_t)part * w->width + w->fill[part]) * ITEM_BYTES;
    if (key != NULL)
        memcpy(item, key, FPKEY_BYTES);
    put_le64(item + FPKEY_BYTES, ref);
    w->fill[part]++;
    w->count[part]++;
    w->digest[part] = proto_digest(w->digest[part], item + from, end - from);
}

static int end_bundles(struct round *r, enum wire_topic topic, enum proto_type type, struct verr *err)
{
    struct wire *w = r->wire;
    int rc = 0;
    for (uint32_t p = 0; p < w->parts && rc == 0; p++)
        rc = flush_bundle(r, topic, p, err);
    for (uint32_t s = 0; s < r->nslots && rc == 0; s++)
        rc = send_end(r, topic, type, s, err);
    wire_reset(w->count, w->digest, w->parts);
    return rc;
}

int send_request(struct round *r, const struct fp *fp, uint64_t *pos, struct verr *err)
{
    struct wire *w = r->wire;
    uint32_t part = storeconf_partition(r->conf, fp->b);
    int rc = w->fill[part] == w->width ? flush_bundle(r, WT_REQUESTS, part, err) : 0;
    if (rc < 0)
        return rc;
    add_item(w, part, fp->b, 0, 0, FPKEY_BYTES);
    *pos = w->sent[part]++;
    return 0;
}

int send_requests_end(struct round *r, struct verr *err)
{
    int rc = answers_open(&r->answers, r->dirfd, r->wire->sent, r->wire->parts, r->mem.windows, err);
    return rc < 0 ? rc : end_bundles(r, WT_REQUESTS, PROTO_REQUESTS_END, err);
}

static int send_keyed(struct round *r, uint32_t part, const struct fp *fp, uint64_t ref, struct verr *err)
{
    struct wire *w = r->wire;
    int rc = w->fill[part] == w->width || w->fresh[part].numbered ? flush_bundle(r, WT_REFERENCES, part, err) : 0;
    if (rc < 0)
        return rc;
    w->fresh[part].numbered = false;
    add_item(w, part, fp->b, ref, 0, ITEM_BYTES);
    return 0;
}

static int send_numbered(struct round *r, uint32_t part, uint64_t number, uint64_t ref, struct verr *err)
{
    struct wire *w = r->wire;
    struct wire_new *n = &w->fresh[part];
    /* Numbers whose blocks were not written, because their disk failed, are missing. A bundle holds numbers without a gap, so a gap
     * begins a new frame. */
    bool gap = w->fill[part] > 0 && n->first + w->fill[part] != number;
    int rc = w->fill[part] == w->width || gap || !n->numbered ? flush_bundle(r, WT_REFERENCES, part, err) : 0;
    if (rc < 0)
        return rc;
    if (w->fill[part] == 0)
        n->first = number;
    n->numbered = true;
    add_item(w, part, NULL, ref, FPKEY_BYTES, ITEM_BYTES);
    return 0;
}

/* The number of an asked block among the "new" answers of its stream. 1; 0: it has none, because its answer was not "new"; -errno. */
static int number_of(struct round *r, uint32_t part, uint64_t pos, uint64_t *number, struct verr *err)
{
    struct wire_new *n = &r->wire->fresh[part];
    uint64_t answer = ANSWER_NEW;
    if (pos == POS_NONE || pos < n->pos)
        return 0;
    for (; n->pos < pos; n->pos++) {
        int rc = answers_get(&r->answers, part, n->pos, &answer, err);
        if (rc < 0)
            return rc;
        n->count += answer == ANSWER_NEW;
    }
    int rc = answers_get(&r->answers, part, pos, &answer, err);
    *number = n->count;
    return rc < 0 ? rc : answer == ANSWER_NEW;
}

int send_reference(struct round *r, const struct fp *fp, uint64_t pos, uint64_t ref, struct verr *err)
{
    uint32_t part = storeconf_partition(r->conf, fp->b);
    uint64_t number;
    int rc = number_of(r, part, pos, &number, err);
    if (rc < 0)
        return rc;
    return rc > 0 ? send_numbered(r, part, number, ref, err) : send_keyed(r, part, fp, ref, err);
}

int send_references_end(struct round *r, struct verr *err)
{
    return end_bundles(r, WT_REFERENCES, PROTO_REFERENCES_END, err);
}

/* ---- summaries and resolutions: one partition at a time, built in the frame itself ---- */

static int flush_build(struct round *r, enum wire_topic topic, struct verr *err)
{
    struct wire *w = r->wire;
    if (!w->building)
        return 0;
    w->building = false;
    const struct proto_head *h = head_of(w, topic, w->build_slot);
    size_t len = topic == WT_SUMMARIES ? proto_summary_finish(&w->build, h) : proto_resolutions_finish(&w->build, h);
    return r->slots[w->build_slot].dead ? 0 : send_frame(r, topic, w->build_slot, len, err);
}

/* Makes sure that a frame for this partition is open and has room. When `full`, or when another partition's frame is open, that frame
 * is sent first. */
static int ready_build(struct round *r, enum wire_topic topic, uint32_t slot, uint32_t part, bool full, struct verr *err)
{
    struct wire *w = r->wire;
    if (w->building && !full && w->build_slot == slot && w->build_part == part)
        return 0;
    int rc = flush_build(r, topic, err);
    if (rc < 0)
        return rc;
    uint64_t first = w->count[slot * r->q + part];
    if (topic == WT_SUMMARIES)
        proto_summary_begin(&w->build, w->out, part, first);
    else
        proto_resolutions_begin(&w->build, w->out, part, first);
    w->building = true;
    w->build_slot = slot;
    w->build_part = part;
    return 0;
}

int send_summary(struct round *r, uint32_t slot, uint32_t part, uint64_t pos, const uint8_t key[FPKEY_BYTES], uint64_t answer,
                 struct verr *err)
{
    struct wire *w = r->wire;
    uint32_t at = slot * r->q + part;
    enum proto_answer how = answer == ANSWER_NEW ? PROTO_NEW : answer == ANSWER_WAIT ? PROTO_DUP_WITH_NEW : PROTO_DUPLICATE;
    if (pos != w->count[at])
        return verr_set(err, EPROTO, "request %llu of partition %u of slot %u has no answer", (unsigned long long)w->count[at], part, slot);
    int rc = ready_build(r, WT_SUMMARIES, slot, part, false, err);
    if (rc == 0 && !proto_summary_add(&w->build, key, how, answer)) {
        rc = ready_build(r, WT_SUMMARIES, slot, part, true, err);
        if (rc == 0 && !proto_summary_add(&w->build, key, how, answer))
            rc = verr_set(err, EMSGSIZE, "an answer does not fit into an empty frame");
    }
    if (rc < 0)
        return rc;
    w->count[at]++;
    w->digest[at] = proto_digest(w->digest[at], key, FPKEY_BYTES);
    return 0;
}

int send_resolution(struct round *r, uint32_t slot, uint32_t part, uint64_t ref, struct verr *err)
{
    struct wire *w = r->wire;
    uint32_t at = slot * r->q + part;
    uint8_t item[8];
    int rc = ready_build(r, WT_RESOLUTIONS, slot, part, false, err);
    if (rc == 0 && !proto_resolutions_add(&w->build, ref)) {
        rc = ready_build(r, WT_RESOLUTIONS, slot, part, true, err);
        if (rc == 0 && !proto_resolutions_add(&w->build, ref))
            rc = verr_set(err, EMSGSIZE, "a resolution does not fit into an empty frame");
    }
    if (rc < 0)
        return rc;
    put_le64(item, ref);
    w->count[at]++;
    w->digest[at] = proto_digest(w->digest[at], item, sizeof item);
    return 0;
}

static int end_build(struct round *r, enum wire_topic topic, enum proto_type type, uint32_t slot, struct verr *err)
{
    struct wire *w = r->wire;
    int rc = flush_build(r, topic, err);
    if (rc == 0)
        rc = send_end(r, topic, type, slot, err);
    wire_reset(w->count + (size_t)slot * r->q, w->digest + (size_t)slot * r->q, r->q);
    return rc;
}

int send_summaries_end(struct round *r, uint32_t slot, struct verr *err)
{
    return end_build(r, WT_SUMMARIES, PROTO_SUMMARY_END, slot, err);
}

int send_resolutions_end(struct round *r, uint32_t slot, struct verr *err)
{
    return end_build(r, WT_RESOLUTIONS, PROTO_RESOLUTIONS_END, slot, err);
}

/* ---- setting up ---- */

static void discard(struct round *r, enum bus_topic topic, uint32_t partition)
{
    while (bus_receive(r->env->bus, topic, partition, r->wire->in, NULL) > 0)
        continue;
}

static int alloc_wire(struct wire *w, const struct round *r)
{
    size_t width = w->parts == 0 ? 0 : r->mem.bundles / ITEM_BYTES / w->parts;
    w->width = width < WIDTH_MIN ? WIDTH_MIN : width > WIDTH_MAX ? WIDTH_MAX : (uint32_t)width;
    size_t n = w->parts == 0 ? 1 : w->parts;
    w->order = proto_in_new(&r->conf->id, w->head.round, 0);
    w->out = malloc(PROTO_FRAME_MAX);
    w->in = malloc(PROTO_FRAME_MAX);
    w->items = malloc(n * w->width * ITEM_BYTES);
    w->fill = calloc(n, sizeof *w->fill);
    w->sent = calloc(n, sizeof *w->sent);
    size_t used = n * w->width * ITEM_BYTES, left = r->mem.bundles > used ? r->mem.bundles - used : 0;
    w->kept_width = left / n / FPKEY_BYTES < KEPT_MAX ? (uint32_t)(left / n / FPKEY_BYTES) : KEPT_MAX;
    w->kept = malloc(n * w->kept_width * FPKEY_BYTES + 1);
    w->count = calloc(n, sizeof *w->count);
    w->digest = calloc(n, sizeof *w->digest);
    w->in_count = calloc(n, sizeof *w->in_count);
    w->in_digest = calloc(n, sizeof *w->in_digest);
    w->fresh = calloc(n, sizeof *w->fresh);
    w->slot = calloc(r->nslots == 0 ? 1 : r->nslots, sizeof *w->slot);
    bool all = w->order != NULL && w->out != NULL && w->in != NULL && w->items != NULL && w->fill != NULL && w->sent != NULL;
    all = all && w->kept != NULL && w->count != NULL && w->digest != NULL && w->in_count != NULL && w->in_digest != NULL && w->slot != NULL && w->fresh != NULL;
    return all ? 0 : -ENOMEM;
}

int wire_open(struct round *r, struct wire **out, struct verr *err)
{
    struct wire *w = calloc(1, sizeof *w);
    if (w == NULL)
        return verr_set(err, ENOMEM, "no memory for the messages of a round");
    w->parts = r->nslots * r->q;
    w->head.cluster = r->conf->id;
    w->head.host = r->env->host;
    random_bytes(&w->head.round, sizeof w->head.round);
    random_bytes(&w->head.incarnation, sizeof w->head.incarnation);     /* random, because a clock may go backwards */
    if (alloc_wire(w, r) < 0) {
        wire_close(w);
        return verr_set(err, ENOMEM, "no memory for the messages of a round");
    }
    *out = w;
    for (uint32_t s = 0; s < r->nslots; s++) {
        discard(r, BUS_REQUESTS, s);
        discard(r, BUS_REFERENCES, s);
    }
    discard(r, BUS_SUMMARIES, 0);
    discard(r, BUS_RESOLUTIONS, 0);
    return 0;
}

void wire_traffic(const struct wire *w, struct dedup_traffic *t)
{
    t->bytes += w->bytes;
    for (uint32_t p = 0; p < w->parts; p++)
        t->asked += w->sent[p];
}

void wire_close(struct wire *w)
{
    if (w == NULL)
        return;
    proto_in_free(w->order);
    free(w->out);
    free(w->in);
    free(w->items);
    free(w->fill);
    free(w->sent);
    free(w->kept);
    free(w->count);
    free(w->digest);
    free(w->in_count);
    free(w->in_digest);
    free(w->fresh);
    free(w->slot);
    free(w);
}
