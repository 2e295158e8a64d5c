/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VARVE_AGENT_AGENT_VERIFIED_H
#define VARVE_AGENT_AGENT_VERIFIED_H

#include "base/verr.h"

#include <stdbool.h>
#include <stdint.h>

struct agent_verified {
    int64_t ended_s;                /* seconds since the epoch */
    uint64_t damaged, snapshots;    /* problems found; snapshots looked at */
};
/* Writes the file in a state directory, whether its daemon runs or not. Durable on return. */
int agent_verified_write(const char *state, const struct agent_verified *v, struct verr *err);
/* -ENOENT: nobody has verified; -EBADMSG: the file makes no sense. */
int agent_verified_read(int state_fd, struct agent_verified *out);

#endif
