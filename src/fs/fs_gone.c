/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_gone: attributes of what was removed while a program still holds it: the working directory that rmdir removes, an open directory
 * that another one replaces, an open snapshot that expires. fstat, fchmod and the like go on with them, as on any filesystem.
 *
 * An entry is made before the removal is answered, while the kernel has the inode, and goes with the kernel's forget of it. So there are
 * as many as programs hold, and those whose forget is on the way. Disks that are open have more than attributes: fs_disk.orphan.
 */
#include "fs/fs_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct gone {
    struct gone *next;
    struct stat st;
};

/* lock held. The place that points to the entry, or to NULL at the end of its chain. */
static struct gone **gone_place(struct fs *f, uint64_t ino)
{
    struct gone **pp = &f->gone[ino % FS_DISK_BUCKETS];
    while (*pp != NULL && (*pp)->st.st_ino != ino)
        pp = &(*pp)->next;
    return pp;
}

void fs_gone_add(struct fs *f, const struct stat *st)
{
    struct gone *g = malloc(sizeof *g);
    if (g == NULL)
        return;         /* fstat then says ESTALE */
    g->st = *st;
    g->st.st_nlink = 0;
    clock_gettime(CLOCK_REALTIME, &g->st.st_ctim);
    pthread_mutex_lock(&f->lock);
    struct gone **pp = gone_place(f, g->st.st_ino), *old = *pp;
    g->next = old != NULL ? old->next : NULL;
    *pp = g;
    if (old == NULL)
        atomic_fetch_add(&f->ngone, 1);
    pthread_mutex_unlock(&f->lock);
    free(old);
}

bool fs_gone_find(struct fs *f, uint64_t ino, struct stat *out)
{
    if (atomic_load(&f->ngone) == 0)
        return false;
    pthread_mutex_lock(&f->lock);
    const struct gone *g = *gone_place(f, ino);
    if (g != NULL)
        *out = g->st;
    pthread_mutex_unlock(&f->lock);
    return g != NULL;
}

static struct timespec now_or(bool now, struct timespec ts)
{
    if (now)
        clock_gettime(CLOCK_REALTIME, &ts);
    return ts;
}

void fs_gone_set(struct fs *f, uint64_t ino, const struct stat *attr, unsigned to_set)
{
    pthread_mutex_lock(&f->lock);
    struct gone *g = *gone_place(f, ino);
    if (g != NULL) {
        struct stat *st = &g->st;
        if (to_set & FUSE_SET_ATTR_MODE)
            st->st_mode = (st->st_mode & S_IFMT) | (attr->st_mode & 07777);
        if (to_set & FUSE_SET_ATTR_UID)
            st->st_uid = attr->st_uid;
        if (to_set & FUSE_SET_ATTR_GID)
            st->st_gid = attr->st_gid;
        if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
            st->st_atim = now_or(to_set & FUSE_SET_ATTR_ATIME_NOW, attr->st_atim);
        if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
            st->st_mtim = now_or(to_set & FUSE_SET_ATTR_MTIME_NOW, attr->st_mtim);
        st->st_ctim = now_or(true, st->st_ctim);
    }
    pthread_mutex_unlock(&f->lock);
}

void fs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    (void)nlookup;      /* the kernel forgets an inode once, with all its lookups */
    struct fs *f = fs_of(req);
    struct gone *g = NULL;
    if (atomic_load(&f->ngone) > 0) {
        pthread_mutex_lock(&f->lock);
        struct gone **pp = gone_place(f, ino);
        g = *pp;
        if (g != NULL) {
            *pp = g->next;
            atomic_fetch_sub(&f->ngone, 1);
        }
        pthread_mutex_unlock(&f->lock);
    }
    free(g);
    fuse_reply_none(req);
}

void fs_gone_free(struct fs *f)
{
    for (size_t i = 0; i < FS_DISK_BUCKETS; i++) {
        while (f->gone[i] != NULL) {
            struct gone *g = f->gone[i];
            f->gone[i] = g->next;
            free(g);
        }
    }
}
