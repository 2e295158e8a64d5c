/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_head: the head of a disk: the journal that keeps it, changes that become durable by a record, the anchors it lists, and
 * what is made of it: fsync, drop, recovery.
 */
#ifndef VARVE_LIVE_LIVE_HEAD_H
#define VARVE_LIVE_LIVE_HEAD_H

#include "live/live_disk.h"

/* ---- live_journal.c ---- */
struct ljournal_scan {
    uint8_t *data;
    size_t len;
    uint64_t end;                   /* of the chain */
    uint64_t last, complete;        /* offsets of the last record and the last complete one; UINT64_MAX none */
    bool damaged;                   /* what stands behind the chain is more than a torn append */
};
int ljournal_scan(struct live *l, struct ljournal_scan *out, struct verr *err);
int ljournal_head(struct live *l, const struct ljournal_scan *s, uint64_t offset, struct live_record *rec, struct live_head *h,
                  struct verr *err);
int ljournal_open(struct live *l, struct verr *err);
/* Appends nh and makes it the head (nh is moved from). head_lock held. Not durable. complete: every file it names is durable. */
int ljournal_put(struct live *l, struct live_head *nh, bool complete, struct verr *err);
/* Replaces the journal by one complete record of nh: durable on return, nh moved from. head_lock held, or the disk is not open yet. */
int ljournal_replace(struct live *l, struct live_head *nh, struct verr *err);
/* The journal of a new disk: one complete record of nh, which is moved from. Not durable. */
int ljournal_create(struct live *l, struct live_head *nh, struct verr *err);
/* Makes the last record durable, then removes files that only older heads named. sync_lock held. */
int ljournal_sync(struct live *l, struct verr *err);
/* Room for n more files that go, made before the record: -ENOMEM. head_lock held. */
int ljournal_gone_room(struct live *l, unsigned n);
/* Unlinks (or renames) the file once the current head is durable. head_lock held. */
void ljournal_gone(struct live *l, enum gone_kind kind, uint64_t no);

/* ---- live_head.c ---- */
enum { LEVEL_FILES = 3 };          /* table, layer, cache: what goes with one record */
/* Copy of the head with volatile attributes filled in. head_lock held. */
int live_head_now(struct live *l, struct live_head *nh, struct verr *err);
/* True: a file that the head names, or its place in the directory, was never fsynced. head_lock held. */
bool live_files_fresh(const struct live *l);
/* A durable change of the head: begin, edit nh, put, let memory follow, end. sync_lock held.
 * begin makes all files of the head durable, takes head_lock (with excl, freeze exclusively too, and makes room for the table, the
 * layer and the cache that may go) and copies the head into nh. An error of it has left nothing to end. */
int live_commit_begin(struct live *l, bool excl, struct live_head *nh, struct verr *err);
/* A complete record; nh becomes the head. Its new files are durable before. */
int live_commit_put(struct live *l, struct live_head *nh, struct verr *err);
/* Releases nh and the locks, and makes the record durable unless r is an error, which it returns. */
int live_commit_end(struct live *l, bool excl, struct live_head *nh, int r, struct verr *err);
/* After the record that no longer names the file: it is unlinked once that record is durable; the reference goes now. head_lock held,
 * room made. */
void live_table_goes(struct live *l, struct ltable *t);
void live_layer_goes(struct live *l, struct llayer *ly);    /* of the cache too */
/* A file number that no file of the disk has. */
uint64_t live_new_no(struct live *l);
/* Durable size of the live image once seq, not sealed until now, is durable here or in STORE. head_lock held. */
uint64_t live_sealed_size(const struct live *l, uint64_t seq);

/* ---- live_anchor.c ---- */
/* Lists the anchor in nh, which has room for it (live_head_copy: for one), with at least that stamp. *changed (may be NULL): does that
 * differ from before? */
int live_list_anchor(struct live *l, struct live_head *nh, const struct live_anchor *anchor, uint64_t stamp, bool *changed,
                     struct verr *err);
