/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish: leases, generations and owner epochs: the fence between publishers, adopters and collectors (DESIGN section 7).
 * This interface is small on purpose: an object store will need another implementation.
 */
#ifndef VARVE_STORE_PUBLISH_H
#define VARVE_STORE_PUBLISH_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;
struct verr;

/* Owner epoch of a VM. Makes owners/VM.1 with O_EXCL for this host when the VM has none. *epoch = highest one.
 * -ESTALE: the highest epoch belongs to another host (err names it): this host is fenced from that VM. -EBADMSG: its record
 * is damaged; -ENOTSUP: of a newer version. */
int owner_claim(struct store *st, const struct vid *vm, const struct vid *host, uint64_t *epoch, struct verr *err);

struct lease;   /* generations/G/leases/VM.EPOCH/ */

/* newest generation -> the lease is made -> look again that no higher generation and no higher owner epoch exists.
 * -ESTALE: fenced by a higher owner epoch. A leftover lease of ours (same VM and epoch) is emptied and taken over. */
int lease_take(struct store *st, const struct vid *vm, uint64_t epoch, struct lease **out, struct verr *err);
uint64_t lease_generation(const struct lease *l);

/* The newest deletion log, read uncached: is this reference condemned? Read once by deletions_load, which is called
 * AFTER lease_take and BEFORE footers are read (creader_forget). -EBADMSG: missing or damaged, -ENOTSUP: of a newer version:
 * nothing may be published. */
struct deletions;
int deletions_load(struct lease *l, struct deletions **out, struct verr *err);
bool deletions_has(const struct deletions *d, uint64_t ref);
void deletions_free(struct deletions *d);

/* ---- for verify: the same records, of any epoch and generation, without a lease. Nothing is changed. ---- */

/* fn for each owner record, and for each generation; stray (may be NULL) for each other name there, temporary files excepted.
 * An answer other than 0 ends it and is returned. */
int owner_each(struct store *st, int (*fn)(void *ctx, const struct vid *vm, uint64_t epoch), int (*stray)(void *ctx, const char *name),
               void *ctx, struct verr *err);
int generation_each(struct store *st, int (*fn)(void *ctx, uint64_t generation), int (*stray)(void *ctx, const char *name), void *ctx,
                    struct verr *err);
/* fn for the name of each lease of a generation. 0 also when it has none any more. */
int lease_each(struct store *st, uint64_t generation, int (*fn)(void *ctx, const char *name), void *ctx, struct verr *err);
/* Is there an object of that name, whatever it holds? */
bool owner_exists(struct store *st, const struct vid *vm, uint64_t epoch);
bool generation_exists(struct store *st, uint64_t generation);
/* Digest of the names of all generations: it changes when one is opened. 0: it cannot be had. */
uint64_t generations_digest(struct store *st);
/* -ENOENT; -EBADMSG damaged, or of another store, VM or epoch; -ENOTSUP a newer version. */
int owner_load(struct store *st, const struct vid *vm, uint64_t epoch, struct vid *host, struct verr *err);
/* Reads and checks all of a deletion log; *refs: references in it. -EBADMSG missing or damaged; -ENOTSUP a newer version. */
int deletions_check(struct store *st, uint64_t generation, uint64_t *refs, struct verr *err);

/* Stages a recipe in the lease: written and durable on return. */
int lease_stage(struct lease *l, const char *name, const void *data, size_t len, struct verr *err);
/* The same piecewise: a name that was staged before is staged anew. The lease owns *out. -ESTALE: the lease was revoked. */
struct staged;
int lease_stage_begin(struct lease *l, const char *name, struct staged **out, struct verr *err);
int staged_write(struct staged *s, const void *data, size_t len, uint64_t off);
int lease_stage_end(struct lease *l, struct staged *s, struct verr *err);     /* durable on return */

/* THE commit point: the staged file gets its name dir/target (dir relative to STORE), sync of dir, the staged name goes.
 * 0 also when target is there already and is our own file (retransmission); -EEXIST: a collision;
 * -ESTALE: the lease was revoked: take a new lease, do the publish check again. Durable on return.
 * A failed sync of dir is final for this lease: every later call gives the same error. */
int lease_publish(struct lease *l, const char *name, const char *dir, const char *target, struct verr *err);
/* The same as snapshots/DISK/NAME; the disk's directory is made when it is absent. */
int lease_publish_recipe(struct lease *l, const char *name, const struct vid *disk, struct verr *err);

/* Gives the lease back (empties and removes its directory); frees l. */
void lease_release(struct lease *l);

#endif
