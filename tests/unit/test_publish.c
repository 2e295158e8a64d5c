/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing: owner epochs, leases, staging, the link that publishes, and the deletion log, with an adopter or collector
 * who comes between at each place.
 */
#include "store/publish.h"

#include "base/endian.h"
#include "base/hash.h"
#include "format/ref.h"
#include "store/store_internal.h"

#include "store_fixture.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct mkstore m;
static struct vid vm, host, other_host;
static int target;          /* a disk directory */
static char to[VID_HEX + 10];   /* the same, relative to STORE */
static struct verr err;

static int setup(void **state)
{
    (void)state;
    if (mks_make(&m) < 0)
        return -1;
    vm = vid_random();
    host = vid_random();
    other_host = vid_random();
    memset(&err, 0, sizeof err);
    struct vid disk = vid_random();
    char hex[VID_HEX];
    vid_hex(&disk, hex);
    snprintf(to, sizeof to, "snapshots/%s", hex);
    target = store_disk_dir(m.st, DIR_SNAPSHOTS, &disk, true, NULL);
    return target < 0;
}

static int teardown(void **state)
{
    (void)state;
    close(target);
    mks_remove(&m);
    return 0;
}

static bool exists(int dirfd, const char *name)
{
    return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

enum { LEASE_ROOM = 160 };
struct wanted_lease { char begin[80], name[LEASE_ROOM - 32]; };

static int keep_lease(void *ctx, const char *name)
{
    struct wanted_lease *w = ctx;
    if (strncmp(name, w->begin, strlen(w->begin)) == 0)
        snprintf(w->name, sizeof w->name, "%s", name);
    return 0;
}

/* The lease's name relative to generations/, whatever its nonce; "" when there is none. */
static void lease_path(uint64_t generation, uint64_t epoch, char out[LEASE_ROOM])
{
    char hex[VID_HEX];
    struct wanted_lease w = {.name = ""};
    vid_hex(&vm, hex);
    snprintf(w.begin, sizeof w.begin, "%s.%016" PRIx64, hex, epoch);
    assert_int_equal(lease_each(m.st, generation, keep_lease, &w, NULL), 0);
    *out = '\0';
    if (w.name[0] != '\0')
        snprintf(out, LEASE_ROOM, "%016" PRIx64 "/leases/%s", generation, w.name);
}

static bool has_lease(uint64_t generation, uint64_t epoch)
{
    char path[LEASE_ROOM];
    lease_path(generation, epoch, path);
    return path[0] != '\0';
}

/* What an adopter or collector does. */
static void revoke_lease(uint64_t generation, uint64_t epoch)
{
    char path[LEASE_ROOM];
    lease_path(generation, epoch, path);
    assert_int_not_equal(path[0], '\0');
    assert_int_equal(tree_remove(store_dirfd(m.st, DIR_GENERATIONS), path), 0);
}

/* A collector's step 3: complete before it gets its name. */
static void open_generation(uint64_t generation, const uint64_t *refs, uint64_t n)
{
    char name[GENERATION_NAME];
    int dir = store_dirfd(m.st, DIR_GENERATIONS);
    generation_name(generation, name);
    int fd = dir_make(dir, ".tmp-generation");
    assert_true(fd >= 0);
    assert_int_equal(mkdirat(fd, "leases", 0700), 0);
    assert_int_equal(deletion_log_write(m.st->b, "generations/.tmp-generation", &store_conf(m.st)->id, generation, refs, n), 0);
    close(fd);
    assert_int_equal(renameat(dir, ".tmp-generation", dir, name), 0);
}

static struct lease *take(uint64_t epoch)
{
    struct lease *l = NULL;
    int r = lease_take(m.st, &vm, epoch, &l, &err);
    if (r < 0)
        print_message("%s\n", verr_str(&err));
    assert_int_equal(r, 0);
    return l;
}

/* ---- owners ---- */

static void first_claim_owns_the_vm(void **state)
{
    (void)state;
    uint64_t epoch = 0;
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);
    assert_int_equal(epoch, 1);
    epoch = 0;
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);
    assert_int_equal(epoch, 1);
    assert_int_equal(owner_claim(m.st, &vm, &other_host, &epoch, &err), -ESTALE);
    char hex[VID_HEX];
    vid_hex(&host, hex);
    assert_non_null(strstr(err.text, hex));
}

