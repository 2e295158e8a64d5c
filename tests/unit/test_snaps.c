/* SPDX-License-Identifier: Apache-2.0 */
/* Records of snapshots: edits exclude each other by snapshot, pins keep anchors, trash and durability. */
#include "../lib/mkstore.h"
#include "store/snaps.h"

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

struct fixture {
    struct mkstore m;
    struct mksnap a, b;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    mk_open(&f->m, NULL);
    uint8_t *data = calloc(1, SEG_BYTES);
    assert_non_null(data);
    data[7] = 1;
    mk_snapshot(&f->m, data, SEG_BYTES, &f->a);
    data[9] = 2;
    mk_snapshot(&f->m, data, SEG_BYTES, &f->b);
    free(data);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    mk_snap_free(&f->a);
    mk_snap_free(&f->b);
    mk_close(&f->m);
    free(f);
    return 0;
}

static const struct snapref *ref_a(const struct fixture *f) { return &f->a.rcp.info.ref; }
static const struct snapref *ref_b(const struct fixture *f) { return &f->b.rcp.info.ref; }

/* ---- edits ---- */

static int set_note(void *ctx, struct snapinfo *s)
{
    memset(s->note, 0, sizeof s->note);
    snprintf(s->note, sizeof s->note, "%s", *(const char **)ctx);
    return 0;
}

static int edit_note(struct fixture *f, const struct snapref *ref, const char *note, struct snapinfo *out, struct verr *err)
{
    return snaps_edit(f->m.st, ref, &(struct snaps_change){.change = set_note, .ctx = &note}, out, err);
}

static int change_all(void *ctx, struct snapinfo *s)
{
    (void)ctx;
    s->flags |= SNAP_PARTIAL;
    snprintf(s->label, sizeof s->label, "gold");
    s->protected_ = true;
    s->mode = 0440;
    s->uid = 7;
    s->gid = 8;
    return 0;
}

static int refuse(void *ctx, struct snapinfo *s)
{
    (void)ctx;
    s->protected_ = true;
    return -EPERM;
}

static int bad_label(void *ctx, struct snapinfo *s)
{
    (void)ctx;
    snprintf(s->label, sizeof s->label, "no/slash");
    return 0;
}

static void an_edit_writes_what_it_changes(void **state)
{
    struct fixture *f = *state;
    struct snaprcp got;
    struct snapattr side;
    struct snapinfo out;
    MK_OK(snaps_edit(f->m.st, ref_a(f), &(struct snaps_change){.change = change_all}, &out, &mk_err_));
    assert_true(out.protected_ && out.mode == 0440 && out.uid == 7 && (out.flags & SNAP_PARTIAL) != 0);
    MK_OK(edit_note(f, ref_a(f), "one", &out, &mk_err_));
    assert_true(out.protected_ && out.gid == 8);
    MK_OK(snaps_load(f->m.st, ref_a(f), &got, &side, &mk_err_));
    assert_string_equal(got.info.note, "one");
    assert_string_equal(got.info.label, "gold");
    assert_true(got.info.protected_ && got.info.mode == 0440 && got.info.uid == 7 && got.info.gid == 8);
    assert_int_equal(got.info.flags, f->a.rcp.info.flags | SNAP_PARTIAL);
    assert_int_equal(side.version, 2);
    MK_OK(snaps_header(f->m.st, ref_a(f), &got, &mk_err_));       /* the recipe never changes */
    assert_string_equal(got.info.note, f->a.rcp.info.note);
}

static void an_edit_that_changes_nothing_writes_nothing(void **state)
{
    struct fixture *f = *state;
    struct snapattr side;
    struct snaprcp got;
    struct verr err = {0};
    assert_int_equal(snaps_side(f->m.st, ref_a(f), NULL, NULL, &err), 0);
    MK_OK(edit_note(f, ref_a(f), f->a.rcp.info.note, NULL, &mk_err_));
    assert_int_equal(snaps_edit(f->m.st, ref_a(f), &(struct snaps_change){.change = refuse}, NULL, &err), -EPERM);
    assert_int_equal(snaps_edit(f->m.st, ref_a(f), &(struct snaps_change){.change = bad_label}, NULL, &err), -EINVAL);
    assert_int_equal(snaps_side(f->m.st, ref_a(f), NULL, &side, &err), 0);
    MK_OK(edit_note(f, ref_a(f), "x", NULL, &mk_err_));
    MK_OK(edit_note(f, ref_a(f), "x", NULL, &mk_err_));
    MK_OK(snaps_load(f->m.st, ref_a(f), &got, &side, &mk_err_));
    assert_int_equal(side.version, 1);
    const struct snapref none = {f->m.disk.id, 999, vid_random()};
    assert_int_equal(edit_note(f, &none, "x", NULL, &err), -ENOENT);
}

