/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sections: which parts of a container file are sealed.
 *
 * Trailers are followed backwards from the end of the file. A file that does not end in a trailer is walked forwards, frame by
 * frame, from the last known sealed section, because sections before a torn tail count. The rest is searched for a later
 * trailer: if there is one that does not connect, a section in between is damaged, which is no torn tail. Every trailer must
 * name this file version and lie where its own fields say, so that a copy of a trailer inside a stored frame does not count.
 */
#include "store/layout_internal.h"
#include "store/read_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SEARCH_BYTES = 64 * 1024 };

/* Reads the trailer at pos if it belongs to this file: 1, 0: there is none, -errno. any_version: the version is unknown, because the
 * header cannot be read. */
static int trailer_at(const struct cfile *c, uint64_t pos, bool any_version, struct ctrailer *out)
{
    uint8_t bytes[CTRAILER_BYTES];
    ssize_t n = bf_read(c->f, bytes, sizeof bytes, pos);
    if (n < 0)
        return (int)n;
    struct ctrailer t;
    if (n != (ssize_t)sizeof bytes || pos > UINT32_MAX || ctrailer_decode(bytes, &t, NULL) < 0)
        return 0;
    struct container_id id = c->id;
    if (any_version)
        id.version = t.id.version;
    if (!container_id_eq(&t.id, &id) || trailer_end(&t) != pos + CTRAILER_BYTES)
        return 0;
    *out = t;
    return 1;
}

static uint32_t next_ordinal(const struct cfile *c)
{
    return c->nsections == 0 ? 0 : c->section[c->nsections - 1].first_ordinal + c->section[c->nsections - 1].entries;
}

