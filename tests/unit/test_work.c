/* SPDX-License-Identifier: Apache-2.0 */
/* work: what is owed comes in order, is tried again as the backoff says, and its failure is told until an attempt succeeds. */
#include "disk/work.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000000)

static int64_t fake_now;
static unsigned woken;

static int64_t fake_ns(void *ctx)
{
    (void)ctx;
    return fake_now;
}

static const struct vclock fake_clock = {fake_ns, fake_ns, NULL};

static void count_wake(void *ctx)
{
    (void)ctx;
    woken++;
}

static struct work *w;
static const struct vid A = {{1}}, B = {{2}}, C = {{3}};

static int setup(void **state)
{
    (void)state;
    fake_now = 1000 * SECOND;
    woken = 0;
    w = work_new(&fake_clock, count_wake, NULL);
    return w == NULL;
}

static int teardown(void **state)
{
    (void)state;
    work_free(w);
    return 0;
}

static struct work_item item(const struct vid *disk, enum work_kind kind)
{
    return (struct work_item){.disk = *disk, .kind = kind};
}

static void owe(const struct vid *disk, enum work_kind kind)
{
    struct work_item i = item(disk, kind);
    assert_int_equal(work_owe(w, &i), 0);
}

/* Exactly this one can be taken now, and is. */
static struct work_item take(const struct vid *disk, enum work_kind kind)
{
    struct work_item out[4];
    assert_int_equal(work_take(w, WORK_ALL, out, 4), 1);
    assert_true(vid_eq(&out[0].disk, disk));
    assert_int_equal(out[0].kind, kind);
    return out[0];
}

static void take_none(void)
{
    struct work_item out[4];
    assert_int_equal(work_take(w, WORK_ALL, out, 4), 0);
}

static bool fails(const struct work_item *i, int64_t *next)
{
    static const struct verr why = {.code = 28, .text = "no room"};
    return work_failed(w, i, &why, next);
}

static void what_is_owed_is_due_at_once_and_goes_when_it_is_done(void **state)
{
    (void)state;
    take_none();
    assert_int_equal(work_next(w, WORK_ALL), INT64_MAX);
    owe(&A, WORK_STORE);
    assert_int_equal(woken, 1);
    assert_true(work_next(w, WORK_ALL) <= fake_now);
    struct work_item i;
    assert_true(work_look(w, WORK_ALL, &i));
    assert_false(work_look(w, WORK_BIT(WORK_FREEZE), &i));
    i = take(&A, WORK_STORE);
    take_none();
    assert_false(work_look(w, WORK_ALL, &i));
    assert_true(work_owes(w, &A, WORK_BIT(WORK_STORE)));
    work_done(w, &i);
    assert_false(work_owes(w, &A, WORK_ALL));
    take_none();
}

static void what_is_owed_twice_is_done_once(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    work_done(w, &i);
    take_none();
}

static void owed_again_while_it_runs_it_is_done_again(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    owe(&A, WORK_STORE);
    take_none();
    work_done(w, &i);
    i = take(&A, WORK_STORE);
    work_done(w, &i);
    take_none();
}

static void a_disk_does_one_thing_at_a_time_in_order(void **state)
{
    (void)state;
    for (int kind = WORK_STORE; kind >= WORK_RECOVER; kind--)
        owe(&A, (enum work_kind)kind);
    for (int kind = WORK_RECOVER; kind <= WORK_STORE; kind++) {
        struct work_item i = take(&A, (enum work_kind)kind);
        take_none();
        work_done(w, &i);
    }
    take_none();
}

static void a_disk_that_is_not_recovered_waits_with_the_rest(void **state)
{
    (void)state;
    owe(&A, WORK_RECOVER);
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_RECOVER);
    assert_true(fails(&i, NULL));
    take_none();
    assert_int_equal(work_next(w, WORK_BIT(WORK_STORE)), INT64_MAX);
    assert_true(work_take_one(w, &A, WORK_RECOVER, &i));   /* somebody wants to use it */
    work_done(w, &i);
    take(&A, WORK_STORE);
}

static void disks_do_not_wait_for_each_other(void **state)
{
    (void)state;
    struct work_item out[4];
    owe(&A, WORK_STORE);
    owe(&B, WORK_STORE);
    owe(&C, WORK_FREEZE);
    assert_int_equal(work_take(w, WORK_BIT(WORK_STORE), out, 4), 2);
    assert_int_equal(work_take(w, WORK_BIT(WORK_STORE), out + 2, 2), 0);
    assert_int_equal(work_take(w, WORK_BIT(WORK_FREEZE), out + 2, 2), 1);
}

static void no_more_than_asked_for_are_taken(void **state)
{
    (void)state;
    struct work_item out[2];
    owe(&A, WORK_STORE);
    owe(&B, WORK_STORE);
    assert_int_equal(work_take(w, WORK_ALL, out, 1), 1);
    assert_int_equal(work_take(w, WORK_ALL, out + 1, 1), 1);
    assert_false(vid_eq(&out[0].disk, &out[1].disk));
}

