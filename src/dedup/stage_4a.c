/* SPDX-License-Identifier: Apache-2.0 */
/* stage 4a, slot owner: sends the resolutions of dup-with-new blocks, for each partition and holder in order of position. */
#include "dedup/dedup_internal.h"

#include "base/verr.h"

#include <errno.h>
#include <string.h>

static int send_slot(struct round *r, uint32_t slot, struct verr *err)
{
    struct seqin in;
    char name[32];
    uint8_t rec[RESOLVED_BYTES];
    round_file(name, "resolved", slot);
    int rc = seqin_open(&in, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc == -ENOENT ? send_resolutions_end(r, slot, err) : rc;
    while ((rc = seqin_get(&in, rec, sizeof rec, err)) > 0) {
        uint32_t part;
        memcpy(&part, rec, 4);
        rc = send_resolution(r, slot, be32toh(part) % r->q, get_be64(rec + 12), err);
        if (rc < 0)
            break;
    }
    seqin_close(&in);
    return rc < 0 ? rc : send_resolutions_end(r, slot, err);
}

int stage_4a(struct round *r, struct verr *err)
{
    (void)err;      /* a failure here leaves blocks unresolved: their holders write them */
    for (uint32_t s = 0; s < r->nslots; s++) {
        struct verr why = {0};
        if (!r->slots[s].dead && send_slot(r, s, &why) < 0)
            slot_give_up(r, s, "stage_4a", &why);
    }
    return 0;
}
