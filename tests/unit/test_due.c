/* SPDX-License-Identifier: Apache-2.0 */
/*
 * due: every occasion with every attribute that counts, against a table that was written down from the documents and not from the
 * code; and due_ask on a real image, which must be read for data only where the answer depends on it.
 */
#include "disk/due.h"

#include "live_fake.h"

/* What has to be so for a snapshot: letters. c: changed; C: changed or rewriting; d: data; s: a size; v: a name without a dot; z: a size,
 * no data, and not rewriting. k: a state whose snapshot was removed counts as changed, without it as unchanged.
 * When it is partial: p always, u: unclean, r: rewriting, U: unclean or rewriting. Flags of the freeze besides. */
static const struct rule {
    enum due_occasion occasion;
    const char *name, *needs;
    char partial;
    uint32_t flags;
} rules[] = {
    {DUE_CLOSE, "close", "Ckdv", 'u', SNAP_PROVISIONAL},
    {DUE_RELEASE, "release", "cdv", 'u', SNAP_PROVISIONAL},
    {DUE_SETTLED, "settled", "csv", 'u', 0},
    {DUE_TRUNCATE, "truncate", "ckdv", 'r', 0},
    {DUE_REVERT, "revert", "ckdv", 'r', 0},
    {DUE_REPLACED, "replaced", "ckdv", 'r', 0},
    {DUE_RESIZED, "resized", "ckdv", 'r', 0},
    {DUE_NAMED, "named", "ckdv", 'r', 0},
    {DUE_LATE, "late", "cdv", 'U', 0},
    {DUE_RECOVERY, "recovery", "cdv", 'p', 0},
    {DUE_ZEROS, "zeros", "czv", 'u', 0},
    {DUE_REQUEST, "request", "", 'r', SNAP_EXPLICIT},
    {DUE_REQUEST_DIR, "request of a directory", "ckv", 'r', SNAP_EXPLICIT},
};
enum { RULES = sizeof rules / sizeof rules[0] };

/* One combination: each bit is one attribute. */
enum { CHANGED = 1, REWRITING = 2, UNCLEAN = 4, EMPTY = 8, GONE = 16, UNNAMED = 32, UNKEPT = 64, COMBINATIONS = 128 };
static const char *const names[] = {"disk.img", ".tmp.img", "a", ".", "x.", "..b"};

static bool has(const struct rule *r, char need) { return strchr(r->needs, need) != NULL; }

static enum due expected(const struct rule *r, unsigned bits, const char *name, enum due_data data)
{
    bool changed = (bits & UNKEPT) ? has(r, 'k') : (bits & CHANGED) != 0, rewriting = bits & REWRITING, unclean = bits & UNCLEAN;
    bool shown = name[0] != '.';
    if ((bits & GONE) || (has(r, 'v') && !shown) || (has(r, 'c') && !changed) || (has(r, 'C') && !changed && !rewriting))
        return DUE_NONE;
    if (has(r, 's') && (bits & EMPTY))
        return DUE_NONE;
    if (has(r, 'd') && ((bits & EMPTY) || data == DUE_DATA_NO))
        return DUE_NONE;
    if (has(r, 'd') && data == DUE_DATA_UNKNOWN)
        return DUE_ASK_DATA;
    if (has(r, 'z') && ((bits & EMPTY) || rewriting || data == DUE_DATA_YES))
        return DUE_NONE;
    if (has(r, 'z') && data == DUE_DATA_UNKNOWN)
        return DUE_ASK_DATA;
    bool partial = r->partial == 'p' || (r->partial == 'u' && unclean) || (r->partial == 'r' && rewriting) ||
                   (r->partial == 'U' && (unclean || rewriting));
    return partial ? DUE_PARTIAL : DUE_SNAPSHOT;
}

static void every_case_follows_the_table(void **state)
{
    (void)state;
    unsigned cases = 0;
    for (unsigned i = 0; i < RULES; i++)
        for (unsigned bits = 0; bits < COMBINATIONS; bits++)
            for (unsigned n = 0; n < sizeof names / sizeof names[0]; n++)
                for (enum due_data data = DUE_DATA_UNKNOWN; data <= DUE_DATA_YES; data++, cases++) {
                    struct node node = {.kind = NODE_DISK, .flags = (bits & GONE) ? NODE_GONE : 0};
                    strcpy(node.name, names[n]);
                    const struct due_case c = {
                        .occasion = rules[i].occasion, .node = &node, .unclean = bits & UNCLEAN, .data = data,
                        .attr = {.size = (bits & EMPTY) ? 0 : 4096, .changed = bits & (CHANGED | UNKEPT), .unkept = bits & UNKEPT,
                                 .marks = ((bits & REWRITING) ? LIVE_REWRITING : 0) | ((bits & UNNAMED) ? LIVE_UNNAMED : 0)}};
                    enum due want = expected(&rules[i], bits, names[n], data), got = due(&c);
                    if (got != want)
                        fail_msg("%s, bits %x, %s, data %d: %d instead of %d", rules[i].name, bits, names[n], (int)data, (int)got, (int)want);
                    uint32_t flags = got == DUE_SNAPSHOT ? rules[i].flags : got == DUE_PARTIAL ? rules[i].flags | SNAP_PARTIAL : 0;
                    assert_int_equal(due_flags(&c, got), flags);
                    /* What is possible by the name is possible for some state, and what is not is for none. */
                    if (want != DUE_NONE)
                        assert_true(due_possible(&c));
                    if ((bits & GONE) || (names[n][0] == '.' && rules[i].occasion != DUE_REQUEST))
                        assert_false(due_possible(&c));
                }
    assert_int_equal(cases, 13 * 128 * 6 * 3);
}

