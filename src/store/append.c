/* SPDX-License-Identifier: Apache-2.0 */
/*
 * append: writes containers.
 *
 * A block goes into the frame in memory; a full frame is compressed, decoded again, compared and written behind the
 * last one. With a pool, several frames are compressed at once; they are still written in order, and the file has the same
 * bytes. The state on disk at each step of a section:
 *
 *     frames                      a torn tail: readers ignore it
 *     frames, footer pages        still a torn tail; fsynced
 *     frames, footer, trailer     a sealed section: readers and later publish checks rely on it
 *
 * The trailer is written only after an fsync of frames and footer, and then has an fsync of its own. With one fsync for all,
 * a power cut could keep the trailer and lose frames; a rebuilt index or a publish check, which look only at footers, would
 * trust it. A file therefore gets at most one trailer per seal. Files that become full before the seal wait with their footers
 * written (struct waiting), so that their write-back runs while the next file is filled.
 */
#include "base/fault.h"
#include "base/verr.h"
#include "store/append_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HINT_BYTES = 8 * 1024 * 1024, ENTRIES_FIRST = 1024 };

int cw_fail(struct cwriter *w, uint64_t number, int r, const char *doing)
{
    char path[32];
    container_path(number, path);
    return store_fail(w->st, DIR_CONTAINERS, path, r, doing, &w->dead);
}

/* Starts write-back up to there. It also returns write errors that earlier write-back has met, and these are final too. */
static int start_writeback(struct cwriter *w, uint64_t upto)
{
    int r = bf_start(w->file.f, w->file.hint, upto - w->file.hint);
    if (r < 0) {
        w->unsure = true;
        container_condemn(w->st, w->file.id.container);
        return cw_fail(w, w->file.id.container, r, "writing");
    }
    w->file.hint = upto;
    return 0;
}

int cw_write(struct cwriter *w, const void *data, size_t len)
{
    int r = -fault_errno("store.append.write");
    if (r == 0)
        r = bf_write(w->file.f, data, len, w->file.off, true);
    if (r < 0)
        return cw_fail(w, w->file.id.container, r, "writing");
    w->file.off += len;
    w->stored += len;
    w->written = w->file.id.container;
    return w->file.off - w->file.hint >= HINT_BYTES ? start_writeback(w, w->file.off) : 0;
}

/* ---- files ---- */

/* Is the file full? Also by its number of entries, which are in memory until the section is closed. Frames under way count with their
 * largest size. */
static bool file_full(const struct cwriter *w, uint32_t entries)
{
    const struct cw_file *f = &w->file;
    uint64_t footer = (uint64_t)footer_pages(entries) * FOOTER_PAGE_BYTES;
    uint64_t coming = (uint64_t)w->busy * (CFRAME_BYTES + FRAME_RAW_MAX);
    return f->off + coming + footer >= CONTAINER_FULL || entries >= SECTION_ENTRIES || f->next_ordinal >= ORDINALS_FULL;
}

void cw_section_begin(struct cw_file *f)
{
    f->section_off = f->off;
    f->first_ordinal = f->next_ordinal;
}

void cw_file_close(struct cwriter *w)
{
    bf_close(w->file.f);
    w->file = (struct cw_file){.f = NULL};
}

static int dir_touched(struct cwriter *w, uint32_t claim)
{
    for (unsigned i = 0; i < w->ndirs; i++)
        if (w->dirs[i] == claim)
            return 0;
    if (w->ndirs == DIRS_MAX) {
        int r = cw_sync_dirs(w);
        if (r < 0)
            return r;
    }
    w->dirs[w->ndirs++] = claim;
    return 0;
}

static int file_new(struct cwriter *w)
{
    struct cw_file f = {.f = NULL};
    int r = container_make(w->st, &f.id.container, &f.f, &w->dead);
    if (r < 0)
        return r;
    f.id.store = w->st->conf.id;
    f.id.version = vid_random();
    w->file = f;
    r = dir_touched(w, (uint32_t)(f.id.container >> 16));
    if (r < 0)
        return r;
    struct cheader h = {.id = f.id, .type = w->type, .flags = w->flags};
    uint8_t bytes[CHEADER_BYTES];
    cheader_encode(&h, bytes);
    r = cw_write(w, bytes, sizeof bytes);
    cw_section_begin(&w->file);
    return r;
}

/* Checks header and last trailer of a file in which the writer would go on, and that it is as this mount left it. Readers check the
 * rest of it. */
