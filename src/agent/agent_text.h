/* SPDX-License-Identifier: Apache-2.0 */
/* A text that grows. Zeroed: empty. text is malloc'ed, ends in NUL, and belongs to the caller. */
#ifndef VARVE_AGENT_AGENT_TEXT_H
#define VARVE_AGENT_AGENT_TEXT_H

#include "base/verr.h"

struct text { char *text; size_t len, cap; };

int text_add(struct text *t, const char *data, size_t n, struct verr *err);
int text_print(struct text *t, struct verr *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
