/* SPDX-License-Identifier: Apache-2.0 */
/* live_fake: what the tests of `live` share: a private STATE, a clock of their own, and a source of stored segments in memory. */
#ifndef VARVE_TEST_LIVE_FAKE_H
#define VARVE_TEST_LIVE_FAKE_H

#include "base/file.h"
#include "base/verr.h"
#include "live/live.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK(expr) do { int check_r_ = (int)(expr); if (check_r_ < 0) fail_msg("%s: %d: %s", #expr, check_r_, verr_str(&err)); } while (0)

/* ---- clock ---- */
static int64_t fake_now_ns = INT64_C(1700000000) * 1000000000;
static int64_t fake_time(void *ctx) { (void)ctx; return __atomic_add_fetch(&fake_now_ns, 1000, __ATOMIC_RELAXED); }
static const struct vclock fake_clock = {fake_time, fake_time, NULL};

/* Every byte of [off, off + n) becomes c. */
static __attribute__((unused)) void fake_fill(struct live *l, uint64_t off, size_t n, int c)
{
    struct verr err = {0};
    uint8_t *buf = malloc(n);
    assert_non_null(buf);
    memset(buf, c, n);
    CHECK(live_write(l, off, buf, n, &err));
    free(buf);
}

/* ---- stored segments: place = index + 7 ---- */
enum { FAKE_PLACE = 7 };
struct fake_source { uint8_t **seg; size_t n, cap; unsigned reads; bool away; };

static __attribute__((unused)) uint64_t fake_store(struct fake_source *f, const uint8_t *bytes)
{
    if (f->n == f->cap) {
        f->cap = f->cap * 2 + 16;
        f->seg = realloc(f->seg, f->cap * sizeof *f->seg);
        assert_non_null(f->seg);
    }
    f->seg[f->n] = malloc(SEG_BYTES);
    assert_non_null(f->seg[f->n]);
    memcpy(f->seg[f->n], bytes, SEG_BYTES);
    return FAKE_PLACE + __atomic_fetch_add(&f->n, 1, __ATOMIC_SEQ_CST);
}

static void fake_free(struct fake_source *f)
{
    for (size_t i = 0; i < f->n; i++)
        free(f->seg[i]);
    free(f->seg);
    *f = (struct fake_source){0};
}

static bool fake_page_used(const uint8_t *seg, unsigned page)
{
    static const uint8_t zeros[PAGE_BYTES];
    return memcmp(seg + page * (size_t)PAGE_BYTES, zeros, PAGE_BYTES) != 0;
}

static uint8_t *fake_seg(struct fake_source *f, uint64_t place, struct verr *err)
{
    if (f->away || place < FAKE_PLACE || place - FAKE_PLACE >= __atomic_load_n(&f->n, __ATOMIC_SEQ_CST)) {
        verr_set(err, EIO, "no segment at place %llu", (unsigned long long)place);
        return NULL;
    }
    return f->seg[place - FAKE_PLACE];
}

static int fake_read(void *ctx, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err)
{
    struct fake_source *f = ctx;
    const uint8_t *seg = fake_seg(f, place, err);
    __atomic_add_fetch(&f->reads, 1, __ATOMIC_RELAXED);
    if (seg == NULL)
        return -EIO;
    assert_true(off + len <= SEG_BYTES);
    memcpy(buf, seg + off, len);
    return 0;
}

static int fake_seek(void *ctx, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err)
{
    const uint8_t *seg = fake_seg(ctx, place, err);
    if (seg == NULL)
        return -EIO;
    uint32_t at = off;
    while (at < SEG_BYTES && fake_page_used(seg, at / PAGE_BYTES) == hole)
        at = (at / PAGE_BYTES + 1) * PAGE_BYTES;
    *out = at;
    return 0;
}

static uint32_t fake_count(const uint8_t *seg)
{
    uint32_t n = 0;
    for (unsigned p = 0; p < SEG_PAGES; p++)
        n += fake_page_used(seg, p);
    return n;
}

static int fake_pages(void *ctx, uint64_t place, uint32_t *out, struct verr *err)
{
    const uint8_t *seg = fake_seg(ctx, place, err);
    if (seg == NULL)
        return -EIO;
    *out = fake_count(seg);
    return 0;
}

static struct seg_source fake_table(struct fake_source *f)
{
    return (struct seg_source){fake_read, fake_seek, fake_pages, f};
}

/* ---- directories ---- */
static char *fake_dir(char out[64])
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(out, 64, "%s/varve-live-XXXXXX", base);
    assert_non_null(mkdtemp(out));
    return out;
}

static void fake_remove(const char *path)
{
    assert_int_equal(tree_remove(AT_FDCWD, path), 0);
}

static __attribute__((unused)) void copy_file(int from_dir, int to_dir, const char *name)
{
    enum { STEP = 1 << 16 };
    static uint8_t buf[STEP];
    int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC);
    if (from < 0 && errno == ENOENT)
        return;                     /* removed meanwhile */
    int to = openat(to_dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct stat st;
    assert_true(from >= 0 && to >= 0 && fstat(from, &st) == 0);
    assert_int_equal(ftruncate(to, st.st_size), 0);
    for (off_t at = lseek(from, 0, SEEK_DATA); at >= 0; at = lseek(from, at, SEEK_DATA)) {
        ssize_t got = pread_full(from, buf, STEP, at);
        assert_true(got > 0);
        assert_int_equal(pwrite_full(to, buf, (size_t)got, at), 0);
        at += got;
    }
    close(from);
    close(to);
}

struct fake_copy { int from, to; };

static __attribute__((unused)) int copy_entry(void *ctx, const char *name)
{
    const struct fake_copy *c = ctx;
    struct stat st;
    if (fstatat(c->from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (!S_ISDIR(st.st_mode)) {
        copy_file(c->from, c->to, name);
        return 0;
    }
    struct fake_copy sub = {dir_open(c->from, name), dir_make(c->to, name)};
    assert_true(sub.from >= 0 && sub.to >= 0);
    int r = dir_each(sub.from, copy_entry, &sub);
    close(sub.from);
    close(sub.to);
    return r;
}

/* STATE as a kill -9 at this moment would leave it. */
static __attribute__((unused)) void copy_tree(const char *from, const char *to)
{
    struct fake_copy c = {dir_open(AT_FDCWD, from), dir_make(AT_FDCWD, to)};
    assert_true(c.from >= 0 && c.to >= 0);
    assert_int_equal(dir_each(c.from, copy_entry, &c), 0);
    close(c.from);
    close(c.to);
}

static __attribute__((unused)) struct live_set *open_set(const char *state, struct fake_source *f, bool trusted,
                     const struct live_env *more)
{
    struct verr err = {0};
    struct live_env env = more != NULL ? *more : (struct live_env){.open_max = 4};
    if (env.files_max == 0)
        env.files_max = 5;          /* fewer than one disk has */
    env.state_dirfd = dir_open(AT_FDCWD, state);
    assert_true(env.state_dirfd >= 0);
    env.source = fake_table(f);
    env.clock = &fake_clock;
    env.trusted = trusted;
    struct live_set *set = NULL;
    CHECK(live_set_open(&env, &set, &err));
    close(env.state_dirfd);
    return set;
}

#endif
