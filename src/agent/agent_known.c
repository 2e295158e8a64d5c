/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   STATE/containers/CCCCCC     exists: the claim was seen. Entry n: version id of container CCCCCC << 16 | n, once a table points into it
 *
 * Order: claim directory in STORE -> name here, fsync of the directory -> first number of the claim;
 *        version id here, fdatasync -> table entries that point into the container.
 * A file whose fdatasync failed is made anew: the entry would look as if it were durable. Until that succeeds, nothing more is noted; each
 * note tries it again.
 * Nothing is ever taken out. An entry is written once, so no torn write can change it: a damaged one counts as unknown, and is written
 * anew by what the container says now.
 */
#include "agent/agent_known.h"

#include "base/endian.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/hex.h"
#include "base/verr.h"
#include "base/vlog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KNOWN_DIR "containers"
#define KNOWN_NEW "containers.new"

enum { ENTRY_BYTES = 32, CHECKED_BYTES = 24, CLAIM_DIGITS = 6, CLAIM_NUMBERS = 65536, SLICE = 256 };

struct known {
    int state_fd, fd;
    bool is_new;
    _Atomic uint32_t claim;
    pthread_mutex_t lock;       /* writers one at a time; guards doubts */
    uint32_t *doubts;           /* claims whose file has an entry that may look as if it were durable, and is not */
    unsigned ndoubts;
    atomic_bool doubted;        /* there are some, */
    atomic_bool lost;           /* or one for which there was no memory */
};

/* ---- entries ---- */

static void entry_encode(uint64_t container, const struct vid *version, uint8_t out[ENTRY_BYTES])
{
    memset(out, 0, ENTRY_BYTES);
    memcpy(out, version->b, VID_BYTES);
    put_le64(out + CHECKED_BYTES, hash64_seed(out, CHECKED_BYTES, container));
}

/* 1, 0: nothing stands there, -EBADMSG. */
static int entry_decode(uint64_t container, const uint8_t in[ENTRY_BYTES], struct vid *version)
{
    static const uint8_t none[ENTRY_BYTES];
    if (memcmp(in, none, ENTRY_BYTES) == 0)
        return 0;
    if (get_le64(in + CHECKED_BYTES) != hash64_seed(in, CHECKED_BYTES, container))
        return -EBADMSG;
    memcpy(version->b, in, VID_BYTES);
    return 1;
}

static void claim_name(uint32_t claim, char out[16]) { snprintf(out, 16, "%06" PRIx32, claim); }

static off_t entry_off(uint64_t container) { return (off_t)(container % CLAIM_NUMBERS) * ENTRY_BYTES; }

