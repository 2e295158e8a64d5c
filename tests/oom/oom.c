/* SPDX-License-Identifier: Apache-2.0 */
/* oom: the loop over k, and directories. */
#include "oom.h"

#include "base/vlog.h"

#include <dirent.h>
#include <sys/stat.h>

enum { DENSE = 200, SHOWN = 40 };
static const char *op_name;
static uint64_t at_k;
static bool at_ever, broken;
static unsigned passed, failed, shown;
static uint64_t rng, most = UINT64_MAX;
static bool full, io;

static char judged[256];

void oom_judged(const char *what)
{
    if (judged[0] == '\0')
        snprintf(judged, sizeof judged, "%s", what);
}

void oom_broken(const char *what, const char *file, int line)
{
    broken = true;
    oom_disarm();
    if (shown++ < SHOWN)
        printf("FAILED at line %s:%d: %s, k = %llu %s, failed in %s: broken: %s\n", file, line, op_name, (unsigned long long)at_k,
               at_ever ? "for ever" : "once", oom_site(), what);
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL)
        abort();
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* What cannot be read may be told by another name: SQLite does not always say which, and the catalog is a cache; a dump tells
 * of the gap; a name whose record was reported is not shown. */
static bool may_differ(int r, const struct verr *err)
{
    if (r == -EBADMSG || r == -EROFS)
        return strstr(verr_str(err), "catalog.sqlite") != NULL || strcmp(op_name, "dump") == 0;
    return r == -ENOENT && judged[0] != '\0';
}

static const char *verdict(int r, const struct verr *err)
{
    static char text[900];
    int code = io ? EIO : ENOMEM;
    if (r == 0 || (r == -code && (err->code == code || err->code == 0)))
        return NULL;
    if (io && may_differ(r, err))
        return NULL;
    snprintf(text, sizeof text, "answer %d, error %d \"%s\", not %s", r, err->code, verr_str(err), io ? "EIO" : "ENOMEM");
    return text;
}

/* One k. False when nothing failed any more. */
static bool one(const struct oom_op *op, uint64_t k, bool for_ever)
{
    struct verr err = {0};
    at_k = k;
    at_ever = for_ever;
    broken = false;
    judged[0] = '\0';
    op->prepare();
    unsigned fds = descriptors();
    oom_track();
    oom_arm(k, for_ever);
    int r = op->run(&err);
    uint64_t hits = oom_disarm();
    if (oom_leaks() > 0)
        oom_broken("memory is left behind", __FILE__, __LINE__);
    if (descriptors() != fds)
        oom_broken("descriptors are left behind", __FILE__, __LINE__);
    const char *wrong = verdict(r, &err);
    if (wrong != NULL)
        oom_broken(wrong, __FILE__, __LINE__);
    if (judged[0] != '\0' && !io)      /* what cannot be read is told */
        oom_broken(judged, __FILE__, __LINE__);
    if (hits == 0 && r != 0)
        oom_broken("fails without a cause", __FILE__, __LINE__);
    op->check(r);
    if (r != 0) {
        memset(&err, 0, sizeof err);
        int again = op->run(&err);
        if (again != 0) {
            char text[900];
            snprintf(text, sizeof text, "afterwards: %d %s", again, verr_str(&err));
            oom_broken(text, __FILE__, __LINE__);
        } else {
            op->check(0);
        }
    }
    if (op->cleanup != NULL)
        op->cleanup();
    if (broken)
        failed++;
    else
        passed++;
    return hits > 0;
}

static uint64_t next_random(void)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return rng >> 33;
}

static void sweep(const struct oom_op *op, bool for_ever)
{
    unsigned before = failed;
    uint64_t k = 1, tried = 0;
    shown = 0;
    op_name = op->name;
    while (k <= most && one(op, k, for_ever)) {
        tried++;
        k += k < DENSE || full || op->stride == 0 ? 1 : 1 + next_random() % (2 * op->stride - 1);
    }
    printf("%s %s, %s: %llu places of about %llu\n", failed == before ? "ok     " : "FAILED ", op->name, for_ever ? "for ever" : "once",
           (unsigned long long)tried, (unsigned long long)(k - 1));
}

