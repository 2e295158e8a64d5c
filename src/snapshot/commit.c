/* SPDX-License-Identifier: Apache-2.0 */
/*
 * commit: from runs to a published recipe.
 *
 *   state     on disk                                                     left by
 *   begun     lease directory; staged file of pages 1.. without header    commit_abort (the lease goes with what is in it)
 *   staged    staged file whole: header written last, fdatasynced         commit_publish, commit_abort
 *   done      renamed to snapshots/DISK, directory fsynced                commit_abort (gives the lease back)
 *
 * The header page is written after all others, so that a staged file with a valid header is complete. Pages are written
 * as they fill up: a commit holds one page and 32 bytes for each page before it, whatever the size of the disk.
 */
#include "snapshot/commit.h"

#include "base/fault.h"
#include "base/verr.h"
#include "chunk/fingerprint.h"
#include "store/snaps.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_BYTES = 16 };

struct commit {
    struct store *st;
    struct snaprcp hdr;
    struct lease *lease;
    struct deletions *deletions;
    struct fper *fper;
    struct staged *staged;      /* NULL before and after */
    bool whole, done, failed;   /* whole: staged, see above; failed: a write error, final for the staged file */
    char name[SNAP_FILE_MAX];
    uint64_t next;              /* segment expected next */
    uint64_t pages;             /* written so far */
    uint64_t nruns;
    uint32_t n;                 /* runs in the open page */
    struct snaprun runs[SNAPRCP_PAGE_RUNS];
    struct fp *digests;         /* of the pages written */
    size_t digests_cap;
};

static int sha256(struct commit *c, const void *data, size_t len, struct fp *out, struct verr *err)
{
    struct fp_job job = { .data = data, .len = len, .out = out };
    return fper_batch(c->fper, &job, 1, err);
}

/* The digest of a page is the SHA-256 of its runs as they stand in it, without the page's head: equal runs have equal digests. */
static int digest_page(struct commit *c, const uint8_t page[SNAPRCP_PAGE], struct verr *err)
{
    if (c->pages == c->digests_cap) {
        size_t cap = c->digests_cap == 0 ? 16 : c->digests_cap * 2;
        struct fp *more = reallocarray(c->digests, cap, sizeof *more);
        if (more == NULL)
            return verr_set(err, ENOMEM, "snapshot recipe: out of memory");
        c->digests = more;
        c->digests_cap = cap;
    }
    return sha256(c, page + (SNAPRCP_PAGE - RUN_BYTES * SNAPRCP_PAGE_RUNS), c->n * RUN_BYTES, &c->digests[c->pages], err);
}

static int write_page(struct commit *c, uint64_t number, const uint8_t page[SNAPRCP_PAGE], struct verr *err)
{
    int r = -fault_errno("snapshot.commit.page");
    if (r == 0)
        r = staged_write(c->staged, page, SNAPRCP_PAGE, number * SNAPRCP_PAGE);
    return r < 0 ? verr_set(err, -r, "snapshot recipe %s: cannot be written: %s", c->name, strerror(-r)) : 0;
}

static int flush_page(struct commit *c, struct verr *err)
{
    if (c->n == 0)
        return 0;
    uint8_t page[SNAPRCP_PAGE];
    int r = snaprcp_page_encode(&c->hdr.info.ref.snap, c->pages + 1, c->runs, c->n, page);
    if (r < 0)
        r = verr_set(err, -r, "snapshot recipe %s: its runs are not valid", c->name);
    if (r == 0)
        r = digest_page(c, page, err);
    if (r == 0)
        r = write_page(c, c->pages + 1, page, err);
    if (r < 0) {
        c->failed = true;
        return r;
    }
    c->pages++;
    c->n = 0;
    return 0;
}

int commit_begin(struct store *st, const struct snaprcp *hdr, struct commit **out, struct verr *err)
{
    struct commit *c = calloc(1, sizeof *c);
    if (c == NULL)
        return verr_set(err, ENOMEM, "snapshot recipe: out of memory");
    c->st = st;
    c->hdr = *hdr;
    c->hdr.store = store_conf(st)->id;
    store_snap_file(hdr->info.ref.seq, &hdr->info.ref.snap, ".rcp", c->name);
    int r = 0;
    c->fper = fper_new(FP_SHA256, store_conf(st)->digest_key, err);
    if (c->fper == NULL)
        r = err != NULL && err->code != 0 ? -err->code : -ENOMEM;
    /* The lease first, then the log: before a collector frees blocks that it condemned after this read, it revokes this lease
     * (docs/design/publishing.md). */
    if (r == 0)
        r = lease_take(st, &hdr->vm, hdr->epoch, &c->lease, err);
    if (r == 0)
        r = deletions_load(c->lease, &c->deletions, err);
    if (r == 0)
        r = lease_stage_begin(c->lease, c->name, &c->staged, err);
    if (r < 0) {
        commit_abort(c);
        return r;
    }
    *out = c;
    return 0;
}

/* Does the segment go on where the run ends? Places follow each other inside one container only. */
static bool continues(const struct snaprun *run, uint64_t place)
{
    if (run->count == UINT32_MAX)
        return false;
    if (run->place == REF_ZERO || place == REF_ZERO)
        return run->place == place;
    return ref_container(place) == ref_container(run->place) && place - run->place == run->count;
}

