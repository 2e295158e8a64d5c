/* SPDX-License-Identifier: Apache-2.0 */
/* Deletion log <-> struct deletion_log. The offsets below are the table of docs/FORMAT.md "Deletion log". */
#include "format/deletions.h"

#include "format/record_internal.h"
#include "format/ref.h"

enum { LOG_ZERO = 12, LOG_STORE = 16, LOG_GENERATION = 32, LOG_COUNT = 40, LOG_REFS = 48, REF_BYTES = 8 };

size_t deletion_log_bytes(uint64_t n)
{
    return n > (DELETION_LOG_MAX - LOG_REFS - RECORD_TAIL) / REF_BYTES ? 0 : LOG_REFS + (size_t)n * REF_BYTES + RECORD_TAIL;
}

static struct seal seal_at(const struct vid *store, uint64_t generation)
{
    return (struct seal){.kind = SEAL_DELETIONS, .store = store, .number = generation};
}

void deletion_log_encode(const struct vid *store, uint64_t generation, const uint64_t *refs, uint64_t n, uint8_t *out)
{
    struct seal s = seal_at(store, generation);
    memset(out, 0, LOG_REFS);
    put_le64(out + LOG_COUNT, n);
    for (uint64_t i = 0; i < n; i++)
        put_le64(out + LOG_REFS + i * REF_BYTES, refs[i]);
    seal_close(&s, out, deletion_log_bytes(n));
}

static const char *refs_problem(const struct deletion_log *log)
{
    for (uint64_t i = 1; i < log->n; i++)
        if (deletion_log_ref(log, i - 1) >= deletion_log_ref(log, i))
            return "references are not in order";
    if (log->n > 0 && !ref_is_block(deletion_log_ref(log, log->n - 1)))    /* reserved ones are the highest */
        return "a reference is none";
    return NULL;
}

int deletion_log_decode(const uint8_t *data, size_t len, const struct deletion_log *want, struct deletion_log *out, const char **why)
{
    struct seal s = want != NULL ? seal_at(&want->store, want->generation) : (struct seal){.kind = SEAL_DELETIONS, .anywhere = true};
    int r = seal_open(&s, data, len, why);
    if (r < 0)
        return r;
    if (!all_zero(data + LOG_ZERO, LOG_STORE - LOG_ZERO))
        return record_bad(why, "reserved bytes are not zero");
    struct deletion_log log = {
        .store = get_vid(data + LOG_STORE), .generation = get_le64(data + LOG_GENERATION), .n = get_le64(data + LOG_COUNT),
        .refs = data + LOG_REFS,
    };
    size_t bytes = deletion_log_bytes(log.n);
    if (bytes == 0 || bytes != len)
        return record_bad(why, "wrong length");
    const char *problem = refs_problem(&log);
    if (problem != NULL)
        return record_bad(why, problem);
    *out = log;
    return 0;
}

uint64_t deletion_log_ref(const struct deletion_log *log, uint64_t i)
{
    return get_le64(log->refs + i * REF_BYTES);
}

bool deletion_log_has(const struct deletion_log *log, uint64_t ref)
{
    uint64_t lo = 0, hi = log->n;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2, at = deletion_log_ref(log, mid);
        if (at == ref)
            return true;
        if (at < ref)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}
