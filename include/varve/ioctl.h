/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ioctls on files of a varve mount. The kernel has checked permission when it opened the file. A snapshot keeps the owner that its
 * disk had at the freeze; for a caller that may not read it, it does not exist.
 *
 *   VARVE_IOC_SNAPSHOT   on a live disk (open for writing, or better with access mode 3, which has the right to write but is no
 *                        writer and so makes nobody else's open EBUSY) or a directory: freeze now, answer when sealed (power-loss safe).
 *                        On a directory: all changed disks in it, one instant.
 *   VARVE_IOC_REVERT     on a live disk (open for writing): the disk becomes the snapshot named in the argument.
 *   VARVE_IOC_WAIT       on any file or directory: answer when all snapshots that are pending there now are stored. A program that
 *                        repeats the call sets VARVE_WAIT_BEGINS in the first one only: it starts failed attempts again at once.
 *   VARVE_IOC_INFO       on anything: which store; for root also pid and state directory.
 *   VARVE_IOC_LOG        on a disk or snapshot: history as JSON, in pieces (offset in, text out). Only root learns what was found
 *                        elsewhere in the store (levels, bytes added).
 *   VARVE_IOC_LIST       on a directory or disk: every disk there, as JSON, in pieces like VARVE_IOC_LOG; those that the caller may not
 *                        read are left out.
 *   VARVE_IOC_COPY       on a live disk that a program rewrites as a whole through this handle. VARVE_COPY_WHOLE: the image is complete, so
 *                        that a snapshot taken from now on, also before the close, is good. VARVE_COPY_BROKEN: it will not be
 *                        completed, so that the snapshot which the close makes is partial.
 * All others: ENOTTY. All structs have fixed size and no pointers; text is NUL-terminated.
 */
#ifndef VARVE_IOCTL_H
#define VARVE_IOCTL_H

#include <linux/ioctl.h>
#include <stdint.h>

#define VARVE_IOC_MAGIC 0xB7
#define VARVE_ERROR_TEXT 600

struct varve_ioc_snapshot {
    uint32_t flags;                 /* in: 0 */
    uint32_t count;                 /* out: snapshots made */
    char label[72];                 /* in: "" for none */
    char note[1032];                /* in */
    char name[264];                 /* out: name of the (first) snapshot */
    int32_t error;                  /* out: 0 or a positive errno; then text says more */
    char text[VARVE_ERROR_TEXT];
};
struct varve_ioc_revert {
    char snapshot_id[40];           /* in: user.varve.id of the snapshot */
    int32_t error;
    char text[VARVE_ERROR_TEXT];
};
enum { VARVE_WAIT_BEGINS = 1 };
struct varve_ioc_wait {
    int64_t timeout_ms;             /* in: < 0 none */
    uint32_t pending;               /* in: 0 or VARVE_WAIT_BEGINS; out: number of snapshots waited for */
    int32_t error;                  /* out: EIO: an attempt failed; ETIMEDOUT */
    char text[VARVE_ERROR_TEXT];
};
struct varve_ioc_info {
    char store[1024], state[1024], host[256], store_id[40];
    int32_t pid, version;
};
enum { VARVE_COPY_WHOLE = 1, VARVE_COPY_BROKEN = 2 };
struct varve_ioc_copy {
    uint32_t what;                  /* in */
    int32_t error;
    char text[VARVE_ERROR_TEXT];
};
struct varve_ioc_log {
    uint64_t offset;                /* in */
    uint64_t total;                 /* out: length of the whole text */
    uint32_t len;                   /* out */
    char text[8192];
};

#define VARVE_IOC_SNAPSHOT _IOWR(VARVE_IOC_MAGIC, 1, struct varve_ioc_snapshot)
#define VARVE_IOC_REVERT _IOWR(VARVE_IOC_MAGIC, 2, struct varve_ioc_revert)
#define VARVE_IOC_WAIT _IOWR(VARVE_IOC_MAGIC, 3, struct varve_ioc_wait)
#define VARVE_IOC_INFO _IOR(VARVE_IOC_MAGIC, 4, struct varve_ioc_info)
#define VARVE_IOC_LOG _IOWR(VARVE_IOC_MAGIC, 5, struct varve_ioc_log)
#define VARVE_IOC_LIST _IOWR(VARVE_IOC_MAGIC, 6, struct varve_ioc_log)
#define VARVE_IOC_COPY _IOWR(VARVE_IOC_MAGIC, 7, struct varve_ioc_copy)

#endif
