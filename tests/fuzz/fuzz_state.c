/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk's directory in STATE: one of its files is replaced, then the disk is opened (recovered) as after a kill and as after
 * a power loss, read, written and closed. Refused or served, but never anything else.
 */
#include "fuzz.h"

#include "base/file.h"
#include "base/verr.h"
#include "check/dump.h"
#include "live/live.h"
#include "live/live_format.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

const char fuzz_family[] = "state";

enum { FILES = 24, PLACE = 7 };
static char dir[128];
static int statefd = -1;
static FILE *null;
static struct { char name[64]; uint8_t *data; size_t len; } files[FILES];
static unsigned nfiles;

static struct vid disk(void) { return fuzz_id(3); }

static int src_read(void *ctx, uint64_t place, uint32_t off, void *buf, size_t len, struct verr *err)
{
    (void)ctx;
    FUZZ_CHECK(off <= SEG_BYTES && len <= SEG_BYTES - off);
    if (place != PLACE)
        return verr_set(err, EBADMSG, "no such place");
    memset(buf, 0x5a, len);
    return 0;
}

static int src_seek(void *ctx, uint64_t place, uint32_t off, bool hole, uint32_t *out, struct verr *err)
{
    (void)ctx;
    if (place != PLACE)
        return verr_set(err, EBADMSG, "no such place");
    *out = hole ? SEG_BYTES : off;
    return 0;
}

static int src_pages(void *ctx, uint64_t place, uint32_t *out, struct verr *err)
{
    (void)ctx;
    if (place != PLACE)
        return verr_set(err, EBADMSG, "no such place");
    *out = SEG_PAGES;
    return 0;
}

static struct live_set *open_set(bool trusted)
{
    struct live_env env = {.state_dirfd = statefd, .source = {src_read, src_seek, src_pages, NULL}, .clock = &vclock_system, .trusted = trusted,
                           .open_max = 2};
    struct live_set *set = NULL;
    struct verr err = {0};
    int r = live_set_open(&env, &set, &err);
    if (r < 0)
        fprintf(stderr, "live_set_open: %s\n", verr_str(&err));
    FUZZ_CHECK(r == 0);
    return set;
}

static void must(int r, const struct verr *err)
{
    if (r < 0) {
        fprintf(stderr, "fuzz_state: cannot make the disk: %s\n", verr_str(err));
        abort();
    }
}

static int disk_dir(void)
{
    char path[64] = "disks/";
    struct vid d = disk();
    vid_hex(&d, path + 6);
    return dir_open(statefd, path);
}

static int keep_file(void *ctx, const char *name)
{
    const int *dd = ctx;
    if (nfiles == FILES || file_load(*dd, name, 1 << 22, &files[nfiles].data, &files[nfiles].len) < 0)
        abort();
    snprintf(files[nfiles++].name, sizeof files[0].name, "%s", name);
    return 0;
}

static int point_place(void *ctx, uint64_t segment, bool *zero, uint64_t *place, uint32_t *pages, struct verr *err)
{
    (void)ctx;
    (void)err;
    *zero = segment == 1;
    *place = *zero ? REF_ZERO : PLACE;
    *pages = *zero ? 0 : SEG_PAGES;
    return 0;
}

/* Two segments out of the store, a write, a freeze, another write, another freeze that is sealed, a write that is not. */
static void make_disk(void)
{
    struct vid d = disk();
    struct verr err = {0};
    struct live *l;
    struct snapinfo p;
    struct freeze_req req = {0};
    struct live_anchor anchor = {.ref = {d, 1, fuzz_id(9)}};
    uint8_t page[5000];
    memset(page, 0x11, sizeof page);
    struct live_set *set = open_set(true);
    must(live_create(set, &d, 5, 0, &l, &err), &err);
    must(live_revert(l, &(struct live_target){3 << SEG_SHIFT, 2 << SEG_SHIFT, point_place, NULL, &anchor}, LIVE_KEEP, &err), &err);
    must(live_write(l, 100, page, sizeof page, &err), &err);
    must(live_freeze(&l, 1, &req, &p, &err), &err);
    must(live_write(l, SEG_BYTES + 8192, page, sizeof page, &err), &err);
    must(live_freeze(&l, 1, &req, &p, &err), &err);
    must(live_pending_seal(l, p.ref.seq, &err), &err);
    must(live_write(l, 40960, page, sizeof page, &err), &err);
    must(live_fsync(l, &err), &err);
    must(live_write(l, 81920, page, sizeof page, &err), &err);
    live_put(l);
    int dd = disk_dir();        /* as a kill at this moment would leave it */
    must(dd, &err);
    must(dir_each(dd, keep_file, &dd), &err);
    close(dd);
    must(live_set_close(set, &err), &err);
}

