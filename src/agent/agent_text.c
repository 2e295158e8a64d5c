/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int reserve(struct text *t, size_t n, struct verr *err)
{
    if (t->len + n + 1 <= t->cap)
        return 0;
    size_t cap = (t->len + n + 1) * 2;
    char *grown = realloc(t->text, cap);
    if (grown == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    t->text = grown;
    t->cap = cap;
    return 0;
}

int text_add(struct text *t, const char *data, size_t n, struct verr *err)
{
    int r = reserve(t, n, err);
    if (r < 0)
        return r;
    memcpy(t->text + t->len, data, n);
    t->len += n;
    t->text[t->len] = '\0';
    return 0;
}

int text_print(struct text *t, struct verr *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return verr_set(err, EINVAL, "a text cannot be printed");
    int r = reserve(t, (size_t)n, err);
    if (r < 0)
        return r;
    va_start(ap, fmt);
    vsnprintf(t->text + t->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
    return 0;
}
