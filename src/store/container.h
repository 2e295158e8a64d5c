/* SPDX-License-Identifier: Apache-2.0 */
/*
 * container: writing and reading of block and recipe containers (docs/FORMAT.md "Container").
 *
 * A container is an append-only file of sections; a section = frames (zstd, or stored when that is smaller) + footer
 * pages + trailer. Fsyncs, seals and references are for whole sections. A writer goes on in the file of the VM's last
 * backup while that is below 64 MiB and ends in a valid trailer, and else starts a new file: a torn tail is never
 * repaired but left behind. It never goes on in a file of an earlier mount: so an ordinal of a file with a certain version id means
 * one block for ever, even when STORE is put back from an older copy.
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

/* Opens a writer without writing anything. type: CONTAINER_BLOCKS or CONTAINER_RECIPES; flags: CONTAINER_SHARED or _PRIVATE.
 * last: the container to go on in, or REF_NONE; it is silently ignored when it is missing, full, torn, or has another type or flags, and
 * when its end is not the one that a writer of this open store sealed. */
int cwriter_open(struct store *st, uint32_t type, uint32_t flags, uint64_t last, struct cwriter **out, struct verr *err);

/* Lets the pool compress frames; called before the first append. The pool must outlive the writer. The bytes written are the same
 * without a pool. */
void cwriter_use_pool(struct cwriter *w, struct pool *pool);

/* Copies the block (1..BLOCK_MAX bytes) into the current frame; *ref is its reference, which may be used after the seal.
 * A full frame is compressed, decoded again and compared, then written; with a pool a later call may return its error, at
 * the latest the seal. Errors are final for this writer. */
int cwriter_append(struct cwriter *w, const struct fp *fp, const void *data, size_t len, uint64_t *ref, struct verr *err);

/* For each file written: flushes the frame, writes the footer, fsync, writes the trailer, fsync; then fsyncs each directory with new
 * files. Durable on return: every reference issued so far. The writer can go on with a new section. A failed fsync is final. */
int cwriter_seal(struct cwriter *w, struct verr *err);

uint64_t cwriter_container(const struct cwriter *w);     /* to pass as `last` next time; REF_NONE if nothing was written */
uint64_t cwriter_stored(const struct cwriter *w);        /* bytes added to files so far, headers and footers included */
/* Frees the writer. Blocks appended since the last seal are lost: their space is given back, or left as a torn tail. */
void cwriter_free(struct cwriter *w);

/* ---- reading: thread-safe ---- */

struct creader;

/* cache_bytes bounds decoded frames (at least 8 frames are kept). Keeps at most 128 descriptors, and no more than an eighth of the limit. */
int creader_new(struct store *st, size_t cache_bytes, struct creader **out, struct verr *err);
void creader_free(struct creader *r);

/* Reads the footer entries of count consecutive ordinals; an entry with len 0 is a tombstone. -ENODATA: no sealed section has one of
 * the ordinals; -EBADMSG: damage. Entries may come from memory: see creader_forget. */
int creader_entries(struct creader *r, uint64_t ref, uint32_t count, struct footer_entry *out, struct verr *err);

/* Reads len bytes that begin skip bytes into the concatenation of `count` consecutive blocks from ref on.
 * Each decode checks the frame's checksum. A container that was replaced, or ESTALE, makes it reopen the file once. -EBADMSG, -EIO;
 * -ENODATA: no sealed section has the ordinal, it is a tombstone, or there is no such container. An error may leave buf changed. */
int creader_read(struct creader *r, uint64_t ref, uint32_t count, uint64_t skip, void *buf, size_t len, struct verr *err);

/* The version id of the container, which every file that ever has the number has anew, and the number of ordinals in its sealed sections,
 * which later seals raise: both may come from memory (creader_forget). -ENODATA: there is no such container; -EBADMSG: damage. */
int creader_version(struct creader *r, uint64_t number, struct vid *version, uint32_t *ordinals, struct verr *err);

/* Drops the cached descriptor, sections and footer pages of a container: the next call reads the file anew. The publish
 * check calls this once for each container of a lease, after deletions_load, because it must not use older footers. */
void creader_forget(struct creader *r, uint64_t number);

/* For rebuild, verify and dump. Calls fn for each container number of STORE; a directory that cannot be listed is an error. Names
 * of other objects are passed over. An answer other than 0 ends the list and is returned. */
int container_each(struct store *st, int (*fn)(void *ctx, uint64_t number), void *ctx, struct verr *err);
/* Calls fn with "containers/NAME" or "containers/CCCCCC/NAME" for each name that container_each passes over and that begins with no
 * dot, so that it can be reported. A caller whose safety depends on the listing must not go on if there are any. */
int container_strays(struct store *st, int (*fn)(void *ctx, const char *path), void *ctx, struct verr *err);
struct container_info { uint32_t type, flags; uint64_t file_bytes, sealed_bytes, sections, entries; bool torn_tail; };
/* Reads all sealed sections anew. fn (may be NULL) gets each entry, with tombstones; its non-zero answer ends the walk and is
 * returned. -EBADMSG: header, an inner section or a footer page is damaged; fn has got all readable entries, and info (may be
 * NULL) is filled in unless the header is damaged. -ENODATA: no such container. */
int container_walk(struct creader *r, uint64_t number, struct container_info *info,
                   int (*fn)(void *ctx, uint64_t ref, const struct footer_entry *entry), void *ctx, struct verr *err);

/* "CCCCCC/NNNN.vc" of a container number, relative to containers/. */
void container_path(uint64_t number, char out[32]);

#endif
