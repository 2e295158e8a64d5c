/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vjson: JSON values, as jansson has them, of numbers, texts and ids. Each function returns a new reference, or NULL when
 * memory is out.
 */
#ifndef VARVE_BASE_VJSON_H
#define VARVE_BASE_VJSON_H

#include "base/id.h"

#include <jansson.h>

enum { VJSON_HEX_MAX = 64 };

/* A number; above INT64_MAX, which jansson's integers do not reach, its decimal digits as a text. */
json_t *vjson_u64(uint64_t value);
/* Names, notes and paths are bytes, and JSON is UTF-8: a byte that belongs to no valid character becomes U+0080 to U+00FF. */
json_t *vjson_text(const char *text);
json_t *vjson_hex(const void *bytes, size_t n); /* n: at most VJSON_HEX_MAX */
json_t *vjson_id(const struct vid *id);         /* "none" for zero */

#endif
