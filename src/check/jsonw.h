/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jsonw: writes one document of nested fields, as JSON or as indented text, in one pass and without memory of its own.
 * Errors of the stream are kept and told by jsonw_finish. A key is NULL inside an array.
 */
#ifndef VARVE_CHECK_JSONW_H
#define VARVE_CHECK_JSONW_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { JSONW_DEPTH = 16 };

struct jsonw {
    FILE *out;
    bool json;
    unsigned depth;
    struct { bool array, empty, line; } level[JSONW_DEPTH];
};

void jsonw_begin(struct jsonw *w, FILE *out, bool json);    /* opens the document's object */
/* Closes everything that is open. 0, or -EIO when the stream has an error. */
int jsonw_finish(struct jsonw *w);

void jsonw_object(struct jsonw *w, const char *key);
void jsonw_line(struct jsonw *w, const char *key);          /* an object of scalars, on one line */
void jsonw_array(struct jsonw *w, const char *key);
void jsonw_end(struct jsonw *w);                            /* of the innermost object, line or array */

void jsonw_u64(struct jsonw *w, const char *key, uint64_t value);
void jsonw_i64(struct jsonw *w, const char *key, int64_t value);
void jsonw_bool(struct jsonw *w, const char *key, bool value);
/* Bytes that are not valid UTF-8 are written as \u00XX, one for each byte. */
void jsonw_text(struct jsonw *w, const char *key, const char *value);
void jsonw_hex(struct jsonw *w, const char *key, const void *bytes, size_t n);
void jsonw_id(struct jsonw *w, const char *key, const struct vid *id);
/* "CCCCCC/NNNN.vc:ORDINAL", "zero" or "none". */
void jsonw_ref(struct jsonw *w, const char *key, uint64_t ref);
/* An array of the names of the bits that are set; a bit without a name as a number. */
void jsonw_flags(struct jsonw *w, const char *key, uint64_t flags, const char *const *names, unsigned n);

#endif
