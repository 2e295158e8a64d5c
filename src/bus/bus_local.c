/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bus_local: frames between the stages of one process: a queue per (topic, partition), one bound over all of them.
 *
 * The rough variant does to its users what a real broker does on a bad day, within the contract: it asks to try again
 * although there is room, and it delivers a frame once more, up to three frames later.
 */
#include "bus/bus.h"

#include "base/verr.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 256, ROUGH_ONE_IN = 8, ROUGH_LATER = 4 };

struct frame {
    struct frame *next;
    size_t len;
    bool again;                 /* second delivery of a frame */
    uint8_t data[];
};

struct queue {
    struct queue *next;         /* in its bucket */
    uint32_t topic, partition;
    struct frame *head, **tail;
};

struct bus_local {
    struct bus bus;             /* first, so that a struct bus * is one of these */
    size_t max_bytes;
    bool rough;
    pthread_mutex_t lock;       /* guards all below. bytes = sum of cost() over all queued frames */
    size_t bytes;
    uint64_t seed;
    struct queue *buckets[BUCKETS];     /* queues live as long as the bus */
};

/* Bytes that a queued frame counts for, its header included: many small frames are bounded too. */
static size_t cost(size_t len)
{
    return sizeof(struct frame) + len;
}

static uint64_t rough_random(struct bus_local *b)
{
    uint64_t z = (b->seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static struct queue **queue_place(struct bus_local *b, uint32_t topic, uint32_t partition)
{
    struct queue **q = &b->buckets[(partition * BUS_TOPICS + topic) % BUCKETS];
    while (*q != NULL && ((*q)->topic != topic || (*q)->partition != partition))
        q = &(*q)->next;
    return q;
}

static struct queue *queue_make(struct bus_local *b, uint32_t topic, uint32_t partition)
{
    struct queue **place = queue_place(b, topic, partition);
    if (*place == NULL && (*place = calloc(1, sizeof **place)) != NULL) {
        (*place)->topic = topic;
        (*place)->partition = partition;
        (*place)->tail = &(*place)->head;
    }
    return *place;
}

static int enqueue(struct bus_local *b, enum bus_topic topic, uint32_t partition, struct frame *f)
{
    if (b->rough && rough_random(b) % ROUGH_ONE_IN == 0)
        return -EAGAIN;
    /* A frame always finds room in an empty bus, so that "receive first" is never a lie. */
    if (b->bytes > 0 && (b->bytes >= b->max_bytes || cost(f->len) > b->max_bytes - b->bytes))
        return -EAGAIN;
    struct queue *q = queue_make(b, topic, partition);
    if (q == NULL)
        return -ENOMEM;
    *q->tail = f;
    q->tail = &f->next;
    b->bytes += cost(f->len);
    return 0;
}

static int local_send(struct bus *bus, enum bus_topic topic, uint32_t partition, const void *data, size_t len, struct verr *err)
{
    struct bus_local *b = (struct bus_local *)bus;
    if ((unsigned)topic >= BUS_TOPICS || len == 0)
        return verr_set(err, EINVAL, "bus: no such topic, or an empty frame");
    if (len > BUS_FRAME_MAX)
        return verr_set(err, EMSGSIZE, "bus: a frame of %zu bytes is above %d", len, BUS_FRAME_MAX);
    struct frame *f = malloc(sizeof *f + len);
    if (f == NULL)
        return verr_set(err, ENOMEM, "bus: no memory for a frame");
    *f = (struct frame){.len = len};
    memcpy(f->data, data, len);
    pthread_mutex_lock(&b->lock);
    int r = enqueue(b, topic, partition, f);
    pthread_mutex_unlock(&b->lock);
    if (r == 0)
        return 0;
    free(f);
    return verr_set(err, -r, r == -EAGAIN ? "bus: full, receive first" : "bus: no memory for a queue");
}

/* Puts a delivered frame back, a few places on, to come once more. */
static void put_back(struct bus_local *b, struct queue *q, struct frame *f)
{
    struct frame **at = &q->head;
    for (uint64_t places = rough_random(b) % ROUGH_LATER; places > 0 && *at != NULL; places--)
        at = &(*at)->next;
    f->again = true;
    f->next = *at;
    if (*at == NULL)
        q->tail = &f->next;
    *at = f;
    b->bytes += cost(f->len);
}

static int local_receive(struct bus *bus, enum bus_topic topic, uint32_t partition, void *buf, struct verr *err)
{
    struct bus_local *b = (struct bus_local *)bus;
    if ((unsigned)topic >= BUS_TOPICS)
        return verr_set(err, EINVAL, "bus: no such topic");
    int len = 0;
    pthread_mutex_lock(&b->lock);
    struct queue *q = *queue_place(b, topic, partition);
    struct frame *f = q == NULL ? NULL : q->head;
    if (f != NULL) {
        q->head = f->next;
        if (q->head == NULL)
            q->tail = &q->head;
        b->bytes -= cost(f->len);
        len = (int)f->len;
        memcpy(buf, f->data, f->len);
        if (b->rough && !f->again && rough_random(b) % ROUGH_ONE_IN == 0) {
            put_back(b, q, f);
            f = NULL;
        }
    }
    pthread_mutex_unlock(&b->lock);
    free(f);
    return len;
}

/* Nothing outlives the process, so there is nothing to note. */
static int local_commit(struct bus *bus, enum bus_topic topic, uint32_t partition, struct verr *err)
{
    (void)bus;
    (void)partition;
    return (unsigned)topic < BUS_TOPICS ? 0 : verr_set(err, EINVAL, "bus: no such topic");
}

static void local_close(struct bus *bus)
{
    struct bus_local *b = (struct bus_local *)bus;
    for (size_t i = 0; i < BUCKETS; i++) {
        while (b->buckets[i] != NULL) {
            struct queue *q = b->buckets[i];
            b->buckets[i] = q->next;
            while (q->head != NULL) {
                struct frame *f = q->head;
                q->head = f->next;
                free(f);
            }
            free(q);
        }
    }
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static const struct bus_ops local_ops = {
    .send = local_send, .receive = local_receive, .commit = local_commit, .close = local_close,
};

struct bus *bus_local_new(size_t max_bytes, struct verr *err)
{
    struct bus_local *b = calloc(1, sizeof *b);
    if (b == NULL || pthread_mutex_init(&b->lock, NULL) != 0) {
        free(b);
        verr_set(err, ENOMEM, "bus: no memory");
        return NULL;
    }
    b->bus.ops = &local_ops;
    b->max_bytes = max_bytes;
    return &b->bus;
}

struct bus *bus_local_new_rough(size_t max_bytes, uint64_t seed, struct verr *err)
{
    struct bus *bus = bus_local_new(max_bytes, err);
    if (bus != NULL) {
        ((struct bus_local *)bus)->rough = true;
        ((struct bus_local *)bus)->seed = seed;
    }
    return bus;
}
