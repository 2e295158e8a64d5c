/* SPDX-License-Identifier: Apache-2.0 */
/* ingest: room for streams; a stream's anchor is pinned as long as the stream exists, and then the entries keep it. */
#include "../lib/mkstore.h"
#include "base/file.h"
#include "ingest/ingest.h"
#include "store/snaps.h"

struct fixture {
    struct mkstore m;
    struct mksnap snap;
    uint8_t *data;              /* of the snapshot's one segment */
    int statefd;
    struct live_set *set;
    struct live *live, *other;
    struct ingest *in;
};

static const struct snapref *parent(const struct fixture *f) { return &f->snap.rcp.info.ref; }

static int setup(void **state)
{
    static struct fixture one;
    struct fixture *f = &one;
    mk_open(&f->m, NULL);
    f->data = calloc(1, SEG_BYTES);
    assert_non_null(f->data);
    uint64_t seed = 1;
    mk_fill(f->data, SEG_BYTES, &seed);
    mk_snapshot(&f->m, f->data, SEG_BYTES, &f->snap);
    f->statefd = dir_open(AT_FDCWD, f->m.dir);
    MK_OK(f->statefd);
    close(dir_make(f->statefd, "disks"));
    struct live_env env = {.state_dirfd = f->statefd, .source = segread_source(f->m.segread), .clock = &vclock_system, .trusted = true,
                           .open_max = 8};
    struct vid other = vid_random();
    MK_OK(live_set_open(&env, &f->set, &mk_err_));
    MK_OK(live_create(f->set, &f->m.disk.id, parent(f)->seq + 1, 0, &f->live, &mk_err_));
    MK_OK(live_create(f->set, &other, 1, 0, &f->other, &mk_err_));
    MK_OK(ingest_new(&(struct ingest_env){.store = f->m.st, .segread = f->m.segread, .streams = 1}, &f->in, &mk_err_));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    ingest_free(f->in);
    live_put(f->live);
    live_put(f->other);
    MK_OK(live_set_close(f->set, &mk_err_));
    close(f->statefd);
    mk_snap_free(&f->snap);
    mk_close(&f->m);
    free(f->data);
    return 0;
}

static void none_lost(void *ctx, uint64_t off, uint64_t len)
{
    (void)ctx;
    fail_msg("%ju bytes at %ju are lost", (uintmax_t)len, (uintmax_t)off);
}

static struct stream *open_for(struct fixture *f, struct live *l)
{
    struct snap *p = mk_snap_open(&f->m, &f->snap.rcp);
    struct stream *s = stream_open(f->in, &(struct stream_conf){.live = l, .parent = p, .lost = none_lost});
    if (s == NULL)
        snap_close(p);
    return s;
}

static int unanchor(struct fixture *f)
{
    return snaps_unanchor(f->m.st, &f->m.disk.id, parent(f), NULL, NULL, NULL);
}

static void there_is_room_for_so_many_streams(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++) {
        assert_true(ingest_has_room(f->in));
        struct stream *s = open_for(f, f->live);
        assert_non_null(s);
        assert_false(ingest_has_room(f->in));
        assert_null(open_for(f, f->other));
        stream_close(s);
    }
    assert_true(ingest_has_room(f->in));
}

static void a_stream_pins_its_anchor_until_it_is_closed(void **state)
{
    struct fixture *f = *state;
    struct stream *s = open_for(f, f->live);
    assert_int_equal(unanchor(f), -EBUSY);
    stream_close(s);
    assert_int_equal(unanchor(f), 0);
    assert_int_equal(live_hold_begin(f->live, &(struct live_holder){0}), 0);
    assert_null(open_for(f, f->live));          /* the disk has a holder: no stream, no pin, and the room is free again */
    live_hold_end(f->live);
    assert_int_equal(unanchor(f), 0);
    assert_true(ingest_has_room(f->in));
}

static bool no_stream_begins(void *ctx)
{
    struct fixture *f = ctx;
    assert_null(open_for(f, f->live));
    assert_true(ingest_has_room(f->in));
    return false;
}

static void no_stream_begins_while_its_anchor_is_taken_away(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(snaps_unanchor(f->m.st, &f->m.disk.id, parent(f), no_stream_begins, f, NULL), -EBUSY);
    struct stream *s = open_for(f, f->live);
    assert_non_null(s);
    stream_close(s);
}

static void what_is_equal_becomes_an_entry_that_lists_the_anchor(void **state)
{
    struct fixture *f = *state;
    struct live_anchor an;
    struct seg_entry now;
    struct stream *s = open_for(f, f->live);
    assert_int_equal(stream_write(s, 0, f->data, SEG_BYTES, &mk_err_), 1);
    stream_close(s);
    assert_int_equal(live_segment_pure(f->live, 0, &now, &mk_err_), 1);
    assert_int_equal(now.kind, SEGK_STORED);
    MK_OK(live_anchor_at(f->live, 0, &an, &mk_err_));
    assert_true(snapref_eq(&an.ref, parent(f)));
    assert_true(snaps_anchored(f->m.st, &f->m.disk.id, parent(f)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(there_is_room_for_so_many_streams, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stream_pins_its_anchor_until_it_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(no_stream_begins_while_its_anchor_is_taken_away, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_equal_becomes_an_entry_that_lists_the_anchor, setup, teardown),
    };
    return cmocka_run_group_tests_name("ingest", tests, NULL, NULL);
}