static void adoption_fences_the_owner_before(void **state)
{
    (void)state;
    uint64_t epoch;
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);
    assert_int_equal(owner_publish(m.st, &vm, 2, &other_host), 0);
    assert_int_equal(owner_publish(m.st, &vm, 2, &host), -EEXIST);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -ESTALE);
    assert_int_equal(owner_claim(m.st, &vm, &other_host, &epoch, &err), 0);
    assert_int_equal(epoch, 2);
}

static void every_damaged_byte_of_an_owner_record_is_found(void **state)
{
    (void)state;
    uint64_t epoch;
    char hex[VID_HEX], name[80];
    uint8_t *data;
    size_t len;
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "%s.%016x", hex, 1);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);
    assert_int_equal(file_load(store_dirfd(m.st, DIR_OWNERS), name, 4096, &data, &len), 0);
    for (size_t i = 0; i < len; i++) {
        data[i] ^= 0x10;
        assert_int_equal(file_replace(store_dirfd(m.st, DIR_OWNERS), name, data, len), 0);
        assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
        data[i] ^= 0x10;
    }
    assert_int_equal(file_replace(store_dirfd(m.st, DIR_OWNERS), name, data, len - 1), 0);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
    free(data);
}

static void owner_name_that_cannot_be_read_is_an_error(void **state)
{
    (void)state;
    uint64_t epoch;
    char hex[VID_HEX], name[80];
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "%s.strange", hex);
    assert_int_equal(file_publish(store_dirfd(m.st, DIR_OWNERS), name, "", 0), 0);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
}

/* ---- leases ---- */

static void lease_is_a_directory_until_it_is_released(void **state)
{
    (void)state;
    struct lease *l = take(1);
    assert_int_equal(lease_generation(l), 1);
    assert_true(has_lease(1, 1));
    assert_int_equal(lease_stage(l, "left", "x", 1, &err), 0);
    lease_release(l);
    assert_false(has_lease(1, 1));
    lease_release(NULL);
}

static int make_lease(uint64_t generation, const char *name)
{
    char path[LEASE_ROOM], file[LEASE_ROOM + 8];
    int dir = store_dirfd(m.st, DIR_GENERATIONS);
    snprintf(path, sizeof path, "%016" PRIx64 "/leases/%s", generation, name);
    snprintf(file, sizeof file, "%s/staged", path);
    return mkdirat(dir, path, 0700) == 0 ? file_publish(dir, file, "x", 1) : -errno;
}

static int count_lease(void *ctx, const char *name)
{
    (void)name;
    ++*(int *)ctx;
    return 0;
}

