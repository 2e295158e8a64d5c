/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Node record: one directory (a VM) or disk of the tree, docs/FORMAT.md "Node record". File STORE/nodes/ID.
 * A record is replaced whole; version counts up with each change.
 */
#ifndef VARVE_FORMAT_NODE_H
#define VARVE_FORMAT_NODE_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NODE_NAME_MAX = 255, NODE_RECORD_MAX = 1024 };
enum node_kind { NODE_DIR = 1, NODE_DISK = 2 };
enum node_flags {
    NODE_GONE = 1u << 0,        /* a disk whose live image was removed but whose snapshots stay */
    NODE_SELECTIVE = 1u << 1,   /* mode of a VM */
};

struct node {
    struct vid id;
    struct vid parent;          /* zero for the root directory only */
    struct vid replaces;        /* a node whose name this one took over by rename: it no longer exists; or zero */
    uint64_t version;
    uint32_t kind, flags;
    uint32_t mode;              /* permission bits only (07777 less setuid, setgid, sticky on disks) */
    uint32_t uid, gid;
    int64_t atime_ns, mtime_ns, ctime_ns, btime_ns;
    char name[NODE_NAME_MAX + 1];
};

/* Name: 1..255 bytes without '/' and NUL, not "." or ".."; the root's (parent zero) may be empty.
 * Length of the record written into out; 0 when a field is not valid (nothing may be stored then: decode would refuse it). */
size_t node_encode(const struct node *n, uint8_t out[NODE_RECORD_MAX]);
/* Checks every field. 0; -EBADMSG damaged (why: a constant text); -ENOTSUP newer version. */
int node_decode(const uint8_t *data, size_t len, struct node *out, const char **why);

#endif
