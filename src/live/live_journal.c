/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_journal: the log of heads. The newest valid record is the state; after a power loss the newest *complete* one,
 * because a record that was merely written may have reached the disk before the files it names.
 *
 * Durable order of a change: files it needs (fsync), their directory (fsync) -> complete record -> fdatasync(journal) ->
 * only then files that older heads alone name are removed.
 */
#include "live/live_head.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { JOURNAL_MAX = 256 << 20 };

/* ---- reading ---- */

/* 1: a whole record with a good checksum stands at off; 0; -ENOTSUP. */
static int record_at(struct live *l, const struct ljournal_scan *s, uint64_t off, struct live_record *rec)
{
    if (s->len - off < LIVE_RECORD_HEAD)
        return 0;
    int r = live_record_peek(&l->id, s->data + off, rec);
    if (r < 0)
        return r == -EBADMSG ? 0 : r;
    if (rec->length > s->len - off)
        return 0;
    r = live_record_decode(&l->id, off, s->data + off, rec->length, rec, NULL);
    return r == 0 ? 1 : r == -EBADMSG ? 0 : r;
}

/* Looks behind the end of the chain for a record that was written when the journal was durable beyond that end: then the record at
 * the end was whole once, and is damaged. (A record that says less has overtaken a lost one: no damage.) */
static int check_covered(struct live *l, const struct ljournal_scan *s, struct verr *err)
{
    for (uint64_t off = s->end + LIVE_RECORD_HEAD; off < s->len; off += LIVE_RECORD_HEAD) {
        struct live_record rec;
        int r = record_at(l, s, off, &rec);
        if (r == 1 && rec.synced > s->end)
            return live_fail(l, err, EBADMSG, "journal: the record at %" PRIu64 " is damaged (it was durable)", s->end);
    }
    return 0;
}

/* An append cut short by a kill leaves less than a header, or a header that promises more than there is. All bytes that are
 * there are right then, so where they tell how long the record must be, the header says the same: another length is damage of
 * that field, and the record was whole. */
static bool looks_torn(struct live *l, const struct ljournal_scan *s)
{
    struct live_record rec;
    uint64_t left = s->len - s->end;
    if (left < LIVE_RECORD_HEAD)
        return true;
    if (live_record_peek(&l->id, s->data + s->end, &rec) < 0 || rec.length <= left)
        return false;
    size_t claims = live_record_claims(s->data + s->end, left);
    return claims == 0 || claims == rec.length;
}

int ljournal_scan(struct live *l, struct ljournal_scan *out, struct verr *err)
{
    struct ljournal_scan s = {.last = UINT64_MAX, .complete = UINT64_MAX};
    int dir = live_open_dir(l), r = dir < 0 ? dir : file_load(dir, "journal", JOURNAL_MAX, &s.data, &s.len);
    if (dir >= 0)
        close(dir);
    if (r < 0)
        return live_fail(l, err, r == -ENOENT ? EBADMSG : -r, "journal: %s", r == -ENOENT ? "is missing" : strerror(-r));
    uint64_t seq = 0;
    struct live_record rec;
    while ((r = record_at(l, &s, s.end, &rec)) == 1 && (s.last == UINT64_MAX || rec.seq == seq + 1)) {
        seq = rec.seq;
        s.last = s.end;
        if ((rec.flags & LIVE_COMPLETE) != 0)
            s.complete = s.end;
        s.end += rec.length;
    }
    if (r < 0 && r != -EBADMSG)
        r = live_fail(l, err, -r, "journal: %s", r == -ENOTSUP ? "has a newer format" : strerror(-r));
    else if (s.complete == UINT64_MAX)
        r = live_fail(l, err, EBADMSG, "journal: its first record is damaged");
    else
        r = s.end < s.len ? check_covered(l, &s, err) : 0;
    if (r < 0) {
        free(s.data);
        return r;
    }
    s.damaged = s.end < s.len && !looks_torn(l, &s);
    *out = s;
    return 0;
}

