/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fs_settle: what closes have made, until it is settled (docs/design/settling.md). A close freezes the disk; whether its writer is done
 * shows afterwards. disk/due.h decides; here is kept what it decides by: the handle and the process behind each close, who has the
 * disk open, and since when nobody has.
 *
 * A disk's list of `made` is changed by tasks of its queue only, under fs.lock, so either suffices to read it. A thread finds what
 * settles as time goes by or as processes end, and sends the disk's queue a task.
 *
 * The list is short: something is made only after a change, and a change takes off what is released, and what came through the handle
 * that it comes through. That leaves one for each open handle, one that is released, and an image of zeros.
 */
#include "fs/fs_internal.h"

#include "base/thread.h"
#include "base/vlog.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- the list; fs.lock held ---- */

static int append(struct fs_disk *d, const struct made *m)
{
    if (d->nmade == d->made_cap) {
        unsigned cap = d->made_cap ? 2 * d->made_cap : 4;
        struct made *bigger = realloc(d->made, cap * sizeof *bigger);
        if (bigger == NULL)
            return -ENOMEM;
        d->made = bigger;
        d->made_cap = cap;
    }
    if (d->nmade == 0)
        d->refs++;                  /* the fs_disk stays until all is settled */
    d->made[d->nmade++] = *m;
    atomic_fetch_add(&d->made_gen, 1);
    return 0;
}

/* Takes the i-th off. The caller gives back m->proc, and a reference to the disk if *empty. */
static void take_off(struct fs_disk *d, unsigned i, struct made *m, bool *empty)
{
    *m = d->made[i];
    d->nmade--;
    memmove(&d->made[i], &d->made[i + 1], (d->nmade - i) * sizeof *d->made);
    *empty = d->nmade == 0;
}

static struct due_made due_of(struct fs_disk *d, const struct made *m)
{
    return (struct due_made){
        .frozen = m->seq != 0, .released = m->by == NULL, .ended = m->dead || fs_proc_ended_locked(m->proc), .asked = m->asked,
        .open = d->writers > 0, .quiet_ns = fs_mono_ns() - d->quiet_ns, .settle_ns = d->f->conf.settle_ns};
}

/* ---- what happens to one ---- */

static void made_free(struct fs_disk *d, const struct made *m, bool empty)
{
    fs_proc_put(d->f, m->proc);
    if (empty)
        fs_disk_put(d);
}

/* An image of zeros has no snapshot yet. */
static int freeze_zeros(struct fs_disk *d, struct verr *err)
{
    struct fs *f = d->f;
    struct node node;
    struct live *l = NULL;
    struct due_case c = {.occasion = DUE_SETTLED, .node = &node};
    int rc = names_by_ino(f->names, d->ino, &node, err);
    if (rc == 0)
        rc = live_get(f->live, &d->id, &l, err);
    if (rc == 0)
        rc = agent_freeze_due(f->agent, &c, l, NULL, err);
    if (l != NULL)
        live_put(l);
    return rc;
}

static void settle(struct fs_disk *d, const struct made *m, bool empty)
{
    struct verr err = {0};
    int rc = m->seq == 0 ? freeze_zeros(d, &err) : agent_settle(d->f->agent, &d->id, m->seq, m->clean, &err);
    if (rc < 0 && rc != -ENOENT && m->seq == 0)
        agent_zeros_later(d->f->agent, &d->id, &err);
    if (rc < 0 && rc != -ENOENT)
        fs_errno("settling", d->ino, rc, &err);
    made_free(d, m, empty);
}

/* The snapshot goes, because its writer goes on to change the disk. One that is being stored, together with a younger one that somebody
 * asked for, stays and becomes partial: a state in the middle of the writing. */
static int withdraw(struct fs_disk *d, const struct made *m, struct verr *err)
{
    if (m->seq == 0)
        return 0;
    int rc = agent_supersede(d->f->agent, &d->id, m->seq, err);
    if (rc < 0)
        return rc;
    struct verr why = {0};
    rc = agent_settle(d->f->agent, &d->id, m->seq, false, &why);
    if (rc < 0 && rc != -ENOENT)
        vlog(VLOG_WARN, "fs", "snapshot %llu of a disk stays provisional: %s", (unsigned long long)m->seq, verr_str(&why));
    return 0;
}

