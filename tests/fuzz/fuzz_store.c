/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole files of STORE, through the functions that read them in a store: container, snapshot recipe, side file, owner record,
 * deletion log, node record. Each input replaces one file of a real store; `varve dump` reads it too.
 */
#include "fuzz.h"

#include "../unit/store_fixture.h"
#include "check/dump.h"
#include "format/container.h"
#include "format/recipe.h"
#include "snapshot/segread.h"
#include "snapshot/snapshot.h"
#include "store/container.h"
#include "store/publish.h"
#include "store/snaps.h"
#include "store/store_internal.h"

const char fuzz_family[] = "store";

enum { SEQ = 5 };
static struct mkstore m;
static struct creader *reader;
static struct segread *segread;
static FILE *null;
static uint64_t blocks_no, recipes_no;
static uint8_t *originals[2];
static size_t original_len[2];

static struct vid the_vm(void) { return fuzz_id(3); }
static struct vid the_host(void) { return fuzz_id(5); }
static struct vid the_disk(void) { return fuzz_id(2); }
static struct vid the_snap(void) { return fuzz_id(4); }

static void must(int r, const struct verr *err)
{
    if (r < 0) {
        fprintf(stderr, "fuzz_store: cannot make the store: %s\n", verr_str(err));
        abort();
    }
}

/* A segment recipe of two blocks and a zero run, as a block of a recipe container. */
static size_t small_recipe(uint8_t *out)
{
    struct segrcp_run runs[2] = {{ref_make(blocks_no, 0), 2}, {REF_ZERO, 5000}};
    uint16_t len1[2] = {4095, 1023};
    uint32_t prefix[2] = {1, 2};
    struct segrcp r = {.bytes = 4096 + 1024 + 5000, .nruns = 2, .nblocks = 2, .runs = runs, .len1 = len1, .prefix = prefix};
    r.data_pages = segrcp_data_pages(&r);
    int n = segrcp_encode(&r, out, SEGRCP_BYTES_MAX);
    return n < 0 ? 0 : (size_t)n;
}

static uint64_t make_container(uint32_t type)
{
    static uint8_t block[SEGRCP_BYTES_MAX];
    struct cwriter *w;
    struct verr err = {0};
    uint64_t ref;
    must(cwriter_open(m.st, type, CONTAINER_SHARED, REF_NONE, &w, &err), &err);
    for (unsigned i = 0; i < 6; i++) {
        struct fp fp = {{(uint8_t)i}};
        size_t len = i == 0 ? 4096 : 1024 + i;
        if (type == CONTAINER_RECIPES)
            len = small_recipe(block);
        else
            memset(block, (int)i, len);
        if (i == 4)
            must(cwriter_seal(w, &err), &err);      /* two sections */
        must(cwriter_append(w, &fp, block, len, &ref, &err), &err);
    }
    must(cwriter_seal(w, &err), &err);
    uint64_t number = cwriter_container(w);
    cwriter_free(w);
    return number;
}

static void remember(unsigned which, uint64_t number)
{
    char name[32];
    container_path(number, name);
    if (file_load(store_dirfd(m.st, DIR_CONTAINERS), name, 1 << 20, &originals[which], &original_len[which]) < 0)
        abort();
}

static void tidy(void)
{
    segread_free(segread);
    creader_free(reader);
    mks_remove(&m);
    free(originals[0]);
    free(originals[1]);
    fclose(null);
}

void fuzz_setup(void)
{
    struct verr err = {0};
    null = fopen("/dev/null", "we");
    if (null == NULL || mks_make(&m) < 0)
        abort();
    blocks_no = make_container(CONTAINER_BLOCKS);
    recipes_no = make_container(CONTAINER_RECIPES);
    remember(0, blocks_no);
    remember(1, recipes_no);
    must(creader_new(m.st, 1 << 20, &reader, &err), &err);
    must(segread_new(reader, 2, &segread, &err), &err);
    struct vid d = the_disk();
    int fd = store_disk_dir(m.st, DIR_SNAPSHOTS, &d, true, &err);
    must(fd, &err);
    close(fd);
    atexit(tidy);
}

