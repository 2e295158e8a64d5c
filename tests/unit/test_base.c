/* SPDX-License-Identifier: Apache-2.0 */
/* base: error texts, ids, little-endian accessors, checksums, time names, and files on a real directory. */
#include "base/clock.h"
#include "base/endian.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/id.h"
#include "base/verr.h"
#include "base/vjson.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir_name[] = "/tmp/varve-base-XXXXXX";
static int dir = -1;

static int make_dir(void **state)
{
    (void)state;
    if (mkdtemp(dir_name) == NULL)
        return -1;
    dir = dir_open(AT_FDCWD, dir_name);
    return dir < 0 ? -1 : 0;
}

static int remove_dir(void **state)
{
    (void)state;
    close(dir);
    return tree_remove(AT_FDCWD, dir_name);
}

static int count_entry(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

static int entries(void)
{
    int n = 0;
    assert_int_equal(dir_each(dir, count_entry, &n), 0);
    return n;
}

static void assert_content(const char *name, const char *want)
{
    uint8_t *data = NULL;
    size_t len = 0;
    assert_int_equal(file_load(dir, name, 1 << 20, &data, &len), 0);
    assert_int_equal(len, strlen(want));
    assert_string_equal((char *)data, want);
    free(data);
}

/* ---- verr ---- */

static void verr_set_records_and_returns_the_negative_code(void **state)
{
    (void)state;
    struct verr err = {0};
    assert_int_equal(verr_set(&err, EIO, "%s: %d", "file", 7), -EIO);
    assert_int_equal(err.code, EIO);
    assert_string_equal(verr_str(&err), "file: 7");
    assert_int_equal(verr_set(NULL, ENOSPC, "nobody listens"), -ENOSPC);
}

static void verr_prefix_puts_text_in_front(void **state)
{
    (void)state;
    struct verr err = {0};
    verr_set(&err, EBADMSG, "checksum");
    assert_int_equal(verr_prefix(&err, EIO, "container %d", 3), -EBADMSG);
    assert_string_equal(verr_str(&err), "container 3: checksum");
    struct verr empty = {0};
    assert_int_equal(verr_prefix(&empty, EIO, "open"), -EIO);
    assert_int_equal(empty.code, EIO);
    assert_int_equal(verr_prefix(NULL, EAGAIN, "x"), -EAGAIN);
}

static void verr_long_texts_are_cut_and_not_overrun(void **state)
{
    (void)state;
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    struct verr err = {0};
    verr_set(&err, EIO, "%s", big);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(verr_prefix(&err, EIO, "%s", big), -EIO);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(verr_prefix(&err, EIO, "short"), -EIO);
    assert_memory_equal(err.text, "short: aaa", 10);
}

static void verr_str_is_never_null(void **state)
{
    (void)state;
    struct verr err = {.code = ENOENT};
    assert_string_equal(verr_str(&err), strerror(ENOENT));
    assert_non_null(verr_str(NULL));
}

/* ---- ids, numbers, checksums ---- */

static void ids_round_trip_through_hex(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++) {
        struct vid id = vid_random(), back;
        char hex[VID_HEX];
        vid_hex(&id, hex);
        assert_int_equal(strlen(hex), 32);
        assert_int_equal(vid_parse(hex, &back), 0);
        assert_true(vid_eq(&id, &back));
        assert_false(vid_is_zero(&id));
    }
}

static void malformed_ids_are_refused_and_leave_the_output_alone(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "", "0", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdef0", "0123456789ABCDEF0123456789abcdef",
        "0123456789abcdef0123456789abcdeg", " 123456789abcdef0123456789abcdef", "0x23456789abcdef0123456789abcdef",
    };
    struct vid id = {{1, 2, 3}};
    const struct vid before = id;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(vid_parse(wrong[i], &id), -EINVAL);
        assert_true(vid_eq(&id, &before));
    }
}

static void hex_reads_exactly_its_digits(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0x00, 0x9a, 0xff};
    uint8_t back[3] = {0}, kept[3] = {7, 7, 7};
    char text[7];
    uint64_t n = 5;
    hex_print(bytes, sizeof bytes, text);
    assert_string_equal(text, "009aff");
    assert_int_equal(hex_bytes("009affxyz", back, sizeof back), 0);
    assert_memory_equal(back, bytes, sizeof bytes);
    assert_int_equal(hex_bytes("009af", kept, sizeof kept), -EINVAL);
    assert_int_equal(hex_bytes("009aFf", kept, sizeof kept), -EINVAL);
    assert_int_equal(kept[0], 7);
    assert_int_equal(hex_number("fedcba9876543210-", 16, &n), 0);
    assert_true(n == UINT64_C(0xfedcba9876543210));
    assert_int_equal(hex_number("00ff.vc", 4, &n), 0);
    assert_int_equal(n, 255);
    for (unsigned i = 0; i < 4; i++) {
        static const char *const wrong[] = {"", "fff", "fffG", "+fff"};
        assert_int_equal(hex_number(wrong[i], 4, &n), -EINVAL);
        assert_int_equal(n, 255);
    }
}

