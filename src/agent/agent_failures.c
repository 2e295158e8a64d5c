/* SPDX-License-Identifier: Apache-2.0 */
/* What has failed and will be tried again, as reports tell it. */
#include "agent/agent_json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A reserve that cannot be made is no failure: it is made as soon as there is room. */
enum { REPORTED = WORK_ALL & ~WORK_BIT(WORK_RESERVE) };

static int by_disk(const void *a, const void *b)
{
    const struct work_failure *x = a, *y = b;
    int order = memcmp(x->item.disk.b, y->item.disk.b, VID_BYTES);
    return order != 0 ? order : (int)x->item.kind - (int)y->item.kind;
}

int agent_failures(struct agent *a, struct agent_failures *out, struct verr *err)
{
    unsigned cap = work_failures(a->work, REPORTED, NULL, 0) + 16;  /* some may fail before the second look */
    struct work_failure *v = calloc(cap, sizeof *v);
    if (v == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    unsigned n = work_failures(a->work, REPORTED, v, cap);
    *out = (struct agent_failures){.v = v, .n = n < cap ? n : cap};
    qsort(v, out->n, sizeof *v, by_disk);
    return 0;
}

json_t *agent_failure_json(struct agent *a, const struct work_failure *f)
{
    char path[512], tried[32], next[32];
    int64_t now = vclock_mono_ns(a->conf.clock);
    agent_who_text(a, &f->item.disk, path, sizeof path);
    agent_mono_text(a, f->tried_ns, tried);
    agent_mono_text(a, f->due_ns > now ? f->due_ns : now, next);
    return json_pack("{so ss so ss ss si}", "path", vjson_text(path), "what", agent_work_text(f->item.kind), "reason",
                     vjson_text(verr_str(&f->why)), "time", tried, "next_attempt", next, "attempts", (int)f->item.failures);
}

json_t *agent_room_json(struct agent *a)
{
    struct agent_room room;
    if (agent_room(a, &room) < 0)
        return json_pack("{sn sn}", "store", "state");
    return json_pack("{s{so so} s{so so}}", "store", "bytes", vjson_u64(room.store_bytes), "free", vjson_u64(room.store_free),
                     "state", "bytes", vjson_u64(room.state_bytes), "free", vjson_u64(room.state_free));
}
