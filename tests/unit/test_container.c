/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers: what is written reads back; sections, files and claims follow one another as they should; torn tails are left
 * behind; no flipped byte ever gives wrong data; readers beside writers, and many readers with a tiny cache.
 */
#include "store/container.h"

#include "base/pool.h"
#include "base/endian.h"
#include "store/layout_internal.h"
#include "store/store_internal.h"

#include "store_fixture.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct mkstore m;
static struct verr err;

static int group_setup(void **state)
{
    (void)state;
    mks_seed();
    return 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&err, 0, sizeof err);
    return mks_make(&m);
}

static int teardown(void **state)
{
    (void)state;
    mks_remove(&m);
    return 0;
}

/* ---- blocks whose content follows from a seed, so that a test needs to remember no bytes ---- */

struct block { uint64_t ref, seed; uint32_t len; };

static void block_fill(const struct block *b, uint8_t *out)
{
    uint64_t s = b->seed;
    uint32_t random_part = b->seed % 3 == 0 ? b->len : b->seed % 3 == 1 ? b->len / 4 : 0;
    for (uint32_t i = 0; i < b->len; i++) {
        if (i < random_part || i % 512 == 0)
            s = s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        out[i] = (uint8_t)(s >> 56);
    }
}

static struct pool *pool;

static struct fp block_fp(const struct block *b)
{
    struct fp fp = {{0}};
    put_le64(fp.b, b->seed);
    put_le32(fp.b + 8, b->len);
    return fp;
}

static int put(struct cwriter *w, struct block *b, uint32_t len)
{
    static uint8_t buf[BLOCK_MAX];
    b->seed = mks_rnd();
    b->len = len;
    block_fill(b, buf);
    struct fp fp = block_fp(b);
    return cwriter_append(w, &fp, buf, len, &b->ref, &err);
}

static void put_ok(struct cwriter *w, struct block *b, uint32_t len)
{
    int r = put(w, b, len);
    if (r < 0)
        print_message("append: %s\n", verr_str(&err));
    assert_int_equal(r, 0);
}

/* 0 right, 1 wrong data, -errno. Thread-safe. */
static int get(struct creader *r, const struct block *b, struct verr *e)
{
    uint8_t *want = malloc(b->len), *got = malloc(b->len);
    block_fill(b, want);
    memset(got, 0xee, b->len);
    int code = creader_read(r, b->ref, 1, 0, got, b->len, e);
    if (code == 0)
        code = memcmp(want, got, b->len) != 0;
    free(want);
    free(got);
    return code;
}

static void get_ok(struct creader *r, const struct block *b)
{
    int code = get(r, b, &err);
    if (code < 0)
        print_message("read: %s\n", verr_str(&err));
    assert_int_equal(code, 0);
}

/* Every second writer compresses on a pool: what it writes must not depend on that. */
static struct cwriter *writer(uint64_t last)
{
    static unsigned n;
    struct cwriter *w;
    assert_int_equal(cwriter_open(m.st, CONTAINER_BLOCKS, CONTAINER_SHARED, last, &w, &err), 0);
    if (n++ % 2 == 0)
        cwriter_use_pool(w, pool);
    return w;
}

static struct creader *reader(size_t cache)
{
    struct creader *r;
    assert_int_equal(creader_new(m.st, cache, &r, &err), 0);
    return r;
}

static void seal_ok(struct cwriter *w)
{
    int r = cwriter_seal(w, &err);
    if (r < 0)
        print_message("seal: %s\n", verr_str(&err));
    assert_int_equal(r, 0);
}

static int open_container(uint64_t number, int flags)
{
    char path[32];
    container_path(number, path);
    int fd = openat(store_dirfd(m.st, DIR_CONTAINERS), path, flags, 0600);
    assert_true(fd >= 0);
    return fd;
}

static uint64_t container_size(uint64_t number)
{
    struct stat st;
    int fd = open_container(number, O_RDONLY);
    fstat(fd, &st);
    close(fd);
    return (uint64_t)st.st_size;
}

static struct container_info info_of(uint64_t number)
{
    struct container_info info;
    struct creader *r = reader(0);
    int code = container_walk(r, number, &info, NULL, NULL, &err);
    creader_free(r);
    if (code < 0)
        print_message("walk: %s\n", verr_str(&err));
    assert_int_equal(code, 0);
    return info;
}

/* One container with `sections` sections of `blocks` blocks each. */
static uint64_t make_container(struct block *b, unsigned sections, unsigned blocks, uint32_t max_len)
{
    struct cwriter *w = writer(REF_NONE);
    for (unsigned s = 0; s < sections; s++) {
        for (unsigned i = 0; i < blocks; i++)
            put_ok(w, b++, 1 + (uint32_t)(mks_rnd() % max_len));
        seal_ok(w);
    }
    uint64_t number = cwriter_container(w);
    cwriter_free(w);
    return number;
}

/* ---- write and read ---- */

static void random_blocks_read_back(void **state)
{
    (void)state;
    enum { N = 1500 };
    static struct block b[N];
    struct cwriter *w = writer(REF_NONE);
    assert_int_equal(cwriter_container(w), REF_NONE);
    uint64_t raw = 0;
    for (int i = 0; i < N; i++) {
        uint32_t len = i % 50 == 0 ? BLOCK_MAX : i % 51 == 0 ? 1 : 1 + (uint32_t)(mks_rnd() % 16384);
        put_ok(w, &b[i], len);
        raw += len;
        if (i == 700)
            seal_ok(w);
    }
    seal_ok(w);
    seal_ok(w); /* nothing new: nothing written */
    uint64_t number = cwriter_container(w);
    assert_int_equal(cwriter_stored(w), container_size(number));
    assert_true(cwriter_stored(w) < raw);
    cwriter_free(w);

    struct creader *r = reader(4 << 20);
    for (int i = 0; i < N; i++) {
        assert_int_equal(b[i].ref, ref_make(number, (uint32_t)i));
        get_ok(r, &b[i]);
    }
    for (int i = 0; i < 2 * N; i++)
        get_ok(r, &b[mks_rnd() % N]);
    creader_free(r);
    struct container_info info = info_of(number);
    assert_int_equal(info.sections, 2);
    assert_int_equal(info.entries, N);
    assert_int_equal(info.type, CONTAINER_BLOCKS);
    assert_int_equal(info.flags, CONTAINER_SHARED);
    assert_false(info.torn_tail);
    assert_int_equal(info.sealed_bytes, info.file_bytes);
}

