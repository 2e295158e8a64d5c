/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire: receiving. A frame is used once and in order, or not at all. A frame that was seen before is skipped; after a gap, or
 * items that contradict what this host knows, their slot is given up for this round.
 */
#include "dedup/wire_internal.h"

#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { END_TRIES = 5000, KEYS_AT_ONCE = 256 };

/* ---- slot owner ---- */

static int take_requests(struct round *r, const struct proto_msg *m, uint32_t at, struct verr *err)
{
    struct wire *w = r->wire;
    if (m->first != w->in_count[at])
        return verr_set(err, EPROTO, "requests of partition %u do not follow each other", at);
    for (uint32_t i = 0; i < m->count; i++) {
        const uint8_t *key = proto_request_key(m, i);
        struct fp fp = {{0}};
        memcpy(fp.b, key, FPKEY_BYTES);
        if (storeconf_partition(r->conf, fp.b) != at)
            return verr_set(err, EPROTO, "a request came to partition %u, where it does not belong", at);
        int rc = owner_request(r, m->head.slot, m->partition, 0, key, err);
        if (rc < 0)
            return rc;
        w->in_digest[at] = proto_digest(w->in_digest[at], key, FPKEY_BYTES);
    }
    w->in_count[at] += m->count;
    return 0;
}

static int take_references(struct round *r, const struct proto_msg *m, uint32_t at, struct verr *err)
{
    struct wire *w = r->wire;
    for (uint32_t i = 0; i < m->count; i++) {
        const uint8_t *item = proto_reference_key(m, i);
        struct fp fp = {{0}};
        memcpy(fp.b, item, FPKEY_BYTES);
        if (storeconf_partition(r->conf, fp.b) != at)
            return verr_set(err, EPROTO, "a reference came to partition %u, where it does not belong", at);
        int rc = owner_reference(r, m->head.slot, item, proto_reference_ref(m, i), err);
        if (rc < 0)
            return rc;
        w->in_digest[at] = proto_digest(w->in_digest[at], item, ITEM_BYTES);
    }
    w->in_count[at] += m->count;
    return 0;
}

/* Reads the keys of the "new" answers number first..first+n-1 of a partition. */
static int new_keys(const struct owner_slot *os, int fd, uint32_t part, uint64_t first, uint32_t n, uint8_t *keys, struct verr *err)
{
    const uint8_t *memory = seqout_memory(&os->fresh);
    if (memory != NULL) {
        memcpy(keys, memory + (os->fresh_of[part].base + first) * FPKEY_BYTES, (size_t)n * FPKEY_BYTES);
        return 0;
    }
    ssize_t got = pread_full(fd, keys, (size_t)n * FPKEY_BYTES, (off_t)((os->fresh_of[part].base + first) * FPKEY_BYTES));
    if (got == (ssize_t)((size_t)n * FPKEY_BYTES))
        return 0;
    return verr_set(err, got < 0 ? (int)-got : EIO, "the keys of new blocks in the round's directory: %s",
                    got < 0 ? strerror((int)-got) : "shorter than they were written");
}

static int take_numbered(struct round *r, const struct proto_msg *m, uint32_t at, int fd, struct verr *err)
{
    struct wire *w = r->wire;
    uint8_t keys[KEYS_AT_ONCE * FPKEY_BYTES], item[8];
    for (uint32_t i = 0; i < m->count; i++) {
        uint32_t k = i % KEYS_AT_ONCE, left = m->count - i;
        int rc = k > 0 ? 0 : new_keys(&r->slots[m->head.slot], fd, m->partition, m->first + i, left < KEYS_AT_ONCE ? left : KEYS_AT_ONCE, keys, err);
        uint64_t ref = proto_ref(m, i);
        if (rc == 0 && ref_is_block(ref))
            rc = owner_reference(r, m->head.slot, keys + (size_t)k * FPKEY_BYTES, ref, err);
        if (rc < 0)
            return rc;
        put_le64(item, ref);
        w->in_digest[at] = proto_digest(w->in_digest[at], item, sizeof item);
    }
    w->in_count[at] += m->count;
    w->fresh[at].in_next = m->first + m->count;
    return 0;
}

