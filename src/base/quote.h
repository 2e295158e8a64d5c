/* SPDX-License-Identifier: Apache-2.0 */
/* quote: names and texts as they are printed for people. What is printed has no control character and is one line of UTF-8. */
#ifndef VARVE_BASE_QUOTE_H
#define VARVE_BASE_QUOTE_H

#include <stddef.h>

/* Room for the longest path of ordinary characters; what is longer is cut. */
enum { QUOTED_MAX = 4096 + 512 };

/*
 * Writes a name or path as `ls` prints it on a terminal: as it is, or quoted so that a shell reads the same bytes: 'a b', "it's",
 * 'a'$'\n''b'. Unlike ls it escapes marks of direction too, and the empty name is ''. cap: at least 16; a name that does not fit ends in
 * "..." behind its quotes. Returns out.
 */
const char *quote_name(const char *name, char *out, size_t cap);
/* The same in a buffer that lives as long as the block around the call. */
#define QUOTED(name) quote_name((name), (char[QUOTED_MAX]){0}, QUOTED_MAX)

/*
 * Writes a text as a part of one line: what utf8_is_shown denies and what is no UTF-8 becomes \n, \t, \r or the octal numbers of its
 * bytes (\033). Everything else stays, backslashes too, so the result comes out the same when it is given again. For people, not to be
 * read back. What does not fit is cut. Returns out.
 */
const char *quote_line(const char *text, char *out, size_t cap);

#endif
