/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_presence: layers and the two files that say which of their pages count.
 *
 *   layer-N      data; segment s at s * 2 MiB; what stands at a page that is not present means nothing
 *   layer-N.vol  slots as they are now: survive kill -9
 *   layer-N.map  slots whose data are known durable: what counts after a power loss
 */
#include "live/live_level.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static off_t slot_off(uint64_t seg)
{
    return (off_t)(LIVE_HEADER_BYTES + seg * LIVE_SLOT_BYTES);
}

static const char *stem_of(const struct llayer *ly)
{
    return atomic_load(&ly->is_cache) ? "cache" : "layer";
}

static int layer_new(struct live *l, uint64_t no, struct llayer **out)
{
    struct llayer *ly = calloc(1, sizeof *ly);
    if (ly == NULL)
        return -ENOMEM;
    if (pthread_mutex_init(&ly->lock, NULL) != 0) {
        free(ly);
        return -ENOMEM;
    }
    ly->l = l;
    ly->no = no;
    ly->memo = lmemo_owner();
    lfile_init(&ly->data, l, "layer", no, "");
    lfile_init(&ly->map, l, "layer", no, ".map");
    lfile_init(&ly->vol, l, "layer", no, ".vol");
    ly->vol.is_volatile = true;
    atomic_store(&ly->refs, 1);
    *out = ly;
    return 0;
}

static int open_file(struct live *l, struct lfile *f, int flags, struct verr *err)
{
    int r = lfile_open(f, flags);
    if (r == 0)
        return 0;
    return live_fail(l, err, r == -ENOENT ? EBADMSG : -r, "%s-%" PRIu64 "%s: %s", f->stem, f->no, f->suffix,
                     r == -ENOENT ? LIVE_MISSING : strerror(-r));
}

static int put_header(struct live *l, enum live_file kind, struct lfile *f, struct verr *err)
{
    uint8_t head[LIVE_STATE_OFF];
    live_header_encode(kind, &l->id, f->no, head);
    int r = lfile_write(f, head, sizeof head, 0);
    /* The header fills its page, so that slots begin at LIVE_HEADER_BYTES in a file of at least that length. */
    if (r == 0 && kind == LIVE_MAP)
        r = lfile_truncate(f, LIVE_HEADER_BYTES);
    return r < 0 ? live_fail(l, err, -r, "layer-%" PRIu64 "%s: %s", f->no, f->suffix, strerror(-r)) : 0;
}

int llayer_vol_header(struct live *l, struct llayer *ly, struct verr *err)
{
    return put_header(l, LIVE_VOL, &ly->vol, err);
}

int llayer_create(struct live *l, uint64_t no, const struct live_state *st, struct llayer **out, struct verr *err)
{
    struct llayer *ly = NULL;
    int r = layer_new(l, no, &ly);
    if (r < 0)
        return live_fail(l, err, -r, "layer-%" PRIu64 ": no memory", no);
    const int flags = O_CREAT | O_EXCL;
    r = open_file(l, &ly->data, flags, err);
    if (r == 0)
        r = open_file(l, &ly->map, flags, err);
    if (r == 0)
        r = open_file(l, &ly->vol, flags, err);
    if (r == 0 && fault_errno("live.layer.create"))
        r = live_fail(l, err, EIO, "layer-%" PRIu64 ": fault", no);
    if (r == 0)
        r = put_header(l, LIVE_MAP, &ly->map, err);
    if (r == 0)
        r = live_state_put(l, ly, st, err);
    if (r == 0)
        r = llayer_vol_header(l, ly, err);
    if (r < 0) {
        llayer_discard(l, ly);
        return r;
    }
    ly->fresh = true;
    ly->map_unsynced = true;
    atomic_fetch_add(&l->dir_gen, 1);
    *out = ly;
    return 0;
}

static int check_header(struct live *l, enum live_file kind, struct lfile *f, struct verr *err)
{
    uint8_t head[LIVE_HEADER_BYTES] = {0};     /* a vol file may be shorter */
    ssize_t got = lfile_read(f, head, sizeof head, 0);
    if (got < 0)
        return live_fail(l, err, (int)-got, "layer-%" PRIu64 "%s: %s", f->no, f->suffix, strerror((int)-got));
    int r = live_header_page_decode(kind, &l->id, f->no, head);
    if (r == -ENODATA && kind == LIVE_VOL)
        return r;
    if (r == -ENOTSUP)
        return live_fail(l, err, ENOTSUP, "layer-%" PRIu64 "%s: has a newer format", f->no, f->suffix);
    return r < 0 ? live_fail(l, err, EBADMSG, "layer-%" PRIu64 "%s: header is damaged or of another disk", f->no, f->suffix) : 0;
}