/* Those of a process that died, of a clone of STATE, of a version that had no nonce: in every generation. */
static void other_leases_of_the_vm_and_epoch_are_revoked(void **state)
{
    (void)state;
    char hex[VID_HEX], name[LEASE_ROOM];
    struct lease *old = take(1);
    assert_int_equal(lease_stage(old, "old", "x", 1, &err), 0);
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "%s.%016x", hex, 1);
    assert_int_equal(make_lease(1, name), 0);
    snprintf(name, sizeof name, "%s.%016x.0123456789abcdef", hex, 2);  /* of an epoch that is not ours */
    assert_int_equal(make_lease(1, name), 0);
    vid_hex(&host, hex);
    snprintf(name, sizeof name, "%s.%016x.0123456789abcdef", hex, 1);  /* of another VM */
    assert_int_equal(make_lease(1, name), 0);
    open_generation(2, NULL, 0);
    struct lease *l = take(1);
    int n = 0;
    assert_int_equal(lease_each(m.st, 1, count_lease, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(lease_publish(old, "old", to, "t", &err), -ESTALE); /* whoever still holds it is fenced */
    lease_release(old); /* and does not take the younger one away */
    assert_true(has_lease(2, 1));
    assert_int_equal(lease_stage(l, "new", "x", 1, &err), 0);
    assert_int_equal(lease_publish(l, "new", to, "t", &err), 0);
    lease_release(l);
    assert_false(has_lease(2, 1));
}

static void lease_that_cannot_be_revoked_stops_the_new_one(void **state)
{
    (void)state;
    struct lease *l;
    char hex[VID_HEX], name[LEASE_ROOM];
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "0000000000000001/leases/%s.%016x", hex, 1);
    assert_int_equal(file_publish(store_dirfd(m.st, DIR_GENERATIONS), name, "no directory", 12), 0);
    assert_int_equal(lease_take(m.st, &vm, 1, &l, &err), -ENOTDIR);
    assert_non_null(strstr(err.text, name));
    assert_int_equal(unlinkat(store_dirfd(m.st, DIR_GENERATIONS), name, 0), 0);
    assert_false(has_lease(1, 1));      /* its own is not left behind */
}

static void lease_is_taken_in_the_newest_generation(void **state)
{
    (void)state;
    open_generation(2, NULL, 0);
    struct lease *l = take(1);
    assert_int_equal(lease_generation(l), 2);
    assert_false(has_lease(1, 1));
    lease_release(l);
}

static void higher_owner_epoch_fences_a_lease(void **state)
{
    (void)state;
    struct lease *l = NULL;
    uint64_t epoch;
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);
    assert_int_equal(owner_publish(m.st, &vm, 2, &other_host), 0);
    assert_int_equal(lease_take(m.st, &vm, epoch, &l, &err), -ESTALE);
    assert_null(l);
    assert_false(has_lease(1, 1));
    l = take(2);
    lease_release(l);
}

static void newest_generation_without_leases_is_an_error_and_no_hang(void **state)
{
    (void)state;
    struct lease *l;
    assert_int_equal(unlinkat(store_dirfd(m.st, DIR_GENERATIONS), "0000000000000001/leases", AT_REMOVEDIR), 0);
    assert_int_equal(lease_take(m.st, &vm, 1, &l, &err), -EBADMSG);
    assert_int_equal(tree_remove(store_dirfd(m.st, DIR_GENERATIONS), "0000000000000001"), 0);
    assert_int_equal(lease_take(m.st, &vm, 1, &l, &err), -EBADMSG);
}

/* The child stands between mkdir and check (or before mkdir) while we open a generation or adopt. */
static int between(const char *place, bool adopt)
{
    char pause_file[128], fault[128];
    snprintf(pause_file, sizeof pause_file, "%s/pause", m.dir);
    snprintf(fault, sizeof fault, "%s:1=pause", place);
    close(open(pause_file, O_CREAT | O_WRONLY, 0600));
    setenv("VARVE_FAULT_PAUSE", pause_file, 1);
    char hex[VID_HEX];
    vid_hex(&vm, hex);
    setenv("VARVE_TEST_VM", hex, 1);
    pid_t pid = fork();
    if (pid == 0)
        _exit(mks_child("lease", m.path, fault) & 0xff);
    for (int i = 0; i < 500; i++) { /* until the child is there */
        if (strstr(place, "check") != NULL ? has_lease(1, 1) : i == 50)
            break;
        usleep(10000);
    }
    if (adopt)
        assert_int_equal(owner_publish(m.st, &vm, 2, &other_host), 0);
    else
        open_generation(2, NULL, 0);
    unlink(pause_file);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WEXITSTATUS(status);
}

static void generation_that_appears_between_moves_the_lease(void **state)
{
    (void)state;
    assert_int_equal(between("store.lease.before_check", false), 2);
    assert_false(has_lease(1, 1));
}