/* Writes a file of the store below dir; path gets its place. */
static void put_file(enum store_dir dir, const char *name, const uint8_t *p, size_t len, char path[300])
{
    int fd = openat(store_dirfd(m.st, dir), name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite_full(fd, p, len, 0) < 0)
        abort();
    close(fd);
    snprintf(path, 300, "%s/%s/%s", m.path, store_dir_names[dir], name);
}

static void dump(const char *path)
{
    struct verr err = {0};
    int r = dump_file(path, true, null, &err);
    FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -ENOTSUP);
    FUZZ_CHECK(r == 0 || err.text[0] != '\0');
    FUZZ_CHECK(dump_file(path, false, null, NULL) == r);
}

/* ---- container ---- */

static size_t container_seed(unsigned i, uint8_t *out)
{
    if (i > 1)
        return 0;
    memcpy(out, originals[i], original_len[i]);
    return original_len[i];
}

static void mend_page(const uint8_t *head, uint32_t first, uint8_t *p)
{
    uint8_t where[2 * VID_BYTES + 8 + 4 + 8];
    memcpy(where, head + 16, VID_BYTES);
    memcpy(where + VID_BYTES, head + 40, VID_BYTES);
    memcpy(where + 2 * VID_BYTES, head + 32, 8);
    put_le32(where + 2 * VID_BYTES + 8, first);
    memcpy(where + 2 * VID_BYTES + 12, p, 8);
    put_le64(p + 8, hash64_seed(p + FOOTER_PAGE_HEAD, FOOTER_PAGE_BYTES - FOOTER_PAGE_HEAD, hash64(where, sizeof where)));
}

/* Frames, footer pages and trailers one behind the other, as far as their magics tell. */
static void container_mend(uint8_t *p, size_t len)
{
    if (len < CHEADER_BYTES)
        return;
    put_le64(p + CHEADER_BYTES - 8, hash64(p, CHEADER_BYTES - 8));
    uint32_t first = 0, pages = 0;
    bool frames = false;
    for (size_t at = CHEADER_BYTES; at + CFRAME_BYTES <= len;) {
        uint8_t *q = p + at;
        if (memcmp(q, "varveFRM", 8) == 0) {
            uint32_t stored = get_le32(q + 68);
            if (!frames)
                first = get_le32(q + 56);
            frames = true;
            pages = 0;
            put_le64(q + 80, hash64(q, 80));
            if (stored > len - at - CFRAME_BYTES)
                return;
            put_le64(q + 88, hash64_seed(q + CFRAME_BYTES, stored, get_le64(q + 80)));
            at += CFRAME_BYTES + stored;
        } else if (memcmp(q, "VFTP", 4) == 0 && at + FOOTER_PAGE_BYTES <= len) {
            mend_page(p, first + pages++ * FOOTER_PAGE_ENTRIES, q);
            at += FOOTER_PAGE_BYTES;
        } else if (memcmp(q, "varveTRL", 8) == 0 && at + CTRAILER_BYTES <= len) {
            put_le64(q + CTRAILER_BYTES - 8, hash64(q, CTRAILER_BYTES - 8));
            frames = false;
            at += CTRAILER_BYTES;
        } else {
            return;
        }
    }
}

struct seen { uint64_t number; uint32_t n; };

static int see_entry(void *ctx, uint64_t ref, const struct footer_entry *e)
{
    struct seen *s = ctx;
    FUZZ_CHECK(ref_container(ref) == s->number && e->len <= BLOCK_MAX);
    s->n++;
    return 0;
}

static bool reader_answer(int r)
{
    return r == 0 || r == -EBADMSG || r == -ENODATA || r == -ENOTSUP;
}

