/* SPDX-License-Identifier: Apache-2.0 */
/* turn: operations on one id exclude each other and keep their order; those on others do not wait; groups never lock each other up; one
 * on all ids is alone. */
#include "base/turn.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { IDS = 4, THREADS = 8, TURNS = 3000, OPS = 12 };

static struct turns *ts;
static struct vid id[IDS];
static atomic_int inside[IDS];
static atomic_uint bad;

static int setup(void **state)
{
    (void)state;
    for (unsigned i = 0; i < IDS; i++)
        id[i].b[0] = (uint8_t)(i + 1);
    ts = turns_new();
    return ts == NULL;
}

static int teardown(void **state)
{
    (void)state;
    turns_free(ts);
    return 0;
}

/* Takes one to three ids at random, in any order, now and then all, and looks whether it is alone in each. */
static void *random_turns(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < TURNS; i++) {
        struct vid ids[3];
        bool all = rand_r(&seed) % 8 == 0;
        unsigned which[IDS] = {0, 1, 2, 3}, n = all ? IDS : 1 + (unsigned)rand_r(&seed) % 3;
        struct turn t;
        for (unsigned k = 0; k < n && !all; k++) {
            which[k] = (unsigned)rand_r(&seed) % IDS;
            ids[k] = id[which[k]];
        }
        if (all)
            turn_take_all(ts, &t);
        else
            turn_take(ts, &t, ids, n);
        for (unsigned k = 0; k < n; k++) {
            int mine = (int)(uintptr_t)arg, before = atomic_exchange(&inside[which[k]], mine);
            if (before != 0 && before != mine)
                atomic_fetch_add(&bad, 1);
        }
        for (unsigned k = 0; k < n; k++)
            atomic_store(&inside[which[k]], 0);
        turn_give(ts, &t);
    }
    return NULL;
}

static void ids_have_one_operation_at_a_time_and_groups_end(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, random_turns, (void *)(uintptr_t)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(atomic_load(&bad), 0);
}

static void another_id_does_not_wait(void **state)
{
    (void)state;
    struct turn slow, other;
    turn_take(ts, &slow, &id[0], 1);
    turn_take(ts, &other, &id[1], 1);     /* hangs here if it does */
    turn_give(ts, &other);
    turn_give(ts, &slow);
}

static void an_id_named_twice_is_one(void **state)
{
    (void)state;
    const struct vid twice[2] = {id[0], id[0]};
    struct turn t;
    turn_take(ts, &t, twice, 2);
    turn_give(ts, &t);
}

struct waiter { struct turn t; const struct vid *ids; unsigned n, number; pthread_t thread; atomic_int tid; };
static atomic_uint came[OPS], ncame;

static void *wait_turn(void *arg)
{
    struct waiter *w = arg;
    atomic_store(&w->tid, gettid());
    turn_take(ts, &w->t, w->ids, w->n);
    atomic_store(&came[atomic_fetch_add(&ncame, 1)], w->number);
    turn_give(ts, &w->t);
    return NULL;
}

/* Waits until the thread sleeps: nothing but its turn makes it do so once it has said its number. */
static void has_come(struct waiter *w)
{
    char path[64], line[256] = "";
    const char *state = NULL;
    while (state == NULL || strncmp(state, ") S", 3) != 0) {
        usleep(1000);
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&w->tid));
        FILE *f = atomic_load(&w->tid) == 0 ? NULL : fopen(path, "re");
        state = f != NULL && fgets(line, sizeof line, f) != NULL ? strrchr(line, ')') : NULL;
        if (f != NULL)
            fclose(f);
    }
}

/* A group that waits is not overtaken by a later operation on one of its ids, so it never waits for ever. */
static void they_come_in_order(void **state)
{
    (void)state;
    struct waiter w[OPS];
    struct turn first;
    const struct vid group[2] = {id[1], id[0]};
    turn_take(ts, &first, &id[0], 1);
    for (unsigned i = 0; i < OPS; i++) {
        bool two = i % 3 == 0;
        w[i] = (struct waiter){.ids = two ? group : &id[0], .n = two ? 2 : 1, .number = i, .tid = 0};
        assert_int_equal(pthread_create(&w[i].thread, NULL, wait_turn, &w[i]), 0);
        has_come(&w[i]);
    }
    assert_int_equal(atomic_load(&ncame), 0);
    turn_give(ts, &first);
    for (unsigned i = 0; i < OPS; i++)
        pthread_join(w[i].thread, NULL);
    for (unsigned i = 0; i < OPS; i++)
        assert_int_equal(atomic_load(&came[i]), i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ids_have_one_operation_at_a_time_and_groups_end, setup, teardown),
        cmocka_unit_test_setup_teardown(another_id_does_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(an_id_named_twice_is_one, setup, teardown),
        cmocka_unit_test_setup_teardown(they_come_in_order, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
