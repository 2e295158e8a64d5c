/* SPDX-License-Identifier: Apache-2.0 */
/*
 * out: one document of nested fields, as JSON or as indented text, written while the dumped file is read. jansson encodes each
 * value; memory holds one value or one line, never the document.
 */
#ifndef VARVE_CHECK_DUMP_OUT_H
#define VARVE_CHECK_DUMP_OUT_H

#include "base/vjson.h"

#include <stdbool.h>
#include <stdio.h>

enum { OUT_DEPTH = 16 };

struct out {
    FILE *file;
    bool json;
    int r;                      /* first error: -ENOMEM */
    unsigned depth;
    struct { bool array, empty; } level[OUT_DEPTH];
    json_t *line;               /* the object that out_line opened */
    const char *line_key;
};

void out_begin(struct out *o, FILE *file, bool json);   /* opens the document's object */
/* Closes everything that is open. 0, -ENOMEM (values are null in the document then), or -EIO when the stream has an error. */
int out_finish(struct out *o);

/* key is NULL inside an array; the caller keeps it until the object, array or line is closed. */
void out_object(struct out *o, const char *key);
void out_array(struct out *o, const char *key);
void out_line(struct out *o, const char *key);          /* an object of scalars, on one line */
void out_end(struct out *o);                            /* closes the innermost object, array or line */

void out_value(struct out *o, const char *key, json_t *scalar);     /* takes scalar; NULL: memory was out */
void out_u64(struct out *o, const char *key, uint64_t value);
void out_i64(struct out *o, const char *key, int64_t value);
void out_bool(struct out *o, const char *key, bool value);
void out_text(struct out *o, const char *key, const char *value);
void out_hex(struct out *o, const char *key, const void *bytes, size_t n);
void out_id(struct out *o, const char *key, const struct vid *id);
/* "CCCCCC/NNNN.vc:ORDINAL", "zero" or "none". */
void out_ref(struct out *o, const char *key, uint64_t ref);
/* An array with the name of each bit that is set; a bit without a name is written as a number. */
void out_flags(struct out *o, const char *key, uint64_t flags, const char *const *names, unsigned n);

#endif
