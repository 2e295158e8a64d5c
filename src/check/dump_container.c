/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: containers: header, then section by section frames, footer entries and trailer, forwards from the header.
 *
 * Bytes behind the last section with a trailer are a torn tail, unless another trailer of this file comes later: then the section
 * in between is damaged.
 */
#include "check/dump_internal.h"

#include "base/endian.h"
#include "format/container.h"
#include "format/recipe.h"
#include "store/container.h"
#include "store/store.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct walk {
    struct dump *d;
    struct cheader hdr;
    uint8_t *payload;           /* FRAME_RAW_MAX */
    struct store *st;           /* the store that the container lies in, to decode recipes; or NULL */
    struct creader *reader;
    int r;                      /* first damage */
    struct verr *err;
};

static bool same_id(const struct walk *k, const struct container_id *id)
{
    return id->container == k->hdr.id.container && vid_eq(&id->store, &k->hdr.id.store) && vid_eq(&id->version, &k->hdr.id.version);
}

static uint64_t footer_bytes(uint32_t entries)
{
    return (uint64_t)(entries / FOOTER_PAGE_ENTRIES + (entries % FOOTER_PAGE_ENTRIES != 0)) * FOOTER_PAGE_BYTES;
}

/* ---- frames ---- */

/* Reads the head of the frame at off into *f: 1; 0: there is no frame; -errno. */
static int frame_at(struct walk *k, uint64_t off, uint8_t head[CFRAME_BYTES], struct cframe *f)
{
    const char *why = "";
    if (k->d->size - off < CFRAME_BYTES)
        return 0;
    int r = dump_read(k->d, off, head, CFRAME_BYTES, NULL);
    if (r < 0)
        return r;
    return cframe_decode(head, f, &why) == 0 && same_id(k, &f->id) && f->stored_len <= k->d->size - off - CFRAME_BYTES;
}

static void print_frame(struct walk *k, uint64_t off, const uint8_t head[CFRAME_BYTES], const struct cframe *f)
{
    const char *why = "damaged";
    struct verr short_file = {0};
    int r = dump_read(k->d, off + CFRAME_BYTES, k->payload, f->stored_len, &short_file);
    if (r == 0)
        r = cframe_check(head, k->payload, &why);
    else
        why = verr_str(&short_file);
    out_line(&k->d->out, NULL);
    out_u64(&k->d->out, "offset", off);
    out_u64(&k->d->out, "first_ordinal", f->first_ordinal);
    out_u64(&k->d->out, "blocks", f->blocks);
    out_text(&k->d->out, "codec", f->codec == FRAME_ZSTD ? "zstd" : "stored");
    out_u64(&k->d->out, "raw_len", f->raw_len);
    out_u64(&k->d->out, "stored_len", f->stored_len);
    if (r < 0)
        out_text(&k->d->out, "error", why);
    out_end(&k->d->out);
    if (r < 0)
        dump_note(&k->r, -r, k->err, "frame at %" PRIu64 ": %s", off, why);
}

/* Prints all frames from *off on; *blocks: how many blocks they hold. */
static int print_frames(struct walk *k, uint64_t *off, uint32_t *blocks)
{
    uint8_t head[CFRAME_BYTES];
    struct cframe f;
    int r;
    *blocks = 0;
    out_array(&k->d->out, "frames");
    while ((r = frame_at(k, *off, head, &f)) > 0) {
        print_frame(k, *off, head, &f);
        *off += CFRAME_BYTES + (uint64_t)f.stored_len;
        *blocks += f.blocks;
    }
    out_end(&k->d->out);
    return r;
}

/* ---- footers ---- */

