/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rot: damages a store and a state, one byte after the other, and asks the code below the daemon whether it notices.
 *
 *   rot store STORE SEED STRIDE       every byte of all that is not block data (of that one in 509, of padding one in 16)
 *   rot state STATE STORE SEED STRIDE the same of STATE/disks, opened as after a kill and as after a power loss
 *
 * STORE and STATE are copies that may be damaged; every byte is put back. STRIDE n takes one flip in n. The rules:
 *   seen      an error, or verify, names the damaged file; or the damage changes no answer and verify tells nothing
 *             is lost (a cache, a byte that nothing depends on): then all content is what it was
 *   honest    nothing that is read without an error differs from what it was
 *   no more   every snapshot that cannot be read is one that verify says is hit by this file; every other disk of STATE
 *             is what it was
 * Each flip is a case. Ends with "N passed, N failed".
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/verr.h"
#include "check/check.h"
#include "fpindex/fpindex.h"
#include "live/live.h"
#include "snapshot/segread.h"
#include "snapshot/snapshot.h"
#include "store/container.h"
#include "store/publish.h"
#include "store/snaps.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 1024, SNAPS_MAX = 64, FAILURES_SHOWN = 30, STEP = 1 << 16, RUNS_SHOWN = 8 };

/* The disk under test is a copy: what fsync costs says nothing here. */
int fsync(int fd) { (void)fd; return 0; }
int fdatasync(int fd) { (void)fd; return 0; }

