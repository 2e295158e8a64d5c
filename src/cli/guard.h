/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guard: a process that stays root beside the daemon, which drops its privileges once it is mounted and cannot unmount any more. The guard
 * takes the mount and the directories of a start that failed away again, and unmounts for a daemon that is told to end (SIGTERM, Ctrl-C).
 * It does nothing else: it opens no file but the mount point, and believes the daemon nothing but what it was told before the drop, and the wish to unmount.
 *
 * A daemon that dies leaves its mount, dead: programs that write below it get an error, and do not fill the directory underneath. The guard sees
 * to it that it can die: one that is killed while a thread waits in the kernel for a page, which a request keeps that nobody will answer any
 * more, would stay, with its locks and its files, until somebody aborts the connection.
 */
#ifndef VARVE_CLI_GUARD_H
#define VARVE_CLI_GUARD_H

#include <stdbool.h>
#include <sys/types.h>

struct verr;

struct guard { pid_t pid; int fd; };

/* Before anything is opened or locked, so that the guard holds none of it, and before threads. -errno. */
int guard_start(struct guard *g, const char *mountpoint, struct verr *err);
/* What a start that fails leaves from here on: the mount of that device; directories that are empty by then (agent_made). */
void guard_mounted(struct guard *g, unsigned dev_major, unsigned dev_minor);
void guard_made(struct guard *g, const char *path, unsigned levels);
/* The start has succeeded: its mount and directories stay. */
void guard_keep(struct guard *g);
/* Unmounts. 0: unmounted; 1: detached, because it is in use: its name is free, and the session ends when nobody uses it any more;
 * -ENOENT: our mount is not at its place; other -errno: it stays. */
int guard_unmount(struct guard *g);
/* Ends the guard, which undoes the start unless it is kept. */
void guard_end(struct guard *g);

#endif
