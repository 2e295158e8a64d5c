/* SPDX-License-Identifier: Apache-2.0 */
/* append_internal: the writer of containers, as append.c (blocks, frames, files) and seal.c (footers, trailers, durability) share it. */
#ifndef VARVE_STORE_APPEND_INTERNAL_H
#define VARVE_STORE_APPEND_INTERNAL_H

#include "base/backend.h"
#include "base/pool.h"
#include "base/verr.h"
#include "store/container.h"
#include "store/frame_internal.h"
#include "store/layout_internal.h"

enum {
    SECTION_ENTRIES = 128 * 1024,       /* entries of the open section, in memory: 6 MiB; those of one more frame may come on top */
    ORDINALS_FULL = (1 << ORDINAL_BITS) - SECTION_ENTRIES - FRAME_RAW_MAX - 1,
    WAITING_MAX = 8, DIRS_MAX = 4,
    FRAMES_MAX = 4,                     /* frames under way on a pool, and the frame that is filled */
};

struct cw_file {            /* the file that is appended to */
    struct bfile *f;        /* NULL: none */
    struct container_id id;
    uint64_t off;           /* its end */
    uint64_t hint;          /* write-back was started up to here */
    uint32_t next_ordinal;
    uint32_t section;       /* number of the open section; the members below describe it */
    uint32_t first_ordinal;
    uint64_t section_off, prev_trailer;
};

struct waiting {            /* a full file: all written but the trailer */
    struct bfile *f;
    uint64_t trailer_off;
    struct ctrailer trailer;
};

struct cw_frame {
    struct pool_task task;      /* first */
    struct fpack *pack;
    struct cframe f;
    uint32_t entry;             /* the frame's first footer entry; its entries get their place when the frame is written */
    int rc;                     /* 0: bytes and len are to be written; else why says what failed */
    const char *why;
    const uint8_t *bytes;
    size_t len;
};

struct cwriter {
    struct store *st;
    uint32_t type, flags;
    struct pool *pool;
    struct cw_frame frame[FRAMES_MAX];      /* a ring: `busy` frames from `first` on are compressed, the one behind them is filled */
    unsigned nframes, first, busy;
    struct cw_file file;
    uint32_t frame_len, frame_blocks;       /* of the frame that is filled */
    struct footer_entry *entry;             /* of the open section */
    uint32_t entries, entries_room;
    struct waiting waiting[WAITING_MAX + 1];  /* one more for the open file during a seal */
    unsigned nwaiting;
    uint32_t dirs[DIRS_MAX];                /* claim directories with new files since the last seal */
    unsigned ndirs;
    uint64_t written;                       /* container written to last */
    uint64_t stored;
    bool unsure;                            /* an fsync or write-back failed: the content of the files is unknown */
    struct verr dead;                       /* code != 0: the first error */
};

/* All of these record their error in w->dead. */
int cw_fail(struct cwriter *w, uint64_t number, int r, const char *doing);
int cw_write(struct cwriter *w, const void *data, size_t len);         /* at the end of the file */
void cw_section_begin(struct cw_file *f);
void cw_file_close(struct cwriter *w);
int cw_file_full(struct cwriter *w);    /* writes the footer, and moves the open file to `waiting` */
int cw_sync_dirs(struct cwriter *w);
int cw_seal(struct cwriter *w);         /* makes all appended blocks durable */

#endif