static void runs_read_across_blocks_frames_and_sections(void **state)
{
    (void)state;
    enum { N = 400 };
    static struct block b[N];
    static uint8_t all[N * 4096], got[N * 4096];
    uint64_t number = make_container(b, 4, N / 4, 4096), total = 0;
    for (int i = 0; i < N; i++) {
        block_fill(&b[i], all + total);
        total += b[i].len;
    }
    struct creader *r = reader(0);
    assert_int_equal(creader_read(r, ref_make(number, 0), N, 0, got, total, &err), 0);
    assert_memory_equal(all, got, total);
    for (int i = 0; i < 500; i++) {
        uint32_t first = (uint32_t)(mks_rnd() % N), count = 1 + (uint32_t)(mks_rnd() % (N - first));
        uint64_t base = 0, bytes = 0;
        for (uint32_t k = 0; k < first + count; k++)
            *(k < first ? &base : &bytes) += b[k].len;
        uint64_t skip = mks_rnd() % bytes, len = mks_rnd() % (bytes - skip + 1);
        memset(got, 0xaa, len + 1);
        assert_int_equal(creader_read(r, ref_make(number, first), count, skip, got, len, &err), 0);
        assert_memory_equal(all + base + skip, got, len);
        assert_int_equal(got[len], 0xaa);
        assert_int_equal(creader_read(r, ref_make(number, first), count, skip, got, bytes - skip + 1, &err), -EBADMSG);
    }
    static struct footer_entry e[N];
    assert_int_equal(creader_entries(r, ref_make(number, 0), N, e, &err), 0);
    for (int i = 0; i < N; i++) {
        struct fp fp = block_fp(&b[i]);
        assert_true(fp_eq(&fp, &e[i].fp));
        assert_int_equal(e[i].len, b[i].len);
    }
    assert_int_equal(creader_entries(r, ref_make(number, 1), N, e, &err), -ENODATA);
    creader_free(r);
}

/* Whole frames are decoded past the cache: the same damage, and the same answer once it is in the cache. */
static void damage_is_found_in_frames_read_whole(void **state)
{
    (void)state;
    enum { N = 120 };
    static struct block b[N];
    static uint8_t all[N * 4096], got[N * 4096];
    uint64_t number = make_container(b, 1, N, 4096), total = 0;
    for (int i = 0; i < N; i++) {
        block_fill(&b[i], all + total);
        total += b[i].len;
    }
    int fd = open_container(number, O_RDWR);
    for (int i = 0; i < 300; i++) {
        uint64_t at = mks_rnd() % container_size(number);
        uint8_t was, flipped;
        assert_int_equal(pread(fd, &was, 1, (off_t)at), 1);
        flipped = was ^ (uint8_t)(1 + mks_rnd() % 255);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
        struct creader *r = reader(0);
        if (i % 2 == 0)
            get(r, &b[mks_rnd() % N], &err);
        int code = creader_read(r, ref_make(number, 0), N, 0, got, total, &err);
        assert_true(code == -EBADMSG || code == -ENODATA || code == -EIO || (code == 0 && memcmp(got, all, total) == 0));
        assert_int_equal(pwrite(fd, &was, 1, (off_t)at), 1);
        assert_int_equal(creader_read(r, ref_make(number, 0), N, 0, got, total, &err) == 0 ? memcmp(got, all, total) : 0, 0);
        creader_free(r);
    }
    close(fd);
}

static void bad_arguments_are_refused_and_do_no_harm(void **state)
{
    (void)state;
    struct block b;
    struct fp fp = {{0}};
    uint64_t ref;
    struct cwriter *w;
    assert_int_equal(cwriter_open(m.st, 9, 0, REF_NONE, &w, &err), -EINVAL);
    w = writer(REF_NONE);
    assert_int_equal(cwriter_append(w, &fp, "", 0, &ref, &err), -EINVAL);
    assert_int_equal(cwriter_append(w, &fp, "", BLOCK_MAX + 1, &ref, &err), -EINVAL);
    put_ok(w, &b, 100);
    struct creader *r = reader(0);
    assert_int_equal(get(r, &b, &err), -ENODATA); /* not sealed */
    seal_ok(w);
    get_ok(r, &b);
    uint8_t byte;
    assert_int_equal(creader_read(r, b.ref + 1, 1, 0, &byte, 1, &err), -ENODATA);
    assert_int_equal(creader_read(r, ref_make(12345678, 0), 1, 0, &byte, 1, &err), -ENODATA);
    assert_int_equal(creader_read(r, REF_ZERO, 1, 0, &byte, 1, &err), -ENODATA);
    assert_int_equal(creader_read(r, REF_NONE, 1, 0, &byte, 1, &err), -ENODATA);
    assert_int_equal(creader_read(r, ref_make(cwriter_container(w), (1 << 24) - 1), UINT32_MAX, 0, &byte, 1, &err), -ENODATA);
    assert_int_equal(creader_read(r, b.ref, 1, UINT64_MAX, &byte, 1, &err), -EBADMSG);
    creader_free(r);
    cwriter_free(w);
    cwriter_free(NULL);
    creader_free(NULL);
}

/* ---- sections and files ---- */

