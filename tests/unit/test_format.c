/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Formats: node record, store.conf, segment recipe, snapshot recipe, side file. For each: random values round-trip, what
 * was encoded again is identical, every flipped bit and every truncation is found, random bytes never crash, and fields
 * that lie under a correct checksum are still refused. (The container has its own test.)
 */
#include "base/clock.h"
#include "base/endian.h"
#include "base/hash.h"
#include "format/deletions.h"
#include "format/node.h"
#include "format/owner.h"
#include "format/recipe.h"
#include "format/storeconf.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

static int seed_setup(void **state)
{
    (void)state;
    const char *seed = getenv("VARVE_SEED");
    rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    print_message("VARVE_SEED=%llu\n", (unsigned long long)rng);
    return 0;
}

static void rnd_bytes(void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)p)[i] = (uint8_t)rnd();
}

static struct vid rnd_id(void)
{
    struct vid id;
    rnd_bytes(id.b, sizeof id.b);
    id.b[0] |= 1;
    return id;
}

static struct snaprun page_runs[SNAPRCP_PAGE_RUNS];
static struct vid page_snap;

/* A decoder under one signature, for the tests that only ask "is it refused?". Bytes are copied to an allocation of their
 * exact length, so that the sanitizer sees any read behind them. */
typedef int decoder(const uint8_t *data, size_t len);

static int try_node(const uint8_t *data, size_t len)
{
    struct node n;
    const char *why = NULL;
    int r = node_decode(data, len, &n, &why);
    assert_true(r == 0 || why != NULL);
    return r;
}

static int try_conf(const uint8_t *data, size_t len)
{
    struct store_conf c;
    char why[128] = "";
    int r = storeconf_decode((const char *)data, len, &c, why);
    assert_true(r == 0 || why[0] != '\0');
    return r;
}

static int try_segment(const uint8_t *data, size_t len)
{
    struct segrcp s;
    const char *why = NULL;
    int r = segrcp_decode(data, len, &s, &why);
    if (r == 0)
        segrcp_release(&s);
    assert_true(r == 0 || why != NULL);
    return r;
}

static int try_snap(const uint8_t *data, size_t len)
{
    struct snaprcp s;
    const char *why = NULL;
    if (len != SNAPRCP_PAGE)
        return -EBADMSG;
    int r = snaprcp_decode(data, &s, &why);
    assert_true(r == 0 || why != NULL);
    return r;
}

static int try_page(const uint8_t *data, size_t len)
{
    uint32_t n;
    const char *why = NULL;
    if (len != SNAPRCP_PAGE)
        return -EBADMSG;
    int r = snaprcp_page_decode(&page_snap, 7, data, page_runs, &n, &why);
    assert_true(r == 0 || why != NULL);
    return r;
}

static int try_attr(const uint8_t *data, size_t len)
{
    struct snapattr a;
    const char *why = NULL;
    int r = snapattr_decode(data, len, &a, &why);
    assert_true(r == 0 || why != NULL);
    return r;
}

static int try_exact(decoder *decode, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len + (len == 0));
    assert_non_null(copy);
    memcpy(copy, data, len);
    int r = decode(copy, len);
    free(copy);
    return r;
}

/* every_bit: flip each bit of each byte; else one random bit of each byte. */
static void assert_damage_is_found(decoder *decode, const uint8_t *data, size_t len, bool every_bit)
{
    uint8_t *copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, data, len);
    assert_int_equal(decode(copy, len), 0);
    for (size_t i = 0; i < len; i++) {
        unsigned only = (unsigned)(rnd() % 8);
        for (unsigned bit = every_bit ? 0 : only; bit < (every_bit ? 8 : only + 1); bit++) {
            copy[i] = data[i] ^ (uint8_t)(1u << bit);
            int r = decode(copy, len);
            if (r >= 0)
                fail_msg("bit %u of byte %zu of %zu flipped, and nobody noticed", bit, i, len);
            copy[i] = data[i];
        }
    }
    free(copy);
    for (size_t cut = 0; cut < len; cut += 1 + (len > 5000 ? rnd() % 50 : 0))
        assert_true(try_exact(decode, data, cut) < 0);
}

/* Random bytes; bytes with a random field but a correct frame, so that the checks behind the checksum are reached. */
static void assert_never_crashes(decoder *decode, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len + 64);
    assert_non_null(copy);
    for (int i = 0; i < 300; i++) {
        size_t n = rnd() % (len + 64);
        rnd_bytes(copy, n);
        if (rnd() % 2 && n >= 8)
            memcpy(copy, data, 8);
        try_exact(decode, copy, n);
    }
    free(copy);
}

/* Overwrites bytes at off and closes the frame again with a correct checksum. */
static void reframe(uint8_t *data, size_t len, size_t off, const void *bytes, size_t n)
{
    memcpy(data + off, bytes, n);
    put_le64(data + len - 8, hash64(data, len - 8));
}

static void assert_refused_with(decoder *decode, const uint8_t *data, size_t len, size_t off, uint64_t value, size_t n, int want)
{
    uint8_t b[8], *copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, data, len);
    put_le64(b, value);
    reframe(copy, len, off, b, n);
    assert_int_equal(decode(copy, len), want);
    free(copy);
}

/* ---- node record ---- */

static struct node sample_node(void)
{
    struct node n = {
        .id = rnd_id(), .parent = rnd_id(), .version = 1 + rnd() / 2, .kind = rnd() % 2 ? NODE_DIR : NODE_DISK,
        .mode = (uint32_t)(rnd() & 0777), .uid = (uint32_t)rnd(), .gid = (uint32_t)rnd(), .atime_ns = (int64_t)rnd(),
        .mtime_ns = (int64_t)rnd(), .ctime_ns = (int64_t)rnd(), .btime_ns = (int64_t)rnd(),
    };
    if (rnd() % 2)
        n.flags = n.kind == NODE_DIR ? NODE_SELECTIVE : NODE_GONE;
    if (rnd() % 2)
        n.replaces = rnd_id();
    size_t len = 3 + rnd() % (NODE_NAME_MAX - 2);
    for (size_t i = 0; i < len; i++) {
        n.name[i] = (char)(1 + rnd() % 255);
        if (n.name[i] == '/')
            n.name[i] = '_';
    }
    return n;
}