int ljournal_head(struct live *l, const struct ljournal_scan *s, uint64_t offset, struct live_record *rec, struct live_head *h,
                  struct verr *err)
{
    int r = live_record_peek(&l->id, s->data + offset, rec);
    if (r == 0)
        r = live_record_decode(&l->id, offset, s->data + offset, rec->length, rec, h);
    if (r == -ENOMEM)
        return live_fail(l, err, ENOMEM, "journal: no memory");
    return r < 0 ? live_fail(l, err, EBADMSG, "journal: the record at %" PRIu64 " has impossible values", offset) : 0;
}

int ljournal_open(struct live *l, struct verr *err)
{
    lfile_end(&l->journal);
    lfile_init(&l->journal, l, "journal", 0, NULL);
    int r = lfile_open(&l->journal, 0);
    return r < 0 ? live_fail(l, err, -r, "journal: %s", strerror(-r)) : 0;
}

/* ---- writing ---- */

static uint8_t *encode(struct live *l, const struct live_head *h, bool complete, uint64_t offset, size_t *len)
{
    *len = live_record_length(h);
    uint8_t *buf = *len <= LIVE_RECORD_MAX ? malloc(*len) : NULL;
    if (buf == NULL)
        return NULL;
    const struct live_record rec = {complete ? LIVE_COMPLETE : 0, 0, l->next_rec, offset == 0 ? 0 : l->jsynced};
    live_record_encode(&l->id, offset, &rec, h, buf);
    return buf;
}

static void take_head(struct live *l, struct live_head *nh)
{
    live_head_release(&l->head);
    l->head = *nh;
    *nh = (struct live_head){0};
}

int ljournal_put(struct live *l, struct live_head *nh, bool complete, struct verr *err)
{
    int r = live_check_failed(l, err);
    if (r == 0)
        r = live_unclean_locked(l, err);
    if (r < 0)
        return r;
    nh->next_no = l->next_no;
    size_t len = 0;
    uint8_t *buf = encode(l, nh, complete, l->jend, &len);
    if (buf == NULL)
        return live_fail(l, err, ENOMEM, "journal: no memory");
    int fault = fault_errno("live.journal.put");
    /* Part of a record that failed must not stand behind the next one. */
    if (l->jtorn)
        r = lfile_truncate(&l->journal, (off_t)l->jend);
    l->jtorn = r < 0;
    if (r == 0)
        r = fault ? -fault : lfile_write(&l->journal, buf, len, (off_t)l->jend);
    free(buf);
    if (r < 0) {
        l->jtorn = lfile_truncate(&l->journal, (off_t)l->jend) < 0;   /* a part that stays is a torn end, which recovery knows */
        return live_fail(l, err, -r, "journal: %s", strerror(-r));
    }
    l->jend += len;
    l->next_rec++;
    take_head(l, nh);
    return 0;
}

int ljournal_create(struct live *l, struct live_head *nh, struct verr *err)
{
    size_t len = 0;
    uint8_t *buf = encode(l, nh, true, 0, &len);
    if (buf == NULL)
        return live_fail(l, err, ENOMEM, "journal: no memory");
    lfile_init(&l->journal, l, "journal", 0, NULL);
    int r = lfile_open(&l->journal, O_CREAT | O_EXCL);
    if (r == 0)
        r = lfile_write(&l->journal, buf, len, 0);
    free(buf);
    if (r < 0)
        return live_fail(l, err, -r, "journal: cannot be made: %s", strerror(-r));
    take_head(l, nh);
    return 0;
}

/* After file_replace failed: the disk fails if the name leads to another journal than the open one. */
static void check_same_journal(struct live *l)
{
    struct stat st;
    if (live_stat_file(l, "journal", &st) < 0 || st.st_ino != l->journal.ino)
        atomic_store(&l->failed, EIO);
}

