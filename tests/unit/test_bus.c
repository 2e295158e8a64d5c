/* SPDX-License-Identifier: Apache-2.0 */
/* The in-process bus: order, bound, independence of queues, threads, and what the rough variant may do. */
#include "bus/bus.h"

#include "base/verr.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <setjmp.h>
#include <cmocka.h>

static uint8_t big[BUS_FRAME_MAX + 1], in[BUS_FRAME_MAX];

static void frames_arrive_whole_and_in_order(void **state)
{
    (void)state;
    struct bus *b = bus_local_new(1 << 20, NULL);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(bus_send(b, BUS_REQUESTS, 7, &i, sizeof i, NULL), 0);
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t got;
        assert_int_equal(bus_receive(b, BUS_REQUESTS, 7, in, NULL), sizeof got);
        memcpy(&got, in, sizeof got);
        assert_int_equal(got, i);
    }
    assert_int_equal(bus_receive(b, BUS_REQUESTS, 7, in, NULL), 0);
    assert_int_equal(bus_commit(b, BUS_REQUESTS, 7, NULL), 0);
    bus_close(b);
}

static void queues_of_other_topics_and_partitions_are_apart(void **state)
{
    (void)state;
    struct bus *b = bus_local_new(1 << 20, NULL);
    for (uint32_t t = 0; t < BUS_TOPICS; t++)
        for (uint32_t p = 0; p < 1000; p += 37) {
            uint32_t v = t * 1000 + p;
            assert_int_equal(bus_send(b, (enum bus_topic)t, p, &v, sizeof v, NULL), 0);
        }
    assert_int_equal(bus_receive(b, BUS_REQUESTS, 1, in, NULL), 0);
    for (uint32_t p = 0; p < 1000; p += 37)
        for (uint32_t t = 0; t < BUS_TOPICS; t++) {
            uint32_t v;
            assert_int_equal(bus_receive(b, (enum bus_topic)t, p, in, NULL), sizeof v);
            memcpy(&v, in, sizeof v);
            assert_int_equal(v, t * 1000 + p);
            assert_int_equal(bus_receive(b, (enum bus_topic)t, p, in, NULL), 0);
        }
    bus_close(b);
}

static void a_full_bus_says_again_and_has_room_after_a_receive(void **state)
{
    (void)state;
    struct verr err = {0};
    struct bus *b = bus_local_new(4 * BUS_FRAME_MAX, NULL);
    unsigned sent = 0;
    while (bus_send(b, BUS_SUMMARIES, sent, big, BUS_FRAME_MAX, &err) == 0)
        sent++;
    assert_int_equal(err.code, EAGAIN);
    assert_in_range(sent, 3, 4);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, BUS_FRAME_MAX, NULL), -EAGAIN);    /* one bound for all queues */
    assert_int_equal(bus_receive(b, BUS_SUMMARIES, 0, in, NULL), BUS_FRAME_MAX);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, BUS_FRAME_MAX, NULL), 0);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, BUS_FRAME_MAX, NULL), -EAGAIN);
    bus_close(b);       /* with frames in it */
}

static void many_small_frames_are_bounded_too(void **state)
{
    (void)state;
    struct bus *b = bus_local_new(10000, NULL);
    unsigned sent = 0;
    while (bus_send(b, BUS_EVENTS, 0, "x", 1, NULL) == 0)
        sent++;
    assert_in_range(sent, 100, 1000);
    bus_close(b);
}

static void an_empty_bus_takes_any_frame(void **state)
{
    (void)state;
    struct bus *b = bus_local_new(10, NULL);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, BUS_FRAME_MAX, NULL), 0);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, 1, NULL), -EAGAIN);
    assert_int_equal(bus_receive(b, BUS_EVENTS, 0, in, NULL), BUS_FRAME_MAX);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, 1, NULL), 0);
    bus_close(b);
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    struct bus *b = bus_local_new(1 << 20, NULL);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, BUS_FRAME_MAX + 1, NULL), -EMSGSIZE);
    assert_int_equal(bus_send(b, BUS_EVENTS, 0, big, 0, NULL), -EINVAL);
    assert_int_equal(bus_send(b, BUS_TOPICS, 0, big, 1, NULL), -EINVAL);
    assert_int_equal(bus_receive(b, BUS_TOPICS, 0, in, NULL), -EINVAL);
    assert_int_equal(bus_commit(b, BUS_TOPICS, 0, NULL), -EINVAL);
    bus_close(b);
    bus_close(NULL);
}

