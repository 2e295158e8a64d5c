/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read: reads blocks by reference: section -> footer entries, a page's worth at a time on the stack -> decoded frame -> bytes.
 * A run of blocks of one frame keeps that frame pinned, so a sequential read decodes each frame once.
 */
#include "base/limits.h"
#include "base/verr.h"
#include "store/layout_internal.h"
#include "store/read_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- decoders: one for each thread that decodes at the same time ---- */

struct unpackers {
    struct funpack *u;
    struct unpackers *next;
};

static struct unpackers *unpack_get(struct creader *r)
{
    pthread_mutex_lock(&r->unpack_lock);
    struct unpackers *p = r->unpack;
    if (p != NULL)
        r->unpack = p->next;
    pthread_mutex_unlock(&r->unpack_lock);
    if (p != NULL)
        return p;
    p = malloc(sizeof *p);
    if (p != NULL && (p->u = funpack_new()) == NULL) {
        free(p);
        p = NULL;
    }
    return p;
}

static void unpack_put(struct creader *r, struct unpackers *p)
{
    pthread_mutex_lock(&r->unpack_lock);
    p->next = r->unpack;
    r->unpack = p;
    pthread_mutex_unlock(&r->unpack_lock);
}

/* ---- footers ---- */

int footer_page_read(struct creader *r, struct cfile *c, const struct section *s, uint32_t page,
                     struct footer_entry out[FOOTER_PAGE_ENTRIES], uint32_t *n, struct verr *err)
{
    uint8_t bytes[FOOTER_PAGE_BYTES];
    uint32_t first = page * FOOTER_PAGE_ENTRIES;
    uint32_t want = s->entries - first < FOOTER_PAGE_ENTRIES ? s->entries - first : FOOTER_PAGE_ENTRIES;
    ssize_t got = bf_read(c->f, bytes, sizeof bytes, s->footer_off + (uint64_t)page * FOOTER_PAGE_BYTES);
    if (got < 0)
        return cfile_fail(r, c, (int)-got, strerror((int)-got), err);
    const char *why = "file is shorter than its trailer says";
    if (got != (ssize_t)sizeof bytes || footer_page_decode(&c->id, s->first_ordinal + first, bytes, out, n, &why) < 0)
        return cfile_fail(r, c, EBADMSG, why, err);
    if (*n != want)
        return cfile_fail(r, c, EBADMSG, "a footer page has another number of entries than its trailer says", err);
    for (uint32_t i = 0; i < *n; i++)
        if (out[i].len != 0 && (out[i].frame_off < s->section_off || out[i].frame_off >= s->footer_off))
            return cfile_fail(r, c, EBADMSG, "a footer entry leads out of its section", err);
    return 0;
}

int footer_slice(struct creader *r, struct cfile *c, uint32_t ordinal, uint32_t count, struct footer_entry *out, struct verr *err)
{
    struct section s;
    int code = cfile_section(r, c, ordinal, &s, err);
    if (code < 0)
        return code;
    uint32_t at = ordinal - s.first_ordinal, page = at / FOOTER_PAGE_ENTRIES, from = at % FOOTER_PAGE_ENTRIES;
    uint32_t n = s.entries - at;
    if (n > FOOTER_PAGE_ENTRIES - from)
        n = FOOTER_PAGE_ENTRIES - from;
    if (n > count)
        n = count;
    struct frame_key key = {.container = c->number, .version = c->id.version, .off = s.footer_off + page * FOOTER_PAGE_BYTES};
    if (pcache_find(r->pages, &key, from, n, out))
        return (int)n;
    struct footer_entry whole[FOOTER_PAGE_ENTRIES];
    uint32_t have = 0;
    code = footer_page_read(r, c, &s, page, whole, &have, err);
    if (code < 0)
        return code;
    pcache_add(r->pages, &key, whole, have);
    memcpy(out, whole + from, n * sizeof *out);
    return (int)n;
}

/* ---- frames ---- */

