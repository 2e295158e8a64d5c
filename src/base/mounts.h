/* SPDX-License-Identifier: Apache-2.0 */
/* mounts: what a process sees mounted, as /proc/PID/mountinfo says. Asks no filesystem: a dead one would not answer. */
#ifndef VARVE_BASE_MOUNTS_H
#define VARVE_BASE_MOUNTS_H

/* Texts belong to the call. Paths are bytes. */
struct mount_line {
    unsigned long id;           /* of the mount */
    unsigned major, minor;      /* of the device */
    const char *point, *type, *source;
};

/* Calls fn for each mount that process pid sees (0: this process), the ones on top of others behind them, until it returns something else
 * than 0. That, 0, or -errno. */
int mounts_each(int pid, int (*fn)(void *ctx, const struct mount_line *m), void *ctx);

#endif