static void node_records_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 2000; i++) {
        uint8_t a[NODE_RECORD_MAX], b[NODE_RECORD_MAX];
        struct node n = sample_node(), back;
        size_t len = node_encode(&n, a);
        assert_in_range(len, 1, NODE_RECORD_MAX);
        assert_int_equal(node_decode(a, len, &back, NULL), 0);
        assert_string_equal(n.name, back.name);
        assert_true(vid_eq(&n.id, &back.id) && vid_eq(&n.parent, &back.parent) && vid_eq(&n.replaces, &back.replaces));
        assert_true(n.version == back.version && n.kind == back.kind && n.flags == back.flags && n.mode == back.mode);
        assert_true(n.uid == back.uid && n.gid == back.gid && n.atime_ns == back.atime_ns && n.mtime_ns == back.mtime_ns);
        assert_true(n.ctime_ns == back.ctime_ns && n.btime_ns == back.btime_ns);
        assert_int_equal(node_encode(&back, b), len);
        assert_memory_equal(a, b, len);
    }
}

static void damaged_node_records_are_refused(void **state)
{
    (void)state;
    uint8_t a[NODE_RECORD_MAX];
    struct node n = sample_node();
    size_t len = node_encode(&n, a);
    assert_damage_is_found(try_node, a, len, true);
    assert_never_crashes(try_node, a, len);
    a[len] = 0;
    assert_int_equal(try_node(a, len + 1), -EBADMSG);
    assert_refused_with(try_node, a, len, 8, 2, 4, -ENOTSUP);
    assert_refused_with(try_node, a, len, 8, 0, 4, -EBADMSG);
    assert_refused_with(try_node, a, len, 72, 3, 4, -EBADMSG);                   /* kind */
    assert_refused_with(try_node, a, len, 76, 1u << 2, 4, -EBADMSG);             /* flags */
    assert_refused_with(try_node, a, len, 76, n.kind == NODE_DIR ? NODE_GONE : NODE_SELECTIVE, 4, -EBADMSG);
    assert_refused_with(try_node, a, len, 64, 0, 8, -EBADMSG);                   /* version of the content */
    assert_refused_with(try_node, a, len, 80, 010000, 4, -EBADMSG);              /* mode */
    assert_refused_with(try_node, a, len, 92, UINT32_MAX, 4, -EBADMSG);          /* length of the name */
    assert_refused_with(try_node, a, len, 92, len - 136 - 1, 4, -EBADMSG);
    assert_refused_with(try_node, a, len, 128, '/', 1, -EBADMSG);
    assert_refused_with(try_node, a, len, 129, 0, 1, -EBADMSG);
}

static void nodes_with_impossible_fields_are_not_encoded(void **state)
{
    (void)state;
    static const char *const names[] = {"", ".", "..", "a/b", "/", "/a", "a/"};
    uint8_t a[NODE_RECORD_MAX];
    struct node n;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        n = sample_node();
        snprintf(n.name, sizeof n.name, "%s", names[i]);
        assert_int_equal(node_encode(&n, a), 0);
    }
    n = sample_node();
    memset(n.name, 'x', sizeof n.name); /* 256 bytes, no end */
    assert_int_equal(node_encode(&n, a), 0);
    n.name[NODE_NAME_MAX] = '\0';
    assert_int_equal(node_encode(&n, a), 128 + 255 + 8);
    n = sample_node();
    n.parent = n.id;
    assert_int_equal(node_encode(&n, a), 0);
    n = sample_node();
    n.kind = NODE_DISK;
    n.flags = 0;
    n.mode = 04755;
    assert_int_equal(node_encode(&n, a), 0);
    n.kind = NODE_DIR;
    assert_true(node_encode(&n, a) > 0);
}

static void only_the_root_may_have_no_name(void **state)
{
    (void)state;
    uint8_t a[NODE_RECORD_MAX];
    struct node root = {.id = rnd_id(), .version = 1, .kind = NODE_DIR, .mode = 0755}, back;
    size_t len = node_encode(&root, a);
    assert_int_equal(len, 136);
    assert_int_equal(node_decode(a, len, &back, NULL), 0);
    assert_true(vid_is_zero(&back.parent) && back.name[0] == '\0');
    root.kind = NODE_DISK;
    assert_int_equal(node_encode(&root, a), 0);
}

/* ---- store.conf ---- */

static struct store_conf sample_conf(void)
{
    struct store_conf c;
    storeconf_default(&c);
    c.fingerprint = rnd() % 2 ? STORECONF_SHA256 : STORECONF_SHA1;
    c.block_bytes = 4096u << rnd() % 3;
    c.cdc = rnd() % 2;
    c.slots = 1u << rnd() % 13;
    c.partitions = 1u << rnd() % 13;
    static const int64_t edges[] = {0, 1, -1, 1795316400, 253402300799, 253402300800, INT64_MAX, -INT64_MAX,
                                    951782400 /* 29 February 2000 */};
    c.created = rnd() % 2 ? edges[rnd() % 9] : (int64_t)(rnd() % 253402300800);
    return c;
}

static void store_conf_round_trips(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        char a[STORECONF_MAX], b[STORECONF_MAX], why[128];
        struct store_conf c = sample_conf(), back;
        size_t len = storeconf_encode(&c, a);
        assert_in_range(len, 100, STORECONF_MAX - 1);
        assert_int_equal(strlen(a), len);
        assert_int_equal(storeconf_decode(a, len, &back, why), 0);
        assert_true(vid_eq(&c.id, &back.id) && c.version == back.version && c.fingerprint == back.fingerprint);
        assert_true(c.block_bytes == back.block_bytes && c.cdc == back.cdc && c.slots == back.slots && c.partitions == back.partitions);
        assert_memory_equal(c.digest_key, back.digest_key, STORECONF_KEY_BYTES);
        assert_true(c.created == back.created);
        assert_int_equal(storeconf_encode(&back, b), len);
        assert_memory_equal(a, b, len);
    }
}

