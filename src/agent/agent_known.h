/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_known: what this host knows of containers, in STATE/containers (docs/FORMAT.md "STATE"): the highest claim that was ever seen in
 * STORE, and for each container in which places of live images lie, the version id of its file. STORE may be put back from an older copy,
 * and then shows neither. So no number is issued twice, and a place in STATE means the file that it was made for or nothing.
 * Any thread may call.
 */
#ifndef VARVE_AGENT_AGENT_KNOWN_H
#define VARVE_AGENT_AGENT_KNOWN_H

#include "base/id.h"

#include <stdbool.h>
#include <stdint.h>

struct known;
struct verr;

int known_open(int state_fd, struct known **out, struct verr *err);
void known_close(struct known *k);

/* STATE had no such directory: nothing is known yet of the places in its tables. The caller notes them all and then settles; until
 * then the next start begins anew. */
bool known_is_new(const struct known *k);
int known_settle(struct known *k, struct verr *err);

/* Highest claim that was noted; 0: none. */
uint32_t known_claim(const struct known *k);
/* Notes that the claim exists. Durable on return. known is a struct known. */
int known_claimed(void *known, uint32_t claim, struct verr *err);

/* Notes the file of a container, before a table points into it. Durable on return. -ESTALE: another file is known by this number. */
int known_note(struct known *k, uint64_t container, const struct vid *version, struct verr *err);
/* The same before a read: a file that is not known yet is noted if that is possible. known is a struct known. */
int known_check(void *known, uint64_t container, const struct vid *version, struct verr *err);

/* Calls fn for each claim that was noted, and for each container whose file is known, in no order. NULL is allowed for each. An answer
 * other than 0 ends the walk and is returned. */
struct known_walk {
    int (*claim)(void *ctx, uint32_t claim);
    int (*container)(void *ctx, uint64_t container);
    void *ctx;
};
int known_each(struct known *k, const struct known_walk *w, struct verr *err);

#endif
