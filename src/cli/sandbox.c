/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sandbox: what the daemon can still do once it serves, should somebody take it over through a crafted disk, recipe or message.
 * After the drop of privileges, before the first byte of STATE or STORE is parsed and before any thread is started:
 *
 *   Landlock   files: STORE and STATE to write, a few system files to read; nothing else. Matters most where STORE is
 *              root's: uid 0 without capabilities still owns /etc and /proc/sys.
 *   seccomp    system calls: an allow-list. No exec, no new process, no socket but to syslog, no memory that is both
 *              writable and executable.
 *
 * A call that is not on the list fails with EPERM and is logged by the kernel (audit); it does not kill the daemon. The calls
 * that we know of are on the list; what is left is a future libc that tries something new and has a way to go on without it. To end
 * every VM on the host for that would be the greater harm, and who has taken over the daemon gains nothing by the difference.
 * Builds with fault points (-Dfaults=true: the tests) die of it at once, and say which call it was unless the thread blocks signals.
 * In these, VARVE_SANDBOX=off switches all this off (coverage writes its files at exit), VARVE_SANDBOX=errno does as production does.
 */
#include "cli/cli.h"

#include "base/verr.h"
#include "base/vlog.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fuse.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLONE_THREAD    /* of linux/sched.h, which does not go together with sched.h */
#define CLONE_VM 0x100
#define CLONE_THREAD 0x10000
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* ---- Landlock ---- */

enum {
    /* bits of the ABI that the headers of Debian 12 do not name yet */
    LL_TRUNCATE = 1 << 14,
    LL_READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    /* recipes are renamed out of leases/ into snapshots/: without REFER (ABI 2, Linux 5.19) that would be refused */
    LL_OURS = LL_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE
              | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_REFER | LL_TRUNCATE,
    LL_ALL = LL_OURS | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_SOCK
             | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM,
    LL_FILE = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LL_TRUNCATE
};

/* A path that is not there needs no rule. */
static int allow(int ruleset, const char *path, uint64_t access, struct verr *err)
{
    struct stat st;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
        access &= LL_FILE;
    const struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    int r = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno : 0;
    close(fd);
    return r == 0 ? 0 : verr_set(err, -r, "Landlock refuses the rule for %s: %s", path, strerror(-r));
}

/* STATE of a read-only mount goes at the end, which takes the right to remove it from its parent. */
static int allow_removal(int ruleset, const char *state, struct verr *err)
{
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", state);
    char *slash = strrchr(parent, '/');
    if (slash == NULL || slash == parent)
        return 0;
    *slash = '\0';
    return allow(ruleset, parent, LANDLOCK_ACCESS_FS_REMOVE_DIR, err);
}

static int allow_all(int ruleset, uint64_t handled, const struct sandbox *box, struct verr *err)
{
    static const char *const readable[] = {
        "/usr", "/lib", "/lib64",               /* libraries that libc and OpenSSL load late, time zones, openssl.cnf's link */
        "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl/openssl.cnf",
        "/proc",                                /* groups and state of who calls, mountinfo, own memory */
        "/sys/devices/system/cpu", "/dev/urandom", "/dev/random",
#if SANITIZED
        "/proc/self/exe",                       /* line numbers in reports */
#endif
    };
    int r = allow(ruleset, box->store, box->read_only ? LL_READ : LL_OURS & handled, err);
    if (r == 0)
        r = allow(ruleset, box->state, LL_OURS & handled, err);
    if (r == 0 && box->read_only)
        r = allow_removal(ruleset, box->state, err);
    for (size_t i = 0; r == 0 && i < sizeof readable / sizeof readable[0]; i++)
        r = allow(ruleset, readable[i], LL_READ, err);
    if (r == 0)
        r = allow(ruleset, "/dev/fuse", LL_READ | LANDLOCK_ACCESS_FS_WRITE_FILE, err);  /* one descriptor for each thread */
    return r == 0 ? allow(ruleset, "/dev/null", LL_READ | LANDLOCK_ACCESS_FS_WRITE_FILE, err) : r;
}