/* An edit that stays in its change until it is let go. */
struct slow {
    struct fixture *f;
    const struct snapref *ref;
    sem_t in, go;
    char *order;
    pthread_t thread;
};

static int wait_inside(void *ctx, struct snapinfo *s)
{
    struct slow *w = ctx;
    sem_post(&w->in);
    sem_wait(&w->go);
    snprintf(s->note, sizeof s->note, "slow");
    return 0;
}

static int mark_end(void *ctx, const struct snapinfo *now, struct verr *err)
{
    struct slow *w = ctx;
    (void)now;
    (void)err;
    strcat(w->order, "s");
    return 0;
}

static void *slow_edit(void *arg)
{
    struct slow *w = arg;
    const struct snaps_change ch = {.change = wait_inside, .then = mark_end, .ctx = w};
    MK_OK(snaps_edit(w->f->m.st, w->ref, &ch, NULL, &mk_err_));
    return NULL;
}

static void slow_begin(struct slow *w, struct fixture *f, const struct snapref *ref, char *order)
{
    w->f = f;
    w->ref = ref;
    w->order = order;
    sem_init(&w->in, 0, 0);
    sem_init(&w->go, 0, 0);
    assert_int_equal(pthread_create(&w->thread, NULL, slow_edit, w), 0);
    sem_wait(&w->in);
}

struct quick { struct fixture *f; char *order; };

static int quick_label(void *ctx, struct snapinfo *s)
{
    struct quick *q = ctx;
    strcat(q->order, "q");
    snprintf(s->label, sizeof s->label, "quick");
    return 0;
}

static void *quick_edit(void *arg)
{
    struct quick *q = arg;
    MK_OK(snaps_edit(q->f->m.st, ref_a(q->f), &(struct snaps_change){.change = quick_label, .ctx = q}, NULL, &mk_err_));
    return NULL;
}

static void edits_of_one_snapshot_exclude_each_other_and_of_two_do_not(void **state)
{
    struct fixture *f = *state;
    char order[8] = "";
    struct slow w;
    struct quick q = {f, order};
    pthread_t other;
    struct snaprcp got;
    slow_begin(&w, f, ref_a(f), order);
    MK_OK(edit_note(f, ref_b(f), "b", NULL, &mk_err_));   /* does not wait */
    MK_OK(snaps_load(f->m.st, ref_a(f), &got, NULL, &mk_err_));        /* nor does who only reads */
    assert_int_equal(pthread_create(&other, NULL, quick_edit, &q), 0);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    sem_post(&w.go);
    pthread_join(w.thread, NULL);
    pthread_join(other, NULL);
    assert_string_equal(order, "sq");
    MK_OK(snaps_load(f->m.st, ref_a(f), &got, NULL, &mk_err_));
    assert_string_equal(got.info.note, "slow");
    assert_string_equal(got.info.label, "quick");
}

struct remover { struct fixture *f; int result; };

static void *remove_a(void *arg)
{
    struct remover *r = arg;
    r->result = snaps_trash(r->f->m.st, ref_a(r->f), NULL);
    return NULL;
}

static void a_removal_waits_for_an_edit(void **state)
{
    struct fixture *f = *state;
    char order[8] = "";
    struct slow w;
    struct remover r = {f, -1};
    pthread_t other;
    slow_begin(&w, f, ref_a(f), order);
    assert_int_equal(pthread_create(&other, NULL, remove_a, &r), 0);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    assert_int_equal(snaps_durable(f->m.st, ref_a(f), NULL), 1);
    sem_post(&w.go);
    pthread_join(w.thread, NULL);
    pthread_join(other, NULL);
    assert_int_equal(r.result, 0);
    assert_int_equal(snaps_durable(f->m.st, ref_a(f), NULL), 0);
    assert_int_equal(snaps_side(f->m.st, ref_a(f), NULL, NULL, NULL), 0);      /* went with it */
}

/* ---- anchors ---- */

static int unanchor(struct fixture *f, const struct vid *disk, const struct snapref *ref)
{
    return snaps_unanchor(f->m.st, disk, ref, NULL, NULL, NULL);
}

