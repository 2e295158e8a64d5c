/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No byte means nothing: what a decoder accepts is exactly what its encoder writes. Each record is changed at each of its
 * bytes, with the checksum made right again; then it is refused, or what was understood is written again as those very
 * bytes. A decoder that passes over a reserved field, an unknown flag, padding, or a count that does not fit fails here.
 */
#include "base/endian.h"
#include "base/hash.h"
#include "format/container.h"
#include "format/deletions.h"
#include "format/node.h"
#include "format/owner.h"
#include "format/recipe.h"
#include "fpindex/fpindex_internal.h"
#include "live/live_format.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

static uint64_t rng;

static uint64_t rnd(void)
{
    rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = rng;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* One kind of record. sum: makes the checksum right. again: decodes into what encode writes; < 0: refused, else its length. */
struct kind {
    const char *name;
    void (*sum)(uint8_t *data, size_t len);
    int (*again)(const uint8_t *data, size_t len, uint8_t *out);
};

enum { COPY_MAX = LIVE_HEADER_BYTES * 2 };
static uint8_t out[LIVE_HEADER_BYTES * 32];
static uint8_t *guard;      /* a page that nobody may touch; records end in front of it: a byte read too far is a crash */

static int seed_setup(void **state)
{
    (void)state;
    const char *seed = getenv("VARVE_SEED");
    rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
    uint8_t *mem = mmap(NULL, COPY_MAX + LIVE_HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED || mprotect(mem + COPY_MAX, LIVE_HEADER_BYTES, PROT_NONE) < 0)
        return -1;
    guard = mem + COPY_MAX;
    return 0;
}

static void try_value(const struct kind *k, const uint8_t *data, size_t len, size_t at, uint8_t value)
{
    uint8_t *copy = guard - len;
    memcpy(copy, data, len);
    copy[at] = value;
    k->sum(copy, len);
    int n = k->again(copy, len, out);
    if (n >= 0 && ((size_t)n != len || memcmp(out, copy, len) != 0))
        fail_msg("%s: byte %zu of %zu as %#x is passed over", k->name, at, len, value);
}

static void no_byte_means_nothing(const struct kind *k, const uint8_t *data, size_t len)
{
    assert_true(len <= COPY_MAX);
    uint8_t *copy = guard - len;
    memcpy(copy, data, len);
    k->sum(copy, len);
    assert_memory_equal(copy, data, len);
    assert_int_equal(k->again(data, len, out), len);
    assert_memory_equal(out, data, len);
    for (size_t at = 0; at < len; at++) {
        for (unsigned bit = 0; bit < 8; bit++)
            try_value(k, data, len, at, data[at] ^ (uint8_t)(1u << bit));
        try_value(k, data, len, at, (uint8_t)rnd());
        try_value(k, data, len, at, 0xFF);
        try_value(k, data, len, at, 0);
    }
}

/* ---- records of STORE ---- */

static void sum_tail(uint8_t *data, size_t len) { put_le64(data + len - 8, hash64(data, len - 8)); }

static int again_node(const uint8_t *data, size_t len, uint8_t *to)
{
    struct node n;
    int r = node_decode(data, len, &n, NULL);
    return r < 0 ? r : (int)node_encode(&n, to);
}

static void node_records(void **state)
{
    (void)state;
    static const struct kind k = {"node record", sum_tail, again_node};
    for (unsigned i = 0; i < 2; i++) {
        struct node n = {.id = vid_random(), .parent = vid_random(), .version = 7, .kind = i ? NODE_DIR : NODE_DISK, .mode = 0640,
                         .flags = i ? NODE_SELECTIVE : 0, .name = "disk.img"};
        uint8_t data[NODE_RECORD_MAX];
        no_byte_means_nothing(&k, data, node_encode(&n, data));
    }
}

static int again_owner(const uint8_t *data, size_t len, uint8_t *to)
{
    struct owner_record o;
    int r = owner_decode(data, len, NULL, &o, NULL);
    return r < 0 ? r : owner_encode(&o, to) < 0 ? -1 : OWNER_BYTES;
}

static void owner_records(void **state)
{
    (void)state;
    static const struct kind k = {"owner record", sum_tail, again_owner};
    struct owner_record o = {.store = vid_random(), .vm = vid_random(), .host = vid_random(), .epoch = 5};
    uint8_t data[OWNER_BYTES];
    assert_int_equal(owner_encode(&o, data), 0);
    no_byte_means_nothing(&k, data, sizeof data);
}

static int again_deletions(const uint8_t *data, size_t len, uint8_t *to)
{
    struct deletion_log log;
    uint64_t refs[8];
    int r = deletion_log_decode(data, len, NULL, &log, NULL);
    if (r < 0)
        return r;
    assert_true(log.n <= 8);
    for (uint64_t i = 0; i < log.n; i++)
        refs[i] = deletion_log_ref(&log, i);
    deletion_log_encode(&log.store, log.generation, refs, log.n, to);
    return (int)deletion_log_bytes(log.n);
}

static void deletion_logs(void **state)
{
    (void)state;
    static const struct kind k = {"deletion log", sum_tail, again_deletions};
    const uint64_t refs[] = {ref_make(70000, 1), ref_make(70000, 2), ref_make(70001, 0)};
    struct vid store = vid_random();
    for (uint64_t n = 0; n <= 3; n += 3) {
        uint8_t data[128];
        deletion_log_encode(&store, 2, refs, n, data);
        no_byte_means_nothing(&k, data, deletion_log_bytes(n));
    }
}

static int again_segment(const uint8_t *data, size_t len, uint8_t *to)
{
    struct segrcp s;
    int r = segrcp_decode(data, len, &s, NULL);
    if (r < 0)
        return r;
    r = segrcp_encode(&s, to, sizeof out);
    segrcp_release(&s);
    return r;
}

static void segment_recipes(void **state)
{
    (void)state;
    static const struct kind k = {"segment recipe", sum_tail, again_segment};
    struct segrcp_run runs[] = {{ref_make(70000, 5), 3}, {REF_ZERO, 9000}, {ref_make(70001, 0), 1}};
    uint16_t len1[] = {4095, 99, 8191, 0};
    uint32_t prefix[] = {1, 2, 3, 4};
    struct segrcp s = {.bytes = 4096 + 100 + 8192 + 9000 + 1, .nruns = 3, .nblocks = 4, .runs = runs, .len1 = len1, .prefix = prefix};
    s.data_pages = segrcp_data_pages(&s);
    uint8_t data[512];
    int n = segrcp_encode(&s, data, sizeof data);
    assert_true(n > 0);
    no_byte_means_nothing(&k, data, (size_t)n);
}

static int again_snap(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct snaprcp s;
    int r = snaprcp_decode(data, &s, NULL);
    return r < 0 ? r : snaprcp_encode(&s, to) < 0 ? -EINVAL : SNAPRCP_PAGE;
}

static void snapshot_headers(void **state)
{
    (void)state;
    static const struct kind k = {"snapshot recipe", sum_tail, again_snap};
    struct snaprcp s = {.store = vid_random(), .info.ref.disk = vid_random(), .vm = vid_random(), .info.ref.snap = vid_random(),
                        .info.ref.seq = 3, .epoch = 1,
                        .info.group_members = 1, .info.size = 5 << SEG_SHIFT, .info.alloc_bytes = 4096, .nruns = 2, .info.name_s = 1790000000,
                        .info.mode = 0440, .info.label = "a-label", .info.note = "a note", .info.flags = SNAP_PARTIAL};
    uint8_t data[SNAPRCP_PAGE];
    assert_int_equal(snaprcp_encode(&s, data), 0);
    no_byte_means_nothing(&k, data, sizeof data);
}

static int again_attr(const uint8_t *data, size_t len, uint8_t *to)
{
    struct snapattr a;
    int r = snapattr_decode(data, len, &a, NULL);
    return r < 0 ? r : (int)snapattr_encode(&a, to);
}

static void side_files(void **state)
{
    (void)state;
    static const struct kind k = {"side file", sum_tail, again_attr};
    for (unsigned i = 0; i < 2; i++) {
        struct snapattr a = {.snap = vid_random(), .version = 2, .set_flags = SNAP_PARTIAL, .mode = i ? 0440 : 0, .uid = i ? 7 : 0,
                             .owner_set = i, .protected_ = true, .label = "label", .note = "some note"};
        uint8_t data[SNAPATTR_BYTES];
        no_byte_means_nothing(&k, data, snapattr_encode(&a, data));
    }
}

static struct vid snap_id;

static void sum_page(uint8_t *p, size_t len)
{
    uint8_t place[VID_BYTES + 8 + 8];
    memcpy(place, snap_id.b, VID_BYTES);
    put_le64(place + VID_BYTES, 1);
    memcpy(place + VID_BYTES + 8, p, 8);
    put_le64(p + 8, hash64_seed(p + 16, len - 16, hash64(place, sizeof place)));
}

static int again_page(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
    uint32_t n;
    int r = snaprcp_page_decode(&snap_id, 1, data, runs, &n, NULL);
    return r < 0 ? r : snaprcp_page_encode(&snap_id, 1, runs, n, to) < 0 ? -EINVAL : SNAPRCP_PAGE;
}

static void pages_of_runs(void **state)
{
    (void)state;
    static const struct kind k = {"page of runs", sum_page, again_page};
    static const struct snaprun runs[] = {{0, 3, UINT64_C(70000) << ORDINAL_BITS | 9}, {3, 1, REF_ZERO}};
    uint8_t data[SNAPRCP_PAGE];
    snap_id = vid_random();
    assert_int_equal(snaprcp_page_encode(&snap_id, 1, runs, 2, data), 0);
    no_byte_means_nothing(&k, data, sizeof data);
}

/* ---- containers ---- */

static const struct container_id cid = {.container = 65536 + 7};

static int again_header(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct cheader h;
    int r = cheader_decode(data, &h, NULL);
    if (r == 0)
        cheader_encode(&h, to);
    return r < 0 ? r : CHEADER_BYTES;
}

static int again_trailer(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct ctrailer t;
    int r = ctrailer_decode(data, &t, NULL);
    if (r == 0)
        ctrailer_encode(&t, to);
    return r < 0 ? r : CTRAILER_BYTES;
}

static uint8_t payload[FRAME_RAW_MAX];

static void sum_frame(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p + 80, hash64(p, 80));
    uint32_t stored = get_le32(p + 68);
    put_le64(p + 88, hash64_seed(payload, stored <= sizeof payload ? stored : 0, get_le64(p + 80)));
}