static int restrict_files(const struct sandbox *box, struct verr *err)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 2) {
        vlog(VLOG_WARN, "sandbox", "this kernel has no Landlock of ABI 2 (Linux 5.19, lsm=landlock): the daemon is not kept out of other files");
        return 0;
    }
    const struct landlock_ruleset_attr attr = {.handled_access_fs = abi >= 3 ? LL_ALL : LL_ALL & ~(uint64_t)LL_TRUNCATE};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (ruleset < 0)
        return verr_set(err, errno, "cannot make a Landlock ruleset: %s", strerror(errno));
    int r = allow_all(ruleset, attr.handled_access_fs, box, err);
    if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        r = verr_set(err, errno, "cannot restrict the daemon by Landlock: %s", strerror(errno));
    close(ruleset);
    return r;
}

/* ---- seccomp ---- */

/* Calls that are allowed with any arguments. libseccomp leaves out those that a processor does not have. */
static const char *const plain[] = {
    /* files */
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "lseek", "_llseek", "open", "openat", "close",
    "close_range", "stat", "lstat", "fstat", "stat64", "lstat64", "fstat64", "fstatat64", "newfstatat", "statx", "statfs", "fstatfs",
    "statfs64", "fstatfs64", "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", "getdents64", "fsync", "fdatasync",
    "sync_file_range", "ftruncate", "ftruncate64", "fallocate", "fadvise64", "fadvise64_64", "readahead", "copy_file_range", "mkdir",
    "mkdirat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "link", "linkat", "fchmod", "fchown", "utimensat",
    "pidfd_open", "flock", "fcntl", "fcntl64", "dup", "dup2", "dup3", "pipe2", "eventfd2", "poll", "ppoll", "select", "pselect6", "umask",
    /* memory and threads */
    "munmap", "mremap", "madvise", "brk", "membarrier", "msync", "futex", "set_robust_list", "rseq", "exit", "exit_group", "gettid",
    "getpid", "getppid", "sched_yield", "sched_getaffinity", "set_tid_address", "arch_prctl", "get_robust_list",
    /* signals, time, who we are */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall", "clock_gettime", "clock_gettime64", "clock_getres",
    "gettimeofday", "time", "clock_nanosleep", "nanosleep", "getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage", "sysinfo",
    "uname", "getrandom", "wait4",
    /* syslog; which sockets there can be is decided below */
    "connect", "sendto", "sendmsg",
};

/* For builds with sanitizers: the leak checker stops all threads from a process that shares our memory, and reports need more calls. */
static const char *const sanitizer[] = {
    "clone", "clone3", "fork", "vfork", "ptrace", "prctl", "kill", "tgkill", "prlimit64", "setrlimit", "mmap", "mprotect", "mincore",
    "pipe", "waitid", "personality", "sched_setaffinity", "getpgrp", "ioctl", "process_vm_readv", "getdents",
};

/* Libraries try these calls and go on without them: they fail without a line in the audit log, and do not end a test. They have a filter
 * of their own, because the kernel logs all that a filter refuses, or nothing. */
static const struct { const char *name; int error; } refused[] = {
    {"clone3", ENOSYS},         /* its flags lie in memory, where no filter sees them: libc then takes clone */
    {"umount2", EPERM},         /* an end without unmount; without capabilities it never works */
};

static bool wanted(size_t i)    /* a sanitizer needs it after all */
{
    return SANITIZED && strcmp(refused[i].name, "clone3") == 0;
}

static int rule(scmp_filter_ctx ctx, uint32_t action, const char *name, unsigned n, const struct scmp_arg_cmp *args)
{
    int nr = seccomp_syscall_resolve_name(name);
    return nr < 0 ? 0 : seccomp_rule_add_array(ctx, action, nr, n, args);
}

/* All four fields: the library's macros leave one out, which clang objects to. */
#define ARG_IS(n, value) {(n), SCMP_CMP_EQ, (value), 0}
#define ARG_MASKED(n, mask, value) {(n), SCMP_CMP_MASKED_EQ, (mask), (value)}