/* Reads a frame as it is in the file; most frames are shorter than the first read. */
static int frame_fetch(struct creader *r, struct cfile *c, uint32_t off, uint8_t *in, struct cframe *f, struct verr *err)
{
    ssize_t got = bf_read(c->f, in, FIRST_READ, off);
    if (got < 0)
        return cfile_fail(r, c, (int)-got, strerror((int)-got), err);
    const char *why = "file ends inside a frame";
    int code = got < CFRAME_BYTES ? -EBADMSG : cframe_decode(in, f, &why);
    if (code < 0)
        return verr_set(err, -code, "%s/containers/%s: frame at %u: %s", r->st->path, c->name, off, why);
    if (!container_id_eq(&f->id, &c->id))
        return cfile_fail(r, c, ESTALE, "a frame is of another version of the file", err);
    size_t need = CFRAME_BYTES + (size_t)f->stored_len;
    if ((size_t)got < need && got == FIRST_READ) {
        ssize_t more = bf_read(c->f, in + got, need - (size_t)got, off + (uint64_t)got);
        if (more < 0)
            return cfile_fail(r, c, (int)-more, strerror((int)-more), err);
        got += more;
    }
    if ((size_t)got < need)
        return verr_set(err, EBADMSG, "%s/containers/%s: frame at %u: file ends inside a frame", r->st->path, c->name, off);
    return 0;
}

static int frame_decode(struct creader *r, const struct cfile *c, uint32_t off, struct funpack *u, const struct cframe *f, uint8_t *out,
                        struct verr *err)
{
    const char *why = "";
    int code = funpack_open(u, funpack_in(u), f, out, &why);
    if (code < 0)
        verr_set(err, -code, "%s/containers/%s: frame at %u: %s", r->st->path, c->name, off, why);
    return code;
}

static int frame_load(struct creader *r, struct cfile *c, uint32_t off, struct fslot *slot, struct verr *err)
{
    struct unpackers *p = unpack_get(r);
    if (p == NULL)
        return verr_set(err, ENOMEM, "decoding a frame: out of memory");
    struct cframe *f = fslot_frame(slot);
    int code = frame_fetch(r, c, off, funpack_in(p->u), f, err);
    if (code == 0)
        code = frame_decode(r, c, off, p->u, f, fslot_data(slot), err);
    unpack_put(r, p);
    return code;
}

static int frame_get(struct creader *r, struct cfile *c, uint32_t off, struct fslot **out, struct verr *err)
{
    struct frame_key key = {.container = c->number, .version = c->id.version, .off = off};
    bool load;
    struct fslot *s = fcache_get(r->frames, &key, &load);
    int code = 0;
    if (load) {
        code = frame_load(r, c, off, s, err);
        fcache_loaded(r->frames, s, code == 0);
    }
    if (code == 0)
        *out = s;
    return code;
}

/* ---- reading ---- */

enum {
    ENTRIES_KEPT = 2 * FOOTER_PAGE_ENTRIES, /* so that most frames have all their entries together */
    DIRECT_MIN = FRAME_RAW_MAX / 2          /* shorter frames are decoded into the cache: the copy costs little */
};

struct reading {
    struct creader *r;
    struct cfile *c;
    struct fslot *slot;     /* pinned, or NULL */
    uint32_t slot_off;
    uint64_t skip;
    uint8_t *buf;
    size_t len;
    uint32_t ordinal;       /* of entry[0] */
    uint32_t n, more;       /* valid entries; further ordinals behind them that are wanted */
    struct footer_entry entry[ENTRIES_KEPT];
};

static void unpin(struct reading *rd)
{
    if (rd->slot != NULL)
        fcache_put(rd->r->frames, rd->slot);
    rd->slot = NULL;
}

static int copy_block(struct reading *rd, uint32_t ordinal, const struct footer_entry *e, struct verr *err)
{
    if (rd->slot != NULL && rd->slot_off != e->frame_off)
        unpin(rd);
    if (rd->slot == NULL) {
        int code = frame_get(rd->r, rd->c, e->frame_off, &rd->slot, err);
        if (code < 0)
            return code;
        rd->slot_off = e->frame_off;
    }
    const struct cframe *f = fslot_frame(rd->slot);
    if (ordinal < f->first_ordinal || ordinal - f->first_ordinal >= f->blocks || e->len > f->raw_len || e->in_frame > f->raw_len - e->len)
        return cfile_fail(rd->r, rd->c, EBADMSG, "a footer entry and its frame contradict each other", err);
    size_t n = e->len - rd->skip < rd->len ? e->len - rd->skip : rd->len;
    memcpy(rd->buf, fslot_data(rd->slot) + e->in_frame + rd->skip, n);
    rd->buf += n;
    rd->len -= n;
    rd->skip = 0;
    return 0;
}

