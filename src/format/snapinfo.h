/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a snapshot, wherever it is: in a journal of STATE while it is pending, in its recipe once it is stored, in
 * the catalog's row. Each of these records has a format of its own; in memory they are one struct.
 */
#ifndef VARVE_FORMAT_SNAPINFO_H
#define VARVE_FORMAT_SNAPINFO_H

#include "base/id.h"

#include <stdbool.h>
#include <stdint.h>

/* Which snapshot: id and sequence number name its file in STORE, the disk names the directory. */
struct snapref {
    struct vid disk;
    uint64_t seq;
    struct vid snap;
};

static inline bool snapref_eq(const struct snapref *a, const struct snapref *b)
{
    return a->seq == b->seq && vid_eq(&a->snap, &b->snap) && vid_eq(&a->disk, &b->disk);
}

/* Bits are those of the journal's records; the first two are those of recipes and side files as well. */
enum snap_flags {
    SNAP_PROVISIONAL = 1u << 0,     /* made by a close; whether its writer is done is not known yet */
    SNAP_PARTIAL = 1u << 1,         /* its writer died, or a truncating rewrite never ended */
    SNAP_SEALED = 1u << 2,          /* pending: its data are durable in STATE; else volatile */
    SNAP_STARTED = 1u << 3,         /* pending: a round works on it: not replaced any more */
    SNAP_FAILED = 1u << 4,          /* pending: the last attempt to store it failed */
    SNAP_EXPLICIT = 1u << 5,        /* pending: asked for (varve snapshot, label): never superseded */
    SNAP_CLOSED = SNAP_PROVISIONAL | SNAP_EXPLICIT,     /* pending: made by a close, and its writer has released the disk: after a crash
                                                         * it is good; one that is provisional alone is partial then */
    SNAP_RECIPE_FLAGS = SNAP_PROVISIONAL | SNAP_PARTIAL,    /* what recipe, side file and row may say */
    SNAP_PENDING_FLAGS = SNAP_RECIPE_FLAGS | SNAP_SEALED | SNAP_STARTED | SNAP_FAILED | SNAP_EXPLICIT,
};

enum { LABEL_MAX = 64, NOTE_MAX = 1024 };

struct snap_levels {            /* bytes of the disk by what settled them, for `varve log` and `varve status` */
    uint64_t zero, clean, parent_segment, parent_block, common, global, dup_new, fresh;
    uint64_t stored;            /* bytes added to containers (compressed, with overhead) */
};

struct snapinfo {
    struct snapref ref;
    struct vid parent, host;            /* parent: zero if none. Of a pending snapshot both are zero */
    struct vid group;                   /* same for all disks frozen at one instant */
    uint32_t group_members;             /* rows do not keep it: 0 there */
    uint32_t flags;                     /* enum snap_flags */
    uint32_t mode, uid, gid;            /* of the disk at the freeze (mode: of 0555): a later chown of the disk gives nobody older data */
    bool protected_;                    /* said by the side file alone */
    uint64_t size, alloc_bytes, dirty_segments;
    int64_t freeze_ns;                  /* moment of the freeze = mtime of the snapshot */
    int64_t name_s;                     /* time in its name: max(now, last name + 1 s) */
    char label[LABEL_MAX + 1];          /* "": named by time */
    char note[NOTE_MAX + 1];
    struct snap_levels levels;          /* of a stored snapshot */
};

#endif
