/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto: messages of a round, docs/PROTOCOL.md: bytes <-> structs, pure (no I/O; builders and decoders take no memory).
 *
 * A frame is a head of PROTO_HEAD_BYTES and a payload; all of it is under the head's checksum, little-endian.
 * Sending: X_begin on a buffer of the caller, X_add until it answers false (full; nothing was added), X_finish, send.
 * Receiving: proto_decode checks everything and gives pointers into the frame; proto_in_check orders the frames.
 *
 * Requests of one (slot, partition, sender) are a stream, and position i is the i-th of it, from 0. Summaries and
 * resolutions answer positions. partition is always the number within the slot.
 */
#ifndef VARVE_PROTO_PROTO_H
#define VARVE_PROTO_PROTO_H

#include "base/endian.h"
#include "base/id.h"
#include "format/ref.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTO_FRAME_MAX = 128 * 1024,       /* = BUS_FRAME_MAX */
    PROTO_VERSION = 1,
    PROTO_HEAD_BYTES = 88,
    PROTO_KEY_BYTES = 24,               /* = FPKEY_BYTES */
    PROTO_PARTITIONS_MAX = 4096,        /* of a slot */
    PROTO_SUMMARY_ANSWERS_MAX = 65536,  /* in one frame */
};

enum proto_type {                       /* topic                          who -> whom */
    PROTO_REQUESTS = 1,                 /* requests, by slot              holder -> slot owner, stage 1a */
    PROTO_REQUESTS_END = 2,
    PROTO_SUMMARY = 3,                  /* summaries, by host             slot owner -> holder, stage 1b */
    PROTO_SUMMARY_END = 4,
    PROTO_REFERENCES = 5,               /* references, by slot            holder -> slot owner, stage 3a: with their keys */
    PROTO_NEW_REFERENCES = 6,           /* the same, of "new" answers by their number: 8 bytes a block instead of 32 */
    PROTO_REFERENCES_END = 7,
    PROTO_RESOLUTIONS = 8,              /* resolutions, by host           slot owner -> holder, stage 4a */
    PROTO_RESOLUTIONS_END = 9,
};

enum proto_answer { PROTO_NEW = 0, PROTO_DUPLICATE = 1, PROTO_DUP_WITH_NEW = 2 };

/* What all messages of one sender in one round share, and their place in its stream. */
struct proto_head {
    struct vid cluster;                 /* store id */
    struct vid host;                    /* sender */
    uint64_t round, incarnation;        /* incarnation: of the sender, another one after each start */
    uint64_t sequence;                  /* 0, 1, ... per (sender, slot, topic, receiver) */
    uint32_t attempt, slot;
    uint32_t type;                      /* enum proto_type; set by X_finish */
    uint32_t payload_bytes;             /* set by X_finish */
};

/* ---- digests: over the items of a stream in order, from 0; how they are cut into frames does not matter ---- */

uint64_t proto_digest(uint64_t digest, const void *item, size_t len);

/* ---- building: one frame at a time per builder ---- */

struct proto_build {
    uint8_t *frame;                     /* PROTO_FRAME_MAX bytes, the caller's */
    size_t used;
    uint32_t count;                     /* items added */
    uint32_t duplicates;                /* SUMMARY */
    uint64_t digest;                    /* SUMMARY: of the keys answered */
};

void proto_requests_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first);
bool proto_requests_add(struct proto_build *b, const uint8_t key[PROTO_KEY_BYTES]);
size_t proto_requests_finish(struct proto_build *b, const struct proto_head *head);

/* key: what the request asked for; it goes into the digest only. ref: for PROTO_DUPLICATE. */
void proto_summary_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first);
bool proto_summary_add(struct proto_build *b, const uint8_t key[PROTO_KEY_BYTES], enum proto_answer answer, uint64_t ref);
size_t proto_summary_finish(struct proto_build *b, const struct proto_head *head);

void proto_references_begin(struct proto_build *b, uint8_t *frame, uint32_t partition);
bool proto_references_add(struct proto_build *b, const uint8_t key[PROTO_KEY_BYTES], uint64_t ref);
size_t proto_references_finish(struct proto_build *b, const struct proto_head *head);

/* first: number of the first reference among the PROTO_NEW answers of the stream. REF_NONE: was not written. */
void proto_new_references_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first);
bool proto_new_references_add(struct proto_build *b, uint64_t ref);
size_t proto_new_references_finish(struct proto_build *b, const struct proto_head *head);

