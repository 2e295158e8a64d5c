/* SPDX-License-Identifier: Apache-2.0 */
/* dump: snapshot recipes with their side files, and segment recipes (which lie in containers). */
#include "check/dump_internal.h"

#include "format/recipe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static const char *const snap_flag_names[] = { "provisional", "partial" };

/* ---- segment recipe ---- */

void dump_segment_recipe(struct jsonw *w, const struct segrcp *rcp)
{
    jsonw_u64(w, "bytes", rcp->bytes);
    jsonw_u64(w, "data_pages", rcp->data_pages);
    jsonw_hex(w, "digest", rcp->digest, DIGEST_BYTES);
    jsonw_array(w, "runs");
    for (uint32_t i = 0; i < rcp->nruns; i++) {
        jsonw_line(w, NULL);
        jsonw_ref(w, "ref", rcp->runs[i].ref);
        jsonw_u64(w, "count", rcp->runs[i].count);
        jsonw_end(w);
    }
    jsonw_end(w);
    jsonw_array(w, "blocks");
    for (uint32_t i = 0; i < rcp->nblocks; i++) {
        const uint8_t prefix[4] = { (uint8_t)rcp->prefix[i], (uint8_t)(rcp->prefix[i] >> 8), (uint8_t)(rcp->prefix[i] >> 16),
                                    (uint8_t)(rcp->prefix[i] >> 24) };
        jsonw_line(w, NULL);
        jsonw_u64(w, "length", (uint32_t)rcp->len1[i] + 1);
        jsonw_hex(w, "prefix", prefix, sizeof prefix);
        jsonw_end(w);
    }
    jsonw_end(w);
}

/* ---- snapshot recipe ---- */

static void print_levels(struct jsonw *w, const struct snap_levels *l)
{
    jsonw_object(w, "levels");
    jsonw_u64(w, "zero", l->zero);
    jsonw_u64(w, "clean", l->clean);
    jsonw_u64(w, "parent_segment", l->parent_segment);
    jsonw_u64(w, "parent_block", l->parent_block);
    jsonw_u64(w, "common", l->common);
    jsonw_u64(w, "global", l->global);
    jsonw_u64(w, "dup_new", l->dup_new);
    jsonw_u64(w, "fresh", l->fresh);
    jsonw_u64(w, "stored", l->stored);
    jsonw_end(w);
}

static void print_header(struct jsonw *w, const struct snaprcp *r)
{
    jsonw_id(w, "store", &r->store);
    jsonw_id(w, "disk", &r->disk);
    jsonw_id(w, "vm", &r->vm);
    jsonw_id(w, "snap", &r->snap);
    jsonw_id(w, "parent", &r->parent);
    jsonw_id(w, "host", &r->host);
    jsonw_id(w, "group", &r->group);
    jsonw_u64(w, "group_members", r->group_members);
    jsonw_u64(w, "seq", r->seq);
    jsonw_u64(w, "epoch", r->epoch);
    jsonw_flags(w, "flags", r->flags, snap_flag_names, 2);
    jsonw_u64(w, "size", r->size);
    jsonw_u64(w, "alloc_bytes", r->alloc_bytes);
    jsonw_i64(w, "freeze_ns", r->freeze_ns);
    jsonw_i64(w, "name_s", r->name_s);
    jsonw_text(w, "label", r->label);
    jsonw_text(w, "note", r->note);
    print_levels(w, &r->levels);
    jsonw_hex(w, "runs_digest", r->runs_digest, FP_BYTES);
    jsonw_u64(w, "nruns", r->nruns);
}

static void print_runs(struct jsonw *w, const struct snaprun *runs, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        jsonw_line(w, NULL);
        jsonw_u64(w, "first", runs[i].first);
        jsonw_u64(w, "count", runs[i].count);
        jsonw_ref(w, "place", runs[i].place);
        jsonw_end(w);
    }
}

static int print_pages(struct dump *d, const struct snaprcp *hdr, struct verr *err)
{
    uint64_t pages = hdr->nruns / SNAPRCP_PAGE_RUNS + (hdr->nruns % SNAPRCP_PAGE_RUNS != 0), seen = 0, next = 0;
    int r = 0;
    jsonw_array(&d->w, "runs");
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
        e = snaprcp_page_decode(&hdr->snap, page, raw, runs, &n, &why);
        if (e < 0) {
            dump_note(&r, -e, err, "page %" PRIu64 ": %s", page, why);
            continue;
        }
        if (runs[0].first != next)
            dump_note(&r, EBADMSG, err, "page %" PRIu64 ": begins with segment %" PRIu32 ", not %" PRIu64, page, runs[0].first, next);
        next = (uint64_t)runs[n - 1].first + runs[n - 1].count;
        seen += n;
        print_runs(&d->w, runs, n);
    }
    jsonw_end(&d->w);
    if (seen != hdr->nruns || next != seg_count(hdr->size) || d->size != (1 + pages) * SNAPRCP_PAGE)
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
    print_header(&d->w, &hdr);
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
    jsonw_id(&d->w, "snap", &a.snap);
    jsonw_u64(&d->w, "version", a.version);
    jsonw_text(&d->w, "label", a.label);
    jsonw_text(&d->w, "note", a.note);
    jsonw_bool(&d->w, "protected", a.protected_);
    jsonw_flags(&d->w, "set_flags", a.set_flags, snap_flag_names, 2);
    jsonw_flags(&d->w, "clear_flags", a.clear_flags, snap_flag_names, 2);
    jsonw_bool(&d->w, "owner_set", a.owner_set);
    jsonw_u64(&d->w, "mode", a.mode);
    jsonw_u64(&d->w, "uid", a.uid);
    jsonw_u64(&d->w, "gid", a.gid);
    jsonw_i64(&d->w, "verified_s", a.verified_s);
    return 0;
}