static bool container_feed_as(uint64_t number, const uint8_t *p, size_t len)
{
    static uint8_t buf[8 * BLOCK_MAX];
    struct footer_entry e[8];
    struct container_info info = {0};
    struct verr err = {0};
    struct seen s = {.number = number};
    char name[32], path[300];
    container_path(number, name);
    put_file(DIR_CONTAINERS, name, p, len, path);
    creader_forget(reader, number);
    int r = container_walk(reader, number, &info, see_entry, &s, &err);
    FUZZ_CHECK(reader_answer(r) && (r == 0 || err.text[0] != '\0'));
    FUZZ_CHECK(r != 0 || (info.entries == s.n && info.sealed_bytes <= info.file_bytes && info.file_bytes == len));
    for (uint32_t i = 0; i < 8; i++)
        FUZZ_CHECK(reader_answer(creader_entries(reader, ref_make(number, i), i % 3 + 1, e, &err)));
    for (uint32_t i = 0; i < 8; i++)
        FUZZ_CHECK(reader_answer(creader_read(reader, ref_make(number, i), 1 + i % 2, i * 7, buf, 100 * (i + 1), &err)));
    if (number == recipes_no) {
        struct segrcp rcp;
        uint32_t pages;
        segread_free(segread);
        must(segread_new(reader, 2, &segread, &err), &err);
        for (uint32_t i = 0; i < 6; i++) {
            int a = segread_recipe(segread, ref_make(number, i), &rcp, &err);
            FUZZ_CHECK(reader_answer(a));
            if (a == 0)
                segrcp_release(&rcp);
            FUZZ_CHECK(reader_answer(segread_pages(segread, ref_make(number, i), &pages, &err)));
            FUZZ_CHECK(reader_answer(segread_read(segread, ref_make(number, i), 100 * i, buf, 6000, &err)));
        }
    }
    dump(path);
    return r == 0 && !info.torn_tail;
}

/* Which of the two is told by the header; the other one is as it was. */
static bool container_feed(const uint8_t *p, size_t len)
{
    char path[300], name[32];
    bool recipes = len >= 40 && get_le64(p + 32) == recipes_no;
    container_path(recipes ? blocks_no : recipes_no, name);
    put_file(DIR_CONTAINERS, name, originals[!recipes], original_len[!recipes], path);
    creader_forget(reader, recipes ? blocks_no : recipes_no);
    return container_feed_as(recipes ? recipes_no : blocks_no, p, len);
}

/* ---- snapshot recipe ---- */

static size_t recipe_seed(unsigned i, uint8_t *out)
{
    struct snaprcp r = {.store = store_conf(m.st)->id, .info.ref.disk = the_disk(), .vm = the_vm(), .info.ref.snap = the_snap(),
                        .info.host = the_host(), .info.ref.seq = SEQ,
                        .epoch = 1, .info.group_members = 1, .info.size = UINT64_C(600) << SEG_SHIFT,
                        .info.alloc_bytes = 4096, .nruns = i == 0 ? 1 : 300};
    struct snaprun runs[300];
    if (i > 1)
        return 0;
    for (uint32_t k = 0; k < r.nruns; k++)
        runs[k] = (struct snaprun){k * 2, i == 0 ? 600 : 2, k % 2 ? ref_make(recipes_no, k) : REF_ZERO};
    if (snaprcp_encode(&r, out) < 0 || snaprcp_page_encode(&r.info.ref.snap, 1, runs, i == 0 ? 1 : SNAPRCP_PAGE_RUNS,
                                                           out + SNAPRCP_PAGE) < 0)
        return 0;
    if (i == 0)
        return 2 * SNAPRCP_PAGE;
    if (snaprcp_page_encode(&r.info.ref.snap, 2, runs + SNAPRCP_PAGE_RUNS, 300 - SNAPRCP_PAGE_RUNS, out + 2 * SNAPRCP_PAGE) < 0)
        return 0;
    return 3 * SNAPRCP_PAGE;
}

static void recipe_mend(uint8_t *p, size_t len)
{
    if (len < SNAPRCP_PAGE)
        return;
    fuzz_mend_tail(p, SNAPRCP_PAGE);
    for (size_t page = 1; (page + 1) * SNAPRCP_PAGE <= len; page++) {
        uint8_t place[VID_BYTES + 16], *q = p + page * SNAPRCP_PAGE;
        memcpy(place, p + 72, VID_BYTES);
        put_le64(place + VID_BYTES, page);
        memcpy(place + VID_BYTES + 8, q, 8);
        put_le64(q + 8, hash64_seed(q + 16, SNAPRCP_PAGE - 16, hash64(place, sizeof place)));
    }
}

