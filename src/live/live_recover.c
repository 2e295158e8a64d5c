/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_recover: makes an open disk out of the files in its directory.
 *
 * A disk is trusted when every layer its newest head names has a whole vol file: live_set_open removes them all when STATE's
 * page cache may have been lost. Then the newest head and vol are taken as they are.
 * Else, as after a power loss, and in this order (a kill anywhere in it leads back to its beginning, because the open
 * layer's vol file gets its header last):
 *   1. all vol and cache files go      2. journal := newest complete head, durable
 *   3. vol := map                      4. present segments of the open layer are dirty
 *   5. volatile pending snapshots are dropped, youngest first
 *   6. what lies beyond the size is zero      7. all is made durable      8. header of the open layer's vol
 */
#include "live/live_head.h"
#include "live/live_level.h"

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

/* ---- which head ---- */

static int vols_valid(struct live *l, const struct live_head *h, uint64_t *which, struct verr *err)
{
    int r = llayer_vol_valid(l, *which = h->layer, err);
    for (unsigned i = 0; r == 1 && i < h->npend; i++)
        r = llayer_vol_valid(l, *which = h->pend[i].layer, err);
    return r;
}

static bool is_vol(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".vol") == 0;
}

static int remove_volatile(void *ctx, const char *name)
{
    const struct live *l = ctx;
    if (!is_vol(name) && strncmp(name, "cache-", 6) != 0 && strncmp(name, ".tmp-", 5) != 0)
        return 0;
    int r = live_unlink(l, name);
    return r == -ENOENT ? 0 : r;
}

/* Chooses the head; *trusted says how. */
static int choose_head(struct live *l, bool *trusted, struct verr *err)
{
    struct ljournal_scan s;
    struct live_record rec;
    struct live_head h = {0};
    struct stat sign;
    uint64_t missing = 0;
    int r = ljournal_scan(l, &s, err);
    if (r < 0)
        return r;
    r = ljournal_head(l, &s, s.last, &rec, &h, err);
    if (r == 0)
        r = vols_valid(l, &h, &missing, err);
    *trusted = r == 1;
    /* live_forget_volatile removes vol files on purpose and leaves a sign. Without the sign they were lost, or a damaged record has
     * made an older head the last one, whose vol files went long ago: that is no power loss, and nothing is removed. */
    bool on_purpose = !l->set->env.trusted || live_stat_file(l, LIVE_RECOVER, &sign) == 0;
    if (r == 0 && !on_purpose && !s.damaged)
        r = live_fail(l, err, EBADMSG, "layer-%" PRIu64 ".vol: " LIVE_MISSING "; what was written since the last fsync is not known: an empty "
                      "file named " LIVE_RECOVER " beside it makes varve go on without", missing);
    if (r == 0 && !on_purpose && s.damaged)
        r = 1;
    if (r == 1 && s.damaged)
        r = live_fail(l, err, EBADMSG, "journal: the record at %" PRIu64 " is damaged", s.end);
    l->next_rec = r >= 0 ? rec.seq + 1 : 0;
    if (r == 0) {
        live_head_release(&h);
        r = ljournal_head(l, &s, s.complete, &rec, &h, err);
    }
    if (r >= 0) {
        l->head = h;
        l->jend = s.end;
        l->jsynced = rec.synced;
        l->next_no = h.next_no;
        r = ljournal_open(l, err);
    } else {
        live_head_release(&h);
    }
    free(s.data);
    return r;
}

/* ---- opening its files ---- */

static int open_view(struct live *l, struct lview *v, uint64_t seq, uint64_t table, uint64_t table_bytes, uint64_t layer,
                     uint64_t map_bytes, enum layer_open how, struct verr *err)
{
    v->seq = seq;
    int r = live_unshare(l, layer, err);
    if (r == 0)
        r = ltable_open(l, table, table_bytes, &v->table, err);
    return r < 0 ? r : llayer_open(l, layer, how, map_bytes, &v->layer, err);
}

