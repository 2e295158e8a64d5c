/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish: leases and the commit point (DESIGN section 7).
 *
 *     newest generation G -> mkdir G/leases/VM.EPOCH -> no higher generation, no higher owner epoch   lease_take
 *     write, fdatasync in the lease                                                                   lease_stage
 *     link(lease/name -> target) -> fsync of the target's directory -> unlink of lease/name           lease_publish
 *
 * Whoever removes the lease directory's entries makes the link fail: that is the whole fence. Of each staged file a
 * descriptor is kept, so that its inode number stays its own and "our inode" is never somebody else's.
 */
#include "store/publish.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/verr.h"
#include "store/lease_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TAKE_TRIES = 64, LEASE_PATH = GENERATION_NAME + 8 + VID_HEX + 17, STAGED_NAME = 256 };

struct staged {
    struct staged *next;
    int fd;                     /* keeps the inode */
    char name[STAGED_NAME];
};

struct lease {
    struct store *st;
    struct vid vm;
    uint64_t epoch, generation;
    int dirfd;
    char path[LEASE_PATH];      /* relative to generations/ */
    struct staged *staged;
    int broken;                 /* -errno of a failed fsync of a target directory: final */
};

struct store *lease_store(const struct lease *l) { return l->st; }

uint64_t lease_generation(const struct lease *l) { return l->generation; }

static int failed(const struct lease *l, const char *name, int r, const char *doing, struct verr *err)
{
    return verr_set(err, -r, "%s %s/generations/%s/%s: %s", doing, l->st->path, l->path, name, strerror(-r));
}

static bool revoked(int r)
{
    return r == -ENOENT || r == -ESTALE;
}

static int fenced(const struct lease *l, struct verr *err)
{
    return verr_set(err, ESTALE, "lease %s/generations/%s was revoked", l->st->path, l->path);
}

/* ---- taking and giving back ---- */

static int remove_entry(void *ctx, const char *name)
{
    return tree_remove(*(const int *)ctx, name);
}