static void damaged_store_conf_is_refused(void **state)
{
    (void)state;
    char a[STORECONF_MAX];
    struct store_conf c = sample_conf();
    size_t len = storeconf_encode(&c, a);
    assert_damage_is_found(try_conf, (const uint8_t *)a, len, true);
    assert_never_crashes(try_conf, (const uint8_t *)a, len);
    a[len] = '\n';
    assert_int_equal(try_conf((const uint8_t *)a, len + 1), -EBADMSG);
}

/* Decodes body + a correct checksum line. */
static int decode_body(const char *body, struct store_conf *c, char why[128])
{
    char text[2 * STORECONF_MAX];
    int n = snprintf(text, sizeof text, "%s# checksum: %016" PRIx64 "\n", body, hash64(body, strlen(body)));
    assert_in_range(n, 1, sizeof text - 1);
    why[0] = '\0';
    return storeconf_decode(text, (size_t)n, c, why);
}

#define CONF_ID "id=0123456789abcdef0123456789abcdef\n"
#define CONF_KEY "digest-key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define CONF_REST CONF_ID "fingerprint=sha256\nblock=4096\nchunking=cdc\nslots=1\npartitions=16\n" CONF_KEY

static void store_conf_is_parsed_strictly(void **state)
{
    (void)state;
    static const struct { const char *body; int want; const char *names; } cases[] = {
        {"[store]\nversion=1\n" CONF_REST "created=5\n", 0, ""},
        {"; a comment\n\n  [store]  \n\tversion =\t1 \n" CONF_REST "created=2026-11-22T03:00:00Z\n", 0, ""},
        {"[store]\nversion=2\nfuture=yes\n", -ENOTSUP, "newer"},
        {"[store]\nfuture=yes\nversion = 17\n", -ENOTSUP, "newer"},
        {"[store]\nversion=0\n" CONF_REST "created=5\n", -EBADMSG, "version"},
        {"[store]\nversion=1\n" CONF_REST "created=5\ncolour=red\n", -EBADMSG, "colour"},
        {"[store]\nversion=1\n" CONF_REST "created=5\nslots=1\n", -EBADMSG, "slots"},
        {"[store]\nversion=1\n" CONF_REST, -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_ID "created=5\n", -EBADMSG, "fingerprint"},
        {"version=1\n[store]\n" CONF_REST "created=5\n", -EBADMSG, "line 1"},
        {"[store]\n[store]\nversion=1\n" CONF_REST "created=5\n", -EBADMSG, "line 2"},
        {"[store]\nversion=1\n[kafka]\n" CONF_REST "created=5\n", -EBADMSG, "kafka"},
        {"[store]\nversion=1\njunk\n" CONF_REST "created=5\n", -EBADMSG, "line 3"},
        {"[store]\nversion=1\r\n" CONF_REST "created=5\n", -EBADMSG, "version"},
        {"[store]\nversion=1\n" CONF_REST "created=2026-02-30T03:00:00Z\n", -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_REST "created=2026-1-22T03:00:00Z\n", -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_REST "created=2026-11-22T03:00:00+01:00\n", -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_REST "created=\n", -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_REST "created=05\n", -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_REST "created=9223372036854775808\n", -EBADMSG, "created"},
        {"[store]\nversion=1\n" CONF_REST "created=18446744073709551621\n", -EBADMSG, "created"},
        {"", -EBADMSG, "missing"},
        {"no newline", -EBADMSG, "checksum"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct store_conf c;
        char why[128];
        int r = decode_body(cases[i].body, &c, why);
        if (r != cases[i].want || strstr(why, cases[i].names) == NULL)
            fail_msg("case %zu: %d '%s', wanted %d naming '%s'", i, r, why, cases[i].want, cases[i].names);
    }
}

static void store_conf_values_out_of_range_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "id=0123456789ABCDEF0123456789abcdef", "id=00000000000000000000000000000000", "id=01", "fingerprint=md5", "fingerprint=",
        "block=4095", "block=32768", "block=4096 ,", "block=0x1000", "chunking=CDC", "slots=0", "slots=3", "slots=8192", "slots=-1",
        "partitions=0", "partitions=5", "partitions=8192", "partitions=99999999999999999999", "digest-key=00",
        "digest-key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00",
    };
    static const char *const lines[] = {"version=1", "id=0123456789abcdef0123456789abcdef", "fingerprint=sha1", "block=16384",
                                        "chunking=fixed", "slots=4096", "partitions=4096",
                                        "digest-key=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "created=1"};
    for (size_t w = 0; w <= sizeof wrong / sizeof *wrong; w++) {
        char body[2048] = "[store]\n", why[128];
        const char *bad = w < sizeof wrong / sizeof *wrong ? wrong[w] : "";
        size_t key = strcspn(bad, "=") + 1;
        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
            bool replace = bad[0] != '\0' && strncmp(lines[i], bad, key) == 0;
            size_t at = strlen(body);
            snprintf(body + at, sizeof body - at, "%s\n", replace ? bad : lines[i]);
        }
        struct store_conf c = {0};
        int r = decode_body(body, &c, why);
        assert_int_equal(r, bad[0] != '\0' ? -EBADMSG : 0);
        if (bad[0] != '\0') {
            char name[32];
            snprintf(name, sizeof name, "%.*s", (int)key - 1, bad);
            assert_non_null(strstr(why, name));
            assert_int_equal(c.version, 0);
        }
    }
}

static void invalid_configurations_are_not_encoded(void **state)
{
    (void)state;
    char out[STORECONF_MAX];
    struct store_conf c;
    storeconf_default(&c);
    assert_true(c.version == STORE_VERSION && c.fingerprint == STORECONF_SHA256 && c.block_bytes == 4096 && c.cdc);
    assert_true(c.slots == 1 && c.partitions == 16 && !vid_is_zero(&c.id));
    assert_true(storeconf_encode(&c, out) > 0);
    c.slots = 3;
    assert_int_equal(storeconf_encode(&c, out), 0);
    storeconf_default(&c);
    c.block_bytes = 1024;
    assert_int_equal(storeconf_encode(&c, out), 0);
    storeconf_default(&c);
    c.fingerprint = 3;
    assert_int_equal(storeconf_encode(&c, out), 0);
}

