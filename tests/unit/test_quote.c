/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of any bytes: as lines, as names for a shell, and as JSON that gives them back. */
#include "base/mounts.h"
#include "base/quote.h"
#include "base/utf8.h"
#include "base/vjson.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_names(void **state)
{
    static const struct { const char *name, *quoted; } cases[] = {
        {"disk.img", "disk.img"}, {"", "''"}, {"-rf", "-rf"}, {"caf\xc3\xa9@2026.img", "caf\xc3\xa9@2026.img"},
        {"a b", "'a b'"}, {"it's", "\"it's\""}, {"it's $1", "'it'\\''s $1'"}, {"a\\b", "'a\\b'"}, {"\"", "'\"'"},
        {"#a", "'#a'"}, {"a#", "a#"}, {"~", "'~'"}, {"a~", "a~"}, {"{", "'{'"}, {"{}", "{}"}, {"a~'", "'a~'\\'''"},
        {"a\nb", "'a'$'\\n''b'"}, {"\x1b[31m", "''$'\\033''[31m'"}, {"\t", "''$'\\t'"}, {"a\n'b", "'a'$'\\n'\\''b'"}, {"\x7f", "''$'\\177'"},
        {"caf\xe9.img", "'caf'$'\\351''.img'"},                 /* Latin-1 */
        {"\xc0\xaf", "''$'\\300\\257'"},                        /* overlong */
        {"\xed\xa0\x80", "''$'\\355\\240\\200'"},               /* a surrogate */
        {"a\xe2\x82", "'a'$'\\342\\202'"},                      /* cut */
        {"\xf4\x90\x80\x80", "''$'\\364\\220\\200\\200'"},      /* beyond U+10FFFF */
        {"\xc2\x9b", "''$'\\302\\233'"},                        /* C1: CSI */
        {"a\xe2\x80\xae" "b", "'a'$'\\342\\200\\256''b'"},      /* right to left */
        {"\xee\xbe\x80", "''$'\\356\\276\\200'"},               /* a byte's character in JSON */
    };
    char out[QUOTED_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(quote_name(cases[i].name, out, sizeof out), cases[i].quoted);
}

/* Whatever is cut can be closed: a shell reads the quotes, and no character is cut in two. */
static void test_cut(void **state)
{
    static const char *const names[] = {"abcdefghijklmnopqrstuvwxyz0123", "\n\n\n\n\n\n\n\n\n\n\n", "a\nb\nc\nd\ne\nf\ng\nh",
                                        "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
                                        "a'b'c'd'e'f'g'h'i'j'k'l'm'n'o'p'q", "'\n'\n'\n'\n'\n'\n'"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (size_t cap = 16; cap < 30; cap++) {
            char out[32], again[32];
            memset(out, 0x55, sizeof out);
            quote_name(names[i], out, cap);
            assert_true(strlen(out) < cap && out[cap] == 0x55);
            assert_string_equal(out + strlen(out) - 3, "...");
            assert_string_equal(quote_line(out, again, sizeof again), out);
            assert_int_equal(strncmp(out, "'", 1) == 0, out[strlen(out) - 4] == '\'');
        }
    }
}

static void test_lines(void **state)
{
    static const struct { const char *text, *line; } cases[] = {
        {"", ""}, {"a note: it's $5, C:\\dir", "a note: it's $5, C:\\dir"}, {"two\nlines\r\n\tend", "two\\nlines\\r\\n\\tend"},
        {"\x1b]0;x\a", "\\033]0;x\\a"}, {"caf\xe9", "caf\\351"}, {"caf\xc3\xa9", "caf\xc3\xa9"}, {"\xc2\x85", "\\302\\205"},
        {"a\xe2\x80\xa8z", "a\\342\\200\\250z"}, {"cut \xf0\x9f\x92", "cut \\360\\237\\222"},
    };
    char out[100], again[100];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(quote_line(cases[i].text, out, sizeof out), cases[i].line);
        assert_string_equal(quote_line(out, again, sizeof again), out);
    }
    assert_string_equal(quote_line("abc\n", out, 5), "abc");     /* no half of an escape */
}

