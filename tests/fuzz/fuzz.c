/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz: the side of a target that is the same for all: entry points of libFuzzer, or a program that replays. */
#include "fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct fuzz_kind *kind_now;

/* Durability is not what is looked at here, and these are what a target would spend most of its time in. */
#pragma GCC visibility push(default)
int fsync(int fd)
{
    (void)fd;
    return 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return 0;
}
#pragma GCC visibility pop

void fuzz_broken(const char *what, const char *file, int line)
{
    fprintf(stderr, "FAILED at line %s:%d: %s: %s: broken promise: %s\n", file, line, fuzz_family, kind_now->name, what);
    abort();
}

/* The record, cut or filled up to its fixed length, so that it ends where a page without access begins. */
static const uint8_t *at_the_wall(const struct fuzz_kind *k, const uint8_t *p, size_t *len)
{
    static uint8_t *map;
    if (map == NULL) {
        map = mmap(NULL, FUZZ_INPUT_MAX + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED || mprotect(map + FUZZ_INPUT_MAX, 4096, PROT_NONE) < 0)
            abort();
    }
    size_t n = k->fixed != 0 ? k->fixed : *len, have = *len < n ? *len : n;
    uint8_t *at = map + FUZZ_INPUT_MAX - n;
    memset(at, 0, n);
    if (have > 0)
        memcpy(at, p, have);
    *len = n;
    return at;
}

static bool feed(const struct fuzz_kind *k, const uint8_t *p, size_t len)
{
    kind_now = k;
    if (len > FUZZ_INPUT_MAX)
        len = FUZZ_INPUT_MAX;
    p = at_the_wall(k, p, &len);
    return k->feed(p, len);
}

static const struct fuzz_kind *kind_of(const uint8_t *data)
{
    return &fuzz_kinds[data[0] % fuzz_nkinds];
}

static void mend(const struct fuzz_kind *k, uint8_t *p, size_t len)
{
    if (k->mend != NULL && (k->fixed == 0 || len == k->fixed))
        k->mend(p, len);
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_setup();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len > 0)
        feed(kind_of(data), data + 1, len - 1);
    return 0;
}

/* Without this no mutation would get behind a checksum. One in eight keeps a wrong one. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned seed)
{
    uint64_t rng = seed;
    if (max < 2)
        return LLVMFuzzerMutate(data, len, max);
    if (len == 0 || fuzz_next(&rng) % 64 == 0) {
        data[0] = (uint8_t)(fuzz_next(&rng) % fuzz_nkinds);
        len = len == 0 ? 1 : len;
    }
    const struct fuzz_kind *k = kind_of(data);
    data[0] = (uint8_t)(k - fuzz_kinds);
    size_t n = LLVMFuzzerMutate(data + 1, len - 1, max - 1);
    if (k->fixed != 0 && n != k->fixed && k->fixed < max) {
        if (n < k->fixed)
            memset(data + 1 + n, 0, k->fixed - n);
        n = k->fixed;
    }
    if (fuzz_next(&rng) % 8 != 0)
        mend(k, data + 1, n);
    return n + 1;
}

#else

/* ---- replay ---- */

#ifndef __SANITIZE_ADDRESS__
/* Says whose record it was; AddressSanitizer tells more. */
static void on_fault(int sig)
{
    char text[200];
    int n = snprintf(text, sizeof text, "FAILED at line %s: %s: reads or writes where it must not\n", fuzz_family, kind_now->name);
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(3);
    signal(sig, SIG_DFL);
    raise(sig);
}
#endif

static uint8_t seed_bytes[FUZZ_INPUT_MAX], work[FUZZ_INPUT_MAX + 1];
static unsigned passed, failed, accepted;

static uint64_t odd_value(uint64_t *rng, const uint8_t *p, size_t len)
{
    static const uint64_t odd[] = {0, 1, 2, 3, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x1fffff, 0x200000, 0x7fffffff,
                                   0x80000000, 0xffffffff, UINT64_C(0x100000000), UINT64_C(1) << 47, UINT64_MAX / 2, UINT64_MAX - 1, UINT64_MAX};
    uint64_t r = fuzz_next(rng);
    switch (r % 4) {
    case 0: return len + (r >> 8) % 5 - 2;
    case 1: return len >= 8 ? get_le64(p + (r >> 8) % (len - 7)) + (r >> 40) % 5 - 2 : r;
    default: return odd[(r >> 8) % (sizeof odd / sizeof odd[0])];
    }
}