static void first_bits_of_a_fingerprint_choose_the_partition(void **state)
{
    (void)state;
    static const uint8_t fp[8] = {0xa5, 0x5a, 0xff, 0x00, 1, 2, 3, 4};
    struct store_conf c;
    storeconf_default(&c);
    assert_int_equal(storeconf_partition(&c, fp), 0xa);
    c.slots = 16;
    assert_int_equal(storeconf_partition(&c, fp), 0xa5);
    c.slots = c.partitions = 4096;
    assert_int_equal(storeconf_partition(&c, fp), 0xa55aff);
    c.slots = 1;
    c.partitions = 2;
    assert_int_equal(storeconf_partition(&c, fp), 1);
    c.partitions = 1;
    assert_int_equal(storeconf_partition(&c, fp), 0);
}

/* ---- owner record, deletion log ---- */

static int try_owner(const uint8_t *data, size_t len)
{
    struct owner_record o;
    const char *why = NULL;
    int r = owner_decode(data, len, NULL, &o, &why);
    assert_true((r < 0) == (why != NULL));
    return r;
}

static void owner_records_round_trip(void **state)
{
    (void)state;
    struct owner_record o = {.store = rnd_id(), .vm = rnd_id(), .host = rnd_id(), .epoch = 1 + rnd() / 2}, got;
    uint8_t a[OWNER_BYTES + 8] = {0};
    assert_int_equal(owner_encode(&o, a), 0);
    assert_int_equal(owner_decode(a, OWNER_BYTES, &o, &got, NULL), 0);
    assert_memory_equal(&got, &o, sizeof o);
    struct owner_record other[3] = {o, o, o};
    other[0].store = other[1].vm = rnd_id();
    other[2].epoch++;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(owner_decode(a, OWNER_BYTES, &other[i], &got, NULL), -EBADMSG);
    for (size_t len = 0; len < OWNER_BYTES; len++)
        assert_int_equal(try_owner(a, len), -EBADMSG);
    assert_refused_with(try_owner, a, OWNER_BYTES, 8, 2, 4, -ENOTSUP);
    assert_refused_with(try_owner, a, OWNER_BYTES, 8, 0, 4, -EBADMSG);
    assert_refused_with(try_owner, a, OWNER_BYTES, 12, 1, 4, -EBADMSG);
    assert_refused_with(try_owner, a, OWNER_BYTES, 72, 1, 8, -EBADMSG);
    assert_refused_with(try_owner, a, OWNER_BYTES + 8, 12, 0, 4, -EBADMSG);     /* longer, under a right checksum */

    memset(a + 48, 0, VID_BYTES);
    assert_refused_with(try_owner, a, OWNER_BYTES, 12, 0, 4, -EBADMSG);         /* no host */
    o.host = (struct vid){{0}};
    assert_int_equal(owner_encode(&o, a), -EINVAL);
}

static int try_deletions(const uint8_t *data, size_t len)
{
    struct deletion_log log;
    const char *why = NULL;
    int r = deletion_log_decode(data, len, NULL, &log, &why);
    assert_true((r < 0) == (why != NULL));
    return r;
}

static void deletion_logs_round_trip(void **state)
{
    (void)state;
    enum { N = 9, LEN = 56 + 8 * N };
    struct deletion_log want = {.store = rnd_id(), .generation = 1 + rnd() / 2}, log;
    uint64_t refs[N];
    uint8_t a[LEN];
    for (uint32_t i = 0; i < N; i++)
        refs[i] = ref_make(70000 + i / 3, i * 10);
    assert_int_equal(deletion_log_bytes(N), LEN);
    deletion_log_encode(&want.store, want.generation, refs, N, a);
    assert_int_equal(deletion_log_decode(a, LEN, &want, &log, NULL), 0);
    assert_true(vid_eq(&log.store, &want.store) && log.generation == want.generation && log.n == N);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(deletion_log_ref(&log, i) == refs[i] && deletion_log_has(&log, refs[i]));
        assert_false(deletion_log_has(&log, refs[i] + 1) || deletion_log_has(&log, refs[i] - 1));
    }
    want.generation++;
    assert_int_equal(deletion_log_decode(a, LEN, &want, &log, NULL), -EBADMSG);
    for (size_t len = 0; len < LEN; len++)
        assert_int_equal(try_deletions(a, len), -EBADMSG);
    assert_refused_with(try_deletions, a, LEN, 8, 2, 4, -ENOTSUP);
    assert_refused_with(try_deletions, a, LEN, 12, 1, 4, -EBADMSG);
    assert_refused_with(try_deletions, a, LEN, 40, N - 1, 8, -EBADMSG);
    assert_refused_with(try_deletions, a, LEN, 40, UINT64_MAX, 8, -EBADMSG);
    assert_refused_with(try_deletions, a, LEN, 48, refs[1], 8, -EBADMSG);               /* twice */
    assert_refused_with(try_deletions, a, LEN, LEN - 16, REF_ZERO, 8, -EBADMSG);        /* reserved */
    deletion_log_encode(&want.store, 1, NULL, 0, a);
    assert_int_equal(deletion_log_decode(a, 56, NULL, &log, NULL), 0);
    assert_false(deletion_log_has(&log, refs[0]));
    assert_int_equal(deletion_log_bytes(UINT64_C(1) << 29), 0);
    assert_int_equal(deletion_log_bytes(UINT64_MAX), 0);
}

/* ---- segment recipe ---- */

static struct segrcp_run seg_runs[SEGRCP_RUNS_MAX + 1];
static uint16_t seg_len1[SEGRCP_BLOCKS_MAX + 1];
static uint32_t seg_prefix[SEGRCP_BLOCKS_MAX + 1];

