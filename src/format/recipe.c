/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshot recipe (header, pages of runs) and its side file: bytes <-> structs. The segment recipe is recipe_segment.c. */
#include "format/recipe.h"

#include "base/clock.h"
#include "format/record_internal.h"

/* First + count of a run are 32 bits: the largest disk has 2^32 segments. */
#define SNAP_SIZE_MAX (UINT64_C(1) << (32 + SEG_SHIFT))

/* ---- header page ---- */

enum {
    HDR_PAGE_BYTES = 16, HDR_STORE = 24, HDR_DISK = 40, HDR_VM = 56, HDR_SNAP = 72, HDR_PARENT = 88, HDR_HOST = 104, HDR_GROUP = 120,
    HDR_SEQ = 136, HDR_EPOCH = 144, HDR_FLAGS = 152, HDR_MEMBERS = 156, HDR_SIZE = 160, HDR_ALLOC = 168, HDR_FREEZE = 176,
    HDR_NAME = 184, HDR_LEVELS = 192, HDR_NRUNS = 264, HDR_DIGEST = 272, HDR_LABEL_LEN = 304, HDR_NOTE_LEN = 306, HDR_LABEL = 308,
    HDR_NOTE = HDR_LABEL + LABEL_MAX, HDR_MODE = HDR_NOTE + NOTE_MAX,
    HDR_UID = HDR_MODE + 4, HDR_GID = HDR_UID + 4, HDR_DIRTY = HDR_GID + 4, HDR_REST = HDR_DIRTY + 8, HDR_PAGE_RUNS = 20,
};
_Static_assert((int)HDR_REST + (int)RECORD_TAIL <= (int)SNAPRCP_PAGE, "the header must fit its page");
_Static_assert(16 + 16 * (int)SNAPRCP_PAGE_RUNS == (int)SNAPRCP_PAGE, "runs must fill a page exactly");

/* A label becomes part of a file name, so nothing that could leave its directory or break a terminal gets in or out. */
static bool label_valid(const char *s, size_t len)
{
    if (len > LABEL_MAX)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = s[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-'))
            return false;
    }
    return true;
}

static bool note_valid(const char *s, size_t len)
{
    return len <= NOTE_MAX && memchr(s, '\0', len) == NULL;
}

static const char *snap_problem(const struct snaprcp *r, size_t label_len, size_t note_len)
{
    if (vid_is_zero(&r->store) || vid_is_zero(&r->info.ref.disk) || vid_is_zero(&r->info.ref.snap))
        return "store, disk or snapshot id is zero";
    if (vid_eq(&r->info.parent, &r->info.ref.snap))
        return "snapshot is its own parent";
    if ((r->info.flags & ~(uint32_t)SNAP_RECIPE_FLAGS) != 0)
        return "unknown flags";
    if (r->info.ref.seq == 0)
        return "sequence number is zero";
    if (r->info.name_s < 0 || r->info.name_s > TIME_NAME_MAX)
        return "time of the name out of range";
    if (r->info.size > SNAP_SIZE_MAX)
        return "size out of range";
    uint64_t segments = seg_count(r->info.size);
    if (r->info.alloc_bytes > segments << SEG_SHIFT)
        return "more bytes allocated than the disk has";
    if (r->nruns > segments || (r->nruns == 0 && segments != 0))
        return "number of runs does not fit the size";
    if ((r->info.mode & ~0555u) != 0)
        return "mode has bits other than reading and executing";
    if (r->info.dirty_segments > segments)
        return "more segments were written than the disk has";
    if (!label_valid(r->info.label, label_len))
        return "label has characters other than [A-Za-z0-9._-], or more than 64";
    if (!note_valid(r->info.note, note_len))
        return "note is too long or contains NUL";
    return NULL;
}

static void levels_put(uint8_t *p, const struct snap_levels *l)
{
    const uint64_t v[9] = {l->zero, l->clean, l->parent_segment, l->parent_block, l->common, l->global, l->dup_new, l->fresh, l->stored};
    for (size_t i = 0; i < 9; i++)
        put_le64(p + 8 * i, v[i]);
}

static struct snap_levels levels_get(const uint8_t *p)
{
    return (struct snap_levels){
        .zero = get_le64(p), .clean = get_le64(p + 8), .parent_segment = get_le64(p + 16), .parent_block = get_le64(p + 24),
        .common = get_le64(p + 32), .global = get_le64(p + 40), .dup_new = get_le64(p + 48), .fresh = get_le64(p + 56),
        .stored = get_le64(p + 64),
    };
}