/* ---- directories ---- */

static char dir[128];

const char *oom_dir(void)
{
    return dir;
}

static void tidy(void)
{
    tree_remove(AT_FDCWD, dir);
}

static void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.80s/varve-oom-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL)
        abort();
    atexit(tidy);
}

struct copying { int from, to; };

static int copy_file(int from, int to, const struct stat *st)
{
    static uint8_t buf[1 << 16];
    if (ftruncate(to, st->st_size) < 0)
        return -errno;
    for (off_t at = lseek(from, 0, SEEK_DATA); at >= 0;) {
        ssize_t got = pread_full(from, buf, sizeof buf, at);
        if (got <= 0)
            return got < 0 ? (int)got : 0;
        int r = pwrite_full(to, buf, (size_t)got, at);
        if (r < 0)
            return r;
        at = lseek(from, at + got, SEEK_DATA);
    }
    return 0;
}

static int copy_entry(void *ctx, const char *name)
{
    const struct copying *c = ctx;
    struct stat st;
    if (fstatat(c->from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    int r;
    if (S_ISDIR(st.st_mode)) {
        struct copying sub = {dir_open(c->from, name), dir_make(c->to, name)};
        r = sub.from < 0 ? sub.from : sub.to < 0 ? sub.to : dir_each(sub.from, copy_entry, &sub);
        close(sub.from);
        close(sub.to);
        return r;
    }
    int from = openat(c->from, name, O_RDONLY | O_CLOEXEC), to = openat(c->to, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    r = from < 0 || to < 0 ? -errno : copy_file(from, to, &st);
    close(from);
    close(to);
    return r;
}

void oom_copy(const char *from, const char *to)
{
    OOM_MUST(tree_remove(AT_FDCWD, to));
    struct copying c = {dir_open(AT_FDCWD, from), dir_make(AT_FDCWD, to)};
    OOM_MUST(c.from);
    OOM_MUST(c.to);
    OOM_MUST(dir_each(c.from, copy_entry, &c));
    close(c.from);
    close(c.to);
}

/* program [OPERATION...]: all of them, or those whose names begin so. OOM_K=k: this place only; OOM_FULL=1: no strides;
 * OOM_MAX=k: no place behind it.
 * OOM_OWN=1: calls of our own code only.
 * OOM_IO=1: system calls fail with EIO instead of memory. */
int main(int argc, char **argv)
{
    const char *only = getenv("OOM_K"), *seed = getenv("VARVE_SEED");
    rng = seed != NULL ? strtoull(seed, NULL, 0) : 1;
    full = getenv("OOM_FULL") != NULL;
    if (getenv("OOM_MAX") != NULL)
        most = strtoull(getenv("OOM_MAX"), NULL, 10);
    io = getenv("OOM_IO") != NULL;
    oom_fail_io(io);
    oom_fail_own(getenv("OOM_OWN") != NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    vlog_open(0, VLOG_ERROR);
    printf("VARVE_SEED=%llu\n", (unsigned long long)rng);
    make_dir();
    for (unsigned i = 0; i < oom_nops; i++) {
        const struct oom_op *op = &oom_ops[i];
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted |= strncmp(argv[a], op->name, strlen(argv[a])) == 0;
        if (!wanted)
            continue;
        op_name = op->name;
        op->prepare();      /* libraries make what they keep for ever */
        OOM_MUST(op->run(err));
        op->check(0);
        if (op->cleanup != NULL)
            op->cleanup();
        if (only != NULL) {
            one(op, strtoull(only, NULL, 10), false);
            one(op, strtoull(only, NULL, 10), true);
            continue;
        }
        sweep(op, false);
        sweep(op, true);
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed > 0;
}
