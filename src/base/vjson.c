/* SPDX-License-Identifier: Apache-2.0 */
#include "base/vjson.h"

#include "base/hex.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *vjson_u64(uint64_t value)
{
    char digits[24];
    if (value <= INT64_MAX)
        return json_integer((json_int_t)value);
    snprintf(digits, sizeof digits, "%" PRIu64, value);
    return json_string(digits);
}

/* ---- texts: a byte 0x80 to 0xff that belongs to no character is the character BYTE_BASE + byte ---- */

enum { BYTE_BASE = 0xef00, BYTE_FIRST = 0xef80, BYTE_LAST = 0xefff };

/* The characters that stand for bytes stand for nothing else: in a text they are bytes, too. */
static size_t plain_char(const char *p, size_t n)
{
    uint32_t c;
    size_t len = utf8_char(p, n, &c);
    return len > 0 && c >= BYTE_FIRST && c <= BYTE_LAST ? 0 : len;
}

json_t *vjson_text(const char *text)
{
    size_t n = strlen(text);
    char *out = malloc(3 * n + 1), *to = out;
    if (out == NULL)
        return NULL;
    while (n > 0) {
        size_t len = plain_char(text, n);
        if (len == 0) {
            uint8_t byte = (uint8_t)*text;
            *to++ = (char)(0xe0 | BYTE_BASE >> 12);
            *to++ = (char)(0x80 | ((BYTE_BASE | byte) >> 6 & 0x3f));
            *to++ = (char)(0x80 | (byte & 0x3f));
            len = 1;
        } else {
            memcpy(to, text, len);
            to += len;
        }
        text += len;
        n -= len;
    }
    json_t *v = json_stringn_nocheck(out, (size_t)(to - out));
    free(out);
    return v;
}

char *vjson_bytes(const char *text, char *out, size_t cap)
{
    size_t n = strlen(text), at = 0;
    while (n > 0) {
        uint32_t c = 0;
        size_t len = utf8_char(text, n, &c);
        bool byte = len > 0 && c >= BYTE_FIRST && c <= BYTE_LAST;
        size_t add = byte || len == 0 ? 1 : len;
        if (at + add >= cap)
            break;
        if (byte)
            out[at] = (char)(c - BYTE_BASE);
        else
            memcpy(out + at, text, add);
        at += add;
        text += len == 0 ? 1 : len;
        n -= len == 0 ? 1 : len;
    }
    out[at] = '\0';
    return out;
}

/* ---- output ---- */

/* Between quotation marks only: outside of them JSON is ASCII. */
static char *put_units(char *to, uint32_t c)
{
    if (c > 0xffff)
        to += snprintf(to, 13, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
    else
        to += snprintf(to, 7, "\\u%04x", c);
    return to;
}

char *vjson_dump(const json_t *value, size_t flags)
{
    char *plain = value == NULL ? NULL : json_dumps(value, flags);
    size_t n = plain == NULL ? 0 : strlen(plain);
    char *out = plain == NULL ? NULL : malloc(6 * n + 1), *to = out;    /* a byte becomes six at most: DEL */
    for (size_t i = 0, len; out != NULL && i < n; i += len) {
        uint32_t c = 0;
        len = utf8_char(plain + i, n - i, &c);
        if (len > 0 && c != '\n' && !utf8_is_shown(c)) {
            to = put_units(to, c);
        } else {
            len += len == 0;
            memcpy(to, plain + i, len);
            to += len;
        }
    }
    if (out != NULL)
        *to = '\0';
    free(plain);
    return out;
}

/* ---- other values ---- */

json_t *vjson_hex(const void *bytes, size_t n)
{
    char digits[2 * VJSON_HEX_MAX + 1];
    hex_print(bytes, n, digits);
    return json_stringn_nocheck(digits, 2 * n);
}

json_t *vjson_id(const struct vid *id)
{
    return vid_is_zero(id) ? json_string("none") : vjson_hex(id->b, VID_BYTES);
}
