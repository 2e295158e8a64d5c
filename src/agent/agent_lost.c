/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks whose live images point to what STORE does not have any more, because it was put back from an older copy (docs/design/putback.md).
 * They are counted at the start and after what may have mended them (a stored snapshot, a revert), and listed in STATE/put-back for as long
 * as there is one:
 *
 *   put-back 1
 *   found SECONDS
 *   ID                 one line for each disk
 *
 * The file only says which disks the next start counts again: a damaged one counts as absent.
 */
#include "agent/agent_json.h"

#include "base/file.h"
#include "store/snaps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOST_FILE "put-back"
#define LOST_HEAD "put-back 1\nfound "

enum { LOST_FILE_MAX = 1 << 20 };

struct lost_disk { struct vid id; uint64_t segments, lost; };

/* ---- the list. a->lost.lock is held ---- */

static struct lost_disk *find(struct agent *a, const struct vid *disk)
{
    for (unsigned i = 0; i < a->lost.n; i++)
        if (vid_eq(&a->lost.disks[i].id, disk))
            return &a->lost.disks[i];
    return NULL;
}

/* STATE/put-back lists what the list has. A failure costs the next start the count of these disks alone. */
static void save(struct agent *a)
{
    char hex[VID_HEX], *text = NULL;
    size_t len = 0;
    if (a->lost.n == 0) {
        unlinkat(a->state_fd, LOST_FILE, 0);
        return;
    }
    FILE *f = open_memstream(&text, &len);
    if (f != NULL)
        fprintf(f, LOST_HEAD "%lld\n", (long long)a->lost.found_s);
    for (unsigned i = 0; f != NULL && i < a->lost.n; i++) {
        vid_hex(&a->lost.disks[i].id, hex);
        fprintf(f, "%s\n", hex);
    }
    int r = f == NULL || fclose(f) != 0 ? -ENOMEM : file_replace(a->state_fd, LOST_FILE, text, len);
    if (r < 0)
        vlog(VLOG_WARN, "agent", "%s/" LOST_FILE ": cannot be written: %s", a->state_path, strerror(-r));
    free(text);
}

/* True: the disk is on the list now, and was not. */
static bool list(struct agent *a, const struct lost_disk *d)
{
    struct lost_disk *old = find(a, &d->id);
    if (old != NULL) {
        *old = *d;
        return false;
    }
    struct lost_disk *more = reallocarray(a->lost.disks, a->lost.n + 1, sizeof *more);
    if (more == NULL)
        return true;            /* it is said all the same */
    a->lost.disks = more;
    more[a->lost.n++] = *d;
    save(a);
    return true;
}

static void unlist(struct agent *a, const struct vid *disk)
{
    struct lost_disk *d = find(a, disk);
    if (d == NULL)
        return;
    *d = a->lost.disks[--a->lost.n];
    save(a);
}

/* ---- counting ---- */

struct counting { struct agent *a; struct segread_sound sound; uint64_t lost; struct verr first; };

static int count_place(void *ctx, uint64_t segment, uint64_t place)
{
    struct counting *c = ctx;
    struct verr why = {0};
    (void)segment;
    int r = segread_check(c->a->segread, place, &c->sound, &why);
    if (r != -ENODATA && r != -ENOENT && r != -ESTALE)
        return r == -ENOMEM ? r : 0;    /* good; or damage, which is another matter */
    if (c->lost++ == 0)
        c->first = why;
    return 0;
}

static void say_lost(struct agent *a, const struct lost_disk *d, const struct verr *why)
{
    char path[PATH_TEXT];
    agent_who_text(a, &d->id, path, sizeof path);
    vlog(VLOG_ERROR, "agent", "%s: %llu of %llu segments (2 MiB each) of the live image are not in the store any more, and are errors to "
         "readers; the others and the snapshots that are listed can be read. Restore it from one of them. %s", QUOTED(path),
         (unsigned long long)d->lost, (unsigned long long)d->segments, verr_str(why));
    agent_event(a, "%s: %llu of %llu segments of the live image are lost", QUOTED(path), (unsigned long long)d->lost,
                (unsigned long long)d->segments);
}

static int count(struct agent *a, struct live *l, struct verr *err)
{
    struct counting c = {.a = a, .sound = {REF_NONE, 0}};
    struct live_attr at;
    int r = live_attr(l, &at, err);
    if (r == 0)
        r = live_believed_each(l, false, count_place, &c, err);
    if (r < 0)
        return r;
    const struct lost_disk d = {.id = *live_id(l), .segments = seg_count(at.size), .lost = c.lost};
    bool is_new = false;
    pthread_mutex_lock(&a->lost.lock);
    if (d.lost > 0 && !a->lost.found) {
        a->lost.found = true;
        a->lost.found_s = vclock_real_ns(a->conf.clock) / 1000000000;
    }
    if (d.lost > 0)
        is_new = list(a, &d);
    else
        unlist(a, &d.id);
    pthread_mutex_unlock(&a->lost.lock);
    if (is_new)
        say_lost(a, &d, &c.first);
    return 0;
}

