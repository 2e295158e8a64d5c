/* SPDX-License-Identifier: Apache-2.0 */
/* Files of live images are open only while they are used: their number, their errors, and that they are the same when they come back. */
#include "live_fake.h"

#include <pthread.h>
#include <sys/syscall.h>

enum { DISKS = 6, BOUND = 8 };
struct box { char root[64]; struct fake_source src; struct live_set *set; struct live *l[DISKS]; };

static struct verr err;
static const char *lost;            /* fdatasync of files that have this in their path fails, once */

int fdatasync(int fd)
{
    char link[64], path[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n < 0 ? 0 : n] = '\0';
    if (lost != NULL && strstr(path, lost) != NULL) {
        lost = NULL;
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static unsigned files_open(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static int box_new(void **state)
{
    struct box *b = calloc(1, sizeof *b);
    assert_non_null(b);
    fake_dir(b->root);
    const struct live_env env = {.open_max = 2, .files_max = BOUND};
    b->set = open_set(b->root, &b->src, true, &env);
    for (int i = 0; i < DISKS; i++) {
        struct vid id = vid_random();
        CHECK(live_create(b->set, &id, 1, 0, &b->l[i], &err));
    }
    *state = b;
    return 0;
}

static int box_free(void **state)
{
    struct box *b = *state;
    for (int i = 0; i < DISKS; i++)
        live_put(b->l[i]);
    live_set_close(b->set, NULL);
    fake_free(&b->src);
    fake_remove(b->root);
    free(b);
    return 0;
}

static int byte_at(struct live *l, uint64_t off)
{
    uint8_t c = 0;
    CHECK(live_read(l, off, &c, 1, &err));
    return c;
}

static void pending_snapshots_keep_no_file_open(void **state)
{
    enum { FREEZES = 40 };
    struct box *b = *state;
    const struct freeze_req plain = {0};
    struct snapinfo p;
    unsigned before = files_open();
    for (int k = 0; k < FREEZES; k++) {
        for (int i = 0; i < DISKS; i++) {
            fake_fill(b->l[i], (uint64_t)(k % 3) * SEG_BYTES, 5000, k + 1);
            CHECK(live_freeze(&b->l[i], 1, &plain, &p, &err));
        }
        assert_true(files_open() <= before + BOUND);
    }
    for (int i = 0; i < DISKS; i++) {
        for (int k = 0; k < FREEZES; k++) {
            uint8_t c = 0;
            CHECK(live_pending_read(b->l[i], (uint64_t)k + 1, (uint64_t)(k % 3) * SEG_BYTES + 4999, &c, 1, &err));
            assert_int_equal(c, k + 1);
        }
        CHECK(live_pending_drop(b->l[i], FREEZES / 2, &err));
        CHECK(live_fsync(b->l[i], &err));
        assert_int_equal(byte_at(b->l[i], 0), FREEZES);
    }
    assert_true(files_open() <= before + BOUND);
}

/* Uses so many files of the others that none of the first disk's stays open. */
static void use_others(struct box *b)
{
    for (int round = 0; round < 3; round++) {
        for (int i = 1; i < DISKS; i++) {
            fake_fill(b->l[i], 0, 100, round);
            assert_int_equal(byte_at(b->l[i], 0), round);
        }
    }
}

static void lost_page_is_heard_of_when_the_file_is_closed(void **state)
{
    struct box *b = *state;
    fake_fill(b->l[0], 0, 100, 1);
    lost = "layer-";
    for (int round = 0; round < 20 && lost != NULL; round++)
        for (int i = 0; i < DISKS; i++)
            if (live_write(b->l[i], 4096 * (uint64_t)round, "x", 1, NULL) < 0)
                assert_null(lost);
    assert_null(lost);
    /* One disk takes no more changes: not one that goes on as if its data were safe. */
    int refused = 0;
    for (int i = 0; i < DISKS; i++)
        refused += live_fsync(b->l[i], NULL) == -EIO && live_write(b->l[i], 0, "x", 1, NULL) == -EIO;
    assert_int_equal(refused, 1);
}

static void exchanged_file_is_refused(void **state)
{
    struct box *b = *state;
    char path[160], other[176], hex[VID_HEX];
    fake_fill(b->l[0], 0, 100, 1);
    use_others(b);
    vid_hex(live_id(b->l[0]), hex);
    snprintf(path, sizeof path, "%s/disks/%s/layer-2", b->root, hex);
    snprintf(other, sizeof other, "%s.away", path);
    assert_int_equal(rename(path, other), 0);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    close(fd);
    uint8_t c;
    assert_int_equal(live_read(b->l[0], 0, &c, 1, &err), -EBADMSG);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(live_read(b->l[0], 0, &c, 1, &err), -EBADMSG);
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(byte_at(b->l[0], 0), 1);
}

struct worker { struct live *l; unsigned seed; };

static void *work(void *arg)
{
    struct worker *w = arg;
    for (unsigned k = 0; k < 300; k++) {
        uint64_t off = (uint64_t)(k * 7 + w->seed) % 5 * SEG_BYTES + w->seed * (uint64_t)PAGE_BYTES;
        uint8_t in = (uint8_t)(k + w->seed), out = 0;
        if (live_write(w->l, off, &in, 1, NULL) < 0 || live_read(w->l, off, &out, 1, NULL) != 1 || in != out)
            return w;
        if (k % 50 == w->seed && live_fsync(w->l, NULL) < 0)
            return w;
    }
    return NULL;
}

static void threads_share_few_files(void **state)
{
    enum { THREADS = 12 };
    struct box *b = *state;
    pthread_t t[THREADS];
    struct worker w[THREADS];
    void *failed;
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){b->l[i % DISKS], i};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(t[i], &failed), 0);
        assert_null(failed);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, box_new, box_free)
    const struct CMUnitTest tests[] = {
        T(pending_snapshots_keep_no_file_open), T(lost_page_is_heard_of_when_the_file_is_closed), T(exchanged_file_is_refused),
        T(threads_share_few_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