static void generation_that_appears_before_mkdir_moves_the_lease(void **state)
{
    (void)state;
    assert_int_equal(between("store.lease.before_mkdir", false), 2);
    assert_false(has_lease(1, 1));
}

static void adoption_that_comes_between_fences_the_lease(void **state)
{
    (void)state;
    assert_int_equal(between("store.lease.before_check", true), 100 + ESTALE);
    assert_false(has_lease(1, 1));
}

/* ---- publishing ---- */

static void assert_content(const char *name, const char *text)
{
    uint8_t *data;
    size_t len;
    assert_int_equal(file_load(target, name, 4096, &data, &len), 0);
    assert_string_equal((char *)data, text);
    free(data);
}

static void rename_publishes_once(void **state)
{
    (void)state;
    struct lease *l = take(1);
    struct stat st;
    assert_int_equal(lease_stage(l, "r", "first", 5, &err), 0);
    assert_false(exists(target, "snap"));
    assert_int_equal(lease_publish(l, "r", to, "snap", &err), 0);
    assert_content("snap", "first");
    assert_int_equal(fstatat(target, "snap", &st, 0), 0);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(lease_publish(l, "r", to, "elsewhere", &err), -ESTALE);
    assert_int_equal(lease_stage(l, "r", "again", 5, &err), -EEXIST);   /* a late request must not find another file of that name */
    lease_release(l);
    assert_content("snap", "first");
}

static void name_that_is_taken_is_not_replaced(void **state)
{
    (void)state;
    struct lease *l = take(1);
    assert_int_equal(file_publish(target, "snap", "theirs", 6), 0);
    assert_int_equal(lease_stage(l, "r", "ours", 4, &err), 0);
    assert_int_equal(lease_publish(l, "r", to, "snap", &err), -EEXIST);
    assert_content("snap", "theirs");
    assert_int_equal(lease_publish(l, "r", to, "snap2", &err), 0);
    lease_release(l);
}

static void revoked_lease_publishes_nothing(void **state)
{
    (void)state;
    struct lease *l = take(1);
    assert_int_equal(lease_stage(l, "r", "late", 4, &err), 0);
    revoke_lease(1, 1);
    assert_int_equal(lease_publish(l, "r", to, "snap", &err), -ESTALE);
    assert_false(exists(target, "snap"));
    assert_int_equal(lease_stage(l, "s", "later", 5, &err), -ESTALE);
    lease_release(l);
    assert_false(has_lease(1, 1));
    l = take(1);
    assert_int_equal(lease_stage(l, "r", "again", 5, &err), 0);
    assert_int_equal(lease_publish(l, "r", to, "snap", &err), 0);
    lease_release(l);
}

