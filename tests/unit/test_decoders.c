/* SPDX-License-Identifier: Apache-2.0 */
/* Decoders: the refusals that seeds and mutations of tests/fuzz meet too rarely to rely on, one by one. */
#include "base/endian.h"
#include "base/hash.h"
#include "format/container.h"
#include "format/node.h"
#include "format/recipe.h"
#include "format/storeconf.h"
#include "fpindex/fpindex_internal.h"
#include "live/live_format.h"
#include "proto/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct vid id_of(uint8_t n)
{
    struct vid id;
    memset(id.b, n, VID_BYTES);
    return id;
}

/* ---- container ---- */

static void footer_pages_hold_no_more_than_a_page(void **state)
{
    struct footer_entry e[FOOTER_PAGE_ENTRIES + 1], back[FOOTER_PAGE_ENTRIES];
    struct container_id id = {.store = id_of(1), .container = 5, .version = id_of(2)};
    uint8_t page[FOOTER_PAGE_BYTES];
    const char *why = NULL;
    uint32_t n;
    (void)state;
    memset(e, 0, sizeof e);
    footer_page_encode(&id, 0, e, FOOTER_PAGE_ENTRIES + 1, page);
    assert_int_equal(footer_page_decode(&id, 0, page, back, &n, &why), -EBADMSG);
    /* The last ordinal of a container is 2^24 - 1. */
    footer_page_encode(&id, (1u << ORDINAL_BITS) - 1, e, 2, page);
    assert_int_equal(footer_page_decode(&id, (1u << ORDINAL_BITS) - 1, page, back, &n, &why), -EBADMSG);
    footer_page_encode(&id, (1u << ORDINAL_BITS) - 2, e, 2, page);
    assert_int_equal(footer_page_decode(&id, (1u << ORDINAL_BITS) - 2, page, back, &n, &why), 0);
    /* Nobody has to ask why. */
    page[100] ^= 1;
    assert_int_equal(footer_page_decode(&id, (1u << ORDINAL_BITS) - 2, page, back, &n, NULL), -EBADMSG);
}

/* ---- node, recipes ---- */

static void names_with_dots(void **state)
{
    static const struct { const char *name; bool good; } v[] = {{".", false}, {"..", false}, {".a", true}, {"a.", true}, {"...", true}};
    uint8_t out[NODE_RECORD_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct node n = {.id = id_of(1), .parent = id_of(2), .version = 1, .kind = NODE_DISK, .mode = 0600};
        snprintf(n.name, sizeof n.name, "%s", v[i].name);
        assert_int_equal(node_encode(&n, out) != 0, v[i].good);
    }
}

static void runs_never_stand_in_page_zero(void **state)
{
    struct snaprun run = {0, 1, REF_ZERO}, back[SNAPRCP_PAGE_RUNS];
    struct vid snap = id_of(4);
    uint8_t page[SNAPRCP_PAGE], place[VID_BYTES + 16];
    const char *why = NULL;
    uint32_t n;
    (void)state;
    assert_int_equal(snaprcp_page_encode(&snap, 0, &run, 1, page), -EINVAL);
    assert_int_equal(snaprcp_page_encode(&snap, 1, &run, 1, page), 0);
    memcpy(place, snap.b, VID_BYTES);
    put_le64(place + VID_BYTES, 0);
    memcpy(place + VID_BYTES + 8, page, 8);
    put_le64(page + 8, hash64_seed(page + 16, SNAPRCP_PAGE - 16, hash64(place, sizeof place)));
    assert_int_equal(snaprcp_page_decode(&snap, 0, page, back, &n, &why), -EBADMSG);
}

static void side_files_belong_to_a_snapshot(void **state)
{
    struct snapattr a = {.version = 1};
    uint8_t out[SNAPATTR_BYTES];
    (void)state;
    assert_int_equal(snapattr_encode(&a, out), 0);
    a.snap = id_of(1);
    size_t len = snapattr_encode(&a, out);
    assert_true(len > 0);
    memset(out + 16, 0, VID_BYTES);
    put_le64(out + len - 8, hash64(out, len - 8));
    assert_int_equal(snapattr_decode(out, len, &a, NULL), -EBADMSG);
}

