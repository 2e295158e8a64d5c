/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hex.h"

#include <errno.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void hex_print(const void *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = bytes;
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    out[2 * n] = '\0';
}

int hex_bytes(const char *text, void *out, size_t n)
{
    uint8_t *to = out;
    for (size_t i = 0; i < 2 * n; i++) {
        if (digit(text[i]) < 0)
            return -EINVAL;
    }
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)((unsigned)digit(text[2 * i]) << 4 | (unsigned)digit(text[2 * i + 1]));
    return 0;
}

int hex_number(const char *text, unsigned digits, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < digits; i++) {
        int d = digit(text[i]);
        if (d < 0)
            return -EINVAL;
        value = value << 4 | (unsigned)d;
    }
    *out = value;
    return 0;
}
