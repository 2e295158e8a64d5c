/* SPDX-License-Identifier: Apache-2.0 */
/* Index: header and pages alone, and whole base and delta files that are opened, compared both ways, listed and merged. */
#include "fuzz.h"

#include "base/file.h"
#include "base/verr.h"
#include "fpindex/fpindex_internal.h"
#include "store/backend_dir.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

const char fuzz_family[] = "index";
enum { PARTS = 2, BITS = 1, ENTRIES = 300 };
static char dir[128];
static int dirfd_ = -1;
static struct backend *backend;

static void tidy(void)
{
    bk_destroy(backend);
    close(dirfd_);
    tree_remove(AT_FDCWD, dir);
}

void fuzz_setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.80s/varve-fuzz-index-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || (dirfd_ = dir_open(AT_FDCWD, dir)) < 0 || backend_dir_open(dir, &backend) < 0)
        abort();
    atexit(tidy);
}

/* ---- header and pages ---- */

static size_t header_seed(unsigned i, uint8_t *out)
{
    struct fpi_header h = {.slot = 1, .partition = i == 0 ? 3 : FPI_DELTA, .partitions = 4, .bits = 3, .number = 7, .entries = 1000, .seed = 99};
    if (i == 0)
        h.merged_through = 5;
    else
        h.present[0] = 5;
    if (i > 1)
        return 0;
    fpi_header_encode(&h, out);
    return PAGE_BYTES;
}

static bool header_feed(const uint8_t *p, size_t len)
{
    struct fpi_header h;
    const char *why = NULL;
    uint8_t again[PAGE_BYTES];
    (void)len;
    if (fpi_header_decode(p, &h, &why) < 0) {
        FUZZ_CHECK(why != NULL);
        return false;
    }
    fpi_header_encode(&h, again);
    FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
    FUZZ_CHECK(fpi_file_bytes(h.entries) / PAGE_BYTES <= UINT32_MAX);
    return true;
}

static size_t page_seed(unsigned i, uint8_t *out)
{
    if (i > 1)
        return 0;
    memset(out, 3, PAGE_BYTES);
    fpi_page_seal(out, i == 0 ? FPI_DATA : FPI_FENCE, 5, 100, 99);
    return PAGE_BYTES;
}

static void page_mend(uint8_t *p, size_t len)
{
    (void)len;
    put_le64(p, hash64_seed(p + 8, PAGE_BYTES - 8, 99));
}

static bool page_feed(const uint8_t *p, size_t len)
{
    uint8_t again[PAGE_BYTES];
    bool any = false;
    (void)len;
    for (int k = FPI_DATA; k <= FPI_FENCE; k++) {
        uint64_t most = k == FPI_DATA ? FPI_PAGE_ENTRIES : FPI_PAGE_FENCES;
        int n = fpi_page_check(p, (enum fpi_kind)k, 5, 5 * most + 100, 99);
        FUZZ_CHECK(n == -EBADMSG || (n >= 1 && n <= (k == FPI_DATA ? (int)FPI_PAGE_ENTRIES : (int)FPI_PAGE_FENCES)));
        if (n < 0)
            continue;
        memcpy(again, p, sizeof again);
        fpi_page_seal(again, (enum fpi_kind)k, 5, (uint32_t)n, 99);
        FUZZ_CHECK(memcmp(again, p, sizeof again) == 0);
        any = true;
    }
    return any;
}

/* ---- files ---- */

static void key_of(unsigned i, uint8_t key[FPKEY_BYTES])
{
    memset(key, 0, FPKEY_BYTES);
    uint64_t v = (uint64_t)i * (UINT64_MAX / ENTRIES);
    for (unsigned b = 0; b < 8; b++)
        key[b] = (uint8_t)(v >> (56 - 8 * b));
}

static void clear(void)
{
    if (tree_remove(dirfd_, "0000") < 0)
        abort();
}

static struct fpindex *open_index(struct verr *err)
{
    struct fpindex *ix = NULL;
    int r = fpindex_open(backend, "", 0, PARTS, BITS, &ix, err);
    if (r == -ENOTSUP)
        return NULL;
    FUZZ_CHECK(r == 0);     /* whatever lies there: damaged files are set aside */
    return ix;
}

