/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fpindex_internal: what the files of fpindex share: the file format (docs/FORMAT.md "Index"), the reader and the writer of one file.
 * Included inside src/fpindex only.
 */
#ifndef VARVE_FPINDEX_INTERNAL_H
#define VARVE_FPINDEX_INTERNAL_H

#include "fpindex/fpindex.h"

#include "base/backend.h"
#include "base/endian.h"

/* ---- file format: bytes <-> structs, pure (fpindex_format.c) ---- */

enum {
    FPI_HEAD = 16,                      /* page head: checksum, count, kind, number */
    FPI_ENTRY = 32,
    FPI_PAGE_ENTRIES = 127,
    FPI_PAGE_FENCES = 1020,
    FPI_PARTITIONS_MAX = 4096,
    FPI_SLOTS_MAX = 4096,
    FPI_BITS_MAX = 24,
    FPI_PRESENT_BYTES = FPI_PARTITIONS_MAX / 8,
    FPI_NAME_MAX = 48, FPI_DIR_MAX = 64,
};
#define FPI_DELTA UINT32_MAX            /* header.partition of a delta */
#define FPI_PAGES_MAX (UINT32_MAX / 2)  /* pages of one file: page numbers and sums of them fit 32 bits */

enum fpi_kind { FPI_DATA = 1, FPI_FENCE = 2 };

struct fpi_header {
    uint32_t slot, partition, partitions, bits;
    uint64_t number, merged_through, entries;
    uint64_t seed;                      /* random, for this file: seeds every page's checksum */
    uint8_t present[FPI_PRESENT_BYTES]; /* delta: bit p is set when partition p has entries in it */
};

void fpi_header_encode(const struct fpi_header *h, uint8_t out[PAGE_BYTES]);
/* -EBADMSG: damaged, or no index file; -ENOTSUP: intact, of a newer version. *why: a constant text. */
int fpi_header_decode(const uint8_t in[PAGE_BYTES], struct fpi_header *out, const char **why);
/* Fills in the head of a page whose items are in place, and zeroes the space behind them. */
void fpi_page_seal(uint8_t page[PAGE_BYTES], enum fpi_kind kind, uint32_t number, uint32_t count, uint64_t seed);
/* The number of items in the page, or -EBADMSG. total: items of that kind in the whole file; the page's number follows from it. */
int fpi_page_check(const uint8_t page[PAGE_BYTES], enum fpi_kind kind, uint32_t number, uint64_t total, uint64_t seed);
uint64_t fpi_data_pages(uint64_t entries);
uint64_t fpi_fence_pages(uint64_t data_pages);
uint64_t fpi_file_bytes(uint64_t entries);

/* The partition of a key among all partitions of the store: the key's first `bits` bits. */
static inline uint32_t fpi_partition_of(const uint8_t *key, unsigned bits)
{
    return bits == 0 ? 0 : (uint32_t)(get_be64(key) >> (64 - bits));
}
/* 32 bits of the key behind the `skip` bits that all keys of the file share. */
static inline uint32_t fpi_fence_of(const uint8_t *key, unsigned skip) { return (uint32_t)((get_be64(key) << skip) >> 32); }
static inline const uint8_t *fpi_entry(const uint8_t *page, uint32_t i) { return page + FPI_HEAD + (size_t)i * FPI_ENTRY; }
static inline uint64_t fpi_entry_ref(const uint8_t *entry) { return get_le64(entry + FPKEY_BYTES); }

/* ---- the slot ---- */

struct fpi_file {
    uint64_t number;                    /* 0: no such file */
    uint64_t merged_through, entries, seed, bytes;
    uint32_t partition;                 /* FPI_DELTA in a delta */
    uint32_t pages;                     /* data pages */
    bool damaged;                       /* the file is in damaged_files already */
    uint8_t *present;                   /* delta only */
    struct bfile *open;                 /* delta only: kept between partitions, NULL: not open */
};

struct fpindex {
    struct backend *b;
    char dir[FPI_DIR_MAX];              /* DIR/SLOT */
    uint32_t slot, partitions;
    unsigned bits, slot_bits;           /* slot_bits: leading bits that all keys of the slot share */
    struct fpi_file *bases;             /* one per partition */
    struct fpi_file *deltas;            /* by ascending number */
    size_t ndeltas, deltas_cap;
    uint64_t next_delta, next_base;
    bool swept;                         /* leftovers of a crash have been removed */
    bool vanished;                      /* a file that was listed was removed meanwhile */
    double scan_rate, probe_s;
    uint64_t damaged_files, bytes_read, bytes_written, probes, scans;
};

/* Opens dir/SLOT and lists its files. look NULL: a damaged file is set aside; else look->bad is told, and the file stays. */
int fpi_open(struct backend *b, const char *dir, uint32_t slot, uint32_t partitions, unsigned bits, const struct fpindex_look *look, struct fpindex **out,
             struct verr *err);