int snaprcp_encode(const struct snaprcp *r, uint8_t out[SNAPRCP_PAGE])
{
    size_t label_len = strnlen(r->info.label, sizeof r->info.label);
    size_t note_len = strnlen(r->info.note, sizeof r->info.note);
    memset(out, 0, SNAPRCP_PAGE);
    if (snap_problem(r, label_len, note_len) != NULL)
        return -EINVAL;
    put_le32(out + HDR_PAGE_BYTES, SNAPRCP_PAGE);
    put_le32(out + HDR_PAGE_RUNS, SNAPRCP_PAGE_RUNS);
    put_vid(out + HDR_DISK, &r->info.ref.disk);
    put_vid(out + HDR_VM, &r->vm);
    put_vid(out + HDR_PARENT, &r->info.parent);
    put_vid(out + HDR_HOST, &r->info.host);
    put_vid(out + HDR_GROUP, &r->info.group);
    put_le64(out + HDR_EPOCH, r->epoch);
    put_le32(out + HDR_FLAGS, r->info.flags);
    put_le32(out + HDR_MEMBERS, r->info.group_members);
    put_le64(out + HDR_SIZE, r->info.size);
    put_le64(out + HDR_ALLOC, r->info.alloc_bytes);
    put_le64(out + HDR_FREEZE, (uint64_t)r->info.freeze_ns);
    put_le64(out + HDR_NAME, (uint64_t)r->info.name_s);
    levels_put(out + HDR_LEVELS, &r->info.levels);
    put_le64(out + HDR_NRUNS, r->nruns);
    memcpy(out + HDR_DIGEST, r->runs_digest, FP_BYTES);
    put_le16(out + HDR_LABEL_LEN, (uint16_t)label_len);
    put_le16(out + HDR_NOTE_LEN, (uint16_t)note_len);
    memcpy(out + HDR_LABEL, r->info.label, label_len);
    memcpy(out + HDR_NOTE, r->info.note, note_len);
    put_le32(out + HDR_MODE, r->info.mode);
    put_le32(out + HDR_UID, r->info.uid);
    put_le32(out + HDR_GID, r->info.gid);
    put_le64(out + HDR_DIRTY, r->info.dirty_segments);
    seal_close(&(struct seal){.kind = SEAL_SNAPSHOT, .store = &r->store, .id = &r->info.ref.snap, .number = r->info.ref.seq}, out,
               SNAPRCP_PAGE);
    return 0;
}

/* Texts, and the bytes that must be zero: behind the texts and at the end of the page. */
static const char *snap_texts(const uint8_t *in, struct snaprcp *r, size_t *label_len, size_t *note_len)
{
    *label_len = get_le16(in + HDR_LABEL_LEN);
    *note_len = get_le16(in + HDR_NOTE_LEN);
    if (*label_len > LABEL_MAX || *note_len > NOTE_MAX)
        return "label or note is too long";
    if (!all_zero(in + HDR_LABEL + *label_len, LABEL_MAX - *label_len) ||
        !all_zero(in + HDR_NOTE + *note_len, NOTE_MAX - *note_len) ||
        !all_zero(in + HDR_REST, SNAPRCP_PAGE - RECORD_TAIL - HDR_REST))
        return "bytes that must be zero are not";
    memcpy(r->info.label, in + HDR_LABEL, *label_len);
    memcpy(r->info.note, in + HDR_NOTE, *note_len);
    return NULL;
}

int snaprcp_decode(const uint8_t in[SNAPRCP_PAGE], struct snaprcp *out, const char **why)
{
    int bad = seal_open(&(struct seal){.kind = SEAL_SNAPSHOT, .anywhere = true}, in, SNAPRCP_PAGE, why);
    if (bad < 0)
        return bad;
    if (get_le32(in + HDR_PAGE_BYTES) != SNAPRCP_PAGE || get_le32(in + HDR_PAGE_RUNS) != SNAPRCP_PAGE_RUNS)
        return record_bad(why, "unknown size of a page");
    struct snaprcp r = {
        .store = get_vid(in + HDR_STORE), .vm = get_vid(in + HDR_VM),
        .info.ref = {get_vid(in + HDR_DISK), get_le64(in + HDR_SEQ), get_vid(in + HDR_SNAP)},
        .info.parent = get_vid(in + HDR_PARENT), .info.host = get_vid(in + HDR_HOST), .info.group = get_vid(in + HDR_GROUP),
        .epoch = get_le64(in + HDR_EPOCH),
        .info.flags = get_le32(in + HDR_FLAGS), .info.group_members = get_le32(in + HDR_MEMBERS),
        .info.size = get_le64(in + HDR_SIZE), .info.alloc_bytes = get_le64(in + HDR_ALLOC),
        .info.freeze_ns = (int64_t)get_le64(in + HDR_FREEZE), .info.name_s = (int64_t)get_le64(in + HDR_NAME),
        .info.mode = get_le32(in + HDR_MODE), .info.uid = get_le32(in + HDR_UID), .info.gid = get_le32(in + HDR_GID),
        .info.dirty_segments = get_le64(in + HDR_DIRTY), .info.levels = levels_get(in + HDR_LEVELS), .nruns = get_le64(in + HDR_NRUNS),
    };
    memcpy(r.runs_digest, in + HDR_DIGEST, FP_BYTES);
    size_t label_len, note_len;
    const char *problem = snap_texts(in, &r, &label_len, &note_len);
    if (problem == NULL)
        problem = snap_problem(&r, label_len, note_len);
    if (problem != NULL)
        return record_bad(why, problem);
    *out = r;
    return 0;
}