int commit_segment(struct commit *c, uint64_t segment, bool zero, uint64_t place, struct verr *err)
{
    if (c->staged == NULL || c->failed || segment != c->next || segment > UINT32_MAX || (!zero && !ref_is_block(place)))
        return verr_set(err, EINVAL, "snapshot recipe %s: segment %" PRIu64 " (place %#" PRIx64 ") cannot be the next one", c->name,
                        segment, place);
    if (zero)
        place = REF_ZERO;
    if (c->n > 0 && continues(&c->runs[c->n - 1], place)) {
        c->runs[c->n - 1].count++;
        c->next++;
        return 0;
    }
    if (c->n == SNAPRCP_PAGE_RUNS) {
        int r = flush_page(c, err);
        if (r < 0)
            return r;
    }
    c->runs[c->n++] = (struct snaprun){ .first = (uint32_t)segment, .count = 1, .place = place };
    c->nruns++;
    c->next++;
    return 0;
}

static int finish_header(struct commit *c, const struct snaprcp *final, struct verr *err)
{
    const struct snaprcp *h = &c->hdr;
    if (!vid_eq(&final->info.ref.disk, &h->info.ref.disk) || !vid_eq(&final->vm, &h->vm) ||
        !vid_eq(&final->info.ref.snap, &h->info.ref.snap) || final->info.ref.seq != h->info.ref.seq ||
        final->epoch != h->epoch)
        return verr_set(err, EINVAL, "snapshot recipe %s: published as another snapshot than was begun", c->name);
    if (seg_count(final->info.size) != c->next)
        return verr_set(err, EINVAL, "snapshot recipe %s: %" PRIu64 " segments given, %" PRIu64 " bytes have %" PRIu64, c->name, c->next,
                        final->info.size, seg_count(final->info.size));
    struct vid store = c->hdr.store;
    c->hdr = *final;
    c->hdr.store = store;
    c->hdr.nruns = c->nruns;
    struct fp digest;
    int r = sha256(c, c->digests != NULL ? (const void *)c->digests : "", c->pages * sizeof *c->digests, &digest, err);
    if (r == 0)
        memcpy(c->hdr.runs_digest, digest.b, sizeof c->hdr.runs_digest);
    return r;
}

/* Pages -> header -> fdatasync. */
int commit_stage(struct commit *c, const struct snaprcp *final, struct verr *err)
{
    if (c->failed || c->staged == NULL)
        return verr_set(err, EINVAL, "snapshot recipe %s: staged, published or failed before", c->name);
    int r = flush_page(c, err);
    if (r == 0)
        r = finish_header(c, final, err);
    if (r < 0)
        return r;
    uint8_t page[SNAPRCP_PAGE];
    r = snaprcp_encode(&c->hdr, page);
    if (r < 0)
        return verr_set(err, -r, "snapshot recipe %s: a field is not valid (ids, flags, label, allocated bytes)", c->name);
    r = write_page(c, 0, page, err);
    if (r < 0) {
        c->failed = true;
        return r;
    }
    struct staged *staged = c->staged;
    c->staged = NULL;
    r = lease_stage_end(c->lease, staged, err);
    c->whole = r == 0;
    return r;
}

/* The name is taken. A valid recipe of this snapshot is the snapshot, also when it names other blocks: an attempt whose answer was
 * lost published it, or the one before a crash. It counts once its name is durable. */
static int published_already(struct commit *c, struct verr *err)
{
    struct snaprcp there;
    int r = snaps_header(c->st, &c->hdr.info.ref, &there, err);
    if (r < 0)
        return verr_prefix(err, -r, "a file that is not this snapshot's recipe has its name; move it away");
    r = snaps_durable(c->st, &c->hdr.info.ref, err);
    if (r == 0)
        return verr_set(err, ESTALE, "publishing %s: it is gone again", c->name);
    return r < 0 ? r : 0;
}

/* Rename into snapshots/DISK -> fsync of that directory. */
int commit_publish(struct commit *c, struct verr *err)
{
    if (c->done || !c->whole)
        return verr_set(err, EINVAL, "snapshot recipe %s: not staged, or published before", c->name);
    fault_point("snapshot.commit.before_rename");
    int r = lease_publish_recipe(c->lease, c->name, &c->hdr.info.ref.disk, err);
    if (r == -EEXIST)
        r = published_already(c, err);
    if (r < 0)
        return r;
    fault_point("snapshot.commit.after_rename");
    c->done = true;
    return 0;
}

void commit_abort(struct commit *c)
{
    if (c == NULL)
        return;
    deletions_free(c->deletions);
    if (c->lease != NULL)
        lease_release(c->lease);
    fper_free(c->fper);
    free(c->digests);
    free(c);
}

/*
 * A footer that does not have exactly this block means: write the block anew. A reference is a hint, and a container that is
 * missing or damaged must not stop a backup. Only errors of device or memory are returned.
 */
int commit_check(struct commit *c, struct creader *r, uint64_t ref, const struct fp *fp, uint32_t len, struct verr *err)
{
    if (!ref_is_block(ref) || len == 0 || deletions_has(c->deletions, ref))
        return 0;
    struct verr why = {0};
    struct footer_entry entry;
    int e = creader_entries(r, ref, 1, &entry, &why);
    if (e == -ENODATA || e == -ENOENT || e == -EBADMSG)
        return 0;
    if (e < 0) {
        if (err != NULL)
            *err = why;
        return e;
    }
    return entry.len == len && fp_eq(&entry.fp, fp);
}
