/* SPDX-License-Identifier: Apache-2.0 */
/* Segment recipe, snapshot recipe (header and page of runs), side file, node record, owner record, deletion log. */
#include "fuzz.h"

#include "format/deletions.h"
#include "format/node.h"
#include "format/owner.h"
#include "format/recipe.h"

const char fuzz_family[] = "recipe";

void fuzz_setup(void)
{
}

/* The length field of a record's frame is part of what must fit before anything else is looked at. */
static void record_mend(uint8_t *p, size_t len)
{
    if (len < 24)
        return;
    put_le32(p + 12, (uint32_t)len);
    fuzz_mend_tail(p, len);
}

/* ---- segment recipe ---- */

static size_t seg_seed(unsigned i, uint8_t *out)
{
    static struct segrcp_run runs[SEGRCP_RUNS_MAX];
    static uint16_t len1[SEGRCP_BLOCKS_MAX];
    static uint32_t prefix[SEGRCP_BLOCKS_MAX];
    struct segrcp r = {.runs = runs, .len1 = len1, .prefix = prefix};
    memset(r.digest, 7, sizeof r.digest);
    for (unsigned k = 0; k < SEGRCP_BLOCKS_MAX; k++)
        prefix[k] = k * 2654435761u;
    switch (i) {
    case 0:     /* one block */
        r.nruns = r.nblocks = 1;
        runs[0] = (struct segrcp_run){ref_make(0x10000, 5), 1};
        len1[0] = 4095;
        r.bytes = 4096;
        break;
    case 1:     /* zero, two blocks, zero, block of another container */
        r.nruns = 4;
        r.nblocks = 3;
        runs[0] = (struct segrcp_run){REF_ZERO, 10000};
        runs[1] = (struct segrcp_run){ref_make(0x10001, 9), 2};
        runs[2] = (struct segrcp_run){REF_ZERO, 100};
        runs[3] = (struct segrcp_run){ref_make(0x20001, 0xffffff), 1};
        len1[0] = 999, len1[1] = 65535, len1[2] = 0;
        r.bytes = 10000 + 1000 + 65536 + 100 + 1;
        break;
    case 2:     /* a full segment of 4 KiB blocks */
        r.nruns = 1;
        r.nblocks = SEG_BYTES / 4096;
        runs[0] = (struct segrcp_run){ref_make(0x10000, 0), r.nblocks};
        for (unsigned k = 0; k < r.nblocks; k++)
            len1[k] = 4095;
        r.bytes = SEG_BYTES;
        break;
    case 3:     /* as many runs and blocks as there can be */
        r.nruns = r.nblocks = SEGRCP_BLOCKS_MAX;
        for (unsigned k = 0; k < r.nblocks; k++) {
            len1[k] = 1023;
            runs[k] = (struct segrcp_run){ref_make(0x10000 + k, k), 1};
        }
        r.bytes = SEG_BYTES;
        break;
    default:
        return 0;
    }
    r.data_pages = segrcp_data_pages(&r);
    int len = segrcp_encode(&r, out, FUZZ_INPUT_MAX);
    return len < 0 ? 0 : (size_t)len;
}

