/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check: finds damage in a store, and makes anew what can be made from the rest.
 *
 * A problem is told with the file it lies in, relative to STORE, and with the snapshots that it hits: those that cannot be
 * read whole because of it. All of it may run while hosts use the store: snapshots are listed before containers, so that
 * what a snapshot relies on was sealed before it was looked for. One thread; nothing is changed by check_verify.
 * Damage to an owner record or a deletion log hits no snapshot, but stops publishing. The index is a hint: what is wrong with
 * it is a notice.
 */
#ifndef VARVE_CHECK_CHECK_H
#define VARVE_CHECK_CHECK_H

#include "base/clock.h"
#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;
struct verr;

enum check_severity {
    CHECK_NOTICE = 1,   /* nothing is lost: leftovers, files of somebody else, the index */
    CHECK_DAMAGE = 2,   /* a snapshot or name cannot be read, or nothing can be published */
};

struct check_hit {
    struct vid disk, snap;
    uint64_t seq;
    bool anchor;            /* the recipe was found in anchors/: the snapshot has been removed, a live image relies on it */
    char name[600];         /* path of the snapshot below the mountpoint; its ids where node records do not tell it */
};

enum { CHECK_HITS_MAX = 32 };

struct check_problem {
    enum check_severity severity;
    const char *file, *what;            /* one line each */
    const struct check_hit *hits;       /* at most CHECK_HITS_MAX of them */
    unsigned nhits;
    uint64_t hits_total;
};

struct check_opts {
    bool read_data;             /* decode every frame, recompute every fingerprint and segment digest; follow the index's references */
    unsigned max_problems;      /* told one by one; the rest is only counted. 0: 1000 */
    size_t memory;              /* for decoded frames; 0: 16 MiB. With read_data 16 MiB more are used for the index */
    void (*problem)(void *ctx, const struct check_problem *p);                                      /* may be NULL */
    /* Now and then; what: "snapshots", "containers", "recipes", "index". Non-zero stops with -EINTR. May be NULL. */
    int (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
    void *ctx;
};

struct check_report {
    uint64_t containers, sections, torn_tails, blocks, recipes, bytes_read;    /* torn tails are no damage: left behind */
    uint64_t snapshots, anchors, side_files, nodes;
    uint64_t owners, generations, trash;    /* intact owner records and deletion logs; recipes and side files in trash/ */
    uint64_t index_files, index_entries;    /* those that count; hidden entries and tombstones included */
    uint64_t damaged, notices;          /* problems of each kind */
    uint64_t index_notices;             /* of the notices: the index is wrong, which varve rebuild --index mends */
    uint64_t snapshots_hit;             /* snapshots and anchors that at least one problem hits */
};

/* 0 when all could be looked at, whatever was found: damaged > 0 means damage. -errno: it could not go on (a listing failed,
 * memory, -EINTR). rep is filled in either way. */
int check_verify(struct store *st, const struct check_opts *o, struct check_report *rep, struct verr *err);

struct check_rebuilt { uint64_t containers, skipped, entries, condemned, slots; };   /* skipped: damaged containers */

/*
 * Makes index/ anew from the footers of all shared containers, less what the deletion log condemns. Every slot: cleared, one
 * delta, merged. The caller makes sure that no host uses the index. work_dirfd: for temporary files. memory: bound of
 * the sorter and of the merge, 0: 32 MiB. Damaged containers are told and left out: the index is a hint. Crash-safe: an
 * index that is missing entries costs space only; run it again.
 */
int check_rebuild_index(struct store *st, int work_dirfd, size_t memory, const struct check_opts *o, struct check_rebuilt *rep,
                        struct verr *err);

/*
 * Removes STATE/catalog.sqlite and makes it anew from STORE. The caller holds STATE's lock. Damaged records are told
 * through o->problem (CHECK_DAMAGE) and left out; what is only strange is a notice. Pending snapshots come back when the
 * agent reads the journals.
 */
int check_rebuild_catalog(struct store *st, int state_dirfd, const char *state_path, const struct vclock *clock, const struct check_opts *o,
                          struct verr *err);

#endif
