/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify, pass 6: files that publishing needs: owner records, generations with their deletion logs, leases. Damage here loses
 * no stored data, but keeps hosts from storing more, so verify should find it before a backup does.
 */
#include "base/hex.h"
#include "base/verr.h"
#include "check/check_internal.h"
#include "store/publish.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct fence_walk {
    struct checker *k;
    uint64_t newest;        /* generation */
    char lease_dir[64];     /* "generations/G/leases" */
    struct verr *err;
};

static int told(int problem, struct verr *err)
{
    return problem < 0 ? verr_set(err, ENOMEM, "verify: out of memory") : 0;
}

/* Reports a record that cannot be used because of error r: what it hinders and what to do. superseded: a newer record counts. */
static int tell_record(struct fence_walk *w, const char *file, const struct verr *why, int r, bool superseded, const char *hinders)
{
    const char *what = superseded ? "a newer one counts, nothing relies on this one" :
                       r == -ENOTSUP ? "use that version of varve" : hinders;
    return told(check_add(w->k, CHECK_DAMAGE, file, "%.220s; %s", verr_str(why), what), w->err);
}

/* ---- owners ---- */

static void owner_file(const struct vid *vm, uint64_t epoch, char out[80])
{
    char hex[VID_HEX];
    vid_hex(vm, hex);
    snprintf(out, 80, "owners/%s.%016" PRIx64, hex, epoch);
}

static int check_owner(void *ctx, const struct vid *vm, uint64_t epoch)
{
    struct fence_walk *w = ctx;
    struct vid host;
    struct verr why = {0};
    char file[80];
    int r = owner_load(w->k->st, vm, epoch, &host, &why);
    if (r == 0)
        w->k->rep->owners++;
    if (r == 0 || r == -ENOENT)
        return 0;
    if (!check_is_damage(r))
        return verr_set(w->err, -r, "%s", verr_str(&why));
    owner_file(vm, epoch, file);
    /* Epochs follow each other. */
    return tell_record(w, file, &why, r, owner_exists(w->k->st, vm, epoch + 1), "nothing of this VM can be published: put the file back from a "
                       "copy of the store, or take the VM over (varve adopt)");
}

/* Reports a file whose name begins with a VM's id: it might be the VM's highest epoch, so no host passes it over. */
static int stray_owner(void *ctx, const char *name)
{
    struct fence_walk *w = ctx;
    struct vid vm;
    char file[300];
    snprintf(file, sizeof file, "owners/%s", name);
    bool stops = hex_bytes(name, vm.b, VID_BYTES) == 0;
    return told(check_add(w->k, stops ? CHECK_DAMAGE : CHECK_NOTICE, file, "%s", stops ?
                          "not the name of an owner record: nothing of this VM can be published while it is here; move it away" :
                          "not a file of ours: move it away"), w->err);
}

/* ---- generations ---- */

static int see_generation(void *ctx, uint64_t generation)
{
    struct fence_walk *w = ctx;
    if (generation > w->newest)
        w->newest = generation;
    return 0;
}

static int stray_generation(void *ctx, const char *name)
{
    struct fence_walk *w = ctx;
    char file[300];
    snprintf(file, sizeof file, "generations/%s", name);
    static const char what[] = "not the name of a generation: nothing can be published while it is here; move it away";
    return told(check_add(w->k, CHECK_DAMAGE, file, what), w->err);
}

static int tell_lease(void *ctx, const char *name)
{
    struct fence_walk *w = ctx;
    char file[400];
    snprintf(file, sizeof file, "%s/%s", w->lease_dir, name);
    return told(check_add(w->k, CHECK_NOTICE, file, "a host publishes now, or died while it did; the VM's next backup takes it over"),
                w->err);
}

static int check_leases(struct fence_walk *w, uint64_t generation)
{
    snprintf(w->lease_dir, sizeof w->lease_dir, "generations/%016" PRIx64 "/leases", generation);
    return lease_each(w->k->st, generation, tell_lease, w, w->err);
}

static int check_generation(void *ctx, uint64_t generation)
{
    struct fence_walk *w = ctx;
    struct verr why = {0};
    char dir[64], file[80];
    uint64_t refs;
    int r = deletions_check(w->k->st, generation, &refs, &why);
    snprintf(dir, sizeof dir, "generations/%016" PRIx64, generation);
    if (r == 0)
        w->k->rep->generations++;
    if (r < 0 && !check_is_damage(r))
        return verr_set(w->err, -r, "%s", verr_str(&why));
    if (r < 0 && generation_exists(w->k->st, generation)) {
        snprintf(file, sizeof file, "%s/deletions", dir);
        r = tell_record(w, file, &why, r, generation < w->newest, "no host can publish anything: put the file back from a copy of "
                        "the store");
        if (r < 0)
            return r;
    }
    return check_leases(w, generation);
}

static int check_generations(struct fence_walk *w)
{
    int r = generation_each(w->k->st, see_generation, stray_generation, w, w->err);
    if (r == 0 && w->newest == 0)
        r = told(check_add(w->k, CHECK_DAMAGE, "generations", "there is no generation: no host can publish anything"), w->err);
    return r < 0 ? r : generation_each(w->k->st, check_generation, NULL, w, w->err);
}

int check_fence(struct checker *k, struct verr *err)
{
    struct verr why = {0};
    struct fence_walk w = { .k = k, .err = &why };
    int r = owner_each(k->st, check_owner, stray_owner, &w, &why);
    if (r == 0)
        r = check_generations(&w);
    return r < 0 ? verr_set(err, -r, "%s", verr_str(&why)) : 0;
}
