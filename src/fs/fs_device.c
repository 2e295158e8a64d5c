/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_device: what passes between libfuse and /dev/fuse, where the kernel means something else than libfuse takes it for.
 *
 *   a read that fails     The kernel says ENODEV when the last user of the mount goes, and ECONNABORTED if a thread was taking a request just
 *                         then, mostly a release. Both are the end. libfuse takes the second for a broken session and says so on stderr, where
 *                         glibc keeps the lock of stderr for good if the thread is cancelled meanwhile, as all are at the end.
 *   the answer to INIT    FUSE_HANDLE_KILLPRIV_V2, which libfuse knows only from 3.17 on, is set in it. Without the flag the kernel sends a
 *                         getxattr of security.capability before each write. In return the filesystem promises that writes remove setuid,
 *                         setgid and file capabilities, which no disk ever has.
 */
#include "fs/fs_internal.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

struct init_request {
    struct fuse_in_header head;
    struct fuse_init_in init;
};

/* A thread of libfuse may be cancelled in here: it holds nothing. */
static ssize_t device_read(int fd, void *buf, size_t len, void *session)
{
    (void)session;
    ssize_t n = read(fd, buf, len);
    if (n < 0 && errno == ECONNABORTED)
        errno = ENODEV;
    return n;
}

static void add_flag(const struct iovec *head, struct iovec *body)
{
    struct fuse_out_header out;
    struct fuse_init_out init;
    const size_t need = offsetof(struct fuse_init_out, max_background);
    if (head->iov_len != sizeof out || body->iov_len < need)
        return;
    memcpy(&out, head->iov_base, sizeof out);
    memcpy(&init, body->iov_base, need);
    if (out.error != 0)
        return;
    init.flags |= FUSE_HANDLE_KILLPRIV_V2;
    memcpy(body->iov_base, &init, need);
}

static ssize_t device_writev(int fd, struct iovec *iov, int count, void *session)
{
    struct fs *f = session;
    if (f->add_flag && count == 2)
        add_flag(&iov[0], &iov[1]);
    return writev(fd, iov, count);
}

int fs_device_use(struct fs *f, struct verr *err)
{
    static const struct fuse_custom_io io = {.read = device_read, .writev = device_writev};
    int rc = fuse_session_custom_io(f->se, &io, fuse_session_fd(f->se));
    return rc < 0 ? verr_set(err, -rc, "libfuse: %s", strerror(-rc)) : 0;
}

static bool kernel_knows(const struct fuse_buf *request)
{
    struct init_request in = {0};
    memcpy(&in, request->mem, request->size < sizeof in ? request->size : sizeof in);
    return in.head.opcode == FUSE_INIT && (in.init.flags & FUSE_HANDLE_KILLPRIV_V2) != 0;
}

int fs_answer_init(struct fs *f, struct verr *err)
{
    struct fuse_buf buf = {0};
    int rc;
    do
        rc = fuse_session_receive_buf(f->se, &buf);
    while (rc == -EINTR);
    if (rc > 0) {
        f->add_flag = kernel_knows(&buf);
        fuse_session_process_buf(f->se, &buf);
        f->add_flag = false;
    }
    free(buf.mem);
    if (rc <= 0)
        return verr_set(err, rc < 0 ? -rc : ENODEV, "%s: the kernel closed the FUSE session at once", f->conf.mountpoint);
    return 0;
}