/* A random segment: runs of blocks and zeros until `bytes` are covered. */
static struct segrcp sample_segment(uint32_t bytes, uint32_t shortest)
{
    struct segrcp r = {.bytes = bytes, .runs = seg_runs, .len1 = seg_len1, .prefix = seg_prefix};
    uint8_t page_touched[SEG_PAGES + 1] = {0};
    rnd_bytes(r.digest, sizeof r.digest);
    for (uint32_t at = 0; at < bytes;) {
        struct segrcp_run *run = &seg_runs[r.nruns++];
        if (rnd() % 4 == 0) {
            run->ref = REF_ZERO;
            run->count = (uint32_t)(1 + rnd() % (rnd() % 3 == 0 ? 200000 : 9000));
            if (run->count < shortest)
                run->count = shortest;
            if (run->count > bytes - at)
                run->count = bytes - at;
            at += run->count;
            continue;
        }
        uint32_t want = (uint32_t)(1 + rnd() % 40), n = 0;
        for (; n < want && at < bytes; n++) {
            uint32_t len = shortest + (uint32_t)(rnd() % (rnd() % 20 == 0 ? BLOCK_MAX - shortest + 1 : 8000));
            if (len > bytes - at)
                len = bytes - at;
            for (uint32_t b = at / PAGE_BYTES; b <= (at + len - 1) / PAGE_BYTES; b++)
                page_touched[b] = 1;
            seg_len1[r.nblocks] = (uint16_t)(len - 1);
            seg_prefix[r.nblocks++] = (uint32_t)rnd();
            at += len;
        }
        run->count = n;
        uint32_t last = (1u << ORDINAL_BITS) - n; /* the highest ordinal with room for the run */
        run->ref = ref_make(rnd() % (REF_CONTAINER_MAX + 1), rnd() % 3 == 0 ? last : (uint32_t)(rnd() % (last + 1)));
    }
    for (uint32_t i = 0; i < SEG_PAGES; i++)
        r.data_pages += page_touched[i];
    return r;
}

static void segment_recipes_round_trip(void **state)
{
    (void)state;
    static uint8_t a[SEGRCP_BYTES_MAX], b[SEGRCP_BYTES_MAX];
    for (int i = 0; i < 300; i++) {
        uint32_t bytes = i % 3 == 0 ? (uint32_t)(1 + rnd() % SEG_BYTES) : SEG_BYTES;
        struct segrcp r = sample_segment(bytes, 1024), back;
        assert_int_equal(segrcp_data_pages(&r), r.data_pages);
        int len = segrcp_encode(&r, a, sizeof a);
        assert_in_range(len, 1, SEGRCP_BYTES_MAX);
        assert_int_equal(segrcp_encode(&r, a, (size_t)len - 1), -E2BIG);
        const char *why = NULL;
        assert_int_equal(segrcp_decode(a, (size_t)len, &back, &why), 0);
        assert_true(back.bytes == r.bytes && back.nruns == r.nruns && back.nblocks == r.nblocks && back.data_pages == r.data_pages);
        assert_memory_equal(back.digest, r.digest, DIGEST_BYTES);
        assert_memory_equal(back.len1, r.len1, r.nblocks * sizeof *r.len1);
        assert_memory_equal(back.prefix, r.prefix, r.nblocks * sizeof *r.prefix);
        for (uint32_t k = 0; k < r.nruns; k++)
            assert_true(back.runs[k].ref == r.runs[k].ref && back.runs[k].count == r.runs[k].count);
        assert_int_equal(segrcp_encode(&back, b, sizeof b), len);
        assert_memory_equal(a, b, (size_t)len);
        segrcp_release(&back);
        segrcp_release(&back);
    }
}

static void damaged_segment_recipes_are_refused(void **state)
{
    (void)state;
    static uint8_t a[SEGRCP_BYTES_MAX];
    struct segrcp r = sample_segment(60000, 1024);
    int len = segrcp_encode(&r, a, sizeof a);
    assert_true(len > 0);
    assert_damage_is_found(try_segment, a, (size_t)len, true);
    r = sample_segment(SEG_BYTES, 1024);
    len = segrcp_encode(&r, a, sizeof a);
    assert_true(len > 0);
    assert_damage_is_found(try_segment, a, (size_t)len, false);
    assert_never_crashes(try_segment, a, (size_t)len);
    static const uint32_t offs[] = {32, 36, 40, 44}; /* bytes, runs, blocks, data pages */
    for (size_t i = 0; i < 4; i++) {
        uint32_t v = get_le32(a + offs[i]);
        assert_refused_with(try_segment, a, (size_t)len, offs[i], v + 1, 4, -EBADMSG);
        assert_refused_with(try_segment, a, (size_t)len, offs[i], v - 1, 4, -EBADMSG);
        assert_refused_with(try_segment, a, (size_t)len, offs[i], 0, 4, -EBADMSG);
        assert_refused_with(try_segment, a, (size_t)len, offs[i], UINT32_MAX, 4, -EBADMSG);
    }
    assert_refused_with(try_segment, a, (size_t)len, 8, 2, 4, -ENOTSUP);
    for (uint32_t i = 0; i < r.nruns; i++) {
        static const uint64_t counts[] = {0, UINT32_MAX, SEG_BYTES + 1};
        for (size_t k = 0; k < 3; k++)
            assert_refused_with(try_segment, a, (size_t)len, 48 + 12 * (size_t)i + 8, counts[k], 4, -EBADMSG);
        assert_refused_with(try_segment, a, (size_t)len, 48 + 12 * (size_t)i, REF_NONE, 8, -EBADMSG);
        if (r.runs[i].ref != REF_ZERO && r.runs[i].count > 1)
            assert_refused_with(try_segment, a, (size_t)len, 48 + 12 * (size_t)i, ref_make(5, (1u << ORDINAL_BITS) - 1), 8, -EBADMSG);
    }
}

/* Any change of the counts and lengths under a correct checksum must be refused, or decode to something consistent. */
static void random_fields_under_a_correct_checksum_never_crash(void **state)
{
    (void)state;
    static uint8_t a[SEGRCP_BYTES_MAX];
    struct segrcp r = sample_segment(100000, 1024);
    int n = segrcp_encode(&r, a, sizeof a);
    assert_true(n > 0);
    size_t len = (size_t)n;
    for (int i = 0; i < 5000; i++) {
        uint8_t copy[8192], bytes[4];
        assert_true(len <= sizeof copy);
        memcpy(copy, a, len);
        rnd_bytes(bytes, sizeof bytes);
        if (rnd() % 2)
            memset(bytes + 1, 0, 3);
        reframe(copy, len, 16 + rnd() % (len - 8 - 4 - 16), bytes, 4);
        struct segrcp back;
        if (segrcp_decode(copy, len, &back, NULL) < 0)
            continue;
        assert_int_equal(segrcp_data_pages(&back), back.data_pages);
        segrcp_release(&back);
    }
}

