/* SPDX-License-Identifier: Apache-2.0 */
/* dump: snapshot recipes with their side files, and segment recipes (which lie in containers). */
#include "check/dump_internal.h"

#include "format/recipe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static const char *const snap_flag_names[] = { "provisional", "partial" };

/* ---- segment recipe ---- */

void dump_segment_recipe(struct out *o, const struct segrcp *rcp)
{
    out_u64(o, "bytes", rcp->bytes);
    out_u64(o, "data_pages", rcp->data_pages);
    out_hex(o, "digest", rcp->digest, DIGEST_BYTES);
    out_array(o, "runs");
    for (uint32_t i = 0; i < rcp->nruns; i++) {
        out_line(o, NULL);
        out_ref(o, "ref", rcp->runs[i].ref);
        out_u64(o, "count", rcp->runs[i].count);
        out_end(o);
    }
    out_end(o);
    out_array(o, "blocks");
    for (uint32_t i = 0; i < rcp->nblocks; i++) {
        const uint8_t prefix[4] = { (uint8_t)rcp->prefix[i], (uint8_t)(rcp->prefix[i] >> 8), (uint8_t)(rcp->prefix[i] >> 16),
                                    (uint8_t)(rcp->prefix[i] >> 24) };
        out_line(o, NULL);
        out_u64(o, "length", (uint32_t)rcp->len1[i] + 1);
        out_hex(o, "prefix", prefix, sizeof prefix);
        out_end(o);
    }
    out_end(o);
}

/* ---- snapshot recipe ---- */

static void print_levels(struct out *o, const struct snap_levels *l)
{
    out_object(o, "levels");
    out_u64(o, "zero", l->zero);
    out_u64(o, "clean", l->clean);
    out_u64(o, "parent_segment", l->parent_segment);
    out_u64(o, "parent_block", l->parent_block);
    out_u64(o, "common", l->common);
    out_u64(o, "global", l->global);
    out_u64(o, "dup_new", l->dup_new);
    out_u64(o, "fresh", l->fresh);
    out_u64(o, "stored", l->stored);
    out_end(o);
}

static void print_header(struct out *o, const struct snaprcp *r)
{
    out_id(o, "store", &r->store);
    out_id(o, "disk", &r->info.ref.disk);
    out_id(o, "vm", &r->vm);
    out_id(o, "snap", &r->info.ref.snap);
    out_id(o, "parent", &r->info.parent);
    out_id(o, "host", &r->info.host);
    out_id(o, "group", &r->info.group);
    out_u64(o, "group_members", r->info.group_members);
    out_u64(o, "seq", r->info.ref.seq);
    out_u64(o, "epoch", r->epoch);
    out_flags(o, "flags", r->info.flags, snap_flag_names, 2);
    out_u64(o, "size", r->info.size);
    out_u64(o, "alloc_bytes", r->info.alloc_bytes);
    out_i64(o, "freeze_ns", r->info.freeze_ns);
    out_i64(o, "name_s", r->info.name_s);
    out_text(o, "label", r->info.label);
    out_text(o, "note", r->info.note);
    print_levels(o, &r->info.levels);
    out_hex(o, "runs_digest", r->runs_digest, FP_BYTES);
    out_u64(o, "nruns", r->nruns);
}

static void print_runs(struct out *o, const struct snaprun *runs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        out_line(o, NULL);
        out_u64(o, "first", runs[i].first);
        out_u64(o, "count", runs[i].count);
        out_ref(o, "place", runs[i].place);
        out_end(o);
    }
}

static int print_pages(struct dump *d, const struct snaprcp *hdr, struct verr *err)
{
    uint64_t pages = hdr->nruns / SNAPRCP_PAGE_RUNS + (hdr->nruns % SNAPRCP_PAGE_RUNS != 0), seen = 0, next = 0;
    int r = 0;
    out_array(&d->out, "runs");
    for (uint64_t page = 1; page <= pages; page++) {
        uint8_t raw[SNAPRCP_PAGE];
        struct snaprun runs[SNAPRCP_PAGE_RUNS];
        uint32_t n;
        const char *why = "damaged";
        struct verr short_file = {0};
        int e = dump_read(d, page * SNAPRCP_PAGE, raw, sizeof raw, &short_file);
        if (e < 0) {
            dump_note(&r, -e, err, "%s", verr_str(&short_file));
            break;
        }
        e = snaprcp_page_decode(&hdr->info.ref.snap, page, raw, runs, &n, &why);
        if (e < 0) {
            dump_note(&r, -e, err, "page %" PRIu64 ": %s", page, why);
            continue;
        }
        if (runs[0].first != next)
            dump_note(&r, EBADMSG, err, "page %" PRIu64 ": begins with segment %" PRIu32 ", not %" PRIu64, page, runs[0].first, next);
        next = (uint64_t)runs[n - 1].first + runs[n - 1].count;
        seen += n;
        print_runs(&d->out, runs, n);
    }
    out_end(&d->out);
    if (seen != hdr->nruns || next != seg_count(hdr->info.size) || d->size != (1 + pages) * SNAPRCP_PAGE)
        dump_note(&r, EBADMSG, err, "runs, size of the disk and length of the file do not fit");
    return r;
}

int dump_snapshot(struct dump *d, struct verr *err)
{
    uint8_t page[SNAPRCP_PAGE];
    struct snaprcp hdr;
    const char *why = "damaged";
    int r = dump_read(d, 0, page, sizeof page, err);
    if (r < 0)
        return r;
    r = snaprcp_decode(page, &hdr, &why);
    if (r < 0)
        return verr_set(err, -r, "header: %s", why);
    print_header(&d->out, &hdr);
    return print_pages(d, &hdr, err);
}

/* ---- side file ---- */

int dump_side_file(struct dump *d, struct verr *err)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct snapattr a;
    const char *why = "damaged";
    int r = dump_load(d, &data, &len, err);
    if (r < 0)
        return r;
    r = snapattr_decode(data, len, &a, &why);
    free(data);
    if (r < 0)
        return verr_set(err, -r, "side file: %s", why);
    out_id(&d->out, "snap", &a.snap);
    out_u64(&d->out, "version", a.version);
    out_text(&d->out, "label", a.label);
    out_text(&d->out, "note", a.note);
    out_bool(&d->out, "protected", a.protected_);
    out_flags(&d->out, "set_flags", a.set_flags, snap_flag_names, 2);
    out_flags(&d->out, "clear_flags", a.clear_flags, snap_flag_names, 2);
    out_bool(&d->out, "owner_set", a.owner_set);
    out_u64(&d->out, "mode", a.mode);
    out_u64(&d->out, "uid", a.uid);
    out_u64(&d->out, "gid", a.gid);
    out_i64(&d->out, "verified_s", a.verified_s);
    return 0;
}
