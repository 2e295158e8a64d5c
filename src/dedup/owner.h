/* SPDX-License-Identifier: Apache-2.0 */
/*
 * owner: what a slot owner keeps for each slot between its stages.
 *
 *   req-PPPPPPPP    requests of one partition in order of arrival, if they do not fit its buffer: key 24, sender and position be64
 *   sorted          the partition that is being compared, sorted
 *   new-SSSS        keys of the "new" answers, partition after partition, in order of position: the n-th is that of reference n
 *   dupnew-SSSS     dup-with-new blocks of a slot in order of keys: the same records
 *   resolved-SSSS   partition be32, sender and position be64, reference be64: in that order
 */
#ifndef VARVE_DEDUP_OWNER_H
#define VARVE_DEDUP_OWNER_H

#include "dedup/seqfile.h"
#include "fpindex/fpindex.h"

#include <stdbool.h>

struct extsort;

/* Sender (16 bits) and position in one word: sorts by sender, then by position. */
enum { POS_BITS = 48, REQ_BYTES = FPKEY_BYTES + 8, RESOLVED_BYTES = 4 + 8 + 8 };

struct owner_slot {
    struct fpindex *ix;
    uint64_t *got;              /* per partition: requests received from the only participant, this host */
    uint32_t *fill;             /* per partition: records in its buffer */
    uint8_t *buf;               /* q buffers of `width` records */
    uint32_t width;
    struct seqout dupnew;
    uint64_t ndupnew;
    struct seqout fresh;        /* new-SSSS */
    uint64_t nfresh;
    struct { uint64_t base, count; } *fresh_of;     /* per partition: its records in new-SSSS */
    struct extsort *refs;       /* stage 3b: key 24, reference be64 */
    uint64_t nrefs;
    bool dead;                  /* given up for this round: the slot sends no more answers */
};

#endif