static int again_frame(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct cframe f;
    int r = cframe_decode(data, &f, NULL);
    if (r == 0)
        r = cframe_check(data, payload, NULL);
    if (r == 0)
        cframe_encode(&f, payload, to);
    return r < 0 ? r : CFRAME_BYTES;
}

static void sum_footer(uint8_t *p, size_t len)
{
    uint8_t where[52] = {0};
    memcpy(where, cid.store.b, VID_BYTES);
    memcpy(where + VID_BYTES, cid.version.b, VID_BYTES);
    put_le64(where + 32, cid.container);
    put_le32(where + 40, 85);
    memcpy(where + 44, p, 8);
    put_le64(p + 8, hash64_seed(p + 16, len - 16, hash64(where, sizeof where)));
}

static int again_footer(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    uint32_t n;
    int r = footer_page_decode(&cid, 85, data, e, &n, NULL);
    if (r == 0)
        footer_page_encode(&cid, 85, e, n, to);
    return r < 0 ? r : FOOTER_PAGE_BYTES;
}

static void containers(void **state)
{
    (void)state;
    static const struct kind kh = {"container header", sum_tail, again_header}, kt = {"trailer", sum_tail, again_trailer},
                             kf = {"frame", sum_frame, again_frame}, kp = {"footer page", sum_footer, again_footer};
    uint8_t data[FOOTER_PAGE_BYTES];
    const struct cheader h = {.id = cid, .type = CONTAINER_BLOCKS, .flags = CONTAINER_SHARED};
    cheader_encode(&h, data);
    no_byte_means_nothing(&kh, data, CHEADER_BYTES);
    const struct ctrailer t = {.id = cid, .section = 1, .first_ordinal = 9, .entries = 4, .prev_trailer = 5000, .section_off = 5128,
                               .footer_off = 9000};
    ctrailer_encode(&t, data);
    no_byte_means_nothing(&kt, data, CTRAILER_BYTES);
    const struct cframe f = {.id = cid, .codec = FRAME_ZSTD, .first_ordinal = 9, .blocks = 4, .raw_len = 70000, .stored_len = 3000};
    cframe_encode(&f, payload, data);
    no_byte_means_nothing(&kf, data, CFRAME_BYTES);
    const struct footer_entry e[2] = {{.frame_off = 5128, .in_frame = 4096, .len = 4096}, {.len = 0}};
    footer_page_encode(&cid, 85, e, 2, data);
    no_byte_means_nothing(&kp, data, FOOTER_PAGE_BYTES);
}