static void piecewise_staging_and_bad_names(void **state)
{
    (void)state;
    struct lease *l = take(1);
    const char *const bad[] = {"", ".", "..", "a/b", "/etc/x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(lease_stage(l, bad[i], "x", 1, &err), -EINVAL);
    assert_int_equal(lease_publish(l, "never", to, "snap", &err), -EINVAL);
    struct staged *piece;
    assert_int_equal(lease_stage_begin(l, "p", &piece, &err), 0);
    assert_int_equal(staged_write(piece, "world", 5, 6), 0);
    assert_int_equal(staged_write(piece, "hello ", 6, 0), 0);
    assert_int_equal(lease_stage_end(l, piece, &err), 0);
    assert_int_equal(lease_stage(l, "p2", "one", 3, &err), 0);
    assert_int_equal(lease_stage(l, "p2", "two", 3, &err), -EEXIST);
    assert_int_equal(lease_publish(l, "p", to, "a", &err), 0);
    assert_int_equal(lease_publish(l, "p2", to, "b", &err), 0);
    assert_content("a", "hello world");
    assert_content("b", "one");
    lease_release(l);
}

static void failed_fsync_of_the_target_is_final(void **state)
{
    (void)state;
    /* dir_sync number 1 in that child is the one behind the rename */
    assert_int_equal(mks_child("publish", m.path, "base.dir_sync:1=5"), 100 + EIO);
    assert_int_equal(mks_child("publish", m.path, "store.publish.rename:1=28"), 100 + ENOSPC);
    assert_int_equal(mks_child("publish", m.path, "store.publish.answer:1=116"), 100 + ESTALE);  /* lost: nobody knows */
    assert_int_equal(mks_child("publish", m.path, "store.stage.fdatasync:1=5"), 50 + EIO);
    assert_int_equal(mks_child("publish", m.path, "none:1=5"), 0);
}

/* ---- deletion log ---- */

static void deletion_log_tells_what_is_condemned(void **state)
{
    (void)state;
    uint64_t refs[1001];
    struct deletions *d;
    for (uint64_t i = 0; i < 1001; i++)
        refs[i] = ref_make(0x10000, 3) + i * 3;
    struct lease *l = take(1);
    assert_int_equal(deletions_load(l, &d, &err), 0);
    assert_false(deletions_has(d, refs[0]));
    deletions_free(d);
    open_generation(2, refs, 1001);
    assert_int_equal(deletions_load(l, &d, &err), 0); /* the newest one, whatever the lease's generation */
    for (uint64_t i = 0; i < 1001; i++) {
        assert_true(deletions_has(d, refs[i]));
        assert_false(deletions_has(d, refs[i] + 1));
        assert_false(deletions_has(d, refs[i] - 1));
    }
    assert_false(deletions_has(d, 0));
    assert_false(deletions_has(d, UINT64_MAX));
    deletions_free(d);
    deletions_free(NULL);
    lease_release(l);
}

static void absent_or_damaged_deletion_log_is_an_error(void **state)
{
    (void)state;
    const char *const name = "0000000000000002/deletions";
    int dir = store_dirfd(m.st, DIR_GENERATIONS);
    uint64_t refs[] = {7, 9};
    struct deletions *d;
    uint8_t *data;
    size_t len;
    open_generation(2, refs, 2);
    struct lease *l = take(1);
    assert_int_equal(file_load(dir, name, 4096, &data, &len), 0);
    for (size_t i = 0; i < len; i++) {
        data[i] ^= 4;
        int fd = openat(dir, name, O_WRONLY | O_TRUNC);
        assert_int_equal(pwrite_full(fd, data, len, 0), 0);
        close(fd);
        assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
        data[i] ^= 4;
    }
    for (size_t n = 0; n < len; n += 5) {
        int fd = openat(dir, name, O_WRONLY | O_TRUNC);
        assert_int_equal(pwrite_full(fd, data, n, 0), 0);
        close(fd);
        assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    }
    assert_int_equal(unlinkat(dir, name, 0), 0);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    free(data);
    lease_release(l);
}

static void deletion_log_of_another_generation_is_refused(void **state)
{
    (void)state;
    int dir = store_dirfd(m.st, DIR_GENERATIONS);
    struct deletions *d;
    open_generation(2, NULL, 0);
    struct lease *l = take(1);
    assert_int_equal(renameat(dir, "0000000000000001/deletions", dir, "0000000000000002/deletions"), 0);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    lease_release(l);
}

/* Writes a changed record with a right checksum over it: what is refused then is refused for its content. */
static void resum(int dir, const char *name, size_t at, uint8_t value)
{
    uint8_t *data;
    size_t len;
    assert_int_equal(file_load(dir, name, 4096, &data, &len), 0);
    data[at] = value;
    put_le64(data + len - 8, hash64(data, len - 8));
    assert_int_equal(file_replace(dir, name, data, len), 0);
    free(data);
}

static void newer_and_strange_records_are_refused_under_a_right_checksum(void **state)
{
    (void)state;
    char hex[VID_HEX], name[80];
    uint64_t epoch, refs[] = {5, 6};
    struct deletions *d;
    int owners = store_dirfd(m.st, DIR_OWNERS), generations = store_dirfd(m.st, DIR_GENERATIONS);
    const char *const log = "0000000000000002/deletions";
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "%s.%016x", hex, 1);
    open_generation(2, refs, 2);
    struct lease *l = take(1);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);

    const struct { size_t at; uint8_t value, back; int code; } owner[] = {{8, 2, 1, -ENOTSUP}, {12, 1, 0, -EBADMSG}, {75, 1, 0, -EBADMSG}};
    for (size_t i = 0; i < sizeof owner / sizeof *owner; i++) {
        resum(owners, name, owner[i].at, owner[i].value);
        assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), owner[i].code);
        resum(owners, name, owner[i].at, owner[i].back);
    }
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);

    const struct { size_t at; uint8_t value, back; int code; } dels[] = {
        {8, 2, 1, -ENOTSUP}, {12, 1, 0, -EBADMSG}, {32, 3, 2, -EBADMSG}, {40, 3, 2, -EBADMSG}, {56, 5, 6, -EBADMSG},
    };
    for (size_t i = 0; i < sizeof dels / sizeof *dels; i++) {
        resum(generations, log, dels[i].at, dels[i].value);
        assert_int_equal(deletions_load(l, &d, &err), dels[i].code);
        resum(generations, log, dels[i].at, dels[i].back);
    }
    assert_int_equal(deletions_load(l, &d, &err), 0);
    deletions_free(d);
    lease_release(l);
}