/* ---- on the disk's queue ---- */

int fs_made_add(struct fs_disk *d, uint64_t seq, bool clean, struct handle *by, struct op *op)
{
    struct made m = {.seq = seq, .clean = clean, .dead = op != NULL && op->killed, .by = by, .proc = op != NULL ? op->proc : NULL};
    pthread_mutex_lock(&d->f->lock);
    unsigned i = 0;
    while (i < d->nmade && (seq != 0 || d->made[i].seq != 0))
        i++;
    int rc = 0;
    if (i < d->nmade)
        d->made[i].by = by;         /* zeros once more */
    else if ((rc = append(d, &m)) == 0)
        fs_proc_ref_locked(m.proc);
    pthread_mutex_unlock(&d->f->lock);
    return rc;
}

bool fs_made_any(struct fs_disk *d)
{
    bool any = false;
    pthread_mutex_lock(&d->f->lock);
    for (unsigned i = 0; i < d->nmade; i++)
        any = any || d->made[i].seq != 0;
    pthread_mutex_unlock(&d->f->lock);
    return any;
}

void fs_made_released(struct fs_disk *d, const struct handle *h)
{
    uint64_t closed = 0;
    bool any = false;
    pthread_mutex_lock(&d->f->lock);
    for (unsigned i = 0; i < d->nmade; i++) {
        struct made *m = &d->made[i];
        if (m->by != h)
            continue;
        m->by = NULL;
        any = true;
        closed = m->clean ? m->seq : closed;
    }
    if (any)
        atomic_fetch_add(&d->made_gen, 1);
    pthread_mutex_unlock(&d->f->lock);
    struct verr err = {0};
    /* Of several only the newest can still be good: the others were left behind by later changes through the same handle. */
    if (closed != 0 && agent_closed(d->f->agent, &d->id, closed, &err) < 0)
        vlog(VLOG_WARN, "fs", "after a crash snapshot %llu of a disk would be partial: %s", (unsigned long long)closed, verr_str(&err));
}

/* Takes off the youngest one that the change does not leave. process: of the change. */
static bool take_changed(struct fs_disk *d, const struct handle *h, long process, enum due_change change, struct made *m,
                         enum due_fate *fate, bool *empty)
{
    bool found = false;
    pthread_mutex_lock(&d->f->lock);
    for (unsigned i = d->nmade; i-- > 0 && !found;) {
        const struct due_made dm = due_of(d, &d->made[i]);
        enum due_change c = change;
        if (h != NULL && d->made[i].by == h)
            c = DUE_SAME_HANDLE;
        else if (change == DUE_OTHER_PROCESS && fs_proc_is_locked(d->made[i].proc, process))
            c = DUE_SAME_PROCESS;
        *fate = due_changed(&dm, c);
        found = *fate != DUE_STAYS;
        if (found)
            take_off(d, i, m, empty);
    }
    pthread_mutex_unlock(&d->f->lock);
    return found;
}

static void put_back(struct fs_disk *d, const struct made *m, bool empty)
{
    pthread_mutex_lock(&d->f->lock);
    int rc = append(d, m);          /* there is room: it was there a moment ago */
    pthread_mutex_unlock(&d->f->lock);
    if (rc < 0)
        fs_proc_put(d->f, m->proc);
    if (empty)
        fs_disk_put(d);
}

static int change_all(struct fs_disk *d, const struct handle *h, long process, enum due_change change, struct verr *err)
{
    struct made m;
    enum due_fate fate;
    bool empty = false;
    while (take_changed(d, h, process, change, &m, &fate, &empty)) {
        int rc = fate == DUE_WITHDRAWN ? withdraw(d, &m, err) : 0;
        if (rc < 0) {
            put_back(d, &m, empty);
            return rc;
        }
        if (fate == DUE_WITHDRAWN)
            made_free(d, &m, empty);
        else
            settle(d, &m, empty);
    }
    return 0;
}

