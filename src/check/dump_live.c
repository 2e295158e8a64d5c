/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: files of a disk's directory in STATE. The disk's id, which goes into their checksums, is taken from the file itself:
 * headers and records carry it.
 */
#include "base/endian.h"
#include "check/dump_internal.h"
#include "live/live_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- journal ---- */

static void print_pending(struct jsonw *w, const struct live_pend *lp)
{
    static const char *const names[] = { "provisional", "partial", "sealed", "started", "failed", "explicit" };
    const struct pending *p = &lp->p;
    jsonw_object(w, NULL);
    jsonw_u64(w, "seq", p->seq);
    jsonw_id(w, "snap", &p->snap);
    jsonw_id(w, "group", &p->group);
    jsonw_u64(w, "group_members", p->group_members);
    jsonw_flags(w, "flags", p->flags, names, 6);
    jsonw_u64(w, "size", p->size);
    jsonw_u64(w, "alloc_bytes", p->alloc_bytes);
    jsonw_u64(w, "dirty_segments", p->dirty_segments);
    jsonw_i64(w, "freeze_ns", p->freeze_ns);
    jsonw_i64(w, "name_s", p->name_s);
    jsonw_u64(w, "mode", p->mode);
    jsonw_u64(w, "uid", p->uid);
    jsonw_u64(w, "gid", p->gid);
    jsonw_text(w, "label", p->label);
    jsonw_text(w, "note", p->note);
    jsonw_u64(w, "table", lp->table);
    jsonw_u64(w, "layer", lp->layer);
    jsonw_u64(w, "table_bytes", lp->table_bytes);
    jsonw_end(w);
}

static void print_lists(struct jsonw *w, const struct live_head *h)
{
    jsonw_array(w, "pending");
    for (unsigned i = 0; i < h->npend; i++)
        print_pending(w, &h->pend[i]);
    jsonw_end(w);
    jsonw_array(w, "anchors");
    for (unsigned i = 0; i < h->nanchors; i++) {
        jsonw_line(w, NULL);
        jsonw_id(w, "disk", &h->anchors[i].disk);
        jsonw_u64(w, "seq", h->anchors[i].seq);
        jsonw_id(w, "snap", &h->anchors[i].snap);
        jsonw_u64(w, "stamp", h->anchors[i].stamp);
        jsonw_end(w);
    }
    jsonw_end(w);
}

static void print_record(struct jsonw *w, uint64_t off, const struct live_record *rec, const struct live_head *h)
{
    static const char *const flag_names[] = { "complete" }, *const mark_names[] = { "rewriting", "unnamed" };
    jsonw_object(w, NULL);
    jsonw_u64(w, "offset", off);
    jsonw_flags(w, "flags", rec->flags, flag_names, 1);
    jsonw_u64(w, "length", rec->length);
    jsonw_u64(w, "seq", rec->seq);
    jsonw_u64(w, "synced", rec->synced);
    jsonw_u64(w, "size", h->size);
    jsonw_u64(w, "alloc_bytes", h->alloc_bytes);
    jsonw_i64(w, "mtime_ns", h->mtime_ns);
    jsonw_i64(w, "last_name_s", h->last_name_s);
    jsonw_u64(w, "next_seq", h->next_seq);
    jsonw_u64(w, "next_no", h->next_no);
    jsonw_u64(w, "table", h->table);
    jsonw_u64(w, "table_bytes", h->table_bytes);
    jsonw_u64(w, "layer", h->layer);
    jsonw_u64(w, "cache", h->cache);
    jsonw_flags(w, "marks", h->marks, mark_names, 2);
    jsonw_bool(w, "changed", h->changed);
    print_lists(w, h);
    jsonw_end(w);
}

