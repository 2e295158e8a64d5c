/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_table: segment tables as files. Entries are read and written in place with pread and pwrite; nothing is held in
 * memory, the kernel's page cache is the cache. Segments behind the end of the file are zero entries.
 */
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static off_t entry_off(uint64_t seg)
{
    return (off_t)(LIVE_HEADER_BYTES + seg * LIVE_ENTRY_BYTES);
}

static struct ltable *table_new(struct live *l, uint64_t no)
{
    struct ltable *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    t->no = no;
    t->memo = lmemo_owner();
    lfile_init(&t->file, l, "table", no, "");
    atomic_store(&t->refs, 1);
    return t;
}

int ltable_create(struct live *l, uint64_t no, struct ltable **out, struct verr *err)
{
    struct ltable *t = table_new(l, no);
    if (t == NULL)
        return live_fail(l, err, ENOMEM, "table-%" PRIu64 ": no memory", no);
    int r = lfile_open(&t->file, O_CREAT | O_EXCL);
    uint8_t head[LIVE_HEADER_BYTES] = {0};
    live_header_encode(LIVE_TABLE, &l->id, no, head);
    if (r == 0)
        r = fault_errno("live.table.create") ? -EIO : lfile_write(&t->file, head, sizeof head, 0);
    if (r < 0) {
        ltable_discard(l, t);
        return live_fail(l, err, -r, "table-%" PRIu64 ": cannot be made: %s", no, strerror(-r));
    }
    t->fresh = true;
    t->unsynced = true;
    atomic_fetch_add(&l->dir_gen, 1);
    *out = t;
    return 0;
}

static int check_table(struct live *l, struct ltable *t, uint64_t no, uint64_t min_bytes, uint64_t *bytes, struct verr *err)
{
    uint8_t head[LIVE_HEADER_BYTES];
    struct stat st;
    ssize_t got = lfile_read(&t->file, head, sizeof head, 0);
    int r = got < 0 ? (int)got : lfile_stat(&t->file, &st);
    if (r < 0)
        return live_fail(l, err, EIO, "table-%" PRIu64 ": cannot be read: %s", no, strerror(-r));
    r = got == (ssize_t)sizeof head ? live_header_page_decode(LIVE_TABLE, &l->id, no, head) : -EBADMSG;
    if (r == -ENOTSUP)
        return live_fail(l, err, ENOTSUP, "table-%" PRIu64 ": has a newer format", no);
    if (r < 0)
        return live_fail(l, err, EBADMSG, "table-%" PRIu64 ": header is damaged or of another disk", no);
    if ((uint64_t)st.st_size < min_bytes || st.st_size < LIVE_HEADER_BYTES)
        return live_fail(l, err, EBADMSG, "table-%" PRIu64 ": is %jd bytes long, at least %" PRIu64 " were written", no,
                         (intmax_t)st.st_size, min_bytes);
    *bytes = (uint64_t)st.st_size;
    return 0;
}

int ltable_open(struct live *l, uint64_t no, uint64_t min_bytes, struct ltable **out, struct verr *err)
{
    uint64_t bytes = 0;
    struct ltable *t = table_new(l, no);
    if (t == NULL)
        return live_fail(l, err, ENOMEM, "table-%" PRIu64 ": no memory", no);
    int r = lfile_open(&t->file, 0);
    if (r < 0)
        r = live_fail(l, err, r == -ENOENT ? EBADMSG : -r, "table-%" PRIu64 ": %s", no, r == -ENOENT ? LIVE_MISSING : strerror(-r));
    else
        r = check_table(l, t, no, min_bytes, &bytes, err);
    if (r < 0) {
        ltable_unref(t);
        return r;
    }
    /* An earlier run's writes may not be durable: the next fsync syncs them. */
    t->unsynced = true;
    t->synced_bytes = min_bytes;
    *out = t;
    return 0;
}

struct ltable *ltable_ref(struct ltable *t)
{
    atomic_fetch_add(&t->refs, 1);
    return t;
}

void ltable_unref(struct ltable *t)
{
    if (t == NULL || atomic_fetch_sub(&t->refs, 1) != 1)
        return;
    lfile_end(&t->file);
    free(t);
}

void ltable_discard(struct live *l, struct ltable *t)
{
    if (t == NULL)
        return;
    char name[NAME_BYTES];
    live_name(name, "table", t->no, "");
    if (lfile_known(&t->file) && atomic_load(&l->failed) == 0)      /* else a journal that names it may have reached the disk */
        live_unlink(l, name);
    ltable_unref(t);
}

static int bad_entry(struct live *l, const struct ltable *t, uint64_t seg, struct verr *err)
{
    return live_fail(l, err, EBADMSG, "table-%" PRIu64 ": the entry of segment %" PRIu64 " is damaged", t->no, seg);
}