int fs_will_change(struct handle *h, fuse_req_t req, struct verr *err)
{
    struct fs_disk *d = h->disk;
    unsigned gen = atomic_load(&d->made_gen);
    atomic_store(&h->changed, true);
    atomic_store(&h->idle, false);
    atomic_store(&d->touched, true);
    if (atomic_load(&h->made_seen) == gen)
        return 0;
    /* Pages that were written through a mapping may be sent by a thread of the kernel: then it was the process that opened the file. */
    long process = fs_task_process(fuse_req_ctx(req)->pid);
    int rc = change_all(d, h, process != 0 ? process : h->process, DUE_OTHER_PROCESS, err);
    if (rc == 0)
        atomic_store(&h->made_seen, gen);
    return rc;
}

void fs_will_replace(struct fs_disk *d)
{
    struct verr err = {0};
    change_all(d, NULL, 0, DUE_FROM_ZERO, &err);
}

/* Takes off the first one that is settled, or any one that is released. */
static bool take_settled(struct fs_disk *d, bool any, struct made *m, bool *empty)
{
    bool found = false;
    pthread_mutex_lock(&d->f->lock);
    for (unsigned i = 0; i < d->nmade && !found; i++) {
        const struct due_made dm = due_of(d, &d->made[i]);
        found = any ? dm.released : due_settles(&dm);
        if (found)
            take_off(d, i, m, empty);
    }
    pthread_mutex_unlock(&d->f->lock);
    return found;
}

void fs_settle_due(struct fs_disk *d)
{
    struct made m;
    bool empty = false;
    while (take_settled(d, false, &m, &empty))
        settle(d, &m, empty);
}

void fs_settle_released(struct fs_disk *d)
{
    struct made m;
    bool empty = false;
    while (take_settled(d, true, &m, &empty))
        settle(d, &m, empty);
}

/* ---- the thread ---- */

void fs_settle_look(struct fs *f)
{
    uint64_t one = 1;
    if (f->settle_fd >= 0 && write(f->settle_fd, &one, sizeof one) < 0) {
        /* The counter is full: the thread looks in any case. */
    }
}

static void settle_run(struct pool_task *task)
{
    struct fs_disk *d = (struct fs_disk *)((char *)task - offsetof(struct fs_disk, settle_task));
    pthread_mutex_lock(&d->f->lock);
    d->settle_posted = false;
    pthread_mutex_unlock(&d->f->lock);
    fs_settle_due(d);
    fs_settle_look(d->f);           /* what is left has a later time */
}

/* lock held. Sends the disk a task if something is settled; else the time until something may be, ns. */
static int64_t look_at(struct fs_disk *d, int64_t wait)
{
    bool due = false;
    for (unsigned i = 0; i < d->nmade; i++) {
        const struct due_made m = due_of(d, &d->made[i]);
        due = due || due_settles(&m);
        if (m.released && !m.open && m.settle_ns - m.quiet_ns < wait)
            wait = m.settle_ns - m.quiet_ns;
    }
    if (d->settle_posted)
        return INT64_MAX;           /* settle_run has this thread look again */
    if (due) {
        d->settle_posted = true;
        d->settle_task.run = settle_run;
        d->refs++;                  /* for the queue */
        pool_serial_post(&d->queue, &d->settle_task);
        return INT64_MAX;
    }
    return wait;
}

