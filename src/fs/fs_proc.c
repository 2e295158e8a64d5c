/* SPDX-License-Identifier: Apache-2.0 */
/* fs_proc: the processes behind requests, of which the kernel tells a thread: which process is it, was it killed, has it ended? */
#include "fs/fs_internal.h"

#include "base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PF_SIGNALED = 0x400 };

struct proc {
    struct proc *next;              /* in fs.procs */
    unsigned refs;
    long tgid;
    int pidfd;
    bool ended;
};

/* ---- looking at a task ---- */

/* Reads field 9 of /proc/PID/stat. -errno: hidepid or another pid namespace hides the process, or it has ended. */
static int task_flags(long pid, unsigned long *flags)
{
    char path[48], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return -EIO;
    text[n] = '\0';
    const char *p = strrchr(text, ')');     /* the name in parentheses may hold anything */
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it from an unsigned int */
    if (p == NULL || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %lu", flags) != 1)
        return -EIO;
    return 0;
}

/* The leader of a task, from /proc/PID/status, which can be read without waiting for a lock. *memory: the task has memory; a thread of
 * the kernel has none, and an ending task gives its own up before it closes its files. 0: the file cannot be read. */
static long task_leader(long pid, bool *memory)
{
    char path[48], line[256];
    long tgid = 0;
    *memory = false;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *fp = pid > 0 ? fopen(path, "re") : NULL;
    if (fp == NULL)
        return 0;
    while (fgets(line, sizeof line, fp) != NULL) {
        if (strncmp(line, "Tgid:", 5) == 0)
            tgid = strtol(line + 5, NULL, 10);
        else if (strncmp(line, "VmSize:", 7) == 0)
            *memory = true;
    }
    fclose(fp);
    return tgid;
}

/*
 * exit_group() too ends sibling threads by a signal, and any of them may close the files: so a process counts as killed only if its
 * leader was signalled as well. A process that cannot be looked at counts as clean.
 *
 * /proc/PID/stat is read only of a task that is ending. An exec closes its close-on-exec files while it holds the lock that a reader
 * of that file needs: the exec would wait for this flush, and this flush for the exec.
 */
long fs_task_closing(long pid, bool *killed)
{
    unsigned long flags = 0;
    bool memory;
    long leader = task_leader(pid, &memory);
    *killed = false;
    if (leader > 0 && !memory && task_flags(pid, &flags) == 0 && (flags & PF_SIGNALED) != 0)
        *killed = leader == pid || task_flags(leader, &flags) < 0 || (flags & PF_SIGNALED) != 0;
    return leader;
}

long fs_task_process(long pid)
{
    bool memory;
    long leader = task_leader(pid, &memory);
    return memory ? leader : 0;
}

bool fs_task_killed(long pid)
{
    char path[48], line[256];
    const unsigned long long kill_bit = 1ULL << (SIGKILL - 1);  /* any signal that ends a process becomes this one in its threads */
    bool killed = false;
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *fp = pid > 0 ? fopen(path, "re") : NULL;
    while (fp != NULL && !killed && fgets(line, sizeof line, fp) != NULL)
        killed = (strncmp(line, "SigPnd:", 7) == 0 || strncmp(line, "ShdPnd:", 7) == 0) && (strtoull(line + 7, NULL, 16) & kill_bit) != 0;
    if (fp != NULL)
        fclose(fp);
    return killed;
}

/* ---- holding a process: its pid is not given to another while a pidfd says that it runs ---- */

/* lock held */
static bool has_ended(struct proc *p)
{
    struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};
    if (!p->ended)
        p->ended = poll(&pfd, 1, 0) == 1;
    return p->ended;
}

/* lock held */
static struct proc *proc_new(struct fs *f, long tgid)
{
    int fd = f->nprocs < files_allowed(8, FS_PROCS_MAX) ? (int)syscall(SYS_pidfd_open, (pid_t)tgid, 0) : -1;
    struct proc *p = fd >= 0 ? calloc(1, sizeof *p) : NULL;
    if (p == NULL) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    *p = (struct proc){.next = f->procs, .refs = 1, .tgid = tgid, .pidfd = fd};
    f->procs = p;
    f->nprocs++;
    return p;
}

struct proc *fs_proc_get(struct fs *f, long tgid)
{
    if (tgid <= 0)
        return NULL;
    pthread_mutex_lock(&f->lock);
    struct proc *p = f->procs;
    while (p != NULL && (p->tgid != tgid || has_ended(p)))
        p = p->next;
    if (p != NULL)
        p->refs++;
    else
        p = proc_new(f, tgid);
    pthread_mutex_unlock(&f->lock);
    return p;
}

void fs_proc_ref_locked(struct proc *p)
{
    if (p != NULL)
        p->refs++;
}

void fs_proc_put(struct fs *f, struct proc *p)
{
    if (p == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    bool last = --p->refs == 0;
    if (last) {
        struct proc **pp = &f->procs;
        while (*pp != p)
            pp = &(*pp)->next;
        *pp = p->next;
        f->nprocs--;
    }
    pthread_mutex_unlock(&f->lock);
    if (last) {
        close(p->pidfd);
        free(p);
    }
}

bool fs_proc_ended_locked(struct proc *p)
{
    return p != NULL && has_ended(p);
}

bool fs_proc_is_locked(struct proc *p, long tgid)
{
    return p != NULL && p->tgid == tgid && !has_ended(p);
}

unsigned fs_proc_poll_locked(struct fs *f, struct pollfd *out)
{
    unsigned n = 0;
    for (struct proc *p = f->procs; p != NULL; p = p->next)
        if (!p->ended)
            out[n++] = (struct pollfd){.fd = p->pidfd, .events = POLLIN};
    return n;
}
