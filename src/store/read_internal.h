/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read_internal: what the files of the reader share: open containers (read_file.c, sections.c), decoded frames and footer pages
 * (read_cache.c), the interface (read.c, walk.c).
 *
 * Locks: cfile.lock (one container) before creader.lock (which files are open) ; cache locks are innermost. No lock of
 * the creader or of a cache is held across I/O or decoding; a cfile's lock is held while its sections are read.
 */
#ifndef VARVE_STORE_READ_INTERNAL_H
#define VARVE_STORE_READ_INTERNAL_H

#include "base/backend.h"
#include "store/container.h"
#include "store/frame_internal.h"

#include <pthread.h>
#include <sys/types.h>
#include <time.h>

enum { OPEN_MAX = 128, FOOTER_PAGES_KEPT = 64, FRAMES_MIN = 8, FIRST_READ = 64 * 1024 };

struct section {
    uint32_t first_ordinal, entries;
    uint32_t section_off, footer_off, trailer_off;
};

/* An open container: the file, and what was read through it. Another version of the same number gets a cfile of its own. */
struct cfile {
    uint64_t number;
    /* guarded by creader.lock */
    unsigned pins;
    uint64_t used;
    bool listed;                /* in creader.files, where it is found by number */
    /* guarded by lock */
    pthread_mutex_t lock;
    bool opened;
    struct bfile *f;
    struct container_id id;
    uint32_t type, flags;
    bool unborn;                /* its header was never written: no section can be sealed */
    bool damaged;               /* an inner section cannot be read: an unknown ordinal is damage, not absence */
    struct section *section;
    uint32_t nsections, sections_room;
    uint64_t sealed_end;        /* end of the last sealed section */
    uint64_t seen_size;
    struct timespec seen_mtime;
    char name[32];              /* "CCCCCC/NNNN.vc" */
};

struct fcache;
struct fslot;
struct pcache;
struct unpackers;

struct creader {
    struct store *st;
    pthread_mutex_t lock;
    pthread_cond_t unpinned;
    unsigned open_max;
    struct cfile *files[OPEN_MAX];
    unsigned nfiles;            /* listed files, and files dropped while pinned: descriptors */
    unsigned nopen;
    uint64_t tick;
    struct fcache *frames;
    struct pcache *pages;
    pthread_mutex_t unpack_lock;
    struct unpackers *unpack;   /* idle decoders */
};

/* ---- read_file.c ---- */
/* Finds the container open, or opens it, and pins it. -ENODATA: no such file; -EBADMSG; -ESTALE. */
int cfile_get(struct creader *r, uint64_t number, struct cfile **out, struct verr *err);
void cfile_put(struct creader *r, struct cfile *c);
/* Makes the next cfile_get open the file anew; threads that have this cfile pinned go on using it. */
void cfile_drop(struct creader *r, struct cfile *c);
void cfile_forget(struct creader *r, uint64_t number);     /* drops it when it is open */
void cfile_free_all(struct creader *r);
int cfile_fail(const struct creader *r, const struct cfile *c, int code, const char *what, struct verr *err);
/* The section of an ordinal; looks for new sections when no known one has it. -ENODATA, -EBADMSG; -ESTALE: reopen the file. */
int cfile_section(struct creader *r, struct cfile *c, uint32_t ordinal, struct section *out, struct verr *err);

/* ---- sections.c ---- */
/* Adds sections that were sealed since the last call. The caller holds c->lock. -ENOMEM, or -errno of a read. */
int sections_load(struct cfile *c, uint64_t size);
/* Has a file without a readable header a sealed section? 1, 0, -errno. */
int sections_any(struct cfile *c, uint64_t size);

/* ---- read_cache.c: decoded frames ---- */
struct frame_key { uint64_t container; struct vid version; uint32_t off; };
int fcache_new(size_t bytes, struct fcache **out);
void fcache_free(struct fcache *fc);
/* Pins the slot of the frame. *load: the slot is empty; the caller fills it and calls fcache_loaded. */
struct fslot *fcache_get(struct fcache *fc, const struct frame_key *key, bool *load);
/* Is the frame in the cache, or being loaded? */
bool fcache_has(struct fcache *fc, const struct frame_key *key);
/* Ends a load. good false: the load failed; the slot is emptied and unpinned. */
void fcache_loaded(struct fcache *fc, struct fslot *s, bool good);
void fcache_put(struct fcache *fc, struct fslot *s);
uint8_t *fslot_data(struct fslot *s);
struct cframe *fslot_frame(struct fslot *s);

/* ---- read_cache.c: footer pages ---- */
struct pcache *pcache_new(void);
void pcache_free(struct pcache *pc);
/* Copies entries [from, from + n) of the page; false: the page is not in the cache. */
bool pcache_find(struct pcache *pc, const struct frame_key *key, uint32_t from, uint32_t n, struct footer_entry *out);
void pcache_forget(struct pcache *pc, uint64_t container);
void pcache_add(struct pcache *pc, const struct frame_key *key, const struct footer_entry *entries, uint32_t n);

/* ---- read.c ---- */
/* Reads up to `count` entries from `ordinal` on, not beyond its footer page. The number of entries. */
int footer_slice(struct creader *r, struct cfile *c, uint32_t ordinal, uint32_t count, struct footer_entry *out, struct verr *err);
/* Reads one footer page of a known section from the file, past the cache. */
int footer_page_read(struct creader *r, struct cfile *c, const struct section *s, uint32_t page,
                     struct footer_entry out[FOOTER_PAGE_ENTRIES], uint32_t *n, struct verr *err);

#endif
