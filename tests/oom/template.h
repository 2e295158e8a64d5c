/* SPDX-License-Identifier: Apache-2.0 */
/* template: a store and a STATE that operations get a copy of: VM web with disk.img, snapshot 1 stored, snapshot 2 pending. */
#ifndef VARVE_TESTS_OOM_TEMPLATE_H
#define VARVE_TESTS_OOM_TEMPLATE_H

#include "oom.h"

#include "live/live.h"
#include "snapshot/segread.h"
#include "snapshot/snapshot.h"
#include "store/container.h"
#include "store/store.h"

enum { T_SIZE = 2 * SEG_BYTES + 300000, T_SLOTS = 1 };
struct t_snap { struct snapref ref; uint8_t *data; };

extern struct vid t_disk, t_vm, t_host;
extern struct t_snap t_stored, t_pending;

void t_prepare(void);               /* a fresh copy below oom_dir()/work; made once */
void t_prepare_empty(void);         /* the same without anything in STATE */
const char *t_store(void);          /* its paths */
const char *t_state(void);
int t_statefd(void);                /* descriptor of the copy; the caller closes it */

/* A store, opened as far as wanted. t_close takes one of any state. */
struct t_open { struct store *st; struct creader *reader; struct segread *segread; };
int t_open(struct t_open *o, struct verr *err);
void t_close(struct t_open *o);
int t_live_open(const struct t_open *o, bool trusted, struct live_set **set, struct live **l, struct verr *err);

/* Reads a stored snapshot whole and compares. -errno of reading; a difference is broken. */
int t_compare(const struct t_open *o, const struct t_snap *s, struct verr *err);
/* Both snapshots are there, the pending one pending or stored; no file was set aside. */
void t_check_all(void);

#endif