static int open_files(struct live *l, bool trusted, struct verr *err)
{
    const struct live_head *h = &l->head;
    l->lv = calloc(h->npend + 1, sizeof *l->lv);
    if (l->lv == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    int r = 0;
    for (unsigned i = 0; r == 0 && i < h->npend; i++) {
        const struct live_pend *p = &h->pend[i];
        l->nlv = i + 1;
        r = open_view(l, &l->lv[i], p->p.ref.seq, p->table, p->table_bytes, p->layer, p->map_bytes, trusted ? LAYER_TRUSTED : LAYER_REBUILD,
                      err);
    }
    if (r == 0)
        r = open_view(l, &l->cur, UINT64_MAX, h->table, h->table_bytes, h->layer, h->map_bytes,
                      trusted ? LAYER_TRUSTED : LAYER_REBUILD_HEADLESS, err);
    return r;
}

/* A cache that cannot be opened is no error: the head no longer names it. */
static void open_cache(struct live *l)
{
    if (l->head.cache == 0)
        return;
    char name[NAME_BYTES];
    struct stat st;
    live_name(name, "cache", l->head.cache, "");
    bool renamed = live_stat_file(l, name, &st) == 0;
    if (llayer_open(l, l->head.cache, LAYER_CACHE, 0, &l->cache, NULL) < 0) {
        l->head.cache = 0;
        return;
    }
    if (renamed)
        return;
    /* A kill came before the cache got its name: live_set_open counted it as a layer. */
    int64_t bytes = atomic_load(&l->cache->charged);
    atomic_fetch_sub(&l->set->layer_bytes, bytes);
    atomic_fetch_add(&l->set->cache_bytes, bytes);
    if (ljournal_gone_room(l, 1) == 0)
        ljournal_gone(l, BECOMES_CACHE, l->head.cache);
}

/* Without the clean mark nothing is known to be durable. */
static void mark_durable(struct live *l, bool clean)
{
    l->durable_rec = clean ? l->next_rec - 1 : 0;
    if (clean)
        l->jsynced = l->jend;
    l->dir_synced = clean ? atomic_load(&l->dir_gen) : UINT64_MAX;
    for (unsigned i = 0; i <= l->nlv; i++) {
        struct lview *v = i < l->nlv ? &l->lv[i] : &l->cur;
        v->table->fresh = v->layer->fresh = !clean;
        v->table->unsynced = v->layer->unsynced = v->layer->map_unsynced = !clean;
    }
}

static int mark_layers(struct live *l, struct verr *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i <= l->nlv; i++)
        r = llayer_mark_all(i < l->nlv ? l->lv[i].layer : l->cur.layer);
    return r < 0 ? live_fail(l, err, -r, "layers: %s", strerror(-r)) : 0;
}

/* ---- counting ---- */

static int count_segment(struct live *l, uint64_t seg, const struct live_entry *e, int64_t *pages, struct verr *err)
{
    struct live_slot s;
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    if (r < 0)
        return r;
    if (e->pages == LIVE_PAGES_UNKNOWN)
        atomic_fetch_add(&l->unknown, 1);
    else
        *pages += lslot_alloc(&s, e->pages);
    if (e->dirty)
        atomic_fetch_add(&l->dirty, 1);
    return 0;
}

static uint64_t next_used(struct live *l, uint64_t seg)
{
    uint64_t next = live_view_next(&l->cur, seg);
    return next <= LIVE_SIZE_MAX >> SEG_SHIFT ? next : UINT64_MAX;
}