static int resume_check(const struct cwriter *w, uint64_t number, struct cw_file *f)
{
    uint8_t head[CHEADER_BYTES], tail[CTRAILER_BYTES];
    struct cheader h;
    struct ctrailer t;
    struct bstat st;
    if (bf_stat(f->f, &st) < 0 || st.bytes < CHEADER_BYTES + CTRAILER_BYTES || st.bytes >= CONTAINER_FULL)
        return -ENODATA;
    if (bf_read(f->f, head, sizeof head, 0) != (ssize_t)sizeof head ||
        bf_read(f->f, tail, sizeof tail, st.bytes - CTRAILER_BYTES) != (ssize_t)sizeof tail)
        return -ENODATA;
    if (cheader_decode(head, &h, NULL) < 0 || ctrailer_decode(tail, &t, NULL) < 0)
        return -ENODATA;
    if (!vid_eq(&h.id.store, &w->st->conf.id) || h.id.container != number || h.type != w->type || h.flags != w->flags)
        return -ENODATA;
    if (!container_id_eq(&h.id, &t.id) || trailer_end(&t) != st.bytes)
        return -ENODATA;
    if (!container_ends(w->st, number, &h.id.version, st.bytes))
        return -ENODATA;
    f->id = h.id;
    f->off = f->hint = st.bytes;
    f->next_ordinal = t.first_ordinal + t.entries;
    f->section = t.section + 1;
    f->prev_trailer = st.bytes - CTRAILER_BYTES;
    return f->next_ordinal >= ORDINALS_FULL ? -ENODATA : 0;
}

/* Goes on in the container `last` if possible. Of two writers with the same `last` only one gets it. */
static void file_resume(struct cwriter *w, uint64_t last)
{
    char path[32];
    container_path(last, path);
    struct cw_file f = {.f = NULL};
    if (bk_append_again(w->st->b, "containers", path, &f.f) < 0)
        return;
    if (resume_check(w, last, &f) < 0) {
        bf_close(f.f);
        return;
    }
    w->file = f;
    cw_section_begin(&w->file);
    w->dirs[w->ndirs++] = (uint32_t)(last >> 16); /* the writer that made the file may have died before it fsynced the directory */
}

/* ---- frames ---- */

static struct cw_frame *frame_filled(struct cwriter *w) { return &w->frame[(w->first + w->busy) % w->nframes]; }

/* On the pool. */
static void frame_pack(struct pool_task *task)
{
    struct cw_frame *fr = (struct cw_frame *)task;
    fr->why = "";
    fr->rc = fpack_close(fr->pack, &fr->f, &fr->bytes, &fr->len, &fr->why);
}

/* Writes the oldest frame under way into the file: only now its place is known. */
static int frame_write(struct cwriter *w)
{
    struct cw_frame *fr = &w->frame[w->first];
    pool_wait(w->pool, &fr->task);
    w->first = (w->first + 1) % w->nframes;
    w->busy--;
    if (fr->rc < 0) {
        char path[32];
        container_path(w->file.id.container, path);
        return verr_set(&w->dead, -fr->rc, "%s/containers/%s: a frame does not read back and was not written (%s): check this host's "
                        "memory", w->st->path, path, fr->why);
    }
    for (uint32_t i = 0; i < fr->f.blocks; i++)
        w->entry[fr->entry + i].frame_off = (uint32_t)w->file.off;
    return cw_write(w, fr->bytes, fr->len);
}

static int frames_finish(struct cwriter *w)
{
    int r = 0;
    while (w->busy > 0 && r == 0)
        r = frame_write(w);
    return r;
}

static int frame_flush(struct cwriter *w)
{
    if (w->frame_blocks == 0)
        return 0;
    struct cw_frame *fr = frame_filled(w);
    fr->f = (struct cframe){.id = w->file.id, .first_ordinal = w->file.next_ordinal - w->frame_blocks, .blocks = w->frame_blocks,
                            .raw_len = w->frame_len};
    fr->entry = w->entries - w->frame_blocks;
    fr->task.run = frame_pack;
    pool_lend(w->pool, &fr->task);
    w->busy++;
    w->frame_blocks = w->frame_len = 0;
    return w->busy == w->nframes ? frame_write(w) : 0;
}

/* Flushes the frame. A file that is full afterwards gets its footer and waits for the seal. */
static int frame_end(struct cwriter *w)
{
    int r = frame_flush(w);
    if (r == 0 && file_full(w, w->entries))
        r = frames_finish(w);
    if (r < 0 || !file_full(w, w->entries))
        return r;
    return cw_file_full(w);
}

static int entries_grow(struct cwriter *w)
{
    uint32_t room = w->entries_room == 0 ? ENTRIES_FIRST : w->entries_room * 2;
    struct footer_entry *more = realloc(w->entry, room * sizeof *more);
    if (more == NULL)
        return verr_set(&w->dead, ENOMEM, "writing a container: out of memory for %u footer entries", room);
    w->entry = more;
    w->entries_room = room;
    return 0;
}

