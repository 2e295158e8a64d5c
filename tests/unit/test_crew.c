/* SPDX-License-Identifier: Apache-2.0 */
/* crew: every task runs exactly once, results are there after the wait, with any number of threads and with none. */
#include "base/crew.h"
#include "base/verr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum { RING = 3, ITEMS = 2000 };

struct square {
    struct crew_task task;      /* first: the crew hands it back */
    uint64_t in, out;
    unsigned runs;
};

static void run_square(struct crew_task *task)
{
    struct square *s = (struct square *)task;
    s->out = s->in * s->in;
    s->runs++;
}

/* The pipeline of the stages: RING tasks under way, results used in order. */
static void pipeline(struct crew *c)
{
    struct square ring[RING] = {{.in = 0}};
    uint64_t used = 0;
    for (uint64_t n = 0; n < ITEMS + RING; n++) {
        struct square *s = &ring[n % RING];
        if (n >= RING) {
            crew_wait(c, &s->task);
            assert_int_equal(s->out, used * used);
            assert_int_equal(s->runs, 1);
            used++;
        }
        if (n < ITEMS) {
            s->in = n;
            s->runs = 0;
            s->task.run = run_square;
            crew_submit(c, &s->task);
        }
    }
    assert_int_equal(used, ITEMS);
}

static void any_number_of_threads_gives_the_same(void **state)
{
    (void)state;
    struct verr err = {0};
    for (unsigned threads = 0; threads <= 4; threads++) {
        struct crew *c = crew_new(threads, &err);
        assert_non_null(c);
        assert_int_equal(crew_threads(c), threads);
        pipeline(c);
        crew_free(c);
    }
}

static void no_crew_works_in_the_caller(void **state)
{
    (void)state;
    assert_int_equal(crew_threads(NULL), 0);
    pipeline(NULL);
    crew_free(NULL);
}

/* A task in the middle of the queue is taken out by whoever waits for it; the others still run. */
static void waiting_out_of_order(void **state)
{
    (void)state;
    struct verr err = {0};
    for (unsigned threads = 0; threads <= 2; threads++) {
        struct crew *c = crew_new(threads, &err);
        struct square s[5] = {{.in = 0}};
        assert_non_null(c);
        for (unsigned i = 0; i < 5; i++) {
            s[i].in = i;
            s[i].task.run = run_square;
            crew_submit(c, &s[i].task);
        }
        static const unsigned order[5] = {4, 2, 0, 3, 1};
        for (unsigned i = 0; i < 5; i++) {
            crew_wait(c, &s[order[i]].task);
            assert_int_equal(s[order[i]].out, order[i] * order[i]);
            assert_int_equal(s[order[i]].runs, 1);
        }
        crew_submit(c, &s[4].task);     /* the last of a queue that was emptied out of order */
        crew_wait(c, &s[4].task);
        assert_int_equal(s[4].runs, 2);
        crew_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_threads_gives_the_same),
        cmocka_unit_test(no_crew_works_in_the_caller),
        cmocka_unit_test(waiting_out_of_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