/* ---- pages of runs: magic (4), version (2), number of runs (2), checksum (8), 255 runs of 16 bytes ---- */

/* A disk is covered without gaps, so each run begins where the one before ended; places stay inside their container. */
static const char *runs_problem(const struct snaprun *runs, uint32_t n)
{
    if (n == 0 || n > SNAPRCP_PAGE_RUNS)
        return "number of runs out of range";
    for (uint32_t i = 0; i < n; i++) {
        const struct snaprun *run = &runs[i];
        if (run->count == 0 || (uint64_t)run->first + run->count > SNAP_SIZE_MAX >> SEG_SHIFT)
            return "run of segments out of range";
        if (i > 0 && (uint64_t)runs[i - 1].first + runs[i - 1].count != run->first)
            return "gap or overlap between runs";
        if (run->place == REF_ZERO)
            continue;
        if (!ref_is_block(run->place))
            return "place is none";
        if ((uint64_t)ref_ordinal(run->place) + (run->count - 1) >= UINT64_C(1) << ORDINAL_BITS)
            return "run leaves its container";
    }
    return NULL;
}

int snaprcp_page_encode(const struct vid *snap, uint64_t page, const struct snaprun *runs, uint32_t n, uint8_t out[SNAPRCP_PAGE])
{
    memset(out, 0, SNAPRCP_PAGE);
    if (page == 0 || runs_problem(runs, n) != NULL)
        return -EINVAL;
    put_le16(out + 6, (uint16_t)n);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *p = out + 16 + 16 * (size_t)i;
        put_le32(p, runs[i].first);
        put_le32(p + 4, runs[i].count);
        put_le64(p + 8, runs[i].place);
    }
    seal_close(&(struct seal){.kind = SEAL_RUNS, .id = snap, .number = page}, out, SNAPRCP_PAGE);
    return 0;
}

int snaprcp_page_decode(const struct vid *snap, uint64_t page, const uint8_t in[SNAPRCP_PAGE], struct snaprun *out, uint32_t *n,
                        const char **why)
{
    int bad = seal_open(&(struct seal){.kind = SEAL_RUNS, .id = snap, .number = page}, in, SNAPRCP_PAGE, why);
    if (bad < 0)
        return bad;
    uint32_t count = get_le16(in + 6);
    if (page == 0 || count == 0 || count > SNAPRCP_PAGE_RUNS)
        return record_bad(why, "number of runs out of range");
    if (!all_zero(in + 16 + 16 * (size_t)count, 16 * (size_t)(SNAPRCP_PAGE_RUNS - count)))
        return record_bad(why, "bytes that must be zero are not");
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *p = in + 16 + 16 * (size_t)i;
        runs[i] = (struct snaprun){.first = get_le32(p), .count = get_le32(p + 4), .place = get_le64(p + 8)};
    }
    const char *problem = runs_problem(runs, count);
    if (problem != NULL)
        return record_bad(why, problem);
    memcpy(out, runs, count * sizeof *out);
    *n = count;
    return 0;
}

/* ---- side file ---- */

enum {
    ATTR_SNAP = 16, ATTR_VERSION = 32, ATTR_SET = 40, ATTR_CLEAR = 44, ATTR_MODE = 48, ATTR_UID = 52, ATTR_GID = 56,
    ATTR_PROTECTED = 60, ATTR_OWNER_SET = 61, ATTR_LABEL_LEN = 62, ATTR_VERIFIED = 64, ATTR_NOTE_LEN = 72, ATTR_ZERO = 74,
    ATTR_TEXT = 76,
    ATTR_MIN = ATTR_TEXT + RECORD_TAIL, ATTR_MAX = ATTR_TEXT + LABEL_MAX + NOTE_MAX + RECORD_TAIL,
};
_Static_assert((int)ATTR_MAX <= (int)SNAPATTR_BYTES, "a side file must fit its buffer");