int llayer_vol_valid(struct live *l, uint64_t no, struct verr *err)
{
    struct lfile f;
    lfile_init(&f, l, "layer", no, ".vol");
    int r = lfile_open(&f, 0);
    if (r < 0)
        return r == -ENOENT ? 0 : live_fail(l, err, -r, "layer-%" PRIu64 ".vol: %s", no, strerror(-r));
    r = check_header(l, LIVE_VOL, &f, err);
    lfile_end(&f);
    return r == 0 ? 1 : r == -ENODATA ? 0 : r;
}

/* Copies map to vol and checks each slot: damage is found now and not when a page is read. */
static int rebuild_vol(struct live *l, struct llayer *ly, struct verr *err)
{
    uint8_t block[BLOCK_SEGS * LIVE_SLOT_BYTES];
    for (off_t at = LIVE_HEADER_BYTES;; at += (off_t)sizeof block) {
        off_t data = lfile_seek(&ly->map, at, SEEK_DATA);
        if (data == -ENXIO)
            return 0;
        if (data > at)
            at = data / (off_t)sizeof block * (off_t)sizeof block;
        ssize_t got = lfile_read(&ly->map, block, sizeof block, at);
        if (got < 0)
            return live_fail(l, err, (int)-got, "layer-%" PRIu64 ".map: %s", ly->no, strerror((int)-got));
        if (got == 0)
            return 0;
        memset(block + got, 0, sizeof block - (size_t)got);
        uint64_t first = (uint64_t)(at - LIVE_HEADER_BYTES) / LIVE_SLOT_BYTES;
        for (unsigned i = 0; i < BLOCK_SEGS; i++) {
            struct live_slot s;
            if (live_slot_decode(&l->id, first + i, block + i * LIVE_SLOT_BYTES, &s) < 0)
                return live_fail(l, err, EBADMSG, "layer-%" PRIu64 ".map: the slot of segment %" PRIu64 " is damaged", ly->no, first + i);
        }
        int r = lfile_write(&ly->vol, block, sizeof block, at);
        if (r < 0)
            return live_fail(l, err, -r, "layer-%" PRIu64 ".vol: %s", ly->no, strerror(-r));
    }
}

static int64_t allocated(struct lfile *f)
{
    struct stat st;
    return lfile_stat(f, &st) < 0 ? 0 : (int64_t)st.st_blocks * 512;
}

static int check_map_length(struct live *l, struct llayer *ly, struct verr *err)
{
    struct stat st;
    int r = lfile_stat(&ly->map, &st);
    if (r < 0)
        return live_fail(l, err, -r, "layer-%" PRIu64 ".map: %s", ly->no, strerror(-r));
    if ((uint64_t)st.st_size < ly->map_bytes)
        return live_fail(l, err, EBADMSG, "layer-%" PRIu64 ".map: is %jd bytes long, %" PRIu64 " were written", ly->no,
                         (intmax_t)st.st_size, ly->map_bytes);
    return 0;
}

int llayer_map_look(struct live *l, uint64_t no, uint64_t min_map_bytes, struct verr *err)
{
    struct llayer *ly = NULL;
    int r = layer_new(l, no, &ly);
    if (r < 0)
        return live_fail(l, err, -r, "layer-%" PRIu64 ": no memory", no);
    ly->map_bytes = min_map_bytes;
    r = open_file(l, &ly->map, 0, err);
    if (r == 0)
        r = check_header(l, LIVE_MAP, &ly->map, err);
    if (r == 0)
        r = check_map_length(l, ly, err);
    llayer_unref(ly);
    return r;
}

static int open_files(struct live *l, struct llayer *ly, enum layer_open how, struct verr *err)
{
    bool cache = how == LAYER_CACHE, rebuild = how == LAYER_REBUILD || how == LAYER_REBUILD_HEADLESS;
    /* A layer without durable presence may be missing after a power loss: its directory entry never was made durable. */
    int r = open_file(l, &ly->data, rebuild ? O_CREAT : 0, err);
    if (r == 0 && !cache)
        r = open_file(l, &ly->map, 0, err);
    if (r == 0 && !cache)
        r = check_header(l, LIVE_MAP, &ly->map, err);
    if (r == 0 && !cache)
        r = check_map_length(l, ly, err);
    if (r == 0)
        r = open_file(l, &ly->vol, rebuild ? O_CREAT | O_TRUNC : 0, err);
    if (r == 0 && !rebuild)
        r = check_header(l, LIVE_VOL, &ly->vol, err);
    if (r == 0 && rebuild)
        r = rebuild_vol(l, ly, err);
    if (r == 0 && how == LAYER_REBUILD)
        r = llayer_vol_header(l, ly, err);
    return r;
}