static void a_pinned_anchor_is_not_taken_away(void **state)
{
    struct fixture *f = *state;
    const struct vid disk = f->m.disk.id, other = vid_random();
    struct snaps_pin one, two;
    MK_OK(snaps_pin(f->m.st, &disk, ref_a(f), &one));
    MK_OK(snaps_pin(f->m.st, &disk, ref_a(f), &two));
    MK_OK(snaps_anchor(f->m.st, &disk, ref_a(f), &mk_err_));
    MK_OK(snaps_anchor(f->m.st, &other, ref_a(f), &mk_err_));
    assert_int_equal(unanchor(f, &disk, ref_a(f)), -EBUSY);
    assert_int_equal(unanchor(f, &other, ref_a(f)), 0);         /* another disk's anchor is another */
    assert_int_equal(unanchor(f, &disk, ref_b(f)), 0);
    snaps_unpin(f->m.st, &one);
    assert_int_equal(unanchor(f, &disk, ref_a(f)), -EBUSY);
    snaps_unpin(f->m.st, &two);
    assert_int_equal(unanchor(f, &disk, ref_a(f)), 0);
    assert_false(snaps_anchored(f->m.st, &disk, ref_a(f)));
    assert_int_equal(unanchor(f, &disk, ref_a(f)), 0);          /* absent is as good */
}

struct question { struct fixture *f; bool answer; unsigned asked; };

static bool nobody_can_pin(void *ctx)
{
    struct question *q = ctx;
    const struct vid *disk = &q->f->m.disk.id;
    struct snaps_pin p;
    assert_int_equal(snaps_pin(q->f->m.st, disk, ref_a(q->f), &p), -EBUSY);
    assert_int_equal(unanchor(q->f, disk, ref_a(q->f)), -EBUSY);
    MK_OK(snaps_pin(q->f->m.st, disk, ref_b(q->f), &p));        /* another anchor */
    snaps_unpin(q->f->m.st, &p);
    assert_true(snaps_anchored(q->f->m.st, disk, ref_a(q->f)));
    q->asked++;
    return q->answer;
}

static void an_anchor_goes_if_it_is_obsolete_when_nobody_can_pin_it(void **state)
{
    struct fixture *f = *state;
    const struct vid *disk = &f->m.disk.id;
    struct question q = {.f = f};
    struct snaps_pin p;
    MK_OK(snaps_anchor(f->m.st, disk, ref_a(f), &mk_err_));
    assert_int_equal(snaps_unanchor(f->m.st, disk, ref_a(f), nobody_can_pin, &q, NULL), -EBUSY);
    assert_true(snaps_anchored(f->m.st, disk, ref_a(f)));
    MK_OK(snaps_pin(f->m.st, disk, ref_a(f), &p));
    q.answer = true;
    assert_int_equal(snaps_unanchor(f->m.st, disk, ref_a(f), nobody_can_pin, &q, NULL), -EBUSY);
    assert_int_equal(q.asked, 1);                               /* pinned: not even asked */
    snaps_unpin(f->m.st, &p);
    assert_int_equal(snaps_unanchor(f->m.st, disk, ref_a(f), nobody_can_pin, &q, NULL), 0);
    assert_int_equal(q.asked, 2);
    assert_false(snaps_anchored(f->m.st, disk, ref_a(f)));
    MK_OK(snaps_pin(f->m.st, disk, ref_a(f), &p));
    snaps_unpin(f->m.st, &p);
}

/* Pins, anchors and looks whether the anchor is there, beside one that drops it all the time. */
enum { CROSSINGS = 200 };

static void *drop_often(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < CROSSINGS; i++) {
        int r = unanchor(f, &f->m.disk.id, ref_a(f));
        assert_true(r == 0 || r == -EBUSY);
    }
    return NULL;
}

static void what_is_anchored_after_its_pin_stays(void **state)
{
    struct fixture *f = *state;
    pthread_t dropper;
    struct snaps_pin p;
    char hex[VID_HEX], file[SNAP_FILE_MAX], path[512];
    vid_hex(&f->m.disk.id, hex);
    store_snap_file(ref_a(f)->seq, &ref_a(f)->snap, ".rcp", file);
    snprintf(path, sizeof path, "%s/anchors/%s/%s", f->m.path, hex, file);
    assert_int_equal(pthread_create(&dropper, NULL, drop_often, f), 0);
    for (int i = 0; i < CROSSINGS / 4; i++) {
        while (snaps_pin(f->m.st, &f->m.disk.id, ref_a(f), &p) == -EBUSY) {
        }
        MK_OK(snaps_anchor(f->m.st, &f->m.disk.id, ref_a(f), &mk_err_));
        usleep(500);
        assert_int_equal(access(path, F_OK), 0);
        snaps_unpin(f->m.st, &p);
    }
    pthread_join(dropper, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_edit_writes_what_it_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(an_edit_that_changes_nothing_writes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(edits_of_one_snapshot_exclude_each_other_and_of_two_do_not, setup, teardown),
        cmocka_unit_test_setup_teardown(a_removal_waits_for_an_edit, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pinned_anchor_is_not_taken_away, setup, teardown),
        cmocka_unit_test_setup_teardown(an_anchor_goes_if_it_is_obsolete_when_nobody_can_pin_it, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_anchored_after_its_pin_stays, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