static int append(struct cwriter *w, const struct fp *fp, const void *data, uint32_t len, uint64_t *ref)
{
    int r = 0;
    if (w->frame_len + len > FRAME_RAW_MAX)
        r = frame_end(w);
    if (r == 0 && w->file.f == NULL)
        r = file_new(w);
    if (r == 0 && w->entries == w->entries_room)
        r = entries_grow(w);
    if (r < 0)
        return r;
    w->entry[w->entries++] = (struct footer_entry){.fp = *fp, .in_frame = w->frame_len, .len = len};
    memcpy(fpack_raw(frame_filled(w)->pack) + w->frame_len, data, len);
    w->frame_len += len;
    w->frame_blocks++;
    *ref = ref_make(w->file.id.container, w->file.next_ordinal++);
    return 0;
}

/* ---- the interface ---- */

int cwriter_open(struct store *st, uint32_t type, uint32_t flags, uint64_t last, struct cwriter **out, struct verr *err)
{
    if (type != CONTAINER_BLOCKS && type != CONTAINER_RECIPES)
        return verr_set(err, EINVAL, "opening a container: unknown type %u", type);
    struct cwriter *w = calloc(1, sizeof *w);
    if (w == NULL || (w->frame[0].pack = fpack_new()) == NULL) {
        free(w);
        return verr_set(err, ENOMEM, "opening a container: out of memory");
    }
    w->st = st;
    w->nframes = 1;
    w->type = type;
    w->flags = flags;
    w->written = REF_NONE;
    if (last <= REF_CONTAINER_MAX && !container_condemned(st, last))
        file_resume(w, last);
    *out = w;
    return 0;
}

void cwriter_use_pool(struct cwriter *w, struct pool *pool)
{
    if (pool_threads(pool) == 0)
        return;
    w->pool = pool;
    while (w->nframes < FRAMES_MAX && (w->frame[w->nframes].pack = fpack_new()) != NULL)
        w->nframes++;
}

/* The result of a call: the writer's first error, if there was one, is returned by every later call. */
static int answer(const struct cwriter *w, int r, struct verr *err)
{
    if (r < 0 && err != NULL)
        *err = w->dead;
    return r;
}

int cwriter_append(struct cwriter *w, const struct fp *fp, const void *data, size_t len, uint64_t *ref, struct verr *err)
{
    if (w->dead.code != 0)
        return answer(w, -w->dead.code, err);
    if (len == 0 || len > BLOCK_MAX)
        return verr_set(err, EINVAL, "appending to a container: block of %zu bytes", len);
    return answer(w, append(w, fp, data, (uint32_t)len, ref), err);
}

int cwriter_seal(struct cwriter *w, struct verr *err)
{
    if (w->dead.code != 0)
        return answer(w, -w->dead.code, err);
    int r = frame_flush(w);
    if (r == 0)
        r = frames_finish(w);
    if (r == 0)
        r = cw_seal(w);
    if (r == 0 && w->file.f != NULL && file_full(w, 0))
        cw_file_close(w);
    return answer(w, r, err);
}

uint64_t cwriter_container(const struct cwriter *w) { return w->written; }

uint64_t cwriter_stored(const struct cwriter *w) { return w->stored; }

/* Gives back the space of an unsealed section, to which only this writer has references. Otherwise each attempt on a full store would
 * leave another torn tail. After a failed fsync the file is not touched. */
static void give_back(const struct cwriter *w, struct bfile *f, uint64_t container, uint32_t section, uint64_t section_off, uint64_t end)
{
    char path[32];
    if (w->unsure || f == NULL || (section > 0 && section_off == end))
        return;
    container_path(container, path);
    if (section == 0)
        (void)bk_remove(w->st->b, "containers", path);
    else
        (void)bf_truncate(f, section_off); /* the file ends in its last trailer again; a tail that stays does no harm */
}

void cwriter_free(struct cwriter *w)
{
    if (w == NULL)
        return;
    give_back(w, w->file.f, w->file.id.container, w->file.section, w->file.section_off, w->file.off);
    cw_file_close(w);
    for (unsigned i = 0; i < w->nwaiting; i++) {
        const struct waiting *wait = &w->waiting[i];
        give_back(w, wait->f, wait->trailer.id.container, wait->trailer.section, wait->trailer.section_off, wait->trailer_off);
        bf_close(wait->f);
    }
    for (; w->busy > 0; w->busy--) { /* frames of a writer that failed, or was not sealed */
        pool_wait(w->pool, &w->frame[w->first].task);
        w->first = (w->first + 1) % w->nframes;
    }
    for (unsigned i = 0; i < w->nframes; i++)
        fpack_free(w->frame[i].pack);
    free(w->entry);
    free(w);
}
