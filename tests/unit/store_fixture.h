/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_fixture: a real store in a private temporary directory, random numbers from a printed seed, and a way to run a part of
 * a test in a process of its own (fault points read VARVE_FAULT once per process).
 */
#ifndef VARVE_TESTS_STORE_FIXTURE_H
#define VARVE_TESTS_STORE_FIXTURE_H

#include "../lib/store_dirs.h"
#include "base/file.h"
#include "base/verr.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct mkstore {
    char dir[112];      /* private directory */
    char path[120];     /* the store in it */
    struct store *st;
};

static uint64_t mks_rng;

static inline uint64_t mks_rnd(void)
{
    mks_rng += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = mks_rng;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline void mks_fill(void *p, size_t n)
{
    uint8_t *b = p;
    for (; n >= 8; n -= 8, b += 8) {
        uint64_t v = mks_rnd();
        memcpy(b, &v, 8);
    }
    while (n-- > 0)
        *b++ = (uint8_t)mks_rnd();
}

static inline void mks_seed(void)
{
    const char *seed = getenv("VARVE_SEED");
    mks_rng = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
    printf("VARVE_SEED=%llu\n", (unsigned long long)mks_rng);
    fflush(stdout);
}

/* 0, or says on stderr what went wrong. */
static inline int mks_make(struct mkstore *m)
{
    struct verr err = {0};
    struct store_conf conf;
    const char *tmp = getenv("TMPDIR");
    snprintf(m->dir, sizeof m->dir, "%.80s/varve-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(m->dir) == NULL)
        return -1;
    snprintf(m->path, sizeof m->path, "%s/store", m->dir);
    storeconf_default(&conf);
    conf.created = 1;
    if (store_init(m->path, &conf, (uid_t)-1, (gid_t)-1, &err) < 0 || store_open(m->path, &m->st, &err) < 0) {
        fprintf(stderr, "store_fixture: %s\n", verr_str(&err));
        return -1;
    }
    return 0;
}

static inline void mks_remove(struct mkstore *m)
{
    store_close(m->st);
    tree_remove(AT_FDCWD, m->dir);
    memset(m, 0, sizeof *m);
}

/* Runs this program again as `PROGRAM child NAME PATH` with VARVE_FAULT set; its exit code, or 1000 + signal. */
static inline int mks_child(const char *name, const char *path, const char *fault)
{
    pid_t pid = fork();
    if (pid == 0) {
        setenv("VARVE_FAULT", fault, 1);
        execl("/proc/self/exe", "test", "child", name, path, (char *)NULL);
        _exit(126);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#endif