static void pages_of_a_senseless_recipe(void **state)
{
    struct segrcp_run run = {REF_NONE, 1};
    uint16_t len1 = 0;
    uint32_t prefix = 0;
    struct segrcp r = {.bytes = 1, .nruns = 1, .nblocks = 1, .runs = &run, .len1 = &len1, .prefix = &prefix};
    (void)state;
    assert_int_equal(segrcp_data_pages(&r), 0);
    run.ref = 5;
    assert_int_equal(segrcp_data_pages(&r), 1);
}

/* ---- store.conf ---- */

static struct store_conf a_conf(void)
{
    struct store_conf c;
    storeconf_default(&c);
    c.created = 1790000000;
    return c;
}

static void conf_encodes_nothing_that_decode_refuses(void **state)
{
    char text[STORECONF_MAX];
    (void)state;
    for (int i = 0; i < 7; i++) {
        struct store_conf c = a_conf();
        c.version += i == 0;
        c.id = i == 1 ? (struct vid){{0}} : c.id;
        c.block_bytes = i == 2 ? 5000 : c.block_bytes;
        c.slots = i == 3 ? 3 : i == 4 ? 0 : c.slots;
        c.partitions = i == 5 ? 8192 : c.partitions;
        c.fingerprint = i == 6 ? 9 : c.fingerprint;
        assert_int_equal(storeconf_encode(&c, text), 0);
    }
}

/* Replaces a value, or a whole line, and makes the checksum right. */
static int decode_with(const char *from, const char *to)
{
    enum { TAIL = 12 + 16 + 1 };
    char text[STORECONF_MAX], changed[2 * STORECONF_MAX], why[128];
    struct store_conf c = a_conf(), back;
    size_t len = storeconf_encode(&c, text) - TAIL;
    text[len] = '\0';
    char *at = strstr(text, from);
    assert_non_null(at);
    int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    assert_true(n > 0 && n < STORECONF_MAX - TAIL);
    n += snprintf(changed + n, TAIL + 1, "# checksum: %016llx\n", (unsigned long long)hash64(changed, (size_t)n));
    int r = storeconf_decode(changed, (size_t)n, &back, why);
    assert_int_equal(storeconf_decode(changed, (size_t)n, &back, NULL), r);
    return r;
}

static void conf_values_are_strict(void **state)
{
    static const struct { const char *from, *to; int r; } v[] = {
        {"slots = 1\n", "slots = 1 \t\n", 0}, {"slots = 1\n", "slots =\t1\n", 0}, {"slots = 1\n", "slots = 01\n", -EBADMSG},
        {"slots = 1\n", "slots = 18446744073709551616\n", -EBADMSG}, {"slots = 1\n", "slots = 99999999999999999999\n", -EBADMSG},
        {"slots = 1\n", "slots = -1\n", -EBADMSG}, {"slots = 1\n", "slots = \n", -EBADMSG}, {"slots = 1\n", "slots = 0\n", -EBADMSG},
        {"created = 2026-09-21T14:13:20Z", "created = -0", -EBADMSG}, {"created = 2026-09-21T14:13:20Z", "created = -5", 0},
        {"created = 2026-09-21T14:13:20Z", "created = 9223372036854775807", 0},
        {"created = 2026-09-21T14:13:20Z", "created = 9223372036854775808", -EBADMSG},
        {"created = 2026-09-21T14:13:20Z", "created = 2026-02-30T14:13:20Z", -EBADMSG},
        {"version = 1\n", "verXion = 2\nversion = 1\n", -EBADMSG}, {"version = 1\n", "version = 2\n", -ENOTSUP},
        {"version = 1\n", "version = 1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111\n", -EBADMSG},
    };
    (void)state;
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++)
        if (decode_with(v[i].from, v[i].to) != v[i].r)
            fail_msg("%s: not %d", v[i].to, v[i].r);
}

