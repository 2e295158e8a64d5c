/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes and numbers as lower-case hex digits: the form of ids and numbers in file names, keys and messages. */
#ifndef VARVE_BASE_HEX_H
#define VARVE_BASE_HEX_H

#include <stddef.h>
#include <stdint.h>

/* 2 * n digits and a NUL. */
void hex_print(const void *bytes, size_t n, char *out);
/*
 * Both read exactly the digits asked for, never beyond a NUL before them; what follows is left to the caller. 0, or -EINVAL:
 * another character stands among them (upper case too), and *out is as it was.
 */
int hex_bytes(const char *text, void *out, size_t n);               /* 2 * n digits */
int hex_number(const char *text, unsigned digits, uint64_t *out);   /* 1 to 16 digits, most significant first */

#endif