/* Copies the anchors that the publication of seq makes obsolete, at most max of them; mine is none of them. Returns their number. */
unsigned live_anchors_obsolete(const struct live_head *h, uint64_t seq, const struct live_anchor *mine, struct live_anchor *drop,
                               unsigned max);

/* ---- live_pending.c ---- */
/* Position of a pending snapshot in head.pend and lv, or -ENOENT. head_lock held. */
int live_pending_index(const struct live *l, uint64_t seq, struct verr *err);

/* ---- live_fresh.c ---- */
/* A new table and layer on their way to take the place of the live image's: make -> begin, name, put -> use -> end; discard at last,
 * which removes what was not used. The caller makes the table. */
struct live_fresh {
    struct ltable *table;
    struct llayer *layer;
    uint64_t size, unknown, dirty;
    int64_t alloc_pages;
    bool changed;                   /* the content is no stored snapshot's */
};
int live_make_fresh(struct live *l, struct live_fresh *f, struct verr *err);
void live_discard_fresh(struct live *l, struct live_fresh *f);
void live_name_fresh(struct live_head *nh, const struct live_fresh *f);
/* After the record: memory follows, and the old files go. freeze exclusive, head_lock. */
void live_use_fresh(struct live *l, struct live_fresh *f);

/* ---- live_sync.c ---- */
/* live_fsync with sync_lock held. skip: a pending snapshot that is about to be dropped, and so is not sealed; 0: none. SEAL_NONE: seals
 * none, because in recovery volatile snapshots have lost data. */
#define SEAL_NONE UINT64_MAX
int live_fsync_locked(struct live *l, uint64_t skip, struct verr *err);
/* Seals what shows through the live image, before something younger is said of it durably. sync_lock held. */
int live_seal_shown(struct live *l, struct verr *err);
/* Makes the journal short again, and removes what only older heads name, once there is much of either: a durable change of nothing.
 * sync_lock held. */
int live_tidy(struct live *l, struct verr *err);
/* Makes all durable and says so in the vol file, so that the next open checks nothing. No other thread uses the disk. */
int live_make_clean(struct live *l, struct verr *err);
/* fdatasync of the tables of all levels younger than the i-th pending one. sync_lock held. */
int live_sync_younger(struct live *l, unsigned i, struct verr *err);

/* ---- live_thaw.c ---- */
/* Takes the freeze of pending snapshot seq back without a copy. 1: done; 0: the live image was changed since, or seq is not the youngest
 * pending one. The snapshot is not started. left: what the live image is then. sync_lock held. */
int live_thaw(struct live *l, uint64_t seq, enum live_change left, struct verr *err);

/* ---- live_drop.c ---- */
/* Drops the i-th pending snapshot, started or not. left: as for live_set_change, of the live image if it is next to it. sync_lock held. */
int live_drop_at(struct live *l, unsigned i, enum live_change left, struct verr *err);

/* ---- live_recover.c, live_create.c ---- */
int live_recover(struct live *l, struct verr *err);
/* The image of a new disk under its final name: durable on return. */
int live_write_new(struct live_set *set, const struct vid *disk, uint64_t min_seq, int64_t last_name_s, struct verr *err);
/* n images made ahead, all or none: durable on return, for hardly more than one costs. */
int live_write_ready(struct live_set *set, const struct vid ids[], unsigned n, struct verr *err);
#define LIVE_READY ".ready-"
enum { LIVE_READY_NAME = sizeof LIVE_READY + VID_HEX };
void live_ready_name(const struct vid *disk, char out[LIVE_READY_NAME]);
void live_unmake_ready(struct live_set *set, const struct vid *disk);

/* ---- live_ready.c ---- */
/* Gives the images that an earlier run made ahead their final names: recovery removes those that no disk took. 0 or -errno. */
int live_ready_enter(struct live_set *set);
/* Removes those that no disk took. */
void live_ready_remove(struct live_set *set);

#endif