/* Is every character of a line shown? */
static void is_shown(const char *text)
{
    size_t n = strlen(text), len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t c = 0;
        len = utf8_char(text + i, n - i, &c);
        assert_true(len > 0 && utf8_is_shown(c));
    }
}

static void comes_back(const char *text)
{
    char bytes[64], quoted[QUOTED_MAX], line[QUOTED_MAX];
    json_t *v = vjson_text(text), *list = json_array();
    assert_string_equal(vjson_bytes(json_string_value(v), bytes, sizeof bytes), text);
    json_array_append_new(list, v);
    char *json = vjson_dump(list, JSON_COMPACT);
    is_shown(json);
    json_t *read = json_loads(json, 0, NULL);
    assert_non_null(read);
    assert_string_equal(vjson_bytes(json_string_value(json_array_get(read, 0)), bytes, sizeof bytes), text);
    is_shown(quote_name(text, quoted, sizeof quoted));
    is_shown(quote_line(text, line, sizeof line));
    json_decref(read);
    json_decref(list);
    free(json);
}

static void test_json(void **state)
{
    static const struct { const char *text, *json; } cases[] = {
        {"disk.img", "\"disk.img\""}, {"caf\xc3\xa9", "\"caf\xc3\xa9\""}, {"caf\xe9", "\"caf\\uefe9\""}, {"\xc3\x28", "\"\\uefc3(\""},
        {"\xee\xbf\xa9", "\"\\uefee\\uefbf\\uefa9\""}, {"a\n\x1b\x7f\xc2\x9b", "\"a\\n\\u001B\\u007f\\u009b\""},
        {"\xe2\x80\xae", "\"\\u202e\""}, {"\xf3\xa0\x80\x81", "\"\\udb40\\udc01\""}, {"\xf0\x9f\x92\xbe", "\"\xf0\x9f\x92\xbe\""},
        {"\xed\xa0\x80", "\"\\uefed\\uefa0\\uef80\""}, {"\xc0\x80", "\"\\uefc0\\uef80\""}, {"\xee\xbd\xbf", "\"\xee\xbd\xbf\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *v = vjson_text(cases[i].text);
        char *json = vjson_dump(v, JSON_ENCODE_ANY);
        assert_string_equal(json, cases[i].json);
        free(json);
        json_decref(v);
        comes_back(cases[i].text);
    }
    assert_null(vjson_dump(NULL, 0));
}

/* Texts of bytes that make and break characters, in all orders. */
static void test_any_bytes(void **state)
{
    static const char bytes[] = "a'\n\x1b\x80\xbe\xbf\xc2\xe2\xee\xef\xf0\x9b\xff\xa8\\";
    enum { LENGTH = 4, KINDS = sizeof bytes - 1 };
    (void)state;
    for (unsigned i = 0; i < KINDS * KINDS * KINDS * KINDS; i++) {
        char text[LENGTH + 1] = "";
        for (unsigned k = 0, n = i; k < LENGTH; k++, n /= KINDS)
            text[k] = bytes[n % KINDS];
        comes_back(text);
    }
}

static void test_bytes_that_do_not_fit(void **state)
{
    char out[5];
    (void)state;
    assert_string_equal(vjson_bytes("abc\xc3\xa9", out, sizeof out), "abc");
    assert_string_equal(vjson_bytes("abc\xee\xbf\xa9z", out, sizeof out), "abc\xe9");
    assert_string_equal(vjson_bytes("", out, 1), "");
}

static int find_root(void *ctx, const struct mount_line *m)
{
    if (strcmp(m->point, "/") == 0 && m->type[0] != '\0' && m->source[0] != '\0')
        *(int *)ctx = 1;
    return 0;
}

static void test_mounts(void **state)
{
    int found = 0;
    (void)state;
    assert_int_equal(mounts_each(0, find_root, &found), 0);
    assert_true(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_cut), cmocka_unit_test(test_lines), cmocka_unit_test(test_json),
        cmocka_unit_test(test_any_bytes), cmocka_unit_test(test_bytes_that_do_not_fit), cmocka_unit_test(test_mounts),
    };
    return cmocka_run_group_tests_name("quote", tests, NULL, NULL);
}