int ljournal_replace(struct live *l, struct live_head *nh, struct verr *err)
{
    int r = live_check_failed(l, err);
    if (r == 0)
        r = live_unclean_locked(l, err);
    if (r < 0)
        return r;
    nh->next_no = l->next_no;
    size_t len = 0;
    uint8_t *buf = encode(l, nh, true, 0, &len);
    if (buf == NULL)
        return live_fail(l, err, ENOMEM, "journal: no memory");
    int dir = live_open_dir(l);
    r = dir < 0 ? dir : file_replace(dir, "journal", buf, len);
    if (dir >= 0)
        close(dir);
    free(buf);
    if (r < 0) {
        if (lfile_known(&l->journal))
            check_same_journal(l);
        return live_fail(l, err, -r, "journal: cannot be replaced: %s", strerror(-r));
    }
    r = ljournal_open(l, err);
    if (r < 0) {
        atomic_store(&l->failed, EIO);
        return r;
    }
    l->jend = l->jsynced = len;
    l->jtorn = false;
    l->durable_rec = l->next_rec++;
    take_head(l, nh);
    return 0;
}

/* ---- files that go ---- */

int ljournal_gone_room(struct live *l, unsigned n)
{
    if (l->ngone + n <= l->gone_cap)
        return 0;
    unsigned cap = l->gone_cap * 2 + n;
    struct lgone *grown = realloc(l->gone, cap * sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    l->gone = grown;
    l->gone_cap = cap;
    return 0;
}

void ljournal_gone(struct live *l, enum gone_kind kind, uint64_t no)
{
    l->gone[l->ngone++] = (struct lgone){kind, no, l->next_rec - 1};
}

static void unlink_layer(struct live *l, const char *stem, uint64_t no)
{
    static const char *const suffixes[] = {"", ".map", ".vol"};
    for (unsigned i = 0; i < 3; i++) {
        char name[NAME_BYTES];
        live_name(name, stem, no, suffixes[i]);
        live_unlink(l, name);
    }
}

/* Only the name changes: the next open takes either of the two. */
static void rename_to_cache(struct live *l, uint64_t no)
{
    char from[NAME_BYTES], to[NAME_BYTES];
    live_name(from, "layer", no, ".map");
    live_unlink(l, from);
    live_name(from, "layer", no, ".vol");
    live_name(to, "cache", no, ".vol");
    live_rename(l, from, to);
    live_name(from, "layer", no, "");
    live_name(to, "cache", no, "");
    live_rename(l, from, to);
}

static void carry_out(struct live *l, const struct lgone *g)
{
    char name[NAME_BYTES];
    switch (g->kind) {
    case GONE_TABLE:
        live_name(name, "table", g->no, "");
        live_unlink(l, name);
        break;
    case GONE_LAYER:
        unlink_layer(l, "layer", g->no);
        break;
    case GONE_CACHE:
        unlink_layer(l, "cache", g->no);
        unlink_layer(l, "layer", g->no);
        break;
    case BECOMES_CACHE:
        rename_to_cache(l, g->no);
        break;
    }
}

/* Removes the files that only heads older than the durable one name. */
static void remove_gone(struct live *l)
{
    for (;;) {
        struct lgone g;
        pthread_mutex_lock(&l->head_lock);
        bool any = l->ngone > 0 && l->gone[0].rec <= l->durable_rec;
        if (any) {
            g = l->gone[0];
            memmove(l->gone, l->gone + 1, --l->ngone * sizeof *l->gone);
        }
        pthread_mutex_unlock(&l->head_lock);
        if (!any)
            return;
        carry_out(l, &g);
    }
}

int ljournal_sync(struct live *l, struct verr *err)
{
    pthread_mutex_lock(&l->head_lock);
    uint64_t end = l->jend, rec = l->next_rec - 1;
    bool needed = rec > l->durable_rec;
    pthread_mutex_unlock(&l->head_lock);
    if (needed) {
        fault_point("live.journal.before_sync");
        int r = lfile_sync(&l->journal, err);      /* replaced only under sync_lock, which the caller holds */
        if (r < 0)
            return r;
        pthread_mutex_lock(&l->head_lock);
        l->jsynced = end;
        l->durable_rec = rec;
        pthread_mutex_unlock(&l->head_lock);
        fault_point("live.journal.after_sync");
    }
    remove_gone(l);
    return 0;
}
