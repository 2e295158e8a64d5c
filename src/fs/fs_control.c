/* SPDX-License-Identifier: Apache-2.0 */
/* fs_control: the directory .varve in the root of the mount, with texts of the agent as files. Opening a file makes its text. */
#include "fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

uint64_t control_lookup(uint64_t parent, const char *name)
{
    if (parent == NAMES_ROOT_INO)
        return strcmp(name, FS_CONTROL_NAME) == 0 ? INO_CONTROL : 0;
    if (parent != INO_CONTROL)
        return 0;
    if (strcmp(name, "status.json") == 0)
        return INO_STATUS;
    if (strcmp(name, "metrics") == 0)
        return INO_METRICS;
    return strcmp(name, "events") == 0 ? INO_EVENTS : 0;
}

void control_stat(uint64_t ino, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = ino;
    st->st_mode = ino == INO_CONTROL ? S_IFDIR | 0750 : S_IFREG | 0440;
    st->st_nlink = ino == INO_CONTROL ? 2 : 1;
    st->st_blksize = 4096;
    clock_gettime(CLOCK_REALTIME, &st->st_mtim);
    st->st_atim = st->st_ctim = st->st_mtim;
}

static int control_text(struct fs *f, uint64_t ino, char **text, size_t *len, struct verr *err)
{
    switch (ino) {
    case INO_STATUS:
        return agent_status_json(f->agent, text, len, err);
    case INO_METRICS:
        return agent_metrics(f->agent, text, len, err);
    case INO_EVENTS:
        return agent_events(f->agent, text, len, err);
    default:
        return -EISDIR;
    }
}

static void control_run(struct op *op)
{
    struct verr err = {0};
    struct handle *h = handle_new(op->f, HANDLE_TEXT, op->ino);
    int rc = h == NULL ? -ENOMEM : control_text(op->f, op->ino, &h->text, &h->text_len, &err);
    if (rc < 0) {
        handle_free(op->f, h);
        fs_reply_fail(op->req, "open", op->ino, rc, &err);
        return;
    }
    op->fi.fh = (uintptr_t)h;
    op->fi.direct_io = 1;       /* stat cannot say the size of a text that is made by open */
    if (fuse_reply_open(op->req, &op->fi) == -ENOENT)
        handle_free(op->f, h);
}

void control_open(fuse_req_t req, uint64_t ino, const struct fuse_file_info *fi)
{
    if ((fi->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(req, EACCES);
        return;
    }
    struct op *op = op_new(req, control_run, NULL, NULL, NULL, 0);
    if (op == NULL)
        return;
    op->ino = ino;
    op->fi = *fi;
    op_submit(op, op->f->ctl);
}
