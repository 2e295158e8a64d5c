/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asking: questions to a mount whose daemon may not answer. A process that asks such a mount cannot be sure to get away again, not even by a
 * signal; so a child asks, and the parent waits for as long as it likes.
 */
#ifndef VARVE_CLI_ASKING_H
#define VARVE_CLI_ASKING_H

#include <stddef.h>

enum { ASK_MS = 5000 };         /* silence after which a daemon does not answer */

/* Asks in a child: the question writes its answer to fd, and returns 0 or -errno. *text: the answer, malloc'ed, with a NUL behind it; text
 * NULL: it has none. 0; -errno of the question or of asking; -ETIMEDOUT: nothing came for ASK_MS. Before this process has threads. */
int ask(int (*question)(void *ctx, int fd), void *ctx, char **text, size_t *len);
/* Writes all of it, for questions. 0 or -errno. */
int ask_answer(int fd, const void *data, size_t len);

#endif