static void owner_record_of_something_else_is_refused(void **state)
{
    (void)state;
    char hex[VID_HEX], name[80];
    uint64_t epoch;
    int owners = store_dirfd(m.st, DIR_OWNERS);
    vid_hex(&vm, hex);
    snprintf(name, sizeof name, "%s.%016x", hex, 1);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);
    const struct { size_t at; uint8_t is; } field[] = {{16, store_conf(m.st)->id.b[0]}, {32, vm.b[0]}, {64, 1}};
    for (size_t i = 0; i < sizeof field / sizeof *field; i++) {
        resum(owners, name, field[i].at, field[i].is ^ 2);
        assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
        resum(owners, name, field[i].at, field[i].is);
    }
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), 0);

    const struct vid nobody = {{0}};
    assert_int_equal(owner_publish(m.st, &vm, 2, &nobody), -EINVAL);
    snprintf(name, sizeof name, "%s.%016x", hex, 3);
    assert_int_equal(symlinkat("elsewhere", owners, name), 0);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
    snprintf(name, sizeof name, "%s.%016x", hex, 4);
    assert_int_equal(mkdirat(owners, name, 0700), 0);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
    snprintf(name, sizeof name, "%s.%016x", hex, 5);
    int fd = openat(owners, name, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(ftruncate(fd, 5000), 0);
    close(fd);
    assert_int_equal(owner_claim(m.st, &vm, &host, &epoch, &err), -EBADMSG);
}

static void what_is_no_deletion_log_stops_every_publication(void **state)
{
    (void)state;
    const uint64_t refs[] = {5, UINT64_MAX};    /* the last one is reserved */
    const char *const name = "0000000000000002/deletions";
    int dir = store_dirfd(m.st, DIR_GENERATIONS);
    struct deletions *d;
    struct lease *l = take(1);
    open_generation(2, refs, 2);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    assert_int_equal(unlinkat(dir, name, 0), 0);
    assert_int_equal(symlinkat("../0000000000000001/deletions", dir, name), 0);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    assert_int_equal(unlinkat(dir, name, 0), 0);
    assert_int_equal(mkdirat(dir, name, 0700), 0);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    assert_int_equal(unlinkat(dir, name, AT_REMOVEDIR), 0);
    int fd = openat(dir, name, O_CREAT | O_WRONLY, 0600);
    assert_int_equal(ftruncate(fd, (off_t)1 << 33), 0);
    close(fd);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    fd = openat(dir, "0000000000000003", O_CREAT | O_WRONLY, 0600);     /* no directory: the newest generation all the same */
    close(fd);
    assert_int_equal(deletions_load(l, &d, &err), -EBADMSG);
    lease_release(l);
    assert_int_equal(deletion_log_write(m.st->b, "generations", &store_conf(m.st)->id, 9, NULL, UINT64_MAX / 4), -EFBIG);
    assert_int_equal(deletion_log_write(m.st->b, "generations", &store_conf(m.st)->id, 9, NULL, UINT64_C(1) << 30), -EFBIG);
}

