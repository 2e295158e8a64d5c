/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish: leases and the commit point (docs/design/publishing.md).
 *
 *     newest generation G -> make G/leases/VM.EPOCH.NONCE -> no higher generation, no higher owner epoch
 *         -> revoke all other leases of this VM and epoch                                                   lease_take
 *     write, fsync in the lease                                                                             lease_stage
 *     is the target there? -> rename lease/name to it -> sync of its directory -> is it still there?        lease_publish
 *
 * The fence: a collector or adopter takes the lease away, and with it the staged files: the rename does not find its source any more.
 * Each step is in this order for a reason of its own, which docs/design/publishing.md gives.
 */
#include "store/publish.h"

#include "base/fault.h"
#include "base/verr.h"
#include "store/lease_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAKE_TRIES = 64, LEASE_NAME = VID_HEX + 2 * 17, LEASE_PATH = GENERATION_NAME + 8 + LEASE_NAME, STAGED_NAME = 256 };

struct staged {
    struct staged *next;
    struct bfile *f;
    char name[STAGED_NAME];
};

struct lease {
    struct store *st;
    struct vid vm;
    uint64_t epoch, generation;
    struct blease *lease;
    char name[LEASE_NAME];
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

enum { LEASES_DIR = GENERATION_NAME + 20 };
static void leases_dir(uint64_t generation, char out[LEASES_DIR])
{
    snprintf(out, LEASES_DIR, "generations/%016" PRIx64 "/leases", generation);
}

/* Makes the lease in one generation, under a name that none had before: a late request of an older lease must not find this one. 1: made,
 * 0: try again in the newest generation, -errno. */
static int lease_make(struct lease *l, struct verr *err)
{
    char hex[VID_HEX], nonce[VID_HEX], dir[LEASES_DIR];
    const struct vid random = vid_random();
    vid_hex(&l->vm, hex);
    vid_hex(&random, nonce);
    leases_dir(l->generation, dir);
    snprintf(l->name, sizeof l->name, "%s.%016" PRIx64 ".%.16s", hex, l->epoch, nonce);
    snprintf(l->path, sizeof l->path, "%016" PRIx64 "/leases/%s", l->generation, l->name);
    int r = bk_lease(l->st->b, dir, l->name, &l->lease);
    if (revoked(r))
        return 0; /* leases/ of this generation is closed: there is a higher one */
    return r < 0 ? failed(l, "", r, "making lease", err) : 1;
}

/* Checks a lease that was just made: 1: good, 0: a higher generation exists, -ESTALE: a higher owner epoch fences it. */
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

/* ---- leases that others of the same VM and epoch have ---- */

struct others {
    const struct lease *mine;
    uint64_t generation;        /* which is looked at */
    struct verr *err;
};

/* Versions of varve that publish by link call a lease VM.EPOCH. */
static int other_revoke(void *ctx, const char *name)
{
    struct others *o = ctx;
    const struct lease *l = o->mine;
    const size_t vm_and_epoch = VID_HEX - 1 + 17;
    char dir[LEASES_DIR];
    if (strncmp(name, l->name, vm_and_epoch) != 0 || (name[vm_and_epoch] != '.' && name[vm_and_epoch] != '\0'))
        return 0;
    if (o->generation == l->generation && strcmp(name, l->name) == 0)
        return 0;
    leases_dir(o->generation, dir);
    int r = bk_revoke(l->st->b, dir, name);
    return r < 0 ? verr_set(o->err, -r, "revoking lease %s/%s/%s: %s", l->st->path, dir, name, strerror(-r)) : 0;
}

static int others_of_generation(void *ctx, uint64_t generation)
{
    struct others *o = ctx;
    o->generation = generation;
    return lease_each(o->mine->st, generation, other_revoke, o, o->err);
}

/* Only after the own lease was made and checked: a clone that made its lease before ours is fenced here, and one that makes it later
 * fences us. */
static int others_revoke(const struct lease *l, struct verr *err)
{
    fault_point("store.lease.before_revoke");
    struct others o = {.mine = l, .err = err};
    return generation_each(l->st, others_of_generation, NULL, &o, err);
}

static void lease_drop(struct lease *l)
{
    bl_release(l->lease);
    l->lease = NULL;
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
    if (r > 0) {
        int revoked_all = others_revoke(l, err);
        r = revoked_all < 0 ? revoked_all : 1;
    }
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
    int r = 0;
    for (int i = 0; r == 0 && i < TAKE_TRIES; i++)
        r = lease_try(l, err);
    if (r > 0) {
        *out = l;
        return 0;
    }
    if (r == 0) /* each try except the last met a generation younger than the one before */
        r = verr_set(err, EBADMSG, "%s/generations: no lease can be made in the newest generation", st->path);
    free(l);
    return r;
}

void lease_release(struct lease *l)
{
    if (l == NULL)
        return;
    while (l->staged != NULL) {
        struct staged *s = l->staged;
        l->staged = s->next;
        bf_close(s->f);
        free(s);
    }
    lease_drop(l);
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

int lease_stage_begin(struct lease *l, const char *name, struct staged **out, struct verr *err)
{
    if (!name_good(name))
        return verr_set(err, EINVAL, "staging in lease %s: bad name \"%s\"", l->path, name);
    if (staged_find(l, name) != NULL)
        return verr_set(err, EEXIST, "staging in lease %s: \"%s\" was staged before", l->path, name);
    struct staged *s = calloc(1, sizeof *s);
    if (s == NULL)
        return verr_set(err, ENOMEM, "staging in lease %s: out of memory", l->path);
    int r = bl_stage(l->lease, name, &s->f);
    if (r < 0) {
        free(s);
        return revoked(r) ? fenced(l, err) : failed(l, name, r, "creating", err);
    }
    memcpy(s->name, name, strlen(name) + 1);
    s->next = l->staged;
    l->staged = s;
    *out = s;
    return 0;
}

int staged_write(struct staged *s, const void *data, size_t len, uint64_t off) { return bf_write(s->f, data, len, off, false); }

int lease_stage_end(struct lease *l, struct staged *s, struct verr *err)
{
    int r = -fault_errno("store.stage.fdatasync");
    if (r == 0)
        r = bf_fsync(s->f);
    if (r == -ESTALE)
        return fenced(l, err);
    return r < 0 ? failed(l, s->name, r, "fdatasync of", err) : 0;
}

int lease_stage(struct lease *l, const char *name, const void *data, size_t len, struct verr *err)
{
    struct staged *s;
    int r = lease_stage_begin(l, name, &s, err);
    if (r < 0)
        return r;
    r = -fault_errno("store.stage.write");
    if (r == 0)
        r = staged_write(s, data, len, 0);
    if (r < 0)
        return r == -ESTALE ? fenced(l, err) : failed(l, name, r, "writing", err);
    return lease_stage_end(l, s, err);
}

/* ---- the commit point ---- */

/* A rename would replace what is there. Nobody else renames to this name once this has looked: target names hold a snapshot's id, and
 * all other leases of the VM were revoked before. */
static int commit_look(struct lease *l, const char *dir, const char *target, struct verr *err)
{
    int r = bk_look(l->st->b, dir, target);
    if (r == 1)
        return verr_set(err, EEXIST, "publishing %s/%s/%s: the name is taken already", l->st->path, dir, target);
    return r < 0 ? verr_set(err, -r, "looking at %s/%s/%s: %s", l->st->path, dir, target, strerror(-r)) : 0;
}

static int commit_rename(struct lease *l, const struct staged *s, const char *dir, const char *target, struct verr *err)
{
    fault_point("store.publish.before_rename");
    int r = -fault_errno("store.publish.rename");
    if (r == 0)
        r = bf_publish(s->f, dir, target);
    fault_point("store.publish.after_rename");
    if (r == 0)
        r = -fault_errno("store.publish.answer");   /* an answer that is lost */
    if (revoked(r))
        return fenced(l, err);
    return r < 0 ? failed(l, s->name, r, "publishing", err) : 0;
}

/* The target is durable, unless a file server came back between rename and sync, and has forgotten the rename. */
static int commit_sync(struct lease *l, const char *dir, const char *target, struct verr *err)
{
    int r = bk_sync(l->st->b, dir);
    if (r < 0) {
        l->broken = r;
        return verr_set(err, -r, "publishing %s: fsync of its directory: %s", target, strerror(-r));
    }
    fault_point("store.publish.after_fsync");
    r = bk_look(l->st->b, dir, target);
    if (r == 0)
        return verr_set(err, ESTALE, "publishing %s/%s/%s: it is gone again", l->st->path, dir, target);
    return r < 0 ? verr_set(err, -r, "looking at %s/%s/%s: %s", l->st->path, dir, target, strerror(-r)) : 0;
}

int lease_publish(struct lease *l, const char *name, const char *dir, const char *target, struct verr *err)
{
    const struct staged *s = staged_find(l, name);
    if (s == NULL)
        return verr_set(err, EINVAL, "publishing out of lease %s: \"%s\" was not staged", l->path, name);
    if (l->broken != 0)
        return failed(l, name, l->broken, "publishing after a failed fsync:", err);
    int r = commit_look(l, dir, target, err);
    if (r == 0)
        r = commit_rename(l, s, dir, target, err);
    return r == 0 ? commit_sync(l, dir, target, err) : r;
}

int lease_publish_recipe(struct lease *l, const char *name, const struct vid *disk, struct verr *err)
{
    char hex[VID_HEX], dir[DISK_PATH_MAX];
    vid_hex(disk, hex);
    store_disk_path(DIR_SNAPSHOTS, disk, dir);
    int r = bk_make_dir(l->st->b, "snapshots", hex);
    return r < 0 ? store_fail(l->st, DIR_SNAPSHOTS, hex, r, "making", err) : lease_publish(l, name, dir, name, err);
}