static int section_add(struct cfile *c, const struct ctrailer *t)
{
    if (c->nsections == c->sections_room) {
        uint32_t room = c->sections_room == 0 ? 4 : c->sections_room * 2;
        struct section *more = realloc(c->section, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        c->section = more;
        c->sections_room = room;
    }
    uint64_t end = trailer_end(t);
    c->section[c->nsections++] = (struct section){
        .first_ordinal = t->first_ordinal, .entries = t->entries, .section_off = (uint32_t)t->section_off,
        .footer_off = (uint32_t)t->footer_off, .trailer_off = (uint32_t)(end - CTRAILER_BYTES),
    };
    c->sealed_end = end;
    return 0;
}

/* ---- backwards ---- */

struct chain {
    struct ctrailer *t;     /* newest first */
    uint32_t n, room;
    bool complete;          /* reaches a section that is known already */
};

static int chain_push(struct chain *ch, const struct ctrailer *t)
{
    if (ch->n == ch->room) {
        uint32_t room = ch->room == 0 ? 8 : ch->room * 2;
        struct ctrailer *more = realloc(ch->t, room * sizeof *more);
        if (more == NULL)
            return -ENOMEM;
        ch->t = more;
        ch->room = room;
    }
    ch->t[ch->n++] = *t;
    return 0;
}

/* Follows the trailers from the one at pos down to c->sealed_end. Each section must end where the later one begins. */
static int chain_read(const struct cfile *c, uint64_t pos, struct chain *ch)
{
    ch->n = 0;
    ch->complete = false;
    while (pos > c->sealed_end) {
        struct ctrailer t;
        int r = trailer_at(c, pos, false, &t);
        if (r <= 0)
            return r;
        const struct ctrailer *later = ch->n > 0 ? &ch->t[ch->n - 1] : NULL;
        if (t.section_off < c->sealed_end || t.first_ordinal < next_ordinal(c))
            return 0;
        if (later != NULL && (t.section + 1 != later->section || t.first_ordinal + t.entries != later->first_ordinal))
            return 0;
        if ((r = chain_push(ch, &t)) < 0)
            return r;
        if (t.section_off == c->sealed_end) {
            ch->complete = t.first_ordinal == next_ordinal(c);
            return 0;
        }
        pos = t.prev_trailer;
    }
    return 0;
}

static int chain_take(struct cfile *c, const struct chain *ch)
{
    int r = 0;
    for (uint32_t i = ch->n; r == 0 && i > 0; i--)
        r = section_add(c, &ch->t[i - 1]);
    return r;
}

/* ---- forwards ---- */

/* Adds the section that begins at c->sealed_end: 1: added, 0: it is not sealed, -errno. */
static int section_forward(struct cfile *c, uint64_t size)
{
    uint64_t off = c->sealed_end;
    uint32_t first = next_ordinal(c), next = first;
    uint8_t head[CFRAME_BYTES];
    struct cframe f;
    while (off < size) {
        ssize_t n = bf_read(c->f, head, sizeof head, off);
        if (n < 0)
            return (int)n;
        if (n != (ssize_t)sizeof head || cframe_decode(head, &f, NULL) < 0 || !container_id_eq(&f.id, &c->id) || f.first_ordinal != next)
            break;
        next += f.blocks;
        off += CFRAME_BYTES + (uint64_t)f.stored_len;
    }
    struct ctrailer t;
    uint64_t pos = off + (uint64_t)footer_pages(next - first) * FOOTER_PAGE_BYTES;
    int r = next == first || pos >= size ? 0 : trailer_at(c, pos, false, &t);
    if (r <= 0)
        return r;
    if (t.section_off != c->sealed_end || t.footer_off != off || t.first_ordinal != first || t.entries != next - first)
        return 0;
    r = section_add(c, &t);
    return r < 0 ? r : 1;
}

/* ---- the search for a later trailer ---- */

/* Finds the offset of the last trailer of this file in [from, size), or 0. */
static int last_trailer(const struct cfile *c, uint64_t from, uint64_t size, bool any_version, uint64_t *out)
{
    uint8_t *buf = malloc(SEARCH_BYTES);
    if (buf == NULL)
        return -ENOMEM;
    static const char magic[] = "varveTRL";
    enum { MAGIC = sizeof magic - 1 };
    int r = 0;
    *out = 0;
    for (uint64_t pos = from; r >= 0 && pos + CTRAILER_BYTES <= size; pos += SEARCH_BYTES - MAGIC + 1) {
        ssize_t n = bf_read(c->f, buf, SEARCH_BYTES, pos);
        if (n < 0) {
            r = (int)n;
            break;
        }
        const uint8_t *p = buf, *end = buf + n;
        while (r >= 0 && (p = memmem(p, (size_t)(end - p), magic, MAGIC)) != NULL) {
            struct ctrailer t;
            r = trailer_at(c, pos + (uint64_t)(p - buf), any_version, &t);
            if (r > 0)
                *out = pos + (uint64_t)(p - buf);
            p++;
        }
    }
    free(buf);
    return r < 0 ? r : 0;
}

int sections_any(struct cfile *c, uint64_t size)
{
    uint64_t pos;
    int r = last_trailer(c, 0, size, true, &pos);
    return r < 0 ? r : pos != 0;
}

static int load_torn(struct cfile *c, uint64_t size, struct chain *ch)
{
    int r;
    while ((r = section_forward(c, size)) > 0)
        ;
    if (r < 0 || c->sealed_end >= size)
        return r;
    uint64_t pos;
    r = last_trailer(c, c->sealed_end, size, false, &pos);
    if (r < 0 || pos == 0)
        return r;
    /* If a writer sealed a section between the two looks, the chain connects. */
    r = chain_read(c, pos, ch);
    if (r < 0)
        return r;
    if (!ch->complete)
        c->damaged = true;
    return chain_take(c, ch);
}

int sections_load(struct cfile *c, uint64_t size)
{
    struct chain ch = {0};
    int r = 0;
    if (size >= c->sealed_end + CTRAILER_BYTES)
        r = chain_read(c, size - CTRAILER_BYTES, &ch);
    if (r == 0 && ch.complete)
        r = chain_take(c, &ch);
    else if (r == 0 && size > c->sealed_end)
        r = load_torn(c, size, &ch);
    free(ch.t);
    return r;
}
