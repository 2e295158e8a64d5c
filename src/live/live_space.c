/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_space: what layers and caches take of STATE, and whether data may take more. The set counts the bytes of all open and
 * pending layers in one counter and those of all caches in another; each layer knows what it is charged for.
 */
#include "live/live_level.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/statvfs.h>

enum { GRANT_MAX = 64 << 20 };

static _Atomic int64_t *counter_of(struct llayer *ly)
{
    struct live_set *set = ly->l->set;
    return atomic_load(&ly->is_cache) ? &set->cache_bytes : &set->layer_bytes;
}

void llayer_charge(struct llayer *ly, int64_t bytes)
{
    atomic_fetch_add(counter_of(ly), bytes);
    atomic_fetch_add(&ly->charged, bytes);
}

int64_t live_room(const struct live_set *set)
{
    struct statvfs vfs;
    if (set->env.spare == 0 || fstatvfs(set->disksfd, &vfs) < 0)
        return INT64_MAX;           /* the filesystem itself reports when it is full */
    int64_t layers = atomic_load(&set->layer_bytes);
    return (int64_t)(vfs.f_bavail * vfs.f_frsize) - (int64_t)set->env.spare - (layers > 0 ? layers / 32 : 0);
}

/* One look at the filesystem grants data a quarter of the room it found, at most GRANT_MAX. */
static bool take_room(struct live_set *set, int64_t bytes)
{
    if (set->env.spare == 0 || atomic_fetch_sub(&set->granted, bytes) >= bytes)
        return true;
    int64_t room = live_room(set), grant = room / 4 < GRANT_MAX ? room / 4 : GRANT_MAX;
    atomic_store(&set->granted, grant > bytes ? grant - bytes : 0);
    return room >= bytes;
}

int live_space_reserve(struct live *l, struct llayer *ly, uint64_t bytes, struct verr *err)
{
    if (bytes == 0 || l->recovering) {
        llayer_charge(ly, (int64_t)bytes);
        return 0;
    }
    if (!take_room(l->set, (int64_t)bytes))
        return live_fail(l, err, ENOSPC, "the filesystem of STATE is full but for what storing and removing needs: make room there, or wait "
                         "for pending snapshots to be stored");
    llayer_charge(ly, (int64_t)bytes);
    uint64_t limit = l->set->env.layer_limit;
    int64_t now = atomic_load(&l->set->layer_bytes);
    if (limit == 0 || now < 0 || (uint64_t)now <= limit)
        return 0;
    llayer_charge(ly, -(int64_t)bytes);
    return live_fail(l, err, ENOSPC, "layers take %" PRIu64 " bytes, the bound of layer space: wait for pending snapshots to be stored",
                     limit);
}

void llayer_to_cache(struct llayer *ly)
{
    struct live_set *set = ly->l->set;
    int64_t bytes = atomic_load(&ly->charged);
    atomic_fetch_sub(&set->layer_bytes, bytes);
    atomic_store(&ly->is_cache, true);
    lfile_to_cache(&ly->data);
    lfile_to_cache(&ly->vol);
    lfile_end(&ly->map);            /* it is about to be unlinked */
    atomic_fetch_add(&set->cache_bytes, bytes);
}