static int count_disk(void *ctx, const struct vid *disk)
{
    struct agent *a = ctx;
    struct live *l = NULL;
    struct verr why = {0};
    int r = live_get(a->live, disk, &l, &why);
    if (r == 0) {
        r = count(a, l, &why);
        live_put(l);
    }
    if (r < 0 && r != -ENOENT)
        vlog(VLOG_WARN, "agent", "a disk's lost segments cannot be counted: %s", verr_str(&why));
    return 0;
}

/*
 * An anchor that the head lists and STORE lacks: STATE was put back (the snapshot is there, and is anchored again), or STORE was, and has
 * not the snapshot either. Or a crash came between the two steps in which an anchor goes: then nothing relies on it.
 */
void agent_lost_look(struct agent *a, struct live *l)
{
    struct live_anchor an;
    struct verr why = {0};
    bool gone = false;
    for (unsigned i = 0; live_anchor_at(l, i, &an, NULL) == 0; i++) {
        if (snaps_anchored(a->store, live_id(l), &an.ref))
            continue;
        int r = snaps_anchor(a->store, live_id(l), &an.ref, &why);
        gone = gone || r == -ENOENT;
        if (r < 0 && r != -ENOENT)
            vlog(VLOG_WARN, "recover", "an anchor is missing and cannot be made anew: %s", verr_str(&why));
    }
    if (gone && count(a, l, &why) < 0)
        vlog(VLOG_WARN, "recover", "lost segments cannot be counted: %s", verr_str(&why));
}

void agent_lost_again(struct agent *a, const struct vid *disk)
{
    pthread_mutex_lock(&a->lost.lock);
    bool listed = find(a, disk) != NULL;
    pthread_mutex_unlock(&a->lost.lock);
    if (listed)
        count_disk(a, disk);
}

/* ---- the start ---- */

static void count_listed(struct agent *a)
{
    uint8_t *data = NULL;
    size_t len;
    struct vid id;
    if (file_load(a->state_fd, LOST_FILE, LOST_FILE_MAX, &data, &len) < 0)
        return;
    char *line = (char *)data, *end;
    if (strncmp(line, LOST_HEAD, sizeof LOST_HEAD - 1) == 0) {
        a->lost.found = true;
        a->lost.found_s = strtoll(line + sizeof LOST_HEAD - 1, &end, 10);
        for (line = strchr(end, '\n'); line != NULL; line = strchr(line + 1, '\n')) {
            char hex[VID_HEX];
            snprintf(hex, sizeof hex, "%s", line + 1);
            if (vid_parse(hex, &id) == 0)
                count_disk(a, &id);
        }
    }
    free(data);
}

int agent_lost_start(struct agent *a, struct verr *err)
{
    int r = 0;
    count_listed(a);
    if (a->lost.behind) {
        a->lost.found = true;
        a->lost.found_s = vclock_real_ns(a->conf.clock) / 1000000000;
        r = live_set_each(a->live, count_disk, a, err);
    }
    pthread_mutex_lock(&a->lost.lock);
    bool found = a->lost.found;
    unsigned n = a->lost.n;
    if (n > 0)
        save(a);
    else
        unlinkat(a->state_fd, LOST_FILE, 0);
    pthread_mutex_unlock(&a->lost.lock);
    if (found) {
        vlog(VLOG_ERROR, "agent", "%s is older than this host's state: it was put back from an older copy. %u disks have lost segments. What "
             "the copy has is good; numbers go on above all that were ever issued", QUOTED(store_path(a->store)), n);
        agent_event(a, "the store was put back from an older copy: %u disks have lost segments", n);
    }
    return r < 0 ? r : 0;
}

/* ---- reports ---- */

static json_t *disk_json(struct agent *a, const struct lost_disk *d)
{
    char path[PATH_TEXT];
    agent_who_text(a, &d->id, path, sizeof path);
    return json_pack("{so so so}", "path", vjson_text(path), "segments", vjson_u64(d->segments), "lost_segments", vjson_u64(d->lost));
}

json_t *agent_lost_json(struct agent *a, bool paths)
{
    char when[32];
    pthread_mutex_lock(&a->lost.lock);
    bool found = a->lost.found;
    unsigned n = a->lost.n;
    struct lost_disk *d = calloc(n + 1, sizeof *d);
    if (d != NULL && n > 0)
        memcpy(d, a->lost.disks, n * sizeof *d);
    agent_time_text(a->lost.found_s * 1000000000, when);
    pthread_mutex_unlock(&a->lost.lock);
    if (d == NULL || !found) {
        free(d);
        return found ? NULL : json_null();
    }
    json_t *doc = json_pack("{ss so}", "found", when, "lost_disks", vjson_u64(n)), *disks = json_array();
    for (unsigned i = 0; paths && i < n; i++)
        json_array_append_new(disks, disk_json(a, &d[i]));
    if (paths)
        json_object_set_new(doc, "disks", disks);
    else
        json_decref(disks);
    free(d);
    return doc;
}