static const char *attr_problem(const struct snapattr *a, size_t label_len, size_t note_len)
{
    if (vid_is_zero(&a->snap))
        return "snapshot id is zero";
    if (((a->set_flags | a->clear_flags) & ~(uint32_t)SNAP_RECIPE_FLAGS) != 0)
        return "unknown flags";
    if (a->version == 0)
        return "version is zero";
    if ((a->mode & ~0777u) != 0)
        return "mode has bits that a snapshot cannot have";
    if (!a->owner_set && (a->mode != 0 || a->uid != 0 || a->gid != 0))
        return "mode or owner without the mark that they count";
    if (a->verified_s < 0)
        return "time of the verification out of range";
    if (!label_valid(a->label, label_len))
        return "label has characters other than [A-Za-z0-9._-], or more than 64";
    if (!note_valid(a->note, note_len))
        return "note is too long or contains NUL";
    return NULL;
}

size_t snapattr_encode(const struct snapattr *a, uint8_t out[SNAPATTR_BYTES])
{
    size_t label_len = strnlen(a->label, sizeof a->label);
    size_t note_len = strnlen(a->note, sizeof a->note);
    if (attr_problem(a, label_len, note_len) != NULL)
        return 0;
    put_le32(out + ATTR_SET, a->set_flags);
    put_le32(out + ATTR_CLEAR, a->clear_flags);
    put_le32(out + ATTR_MODE, a->mode);
    put_le32(out + ATTR_UID, a->uid);
    put_le32(out + ATTR_GID, a->gid);
    put_le64(out + ATTR_VERIFIED, (uint64_t)a->verified_s);
    out[ATTR_PROTECTED] = a->protected_;
    out[ATTR_OWNER_SET] = a->owner_set;
    put_le16(out + ATTR_LABEL_LEN, (uint16_t)label_len);
    put_le16(out + ATTR_NOTE_LEN, (uint16_t)note_len);
    put_le16(out + ATTR_ZERO, 0);
    memcpy(out + ATTR_TEXT, a->label, label_len);
    memcpy(out + ATTR_TEXT + label_len, a->note, note_len);
    size_t len = ATTR_TEXT + label_len + note_len + RECORD_TAIL;
    seal_close(&(struct seal){.kind = SEAL_SIDE_FILE, .id = &a->snap, .number = a->version}, out, len);
    return len;
}

int snapattr_decode(const uint8_t *data, size_t len, struct snapattr *out, const char **why)
{
    int r = seal_open(&(struct seal){.kind = SEAL_SIDE_FILE, .anywhere = true}, data, len, why);
    if (r < 0)
        return r;
    if (len < ATTR_MIN || len > ATTR_MAX)
        return record_bad(why, "length out of range");
    size_t label_len = get_le16(data + ATTR_LABEL_LEN), note_len = get_le16(data + ATTR_NOTE_LEN);
    if (label_len > LABEL_MAX || note_len > NOTE_MAX || label_len + note_len != len - ATTR_MIN)
        return record_bad(why, "lengths of label and note do not agree with the record");
    if (data[ATTR_PROTECTED] > 1 || data[ATTR_OWNER_SET] > 1 || get_le16(data + ATTR_ZERO) != 0)
        return record_bad(why, "a yes-or-no field is neither, or bytes that must be zero are not");
    struct snapattr a = {
        .snap = get_vid(data + ATTR_SNAP), .version = get_le64(data + ATTR_VERSION),
        .set_flags = get_le32(data + ATTR_SET), .clear_flags = get_le32(data + ATTR_CLEAR),
        .mode = get_le32(data + ATTR_MODE), .uid = get_le32(data + ATTR_UID), .gid = get_le32(data + ATTR_GID),
        .verified_s = (int64_t)get_le64(data + ATTR_VERIFIED), .protected_ = data[ATTR_PROTECTED], .owner_set = data[ATTR_OWNER_SET],
    };
    memcpy(a.label, data + ATTR_TEXT, label_len);
    memcpy(a.note, data + ATTR_TEXT + label_len, note_len);
    const char *problem = attr_problem(&a, label_len, note_len);
    if (problem != NULL)
        return record_bad(why, problem);
    *out = a;
    return 0;
}
