/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: files of a disk's directory in STATE. Their checksums include the disk's id, which is taken from the file itself: its header
 * or records hold it.
 */
#include "base/endian.h"
#include "check/dump_internal.h"
#include "live/live_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- journal ---- */

static void print_pending(struct out *o, const struct live_pend *lp)
{
    static const char *const names[] = { "provisional", "partial", "sealed", "started", "failed", "explicit" };
    const struct snapinfo *p = &lp->p;
    out_object(o, NULL);
    out_u64(o, "seq", p->ref.seq);
    out_id(o, "snap", &p->ref.snap);
    out_id(o, "group", &p->group);
    out_u64(o, "group_members", p->group_members);
    out_flags(o, "flags", p->flags, names, 6);
    out_u64(o, "size", p->size);
    out_u64(o, "alloc_bytes", p->alloc_bytes);
    out_u64(o, "dirty_segments", p->dirty_segments);
    out_i64(o, "freeze_ns", p->freeze_ns);
    out_i64(o, "name_s", p->name_s);
    out_u64(o, "mode", p->mode);
    out_u64(o, "uid", p->uid);
    out_u64(o, "gid", p->gid);
    out_text(o, "label", p->label);
    out_text(o, "note", p->note);
    out_u64(o, "table", lp->table);
    out_u64(o, "layer", lp->layer);
    out_u64(o, "table_bytes", lp->table_bytes);
    out_end(o);
}

static void print_lists(struct out *o, const struct live_head *h)
{
    out_array(o, "pending");
    for (unsigned i = 0; i < h->npend; i++)
        print_pending(o, &h->pend[i]);
    out_end(o);
    out_array(o, "anchors");
    for (unsigned i = 0; i < h->nanchors; i++) {
        out_line(o, NULL);
        out_id(o, "disk", &h->anchors[i].ref.disk);
        out_u64(o, "seq", h->anchors[i].ref.seq);
        out_id(o, "snap", &h->anchors[i].ref.snap);
        out_u64(o, "stamp", h->anchors[i].stamp);
        out_end(o);
    }
    out_end(o);
}

static void print_record(struct out *o, uint64_t off, const struct live_record *rec, const struct live_head *h)
{
    static const char *const flag_names[] = { "complete" }, *const mark_names[] = { "rewriting", "unnamed" };
    out_object(o, NULL);
    out_u64(o, "offset", off);
    out_flags(o, "flags", rec->flags, flag_names, 1);
    out_u64(o, "length", rec->length);
    out_u64(o, "seq", rec->seq);
    out_u64(o, "synced", rec->synced);
    out_u64(o, "size", h->size);
    out_u64(o, "alloc_bytes", h->alloc_bytes);
    out_i64(o, "mtime_ns", h->mtime_ns);
    out_i64(o, "last_name_s", h->last_name_s);
    out_u64(o, "next_seq", h->next_seq);
    out_u64(o, "next_no", h->next_no);
    out_u64(o, "table", h->table);
    out_u64(o, "table_bytes", h->table_bytes);
    out_u64(o, "layer", h->layer);
    out_u64(o, "cache", h->cache);
    out_flags(o, "marks", h->marks, mark_names, 2);
    out_bool(o, "changed", h->changed != LIVE_UNCHANGED);
    out_bool(o, "unkept", h->changed == LIVE_UNKEPT);
    print_lists(o, h);
    out_end(o);
}

/* Prints one record. Its length; 0: there is none; -errno. */
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
    print_record(&d->out, off, &rec, &h);
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
    out_id(&d->out, "disk", &disk);
    out_array(&d->out, "records");
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
    out_end(&d->out);
    /* Bytes behind the last whole record are a crash's leftover, unless even the first record is damaged. */
    out_u64(&d->out, "torn_bytes", len - off);
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
    out_id(&d->out, "disk", disk);
    out_u64(&d->out, "number", *number);
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

/* Calls fn for each item behind the header that is not empty. */
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
    out_line(&d->out, NULL);
    out_u64(&d->out, "segment", segment);
    out_text(&d->out, "entry", e.kind == SEGK_ZERO ? "zero" : e.kind == SEGK_STORED ? "stored" : "frozen");
    if (e.kind == SEGK_STORED)
        out_ref(&d->out, "place", e.value);
    else if (e.kind == SEGK_FROZEN)
        out_u64(&d->out, "seq", e.value);
    out_bool(&d->out, "dirty", e.dirty);
    if (e.pages != LIVE_PAGES_UNKNOWN)
        out_u64(&d->out, "pages", e.pages);
    out_end(&d->out);
    return 0;
}

int dump_table(struct dump *d, struct verr *err)
{
    struct vid disk;
    uint64_t number;
    int r = print_head(d, LIVE_TABLE, &disk, &number, err);
    if (r < 0)
        return r;
    out_array(&d->out, "segments");
    r = each_item(d, LIVE_ENTRY_BYTES, &disk, print_entry, err);
    out_end(&d->out);
    return r;
}

/* ---- map and vol ---- */

static void print_pages(struct out *o, const char *key, const uint64_t bits[LIVE_WORDS])
{
    uint8_t bytes[LIVE_WORDS * 8];
    for (unsigned i = 0; i < LIVE_WORDS; i++)
        put_le64(bytes + 8 * i, bits[i]);
    out_hex(o, key, bytes, sizeof bytes);
}

static int print_slot(struct dump *d, const struct vid *disk, uint64_t segment, const uint8_t *item)
{
    struct live_slot s;
    int r = live_slot_decode(disk, segment, item, &s);
    if (r < 0)
        return r;
    out_object(&d->out, NULL);
    out_u64(&d->out, "segment", segment);
    print_pages(&d->out, "present", s.present);
    print_pages(&d->out, "zero", s.zero);
    if ((s.flags & LIVE_SLOT_TAGGED) != 0)
        out_ref(&d->out, "place", s.place);
    out_u64(&d->out, "absent", s.absent);
    out_end(&d->out);
    return 0;
}

static int print_slots(struct dump *d, const struct vid *disk, struct verr *err)
{
    out_array(&d->out, "segments");
    int r = each_item(d, LIVE_SLOT_BYTES, disk, print_slot, err);
    out_end(&d->out);
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
        out_object(&d->out, "state");
        out_u64(&d->out, "size", s.size);
        out_u64(&d->out, "alloc_bytes", s.alloc_bytes);
        out_i64(&d->out, "mtime_ns", s.mtime_ns);
        out_bool(&d->out, "changed", s.changed != LIVE_UNCHANGED);
        out_bool(&d->out, "unkept", s.changed == LIVE_UNKEPT);
        out_end(&d->out);
    }
    return print_slots(d, &disk, err);
}
