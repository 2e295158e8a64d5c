/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_init: the answer to INIT, the first request of every session.
 *
 * The answer sets FUSE_HANDLE_KILLPRIV_V2 behind libfuse's back, which knows this flag only from 3.17 on. Without the flag the kernel
 * sends a getxattr of security.capability before each write. In return the filesystem promises that writes remove setuid, setgid
 * and file capabilities, which no disk ever has.
 */
#include "fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct init_request {
    struct fuse_in_header head;
    struct fuse_init_in init;
};

struct init_reply {
    struct fuse_out_header head;
    struct fuse_init_out init;
};

static bool kernel_knows(const struct fuse_buf *request)
{
    struct init_request in = {0};
    memcpy(&in, request->mem, request->size < sizeof in ? request->size : sizeof in);
    return in.head.opcode == FUSE_INIT && (in.init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
}

static void add_flag(void *reply, size_t len)
{
    struct init_reply out;
    const size_t need = offsetof(struct init_reply, init.max_background);
    if (len < need)
        return;
    memcpy(&out, reply, need);
    if (out.head.error == 0 && out.head.len == len)
        out.init.flags |= FUSE_HANDLE_KILLPRIV_V2;
    memcpy(reply, &out, need);
}

/* Lets libfuse answer the request into a pipe that replaces its descriptor meanwhile. No other thread uses the session yet. */
static int answer_through(struct fuse_session *se, const struct fuse_buf *request)
{
    union { struct init_reply out; char bytes[512]; } reply;
    int fd = fuse_session_fd(se), ends[2], rc = 0;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    int device = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (device < 0 || dup3(ends[1], fd, O_CLOEXEC) < 0) {
        rc = -errno;
    } else {
        fuse_session_process_buf(se, request);
        if (dup3(device, fd, O_CLOEXEC) < 0)
            abort();                    /* cannot be: both are open */
        ssize_t n = read(ends[0], &reply, sizeof reply);
        if (n > 0) {
            add_flag(&reply, (size_t)n);
            n = write(fd, &reply, (size_t)n);
        }
        rc = n > 0 ? 0 : n < 0 ? -errno : -EIO;
    }
    if (device >= 0)
        close(device);
    close(ends[0]);
    close(ends[1]);
    return rc;
}

int fs_answer_init(struct fs *f, struct verr *err)
{
    struct fuse_buf buf = {0};
    int rc;
    do
        rc = fuse_session_receive_buf(f->se, &buf);
    while (rc == -EINTR);
    int answered = 0;
    if (rc > 0 && kernel_knows(&buf))
        answered = answer_through(f->se, &buf);
    else if (rc > 0)
        fuse_session_process_buf(f->se, &buf);
    free(buf.mem);
    if (rc <= 0)
        return verr_set(err, rc < 0 ? -rc : ENODEV, "%s: the kernel closed the FUSE session at once", f->conf.mountpoint);
    if (answered < 0)
        return verr_set(err, -answered, "%s: cannot answer the kernel's first request: %s", f->conf.mountpoint, strerror(-answered));
    return 0;
}