static void next_backup_appends_a_section(void **state)
{
    (void)state;
    struct block b[300];
    uint64_t number = make_container(b, 1, 100, 3000), size = container_size(number);
    struct creader *r = reader(1 << 20);
    get_ok(r, &b[99]);
    for (int k = 1; k < 3; k++) {
        struct cwriter *w = writer(number);
        for (int i = 0; i < 100; i++)
            put_ok(w, &b[100 * k + i], 2000);
        assert_int_equal(b[100 * k].ref, ref_make(number, (uint32_t)(100 * k)));
        seal_ok(w);
        assert_int_equal(cwriter_container(w), number);
        assert_int_equal(cwriter_stored(w), container_size(number) - size);
        size = container_size(number);
        cwriter_free(w);
    }
    for (int i = 0; i < 300; i++)
        get_ok(r, &b[i]); /* the open reader finds what was added */
    creader_free(r);
    assert_int_equal(info_of(number).sections, 3);
}

static void writer_does_not_go_on_where_it_must_not(void **state)
{
    (void)state;
    struct block b[10], x;
    uint64_t number = make_container(b, 1, 10, 1000);
    struct cwriter *w;
    /* of another type, with other flags, missing */
    assert_int_equal(cwriter_open(m.st, CONTAINER_RECIPES, CONTAINER_SHARED, number, &w, &err), 0);
    put_ok(w, &x, 10);
    assert_int_not_equal(ref_container(x.ref), number);
    cwriter_free(w);
    assert_int_equal(cwriter_open(m.st, CONTAINER_BLOCKS, CONTAINER_PRIVATE, number, &w, &err), 0);
    put_ok(w, &x, 10);
    assert_int_not_equal(ref_container(x.ref), number);
    cwriter_free(w);
    w = writer(number + 1000);
    put_ok(w, &x, 10);
    assert_int_not_equal(ref_container(x.ref), number + 1000);
    cwriter_free(w);
    /* two at a time */
    w = writer(number);
    struct cwriter *second = writer(number);
    put_ok(second, &x, 10);
    assert_int_not_equal(ref_container(x.ref), number);
    put_ok(w, &x, 10);
    assert_int_equal(ref_container(x.ref), number);
    cwriter_free(second);
    cwriter_free(w);
    /* one byte behind the trailer, one byte short, a damaged trailer */
    for (int how = 0; how < 3; how++) {
        number = make_container(b, 1, 10, 1000);
        uint64_t size = container_size(number);
        int fd = open_container(number, O_RDWR);
        if (how == 0)
            assert_int_equal(pwrite(fd, "x", 1, (off_t)size), 1);
        else if (how == 1)
            assert_int_equal(ftruncate(fd, (off_t)size - 1), 0);
        else
            assert_int_equal(pwrite(fd, "x", 1, (off_t)size - 50), 1);
        close(fd);
        w = writer(number);
        put_ok(w, &x, 10);
        assert_int_not_equal(ref_container(x.ref), number);
        cwriter_free(w);
    }
}

/* The header says which file it is: of another store, number or version it is not this one, though all of it is whole. */
static void writer_does_not_go_on_in_another_file_than_is_meant(void **state)
{
    (void)state;
    struct block b[10], x;
    for (int how = 0; how < 5; how++) {
        uint64_t number = make_container(b, 1, 10, 1000);
        uint8_t head[CHEADER_BYTES];
        struct cheader h;
        int fd = open_container(number, O_RDWR);
        assert_int_equal(pread(fd, head, sizeof head, 0), sizeof head);
        assert_int_equal(cheader_decode(head, &h, NULL), 0);
        if (how == 0)
            h.id.store = vid_random();
        else if (how == 1)
            h.id.container++;
        else if (how == 2)
            h.id.version = vid_random();
        cheader_encode(&h, head);
        if (how == 3)
            head[20] ^= 1;
        assert_int_equal(pwrite(fd, head, sizeof head, 0), sizeof head);
        close(fd);
        struct cwriter *w = writer(number);
        put_ok(w, &x, 10);
        assert_int_equal(ref_container(x.ref) == number, how == 4);     /* as it was: goes on */
        cwriter_free(w);
    }
}

static void full_file_is_followed_by_a_new_one(void **state)
{
    (void)state;
    enum { N = 1200 };
    static struct block b[N];
    struct cwriter *w = writer(REF_NONE);
    for (int i = 0; i < N; i++) {
        do
            b[i].seed = mks_rnd();
        while (b[i].seed % 3 != 0); /* incompressible: 75 MiB */
        static uint8_t buf[BLOCK_MAX];
        b[i].len = BLOCK_MAX;
        block_fill(&b[i], buf);
        struct fp fp = block_fp(&b[i]);
        assert_int_equal(cwriter_append(w, &fp, buf, BLOCK_MAX, &b[i].ref, &err), 0);
    }
    seal_ok(w);
    uint64_t first = ref_container(b[0].ref), second = ref_container(b[N - 1].ref);
    assert_int_equal(second, first + 1);
    assert_int_equal(cwriter_container(w), second);
    assert_int_equal(cwriter_stored(w), container_size(first) + container_size(second));
    cwriter_free(w);
    assert_true(container_size(first) >= CONTAINER_FULL);
    assert_true(container_size(first) < CONTAINER_FULL + FRAME_RAW_MAX + 2 * FOOTER_PAGE_BYTES * 16);
    assert_int_equal(info_of(first).sections, 1);
    assert_int_equal(info_of(first).entries + info_of(second).entries, N);
    struct creader *r = reader(1 << 20);
    for (int i = 0; i < N; i += 7)
        get_ok(r, &b[i]);
    creader_free(r);
    w = writer(first); /* full: not gone on in */
    struct block x;
    put_ok(w, &x, 10);
    assert_int_not_equal(ref_container(x.ref), first);
    cwriter_free(w);
}

