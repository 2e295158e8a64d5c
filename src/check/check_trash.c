/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify, pass 5: trash/. Its recipes are of removed snapshots, so a fault in them is no damage; but a collection reads these
 * recipes, and frees nothing while it cannot read one of them.
 */
#include "base/endian.h"
#include "base/hex.h"
#include "base/verr.h"
#include "check/check_internal.h"
#include "store/snaps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trash_walk { struct checker *k; struct verr *err; };

/* ---- recipes ---- */

static int check_header(struct checker *k, const struct snaps_file *t, const struct snaprcp *h, const char **why)
{
    *why = "it is of another store, disk or snapshot";
    return vid_eq(&h->store, &store_conf(k->st)->id) && vid_eq(&h->info.ref.snap, &t->ref.snap) && h->info.ref.seq == t->ref.seq &&
           (t->anchor || vid_eq(&h->info.ref.disk, &t->ref.disk)) ? 0 : -EBADMSG;
}

/* Checks each page 1, 2, ... by itself, and that they follow each other to the end of the disk. */
static int check_pages(struct bfile *f, const struct snaprcp *h, const char **why)
{
    uint8_t page[SNAPRCP_PAGE];
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
    uint64_t left = h->nruns, segment = 0;
    for (uint64_t number = 1; left > 0; number++) {
        uint32_t n;
        ssize_t got = snaps_read(f, page, sizeof page, number * SNAPRCP_PAGE);
        if (got < 0)
            return (int)got;
        *why = "it is shorter than its header says";
        if (got < (ssize_t)sizeof page)
            return -EBADMSG;
        int r = snaprcp_page_decode(&h->info.ref.snap, number, page, runs, &n, why);
        if (r < 0)
            return r;
        *why = "its runs do not follow each other";
        if (n != (left < SNAPRCP_PAGE_RUNS ? left : SNAPRCP_PAGE_RUNS) || runs[0].first != segment)
            return -EBADMSG;
        segment = (uint64_t)runs[n - 1].first + runs[n - 1].count;
        left -= n;
    }
    *why = "its runs do not end with the disk";
    return segment == seg_count(h->info.size) ? 0 : -EBADMSG;
}

static int check_recipe(struct checker *k, struct bfile *f, const struct snaps_file *t, const char **why)
{
    uint8_t page[SNAPRCP_PAGE];
    struct snaprcp h;
    ssize_t got = snaps_read(f, page, sizeof page, 0);
    if (got < 0)
        return (int)got;
    *why = "shorter than its header";
    int r = got < (ssize_t)sizeof page ? -EBADMSG : snaprcp_decode(page, &h, why);
    if (r == 0)
        r = check_header(k, t, &h, why);
    return r == 0 ? check_pages(f, &h, why) : r;
}

static int check_side(struct bfile *f, const struct snaps_file *t, const char **why)
{
    uint8_t data[SNAPATTR_BYTES + 1];
    struct snapattr a;
    ssize_t got = snaps_read(f, data, sizeof data, 0);
    if (got < 0)
        return (int)got;
    int r = snapattr_decode(data, (size_t)got, &a, why);
    if (r == 0 && !vid_eq(&a.snap, &t->ref.snap)) {
        *why = "it is of another snapshot";
        r = -EBADMSG;
    }
    return r;
}

/* ---- trash/ ---- */

static int check_entry(struct checker *k, const char *name, const struct snaps_file *t, const char **why)
{
    struct bfile *f;
    *why = "not a regular file";
    int r = snaps_open_trash(k->st, name, &f);
    if (r < 0)
        return r;
    r = t->side_file ? check_side(f, t, why) : check_recipe(k, f, t, why);
    snaps_close(f);
    return r;
}

static int stray(void *ctx, const char *path)
{
    struct trash_walk *w = ctx;
    if (strncmp(path, "trash/.tmp-", 11) == 0)
        return 0;
    return check_add(w->k, CHECK_NOTICE, path, "not a file of ours: move it away") < 0 ? verr_set(w->err, ENOMEM, "verify: out of memory") : 0;
}

static int see_entry(void *ctx, const struct snaps_file *t)
{
    struct trash_walk *w = ctx;
    char file[300];
    const char *why = "";
    int p = 0, r = check_entry(w->k, t->name, t, &why);
    snprintf(file, sizeof file, "trash/%s", t->name);
    if (r == 0)
        w->k->rep->trash++;
    else if (r == -EBADMSG || r == -ENOTSUP)
        p = check_add(w->k, CHECK_NOTICE, file, "%s; %s", why, t->side_file ? "the snapshot is gone: the file may be removed" :
                      "no collection frees anything while it is here: if the snapshot was meant to go, remove the file");
    else if (r != -ENOENT)
        return verr_set(w->err, -r, "%s: %s", file, strerror(-r));
    return p < 0 ? verr_set(w->err, ENOMEM, "verify: out of memory") : 0;
}

int check_trash(struct checker *k, struct verr *err)
{
    struct trash_walk w = { .k = k, .err = err };
    const struct snaps_walk files = {.file = see_entry, .stray = stray, .ctx = &w};
    return snaps_each(k->st, SNAPS_TRASH, NULL, &files, err);
}