/* Counts the entries that are blocks of one frame, from its first byte on, and that are wanted completely. *bytes: their total length. */
static uint32_t whole_blocks(const struct reading *rd, const struct footer_entry *e, uint32_t n, uint32_t *bytes)
{
    uint32_t at = 0, k = 0;
    while (k < n && e[k].len != 0 && e[k].frame_off == e->frame_off && e[k].in_frame == at && e[k].len <= FRAME_RAW_MAX - at)
        at += e[k++].len;
    *bytes = at;
    return rd->skip == 0 && at <= rd->len ? k : 0;
}

/*
 * Decodes a frame that is wanted completely and is not in the cache directly into the caller's buffer: large reads are sequential and
 * do not come back to it. *taken: blocks read; 0: read them through the cache (the frame has more blocks, or a thread is loading it).
 */
static int read_whole(struct reading *rd, uint32_t ordinal, const struct footer_entry *e, uint32_t n, uint32_t *taken, struct verr *err)
{
    uint32_t bytes = 0, blocks = whole_blocks(rd, e, n, &bytes);
    const struct frame_key key = {.container = rd->c->number, .version = rd->c->id.version, .off = e->frame_off};
    *taken = 0;
    if (blocks == 0 || bytes < DIRECT_MIN || fcache_has(rd->r->frames, &key))
        return 0;
    struct unpackers *p = unpack_get(rd->r);
    if (p == NULL)
        return verr_set(err, ENOMEM, "decoding a frame: out of memory");
    struct cframe f;
    int code = frame_fetch(rd->r, rd->c, e->frame_off, funpack_in(p->u), &f, err);
    if (code == 0 && f.first_ordinal == ordinal && f.blocks == blocks && f.raw_len == bytes) {
        code = frame_decode(rd->r, rd->c, e->frame_off, p->u, &f, rd->buf, err);
        *taken = blocks;
        rd->buf += bytes;
        rd->len -= bytes;
    }
    unpack_put(rd->r, p);
    return code;
}

/* Reads entries until there is at least a page's worth, or no more. */
static int fill_entries(struct reading *rd, uint32_t from, struct verr *err)
{
    memmove(rd->entry, rd->entry + from, (rd->n - from) * sizeof *rd->entry);
    rd->ordinal += from;
    rd->n -= from;
    while (rd->n < FOOTER_PAGE_ENTRIES && rd->more > 0) {
        int got = footer_slice(rd->r, rd->c, rd->ordinal + rd->n, rd->more, rd->entry + rd->n, err);
        if (got < 0)
            return got;
        rd->n += (uint32_t)got;
        rd->more -= (uint32_t)got;
    }
    return 0;
}

/* Reads the block at entry i, or the frame that begins there. *next: the entry after it. */
static int read_at(struct reading *rd, uint32_t i, uint32_t *next, struct verr *err)
{
    const struct footer_entry *e = &rd->entry[i];
    uint32_t taken = 0;
    *next = i + 1;
    if (e->len == 0)
        return verr_set(err, ENODATA, "%s/containers/%s: ordinal %u is dead", rd->r->st->path, rd->c->name, rd->ordinal + i);
    if (rd->skip >= e->len) {
        rd->skip -= e->len;
        return 0;
    }
    int code = e->in_frame == 0 ? read_whole(rd, rd->ordinal + i, e, rd->n - i, &taken, err) : 0;
    if (code < 0 || taken > 0) {
        *next = i + taken;
        return code;
    }
    return copy_block(rd, rd->ordinal + i, e, err);
}

static int read_blocks(struct reading *rd, struct verr *err)
{
    uint32_t i = 0;
    while (rd->len > 0 && (i < rd->n || rd->more > 0)) {
        int code = 0;
        if (rd->n - i < FOOTER_PAGE_ENTRIES && rd->more > 0) {
            code = fill_entries(rd, i, err);
            i = 0;
        }
        if (code == 0)
            code = read_at(rd, i, &i, err);
        if (code < 0)
            return code;
    }
    return rd->len == 0 ? 0 : cfile_fail(rd->r, rd->c, EBADMSG, "blocks are shorter than their recipe says", err);
}

static int read_once(struct creader *r, uint64_t ref, uint32_t count, uint64_t skip, void *buf, size_t len, struct verr *err)
{
    struct reading rd;      /* not cleared as a whole, because it has many entries */
    rd.r = r;
    rd.slot = NULL;
    rd.slot_off = 0;
    rd.skip = skip;
    rd.buf = buf;
    rd.len = len;
    rd.ordinal = ref_ordinal(ref);
    rd.n = 0;
    rd.more = count;
    int code = cfile_get(r, ref_container(ref), &rd.c, err);
    if (code < 0)
        return code;
    code = read_blocks(&rd, err);
    unpin(&rd);
    if (code == -ESTALE)
        cfile_drop(r, rd.c);
    cfile_put(r, rd.c);
    return code;
}