static bool seg_feed(const uint8_t *p, size_t len)
{
    struct segrcp r;
    const char *why = NULL;
    static uint8_t again[SEGRCP_BYTES_MAX];
    if (segrcp_decode(p, len, &r, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(segrcp_encode(&r, again, sizeof again) == (int)len && memcmp(again, p, len) == 0);
    FUZZ_CHECK(r.bytes <= SEG_BYTES && r.data_pages <= SEG_PAGES);
    segrcp_release(&r);
    return true;
}

/* ---- snapshot recipe ---- */

static size_t snap_seed(unsigned i, uint8_t *out)
{
    struct snaprcp r = {.store = fuzz_id(1), .info.ref.disk = fuzz_id(2), .vm = fuzz_id(3), .info.ref.snap = fuzz_id(4),
                        .info.host = fuzz_id(5), .info.ref.seq = 9,
                        .epoch = 1, .info.group_members = 1, .info.size = UINT64_C(5) << SEG_SHIFT,
                        .info.alloc_bytes = 4096 * 9, .nruns = 3,
                        .info.mode = 0440, .info.dirty_segments = 2, .info.name_s = 1790000000};
    if (i == 1) {
        memset(r.info.label, 'l', 64);
        memset(r.info.note, 'n', 1024);
        r.info.parent = fuzz_id(6);
        r.info.flags = SNAP_PARTIAL | SNAP_PROVISIONAL;
        r.info.size = UINT64_C(1) << 53;
    } else if (i == 2) {
        r.info.size = r.info.alloc_bytes = r.nruns = r.info.dirty_segments = 0;
    } else if (i > 2) {
        return 0;
    }
    return snaprcp_encode(&r, out) < 0 ? 0 : SNAPRCP_PAGE;
}

static bool snap_feed(const uint8_t *p, size_t len)
{
    struct snaprcp r;
    const char *why = NULL;
    uint8_t again[SNAPRCP_PAGE];
    (void)len;
    if (snaprcp_decode(p, &r, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(snaprcp_encode(&r, again) == 0 && memcmp(again, p, sizeof again) == 0);
    FUZZ_CHECK(strlen(r.info.label) <= 64 && strlen(r.info.note) <= 1024 && strchr(r.info.label, '/') == NULL);
    return true;
}

static size_t runs_seed(unsigned i, uint8_t *out)
{
    static const uint32_t counts[] = {1, 3, SNAPRCP_PAGE_RUNS};
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
    struct vid snap = fuzz_id(4);
    uint32_t first = 0;
    if (i >= sizeof counts / sizeof counts[0])
        return 0;
    for (uint32_t k = 0; k < counts[i]; k++) {
        runs[k] = (struct snaprun){first, k + 1, k % 3 == 0 ? REF_ZERO : ref_make(0x30000 + k, k)};
        first += k + 1;
    }
    return snaprcp_page_encode(&snap, 2, runs, counts[i], out) < 0 ? 0 : SNAPRCP_PAGE;
}

static void runs_mend(uint8_t *p, size_t len)
{
    struct vid snap = fuzz_id(4);
    uint8_t place[VID_BYTES + 8 + 8];
    (void)len;
    memcpy(place, snap.b, VID_BYTES);
    put_le64(place + VID_BYTES, 2);
    memcpy(place + VID_BYTES + 8, p, 8);
    put_le64(p + 8, hash64_seed(p + 16, SNAPRCP_PAGE - 16, hash64(place, sizeof place)));
}

static bool runs_feed(const uint8_t *p, size_t len)
{
    struct snaprun *runs = malloc(SNAPRCP_PAGE_RUNS * sizeof *runs);
    struct vid snap = fuzz_id(4);
    const char *why = NULL;
    uint8_t again[SNAPRCP_PAGE];
    uint32_t n = 0;
    (void)len;
    int r = snaprcp_page_decode(&snap, 2, p, runs, &n, &why);
    FUZZ_CHECK(r == 0 || why != NULL);
    if (r == 0) {
        FUZZ_CHECK(snaprcp_page_encode(&snap, 2, runs, n, again) == 0 && memcmp(again, p, sizeof again) == 0);
        FUZZ_CHECK(snaprcp_page_decode(&snap, 3, p, runs, &n, &why) < 0);
    }
    free(runs);
    return r == 0;
}

/* ---- side file ---- */

static size_t attr_seed(unsigned i, uint8_t *out)
{
    struct snapattr a = {.snap = fuzz_id(4), .version = 3, .mode = 0444, .uid = 1000, .gid = 1000, .owner_set = true, .verified_s = 1790000000};
    if (i == 1) {
        a = (struct snapattr){.snap = fuzz_id(4), .version = 3};
        memset(a.label, 'x', 64);
        memset(a.note, 'y', 1024);
        a.protected_ = true;
        a.set_flags = SNAP_PARTIAL;
        a.clear_flags = SNAP_PROVISIONAL;
    }
    return i > 1 ? 0 : snapattr_encode(&a, out);
}

static bool attr_feed(const uint8_t *p, size_t len)
{
    struct snapattr a;
    const char *why = NULL;
    uint8_t again[SNAPATTR_BYTES];
    if (snapattr_decode(p, len, &a, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(snapattr_encode(&a, again) == len && memcmp(again, p, len) == 0);
    return true;
}

/* ---- node record ---- */

static size_t node_seed(unsigned i, uint8_t *out)
{
    struct node n = {.id = fuzz_id(7), .parent = fuzz_id(8), .version = 4, .kind = NODE_DISK, .mode = 0640, .name = "web.img"};
    if (i == 1) {
        n.kind = NODE_DIR;
        n.mode = 07755;
        n.flags = NODE_SELECTIVE;
        n.replaces = fuzz_id(9);
        memset(n.name, 'd', NODE_NAME_MAX);
    } else if (i == 2) {
        n = (struct node){.id = fuzz_id(7), .version = 1, .kind = NODE_DIR, .mode = 0755};      /* the root */
    }
    return i > 2 ? 0 : node_encode(&n, out);
}

static bool node_feed(const uint8_t *p, size_t len)
{
    struct node n;
    const char *why = NULL;
    uint8_t again[NODE_RECORD_MAX];
    if (node_decode(p, len, &n, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(node_encode(&n, again) == len && memcmp(again, p, len) == 0);
    FUZZ_CHECK(strlen(n.name) <= NODE_NAME_MAX && strchr(n.name, '/') == NULL && strcmp(n.name, "..") != 0);
    return true;
}

/* ---- owner record, deletion log ---- */

static size_t owner_seed(unsigned i, uint8_t *out)
{
    struct owner_record o = {.store = fuzz_id(1), .vm = fuzz_id(3), .host = fuzz_id(5), .epoch = i == 0 ? 1 : UINT64_MAX};
    return i > 1 || owner_encode(&o, out) < 0 ? 0 : OWNER_BYTES;
}

static bool owner_feed(const uint8_t *p, size_t len)
{
    struct owner_record o, same;
    const char *why = NULL;
    uint8_t again[OWNER_BYTES];
    if (owner_decode(p, len, NULL, &o, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(len == OWNER_BYTES && owner_encode(&o, again) == 0 && memcmp(again, p, len) == 0);
    FUZZ_CHECK(owner_decode(p, len, &o, &same, NULL) == 0 && vid_eq(&o.host, &same.host));
    o.epoch++;
    FUZZ_CHECK(owner_decode(p, len, &o, &same, NULL) == -EBADMSG);
    return true;
}

static size_t deletions_seed(unsigned i, uint8_t *out)
{
    static const uint64_t counts[] = {0, 1, 500};
    uint64_t refs[500];
    struct vid store = fuzz_id(1);
    if (i >= sizeof counts / sizeof counts[0])
        return 0;
    for (uint32_t k = 0; k < counts[i]; k++)
        refs[k] = ref_make(0x10000 + k, k * 3);
    deletion_log_encode(&store, 7, refs, counts[i], out);
    return deletion_log_bytes(counts[i]);
}

static bool deletions_feed(const uint8_t *p, size_t len)
{
    static uint64_t refs[FUZZ_INPUT_MAX / 8];
    static uint8_t again[FUZZ_INPUT_MAX];
    struct deletion_log log;
    const char *why = NULL;
    if (deletion_log_decode(p, len, NULL, &log, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    FUZZ_CHECK(deletion_log_bytes(log.n) == len && log.n <= sizeof refs / sizeof refs[0]);
    for (uint64_t i = 0; i < log.n; i++) {
        refs[i] = deletion_log_ref(&log, i);
        FUZZ_CHECK(deletion_log_has(&log, refs[i]) && ref_is_block(refs[i]));
    }
    deletion_log_encode(&log.store, log.generation, refs, log.n, again);
    FUZZ_CHECK(memcmp(again, p, len) == 0);
    log.generation++;
    FUZZ_CHECK(deletion_log_decode(p, len, &log, &(struct deletion_log){0}, NULL) == -EBADMSG);
    return true;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"segment", 0, 0, seg_seed, record_mend, seg_feed},
    {"snapshot", SNAPRCP_PAGE, 0, snap_seed, record_mend, snap_feed},
    {"runs", SNAPRCP_PAGE, 0, runs_seed, runs_mend, runs_feed},
    {"side-file", 0, 0, attr_seed, record_mend, attr_feed},
    {"node", 0, 0, node_seed, record_mend, node_feed},
    {"owner", 0, 0, owner_seed, fuzz_mend_tail, owner_feed},
    {"deletions", 0, 0, deletions_seed, fuzz_mend_tail, deletions_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
