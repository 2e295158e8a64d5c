/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish: leases, generations and owner epochs: the fence between publishers, adopters and collectors
 * (docs/design/publishing.md). Any thread may call these functions; one thread at a time uses a lease.
 */
#ifndef VARVE_STORE_PUBLISH_H
#define VARVE_STORE_PUBLISH_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;
struct verr;

/* Finds the highest owner epoch of a VM, and makes owners/VM.1 for this host if the VM has none; of several hosts only one succeeds.
 * -ESTALE: the highest epoch belongs to another host (err names it), so that this host is fenced from that VM. -EBADMSG: the
 * record is damaged; -ENOTSUP: of a newer version. */
int owner_claim(struct store *st, const struct vid *vm, const struct vid *host, uint64_t *epoch, struct verr *err);

struct lease;   /* generations/G/leases/VM.EPOCH.NONCE/ */

/* Makes a lease in the newest generation, then looks again for a higher generation (the lease is made anew there) or a higher owner
 * epoch (-ESTALE: fenced), then revokes every other lease of this VM and epoch, in all generations: a process that died left them, or a
 * clone of this host's STATE has them. So a VM has one lease at a time, and who takes a second one fences the first. */
int lease_take(struct store *st, const struct vid *vm, uint64_t epoch, struct lease **out, struct verr *err);
uint64_t lease_generation(const struct lease *l);

/* The newest deletion log says which references are condemned. deletions_load reads it, uncached; it is called AFTER lease_take and
 * BEFORE footers are read (creader_forget). -EBADMSG: missing or damaged, -ENOTSUP: of a newer version; the caller must not publish. */
struct deletions;
int deletions_load(struct lease *l, struct deletions **out, struct verr *err);
bool deletions_has(const struct deletions *d, uint64_t ref);
void deletions_free(struct deletions *d);

/* ---- for verify: reads the same records, of any epoch and generation, without a lease ---- */

/* Call fn for each owner record, or for each generation, and stray (may be NULL) for each other name except temporary files. An answer
 * other than 0 ends the list and is returned. */
int owner_each(struct store *st, int (*fn)(void *ctx, const struct vid *vm, uint64_t epoch), int (*stray)(void *ctx, const char *name),
               void *ctx, struct verr *err);
int generation_each(struct store *st, int (*fn)(void *ctx, uint64_t generation), int (*stray)(void *ctx, const char *name), void *ctx,
                    struct verr *err);
/* Calls fn for the name of each lease of a generation. 0 also when the generation has no leases any more. */
int lease_each(struct store *st, uint64_t generation, int (*fn)(void *ctx, const char *name), void *ctx, struct verr *err);
/* Is there an object of that name? Its content is not checked. */
bool owner_exists(struct store *st, const struct vid *vm, uint64_t epoch);
bool generation_exists(struct store *st, uint64_t generation);
/* A digest of the names of all generations, which changes when a generation is opened. 0: the names cannot be listed. */
uint64_t generations_digest(struct store *st);
/* -ENOENT; -EBADMSG damaged, or of another store, VM or epoch; -ENOTSUP a newer version. */
int owner_load(struct store *st, const struct vid *vm, uint64_t epoch, struct vid *host, struct verr *err);
/* Reads and checks a whole deletion log; *refs: the number of references in it. -EBADMSG: missing or damaged; -ENOTSUP: a newer
 * version. */
int deletions_check(struct store *st, uint64_t generation, uint64_t *refs, struct verr *err);

/* Stages a recipe in the lease, durable on return. -EEXIST: the name was staged before; -ESTALE: the lease was revoked. */
int lease_stage(struct lease *l, const char *name, const void *data, size_t len, struct verr *err);
/* The same in pieces. The lease owns *out. */
struct staged;
int lease_stage_begin(struct lease *l, const char *name, struct staged **out, struct verr *err);
int staged_write(struct staged *s, const void *data, size_t len, uint64_t off);
int lease_stage_end(struct lease *l, struct staged *s, struct verr *err);     /* durable on return */

/* THE commit point: looks whether dir/target (dir relative to STORE) is there already, gives the staged file that name, syncs dir, looks
 * again. Durable on return. -EEXIST: the name is taken: the staged file stays in the lease, and if what is there is the snapshot that
 * was to be published, then it is published, by whomever. -ESTALE: the lease was revoked, or nobody knows: take a new lease, do the
 * publish check again, publish again. A failed sync of dir is final for this lease: every later call returns the same error. */
int lease_publish(struct lease *l, const char *name, const char *dir, const char *target, struct verr *err);
/* The same as snapshots/DISK/NAME; the disk's directory is made when it is absent. */
int lease_publish_recipe(struct lease *l, const char *name, const struct vid *disk, struct verr *err);

/* Gives the lease back: empties and removes its directory; frees l. */
void lease_release(struct lease *l);

#endif