/* STORE as it was after the first section, while another mount has sealed a second one: the same ordinals must not come again. */
static void writer_does_not_go_on_where_its_mount_did_not_end(void **state)
{
    (void)state;
    struct block b[30], x;
    uint64_t number = make_container(b, 1, 10, 1000), size = container_size(number);
    struct cwriter *w = writer(number);
    put_ok(w, &b[10], 1000);
    seal_ok(w);
    cwriter_free(w);
    int fd = open_container(number, O_WRONLY);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
    assert_int_equal(info_of(number).entries, 10);
    w = writer(number);     /* put back under the mount */
    put_ok(w, &x, 1000);
    assert_int_not_equal(ref_container(x.ref), number);
    cwriter_free(w);

    number = make_container(b, 1, 10, 1000);
    store_close(m.st);
    assert_int_equal(store_open(m.path, &m.st, &err), 0);
    w = writer(number);     /* of an earlier mount, whatever its end */
    put_ok(w, &x, 1000);
    assert_int_not_equal(ref_container(x.ref), number);
    seal_ok(w);
    uint64_t mine = cwriter_container(w);
    cwriter_free(w);
    w = writer(mine);
    put_ok(w, &x, 1000);
    assert_int_equal(ref_container(x.ref), mine);
    cwriter_free(w);
}

static uint32_t remembered;

static int remember(void *ctx, uint32_t claim, struct verr *e)
{
    (void)ctx;
    (void)e;
    remembered = claim;
    return 0;
}

static int forget(void *ctx, uint32_t claim, struct verr *e)
{
    (void)ctx;
    return verr_set(e, EIO, "claim %u cannot be noted", claim);
}

static void claims_up_to_the_remembered_one_are_not_taken(void **state)
{
    (void)state;
    struct block b[5];
    uint32_t highest;
    struct store_memory memory = {.claim = 7, .claimed = remember};
    store_remember(m.st, &memory);
    assert_int_equal(make_container(b, 1, 5, 100), 8 << 16);
    assert_int_equal(remembered, 8);
    assert_int_equal(store_claim_highest(m.st, &highest, &err), 0);
    assert_int_equal(highest, 8);
    /* what cannot be noted is not used */
    struct store *mine = m.st;
    struct cwriter *w;
    uint64_t ref;
    assert_int_equal(store_open(m.path, &m.st, &err), 0);
    memory.claimed = forget;
    store_remember(m.st, &memory);
    w = writer(REF_NONE);
    struct fp fp = {{1}};
    assert_int_equal(cwriter_append(w, &fp, "x", 1, &ref, &err), -EIO);
    cwriter_free(w);
    store_close(m.st);
    m.st = mine;
}

static int collect(void *ctx, uint64_t number)
{
    uint64_t *list = ctx;
    list[++list[0]] = number;
    return 0;
}

static int collect_stray(void *ctx, const char *path)
{
    char *list = ctx;
    strcat(strcat(list, path), " ");
    return 0;
}

static void each_mount_claims_numbers_of_its_own(void **state)
{
    (void)state;
    struct block b[5];
    uint64_t list[16] = {0};
    struct store *mine = m.st, *other;
    uint64_t one = make_container(b, 1, 5, 100), two = make_container(b, 1, 5, 100);
    assert_int_equal(one, 1 << 16);
    assert_int_equal(two, one + 1);
    assert_int_equal(store_open(m.path, &other, &err), 0);
    m.st = other;
    uint64_t three = make_container(b, 1, 5, 100);
    assert_int_equal(three, 2 << 16);
    m.st = mine;
    store_close(other);
    assert_int_equal(make_container(b, 1, 5, 100), two + 1);
    assert_int_equal(container_each(m.st, collect, list, &err), 0);
    assert_int_equal(list[0], 4);
    int fd = openat(store_dirfd(m.st, DIR_CONTAINERS), "000001/strange", O_CREAT | O_WRONLY, 0600);
    close(fd);
    char path[32], strays[200] = "";
    list[0] = 0;
    assert_int_equal(container_each(m.st, collect, list, &err), 0);
    assert_int_equal(list[0], 4);
    assert_int_equal(container_strays(m.st, collect_stray, strays, &err), 0);
    assert_string_equal(strays, "containers/000001/strange ");
    close(openat(store_dirfd(m.st, DIR_CONTAINERS), "000009", O_CREAT | O_WRONLY, 0600));     /* not a directory */
    assert_int_equal(container_each(m.st, collect, list, &err), 0);
    assert_int_equal(list[0], 8);
    strays[0] = '\0';
    assert_int_equal(container_strays(m.st, collect_stray, strays, &err), 0);
    assert_non_null(strstr(strays, "containers/000009 "));
    if (geteuid() == 0) {       /* a directory that cannot be read is an error; root is refused nothing */
        assert_int_equal(seteuid(65534), 0);
        int each = container_each(m.st, collect, list, &err), all = container_strays(m.st, collect_stray, strays, &err);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(each, -EACCES);
        assert_int_equal(all, -EACCES);
    }
    container_path(0xabcdef1234, path);
    assert_string_equal(path, "abcdef/1234.vc");
}

/* ---- torn tails and damage ---- */

static void torn_tail_is_left_behind_and_what_is_sealed_before_it_reads(void **state)
{
    (void)state;
    struct block b[60];
    uint64_t number = make_container(b, 3, 20, 5000);
    uint64_t sealed = container_size(number);
    struct cwriter *w = writer(number);
    struct block lost[40];
    for (int i = 0; i < 40; i++) {
        do
            put_ok(w, &lost[i], 60000);
        while (lost[i].seed % 3 != 0 && i % 2 != 0);
    }
    uint64_t tail = container_size(number) - sealed;
    assert_true(tail > 0);
    uint8_t *lost_bytes = malloc(tail);
    int fd = open_container(number, O_RDWR);
    assert_int_equal(pread_full(fd, lost_bytes, tail, (off_t)sealed), (ssize_t)tail);
    cwriter_free(w);
    /* As a kill before the seal leaves it: nobody gives its space back. */
    assert_int_equal(pwrite_full(fd, lost_bytes, tail, (off_t)sealed), 0);
    close(fd);
    free(lost_bytes);
    struct container_info info = info_of(number);
    assert_true(info.torn_tail);
    assert_int_equal(info.sealed_bytes, sealed);
    assert_int_equal(info.sections, 3);
    struct creader *r = reader(0);
    for (int i = 0; i < 60; i++)
        get_ok(r, &b[i]);
    assert_int_equal(get(r, &lost[0], &err), -ENODATA);
    creader_free(r);
    uint64_t torn = container_size(number);
    w = writer(number);
    struct block x;
    put_ok(w, &x, 10);
    assert_int_not_equal(ref_container(x.ref), number);
    cwriter_free(w);
    assert_int_equal(container_size(number), torn);
}

