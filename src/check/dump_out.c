/* SPDX-License-Identifier: Apache-2.0 */
#include "check/dump_out.h"

#include "format/ref.h"
#include "store/container.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- structure ---- */

static void indent(struct out *o)
{
    unsigned depth = o->json ? o->depth : o->depth - 1;
    fputc('\n', o->file);
    for (unsigned i = 0; i < depth; i++)
        fputs("  ", o->file);
}

/* Writes what comes before a value: separator, indent, key. Keys are fixed words, which need no escapes. */
static void lead(struct out *o, const char *key)
{
    bool first = o->level[o->depth].empty;
    o->level[o->depth].empty = false;
    if (o->json && !first)
        fputc(',', o->file);
    indent(o);
    if (o->json && key != NULL)
        fprintf(o->file, "\"%s\": ", key);
    else if (!o->json && o->level[o->depth].array)
        fputs("- ", o->file);
    else if (!o->json && key != NULL)
        fprintf(o->file, "%s: ", key);
}

static void open_level(struct out *o, const char *key, bool array)
{
    lead(o, key);
    if (o->json)
        fputc(array ? '[' : '{', o->file);
    if (o->depth + 1 < OUT_DEPTH) {
        o->depth++;
        o->level[o->depth].array = array;
        o->level[o->depth].empty = true;
    }
}

void out_object(struct out *o, const char *key) { open_level(o, key, false); }
void out_array(struct out *o, const char *key) { open_level(o, key, true); }

static void close_level(struct out *o)
{
    if (o->depth == 0)
        return;
    bool array = o->level[o->depth].array, empty = o->level[o->depth].empty;
    o->depth--;
    if (o->json) {
        if (!empty)
            indent(o);
        fputc(array ? ']' : '}', o->file);
    } else if (empty) {
        fputs("(none)", o->file);
    }
}

void out_begin(struct out *o, FILE *file, bool json)
{
    memset(o, 0, sizeof *o);
    o->file = file;
    o->json = json;
    o->depth = 1;
    o->level[1].empty = true;
    if (json)
        fputc('{', file);
}

int out_finish(struct out *o)
{
    if (o->line != NULL)
        out_end(o);
    while (o->depth > 0)
        close_level(o);
    fputc('\n', o->file);
    return fflush(o->file) != 0 || ferror(o->file) ? -EIO : o->r;
}

/* ---- values ---- */

/* Writes a scalar. Text differs from JSON in two points: no quotation marks, and yes and no instead of true and false. */
static void put(struct out *o, const json_t *v)
{
    char *encoded = vjson_dump(v, JSON_ENCODE_ANY);
    size_t quotes = !o->json && json_is_string(v);
    if (encoded == NULL) {
        o->r = -ENOMEM;
        fputs("null", o->file);
    } else if (!o->json && json_is_boolean(v)) {
        fputs(json_is_true(v) ? "yes" : "no", o->file);
    } else {
        fwrite(encoded + quotes, 1, strlen(encoded) - 2 * quotes, o->file);
    }
    free(encoded);
}

void out_value(struct out *o, const char *key, json_t *scalar)
{
    if (o->line != NULL) {
        if (json_object_set_new(o->line, key, scalar) < 0)
            o->r = -ENOMEM;
        return;
    }
    lead(o, key);
    put(o, scalar);
    json_decref(scalar);
}

void out_line(struct out *o, const char *key)
{
    o->line = json_object();
    o->line_key = key;
    if (o->line == NULL)
        out_object(o, key);     /* the fields are written one by one, each on its own line */
}

static void close_line(struct out *o)
{
    json_t *line = o->line, *v;
    const char *key, *between = "";
    o->line = NULL;
    lead(o, o->line_key);
    if (o->json)
        put(o, line);
    else
        json_object_foreach(line, key, v) {
            fprintf(o->file, "%s%s=", between, key);
            put(o, v);
            between = "  ";
        }
    json_decref(line);
}

void out_end(struct out *o)
{
    if (o->line != NULL)
        close_line(o);
    else
        close_level(o);
}

void out_u64(struct out *o, const char *key, uint64_t value) { out_value(o, key, vjson_u64(value)); }
void out_i64(struct out *o, const char *key, int64_t value) { out_value(o, key, json_integer(value)); }
void out_bool(struct out *o, const char *key, bool value) { out_value(o, key, json_boolean(value)); }
void out_text(struct out *o, const char *key, const char *value) { out_value(o, key, vjson_text(value)); }
void out_hex(struct out *o, const char *key, const void *bytes, size_t n) { out_value(o, key, vjson_hex(bytes, n)); }
void out_id(struct out *o, const char *key, const struct vid *id) { out_value(o, key, vjson_id(id)); }

void out_ref(struct out *o, const char *key, uint64_t ref)
{
    char path[32], text[64];
    if (ref == REF_ZERO || !ref_is_block(ref)) {
        out_text(o, key, ref == REF_ZERO ? "zero" : "none");
        return;
    }
    container_path(ref_container(ref), path);
    snprintf(text, sizeof text, "%s:%" PRIu32, path, ref_ordinal(ref));
    out_text(o, key, text);
}

void out_flags(struct out *o, const char *key, uint64_t flags, const char *const *names, unsigned n)
{
    out_array(o, key);
    for (unsigned bit = 0; bit < 64; bit++) {
        if ((flags >> bit & 1) == 0)
            continue;
        if (bit < n)
            out_text(o, NULL, names[bit]);
        else
            out_u64(o, NULL, UINT64_C(1) << bit);
    }
    out_end(o);
}