/* ---- index ---- */

static int again_index(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct fpi_header h;
    const char *why;
    int r = fpi_header_decode(data, &h, &why);
    if (r == 0)
        fpi_header_encode(&h, to);
    return r < 0 ? r : PAGE_BYTES;
}

enum { INDEX_SEED = 77 };

static void sum_index_page(uint8_t *p, size_t len) { put_le64(p, hash64_seed(p + 8, len - 8, INDEX_SEED)); }

static int again_index_page(const uint8_t *data, size_t len, uint8_t *to)
{
    int n = fpi_page_check(data, FPI_DATA, 1, FPI_PAGE_ENTRIES + 3, INDEX_SEED);
    if (n < 0)
        return n;
    memcpy(to, data, len);
    fpi_page_seal(to, FPI_DATA, 1, 3, INDEX_SEED);
    return PAGE_BYTES;
}

static void index_files(void **state)
{
    (void)state;
    static const struct kind kh = {"index header", sum_tail, again_index}, kp = {"index page", sum_index_page, again_index_page};
    uint8_t data[PAGE_BYTES] = {0};
    struct fpi_header base = {.partition = 3, .partitions = 16, .bits = 4, .number = 5, .merged_through = 9, .entries = 300, .seed = 4};
    fpi_header_encode(&base, data);
    no_byte_means_nothing(&kh, data, sizeof data);
    struct fpi_header delta = {.partition = FPI_DELTA, .partitions = 16, .bits = 4, .number = 5, .entries = 300, .seed = 4, .present = {9}};
    fpi_header_encode(&delta, data);
    no_byte_means_nothing(&kh, data, sizeof data);
    memset(data, 0x5A, sizeof data);
    fpi_page_seal(data, FPI_DATA, 1, 3, INDEX_SEED);
    no_byte_means_nothing(&kp, data, sizeof data);
}