/* What a round that failed had written is no torn tail: on a full store it would be one more with each attempt. */
static void what_was_not_sealed_gives_its_space_back(void **state)
{
    (void)state;
    struct block b[60], x;
    uint64_t number = make_container(b, 3, 20, 5000);
    uint64_t sealed = container_size(number);
    struct cwriter *w = writer(number);
    for (int i = 0; i < 40; i++)
        put_ok(w, &x, 60000);
    assert_int_equal(ref_container(x.ref), number);
    assert_true(container_size(number) > sealed);
    cwriter_free(w);
    assert_int_equal(container_size(number), sealed);
    assert_false(info_of(number).torn_tail);
    w = writer(REF_NONE);
    for (int i = 0; i < 40; i++)
        put_ok(w, &x, 60000);
    assert_int_not_equal(ref_container(x.ref), number);
    cwriter_free(w);
    char path[32];
    snprintf(path, sizeof path, "%06x/%04x.vc", (unsigned)(ref_container(x.ref) >> 16), (unsigned)(ref_container(x.ref) & 0xffff));
    assert_int_equal(faccessat(store_dirfd(m.st, DIR_CONTAINERS), path, F_OK, 0), -1);
    /* The file goes on where it was sealed, and reads. */
    w = writer(number);
    put_ok(w, &x, 3000);
    assert_int_equal(ref_container(x.ref), number);
    assert_int_equal(cwriter_seal(w, &err), 0);
    cwriter_free(w);
    struct creader *r = reader(0);
    for (int i = 0; i < 60; i++)
        get_ok(r, &b[i]);
    get_ok(r, &x);
    creader_free(r);
}

/* Whatever the length to which a file was cut: sealed sections read, the rest is unknown, and nothing is called damaged. */
static void every_truncation_is_a_torn_tail(void **state)
{
    (void)state;
    struct block b[12];
    uint64_t number = make_container(b, 3, 4, 300);
    uint64_t size = container_size(number);
    int fd = open_container(number, O_RDWR);
    uint8_t *data = malloc(size);
    assert_int_equal(pread_full(fd, data, size, 0), (ssize_t)size);
    for (uint64_t cut = size; cut-- > 0;) {
        if (cut % 37 != 0 && cut > 200 && size - cut > 200)
            continue;
        assert_int_equal(ftruncate(fd, (off_t)cut), 0);
        struct creader *r = reader(0);
        struct container_info info;
        assert_int_equal(container_walk(r, number, &info, NULL, NULL, &err), 0);
        assert_true(info.torn_tail || info.sealed_bytes == cut);
        for (unsigned i = 0; i < 12; i++)
            assert_int_equal(get(r, &b[i], &err), i / 4 < info.sections ? 0 : -ENODATA);
        assert_true(info.sections < 3);
        creader_free(r);
    }
    close(fd);
    free(data);
}

static int count_entry(void *ctx, uint64_t ref, const struct footer_entry *e)
{
    (void)ref;
    (void)e;
    ++*(unsigned *)ctx;
    return 0;
}

/* Two sections; then each byte in turn. A block reads right or not at all; where nothing is reported nothing is missing. */
static void no_flipped_byte_gives_wrong_data(void **state)
{
    (void)state;
    enum { N = 24 };
    struct block b[N];
    uint64_t number = make_container(b, 2, N / 2, 300);
    uint64_t size = container_size(number);
    int fd = open_container(number, O_RDWR);
    uint8_t *data = malloc(size);
    assert_int_equal(pread_full(fd, data, size, 0), (ssize_t)size);
    unsigned caught = 0;
    for (uint64_t i = 0; i < size; i++) {
        uint8_t flipped = data[i] ^ (uint8_t)(1 + mks_rnd() % 255);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)i), 1);
        struct creader *r = reader(0);
        unsigned entries = 0;
        int walk = container_walk(r, number, NULL, count_entry, &entries, &err);
        assert_true(walk == 0 || walk == -EBADMSG);
        bool failed = walk < 0 || entries < N;
        for (int k = 0; k < N; k += 5) {
            int code = get(r, &b[k], &err);
            assert_true(code == 0 || code == -EBADMSG || code == -ENODATA || code == -EIO);
            failed = failed || code < 0;
        }
        creader_free(r);
        caught += failed;
        assert_int_equal(pwrite(fd, &data[i], 1, (off_t)i), 1);
    }
    print_message("%" PRIu64 " bytes flipped, %u found\n", size, caught);
    assert_int_equal(caught, size);
    close(fd);
    free(data);
}

/* An inner trailer, or a frame before a later trailer: never a torn tail, even when the file ends in one. */
static void damaged_inner_section_is_reported_and_names_the_file(void **state)
{
    (void)state;
    struct block b[30];
    for (int torn = 0; torn < 2; torn++) {
        uint64_t number = make_container(b, 3, 10, 1000);
        char path[32];
        container_path(number, path);
        int fd = open_container(number, O_RDWR);
        uint8_t tail[CTRAILER_BYTES];
        struct ctrailer t;
        const char *why;
        uint64_t size = container_size(number);
        assert_int_equal(pread_full(fd, tail, sizeof tail, (off_t)size - CTRAILER_BYTES), CTRAILER_BYTES);
        assert_int_equal(ctrailer_decode(tail, &t, &why), 0);
        assert_int_equal(pwrite(fd, "?", 1, (off_t)t.prev_trailer + 20), 1); /* the trailer of section 1 */
        if (torn)
            assert_int_equal(pwrite(fd, "garbage", 7, (off_t)size), 7);
        close(fd);
        struct creader *r = reader(0);
        struct container_info info;
        unsigned entries = 0;
        assert_int_equal(container_walk(r, number, &info, count_entry, &entries, &err), -EBADMSG);
        assert_non_null(strstr(err.text, path));
        assert_int_equal(entries, 20); /* what can be read is shown all the same */
        for (int i = 0; i < 30; i++)
            assert_int_equal(get(r, &b[i], &err), i / 10 == 1 ? -EBADMSG : 0);
        assert_int_equal(creader_read(r, ref_make(number, 30), 1, 0, tail, 1, &err), -EBADMSG);
        creader_free(r);
    }
}