/* ---- children ---- */

/* Generation of the lease, or 100 + errno. */
static int child_lease(struct store *st)
{
    struct vid id;
    struct lease *l;
    const char *hex = getenv("VARVE_TEST_VM");
    if (hex == NULL || vid_parse(hex, &id) < 0)
        return 124;
    int r = lease_take(st, &id, 1, &l, NULL);
    if (r < 0)
        return 100 - r;
    r = (int)lease_generation(l);
    lease_release(l);
    return r;
}

/* 0; 50 + errno of staging; 100 + errno of publishing. A failed fsync must stay failed. */
static int child_publish(struct store *st)
{
    struct vid id = vid_random();
    struct lease *l;
    char name[VID_HEX];
    vid_hex(&id, name);
    if (lease_take(st, &id, 1, &l, NULL) < 0)
        return 124;
    int r = lease_stage(l, "r", "x", 1, NULL);
    if (r < 0) {
        lease_release(l);
        return 50 - r;
    }
    r = lease_publish(l, "r", "cds", name, NULL);
    int again = lease_publish(l, "r", "cds", name, NULL);
    lease_release(l);
    if (r == -EIO && again != -EIO)
        return 123;
    return r < 0 ? 100 - r : 0;
}

static int child(const char *name, const char *path)
{
    struct store *st;
    if (store_open(path, &st, NULL) < 0)
        return 125;
    int r = strcmp(name, "lease") == 0 ? child_lease(st) : child_publish(st);
    store_close(st);
    return r;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "child") == 0)
        return child(argv[2], argv[3]);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(first_claim_owns_the_vm), T(adoption_fences_the_owner_before), T(every_damaged_byte_of_an_owner_record_is_found),
        T(owner_name_that_cannot_be_read_is_an_error), T(lease_is_a_directory_until_it_is_released),
        T(other_leases_of_the_vm_and_epoch_are_revoked), T(lease_that_cannot_be_revoked_stops_the_new_one),
        T(lease_is_taken_in_the_newest_generation),
        T(higher_owner_epoch_fences_a_lease), T(newest_generation_without_leases_is_an_error_and_no_hang),
#ifdef VARVE_FAULTS
        T(generation_that_appears_between_moves_the_lease), T(generation_that_appears_before_mkdir_moves_the_lease),
        T(adoption_that_comes_between_fences_the_lease), T(failed_fsync_of_the_target_is_final),
#endif
        T(rename_publishes_once), T(name_that_is_taken_is_not_replaced), T(revoked_lease_publishes_nothing),
        T(piecewise_staging_and_bad_names), T(deletion_log_tells_what_is_condemned),
        T(absent_or_damaged_deletion_log_is_an_error), T(deletion_log_of_another_generation_is_refused),
        T(newer_and_strange_records_are_refused_under_a_right_checksum), T(owner_record_of_something_else_is_refused),
        T(what_is_no_deletion_log_stops_every_publication),
    };
#ifndef VARVE_FAULTS
    (void)between;
    (void)generation_that_appears_between_moves_the_lease;
    (void)generation_that_appears_before_mkdir_moves_the_lease;
    (void)adoption_that_comes_between_fences_the_lease;
    (void)failed_fsync_of_the_target_is_final;
#endif
    return cmocka_run_group_tests(tests, NULL, NULL);
}