/* Empties the directory behind fd and removes it, unless its name leads to a younger lease of ours by now. */
static int lease_dir_remove(struct store *st, const char *path, int fd)
{
    struct stat own, named;
    int r = dir_each(fd, remove_entry, &fd);
    if (r < 0 && !revoked(r))
        return r;
    if (fstat(fd, &own) < 0 || fstatat(st->dirs[DIR_GENERATIONS], path, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return revoked(-errno) ? 0 : -errno;
    if (own.st_dev != named.st_dev || own.st_ino != named.st_ino)
        return 0;
    return unlinkat(st->dirs[DIR_GENERATIONS], path, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* What we left behind is removed and made anew: a thread of ours that still works in the old one is fenced by this too. */
static int leftover_remove(struct lease *l)
{
    int fd = dir_open(l->st->dirs[DIR_GENERATIONS], l->path);
    if (fd < 0)
        return revoked(fd) ? 0 : fd;
    int r = lease_dir_remove(l->st, l->path, fd);
    close(fd);
    return r;
}

/* The lease in one generation: 1 made, 0 try again with the newest generation, -errno. */
static int lease_make(struct lease *l, struct verr *err)
{
    char hex[VID_HEX];
    vid_hex(&l->vm, hex);
    snprintf(l->path, sizeof l->path, "%016" PRIx64 "/leases/%s.%016" PRIx64, l->generation, hex, l->epoch);
    int r = mkdirat(l->st->dirs[DIR_GENERATIONS], l->path, 0700) < 0 ? -errno : 0;
    if (r == -EEXIST) {
        r = leftover_remove(l);
        if (r < 0)
            return failed(l, "", r, "taking over lease", err);
        r = mkdirat(l->st->dirs[DIR_GENERATIONS], l->path, 0700) < 0 ? -errno : 0;
    }
    if (revoked(r))
        return 0; /* leases/ of this generation is closed: there is a higher one */
    if (r < 0)
        return failed(l, "", r, "making lease", err);
    l->dirfd = dir_open(l->st->dirs[DIR_GENERATIONS], l->path);
    if (revoked(l->dirfd))
        return 0;
    return l->dirfd < 0 ? failed(l, "", l->dirfd, "opening lease", err) : 1;
}

/* After the mkdir: 1 good, 0 a higher generation exists, -ESTALE fenced by a higher owner epoch. */
static int lease_check(const struct lease *l, struct verr *err)
{
    uint64_t generation, epoch = 0;
    fault_point("store.lease.before_check");
    int r = generation_newest(l->st, &generation, err);
    if (r == 0)
        r = owner_highest(l->st, &l->vm, &epoch, err);
    if (r < 0)
        return r;
    if (epoch > l->epoch)
        return verr_set(err, ESTALE, "lease %s: the VM has owner epoch %" PRIu64 " by now: another host has adopted it", l->path, epoch);
    return generation == l->generation;
}

static void lease_drop(struct lease *l)
{
    if (l->dirfd < 0)
        return;
    (void)lease_dir_remove(l->st, l->path, l->dirfd); /* what stays is emptied and taken over next time, or revoked */
    close(l->dirfd);
    l->dirfd = -1;
}

static int lease_try(struct lease *l, struct verr *err)
{
    int r = generation_newest(l->st, &l->generation, err);
    if (r < 0)
        return r;
    fault_point("store.lease.before_mkdir");
    r = lease_make(l, err);
    if (r > 0)
        r = lease_check(l, err);
    if (r <= 0)
        lease_drop(l);
    return r;
}

int lease_take(struct store *st, const struct vid *vm, uint64_t epoch, struct lease **out, struct verr *err)
{
    struct lease *l = calloc(1, sizeof *l);
    if (l == NULL)
        return verr_set(err, ENOMEM, "taking a lease: out of memory");
    l->st = st;
    l->vm = *vm;
    l->epoch = epoch;
    l->dirfd = -1;
    int r = 0;
    for (int i = 0; r == 0 && i < TAKE_TRIES; i++)
        r = lease_try(l, err);
    if (r > 0) {
        *out = l;
        return 0;
    }
    if (r == 0) /* each try but for the last met a generation younger than the one before */
        r = verr_set(err, EBADMSG, "%s/generations: no lease can be made in the newest generation", st->path);
    free(l);
    return r;
}

void lease_release(struct lease *l)
{
    if (l == NULL)
        return;
    lease_drop(l);
    while (l->staged != NULL) {
        struct staged *s = l->staged;
        l->staged = s->next;
        close(s->fd);
        free(s);
    }
    free(l);
}

/* ---- staging ---- */

static bool name_good(const char *name)
{
    return name[0] != '\0' && strlen(name) < STAGED_NAME && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static struct staged *staged_find(const struct lease *l, const char *name)
{
    for (struct staged *s = l->staged; s != NULL; s = s->next)
        if (strcmp(s->name, name) == 0)
            return s;
    return NULL;
}

/* Remembers the file; an earlier one of that name is forgotten. */
static int staged_keep(struct lease *l, const char *name, int fd)
{
    int keep = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (keep < 0)
        return -errno;
    struct staged *s = staged_find(l, name);
    if (s != NULL) {
        close(s->fd);
    } else if ((s = calloc(1, sizeof *s)) == NULL) {
        close(keep);
        return -ENOMEM;
    } else {
        memcpy(s->name, name, strlen(name) + 1);
        s->next = l->staged;
        l->staged = s;
    }
    s->fd = keep;
    return 0;
}

int lease_stage_open(struct lease *l, const char *name, struct verr *err)
{
    if (!name_good(name))
        return verr_set(err, EINVAL, "staging in lease %s: bad name \"%s\"", l->path, name);
    if (unlinkat(l->dirfd, name, 0) < 0 && errno != ENOENT && errno != ESTALE)
        return failed(l, name, -errno, "removing", err);
    int fd = openat(l->dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return revoked(-errno) ? fenced(l, err) : failed(l, name, -errno, "creating", err);
    int r = staged_keep(l, name, fd);
    if (r < 0) {
        close(fd);
        return failed(l, name, r, "creating", err);
    }
    return fd;
}

int lease_stage_done(struct lease *l, int fd, struct verr *err)
{
    int r = -fault_errno("store.stage.fdatasync");
    if (r == 0 && fdatasync(fd) < 0)
        r = -errno;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r == -ESTALE)
        return fenced(l, err);
    return r < 0 ? failed(l, "", r, "fdatasync of a file in", err) : 0;
}

int lease_stage(struct lease *l, const char *name, const void *data, size_t len, struct verr *err)
{
    int fd = lease_stage_open(l, name, err);
    if (fd < 0)
        return fd;
    int r = -fault_errno("store.stage.write");
    if (r == 0)
        r = pwrite_full(fd, data, len, 0);
    if (r < 0) {
        close(fd);
        return r == -ESTALE ? fenced(l, err) : failed(l, name, r, "writing", err);
    }
    return lease_stage_done(l, fd, err);
}

/* ---- the commit point ---- */

/* Is the target the very file that was staged? Then an earlier attempt, or its retransmission, has succeeded. */
static bool target_is(const struct staged *s, int target_dir, const char *target)
{
    struct stat own, there;
    return fstat(s->fd, &own) == 0 && fstatat(target_dir, target, &there, AT_SYMLINK_NOFOLLOW) == 0 && own.st_dev == there.st_dev &&
           own.st_ino == there.st_ino;
}

static int commit_link(struct lease *l, const struct staged *s, int target_dir, const char *target, struct verr *err)
{
    fault_point("store.publish.before_link");
    int r = -fault_errno("store.publish.link");
    if (r == 0 && linkat(l->dirfd, s->name, target_dir, target, 0) < 0)
        r = -errno;
    if ((r == -EEXIST || revoked(r)) && target_is(s, target_dir, target))
        return 0;
    if (r == -EEXIST)
        return verr_set(err, EEXIST, "publishing %s: another file has that name already", target);
    if (revoked(r))
        return fenced(l, err);
    return r < 0 ? failed(l, s->name, r, "publishing", err) : 0;
}

int lease_publish(struct lease *l, const char *name, int target_dir, const char *target, struct verr *err)
{
    const struct staged *s = staged_find(l, name);
    if (s == NULL)
        return verr_set(err, EINVAL, "publishing out of lease %s: \"%s\" was not staged", l->path, name);
    if (l->broken != 0)
        return failed(l, name, l->broken, "publishing after a failed fsync:", err);
    int r = commit_link(l, s, target_dir, target, err);
    if (r < 0)
        return r;
    fault_point("store.publish.after_link");
    r = dir_sync(target_dir);
    if (r < 0) {
        l->broken = r;
        return verr_set(err, -r, "publishing %s: fsync of its directory: %s", target, strerror(-r));
    }
    fault_point("store.publish.after_fsync");
    (void)unlinkat(l->dirfd, name, 0); /* only a name: the lease goes with what is left in it */
    return 0;
}