static uint64_t test_seed(void)
{
    const char *text = getenv("VARVE_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Everything comes, first deliveries in order, some frames twice but none three times. */
static void the_rough_bus_loses_nothing_and_repeats_and_asks_again(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct bus *b = bus_local_new_rough(1 << 20, test_seed(), NULL);
    static uint8_t seen[N];
    memset(seen, 0, sizeof seen);
    unsigned again = 0, twice = 0;
    uint32_t next = 0, sent = 0, idle = 0;
    while (idle < 100) {
        if (sent < N) {
            int r = bus_send(b, BUS_REQUESTS, 3, &sent, sizeof sent, NULL);
            assert_true(r == 0 || r == -EAGAIN);
            sent += r == 0;
            again += r != 0;
            if (sent % 7 != 0)
                continue;
        }
        uint32_t v;
        int len = bus_receive(b, BUS_REQUESTS, 3, in, NULL);
        idle = len == 0 ? idle + 1 : 0;
        if (len == 0)
            continue;
        assert_int_equal(len, sizeof v);
        memcpy(&v, in, sizeof v);
        assert_true(v <= next);
        assert_in_range(++seen[v], 1, 2);
        twice += seen[v] == 2;
        next += v == next;
    }
    assert_int_equal(sent, N);
    assert_int_equal(next, N);
    assert_in_range(twice, N / 20, N / 5);
    assert_in_range(again, N / 20, N / 5);
    bus_close(b);
}

static void the_same_seed_gives_the_same_roughness(void **state)
{
    (void)state;
    struct bus *b[2] = {bus_local_new_rough(1 << 20, 42, NULL), bus_local_new_rough(1 << 20, 42, NULL)};
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t got[2] = {0, 0};
        int r0 = bus_send(b[0], BUS_EVENTS, 0, &i, sizeof i, NULL), r1 = bus_send(b[1], BUS_EVENTS, 0, &i, sizeof i, NULL);
        assert_int_equal(r0, r1);
        for (int k = 0; k < 2; k++)
            if (bus_receive(b[k], BUS_EVENTS, 0, in, NULL) > 0)
                memcpy(&got[k], in, sizeof got[k]);
        assert_int_equal(got[0], got[1]);
    }
    bus_close(b[0]);
    bus_close(b[1]);
}

enum { SENDERS = 3, PER_SENDER = 3000 };
struct sender { struct bus *b; uint32_t id; };

static void *send_thread(void *arg)
{
    struct sender *s = arg;
    for (uint32_t i = 0; i < PER_SENDER;) {
        uint32_t v[2] = {s->id, i};
        if (bus_send(s->b, BUS_REQUESTS, 0, v, sizeof v, NULL) == 0)
            i++;
        else
            sched_yield();
    }
    return NULL;
}

static void each_senders_order_holds_among_threads(void **state)
{
    (void)state;
    struct bus *b = bus_local_new(20000, NULL);
    struct sender s[SENDERS];
    pthread_t t[SENDERS];
    for (uint32_t i = 0; i < SENDERS; i++) {
        s[i] = (struct sender){b, i};
        assert_int_equal(pthread_create(&t[i], NULL, send_thread, &s[i]), 0);
    }
    uint32_t next[SENDERS] = {0}, got = 0;
    while (got < SENDERS * PER_SENDER) {
        uint32_t v[2];
        if (bus_receive(b, BUS_REQUESTS, 0, in, NULL) == 0) {
            sched_yield();
            continue;
        }
        memcpy(v, in, sizeof v);
        assert_int_equal(v[1], next[v[0]]++);
        got++;
    }
    for (uint32_t i = 0; i < SENDERS; i++)
        pthread_join(t[i], NULL);
    bus_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_arrive_whole_and_in_order),
        cmocka_unit_test(queues_of_other_topics_and_partitions_are_apart),
        cmocka_unit_test(a_full_bus_says_again_and_has_room_after_a_receive),
        cmocka_unit_test(many_small_frames_are_bounded_too),
        cmocka_unit_test(an_empty_bus_takes_any_frame),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(the_rough_bus_loses_nothing_and_repeats_and_asks_again),
        cmocka_unit_test(the_same_seed_gives_the_same_roughness),
        cmocka_unit_test(each_senders_order_holds_among_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
