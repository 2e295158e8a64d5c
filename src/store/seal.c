/* SPDX-License-Identifier: Apache-2.0 */
/* seal: footers and trailers of sections, and the order in which they become durable (see append.c). */
#include "base/fault.h"
#include "store/append_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Writes the footer pages of the open section, as many at a time as the scratch buffer holds. No frame is under way. */
static int footer_write(struct cwriter *w)
{
    uint8_t *buf = fpack_scratch(w->frame[0].pack);
    size_t used = 0;
    for (uint32_t i = 0; i < w->entries; i += FOOTER_PAGE_ENTRIES) {
        uint32_t n = w->entries - i < FOOTER_PAGE_ENTRIES ? w->entries - i : FOOTER_PAGE_ENTRIES;
        footer_page_encode(&w->file.id, w->file.first_ordinal + i, w->entry + i, n, buf + used);
        used += FOOTER_PAGE_BYTES;
        if (used + FOOTER_PAGE_BYTES > FRAME_RAW_MAX || i + n == w->entries) {
            int r = cw_write(w, buf, used);
            if (r < 0)
                return r;
            used = 0;
        }
    }
    return 0;
}

/* Closes the open section except for its trailer, which is put into *out. */
static int section_close(struct cwriter *w, struct waiting *out)
{
    struct cw_file *f = &w->file;
    struct ctrailer t = {.id = f->id, .section = f->section, .first_ordinal = f->first_ordinal, .entries = w->entries,
                         .section_off = f->section_off, .footer_off = f->off, .prev_trailer = f->prev_trailer};
    int r = footer_write(w);
    if (r < 0)
        return r;
    w->entries = 0;
    *out = (struct waiting){.f = f->f, .trailer_off = f->off, .trailer = t};
    return 0;
}

static int data_sync(struct cwriter *w, const struct waiting *wait)
{
    int r = -fault_errno("store.seal.fdatasync");
    if (r == 0)
        r = bf_fsync(wait->f);
    if (r < 0) {
        w->unsure = true;
        container_condemn(w->st, wait->trailer.id.container);
    }
    return r < 0 ? cw_fail(w, wait->trailer.id.container, r, "fdatasync of") : 0;
}

static int trailer_write(struct cwriter *w, const struct waiting *wait)
{
    uint8_t bytes[CTRAILER_BYTES];
    ctrailer_encode(&wait->trailer, bytes);
    int r = -fault_errno("store.seal.trailer");
    if (r == 0)
        r = bf_write(wait->f, bytes, sizeof bytes, wait->trailer_off, false);
    if (r < 0)
        return cw_fail(w, wait->trailer.id.container, r, "writing the trailer of");
    w->stored += sizeof bytes;
    return 0;
}

/* fsync of all files -> trailers of all -> fsync of all. */
static int trailers(struct cwriter *w, unsigned n)
{
    const struct waiting *wait = w->waiting;
    int r = 0;
    for (unsigned i = 0; i < n; i++) /* write-back of all files begins before the first fsync, which returns errors */
        (void)bf_start(wait[i].f, 0, 0);
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = data_sync(w, &wait[i]);
    fault_point("store.seal.before_trailer");
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = trailer_write(w, &wait[i]);
    fault_point("store.seal.after_trailer");
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = data_sync(w, &wait[i]);
    return r;
}

/*
 * After a failed fsync the page cache may show a trailer that the disk does not have. A byte behind the trailer makes the file
 * end in a torn tail, so that no writer goes on in it. If this fails too, only a reboot shows what the disk has.
 */
static void leave_behind(struct cwriter *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        (void)bf_write(w->waiting[i].f, "", 1, w->waiting[i].trailer_off + CTRAILER_BYTES, false);
}

static void waiting_close(struct cwriter *w)
{
    for (unsigned i = 0; i < w->nwaiting; i++)
        bf_close(w->waiting[i].f);
    w->nwaiting = 0;
}

int cw_file_full(struct cwriter *w)
{
    int r = 0;
    if (w->nwaiting == WAITING_MAX) {
        r = trailers(w, w->nwaiting);
        if (r < 0)
            leave_behind(w, w->nwaiting);
        waiting_close(w);
    }
    if (r == 0)
        r = section_close(w, &w->waiting[w->nwaiting]);
    if (r < 0)
        return r;
    w->nwaiting++;
    w->file = (struct cw_file){.f = NULL}; /* the open file waits */
    return 0;
}

int cw_sync_dirs(struct cwriter *w)
{
    for (unsigned i = 0; i < w->ndirs; i++) {
        char dir[32];
        snprintf(dir, sizeof dir, "containers/%06x", w->dirs[i]);
        int r = bk_sync(w->st->b, dir);
        if (r < 0)
            return verr_set(&w->dead, -r, "fsync of %s/%s: %s", w->st->path, dir, strerror(-r));
    }
    w->ndirs = 0;
    return 0;
}

/* Begins a new section of the open file behind its trailer. */
static void section_next(struct cwriter *w, const struct waiting *sealed)
{
    struct cw_file *f = &w->file;
    f->prev_trailer = sealed->trailer_off;
    f->off = f->hint = sealed->trailer_off + CTRAILER_BYTES;
    f->section++;
    cw_section_begin(f);
    container_sealed(w->st, f->id.container, &f->id.version, f->off);
}

int cw_seal(struct cwriter *w)
{
    unsigned n = w->nwaiting;
    struct waiting *open_file = &w->waiting[n];
    bool in_section = w->entries > 0;
    int r = in_section ? section_close(w, open_file) : 0;
    if (r < 0)
        return r;
    n += in_section;
    r = trailers(w, n);
    if (r == 0)
        r = cw_sync_dirs(w);
    if (r < 0)
        leave_behind(w, n);
    else if (in_section)
        section_next(w, open_file);
    waiting_close(w);
    fault_point("store.seal.done");
    return r;
}