static int allow_by_argument(scmp_filter_ctx ctx)
{
    const scmp_datum_t self = (scmp_datum_t)getpid();
    const struct { const char *name; struct scmp_arg_cmp when; } rows[] = {
        {"socket", ARG_IS(0, AF_UNIX)},
        {"clone", ARG_MASKED(0, CLONE_VM | CLONE_THREAD, CLONE_VM | CLONE_THREAD)},
        {"kill", ARG_IS(0, self)},
        {"tgkill", ARG_IS(0, self)},
        {"ioctl", ARG_IS(1, FUSE_DEV_IOC_CLONE)},
        {"ioctl", ARG_IS(1, TCGETS)},                                /* isatty */
        {"prctl", ARG_IS(0, PR_SET_NAME)},
        {"prctl", ARG_IS(0, PR_SET_VMA)},                            /* libc names its memory */
        {"prlimit64", ARG_IS(2, 0)},                                 /* asks, sets nothing */
        {"mmap", ARG_MASKED(2, PROT_EXEC, 0)},
        {"mmap", ARG_MASKED(2, PROT_EXEC | PROT_WRITE, PROT_EXEC)},   /* libraries loaded late */
        {"mmap2", ARG_MASKED(2, PROT_EXEC, 0)},
        {"mprotect", ARG_MASKED(2, PROT_EXEC, 0)},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof rows / sizeof rows[0]; i++)
        r = rule(ctx, SCMP_ACT_ALLOW, rows[i].name, 1, &rows[i].when);
    return r;
}

static int fill(scmp_filter_ctx ctx, bool strict)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof plain / sizeof plain[0]; i++)
        r = rule(ctx, SCMP_ACT_ALLOW, plain[i], 0, NULL);
    for (size_t i = 0; r == 0 && SANITIZED && i < sizeof sanitizer / sizeof sanitizer[0]; i++)
        r = rule(ctx, SCMP_ACT_ALLOW, sanitizer[i], 0, NULL);
    for (size_t i = 0; r == 0 && i < sizeof refused / sizeof refused[0]; i++)
        if (!wanted(i))
            r = rule(ctx, SCMP_ACT_ALLOW, refused[i].name, 0, NULL);    /* what the other filter refuses stays refused */
    if (r == 0)
        r = allow_by_argument(ctx);
    if (r == 0)
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);           /* a sanitizer has threads of its own already */
    if (r == 0 && !strict)
        seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1);                 /* no old kernel is worth refusing for its missing log */
    seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    return r;
}

static int fill_quiet(scmp_filter_ctx ctx, bool strict)
{
    int r = 0;
    (void)strict;
    for (size_t i = 0; r == 0 && i < sizeof refused / sizeof refused[0]; i++)
        if (!wanted(i))
            r = rule(ctx, SCMP_ACT_ERRNO((uint32_t)refused[i].error), refused[i].name, 0, NULL);
    return r < 0 ? r : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
}

static int load(uint32_t otherwise, int (*fill_in)(scmp_filter_ctx ctx, bool strict), bool strict, struct verr *err)
{
    scmp_filter_ctx ctx = seccomp_init(otherwise);
    if (ctx == NULL)
        return verr_set(err, ENOMEM, "cannot make a seccomp filter");
    int r = fill_in(ctx, strict);
    if (r == 0)
        r = seccomp_load(ctx);
    seccomp_release(ctx);
    return r < 0 ? verr_set(err, -r, "cannot load the seccomp filter: %s", strerror(-r)) : 0;
}

/* The quiet one first: the other one lets no filter follow. */
static int restrict_calls(bool strict, struct verr *err)
{
    int r = load(SCMP_ACT_ALLOW, fill_quiet, strict, err);
    return r < 0 ? r : load(strict ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM), fill, strict, err);
}

/* ---- */

#ifdef VARVE_FAULTS
static void say_refused(int sig, siginfo_t *info, void *ctx)
{
    char text[96];
    (void)sig;
    (void)ctx;
    char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, info->si_syscall);      /* not async-signal-safe: we die anyway */
    int n = snprintf(text, sizeof text, "ERROR sandbox: system call %s (%d) is not on the list\n", name != NULL ? name : "?",
                     info->si_syscall);
    if (write(STDERR_FILENO, text, (size_t)n) != n)
        _exit(158);
    _exit(159);
}

static const char *test_mode(void)
{
    const char *mode = getenv("VARVE_SANDBOX");
    return mode != NULL ? mode : "";
}
#endif

int sandbox_enter(const struct sandbox *box, struct verr *err)
{
    bool strict = false;
#ifdef VARVE_FAULTS
    if (strcmp(test_mode(), "off") == 0) {
        vlog(VLOG_WARN, "sandbox", "switched off by VARVE_SANDBOX");
        return 0;
    }
    strict = strcmp(test_mode(), "errno") != 0;
    struct sigaction sa = {.sa_sigaction = say_refused, .sa_flags = SA_SIGINFO};
    if (strict)
        sigaction(SIGSYS, &sa, NULL);
#endif
    int r = restrict_files(box, err);
    return r == 0 ? restrict_calls(strict, err) : r;
}
