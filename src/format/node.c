/* SPDX-License-Identifier: Apache-2.0 */
/* Node record <-> struct node. The offsets below are the table of docs/FORMAT.md "Node record". */
#include "format/node.h"

#include "format/record_internal.h"

enum {
    OFF_ID = 16, OFF_PARENT = 32, OFF_REPLACES = 48, OFF_VERSION = 64, OFF_KIND = 72, OFF_FLAGS = 76, OFF_MODE = 80, OFF_UID = 84,
    OFF_GID = 88, OFF_NAME_LEN = 92, OFF_ATIME = 96, OFF_MTIME = 104, OFF_CTIME = 112, OFF_BTIME = 120, OFF_NAME = 128,
    NODE_MIN = OFF_NAME + RECORD_TAIL, NODE_MAX = OFF_NAME + NODE_NAME_MAX + RECORD_TAIL,
};
_Static_assert((int)NODE_MAX <= (int)NODE_RECORD_MAX, "a node record must fit its buffer");

/* The same rules on both sides: what decode would refuse is never written. NULL, or what is wrong. */
static const char *node_problem(const struct node *n, size_t name_len)
{
    bool root = vid_is_zero(&n->parent);
    if (vid_is_zero(&n->id))
        return "id is zero";
    if (vid_eq(&n->parent, &n->id))
        return "node is its own parent";
    if (vid_eq(&n->replaces, &n->id))
        return "node replaces itself";
    if (n->kind != NODE_DIR && n->kind != NODE_DISK)
        return "unknown kind";
    if (root && n->kind != NODE_DIR)
        return "the root is no directory";
    if ((n->flags & ~(uint32_t)(NODE_GONE | NODE_SELECTIVE)) != 0)
        return "unknown flags";
    if ((n->flags & (n->kind == NODE_DISK ? NODE_SELECTIVE : NODE_GONE)) != 0)
        return "a flag that this kind cannot have";
    if (n->version == 0)
        return "version is zero";
    if ((n->mode & ~(n->kind == NODE_DISK ? 0777u : 07777u)) != 0)
        return "mode has bits that this kind cannot have";
    if (name_len > NODE_NAME_MAX)
        return "name is too long";
    if (name_len == 0 && !root)
        return "name is empty";
    if (memchr(n->name, '/', name_len) != NULL || memchr(n->name, '\0', name_len) != NULL)
        return "name contains '/' or NUL";
    if ((name_len == 1 && n->name[0] == '.') || (name_len == 2 && n->name[0] == '.' && n->name[1] == '.'))
        return "name is '.' or '..'";
    return NULL;
}

size_t node_encode(const struct node *n, uint8_t out[NODE_RECORD_MAX])
{
    size_t name_len = strnlen(n->name, sizeof n->name);
    if (node_problem(n, name_len) != NULL)
        return 0;
    put_vid(out + OFF_PARENT, &n->parent);
    put_vid(out + OFF_REPLACES, &n->replaces);
    put_le32(out + OFF_KIND, n->kind);
    put_le32(out + OFF_FLAGS, n->flags);
    put_le32(out + OFF_MODE, n->mode);
    put_le32(out + OFF_UID, n->uid);
    put_le32(out + OFF_GID, n->gid);
    put_le32(out + OFF_NAME_LEN, (uint32_t)name_len);
    put_le64(out + OFF_ATIME, (uint64_t)n->atime_ns);
    put_le64(out + OFF_MTIME, (uint64_t)n->mtime_ns);
    put_le64(out + OFF_CTIME, (uint64_t)n->ctime_ns);
    put_le64(out + OFF_BTIME, (uint64_t)n->btime_ns);
    memcpy(out + OFF_NAME, n->name, name_len);
    size_t len = OFF_NAME + name_len + RECORD_TAIL;
    seal_close(&(struct seal){.kind = SEAL_NODE, .id = &n->id, .number = n->version}, out, len);
    return len;
}

int node_decode(const uint8_t *data, size_t len, struct node *out, const char **why)
{
    int r = seal_open(&(struct seal){.kind = SEAL_NODE, .anywhere = true}, data, len, why);
    if (r < 0)
        return r;
    if (len < NODE_MIN || len > NODE_MAX)
        return record_bad(why, "length out of range");
    size_t name_len = get_le32(data + OFF_NAME_LEN);
    if (name_len != len - NODE_MIN)
        return record_bad(why, "length of the name does not agree with the record");
    struct node n = {
        .id = get_vid(data + OFF_ID), .parent = get_vid(data + OFF_PARENT), .replaces = get_vid(data + OFF_REPLACES),
        .version = get_le64(data + OFF_VERSION),
        .kind = get_le32(data + OFF_KIND), .flags = get_le32(data + OFF_FLAGS), .mode = get_le32(data + OFF_MODE),
        .uid = get_le32(data + OFF_UID), .gid = get_le32(data + OFF_GID),
        .atime_ns = (int64_t)get_le64(data + OFF_ATIME), .mtime_ns = (int64_t)get_le64(data + OFF_MTIME),
        .ctime_ns = (int64_t)get_le64(data + OFF_CTIME), .btime_ns = (int64_t)get_le64(data + OFF_BTIME),
    };
    memcpy(n.name, data + OFF_NAME, name_len);
    const char *problem = node_problem(&n, name_len);
    if (problem != NULL)
        return record_bad(why, problem);
    *out = n;
    return 0;
}
