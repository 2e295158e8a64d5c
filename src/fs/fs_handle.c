/* SPDX-License-Identifier: Apache-2.0 */
/* fs_handle: the tables of open handles and of disks in use, and the queue of each disk. */
#include "fs/fs_handle.h"

#include "fs/fs_internal.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct handle *handle_new(struct fs *f, enum handle_kind kind, uint64_t ino)
{
    struct handle *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->kind = kind;
    h->ino = ino;
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_lock(&f->lock);
    h->next = f->handles;
    if (h->next != NULL)
        h->next->prev = h;
    f->handles = h;
    pthread_mutex_unlock(&f->lock);
    return h;
}

void listing_clear(struct listing *l)
{
    free(l->items);
    free(l->names);
    memset(l, 0, sizeof *l);
}

void handle_free(struct fs *f, struct handle *h)
{
    if (h == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    if (h->prev != NULL)
        h->prev->next = h->next;
    else
        f->handles = h->next;
    if (h->next != NULL)
        h->next->prev = h->prev;
    pthread_mutex_unlock(&f->lock);
    if (h->snap != NULL)
        snap_close(h->snap);
    if (h->held)
        live_pending_release(h->live, h->snap_ref.seq);
    if (h->live != NULL)
        live_put(h->live);
    listing_clear(&h->listing);
    free(h->text);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int handle_label_by_ino(struct fs *f, uint64_t ino, struct node *disk, uint64_t *size)
{
    int rc = -ENOENT;
    pthread_mutex_lock(&f->lock);
    for (const struct handle *h = f->handles; h != NULL && rc != 0; h = h->next) {
        if (h->kind == HANDLE_LABEL && h->ino == ino) {
            *disk = h->label_disk;
            *size = h->label_size;
            rc = 0;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* ---- disks ---- */

static struct fs_disk **disk_bucket(struct fs *f, uint64_t ino)
{
    return &f->disks[ino % FS_DISK_BUCKETS];
}

/* lock held */
static struct fs_disk *disk_search(struct fs *f, uint64_t ino)
{
    struct fs_disk *d = *disk_bucket(f, ino);
    while (d != NULL && d->ino != ino)
        d = d->next;
    if (d != NULL)
        d->refs++;
    return d;
}

/* Gives back the reference that the queue held for a task that has run. */
static void queue_left(struct pool_serial *queue)
{
    fs_disk_put((struct fs_disk *)((char *)queue - offsetof(struct fs_disk, queue)));
}

struct fs_disk *fs_disk_get(struct fs *f, const struct vid *id)
{
    uint64_t ino = vid_ino(id);
    pthread_mutex_lock(&f->lock);
    struct fs_disk *d = disk_search(f, ino);
    if (d == NULL && (d = calloc(1, sizeof *d)) != NULL) {
        d->f = f;
        d->id = *id;
        d->ino = ino;
        d->refs = 1;
        pool_serial_init(&d->queue, f->ctl, queue_left);
        pthread_mutex_init(&d->refused_lock, NULL);
        d->next = *disk_bucket(f, ino);
        *disk_bucket(f, ino) = d;
    }
    pthread_mutex_unlock(&f->lock);
    return d;
}

struct fs_disk *fs_disk_find_ino(struct fs *f, uint64_t ino)
{
    pthread_mutex_lock(&f->lock);
    struct fs_disk *d = disk_search(f, ino);
    pthread_mutex_unlock(&f->lock);
    return d;
}

void fs_disk_put(struct fs_disk *d)
{
    if (d == NULL)
        return;
    struct fs *f = d->f;
    pthread_mutex_lock(&f->lock);
    bool last = --d->refs == 0;
    if (last) {
        struct fs_disk **pp = disk_bucket(f, d->ino);
        while (*pp != d)
            pp = &(*pp)->next;
        *pp = d->next;
    }
    pthread_mutex_unlock(&f->lock);
    if (!last)
        return;
    if (d->live != NULL)
        live_put(d->live);
    fs_disk_put(atomic_load(&d->moved));
    free(d->made);
    pthread_mutex_destroy(&d->refused_lock);
    free(d);
}

int fs_disk_open_live(struct fs_disk *d, struct verr *err)
{
    pthread_mutex_lock(&d->f->lock);
    bool there = d->live != NULL;
    pthread_mutex_unlock(&d->f->lock);
    if (there)
        return 0;
    struct live *l = NULL;
    int rc = agent_ready(d->f->agent, &d->id, err);
    if (rc == 0)
        rc = live_get(d->f->live, &d->id, &l, err);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&d->f->lock);
    if (d->live == NULL) {
        d->live = l;
        l = NULL;
    }
    pthread_mutex_unlock(&d->f->lock);
    if (l != NULL)
        live_put(l);
    return 0;
}

void fs_disk_close_live(struct fs_disk *d)
{
    pthread_mutex_lock(&d->f->lock);
    struct live *l = d->handles == 0 ? d->live : NULL;
    if (l != NULL)
        d->live = NULL;
    pthread_mutex_unlock(&d->f->lock);
    if (l != NULL)
        live_put(l);
}

/* lock held. Also of all disks that it leads to. */
static void handle_goes(struct fs_disk *d)
{
    d->handles--;
    for (d = atomic_load(&d->moved); d != NULL; d = atomic_load(&d->moved)) {
        d->handles--;
        atomic_fetch_sub(&d->moved_here, 1);
    }
}

int fs_disk_attach(struct fs_disk *d, struct handle *h, bool writer)
{
    int rc = -ESTALE;
    pthread_mutex_lock(&d->f->lock);
    bool open = d->orphan ? d->handles > 0 && atomic_load(&d->moved) == NULL : !d->dying;
    if (open && d->live == NULL) {
        rc = -EAGAIN;
    } else if (open) {
        d->refs++;
        d->handles++;
        d->writers += writer;
        h->keeps_cache = !h->direct && atomic_load(&d->coherent);
        if (!h->direct)
            atomic_fetch_add(&d->cached, 1);
        h->disk = d;
        h->writer = writer;
        atomic_store(&h->made_seen, atomic_load(&d->made_gen) - (d->nmade > 0));
        h->disk_next = d->list;
        d->list = h;
        rc = 0;
    }
    pthread_mutex_unlock(&d->f->lock);
    return rc;
}

void fs_disk_detach(struct handle *h, unsigned *writers, bool *orphan)
{
    struct fs_disk *d = h->disk;
    pthread_mutex_lock(&d->f->lock);
    struct handle **pp = &d->list;
    while (*pp != NULL && *pp != h)
        pp = &(*pp)->disk_next;
    if (*pp != NULL) {
        *pp = h->disk_next;
        handle_goes(d);
        d->writers -= h->writer;
        if (h->writer)
            d->quiet_ns = fs_mono_ns();
        if (!h->direct && atomic_fetch_sub(&d->cached, 1) == 1)
            atomic_store(&d->coherent, false);
    }
    *writers = d->writers;
    *orphan = d->orphan;
    pthread_mutex_unlock(&d->f->lock);
}

void fs_disk_move(struct fs_disk *d, struct fs_disk *to)
{
    pthread_mutex_lock(&d->f->lock);
    unsigned n = d->handles;
    if (n > 0) {
        to->refs++;
        atomic_store(&d->moved, to);
        to->handles += n;
        atomic_fetch_add(&to->moved_here, n);
    }
    pthread_mutex_unlock(&d->f->lock);
}

struct fs_disk *fs_disk_moved(struct fs_disk *d)
{
    pthread_mutex_lock(&d->f->lock);
    struct fs_disk *to = atomic_load(&d->moved);
    if (to != NULL)
        to->refs++;
    pthread_mutex_unlock(&d->f->lock);
    return to;
}

void fs_disk_cut(struct fs_disk *d, enum handle_cut to)
{
    pthread_mutex_lock(&d->f->lock);
    for (struct handle *h = d->f->handles; h != NULL; h = h->next)
        if (h->kind == HANDLE_DISK && h->disk != NULL && handle_disk(h) == d)
            atomic_store(&h->cut, atomic_load(&h->cut) == CUT_OFF ? CUT_OFF : to);
    pthread_mutex_unlock(&d->f->lock);
}

uint64_t fs_disk_moved_ino(struct fs_disk *d, uint64_t after)
{
    uint64_t found = 0;
    if (atomic_load(&d->moved_here) == 0)
        return 0;
    pthread_mutex_lock(&d->f->lock);
    for (const struct handle *h = d->f->handles; h != NULL; h = h->next)
        if (h->kind == HANDLE_DISK && h->disk != NULL && h->disk != d && h->ino > after && (found == 0 || h->ino < found) &&
            handle_disk(h) == d)
            found = h->ino;
    pthread_mutex_unlock(&d->f->lock);
    return found;
}

int fs_disk_others(struct fs_disk *d, const struct handle *me, bool writers_only)
{
    int busy = 0;
    pthread_mutex_lock(&d->f->lock);
    for (const struct handle *h = d->list; h != NULL; h = h->disk_next) {
        if (h == me || (writers_only && !h->writer))
            continue;
        int state = atomic_load(&h->idle) ? 1 : 2;
        if (state > busy)
            busy = state;
    }
    pthread_mutex_unlock(&d->f->lock);
    return busy;
}

bool fs_disk_closing(struct fs *f, const struct node *disk, const struct handle *me)
{
    struct fs_disk *d = fs_disk_find_ino(f, vid_ino(&disk->id));
    bool closing = d != NULL && fs_disk_others(d, me, true) == 1;
    fs_disk_put(d);
    return closing;
}

/* ---- the queue ---- */

void fs_disk_submit(struct fs_disk *d, struct pool_task *task)
{
    pthread_mutex_lock(&d->f->lock);
    d->refs++;
    pthread_mutex_unlock(&d->f->lock);
    pool_serial_post(&d->queue, task);
}

/* ---- what programs were refused ---- */

void fs_disk_refused(struct fs_disk *d, uint64_t off, uint64_t len)
{
    uint64_t end;
    if (len == 0 || __builtin_add_overflow(off, len, &end))
        return;
    pthread_mutex_lock(&d->refused_lock);
    unsigned n = atomic_load(&d->nrefused);
    if (n == REFUSED_MAX) {
        for (unsigned i = 0; i < n; i++) {
            off = d->refused[i].off < off ? d->refused[i].off : off;
            end = d->refused[i].end > end ? d->refused[i].end : end;
        }
        n = 0;
    }
    d->refused[n] = (struct refused){off, end};
    atomic_store(&d->nrefused, n + 1);
    pthread_mutex_unlock(&d->refused_lock);
}

/* Takes [off, end) out of the refused ranges. A range that would be split stays whole when there is no room for two. */
static void refused_cut(struct fs_disk *d, uint64_t off, uint64_t end)
{
    pthread_mutex_lock(&d->refused_lock);
    unsigned n = atomic_load(&d->nrefused);
    for (unsigned i = n; i-- > 0;) {
        struct refused *r = &d->refused[i];
        if (end <= r->off || off >= r->end)
            continue;
        if (off > r->off && end < r->end) {
            if (n < REFUSED_MAX) {
                d->refused[n++] = (struct refused){end, r->end};
                r->end = off;
            }
        } else if (off > r->off) {
            r->end = off;
        } else if (end < r->end) {
            r->off = end;
        } else {
            *r = d->refused[--n];
        }
    }
    atomic_store(&d->nrefused, n);
    pthread_mutex_unlock(&d->refused_lock);
}

void fs_disk_written(struct fs_disk *d, uint64_t off, uint64_t len)
{
    if (atomic_load_explicit(&d->nrefused, memory_order_relaxed) > 0)
        refused_cut(d, off, off + len);
}

void fs_disk_resized(struct fs_disk *d, uint64_t size, int rc)
{
    atomic_store(&d->size_refused, rc < 0 && rc != -EFBIG);
    if (rc == 0)
        refused_cut(d, size, UINT64_MAX);
}

bool fs_disk_lacks(const struct fs_disk *d)
{
    return atomic_load(&d->nrefused) > 0 || atomic_load(&d->size_refused);
}

void fs_disk_lacks_nothing(struct fs_disk *d)
{
    pthread_mutex_lock(&d->refused_lock);
    atomic_store(&d->nrefused, 0);
    atomic_store(&d->size_refused, false);
    pthread_mutex_unlock(&d->refused_lock);
}
