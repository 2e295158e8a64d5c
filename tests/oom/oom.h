/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oom: runs an operation again and again, each time with memory failing at another place: at the k-th allocation, k = 1, 2, ...
 * until a run meets no failure; once, and from there on for ever. What must hold for each k:
 *
 *   no crash; no memory, no descriptor left behind
 *   the operation succeeds (it could do without), and what it made is whole; or it fails with -ENOMEM and says so
 *   it never takes lack of memory for damage (EBADMSG), for absence (ENOENT) or for success
 *   the same operation succeeds afterwards, and all data are there
 *
 * The same is asked when system calls fail instead (OOM_IO=1), with EIO for ENOMEM.
 */
#ifndef VARVE_TESTS_OOM_H
#define VARVE_TESTS_OOM_H

#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct oom_op {
    const char *name;
    void (*prepare)(void);              /* the state before it; memory does not fail */
    int (*run)(struct verr *err);       /* 0 or -errno; holds nothing when it returns. May be called again */
    void (*check)(int r);               /* r: of the run. All data must be there; OOM_CHECK */
    void (*cleanup)(void);
    unsigned stride;                    /* of k, behind the first 200; 0 is 1 */
};

#define OOM_CHECK(cond) do { if (!(cond)) oom_broken(#cond, __FILE__, __LINE__); } while (0)
void oom_broken(const char *what, const char *file, int line);     /* counts it and says at which k */
/* For what must work when memory does not fail. */
#define OOM_MUST(call) do { struct verr oom_e_ = {0}; struct verr *err = &oom_e_; int oom_r_ = (int)(call); \
    if (oom_r_ < 0) { fprintf(stderr, "%s:%d: %s: %d %s\n", __FILE__, __LINE__, #call, oom_r_, verr_str(err)); abort(); } } while (0)

/* Called by an operation's callbacks for what it judges to be damage: there is none. */
void oom_judged(const char *what);

/* ---- what fails ---- */

void oom_arm(uint64_t k, bool for_ever);    /* from the next allocation on */
void oom_fail_io(bool io);                  /* system calls instead of memory */
void oom_fail_own(bool own);                /* calls of our own code only */
bool oom_io(void);                          /* is it that? */
bool oom_io_fails(void *caller);            /* asked by each system call: io.c */
bool oom_sync_fails(void *caller);          /* the same, asked by fsync and fdatasync */
bool oom_lost(void);                        /* one of those has failed since oom_arm: what was not durable may be gone */
uint64_t oom_disarm(void);                  /* failures given */
void oom_track(void);                       /* forgets what is allocated now */
unsigned oom_leaks(void);                   /* allocations by our own code since then that are not freed; printed */
const char *oom_site(void);                 /* where the last failure was given */

/* ---- directories ---- */

/* A private directory, removed at the end; below $TMPDIR. */
const char *oom_dir(void);
/* from becomes to, which is emptied first. Sparse files stay so. */
void oom_copy(const char *from, const char *to);

extern const struct oom_op oom_ops[];
extern const unsigned oom_nops;

#endif
