/* SPDX-License-Identifier: Apache-2.0 */
/*
 * alloc: the allocator that fails when told to. It stands in for that of the C library for the whole program, libraries
 * included; under AddressSanitizer, which does the same, it is put before the calls of our own code only (--wrap).
 */
#include "oom.h"

#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>

#ifdef __SANITIZE_ADDRESS__
#define PUBLIC(name) __wrap_##name
#define REAL(name) __real_##name
#else
#define PUBLIC(name) name
#define REAL(name) __libc_##name
#endif

#pragma GCC visibility push(default)     /* libraries must find them */
void *REAL(malloc)(size_t n);
void *REAL(calloc)(size_t n, size_t m);
void *REAL(realloc)(void *p, size_t n);
void *REAL(memalign)(size_t a, size_t n);
void REAL(free)(void *p);
void *PUBLIC(malloc)(size_t n);
void *PUBLIC(calloc)(size_t n, size_t m);
void *PUBLIC(realloc)(void *p, size_t n);
void *PUBLIC(reallocarray)(void *p, size_t n, size_t m);
void PUBLIC(free)(void *p);
char *PUBLIC(strdup)(const char *s);
char *PUBLIC(strndup)(const char *s, size_t n);
int PUBLIC(posix_memalign)(void **out, size_t a, size_t n);
#pragma GCC visibility pop

extern const char __executable_start, etext;

static atomic_bool armed, tracking, for_ever, io, own, lost;
static atomic_uint_fast64_t count, fail_at, hits;
static void *volatile site;

static bool is_own(const void *caller)
{
    return (const char *)caller >= &__executable_start && (const char *)caller < &etext;
}

static bool strikes(void *caller)
{
    uint64_t k = atomic_fetch_add(&count, 1) + 1;
    if (k < atomic_load(&fail_at) || (k > atomic_load(&fail_at) && !atomic_load(&for_ever)))
        return false;
    if (atomic_fetch_add(&hits, 1) == 0)
        site = caller;
    return true;
}

static bool fails(void *caller)
{
    if (!atomic_load(&armed) || atomic_load(&io) || (atomic_load(&own) && !is_own(caller)) || !strikes(caller))
        return false;
    errno = ENOMEM;
    return true;
}

bool oom_io_fails(void *caller)
{
    if (!atomic_load(&armed) || !atomic_load(&io) || !strikes(caller))
        return false;
    errno = EIO;
    return true;
}

bool oom_sync_fails(void *caller)
{
    bool failed = oom_io_fails(caller);
    if (failed)
        atomic_store(&lost, true);
    return failed;
}

bool oom_lost(void)
{
    return atomic_load(&lost);
}

bool oom_io(void)
{
    return atomic_load(&io);
}

void oom_fail_own(bool on)
{
    atomic_store(&own, on);
}

void oom_fail_io(bool on)
{
    atomic_store(&io, on);
}

/* ---- what is allocated: open addressing; only calls of our own code, libraries keep caches ---- */

