/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_create: the files of new disks. All are made under a temporary name and made durable before the directory is renamed: under
 * its final name, or that of an image made ahead, it always has a journal, and what the journal names.
 */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void temp_name(const char *hex, char out[LIVE_DIR_BYTES])
{
    snprintf(out, LIVE_DIR_BYTES, ".tmp-%s", hex);
}

/* An object without the locks that only a disk in use needs. */
static struct live *newborn(struct live_set *set, const struct vid *disk)
{
    struct live *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    l->set = set;
    l->id = *disk;
    vid_hex(disk, l->hex);
    temp_name(l->hex, l->dir);
    l->next_rec = 1;
    l->next_no = 3;
    pthread_mutex_init(&l->head_lock, NULL);
    return l;
}

static void close_newborn(struct live *l)
{
    if (l == NULL)
        return;
    lfile_end(&l->journal);
    ltable_unref(l->cur.table);
    llayer_unref(l->cur.layer);
    live_head_release(&l->head);
    pthread_mutex_destroy(&l->head_lock);
    free(l);
}

/* Nothing is durable yet. The vol file says clean, because all will be when the image gets its name. */
static int write_files(struct live *l, uint64_t min_seq, int64_t last_name_s, struct verr *err)
{
    int r = tree_remove(l->set->disksfd, l->dir);
    if (r == 0 && mkdirat(l->set->disksfd, l->dir, 0700) < 0)
        r = -errno;
    if (r < 0)
        return live_fail(l, err, -r, "cannot be made: %s", strerror(-r));
    struct live_head h = {.mtime_ns = (int64_t)live_now(l), .last_name_s = last_name_s, .next_seq = min_seq > 0 ? min_seq : 1, .next_no = 3,
                          .table = 1, .table_bytes = LIVE_HEADER_BYTES, .layer = 2, .map_bytes = LIVE_STATE_OFF, .marks = LIVE_UNNAMED};
    const struct live_state st = {.mtime_ns = h.mtime_ns, .clean = true};
    r = ltable_create(l, h.table, &l->cur.table, err);
    if (r == 0)
        r = llayer_create(l, h.layer, &st, &l->cur.layer, err);
    return r < 0 ? r : ljournal_create(l, &h, err);
}

/* What one file's fsync commits takes the others along where the filesystem has a journal, if their data are on the way already. */
static void start_files(struct live *l)
{
    lfile_start(&l->cur.table->file);
    lfile_start(&l->cur.layer->map);
    lfile_start(&l->journal);
}

static int sync_files(struct live *l, struct verr *err)
{
    int r = ltable_sync(l, l->cur.table, err);
    if (r == 0)
        r = llayer_map_sync(l, l->cur.layer, err);
    if (r == 0)
        r = lfile_sync(&l->journal, err);
    if (r == 0 && live_sync_dir(l) < 0)
        r = live_fail(l, err, EIO, "its directory cannot be fsynced");
    return r;
}

static int name_it(struct live *l, const char *name, struct verr *err)
{
    if (fault_errno("live.create.before_rename"))
        return live_fail(l, err, EIO, "fault before the rename");
    if (renameat(l->set->disksfd, l->dir, l->set->disksfd, name) < 0)
        return live_fail(l, err, errno == ENOTEMPTY ? EEXIST : errno, "cannot be made: %s", strerror(errno));
    return 0;
}

static int sync_names(struct live *l, struct verr *err)
{
    return dir_sync(l->set->disksfd) < 0 ? live_fail(l, err, EIO, "the directory of disks cannot be fsynced") : 0;
}

int live_write_new(struct live_set *set, const struct vid *disk, uint64_t min_seq, int64_t last_name_s, struct verr *err)
{
    struct live *l = newborn(set, disk);
    if (l == NULL)
        return verr_set(err, ENOMEM, "no memory");
    int r = write_files(l, min_seq, last_name_s, err);
    if (r == 0)
        r = sync_files(l, err);
    if (r == 0)
        r = name_it(l, l->hex, err);
    if (r == 0)
        r = sync_names(l, err);
    if (r < 0)
        tree_remove(set->disksfd, l->dir);
    close_newborn(l);
    return r;
}

/* ---- ahead ---- */

void live_ready_name(const struct vid *disk, char out[LIVE_READY_NAME])
{
    char hex[VID_HEX];
    vid_hex(disk, hex);
    snprintf(out, LIVE_READY_NAME, LIVE_READY "%s", hex);
}

void live_unmake_ready(struct live_set *set, const struct vid *disk)
{
    char name[LIVE_READY_NAME], hex[VID_HEX], temp[LIVE_DIR_BYTES];
    live_ready_name(disk, name);
    vid_hex(disk, hex);
    temp_name(hex, temp);
    renameat(set->disksfd, name, set->disksfd, temp);   /* so that no start meets a half of it */
    tree_remove(set->disksfd, temp);
}

static int write_all(struct live *l[], unsigned n, struct verr *err)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < n; i++) {
        r = write_files(l[i], 1, 0, err);
        if (r == 0)
            start_files(l[i]);
    }
    for (unsigned i = 0; r == 0 && i < n; i++)
        r = sync_files(l[i], err);
    for (unsigned i = 0; r == 0 && i < n; i++) {
        char name[LIVE_READY_NAME];
        live_ready_name(&l[i]->id, name);
        r = name_it(l[i], name, err);
    }
    return r < 0 ? r : sync_names(l[0], err);
}

int live_write_ready(struct live_set *set, const struct vid ids[], unsigned n, struct verr *err)
{
    struct live **l = calloc(n + 1, sizeof *l);
    int r = l == NULL ? verr_set(err, ENOMEM, "no memory") : 0;
    for (unsigned i = 0; r == 0 && i < n; i++)
        if ((l[i] = newborn(set, &ids[i])) == NULL)
            r = verr_set(err, ENOMEM, "no memory");
    if (r == 0 && n > 0)
        r = write_all(l, n, err);
    for (unsigned i = 0; l != NULL && i < n && l[i] != NULL; i++) {
        close_newborn(l[i]);
        if (r < 0)
            live_unmake_ready(set, &ids[i]);
    }
    free(l);
    return r;
}