static void largest_segment_recipe_fits(void **state)
{
    (void)state;
    static uint8_t a[SEGRCP_BYTES_MAX];
    struct segrcp r = {.bytes = SEG_BYTES, .nruns = SEGRCP_BLOCKS_MAX, .nblocks = SEGRCP_BLOCKS_MAX, .data_pages = SEG_PAGES,
                       .runs = seg_runs, .len1 = seg_len1, .prefix = seg_prefix};
    for (uint32_t i = 0; i < SEGRCP_BLOCKS_MAX; i++) {
        seg_runs[i] = (struct segrcp_run){.ref = ref_make(REF_CONTAINER_MAX, i), .count = 1};
        seg_len1[i] = 1023;
    }
    assert_true(segrcp_encode(&r, a, sizeof a) > 0);
    struct segrcp zero = {.bytes = SEG_BYTES, .nruns = 1, .runs = seg_runs};
    seg_runs[0] = (struct segrcp_run){.ref = REF_ZERO, .count = SEG_BYTES};
    int len = segrcp_encode(&zero, a, sizeof a);
    assert_true(len > 0);
    assert_int_equal(try_exact(try_segment, a, (size_t)len), 0);
    r.nblocks = SEGRCP_BLOCKS_MAX + 1;
    assert_int_equal(segrcp_encode(&r, a, sizeof a), -E2BIG);
    r.nblocks = SEGRCP_BLOCKS_MAX;
    r.nruns = SEGRCP_RUNS_MAX + 1;
    assert_int_equal(segrcp_encode(&r, a, sizeof a), -E2BIG);
}

static void inconsistent_segment_recipes_are_not_encoded(void **state)
{
    (void)state;
    static uint8_t a[SEGRCP_BYTES_MAX];
    struct segrcp r = sample_segment(SEG_BYTES, 1024);
    struct segrcp w = r;
    w.bytes--;
    assert_int_equal(segrcp_encode(&w, a, sizeof a), -EINVAL);
    w = r;
    w.data_pages++;
    assert_int_equal(segrcp_encode(&w, a, sizeof a), -EINVAL);
    w = r;
    w.nruns--;
    assert_int_equal(segrcp_encode(&w, a, sizeof a), -EINVAL);
    w = r;
    w.nruns = 0;
    assert_int_equal(segrcp_encode(&w, a, sizeof a), -EINVAL);
    seg_runs[0].ref = REF_NONE;
    assert_int_equal(segrcp_encode(&r, a, sizeof a), -EINVAL);
}

/* ---- snapshot recipe ---- */

static void rnd_label(char *out, size_t max)
{
    static const char chars[] = "ABCxyz059._-";
    size_t len = rnd() % (max + 1);
    for (size_t i = 0; i < len; i++)
        out[i] = chars[rnd() % (sizeof chars - 1)];
    out[len] = '\0';
}

static void rnd_note(char *out, size_t max)
{
    size_t len = rnd() % (max + 1);
    for (size_t i = 0; i < len; i++)
        out[i] = (char)(1 + rnd() % 255);
    out[len] = '\0';
}

static struct snaprcp sample_snap(void)
{
    struct snaprcp r = {
        .store = rnd_id(), .vm = rnd_id(), .info.ref = {rnd_id(), 1 + rnd() / 2, rnd_id()},
        .info.parent = rnd_id(), .info.host = rnd_id(), .info.group = rnd_id(), .epoch = rnd(),
        .info.flags = (uint32_t)(rnd() % 4), .info.group_members = (uint32_t)rnd(),
        .info.size = 1 + rnd() % (UINT64_C(1) << 50),
        .info.freeze_ns = (int64_t)rnd(), .info.name_s = (int64_t)(rnd() % (TIME_NAME_MAX + 1)),
        .info.levels = {rnd(), rnd(), rnd(), rnd(), rnd(), rnd(), rnd(), rnd(), rnd()},
    };
    r.info.alloc_bytes = rnd() % (r.info.size + 1);
    r.nruns = 1 + rnd() % seg_count(r.info.size);
    rnd_label(r.info.label, 64);
    rnd_note(r.info.note, 1024);
    rnd_bytes(r.runs_digest, sizeof r.runs_digest);
    return r;
}

static void snapshot_headers_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        uint8_t a[SNAPRCP_PAGE], b[SNAPRCP_PAGE];
        struct snaprcp r = sample_snap(), back;
        if (i == 0) {
            r.info.size = r.nruns = r.info.alloc_bytes = 0;
            memset(r.info.label, 'x', 64);
            memset(r.info.note, 'y', 1024);
        }
        assert_int_equal(snaprcp_encode(&r, a), 0);
        assert_int_equal(snaprcp_decode(a, &back, NULL), 0);
        assert_true(snapref_eq(&r.info.ref, &back.info.ref));
        assert_memory_equal(&r.store, &back.store, 2 * VID_BYTES);          /* and vm */
        assert_memory_equal(&r.info.parent, &back.info.parent, 3 * VID_BYTES);  /* and host, group */
        assert_true(r.epoch == back.epoch && r.info.flags == back.info.flags && r.info.group_members == back.info.group_members);
        assert_true(r.info.size == back.info.size && r.info.alloc_bytes == back.info.alloc_bytes);
        assert_true(r.info.freeze_ns == back.info.freeze_ns && r.info.name_s == back.info.name_s);
        assert_string_equal(r.info.label, back.info.label);
        assert_string_equal(r.info.note, back.info.note);
        assert_memory_equal(&r.info.levels, &back.info.levels, sizeof r.info.levels);
        assert_true(r.nruns == back.nruns);
        assert_memory_equal(r.runs_digest, back.runs_digest, FP_BYTES);
        assert_int_equal(snaprcp_encode(&back, b), 0);
        assert_memory_equal(a, b, sizeof a);
    }
}

