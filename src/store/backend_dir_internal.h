/* SPDX-License-Identifier: Apache-2.0 */
/* backend_dir_internal: what backend_dir.c (the operations) and backend_dir_refs.c (the table of open directories) share. */
#ifndef VARVE_STORE_BACKEND_DIR_INTERNAL_H
#define VARVE_STORE_BACKEND_DIR_INTERNAL_H

#include "store/backend_dir.h"

#include <pthread.h>

enum { DIRS_KEPT = 48, DIR_MAX = 96, DURABLE_ENTRIES = 256 };

struct dirref {
    char dir[DIR_MAX];
    int fd;
    dev_t dev;
    ino_t ino;
    /* guarded by backend_dir.lock */
    unsigned pins;
    uint64_t used;
    bool listed, held;          /* held: never closed before the backend is */
};

struct backend_dir {
    struct backend base;        /* first */
    struct dirref root;
    bool shared;                /* other hosts may write here: lists are made anew */
    bool read_only;             /* every change is refused; does not change once threads use the backend */
    pthread_mutex_t lock;
    struct dirref *kept[DIRS_KEPT];
    unsigned nkept;
    uint64_t tick;
    uint64_t durable[DURABLE_ENTRIES];  /* digests of directories whose entry this mount has fsynced, so that it need not do so again */
};

/* The directory, open and pinned until dirref_put. -ENAMETOOLONG; or -errno of opening it. */
int dirref_get(struct backend_dir *bd, const char *dir, struct dirref **out);
void dirref_put(struct backend_dir *bd, struct dirref *d);
/* Adds a pin to a directory that is pinned already. */
void dirref_pin(struct backend_dir *bd, struct dirref *d);
/* Opens `rest` relative to `up`, pinned and in no table; dir: its name relative to STORE. */
int dirref_open(const struct dirref *up, const char *rest, const char *dir, struct dirref **out);
/* Sets read_only of the backend if nothing can be changed in the directory. Before other threads use the backend, as dirref_hold. */
void dirref_look(struct backend_dir *bd, const struct dirref *d);
/* Opens the directory and keeps it open until the backend is closed. */
int dirref_hold(struct backend_dir *bd, const char *dir);
void dirref_close_all(struct backend_dir *bd);

#endif
