/* SPDX-License-Identifier: Apache-2.0 */
#include "base/vjson.h"

#include "base/hex.h"

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

/* Length of the UTF-8 sequence at p (at most n bytes), or 0 when it is none: no overlong forms, surrogates, or beyond 10FFFF. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (len <= 1)
        return len;
    if (len > n)
        return 0;
    uint32_t c = p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

json_t *vjson_text(const char *text)
{
    json_t *plain = json_string(text);      /* NULL for what is not UTF-8 */
    if (plain != NULL)
        return plain;
    const uint8_t *p = (const uint8_t *)text;
    size_t n = strlen(text);
    char *out = malloc(2 * n + 1), *to = out;
    if (out == NULL)
        return NULL;
    while (n > 0) {
        size_t len = utf8_len(p, n);
        if (len == 0) {
            *to++ = (char)(0xc0 | *p >> 6);
            *to++ = (char)(0x80 | (*p & 0x3f));
            len = 1;
        } else {
            memcpy(to, p, len);
            to += len;
        }
        p += len;
        n -= len;
    }
    json_t *v = json_stringn_nocheck(out, (size_t)(to - out));
    free(out);
    return v;
}

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
