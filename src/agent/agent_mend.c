/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What failed for a reason that may pass is tried again while the daemon runs, not at its next start: a list of disks, each with
 * what is owed to it, on the agent's thread, with growing pauses. Whatever is owed is said by journals, STORE or the caller;
 * here only stands that somebody must look again. Lost with the process: the next start looks at everything anyway.
 */
#include "agent/agent_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct settle { uint64_t seq; bool clean; };

struct mend {
    struct mend *next;
    struct vid disk;                /* zero: the tree of names */
    unsigned what, since;           /* enum mend_what; since: what of it came while an attempt runs */
    struct settle *settle;
    unsigned nsettle;
    int64_t retry_ns, backoff_ns;
};

/* lock held */
static struct mend *find(struct agent *a, const struct vid *disk)
{
    struct mend *m = a->mends;
    while (m != NULL && !vid_eq(&m->disk, disk))
        m = m->next;
    return m;
}

/* lock held. NULL: no memory; the next start does it then. */
static struct mend *find_or_add(struct agent *a, const struct vid *disk)
{
    struct mend *m = find(a, disk);
    if (m != NULL || (m = calloc(1, sizeof *m)) == NULL)
        return m;
    m->disk = *disk;
    m->backoff_ns = BACKOFF_FIRST_NS;
    m->retry_ns = vclock_mono_ns(a->conf.clock) + m->backoff_ns;
    m->next = a->mends;
    a->mends = m;
    return m;
}

static void add_settle(struct mend *m, const struct settle *s)
{
    struct settle *v = realloc(m->settle, (m->nsettle + 1) * sizeof *v);
    if (v == NULL)
        return;
    m->settle = v;
    v[m->nsettle++] = *s;
    m->what |= MEND_SETTLE;
    m->since |= MEND_SETTLE;
}

static const char *what_text(unsigned what)
{
    return what & MEND_RECOVER ? "its recovery" : what & MEND_SETTLE ? "settling a snapshot" : what & MEND_FREEZE ? "its snapshot"
         : what & MEND_FORGET ? "removing its image" : "its place in the catalog";
}

static void who_text(const struct vid *disk, char out[VID_HEX + 8])
{
    memcpy(out, "disk ", sizeof "disk ");
    if (vid_is_zero(disk))
        memcpy(out, "the tree", sizeof "the tree");
    else
        vid_hex(disk, out + strlen("disk "));
}

static void enter(struct agent *a, const struct vid *disk, unsigned what, const struct settle *s, const struct verr *why)
{
    char who[VID_HEX + 8];
    pthread_mutex_lock(&a->lock);
    struct mend *m = find_or_add(a, disk);
    if (m != NULL) {
        if (what & MEND_RECOVER & ~m->what)
            atomic_fetch_add(&a->unrecovered, 1);
        m->what |= what;
        m->since |= what;
        if (s != NULL)
            add_settle(m, s);
    }
    a->kicked = true;
    pthread_cond_broadcast(&a->wake);
    pthread_mutex_unlock(&a->lock);
    who_text(disk, who);
    what |= s != NULL ? (unsigned)MEND_SETTLE : 0;
    vlog(VLOG_WARN, "agent", "%s: %s failed and will be tried again: %s", who, what_text(what), verr_str(why));
    agent_event(a, "%s: %s failed and will be tried again: %s", who, what_text(what), verr_str(why));
}

void agent_mend(struct agent *a, const struct vid *disk, unsigned what, const struct verr *why)
{
    enter(a, disk, what, NULL, why);
}

void agent_mend_settle(struct agent *a, const struct vid *disk, uint64_t seq, bool clean, const struct verr *why)
{
    const struct settle s = {seq, clean};
    enter(a, disk, 0, &s, why);
}

/* ---- who asks ---- */

bool agent_mend_owes(struct agent *a, const struct vid *disk)
{
    pthread_mutex_lock(&a->lock);
    const struct mend *m = find(a, disk);
    bool owes = m != NULL && (m->what & (MEND_RECOVER | MEND_SETTLE)) != 0;
    pthread_mutex_unlock(&a->lock);
    return owes;
}

int64_t agent_mend_next(struct agent *a)
{
    int64_t first = INT64_MAX;
    for (const struct mend *m = a->mends; m != NULL; m = m->next)
        if (m->retry_ns < first)
            first = m->retry_ns;
    return first;
}

void agent_mend_kick(struct agent *a)
{
    for (struct mend *m = a->mends; m != NULL; m = m->next)
        m->retry_ns = 0;
}

/* ---- one attempt ---- */

/* What its last writer left, and whose freeze failed at the release. */
static int mend_freeze(struct agent *a, const struct vid *disk, bool unclean, struct verr *err)
{
    struct node node;
    struct live *l = NULL;
    struct due_case late = {.occasion = DUE_LATE, .node = &node, .unclean = unclean};
    int r = catalog_node_by_id(a->catalog, disk, &node, err);
    if (r == 0 && !due_possible(&late))
        return 0;
    if (r == 0)
        r = live_get(a->live, disk, &l, err);
    if (r == 0)
        r = agent_freeze_due_locked(a, &late, l, NULL, err);
    if (l != NULL)
        live_put(l);
    return r == -ENOENT || r > 0 ? 0 : r;
}

static int mend_settles(struct agent *a, const struct vid *disk, const struct settle *s, unsigned n, struct verr *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        r = agent_settle_late(a, disk, s[i].seq, s[i].clean, err);
        if (r == -ENOENT)
            r = 0;                  /* removed meanwhile */
    }
    return r;
}

/* One attempt at what was owed when it began. It stays on the list meanwhile, and may grow. */
struct attempt {
    struct vid disk;
    unsigned what;
    struct settle *settle;          /* a copy */
    unsigned nsettle;
};

