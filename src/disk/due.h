/* SPDX-License-Identifier: Apache-2.0 */
/*
 * due: does a state of a disk become a snapshot, and of which kind? This is the only place that decides it: code that writes, closes,
 * renames, reverts or recovers a disk names the occasion, and obeys the answer.
 *
 * The rule. A removed disk (NODE_GONE) gets no snapshot. A disk whose name begins with a dot is a program's temporary file and
 * gets none either, unless a request names the disk itself; a request that names its directory passes over it. Apart from requests
 * for the disk itself, a disk that has not changed since its last freeze has nothing to keep, and an image of zeros alone is what many
 * programs begin with: it gets its snapshot only when it settles (below), at a start at the latest. Otherwise the occasion says what
 * the snapshot is:
 *
 *   occasion         when it comes                                        needs                   the snapshot is
 *   DUE_CLOSE        a descriptor that changed data is closed             changed|rewriting, data provisional; partial if unclean
 *   DUE_RELEASE      the last writer has gone and left changes            changed, data           provisional; partial if unclean
 *   DUE_SETTLED      a disk of zeros, closed without a snapshot, settles  changed                 good
 *   DUE_TRUNCATE     before the size becomes 0 (O_TRUNC, truncate)        changed, data           partial if rewriting
 *   DUE_REVERT       before the disk becomes one of its snapshots         changed, data           partial if rewriting
 *   DUE_REPLACED     before a rename brings another disk's content        changed, data           partial if rewriting
 *   DUE_RESIZED      truncate by path has changed it, with no writer      changed, data           partial if rewriting
 *   DUE_NAMED        a rename gave it a name without a dot, or content    changed, data           partial if rewriting
 *   DUE_LATE         a freeze that was due and failed is tried again      changed, data           partial if unclean or rewriting
 *   DUE_RECOVERY     the daemon starts, and nobody saw the last close     changed, data           partial
 *   DUE_ZEROS        a freeze of DUE_SETTLED failed and is tried again;   changed, no data,       good; partial if unclean
 *                    the daemon starts and finds a disk of zeros, or a    not rewriting
 *                    rename has brought them
 *   DUE_REQUEST      `varve snapshot DISK`, `touch DISK@LABEL.EXT`        nothing; a dot too      explicit; partial if rewriting
 *   DUE_REQUEST_DIR  `varve snapshot DIRECTORY`                           changed                 explicit; partial if rewriting
 *
 * rewriting: LIVE_REWRITING, the disk was emptied and its new content is not known to be whole. A close is where that content
 * becomes whole: while the mark stands, what was frozen in between was partial, so the close freezes even an unchanged disk.
 * unclean: a signal killed the writer, or the writer was refused a write.
 * unkept: the snapshot of the state was removed before it was stored. Nothing has changed since, so nobody is in the middle of a change,
 * and what was removed does not come back by itself: DUE_RELEASE, DUE_SETTLED, DUE_LATE, DUE_RECOVERY and DUE_ZEROS take such a disk for
 * an unchanged one. The others keep its state, as one that changed.
 *
 * The mark may be set between the question and the freeze: live_freeze looks at it once more under the freeze lock, and makes a
 * snapshot partial that is not provisional.
 */
#ifndef VARVE_DISK_DUE_H
#define VARVE_DISK_DUE_H

#include "format/node.h"
#include "live/live.h"

enum due_occasion {
    DUE_CLOSE, DUE_RELEASE, DUE_SETTLED, DUE_TRUNCATE, DUE_REVERT, DUE_REPLACED, DUE_RESIZED, DUE_NAMED, DUE_LATE, DUE_RECOVERY, DUE_ZEROS,
    DUE_REQUEST, DUE_REQUEST_DIR,
};
enum due_data { DUE_DATA_UNKNOWN, DUE_DATA_NO, DUE_DATA_YES };  /* is any byte of the image not zero? */

struct due_case {
    enum due_occasion occasion;
    const struct node *node;        /* borrowed: its name and flags count */
    bool unclean;                   /* DUE_CLOSE, DUE_RELEASE, DUE_SETTLED, DUE_LATE and DUE_ZEROS only */
    struct live_attr attr;          /* due_ask fills in attr and data */
    enum due_data data;
};

/* DUE_ASK_DATA: the answer depends on the data, and `data` is DUE_DATA_UNKNOWN. Only then is it worth reading the disk. */
enum due { DUE_NONE, DUE_SNAPSHOT, DUE_PARTIAL, DUE_ASK_DATA };

/* Pure: the same case has the same answer. Never DUE_ASK_DATA unless data is DUE_DATA_UNKNOWN. */
enum due due(const struct due_case *c);

/* Pure: can any state of such a disk be due on that occasion? Looks at name and flags only, for a caller that must not look at data. */
bool due_possible(const struct due_case *c);

/* The flags (PEND_) of the freeze that the answer asks for; 0 for DUE_NONE. */
uint32_t due_flags(const struct due_case *c, enum due what);

/* Asks `due` about an image as it is now: DUE_NONE, DUE_SNAPSHOT or DUE_PARTIAL; -errno: its attributes or data cannot be read. Reads
 * the image up to the first byte that is not zero, and only where the answer depends on it. Freezes nothing. Any thread may call it. */
int due_ask(struct due_case *c, struct live *l, struct verr *err);

/* ---- what becomes of a state that a close has left (docs/design/settling.md) ---- */

struct due_made {
    bool frozen;                    /* false: an image of zeros, which gets its snapshot when it settles */
    bool released;                  /* the handle that was closed is gone: no copy of its descriptor is left */
    bool ended;                     /* so has the process that closed it */
    bool asked;                     /* a user waits for what is pending */
    bool open;                      /* somebody has the disk open for writing */
    int64_t quiet_ns, settle_ns;    /* since when nobody has; how long that must be */
};
/* Pure: is the state settled? Then a snapshot loses its flag and is stored, and an image of zeros gets one. */
bool due_settles(const struct due_made *m);

enum due_change {
    DUE_SAME_HANDLE,                /* a change through the handle that was closed: its descriptor had a copy */
    DUE_SAME_PROCESS,               /* through another handle, by the process that closed it */
    DUE_OTHER_PROCESS,              /* by another process, or an unknown one */
    DUE_FROM_ZERO,                  /* the disk is emptied, or gets another content as a whole */
};
enum due_fate { DUE_STAYS, DUE_WITHDRAWN, DUE_SETTLES };
/* Pure: what a change of the disk makes of the state, before the change is made. */
enum due_fate due_changed(const struct due_made *m, enum due_change change);

#endif