static void *settle_thread(void *arg)
{
    struct fs *f = arg;
    struct pollfd fds[1 + FS_PROCS_MAX];
    uint64_t n;
    for (;;) {
        int64_t wait = INT64_MAX;
        pthread_mutex_lock(&f->lock);
        for (unsigned b = 0; b < FS_DISK_BUCKETS; b++) {
            for (struct fs_disk *d = f->disks[b]; d != NULL; d = d->next) {
                int64_t next = look_at(d, INT64_MAX);
                wait = next < wait ? next : wait;
            }
        }
        bool stop = f->settle_stop;
        fds[0] = (struct pollfd){.fd = f->settle_fd, .events = POLLIN};
        unsigned count = 1 + fs_proc_poll_locked(f, fds + 1);
        pthread_mutex_unlock(&f->lock);
        if (stop)
            return NULL;
        poll(fds, count, wait == INT64_MAX ? -1 : (int)(wait / 1000000 + 1));
        if ((fds[0].revents & POLLIN) != 0 && read(f->settle_fd, &n, sizeof n) < 0)
            vlog(VLOG_WARN, "fs", "reading an eventfd: %s", strerror(errno));
    }
}

int fs_settle_start(struct fs *f, struct verr *err)
{
    f->settle_fd = eventfd(0, EFD_CLOEXEC);
    if (f->settle_fd < 0)
        return verr_set(err, errno, "cannot make an eventfd: %s", strerror(errno));
    int failed = thread_start(&f->settler, settle_thread, f);
    if (failed == 0)
        return 0;
    close(f->settle_fd);
    f->settle_fd = -1;
    return verr_set(err, failed, "cannot start a thread: %s", strerror(failed));
}

void fs_settle_stop(struct fs *f)
{
    if (f->settle_fd < 0)
        return;
    pthread_mutex_lock(&f->lock);
    f->settle_stop = true;
    pthread_mutex_unlock(&f->lock);
    fs_settle_look(f);
    pthread_join(f->settler, NULL);
}

/* ---- a user waits; the end ---- */

/* A disk with an image of zeros that settles because a user waits. A reference, or NULL. */
static struct fs_disk *zeros_due(struct fs *f)
{
    struct fs_disk *found = NULL;
    for (unsigned b = 0; b < FS_DISK_BUCKETS && found == NULL; b++)
        for (struct fs_disk *d = f->disks[b]; d != NULL && found == NULL; d = d->next)
            for (unsigned i = 0; i < d->nmade && found == NULL; i++) {
                const struct due_made m = due_of(d, &d->made[i]);
                found = !m.frozen && due_settles(&m) ? d : NULL;
            }
    if (found != NULL)
        found->refs++;
    return found;
}

struct fs_disk *fs_settle_ask(struct fs *f, const struct fs_disk *only)
{
    pthread_mutex_lock(&f->lock);
    for (unsigned b = 0; b < FS_DISK_BUCKETS; b++)
        for (struct fs_disk *d = f->disks[b]; d != NULL; d = d->next)
            for (unsigned i = 0; i < d->nmade && (only == NULL || d == only); i++)
                d->made[i].asked = true;
    struct fs_disk *d = zeros_due(f);
    pthread_mutex_unlock(&f->lock);
    fs_settle_look(f);
    return d;
}

/* A disk that has something made. A reference, or NULL. */
static struct fs_disk *any_made(struct fs *f)
{
    struct fs_disk *found = NULL;
    pthread_mutex_lock(&f->lock);
    for (unsigned b = 0; b < FS_DISK_BUCKETS && found == NULL; b++)
        for (struct fs_disk *d = f->disks[b]; d != NULL && found == NULL; d = d->next)
            found = d->nmade > 0 ? d : NULL;
    if (found != NULL)
        found->refs++;
    pthread_mutex_unlock(&f->lock);
    return found;
}

void fs_settle_end(struct fs *f)
{
    struct fs_disk *d;
    while ((d = any_made(f)) != NULL) {
        fs_settle_released(d);
        struct made m;
        bool empty = true;
        pthread_mutex_lock(&f->lock);
        bool left = d->nmade > 0;
        if (left)
            take_off(d, 0, &m, &empty);     /* its handle is still open: the next start finds it */
        pthread_mutex_unlock(&f->lock);
        if (left)
            made_free(d, &m, empty);
        fs_disk_put(d);
    }
    if (f->settle_fd >= 0)
        close(f->settle_fd);
    f->settle_fd = -1;
}
