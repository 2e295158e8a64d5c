/* SPDX-License-Identifier: Apache-2.0 */
/*
 * breakout: preloaded into the daemon, does on the first fdatasync of a file in layer- what somebody would try who had taken it
 * over, and says on stderr what came of it: "breakout NAME ERRNO". BREAKOUT=all: everything; BREAKOUT=NAME: that alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

static long try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd;
}

static long read_passwd(void) { return try_open("/etc/passwd", O_RDONLY); }
static long write_passwd(void) { return try_open("/etc/passwd", O_WRONLY); }
static long read_shadow(void) { return try_open("/etc/shadow", O_RDONLY); }
static long list_root(void) { return try_open("/", O_RDONLY | O_DIRECTORY); }
static long write_core_pattern(void) { return try_open("/proc/sys/kernel/core_pattern", O_WRONLY); }
static long make_tmp(void) { return try_open("/tmp/varve-breakout", O_WRONLY | O_CREAT); }
static long make_dir(void) { return mkdir("/var/tmp/varve-breakout", 0700); }
static long write_memory(void) { return try_open("/proc/1/mem", O_RDWR); }
static long other_file(void) { return try_open(getenv("BREAKOUT_FILE"), O_RDWR); }
static long remove_other(void) { return unlink(getenv("BREAKOUT_FILE")); }
static long run_program(void)
{
    char *const argv[] = {"true", NULL};
    return execve("/bin/true", argv, argv + 1);
}
static long new_process(void)
{
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid;
}
static long inet_socket(void) { return socket(AF_INET, SOCK_STREAM, 0); }
static long raw_socket(void) { return socket(AF_PACKET, SOCK_RAW, 0); }
static long trace(void) { return ptrace(PTRACE_ATTACH, getppid(), 0, 0); }
static long kill_parent(void) { return kill(getppid(), 0); }
static long executable_memory(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}
static long make_executable(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? -1 : mprotect(p, 4096, PROT_READ | PROT_EXEC);
}
static long mount_something(void) { return mount("none", "/mnt", "tmpfs", 0, ""); }
static long become_root(void) { return setresuid(0, 0, 0); }
static long dumpable(void) { return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); }
static long core_limit(void)
{
    const struct rlimit r = {1 << 20, 1 << 20};
    return setrlimit(RLIMIT_CORE, &r);
}
static long new_namespace(void) { return syscall(SYS_unshare, 0x10000000 /* CLONE_NEWUSER */); }
static long io_ring(void) { return syscall(425 /* io_uring_setup */, 1, NULL); }
static long keys(void) { return syscall(SYS_keyctl, 0, 0, 0, 0, 0); }
/* What must work: libc's own reaction to a syslogd that was started anew. */
static long log_line(void)
{
    closelog();
    syslog(LOG_DEBUG, "breakout");
    return 0;
}

static const struct { const char *name; long (*fn)(void); } tries[] = {
    {"log_line", log_line}, {"read_passwd", read_passwd}, {"write_passwd", write_passwd}, {"read_shadow", read_shadow},
    {"list_root", list_root}, {"write_core_pattern", write_core_pattern}, {"make_tmp", make_tmp}, {"make_dir", make_dir},
    {"write_memory", write_memory}, {"other_file", other_file}, {"remove_other", remove_other}, {"run_program", run_program},
    {"new_process", new_process}, {"inet_socket", inet_socket}, {"raw_socket", raw_socket}, {"trace", trace},
    {"kill_parent", kill_parent}, {"executable_memory", executable_memory}, {"make_executable", make_executable},
    {"mount_something", mount_something}, {"become_root", become_root}, {"dumpable", dumpable}, {"core_limit", core_limit},
    {"new_namespace", new_namespace}, {"io_ring", io_ring}, {"keys", keys},
};

int fdatasync(int fd)
{
    static int (*real)(int);
    static atomic_flag done = ATOMIC_FLAG_INIT;
    const char *which = getenv("BREAKOUT");
    char link[64], path[4096];
    if (real == NULL)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    if (which != NULL && strstr(path, "/layer-") != NULL && !atomic_flag_test_and_set(&done)) {
        for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
            if (strcmp(which, "all") != 0 && strcmp(which, tries[i].name) != 0)
                continue;
            long r = tries[i].fn();
            int e = r < 0 ? errno : 0;
            if (r < 0 && r != -1)
                e = (int)-r;
            dprintf(2, "breakout %s %d\n", tries[i].name, e);
        }
        dprintf(2, "breakout end 0\n");
    }
    return real(fd);
}