static void conf_of_no_bytes_and_of_too_many(void **state)
{
    struct store_conf c;
    char why[128];
    (void)state;
    assert_int_equal(storeconf_decode("", 0, &c, why), -EBADMSG);
    assert_int_equal(storeconf_decode("", 0, &c, NULL), -EBADMSG);
    static char much[STORECONF_MAX];
    memset(much, '\n', sizeof much);
    assert_int_equal(storeconf_decode(much, sizeof much, &c, why), -EBADMSG);
}

/* `varve init` makes its options of these: what help offers is taken, the default too. */
static void conf_options_take_what_they_offer(void **state)
{
    (void)state;
    struct store_conf c = a_conf();
    const struct store_option *o;
    const char *want;
    char value[STORECONF_VALUE], words[STORECONF_VALUE];
    unsigned n = 0;
    for (; (o = storeconf_option(n)) != NULL; n++) {
        storeconf_get(&c, o->name, value);
        assert_int_equal(storeconf_set(&c, o->name, value, &want), 0);
        snprintf(words, sizeof words, "%s", o->values);
        for (char *word = strtok(words, "|"); !o->bytes && word != NULL && strcmp(word, "N") != 0; word = strtok(NULL, "|")) {
            char back[STORECONF_VALUE];
            assert_int_equal(storeconf_set(&c, o->name, word, NULL), 0);
            storeconf_get(&c, o->name, back);
            assert_string_equal(back, word);
        }
        storeconf_get(&c, o->name, value);
        assert_int_equal(storeconf_set(&c, o->name, "nonsense", &want), -EINVAL);
        storeconf_get(&c, o->name, words);
        assert_string_equal(words, value);
        assert_true(want[0] != '\0');
    }
    assert_int_equal(n, 4);
    storeconf_get(&c, "nothing", value);
    assert_string_equal(value, "");
    assert_int_equal(storeconf_set(&c, "nothing", "1", NULL), -EINVAL);
}

/* ---- index ---- */

static void delta_with_more_partitions_than_entries(void **state)
{
    struct fpi_header h = {.partition = FPI_DELTA, .partitions = 4, .bits = 2, .number = 1, .entries = 1, .seed = 9}, back;
    uint8_t page[PAGE_BYTES];
    const char *why;
    (void)state;
    h.present[0] = 1;
    fpi_header_encode(&h, page);
    assert_int_equal(fpi_header_decode(page, &back, &why), 0);
    h.present[0] = 3;
    fpi_header_encode(&h, page);
    assert_int_equal(fpi_header_decode(page, &back, &why), -EBADMSG);
}

static void page_behind_the_last_one(void **state)
{
    uint8_t page[PAGE_BYTES] = {0};
    (void)state;
    fpi_page_seal(page, FPI_DATA, 3, 5, 9);
    assert_int_equal(fpi_page_check(page, FPI_DATA, 3, 3 * FPI_PAGE_ENTRIES + 5, 9), 5);
    assert_int_equal(fpi_page_check(page, FPI_DATA, 3, 3 * FPI_PAGE_ENTRIES, 9), -EBADMSG);
    assert_int_equal(fpi_page_check(page, FPI_DATA, 3, 5, 9), -EBADMSG);
}

/* ---- journal ---- */

static int decode_again(const struct live_head *h)
{
    struct vid disk = id_of(3);
    struct live_record rec = {.flags = LIVE_COMPLETE, .seq = 1}, back_rec;
    struct live_head back;
    size_t len = live_record_length(h);
    uint8_t *out = malloc(len);
    assert_non_null(out);
    live_record_encode(&disk, 64, &rec, h, out);
    int r = live_record_decode(&disk, 64, out, len, &back_rec, &back);
    assert_int_equal(live_record_decode(&disk, 64, out, len, &back_rec, NULL), 0);
    if (r == 0)
        live_head_release(&back);
    free(out);
    return r;
}

