/* SPDX-License-Identifier: Apache-2.0 */
/*
 * owner: which host owns a VM, and the list of generations: a lease is checked against both.
 *
 * owners/VM.EPOCH holds an owner record (format/owner.h). The highest epoch counts; lower ones are history. A new epoch is made by
 * link, so two hosts never have the same.
 */
#include "base/hash.h"
#include "base/hex.h"
#include "base/verr.h"
#include "format/owner.h"
#include "store/publish.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OWNER_NAME = VID_HEX + 17 };

static void owner_name(const struct vid *vm, uint64_t epoch, char out[OWNER_NAME])
{
    char hex[VID_HEX];
    vid_hex(vm, hex);
    snprintf(out, OWNER_NAME, "%s.%016" PRIx64, hex, epoch);
}

int owner_publish(struct store *st, const struct vid *vm, uint64_t epoch, const struct vid *host)
{
    uint8_t record[OWNER_BYTES];
    char name[OWNER_NAME];
    owner_name(vm, epoch, name);
    int r = owner_encode(&(struct owner_record){.store = st->conf.id, .vm = *vm, .host = *host, .epoch = epoch}, record);
    return r < 0 ? r : bk_create(st->b, "owners", name, record, sizeof record);
}

int owner_load(struct store *st, const struct vid *vm, uint64_t epoch, struct vid *host, struct verr *err)
{
    char name[OWNER_NAME];
    owner_name(vm, epoch, name);
    struct owner_record want = {.store = st->conf.id, .vm = *vm, .epoch = epoch}, got;
    uint8_t *data;
    size_t len;
    int r = bk_load(st->b, "owners", name, 4096, &data, &len);
    if (r == -EFBIG || r == -EINVAL || r == -ELOOP)
        return verr_set(err, EBADMSG, "%s/owners/%s cannot be used: no owner record", st->path, name);
    if (r < 0)
        return store_fail(st, DIR_OWNERS, name, r == -ESTALE ? -EIO : r, "reading", err);
    const char *why;
    r = owner_decode(data, len, &want, &got, &why);
    free(data);
    if (r < 0)
        return verr_set(err, -r, "%s/owners/%s cannot be used: %s", st->path, name, why);
    *host = got.host;
    return 0;
}

/* ---- listings ---- */

/* Parses a text of exactly 16 hex digits. */
static bool number_parse(const char *text, uint64_t *out)
{
    return hex_number(text, 16, out) == 0 && text[16] == '\0';
}

struct highest {
    char prefix[VID_HEX + 1];   /* "VM."; "" : the whole name is the number */
    size_t match, skip;         /* counts names that begin with `match` bytes of prefix; the number begins after `skip` bytes */
    uint64_t value;
    bool strange;
    char name[64];
};

static int highest_entry(void *ctx, const char *name)
{
    struct highest *h = ctx;
    uint64_t value;
    if (name[0] == '.' || strncmp(name, h->prefix, h->match) != 0)
        return 0;
    if (strncmp(name, h->prefix, h->skip) != 0 || !number_parse(name + h->skip, &value)) {
        h->strange = true;
        snprintf(h->name, sizeof h->name, "%s", name);
        return 0;
    }
    if (value > h->value)
        h->value = value;
    return 0;
}

/* Lists the names and keeps the highest number. A name that cannot be parsed is an error, because it might be the highest. */
static int list_highest(struct store *st, enum store_dir dir, struct highest *h, struct verr *err)
{
    int r = bk_list(st->b, store_dir_names[dir], highest_entry, h);
    if (r < 0) /* callers take -ESTALE for "fenced", so ESTALE of a network filesystem becomes -EIO */
        return store_fail(st, dir, NULL, r == -ESTALE ? -EIO : r, "listing", err);
    if (h->strange)
        return verr_set(err, EBADMSG, "%s/%s/%s is no name of varve's: move it away", st->path, store_dir_names[dir], h->name);
    return 0;
}

int owner_highest(struct store *st, const struct vid *vm, uint64_t *epoch, struct verr *err)
{
    struct highest h = {.match = VID_HEX - 1, .skip = VID_HEX};
    vid_hex(vm, h.prefix);
    h.prefix[VID_HEX - 1] = '.';
    int r = list_highest(st, DIR_OWNERS, &h, err);
    if (r == 0)
        *epoch = h.value;
    return r;
}

void generation_name(uint64_t generation, char out[GENERATION_NAME])
{
    snprintf(out, GENERATION_NAME, "%016" PRIx64, generation);
}

int generation_newest(struct store *st, uint64_t *out, struct verr *err)
{
    struct highest h = {.match = 0};
    int r = list_highest(st, DIR_GENERATIONS, &h, err);
    if (r < 0)
        return r;
    if (h.value == 0)
        return verr_set(err, EBADMSG, "%s/generations is empty: the store is damaged", st->path);
    *out = h.value;
    return 0;
}

