/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal: what makes a record of ours recognisable, whole and in its place (docs/design/seal.md).
 *
 * A record is closed by the one who encodes it and opened by the one who decodes it. Both name it by struct seal: what kind it
 * is, and where it belongs. A checksum keeps it today; the interface asks for what authenticated encryption would bind it to.
 * Magic, version and checksum of every kind stand in one table in seal.c. Pure: no I/O, no memory; any thread.
 */
#ifndef VARVE_FORMAT_SEAL_H
#define VARVE_FORMAT_SEAL_H

#include "base/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEAL_BYTES = 8 };        /* the checksum of a record; a table entry has room for 4 */

enum seal_kind {
    /* STORE */
    SEAL_NODE, SEAL_SIDE_FILE, SEAL_SNAPSHOT, SEAL_RUNS, SEAL_SEGMENT, SEAL_OWNER, SEAL_DELETIONS,
    SEAL_CONTAINER, SEAL_FRAME, SEAL_FOOTER, SEAL_TRAILER, SEAL_INDEX, SEAL_INDEX_PAGE,
    /* STATE */
    SEAL_TABLE, SEAL_MAP, SEAL_VOL, SEAL_STATE, SEAL_ENTRY, SEAL_SLOT, SEAL_JOURNAL, SEAL_PLAN,
    SEAL_KINDS
};

/* Which record it is. A kind uses the fields that its comment names; the others are NULL and 0. All is borrowed. */
struct seal {
    enum seal_kind kind;
    bool anywhere;              /* seal_open only: the caller does not know the place, and compares what it decodes, or not */
    const struct vid *store;    /* snapshot, owner, deletions; all records of a container */
    const struct vid *id;       /* node; VM (owner); snapshot (snapshot, runs, side file); disk (all of STATE but the plan) */
    const struct vid *version;  /* of the file: all records of a container */
    uint64_t file;              /* container number; seed of an index file, of a plan log */
    /* Which record of the file, or which of its versions: sequence number (snapshot), page (runs, index page), version (node,
     * side file), epoch (owner), generation (deletions), first ordinal (frame, footer), section (trailer), number of the file
     * (index, headers and state of a layer), segment (entry, slot, plan), offset (journal). */
    uint64_t number;
};

/* Closes a record of len bytes whose body stands in its place: puts in magic, version, length and place, as far as the kind
 * has room for them, and the checksum over all of it. */
void seal_close(const struct seal *s, uint8_t *record, size_t len);

/* Checks magic, length, checksum, version and place, in this order. 0; -EBADMSG: damaged, or of another place; -ENOTSUP: intact,
 * of a newer version. why (may be NULL): a constant text, set on errors only. The body is not looked at. */
int seal_open(const struct seal *s, const uint8_t *record, size_t len, const char **why);

/* The same for a payload that lies apart from its record (a frame's): it fits no other record than this one, which was closed or
 * opened before. Its checksum stands behind the record's, at record + len. */
void seal_close_payload(uint8_t *record, size_t len, const void *payload, size_t payload_len);
int seal_open_payload(const uint8_t *record, size_t len, const void *payload, size_t payload_len, const char **why);

#endif
