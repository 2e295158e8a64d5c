/* SPDX-License-Identifier: Apache-2.0 */
/* Every disk with its last good snapshot, for `varve list` and `varve health`. */
#include "agent/agent_disks.h"
#include "agent/agent_text.h"

#include <errno.h>
#include <stdlib.h>

/* The text grows disk by disk: a tree of JSON values of 10 000 disks would take ten times its memory. */
struct list {
    struct agent *a;
    struct verr *err;
    struct text text;
    bool any;
};

/* Takes o over. */
static int add_json(struct list *l, const char *before, json_t *o)
{
    char *text = o == NULL ? NULL : vjson_dump(o, JSON_COMPACT);
    json_decref(o);
    if (text == NULL)
        return verr_set(l->err, ENOMEM, "out of memory");
    int r = text_print(&l->text, l->err, "%s%s", before, text);
    free(text);
    return r;
}

static json_t *name_json(const struct node *disk, const struct snaprow *s)
{
    char name[NODE_NAME_MAX + 1];
    return snapname_make(disk->name, s->info.label, s->info.name_s, name) < 0 ? json_null() : vjson_text(name);
}

static json_int_t age_s(struct agent *a, int64_t ns)
{
    int64_t age;
    return __builtin_sub_overflow(vclock_real_ns(a->conf.clock), ns, &age) ? 0 : age / 1000000000;
}

static json_t *snapshot_json(struct list *l, const struct node *disk, const struct snaprow *s)
{
    char when[32];
    agent_time_text(s->info.freeze_ns, when);
    return json_pack("{so so ss sI}", "name", name_json(disk, s), "id", vjson_id(&s->info.ref.snap), "time", when, "age_seconds",
                     age_s(l->a, s->info.freeze_ns));
}

static json_t *host_json(struct agent *a, const struct disk_report *d)
{
    if (!d->any || vid_eq(&d->newest.info.host, &a->host))
        return vjson_text(a->host_name);
    return vjson_id(&d->newest.info.host);
}

static const char *state_of(const struct disk_report *d)
{
    if (d->failed > 0 || d->failure != NULL)
        return "failed";
    return d->pending > 0 ? "pending" : d->any ? "stored" : "none";
}

static int add_disk(void *ctx, const struct disk_report *d)
{
    struct list *l = ctx;
    char made[32];
    agent_time_text(d->node->btime_ns, made);
    json_t *o = json_pack("{so so sb ss so so ss so so}", "path", vjson_text(d->path), "id", vjson_id(&d->node->id), "live",
                          (d->node->flags & NODE_GONE) == 0, "made", made, "size", d->any ? vjson_u64(d->newest.info.size) : json_null(),
                          "host", host_json(l->a, d), "state", state_of(d), "flags", agent_flags_json(d->any ? d->newest.info.flags : 0),
                          "last_good", d->good ? snapshot_json(l, d->node, &d->last_good) : json_null());
    if (json_object_set_new(o, "newest", d->any ? snapshot_json(l, d->node, &d->newest) : json_null()) < 0
        || json_object_set_new(o, "made_age_seconds", json_integer(age_s(l->a, d->node->btime_ns))) < 0
        || json_object_set_new(o, "pending", vjson_u64(d->pending)) < 0
        || json_object_set_new(o, "pending_bytes", vjson_u64(d->pending_bytes)) < 0
        || json_object_set_new(o, "failure", d->failure != NULL ? agent_failure_json(l->a, d->failure) : json_null()) < 0) {
        json_decref(o);
        o = NULL;
    }
    int r = add_json(l, l->any ? ",\n" : "\n", o);
    l->any = true;
    return r;
}

static json_t *head_json(struct agent *a)
{
    char now[32];
    agent_time_text(vclock_real_ns(a->conf.clock), now);
    json_t *doc = json_pack("{si ss s{so so} so}", "schema", 1, "time", now, "store", "path", vjson_text(store_path(a->store)), "id",
                            vjson_id(&store_conf(a->store)->id), "host", vjson_text(a->host_name));
    json_t *condition = agent_condition_json(a);
    if (condition == NULL || json_object_update(doc, condition) < 0) {
        json_decref(doc);
        doc = NULL;
    }
    json_decref(condition);
    return doc;
}

int agent_list_json(struct agent *a, const struct node *below, const struct agent_viewer *who, char **text, size_t *len, struct verr *err)
{
    struct list l = {.a = a, .err = err};
    int r = add_json(&l, "", head_json(a));
    if (r == 0) {
        l.text.len--;       /* the closing brace comes last */
        r = text_print(&l.text, err, ",\"disks\":[");
    }
    if (r == 0)
        r = agent_each_disk(a, below, who, add_disk, &l, err);
    if (r == 0)
        r = text_print(&l.text, err, "\n]}\n");
    if (r < 0) {
        free(l.text.text);
        return r;
    }
    *text = l.text.text;
    *len = l.text.len;
    return 0;
}