/* One record. Its length, 0 when there is none there, or -errno. */
static int64_t one_record(struct dump *d, const struct vid *disk, const uint8_t *data, size_t len, uint64_t off, const char **why)
{
    struct live_record rec;
    struct live_head h = {0};
    if (len - off < LIVE_RECORD_HEAD)
        return 0;
    int r = live_record_peek(disk, data + off, &rec);
    if (r == 0 && rec.length > len - off) {
        *why = "is longer than the file: an append that was cut short";
        return 0;
    }
    if (r == 0)
        r = live_record_decode(disk, off, data + off, (size_t)rec.length, &rec, &h);
    if (r < 0) {
        *why = r == -ENOTSUP ? "is of a newer version" : "is damaged, or torn";
        return r == -EBADMSG ? 0 : r;
    }
    print_record(&d->w, off, &rec, &h);
    live_head_release(&h);
    return (int64_t)rec.length;
}

int dump_journal(struct dump *d, struct verr *err)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct vid disk;
    int r = dump_load(d, &data, &len, err);
    if (r < 0)
        return r;
    if (len < LIVE_RECORD_HEAD) {
        free(data);
        return verr_set(err, EBADMSG, "journal: shorter than a record");
    }
    memcpy(disk.b, data + 40, VID_BYTES);
    jsonw_id(&d->w, "disk", &disk);
    jsonw_array(&d->w, "records");
    uint64_t off = 0;
    int64_t n;
    const char *why = "is shorter than a record";
    while (off < len && (n = one_record(d, &disk, data, len, off, &why)) != 0) {
        if (n < 0) {
            r = verr_set(err, (int)-n, "journal: record at %" PRIu64 " %s", off, why);
            break;
        }
        off += (uint64_t)n;
    }
    jsonw_end(&d->w);
    /* What follows the last whole record is what a crash leaves, unless the first one is damaged already. */
    jsonw_u64(&d->w, "torn_bytes", len - off);
    if (r == 0 && off == 0)
        r = verr_set(err, EBADMSG, "journal: record at 0 %s", why);
    free(data);
    return r;
}

/* ---- headers of table, map, vol and removal ---- */