/* Decodes a segment recipe through the store that the file lies in. */
static void print_recipe(struct walk *k, uint64_t place, uint32_t len)
{
    struct verr why = {0};
    struct segrcp rcp;
    const char *text = "damaged";
    uint8_t *blob = malloc(len);
    int r = blob == NULL ? verr_set(&why, ENOMEM, "out of memory") : creader_read(k->reader, place, 1, 0, blob, len, &why);
    if (r == 0 && (r = segrcp_decode(blob, len, &rcp, &text)) < 0)
        verr_set(&why, -r, "%s", text);
    free(blob);
    out_object(&k->d->out, "recipe");
    if (r == 0) {
        dump_segment_recipe(&k->d->out, &rcp);
        segrcp_release(&rcp);
    } else {
        out_text(&k->d->out, "error", verr_str(&why));
        dump_note(&k->r, -r, k->err, "segment recipe %" PRIu32 ": %s", ref_ordinal(place), verr_str(&why));
    }
    out_end(&k->d->out);
}

static void print_entry(struct walk *k, uint32_t ordinal, const struct footer_entry *e)
{
    bool recipe = k->reader != NULL && e->len != 0;
    if (recipe)
        out_object(&k->d->out, NULL);
    else
        out_line(&k->d->out, NULL);
    out_u64(&k->d->out, "ordinal", ordinal);
    if (e->len == 0) {
        out_bool(&k->d->out, "tombstone", true);
    } else {
        out_hex(&k->d->out, "fp", e->fp.b, FP_BYTES);
        out_u64(&k->d->out, "frame_off", e->frame_off);
        out_u64(&k->d->out, "in_frame", e->in_frame);
        out_u64(&k->d->out, "len", e->len);
    }
    if (recipe)
        print_recipe(k, ref_make(k->hdr.id.container, ordinal), e->len);
    out_end(&k->d->out);
}

static void print_footer(struct walk *k, const struct ctrailer *t)
{
    uint8_t page[FOOTER_PAGE_BYTES];
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    out_array(&k->d->out, "entries");
    for (uint32_t done = 0; done < t->entries; done += FOOTER_PAGE_ENTRIES) {
        uint64_t off = t->footer_off + (uint64_t)(done / FOOTER_PAGE_ENTRIES) * FOOTER_PAGE_BYTES;
        uint32_t n = 0, want = t->entries - done < FOOTER_PAGE_ENTRIES ? t->entries - done : FOOTER_PAGE_ENTRIES;
        const char *why = "damaged";
        struct verr short_file = {0};
        int r = dump_read(k->d, off, page, sizeof page, &short_file);
        if (r < 0)
            why = verr_str(&short_file);
        else if ((r = footer_page_decode(&t->id, t->first_ordinal + done, page, e, &n, &why)) == 0 && n != want)
            r = -EBADMSG;
        if (r < 0)
            dump_note(&k->r, -r, k->err, "footer page at %" PRIu64 ": %s", off, why);
        for (uint32_t i = 0; r == 0 && i < n; i++)
            print_entry(k, t->first_ordinal + done + i, &e[i]);
    }
    out_end(&k->d->out);
}

/* ---- sections ---- */

/* Is there a trailer at off that belongs to this file and place? */
static bool trailer_at(struct walk *k, uint64_t off, struct ctrailer *t)
{
    uint8_t raw[CTRAILER_BYTES];
    const char *why = "";
    if (k->d->size < CTRAILER_BYTES || off > k->d->size - CTRAILER_BYTES || dump_read(k->d, off, raw, sizeof raw, NULL) < 0)
        return false;
    return ctrailer_decode(raw, t, &why) == 0 && same_id(k, &t->id) && t->footer_off + footer_bytes(t->entries) == off;
}

/* Prints one section from *off on: 1: it is sealed, 0: it is not, -errno. */
static int print_section(struct walk *k, uint64_t *off)
{
    uint64_t at = *off;
    uint32_t blocks;
    struct ctrailer t;
    out_object(&k->d->out, NULL);
    out_u64(&k->d->out, "section_off", at);
    int r = print_frames(k, &at, &blocks);
    bool sealed = r == 0 && blocks > 0 && trailer_at(k, at + footer_bytes(blocks), &t) && t.section_off == *off;
    out_bool(&k->d->out, "sealed", sealed);
    if (sealed) {
        out_u64(&k->d->out, "section", t.section);
        out_u64(&k->d->out, "first_ordinal", t.first_ordinal);
        out_u64(&k->d->out, "footer_off", t.footer_off);
        out_u64(&k->d->out, "prev_trailer", t.prev_trailer);
        print_footer(k, &t);
        *off = at + footer_bytes(blocks) + CTRAILER_BYTES;
    }
    out_end(&k->d->out);
    return r < 0 ? r : sealed;
}

