/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check: finds damage in a store, and rebuilds index and catalog, which repeat what other files hold.
 *
 * A problem is reported with its file, relative to STORE, and with the snapshots that it hits: snapshots that cannot be read
 * completely because of it. Verify changes nothing and may run while hosts use the store: it lists snapshots before containers, so
 * that the containers of a listed snapshot are sealed already. Each call uses one thread.
 * Damage to an owner record or a deletion log hits no snapshot, but stops publishing. The index is a hint: its faults are notices.
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
    CHECK_NOTICE = 1,   /* nothing is lost: leftovers, files that are not varve's, faults of the index */
    CHECK_DAMAGE = 2,   /* a snapshot or name cannot be read, or nothing can be published */
};

struct check_hit {
    struct vid disk, snap;
    uint64_t seq;
    bool anchor;            /* the recipe is in anchors/: the snapshot was removed, but a live image points to it */
    char name[600];         /* path of the snapshot below the mountpoint, or its ids if node records do not say the path */
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
    bool read_data;             /* decode every frame, recompute every fingerprint and segment digest, follow the index's references */
    unsigned max_problems;      /* as many are reported one by one, further ones are only counted; 0: 1000 */
    size_t memory;              /* bytes for decoded frames; 0: 16 MiB. With read_data 16 MiB more are used for the index */
    void (*problem)(void *ctx, const struct check_problem *p);                                      /* may be NULL */
    /* Called now and then; what: "snapshots", "containers", "recipes", "index". Non-zero stops with -EINTR. May be NULL. */
    int (*progress)(void *ctx, const char *what, uint64_t done, uint64_t total);
    void *ctx;
};

struct check_report {
    uint64_t containers, sections, torn_tails, blocks, recipes, bytes_read;    /* torn tails are no damage: a crash leaves them */
    uint64_t snapshots, anchors, side_files, nodes;
    uint64_t owners, generations, trash;    /* intact owner records and deletion logs; recipes and side files in trash/ */
    uint64_t index_files, index_entries;    /* intact files; their entries with hidden ones and tombstones */
    uint64_t damaged, notices;          /* problems of each severity */
    uint64_t index_notices;             /* of the notices: faults of the index, which varve rebuild --index repairs */
    uint64_t snapshots_hit;             /* snapshots and anchors that at least one problem hits */
};

/* 0: everything was checked; rep->damaged > 0 means damage. -errno: verify could not go on (a listing failed, memory, -EINTR). rep is
 * filled in either way. */
int check_verify(struct store *st, const struct check_opts *o, struct check_report *rep, struct verr *err);

struct check_rebuilt { uint64_t containers, skipped, entries, condemned, slots; };   /* skipped: damaged containers */

/*
 * Makes index/ anew from the footers of all shared containers, without blocks that the deletion log condemns. Every slot is cleared
 * and gets one delta, which is merged. The caller makes sure that no host uses the index. work_dirfd: for temporary files.
 * memory: bytes for the sorter and for the merge, 0: 32 MiB. Damaged containers are reported and left out, because the index is a
 * hint. After a crash the index lacks entries, which costs space only; another call makes it complete.
 */
int check_rebuild_index(struct store *st, int work_dirfd, size_t memory, const struct check_opts *o, struct check_rebuilt *rep,
                        struct verr *err);

/*
 * Removes STATE/catalog.sqlite and makes it anew from STORE. The caller holds STATE's lock. o->problem gets damaged records
 * (CHECK_DAMAGE), which are left out, and oddities (CHECK_NOTICE). Pending snapshots come back when the agent reads the journals.
 */
int check_rebuild_catalog(struct store *st, int state_dirfd, const char *state_path, const struct vclock *clock, const struct check_opts *o,
                          struct verr *err);

#endif
