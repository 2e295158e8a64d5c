/* SPDX-License-Identifier: Apache-2.0 */
/* live_create: the files of a new disk. */
#include "live/live_head.h"
#include "live/live_level.h"

#include "base/fault.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int first_files(struct live *l, struct live_head *h, struct verr *err)
{
    const struct live_state st = {.mtime_ns = h->mtime_ns};
    int r = ltable_create(l, h->table, &l->cur.table, err);
    if (r == 0)
        r = llayer_create(l, h->layer, &st, &l->cur.layer, err);
    if (r == 0)
        r = ltable_sync(l, l->cur.table, err);
    if (r == 0)
        r = llayer_map_sync(l, l->cur.layer, err);
    if (r < 0)
        return r;
    h->table_bytes = l->cur.table->synced_bytes;
    h->map_bytes = l->cur.layer->map_bytes;
    return ljournal_replace(l, h, err);     /* fsyncs the directory too */
}

/* Makes all files under a temporary name, then renames the directory: under its final name it always has a journal. */
int live_write_new(struct live_set *set, const struct vid *disk, uint64_t min_seq, int64_t last_name_s, struct verr *err)
{
    struct live *l = calloc(1, sizeof *l);
    if (l == NULL)
        return verr_set(err, ENOMEM, "no memory");
    char temp[VID_HEX + 8];
    vid_hex(disk, l->hex);
    snprintf(temp, sizeof temp, ".tmp-%s", l->hex);
    l->set = set;
    l->id = *disk;
    l->next_rec = 1;
    l->next_no = 3;
    pthread_mutex_init(&l->head_lock, NULL);
    int r = tree_remove(set->disksfd, temp);
    l->dirfd = r == 0 ? dir_make(set->disksfd, temp) : r;
    struct live_head h = {.mtime_ns = (int64_t)live_now(l), .last_name_s = last_name_s, .next_seq = min_seq > 0 ? min_seq : 1,
                          .next_no = 3, .table = 1, .layer = 2, .marks = LIVE_UNNAMED};
    r = l->dirfd < 0 ? live_fail(l, err, -l->dirfd, "cannot be made: %s", strerror(-l->dirfd)) : first_files(l, &h, err);
    if (r == 0 && fault_errno("live.create.before_rename"))
        r = live_fail(l, err, EIO, "fault before the rename");
    if (r == 0 && renameat(set->disksfd, temp, set->disksfd, l->hex) < 0)
        r = live_fail(l, err, errno == ENOTEMPTY ? EEXIST : errno, "cannot be made: %s", strerror(errno));
    else if (r == 0 && dir_sync(set->disksfd) < 0)
        r = live_fail(l, err, EIO, "the directory of disks cannot be fsynced");
    if (r < 0)
        tree_remove(set->disksfd, temp);
    lfile_end(&l->journal);
    ltable_unref(l->cur.table);
    llayer_unref(l->cur.layer);
    if (l->dirfd >= 0)
        close(l->dirfd);
    live_head_release(&l->head);
    pthread_mutex_destroy(&l->head_lock);
    free(l);
    return r;
}