static void file_of_another_place_is_refused(void **state)
{
    (void)state;
    struct block a[5], b[5];
    uint64_t one = make_container(a, 1, 5, 500), two = make_container(b, 1, 5, 500);
    char from[32], to[32];
    container_path(one, from);
    container_path(two, to);
    int dir = store_dirfd(m.st, DIR_CONTAINERS);
    assert_int_equal(renameat(dir, from, dir, to), 0);
    struct creader *r = reader(0);
    assert_int_equal(get(r, &b[0], &err), -EBADMSG);
    assert_int_equal(get(r, &a[0], &err), -ENODATA);
    creader_free(r);
}

static void file_whose_header_never_reached_the_disk_is_a_torn_tail(void **state)
{
    (void)state;
    struct block b[5];
    uint64_t number = make_container(b, 1, 5, 500);
    static const uint8_t zero[CHEADER_BYTES];
    int fd = open_container(number, O_RDWR);
    assert_int_equal(pwrite(fd, zero, sizeof zero, 0), CHEADER_BYTES);
    struct creader *r = reader(0);
    struct container_info info;
    assert_int_equal(container_walk(r, number, &info, NULL, NULL, &err), -EBADMSG); /* a sealed section says otherwise */
    const uint64_t sizes[] = {1000, CHEADER_BYTES, 5, 0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ftruncate(fd, (off_t)sizes[i] < 200 ? (off_t)sizes[i] : 200), 0);
        assert_int_equal(container_walk(r, number, &info, NULL, NULL, &err), 0);
        assert_true(info.torn_tail);
        assert_int_equal(info.sections, 0);
        assert_int_equal(get(r, &b[0], &err), -ENODATA);
    }
    close(fd);
    creader_free(r);
}

/* ---- tombstones, and a file that was rewritten under its number ---- */

/* A container of n blocks of 100 bytes in one stored frame; ordinals in `dead` are tombstones; fill tells versions apart. */
static void craft(uint64_t number, unsigned n, uint32_t dead, uint8_t fill, const char *name)
{
    static uint8_t file[CHEADER_BYTES + CFRAME_BYTES + 8500 + FOOTER_PAGE_BYTES + CTRAILER_BYTES];
    struct container_id id = {.store = store_conf(m.st)->id, .container = number, .version = vid_random()};
    struct cheader h = {.id = id, .type = CONTAINER_BLOCKS, .flags = CONTAINER_SHARED};
    struct cframe f = {.id = id, .blocks = n, .codec = FRAME_STORED, .raw_len = n * 100, .stored_len = n * 100};
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    uint8_t *p = file + CHEADER_BYTES;
    memset(file, fill, sizeof file);
    memset(e, 0, sizeof e);
    cheader_encode(&h, file);
    cframe_encode(&f, p + CFRAME_BYTES, p);
    for (unsigned i = 0; i < n; i++)
        if ((dead >> i & 1) == 0)
            e[i] = (struct footer_entry){.frame_off = CHEADER_BYTES, .in_frame = i * 100, .len = 100};
    p += CFRAME_BYTES + n * 100;
    struct ctrailer t = {.id = id, .entries = n, .section_off = CHEADER_BYTES, .footer_off = (uint64_t)(p - file)};
    footer_page_encode(&id, 0, e, n, p);
    ctrailer_encode(&t, p + FOOTER_PAGE_BYTES);
    p += FOOTER_PAGE_BYTES + CTRAILER_BYTES;
    assert_int_equal(file_replace(store_dirfd(m.st, DIR_CONTAINERS), name, file, (size_t)(p - file)), 0);
}

static void tombstone_is_no_data_and_its_neighbours_live(void **state)
{
    (void)state;
    uint64_t number = 7 << 16;
    uint8_t buf[300];
    struct footer_entry e[10];
    assert_int_equal(mkdirat(store_dirfd(m.st, DIR_CONTAINERS), "000007", 0700), 0);
    craft(number, 10, 1 << 4, 0x11, "000007/0000.vc");
    struct creader *r = reader(0);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(creader_read(r, ref_make(number, i), 1, 0, buf, 100, &err), i == 4 ? -ENODATA : 0);
    assert_int_equal(creader_read(r, ref_make(number, 3), 3, 0, buf, 300, &err), -ENODATA);
    assert_int_equal(creader_read(r, ref_make(number, 3), 3, 0, buf, 100, &err), 0);
    assert_int_equal(creader_entries(r, ref_make(number, 0), 10, e, &err), 0);
    assert_int_equal(e[4].len, 0);
    assert_int_equal(e[5].len, 100);
    creader_free(r);
}

static void rewritten_container_is_never_mixed_with_the_one_before(void **state)
{
    (void)state;
    uint64_t number = 7 << 16;
    uint8_t buf[100];
    struct footer_entry e;
    assert_int_equal(mkdirat(store_dirfd(m.st, DIR_CONTAINERS), "000007", 0700), 0);
    craft(number, 10, 0, 0x11, "000007/0000.vc");
    struct creader *r = reader(0);
    assert_int_equal(creader_read(r, ref_make(number, 1), 1, 0, buf, 100, &err), 0);
    assert_int_equal(buf[0], 0x11);
    craft(number, 11, 1 << 2, 0x22, "000007/0000.vc");
    /* the open descriptor is whole in itself */
    assert_int_equal(creader_read(r, ref_make(number, 2), 1, 0, buf, 100, &err), 0);
    assert_int_equal(buf[0], 0x11);
    creader_forget(r, number);
    assert_int_equal(creader_entries(r, ref_make(number, 2), 1, &e, &err), 0);
    assert_int_equal(e.len, 0);
    assert_int_equal(creader_read(r, ref_make(number, 1), 1, 0, buf, 100, &err), 0);
    assert_int_equal(buf[0], 0x22);
    /* an ordinal that only the next version has makes the reader open it by itself */
    craft(number, 12, 0, 0x33, "000007/0000.vc");
    assert_int_equal(creader_read(r, ref_make(number, 11), 1, 0, buf, 100, &err), 0);
    assert_int_equal(buf[0], 0x33);
    creader_free(r);
}