/* lock held */
static bool begin(struct mend *m, struct attempt *t)
{
    *t = (struct attempt){.disk = m->disk, .what = m->what, .nsettle = m->nsettle};
    t->settle = calloc(m->nsettle + 1, sizeof *t->settle);
    if (t->settle == NULL)
        return false;
    if (m->nsettle > 0)
        memcpy(t->settle, m->settle, m->nsettle * sizeof *t->settle);
    m->since = 0;
    return true;
}

/* op_lock held. */
static int run(struct agent *a, const struct attempt *t, struct verr *err)
{
    int r = t->what & MEND_RECOVER ? agent_recover_disk(a, &t->disk, err) : 0;
    if (r == 0 && (t->what & MEND_SETTLE))
        r = mend_settles(a, &t->disk, t->settle, t->nsettle, err);
    if (r == 0 && (t->what & MEND_FREEZE))
        r = mend_freeze(a, &t->disk, (t->what & MEND_UNCLEAN) != 0, err);
    if (r == 0 && (t->what & MEND_FORGET))
        r = agent_forget_if_gone(a, &t->disk, err);
    return r;
}

static void unlink_mend(struct agent *a, struct mend *m)
{
    struct mend **p = &a->mends;
    while (*p != m)
        p = &(*p)->next;
    *p = m->next;
    free(m->settle);
    free(m);
}

static void end(struct agent *a, struct attempt *t, int r, const struct verr *why)
{
    char who[VID_HEX + 8];
    who_text(&t->disk, who);
    free(t->settle);
    pthread_mutex_lock(&a->lock);
    struct mend *m = find(a, &t->disk);
    if (m != NULL && r == 0) {
        if (t->what & ~m->since & MEND_RECOVER)
            atomic_fetch_sub(&a->unrecovered, 1);
        m->nsettle -= t->nsettle;
        if (m->nsettle > 0)
            memmove(m->settle, m->settle + t->nsettle, m->nsettle * sizeof *m->settle);
        m->what = m->since;
        m->backoff_ns = BACKOFF_FIRST_NS;
        if (m->what == 0)
            unlink_mend(a, m);
    } else if (m != NULL) {
        m->backoff_ns = m->backoff_ns * 2 > BACKOFF_MAX_NS ? BACKOFF_MAX_NS : m->backoff_ns * 2;
        m->retry_ns = vclock_mono_ns(a->conf.clock) + m->backoff_ns;
    }
    pthread_mutex_unlock(&a->lock);
    if (r == 0)
        agent_event(a, "%s: %s succeeded at last", who, what_text(t->what));
    else
        vlog(VLOG_WARN, "agent", "%s: %s failed again: %s", who, what_text(t->what), verr_str(why));
}

static int forget_one(void *ctx, const struct vid *disk)
{
    struct agent *a = ctx;
    struct verr why = {0};
    if (agent_forget_if_gone(a, disk, &why) < 0)
        agent_mend(a, disk, MEND_FORGET, &why);
    return 0;
}

/* names' lock is held while the catalog's rows change, so outside op_lock. Then images whose records went with it. */
static int mend_names(struct agent *a, struct verr *err)
{
    int r = names_reconcile(a->names, agent_report_bad, a, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&a->op_lock);
    r = live_set_each(a->live, forget_one, a, err);
    pthread_mutex_unlock(&a->op_lock);
    return r;
}

/* One that is due: its disk. */
static bool next_due(struct agent *a, int64_t now, struct vid *disk)
{
    pthread_mutex_lock(&a->lock);
    const struct mend *m = a->stopping ? NULL : a->mends;
    while (m != NULL && m->retry_ns > now)
        m = m->next;
    if (m != NULL)
        *disk = m->disk;
    pthread_mutex_unlock(&a->lock);
    return m != NULL;
}

/* An attempt at what has all bits of `what` (0: anything) owed to a disk; 0 also when nothing is. Under op_lock from the first
 * look on, so that no two attempts at one disk can meet: the second would recover what is in use by then. */
static int try_disk(struct agent *a, const struct vid *disk, unsigned what, struct verr *err)
{
    struct attempt t;
    pthread_mutex_lock(&a->op_lock);
    pthread_mutex_lock(&a->lock);
    struct mend *m = find(a, disk);
    bool any = m != NULL && (m->what & what) == what && begin(m, &t);
    pthread_mutex_unlock(&a->lock);
    int r = any ? run(a, &t, err) : 0;
    if (any)
        end(a, &t, r, err);
    pthread_mutex_unlock(&a->op_lock);
    return r;
}

static void try_names(struct agent *a, const struct vid *tree)
{
    struct attempt t;
    struct verr err = {0};
    pthread_mutex_lock(&a->lock);
    bool any = begin(find(a, tree), &t);
    pthread_mutex_unlock(&a->lock);
    if (any)
        end(a, &t, mend_names(a, &err), &err);
}

void agent_mend_run(struct agent *a)
{
    int64_t now = vclock_mono_ns(a->conf.clock);
    struct vid disk;
    while (next_due(a, now, &disk)) {
        struct verr err = {0};
        if (vid_is_zero(&disk))     /* tried by this thread only */
            try_names(a, &disk);
        else
            try_disk(a, &disk, 0, &err);
    }
}

int agent_ready(struct agent *a, const struct vid *disk, struct verr *err)
{
    struct verr why = {0};
    if (atomic_load(&a->unrecovered) == 0)
        return 0;
    int r = try_disk(a, disk, MEND_RECOVER, &why);
    if (r < 0 && err != NULL)
        *err = why;
    return r;
}

void agent_mend_end(struct agent *a)
{
    while (a->mends != NULL)
        unlink_mend(a, a->mends);
}