static void damaged_snapshot_headers_are_refused(void **state)
{
    (void)state;
    uint8_t a[SNAPRCP_PAGE];
    struct snaprcp r = sample_snap();
    assert_int_equal(snaprcp_encode(&r, a), 0);
    assert_damage_is_found(try_snap, a, sizeof a, true);
    assert_never_crashes(try_snap, a, sizeof a);
    assert_refused_with(try_snap, a, sizeof a, 8, 9, 4, -ENOTSUP);
    assert_refused_with(try_snap, a, sizeof a, 136, 0, 8, -EBADMSG);             /* sequence number */
    assert_refused_with(try_snap, a, sizeof a, 152, 4, 4, -EBADMSG);             /* flags */
    assert_refused_with(try_snap, a, sizeof a, 184, (uint64_t)-1, 8, -EBADMSG);  /* time of the name */
    assert_refused_with(try_snap, a, sizeof a, 184, TIME_NAME_MAX + 1, 8, -EBADMSG);
    assert_refused_with(try_snap, a, sizeof a, 160, UINT64_MAX, 8, -EBADMSG);    /* size */
    assert_refused_with(try_snap, a, sizeof a, 168, UINT64_MAX, 8, -EBADMSG);    /* allocated */
    assert_refused_with(try_snap, a, sizeof a, 264, 0, 8, -EBADMSG);             /* runs */
    assert_refused_with(try_snap, a, sizeof a, 264, seg_count(r.info.size) + 1, 8, -EBADMSG);
    assert_refused_with(try_snap, a, sizeof a, 304, 65, 2, -EBADMSG);            /* lengths of texts */
    assert_refused_with(try_snap, a, sizeof a, 306, 1025, 2, -EBADMSG);
    assert_refused_with(try_snap, a, sizeof a, 308, '/', 1, -EBADMSG);
    assert_refused_with(try_snap, a, sizeof a, 4080, 1, 1, -EBADMSG);            /* must be zero */
}

static void impossible_snapshots_are_not_encoded(void **state)
{
    (void)state;
    uint8_t a[SNAPRCP_PAGE];
    struct snaprcp r = sample_snap();
    snprintf(r.info.label, sizeof r.info.label, "a/b");
    assert_int_equal(snaprcp_encode(&r, a), -EINVAL);
    r = sample_snap();
    memset(r.info.label, 'x', sizeof r.info.label); /* no end */
    assert_int_equal(snaprcp_encode(&r, a), -EINVAL);
    r = sample_snap();
    memset(r.info.note, 'x', sizeof r.info.note);
    assert_int_equal(snaprcp_encode(&r, a), -EINVAL);
    r = sample_snap();
    r.info.parent = r.info.ref.snap;
    assert_int_equal(snaprcp_encode(&r, a), -EINVAL);
    r = sample_snap();
    r.info.ref.disk = (struct vid){{0}};
    assert_int_equal(snaprcp_encode(&r, a), -EINVAL);
    assert_int_equal(try_snap(a, sizeof a), -EBADMSG);
}

static uint32_t sample_runs(struct snaprun *runs, uint32_t n)
{
    uint32_t at = (uint32_t)(rnd() % 1000);
    for (uint32_t i = 0; i < n; i++) {
        runs[i] = (struct snaprun){.first = at, .count = (uint32_t)(1 + rnd() % 5000), .place = REF_ZERO};
        if (rnd() % 3)
            runs[i].place = ref_make(rnd() % (REF_CONTAINER_MAX + 1),
                                     rnd() % 2 ? (1u << ORDINAL_BITS) - runs[i].count : (uint32_t)(rnd() % 1000));
        at += runs[i].count;
    }
    return n;
}

static void pages_of_runs_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        uint8_t a[SNAPRCP_PAGE], b[SNAPRCP_PAGE];
        struct snaprun runs[SNAPRCP_PAGE_RUNS], back[SNAPRCP_PAGE_RUNS];
        uint32_t n = sample_runs(runs, i == 0 ? SNAPRCP_PAGE_RUNS : (uint32_t)(1 + rnd() % SNAPRCP_PAGE_RUNS)), got = 0;
        struct vid snap = rnd_id();
        uint64_t page = 1 + rnd() % 1000;
        assert_int_equal(snaprcp_page_encode(&snap, page, runs, n, a), 0);
        assert_int_equal(snaprcp_page_decode(&snap, page, a, back, &got, NULL), 0);
        assert_int_equal(got, n);
        for (uint32_t k = 0; k < n; k++)
            assert_true(runs[k].first == back[k].first && runs[k].count == back[k].count && runs[k].place == back[k].place);
        assert_int_equal(snaprcp_page_encode(&snap, page, back, n, b), 0);
        assert_memory_equal(a, b, sizeof a);
    }
}

static void pages_of_another_place_or_snapshot_are_refused(void **state)
{
    (void)state;
    uint8_t a[SNAPRCP_PAGE];
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
    uint32_t n = sample_runs(runs, 200);
    page_snap = rnd_id();
    assert_int_equal(snaprcp_page_encode(&page_snap, 7, runs, n, a), 0);
    assert_damage_is_found(try_page, a, sizeof a, true);
    assert_never_crashes(try_page, a, sizeof a);
    struct vid other = page_snap;
    other.b[15] ^= 1;
    const char *why = NULL;
    assert_int_equal(snaprcp_page_decode(&other, 7, a, page_runs, &n, &why), -EBADMSG);
    assert_int_equal(snaprcp_page_decode(&page_snap, 8, a, page_runs, &n, &why), -EBADMSG);
}