/* ---- STATE ---- */

static struct vid disk;

static uint64_t seed_of(uint64_t position) { return get_le64(disk.b) ^ position; }

static void sum_live_header(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p + 56, hash64(p, 56));
}

static int again_live_header(const uint8_t *data, size_t len, uint8_t *to)
{
    int r = live_header_page_decode(LIVE_TABLE, &disk, 3, data);
    memset(to, 0, len);
    live_header_encode(LIVE_TABLE, &disk, 3, to);
    return r < 0 ? r : (int)len;
}

static void sum_state(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p + 56, hash64_seed(p, 56, seed_of(3)));
}

static int again_state(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct live_state s;
    int r = live_state_decode(&disk, 3, data, &s);
    if (r == 0)
        live_state_encode(&disk, 3, &s, to);
    return r < 0 ? r : LIVE_STATE_BYTES;
}

static void sum_entry(uint8_t *p, size_t len)
{
    (void)len;
    put_le32(p + 12, (uint32_t)hash64_seed(p, 12, seed_of(3)));
}

static int again_entry(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct live_entry e;
    int r = live_entry_decode(&disk, 3, data, &e);
    if (r == 0)
        live_entry_encode(&disk, 3, &e, to);
    return r < 0 ? r : LIVE_ENTRY_BYTES;
}

static void sum_slot(uint8_t *p, size_t len)
{
    put_le64(p + len - 8, hash64_seed(p, len - 8, seed_of(3)));
}

static int again_slot(const uint8_t *data, size_t len, uint8_t *to)
{
    (void)len;
    struct live_slot s;
    int r = live_slot_decode(&disk, 3, data, &s);
    if (r == 0)
        live_slot_encode(&disk, 3, &s, to);
    return r < 0 ? r : LIVE_SLOT_BYTES;
}