static void numbers_become_json(void **state)
{
    (void)state;
    json_t *most = vjson_u64(UINT64_MAX), *number = vjson_u64(INT64_MAX);
    assert_string_equal(json_string_value(most), "18446744073709551615");
    assert_true(json_integer_value(number) == INT64_MAX);
    json_decref(most);
    json_decref(number);
}

static void inode_numbers_keep_clear_of_reserved_ones(void **state)
{
    (void)state;
    struct vid zero = {{0}}, ones;
    memset(ones.b, 0xff, sizeof ones.b);
    assert_true(vid_is_zero(&zero));
    assert_int_equal(vid_ino(&zero), 1024);
    assert_true(vid_ino(&ones) == UINT64_MAX >> 2);
    struct vid small = {{0xfc, 0x0f}}; /* 4092 >> 2 = 1023 */
    assert_int_equal(vid_ino(&small), 2047);
}

static void accessors_are_little_endian(void **state)
{
    (void)state;
    uint8_t b[8];
    static const uint8_t want[8] = {8, 7, 6, 5, 4, 3, 2, 1};
    put_le64(b, UINT64_C(0x0102030405060708));
    assert_memory_equal(b, want, 8);
    assert_true(get_le64(b) == UINT64_C(0x0102030405060708));
    assert_true(get_be64(b) == UINT64_C(0x0807060504030201));
    put_le32(b, 0xa1b2c3d4);
    assert_int_equal(b[0], 0xd4);
    assert_true(get_le32(b) == 0xa1b2c3d4);
    put_le16(b + 1, 0xbeef);
    assert_true(get_le16(b + 1) == 0xbeef);
}