static void tidy(void)
{
    for (unsigned i = 0; i < nfiles; i++)
        free(files[i].data);
    fclose(null);
    close(statefd);
    tree_remove(AT_FDCWD, dir);
}

void fuzz_setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.80s/varve-fuzz-state-XXXXXX", tmp != NULL ? tmp : "/tmp");
    null = fopen("/dev/null", "we");
    if (null == NULL || mkdtemp(dir) == NULL || (statefd = dir_open(AT_FDCWD, dir)) < 0)
        abort();
    close(dir_make(statefd, "disks"));
    make_disk();
    atexit(tidy);
}

/* Sparse where it is zero, so that a layer of 6 MiB costs nothing. */
static void put_file(int dd, const char *name, const uint8_t *p, size_t len)
{
    static const uint8_t zeros[4096];
    int fd = openat(dd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)len) < 0)
        abort();
    for (size_t at = 0; at < len; at += sizeof zeros) {
        size_t n = len - at < sizeof zeros ? len - at : sizeof zeros;
        if (memcmp(p + at, zeros, n) != 0 && pwrite_full(fd, p + at, n, (off_t)at) < 0)
            abort();
    }
    close(fd);
}

static bool expected(int r)
{
    return r >= 0 || r == -EBADMSG || r == -ENOTSUP;
}

static void use(struct live *l)
{
    uint8_t buf[10000];
    struct live_attr a;
    struct snapinfo p;
    struct verr err = {0};
    int r = live_attr(l, &a, &err);
    FUZZ_CHECK(r == 0 && a.size <= LIVE_SIZE_MAX);
    for (uint64_t off = 0; off < 4; off++) {
        ssize_t n = live_read(l, off << SEG_SHIFT, buf, sizeof buf, &err);
        FUZZ_CHECK(expected((int)n) && n <= (ssize_t)sizeof buf);
        off_t o = live_seek(l, off << SEG_SHIFT, off % 2, &err);
        FUZZ_CHECK(expected((int)(o < 0 ? o : 0)) || o == -ENXIO);
    }
    for (unsigned i = 0; i < 8 && live_pending(l, i, &p, &err) == 0; i++)
        FUZZ_CHECK(expected((int)live_pending_read(l, p.ref.seq, 0, buf, sizeof buf, &err)));
    r = live_write(l, 5, buf, 100, &err);
    FUZZ_CHECK(expected(r) || r == -EFBIG);
}

static bool try_open(bool trusted, const char *name, const uint8_t *p, size_t len)
{
    struct vid d = disk();
    struct verr err = {0};
    struct live *l = NULL;
    if (tree_remove(statefd, "disks") < 0)
        abort();
    close(dir_make(statefd, "disks"));
    char path[64] = "disks/";
    vid_hex(&d, path + 6);
    int dd = dir_make(statefd, path);
    if (dd < 0)
        abort();
    for (unsigned i = 0; i < nfiles; i++)
        if (strcmp(files[i].name, name) != 0)
            put_file(dd, files[i].name, files[i].data, files[i].len);
    put_file(dd, name, p, len);
    close(dd);
    struct live_set *set = open_set(trusted);
    int r = live_get(set, &d, &l, &err);
    FUZZ_CHECK(expected(r) && (r == 0 || err.text[0] != '\0'));
    if (r == 0) {
        use(l);
        live_put(l);
    }
    live_set_close(set, &err);
    return r == 0;
}

static bool feed_as(const char *name, const uint8_t *p, size_t len)
{
    struct verr err = {0};
    char path[300], hex[VID_HEX];
    struct vid d = disk();
    bool a = try_open(true, name, p, len);
    try_open(false, name, p, len);
    vid_hex(&d, hex);
    snprintf(path, sizeof path, "%s/disks/%s/%s", dir, hex, name);
    int r = dump_file(path, true, null, &err);
    FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -ENOTSUP || r == -ENOENT);
    return a;
}

