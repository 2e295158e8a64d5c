/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/asking.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEP = 64 << 10, ERRNO_MAX = 255 };

int ask_answer(int fd, const void *data, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, (const char *)data + at, len - at);
        if (n < 0 && errno != EINTR)
            return -errno;
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Reads until the child has closed its end. */
static int hear(int fd, char **text, size_t *len)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t cap = 0;
    *text = NULL;
    *len = 0;
    for (;;) {
        if (*len + STEP + 1 > cap) {
            cap = *len + 2 * (STEP + 1);
            char *grown = realloc(*text, cap);
            if (grown == NULL)
                return -ENOMEM;
            *text = grown;
        }
        int ready = poll(&p, 1, ASK_MS);
        if (ready == 0)
            return -ETIMEDOUT;
        ssize_t n = ready < 0 ? -1 : read(fd, *text + *len, STEP);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            break;
        *len += n > 0 ? (size_t)n : 0;
    }
    (*text)[*len] = '\0';
    return 0;
}

/* The child may be stuck in the kernel: then it ends by itself when the mount does, and is nobody's to wait for. */
static int end(pid_t pid, int r)
{
    int status = 0;
    if (r < 0) {
        kill(pid, SIGKILL);
        return r;
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

int ask(int (*question)(void *ctx, int fd), void *ctx, char **text, size_t *len)
{
    int fds[2];
    char *heard = NULL;
    size_t n = 0;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGPIPE, SIG_DFL);
        int r = question(ctx, fds[1]);
        _exit(r < 0 && -r <= ERRNO_MAX ? -r : r < 0 ? EIO : 0);
    }
    int r = pid < 0 ? -errno : 0;
    close(fds[1]);
    if (r == 0)
        r = end(pid, hear(fds[0], &heard, &n));
    close(fds[0]);
    if (r == 0 && text != NULL) {
        *text = heard;
        *len = n;
        return 0;
    }
    free(heard);
    return r;
}