/* A version written over the open one, which nothing of ours does: stale frames are noticed, and never served. */
static void frame_of_another_version_is_noticed(void **state)
{
    (void)state;
    uint64_t number = 7 << 16;
    uint8_t buf[100], head[CHEADER_BYTES + CFRAME_BYTES + 1000];
    assert_int_equal(mkdirat(store_dirfd(m.st, DIR_CONTAINERS), "000007", 0700), 0);
    craft(number, 10, 0, 0x22, "000007/0000.vc");
    int fd = open_container(number, O_RDWR);
    assert_int_equal(pread_full(fd, head, sizeof head, 0), (ssize_t)sizeof head);
    close(fd);
    craft(number, 10, 0, 0x11, "000007/0000.vc");
    fd = open_container(number, O_RDWR);
    assert_int_equal(pwrite_full(fd, head + CHEADER_BYTES, sizeof head - CHEADER_BYTES, CHEADER_BYTES), 0);
    close(fd);
    struct creader *r = reader(0);
    assert_int_equal(creader_read(r, ref_make(number, 1), 1, 0, buf, 100, &err), -EIO);
    creader_free(r);
}

/* ---- caches and descriptors ---- */

static void sequential_reading_decodes_a_frame_once(void **state)
{
    (void)state;
    struct block b[20];
    struct cwriter *w = writer(REF_NONE);
    for (int i = 0; i < 20; i++)
        put_ok(w, &b[i], 4096);
    seal_ok(w);
    uint64_t number = cwriter_container(w);
    cwriter_free(w);
    struct creader *r = reader(0);
    get_ok(r, &b[0]);
    int fd = open_container(number, O_RDWR); /* all blocks are in one frame: it must not be read again */
    assert_int_equal(pwrite(fd, "?????", 5, CHEADER_BYTES + CFRAME_BYTES + 10), 5);
    close(fd);
    for (int i = 0; i < 20; i++)
        get_ok(r, &b[i]);
    creader_free(r);
    r = reader(0);
    assert_int_equal(get(r, &b[0], &err), -EBADMSG);
    creader_free(r);
}

