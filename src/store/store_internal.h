/* SPDX-License-Identifier: Apache-2.0 */
/* Insides shared by the files of src/store: the open store, container numbers, listings that safety depends on. */
#ifndef VARVE_STORE_INTERNAL_H
#define VARVE_STORE_INTERNAL_H

#include "base/backend.h"
#include "store/snaps_internal.h"
#include "store/store.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLAIM_NUMBERS = 65536, CLAIM_MAX = 0xfffffe };

enum { CONDEMNED_MAX = 64 };

struct store {
    char *path;                 /* canonical */
    struct backend *b;
    struct store_conf conf;

    pthread_mutex_t claim_lock; /* guards all up to ncondemned; never held across I/O */
    uint32_t claim;             /* claim directory of this mount; 0: none yet */
    uint32_t claim_next;        /* next number in it */
    uint64_t condemned[CONDEMNED_MAX];  /* containers whose fsync failed: nobody goes on in them, whatever they look like */
    unsigned ncondemned;        /* more than CONDEMNED_MAX: nobody goes on in any */

    struct snaps_state snaps;
};

extern const char *const store_dir_names[STORE_DIRS];

enum { DISK_PATH_MAX = 16 + VID_HEX };
/* snapshots/DISK or anchors/DISK. */
void store_disk_path(enum store_dir dir, const struct vid *disk, char out[DISK_PATH_MAX]);

/* Error of a call on STORE/DIR/NAME (name may be NULL): text and -code. r is -errno. */
int store_fail(const struct store *st, enum store_dir dir, const char *name, int r, const char *doing, struct verr *err);
#ifdef __clang_analyzer__
#define store_fail(...) verr_negative((store_fail)(__VA_ARGS__))
#endif

/* Makes the next container file of this mount: new, empty, its writer's alone. Claims a directory first when needed (durable). */
int container_make(struct store *st, uint64_t *number, struct bfile **out, struct verr *err);

/* An fsync of the container failed: final while this mount lasts. Afterwards its end tells whether it can be gone on in. */
void container_condemn(struct store *st, uint64_t number);
bool container_condemned(struct store *st, uint64_t number);

/* ---- generations and owners (publish.h), also for init and tests ---- */

enum { GENERATION_NAME = 17 };
void generation_name(uint64_t generation, char out[GENERATION_NAME]);
/* Newest generation; -EBADMSG when there is none. */
int generation_newest(struct store *st, uint64_t *out, struct verr *err);
/* Publishes dir/deletions of a generation: refs ascending, without doubles. Durable on return. -EEXIST. */
int deletion_log_write(struct backend *b, const char *dir, const struct vid *store, uint64_t generation, const uint64_t *refs, uint64_t n);

/* Highest owner epoch of a VM; *epoch = 0 when it has none. */
int owner_highest(struct store *st, const struct vid *vm, uint64_t *epoch, struct verr *err);
/* Publishes owners/VM.EPOCH for host. -EEXIST: somebody has that epoch. Durable on return. */
int owner_publish(struct store *st, const struct vid *vm, uint64_t epoch, const struct vid *host);

#endif