/* One small change of the work[1..len]; the new length. */
static size_t mutate(uint64_t *rng, uint8_t *p, size_t len)
{
    uint64_t r = fuzz_next(rng);
    size_t at = len > 0 ? (size_t)(r >> 16) % len : 0, n;
    uint8_t raw[8];
    switch (r % 8) {
    case 0:
        return (size_t)(r >> 16) % (len + 1);           /* cut */
    case 1:
        n = (size_t)(r >> 40) % 64;                     /* longer */
        if (len + n <= FUZZ_INPUT_MAX) {
            memset(p + len, (int)(r >> 8 & 0xff), n);
            len += n;
        }
        return len;
    case 2:
        if (len > 0)
            p[at] ^= (uint8_t)(1u << (r >> 8 & 7));
        return len;
    case 3:
        if (len > 0)
            p[at] = (uint8_t)(r >> 8);
        return len;
    case 4:                                             /* bytes of one place at another */
        n = (size_t)(fuzz_next(rng)) % 64;
        if (len > n)
            memmove(p + at % (len - n), p + (size_t)(r >> 32) % (len - n), n);
        return len;
    default:                                            /* a field */
        put_le64(raw, odd_value(rng, p, len));
        n = (size_t)1 << (r >> 8 & 3);
        at &= ~(n - 1);
        if (at + n <= len)
            memcpy(p + at, raw, n);
        return len;
    }
}

static void mutations(unsigned kind, size_t seed_len, unsigned count, uint64_t *rng)
{
    const struct fuzz_kind *k = &fuzz_kinds[kind];
    for (unsigned i = 0; i < count; i++) {
        size_t len = seed_len;
        memcpy(work, seed_bytes, seed_len);
        for (unsigned n = 1 + (unsigned)(fuzz_next(rng) % 4); n > 0; n--)
            len = mutate(rng, work, len);
        if (k->fixed != 0) {
            memset(work + len, 0, len < k->fixed ? k->fixed - len : 0);
            len = k->fixed;
        }
        if (i % 8 != 7)
            mend(k, work, len);
        accepted += feed(k, work, len);
        passed++;
    }
}

static void write_seed(const char *dir, unsigned kind, unsigned i, size_t len)
{
    char name[512];
    uint8_t head = (uint8_t)kind;
    snprintf(name, sizeof name, "%s/%s-%u", dir, fuzz_kinds[kind].name, i);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, &head, 1) != 1 || write(fd, seed_bytes, len) != (ssize_t)len) {
        perror(name);
        exit(2);
    }
    close(fd);
}

static void replay_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, work, sizeof work);
    if (n < 0) {
        perror(path);
        exit(2);
    }
    close(fd);
    if (n > 0)
        feed(kind_of(work), work + 1, (size_t)n - 1);
    passed++;
}

/* target [--seeds DIR | FILE...]: VARVE_SEED and VARVE_STEPS (mutations of each seed) as in other random tests. */
int main(int argc, char **argv)
{
    const char *dir = argc == 3 && strcmp(argv[1], "--seeds") == 0 ? argv[2] : NULL;
    const char *steps_text = getenv("VARVE_STEPS"), *seed_text = getenv("VARVE_SEED");
    unsigned steps = steps_text != NULL ? (unsigned)strtoul(steps_text, NULL, 10) : 2000;
    uint64_t rng = seed_text != NULL ? strtoull(seed_text, NULL, 0) : 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%s: VARVE_SEED=%llu VARVE_STEPS=%u\n", fuzz_family, (unsigned long long)rng, steps);
    fuzz_setup();
#ifndef __SANITIZE_ADDRESS__
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
#endif
    for (unsigned k = 0; k < fuzz_nkinds; k++) {
        unsigned i = 0;
        for (size_t len; (len = fuzz_kinds[k].seed(i, seed_bytes)) > 0; i++) {
            if (dir != NULL) {
                write_seed(dir, k, i, len);
                continue;
            }
            if (feed(&fuzz_kinds[k], seed_bytes, len)) {
                passed++;
            } else {
                failed++;
                printf("FAILED at line %s: record %u, made by the encoder, is refused\n", fuzz_kinds[k].name, i);
            }
            mutations(k, len, fuzz_kinds[k].slow > 0 ? steps / fuzz_kinds[k].slow : steps, &rng);
        }
        if (i == 0) {
            failed++;
            printf("FAILED at line %s: there is no record of it\n", fuzz_kinds[k].name);
        }
    }
    for (int i = 1; dir == NULL && i < argc; i++)
        replay_file(argv[i]);
    if (dir != NULL)
        return 0;
    printf("%u mutations were accepted\n%u passed, %u failed\n", accepted, passed, failed);
    return failed > 0;
}

#endif