/* A delta, and out of it the bases; the file of that name is the seed. */
static size_t file_seed(unsigned i, uint8_t *out)
{
    static const char *const names[] = {"0000/delta-1", "0000/base-0000-1", "0000/base-0001-2"};
    struct verr err = {0};
    struct fpdelta *d;
    uint8_t key[FPKEY_BYTES], *data;
    size_t len;
    if (i >= sizeof names / sizeof names[0])
        return 0;
    clear();
    struct fpindex *ix = open_index(&err);
    FUZZ_CHECK(ix != NULL && fpdelta_begin(ix, &d, &err) == 0);
    for (unsigned k = 0; k < ENTRIES; k++) {
        key_of(k, key);
        FUZZ_CHECK(fpdelta_add(d, key, k % 50 == 7 ? REF_NONE : ref_make(0x10000, k), &err) == 0);
    }
    FUZZ_CHECK(fpdelta_commit(d, &err) == 0);
    if (i > 0)
        FUZZ_CHECK(fpindex_merge(ix, true, 1 << 20, &err) == 0);
    fpindex_close(ix);
    int r = file_load(dirfd_, names[i], FUZZ_INPUT_MAX, &data, &len);
    if (r < 0) {
        fprintf(stderr, "fuzz_index: %s: %s\n", names[i], strerror(-r));
        return 0;
    }
    memcpy(out, data, len);
    free(data);
    return len;
}

static void file_mend(uint8_t *p, size_t len)
{
    if (len < PAGE_BYTES)
        return;
    put_le64(p + PAGE_BYTES - 8, hash64(p, PAGE_BYTES - 8));
    for (size_t at = PAGE_BYTES; at + PAGE_BYTES <= len; at += PAGE_BYTES)
        put_le64(p + at, hash64_seed(p + at + 8, PAGE_BYTES - 8, get_le64(p + 72)));
}

struct asked { unsigned next, end, answers, found; };

static int ask(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct asked *a = ctx;
    if (a->next == a->end)
        return 0;
    key_of(a->next++, key);
    return 1;
}

static int told(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct asked *a = ctx;
    (void)key;
    a->answers++;
    a->found += ref != REF_NONE;
    return 0;
}

static unsigned compare(struct fpindex *ix, uint32_t part, enum fpindex_way way)
{
    struct verr err = {0};
    struct asked a = {.next = part == 0 ? 0 : ENTRIES / 2 + 1, .end = part == 0 ? ENTRIES / 2 : ENTRIES};
    unsigned n = a.end - a.next;
    FUZZ_CHECK(fpindex_compare(ix, part, n, way, 1 << 20, ask, told, &a, &err) == 0);
    FUZZ_CHECK(a.answers == n);
    return a.found;
}

/* An index is a hint: damage may hide entries, but open, compare and merge go on. */
static bool file_feed(const uint8_t *p, size_t len)
{
    char name[64];
    struct verr err = {0};
    clear();
    if (mkdirat(dirfd_, "0000", 0700) < 0)
        abort();
    if (len >= 40 && get_le32(p + 16) != FPI_DELTA)
        snprintf(name, sizeof name, "0000/base-%04u-%llu", get_le32(p + 16) % PARTS, (unsigned long long)((get_le64(p + 32) - 1) % 4 + 1));
    else
        snprintf(name, sizeof name, "0000/delta-1");
    int fd = openat(dirfd_, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || pwrite_full(fd, p, len, 0) < 0)
        abort();
    close(fd);
    struct fpindex *ix = open_index(&err);
    if (ix == NULL)
        return false;
    struct fpindex_stats s;
    fpindex_stats(ix, &s);
    bool taken = s.damaged_files == 0;
    for (uint32_t part = 0; part < PARTS; part++) {
        compare(ix, part, FPINDEX_MERGE);
        compare(ix, part, FPINDEX_PROBE);
    }
    int r = fpindex_merge(ix, true, 1 << 20, &err);
    FUZZ_CHECK(r == 0);
    for (uint32_t part = 0; part < PARTS; part++)
        compare(ix, part, FPINDEX_AUTO);
    fpindex_close(ix);
    return taken;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"header", PAGE_BYTES, 0, header_seed, fuzz_mend_tail, header_feed},
    {"page", PAGE_BYTES, 0, page_seed, page_mend, page_feed},
    {"file", 0, 10, file_seed, file_mend, file_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
