/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extsort: sorts any number of fixed-size records in a given amount of memory, with sorted runs in temporary files.
 * Records are compared with memcmp over their first key_len bytes; equal keys keep their order of arrival (stable).
 * Used by the stages (requests by fingerprint, answers by position) and by rebuild. One thread at a time per sorter.
 */
#ifndef VARVE_BASE_EXTSORT_H
#define VARVE_BASE_EXTSORT_H

#include <stddef.h>
#include <stdint.h>

struct extsort;
struct verr;

/* Temporary files are made (and unlinked at once) in dirfd, which is borrowed until extsort_sorted returns. memory is the
 * bound for all buffers of the sorter, in bytes (at least 64 KiB is used). record_len 1..4096, key_len 1..record_len.
 * NULL and err on failure. */
struct extsort *extsort_new(int dirfd, size_t record_len, size_t key_len, size_t memory, struct verr *err);
/* Adds a copy of the record. 0 or -errno. Not after extsort_sorted (-EINVAL). An error of a temporary file is final. */
int extsort_add(struct extsort *xs, const void *record, struct verr *err);
/* Ends the input. 0 or -errno. */
int extsort_sorted(struct extsort *xs, struct verr *err);
/* Next record in order into record: 1, 0 at the end, or -errno. */
int extsort_next(struct extsort *xs, void *record, struct verr *err);
uint64_t extsort_count(const struct extsort *xs);
void extsort_free(struct extsort *xs);

#endif