static void the_backoff_doubles_up_to_its_bound_and_begins_anew(void **state)
{
    (void)state;
    int64_t wait = 5 * SECOND, next = 0;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    for (int n = 0; n < 12; n++) {
        assert_int_equal(i.failures, n);
        assert_true(fails(&i, &next));
        assert_int_equal(next, fake_now + wait);
        assert_int_equal(work_next(w, WORK_ALL), next);
        fake_now = next - 1;
        take_none();
        fake_now = next;
        i = take(&A, WORK_STORE);
        wait = wait * 2 > 600 * SECOND ? 600 * SECOND : wait * 2;
    }
    owe(&A, WORK_STORE);
    work_done(w, &i);
    i = take(&A, WORK_STORE);
    assert_true(fails(&i, &next));
    assert_int_equal(next, fake_now + 5 * SECOND);
}

static void a_failure_is_told_until_an_attempt_succeeds(void **state)
{
    (void)state;
    struct verr why = {0};
    int64_t next = 0;
    unsigned failed = 9;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    assert_false(work_blocked(w, &A, &why, &next));
    fails(&i, NULL);
    assert_true(work_blocked(w, &A, &why, &next));
    assert_int_equal(why.code, 28);
    assert_string_equal(why.text, "no room");
    assert_int_equal(next, fake_now + 5 * SECOND);
    owe(&A, WORK_STORE);            /* another snapshot behind it: it fails with the first */
    take_none();
    fake_now = next;
    i = take(&A, WORK_STORE);
    assert_true(work_blocked(w, &A, NULL, NULL));
    assert_int_equal(work_count(w, WORK_STORE, &failed), 1);
    assert_int_equal(failed, 1);
    struct work_failure f = {.why = {0}};
    assert_int_equal(work_failures(w, WORK_ALL, NULL, 0), 1);
    assert_int_equal(work_failures(w, WORK_ALL & ~WORK_BIT(WORK_STORE), &f, 1), 0);
    assert_int_equal(work_failures(w, WORK_ALL, &f, 1), 1);
    assert_true(vid_eq(&f.item.disk, &A));
    assert_string_equal(f.why.text, "no room");
    assert_int_equal(f.due_ns - f.tried_ns, 5 * SECOND);
    work_done(w, &i);
    assert_false(work_blocked(w, &A, NULL, NULL));
    assert_int_equal(work_failures(w, WORK_ALL, &f, 1), 0);
}

static void who_asks_gets_an_attempt_and_its_answer(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    fails(&i, NULL);
    work_ask(w, &A);
    assert_false(work_blocked(w, &A, NULL, NULL));
    i = take(&A, WORK_STORE);
    assert_false(work_blocked(w, &A, NULL, NULL));
    assert_true(fails(&i, NULL));
    assert_true(work_blocked(w, &A, NULL, NULL));
    take_none();
}

/* What ran when he asked began without knowing of him: it is not his answer if it fails. */
static void who_asks_during_an_attempt_gets_the_next_one(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    work_ask(w, &A);
    assert_false(fails(&i, NULL));
    assert_false(work_blocked(w, &A, NULL, NULL));
    i = take(&A, WORK_STORE);
    assert_true(fails(&i, NULL));
    assert_true(work_blocked(w, &A, NULL, NULL));
}

static void an_attempt_that_succeeds_answers_who_asked_during_it(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    work_ask(w, &A);
    work_done(w, &i);
    take_none();
    assert_false(work_blocked(w, &A, NULL, NULL));
}

/* It would be done with arguments that nobody gave: a clean snapshot would become partial. */
static void asking_alone_has_nothing_done_twice(void **state)
{
    (void)state;
    static const struct verr why = {.code = 5};
    struct work_item i = {.disk = A, .kind = WORK_SETTLE, .seq = 7, .arg = WORK_CLEAN};
    assert_int_equal(work_owe_failed(w, &i, &why), 0);
    work_ask(w, &A);
    i = take(&A, WORK_SETTLE);
    work_ask(w, &A);
    work_done(w, &i);
    take_none();
    assert_false(work_owes(w, &A, WORK_ALL));
}

static void looking_alone_makes_no_attempt(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    fails(&i, NULL);
    for (int n = 0; n < 100; n++) {
        assert_true(work_blocked(w, &A, NULL, NULL));
        take_none();
    }
}