int llayer_open(struct live *l, uint64_t no, enum layer_open how, uint64_t min_map_bytes, struct llayer **out, struct verr *err)
{
    struct llayer *ly = NULL;
    int r = layer_new(l, no, &ly);
    if (r < 0)
        return live_fail(l, err, -r, "layer-%" PRIu64 ": no memory", no);
    ly->map_bytes = min_map_bytes;
    if (how == LAYER_CACHE) {
        lfile_to_cache(&ly->data);
        lfile_to_cache(&ly->vol);
    }
    r = open_files(l, ly, how, err);
    if (r < 0) {
        llayer_unref(ly);
        return r;
    }
    ly->unsynced = true;    /* an earlier run's writes may not be durable */
    ly->map_unsynced = how != LAYER_CACHE;
    ly->is_cache = how == LAYER_CACHE;
    /* live_set_open counted these bytes. */
    ly->charged = allocated(&ly->data);
    *out = ly;
    return 0;
}

struct llayer *llayer_ref(struct llayer *ly)
{
    atomic_fetch_add(&ly->refs, 1);
    return ly;
}

void llayer_unref(struct llayer *ly)
{
    if (ly == NULL || atomic_fetch_sub(&ly->refs, 1) != 1)
        return;
    lfile_end(&ly->data);
    lfile_end(&ly->map);
    lfile_end(&ly->vol);
    pthread_mutex_destroy(&ly->lock);
    free(ly->blocks);
    free(ly);
}

void llayer_discard(struct live *l, struct llayer *ly)
{
    static const char *const suffixes[] = {"", ".map", ".vol"};
    if (ly == NULL)
        return;
    const struct lfile *const files[] = {&ly->data, &ly->map, &ly->vol};
    for (unsigned i = 0; i < 3; i++) {
        char name[NAME_BYTES];
        live_name(name, "layer", ly->no, suffixes[i]);
        /* Only files that this object made; none after a failed fsync: a journal that names them may have reached the disk. */
        if (lfile_known(files[i]) && atomic_load(&l->failed) == 0)
            live_unlink(l, name);
    }
    llayer_charge(ly, -atomic_load(&ly->charged));
    llayer_unref(ly);
}

/* ---- slots ---- */

int lslot_get(struct live *l, struct llayer *ly, uint64_t seg, struct live_slot *out, struct verr *err)
{
    uint8_t raw[LIVE_SLOT_BYTES];
    uint64_t count;
    if (lmemo_get(l->set->memo, ly->memo, seg, out, sizeof *out, &count))
        return 0;
    ssize_t got = lfile_read(&ly->vol, raw, sizeof raw, slot_off(seg));
    if (got < 0)
        return live_fail(l, err, (int)-got, "%s-%" PRIu64 ".vol: %s", stem_of(ly), ly->no, strerror((int)-got));
    memset(raw + got, 0, sizeof raw - (size_t)got);
    if (live_slot_decode(&l->id, seg, raw, out) < 0)
        return live_fail(l, err, EBADMSG, "%s-%" PRIu64 ".vol: the slot of segment %" PRIu64 " is damaged", stem_of(ly), ly->no, seg);
    lmemo_fill(l->set->memo, ly->memo, seg, out, sizeof *out, count);
    return 0;
}

static int mark_block(struct llayer *ly, uint64_t block)
{
    size_t word = block / 64;
    uint64_t mask = UINT64_C(1) << (block % 64);
    int r = 0;
    pthread_mutex_lock(&ly->lock);
    if (word >= ly->words) {
        size_t words = ly->words * 2 > word + 1 ? ly->words * 2 : word + 8;
        uint64_t *grown = realloc(ly->blocks, words * sizeof *grown);
        if (grown == NULL) {
            r = -ENOMEM;
        } else {
            memset(grown + ly->words, 0, (words - ly->words) * sizeof *grown);
            ly->blocks = grown;
            ly->words = words;
        }
    }
    if (r == 0 && (ly->blocks[word] & mask) == 0) {
        ly->blocks[word] |= mask;
        ly->changed_blocks++;
    }
    pthread_mutex_unlock(&ly->lock);
    return r;
}