static uint64_t rng;
static uint64_t rnd(void)
{
    uint64_t z = (rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static unsigned long passed, failed, seen_flips, harmless;
static char what[400];          /* the flip that is tried */

static void __attribute__((format(printf, 1, 2))) failure(const char *fmt, ...)
{
    va_list ap;
    if (failed++ >= FAILURES_SHOWN)
        return;
    printf("FAILED %s: ", what);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

static void __attribute__((noreturn)) die(const char *text, const struct verr *err)
{
    fprintf(stderr, "rot: %s: %s\n", text, err != NULL ? verr_str(err) : strerror(errno));
    exit(2);
}

/* ---- files ---- */

static char *files[FILES_MAX];
static int nfiles;

static int take_file(const char *path, const struct stat *st, int type, struct FTW *f)
{
    (void)f;
    const char *base = strrchr(path, '/') + 1;
    if (type != FTW_F || st->st_size == 0 || base[0] == '.')
        return 0;
    if (nfiles == FILES_MAX)
        return -1;
    files[nfiles++] = strdup(path);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void list_files(const char *top)
{
    nfiles = 0;
    if (nftw(top, take_file, 32, FTW_PHYS) != 0)
        die(top, NULL);
    qsort(files, (size_t)nfiles, sizeof *files, by_name);
}

static uint8_t *load(const char *path, size_t *len)
{
    uint8_t *data;
    int r = file_load(AT_FDCWD, path, 1 << 30, &data, len);
    if (r < 0) {
        errno = -r;
        die(path, NULL);
    }
    return data;
}

static void poke(const char *path, off_t at, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, bytes, n, at) != (ssize_t)n)
        die(path, NULL);
    close(fd);
}

/* In the middle of zeros: these are all alike, and one in PADDING_STEP is tried (test_canonical tries each of every record). */
enum { PADDING = 32, PADDING_STEP = 16 };
static bool skip_padding(const uint8_t *data, size_t len, size_t at)
{
    for (size_t i = at < PADDING ? 0 : at - PADDING; i < len && i <= at + PADDING; i++)
        if (data[i] != 0)
            return false;
    return rnd() % PADDING_STEP != 0;
}

/* ---- the store: what it holds, and the judge ---- */

struct snap_known {
    struct vid disk, id;
    uint64_t seq, sum;
    int dir;                    /* DIR_SNAPSHOTS or DIR_ANCHORS */
};
static struct snap_known known[SNAPS_MAX];
static unsigned nknown;
static const char *store_at;

/* One look at the store. texts: every message, to look for the file's name in. */
struct look {
    bool closed;                        /* store_open refused */
    int state[SNAPS_MAX];               /* 0 same, 1 error, 2 wrong bytes */
    bool hit[SNAPS_MAX];                /* verify says so */
    unsigned damaged, notices, errors, wrong;
    char texts[STEP];
    size_t used;
};
static struct look look;

static bool only_attr;         /* the damaged file is a side file: an anchor has none */

static void say(const char *text)
{
    int n = snprintf(look.texts + look.used, sizeof look.texts - look.used, "%s\n", text);
    if (n > 0 && look.used + (size_t)n < sizeof look.texts)
        look.used += (size_t)n;
}

static int read_all(struct store *st, struct segread *sr, const struct snap_known *k, uint64_t *sum, struct verr *err)
{
    static uint8_t buf[SEG_BYTES];
    struct snap *s = NULL;
    int r = snap_open_in(st, sr, (enum store_dir)k->dir, &k->disk, k->dir == DIR_ANCHORS ? NULL : &k->disk, k->seq, &k->id, &s, err);
    if (r < 0)
        return r;
    /* Data and where they lie; holes are not read: they would take all the time. */
    uint64_t h = hash64_seed(&snap_header(s)->info.size, sizeof(uint64_t), 0);
    off_t off = 0, end;
    ssize_t n = 0;
    while (n == 0 && (off = snap_seek(s, (uint64_t)off, false, err)) >= 0) {
        end = snap_seek(s, (uint64_t)off, true, err);
        h = hash64_seed(&off, sizeof off, h);
        for (n = end < 0 ? (ssize_t)end : 1; n > 0 && off < end; off += n > 0 ? n : 0) {
            n = snap_read(s, (uint64_t)off, buf, end - off < SEG_BYTES ? (size_t)(end - off) : SEG_BYTES, err);
            h = n > 0 ? hash64_seed(buf, (size_t)n, h) : h;
        }
        n = n > 0 ? 0 : n == 0 ? verr_set(err, EPROTO, "short read") : n;
    }
    if (n == 0 && off < 0 && off != -ENXIO)
        n = (ssize_t)off;
    struct snaprcp rcp;
    if (n == 0 && k->dir == DIR_SNAPSHOTS)
        n = snaps_load(st, &(struct snapref){k->disk, k->seq, k->id}, &rcp, NULL, err);
    if (n == 0 && k->dir == DIR_SNAPSHOTS) {
        h = hash64_seed(rcp.info.label, strlen(rcp.info.label), h + rcp.info.flags);
        h = hash64_seed(rcp.info.note, strlen(rcp.info.note), h);
    }
    snap_close(s);
    *sum = h;
    return (int)n;
}

static void take_problem(void *ctx, const struct check_problem *p)
{
    (void)ctx;
    char line[600];
    snprintf(line, sizeof line, "verify: %s: %s", p->file, p->what);
    say(line);
    for (unsigned h = 0; h < p->nhits; h++)
        for (unsigned i = 0; i < nknown; i++)
            if (vid_eq(&p->hits[h].snap, &known[i].id) && (p->hits[h].anchor || known[i].dir == DIR_SNAPSHOTS || !only_attr))
                look.hit[i] = true;
}

static void look_at_snapshots(struct store *st)
{
    struct verr err = {0};
    struct creader *cr = NULL;
    struct segread *sr = NULL;
    if (creader_new(st, 1 << 20, &cr, &err) < 0 || segread_new(cr, 4, &sr, &err) < 0)
        die("reader", &err);
    for (unsigned i = 0; i < nknown; i++) {
        uint64_t sum = 0;
        err = (struct verr){0};
        if (read_all(st, sr, &known[i], &sum, &err) < 0) {
            look.state[i] = 1;
            look.errors++;
            say(verr_str(&err));
        } else if (sum != known[i].sum) {
            look.state[i] = 2;
            look.wrong++;
        }
    }
    segread_free(sr);
    creader_free(cr);
}

static void look_at_store(void)
{
    struct verr err = {0};
    struct store *st = NULL;
    memset(&look, 0, offsetof(struct look, texts));
    look.used = 0;
    look.texts[0] = '\0';
    if (store_open(store_at, &st, &err) < 0) {
        look.closed = true;
        say(verr_str(&err));
        return;
    }
    look_at_snapshots(st);
    const struct check_opts o = {.read_data = true, .problem = take_problem};
    struct check_report rep;
    if (check_verify(st, &o, &rep, &err) < 0)
        failure("verify cannot go on: %s", verr_str(&err));
    look.damaged = (unsigned)rep.damaged;
    look.notices = (unsigned)rep.notices;
    store_close(st);
}

static int know_snap(void *ctx, const struct snaps_file *f)
{
    if (f->side_file)
        return 0;
    if (nknown == SNAPS_MAX)
        return -E2BIG;
    struct snap_known *k = &known[nknown];
    *k = *(const struct snap_known *)ctx;
    k->seq = f->ref.seq;
    k->id = f->ref.snap;
    nknown++;
    return 0;
}

struct know { struct store *st; int dir; };

static int know_disk(void *ctx, const struct vid *disk)
{
    const struct know *w = ctx;
    struct snap_known k = {.disk = *disk, .dir = w->dir};
    const struct snaps_walk walk = {.file = know_snap, .ctx = &k};
    return snaps_each(w->st, w->dir == DIR_ANCHORS ? SNAPS_ANCHORED : SNAPS_STORED, disk, &walk, NULL);
}

static void know_store(void)
{
    struct verr err = {0};
    struct store *st = NULL;
    if (store_open(store_at, &st, &err) < 0)
        die("store", &err);
    struct know w = {st, DIR_SNAPSHOTS};
    int r = snaps_each_disk(st, SNAPS_STORED, know_disk, NULL, &w, &err);
    w.dir = DIR_ANCHORS;
    if (r < 0 || snaps_each_disk(st, SNAPS_ANCHORED, know_disk, NULL, &w, &err) < 0)
        die("snapshots", &err);
    struct creader *cr = NULL;
    struct segread *sr = NULL;
    if (creader_new(st, 1 << 20, &cr, &err) < 0 || segread_new(cr, 4, &sr, &err) < 0)
        die("reader", &err);
    for (unsigned i = 0; i < nknown; i++)
        if (read_all(st, sr, &known[i], &known[i].sum, &err) < 0)
            die("snapshot", &err);
    segread_free(sr);
    creader_free(cr);
    store_close(st);
    snprintf(what, sizeof what, "whole store");
    look_at_store();
    if (look.closed || look.damaged > 0 || look.notices > 0 || look.errors > 0 || look.wrong > 0)
        failure("not well before anything was damaged: %s", look.texts);
}

/* gone: the file is away, so whole snapshots may be (their recipe is). */
static void judge_store(const char *path)
{
    const char *base = strrchr(path, '/') + 1;
    unsigned long before = failed;
    only_attr = strstr(base, ".attr") != NULL;
    look_at_store();
    bool told = look.closed || look.damaged > 0 || look.notices > 0 || look.errors > 0;
    if (look.wrong > 0)
        failure("%u snapshots have other bytes, and nobody says so", look.wrong);
    if (told && strstr(look.texts, base) == NULL)
        failure("nothing names the file: %s", look.texts);
    if (!told)
        failure("not seen");
    for (unsigned i = 0; i < nknown && !look.closed; i++) {
        /* An anchor and its snapshot are one file; a damaged side file hits no content. */
        if (look.state[i] == 1 && !look.hit[i])
            failure("snapshot %u cannot be read, but verify does not say that it is hit: %s", i, look.texts);
        if (look.state[i] == 0 && look.hit[i])
            failure("snapshot %u is said to be hit, and can be read: %s", i, look.texts);
    }
    seen_flips += told;
    passed += failed == before;
    failed -= failed > before ? failed - before - 1 : 0;       /* one case */
}

/* ---- bytes that are not block data ---- */

/* Marks the payloads of a container's frames. */
static void mark_payloads(const uint8_t *data, size_t len, uint8_t *payload)
{
    for (size_t at = 0; at + 96 <= len; at++) {
        if (memcmp(data + at, "varveFRM", 8) != 0)
            continue;
        uint32_t stored;
        memcpy(&stored, data + at + 68, sizeof stored);
        for (size_t i = at + 96; i < at + 96 + stored && i < len; i++)
            payload[i] = 1;
        at += 95 + stored;
    }
}

/* Quick looks at one file: what a full look would also find, at a hundredth of its cost. 1 seen with its name, 0 not seen, -1 no
 * quick look at such a file. */
static int quick_recipe(struct store *st, const char *path)
{
    const char *base = strrchr(path, '/') + 1;
    int seen = -1;
    struct verr err = {0};
    struct creader *cr = NULL;
    struct segread *sr = NULL;
    if (creader_new(st, 1 << 16, &cr, &err) < 0 || segread_new(cr, 1, &sr, &err) < 0)
        die("reader", &err);
    for (unsigned i = 0; i < nknown; i++) {
        char file[SNAP_FILE_MAX];
        uint64_t sum;
        store_snap_file(known[i].seq, &known[i].id, ".rcp", file);
        if (strcmp(file, base) != 0 || strstr(path, known[i].dir == DIR_ANCHORS ? "/anchors/" : "/snapshots/") == NULL)
            continue;
        struct snap *s = NULL;
        int r = snap_open_in(st, sr, (enum store_dir)known[i].dir, &known[i].disk, NULL, known[i].seq, &known[i].id, &s, &err);
        if (r == 0) {
            r = read_all(st, sr, &known[i], &sum, &err);
            if (r == 0 && sum != known[i].sum)
                failure("other bytes, and no error");
        }
        seen = r < 0 && strstr(verr_str(&err), base) != NULL;
        snap_close(s);
    }
    segread_free(sr);
    creader_free(cr);
    return seen;
}

static const char *bad_name;
static int bad_index(void *ctx, const char *name, const char *text)
{
    (void)text;
    if (strcmp(name, bad_name) == 0)
        *(bool *)ctx = true;
    return 0;
}

static int quick_index(struct store *st, const char *path)
{
    bool seen = false;
    struct verr err = {0};
    struct fpindex_stats stats;
    const struct store_conf *c = store_conf(st);
    unsigned bits = 0;
    while (UINT64_C(1) << bits < (uint64_t)c->slots * c->partitions)
        bits++;
    bad_name = strrchr(path, '/') + 1;
    const struct fpindex_look l = {.bad = bad_index, .ctx = &seen};
    int r = fpindex_look(store_index(st), "index", 0, c->partitions, bits, &l, &stats, &err);
    return seen || r == -ENOTSUP;
}

static int any_entry(void *ctx, uint64_t ref, const struct footer_entry *entry)
{
    (void)ctx, (void)ref, (void)entry;
    return 0;
}

static int quick_container(struct store *st, const char *path)
{
    unsigned claim, number;
    const char *at = strstr(path, "/containers/");
    if (at == NULL || sscanf(at, "/containers/%6x/%4x.vc", &claim, &number) != 2)
        return -1;
    struct verr err = {0};
    struct creader *cr = NULL;
    if (creader_new(st, 1 << 16, &cr, &err) < 0)
        die("reader", &err);
    int r = container_walk(cr, (uint64_t)claim << 16 | number, NULL, any_entry, NULL, &err);
    creader_free(cr);
    return r < 0 && strstr(verr_str(&err), strrchr(path, '/') + 1) != NULL;
}

static int quick_look(struct store *st, const char *path)
{
    if (strstr(path, ".rcp") != NULL && strstr(path, "/trash/") == NULL)
        return quick_recipe(st, path);
    if (strstr(path, "/index/") != NULL)
        return quick_index(st, path);
    return quick_container(st, path);
}

static void flip_store(struct store *st, const char *path, const uint8_t *data, size_t at, bool payload)
{
    static unsigned long n;
    uint8_t c = data[at] ^ (uint8_t)(1u << rnd() % 8);
    unsigned long before = failed;
    snprintf(what, sizeof what, "%s byte %zu as %#x", path + strlen(store_at) + 1, at, c);
    poke(path, (off_t)at, &c, 1);
    /* One in 100 gets the full look all the same. */
    int quick = !payload && n++ % 100 != 0 ? quick_look(st, path) : -1;
    if (quick == 1 && failed == before) {
        seen_flips++;
        passed++;
    } else {
        judge_store(path);
    }
    poke(path, (off_t)at, &data[at], 1);
}

/* Zeroed sectors, cut tails, and the file gone. */
static void damage_store(const char *path, const uint8_t *data, size_t len, const uint8_t *payload)
{
    static const uint8_t zeros[512];
    const char *name = path + strlen(store_at) + 1;
    for (size_t at = 0; at < len; at += 512) {
        size_t n = len - at < 512 ? len - at : 512;
        if (memcmp(data + at, zeros, n) == 0 || (payload[at] && rnd() % 8 != 0))
            continue;
        snprintf(what, sizeof what, "%s sector at %zu zeroed", name, at);
        poke(path, (off_t)at, zeros, n);
        judge_store(path);
        poke(path, (off_t)at, data + at, n);
    }
    const size_t cuts[] = {0, 1, len / 2, len > 4096 ? len - 4096 : len / 3, len - 1};
    for (unsigned i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        snprintf(what, sizeof what, "%s cut to %zu of %zu", name, cuts[i], len);
        if (truncate(path, (off_t)cuts[i]) < 0)
            die(path, NULL);
        judge_store(path);
        poke(path, 0, data, len);
    }
}

/* Blocks of equal size change places: within a file, and between two files of one kind. */
static void swap_store(const char *a, const uint8_t *da, size_t la, const char *b, const uint8_t *db, size_t lb)
{
    size_t unit = la < 4096 ? la : 4096, na = la / unit, nb = lb / unit;
    if (unit > lb)
        return;
    for (unsigned i = 0; i < 6; i++) {
        size_t x = rnd() % na * unit, y = rnd() % nb * unit;
        if (memcmp(da + x, db + y, unit) == 0)
            continue;
        snprintf(what, sizeof what, "%s at %zu and %s at %zu swapped", a + strlen(store_at) + 1, x, b + strlen(store_at) + 1, y);
        poke(a, (off_t)x, db + y, unit);
        poke(b, (off_t)y, da + x, unit);
        judge_store(a);
        poke(a, (off_t)x, da + x, unit);
        poke(b, (off_t)y, db + y, unit);
    }
}

static bool same_kind(const char *a, const char *b)
{
    const char *x = a + strlen(store_at), *y = b + strlen(store_at);
    size_t n = strcspn(x + 1, "/") + 1;
    const char *ex = strrchr(x, '.'), *ey = strrchr(y, '.');
    return strncmp(x, y, n) == 0 && (ex == NULL) == (ey == NULL) && (ex == NULL || strcmp(ex, ey) == 0);
}

static void sweep_store(unsigned stride)
{
    struct verr err = {0};
    struct store *st = NULL;
    list_files(store_at);
    know_store();
    if (store_open(store_at, &st, &err) < 0)
        die("store", &err);
    for (int f = 0; f < nfiles; f++) {
        size_t len, flips = 0;
        uint8_t *data = load(files[f], &len), *payload = calloc(1, len);
        struct stat sb;
        bool container = strstr(files[f], ".vc") != NULL;
        unsigned long p = passed, q = failed;
        if (payload == NULL || stat(files[f], &sb) < 0)
            die(files[f], NULL);
        if (container)
            mark_payloads(data, len, payload);
        /* The second name of a file has the same bytes, and so has a recipe in the trash: some of them show what is said there. */
        size_t step = strstr(files[f], "/anchors/") != NULL && sb.st_nlink > 1 ? 61 : strstr(files[f], "/trash/") != NULL ? 23 : 1;
        for (size_t at = rnd() % stride; at < len; at += stride) {
            if ((payload[at] && rnd() % 509 != 0) || rnd() % step != 0 || skip_padding(data, len, at))
                continue;
            flip_store(st, files[f], data, at, payload[at]);
            flips++;
        }
        if (step == 1 && (stride == 1 || f % 3 == 0))
            damage_store(files[f], data, len, payload);
        if (f + 1 < nfiles && same_kind(files[f], files[f + 1])) {
            size_t lb;
            uint8_t *db = load(files[f + 1], &lb);
            swap_store(files[f], data, len, files[f + 1], db, lb);
            free(db);
        }
        printf("%-120s %7zu flips, %lu failed of %lu\n", files[f] + strlen(store_at) + 1, flips, failed - q, passed - p + failed - q);
        free(payload);
        free(data);
    }
    store_close(st);
    snprintf(what, sizeof what, "store, all put back");
    look_at_store();
    if (look.closed || look.damaged > 0 || look.notices > 0 || look.wrong > 0)
        failure("%s", look.texts);
}

/* ---- the state: one disk at a time, in a directory of its own ---- */

enum { DISK_FILES = 64, PENDS_MAX = 8 };

struct mem_file { char name[64]; uint8_t *data; size_t len; };
struct mem_dir { struct mem_file f[DISK_FILES]; int n; };

struct pend_known { uint64_t seq, sum; char label[LABEL_MAX + 1]; };
struct disk_known {
    struct live_attr at;
    uint64_t sum;
    struct pend_known pend[PENDS_MAX];
    unsigned npend;
};

static char disks_dir[300], disk_dir[400];
static int state_fd;
static struct seg_source source;
static struct vid disk;

static void load_dir(const char *path, struct mem_dir *d)
{
    d->n = 0;
    list_files(path);
    for (int i = 0; i < nfiles && d->n < DISK_FILES; i++) {
        struct mem_file *f = &d->f[d->n++];
        snprintf(f->name, sizeof f->name, "%s", strrchr(files[i], '/') + 1);
        f->data = load(files[i], &f->len);
    }
}

/* Empty files are not listed, but a layer may be one: they are made from the names that a directory has. */
static int take_empty(void *ctx, const char *name)
{
    struct mem_dir *d = ctx;
    for (int i = 0; i < d->n; i++)
        if (strcmp(d->f[i].name, name) == 0)
            return 0;
    if (d->n < DISK_FILES) {
        d->f[d->n] = (struct mem_file){.data = calloc(1, 1)};
        snprintf(d->f[d->n++].name, sizeof d->f[0].name, "%s", name);
    }
    return 0;
}

static void load_whole_dir(const char *path, struct mem_dir *d)
{
    load_dir(path, d);
    int fd = dir_open(AT_FDCWD, path);
    if (fd < 0 || dir_each(fd, take_empty, d) < 0)
        die(path, NULL);
    close(fd);
}

static void put_sparse(int fd, const uint8_t *data, size_t len)
{
    static const uint8_t zeros[4096];
    for (size_t at = 0; at < len; at += sizeof zeros) {
        size_t n = len - at < sizeof zeros ? len - at : sizeof zeros;
        if (memcmp(data + at, zeros, n) != 0 && pwrite(fd, data + at, n, (off_t)at) != (ssize_t)n)
            die("write", NULL);
    }
    if (ftruncate(fd, (off_t)len) < 0)
        die("truncate", NULL);
}

static void put_dir(const struct mem_dir *d)
{
    tree_remove(AT_FDCWD, disk_dir);
    if (mkdir(disk_dir, 0700) < 0)
        die(disk_dir, NULL);
    int dirfd = dir_open(AT_FDCWD, disk_dir);
    for (int i = 0; i < d->n; i++) {
        int fd = openat(dirfd, d->f[i].name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
            die(d->f[i].name, NULL);
        put_sparse(fd, d->f[i].data, d->f[i].len);
        close(fd);
    }
    close(dirfd);
}

/* Reads all of a level; seq 0: the live image. */
static int sum_level(struct live *l, uint64_t seq, uint64_t *sum, struct verr *err)
{
    static uint8_t buf[SEG_BYTES];
    uint64_t h = 0, off = 0;
    ssize_t n;
    do {
        n = seq == 0 ? live_read(l, off, buf, sizeof buf, err) : live_pending_read(l, seq, off, buf, sizeof buf, err);
        if (n > 0)
            h = hash64_seed(buf, (size_t)n, h);
        off += n > 0 ? (uint64_t)n : 0;
    } while (n > 0);
    *sum = h;
    return (int)n;
}

static int look_at_disk(struct live *l, struct disk_known *k, struct verr *err)
{
    memset(k, 0, sizeof *k);
    int r = live_attr(l, &k->at, err);
    if (r == 0)
        r = sum_level(l, 0, &k->sum, err);
    struct snapinfo p;
    for (unsigned i = 0; r == 0 && i < PENDS_MAX && live_pending(l, i, &p, NULL) == 0; i++) {
        struct pend_known *pk = &k->pend[k->npend++];
        pk->seq = p.ref.seq;
        snprintf(pk->label, sizeof pk->label, "%s", p.label);
        r = sum_level(l, p.ref.seq, &pk->sum, err);
    }
    return r;
}

static int look_at_state(bool trusted, struct disk_known *k, struct verr *err)
{
    const struct live_env env = {.state_dirfd = state_fd, .source = source, .clock = &vclock_system, .trusted = trusted, .open_max = 1};
    struct live_set *set = NULL;
    struct live *l = NULL;
    *err = (struct verr){0};
    int r = live_set_open(&env, &set, err);
    if (r < 0)
        return r;
    r = live_get(set, &disk, &l, err);
    if (r == 0)
        r = look_at_disk(l, k, err);
    live_put(l);
    struct verr ignored = {0};
    live_set_close(set, &ignored);
    return r;
}

static bool same_disk(const struct disk_known *a, const struct disk_known *b)
{
    return a->at.size == b->at.size && a->sum == b->sum && a->at.marks == b->at.marks && a->npend == b->npend &&
           a->at.next_seq == b->at.next_seq && memcmp(a->pend, b->pend, sizeof a->pend) == 0;
}

struct way { const char *name; bool clean, trusted; unsigned step; };
static unsigned long unseen;

/* The file as the message calls it: a layer that has become a cache keeps its number. */
static bool names(const char *text, const char *file)
{
    const char *number = strchr(file, '-');
    return strstr(text, file) != NULL || (strncmp(file, "cache", 5) == 0 && number != NULL && strstr(text, number) != NULL);
}

/* may_hide: zeros and cut tails, which say the same as what was never written. */
static void judge_state(const struct way *w, const char *file, const struct disk_known *want, bool may_hide)
{
    struct disk_known got;
    struct verr err;
    int r = look_at_state(w->trusted, &got, &err);
    if (r < 0 && !names(verr_str(&err), file)) {
        failure("the file is not named: %s", verr_str(&err));
        return;
    }
    if (r == 0 && !same_disk(&got, want)) {
        if (!may_hide)
            failure("other content (size %" PRIu64 ", %u pending), and no error", got.at.size, got.npend);
        unseen += may_hide;
        passed += may_hide;
        return;
    }
    seen_flips += r < 0;
    harmless += r == 0;
    passed++;
}

static void put_file(const char *name, const uint8_t *data, size_t len)
{
    char path[500];
    snprintf(path, sizeof path, "%s/%s", disk_dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path, NULL);
    put_sparse(fd, data, len);
    close(fd);
}

/* How far the journal is proven: behind that, after a power loss, damage is no different from what was never written. */
static size_t proven(const uint8_t *data, size_t len)
{
    uint64_t end = 0, n, synced;
    for (size_t at = 0; at + 64 <= len; at += n) {
        memcpy(&n, data + at + 16, sizeof n);
        memcpy(&synced, data + at + 32, sizeof synced);
        end = synced > end ? synced : end;
        if (n == 0)
            break;
    }
    return end;
}

static bool has_no_checksum(const char *name)
{
    return strchr(name, '.') == NULL && (strncmp(name, "layer-", 6) == 0 || strncmp(name, "cache-", 6) == 0);
}

static void flips_of_file(const struct mem_dir *d, struct mem_file *f, const struct way *w, const struct disk_known *want, unsigned stride)
{
    size_t end = f->len;
    if (strcmp(f->name, "journal") == 0 && !w->clean && !w->trusted)
        end = proven(f->data, f->len);
    for (size_t at = rnd() % (stride * w->step); at < end; at += stride * w->step) {
        if (skip_padding(f->data, f->len, at))
            continue;
        uint8_t keep = f->data[at];
        f->data[at] ^= (uint8_t)(1u << rnd() % 8);
        snprintf(what, sizeof what, "%s (%s) byte %zu as %#x", f->name, w->name, at, f->data[at]);
        put_dir(d);
        judge_state(w, f->name, want, false);
        f->data[at] = keep;
    }
}

static void damage_of_file(const struct mem_dir *d, struct mem_file *f, const struct way *w, const struct disk_known *want)
{
    static const uint8_t zeros[512];
    uint8_t *copy = malloc(f->len + 1);
    for (size_t at = 0; at + 512 <= f->len; at += 512) {
        if (memcmp(f->data + at, zeros, 512) == 0)
            continue;
        memcpy(copy, f->data, f->len);
        memset(copy + at, 0, 512);
        snprintf(what, sizeof what, "%s (%s) sector at %zu zeroed", f->name, w->name, at);
        put_dir(d);
        put_file(f->name, copy, f->len);
        judge_state(w, f->name, want, true);
    }
    const size_t cuts[] = {0, 1, f->len / 2, f->len > 4096 ? 4096 : f->len / 3, f->len - 1};
    for (unsigned i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        snprintf(what, sizeof what, "%s (%s) cut to %zu of %zu", f->name, w->name, cuts[i], f->len);
        put_dir(d);
        put_file(f->name, f->data, cuts[i]);
        judge_state(w, f->name, want, true);
    }
    snprintf(what, sizeof what, "%s (%s) gone", f->name, w->name);
    put_dir(d);
    char path[500];
    snprintf(path, sizeof path, "%s/%s", disk_dir, f->name);
    unlink(path);
    judge_state(w, f->name, want, true);
    free(copy);
}

/* Whole files and their pages in the place of others. */
static void swaps_of_file(const struct mem_dir *d, struct mem_file *f, const struct way *w, const struct disk_known *want)
{
    for (int i = 0; i < d->n; i++) {
        const struct mem_file *o = &d->f[i];
        if (o == f || has_no_checksum(o->name) || o->len == 0)
            continue;
        snprintf(what, sizeof what, "%s (%s) in the place of %s", o->name, w->name, f->name);
        put_dir(d);
        put_file(f->name, o->data, o->len);
        judge_state(w, f->name, want, false);
    }
}

static void sweep_disk(const char *dir, unsigned stride)
{
    static struct mem_dir killed, clean;
    static const struct way ways[] = {{"killed", false, true, 1}, {"power loss", false, false, 7}, {"clean", true, true, 7},
                                      {"clean, rebooted", true, false, 3}};
    struct disk_known want, again;
    struct verr err;
    load_whole_dir(dir, &killed);
    put_dir(&killed);
    if (look_at_state(true, &want, &err) < 0)
        die(dir, &err);
    load_whole_dir(disk_dir, &clean);
    unsigned long p = passed, q = failed;
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        const struct way *w = &ways[i];
        struct mem_dir *d = w->clean ? &clean : &killed;
        put_dir(d);
        snprintf(what, sizeof what, "undamaged, %s", w->name);
        if (look_at_state(w->trusted, &again, &err) < 0)
            die(w->name, &err);
        if ((w->clean || w->trusted) && !same_disk(&again, &want))
            failure("it is not what it was");
        for (int f = 0; f < d->n; f++) {
            if (d->f[f].len == 0 || has_no_checksum(d->f[f].name))
                continue;
            flips_of_file(d, &d->f[f], w, &again, stride);
            damage_of_file(d, &d->f[f], w, &again);
            swaps_of_file(d, &d->f[f], w, &again);
        }
    }
    printf("%s: %lu failed of %lu\n", strrchr(dir, '/') + 1, failed - q, passed - p + failed - q);
    for (int i = 0; i < killed.n; i++)
        free(killed.f[i].data);
    for (int i = 0; i < clean.n; i++)
        free(clean.f[i].data);
}

static char *disks[DISK_FILES];
static int ndisks;
static int take_disk(void *ctx, const char *name)
{
    char path[400];
    snprintf(path, sizeof path, "%s/disks/%s", (const char *)ctx, name);
    if (ndisks < DISK_FILES)
        disks[ndisks++] = strdup(path);
    return 0;
}

static void sweep_state(char *state, unsigned stride)
{
    struct verr err = {0};
    struct store *st = NULL;
    struct creader *cr = NULL;
    struct segread *sr = NULL;
    if (store_open(store_at, &st, &err) < 0 || creader_new(st, 4 << 20, &cr, &err) < 0 || segread_new(cr, 16, &sr, &err) < 0)
        die("store", &err);
    source = segread_source(sr);
    char path[400];
    snprintf(path, sizeof path, "%s/disks", state);
    int fd = dir_open(AT_FDCWD, path);
    if (fd < 0 || dir_each(fd, take_disk, state) < 0)
        die(path, NULL);
    close(fd);
    snprintf(path, sizeof path, "%s/one", state);
    snprintf(disks_dir, sizeof disks_dir, "%s/one/disks", state);
    if (mkdir(path, 0700) < 0 || mkdir(disks_dir, 0700) < 0)
        die(path, NULL);
    state_fd = dir_open(AT_FDCWD, path);
    qsort(disks, (size_t)ndisks, sizeof *disks, by_name);
    for (int i = 0; i < ndisks; i++) {
        const char *hex = strrchr(disks[i], '/') + 1;
        if (hex[0] == '.')      /* made ahead: no disk's yet */
            continue;
        snprintf(disk_dir, sizeof disk_dir, "%s/%s", disks_dir, hex);
        if (vid_parse(hex, &disk) < 0)
            die(hex, NULL);
        sweep_disk(disks[i], stride);
        tree_remove(AT_FDCWD, disk_dir);
    }
    segread_free(sr);
    creader_free(cr);
    store_close(st);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 5 && strcmp(argv[1], "store") == 0) {
        store_at = argv[2];
        rng = strtoull(argv[3], NULL, 0);
        sweep_store((unsigned)atoi(argv[4]));
    } else if (argc == 6 && strcmp(argv[1], "state") == 0) {
        store_at = argv[3];
        rng = strtoull(argv[4], NULL, 0);
        sweep_state(argv[2], (unsigned)atoi(argv[5]));
    } else {
        fprintf(stderr, "usage: rot store STORE SEED STRIDE | rot state STATE STORE SEED STRIDE\n");
        return 2;
    }
    printf("%lu seen, %lu without effect, %lu zeros or cuts in STATE that nothing tells of\n", seen_flips, harmless, unseen);
    printf("%lu passed, %lu failed\n", passed, failed);
    return failed > 0;
}