/* What people rely on, in words, so that table and rule cannot be wrong in the same way. */
static enum due ask(enum due_occasion occasion, const char *name, bool changed, bool rewriting, bool unclean)
{
    struct node node = {.kind = NODE_DISK};
    strcpy(node.name, name);
    const struct due_case c = {.occasion = occasion, .node = &node, .unclean = unclean, .data = DUE_DATA_YES,
                               .attr = {.size = 4096, .changed = changed, .marks = rewriting ? LIVE_REWRITING : 0}};
    return due(&c);
}

static void a_hidden_disk_gets_one_only_when_it_is_named(void **state)
{
    (void)state;
    for (unsigned i = 0; i < RULES; i++)
        assert_int_equal(ask(rules[i].occasion, ".tmp.img", true, false, false),
                         rules[i].occasion == DUE_REQUEST ? DUE_SNAPSHOT : DUE_NONE);
}

static void a_request_always_makes_one(void **state)
{
    (void)state;
    assert_int_equal(ask(DUE_REQUEST, "disk.img", false, false, false), DUE_SNAPSHOT);
    assert_int_equal(ask(DUE_REQUEST, "disk.img", false, true, false), DUE_PARTIAL);
    assert_int_equal(ask(DUE_REQUEST_DIR, "disk.img", false, true, false), DUE_NONE);
}

static void a_finished_rewrite_is_whole_an_unfinished_one_is_not(void **state)
{
    (void)state;
    assert_int_equal(ask(DUE_CLOSE, "disk.img", true, true, false), DUE_SNAPSHOT);
    assert_int_equal(ask(DUE_CLOSE, "disk.img", false, true, false), DUE_SNAPSHOT);
    assert_int_equal(ask(DUE_CLOSE, "disk.img", true, true, true), DUE_PARTIAL);
    assert_int_equal(ask(DUE_CLOSE, "disk.img", true, false, true), DUE_PARTIAL);
    assert_int_equal(ask(DUE_TRUNCATE, "disk.img", true, true, false), DUE_PARTIAL);
    assert_int_equal(ask(DUE_REVERT, "disk.img", true, false, false), DUE_SNAPSHOT);
    assert_int_equal(ask(DUE_RECOVERY, "disk.img", true, false, false), DUE_PARTIAL);
}

static void a_removed_state_comes_back_only_before_it_is_lost(void **state)
{
    (void)state;
    struct node node = {.kind = NODE_DISK, .name = "disk.img"};
    for (unsigned i = 0; i < RULES; i++) {
        const enum due_occasion o = rules[i].occasion;
        const struct due_case c = {.occasion = o, .node = &node, .data = o == DUE_ZEROS ? DUE_DATA_NO : DUE_DATA_YES,
                                   .attr = {.size = 4096, .changed = true, .unkept = true}};
        bool by_itself = o == DUE_RELEASE || o == DUE_SETTLED || o == DUE_LATE || o == DUE_RECOVERY || o == DUE_ZEROS;
        assert_int_equal(due(&c), by_itself ? DUE_NONE : DUE_SNAPSHOT);
    }
}

/* ---- what a close left ---- */

/* Each combination: frozen, released, ended, asked, open, and the quiet time over or not. */
static struct due_made made_of(unsigned bits)
{
    return (struct due_made){.frozen = bits & 1, .released = bits & 2, .ended = bits & 4, .asked = bits & 8, .open = bits & 16,
                             .quiet_ns = bits & 32 ? 2000 : 1999, .settle_ns = 2000};
}

static void a_state_settles_when_nobody_can_go_on(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 64; bits++) {
        const struct due_made m = made_of(bits);
        bool quiet = (bits & 32) && !(bits & 16);
        bool want = (bits & 2) && (quiet || ((bits & 4) && (bits & 1)) || ((bits & 4) && (bits & 8) && !(bits & 16)));
        if (due_settles(&m) != want)
            fail_msg("bits %x: %d", bits, !want);
    }
}