/* As entry_decode; -errno. */
static int entry_load(const struct known *k, uint64_t container, struct vid *version)
{
    char name[16];
    uint8_t raw[ENTRY_BYTES] = {0};
    claim_name((uint32_t)(container / CLAIM_NUMBERS), name);
    int fd = openat(k->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t n = pread_full(fd, raw, sizeof raw, entry_off(container));
    close(fd);
    return n < 0 ? (int)n : entry_decode(container, raw, version);
}

/* ---- claims ---- */

static void raise_claim(struct known *k, uint32_t claim)
{
    uint32_t now = atomic_load(&k->claim);
    while (now < claim && !atomic_compare_exchange_weak(&k->claim, &now, claim))
        ;
}

/* Opens the file of a claim, or makes it: durable on return. A descriptor or -errno. k->lock held. */
static int claim_file(struct known *k, uint32_t claim)
{
    char name[16];
    claim_name(claim, name);
    int fd = openat(k->fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 || errno != ENOENT)
        return fd < 0 ? -errno : fd;
    fd = openat(k->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = fd < 0 ? -errno : dir_sync(k->fd);
    if (r < 0 && fd >= 0) {
        close(fd);
        unlinkat(k->fd, name, 0);       /* so that the next call syncs again */
    }
    return r < 0 ? r : fd;
}

uint32_t known_claim(const struct known *k) { return atomic_load(&k->claim); }

int known_claimed(void *known, uint32_t claim, struct verr *err)
{
    struct known *k = known;
    pthread_mutex_lock(&k->lock);
    int fd = claim_file(k, claim);
    pthread_mutex_unlock(&k->lock);
    if (fd < 0)
        return verr_set(err, -fd, "STATE/" KNOWN_DIR "/%06" PRIx32 ": cannot be made: %s", claim, strerror(-fd));
    close(fd);
    raise_claim(k, claim);
    return 0;
}

/* ---- files ---- */

static int other_file(uint64_t container, struct verr *err)
{
    return verr_set(err, ESTALE, "container %06" PRIx64 "/%04x is not the file that this host knows by this number: the store was put back "
                    "from an older copy, and what stood here is lost", container / CLAIM_NUMBERS, (unsigned)(container % CLAIM_NUMBERS));
}

/* A failed fdatasync is final for the file: another one takes its place, with its durable entries and the new one, which the kernel may
 * have dropped together with the page. entry NULL: without a new one. */
static int file_anew(const struct known *k, uint32_t claim, const uint8_t *entry, size_t at)
{
    char name[16];
    uint8_t *old, *all;
    size_t len;
    claim_name(claim, name);
    int r = file_load(k->fd, name, (size_t)CLAIM_NUMBERS * ENTRY_BYTES, &old, &len);
    if (r < 0)
        return r;
    all = calloc(CLAIM_NUMBERS, ENTRY_BYTES);
    if (all != NULL) {
        memcpy(all, old, len);
        if (entry != NULL)
            memcpy(all + at, entry, ENTRY_BYTES);
        r = file_replace(k->fd, name, all, entry == NULL || len > at + ENTRY_BYTES ? len : at + ENTRY_BYTES);
    }
    free(old);
    free(all);
    return all == NULL ? -ENOMEM : r;
}

/* lock held */
static void doubt(struct known *k, uint32_t claim)
{
    uint32_t *more = realloc(k->doubts, (k->ndoubts + 1) * sizeof *more);
    if (more != NULL) {
        k->doubts = more;
        k->doubts[k->ndoubts++] = claim;
    }
    atomic_store(more != NULL ? &k->doubted : &k->lost, true);
}

/* What was to be noted when the fdatasync failed may be in the new file or not: nobody was told that it is. */
static int doubts_end(struct known *k)
{
    int r = 0;
    pthread_mutex_lock(&k->lock);
    while (r == 0 && k->ndoubts > 0) {
        r = file_anew(k, k->doubts[k->ndoubts - 1], NULL, 0);
        k->ndoubts -= r == 0;
    }
    atomic_store(&k->doubted, k->ndoubts > 0);
    pthread_mutex_unlock(&k->lock);
    return r;
}

static int entry_store(struct known *k, uint64_t container, const struct vid *version)
{
    uint8_t raw[ENTRY_BYTES];
    entry_encode(container, version, raw);
    int fd = claim_file(k, (uint32_t)(container / CLAIM_NUMBERS));
    if (fd < 0)
        return fd;
    int r = pwrite_full(fd, raw, sizeof raw, entry_off(container));
    if (r == 0 && (fault_errno("agent.known.fdatasync") != 0 || fdatasync(fd) < 0)) {
        r = file_anew(k, (uint32_t)(container / CLAIM_NUMBERS), raw, (size_t)entry_off(container));
        if (r < 0)
            doubt(k, (uint32_t)(container / CLAIM_NUMBERS));
    }
    close(fd);
    raise_claim(k, (uint32_t)(container / CLAIM_NUMBERS));
    return r;
}

/* 0: known; 1: nothing is known of it, or its entry is damaged; -ESTALE: another file is known; -errno. */
static int compare(const struct known *k, uint64_t container, const struct vid *version, struct verr *err)
{
    struct vid have;
    int r = entry_load(k, container, &have);
    if (r == 1)
        return vid_eq(&have, version) ? 0 : other_file(container, err);
    if (r == -EBADMSG)
        vlog(VLOG_WARN, "agent", "STATE/" KNOWN_DIR ": the entry of container %" PRIx64 " is damaged: it is written anew", container);
    return r == 0 || r == -EBADMSG ? 1 : verr_set(err, -r, "STATE/" KNOWN_DIR ": %s", strerror(-r));
}

int known_note(struct known *k, uint64_t container, const struct vid *version, struct verr *err)
{
    if (atomic_load(&k->lost))
        return verr_set(err, EIO, "STATE/" KNOWN_DIR ": an fsync failed: takes no more changes until the next start");
    int r = atomic_load(&k->doubted) ? doubts_end(k) : 0;
    if (r < 0)
        return verr_set(err, -r, "STATE/" KNOWN_DIR ": a file whose fsync failed cannot be made anew: %s", strerror(-r));
    r = compare(k, container, version, err);
    if (r != 1)
        return r;
    pthread_mutex_lock(&k->lock);
    r = compare(k, container, version, err);
    if (r == 1) {
        r = entry_store(k, container, version);
        if (r < 0)
            verr_set(err, -r, "STATE/" KNOWN_DIR ": cannot be written: %s", strerror(-r));
    }
    pthread_mutex_unlock(&k->lock);
    return r;
}

int known_check(void *known, uint64_t container, const struct vid *version, struct verr *err)
{
    int r = compare(known, container, version, err);
    if (r == 1) /* a read does not fail because STATE is full */
        r = known_note(known, container, version, err) == -ESTALE ? -ESTALE : 0;
    return r;
}

/* ---- the walk ---- */

struct walk { struct known *k; const struct known_walk *w; int r; };

static int walk_file(struct walk *wk, int fd, uint32_t claim)
{
    uint8_t raw[SLICE * ENTRY_BYTES];
    struct vid version;
    ssize_t n = 0;
    int r = 0;
    for (off_t at = 0; r == 0 && (n = pread_full(fd, raw, sizeof raw, at)) > 0; at += n)
        for (ssize_t i = 0; r == 0 && i + ENTRY_BYTES <= n; i += ENTRY_BYTES) {
            uint64_t container = (uint64_t)claim * CLAIM_NUMBERS + (uint64_t)(at + i) / ENTRY_BYTES;
            if (entry_decode(container, raw + i, &version) == 1)
                r = wk->w->container(wk->w->ctx, container);
        }
    return n < 0 ? (int)n : r;
}

static int walk_claim(void *ctx, const char *name)
{
    struct walk *wk = ctx;
    uint64_t claim;
    if (hex_number(name, CLAIM_DIGITS, &claim) < 0 || name[CLAIM_DIGITS] != '\0')
        return 0;
    raise_claim(wk->k, (uint32_t)claim);
    int r = wk->w->claim == NULL ? 0 : wk->w->claim(wk->w->ctx, (uint32_t)claim);
    if (r != 0 || wk->w->container == NULL)
        return r;
    int fd = openat(wk->k->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    r = walk_file(wk, fd, (uint32_t)claim);
    close(fd);
    return r;
}

int known_each(struct known *k, const struct known_walk *w, struct verr *err)
{
    struct walk wk = {.k = k, .w = w};
    int r = dir_each(k->fd, walk_claim, &wk);
    return r < 0 ? verr_set(err, -r, "STATE/" KNOWN_DIR ": cannot be read: %s", strerror(-r)) : r;
}

/* ---- opening ---- */

bool known_is_new(const struct known *k) { return k->is_new; }

int known_settle(struct known *k, struct verr *err)
{
    int r = renameat(k->state_fd, KNOWN_NEW, k->state_fd, KNOWN_DIR) < 0 ? -errno : dir_sync(k->state_fd);
    if (r < 0)
        return verr_set(err, -r, "STATE/" KNOWN_DIR ": cannot be made: %s", strerror(-r));
    k->is_new = false;
    return 0;
}

static int open_dir(struct known *k)
{
    int r = dir_open(k->state_fd, KNOWN_DIR);
    if (r != -ENOENT)
        return r;
    k->is_new = true;
    r = tree_remove(k->state_fd, KNOWN_NEW);
    return r < 0 ? r : dir_make(k->state_fd, KNOWN_NEW);
}

int known_open(int state_fd, struct known **out, struct verr *err)
{
    struct known *k = calloc(1, sizeof *k);
    if (k == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    k->state_fd = state_fd;
    pthread_mutex_init(&k->lock, NULL);
    k->fd = open_dir(k);
    int r = k->fd < 0 ? verr_set(err, -k->fd, "STATE/" KNOWN_DIR ": cannot be opened: %s", strerror(-k->fd)) : 0;
    if (r == 0)
        r = known_each(k, &(struct known_walk){0}, err);
    if (r < 0) {
        known_close(k);
        return r;
    }
    *out = k;
    return 0;
}

void known_close(struct known *k)
{
    if (k == NULL)
        return;
    if (k->fd >= 0)
        close(k->fd);
    pthread_mutex_destroy(&k->lock);
    free(k->doubts);
    free(k);
}
