/* SPDX-License-Identifier: Apache-2.0 */
/* verify: the order of its passes (check_internal.h), and the list of problems. */
#include "check/check.h"

#include "base/verr.h"
#include "check/check_internal.h"
#include "chunk/fingerprint.h"
#include "snapshot/segread.h"
#include "store/container.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROBLEMS_DEFAULT = 1000, READER_BYTES = 16 * 1024 * 1024, RECIPES_KEPT = 4 };

bool check_is_damage(int r)
{
    return r == -EBADMSG || r == -ENODATA || r == -EIO || r == -ENOTSUP || r == -ENOENT || r == -EINVAL;
}

/* ---- problems ---- */

int check_add(struct checker *k, enum check_severity severity, const char *file, const char *fmt, ...)
{
    if (severity == CHECK_DAMAGE)
        k->rep->damaged++;
    else
        k->rep->notices++;
    size_t max = k->o->max_problems != 0 ? k->o->max_problems : PROBLEMS_DEFAULT;
    if (k->nproblems >= max || k->nproblems >= NO_PROBLEM)
        return NO_PROBLEM;
    if (k->nproblems == k->problems_cap) {
        size_t cap = k->problems_cap == 0 ? 16 : k->problems_cap * 2;
        struct problem *p = reallocarray(k->problems, cap, sizeof *p);
        if (p == NULL)
            return -ENOMEM;
        k->problems = p;
        k->problems_cap = cap;
    }
    struct problem *p = &k->problems[k->nproblems];
    *p = (struct problem){ .severity = severity };
    snprintf(p->file, sizeof p->file, "%s", file);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->what, sizeof p->what, fmt, ap);
    va_end(ap);
    return (int)k->nproblems++;
}

static bool same_snapshot(const struct hit_id *a, const struct hit_id *b)
{
    return a->anchor == b->anchor && a->seq == b->seq && vid_eq(&a->snap, &b->snap) && vid_eq(&a->disk, &b->disk);
}

/* Was the snapshot counted as hit? Its next bad run comes right after, so the last hit is compared; only snapshots with a damaged recipe
 * file may have come earlier, so these are searched. */
static bool was_hit(const struct checker *k, const struct hit_id *id)
{
    if (k->nhit > 0 && same_snapshot(&k->hit[k->nhit - 1], id))
        return true;
    for (size_t i = 0; i < k->nhit_files; i++)
        if (same_snapshot(&k->hit[i], id))
            return true;
    return false;
}

static int note_snapshot(struct checker *k, const struct hit_id *id)
{
    if (was_hit(k, id))
        return 0;
    if (k->nhit == k->hit_cap) {
        size_t cap = k->hit_cap == 0 ? 16 : k->hit_cap * 2;
        struct hit_id *more = reallocarray(k->hit, cap, sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        k->hit = more;
        k->hit_cap = cap;
    }
    k->hit[k->nhit++] = *id;
    k->rep->snapshots_hit++;
    return 0;
}

int check_hit(struct checker *k, int problem, const struct check_hit *hit)
{
    const struct hit_id id = { .disk = hit->disk, .snap = hit->snap, .seq = hit->seq, .anchor = hit->anchor };
    int r = note_snapshot(k, &id);
    if (r < 0 || problem == NO_PROBLEM)
        return r;
    struct problem *p = &k->problems[problem];
    if (p->hits_total > 0 && same_snapshot(&p->last, &id))
        return 0;
    p->last = id;
    p->hits_total++;
    if (p->nhits == CHECK_HITS_MAX)
        return 0;
    if (p->hits == NULL && (p->hits = calloc(CHECK_HITS_MAX, sizeof *p->hits)) == NULL)
        return -ENOMEM;
    p->hits[p->nhits++] = *hit;
    return 0;
}

int check_progress(struct checker *k, const char *what, uint64_t done, uint64_t total, struct verr *err)
{
    if (k->o->progress != NULL && k->o->progress(k->o->ctx, what, done, total) != 0)
        return verr_set(err, EINTR, "stopped");
    return 0;
}

static void tell(const struct checker *k)
{
    for (size_t i = 0; i < k->nproblems && k->o->problem != NULL; i++) {
        const struct problem *p = &k->problems[i];
        const struct check_problem out = {
            .severity = p->severity, .file = p->file, .what = p->what, .hits = p->hits, .nhits = p->nhits, .hits_total = p->hits_total,
        };
        k->o->problem(k->o->ctx, &out);
    }
}

/* ---- verify ---- */

static int prepare(struct checker *k, struct verr *err)
{
    const struct store_conf *conf = store_conf(k->st);
    int r = creader_new(k->st, k->o->memory != 0 ? k->o->memory : READER_BYTES, &k->reader, err);
    if (r == 0)
        r = segread_new(k->reader, RECIPES_KEPT, &k->segread, err);
    if (r < 0)
        return r;
    struct verr why = {0};
    k->fper = fper_new((enum fp_kind)conf->fingerprint, conf->digest_key, &why);
    k->sha256 = fper_new(FP_SHA256, conf->digest_key, &why);
    if (k->fper == NULL || k->sha256 == NULL)
        return verr_set(err, why.code != 0 ? why.code : ENOMEM, "%s", verr_str(&why));
    k->buf = malloc(SEG_BYTES);
    if (k->buf == NULL)
        return verr_set(err, ENOMEM, "verify: out of memory");
    return k->o->read_data ? check_known_begin(k, err) : 0;
}

static void release(struct checker *k)
{
    for (size_t i = 0; i < k->nproblems; i++)
        free(k->problems[i].hits);
    free(k->problems);
    free(k->broken);
    free(k->hit);
    free(k->known);
    placeset_release(&k->places);
    badlist_release(&k->blocks);
    badlist_release(&k->recipes);
    free(k->buf);
    fper_free(k->sha256);
    fper_free(k->fper);
    segread_free(k->segread);
    creader_free(k->reader);
}

int check_verify(struct store *st, const struct check_opts *o, struct check_report *rep, struct verr *err)
{
    struct checker k = { .st = st, .o = o, .rep = rep };
    *rep = (struct check_report){0};
    int r = prepare(&k, err);
    if (r == 0)
        r = check_snapshots(&k, err);
    k.nhit_files = k.nhit;
    if (r == 0)
        r = check_containers(&k, err);
    if (r == 0)
        r = check_hits(&k, err);
    k.nhit_files = k.nhit;
    if (r == 0)
        r = check_names(&k, err);
    if (r == 0)
        r = check_trash(&k, err);
    if (r == 0)
        r = check_fence(&k, err);
    if (r == 0)
        r = check_index(&k, err);
    tell(&k);
    release(&k);
    return r;
}
