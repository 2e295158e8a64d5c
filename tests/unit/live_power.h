/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_power: a power loss without a power switch. Takes the place of fsync, fdatasync and unlinkat in the test program and
 * remembers, for one directory, what each of its files had in it when it was last synced, and which entries the directory
 * had when it was. power_cut() then writes what a disk could hold: for each entry and each 4 KiB page either what was
 * synced or what is there now, at random. Only what was synced is certain, so only that may be relied on.
 */
#ifndef VARVE_TEST_LIVE_POWER_H
#define VARVE_TEST_LIVE_POWER_H

#include "live_fake.h"

#include <dirent.h>
#include <sys/syscall.h>

enum { POWER_FILES = 4096, POWER_ENTRIES = 256 };
struct power_file { ino_t ino; bool dead; char *path; off_t synced; bool ever; };
struct power_entry { char name[48]; int file; };
static struct {
    bool on;
    char dir[160], shadow[160];     /* the directory watched; where synced contents are kept */
    struct power_file file[POWER_FILES];
    int files;
    struct power_entry entry[POWER_ENTRIES];
    int entries;
    void (*hook)(void);             /* called before each sync takes effect */
} power;

static int power_file_of(ino_t ino)
{
    for (int i = power.files; i-- > 0;)
        if (!power.file[i].dead && power.file[i].ino == ino)
            return i;
    assert_true(power.files < POWER_FILES);
    power.file[power.files] = (struct power_file){.ino = ino};
    return power.files++;
}

static void power_shadow_name(int i, char out[200])
{
    snprintf(out, 200, "%s/%d", power.shadow, i);
}

static bool power_watched(int fd, char path[256])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 255);
    if (n < 0)
        return false;
    path[n] = '\0';
    return strncmp(path, power.dir, strlen(power.dir)) == 0;
}

static void power_save_file(int any_fd, const struct stat *st)
{
    enum { STEP = 1 << 16 };
    static uint8_t buf[STEP];
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", any_fd);
    int fd = open(self, O_RDONLY | O_CLOEXEC);      /* the one given may be write-only */
    assert_true(fd >= 0);
    int i = power_file_of(st->st_ino);
    char name[200];
    power_shadow_name(i, name);
    int to = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(to >= 0 && ftruncate(to, st->st_size) == 0);
    for (off_t at = lseek(fd, 0, SEEK_DATA); at >= 0; at = lseek(fd, at, SEEK_DATA)) {
        ssize_t got = pread_full(fd, buf, STEP, at);
        if (got <= 0)
            break;
        assert_int_equal(pwrite_full(to, buf, (size_t)got, at), 0);
        at += got;
    }
    close(to);
    close(fd);
    power.file[i].synced = st->st_size;
    power.file[i].ever = true;
}

static int power_list(const char *dir, struct power_entry *out)
{
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct stat st;
        if (e->d_name[0] == '.' && (e->d_name[1] == '\0' || e->d_name[1] == '.'))
            continue;
        assert_true(n < POWER_ENTRIES && strlen(e->d_name) < sizeof out->name);
        assert_int_equal(fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
        memcpy(out[n].name, e->d_name, strlen(e->d_name) + 1);
        out[n++].file = power_file_of(st.st_ino);
    }
    closedir(d);
    return n;
}

static int power_sync(int fd)
{
    char path[256];
    struct stat st;
    if (!power.on || !power_watched(fd, path) || fstat(fd, &st) < 0)
        return 0;                   /* nothing here outlives the test: no real sync is needed */
    if (power.hook != NULL)
        power.hook();
    if (st.st_nlink == 0)
        return 0;                   /* nothing leads to it any more */
    if (S_ISDIR(st.st_mode)) {
        if (strcmp(path, power.dir) == 0)
            power.entries = power_list(power.dir, power.entry);
    } else {
        power_save_file(fd, &st);
    }
    return 0;
}

int fsync(int fd) { return power_sync(fd); }
int fdatasync(int fd) { return power_sync(fd); }