struct runs_seen { uint64_t next; };

static int see_run(void *ctx, const struct snaprun *run)
{
    struct runs_seen *s = ctx;
    FUZZ_CHECK(run->first == s->next);
    s->next = (uint64_t)run->first + run->count;
    return 0;
}

static void recipe_name(const char *suffix, char out[128])
{
    char hex[VID_HEX], file[SNAP_FILE_MAX];
    struct vid d = the_disk(), snap = the_snap();
    vid_hex(&d, hex);
    store_snap_file(SEQ, &snap, suffix, file);
    snprintf(out, 128, "%s/%s", hex, file);
}

static bool recipe_feed(const uint8_t *p, size_t len)
{
    char name[128], path[300];
    uint8_t buf[8192];
    struct vid d = the_disk(), id = the_snap();
    struct snap *s = NULL;
    struct verr err = {0};
    recipe_name("rcp", name);
    put_file(DIR_SNAPSHOTS, name, p, len, path);
    int r = snap_open(m.st, segread, &(struct snapref){d, SEQ, id}, &s, &err);
    FUZZ_CHECK(r == 0 || ((r == -EBADMSG || r == -ENOTSUP) && err.text[0] != '\0'));
    if (r == 0) {
        struct runs_seen seen = {0};
        uint64_t segments = seg_count(snap_header(s)->info.size);
        int all = snap_each_run(s, see_run, &seen, &err);
        FUZZ_CHECK(all == 0 || all == -EBADMSG || all == -ENOTSUP);
        FUZZ_CHECK(all != 0 || seen.next == segments);
        for (unsigned i = 0; i < 4; i++) {
            bool zero;
            uint64_t place, at = segments * i / 4;
            uint32_t pages;
            r = at < segments ? snap_place(s, at, &zero, &place, &pages, &err) : 0;
            FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -ENOTSUP);
            ssize_t n = snap_read(s, (at << SEG_SHIFT) + 5, buf, sizeof buf, &err);
            FUZZ_CHECK(n >= 0 || reader_answer((int)n));
            off_t o = snap_seek(s, at << SEG_SHIFT, i % 2, &err);
            FUZZ_CHECK(o >= 0 || o == -ENXIO || reader_answer((int)o));
        }
        snap_close(s);
        r = all;
    }
    dump(path);
    return r == 0;
}

/* ---- side file: beside a sound recipe ---- */

static size_t side_seed(unsigned i, uint8_t *out)
{
    struct snapattr a = {.snap = the_snap(), .version = 2, .mode = 0440, .owner_set = true, .label = "gold", .note = "n"};
    return i > 0 ? 0 : snapattr_encode(&a, out);
}

static void side_mend(uint8_t *p, size_t len)
{
    if (len >= 24)
        put_le32(p + 12, (uint32_t)len);
    fuzz_mend_tail(p, len);
}

static bool side_feed(const uint8_t *p, size_t len)
{
    static uint8_t recipe[2 * SNAPRCP_PAGE];
    char name[128], path[300];
    struct vid d = the_disk(), id = the_snap();
    struct snaprcp r;
    struct snapattr a;
    struct verr err = {0};
    if (recipe[0] == 0) {
        static uint8_t all[FUZZ_INPUT_MAX];
        FUZZ_CHECK(recipe_seed(0, all) == sizeof recipe);
        memcpy(recipe, all, sizeof recipe);
    }
    recipe_name("rcp", name);
    put_file(DIR_SNAPSHOTS, name, recipe, sizeof recipe, path);
    recipe_name("attr", name);
    put_file(DIR_SNAPSHOTS, name, p, len, path);
    int rc = snaps_load(m.st, &(struct snapref){d, SEQ, id}, &r, &a, &err);
    FUZZ_CHECK(rc == 0 || ((rc == -EBADMSG || rc == -ENOTSUP) && err.text[0] != '\0'));
    dump(path);
    unlinkat(store_dirfd(m.st, DIR_SNAPSHOTS), name, 0);
    return rc == 0;
}

/* ---- owner record, deletion log, node ---- */