static void live_files(void **state)
{
    (void)state;
    static const struct kind kh = {"table header", sum_live_header, again_live_header}, kt = {"attributes", sum_state, again_state},
                             ke = {"table entry", sum_entry, again_entry}, ks = {"slot", sum_slot, again_slot};
    uint8_t data[LIVE_HEADER_BYTES] = {0};
    disk = vid_random();
    live_header_encode(LIVE_TABLE, &disk, 3, data);
    no_byte_means_nothing(&kh, data, sizeof data);
    const struct live_state st = {.size = 1 << 22, .alloc_bytes = 4096, .changed = true, .clean = true, .dirty = 1};
    live_state_encode(&disk, 3, &st, data);
    no_byte_means_nothing(&kt, data, LIVE_STATE_BYTES);
    const struct live_entry e[] = {{SEGK_STORED, true, 17, ref_make(70000, 4)}, {SEGK_FROZEN, false, 17, 4}, {SEGK_ZERO, true, 0, 0}};
    for (unsigned i = 0; i < 3; i++) {
        live_entry_encode(&disk, 3, &e[i], data);
        no_byte_means_nothing(&ke, data, LIVE_ENTRY_BYTES);
    }
    const struct live_slot s[] = {{.present = {6, 0, 0, 1}, .zero = {2}, .absent = 509, .place = ref_make(70000, 4), .flags = LIVE_SLOT_TAGGED},
                                  {.present = {1}}, {.absent = 1}};
    for (unsigned i = 0; i < 3; i++) {
        live_slot_encode(&disk, 3, &s[i], data);
        no_byte_means_nothing(&ks, data, LIVE_SLOT_BYTES);
    }
}

enum { AT = 640 };      /* offset of the record in its journal */

static void sum_record(uint8_t *p, size_t len)
{
    put_le64(p + 56, 0);
    put_le64(p + 56, hash64_seed(p, len, AT));
}

static int again_record(const uint8_t *data, size_t len, uint8_t *to)
{
    struct live_record rec;
    struct live_head h;
    int r = live_record_decode(&disk, AT, data, len, &rec, &h);
    if (r < 0)
        return r;
    size_t n = live_record_length(&h);
    if (n <= sizeof out)
        live_record_encode(&disk, AT, &rec, &h, to);
    live_head_release(&h);
    return (int)n;
}

static void journal_records(void **state)
{
    (void)state;
    static const struct kind k = {"journal record", sum_record, again_record};
    disk = vid_random();
    struct live_pend pend[2] = {{.p = {.ref.seq = 3, .ref.snap = vid_random(), .size = 99, .name_s = 5, .label = "a", .note = "some note"},
                                 .table = 4, .layer = 5},
                                {.p = {.ref.seq = 8, .ref.snap = vid_random(), .flags = SNAP_SEALED, .group_members = 7}, .table = 6,
                                 .layer = 7}};
    struct live_anchor anchor = {{vid_random(), 2, vid_random()}, 9};
    struct live_head h = {.size = 1000, .next_seq = 9, .next_no = 10, .table = 8, .layer = 9, .mtime_ns = -1, .npend = 2, .nanchors = 1,
                          .pend = pend, .anchors = &anchor, .changed = true, .marks = LIVE_REWRITING};
    const struct live_record rec = {LIVE_COMPLETE, 0, 44, 128};
    uint8_t data[1024];
    size_t len = live_record_length(&h);
    assert_true(len <= sizeof data);
    live_record_encode(&disk, AT, &rec, &h, data);
    no_byte_means_nothing(&k, data, len);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_records), cmocka_unit_test(owner_records), cmocka_unit_test(deletion_logs),
        cmocka_unit_test(segment_recipes),
        cmocka_unit_test(snapshot_headers),
        cmocka_unit_test(side_files),
        cmocka_unit_test(pages_of_runs),
        cmocka_unit_test(containers),
        cmocka_unit_test(index_files),
        cmocka_unit_test(live_files),
        cmocka_unit_test(journal_records),
    };
    return cmocka_run_group_tests(tests, seed_setup, NULL);
}
