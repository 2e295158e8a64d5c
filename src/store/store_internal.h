/* SPDX-License-Identifier: Apache-2.0 */
/* store_internal: what the files of src/store share: the open store, container numbers, errors, generations and owners. */
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

enum { CONDEMNED_MAX = 64, OWN_MAX = 2048 };

/* A container of this mount as its last seal left it. */
struct own_tail { uint64_t number, end; struct vid version; };

struct store {
    char *path;                 /* canonical */
    struct backend *b;
    struct store_conf conf;

    pthread_mutex_t claim_lock; /* guards the members from claim to ncondemned; never held across I/O */
    uint32_t claim;             /* claim directory of this mount; 0: none yet */
    uint32_t claim_next;        /* next number in it */
    struct own_tail own[OWN_MAX];   /* containers in which a writer of this mount may go on, the one sealed last in front */
    unsigned nown;
    uint64_t condemned[CONDEMNED_MAX];  /* containers whose fsync failed: no writer goes on in them, even if they look intact */
    unsigned ncondemned;        /* more than CONDEMNED_MAX: no writer goes on in any container */

    struct store_memory memory; /* set before there are writers */
    struct snaps_state snaps;
};

extern const char *const store_dir_names[STORE_DIRS];

/* Are there names beside the root? An interrupted init leaves the root at most, so what has them is a store, also without store.conf. */
bool store_has_names(struct backend *b);
/* Opens STORE as store_open does, but takes conf, unless it is NULL, for what store.conf says; then no store.conf need be there. */
int store_open_as(const char *path, const struct store_conf *conf, struct store **out, struct verr *err);

enum { DISK_PATH_MAX = 16 + VID_HEX };
/* snapshots/DISK or anchors/DISK. */
void store_disk_path(enum store_dir dir, const struct vid *disk, char out[DISK_PATH_MAX]);

/* Sets err to the error r (-errno) of a call on STORE/DIR/NAME (name may be NULL), and returns r. */
int store_fail(const struct store *st, enum store_dir dir, const char *name, int r, const char *doing, struct verr *err);
#ifdef __clang_analyzer__
#define store_fail(...) verr_negative((store_fail)(__VA_ARGS__))
#endif

/* Makes the next container file of this mount: new, empty, and only for its writer. Claims a directory first when needed (durable). */
int container_make(struct store *st, uint64_t *number, struct bfile **out, struct verr *err);

/* Marks a container whose fsync failed: no writer of this mount goes on in it. After a new mount, the end of the file decides. */
void container_condemn(struct store *st, uint64_t number);
bool container_condemned(struct store *st, uint64_t number);

/* A writer goes on only in a container that this mount made, and only where its own last seal ended. The file of an earlier mount may
 * have come back from an older copy of STORE: it is shorter then, and its next ordinals were issued before. */
void container_sealed(struct store *st, uint64_t number, const struct vid *version, uint64_t end);
bool container_ends(struct store *st, uint64_t number, const struct vid *version, uint64_t end);

/* ---- generations and owners (publish.h), also for init and tests ---- */

enum { GENERATION_NAME = 17 };
void generation_name(uint64_t generation, char out[GENERATION_NAME]);
/* Newest generation; -EBADMSG when there is none. */
int generation_newest(struct store *st, uint64_t *out, struct verr *err);
/* Publishes dir/deletions of a generation: refs ascending, without doubles. Durable on return. -EEXIST. */
int deletion_log_write(struct backend *b, const char *dir, const struct vid *store, uint64_t generation, const uint64_t *refs, uint64_t n);

/* Finds the highest owner epoch of a VM; *epoch = 0: it has none. */
int owner_highest(struct store *st, const struct vid *vm, uint64_t *epoch, struct verr *err);
/* Publishes owners/VM.EPOCH for host, durable on return. -EEXIST: that epoch has an owner already. */
int owner_publish(struct store *st, const struct vid *vm, uint64_t epoch, const struct vid *host);

#endif