int ltable_get(struct live *l, struct ltable *t, uint64_t seg, struct live_entry *out, struct verr *err)
{
    uint8_t raw[LIVE_ENTRY_BYTES] = {0};
    uint64_t count, owner = atomic_load(&t->memo);
    if (lmemo_get(l->set->memo, owner, seg, out, sizeof *out, &count))
        return 0;
    ssize_t got = lfile_read(&t->file, raw, sizeof raw, entry_off(seg));
    if (got < 0)
        return live_fail(l, err, (int)-got, "table-%" PRIu64 ": %s", t->no, strerror((int)-got));
    memset(raw + got, 0, sizeof raw - (size_t)got);
    if (live_entry_decode(&l->id, seg, raw, out) < 0)
        return bad_entry(l, t, seg, err);
    lmemo_fill(l->set->memo, owner, seg, out, sizeof *out, count);
    return 0;
}

int ltable_put(struct live *l, struct ltable *t, uint64_t seg, const struct live_entry *e, struct verr *err)
{
    uint8_t raw[LIVE_ENTRY_BYTES];
    int r = live_unclean(l, err);
    if (r < 0)
        return r;
    live_entry_encode(&l->id, seg, e, raw);
    struct live_entry back;         /* as a read would have it */
    uint64_t owner = atomic_load(&t->memo);
    lmemo_write(l->set->memo, owner, seg, NULL, 0);
    r = fault_errno("live.table.put") ? -EIO : lfile_write(&t->file, raw, sizeof raw, entry_off(seg));
    atomic_store(&t->unsynced, true);
    bool good = r == 0 && live_entry_decode(&l->id, seg, raw, &back) == 0;
    lmemo_write(l->set->memo, owner, seg, good ? &back : NULL, sizeof back);
    return r < 0 ? live_fail(l, err, -r, "table-%" PRIu64 ": %s", t->no, strerror(-r)) : 0;
}

int ltable_slice_get(struct live *l, struct ltable *t, uint64_t first, struct lslice *out, struct verr *err)
{
    uint8_t raw[SLICE_SEGS * LIVE_ENTRY_BYTES];
    ssize_t got = lfile_read(&t->file, raw, sizeof raw, entry_off(first));
    if (got < 0)
        return live_fail(l, err, (int)-got, "table-%" PRIu64 ": %s", t->no, strerror((int)-got));
    memset(raw + got, 0, sizeof raw - (size_t)got);
    out->first = first;
    for (unsigned i = 0; i < SLICE_SEGS; i++)
        if (live_entry_decode(&l->id, first + i, raw + i * LIVE_ENTRY_BYTES, &out->e[i]) < 0)
            return bad_entry(l, t, first + i, err);
    return 0;
}

int ltable_slice_put(struct live *l, struct ltable *t, const struct lslice *s, struct verr *err)
{
    uint8_t raw[SLICE_SEGS * LIVE_ENTRY_BYTES];
    int r = live_unclean(l, err);
    if (r < 0)
        return r;
    for (unsigned i = 0; i < SLICE_SEGS; i++)
        live_entry_encode(&l->id, s->first + i, &s->e[i], raw + i * LIVE_ENTRY_BYTES);
    r = fault_errno("live.table.slice") ? -EIO : lfile_write(&t->file, raw, sizeof raw, entry_off(s->first));
    atomic_store(&t->unsynced, true);
    /* What the memo has of the table, and what readers are about to fill in, belongs to an owner that nobody asks for again. */
    atomic_store(&t->memo, lmemo_owner());
    return r < 0 ? live_fail(l, err, -r, "table-%" PRIu64 ": %s", t->no, strerror(-r)) : 0;
}

uint64_t ltable_next(struct ltable *t, uint64_t seg)
{
    off_t at = lfile_seek(&t->file, entry_off(seg), SEEK_DATA);
    if (at < 0)
        return at == -ENXIO ? UINT64_MAX : seg;
    uint64_t found = ((uint64_t)at - LIVE_HEADER_BYTES) / LIVE_ENTRY_BYTES;
    return found > seg ? found : seg;
}

int ltable_sync(struct live *l, struct ltable *t, struct verr *err)
{
    struct stat st;
    if (!atomic_load(&t->unsynced))
        return 0;
    int r = lfile_stat(&t->file, &st);
    if (r < 0)
        return live_fail(l, err, -r, "table-%" PRIu64 ": %s", t->no, strerror(-r));
    atomic_store(&t->unsynced, false);
    r = lfile_sync(&t->file, err);
    if (r < 0) {
        atomic_store(&t->unsynced, true);
        return r;
    }
    pthread_mutex_lock(&l->head_lock);
    t->synced_bytes = (uint64_t)st.st_size;
    t->fresh = false;
    pthread_mutex_unlock(&l->head_lock);
    return 0;
}
