/* SPDX-License-Identifier: Apache-2.0 */
/* wire_internal: shared by wire.c (sending) and wire_in.c (receiving). */
#ifndef VARVE_DEDUP_WIRE_INTERNAL_H
#define VARVE_DEDUP_WIRE_INTERNAL_H

#include "dedup/dedup_internal.h"

/* Item of a bundle: key, and in stage 3a a reference. */
enum { ITEM_BYTES = FPKEY_BYTES + 8, WIRE_TOPICS = 4 };
enum wire_topic { WT_REQUESTS, WT_SUMMARIES, WT_REFERENCES, WT_RESOLUTIONS };

struct wire_slot {
    uint64_t sequence[WIRE_TOPICS];     /* of the next frame to send */
    bool ended[WIRE_TOPICS];            /* END has been received */
};

/* References of blocks that were asked go by number among the "new" answers of their stream (docs/PROTOCOL.md, NEW_REFERENCES). */
struct wire_new {
    uint64_t pos, count;                /* holder: of the answers before pos, count are "new" */
    uint64_t first;                     /* number of the first reference in the bundle */
    uint64_t in_next;                   /* owner: smallest number that may come */
    bool numbered;                      /* the bundle's form */
};

struct wire {
    struct proto_head head;
    struct proto_in *order;
    uint8_t *out, *in;                  /* one frame each way */
    struct proto_build build;           /* summary or resolutions under way, in `out` */
    bool building;
    uint32_t build_slot, build_part;

    uint32_t parts, width;              /* all partitions owned here; items in a bundle */
    uint8_t *items;
    uint32_t *fill;
    uint64_t *sent;                     /* requests sent (and in the bundle), per partition */
    uint32_t kept_width;                /* how many keys from the beginning of a partition's sent log are in memory */
    uint8_t *kept;                      /* these keys; the later ones are in the partition's file */
    uint64_t *count, *digest;           /* of the stream that goes out now, per partition */
    uint64_t *in_count, *in_digest;     /* of the stream that comes in now */
    struct wire_new *fresh;             /* per partition */
    struct wire_slot *slot;
    uint64_t bytes;                     /* of frames sent */
};

/* Takes in all frames that wait for this host. Their number, or -errno: an error of the round. */
int wire_drain(struct round *r, struct verr *err);
void sent_name(char out[32], uint32_t part);
/* Called between two streams. */
static inline void wire_reset(uint64_t *count, uint64_t *digest, uint32_t parts)
{
    memset(count, 0, parts * sizeof *count);
    memset(digest, 0, parts * sizeof *digest);
}

#endif