static void what_changed_brings_the_next_attempt_near_but_not_at_once(void **state)
{
    (void)state;
    int64_t next = 0;
    owe(&A, WORK_STORE);
    for (int n = 0; n < 4; n++) {
        struct work_item i = take(&A, WORK_STORE);
        fails(&i, &next);
        fake_now = next;
    }
    struct work_item i = take(&A, WORK_STORE);
    fails(&i, &next);
    int64_t tried = fake_now;
    work_nudge(w);
    take_none();
    assert_int_equal(work_next(w, WORK_ALL), tried + 5 * SECOND);
    assert_true(work_blocked(w, &A, NULL, NULL));
    work_hurry(w);
    assert_int_equal(work_next(w, WORK_ALL), tried);
    assert_true(work_blocked(w, &A, NULL, NULL));
    i = take(&A, WORK_STORE);
    fails(&i, NULL);
    work_nudge(w);
    fake_now = tried + 5 * SECOND;
    take(&A, WORK_STORE);
}

static void a_failed_freeze_or_row_is_no_reason_to_stop_waiting(void **state)
{
    (void)state;
    static const struct verr why = {.code = 5};
    const enum work_kind other[] = {WORK_FREEZE, WORK_FORGET, WORK_ROWS};
    for (unsigned n = 0; n < 3; n++) {
        struct work_item i = item(&A, other[n]);
        assert_int_equal(work_owe_failed(w, &i, &why), 0);
    }
    assert_false(work_blocked(w, &A, NULL, NULL));
    struct work_item settle = {.disk = A, .kind = WORK_SETTLE, .seq = 7, .arg = WORK_CLEAN};
    assert_int_equal(work_owe_failed(w, &settle, &why), 0);
    assert_true(work_blocked(w, &A, NULL, NULL));
}

static void what_failed_elsewhere_waits_for_the_first_backoff(void **state)
{
    (void)state;
    static const struct verr why = {.code = 5};
    struct work_item i = {.disk = A, .kind = WORK_SETTLE, .seq = 7, .arg = WORK_CLEAN};
    assert_int_equal(work_owe_failed(w, &i, &why), 0);
    take_none();
    fake_now += 5 * SECOND;
    i = take(&A, WORK_SETTLE);
    assert_int_equal(i.seq, 7);
    assert_int_equal(i.arg, WORK_CLEAN);
}

static void settles_of_two_snapshots_are_two_items(void **state)
{
    (void)state;
    struct work_item first = {.disk = A, .kind = WORK_SETTLE, .seq = 7}, second = {.disk = A, .kind = WORK_SETTLE, .seq = 8, .arg = WORK_CLEAN};
    assert_int_equal(work_owe(w, &first), 0);
    assert_int_equal(work_owe(w, &second), 0);
    struct work_item i = take(&A, WORK_SETTLE), j;
    work_done(w, &i);
    j = take(&A, WORK_SETTLE);
    assert_int_not_equal(i.seq, j.seq);
    work_done(w, &j);
    take_none();
}

static void args_add_up_and_those_that_came_later_are_done_later(void **state)
{
    (void)state;
    struct work_item i = item(&A, WORK_FREEZE);
    assert_int_equal(work_owe(w, &i), 0);
    i = take(&A, WORK_FREEZE);
    assert_int_equal(i.arg, 0);
    struct work_item partial = {.disk = A, .kind = WORK_FREEZE, .arg = WORK_PARTIAL};
    assert_int_equal(work_owe(w, &partial), 0);
    work_done(w, &i);
    i = take(&A, WORK_FREEZE);
    assert_int_equal(i.arg, WORK_PARTIAL);
    work_done(w, &i);
    take_none();
}

static void an_attempt_that_was_not_made_is_still_owed(void **state)
{
    (void)state;
    owe(&A, WORK_STORE);
    struct work_item i = take(&A, WORK_STORE);
    work_return(w, &i);
    assert_false(work_blocked(w, &A, NULL, NULL));
    take(&A, WORK_STORE);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_is_owed_is_due_at_once_and_goes_when_it_is_done), T(what_is_owed_twice_is_done_once),
        T(owed_again_while_it_runs_it_is_done_again), T(a_disk_does_one_thing_at_a_time_in_order),
        T(a_disk_that_is_not_recovered_waits_with_the_rest), T(disks_do_not_wait_for_each_other), T(no_more_than_asked_for_are_taken),
        T(the_backoff_doubles_up_to_its_bound_and_begins_anew), T(a_failure_is_told_until_an_attempt_succeeds),
        T(who_asks_gets_an_attempt_and_its_answer), T(who_asks_during_an_attempt_gets_the_next_one),
        T(an_attempt_that_succeeds_answers_who_asked_during_it), T(asking_alone_has_nothing_done_twice), T(looking_alone_makes_no_attempt),
        T(what_changed_brings_the_next_attempt_near_but_not_at_once), T(a_failed_freeze_or_row_is_no_reason_to_stop_waiting),
        T(what_failed_elsewhere_waits_for_the_first_backoff), T(settles_of_two_snapshots_are_two_items),
        T(args_add_up_and_those_that_came_later_are_done_later), T(an_attempt_that_was_not_made_is_still_owed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