/* first: number of the first one among the PROTO_DUP_WITH_NEW answers of the stream. REF_NONE: unresolved. */
void proto_resolutions_begin(struct proto_build *b, uint8_t *frame, uint32_t partition, uint64_t first);
bool proto_resolutions_add(struct proto_build *b, uint64_t ref);
size_t proto_resolutions_finish(struct proto_build *b, const struct proto_head *head);

/* END of a stream of messages: type is PROTO_..._END. Exactly the slot's q partitions are added, 0 first: items sent for
 * each (requests, answers, references, resolutions) and their digest (of keys; of keys answered; of the items' bytes). */
void proto_end_begin(struct proto_build *b, uint8_t *frame);
bool proto_end_add(struct proto_build *b, uint64_t items, uint64_t digest);
size_t proto_end_finish(struct proto_build *b, const struct proto_head *head, enum proto_type type);

/* ---- decoding ---- */

struct proto_msg {
    struct proto_head head;
    uint32_t partition;                 /* all but END */
    uint32_t count;                     /* items; END: partitions */
    uint64_t first;                     /* position of the first item; 0 in REFERENCES and END */
    uint64_t digest;                    /* SUMMARY: of the keys it answers */
    uint32_t duplicates;                /* SUMMARY */
    const uint8_t *items;               /* into the frame: keys, entries, references, END pairs; SUMMARY: its references */
    const uint8_t *bits;                /* SUMMARY: 2 bits an answer */
};

/* Checks head, checksum and every count. 0; -EPROTO: damaged or not ours; -ENOTSUP: intact, of another version or a type
 * that this version does not know (skip and count it). why (may be NULL): a constant text. Keep the frame while msg is used. */
int proto_decode(const uint8_t *frame, size_t len, struct proto_msg *out, const char **why);

/* i below m->count; in an END: below the number of partitions. */
static inline const uint8_t *proto_request_key(const struct proto_msg *m, uint32_t i)
{
    return m->items + (size_t)i * PROTO_KEY_BYTES;
}
static inline const uint8_t *proto_reference_key(const struct proto_msg *m, uint32_t i)
{
    return m->items + (size_t)i * (PROTO_KEY_BYTES + 8);
}
static inline uint64_t proto_reference_ref(const struct proto_msg *m, uint32_t i)
{
    return get_le64(proto_reference_key(m, i) + PROTO_KEY_BYTES);
}
/* NEW_REFERENCES and RESOLUTIONS. */
static inline uint64_t proto_ref(const struct proto_msg *m, uint32_t i) { return get_le64(m->items + (size_t)i * 8); }
static inline uint64_t proto_end_items(const struct proto_msg *m, uint32_t i) { return get_le64(m->items + (size_t)i * 16); }
static inline uint64_t proto_end_digest(const struct proto_msg *m, uint32_t i) { return get_le64(m->items + (size_t)i * 16 + 8); }

/* Answers of a SUMMARY in order of position. */
struct proto_answers { const struct proto_msg *m; uint32_t at, refs; };
static inline void proto_answers_begin(struct proto_answers *it, const struct proto_msg *m) { *it = (struct proto_answers){m, 0, 0}; }
/* True with *answer, and *ref for a duplicate (else REF_NONE); false at the end. */
bool proto_answers_next(struct proto_answers *it, enum proto_answer *answer, uint64_t *ref);

/* ---- order of arrival ---- */

enum proto_order {
    PROTO_ACCEPT,       /* the expected one: use it */
    PROTO_AGAIN,        /* seen before: ignore */
    PROTO_GAP,          /* one before it is missing: this stream is broken, what it does not answer is new */
    PROTO_FOREIGN,      /* another cluster, round, attempt or incarnation: ignore */
};

/* The streams that reach one receiver in one attempt of a round. One thread at a time. */
struct proto_in;
struct proto_in *proto_in_new(const struct vid *cluster, uint64_t round, uint32_t attempt);     /* NULL: no memory */
void proto_in_free(struct proto_in *in);
/* PROTO_ACCEPT moves the stream on. A sender's first frame binds its incarnation. -ENOMEM. */
int proto_in_check(struct proto_in *in, const struct proto_head *head);

#endif
