/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_export: file handles that outlive the kernel's inode and the mount, for NFS servers and open_by_handle_at.
 *
 * The kernel makes a handle of inode number and generation. For one whose inode it does not have it sends a lookup of "." in that inode
 * number, and compares the generation; to join a directory to the tree, one of "..". Both numbers come from the object's id, so they are
 * the same after a remount, on every host, and after the catalog was rebuilt; an id is never given to another object. What names_create
 * brings back under its id gets another generation: a client that held the removed disk must not write to the one that took its place.
 */
#include "fs/fs_internal.h"

#include "base/endian.h"

#include <errno.h>
#include <string.h>

static uint64_t generation_of(const struct vid *id, int64_t made_ns)
{
    uint64_t rest = get_le64(id->b + 8) ^ (uint64_t)made_ns;
    return (rest * UINT64_C(0x9e3779b97f4a7c15)) >> 32;     /* a handle keeps 32 bits of it */
}

uint64_t fs_generation_node(const struct node *n)
{
    return vid_is_zero(&n->parent) ? 0 : generation_of(&n->id, n->btime_ns);     /* the kernel's own root has generation 0 */
}

uint64_t fs_generation_snap(const struct vid *id)
{
    return generation_of(id, 0);
}

static void control_entry(uint64_t ino, struct fuse_entry_param *e)
{
    memset(e, 0, sizeof *e);
    e->ino = ino;
    e->attr_timeout = e->entry_timeout = FS_TIMEOUT_STORED;
    control_stat(ino, &e->attr);
}

int fs_export_lookup(struct fs *f, uint64_t ino, bool up, struct fuse_entry_param *e, struct verr *err)
{
    struct what w;
    if (ino_is_control(ino) && (!up || ino != INO_CONTROL)) {
        control_entry(up ? INO_CONTROL : ino, e);
        return 0;
    }
    int rc = fs_what(f, ino == INO_CONTROL ? NAMES_ROOT_INO : ino, &w, err);
    if (rc == 0 && (w.moved || (w.kind != WHAT_NODE && w.kind != WHAT_SNAP)))
        rc = -ESTALE;
    if (rc < 0)
        return rc;
    struct entry entry = {.kind = w.kind == WHAT_SNAP ? ENTRY_SNAP : ENTRY_DISK, .node = w.node, .snap = w.snap};
    if (!up)
        return fs_entry_of(f, &entry, e, err);
    if (w.kind == WHAT_SNAP)        /* of a removed disk, too: it keeps its place in the tree for its snapshots */
        rc = catalog_node_by_id(f->catalog, &w.snap.info.ref.disk, &entry.node, err);
    if (rc == 0 && !vid_is_zero(&entry.node.parent))
        rc = catalog_node_by_id(f->catalog, &entry.node.parent, &entry.node, err);
    return rc < 0 ? rc : fs_entry_of_node(f, &entry.node, e, err);
}
