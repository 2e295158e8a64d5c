/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_map: durable presence. Slots are copied out of vol first, then the data are fdatasynced, and only then the copy
 * goes into map: a page that map calls present has its data on the disk.
 */
#include "live/live_level.h"

#include "base/fault.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK_BYTES = BLOCK_SEGS * LIVE_SLOT_BYTES };

static off_t block_off(uint64_t block)
{
    return (off_t)(LIVE_HEADER_BYTES + block * BLOCK_BYTES);
}

uint64_t llayer_changed(struct llayer *ly)
{
    pthread_mutex_lock(&ly->lock);
    uint64_t n = ly->changed_blocks;
    pthread_mutex_unlock(&ly->lock);
    return n;
}

/* Takes up to max marks off the bitmap. */
static size_t take_marks(struct llayer *ly, uint64_t *index, size_t max)
{
    size_t n = 0;
    pthread_mutex_lock(&ly->lock);
    for (size_t w = 0; w < ly->words && n < max; w++) {
        while (ly->blocks[w] != 0 && n < max) {
            unsigned b = (unsigned)__builtin_ctzll(ly->blocks[w]);
            ly->blocks[w] &= ly->blocks[w] - 1;
            index[n++] = w * 64 + b;
        }
    }
    ly->changed_blocks -= n;
    pthread_mutex_unlock(&ly->lock);
    return n;
}

int llayer_capture(struct live *l, struct llayer *ly, size_t max, struct lcapture *out, struct verr *err)
{
    uint64_t waiting = llayer_changed(ly);
    struct lcapture c = {NULL, NULL, 0};
    if (waiting < max)
        max = (size_t)waiting;
    if (max > 0) {
        c.index = malloc(max * sizeof *c.index);
        c.data = malloc(max * BLOCK_BYTES);
        if (c.index == NULL || c.data == NULL) {
            llayer_capture_free(&c);
            return live_fail(l, err, ENOMEM, "layer-%" PRIu64 ": no memory", ly->no);
        }
        c.n = take_marks(ly, c.index, max);
    }
    for (size_t i = 0; i < c.n; i++) {
        uint8_t *block = c.data + i * BLOCK_BYTES;
        ssize_t got = lfile_read(&ly->vol, block, BLOCK_BYTES, block_off(c.index[i]));
        if (got < 0) {
            llayer_capture_undo(ly, &c);
            llayer_capture_free(&c);
            return live_fail(l, err, (int)-got, "layer-%" PRIu64 ".vol: %s", ly->no, strerror((int)-got));
        }
        memset(block + got, 0, BLOCK_BYTES - (size_t)got);
    }
    *out = c;
    return 0;
}

int llayer_map_put(struct live *l, struct llayer *ly, const struct lcapture *c, struct verr *err)
{
    atomic_store(&ly->map_unsynced, c->n > 0 || atomic_load(&ly->map_unsynced));
    for (size_t i = 0; i < c->n; i++) {
        int r = fault_errno("live.map.put") ? -EIO : lfile_write(&ly->map, c->data + i * BLOCK_BYTES, BLOCK_BYTES, block_off(c->index[i]));
        if (r < 0)
            return live_fail(l, err, -r, "layer-%" PRIu64 ".map: %s", ly->no, strerror(-r));
    }
    return 0;
}

void llayer_capture_undo(struct llayer *ly, const struct lcapture *c)
{
    pthread_mutex_lock(&ly->lock);
    for (size_t i = 0; i < c->n; i++) {
        uint64_t mask = UINT64_C(1) << (c->index[i] % 64);      /* its word exists: the mark was there before */
        if ((ly->blocks[c->index[i] / 64] & mask) == 0) {
            ly->blocks[c->index[i] / 64] |= mask;
            ly->changed_blocks++;
        }
    }
    pthread_mutex_unlock(&ly->lock);
}

void llayer_capture_free(struct lcapture *c)
{
    free(c->index);
    free(c->data);
    *c = (struct lcapture){NULL, NULL, 0};
}

int llayer_data_sync(struct live *l, struct llayer *ly, struct verr *err)
{
    (void)l;
    if (!atomic_exchange(&ly->unsynced, false))
        return 0;
    int r = lfile_sync(&ly->data, err);
    if (r < 0)
        atomic_store(&ly->unsynced, true);
    return r;
}

int llayer_map_sync(struct live *l, struct llayer *ly, struct verr *err)
{
    struct stat st;
    if (!atomic_load(&ly->map_unsynced))
        return 0;
    int r = lfile_stat(&ly->map, &st);
    if (r < 0)
        return live_fail(l, err, -r, "layer-%" PRIu64 ".map: %s", ly->no, strerror(-r));
    atomic_store(&ly->map_unsynced, false);
    r = lfile_sync(&ly->map, err);
    if (r < 0) {
        atomic_store(&ly->map_unsynced, true);
        return r;
    }
    pthread_mutex_lock(&l->head_lock);
    ly->map_bytes = (uint64_t)st.st_size;
    ly->fresh = false;
    pthread_mutex_unlock(&l->head_lock);
    return 0;
}

int llayer_seal(struct live *l, struct llayer *ly, struct verr *err)
{
    int r = llayer_data_sync(l, ly, err);
    fault_point("live.seal.after_data");
    while (r == 0 && llayer_changed(ly) > 0) {
        struct lcapture c;
        r = llayer_capture(l, ly, CAPTURE_BLOCKS, &c, err);
        if (r < 0)
            break;
        r = llayer_map_put(l, ly, &c, err);
        if (r < 0)
            llayer_capture_undo(ly, &c);
        llayer_capture_free(&c);
    }
    if (r == 0)
        r = llayer_map_sync(l, ly, err);
    fault_point("live.seal.after_map");
    return r;
}