struct each {
    int (*owner)(void *ctx, const struct vid *vm, uint64_t epoch);
    int (*generation)(void *ctx, uint64_t generation);
    int (*stray)(void *ctx, const char *name);
    void *ctx;
    bool listing;   /* true: an error comes from the listing; false: from one of the functions */
};

static bool owner_name_parse(const char *name, struct vid *vm, uint64_t *epoch)
{
    return hex_bytes(name, vm->b, VID_BYTES) == 0 && name[VID_HEX - 1] == '.' && number_parse(name + VID_HEX, epoch) && *epoch != 0;
}

static int each_entry(void *ctx, const char *name)
{
    struct each *e = ctx;
    struct vid vm;
    uint64_t number;
    int r;
    if (name[0] == '.')
        return 0;
    if (e->owner != NULL && owner_name_parse(name, &vm, &number))
        r = e->owner(e->ctx, &vm, number);
    else if (e->generation != NULL && number_parse(name, &number) && number != 0)
        r = e->generation(e->ctx, number);
    else
        r = e->stray == NULL ? 0 : e->stray(e->ctx, name);
    e->listing = r == 0;
    return r;
}

static int each(struct store *st, enum store_dir dir, struct each *e, struct verr *err)
{
    int r = bk_list(st->b, store_dir_names[dir], each_entry, e);
    return r < 0 && e->listing ? store_fail(st, dir, NULL, r, "listing", err) : r;
}

int owner_each(struct store *st, int (*fn)(void *ctx, const struct vid *vm, uint64_t epoch), int (*stray)(void *ctx, const char *name),
               void *ctx, struct verr *err)
{
    return each(st, DIR_OWNERS, &(struct each){.owner = fn, .stray = stray, .ctx = ctx, .listing = true}, err);
}

int generation_each(struct store *st, int (*fn)(void *ctx, uint64_t generation), int (*stray)(void *ctx, const char *name), void *ctx,
                    struct verr *err)
{
    return each(st, DIR_GENERATIONS, &(struct each){.generation = fn, .stray = stray, .ctx = ctx, .listing = true}, err);
}

struct lease_names { int (*fn)(void *ctx, const char *name); void *ctx; bool listing; };

static int each_lease(void *ctx, const char *name)
{
    struct lease_names *e = ctx;
    int r = name[0] == '.' ? 0 : e->fn(e->ctx, name);
    e->listing = r == 0;
    return r;
}

int lease_each(struct store *st, uint64_t generation, int (*fn)(void *ctx, const char *name), void *ctx, struct verr *err)
{
    char dir[64];
    struct lease_names e = {.fn = fn, .ctx = ctx, .listing = true};
    snprintf(dir, sizeof dir, "generations/%016" PRIx64 "/leases", generation);
    int r = bk_list(st->b, dir, each_lease, &e);
    if (r < 0 && e.listing)
        return r == -ENOENT || r == -ENOTDIR ? 0 : verr_set(err, -r, "listing %s/%s: %s", st->path, dir, strerror(-r));
    return r;
}

bool owner_exists(struct store *st, const struct vid *vm, uint64_t epoch)
{
    char name[OWNER_NAME];
    struct bstat there;
    owner_name(vm, epoch, name);
    return bk_stat_name(st->b, "owners", name, &there) == 0;
}

bool generation_exists(struct store *st, uint64_t generation)
{
    char name[GENERATION_NAME];
    struct bstat there;
    generation_name(generation, name);
    return bk_stat_name(st->b, "generations", name, &there) == 0;
}

static int mix_name(void *ctx, const char *name)
{
    if (name[0] != '.')
        *(uint64_t *)ctx += hash64(name, strlen(name));
    return 0;
}

uint64_t generations_digest(struct store *st)
{
    uint64_t sum = 1;
    return bk_list(st->b, "generations", mix_name, &sum) < 0 ? 0 : sum;
}

/* ---- the interface ---- */

int owner_claim(struct store *st, const struct vid *vm, const struct vid *host, uint64_t *epoch, struct verr *err)
{
    uint64_t highest = 0;
    int r = owner_highest(st, vm, &highest, err);
    if (r == 0 && highest == 0) {
        r = owner_publish(st, vm, 1, host);
        if (r < 0 && r != -EEXIST)
            return store_fail(st, DIR_OWNERS, NULL, r, "claiming a VM in", err);
        r = owner_highest(st, vm, &highest, err); /* another host may have been faster */
    }
    if (r < 0)
        return r;
    struct vid owner;
    r = owner_load(st, vm, highest, &owner, err);
    if (r < 0)
        return r;
    if (!vid_eq(&owner, host)) {
        char vm_hex[VID_HEX], owner_hex[VID_HEX];
        vid_hex(vm, vm_hex);
        vid_hex(&owner, owner_hex);
        return verr_set(err, ESTALE, "VM %s belongs to host %s (owner epoch %" PRIu64 "): varve adopt takes it over", vm_hex, owner_hex,
                        highest);
    }
    *epoch = highest;
    return 0;
}