/* Sets the counters from table and slots. alloc_bytes: the sum that counts while the pages of some segment are unknown. */
static int count_all(struct live *l, uint64_t alloc_bytes, struct verr *err)
{
    struct lslice *s = calloc(1, sizeof *s);
    if (s == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    int64_t pages = 0;
    int r = 0;
    atomic_store(&l->dirty, 0);
    atomic_store(&l->unknown, 0);
    for (uint64_t seg = next_used(l, 0); r == 0 && seg != UINT64_MAX; seg = next_used(l, s->first + SLICE_SEGS)) {
        r = ltable_slice_get(l, l->cur.table, seg / SLICE_SEGS * SLICE_SEGS, s, err);
        for (unsigned i = 0; r == 0 && i < SLICE_SEGS; i++)
            if (s->e[i].kind != SEGK_ZERO || s->e[i].dirty)     /* what is present is dirty */
                r = count_segment(l, s->first + i, &s->e[i], &pages, err);
    }
    free(s);
    atomic_store(&l->alloc_pages, atomic_load(&l->unknown) > 0 ? (int64_t)(alloc_bytes / PAGE_BYTES) : pages);
    return r;
}

/* ---- mending ---- */

/* Zeroes pages behind the end. A kill between a write's data and the size leaves them, or a size that is older than the presence. */
static int trim_segment(struct live *l, uint64_t seg, uint64_t size, struct verr *err)
{
    struct live_slot s;
    int r = lslot_get(l, l->cur.layer, seg, &s, err);
    if (r < 0)
        return r;
    uint64_t start = seg << SEG_SHIFT;
    uint32_t in = size > start ? (uint32_t)(size - start) : 0;
    unsigned first = (in + PAGE_BYTES - 1) / PAGE_BYTES, cut = 0;
    for (unsigned p = first; p < SEG_PAGES; p++) {
        if (lslot_page(&s, p) == PAGE_DATA) {
            lslot_set(&s, p, PAGE_ZERO);
            cut++;
        }
    }
    if (cut > 0) {
        r = lslot_put(l, l->cur.layer, seg, &s, err);
        if (r < 0)
            return r;
        llayer_punch(l->cur.layer, start + first * (uint64_t)PAGE_BYTES, SEG_BYTES - first * (uint64_t)PAGE_BYTES);
    }
    if (in % PAGE_BYTES == 0 || lslot_page(&s, in / PAGE_BYTES) != PAGE_DATA)
        return 0;
    static const uint8_t zeros[PAGE_BYTES];
    return llayer_write(l, l->cur.layer, start + in, zeros, PAGE_BYTES - in % PAGE_BYTES, err);
}

static int trim(struct live *l, struct verr *err)
{
    uint64_t size = atomic_load(&l->size);
    int r = 0;
    for (uint64_t seg = size >> SEG_SHIFT; r == 0; seg++) {
        seg = llayer_next(l->cur.layer, seg);
        if (seg > LIVE_SIZE_MAX >> SEG_SHIFT)
            break;
        struct stat st;
        if (lfile_stat(&l->cur.layer->vol, &st) < 0 || (off_t)(LIVE_HEADER_BYTES + seg * LIVE_SLOT_BYTES) >= st.st_size)
            break;
        r = trim_segment(l, seg, size, err);
    }
    return r;
}

enum { TAIL_READ = 64 << 10 };

/* Does the live image show data in this part of a segment? What cannot be read shows none. */
static int shows_data(struct live *l, uint64_t off, uint64_t end, struct verr *err)
{
    const uint64_t seg = off >> SEG_SHIFT;
    uint8_t *buf = malloc(TAIL_READ);
    if (buf == NULL)
        return live_fail(l, err, ENOMEM, "no memory");
    bool data = false;
    int r = 0;
    while (off < end && r == 0 && !data) {
        const uint32_t n = end - off < TAIL_READ ? (uint32_t)(end - off) : TAIL_READ;
        r = live_view_read(l, &l->cur, seg, (uint32_t)(off & (SEG_BYTES - 1)), buf, n, REACH_ALL, NULL);
        data = r == 0 && (buf[0] != 0 || memcmp(buf, buf + 1, n - 1) != 0);
        off += n;
    }
    free(buf);
    return r == -ENOMEM ? live_fail(l, err, ENOMEM, "no memory") : data;
}

/* Zeroes what entries show behind the end: the table on disk may be younger than the size that the head says, as when a publication
 * had made its entries durable and not yet its head. Reads the segment that the end lies in, no other. */
static int trim_entries(struct live *l, struct verr *err)
{
    const uint64_t size = atomic_load(&l->size), end = seg_count(size) << SEG_SHIFT;
    int r = live_zero_range(l, end, ((LIVE_SIZE_MAX >> SEG_SHIFT) + 1) << SEG_SHIFT, err);
    if (r == 0 && size < end)
        r = shows_data(l, size, end, err);
    return r == 1 ? live_zero_range(l, size, end, err) : r;
}

static int dirty_present(struct live *l, struct verr *err)
{
    struct stat st;
    int r = lfile_stat(&l->cur.layer->vol, &st);
    if (r < 0)
        return live_fail(l, err, -r, "layer: %s", strerror(-r));
    for (uint64_t seg = 0; r == 0; seg++) {
        struct live_slot s;
        struct live_entry e;
        seg = llayer_next(l->cur.layer, seg);
        if (seg > LIVE_SIZE_MAX >> SEG_SHIFT || (off_t)(LIVE_HEADER_BYTES + seg * LIVE_SLOT_BYTES) >= st.st_size)
            break;
        r = lslot_get(l, l->cur.layer, seg, &s, err);
        if (r < 0 || lslot_present(&s) == 0)
            continue;
        r = ltable_get(l, l->cur.table, seg, &e, err);
        if (r == 0)
            r = live_mark_dirty(l, seg, &e, err);
    }
    return r;
}

static int drop_volatile(struct live *l, struct verr *err)
{
    int r = 0;
    for (unsigned i = l->nlv; r == 0 && i-- > 0;)
        if ((l->head.pend[i].p.flags & SNAP_SEALED) == 0)
            r = live_drop_at(l, i, LIVE_CHANGED, err);
    return r;
}

/* ---- files that no head names ---- */

struct leftovers {
    struct live *l;
    bool remove;
    unsigned count;
    uint64_t highest;
};

static bool named(const struct live_head *h, const char *stem, uint64_t no)
{
    bool table = strcmp(stem, "table") == 0;
    if (table ? no == h->table : no == h->layer || no == h->cache)
        return true;
    for (unsigned i = 0; i < h->npend; i++)
        if (no == (table ? h->pend[i].table : h->pend[i].layer))
            return true;
    return false;
}

static int look_at(void *ctx, const char *name)
{
    struct leftovers *o = ctx;
    char stem[8] = "", rest[8] = "";
    uint64_t no = 0;
    /* NOLINTNEXTLINE(cert-err34-c): no number of that width is out of range */
    int fields = sscanf(name, "%5[a-z]-%19" SCNu64 "%7s", stem, &no, rest);
    bool ours = fields >= 2 && (strcmp(stem, "table") == 0 || strcmp(stem, "layer") == 0 || strcmp(stem, "cache") == 0);
    if (ours && no > o->highest && no < UINT64_MAX / 2)
        o->highest = no;
    if ((!ours || named(&o->l->head, stem, no)) && strncmp(name, ".tmp-", 5) != 0)
        return 0;
    o->count++;
    int r = o->remove ? live_unlink(o->l, name) : 0;
    return r == -ENOENT ? 0 : r;
}

static int list_leftovers(struct live *l, struct leftovers *o, struct verr *err)
{
    int r = live_each_file(l, look_at, o);
    return r < 0 ? live_fail(l, err, -r, "directory: %s", strerror(-r)) : 0;
}

/* Leftover files go only once the head that does not name them is durable. */
static int remove_leftovers(struct live *l, struct verr *err)
{
    struct leftovers o = {.l = l};
    int r = list_leftovers(l, &o, err);
    if (r < 0 || o.count == 0)
        return r;
    r = live_fsync_locked(l, 0, err);
    if (r < 0)
        return r;
    o = (struct leftovers){.l = l, .remove = true};
    return list_leftovers(l, &o, err);
}

static int raise_numbers(struct live *l, struct verr *err)
{
    struct leftovers o = {.l = l};
    int r = list_leftovers(l, &o, err);
    if (r == 0 && o.highest >= l->next_no)
        l->next_no = o.highest + 1;
    return r;
}

/* ---- the two ways ---- */

static int recover_trusted(struct live *l, struct verr *err)
{
    struct live_state st = {0};
    int r = open_files(l, true, err);
    if (r == 0)
        r = live_state_get(l, l->cur.layer, &st, err);
    if (r < 0)
        return r;
    /* A record that a kill cut short is taken off before anything is appended, and after the rest was found whole. */
    struct stat js;
    r = lfile_stat(&l->journal, &js);
    if (r == 0 && js.st_size > (off_t)l->jend)
        r = lfile_truncate(&l->journal, (off_t)l->jend);
    if (r < 0)
        return live_fail(l, err, -r, "journal: %s", strerror(-r));
    open_cache(l);
    atomic_store(&l->size, st.size);
    atomic_store(&l->mtime_ns, st.mtime_ns);
    atomic_store(&l->changed, st.changed);
    atomic_store(&l->clean, st.clean);
    mark_durable(l, st.clean);
    if (st.clean) {
        atomic_store(&l->dirty, st.dirty);
        atomic_store(&l->unknown, st.unknown);
        atomic_store(&l->alloc_pages, (int64_t)(st.alloc_bytes / PAGE_BYTES));
        return 0;
    }
    r = mark_layers(l, err);
    if (r == 0)
        r = trim(l, err);
    if (r == 0)
        r = count_all(l, st.alloc_bytes, err);
    return r == 0 ? remove_leftovers(l, err) : r;
}

static int keep_complete_head(struct live *l, struct verr *err)
{
    struct live_head nh;
    if (live_head_copy(&l->head, &nh) < 0)
        return live_fail(l, err, ENOMEM, "no memory");
    nh.cache = 0;
    int r = ljournal_replace(l, &nh, err);
    live_head_release(&nh);
    return r;
}

/* Checks that the files which the head names are there, before anything is removed. If one is missing the journal has lost its newest
 * records, and all files that could tell more must stay. */
static int look_first(struct live *l, struct verr *err)
{
    const struct live_head *h = &l->head;
    int r = 0;
    for (unsigned i = 0; r == 0 && i <= h->npend; i++) {
        const struct live_pend *p = i < h->npend ? &h->pend[i] : NULL;
        struct ltable *t = NULL;
        r = ltable_open(l, p != NULL ? p->table : h->table, p != NULL ? p->table_bytes : h->table_bytes, &t, err);
        if (r == 0)
            r = llayer_map_look(l, p != NULL ? p->layer : h->layer, p != NULL ? p->map_bytes : h->map_bytes, err);
        ltable_unref(t);
    }
    return r;
}

static int recover_untrusted(struct live *l, struct verr *err)
{
    int r = look_first(l, err);
    if (r < 0)
        return r;
    r = live_each_file(l, remove_volatile, l);
    if (r < 0)
        return live_fail(l, err, -r, "directory: %s", strerror(-r));
    r = keep_complete_head(l, err);
    fault_point("live.recover.after_journal");
    if (r == 0)
        r = open_files(l, false, err);
    if (r < 0)
        return r;
    uint64_t alloc = l->head.alloc_bytes;
    atomic_store(&l->size, l->head.size);
    atomic_store(&l->mtime_ns, l->head.mtime_ns);
    atomic_store(&l->changed, l->head.changed);
    mark_durable(l, false);
    r = count_all(l, alloc, err);
    if (r == 0)
        r = dirty_present(l, err);
    fault_point("live.recover.before_drop");
    if (r == 0)
        r = drop_volatile(l, err);
    if (r == 0)
        r = trim(l, err);
    if (r == 0)
        r = count_all(l, alloc, err);
    if (r == 0)
        r = trim_entries(l, err);
    if (r == 0)
        r = live_fsync_locked(l, 0, err);
    if (r == 0)
        r = remove_leftovers(l, err);
    fault_point("live.recover.before_header");
    if (r == 0)
        r = live_state_save(l, err);
    if (r == 0)
        r = llayer_vol_header(l, l->cur.layer, err);
    if (r == 0)
        live_unlink(l, LIVE_RECOVER);
    return r;
}

int live_recover(struct live *l, struct verr *err)
{
    bool trusted = false;
    l->recovering = true;
    int r = choose_head(l, &trusted, err);
    if (r == 0)
        r = raise_numbers(l, err);
    if (r == 0)
        r = trusted ? recover_trusted(l, err) : recover_untrusted(l, err);
    l->recovering = false;
    return r;
}
