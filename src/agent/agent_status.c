/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon reports of itself: status (JSON). agent_events.c: what happened; agent_metrics.c: numbers; agent_log.c: the history of a
 * disk. */
#include "agent/agent_json.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void agent_damaged_read(struct agent *a)
{
    int64_t now = vclock_real_ns(a->conf.clock);
    pthread_mutex_lock(&a->lock);
    a->damaged_reads++;
    a->damaged_ns = now;
    pthread_mutex_unlock(&a->lock);
}

void agent_memory(struct process_memory *m)
{
    memset(m, 0, sizeof *m);
    FILE *f = fopen("/proc/self/status", "re");
    char line[128];
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        uint64_t bytes = colon == NULL ? 0 : strtoull(colon + 1, NULL, 10) * 1024;
        if (strncmp(line, "VmRSS:", 6) == 0)
            m->rss = bytes;
        else if (strncmp(line, "RssAnon:", 8) == 0)
            m->rss_anon = bytes;
        else if (strncmp(line, "VmHWM:", 6) == 0)
            m->rss_peak = bytes;
    }
    if (f != NULL)
        fclose(f);
}

void agent_time_text(int64_t ns, char out[32])
{
    struct tm tm;
    time_t t = (time_t)(ns / 1000000000);
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

void agent_mono_text(struct agent *a, int64_t mono_ns, char out[32])
{
    agent_time_text(vclock_real_ns(a->conf.clock) + mono_ns - vclock_mono_ns(a->conf.clock), out);
}

json_t *agent_levels_json(const struct snap_levels *l)
{
    return json_pack("{so so so so so so so so so}", "zero", vjson_u64(l->zero), "clean", vjson_u64(l->clean), "parent_segment", vjson_u64(l->parent_segment),
                     "parent_block", vjson_u64(l->parent_block), "common", vjson_u64(l->common), "global", vjson_u64(l->global), "dup_with_new",
                     vjson_u64(l->dup_new), "new", vjson_u64(l->fresh), "stored", vjson_u64(l->stored));
}

json_t *agent_flags_json(uint32_t flags)
{
    json_t *list = json_array();
    if (flags & SNAP_PROVISIONAL)
        json_array_append_new(list, json_string("provisional"));
    if (flags & SNAP_PARTIAL)
        json_array_append_new(list, json_string("partial"));
    return list;
}

const char *agent_state_text(uint32_t state)
{
    return state == SNAPST_STORED ? "stored" : state == SNAPST_FAILED ? "failed" : "pending";
}

int agent_json_text(json_t *doc, char **text, size_t *len, struct verr *err)
{
    char *out = vjson_dump(doc, JSON_INDENT(2));
    json_decref(doc);
    if (out == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    size_t n = strlen(out);
    char *grown = realloc(out, n + 2);
    if (grown == NULL) {
        free(out);
        return verr_set(err, ENOMEM, "out of memory");
    }
    grown[n] = '\n';
    grown[n + 1] = '\0';
    *text = grown;
    *len = n + 1;
    return 0;
}

struct waiting_json {
    struct agent *a;
    json_t *list;
};

static int add_waiting(void *ctx, const struct snaprow *s)
{
    struct waiting_json *w = ctx;
    if (s->state == SNAPST_STORED)
        return 0;
    char id[VID_HEX], disk[VID_HEX];
    vid_hex(&s->info.ref.snap, id);
    vid_hex(&s->info.ref.disk, disk);
    json_array_append_new(w->list, json_pack("{ss ss so ss so so}", "id", id, "disk", disk, "sequence", vjson_u64(s->info.ref.seq),
                                             "state", agent_state_text(s->state), "flags", agent_flags_json(s->info.flags),
                                             "dirty_segments", vjson_u64(s->info.dirty_segments)));
    return 0;
}

static json_t *index_json(struct agent *a)
{
    struct fpindex_stats sum = {0};
    for (uint32_t i = 0; i < a->nslots; i++) {
        struct fpindex_stats s;
        fpindex_stats(a->slots[i], &s);
        sum.entries += s.entries;
        sum.bytes += s.bytes;
        sum.deltas += s.deltas;
        sum.damaged_files += s.damaged_files;
        sum.bytes_read += s.bytes_read;
        sum.bytes_written += s.bytes_written;
    }
    return json_pack("{so so so so so so}", "entries", vjson_u64(sum.entries), "bytes", vjson_u64(sum.bytes), "deltas", vjson_u64(sum.deltas),
                     "damaged_files", vjson_u64(sum.damaged_files), "bytes_read", vjson_u64(sum.bytes_read),
                     "bytes_written", vjson_u64(sum.bytes_written));
}

static json_t *round_json(struct agent *a)
{
    pthread_mutex_lock(&a->lock);
    json_t *round = json_pack("{sb ss so so so so so so sf so so so}", "running", a->progress.running, "stage", a->progress.stage, "done",
                              vjson_u64(a->progress.done), "total", vjson_u64(a->progress.total), "rounds", vjson_u64(a->progress.rounds), "rounds_failed", vjson_u64(a->progress.rounds_failed), "published",
                              vjson_u64(a->progress.published), "failed", vjson_u64(a->progress.failed), "last_seconds",
                              (double)a->progress.last_ns / 1e9, "queued_disks", vjson_u64(work_count(a->work, WORK_STORE, NULL)), "asked_blocks",
                              vjson_u64(a->progress.asked), "wire_bytes", vjson_u64(a->progress.wire_bytes));
    pthread_mutex_unlock(&a->lock);
    return round;
}

static json_t *failures_json(struct agent *a)
{
    struct agent_failures f;
    json_t *list = json_array();
    int r = list == NULL ? -ENOMEM : agent_failures(a, &f, NULL);
    if (r < 0) {
        json_decref(list);
        return NULL;
    }
    for (unsigned i = 0; r == 0 && i < f.n; i++)
        r = json_array_append_new(list, agent_failure_json(a, &f.v[i]));
    free(f.v);
    if (r == 0)
        return list;
    json_decref(list);
    return NULL;
}

int agent_status_json(struct agent *a, char **text, size_t *len, struct verr *err)
{
    struct catalog_totals t;
    struct live_space space;
    struct process_memory mem;
    int r = catalog_totals(a->catalog, &t, err);
    if (r < 0)
        return r;
    live_set_space(a->live, &space);
    agent_memory(&mem);
    struct waiting_json w = {.a = a, .list = json_array()};
    catalog_snap_each(a->catalog, add_waiting, &w, NULL);
    const struct store_conf *sc = store_conf(a->store);
    char id[VID_HEX];
    vid_hex(&sc->id, id);
    uint64_t unique = t.levels.fresh;
    json_t *doc = json_pack(
        "{si s{so ss ss ss so sb} s{so so so so} s{so so so so so so so so} so s{so so so} so so s{so so so} so}",
        "schema", 1, "store", "path", vjson_text(store_path(a->store)), "id", id, "fingerprint", sc->fingerprint == FP_SHA1 ? "sha1" : "sha256",
        "fingerprint_path", a->fingerprint_path, "block_bytes",
        vjson_u64(sc->block_bytes), "content_defined", sc->cdc,
        "host", "name", vjson_text(a->host_name), "state", vjson_text(a->state_path), "pid", vjson_u64((uint64_t)getpid()), "uptime_seconds",
        vjson_u64((uint64_t)((vclock_mono_ns(a->conf.clock) - a->start_ns) / 1000000000)),
        "totals", "disks", vjson_u64(t.disks), "snapshots", vjson_u64(t.snapshots), "pending", vjson_u64(t.pending), "failed", vjson_u64(t.failed), "logical_bytes",
        vjson_u64(t.logical_bytes), "allocated_bytes", vjson_u64(t.alloc_bytes), "unique_bytes", vjson_u64(unique), "stored_bytes", vjson_u64(t.levels.stored),
        "levels", agent_levels_json(&t.levels),
        "local", "layers_bytes", vjson_u64(space.layers_bytes), "cache_bytes", vjson_u64(space.cache_bytes), "layer_limit", vjson_u64(space.layer_limit),
        "index", index_json(a), "round", round_json(a),
        "memory", "rss", vjson_u64(mem.rss), "rss_anon", vjson_u64(mem.rss_anon), "rss_peak", vjson_u64(mem.rss_peak),
        "waiting", w.list);
    json_t *condition = agent_condition_json(a);
    if (condition == NULL || json_object_update(doc, condition) < 0 || json_object_set_new(doc, "failures", failures_json(a)) < 0 ||
        json_object_set_new(doc, "put_back", agent_lost_json(a, true)) < 0) {
        json_decref(doc);
        doc = NULL;
    }
    json_decref(condition);
    return agent_json_text(doc, text, len, err);
}
