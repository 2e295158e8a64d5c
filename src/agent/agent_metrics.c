/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics in the text format of Prometheus; docs/metrics.md explains each. All samples of a metric stand together, so those of the disks
 * are collected in one text for each metric. Removed disks, and names with a dot in front, which get no snapshots, have none.
 */
#include "agent/agent_disks.h"
#include "agent/agent_text.h"
#include "agent/agent_verified.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- of the host ---- */

struct metric { const char *name, *type, *help, *labels; uint64_t value; };

static int print_metrics(struct text *t, const struct metric *rows, size_t n, struct verr *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (i == 0 || strcmp(rows[i].name, rows[i - 1].name) != 0)
            r = text_print(t, err, "# HELP %s %s\n# TYPE %s %s\n", rows[i].name, rows[i].help, rows[i].name, rows[i].type);
        if (r == 0)
            r = text_print(t, err, "%s%s %llu\n", rows[i].name, rows[i].labels, (unsigned long long)rows[i].value);
    }
    return r;
}

#define PRINT(t, rows, err) print_metrics((t), (rows), sizeof(rows) / sizeof(rows)[0], (err))

static int print_store(struct agent *a, struct text *t, struct verr *err)
{
    struct catalog_totals sum;
    struct live_space space;
    struct process_memory mem;
    int r = catalog_totals(a->catalog, &sum, err);
    if (r < 0)
        return r;
    live_set_space(a->live, &space);
    agent_memory(&mem);
    const struct metric rows[] = {
        {"varve_disks", "gauge", "disks with a live image", "", sum.disks},
        {"varve_snapshots", "gauge", "stored snapshots", "", sum.snapshots},
        {"varve_pending_snapshots", "gauge", "snapshots frozen and not yet stored", "", sum.pending},
        {"varve_failed_snapshots", "gauge", "snapshots whose last attempt failed", "", sum.failed},
        {"varve_logical_bytes", "gauge", "sum of the sizes of all stored snapshots", "", sum.logical_bytes},
        {"varve_allocated_bytes", "gauge", "sum of their allocated bytes", "", sum.alloc_bytes},
        {"varve_unique_bytes", "gauge", "bytes of blocks that were new", "", sum.levels.fresh},
        {"varve_stored_bytes", "gauge", "bytes added to containers", "", sum.levels.stored},
        {"varve_layer_bytes", "gauge", "local space of layers", "", space.layers_bytes},
        {"varve_resident_bytes", "gauge", "resident memory of the daemon", "", mem.rss},
        {"varve_resident_anon_bytes", "gauge", "of it anonymous", "", mem.rss_anon},
    };
    return PRINT(t, rows, err);
}

static int print_rounds(struct agent *a, struct text *t, struct verr *err)
{
    pthread_mutex_lock(&a->lock);
    uint64_t ended = a->progress.rounds - a->progress.running, failed = a->progress.rounds_failed;
    const struct metric rows[] = {
        {"varve_rounds_total", "counter", "rounds that have ended since the start of the daemon", "{result=\"stored\"}", ended - failed},
        {"varve_rounds_total", "counter", "", "{result=\"failed\"}", failed},
        {"varve_published_total", "counter", "snapshots published since start", "", a->progress.published},
        {"varve_failures_total", "counter", "failed attempts since start", "", a->progress.failed},
        {"varve_asked_blocks_total", "counter", "blocks that rounds asked the index for", "", a->progress.asked},
        {"varve_wire_bytes_total", "counter", "bytes of all messages of rounds", "", a->progress.wire_bytes},
        {"varve_damaged_reads_total", "counter", "reads answered with EIO since start", "", a->damaged_reads},
    };
    pthread_mutex_unlock(&a->lock);
    return PRINT(t, rows, err);
}

/* What cannot be read has no sample; nor has the room of a read-only mount, which writes nothing. */
static int print_condition(struct agent *a, struct text *t, struct verr *err)
{
    struct agent_room room;
    struct agent_verified v;
    int r = 0;
    if (!agent_read_only(a) && agent_room(a, &room) == 0) {
        const struct metric rows[] = {
            {"varve_free_bytes", "gauge", "what can still be written there", "{place=\"store\"}", room.store_free},
            {"varve_free_bytes", "gauge", "", "{place=\"state\"}", room.state_free},
            {"varve_size_bytes", "gauge", "size of the filesystem there, or layer_limit", "{place=\"store\"}", room.store_bytes},
            {"varve_size_bytes", "gauge", "", "{place=\"state\"}", room.state_bytes},
        };
        r = PRINT(t, rows, err);
    }
    if (r == 0 && agent_verified_read(a->state_fd, &v) == 0) {
        const struct metric rows[] = {
            {"varve_last_verify_timestamp_seconds", "gauge", "when varve verify of all data ended last", "", (uint64_t)v.ended_s},
            {"varve_last_verify_damaged", "gauge", "problems that it found", "", v.damaged},
        };
        r = PRINT(t, rows, err);
    }
    return r;
}

/* ---- of each disk ---- */