static int entries_once(struct creader *r, uint64_t ref, uint32_t count, struct footer_entry *out, struct verr *err)
{
    struct cfile *c;
    int code = cfile_get(r, ref_container(ref), &c, err);
    if (code < 0)
        return code;
    uint32_t ordinal = ref_ordinal(ref);
    while (code >= 0 && count > 0) {
        code = footer_slice(r, c, ordinal, count, out, err);
        if (code > 0) {
            ordinal += (uint32_t)code;
            count -= (uint32_t)code;
            out += code;
        }
    }
    if (code == -ESTALE)
        cfile_drop(r, c);
    cfile_put(r, c);
    return code < 0 ? code : 0;
}

/* Checks the range of references, which come from recipes and peers; later code relies on it. */
static int check_refs(uint64_t ref, uint32_t count, struct verr *err)
{
    if (!ref_is_block(ref))
        return verr_set(err, ENODATA, "reading blocks: %016" PRIx64 " is no reference", ref);
    if ((uint64_t)ref_ordinal(ref) + count > UINT64_C(1) << ORDINAL_BITS)
        return verr_set(err, ENODATA, "reading blocks: %u blocks from reference %016" PRIx64 " on leave the container", count, ref);
    return 0;
}

/* The error of a file that is stale after it was opened anew: it will not get better. */
static int stale_again(int code, struct verr *err)
{
    if (code != -ESTALE)
        return code;
    if (err != NULL)
        err->code = EIO;
    verr_prefix(err, EIO, "after it was opened again");
    return -EIO;
}

int creader_read(struct creader *r, uint64_t ref, uint32_t count, uint64_t skip, void *buf, size_t len, struct verr *err)
{
    int code = check_refs(ref, count, err);
    if (code < 0 || len == 0)
        return code;
    code = read_once(r, ref, count, skip, buf, len, err);
    if (code == -ESTALE)
        code = stale_again(read_once(r, ref, count, skip, buf, len, err), err);
    return code;
}

int creader_entries(struct creader *r, uint64_t ref, uint32_t count, struct footer_entry *out, struct verr *err)
{
    int code = check_refs(ref, count, err);
    if (code < 0 || count == 0)
        return code;
    code = entries_once(r, ref, count, out, err);
    if (code == -ESTALE)
        code = stale_again(entries_once(r, ref, count, out, err), err);
    return code;
}

int creader_version(struct creader *r, uint64_t number, struct vid *version, uint32_t *ordinals, struct verr *err)
{
    struct cfile *c;
    int code = cfile_get(r, number, &c, err);
    if (code == -ESTALE)
        code = stale_again(cfile_get(r, number, &c, err), err);
    if (code < 0)
        return code;
    pthread_mutex_lock(&c->lock);
    const struct section *last = c->nsections == 0 ? NULL : &c->section[c->nsections - 1];
    *version = c->id.version;
    *ordinals = last == NULL ? 0 : last->first_ordinal + last->entries;
    pthread_mutex_unlock(&c->lock);
    cfile_put(r, c);
    return 0;
}

void creader_forget(struct creader *r, uint64_t number)
{
    pcache_forget(r->pages, number);
    cfile_forget(r, number);
}

/* ---- the reader ---- */

int creader_new(struct store *st, size_t cache_bytes, struct creader **out, struct verr *err)
{
    struct creader *r = calloc(1, sizeof *r);
    if (r == NULL || fcache_new(cache_bytes, &r->frames) < 0 || (r->pages = pcache_new()) == NULL) {
        if (r != NULL)
            fcache_free(r->frames);
        free(r);
        return verr_set(err, ENOMEM, "making a container reader: out of memory for a cache of %zu bytes", cache_bytes);
    }
    r->st = st;
    r->open_max = files_allowed(8, OPEN_MAX);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->unpinned, NULL);
    pthread_mutex_init(&r->unpack_lock, NULL);
    *out = r;
    return 0;
}

void creader_free(struct creader *r)
{
    if (r == NULL)
        return;
    cfile_free_all(r);
    while (r->unpack != NULL) {
        struct unpackers *p = r->unpack;
        r->unpack = p->next;
        funpack_free(p->u);
        free(p);
    }
    fcache_free(r->frames);
    pcache_free(r->pages);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->unpinned);
    pthread_mutex_destroy(&r->unpack_lock);
    free(r);
}
