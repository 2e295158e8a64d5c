/* SPDX-License-Identifier: Apache-2.0 */
/* utf8: characters in bytes that may be none, as names, notes and paths are. */
#ifndef VARVE_BASE_UTF8_H
#define VARVE_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the character that begins at p (at most n > 0 bytes), and its number; 0: none begins there. Overlong forms, surrogates and
 * what lies beyond U+10FFFF are none. */
size_t utf8_char(const char *p, size_t n, uint32_t *c);

/* True: the character stands for itself in a line of text. False for what a terminal, a log or a reader takes for something else:
 * control characters, line and paragraph separators, marks and overrides of direction, noncharacters, and the characters that stand for
 * single bytes in JSON (base/vjson.h). */
bool utf8_is_shown(uint32_t c);

#endif