static size_t owner_seed(unsigned i, uint8_t *out)
{
    struct vid vm = the_vm(), host = the_host();
    if (i > 0)
        return 0;
    memset(out, 0, 88);
    memcpy(out, "varveOWN", 8);
    put_le32(out + 8, 1);
    memcpy(out + 16, store_conf(m.st)->id.b, VID_BYTES);
    memcpy(out + 32, vm.b, VID_BYTES);
    memcpy(out + 48, host.b, VID_BYTES);
    put_le64(out + 64, 1);
    fuzz_mend_tail(out, 88);
    return 88;
}

static bool owner_feed(const uint8_t *p, size_t len)
{
    char hex[VID_HEX], name[64], path[300];
    struct vid vm = the_vm(), host;
    struct verr err = {0};
    uint64_t epoch = 0;
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "%s.%016x", hex, 1);
    put_file(DIR_OWNERS, name, p, len, path);
    int r = owner_load(m.st, &vm, 1, &host, &err);
    FUZZ_CHECK(r == 0 || ((r == -EBADMSG || r == -ENOTSUP) && err.text[0] != '\0'));
    host = the_host();
    int claim = owner_claim(m.st, &vm, &host, &epoch, &err);
    FUZZ_CHECK(r < 0 ? claim == r : claim == 0 || claim == -ESTALE);
    dump(path);
    return r == 0;
}

static size_t deletions_seed(unsigned i, uint8_t *out)
{
    static const uint64_t counts[] = {0, 1, 500};
    if (i >= sizeof counts / sizeof counts[0])
        return 0;
    memset(out, 0, 48);
    memcpy(out, "varveDEL", 8);
    put_le32(out + 8, 1);
    memcpy(out + 16, store_conf(m.st)->id.b, VID_BYTES);
    put_le64(out + 32, 1);
    put_le64(out + 40, counts[i]);
    for (uint64_t k = 0; k < counts[i]; k++)
        put_le64(out + 48 + 8 * k, ref_make(blocks_no, (uint32_t)k * 3));
    size_t len = 48 + 8 * counts[i] + 8;
    fuzz_mend_tail(out, len);
    return len;
}

static bool deletions_feed(const uint8_t *p, size_t len)
{
    char path[300];
    struct verr err = {0};
    uint64_t refs = 0;
    put_file(DIR_GENERATIONS, "0000000000000001/deletions", p, len, path);
    int r = deletions_check(m.st, 1, &refs, &err);
    FUZZ_CHECK(r == 0 || ((r == -EBADMSG || r == -ENOTSUP) && err.text[0] != '\0'));
    FUZZ_CHECK(r != 0 || refs * 8 + 56 == len);
    dump(path);
    return r == 0;
}

static size_t node_seed(unsigned i, uint8_t *out)
{
    struct node n = {.id = fuzz_id(7), .parent = fuzz_id(8), .version = 4, .kind = NODE_DISK, .mode = 0640, .name = "web.img"};
    return i > 0 ? 0 : node_encode(&n, out);
}

static bool node_feed(const uint8_t *p, size_t len)
{
    char hex[VID_HEX], path[300];
    struct vid id = fuzz_id(7);
    struct node n;
    struct verr err = {0};
    vid_hex(&id, hex);
    put_file(DIR_NODES, hex, p, len, path);
    int r = store_node_load(m.st, &id, &n, &err);
    FUZZ_CHECK(r == 0 || ((r == -EBADMSG || r == -ENOTSUP) && err.text[0] != '\0'));
    FUZZ_CHECK(r != 0 || vid_eq(&n.id, &id));
    dump(path);
    return r == 0;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"container-file", 0, 10, container_seed, container_mend, container_feed},
    {"recipe-file", 0, 10, recipe_seed, recipe_mend, recipe_feed},
    {"side-file", 0, 10, side_seed, side_mend, side_feed},
    {"owner", 0, 10, owner_seed, fuzz_mend_tail, owner_feed},
    {"deletions", 0, 10, deletions_seed, fuzz_mend_tail, deletions_feed},
    {"node-file", 0, 10, node_seed, side_mend, node_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