/* The offset of the first trailer of this file at or after from; 0: there is none. */
static uint64_t later_trailer(struct walk *k, uint64_t from)
{
    enum { STEP = FRAME_RAW_MAX - CTRAILER_BYTES };
    for (uint64_t off = from; off < k->d->size; off += STEP) {
        size_t n = k->d->size - off < FRAME_RAW_MAX ? (size_t)(k->d->size - off) : FRAME_RAW_MAX;
        if (dump_read(k->d, off, k->payload, n, NULL) < 0)
            return 0;
        const uint8_t *p = k->payload, *end = k->payload + n;
        struct ctrailer t;
        while ((p = memmem(p, (size_t)(end - p), "varveTRL", 8)) != NULL) {
            if (trailer_at(k, off + (uint64_t)(p - k->payload), &t))
                return off + (uint64_t)(p - k->payload);
            p++;
        }
    }
    return 0;
}

static int print_sections(struct walk *k)
{
    uint64_t off = CHEADER_BYTES;
    int r = 1;
    out_array(&k->d->out, "sections");
    while (off < k->d->size && (r = print_section(k, &off)) > 0)
        ;
    out_end(&k->d->out);
    out_u64(&k->d->out, "torn_bytes", k->d->size - off);
    if (r < 0)
        return verr_set(k->err, -r, "cannot be read: %s", strerror(-r));
    uint64_t later = off < k->d->size ? later_trailer(k, off) : 0;
    if (later != 0)
        dump_note(&k->r, EBADMSG, k->err, "section at %" PRIu64 " is damaged: a trailer stands at %" PRIu64, off, later);
    return k->r;
}

/* ---- the store around it ---- */

/* Opens STORE of STORE/containers/CCCCCC/NNNN.vc, if the file lies there under its own number. */
static void open_store(struct walk *k)
{
    char name[32], want[64];
    struct store *st = NULL;
    char *path = realpath(k->d->path, NULL);
    container_path(k->hdr.id.container, name);
    snprintf(want, sizeof want, "/containers/%s", name);
    size_t n = path == NULL ? 0 : strlen(path), tail = strlen(want);
    if (n > tail && strcmp(path + n - tail, want) == 0) {
        path[n - tail] = '\0';
        if (store_open(path, &st, NULL) == 0 && vid_eq(&store_conf(st)->id, &k->hdr.id.store) &&
            creader_new(st, 1024 * 1024, &k->reader, NULL) == 0)
            k->st = st;
        else
            store_close(st);
    }
    free(path);
}

int dump_container(struct dump *d, struct verr *err)
{
    static const char *const flag_names[] = { "shared", "private", "cds" };
    struct walk k = { .d = d, .err = err };
    const char *why = "damaged";
    if (d->size < CHEADER_BYTES)
        return verr_set(err, EBADMSG, "shorter than a header");
    int r = cheader_decode(d->head, &k.hdr, &why);
    if (r < 0)
        return verr_set(err, -r, "header: %s", why);
    k.payload = malloc(FRAME_RAW_MAX);
    if (k.payload == NULL)
        return verr_set(err, ENOMEM, "out of memory");
    out_id(&d->out, "store", &k.hdr.id.store);
    out_u64(&d->out, "container", k.hdr.id.container);
    out_id(&d->out, "version", &k.hdr.id.version);
    out_text(&d->out, "type", k.hdr.type == CONTAINER_RECIPES ? "recipes" : "blocks");
    out_flags(&d->out, "flags", k.hdr.flags, flag_names, 3);
    if (k.hdr.type == CONTAINER_RECIPES) {
        open_store(&k);
        out_bool(&d->out, "recipes_decoded", k.reader != NULL);
    }
    r = print_sections(&k);
    creader_free(k.reader);
    store_close(k.st);
    free(k.payload);
    return r;
}
