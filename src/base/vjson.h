/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vjson: JSON values, as jansson has them, of numbers, texts and ids. Each function returns a new reference, or NULL when
 * memory is out.
 */
#ifndef VARVE_BASE_VJSON_H
#define VARVE_BASE_VJSON_H

#include "base/id.h"

#include <jansson.h>
#include <stddef.h>

enum { VJSON_HEX_MAX = 64 };

/* A number; above INT64_MAX, which jansson's integers do not reach, its decimal digits as a text. */
json_t *vjson_u64(uint64_t value);
/* Names, notes and paths are bytes, and JSON is UTF-8: a byte 0x80 to 0xff that belongs to no character becomes the character U+EF80 to
 * U+EFFF. These characters themselves become three of them, so that vjson_bytes gives back every text. docs/json.md tells readers. */
json_t *vjson_text(const char *text);
/* The bytes of such a text; what does not fit into cap bytes, with the NUL, is left out. Returns out. */
char *vjson_bytes(const char *text, char *out, size_t cap);
/* As json_dumps, malloc'ed; but characters that a terminal or a reader could take for something else (utf8_is_shown) are \u escapes. NULL
 * also for a NULL value. */
char *vjson_dump(const json_t *value, size_t flags);
json_t *vjson_hex(const void *bytes, size_t n); /* n: at most VJSON_HEX_MAX */
json_t *vjson_id(const struct vid *id);         /* "none" for zero */

#endif
