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

int agent_putback_begin(struct agent *a, struct verr *err)
{
    uint32_t claim;
    const struct segread_belief belief = {.check = known_check, .note = belief_note, .ctx = a->known};
    segread_believe(a->segread, &belief);
    int r = store_claim_highest(a->store, &claim, err);
    return r == 0 && claim > known_claim(a->known) ? known_claimed(a->known, claim, err) : r;
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