static void heads_that_no_writer_writes(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct live_pend pend[2];
        struct live_anchor anchor = {{id_of(1), 1, id_of(2)}, 1};
        struct live_head h = {.size = 4096, .next_seq = 9, .next_no = 9, .table = 1, .layer = 2, .npend = 2, .nanchors = 1, .pend = pend, .anchors = &anchor};
        memset(pend, 0, sizeof pend);
        for (unsigned k = 0; k < 2; k++) {
            pend[k].p.ref.seq = 3 + k;
            pend[k].p.ref.snap = id_of(7);
            pend[k].table = 3;
            pend[k].layer = 4;
        }
        pend[1].p.ref.seq = i == 1 ? 3 : i == 2 ? 0 : 4;
        pend[1].p.name_s = i == 3 ? -1 : i == 4 ? INT64_MAX : 0;
        pend[1].p.ref.snap = i == 5 ? (struct vid){{0}} : id_of(8);
        anchor.ref.disk = i == 6 ? (struct vid){{0}} : id_of(1);
        anchor.ref.snap = i == 7 ? (struct vid){{0}} : id_of(2);
        pend[0].p.flags = i == 8 ? 1u << 30 : 0;
        assert_int_equal(decode_again(&h), i == 0 ? 0 : -EBADMSG);
    }
}

static void claims_of_a_cut_record(void **state)
{
    struct vid disk = id_of(3);
    struct live_anchor anchors[4];
    struct live_pend pend;
    struct live_record rec = {.seq = 1};
    memset(anchors, 1, sizeof anchors);
    memset(&pend, 0, sizeof pend);
    struct live_head h = {.next_seq = 9, .next_no = 9, .table = 1, .layer = 2, .npend = 1, .nanchors = 4, .pend = &pend, .anchors = anchors};
    size_t len = live_record_length(&h);
    uint8_t *out = malloc(len);
    (void)state;
    assert_non_null(out);
    live_record_encode(&disk, 0, &rec, &h, out);
    assert_int_equal(live_record_claims(out, len), len);
    assert_int_equal(live_record_claims(out, LIVE_RECORD_HEAD), 0);
    assert_int_equal(live_record_claims(out, LIVE_RECORD_HEAD + 128), 0);           /* not even its anchors are there */
    assert_int_equal(live_record_claims(out, LIVE_RECORD_HEAD + 128 + 4 * 48), 0);  /* but not its pending snapshot */
    free(out);
}

/* ---- messages ---- */

static void frames_of_references_fill_up(void **state)
{
    static uint8_t frame[PROTO_FRAME_MAX];
    struct proto_build b;
    struct proto_head head = {.sequence = 1};
    struct proto_msg m;
    (void)state;
    proto_resolutions_begin(&b, frame, 0, 0);
    while (proto_resolutions_add(&b, REF_NONE))
        ;
    uint32_t count = b.count;
    assert_int_equal(proto_decode(frame, proto_resolutions_finish(&b, &head), &m, NULL), 0);
    assert_int_equal(m.count, count);
    proto_new_references_begin(&b, frame, 0, 0);
    while (proto_new_references_add(&b, 5))
        ;
    assert_int_equal(b.count, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(footer_pages_hold_no_more_than_a_page), cmocka_unit_test(names_with_dots),
        cmocka_unit_test(runs_never_stand_in_page_zero), cmocka_unit_test(side_files_belong_to_a_snapshot),
        cmocka_unit_test(pages_of_a_senseless_recipe), cmocka_unit_test(conf_encodes_nothing_that_decode_refuses),
        cmocka_unit_test(conf_values_are_strict), cmocka_unit_test(conf_of_no_bytes_and_of_too_many),
        cmocka_unit_test(conf_options_take_what_they_offer),
        cmocka_unit_test(delta_with_more_partitions_than_entries), cmocka_unit_test(page_behind_the_last_one),
        cmocka_unit_test(heads_that_no_writer_writes), cmocka_unit_test(claims_of_a_cut_record),
        cmocka_unit_test(frames_of_references_fill_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
