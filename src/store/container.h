/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container: writing and reading of block and recipe containers (docs/FORMAT.md "Container").
 *
 * A container is an append-only file of sections; a section = frames (zstd, or stored when that is smaller) + footer
 * pages + trailer. A section is what is fsynced, sealed and referenced. A writer goes on in the file of the VM's last
 * backup while that is below 64 MiB and ends in a valid trailer, and starts a new file otherwise: a torn tail is never
 * repaired, it is left behind.
 */
#ifndef VARVE_STORE_CONTAINER_H
#define VARVE_STORE_CONTAINER_H

#include "format/container.h"
#include "format/ref.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;
struct store;
struct verr;

/* ---- writing: one thread per writer ---- */

struct cwriter;

/* type: CONTAINER_BLOCKS or CONTAINER_RECIPES; flags: CONTAINER_SHARED|PRIVATE. last: container to go on in (REF_NONE: none;
 * silently ignored when it is missing, full, torn, of another type or has other flags). Nothing is written yet. */
int cwriter_open(struct store *st, uint32_t type, uint32_t flags, uint64_t last, struct cwriter **out, struct verr *err);

/* Frames are compressed on the pool from now on; before the first append. It must outlive the writer. What is written does not
 * depend on it. */
void cwriter_use_pool(struct cwriter *w, struct pool *pool);

/* Copies the block (1..BLOCK_MAX bytes) into the current frame; *ref is its reference, to be used once sealed.
 * A full frame is compressed, decoded again and compared, then written; with a pool its error may come with a later call, at
 * the latest with the seal. Errors are final for this writer. */
int cwriter_append(struct cwriter *w, const struct fp *fp, const void *data, size_t len, uint64_t *ref, struct verr *err);

/* Flushes the frame, writes the footer, fdatasync, trailer, fdatasync of each file touched, fsync of each directory touched.
 * Durable on return: every reference issued so far. The writer can go on (a new section). A failed fsync is final. */
int cwriter_seal(struct cwriter *w, struct verr *err);

uint64_t cwriter_container(const struct cwriter *w);     /* to pass as `last` next time; REF_NONE if nothing was written */
uint64_t cwriter_stored(const struct cwriter *w);        /* bytes added to files so far, headers and footers included */
/* Without a seal before, what was appended since the last seal is left behind as a torn tail. */
void cwriter_free(struct cwriter *w);

/* ---- reading: thread-safe ---- */

struct creader;

/* cache_bytes bounds decoded frames (at least 8 frames are kept). Keeps at most 128 descriptors. */
int creader_new(struct store *st, size_t cache_bytes, struct creader **out, struct verr *err);
void creader_free(struct creader *r);

/* Footer entries of count consecutive ordinals; len 0: a tombstone. -ENODATA: an ordinal that no sealed section has;
 * -EBADMSG damage. Entries may come from memory: see creader_forget. */
int creader_entries(struct creader *r, uint64_t ref, uint32_t count, struct footer_entry *out, struct verr *err);

/* Reads len bytes that begin skip bytes into the concatenation of `count` consecutive blocks from ref on.
 * Every frame's checksum is checked on each decode. Stale version ids and ESTALE reopen once. -EBADMSG, -EIO, -ENODATA
 * (no sealed section has the ordinal, it is a tombstone, or there is no such container). buf may be changed on error. */
int creader_read(struct creader *r, uint64_t ref, uint32_t count, uint64_t skip, void *buf, size_t len, struct verr *err);

/* Drops what is kept of a container (descriptor, sections, footer pages): the next call reads the file anew. The publish
 * check calls it once for each container of a lease, after deletions_load: its footers must be read uncached. */
void creader_forget(struct creader *r, uint64_t number);

/* For rebuild, verify and dump. fn gets each container number of STORE; a directory that cannot be listed is an error. What
 * is neither a claim directory nor a container file is passed over; an answer other than 0 ends it and is returned. */
int container_each(struct store *st, int (*fn)(void *ctx, uint64_t number), void *ctx, struct verr *err);
/* fn for what container_each passes over, names with a dot in front excepted: "containers/NAME", "containers/CCCCCC/NAME".
 * Whoever lists containers tells of these; where safety depends on the listing, there must be none. */
int container_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err);
struct container_info { uint32_t type, flags; uint64_t file_bytes, sealed_bytes, sections, entries; bool torn_tail; };
/* Walks all sealed sections, read anew; fn (may be NULL) for each entry, tombstones too; its non-zero answer ends the walk
 * and is returned. -EBADMSG: damaged header, inner section or footer page: after fn has got all that can be read; info
 * (may be NULL) is filled in then too, unless the header is damaged. -ENODATA: no such container. */
int container_walk(struct creader *r, uint64_t number, struct container_info *info,
                   int (*fn)(void *ctx, uint64_t ref, const struct footer_entry *entry), void *ctx, struct verr *err);

/* "CCCCCC/NNNN.vc" of a container number, relative to containers/. */
void container_path(uint64_t number, char out[32]);

#endif