static void without_a_quiet_time_the_last_release_settles(void **state)
{
    (void)state;
    const struct due_made m = {.frozen = true, .released = true};
    struct due_made open = m;
    open.open = true;
    assert_true(due_settles(&m));
    assert_false(due_settles(&open));
}

static void a_change_withdraws_settles_or_leaves_a_state(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 64; bits++) {
        const struct due_made m = made_of(bits);
        enum due_fate other = !(bits & 2) ? DUE_STAYS : (bits & 1) ? DUE_SETTLES : DUE_WITHDRAWN;
        assert_int_equal(due_changed(&m, DUE_SAME_HANDLE), DUE_WITHDRAWN);
        assert_int_equal(due_changed(&m, DUE_SAME_PROCESS), DUE_WITHDRAWN);
        assert_int_equal(due_changed(&m, DUE_OTHER_PROCESS), other);
        struct due_made server = m;
        server.settle_ns = 0;
        assert_int_equal(due_changed(&server, DUE_SAME_PROCESS), other);
        assert_int_equal(due_changed(&m, DUE_FROM_ZERO), other);
    }
}

/* ---- of a real image ---- */

static struct verr err;

static int asked(struct live *l, enum due_occasion occasion, const char *name)
{
    struct node node = {.kind = NODE_DISK};
    strcpy(node.name, name);
    struct due_case c = {.occasion = occasion, .node = &node, .data = DUE_DATA_YES};
    return due_ask(&c, l, &err);
}

/* The first segment is only in the store; the others are zero. */
static int place_of_first(void *ctx, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *why)
{
    (void)why;
    *zero = segment != 0;
    *place = *(uint64_t *)ctx;
    *pages = SEG_PAGES;
    return 0;
}

static void the_image_is_read_only_where_it_matters(void **state)
{
    (void)state;
    static uint8_t bytes[SEG_BYTES];
    static const uint8_t zeros[8192];
    char root[64];
    struct fake_source src = {0};
    struct live_set *set = open_set(fake_dir(root), &src, true, NULL);
    struct vid id = vid_random();
    struct live *l;
    CHECK(live_create(set, &id, 1, 0, &l, &err));
    assert_int_equal(asked(l, DUE_CLOSE, "disk.img"), DUE_NONE);
    CHECK(live_write(l, 0, zeros, sizeof zeros, &err));
    assert_int_equal(asked(l, DUE_CLOSE, "disk.img"), DUE_NONE);       /* nothing but zeros */
    assert_int_equal(asked(l, DUE_REVERT, "disk.img"), DUE_NONE);
    assert_int_equal(asked(l, DUE_REQUEST_DIR, "disk.img"), DUE_SNAPSHOT);

    memset(bytes, 7, sizeof bytes);
    uint64_t place = fake_store(&src, bytes);
    const struct live_target to = {2 * SEG_BYTES, SEG_BYTES, place_of_first, &place, NULL};
    CHECK(live_revert(l, &to, LIVE_DROP, &err));
    src.away = true;
    assert_int_equal(asked(l, DUE_CLOSE, "disk.img"), DUE_NONE);       /* not changed */
    CHECK(live_write(l, SEG_BYTES, zeros, sizeof zeros, &err));
    assert_int_equal(asked(l, DUE_CLOSE, ".tmp.img"), DUE_NONE);
    assert_int_equal(asked(l, DUE_REQUEST, "disk.img"), DUE_SNAPSHOT);
    assert_true(asked(l, DUE_CLOSE, "disk.img") < 0);
    src.away = false;
    assert_int_equal(asked(l, DUE_CLOSE, "disk.img"), DUE_SNAPSHOT);
    CHECK(live_set_marks(l, LIVE_REWRITING, 0, &err));
    assert_int_equal(asked(l, DUE_TRUNCATE, "disk.img"), DUE_PARTIAL);
    live_put(l);
    CHECK(live_set_close(set, &err));
    fake_free(&src);
    fake_remove(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_follows_the_table),
        cmocka_unit_test(a_hidden_disk_gets_one_only_when_it_is_named),
        cmocka_unit_test(a_request_always_makes_one),
        cmocka_unit_test(a_finished_rewrite_is_whole_an_unfinished_one_is_not),
        cmocka_unit_test(a_removed_state_comes_back_only_before_it_is_lost),
        cmocka_unit_test(a_state_settles_when_nobody_can_go_on),
        cmocka_unit_test(without_a_quiet_time_the_last_release_settles),
        cmocka_unit_test(a_change_withdraws_settles_or_leaves_a_state),
        cmocka_unit_test(the_image_is_read_only_where_it_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
