/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish: leases and the commit point (docs/design/publishing.md).
 *
 *     newest generation G -> make G/leases/VM.EPOCH -> no higher generation, no higher owner epoch    lease_take
 *     write, fsync in the lease                                                                       lease_stage
 *     publish lease/name as target -> sync of the target's directory -> remove lease/name             lease_publish
 *
 * The fence: a collector or adopter removes the staged files of a lease, and with them the publication becomes impossible. Each staged
 * file stays open until the lease ends, so that the backend recognises its own object under the target's name.
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

enum { TAKE_TRIES = 64, LEASE_PATH = GENERATION_NAME + 8 + VID_HEX + 17, STAGED_NAME = 256 };

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

/* Makes the lease in one generation: 1: made, 0: try again in the newest generation, -errno. */
static int lease_make(struct lease *l, struct verr *err)
{
    char hex[VID_HEX], dir[GENERATION_NAME + 20], name[VID_HEX + 17];
    vid_hex(&l->vm, hex);
    snprintf(dir, sizeof dir, "generations/%016" PRIx64 "/leases", l->generation);
    snprintf(name, sizeof name, "%s.%016" PRIx64, hex, l->epoch);
    snprintf(l->path, sizeof l->path, "%016" PRIx64 "/leases/%s", l->generation, name);
    int r = bk_lease(l->st->b, dir, name, &l->lease);
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
    struct staged *s = staged_find(l, name);
    bool again = s != NULL;
    if (!again && (s = calloc(1, sizeof *s)) == NULL)
        return verr_set(err, ENOMEM, "staging in lease %s: out of memory", l->path);
    struct bfile *f;
    int r = bl_stage(l->lease, name, &f);
    if (r < 0) {
        if (!again)
            free(s);
        return revoked(r) ? fenced(l, err) : failed(l, name, r, "creating", err);
    }
    if (again) {
        bf_close(s->f);
    } else {
        memcpy(s->name, name, strlen(name) + 1);
        s->next = l->staged;
        l->staged = s;
    }
    s->f = f;
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

static int commit_link(struct lease *l, const struct staged *s, const char *dir, const char *target, struct verr *err)
{
    fault_point("store.publish.before_link");
    int r = -fault_errno("store.publish.link");
    if (r == 0)
        r = bf_publish(s->f, dir, target);
    if (r == -EEXIST)
        return verr_set(err, EEXIST, "publishing %s: another file has that name already", target);
    if (revoked(r))
        return fenced(l, err);
    return r < 0 ? failed(l, s->name, r, "publishing", err) : 0;
}

int lease_publish(struct lease *l, const char *name, const char *dir, const char *target, struct verr *err)
{
    const struct staged *s = staged_find(l, name);
    if (s == NULL)
        return verr_set(err, EINVAL, "publishing out of lease %s: \"%s\" was not staged", l->path, name);
    if (l->broken != 0)
        return failed(l, name, l->broken, "publishing after a failed fsync:", err);
    int r = commit_link(l, s, dir, target, err);
    if (r < 0)
        return r;
    fault_point("store.publish.after_link");
    r = bk_sync(l->st->b, dir);
    if (r < 0) {
        l->broken = r;
        return verr_set(err, -r, "publishing %s: fsync of its directory: %s", target, strerror(-r));
    }
    fault_point("store.publish.after_fsync");
    (void)bf_unname(s->f); /* an error does no harm: the name goes with the lease */
    return 0;
}

int lease_publish_recipe(struct lease *l, const char *name, const struct vid *disk, struct verr *err)
{
    char hex[VID_HEX], dir[DISK_PATH_MAX];
    vid_hex(disk, hex);
    store_disk_path(DIR_SNAPSHOTS, disk, dir);
    int r = bk_make_dir(l->st->b, "snapshots", hex);
    return r < 0 ? store_fail(l->st, DIR_SNAPSHOTS, hex, r, "making", err) : lease_publish(l, name, dir, name, err);
}
