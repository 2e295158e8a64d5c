/* SPDX-License-Identifier: Apache-2.0 */
/*
 * claim: numbers of containers and the files they name.
 *
 * number = claim << 16 | n, file containers/CCCCCC/NNNN.vc. A mount takes a claim by mkdir (the loser gets EEXIST and
 * tries the next) and gives out its numbers alone, so hosts never coordinate. Claim directories are never removed and a
 * claim is durable before its first number is used: no number is ever given out twice. Claim 0 is not used, so that no
 * reference is 0.
 */
#include "base/file.h"
#include "base/hex.h"
#include "base/verr.h"
#include "store/container.h"
#include "store/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLAIM_DIGITS = 6, FILE_DIGITS = 4, CLAIM_TRIES = 1000 };

void container_path(uint64_t number, char out[32])
{
    snprintf(out, 32, "%06" PRIx64 "/%04x.vc", number >> 16, (unsigned)(number & 0xffff));
}

/* Exactly `digits` hex digits, then `end`. */
static int hex_field(const char *text, unsigned digits, const char *end, uint32_t *out)
{
    uint64_t value;
    if (hex_number(text, digits, &value) < 0 || strcmp(text + digits, end) != 0)
        return -EINVAL;
    *out = (uint32_t)value;
    return 0;
}

/* ---- claiming ---- */

static int highest_entry(void *ctx, const char *name)
{
    uint32_t *highest = ctx, claim;
    if (hex_field(name, CLAIM_DIGITS, "", &claim) == 0 && claim > *highest)
        *highest = claim;
    return 0;
}

/* mkdir decides, not the listing: a stale listing only costs tries. */
static int claim_take(struct store *st, struct verr *err)
{
    uint32_t claim = 0;
    int dir = st->dirs[DIR_CONTAINERS];
    int r = dir_each(dir, highest_entry, &claim);
    if (r < 0)
        return store_fail(st, DIR_CONTAINERS, NULL, r, "listing", err);
    for (int i = 0; i < CLAIM_TRIES && claim < CLAIM_MAX; i++) {
        char name[16];
        snprintf(name, sizeof name, "%06" PRIx32, ++claim);
        if (mkdirat(dir, name, 0700) < 0) {
            if (errno == EEXIST)
                continue;
            return store_fail(st, DIR_CONTAINERS, name, -errno, "making", err);
        }
        /* mkdir -> fsync -> first number: a power cut cannot give the same claim to somebody else later. */
        r = dir_sync(dir);
        if (r < 0)
            return store_fail(st, DIR_CONTAINERS, NULL, r, "fsync of", err);
        st->claim = claim;
        st->claim_next = 0;
        return 0;
    }
    return verr_set(err, ENOSPC, "%s/containers: no free claim directory found", st->path);
}

/* Another process may hold the lock for the moment in which it finds out that it cannot go on in this file. */
static int lock_new(int fd)
{
    while (flock(fd, LOCK_EX) < 0)
        if (errno != EINTR)
            return errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno;
    return 0;
}

static int make_locked(struct store *st, uint64_t *number, int *out, struct verr *err)
{
    for (int i = 0; i < CLAIM_TRIES; i++) {
        if (st->claim == 0 || st->claim_next == CLAIM_NUMBERS) {
            int r = claim_take(st, err);
            if (r < 0)
                return r;
        }
        uint64_t next = (uint64_t)st->claim << 16 | st->claim_next++;
        char path[32];
        container_path(next, path);
        int fd = openat(st->dirs[DIR_CONTAINERS], path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0 && errno == EEXIST)
            continue;
        int r = fd < 0 ? -errno : lock_new(fd);
        if (r < 0) {
            if (fd >= 0)
                close(fd);
            return store_fail(st, DIR_CONTAINERS, path, r, "creating", err);
        }
        *number = next;
        *out = fd;
        return 0;
    }
    return verr_set(err, EEXIST, "%s/containers/%06" PRIx32 ": files of somebody else in a claim of this mount", st->path, st->claim);
}

int container_make(struct store *st, uint64_t *number, int *fd, struct verr *err)
{
    pthread_mutex_lock(&st->claim_lock);
    int r = make_locked(st, number, fd, err);
    pthread_mutex_unlock(&st->claim_lock);
    return r;
}

void container_condemn(struct store *st, uint64_t number)
{
    pthread_mutex_lock(&st->claim_lock);
    if (st->ncondemned < CONDEMNED_MAX)
        st->condemned[st->ncondemned] = number;
    st->ncondemned++;
    pthread_mutex_unlock(&st->claim_lock);
}

bool container_condemned(struct store *st, uint64_t number)
{
    pthread_mutex_lock(&st->claim_lock);
    bool found = st->ncondemned > CONDEMNED_MAX;
    for (unsigned i = 0; i < st->ncondemned && !found; i++)
        found = st->condemned[i] == number;
    pthread_mutex_unlock(&st->claim_lock);
    return found;
}

/* ---- listing ---- */

struct each {
    struct store *st;
    int (*fn)(void *ctx, uint64_t number);          /* NULL: strays are wanted */
    int (*stray)(void *ctx, const char *path);
    void *ctx;
    struct verr *err;
    uint32_t claim;
    bool listing;   /* an error is still one of the listing: neither function has given it */
};

/* dir: "CCCCCC/" or "". */
static int each_stray(struct each *e, const char *dir, const char *name)
{
    char path[300];
    if (e->stray == NULL)
        return 0;
    snprintf(path, sizeof path, "containers/%s%s", dir, name);
    int r = e->stray(e->ctx, path);
    e->listing = r == 0;
    return r;
}

static int each_file(void *ctx, const char *name)
{
    struct each *e = ctx;
    uint32_t n;
    if (name[0] == '.')
        return 0;
    if (hex_field(name, FILE_DIGITS, ".vc", &n) < 0) {
        char dir[16];
        snprintf(dir, sizeof dir, "%06" PRIx32 "/", e->claim);
        return each_stray(e, dir, name);
    }
    int r = e->fn == NULL ? 0 : e->fn(e->ctx, (uint64_t)e->claim << 16 | n);
    e->listing = r == 0;
    return r;
}

static int each_claim(void *ctx, const char *name)
{
    struct each *e = ctx;
    if (name[0] == '.')
        return 0;
    if (hex_field(name, CLAIM_DIGITS, "", &e->claim) < 0)
        return each_stray(e, "", name);
    int fd = dir_open(e->st->dirs[DIR_CONTAINERS], name);
    if (fd == -ENOTDIR || fd == -ELOOP)
        return each_stray(e, "", name);
    int r = fd < 0 ? fd : dir_each(fd, each_file, e);
    if (fd >= 0)
        close(fd);
    if (r < 0 && e->listing) {
        e->listing = false;
        return store_fail(e->st, DIR_CONTAINERS, name, r, "listing", e->err);
    }
    return r;
}

static int each(struct store *st, struct each *e, struct verr *err)
{
    int r = dir_each(st->dirs[DIR_CONTAINERS], each_claim, e);
    return r < 0 && e->listing ? store_fail(st, DIR_CONTAINERS, NULL, r, "listing", err) : r;
}

int container_each(struct store *st, int (*fn)(void *ctx, uint64_t number), void *ctx, struct verr *err)
{
    return each(st, &(struct each){.st = st, .fn = fn, .ctx = ctx, .err = err, .listing = true}, err);
}

int container_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err)
{
    return each(st, &(struct each){.st = st, .stray = fn, .ctx = ctx, .err = err, .listing = true}, err);
}
