/* SPDX-License-Identifier: Apache-2.0 */
#include "check/jsonw.h"

#include "format/ref.h"
#include "store/container.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- text ---- */

/* Length of the UTF-8 sequence at p (at most n bytes), or 0 when it is none: no overlong forms, surrogates, or beyond 10FFFF. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
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

static void put_escaped(FILE *out, const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t n = strlen(text);
    while (n > 0) {
        size_t len = utf8_len(p, n);
        if (len == 0 || *p < 0x20 || *p == 0x7f)
            fprintf(out, "\\u%04x", *p);
        else if (*p == '"' || *p == '\\')
            fprintf(out, "\\%c", *p);
        else
            fwrite(p, 1, len, out);
        if (len == 0)
            len = 1;
        p += len;
        n -= len;
    }
}

/* ---- structure ---- */

static void indent(struct jsonw *w)
{
    unsigned depth = w->json ? w->depth : w->depth - 1;
    fputc('\n', w->out);
    for (unsigned i = 0; i < depth; i++)
        fputs("  ", w->out);
}

/* What stands in front of a value: separator, place, key. */
static void lead(struct jsonw *w, const char *key)
{
    bool first = w->level[w->depth].empty, line = w->level[w->depth].line;
    w->level[w->depth].empty = false;
    if (w->json && !first)
        fputs(line ? ", " : ",", w->out);
    if (!line)
        indent(w);
    else if (!w->json && !first)
        fputs("  ", w->out);
    if (w->json && key != NULL) {
        fputc('"', w->out);
        put_escaped(w->out, key);
        fputs("\": ", w->out);
    } else if (!w->json && w->level[w->depth].array) {
        fputs("- ", w->out);
    } else if (!w->json && key != NULL) {
        put_escaped(w->out, key);
        fputs(line ? "=" : ": ", w->out);
    }
}

static void open_level(struct jsonw *w, const char *key, bool array, bool line)
{
    lead(w, key);
    if (w->json)
        fputc(array ? '[' : '{', w->out);
    if (w->depth + 1 < JSONW_DEPTH) {
        w->depth++;
        w->level[w->depth].array = array;
        w->level[w->depth].empty = true;
        w->level[w->depth].line = line;
    }
}

void jsonw_object(struct jsonw *w, const char *key) { open_level(w, key, false, false); }
void jsonw_line(struct jsonw *w, const char *key) { open_level(w, key, false, true); }
void jsonw_array(struct jsonw *w, const char *key) { open_level(w, key, true, false); }

void jsonw_end(struct jsonw *w)
{
    if (w->depth == 0)
        return;
    bool array = w->level[w->depth].array, empty = w->level[w->depth].empty, line = w->level[w->depth].line;
    w->depth--;
    if (w->json) {
        if (!empty && !line)
            indent(w);
        fputc(array ? ']' : '}', w->out);
    } else if (empty) {
        fputs("(none)", w->out);
    }
}

void jsonw_begin(struct jsonw *w, FILE *out, bool json)
{
    memset(w, 0, sizeof *w);
    w->out = out;
    w->json = json;
    w->depth = 1;
    w->level[1].empty = true;
    if (json)
        fputc('{', out);
}

int jsonw_finish(struct jsonw *w)
{
    while (w->depth > 0)
        jsonw_end(w);
    fputc('\n', w->out);
    return fflush(w->out) != 0 || ferror(w->out) ? -EIO : 0;
}

/* ---- values ---- */

void jsonw_u64(struct jsonw *w, const char *key, uint64_t value)
{
    lead(w, key);
    fprintf(w->out, "%" PRIu64, value);
}

void jsonw_i64(struct jsonw *w, const char *key, int64_t value)
{
    lead(w, key);
    fprintf(w->out, "%" PRIi64, value);
}

void jsonw_bool(struct jsonw *w, const char *key, bool value)
{
    lead(w, key);
    fputs(w->json ? (value ? "true" : "false") : (value ? "yes" : "no"), w->out);
}

void jsonw_text(struct jsonw *w, const char *key, const char *value)
{
    lead(w, key);
    if (w->json)
        fputc('"', w->out);
    put_escaped(w->out, value);
    if (w->json)
        fputc('"', w->out);
}

void jsonw_hex(struct jsonw *w, const char *key, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    lead(w, key);
    if (w->json)
        fputc('"', w->out);
    for (size_t i = 0; i < n; i++)
        fprintf(w->out, "%02x", p[i]);
    if (w->json)
        fputc('"', w->out);
}

void jsonw_id(struct jsonw *w, const char *key, const struct vid *id)
{
    if (vid_is_zero(id))
        jsonw_text(w, key, "none");
    else
        jsonw_hex(w, key, id->b, VID_BYTES);
}

void jsonw_ref(struct jsonw *w, const char *key, uint64_t ref)
{
    char path[32], text[64];
    if (ref == REF_ZERO || !ref_is_block(ref)) {
        jsonw_text(w, key, ref == REF_ZERO ? "zero" : "none");
        return;
    }
    container_path(ref_container(ref), path);
    snprintf(text, sizeof text, "%s:%" PRIu32, path, ref_ordinal(ref));
    jsonw_text(w, key, text);
}

void jsonw_flags(struct jsonw *w, const char *key, uint64_t flags, const char *const *names, unsigned n)
{
    open_level(w, key, true, false);
    for (unsigned bit = 0; bit < 64; bit++) {
        if ((flags >> bit & 1) == 0)
            continue;
        if (bit < n)
            jsonw_text(w, NULL, names[bit]);
        else
            jsonw_u64(w, NULL, UINT64_C(1) << bit);
    }
    jsonw_end(w);
}
