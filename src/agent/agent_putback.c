/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that was put back from an older copy while STATE is newer (docs/design/putback.md).
 *
 *   numbers    no claim is taken up to the highest one that STATE or STORE has seen
 *   places     what a table points to is read only from the file that it was made for (agent_known.h)
 */
#include "agent/agent_internal.h"

#include <errno.h>

static int belief_note(void *ctx, uint64_t container, const struct vid *version, struct verr *err)
{
    return known_note(ctx, container, version, err);
}

/* Is a container gone, or another one, that was made when STORE's newest claim was the newest, or later? */
struct newest { struct agent *a; uint32_t claim; };

static int check_newest(void *ctx, uint64_t container)
{
    const struct newest *n = ctx;
    struct vid version;
    uint32_t ordinals;
    if (container >> 16 < n->claim)
        return 0;
    int r = creader_version(n->a->reader, container, &version, &ordinals, NULL);
    if (r == 0)
        r = known_check(n->a->known, container, &version, NULL);
    return r == -ENODATA || r == -ESTALE;
}

int agent_putback_begin(struct agent *a, struct verr *err)
{
    struct newest n = {.a = a};
    const struct segread_belief belief = {.check = known_check, .note = belief_note, .ctx = a->known};
    segread_believe(a->segread, &belief);
    int r = store_claim_highest(a->store, &n.claim, err);
    if (r == 0)
        r = known_each(a->known, &(struct known_walk){.container = check_newest, .ctx = &n}, err);
    if (r < 0)
        return r;
    uint32_t known = known_claim(a->known);
    a->lost.behind = r == 1 || known > n.claim;
    if (n.claim <= known)
        return 0;
    if (known > 0)
        vlog(VLOG_INFO, "recover", "%s: containers were made that this host's state does not know of: by another host, or the state was put "
             "back from an older copy", store_path(a->store));
    return known_claimed(a->known, n.claim, err);
}

/* ---- a STATE of a version that noted nothing ---- */

struct noting { struct agent *a; struct verr *err; uint64_t container; bool all; };

/* A container that is not there is lost; its number is noted all the same, so that it is not issued again. */
static int note_place(void *ctx, uint64_t segment, uint64_t place)
{
    struct noting *n = ctx;
    struct vid version;
    uint32_t ordinals;
    struct verr why = {0};
    (void)segment;
    if (ref_container(place) == n->container)
        return 0;
    n->container = ref_container(place);
    int r = known_claimed(n->a->known, (uint32_t)(n->container >> 16), n->err);
    if (r == 0 && creader_version(n->a->reader, n->container, &version, &ordinals, &why) == 0)
        r = known_note(n->a->known, n->container, &version, n->err);
    return r;
}

static int note_disk(void *ctx, const struct vid *disk)
{
    struct noting *n = ctx;
    struct live *l = NULL;
    struct verr why = {0};
    n->container = UINT64_MAX;
    int r = live_get(n->a->live, disk, &l, &why);
    if (r == 0) {
        r = live_believed_each(l, true, note_place, n, &why);
        live_put(l);
    }
    if (r == 0 || n->err->code != 0)
        return r;
    vlog(VLOG_WARN, "recover", "the places of a disk cannot be noted, the next start tries again: %s", verr_str(&why));
    n->all = false;
    return 0;
}

int agent_putback_places(struct agent *a, struct verr *err)
{
    struct verr own = {0};
    struct noting n = {.a = a, .err = err != NULL ? err : &own, .all = true};
    int r = known_is_new(a->known) ? live_set_each(a->live, note_disk, &n, err) : 0;
    if (r == 0 && known_is_new(a->known) && n.all)
        r = known_settle(a->known, err);
    if (r == 0)
        store_remember(a->store, &(struct store_memory){.claim = known_claim(a->known), .claimed = known_claimed, .ctx = a->known});
    return r;
}
