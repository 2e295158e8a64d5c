/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a round below STATE/rounds: plan log, and the answers' file with what a bus may say about it. */
#include "fuzz.h"

#include "base/file.h"
#include "base/verr.h"
#include "dedup/answers.h"
#include "dedup/plan.h"

#include <fcntl.h>
#include <unistd.h>

const char fuzz_family[] = "round";
enum { SEED = 77 };
static char dir[128];
static int dirfd_ = -1;
static uint8_t *rec;
static struct plan_block *blocks;

static void tidy(void)
{
    close(dirfd_);
    tree_remove(AT_FDCWD, dir);
    free(rec);
    free(blocks);
}

void fuzz_setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.80s/varve-fuzz-round-XXXXXX", tmp != NULL ? tmp : "/tmp");
    rec = malloc(PLAN_RECORD_MAX);
    blocks = calloc(PLAN_BLOCKS_MAX, sizeof *blocks);
    if (rec == NULL || blocks == NULL || mkdtemp(dir) == NULL || (dirfd_ = dir_open(AT_FDCWD, dir)) < 0)
        abort();
    atexit(tidy);
}

/* ---- plan log ---- */

static size_t plan_seed(unsigned i, uint8_t *out)
{
    struct verr err = {0};
    struct seqout o;
    uint8_t *data;
    size_t len;
    if (i > 1)
        return 0;
    FUZZ_CHECK(seqout_open(&o, dirfd_, "plan", 4096, &err) == 0);
    struct plan_seg s = {.segment = 3, .kind = PLAN_SAME, .bytes = SEG_BYTES, .place = 0x10000000005, .b = blocks};
    FUZZ_CHECK(plan_put(&o, &s, SEED, rec, &err) == 0);
    s = (struct plan_seg){.segment = 4, .kind = PLAN_BLOCKS, .nblocks = i == 0 ? 3 : 512, .data_pages = 2, .b = blocks};
    for (unsigned k = 0; k < s.nblocks; k++) {
        blocks[k] = (struct plan_block){.len = 4096, .kind = BLK_ZERO + k % (BLK_KINDS - 1), .ref = k};
        s.bytes += 4096;
    }
    FUZZ_CHECK(plan_put(&o, &s, SEED, rec, &err) == 0);
    s = (struct plan_seg){.segment = 9, .kind = PLAN_ZERO, .bytes = 100, .b = blocks};
    FUZZ_CHECK(plan_put(&o, &s, SEED, rec, &err) == 0 && seqout_close(&o, &err) == 0);
    FUZZ_CHECK(file_load(dirfd_, "plan", FUZZ_INPUT_MAX, &data, &len) == 0);
    unlinkat(dirfd_, "plan", 0);
    memcpy(out, data, len);
    free(data);
    return len;
}

static void plan_mend(uint8_t *p, size_t len)
{
    for (size_t at = 0; at + PLAN_HEAD_BYTES <= len;) {
        uint64_t n = PLAN_HEAD_BYTES + (uint64_t)get_le32(p + at + 20) * PLAN_BLOCK_BYTES;
        if (n > len - at)
            return;
        put_le64(p + at + 56, 0);
        put_le64(p + at + 56, hash64_seed(p + at, n, SEED));
        at += n;
    }
}

static bool plan_feed(const uint8_t *p, size_t len)
{
    struct verr err = {0};
    struct seqin in;
    struct plan_seg s = {.b = blocks};
    int fd = openat(dirfd_, "plan", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r;
    if (fd < 0 || pwrite_full(fd, p, len, 0) < 0)
        abort();
    close(fd);
    FUZZ_CHECK(seqin_open(&in, dirfd_, "plan", 4096, &err) == 0);
    while ((r = plan_get(&in, &s, SEED, rec, &err)) == 1) {
        uint64_t sum = 0;
        FUZZ_CHECK(s.bytes >= 1 && s.bytes <= SEG_BYTES && s.nblocks <= PLAN_BLOCKS_MAX);
        for (uint32_t k = 0; k < s.nblocks; k++)
            sum += s.b[k].len;
        FUZZ_CHECK(s.kind != PLAN_BLOCKS || sum == s.bytes);
    }
    FUZZ_CHECK(r == 0 || (r == -EBADMSG && err.text[0] != '\0'));
    seqin_close(&in);
    unlinkat(dirfd_, "plan", 0);
    return r == 0 && len > 0;
}

/* ---- answers: calls of 24 bytes (kind, partition, position, reference) on a file of three partitions ---- */

enum { CALL = 24, CALLS_MAX = 200, PARTS = 3 };

static size_t answers_seed(unsigned i, uint8_t *out)
{
    if (i > 0)
        return 0;
    memset(out, 0, 30 * CALL);
    for (unsigned k = 0; k < 30; k++) {
        uint8_t *q = out + k * CALL;
        q[0] = (uint8_t)(k < 10 ? 0 : k < 20 ? 1 : 2);
        q[1] = (uint8_t)(k % 2);
        put_le64(q + 8, k % 9);
        put_le64(q + 16, k < 10 ? ANSWER_WAIT : ref_make(0x10000, k));
    }
    return 30 * CALL;
}

/* Compared with a plain array. */
static bool answers_feed(const uint8_t *p, size_t len)
{
    static const uint64_t count[PARTS] = {10, 9, 1};
    uint64_t model[PARTS][10], next[PARTS] = {0}, got;
    struct answers a;
    struct verr err = {0};
    bool all = true;
    memset(model, 0xff, sizeof model);
    FUZZ_CHECK(answers_open(&a, dirfd_, count, PARTS, 0, &err) == 0);
    for (size_t i = 0; i < CALLS_MAX && (i + 1) * CALL <= len; i++) {
        const uint8_t *q = p + i * CALL;
        uint32_t part = q[1], n = q[2] % 12 + 1;
        uint64_t pos = get_le64(q + 8), ref = get_le64(q + 16), refs[12];
        for (unsigned k = 0; k < 12; k++)
            refs[k] = ref;
        bool fits = part < PARTS && pos < count[part];
        int r = 0;
        if (q[0] % 4 == 0) {
            FUZZ_CHECK(answers_rewind(&a, &err) == 0);
            r = answers_put(&a, part, pos, refs, n, &err);
            bool ok = part < PARTS && pos <= count[part] && n <= count[part] - pos;
            FUZZ_CHECK(r == (ok ? 0 : -EPROTO));
            for (uint32_t k = 0; ok && k < n; k++)
                model[part][pos + k] = ref;
        } else if (q[0] % 4 == 1) {
            r = answers_get(&a, part, pos, &got, &err);
            FUZZ_CHECK(r == (fits ? 0 : -EBADMSG) && (r < 0 || got == model[part][pos]));
        } else {
            if (part >= PARTS)
                continue;       /* wire_in names partitions of its own only */
            r = answers_resolve(&a, part, ref, &err);
            while (next[part] < count[part] && model[part][next[part]] != ANSWER_WAIT)
                next[part]++;
            FUZZ_CHECK(r == (next[part] < count[part] ? 0 : -EPROTO));
            if (r == 0) {
                if (ref_is_block(ref))
                    model[part][next[part]] = ref;
                next[part]++;
            }
        }
        all &= r == 0;
    }
    answers_close(&a);
    unlinkat(dirfd_, "answers", 0);
    return all;
}

const struct fuzz_kind fuzz_kinds[] = {
    {"plan", 0, 0, plan_seed, plan_mend, plan_feed},
    {"answers", 0, 0, answers_seed, NULL, answers_feed},
};
const unsigned fuzz_nkinds = sizeof fuzz_kinds / sizeof fuzz_kinds[0];