enum { SLOTS = 1 << 18 };
static struct { void *p, *caller; } table[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
#define GONE ((void *)1)

static size_t slot_of(const void *p)
{
    return (size_t)(((uintptr_t)p >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (SLOTS - 1);
}

static void note_alloc(void *p, void *caller)
{
    if (p == NULL || !atomic_load(&tracking) || !is_own(caller))
        return;
    pthread_mutex_lock(&lock);
    size_t i = slot_of(p), tries = 0;
    while (table[i].p != NULL && table[i].p != GONE && tries++ < SLOTS)
        i = (i + 1) & (SLOTS - 1);
    table[i].p = p;
    table[i].caller = caller;
    pthread_mutex_unlock(&lock);
}

static void note_free(const void *p)
{
    if (p == NULL || !atomic_load(&tracking))
        return;
    pthread_mutex_lock(&lock);
    for (size_t i = slot_of(p); table[i].p != NULL; i = (i + 1) & (SLOTS - 1))
        if (table[i].p == p) {
            table[i].p = GONE;
            break;
        }
    pthread_mutex_unlock(&lock);
}

void *PUBLIC(malloc)(size_t n)
{
    void *caller = __builtin_return_address(0);
    if (fails(caller))
        return NULL;
    void *p = REAL(malloc)(n);
    note_alloc(p, caller);
    return p;
}

void *PUBLIC(calloc)(size_t n, size_t m)
{
    void *caller = __builtin_return_address(0);
    if (fails(caller))
        return NULL;
    void *p = REAL(calloc)(n, m);
    note_alloc(p, caller);
    return p;
}

static void *again(void *p, size_t n, void *caller)
{
    if (fails(caller))
        return NULL;
    note_free(p);
    void *q = REAL(realloc)(p, n);
    note_alloc(q != NULL ? q : p, caller);
    return q;
}

void *PUBLIC(realloc)(void *p, size_t n)
{
    return again(p, n, __builtin_return_address(0));
}

void *PUBLIC(reallocarray)(void *p, size_t n, size_t m)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, m, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return again(p, bytes, __builtin_return_address(0));
}

void PUBLIC(free)(void *p)
{
    note_free(p);
    REAL(free)(p);
}

static char *copy(const char *s, size_t n, void *caller)
{
    if (fails(caller))
        return NULL;
    char *p = REAL(malloc)(n + 1);
    if (p != NULL) {
        memcpy(p, s, n);
        p[n] = '\0';
    }
    note_alloc(p, caller);
    return p;
}

char *PUBLIC(strdup)(const char *s)
{
    return copy(s, strlen(s), __builtin_return_address(0));
}

char *PUBLIC(strndup)(const char *s, size_t n)
{
    return copy(s, strnlen(s, n), __builtin_return_address(0));
}

int PUBLIC(posix_memalign)(void **out, size_t a, size_t n)
{
    void *caller = __builtin_return_address(0);
    if (fails(caller))
        return ENOMEM;
#ifdef __SANITIZE_ADDRESS__
    extern int __real_posix_memalign(void **, size_t, size_t);
    int r = __real_posix_memalign(out, a, n);
    note_alloc(r == 0 ? *out : NULL, caller);
    return r;
#else
    *out = REAL(memalign)(a, n);
    note_alloc(*out, caller);
    return *out == NULL ? ENOMEM : 0;
#endif
}

#ifndef __SANITIZE_ADDRESS__
#pragma GCC visibility push(default)
int __asprintf_chk(char **out, int flag, const char *fmt, ...);

static int print(char **out, const char *fmt, va_list ap, void *caller)
{
    char text[4096];
    int n = vsnprintf(text, sizeof text, fmt, ap);
    *out = n < 0 || n >= (int)sizeof text ? NULL : copy(text, (size_t)n, caller);
    return *out == NULL ? -1 : n;
}

int asprintf(char **out, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = print(out, fmt, ap, __builtin_return_address(0));
    va_end(ap);
    return n;
}

int __asprintf_chk(char **out, int flag, const char *fmt, ...)
{
    va_list ap;
    (void)flag;
    va_start(ap, fmt);
    int n = print(out, fmt, ap, __builtin_return_address(0));
    va_end(ap);
    return n;
}

void *memalign(size_t a, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : REAL(memalign)(a, n);
}

void *aligned_alloc(size_t a, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : REAL(memalign)(a, n);
}
#pragma GCC visibility pop
#endif

/* ---- control ---- */

void oom_arm(uint64_t k, bool ever)
{
    atomic_store(&count, 0);
    atomic_store(&lost, false);
    atomic_store(&hits, 0);
    atomic_store(&fail_at, k);
    atomic_store(&for_ever, ever);
    site = NULL;
    atomic_store(&armed, true);
}

uint64_t oom_disarm(void)
{
    atomic_store(&armed, false);
    return atomic_load(&hits);
}

void oom_track(void)
{
    atomic_store(&tracking, false);
    memset(table, 0, sizeof table);
    atomic_store(&tracking, true);
}

static void name_of(void *p, char *out, size_t n)
{
    Dl_info info;
    char cmd[256];
    const char *base = &__executable_start;
    snprintf(out, n, "%p", p);
    if (p == NULL || dladdr(p, &info) == 0)
        return;
    if (!is_own(p)) {
        snprintf(out, n, "%s (%s)", info.dli_sname != NULL ? info.dli_sname : "?", info.dli_fname);
        return;
    }
    snprintf(cmd, sizeof cmd, "addr2line -f -s -e /proc/%d/exe 0x%zx 2>/dev/null | tr '\\n' ' '", (int)getpid(), (size_t)((const char *)p - base - 1));
    FILE *f = popen(cmd, "re");
    if (f != NULL) {
        if (fgets(out, (int)n, f) == NULL)
            snprintf(out, n, "%p", p);
        pclose(f);
    }
}

unsigned oom_leaks(void)
{
    unsigned n = 0;
    atomic_store(&tracking, false);
    for (size_t i = 0; i < SLOTS; i++) {
        if (table[i].p == NULL || table[i].p == GONE)
            continue;
        if (n++ < 4) {
            char text[300];
            name_of(table[i].caller, text, sizeof text);
            printf("        left behind: allocated by %s\n", text);
        }
    }
    return n;
}

const char *oom_site(void)
{
    static char text[300];
    name_of(site, text, sizeof text);
    return text;
}
