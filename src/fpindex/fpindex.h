/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fpindex: the sorted fingerprint -> reference tables of one slot (docs/FORMAT.md "Index").
 *
 *   index/SLOT/base-PPPP-N     sorted base of partition PPPP; its header says which deltas it includes (merged_through)
 *   index/SLOT/delta-N         sorted entries of all partitions of the slot, written by one round
 *
 * SLOT and PPPP have 4 decimal digits; PPPP is the partition within the slot. A delta says in its header which partitions it
 * has entries of. Of equal keys the newest entry counts: that of the delta with the highest number, last that of the base.
 * All entries are hints: a lost one costs space, never data (publish check). An entry has 32 bytes, 24 of fingerprint and 8 of
 * reference; entries lie in checksummed 4 KiB pages, with fence pointers (4 bytes a page) at the end. Neither side of a compare
 * is ever in memory whole. One thread at a time per object.
 */
#ifndef VARVE_FPINDEX_FPINDEX_H
#define VARVE_FPINDEX_FPINDEX_H

#include "format/ref.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backend;
struct fpindex;
struct verr;

enum { FPKEY_BYTES = 24 };
struct fpentry { uint8_t key[FPKEY_BYTES]; uint64_t ref; };   /* ref REF_NONE: a tombstone, which no function below returns */

/* Opens dir/SLOT (dir: "index") of the store behind b, and makes it if it is absent. b is borrowed until fpindex_close. The slot's
 * share of the 2^bits partitions of the fingerprint space is slot * partitions .. +partitions; partitions is a power of two up to
 * 4096, bits at most 24 (-EINVAL). A damaged or foreign file is set aside (renamed to .damaged-NAME) and counted: an index is only a
 * hint. -ENOTSUP: an intact file of a newer version. Leftovers of a crash are ignored, and removed before the first write. */
int fpindex_open(struct backend *b, const char *dir, uint32_t slot, uint32_t partitions, unsigned bits, struct fpindex **out,
                 struct verr *err);
void fpindex_close(struct fpindex *ix);
/* Closes the deltas, which compares keep open for the next partition. For an object that will not be used for a while. */
void fpindex_rest(struct fpindex *ix);

/* entries: of all files, with tombstones and hidden entries; probes: keys looked up one by one; scans: compares by merge. */
struct fpindex_stats { uint64_t entries, bytes, bases, deltas, damaged_files; uint64_t bytes_read, bytes_written, probes, scans; };
void fpindex_stats(const struct fpindex *ix, struct fpindex_stats *out);

/* Compares n sorted keys (equal ones allowed) of one partition (0..partitions-1, within the slot) with the index: `next`
 * yields them (1, 0 at the end, -errno), `answer` gets each key in the same order with its reference or REF_NONE; an answer other
 * than 0 ends the compare. FPINDEX_AUTO probes if n * probe_s * files of the partition < bytes of the partition / scan_rate, else
 * it merges; _MERGE and _PROBE force one way. Both give the same answers. Keys whose page is damaged get REF_NONE; the file is
 * counted as damaged. Memory: at most `memory` bytes, or 32 KiB for each file of the partition if that is more. -EINVAL: a key is
 * out of order or of another partition. */
enum fpindex_way { FPINDEX_AUTO, FPINDEX_MERGE, FPINDEX_PROBE };
int fpindex_compare(struct fpindex *ix, uint32_t partition, uint64_t n, enum fpindex_way force, size_t memory,
                    int (*next)(void *ctx, uint8_t key[FPKEY_BYTES]),
                    int (*answer)(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref), void *ctx, struct verr *err);

/* One delta: entries in ascending key order over all partitions of the slot; of equal keys the first counts.
 * ref: a block, or REF_NONE for a tombstone. An error is final for d: commit returns it too.
 * commit: fsync, link to delta-N, fsync of the directory: durable on return. An empty delta makes no file. */
struct fpdelta;
int fpdelta_begin(struct fpindex *ix, struct fpdelta **out, struct verr *err);
int fpdelta_add(struct fpdelta *d, const uint8_t key[FPKEY_BYTES], uint64_t ref, struct verr *err);
int fpdelta_commit(struct fpdelta *d, struct verr *err);      /* frees d in any case */
void fpdelta_abort(struct fpdelta *d);

/* Merges deltas into bases, one partition at a time, when there are more than 8 deltas or they are larger than both an eighth of the
 * bases and 1 MiB (or always, with force); then removes deltas that every base includes. A crash is safe at each point. After an
 * error, partitions that were merged stay merged, and the object can be used further. Memory: as for compare. */
int fpindex_merge(struct fpindex *ix, bool force, size_t memory, struct verr *err);

/* For rebuild: removes every file of the slot, so that the index is empty. */
int fpindex_clear(struct fpindex *ix, struct verr *err);

/* For verify: checks every file of a slot and changes nothing. Hosts may use the slot meanwhile; files that they remove are passed
 * over. Each function may be NULL; a negative answer ends the look and is returned.
 *   bad     gets a file and what is wrong with it, once for each file; what NULL: the file does not belong to the index
 *   entry   gets every live entry (the newest of its key, no tombstone), ascending within a partition. Some are missing when a host
 *           merges this slot meanwhile
 *   step    gets the bytes read since the last call
 * -ENOENT: the slot has no directory. out: counts the files that are intact by their headers. Memory as for compare. */
struct fpindex_look {
    int (*bad)(void *ctx, const char *name, const char *what);
    int (*entry)(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref);
    int (*step)(void *ctx, uint64_t bytes);
    void *ctx;
    size_t memory;
};
int fpindex_look(struct backend *b, const char *dir, uint32_t slot, uint32_t partitions, unsigned bits, const struct fpindex_look *look,
                 struct fpindex_stats *out, struct verr *err);

/* Sets the rates for FPINDEX_AUTO, as measured at start: bytes/s of a scan, seconds of a probe. Until then 1 GB/s and 20 us. */
void fpindex_set_rates(struct fpindex *ix, double scan_bytes_per_s, double probe_s);

#endif
