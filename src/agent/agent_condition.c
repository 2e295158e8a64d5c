/* SPDX-License-Identifier: Apache-2.0 */
/* The condition of the host as reports tell it: what has failed and will be tried again, room, damaged reads, the last verify. */
#include "agent/agent_json.h"
#include "agent/agent_verified.h"

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

void agent_backlog(struct agent *a, struct agent_backlog *out)
{
    pthread_mutex_lock(&a->lock);   /* an agent that is locked up does not answer */
    pthread_mutex_unlock(&a->lock);
    out->waiting = work_count(a->work, WORK_STORE, NULL);
    out->failed = work_failures(a->work, REPORTED, NULL, 0);
}

json_t *agent_failure_json(struct agent *a, const struct work_failure *f)
{
    char path[PATH_TEXT], tried[32], next[32];
    int64_t now = vclock_mono_ns(a->conf.clock);
    agent_who_text(a, &f->item.disk, path, sizeof path);
    agent_mono_text(a, f->tried_ns, tried);
    agent_mono_text(a, f->due_ns > now ? f->due_ns : now, next);
    return json_pack("{so ss so ss ss si}", "path", vjson_text(path), "what", agent_work_text(f->item.kind), "reason",
                     vjson_text(verr_str(&f->why)), "time", tried, "next_attempt", next, "attempts", (int)f->item.failures);
}

/* Null where it cannot be read. */
static json_t *room_json(struct agent *a)
{
    struct agent_room room;
    if (agent_room(a, &room) < 0)
        return json_pack("{sn sn}", "store", "state");
    return json_pack("{s{so so} s{so so}}", "store", "bytes", vjson_u64(room.store_bytes), "free", vjson_u64(room.store_free),
                     "state", "bytes", vjson_u64(room.state_bytes), "free", vjson_u64(room.state_free));
}

/* Dates come from files: one out of range is shown as the nearest in range. */
static int64_t sane(int64_t seconds)
{
    const int64_t max = INT64_C(9000000000);
    return seconds < 0 ? 0 : seconds > max ? max : seconds;
}

static json_t *damaged_json(struct agent *a)
{
    char when[32];
    pthread_mutex_lock(&a->lock);
    uint64_t count = a->damaged_reads;
    int64_t last = a->damaged_ns;
    pthread_mutex_unlock(&a->lock);
    agent_time_text(last, when);
    return json_pack("{so so}", "count", vjson_u64(count), "last", count > 0 ? vjson_text(when) : json_null());
}

static json_t *verify_json(struct agent *a)
{
    struct agent_verified v;
    char when[32];
    int r = agent_verified_read(a->state_fd, &v);
    if (r < 0 && r != -ENOENT)
        vlog(VLOG_WARN, "agent", "%s/verified: cannot be read: %s (the next `varve verify` writes it anew)", a->state_path, strerror(-r));
    if (r < 0)
        return json_null();
    v.ended_s = sane(v.ended_s);
    agent_time_text(v.ended_s * 1000000000, when);
    return json_pack("{ss sI so so}", "time", when, "age_seconds", (json_int_t)(vclock_real_ns(a->conf.clock) / 1000000000 - v.ended_s),
                     "damaged", vjson_u64(v.damaged), "snapshots", vjson_u64(v.snapshots));
}

json_t *agent_condition_json(struct agent *a)
{
    char made[32];
    const int64_t created = sane(store_conf(a->store)->created);
    agent_time_text(created * 1000000000, made);
    return json_pack("{sb so so so ss sI so}", "read_only", a->conf.read_only, "room", room_json(a), "damaged_reads", damaged_json(a),
                     "last_verify", verify_json(a), "store_made", made, "store_age_seconds",
                     (json_int_t)(vclock_real_ns(a->conf.clock) / 1000000000 - created), "put_back", agent_lost_json(a, false));
}
