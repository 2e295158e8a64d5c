/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal: magic, version, place and checksum of every kind of record.
 *
 * A record is bound to its place in one of two ways. Either it carries the place (store, id, ...), which is then under the
 * checksum and compared when the record is opened; or the place is not stored but goes into the checksum, so that a record
 * from elsewhere looks damaged. The checksum is looked at before the version: its place is the same in all versions, so
 * damage is never called "newer".
 */
#include "format/seal.h"

#include "base/endian.h"
#include "base/hash.h"

#include <errno.h>
#include <string.h>

enum { VERSION = 1, AT_END = 0xff, HEAD_BYTES = 24, PLACE_MAX = 3 * VID_BYTES + 8 + 8 };

enum over {                     /* which bytes the checksum is over */
    BEFORE,                     /* those before it; what follows belongs to others */
    AFTER,                      /* those after it; those before it go into the seed, or are none */
    AROUND,                     /* all, itself taken as zero */
};
enum seed {
    SEED_0,
    SEED_FILE, SEED_NUMBER,
    SEED_ID,                    /* the first 8 bytes of the id, xor the number */
    SEED_PLACE,                 /* checksum of the hashed place and of the bytes before the checksum */
};
enum hashed { STORE = 1, ID = 2, FILE_VERSION = 4, FILE_NUMBER = 8 };   /* of SEED_PLACE; the number always is */

/* Offsets of what the record carries; 0: it does not (magic_bytes 0: no magic). */
struct form {
    char magic[9];
    uint8_t magic_bytes, version_at, version_bytes, length_at;
    uint8_t store_at, id_at, file_version_at, file_at, number_at, number_bytes;
    uint8_t sum_at, sum_bytes, over, seed, hashed;
    uint16_t least;             /* smallest record of this version, where records of the kind differ in length */
};

/* NOLINTNEXTLINE(bugprone-macro-parentheses): an array is initialised by a string literal without any */
#define MAGIC(text, at, bytes) .magic = text, .magic_bytes = sizeof(text) - 1, .version_at = (at), .version_bytes = (bytes)
#define SUM(at, bytes, over_, seed_) .sum_at = (at), .sum_bytes = (bytes), .over = (over_), .seed = (seed_)
#define SUM_LAST SUM(AT_END, 8, BEFORE, SEED_0)
#define FRAMED(text) MAGIC(text, 8, 4), .length_at = 12, SUM_LAST
#define CONTAINER(text) MAGIC(text, 8, 4), .store_at = 16, .file_at = 32, .file_version_at = 40, SUM_LAST
#define LAYER(text) MAGIC(text, 8, 4), .id_at = 16, .number_at = 32, .number_bytes = 8, SUM_LAST