static int take_new_references(struct round *r, const struct proto_msg *m, uint32_t at, struct verr *err)
{
    const struct seqout *fresh = &r->slots[m->head.slot].fresh;
    uint64_t count = r->slots[m->head.slot].fresh_of[m->partition].count;
    if (m->first < r->wire->fresh[at].in_next)
        return verr_set(err, EPROTO, "references of partition %u do not follow each other", at);
    if (m->first > count || m->count > count - m->first)
        return verr_set(err, EPROTO, "references of partition %u name more new blocks than there are", at);
    if (seqout_memory(fresh) != NULL)
        return take_numbered(r, m, at, -1, err);
    int fd = openat(r->dirfd, fresh->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return verr_set(err, errno == ENOENT ? EPROTO : errno, "references of new blocks of partition %u: %s: %s", at, fresh->name,
                        strerror(errno));
    int rc = take_numbered(r, m, at, fd, err);
    close(fd);
    return rc;
}

/* ---- holder ---- */

/* Reads the sent keys first..first+*n-1. Lowers *n when only the first of them are in memory and the others in the file. *fd: the
 * file, which is opened when it is first needed. */
static int sent_keys(struct round *r, uint32_t part, uint64_t first, uint32_t *n, int *fd, uint8_t *keys, struct verr *err)
{
    const struct wire *w = r->wire;
    char name[32];
    if (first < w->kept_width) {
        *n = w->kept_width - first < *n ? w->kept_width - (uint32_t)first : *n;
        memcpy(keys, w->kept + ((size_t)part * w->kept_width + first) * FPKEY_BYTES, (size_t)*n * FPKEY_BYTES);
        return 0;
    }
    sent_name(name, part);
    if (*fd < 0)
        *fd = openat(r->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0)
        return verr_set(err, errno, "cannot open %s in the round's directory: %s", name, strerror(errno));
    ssize_t got = pread_full(*fd, keys, (size_t)*n * FPKEY_BYTES, (off_t)(first * FPKEY_BYTES));
    if (got == (ssize_t)((size_t)*n * FPKEY_BYTES))
        return 0;
    return verr_set(err, got < 0 ? (int)-got : EPROTO, "%s in the round's directory cannot be read, or is shorter than its answer", name);
}

/* The digest of the keys that were sent at these positions. */
static int sent_digest(struct round *r, uint32_t part, uint64_t first, uint32_t n, uint64_t *out, struct verr *err)
{
    uint8_t keys[KEYS_AT_ONCE * FPKEY_BYTES];
    uint64_t digest = 0;
    int fd = -1, rc = 0;
    while (n > 0) {
        uint32_t k = n < KEYS_AT_ONCE ? n : KEYS_AT_ONCE;
        rc = sent_keys(r, part, first, &k, &fd, keys, err);
        if (rc < 0)
            break;
        for (uint32_t i = 0; i < k; i++)
            digest = proto_digest(digest, keys + (size_t)i * FPKEY_BYTES, FPKEY_BYTES);
        first += k;
        n -= k;
    }
    if (fd >= 0)
        close(fd);
    *out = digest;
    return rc;
}

static int take_summary(struct round *r, const struct proto_msg *m, uint32_t at, struct verr *err)
{
    struct wire *w = r->wire;
    uint64_t digest, refs[KEYS_AT_ONCE], pos = m->first;
    if (m->first != w->in_count[at] || m->count > w->sent[at] - m->first)
        return verr_set(err, EPROTO, "answers of partition %u do not follow each other", at);
    int rc = sent_digest(r, at, m->first, m->count, &digest, err);
    if (rc == 0 && digest != m->digest)
        rc = verr_set(err, EPROTO, "a summary of partition %u answers other requests than were sent", at);
    struct proto_answers it;
    enum proto_answer answer;
    uint64_t ref;
    uint32_t n = 0;
    proto_answers_begin(&it, m);
    while (rc == 0 && proto_answers_next(&it, &answer, &ref)) {
        refs[n++] = answer == PROTO_DUP_WITH_NEW ? ANSWER_WAIT : answer == PROTO_DUPLICATE && ref_is_block(ref) ? ref : ANSWER_NEW;
        if (n == KEYS_AT_ONCE) {
            rc = answers_put(&r->answers, at, pos, refs, n, err);
            pos += n;
            n = 0;
        }
    }
    if (rc == 0 && n > 0)
        rc = answers_put(&r->answers, at, pos, refs, n, err);
    if (rc == 0)
        w->in_count[at] += m->count;
    return rc;
}

static int take_resolutions(struct round *r, const struct proto_msg *m, uint32_t at, struct verr *err)
{
    struct wire *w = r->wire;
    if (m->first != w->in_count[at])
        return verr_set(err, EPROTO, "resolutions of partition %u do not follow each other", at);
    for (uint32_t i = 0; i < m->count; i++) {
        int rc = answers_resolve(&r->answers, at, proto_ref(m, i), err);
        if (rc < 0)
            return rc;
    }
    w->in_count[at] += m->count;
    return 0;
}

/* ---- any frame ---- */

static int take_end(struct round *r, const struct proto_msg *m, enum wire_topic topic, struct verr *err)
{
    struct wire *w = r->wire;
    if (m->count != r->q)
        return verr_set(err, EPROTO, "END names %u partitions, a slot has %u", m->count, r->q);
    for (uint32_t p = 0; p < r->q; p++) {
        uint32_t at = m->head.slot * r->q + p;
        bool keyed = topic == WT_REQUESTS || topic == WT_REFERENCES;
        if (proto_end_items(m, p) != w->in_count[at] || (keyed && proto_end_digest(m, p) != w->in_digest[at]))
            return verr_set(err, EPROTO, "END of slot %u does not agree with what came before it", m->head.slot);
    }
    w->slot[m->head.slot].ended[topic] = true;
    return 0;
}

static int take_message(struct round *r, const struct proto_msg *m, enum wire_topic topic, struct verr *err)
{
    if (m->head.type == PROTO_REQUESTS_END || m->head.type == PROTO_SUMMARY_END || m->head.type == PROTO_REFERENCES_END ||
        m->head.type == PROTO_RESOLUTIONS_END)
        return take_end(r, m, topic, err);
    if (m->partition >= r->q)
        return verr_set(err, EPROTO, "slot %u has no partition %u", m->head.slot, m->partition);
    uint32_t at = m->head.slot * r->q + m->partition;
    switch (m->head.type) {
    case PROTO_REQUESTS: return take_requests(r, m, at, err);
    case PROTO_SUMMARY: return take_summary(r, m, at, err);
    case PROTO_REFERENCES: return take_references(r, m, at, err);
    case PROTO_NEW_REFERENCES: return take_new_references(r, m, at, err);
    case PROTO_RESOLUTIONS: return take_resolutions(r, m, at, err);
    default: return verr_set(err, EPROTO, "a message of type %u is not expected here", m->head.type);
    }
}

static bool type_fits(uint32_t type, enum wire_topic topic)
{
    switch (topic) {
    case WT_REQUESTS: return type == PROTO_REQUESTS || type == PROTO_REQUESTS_END;
    case WT_SUMMARIES: return type == PROTO_SUMMARY || type == PROTO_SUMMARY_END;
    case WT_REFERENCES: return type == PROTO_REFERENCES || type == PROTO_NEW_REFERENCES || type == PROTO_REFERENCES_END;
    default: return type == PROTO_RESOLUTIONS || type == PROTO_RESOLUTIONS_END;
    }
}

static int take_frame(struct round *r, enum wire_topic topic, size_t len, struct verr *err)
{
    struct wire *w = r->wire;
    struct proto_msg m;
    struct verr why = {0};
    const char *text = "";
    if (proto_decode(w->in, len, &m, &text) < 0) {
        verr_set(&why, EPROTO, "a message is ignored: %s", text);
        round_note(r, "bus", &why);
        return 0;
    }
    /* this host is the only participant of its own bus */
    if (!vid_eq(&m.head.host, &w->head.host) || m.head.slot >= r->nslots || !type_fits(m.head.type, topic))
        return 0;
    int order = proto_in_check(w->order, &m.head);
    if (order == -ENOMEM)
        return verr_set(err, ENOMEM, "no memory for the order of messages");
    if (order == PROTO_AGAIN || order == PROTO_FOREIGN || r->slots[m.head.slot].dead)
        return 0;
    int rc = order == PROTO_GAP ? verr_set(&why, EPROTO, "messages of slot %u are missing", m.head.slot) : take_message(r, &m, topic, &why);
    if (rc < 0)
        slot_give_up(r, m.head.slot, "bus", &why);
    return 0;
}

static int drain_queue(struct round *r, enum wire_topic topic, enum bus_topic on, uint32_t partition, struct verr *err)
{
    int frames = 0, len;
    struct verr why = {0};
    while ((len = bus_receive(r->env->bus, on, partition, r->wire->in, &why)) > 0) {
        int rc = take_frame(r, topic, (size_t)len, err);
        if (rc < 0)
            return rc;
        frames++;
    }
    if (len < 0)
        round_note(r, "bus", &why);
    return frames;
}

int wire_drain(struct round *r, struct verr *err)
{
    int frames = 0, rc = 0;
    for (uint32_t s = 0; s < r->nslots && rc >= 0; s++) {
        rc = drain_queue(r, WT_REQUESTS, BUS_REQUESTS, s, err);
        frames += rc;
        if (rc >= 0) {
            rc = drain_queue(r, WT_REFERENCES, BUS_REFERENCES, s, err);
            frames += rc;
        }
    }
    if (rc >= 0) {
        rc = drain_queue(r, WT_SUMMARIES, BUS_SUMMARIES, 0, err);
        frames += rc;
    }
    if (rc >= 0) {
        rc = drain_queue(r, WT_RESOLUTIONS, BUS_RESOLUTIONS, 0, err);
        frames += rc;
    }
    return rc < 0 ? rc : frames;
}

/* ---- until END ---- */

static bool all_ended(const struct round *r, enum wire_topic topic)
{
    for (uint32_t s = 0; s < r->nslots; s++)
        if (!r->slots[s].dead && !r->wire->slot[s].ended[topic])
            return false;
    return true;
}

/* Takes in frames until the stream is complete. A stream in which nothing arrives for some seconds is given up. */
static int complete(struct round *r, enum wire_topic topic, enum bus_topic on, bool by_slot, struct verr *err)
{
    struct wire *w = r->wire;
    const struct timespec tick = {0, 1000 * 1000};
    struct verr why = {0};
    for (unsigned tries = 0; !all_ended(r, topic) && tries < END_TRIES; tries++) {
        int rc = wire_drain(r, err);
        if (rc < 0)
            return rc;
        if (rc > 0)
            tries = 0;
        else
            nanosleep(&tick, NULL);
    }
    for (uint32_t s = 0; s < r->nslots; s++) {
        if (r->slots[s].dead || w->slot[s].ended[topic])
            continue;
        verr_set(&why, ETIMEDOUT, "the end of the messages of slot %u did not come", s);
        slot_give_up(r, s, "bus", &why);
    }
    for (uint32_t s = 0; s < (by_slot ? r->nslots : 1); s++)
        if (bus_commit(r->env->bus, on, s, &why) < 0)
            round_note(r, "bus", &why);
    wire_reset(w->in_count, w->in_digest, w->parts);
    return 0;
}

int requests_complete(struct round *r, struct verr *err) { return complete(r, WT_REQUESTS, BUS_REQUESTS, true, err); }
int summaries_complete(struct round *r, struct verr *err) { return complete(r, WT_SUMMARIES, BUS_SUMMARIES, false, err); }
int references_complete(struct round *r, struct verr *err) { return complete(r, WT_REFERENCES, BUS_REFERENCES, true, err); }
int resolutions_complete(struct round *r, struct verr *err) { return complete(r, WT_RESOLUTIONS, BUS_RESOLUTIONS, false, err); }
