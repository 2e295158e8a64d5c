/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler of the lanes. A lane that has finished a message gets the next one at once, and long messages go first:
 * what is left at the end is short, so that few lanes stand idle, and not for long.
 *
 * A message is two parts: its whole 64-byte blocks, read where they lie, then one or two blocks with the rest and the
 * padding, built in the lane. The kernel runs as far as the lane with the fewest blocks left in its part.
 */
#include "chunk/sha256_lanes.h"

#include <string.h>

const uint32_t sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static const uint32_t first_state[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

struct lane {
    const struct fp_job *job;           /* NULL: idle */
    const uint8_t *p;                   /* next block of the current part */
    size_t left;                        /* blocks left in it */
    size_t tail_blocks;                 /* of the part to come; 0: the tail is the current part */
    uint8_t tail[2 * SHA256_BLOCK];
};

struct run {
    struct sha256_lanes *s;
    const struct fp_job *jobs;
    size_t next, n;                     /* of s->order */
    _Alignas(64) uint32_t state[8 * SHA256_LANES_MAX];
    struct lane lane[SHA256_LANES_MAX];
};

/* 64-byte blocks of a message, padding included. */
static size_t message_blocks(size_t len)
{
    return (len + 8) / SHA256_BLOCK + 1;
}

static void start_tail(struct lane *l)
{
    l->p = l->tail;
    l->left = l->tail_blocks;
    l->tail_blocks = 0;
}

static void start_message(struct run *r, unsigned i, const struct fp_job *job)
{
    struct lane *l = &r->lane[i];
    size_t whole = job->len / SHA256_BLOCK, rest = job->len % SHA256_BLOCK;
    l->job = job;
    l->p = job->data;
    l->left = whole;
    l->tail_blocks = message_blocks(job->len) - whole;
    size_t end = l->tail_blocks * SHA256_BLOCK;
    if (rest != 0)
        memcpy(l->tail, (const uint8_t *)job->data + whole * SHA256_BLOCK, rest);
    l->tail[rest] = 0x80;
    memset(l->tail + rest + 1, 0, end - rest - 1 - 8);
    uint64_t bits = (uint64_t)job->len * 8;
    for (unsigned b = 0; b < 8; b++)
        l->tail[end - 1 - b] = (uint8_t)(bits >> (8 * b));
    for (unsigned w = 0; w < 8; w++)
        r->state[w * r->s->lanes + i] = first_state[w];
    if (whole == 0)
        start_tail(l);
}

static void end_message(struct run *r, unsigned i)
{
    uint8_t *out = r->lane[i].job->out->b;
    for (unsigned w = 0; w < 8; w++) {
        uint32_t v = r->state[w * r->s->lanes + i];
        out[4 * w] = (uint8_t)(v >> 24);
        out[4 * w + 1] = (uint8_t)(v >> 16);
        out[4 * w + 2] = (uint8_t)(v >> 8);
        out[4 * w + 3] = (uint8_t)v;
    }
    r->lane[i].job = NULL;
}

/* One call of the kernel. An idle lane reads along with a busy one; nobody looks at its state. */
static void step(struct run *r)
{
    const uint8_t *p[SHA256_LANES_MAX], *busy = NULL;
    size_t blocks = SIZE_MAX;
    unsigned lanes = r->s->lanes;
    for (unsigned i = 0; i < lanes; i++) {
        if (r->lane[i].job != NULL && r->lane[i].left < blocks) {
            blocks = r->lane[i].left;
            busy = r->lane[i].p;
        }
    }
    for (unsigned i = 0; i < lanes; i++)
        p[i] = r->lane[i].job != NULL ? r->lane[i].p : busy;
    r->s->kernel(r->state, p, blocks);
    for (unsigned i = 0; i < lanes; i++) {
        struct lane *l = &r->lane[i];
        if (l->job == NULL)
            continue;
        l->p += blocks * SHA256_BLOCK;
        l->left -= blocks;
        if (l->left == 0 && l->tail_blocks != 0)
            start_tail(l);
        else if (l->left == 0)
            end_message(r, i);
    }
}

/* s->order: jobs by falling number of blocks (counting sort; what is longer than the last bucket lies there unsorted). */
static void sort_jobs(struct sha256_lanes *s, const struct fp_job *jobs, size_t n)
{
    enum { BUCKETS = 512 };
    uint16_t at[BUCKETS + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        size_t blocks = message_blocks(jobs[i].len);
        at[blocks < BUCKETS ? BUCKETS - blocks : 1]++;
    }
    for (unsigned b = 1; b <= BUCKETS; b++)
        at[b] = (uint16_t)(at[b] + at[b - 1]);
    for (size_t i = 0; i < n; i++) {
        size_t blocks = message_blocks(jobs[i].len);
        s->order[at[blocks < BUCKETS ? BUCKETS - blocks - 1 : 0]++] = (uint16_t)i;
    }
}

/*
 * How many of the longest jobs to leave out. The lanes take as long as the longest message, or as all of them spread over
 * the lanes: with a total of less than `few` times the longest they would be slower than one message at a time.
 */
static size_t too_long(const struct sha256_lanes *s, const struct fp_job *jobs, size_t n)
{
    size_t total = 0, out = 0;
    for (size_t i = 0; i < n; i++)
        total += message_blocks(jobs[i].len);
    for (; out < n; out++) {
        size_t longest = message_blocks(jobs[s->order[out]].len);
        if (total >= longest * s->few)
            break;
        total -= longest;
    }
    return out;
}

size_t sha256_lanes_run(struct sha256_lanes *s, const struct fp_job *jobs, size_t n)
{
    struct run r;
    sort_jobs(s, jobs, n);
    r.s = s;
    r.jobs = jobs;
    r.next = too_long(s, jobs, n);
    r.n = n;
    size_t left_out = r.next;
    if (left_out == n)
        return n;
    for (unsigned i = 0; i < SHA256_LANES_MAX; i++)
        r.lane[i].job = NULL;
    memset(r.state, 0, sizeof r.state);
    for (;;) {
        unsigned busy = 0;
        for (unsigned i = 0; i < s->lanes; i++) {
            if (r.lane[i].job == NULL && r.next < r.n)
                start_message(&r, i, &jobs[s->order[r.next++]]);
            busy += r.lane[i].job != NULL;
        }
        if (busy == 0)
            return left_out;
        step(&r);
    }
}
