/* SPDX-License-Identifier: Apache-2.0 */
/* ingest: places for streams; an anchor is pinned by a stream or being dropped, never both. */
#include "ingest/ingest_internal.h"

#include "base/verr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static char disks[2];       /* `ingest` compares the addresses of live images, no more */

static struct live *live_of(unsigned i) { return (struct live *)&disks[i]; }

static struct live_anchor anchor_of(uint64_t seq)
{
    return (struct live_anchor){.ref = {.seq = seq, .snap = {{(uint8_t)seq}}}};
}

static struct ingest_place *take(struct ingest *in, unsigned disk, uint64_t seq)
{
    struct live_anchor parent = anchor_of(seq);
    return ingest_place_take(in, live_of(disk), &parent.ref);
}

static struct ingest *new_ingest(unsigned streams)
{
    struct ingest *in = NULL;
    struct verr err = {0};
    struct ingest_env env = {.streams = streams};
    assert_int_equal(ingest_new(&env, &in, &err), 0);
    return in;
}

static void places_are_taken_and_given_back(void **state)
{
    (void)state;
    struct ingest *in = new_ingest(2);
    struct ingest_place *a = take(in, 0, 1), *b = take(in, 0, 1);
    assert_non_null(a);
    assert_non_null(b);
    assert_false(ingest_has_room(in));
    assert_null(take(in, 0, 1));
    ingest_place_give(in, a);
    assert_true(ingest_has_room(in));
    assert_ptr_equal(take(in, 0, 1), a);
    ingest_place_give(in, NULL);
    ingest_place_give(in, a);
    ingest_place_give(in, b);
    ingest_free(in);
}

static void a_pinned_anchor_is_not_dropped(void **state)
{
    (void)state;
    struct ingest *in = new_ingest(2);
    struct ingest_place *p = take(in, 0, 1);
    struct anchor_drop d;
    struct live_anchor one = anchor_of(1), two = anchor_of(2);
    assert_true(ingest_drop_begin(in, &d, live_of(0), &one));       /* no pin yet */
    ingest_drop_end(in, &d);
    assert_true(ingest_pin(in, p));
    assert_true(ingest_pin(in, p));
    assert_false(ingest_drop_begin(in, &d, live_of(0), &one));
    assert_true(ingest_drop_begin(in, &d, live_of(1), &one));       /* another disk's link to the same snapshot */
    ingest_drop_end(in, &d);
    assert_true(ingest_drop_begin(in, &d, live_of(0), &two));
    ingest_drop_end(in, &d);
    ingest_place_give(in, p);
    assert_true(ingest_drop_begin(in, &d, live_of(0), &one));
    ingest_drop_end(in, &d);
    ingest_free(in);
}

static void an_anchor_that_is_being_dropped_is_not_pinned(void **state)
{
    (void)state;
    struct ingest *in = new_ingest(2);
    struct ingest_place *p = take(in, 0, 1), *q = take(in, 1, 2);
    struct anchor_drop d[2];
    struct live_anchor one = anchor_of(1), two = anchor_of(2);
    assert_true(ingest_drop_begin(in, &d[0], live_of(0), &one));
    assert_false(ingest_pin(in, p));
    assert_true(ingest_pin(in, q));
    assert_true(ingest_drop_begin(in, &d[1], live_of(0), &two));
    ingest_drop_end(in, &d[0]);
    assert_true(ingest_pin(in, p));
    ingest_drop_end(in, &d[1]);
    ingest_place_give(in, p);
    ingest_place_give(in, q);
    ingest_free(in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_taken_and_given_back),
        cmocka_unit_test(a_pinned_anchor_is_not_dropped),
        cmocka_unit_test(an_anchor_that_is_being_dropped_is_not_pinned),
    };
    return cmocka_run_group_tests_name("ingest", tests, NULL, NULL);
}
