/* SPDX-License-Identifier: Apache-2.0 */
/* ingest_internal: functions of ingest.c that stream.c calls. Included inside src/ingest only. */
#ifndef VARVE_INGEST_INGEST_INTERNAL_H
#define VARVE_INGEST_INGEST_INTERNAL_H

#include "ingest/ingest.h"

/* A place for one stream. pinned: its parent's anchor must not be dropped. Guarded by the lock of `ingest`. */
struct ingest_place {
    bool taken, pinned;
    const struct live *live;
    struct snapref parent;
};

const struct ingest_env *ingest_env(const struct ingest *in);
/* Takes a free place. NULL: all are taken. */
struct ingest_place *ingest_place_take(struct ingest *in, const struct live *l, const struct snapref *parent);
/* Gives the place back, and ends its pin. NULL is allowed. */
void ingest_place_give(struct ingest *in, struct ingest_place *p);
/* Pins the anchor of the stream's parent until the place is given back. false: the anchor is being dropped. */
bool ingest_pin(struct ingest *in, struct ingest_place *p);

#endif
