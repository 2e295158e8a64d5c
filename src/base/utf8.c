/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

size_t utf8_char(const char *text, size_t n, uint32_t *out)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = (const uint8_t *)text;
    size_t len = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
    if (len == 0 || len > n)
        return 0;
    uint32_t c = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    *out = c;
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

bool utf8_is_shown(uint32_t c)
{
    static const struct { uint32_t first, last; } hidden[] = {
        {0, 0x1f}, {0x7f, 0x9f},            /* C0, DEL, C1 */
        {0x61c, 0x61c}, {0x200e, 0x200f},   /* marks of direction */
        {0x2028, 0x202e},                   /* separators of lines and paragraphs; embeddings and overrides of direction */
        {0x2066, 0x206f},                   /* isolates, and what Unicode took back */
        {0xef80, 0xefff},                   /* bytes in JSON */
        {0xfdd0, 0xfdef}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
    };
    if ((c & 0xfffe) == 0xfffe)
        return false;
    for (unsigned i = 0; i < sizeof hidden / sizeof hidden[0]; i++)
        if (c >= hidden[i].first && c <= hidden[i].last)
            return false;
    return true;
}