static void runs_that_leave_container_or_disk_are_not_encoded(void **state)
{
    (void)state;
    uint8_t a[SNAPRCP_PAGE];
    struct vid snap = rnd_id();
    static const struct snaprun wrong[][2] = {
        {{0, 0, REF_ZERO}, {0, 1, REF_ZERO}},                                    /* empty */
        {{0, 2, REF_ZERO}, {1, 1, REF_ZERO}},                                    /* overlap */
        {{0, 2, REF_ZERO}, {3, 1, REF_ZERO}},                                    /* gap */
        {{0, 2, (UINT64_C(7) << 24) | 0xffffff}, {2, 1, REF_ZERO}},              /* leaves the container */
        {{0, 2, REF_NONE}, {2, 1, REF_ZERO}},
        {{UINT32_MAX, 1, REF_ZERO}, {0, 1, REF_ZERO}},                           /* wraps */
        {{UINT32_MAX, 2, REF_ZERO}, {1, 1, REF_ZERO}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(snaprcp_page_encode(&snap, 1, wrong[i], 2, a), -EINVAL);
    static const struct snaprun good = {0, 2, (UINT64_C(7) << 24) | 0xfffffe};
    assert_int_equal(snaprcp_page_encode(&snap, 1, &good, 1, a), 0);
    assert_int_equal(snaprcp_page_encode(&snap, 1, &good, 0, a), -EINVAL);
    assert_int_equal(snaprcp_page_encode(&snap, 0, &good, 1, a), -EINVAL);
    static struct snaprun many[SNAPRCP_PAGE_RUNS + 1];
    assert_int_equal(snaprcp_page_encode(&snap, 1, many, SNAPRCP_PAGE_RUNS + 1, a), -EINVAL);
}

/* ---- side file ---- */

static struct snapattr sample_attr(void)
{
    struct snapattr a = {
        .snap = rnd_id(), .version = 1 + rnd() / 2, .protected_ = rnd() % 2, .set_flags = (uint32_t)(rnd() % 4),
        .clear_flags = (uint32_t)(rnd() % 4), .mode = (uint32_t)(rnd() & 0777),
        .uid = (uint32_t)rnd(), .gid = (uint32_t)rnd(), .owner_set = rnd() % 2, .verified_s = (int64_t)(rnd() / 2),
    };
    if (!a.owner_set)
        a.mode = a.uid = a.gid = 0;
    rnd_label(a.label, 64);
    rnd_note(a.note, 1024);
    return a;
}

static void side_files_round_trip(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        uint8_t a[SNAPATTR_BYTES], b[SNAPATTR_BYTES];
        struct snapattr s = sample_attr(), back;
        size_t len = snapattr_encode(&s, a);
        assert_in_range(len, 1, SNAPATTR_BYTES);
        assert_int_equal(snapattr_decode(a, len, &back, NULL), 0);
        assert_true(vid_eq(&s.snap, &back.snap) && s.version == back.version && s.protected_ == back.protected_);
        assert_true(s.set_flags == back.set_flags && s.clear_flags == back.clear_flags);
        assert_true(s.mode == back.mode && s.uid == back.uid && s.gid == back.gid);
        assert_true(s.owner_set == back.owner_set && s.verified_s == back.verified_s);
        assert_string_equal(s.label, back.label);
        assert_string_equal(s.note, back.note);
        assert_int_equal(snapattr_encode(&back, b), len);
        assert_memory_equal(a, b, len);
    }
}

static void damaged_side_files_are_refused(void **state)
{
    (void)state;
    uint8_t a[SNAPATTR_BYTES];
    struct snapattr s = sample_attr();
    snprintf(s.label, sizeof s.label, "before-upgrade");
    size_t len = snapattr_encode(&s, a);
    assert_damage_is_found(try_attr, a, len, true);
    assert_never_crashes(try_attr, a, len);
    assert_refused_with(try_attr, a, len, 8, 2, 4, -ENOTSUP);
    assert_refused_with(try_attr, a, len, 40, 4, 4, -EBADMSG);       /* flags to set */
    assert_refused_with(try_attr, a, len, 44, 4, 4, -EBADMSG);       /* flags to clear */
    assert_refused_with(try_attr, a, len, 48, 01000, 4, -EBADMSG);   /* mode */
    assert_refused_with(try_attr, a, len, 60, 2, 1, -EBADMSG);       /* protected */
    assert_refused_with(try_attr, a, len, 61, 2, 1, -EBADMSG);       /* owner set */
    assert_refused_with(try_attr, a, len, 62, 15, 2, -EBADMSG);      /* length of the label */
    assert_refused_with(try_attr, a, len, 72, 0xffff, 2, -EBADMSG);  /* length of the note */
    assert_refused_with(try_attr, a, len, 74, 1, 2, -EBADMSG);
    assert_refused_with(try_attr, a, len, 32, 0, 8, -EBADMSG);       /* version of the content */
    assert_refused_with(try_attr, a, len, 64, (uint64_t)-1, 8, -EBADMSG);        /* verified */
    assert_refused_with(try_attr, a, len, 76, '/', 1, -EBADMSG);
    s.mode = 0100644;
    assert_int_equal(snapattr_encode(&s, a), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_records_round_trip),
        cmocka_unit_test(damaged_node_records_are_refused),
        cmocka_unit_test(nodes_with_impossible_fields_are_not_encoded),
        cmocka_unit_test(only_the_root_may_have_no_name),
        cmocka_unit_test(store_conf_round_trips),
        cmocka_unit_test(damaged_store_conf_is_refused),
        cmocka_unit_test(store_conf_is_parsed_strictly),
        cmocka_unit_test(store_conf_values_out_of_range_are_refused),
        cmocka_unit_test(invalid_configurations_are_not_encoded),
        cmocka_unit_test(first_bits_of_a_fingerprint_choose_the_partition),
        cmocka_unit_test(segment_recipes_round_trip),
        cmocka_unit_test(damaged_segment_recipes_are_refused),
        cmocka_unit_test(random_fields_under_a_correct_checksum_never_crash),
        cmocka_unit_test(largest_segment_recipe_fits),
        cmocka_unit_test(inconsistent_segment_recipes_are_not_encoded),
        cmocka_unit_test(snapshot_headers_round_trip),
        cmocka_unit_test(damaged_snapshot_headers_are_refused),
        cmocka_unit_test(impossible_snapshots_are_not_encoded),
        cmocka_unit_test(owner_records_round_trip),
        cmocka_unit_test(deletion_logs_round_trip),
        cmocka_unit_test(pages_of_runs_round_trip),
        cmocka_unit_test(pages_of_another_place_or_snapshot_are_refused),
        cmocka_unit_test(runs_that_leave_container_or_disk_are_not_encoded),
        cmocka_unit_test(side_files_round_trip),
        cmocka_unit_test(damaged_side_files_are_refused),
    };
    return cmocka_run_group_tests(tests, seed_setup, NULL);
}