enum per_disk { DISK_GOOD, DISK_AGE, DISK_PARTIAL, DISK_PENDING, DISK_PENDING_BYTES, DISK_FAILED, DISK_ATTEMPTS, PER_DISK };
static const struct { const char *name, *help; } per_disk[PER_DISK] = {
    [DISK_GOOD] = {"varve_disk_has_good_snapshot", "1: a snapshot is stored and has no flag"},
    [DISK_AGE] = {"varve_disk_last_good_age_seconds", "age of the last good snapshot"},
    [DISK_PARTIAL] = {"varve_disk_partial", "1: the newest snapshot is partial"},
    [DISK_PENDING] = {"varve_disk_pending_snapshots", "snapshots that are not stored yet"},
    [DISK_PENDING_BYTES] = {"varve_disk_pending_bytes", "segments written for them"},
    [DISK_FAILED] = {"varve_disk_failed", "1: something of the disk failed and is tried again"},
    [DISK_ATTEMPTS] = {"varve_disk_failed_attempts", "attempts that have failed since one succeeded"},
};

struct disks {
    struct agent *a;
    struct verr *err;
    struct text text[PER_DISK];
    struct text label;          /* of the disk at hand */
};

/* Appends a value of a label: UTF-8 with three escapes. */
static int add_value(struct text *t, const char *s, size_t n, struct verr *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < n; i++) {
        const char *escape = s[i] == '\\' ? "\\\\" : s[i] == '"' ? "\\\"" : s[i] == '\n' ? "\\n" : NULL;
        r = escape != NULL ? text_add(t, escape, 2, err) : text_add(t, s + i, 1, err);
    }
    return r;
}

static int make_label(struct disks *d, const char *path)
{
    struct text *t = &d->label;
    json_t *utf8 = vjson_text(path);
    const char *s = json_string_value(utf8);
    if (s == NULL)
        return verr_set(d->err, ENOMEM, "out of memory");
    const char *slash = strrchr(s, '/');
    t->len = 0;
    int r = text_print(t, d->err, "{directory=\"");
    if (r == 0)
        r = add_value(t, s, slash == NULL ? 0 : (size_t)(slash - s), d->err);
    if (r == 0)
        r = text_print(t, d->err, "\",disk=\"");
    if (r == 0)
        r = add_value(t, s, strlen(s), d->err);
    if (r == 0)
        r = text_print(t, d->err, "\"}");
    json_decref(utf8);
    return r;
}

static int sample(struct disks *d, enum per_disk which, uint64_t value)
{
    return text_print(&d->text[which], d->err, "%s%s %llu\n", per_disk[which].name, d->label.text, (unsigned long long)value);
}

static uint64_t age_of(const struct agent *a, const struct snaprow *s)
{
    int64_t age;
    if (__builtin_sub_overflow(vclock_real_ns(a->conf.clock), s->info.freeze_ns, &age) || age < 0)
        return 0;
    return (uint64_t)age / 1000000000;
}

static int add_disk(void *ctx, const struct disk_report *r)
{
    struct disks *d = ctx;
    if ((r->node->flags & NODE_GONE) != 0 || r->node->name[0] == '.')
        return 0;
    int rc = make_label(d, r->path);
    const uint64_t value[PER_DISK] = {
        [DISK_GOOD] = r->good, [DISK_AGE] = r->good ? age_of(d->a, &r->last_good) : 0,
        [DISK_PARTIAL] = r->any && (r->newest.info.flags & SNAP_PARTIAL) != 0, [DISK_PENDING] = r->pending,
        [DISK_PENDING_BYTES] = r->pending_bytes, [DISK_FAILED] = r->failed > 0 || r->failure != NULL,
        [DISK_ATTEMPTS] = r->failure != NULL ? r->failure->item.failures : 0,
    };
    for (enum per_disk i = 0; rc == 0 && i < PER_DISK; i++)
        if (i != DISK_AGE || r->good)
            rc = sample(d, i, value[i]);
    return rc;
}

static int print_disks(struct agent *a, struct text *t, struct verr *err)
{
    static const struct agent_viewer root = {.root = true};
    struct disks d = {.a = a, .err = err};
    int r = agent_each_disk(a, NULL, &root, add_disk, &d, err);
    for (enum per_disk i = 0; i < PER_DISK; i++) {
        if (r == 0)
            r = text_print(t, err, "# HELP %s %s\n# TYPE %s gauge\n", per_disk[i].name, per_disk[i].help, per_disk[i].name);
        if (r == 0 && d.text[i].len > 0)
            r = text_add(t, d.text[i].text, d.text[i].len, err);
        free(d.text[i].text);
    }
    free(d.label.text);
    return r;
}

int agent_metrics(struct agent *a, char **text, size_t *len, struct verr *err)
{
    struct text t = {0};
    int r = print_store(a, &t, err);
    if (r == 0)
        r = print_rounds(a, &t, err);
    if (r == 0)
        r = print_condition(a, &t, err);
    if (r == 0)
        r = print_disks(a, &t, err);
    if (r < 0) {
        free(t.text);
        return r;
    }
    *text = t.text;
    *len = t.len;
    return 0;
}
