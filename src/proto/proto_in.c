/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of arrival. The bus delivers at least once and in order per sender, so one number per stream tells a frame that
 * came twice from one that is missing. A sender that restarts within an attempt is foreign from then on: the frames of its
 * new incarnation do not continue the stream of the old one.
 */
#include "proto/proto_internal.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>

struct stream {
    struct vid host;
    uint32_t slot, topic;           /* topic 0: the place is free; TOPIC_SENDER: next is the sender's incarnation */
    uint64_t next;
};

enum { TOPIC_REQUESTS = 1, TOPIC_SUMMARIES, TOPIC_REFERENCES, TOPIC_RESOLUTIONS, TOPIC_SENDER };

struct proto_in {
    struct vid cluster;
    uint64_t round;
    uint32_t attempt;
    struct stream *table;           /* open addressing, at most half full */
    size_t cap, used;
};

static uint32_t topic_of(uint32_t type)
{
    switch (type) {
    case PROTO_REQUESTS:
    case PROTO_REQUESTS_END:
        return TOPIC_REQUESTS;
    case PROTO_SUMMARY:
    case PROTO_SUMMARY_END:
        return TOPIC_SUMMARIES;
    case PROTO_RESOLUTIONS:
    case PROTO_RESOLUTIONS_END:
        return TOPIC_RESOLUTIONS;
    default:
        return TOPIC_REFERENCES;
    }
}

struct proto_in *proto_in_new(const struct vid *cluster, uint64_t round, uint32_t attempt)
{
    struct proto_in *in = calloc(1, sizeof *in);
    if (in == NULL)
        return NULL;
    in->cap = 16;
    in->table = calloc(in->cap, sizeof *in->table);
    if (in->table == NULL) {
        free(in);
        return NULL;
    }
    in->cluster = *cluster;
    in->round = round;
    in->attempt = attempt;
    return in;
}

void proto_in_free(struct proto_in *in)
{
    if (in == NULL)
        return;
    free(in->table);
    free(in);
}

/* Returns the stream's entry, or the free entry where it belongs. */
static struct stream *place(struct stream *table, size_t cap, const struct vid *host, uint32_t slot, uint32_t topic)
{
    size_t at = hash64_seed(host->b, VID_BYTES, (uint64_t)topic << 32 | slot) & (cap - 1);
    while (table[at].topic != 0 && (table[at].topic != topic || table[at].slot != slot || !vid_eq(&table[at].host, host)))
        at = (at + 1) & (cap - 1);
    return &table[at];
}

static int grow(struct proto_in *in)
{
    size_t cap = in->cap * 2;
    struct stream *more = calloc(cap, sizeof *more);
    if (more == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < in->cap; i++)
        if (in->table[i].topic != 0)
            *place(more, cap, &in->table[i].host, in->table[i].slot, in->table[i].topic) = in->table[i];
    free(in->table);
    in->table = more;
    in->cap = cap;
    return 0;
}

/* Returns the stream; a new one expects sequence `next`. NULL: no memory. */
static struct stream *find(struct proto_in *in, const struct vid *host, uint32_t slot, uint32_t topic, uint64_t next)
{
    struct stream *s = place(in->table, in->cap, host, slot, topic);
    if (s->topic != 0)
        return s;
    if ((in->used + 1) * 2 > in->cap) {
        if (grow(in) < 0)
            return NULL;
        s = place(in->table, in->cap, host, slot, topic);
    }
    *s = (struct stream){*host, slot, topic, next};
    in->used++;
    return s;
}

int proto_in_check(struct proto_in *in, const struct proto_head *head)
{
    if (!vid_eq(&head->cluster, &in->cluster) || head->round != in->round || head->attempt != in->attempt)
        return PROTO_FOREIGN;
    const struct stream *sender = find(in, &head->host, 0, TOPIC_SENDER, head->incarnation);
    if (sender == NULL)
        return -ENOMEM;
    if (sender->next != head->incarnation)
        return PROTO_FOREIGN;
    struct stream *s = find(in, &head->host, head->slot, topic_of(head->type), 0);
    if (s == NULL)
        return -ENOMEM;
    if (head->sequence != s->next)
        return head->sequence < s->next ? PROTO_AGAIN : PROTO_GAP;
    s->next++;
    return PROTO_ACCEPT;
}
