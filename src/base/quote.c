/* SPDX-License-Identifier: Apache-2.0 */
#include "base/quote.h"

#include "base/utf8.h"

#include <stdio.h>
#include <string.h>

/* ---- a bounded text ---- */

struct sink {
    char *out;
    size_t len, room;       /* room: without the end that quote_name appends, and the NUL */
    bool full;
};

static void put(struct sink *s, const char *bytes, size_t n)
{
    if (n > s->room - s->len)
        s->full = true;
    if (s->full)
        return;
    memcpy(s->out + s->len, bytes, n);
    s->len += n;
}

static void put_text(struct sink *s, const char *text) { put(s, text, strlen(text)); }

/* A byte as both a shell's $'...' and a reader know it. */
static void put_escaped(struct sink *s, char byte)
{
    static const char known[] = "\a\b\t\n\v\f\r", letters[] = "abtnvfr";
    const char *at = byte != '\0' ? strchr(known, byte) : NULL;
    char text[8];
    if (at != NULL)
        snprintf(text, sizeof text, "\\%c", letters[at - known]);
    else
        snprintf(text, sizeof text, "\\%03o", (unsigned char)byte);
    put_text(s, text);
}

/* Length of the character at p if it is shown as it is, else 0. */
static size_t shown(const char *p, size_t n)
{
    uint32_t c = 0;
    size_t len = utf8_char(p, n, &c);
    return len > 0 && utf8_is_shown(c) ? len : 0;
}

/* ---- lines ---- */

const char *quote_line(const char *text, char *out, size_t cap)
{
    struct sink s = {.out = out, .room = cap - 1};
    size_t n = strlen(text), len;
    for (size_t i = 0; i < n && !s.full; i += len) {
        uint32_t c;
        len = shown(text + i, n - i);
        if (len > 0) {
            put(&s, text + i, len);
            continue;
        }
        len = utf8_char(text + i, n - i, &c);
        len += len == 0;
        for (size_t k = 0; k < len; k++)
            put_escaped(&s, text[i + k]);
    }
    out[s.len] = '\0';
    return out;
}

/* ---- names ---- */

enum style { STYLE_PLAIN, STYLE_DOUBLE, STYLE_SINGLE };

/* "..." if an apostrophe is all that asks for quotes, so that "it's" stays readable. */
static enum style style_of(const char *name, size_t n)
{
    bool special = n == 0, apostrophe = false, only_apostrophe = true;
    for (size_t i = 0, len; i < n; i += len) {
        char c = name[i];
        len = shown(name + i, n - i);
        if (len == 0)
            return STYLE_SINGLE;
        bool alone = ((c == '{' || c == '}') && n == 1) || ((c == '#' || c == '~') && i == 0);
        apostrophe |= c == '\'';
        special |= alone || strchr(" !\"$&()*;<=>[^`|?\\'", c) != NULL;
        only_apostrophe &= alone || strchr("!\"$&()*;<=>[^`|?\\#~{}", c) == NULL;
    }
    return !special ? STYLE_PLAIN : apostrophe && only_apostrophe ? STYLE_DOUBLE : STYLE_SINGLE;
}

static void put_single(struct sink *s, const char *name, size_t n)
{
    bool escaping = false;      /* inside $'...' */
    size_t good = s->len;       /* up to here the text can be closed */
    for (size_t i = 0, len; i < n && !s->full; i += len) {
        len = shown(name + i, n - i);
        if (len == 0) {
            if (!escaping)
                put_text(s, "'$'");
            escaping = true;
            len = 1;
            put_escaped(s, name[i]);
        } else if (name[i] == '\'') {
            put_text(s, "'\\''");
            escaping = false;
        } else {
            if (escaping)
                put_text(s, "''");
            escaping = false;
            put(s, name + i, len);
        }
        if (!s->full)
            good = s->len;
    }
    s->len = good;
}

const char *quote_name(const char *name, char *out, size_t cap)
{
    static const char cut[] = "...";
    size_t n = strlen(name);
    enum style style = style_of(name, n);
    const char *mark = style == STYLE_SINGLE ? "'" : style == STYLE_DOUBLE ? "\"" : "";
    struct sink s = {.out = out, .room = cap - sizeof cut - 1};
    put_text(&s, mark);
    if (style == STYLE_SINGLE)
        put_single(&s, name, n);
    else
        for (size_t i = 0, len; i < n && !s.full; i += len) {
            len = shown(name + i, n - i);
            put(&s, name + i, len);
        }
    snprintf(out + s.len, cap - s.len, "%s%s", mark, s.full ? cut : "");
    return out;
}