static const struct form forms[SEAL_KINDS] = {
    [SEAL_NODE] = {FRAMED("VARVNODE"), .id_at = 16, .number_at = 64, .number_bytes = 8, .least = 136},
    [SEAL_SIDE_FILE] = {FRAMED("VARVATTR"), .id_at = 16, .number_at = 32, .number_bytes = 8, .least = 84},
    [SEAL_SNAPSHOT] = {FRAMED("VARVSNAP"), .store_at = 24, .id_at = 72, .number_at = 136, .number_bytes = 8, .least = 4096},
    [SEAL_RUNS] = {MAGIC("VRUN", 4, 2), SUM(8, 8, AFTER, SEED_PLACE), .hashed = ID, .number_bytes = 8},
    [SEAL_SEGMENT] = {FRAMED("VARVSEGR"), .least = 68},
    [SEAL_OWNER] = {MAGIC("varveOWN", 8, 4), .store_at = 16, .id_at = 32, .number_at = 64, .number_bytes = 8, SUM_LAST, .least = 88},
    [SEAL_DELETIONS] = {MAGIC("varveDEL", 8, 4), .store_at = 16, .number_at = 32, .number_bytes = 8, SUM_LAST, .least = 56},
    [SEAL_CONTAINER] = {CONTAINER("varveCON")},
    [SEAL_FRAME] = {CONTAINER("varveFRM"), .number_at = 56, .number_bytes = 4},
    [SEAL_FOOTER] = {MAGIC("VFTP", 0, 0), SUM(8, 8, AFTER, SEED_PLACE), .hashed = STORE | FILE_VERSION | FILE_NUMBER, .number_bytes = 4},
    [SEAL_TRAILER] = {CONTAINER("varveTRL"), .number_at = 12, .number_bytes = 4},
    [SEAL_INDEX] = {MAGIC("VARVEIDX", 8, 4), .number_at = 32, .number_bytes = 8, SUM_LAST},
    [SEAL_INDEX_PAGE] = {.number_at = 12, .number_bytes = 4, SUM(0, 8, AFTER, SEED_FILE)},
    [SEAL_TABLE] = {LAYER("VARVTABL")},
    [SEAL_MAP] = {LAYER("VARVEMAP")},
    [SEAL_VOL] = {LAYER("VARVEVOL")},
    [SEAL_STATE] = {SUM(AT_END, 8, BEFORE, SEED_ID)},
    [SEAL_ENTRY] = {SUM(AT_END, 4, BEFORE, SEED_ID)},
    [SEAL_SLOT] = {SUM(AT_END, 8, BEFORE, SEED_ID)},
    [SEAL_JOURNAL] = {MAGIC("VARVHEAD", 8, 4), .id_at = 40, SUM(56, 8, AROUND, SEED_NUMBER)},
    [SEAL_PLAN] = {MAGIC("vPl1", 0, 0), .number_at = 8, .number_bytes = 8, SUM(56, 8, AROUND, SEED_FILE)},
};

static int bad(const char **why, const char *text)
{
    if (why != NULL)
        *why = text;
    return -EBADMSG;
}

static void put_number(uint8_t *p, unsigned bytes, uint64_t v)
{
    if (bytes == 8)
        put_le64(p, v);
    else if (bytes == 4)
        put_le32(p, (uint32_t)v);
    else
        put_le16(p, (uint16_t)v);
}

static uint64_t get_number(const uint8_t *p, unsigned bytes)
{
    return bytes == 8 ? get_le64(p) : bytes == 4 ? get_le32(p) : get_le16(p);
}

static size_t add_id(uint8_t *place, size_t n, bool hashed, const struct vid *id)
{
    if (!hashed)
        return n;
    memcpy(place + n, id->b, VID_BYTES);
    return n + VID_BYTES;
}

/* The hashed fields of a place one behind the other, then the bytes before the checksum. */
static uint64_t place_sum(const struct form *f, const struct seal *s, const uint8_t *record)
{
    uint8_t place[PLACE_MAX + SEAL_BYTES];
    size_t n = 0;
    n = add_id(place, n, (f->hashed & STORE) != 0, s->store);
    n = add_id(place, n, (f->hashed & ID) != 0, s->id);
    n = add_id(place, n, (f->hashed & FILE_VERSION) != 0, s->version);
    if (f->hashed & FILE_NUMBER) {
        put_le64(place + n, s->file);
        n += 8;
    }
    put_number(place + n, f->number_bytes, s->number);
    n += f->number_bytes;
    memcpy(place + n, record, f->sum_at);
    return hash64(place, n + f->sum_at);
}

static uint64_t seed_of(const struct form *f, const struct seal *s, const uint8_t *record)
{
    switch (f->seed) {
    case SEED_FILE:
        return s->file;
    case SEED_NUMBER:
        return s->number;
    case SEED_ID:
        return get_le64(s->id->b) ^ s->number;
    case SEED_PLACE:
        return place_sum(f, s, record);
    default:
        return 0;
    }
}

static size_t sum_place(const struct form *f, size_t len)
{
    return f->sum_at == AT_END ? len - f->sum_bytes : f->sum_at;
}

