/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan: the plan log of one disk in a round: what each dirty segment consists of, and how each of its blocks is settled.
 * Stage 1a writes plan-J; stage 2b reads it and writes result-J, the same log with the answers applied; 4b completes the
 * recipes from that. Each segment has one checksummed record, in ascending order; a log is written and read front to back.
 *
 * record: head 64 bytes, then 48 bytes a block (little-endian)
 *   0 magic u32 | 4 kind u8, 3 zero | 8 segment u64 | 16 bytes u32 | 20 blocks u32 | 24 data_pages u32 | 28 zero u32
 *   32 place u64 | 40 digest 16 | 56 checksum u64 (XXH3 of all the rest of the record, seeded with round and disk)
 *   block: 0 len u32 | 4 kind u8, 3 zero | 8 ref u64 | 16 fingerprint 32
 */
#ifndef VARVE_DEDUP_PLAN_H
#define VARVE_DEDUP_PLAN_H

#include "dedup/seqfile.h"
#include "level/level.h"

enum { PLAN_HEAD_BYTES = 64, PLAN_BLOCK_BYTES = 48, PLAN_RECORD_MAX = PLAN_HEAD_BYTES + PLAN_BLOCKS_MAX * PLAN_BLOCK_BYTES };

/* Writes one record. rec: scratch of PLAN_RECORD_MAX bytes. */
int plan_put(struct seqout *o, const struct plan_seg *s, uint64_t seed, uint8_t *rec, struct verr *err);
/* Reads the next record and checks every field. 1; 0 at the end; -EBADMSG: damaged; -errno. The caller provides s->b. */
int plan_get(struct seqin *in, struct plan_seg *s, uint64_t seed, uint8_t *rec, struct verr *err);

#endif