/* Values that are in files of stores: a change of the library must not go unseen. */
static void checksums_keep_their_values(void **state)
{
    (void)state;
    assert_true(hash64("", 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(hash64("varve", 5) == hash64_seed("varve", 5, 0));
    assert_true(hash64("varve", 5) != hash64_seed("varve", 5, 1));
    assert_true(hash64("varve", 5) != hash64("varvf", 5));
    static uint8_t data[5000], holed[5000];
    memset(data, 'd', sizeof data);
    for (size_t len = 8; len <= sizeof data; len = len * 3 + 1) {
        for (size_t hole = 0; hole + 8 <= len; hole += len / 3 + 1) {
            memcpy(holed, data, len);
            memset(holed + hole, 0, 8);
            assert_true(hash64_hole(data, len, hole, 0) == hash64(holed, len));
            assert_true(hash64_hole(data, len, hole, len) == hash64_seed(holed, len, len));
        }
    }
}

static void times_become_names(void **state)
{
    (void)state;
    char out[17];
    time_name(0, out);
    assert_string_equal(out, "19700101T000000Z");
    time_name(1795316400, out);
    assert_string_equal(out, "20261122T030000Z");
    time_name(INT64_MIN, out);
    assert_string_equal(out, "19700101T000000Z");
    time_name(INT64_MAX, out);
    assert_string_equal(out, "99991231T235959Z");
}

/* ---- files ---- */

static void replaced_file_has_the_new_content_and_no_leftovers(void **state)
{
    (void)state;
    int before = entries();
    assert_int_equal(file_replace(dir, "r", "one", 3), 0);
    assert_content("r", "one");
    assert_int_equal(file_replace(dir, "r", "second", 6), 0);
    assert_content("r", "second");
    struct stat st;
    assert_int_equal(fstatat(dir, "r", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(entries(), before + 1);
    assert_int_equal(file_replace(dir, "r", "", 0), 0);
    assert_content("r", "");
    unlinkat(dir, "r", 0);
}

static void failed_replace_keeps_the_old_and_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(mkdirat(dir, "taken", 0700), 0);
    assert_int_equal(mkdirat(dir, "taken/inside", 0700), 0);
    int before = entries();
    assert_true(file_replace(dir, "taken", "x", 1) < 0); /* rename of a file onto a directory */
    assert_int_equal(entries(), before);
    assert_int_equal(tree_remove(dir, "taken"), 0);
    assert_int_equal(file_replace(dir, "no/such/dir", "x", 1), -ENOENT);
    assert_int_equal(entries(), before - 1);
}

static void publishing_a_taken_name_changes_nothing(void **state)
{
    (void)state;
    int before = entries();
    assert_int_equal(file_publish(dir, "p", "first", 5), 0);
    assert_content("p", "first");
    assert_int_equal(file_publish(dir, "p", "other", 5), -EEXIST);
    assert_content("p", "first");
    assert_int_equal(entries(), before + 1);
    struct stat st;
    assert_int_equal(fstatat(dir, "p", &st, 0), 0);
    assert_int_equal(st.st_nlink, 1);
    unlinkat(dir, "p", 0);
}

static void loading_refuses_what_is_no_small_regular_file(void **state)
{
    (void)state;
    uint8_t *data = (uint8_t *)1;
    size_t len = 99;
    assert_int_equal(file_replace(dir, "f", "12345", 5), 0);
    assert_int_equal(file_load(dir, "f", 4, &data, &len), -EFBIG);
    assert_int_equal(file_load(dir, "absent", 4, &data, &len), -ENOENT);
    assert_int_equal(symlinkat("f", dir, "link"), 0);
    assert_int_equal(file_load(dir, "link", 100, &data, &len), -ELOOP);
    assert_int_equal(file_load(dir, ".", 1 << 20, &data, &len), -EINVAL);
    assert_true(data == (uint8_t *)1 && len == 99);
    assert_int_equal(file_load(dir, "f", 5, &data, &len), 0);
    assert_int_equal(len, 5);
    free(data);
    unlinkat(dir, "f", 0);
    unlinkat(dir, "link", 0);
}

static void whole_transfers_and_reads_at_the_end(void **state)
{
    (void)state;
    int fd = openat(dir, "t", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite_full(fd, "abcdef", 6, 10), 0);
    char b[20] = "";
    assert_int_equal(pread_full(fd, b, 6, 10), 6);
    assert_memory_equal(b, "abcdef", 6);
    assert_int_equal(pread_full(fd, b, 20, 12), 4);
    assert_int_equal(pread_full(fd, b, 20, 100), 0);
    close(fd);
    assert_int_equal(pread_full(fd, b, 1, 0), -EBADF);
    assert_int_equal(pwrite_full(fd, b, 1, 0), -EBADF);
    unlinkat(dir, "t", 0);
}

static void tree_remove_takes_everything_but_follows_no_link(void **state)
{
    (void)state;
    int keep = dir_make(dir, "keep");
    assert_true(keep >= 0);
    assert_int_equal(file_replace(keep, "data", "x", 1), 0);
    int a = dir_make(dir, "tree");
    int b = dir_make(a, "sub");
    assert_true(a >= 0 && b >= 0);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", i);
        int fd = openat(i % 2 ? a : b, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        close(fd);
    }
    assert_int_equal(symlinkat("../keep", a, "link"), 0);
    close(a);
    close(b);
    assert_int_equal(tree_remove(dir, "tree"), 0);
    assert_int_equal(faccessat(dir, "tree", F_OK, 0), -1);
    assert_int_equal(faccessat(keep, "data", F_OK, 0), 0);
    assert_int_equal(tree_remove(dir, "tree"), 0); /* absent is fine */
    close(keep);
    assert_int_equal(tree_remove(dir, "keep"), 0);
}

static int stop_at_first(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return -EXDEV;
}

static void listing_stops_at_an_answer_and_reports_errors(void **state)
{
    (void)state;
    assert_int_equal(file_replace(dir, "l1", "", 0), 0);
    assert_int_equal(file_replace(dir, "l2", "", 0), 0);
    int n = 0;
    assert_int_equal(dir_each(dir, stop_at_first, &n), -EXDEV);
    assert_int_equal(n, 1);
    n = 0;
    assert_true(dir_each(-1, count_entry, &n) < 0);
    assert_int_equal(n, 0);
    assert_int_equal(dir_open(dir, "l1"), -ENOTDIR);
    assert_int_equal(dir_open(dir, "l3"), -ENOENT);
    unlinkat(dir, "l1", 0);
    unlinkat(dir, "l2", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verr_set_records_and_returns_the_negative_code),
        cmocka_unit_test(verr_prefix_puts_text_in_front),
        cmocka_unit_test(verr_long_texts_are_cut_and_not_overrun),
        cmocka_unit_test(verr_str_is_never_null),
        cmocka_unit_test(ids_round_trip_through_hex),
        cmocka_unit_test(malformed_ids_are_refused_and_leave_the_output_alone),
        cmocka_unit_test(hex_reads_exactly_its_digits),
        cmocka_unit_test(numbers_become_json),
        cmocka_unit_test(inode_numbers_keep_clear_of_reserved_ones),
        cmocka_unit_test(accessors_are_little_endian),
        cmocka_unit_test(checksums_keep_their_values),
        cmocka_unit_test(times_become_names),
        cmocka_unit_test(replaced_file_has_the_new_content_and_no_leftovers),
        cmocka_unit_test(failed_replace_keeps_the_old_and_leaves_nothing),
        cmocka_unit_test(publishing_a_taken_name_changes_nothing),
        cmocka_unit_test(loading_refuses_what_is_no_small_regular_file),
        cmocka_unit_test(whole_transfers_and_reads_at_the_end),
        cmocka_unit_test(tree_remove_takes_everything_but_follows_no_link),
        cmocka_unit_test(listing_stops_at_an_answer_and_reports_errors),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
