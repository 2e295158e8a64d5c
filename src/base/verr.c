/* SPDX-License-Identifier: Apache-2.0 */
#include "base/verr.h"

#include "base/quote.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Names and paths in a text are bytes of users: quoted here, so that each program that prints the text prints one line. */
static void make_line(struct verr *err)
{
    char text[sizeof err->text];
    memcpy(text, err->text, strlen(err->text) + 1);
    quote_line(text, err->text, sizeof err->text);
}

/* Names in parentheses: verr.h has macros over them for clang-tidy. */
int (verr_set)(struct verr *err, int code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        make_line(err);
    }
    return -code;
}

int (verr_prefix)(struct verr *err, int fallback, const char *fmt, ...)
{
    if (err == NULL)
        return -fallback;
    char old[sizeof err->text];
    memcpy(old, verr_str(err), strlen(verr_str(err)) + 1);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof err->text)
        n = (int)strlen(err->text);
    snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    make_line(err);
    if (err->code == 0)
        err->code = fallback;
    return -err->code;
}

const char *verr_str(const struct verr *err)
{
    if (err == NULL || err->code == 0)
        return "unknown error";
    return err->text[0] != '\0' ? err->text : strerror(err->code);
}