static int print_head(struct dump *d, enum live_file kind, struct vid *disk, uint64_t *number, struct verr *err)
{
    uint8_t page[LIVE_HEADER_BYTES] = {0};     /* a vol file may be shorter */
    size_t n = d->size < sizeof page ? (size_t)d->size : sizeof page;
    int r = dump_read(d, 0, page, n, err);
    if (r < 0)
        return r;
    memcpy(disk->b, page + 16, VID_BYTES);
    *number = get_le64(page + 32);
    r = live_header_page_decode(kind, disk, *number, page);
    if (r < 0)
        return verr_set(err, r == -ENODATA ? EBADMSG : -r, "header: %s", r == -ENOTSUP ? "version is not known" : "it is damaged");
    jsonw_id(&d->w, "disk", disk);
    jsonw_u64(&d->w, "number", *number);
    return 0;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

/* Prints the item of a segment, or says -EBADMSG. */
typedef int (*item_fn)(struct dump *d, const struct vid *disk, uint64_t segment, const uint8_t *item);

/* Goes through the items behind the header; empty ones are left out. */
static int each_item(struct dump *d, size_t bytes, const struct vid *disk, item_fn fn, struct verr *err)
{
    uint8_t page[LIVE_HEADER_BYTES];
    int r = 0;
    for (uint64_t off = LIVE_HEADER_BYTES; off < d->size; off += sizeof page) {
        size_t n = d->size - off < sizeof page ? (size_t)(d->size - off) : sizeof page;
        struct verr why = {0};
        int e = dump_read(d, off, page, n, &why);
        if (e < 0) {
            dump_note(&r, -e, err, "%s", verr_str(&why));
            break;
        }
        for (size_t at = 0; at + bytes <= n; at += bytes) {
            uint64_t segment = (off - LIVE_HEADER_BYTES + at) / bytes;
            if (!is_zero(page + at, bytes) && fn(d, disk, segment, page + at) < 0)
                dump_note(&r, EBADMSG, err, "segment %" PRIu64 ": wrong checksum or field", segment);
        }
    }
    return r;
}

/* ---- table ---- */

static int print_entry(struct dump *d, const struct vid *disk, uint64_t segment, const uint8_t *item)
{
    struct live_entry e;
    int r = live_entry_decode(disk, segment, item, &e);
    if (r < 0)
        return r;
    jsonw_line(&d->w, NULL);
    jsonw_u64(&d->w, "segment", segment);
    jsonw_text(&d->w, "entry", e.kind == SEGK_ZERO ? "zero" : e.kind == SEGK_STORED ? "stored" : "frozen");
    if (e.kind == SEGK_STORED)
        jsonw_ref(&d->w, "place", e.value);
    else if (e.kind == SEGK_FROZEN)
        jsonw_u64(&d->w, "seq", e.value);
    jsonw_bool(&d->w, "dirty", e.dirty);
    if (e.pages != LIVE_PAGES_UNKNOWN)
        jsonw_u64(&d->w, "pages", e.pages);
    jsonw_end(&d->w);
    return 0;
}

int dump_table(struct dump *d, struct verr *err)
{
    struct vid disk;
    uint64_t number;
    int r = print_head(d, LIVE_TABLE, &disk, &number, err);
    if (r < 0)
        return r;
    jsonw_array(&d->w, "segments");
    r = each_item(d, LIVE_ENTRY_BYTES, &disk, print_entry, err);
    jsonw_end(&d->w);
    return r;
}

/* ---- removal ---- */

int dump_removal(struct dump *d, struct verr *err)
{
    struct vid disk;
    uint64_t number;
    return print_head(d, LIVE_REMOVED, &disk, &number, err);
}

/* ---- map and vol ---- */

static void print_pages(struct jsonw *w, const char *key, const uint64_t bits[LIVE_WORDS])
{
    uint8_t bytes[LIVE_WORDS * 8];
    for (unsigned i = 0; i < LIVE_WORDS; i++)
        put_le64(bytes + 8 * i, bits[i]);
    jsonw_hex(w, key, bytes, sizeof bytes);
}

static int print_slot(struct dump *d, const struct vid *disk, uint64_t segment, const uint8_t *item)
{
    struct live_slot s;
    int r = live_slot_decode(disk, segment, item, &s);
    if (r < 0)
        return r;
    jsonw_object(&d->w, NULL);
    jsonw_u64(&d->w, "segment", segment);
    print_pages(&d->w, "present", s.present);
    print_pages(&d->w, "zero", s.zero);
    if ((s.flags & LIVE_SLOT_TAGGED) != 0)
        jsonw_ref(&d->w, "place", s.place);
    jsonw_u64(&d->w, "absent", s.absent);
    jsonw_end(&d->w);
    return 0;
}

static int print_slots(struct dump *d, const struct vid *disk, struct verr *err)
{
    jsonw_array(&d->w, "segments");
    int r = each_item(d, LIVE_SLOT_BYTES, disk, print_slot, err);
    jsonw_end(&d->w);
    return r;
}

int dump_map(struct dump *d, struct verr *err)
{
    struct vid disk;
    uint64_t number;
    int r = print_head(d, LIVE_MAP, &disk, &number, err);
    return r < 0 ? r : print_slots(d, &disk, err);
}

int dump_vol(struct dump *d, struct verr *err)
{
    struct vid disk;
    uint64_t number;
    struct live_state s;
    int r = print_head(d, LIVE_VOL, &disk, &number, err);
    if (r < 0)
        return r;
    if (!is_zero(d->head + LIVE_STATE_OFF, LIVE_STATE_BYTES)) {
        if (live_state_decode(&disk, number, d->head + LIVE_STATE_OFF, &s) < 0)
            return verr_set(err, EBADMSG, "state of the live image: wrong checksum");
        jsonw_object(&d->w, "state");
        jsonw_u64(&d->w, "size", s.size);
        jsonw_u64(&d->w, "alloc_bytes", s.alloc_bytes);
        jsonw_i64(&d->w, "mtime_ns", s.mtime_ns);
        jsonw_bool(&d->w, "changed", s.changed);
        jsonw_end(&d->w);
    }
    return print_slots(d, &disk, err);
}