/* The i-th kept file whose name begins and ends so. */
static int find(const char *begin, const char *end, unsigned i)
{
    for (unsigned k = 0; k < nfiles; k++) {
        size_t n = strlen(files[k].name), e = strlen(end);
        bool vol = e == 0 && (strchr(files[k].name, '.') != NULL);
        if (strncmp(files[k].name, begin, strlen(begin)) == 0 && n >= e && strcmp(files[k].name + n - e, end) == 0 && !vol && i-- == 0)
            return (int)k;
    }
    return -1;
}

static size_t seed_of(const char *begin, const char *end, unsigned i, uint8_t *out)
{
    int k = find(begin, end, i);
    if (k < 0 || files[k].len > FUZZ_INPUT_MAX)
        return 0;
    memcpy(out, files[k].data, files[k].len);
    return files[k].len;
}

static size_t journal_seed(unsigned i, uint8_t *out) { return seed_of("journal", "", i, out); }
static size_t table_seed(unsigned i, uint8_t *out) { return seed_of("table-", "", i, out); }
static size_t map_seed(unsigned i, uint8_t *out) { return seed_of("layer-", ".map", i, out); }
static size_t vol_seed(unsigned i, uint8_t *out) { return seed_of("layer-", ".vol", i, out); }

static void journal_mend(uint8_t *p, size_t len)
{
    for (size_t at = 0; at + LIVE_RECORD_HEAD <= len;) {
        uint64_t n = get_le64(p + at + 16);
        if (n < LIVE_RECORD_HEAD || n > len - at)
            return;
        put_le64(p + at + 56, 0);
        put_le64(p + at + 56, hash64_seed(p + at, n, at));
        at += n;
    }
}

/* Header, then what is checked by place: entries, slots, attributes. */
static void header_mend(uint8_t *p, size_t len)
{
    if (len >= LIVE_STATE_OFF)
        put_le64(p + 56, hash64(p, 56));
}

static uint64_t place_seed(uint64_t position)
{
    struct vid d = disk();
    return get_le64(d.b) ^ position;
}

static void table_mend(uint8_t *p, size_t len)
{
    header_mend(p, len);
    for (size_t at = LIVE_HEADER_BYTES, s = 0; at + LIVE_ENTRY_BYTES <= len; at += LIVE_ENTRY_BYTES, s++)
        put_le32(p + at + 12, (uint32_t)hash64_seed(p + at, 12, place_seed(s)));
}

static void slots_mend(uint8_t *p, size_t len)
{
    header_mend(p, len);
    for (size_t at = LIVE_HEADER_BYTES, s = 0; at + LIVE_SLOT_BYTES <= len; at += LIVE_SLOT_BYTES, s++)
        put_le64(p + at + 248, hash64_seed(p + at, 248, place_seed(s)));
}

static void vol_mend(uint8_t *p, size_t len)
{
    slots_mend(p, len);
    if (len >= LIVE_STATE_OFF + LIVE_STATE_BYTES)
        put_le64(p + LIVE_STATE_OFF + 56, hash64_seed(p + LIVE_STATE_OFF, 56, place_seed(get_le64(p + 32))));
}

/* Which file it stands for is told by the number in its header. */
static bool numbered_feed(const char *begin, const char *end, const uint8_t *p, size_t len)
{
    char name[64];
    snprintf(name, sizeof name, "%s%llu%s", begin, len >= 40 ? (unsigned long long)get_le64(p + 32) : 0, end);
    for (unsigned i = 0; i < nfiles; i++)
        if (strcmp(files[i].name, name) == 0)
            return feed_as(name, p, len);
    int k = find(begin, end, 0);
    return k >= 0 && feed_as(files[k].name, p, len);
}

static bool journal_feed(const uint8_t *p, size_t len) { return feed_as("journal", p, len); }
static bool table_feed(const uint8_t *p, size_t len) { return numbered_feed("table-", "", p, len); }
static bool map_feed(const uint8_t *p, size_t len) { return numbered_feed("layer-", ".map", p, len); }
static bool vol_feed(const uint8_t *p, size_t len) { return numbered_feed("layer-", ".vol", p, len); }

const struct fuzz_kind fuzz_kinds[] = {
    {"journal", 0, 20, journal_seed, journal_mend, journal_feed},
    {"table", 0, 20, table_seed, table_mend, table_feed},
    {"map", 0, 20, map_seed, slots_mend, map_feed},
    {"vol", 0, 20, vol_seed, vol_mend, vol_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