void fpi_name(uint32_t partition, uint64_t number, char out[FPI_NAME_MAX]);
void fpi_mark_damaged(struct fpindex *ix, struct fpi_file *f);
/* Adds a file that was just published to the list of deltas. -ENOMEM. */
int fpi_delta_insert(struct fpindex *ix, const struct fpi_header *h);
void fpi_file_fill(struct fpi_file *f, const struct fpi_header *h);
/* Removes leftovers of a crash: temporary files, and bases that have a newer one. Once per object, before its first write. */
int fpi_sweep(struct fpindex *ix, struct verr *err);
static inline bool fpi_has_partition(const struct fpi_file *delta, uint32_t partition)
{
    return (delta->present[partition / 8] >> (partition % 8) & 1) != 0;
}
/* Has delta d entries of the partition that the partition's base does not include yet? */
static inline bool fpi_pending(const struct fpindex *ix, const struct fpi_file *d, uint32_t partition)
{
    return fpi_has_partition(d, partition) && d->number > ix->bases[partition].merged_through;
}

/* ---- reading one file (fpindex_read.c: pages, fences, probe; fpindex_scan.c: stream) ---- */

struct fpi_pagebuf { uint8_t *mem; uint32_t number; int count; };   /* count: items, -EBADMSG damaged, 0 nothing loaded */

struct fpi_reader {
    struct fpindex *ix;
    struct fpi_file *file;
    struct bfile *f;                    /* file->open, or this reader's own */
    unsigned skip;                      /* leading bits that all keys of the file share */
    uint8_t *mem;                       /* all buffers below */
    struct fpi_pagebuf data, spare, fence[2];
    uint32_t at;                        /* page that held the last key probed */
    /* stream */
    uint8_t *buf;
    uint32_t buf_cap, buf_first, buf_pages;     /* in pages */
    uint32_t next_page;
    const uint8_t *page;                /* current page, NULL at the end */
    uint32_t count, pos;
};

/* Pages of buffers: of every reader, and of a stream at least and at most. */
enum { FPI_READER_PAGES = 4, FPI_STREAM_MIN = 4, FPI_STREAM_MAX = 512 };
/* stream_pages 0: for probing only. -ENOENT: the file was removed; -ENOMEM, -EMFILE and the like: errors of this process. */
int fpi_reader_open(struct fpindex *ix, struct fpi_file *f, uint32_t stream_pages, struct fpi_reader *r);
void fpi_reader_close(struct fpi_reader *r);
/* The first page that can hold a key with this fence. False: unknown, because pages are damaged. */
bool fpi_floor(struct fpi_reader *r, uint32_t fence, uint32_t *page);
/* Looks for the key. 1 and *ref, or 0. Any order of keys is correct; ascending keys are fast. */
int fpi_probe(struct fpi_reader *r, const uint8_t *key, uint64_t *ref);

/* Begins a stream at the first entry >= key. */
void fpi_scan_begin(struct fpi_reader *r, const uint8_t *key);
/* Moves on to the first entry >= key; 1 and *ref when it is equal, else 0. */
int fpi_scan_find(struct fpi_reader *r, const uint8_t *key, uint64_t *ref);
/* The current entry; NULL at the end. */
static inline const uint8_t *fpi_scan_entry(const struct fpi_reader *r) { return r->page == NULL ? NULL : fpi_entry(r->page, r->pos); }
/* Moves to the next entry. */
void fpi_scan_next(struct fpi_reader *r);

/* The files of one partition, newest first: the deltas that its base does not include, then the base. */
struct fpi_set { struct fpi_reader *readers; size_t n; };
/* memory 0: for probing only. */
int fpi_set_open(struct fpindex *ix, uint32_t partition, size_t memory, struct fpi_set *out, struct verr *err);
void fpi_set_close(struct fpi_set *set);
/* The smallest key that a partition of the slot can have. */
void fpi_low_key(const struct fpindex *ix, uint32_t partition, uint8_t key[FPKEY_BYTES]);
/* Begins the streams of a partition's set. True: bound is the first key behind the partition; false: no key lies behind it. */
bool fpi_set_begin(const struct fpindex *ix, uint32_t partition, struct fpi_set *set, uint8_t bound[FPKEY_BYTES]);
/* The smallest key of all streams, below bound (NULL: any), with the newest of its entries; moves every stream past it. False at the
 * end. */
bool fpi_set_next(struct fpi_set *set, const uint8_t *bound, uint8_t key[FPKEY_BYTES], uint64_t *ref);

/* ---- writing one file (fpindex_write.c) ---- */

struct fpi_writer;
int fpi_writer_begin(struct fpindex *ix, uint32_t partition, size_t buffer, struct fpi_writer **out, struct verr *err);
/* Adds an entry; a key that equals the one before is left out. -EINVAL: the key is smaller, or of another partition. */
int fpi_writer_add(struct fpi_writer *w, const uint8_t *key, uint64_t ref, struct verr *err);
/* True: no entry was added and nothing failed, so there is nothing to publish. */
bool fpi_writer_empty(const struct fpi_writer *w);
/* Completes and publishes the file under *number or, where that is taken, a higher one. *h: its header. Durable on return. */
int fpi_writer_publish(struct fpi_writer *w, uint64_t merged_through, uint64_t *number, struct fpi_header *h, struct verr *err);
void fpi_writer_free(struct fpi_writer *w);     /* removes the temporary file if it is still there */

#endif