int lslot_put(struct live *l, struct llayer *ly, uint64_t seg, const struct live_slot *s, struct verr *err)
{
    uint8_t raw[LIVE_SLOT_BYTES];
    int r = live_unclean(l, err);
    if (r < 0)
        return r;
    live_slot_encode(&l->id, seg, s, raw);
    /* The mark comes first: a mark too many costs a copy, a missing one would lose data at a power loss after fsync. */
    r = atomic_load(&ly->is_cache) ? 0 : mark_block(ly, seg / BLOCK_SEGS);
    struct live_slot back;          /* as a read would have it */
    lmemo_write(l->set->memo, ly->memo, seg, NULL, 0);
    if (r == 0)
        r = fault_errno("live.slot.put") ? -EIO : lfile_write(&ly->vol, raw, sizeof raw, slot_off(seg));
    bool good = r == 0 && live_slot_decode(&l->id, seg, raw, &back) == 0;
    lmemo_write(l->set->memo, ly->memo, seg, good ? &back : NULL, sizeof back);
    return r < 0 ? live_fail(l, err, -r, "%s-%" PRIu64 ".vol: %s", stem_of(ly), ly->no, strerror(-r)) : 0;
}

uint64_t llayer_next(struct llayer *ly, uint64_t seg)
{
    off_t at = lfile_seek(&ly->vol, slot_off(seg), SEEK_DATA);
    if (at < 0)
        return at == -ENXIO ? UINT64_MAX : seg;
    uint64_t found = ((uint64_t)at - LIVE_HEADER_BYTES) / LIVE_SLOT_BYTES;
    return found > seg ? found : seg;
}

int llayer_mark_all(struct llayer *ly)
{
    for (uint64_t seg = llayer_next(ly, 0); seg != UINT64_MAX; seg = llayer_next(ly, (seg / BLOCK_SEGS + 1) * BLOCK_SEGS)) {
        struct stat st;
        int r = lfile_stat(&ly->vol, &st);
        if (r < 0 || slot_off(seg) >= st.st_size)
            return r;
        r = mark_block(ly, seg / BLOCK_SEGS);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- data ---- */

int llayer_read(struct live *l, struct llayer *ly, uint64_t off, void *buf, size_t len, struct verr *err)
{
    ssize_t got = lfile_read(&ly->data, buf, len, (off_t)off);
    if (got < 0)
        return live_fail(l, err, (int)-got, "%s-%" PRIu64 ": %s", stem_of(ly), ly->no, strerror((int)-got));
    if ((size_t)got != len)
        return live_fail(l, err, EBADMSG, "%s-%" PRIu64 ": ends before data that were written at %" PRIu64, stem_of(ly), ly->no, off);
    return 0;
}

int llayer_write(struct live *l, struct llayer *ly, uint64_t off, const void *buf, size_t len, struct verr *err)
{
    int r = lfile_write(&ly->data, buf, len, (off_t)off);
    atomic_store(&ly->unsynced, true);
    return r < 0 ? live_fail(l, err, -r, "%s-%" PRIu64 ": %s", stem_of(ly), ly->no, strerror(-r)) : 0;
}

void llayer_punch(struct llayer *ly, uint64_t off, uint64_t len)
{
    lfile_punch(&ly->data, (off_t)off, (off_t)len);      /* where it fails the pages stay allocated and unread */
    atomic_store(&ly->unsynced, true);
}

/* ---- a data file that two disks link ---- */

static int copy_file(int from, int to)
{
    enum { STEP = 1 << 20 };
    uint8_t *buf = malloc(STEP);
    struct stat st;
    int r = buf == NULL ? -ENOMEM : fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0 ? -errno : 0;
    for (off_t at = 0; r == 0 && (at = lseek(from, at, SEEK_DATA)) >= 0;) {
        off_t hole = lseek(from, at, SEEK_HOLE);
        while (r == 0 && at < hole) {
            ssize_t n = pread_full(from, buf, hole - at < STEP ? (size_t)(hole - at) : STEP, at);
            r = n < 0 ? (int)n : n == 0 ? -EIO : pwrite_full(to, buf, (size_t)n, at);
            at += n > 0 ? n : 0;
        }
    }
    free(buf);
    if (r == 0 && fdatasync(to) < 0)
        r = -errno;
    return r;
}

/* Copy -> fdatasync -> rename -> directory fsync: whole or not at all; ".tmp-" files are removed by recovery. */
int live_unshare(struct live *l, uint64_t no, struct verr *err)
{
    static const char temp[] = ".tmp-unshare";
    char name[NAME_BYTES];
    struct stat st;
    live_name(name, "layer", no, "");
    if (live_stat_file(l, name, &st) < 0 || st.st_nlink < 2)
        return 0;               /* a missing file is reported where it is opened */
    int from = live_open_file(l, name, O_RDONLY);
    int to = live_open_file(l, temp, O_WRONLY | O_CREAT | O_TRUNC);
    int r = from < 0 ? from : to < 0 ? to : copy_file(from, to);
    if (r == 0)
        r = live_rename(l, temp, name);
    if (r == 0)
        r = live_sync_dir(l);
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    return r < 0 ? live_fail(l, err, -r, "%s: is shared with another disk and cannot be copied: %s", name, strerror(-r)) : 0;
}
