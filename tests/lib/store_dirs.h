/* SPDX-License-Identifier: Apache-2.0 */
/* store_dirs: directories of a store, for tests that look at its files, or damage them, behind its back. */
#ifndef VARVE_TESTS_STORE_DIRS_H
#define VARVE_TESTS_STORE_DIRS_H

#include "base/file.h"
#include "base/verr.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Borrowed: good until 63 others have been asked for. name "": STORE itself. */
static inline int store_fd_of(const struct store *st, const char *name)
{
    enum { KEPT = 64 };
    static struct { char path[256]; int fd; } kept[KEPT];
    static unsigned next;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", store_path(st), name);
    for (unsigned i = 0; i < KEPT; i++)
        if (strcmp(kept[i].path, path) == 0)
            return kept[i].fd;
    unsigned at = next++ % KEPT;
    if (kept[at].path[0] != '\0')
        close(kept[at].fd);
    snprintf(kept[at].path, sizeof kept[at].path, "%s", path);
    kept[at].fd = dir_open(AT_FDCWD, path);
    return kept[at].fd;
}

static inline const char *store_dir_name(enum store_dir dir)
{
    static const char *const names[STORE_DIRS] = {
        [DIR_CONTAINERS] = "containers", [DIR_SNAPSHOTS] = "snapshots", [DIR_ANCHORS] = "anchors", [DIR_TRASH] = "trash",
        [DIR_GENERATIONS] = "generations", [DIR_OWNERS] = "owners", [DIR_NODES] = "nodes", [DIR_INDEX] = "index", [DIR_CDS] = "cds",
    };
    return names[dir];
}

static inline int store_dirfd(const struct store *st, enum store_dir dir) { return store_fd_of(st, store_dir_name(dir)); }

static inline int store_rootfd(const struct store *st) { return store_fd_of(st, ""); }

/* The caller's descriptor of snapshots/DISK or anchors/DISK, or -errno. */
static inline int store_disk_dir(struct store *st, enum store_dir dir, const struct vid *disk, bool make, struct verr *err)
{
    char hex[VID_HEX];
    vid_hex(disk, hex);
    int fd = make ? dir_make(store_dirfd(st, dir), hex) : dir_open(store_dirfd(st, dir), hex);
    return fd < 0 ? verr_set(err, -fd, "%s/%s: %s", store_dir_name(dir), hex, strerror(-fd)) : fd;
}

#endif
