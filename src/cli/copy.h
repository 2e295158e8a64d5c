/* SPDX-License-Identifier: Apache-2.0 */
/* copy: whole images into disks of a mount, several at a time, with their holes. */
#ifndef VARVE_CLI_COPY_H
#define VARVE_CLI_COPY_H

#include "base/verr.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum copy_result { COPY_TODO, COPY_WHOLE, COPY_UNREADABLE, COPY_FAILED, COPY_STOPPED };

struct copy {
    const char *source;         /* a file or block device; borrowed */
    char *dest;                 /* path of the disk; owned by the caller */
    enum copy_result result;
    struct verr err;            /* if the result is neither COPY_TODO nor COPY_WHOLE */
    uint64_t size;              /* bytes of the source */
    int fd;                     /* of a whole copy: the disk, still open for writing, so that it has no snapshot of the copy yet. Else -1 */
};

/* Copies all that can be copied. Between two pieces it looks at *stop, which a signal handler sets. A disk is emptied when its own copy
 * begins; one that stays incomplete is closed so that its snapshot is partial. Progress goes to stderr. */
void copy_all(struct copy *copies, unsigned n, const atomic_int *stop);

#endif
