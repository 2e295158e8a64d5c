/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 1b, slot owner: keeps arriving requests in q partition files; when every participant has sent END, sorts one
 * partition after another by (key, sender, position), streams its keys past the index, and answers in order of position.
 *
 * For a key that the index does not know, the request of the smallest (sender, position) is answered "new": its sender is
 * the designated writer. All other requests are dup-with-new and stay in dupnew-SSSS until stage 3b knows the reference.
 *
 * A failure here costs space only: the slot is given up for this round, and requests without an answer are new.
 */
#include "dedup/dedup_internal.h"

#include "base/extsort.h"
#include "base/file.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_BYTES = 16 + FPKEY_BYTES };

static void req_name(char out[32], const struct round *r, uint32_t slot, uint32_t part)
{
    snprintf(out, 32, "req-%08x", slot * r->q + part);
}

/* ---- receiving ---- */

/* Appends a partition's buffer to its file. The file is open only meanwhile, because there may be thousands of partitions. */
static int flush_requests(struct round *r, uint32_t slot, uint32_t part, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    char name[32];
    req_name(name, r, slot, part);
    int fd = openat(r->dirfd, name, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return verr_set(err, errno, "cannot write %s in the round's directory: %s", name, strerror(errno));
    uint64_t off = (os->got[part] - os->fill[part]) * REQ_BYTES;
    int rc = pwrite_bulk(fd, os->buf + (size_t)part * os->width * REQ_BYTES, (size_t)os->fill[part] * REQ_BYTES, (off_t)off);
    close(fd);
    if (rc < 0)
        return verr_set(err, -rc, "cannot write %s in the round's directory: %s", name, strerror(-rc));
    os->fill[part] = 0;
    return 0;
}

int owner_request(struct round *r, uint32_t slot, uint32_t part, uint32_t sender, const uint8_t key[FPKEY_BYTES], struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    if (os->fill[part] == os->width) {
        int rc = flush_requests(r, slot, part, err);
        if (rc < 0)
            return rc;
    }
    uint8_t *rec = os->buf + ((size_t)part * os->width + os->fill[part]) * REQ_BYTES;
    memcpy(rec, key, FPKEY_BYTES);
    put_be64(rec + FPKEY_BYTES, (uint64_t)sender << POS_BITS | os->got[part]);
    os->fill[part]++;
    os->got[part]++;
    return 0;
}

/* ---- comparing one partition ---- */

struct compare {
    struct round *r;
    struct owner_slot *os;
    struct seqout sorted;           /* the requests of the partition */
    struct seqin keys, groups;      /* two readers of `sorted`: for the keys to compare, and for the requests to answer */
    uint8_t last[FPKEY_BYTES];      /* key given to the index last */
    bool begun;
    uint8_t head[REQ_BYTES];        /* next request without an answer */
    bool have;
    struct extsort *out;            /* sender and position be64, answer be64, key */
    struct verr *err;
};

/* Adds all requests of a partition from its file, and from its buffer; in most small rounds there is no file. */
static int add_requests(struct round *r, uint32_t slot, uint32_t part, struct extsort *xs, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    char name[32];
    uint8_t rec[REQ_BYTES];
    struct seqin in;
    int rc = 0;
    if (os->fill[part] == os->got[part]) {
        const uint8_t *buf = os->buf + (size_t)part * os->width * REQ_BYTES;
        for (uint32_t i = 0; i < os->fill[part] && rc == 0; i++)
            rc = extsort_add(xs, buf + (size_t)i * REQ_BYTES, err);
        return rc;
    }
    rc = os->fill[part] > 0 ? flush_requests(r, slot, part, err) : 0;
    req_name(name, r, slot, part);
    if (rc == 0)
        rc = seqin_open(&in, r->dirfd, name, r->mem.file, err);
    if (rc < 0)
        return rc;
    while (rc == 0 && (rc = seqin_get(&in, rec, sizeof rec, err)) > 0)
        rc = extsort_add(xs, rec, err);
    seqin_close(&in);
    unlinkat(r->dirfd, name, 0);
    return rc;
}

/* Puts the requests of a partition, sorted, into a spool. *keys: the number of different keys. */
static int sort_requests(struct round *r, uint32_t slot, uint32_t part, struct seqout *out, uint64_t *keys, struct verr *err)
{
    uint8_t rec[REQ_BYTES], last[FPKEY_BYTES];
    int rc = seqout_spool(out, r->dirfd, "sorted", r->mem.file, err);
    struct extsort *xs = rc < 0 ? NULL : extsort_new(r->dirfd, REQ_BYTES, REQ_BYTES, r->mem.sort, err);
    if (xs == NULL && rc == 0)
        rc = -ENOMEM;
    if (rc == 0)
        rc = add_requests(r, slot, part, xs, err);
    if (rc == 0)
        rc = extsort_sorted(xs, err);
    *keys = 0;
    while (rc == 0 && (rc = extsort_next(xs, rec, err)) > 0) {
        if (*keys == 0 || memcmp(rec, last, FPKEY_BYTES) != 0)
            ++*keys;
        memcpy(last, rec, FPKEY_BYTES);
        rc = seqout_put(out, rec, sizeof rec, err);
    }
    extsort_free(xs);
    return rc < 0 ? rc : seqout_end(out, r->mem.file, err);
}

static int next_key(void *ctx, uint8_t key[FPKEY_BYTES])
{
    struct compare *c = ctx;
    uint8_t rec[REQ_BYTES];
    int rc;
    while ((rc = seqin_get(&c->keys, rec, sizeof rec, c->err)) > 0) {
        if (c->begun && memcmp(rec, c->last, FPKEY_BYTES) == 0)
            continue;
        c->begun = true;
        memcpy(c->last, rec, FPKEY_BYTES);
        memcpy(key, rec, FPKEY_BYTES);
        return 1;
    }
    return rc;
}

static int next_head(struct compare *c)
{
    int rc = seqin_get(&c->groups, c->head, REQ_BYTES, c->err);
    c->have = rc > 0;
    return rc < 0 ? rc : 0;
}

/* The answer to all requests of one key. */
static int answer_key(void *ctx, const uint8_t key[FPKEY_BYTES], uint64_t ref)
{
    struct compare *c = ctx;
    bool first = true;
    int rc = 0;
    while (rc == 0 && c->have && memcmp(c->head, key, FPKEY_BYTES) == 0) {
        uint8_t rec[ANSWER_BYTES];
        uint64_t answer = ref_is_block(ref) ? ref : first ? ANSWER_NEW : ANSWER_WAIT;
        memcpy(rec, c->head + FPKEY_BYTES, 8);
        put_be64(rec + 8, answer);
        memcpy(rec + 16, key, FPKEY_BYTES);
        if (answer == ANSWER_WAIT) {
            rc = seqout_put(&c->os->dupnew, c->head, REQ_BYTES, c->err);
            c->os->ndupnew++;
        }
        if (rc == 0)
            rc = extsort_add(c->out, rec, c->err);
        if (rc == 0)
            rc = next_head(c);
        first = false;
    }
    return rc == 0 && first ? verr_set(c->err, EPROTO, "the index answers a key that was not asked") : rc;
}

static int compare_keys(struct compare *c, uint32_t part, uint64_t keys, struct verr *err)
{
    const struct dedup_env *env = c->r->env;
    enum fpindex_way way = env->force_merge ? FPINDEX_MERGE : env->force_probe ? FPINDEX_PROBE : FPINDEX_AUTO;
    struct verr why = {0};
    int rc = next_head(c);
    if (rc < 0)
        return rc;
    rc = fpindex_compare(c->os->ix, part, keys, way, c->r->mem.index, next_key, answer_key, c, &why);
    if (rc < 0)
        round_note(c->r, "stage_1b", &why);
    /* Keys that an interrupted compare did not reach count as unknown; dup-with-new among them is still found. */
    for (rc = 0; rc == 0 && c->have;) {
        uint8_t key[FPKEY_BYTES];
        memcpy(key, c->head, FPKEY_BYTES);
        rc = answer_key(c, key, REF_NONE);
    }
    return rc < 0 ? rc : extsort_sorted(c->out, err);
}

static int send_answers(struct round *r, uint32_t slot, uint32_t part, struct extsort *out, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    uint8_t rec[ANSWER_BYTES];
    int rc;
    os->fresh_of[part].base = os->nfresh;
    while ((rc = extsort_next(out, rec, err)) > 0) {
        uint64_t pos = get_be64(rec) & ((UINT64_C(1) << POS_BITS) - 1), answer = get_be64(rec + 8);
        rc = 0;
        if (answer == ANSWER_NEW) {     /* the block's reference will come back by number */
            rc = seqout_put(&os->fresh, rec + 16, FPKEY_BYTES, err);
            os->nfresh++;
            os->fresh_of[part].count++;
        }
        if (rc == 0)
            rc = send_summary(r, slot, part, pos, rec + 16, answer, err);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int compare_partition(struct round *r, uint32_t slot, uint32_t part, struct verr *err)
{
    struct compare c = {.r = r, .os = &r->slots[slot], .err = err};
    uint64_t keys;
    int rc = sort_requests(r, slot, part, &c.sorted, &keys, err);
    if (rc == 0)
        rc = seqin_over(&c.keys, &c.sorted, r->mem.file, err);
    if (rc == 0)
        rc = seqin_over(&c.groups, &c.sorted, r->mem.file, err);
    if (rc == 0) {
        c.out = extsort_new(r->dirfd, ANSWER_BYTES, 8, r->mem.sort_half, err);
        rc = c.out == NULL ? -ENOMEM : compare_keys(&c, part, keys, err);
    }
    seqin_close(&c.keys);
    seqin_close(&c.groups);
    seqout_discard(&c.sorted);
    if (rc == 0)
        rc = send_answers(r, slot, part, c.out, err);
    extsort_free(c.out);
    return rc;
}

static int compare_slot(struct round *r, uint32_t slot, struct verr *err)
{
    struct owner_slot *os = &r->slots[slot];
    char name[32];
    round_file(name, "dupnew", slot);
    int rc = seqout_spool(&os->dupnew, r->dirfd, name, r->mem.file, err);
    round_file(name, "new", slot);
    if (rc == 0)
        rc = seqout_spool(&os->fresh, r->dirfd, name, r->mem.file, err);
    for (uint32_t p = 0; p < r->q && rc == 0; p++)
        if (os->got[p] > 0)
            rc = compare_partition(r, slot, p, err);
    if (rc == 0)
        rc = seqout_end(&os->dupnew, r->mem.file / r->nslots, err);
    if (rc == 0)
        rc = seqout_end(&os->fresh, r->mem.file / r->nslots, err);
    fpindex_rest(os->ix);
    return rc < 0 ? rc : send_summaries_end(r, slot, err);
}

int stage_1b(struct round *r, struct verr *err)
{
    int rc = requests_complete(r, err);
    for (uint32_t s = 0; s < r->nslots && rc == 0; s++) {
        struct verr why = {0};
        if (!r->slots[s].dead && compare_slot(r, s, &why) < 0)
            slot_give_up(r, s, "stage_1b", &why);
    }
    return rc;
}
