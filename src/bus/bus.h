/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus: carries opaque frames between hosts: (topic, partition, bytes). Knows nothing of `proto`.
 * The in-process bus (bus_local) is the default of one host; Kafka comes as another implementation of the same table.
 * Contract: at least once, in order per (sender, topic, partition); a frame may come twice or (Kafka) never.
 * The bus never blocks a sender: send answers -EAGAIN, and the caller drains its inputs first.
 */
#ifndef VARVE_BUS_BUS_H
#define VARVE_BUS_BUS_H

#include <stddef.h>
#include <stdint.h>

struct verr;

enum bus_topic { BUS_CONTROL, BUS_REQUESTS, BUS_SUMMARIES, BUS_REFERENCES, BUS_RESOLUTIONS, BUS_EVENTS, BUS_TOPICS };
enum { BUS_FRAME_MAX = 128 * 1024 };

struct bus {
    const struct bus_ops *ops;
};

struct bus_ops {
    /* Copies the frame (1..BUS_FRAME_MAX bytes). 0; -EAGAIN: queue full, receive first; -EMSGSIZE. */
    int (*send)(struct bus *b, enum bus_topic topic, uint32_t partition, const void *frame, size_t len, struct verr *err);
    /* Next frame of a topic and partition into buf (BUS_FRAME_MAX bytes): its length, 0 when none is waiting, or -errno. */
    int (*receive)(struct bus *b, enum bus_topic topic, uint32_t partition, void *buf, struct verr *err);
    /* Says that the effects of all frames received so far are on disk. */
    int (*commit)(struct bus *b, enum bus_topic topic, uint32_t partition, struct verr *err);
    void (*close)(struct bus *b);
};

static inline int bus_send(struct bus *b, enum bus_topic t, uint32_t part, const void *f, size_t n, struct verr *err)
{
    return b->ops->send(b, t, part, f, n, err);
}

static inline int bus_receive(struct bus *b, enum bus_topic t, uint32_t part, void *buf, struct verr *err)
{
    return b->ops->receive(b, t, part, buf, err);
}

static inline int bus_commit(struct bus *b, enum bus_topic t, uint32_t part, struct verr *err)
{
    return b->ops->commit(b, t, part, err);
}

static inline void bus_close(struct bus *b)
{
    if (b != NULL)
        b->ops->close(b);
}

/* In-process bus. max_bytes bounds all queued frames together. Thread-safe. */
struct bus *bus_local_new(size_t max_bytes, struct verr *err);
/* The same for tests: seeded duplication (a frame is delivered twice) and early -EAGAIN. */
struct bus *bus_local_new_rough(size_t max_bytes, uint64_t seed, struct verr *err);

#endif