static uint64_t sum_of(const struct form *f, const struct seal *s, const uint8_t *record, size_t len)
{
    size_t at = sum_place(f, len), behind = at + f->sum_bytes;
    uint64_t seed = seed_of(f, s, record);
    uint64_t sum = f->over == BEFORE ? hash64_seed(record, at, seed)
                 : f->over == AFTER ? hash64_seed(record + behind, len - behind, seed)
                                    : hash64_hole(record, len, at, seed);
    return f->sum_bytes == 4 ? (uint32_t)sum : sum;
}

static void put_place(const struct form *f, const struct seal *s, uint8_t *record)
{
    if (f->store_at != 0)
        memcpy(record + f->store_at, s->store->b, VID_BYTES);
    if (f->id_at != 0)
        memcpy(record + f->id_at, s->id->b, VID_BYTES);
    if (f->file_version_at != 0)
        memcpy(record + f->file_version_at, s->version->b, VID_BYTES);
    if (f->file_at != 0)
        put_le64(record + f->file_at, s->file);
    if (f->number_at != 0)
        put_number(record + f->number_at, f->number_bytes, s->number);
}

static bool place_fits(const struct form *f, const struct seal *s, const uint8_t *record)
{
    return (f->store_at == 0 || memcmp(record + f->store_at, s->store->b, VID_BYTES) == 0) &&
           (f->id_at == 0 || memcmp(record + f->id_at, s->id->b, VID_BYTES) == 0) &&
           (f->file_version_at == 0 || memcmp(record + f->file_version_at, s->version->b, VID_BYTES) == 0) &&
           (f->file_at == 0 || get_le64(record + f->file_at) == s->file) &&
           (f->number_at == 0 || get_number(record + f->number_at, f->number_bytes) == s->number);
}

void seal_close(const struct seal *s, uint8_t *record, size_t len)
{
    const struct form *f = &forms[s->kind];
    memcpy(record, f->magic, f->magic_bytes);
    if (f->version_bytes != 0)
        put_number(record + f->version_at, f->version_bytes, VERSION);
    if (f->length_at != 0)
        put_le32(record + f->length_at, (uint32_t)len);
    put_place(f, s, record);
    put_number(record + sum_place(f, len), f->sum_bytes, sum_of(f, s, record, len));
}

/* Magic, version, length and checksum: what a record of any version has at least. */
static bool has_head(const struct form *f, size_t len)
{
    return f->magic_bytes == 0 || f->sum_at != AT_END || len >= HEAD_BYTES;
}

int seal_open(const struct seal *s, const uint8_t *record, size_t len, const char **why)
{
    const struct form *f = &forms[s->kind];
    if (!has_head(f, len))
        return bad(why, "shorter than a record");
    if (memcmp(record, f->magic, f->magic_bytes) != 0)
        return bad(why, "wrong magic");
    if (f->length_at != 0 && get_le32(record + f->length_at) != len)
        return bad(why, "length does not agree with the file (torn write?)");
    if (get_number(record + sum_place(f, len), f->sum_bytes) != sum_of(f, s, record, len))
        return bad(why, "wrong checksum");
    uint64_t version = f->version_bytes == 0 ? VERSION : get_number(record + f->version_at, f->version_bytes);
    if (version > VERSION) {
        if (why != NULL)
            *why = "written by a newer version of varve";
        return -ENOTSUP;
    }
    if (version == 0)
        return bad(why, "version 0");
    if (len < f->least)
        return bad(why, "length out of range");
    return s->anywhere || place_fits(f, s, record) ? 0 : bad(why, "it is of another file or place");
}

/* The checksum of the record is the seed, so that a payload never fits another record. */
static uint64_t payload_sum(const uint8_t *record, size_t len, const void *payload, size_t payload_len)
{
    return hash64_seed(payload, payload_len, get_le64(record + len - SEAL_BYTES));
}

void seal_close_payload(uint8_t *record, size_t len, const void *payload, size_t payload_len)
{
    put_le64(record + len, payload_sum(record, len, payload, payload_len));
}

int seal_open_payload(const uint8_t *record, size_t len, const void *payload, size_t payload_len, const char **why)
{
    return get_le64(record + len) == payload_sum(record, len, payload, payload_len) ? 0 : bad(why, "wrong checksum of the payload");
}