static int count_name(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static int open_descriptors(void)
{
    int n = 0, fd = dir_open(AT_FDCWD, "/proc/self/fd");
    assert_int_equal(dir_each(fd, count_name, &n), 0);
    close(fd);
    return n;
}

static void reader_keeps_a_bounded_number_of_descriptors(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct block b[N];
    for (int i = 0; i < N; i++)
        make_container(&b[i], 1, 1, 50);
    int before = open_descriptors();
    struct creader *r = reader(0);
    for (int i = 0; i < 3 * N; i++)
        get_ok(r, &b[i % N]);
    int used = open_descriptors() - before;
    assert_true(used > 100 && used <= 128);
    creader_free(r);
    assert_int_equal(open_descriptors(), before);
}

/* ---- threads ---- */

struct shared {
    struct creader *r;
    struct block *b;
    uint64_t n;         /* blocks that are sealed: grows (atomic) */
    bool stop;          /* atomic */
    uint64_t reads;     /* atomic */
    int bad;            /* atomic */
};

static void *read_at_random(void *ctx)
{
    struct shared *sh = ctx;
    struct verr e = {0};
    uint64_t rng = (uint64_t)(uintptr_t)&e;
    unsigned rounds = 0;
    while (rounds++ < 3000 && !__atomic_load_n(&sh->stop, __ATOMIC_ACQUIRE)) {
        rng = rng * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint64_t n = __atomic_load_n(&sh->n, __ATOMIC_ACQUIRE);
        if (n == 0)
            continue;
        int code = get(sh->r, &sh->b[(rng >> 33) % n], &e);
        if (code != 0) {
            fprintf(stderr, "reader thread: %d %s\n", code, verr_str(&e));
            __atomic_store_n(&sh->bad, 1, __ATOMIC_RELEASE);
            break;
        }
        __atomic_add_fetch(&sh->reads, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void four_threads_read_with_a_tiny_cache(void **state)
{
    (void)state;
    enum { N = 600 };
    static struct block b[N];
    for (int i = 0; i < 3; i++)
        make_container(b + i * 200, 2, 100, 20000); /* far more frames than the 8 that are kept */
    struct shared sh = {.r = reader(0), .b = b, .n = N};
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, read_at_random, &sh);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(sh.bad, 0);
    assert_int_equal(sh.reads, 4 * 3000);
    creader_free(sh.r);
}

static void readers_follow_a_writer_that_appends(void **state)
{
    (void)state;
    enum { SECTIONS = 30, EACH = 20 };
    static struct block b[SECTIONS * EACH];
    struct shared sh = {.r = reader(1 << 20), .b = b};
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, read_at_random, &sh);
    struct cwriter *w = writer(REF_NONE);
    for (int s = 0; s < SECTIONS; s++) {
        for (int i = 0; i < EACH; i++)
            put_ok(w, &b[s * EACH + i], 1 + (uint32_t)(mks_rnd() % 30000));
        seal_ok(w);
        __atomic_store_n(&sh.n, (uint64_t)(s + 1) * EACH, __ATOMIC_RELEASE);
        struct verr e;
        struct block next = {.ref = b[s * EACH + EACH - 1].ref + 1, .len = 1};
        assert_int_equal(get(sh.r, &next, &e), -ENODATA);
    }
    for (int i = 0; i < SECTIONS * EACH; i++)
        get_ok(sh.r, &b[i]);
    __atomic_store_n(&sh.stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(sh.bad, 0);
    cwriter_free(w);
    creader_free(sh.r);
}

/* ---- faults, in processes of their own ---- */

static void write_errors_kill_the_writer(void **state)
{
    (void)state;
    const struct { const char *fault; int code; } cases[] = {
        {"store.append.write:1=28", ENOSPC}, {"store.append.write:3=5", EIO}, {"store.append.corrupt:2=1", EIO},
        {"store.seal.fdatasync:1=5", EIO}, {"store.seal.trailer:1=28", ENOSPC}, {"store.seal.fdatasync:2=5", EIO},
        {"base.dir_sync:2=5", EIO}, /* 1: the claim */
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        setenv("TEST_CREW", i % 2 == 0 ? "2" : "0", 1);
        int r = mks_child("write", m.path, cases[i / 2].fault);
        if (r != cases[i / 2].code)
            print_message("%s: %d\n", cases[i / 2].fault, r);
        assert_int_equal(r, cases[i / 2].code);
    }
    assert_int_equal(mks_child("write", m.path, "none:1=5"), 0);
}

static int walk_number(void *ctx, uint64_t number)
{
    struct container_info info;
    struct verr e = {0};
    unsigned entries = 0;
    int r = container_walk(ctx, number, &info, count_entry, &entries, &e);
    if (r < 0)
        print_message("%s\n", verr_str(&e));
    return r < 0 || (info.torn_tail && info.sections > 1) ? 1 : 0;
}

static void writer_killed_anywhere_leaves_no_damage(void **state)
{
    (void)state;
    const char *const places[] = {"store.append.write", "store.seal.fdatasync", "store.seal.before_trailer", "store.seal.after_trailer",
                                  "store.seal.trailer", "base.dir_sync", "store.seal.done"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (int n = 1; n < 12; n += 1 + (n > 3) * 3) {
            char fault[96];
            snprintf(fault, sizeof fault, "%s:%d=kill", places[i], n);
            setenv("TEST_CREW", n % 2 == 0 ? "2" : "0", 1);
            int r = mks_child("write", m.path, fault);
            assert_true(r == 0 || r == 1009);
        }
    struct creader *r = reader(0);
    assert_int_equal(container_each(m.st, walk_number, r, &err), 0);
    creader_free(r);
}

/* errno of the first failure; the writer must then answer the same for ever, and nobody may go on in its file. */
static int child_write(struct store *st)
{
    struct cwriter *w;
    struct block b = {0};
    uint64_t first = REF_NONE;
    int r = 0;
    m.st = st;
    if (cwriter_open(st, CONTAINER_BLOCKS, CONTAINER_SHARED, REF_NONE, &w, &err) < 0)
        return 124;
    cwriter_use_pool(w, pool);
    for (int i = 0; r == 0 && i < 12; i++) {
        r = put(w, &b, 60000);
        if (first == REF_NONE && r == 0)
            first = ref_container(b.ref);
    }
    if (r == 0)
        r = cwriter_seal(w, &err);
    struct verr e = {0};
    uint64_t ref;
    struct fp fp = {{0}};
    if (r < 0 && (cwriter_seal(w, &e) != r || cwriter_append(w, &fp, "x", 1, &ref, &e) != r || strcmp(e.text, err.text) != 0))
        return 123;
    cwriter_free(w);
    if (r == 0 || first == REF_NONE)
        return -r;
    if (cwriter_open(st, CONTAINER_BLOCKS, CONTAINER_SHARED, first, &w, &err) < 0 || put(w, &b, 10) < 0)
        return 122;
    cwriter_free(w);
    return ref_container(b.ref) == first ? 121 : -r;
}

static int child(const char *path)
{
    struct store *st;
    mks_rng = 12345;
    if (store_open(path, &st, NULL) < 0)
        return 125;
    const char *threads = getenv("TEST_CREW");
    pool = pool_new(threads != NULL ? (unsigned)atoi(threads) : 0, NULL);
    int r = child_write(st);
    pool_free(pool);
    store_close(st);
    return r;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "child") == 0)
        return child(argv[3]);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(random_blocks_read_back), T(runs_read_across_blocks_frames_and_sections), T(damage_is_found_in_frames_read_whole),
        T(bad_arguments_are_refused_and_do_no_harm),
        T(next_backup_appends_a_section), T(writer_does_not_go_on_where_it_must_not),
        T(writer_does_not_go_on_in_another_file_than_is_meant), T(full_file_is_followed_by_a_new_one),
        T(writer_does_not_go_on_where_its_mount_did_not_end), T(claims_up_to_the_remembered_one_are_not_taken),
        T(each_mount_claims_numbers_of_its_own), T(torn_tail_is_left_behind_and_what_is_sealed_before_it_reads),
        T(what_was_not_sealed_gives_its_space_back),
        T(every_truncation_is_a_torn_tail), T(no_flipped_byte_gives_wrong_data),
        T(damaged_inner_section_is_reported_and_names_the_file), T(file_of_another_place_is_refused),
        T(file_whose_header_never_reached_the_disk_is_a_torn_tail), T(tombstone_is_no_data_and_its_neighbours_live),
        T(rewritten_container_is_never_mixed_with_the_one_before), T(frame_of_another_version_is_noticed),
        T(sequential_reading_decodes_a_frame_once), T(reader_keeps_a_bounded_number_of_descriptors),
        T(four_threads_read_with_a_tiny_cache), T(readers_follow_a_writer_that_appends),
#ifdef VARVE_FAULTS
        T(write_errors_kill_the_writer), T(writer_killed_anywhere_leaves_no_damage),
#endif
    };
#ifndef VARVE_FAULTS
    (void)write_errors_kill_the_writer;
    (void)writer_killed_anywhere_leaves_no_damage;
#endif
    pool = pool_new(2, NULL);
    int r = cmocka_run_group_tests(tests, group_setup, NULL);
    pool_free(pool);
    return r;
}
