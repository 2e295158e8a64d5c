/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_internal: what the files of verify share. Verify goes in passes, each of which needs little memory:
 *
 *   1 snapshots    checks each recipe file by itself; marks the places of segment recipes that are used, one bit each
 *   2 containers   checks footers, and with read_data every frame and fingerprint; keeps bad ones as ranges of references
 *   3 recipes      checks each used segment recipe once, its blocks against footers and the bad ranges
 *   4 hits         only if there are problems: reads snapshots again, and compares their runs with the bad ranges of places
 *   5 names        checks node records, side files, trash; finds files that are not varve's
 *   6 fence        checks owner records, deletion logs, leases
 *   7 index        checks each file; with read_data, compares live entries with the blocks that pass 2 has seen
 *
 * Problems are reported with their hits at the end.
 */
#ifndef VARVE_CHECK_INTERNAL_H
#define VARVE_CHECK_INTERNAL_H

#include "check/check.h"
#include "format/recipe.h"
#include "store/store.h"

struct container_info;
struct creader;
struct segread;
struct fper;
struct snap;

/* ---- check_ranges.c ---- */

/* A set of places: for each container in it, one bit for each ordinal. */
struct placeset_item { uint64_t container; uint32_t nbits; bool used; uint64_t *bits; };
struct placeset { struct placeset_item *items; size_t cap, n; };
int placeset_add(struct placeset *s, uint64_t place, uint32_t count);
bool placeset_has(const struct placeset *s, uint64_t place);
struct placeset_item *placeset_find(const struct placeset *s, uint64_t container);
uint64_t placeset_count(const struct placeset_item *item);
void placeset_release(struct placeset *s);

/* Ranges of references that cannot be read, each with the problem that says why. Sorted before badlist_next is called. */
enum { NO_PROBLEM = 1 << 30 };  /* a problem beyond max_problems, which is only counted */
struct bad { uint64_t first, last, reach; int problem; };   /* reach: the highest `last` of this item and those before it */
struct badlist { struct bad *v; size_t n, cap; };
int badlist_add(struct badlist *l, uint64_t first, uint64_t last, int problem);
void badlist_sort(struct badlist *l);
/* The first item at or after *at that touches first..last, or NULL. *at: 0 for the first call; moved on by each. */
const struct bad *badlist_next(const struct badlist *l, uint64_t first, uint64_t last, size_t *at);
void badlist_release(struct badlist *l);

/* ---- check_verify.c ---- */

/* A hit without its name. */
struct hit_id { struct vid disk, snap; uint64_t seq; bool anchor; };

struct problem {
    enum check_severity severity;
    char file[128], what[400];
    struct check_hit *hits;     /* NULL until the first one */
    unsigned nhits;
    uint64_t hits_total;
    struct hit_id last;         /* the last hit: snapshots come one after another, so this is enough to count each once */
};

struct badcontainer { uint64_t number; int problem; };

struct checker {
    struct store *st;
    const struct check_opts *o;
    struct check_report *rep;
    struct creader *reader;
    struct segread *segread;
    struct fper *fper;          /* the store's fingerprints and digests */
    struct fper *sha256;        /* for digests of runs */
    uint8_t *buf;               /* SEG_BYTES */
    struct problem *problems;
    size_t nproblems, problems_cap;
    struct placeset places;             /* used segment recipes */
    struct badlist blocks, recipes;     /* bad references, bad places */
    struct badcontainer *broken;        /* containers that cannot be looked into, with the problem of each */
    size_t nbroken, broken_cap;
    struct hit_id *hit;                 /* snapshots hit so far */
    size_t nhit, hit_cap;
    size_t nhit_files;                  /* how many of them have a damaged recipe file (pass 1) */
    uint64_t *known;                    /* with read_data: filter of the blocks that may be in the index (check_index.c) */
};

/* Records a problem. Its number; NO_PROBLEM when there are too many; -ENOMEM. */
int check_add(struct checker *k, enum check_severity severity, const char *file, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The problem (NO_PROBLEM allowed) hits this snapshot. 0 or -ENOMEM. */
int check_hit(struct checker *k, int problem, const struct check_hit *hit);
/* 0, or -EINTR. */
int check_progress(struct checker *k, const char *what, uint64_t done, uint64_t total, struct verr *err);
/* Is the error damage, which is reported and passed over? Any other error ends verify. */
bool check_is_damage(int r);

/* ---- passes ---- */
int check_snapshots(struct checker *k, struct verr *err);       /* 1: check_snaps.c */
int check_hits(struct checker *k, struct verr *err);            /* 4 */
int check_containers(struct checker *k, struct verr *err);      /* 2, 3: check_scrub.c */
int check_names(struct checker *k, struct verr *err);           /* 5: check_names.c */
int check_trash(struct checker *k, struct verr *err);           /*    check_trash.c */
int check_fence(struct checker *k, struct verr *err);           /* 6: check_fence.c */
int check_index(struct checker *k, struct verr *err);           /* 7: check_index.c */
/* For pass 2: make the filter, and add a live block to it. */
int check_known_begin(struct checker *k, struct verr *err);
void check_known_add(struct checker *k, const struct fp *fp, uint64_t ref);
/* May blocks of this container be in the index? */
bool check_indexed(const struct container_info *info);
void check_hit_name(struct store *st, const struct snaprcp *rcp, struct check_hit *hit);

#endif