int unlinkat(int dirfd, const char *name, int flags)
{
    struct stat st;
    char path[256];
    if (power.on && flags == 0 && power_watched(dirfd, path) && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_nlink == 1)
        power.file[power_file_of(st.st_ino)].dead = true;
    return (int)syscall(SYS_unlinkat, dirfd, name, flags);
}

/* A file that is replaced by a rename is gone, too. */
int renameat(int from, const char *old, int to, const char *name)
{
    struct stat st;
    char path[256];
    if (power.on && power_watched(to, path) && fstatat(to, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        power.file[power_file_of(st.st_ino)].dead = true;
    return (int)syscall(SYS_renameat2, from, old, to, name, 0);
}

/* From now on; what is in dir counts as durable. */
static void power_watch(const char *dir, const char *shadow)
{
    snprintf(power.dir, sizeof power.dir, "%s", dir);
    snprintf(power.shadow, sizeof power.shadow, "%s", shadow);
    power.files = 0;
    power.on = true;
    power.entries = power_list(dir, power.entry);
    for (int i = 0; i < power.entries; i++) {
        char name[256];
        struct stat st;
        snprintf(name, sizeof name, "%s/%s", dir, power.entry[i].name);
        int fd = open(name, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0 && fstat(fd, &st) == 0);
        power_save_file(fd, &st);
        close(fd);
    }
}

/* keep: per mille of pages and entries that got there although nobody synced them. */
static void power_write(const char *to, const char *name, int file, int now, unsigned keep, unsigned (*rnd)(unsigned))
{
    uint8_t page[PAGE_BYTES];
    struct stat st = {0};
    const struct power_file *f = &power.file[file];
    char shadow[200], path[256];
    power_shadow_name(file, shadow);
    int old = f->ever ? open(shadow, O_RDONLY | O_CLOEXEC) : -1;
    snprintf(path, sizeof path, "%s/%s", to, name);
    int out = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(out >= 0 && (now < 0 || fstat(now, &st) == 0));
    off_t size = now >= 0 && rnd(1000) < keep ? st.st_size : f->synced;
    assert_int_equal(ftruncate(out, size), 0);
    for (off_t at = 0; at < size; at += PAGE_BYTES) {
        int from = now >= 0 && rnd(1000) < keep ? now : old;
        off_t data = from < 0 ? -1 : lseek(from, at, SEEK_DATA);
        if (data < 0 || data >= at + PAGE_BYTES)
            continue;
        ssize_t got = pread_full(from, page, PAGE_BYTES, at);
        if (got > size - at)
            got = (ssize_t)(size - at);
        if (got > 0)
            assert_int_equal(pwrite_full(out, page, (size_t)got, at), 0);
    }
    if (old >= 0)
        close(old);
    close(out);
}

static void power_cut(const char *to, unsigned keep, unsigned (*rnd)(unsigned))
{
    static struct power_entry now[POWER_ENTRIES];
    int n = power_list(power.dir, now);
    /* Entries that are there now. */
    for (int i = 0; i < n; i++) {
        int was = -1;
        for (int k = 0; k < power.entries; k++)
            if (strcmp(power.entry[k].name, now[i].name) == 0)
                was = power.entry[k].file;
        int file = now[i].file;
        if (was != file && rnd(1000) >= keep)
            file = was;
        if (file < 0)
            continue;
        char path[sizeof power.dir + sizeof now[i].name];
        snprintf(path, sizeof path, "%s/%.*s", power.dir, (int)sizeof now[i].name - 1, now[i].name);
        int fd = file == now[i].file ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        power_write(to, now[i].name, file, fd, keep, rnd);
        if (fd >= 0)
            close(fd);
    }
    /* Entries whose removal nobody synced. */
    for (int k = 0; k < power.entries; k++) {
        bool gone = true;
        for (int i = 0; i < n; i++)
            gone = gone && strcmp(now[i].name, power.entry[k].name) != 0;
        if (gone && rnd(1000) >= keep)
            power_write(to, power.entry[k].name, power.entry[k].file, -1, keep, rnd);
    }
}

#endif
