/* SPDX-License-Identifier: Apache-2.0 */
/*
 * asking: questions to a mount whose daemon may not answer. A process that asks such a mount cannot be sure to get away again, not even by a
 * signal; so a child asks, and the parent waits for as long as it likes.
 */
#ifndef VARVE_CLI_ASKING_H
#define VARVE_CLI_ASKING_H

#include <stddef.h>

enum {
    ASK_MS = 5000,      /* silence after which a report goes on without this mount */
    /* Silence after which a daemon is said to hang where that is the verdict on a backup. A daemon that lives answers each of these requests
     * within half a second; one that is short of cores, or pages, may need many times that, and a backup that is said to have failed though
     * it has not costs more than half a minute of waiting for one that hangs. */
    ACT_MS = 30000,
};

struct asking {
    /* In the child: writes its answer to fd, and returns 0 or -errno. What it does with ctx the parent does not see. The child has no other
     * files but fd, and ends with the parent. */
    int (*question)(void *ctx, int fd);
    void *ctx;
    int silence_ms;     /* as long may nothing come; unless `more` is set */
    /* In the parent, before each wait: takes what it likes of the text heard so far, and returns how many ms more to wait for the next piece;
     * 0 or less: no longer. silent_ms: since the last piece. */
    int (*more)(void *more_ctx, char *text, size_t *len, int silent_ms);
    void *more_ctx;
};

/* Asks in a child. *text: the answer, malloc'ed, with a NUL behind it; text NULL: it has none. 0; -errno of the question or of asking;
 * -ETIMEDOUT: no answer came in time; -EINTR: a signal came. Before this process has threads, and while it has no disk of a mount open for
 * writing: the child's end would be a close of it. */
int ask(const struct asking *a, char **text, size_t *len);
/* Writes all of it, for questions. 0 or -errno. */
int ask_answer(int fd, const void *data, size_t len);
/* What -ETIMEDOUT after that silence means, for messages. Valid until the next call. */
const char *ask_silence(int silence_ms);

#endif
