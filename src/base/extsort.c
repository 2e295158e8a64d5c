/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extsort: external merge sort.
 *
 *   filling   records lie in an array; when it is full they are sorted and written as one run behind the runs in the
 *             temporary file
 *   merging   extsort_sorted merges groups of neighbouring runs from one temporary file into another until the rest can be
 *             merged at once, each run through a buffer of at least MERGE_SLICE bytes
 *   reading   extsort_next takes the smallest record of the last merge; without any run it walks the sorted array
 *
 * Stable: the array is merge-sorted, and of equal keys the merge takes the earlier run's first; only neighbours are merged,
 * so that the order of runs stays the order of arrival. All runs of a pass share one file: two descriptors at most.
 * The temporary files have no name and no checksum: they end with the process and hold nothing that safety depends on.
 * Beside `memory` only the list of runs grows: 16 bytes for each time that the array was full.
 */
#include "base/extsort.h"

#include "base/endian.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/id.h"
#include "base/verr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MEMORY_MIN = 64 * 1024, MERGE_SLICE = 12 * 1024, RECORD_MAX = 4096, INSERTION = 12 };

_Static_assert((int)MERGE_SLICE >= (int)RECORD_MAX, "a slice holds at least one record");

/* Sorting moves these instead of records; the first bytes of the key settle nearly every comparison. */
struct entry {
    uint64_t prefix;
    const uint8_t *record;
};

struct run {
    uint64_t first, count; /* in records */
};

struct input { /* one run being merged */
    uint64_t next, left;    /* in the file, not yet in the buffer */
    uint8_t *buf;
    size_t pos, have;       /* in records */
};

struct extsort {
    int dirfd;
    size_t record_len, key_len, memory;
    uint64_t count;
    int failed;             /* -errno of the first error: final */
    bool sorted;

    uint8_t *records;       /* filling */
    struct entry *entries, *spare;
    uint8_t *out;           /* buffer of the run being written */
    size_t capacity, used, out_records, out_used;
    size_t walk;            /* next entry, when there are no runs */

    int fd;                 /* holds the runs; -1: none yet */
    uint64_t written;       /* records in the file being written */
    struct run *runs;
    size_t nruns, runs_room;

    struct input *inputs;   /* merging */
    struct entry *heap;
    uint8_t *buffers;
    size_t nheap, slice;    /* slice: records in one buffer */
};

static uint64_t key_prefix(const struct extsort *xs, const uint8_t *record)
{
    uint8_t b[8] = {0};
    memcpy(b, record, xs->key_len < 8 ? xs->key_len : 8);
    return get_be64(b);
}

static int key_cmp(const struct extsort *xs, const struct entry *a, const struct entry *b)
{
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    return xs->key_len <= 8 ? 0 : memcmp(a->record + 8, b->record + 8, xs->key_len - 8);
}

/* ---- sorting in memory ---- */

static void insertion_sort(const struct extsort *xs, struct entry *e, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        struct entry x = e[i];
        size_t k = i;
        for (; k > 0 && key_cmp(xs, &x, &e[k - 1]) < 0; k--)
            e[k] = e[k - 1];
        e[k] = x;
    }
}

/* The left half moves aside (half of n entries), then both halves are merged back; on equality the left one wins. */
static void merge_sort(const struct extsort *xs, struct entry *e, size_t n, struct entry *spare)
{
    if (n <= INSERTION) {
        insertion_sort(xs, e, n);
        return;
    }
    size_t half = n / 2;
    merge_sort(xs, e, half, spare);
    merge_sort(xs, e + half, n - half, spare);
    if (key_cmp(xs, &e[half - 1], &e[half]) <= 0)
        return;
    memcpy(spare, e, half * sizeof *e);
    size_t left = 0, right = half, to = 0;
    while (left < half && right < n)
        e[to++] = key_cmp(xs, &e[right], &spare[left]) < 0 ? e[right++] : spare[left++];
    memcpy(e + to, spare + left, (half - left) * sizeof *e);
}

static void array_sort(struct extsort *xs)
{
    for (size_t i = 0; i < xs->used; i++) {
        const uint8_t *record = xs->records + i * xs->record_len;
        xs->entries[i] = (struct entry){key_prefix(xs, record), record};
    }
    merge_sort(xs, xs->entries, xs->used, xs->spare);
}

/* ---- memory ---- */

/* record + entry + half an entry aside, for each record; one slice is kept for the run being written. */
static int array_alloc(struct extsort *xs, struct verr *err)
{
    size_t per_record = xs->record_len + sizeof(struct entry) + sizeof(struct entry) / 2;
    xs->capacity = (xs->memory - MERGE_SLICE) / per_record;
    xs->out_records = MERGE_SLICE / xs->record_len;
    xs->records = malloc(xs->capacity * xs->record_len);
    xs->entries = malloc(xs->capacity * sizeof *xs->entries);
    xs->spare = malloc(xs->capacity / 2 * sizeof *xs->spare);
    xs->out = malloc(xs->out_records * xs->record_len);
    if (xs->records == NULL || xs->entries == NULL || xs->spare == NULL || xs->out == NULL)
        return verr_set(err, ENOMEM, "no memory for sorting (%zu bytes)", xs->memory);
    return 0;
}

static void array_free(struct extsort *xs)
{
    free(xs->records);
    free(xs->entries);
    free(xs->spare);
    free(xs->out);
    xs->records = xs->out = NULL;
    xs->entries = xs->spare = NULL;
}

static void merge_free(struct extsort *xs)
{
    free(xs->inputs);
    free(xs->heap);
    free(xs->buffers);
    xs->inputs = NULL;
    xs->heap = NULL;
    xs->buffers = NULL;
}

/* Memory for merging k runs, and for one output if there is one: equal slices of whole records. */
static int merge_alloc(struct extsort *xs, size_t k, bool output, struct verr *err)
{
    size_t fixed = k * (sizeof(struct input) + sizeof(struct entry));
    size_t slices = k + output;
    xs->slice = (xs->memory - fixed) / slices / xs->record_len;
    xs->inputs = calloc(k, sizeof *xs->inputs);
    xs->heap = calloc(k, sizeof *xs->heap);
    xs->buffers = malloc(slices * xs->slice * xs->record_len);
    if (xs->inputs == NULL || xs->heap == NULL || xs->buffers == NULL)
        return verr_set(err, ENOMEM, "no memory for merging (%zu bytes)", xs->memory);
    for (size_t i = 0; i < k; i++)
        xs->inputs[i].buf = xs->buffers + i * xs->slice * xs->record_len;
    return 0;
}

/* How many runs can be merged at once into one output, so that each has MERGE_SLICE bytes: 4 with the least memory. */
static size_t fan_in(const struct extsort *xs)
{
    return xs->memory / (MERGE_SLICE + sizeof(struct input) + sizeof(struct entry)) - 1;
}

/* ---- temporary files ---- */

/* Filesystems without O_TMPFILE (NFS, FUSE) get a name that is taken away at once; a leftover begins with ".tmp-". */
static int temp_open(int dirfd, struct verr *err)
{
    int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT || errno == EINVAL) {
        struct vid id = vid_random();
        char hex[VID_HEX], name[VID_HEX + 8];
        vid_hex(&id, hex);
        snprintf(name, sizeof name, ".tmp-%s", hex);
        fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0 && unlinkat(dirfd, name, 0) == 0)
            return fd;
        int code = errno;
        if (fd >= 0)
            close(fd);
        errno = code;
    }
    return verr_set(err, errno, "temporary file for sorting: %s", strerror(errno));
}

/* Writes n records behind what the file has. */
static int temp_append(struct extsort *xs, int fd, const uint8_t *data, size_t n, struct verr *err)
{
    int r = -fault_errno("base.extsort.write");
    if (r == 0)
        r = pwrite_bulk(fd, data, n * xs->record_len, (off_t)(xs->written * xs->record_len));
    if (r < 0)
        return verr_set(err, -r, "temporary file for sorting: write: %s", strerror(-r));
    xs->written += n;
    return 0;
}

static int run_add(struct extsort *xs, struct run run, struct verr *err)
{
    if (xs->nruns == xs->runs_room) {
        size_t room = xs->runs_room == 0 ? 16 : xs->runs_room * 2;
        struct run *runs = realloc(xs->runs, room * sizeof *runs);
        if (runs == NULL)
            return verr_set(err, ENOMEM, "no memory for %zu runs", room);
        xs->runs = runs;
        xs->runs_room = room;
    }
    xs->runs[xs->nruns++] = run;
    return 0;
}

/* Sorts the array and writes it as one run. */
static int spill(struct extsort *xs, struct verr *err)
{
    if (xs->fd < 0) {
        xs->fd = temp_open(xs->dirfd, err);
        if (xs->fd < 0)
            return xs->fd;
    }
    array_sort(xs);
    uint64_t first = xs->written;
    for (size_t i = 0; i < xs->used;) {
        size_t n = 0;
        for (; n < xs->out_records && i < xs->used; n++, i++)
            memcpy(xs->out + n * xs->record_len, xs->entries[i].record, xs->record_len);
        int r = temp_append(xs, xs->fd, xs->out, n, err);
        if (r < 0)
            return r;
    }
    xs->used = 0;
    return run_add(xs, (struct run){first, xs->written - first}, err);
}

/* ---- merging ---- */

static int input_fill(struct extsort *xs, struct input *in, struct verr *err)
{
    size_t n = in->left < xs->slice ? (size_t)in->left : xs->slice;
    ssize_t got = -fault_errno("base.extsort.read");
    if (got == 0)
        got = pread_full(xs->fd, in->buf, n * xs->record_len, (off_t)(in->next * xs->record_len));
    if (got < 0)
        return verr_set(err, (int)-got, "temporary file for sorting: read: %s", strerror((int)-got));
    if ((size_t)got != n * xs->record_len)
        return verr_set(err, EIO, "temporary file for sorting is shorter than what was written");
    in->next += n;
    in->left -= n;
    in->pos = 0;
    in->have = n;
    return 0;
}

/* In the heap an entry's record points into its input's buffer, and inputs' buffers lie in order of their runs: of equal
 * keys the lower address belongs to the earlier run. */
static bool heap_before(const struct extsort *xs, const struct entry *a, const struct entry *b)
{
    int c = key_cmp(xs, a, b);
    return c != 0 ? c < 0 : a->record < b->record;
}

static void heap_sink(struct extsort *xs, size_t i)
{
    struct entry x = xs->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= xs->nheap)
            break;
        if (child + 1 < xs->nheap && heap_before(xs, &xs->heap[child + 1], &xs->heap[child]))
            child++;
        if (!heap_before(xs, &xs->heap[child], &x))
            break;
        xs->heap[i] = xs->heap[child];
        i = child;
    }
    xs->heap[i] = x;
}

static int merge_start(struct extsort *xs, const struct run *runs, size_t k, struct verr *err)
{
    xs->nheap = 0;
    for (size_t i = 0; i < k; i++) {
        xs->inputs[i].next = runs[i].first;
        xs->inputs[i].left = runs[i].count;
        int r = input_fill(xs, &xs->inputs[i], err);
        if (r < 0)
            return r;
        xs->heap[xs->nheap++] = (struct entry){key_prefix(xs, xs->inputs[i].buf), xs->inputs[i].buf};
    }
    for (size_t i = xs->nheap / 2; i-- > 0;)
        heap_sink(xs, i);
    return 0;
}

/* Copies the smallest record out and replaces it in the heap by its run's next. 1, 0 at the end, -errno. */
static int merge_next(struct extsort *xs, uint8_t *record, struct verr *err)
{
    if (xs->nheap == 0)
        return 0;
    const uint8_t *top = xs->heap[0].record;
    struct input *in = &xs->inputs[(size_t)(top - xs->buffers) / (xs->slice * xs->record_len)];
    memcpy(record, top, xs->record_len);
    in->pos++;
    if (in->pos == in->have && in->left > 0) {
        int r = input_fill(xs, in, err);
        if (r < 0)
            return r;
    }
    if (in->pos < in->have) {
        const uint8_t *next = in->buf + in->pos * xs->record_len;
        xs->heap[0] = (struct entry){key_prefix(xs, next), next};
    } else {
        xs->heap[0] = xs->heap[--xs->nheap];
    }
    if (xs->nheap > 0)
        heap_sink(xs, 0);
    return 1;
}

/* Merges k runs into one run at the end of the file to. */
static int merge_group(struct extsort *xs, const struct run *runs, size_t k, int to, struct verr *err)
{
    uint8_t *out = xs->buffers + k * xs->slice * xs->record_len;
    size_t n = 0;
    int r = merge_start(xs, runs, k, err);
    if (r < 0)
        return r;
    while ((r = merge_next(xs, out + n * xs->record_len, err)) == 1) {
        if (++n < xs->slice)
            continue;
        r = temp_append(xs, to, out, n, err);
        if (r < 0)
            return r;
        n = 0;
    }
    if (r == 0 && n > 0)
        r = temp_append(xs, to, out, n, err);
    return r;
}

/* One pass: groups of up to `fan` neighbouring runs become one run each, in a new file that takes the old one's place. */
static int merge_pass(struct extsort *xs, size_t fan, struct verr *err)
{
    int to = temp_open(xs->dirfd, err);
    if (to < 0)
        return to;
    size_t made = 0;
    int r = 0;
    xs->written = 0;
    for (size_t i = 0; i < xs->nruns && r == 0; i += fan) {
        size_t k = xs->nruns - i < fan ? xs->nruns - i : fan;
        uint64_t first = xs->written;
        r = merge_alloc(xs, k, true, err);
        if (r == 0)
            r = merge_group(xs, xs->runs + i, k, to, err);
        merge_free(xs);
        if (r == 0)
            xs->runs[made++] = (struct run){first, xs->written - first};
    }
    if (r < 0) {
        close(to);
        return r;
    }
    close(xs->fd); /* frees its space: it has no name */
    xs->fd = to;
    xs->nruns = made;
    return 0;
}

static int merge_all(struct extsort *xs, struct verr *err)
{
    size_t fan = fan_in(xs);
    int r = 0;
    if (xs->used > 0)
        r = spill(xs, err);
    array_free(xs); /* before the buffers of the merge are made: one bound for both */
    while (r == 0 && xs->nruns > fan)
        r = merge_pass(xs, fan, err);
    if (r == 0)
        r = merge_alloc(xs, xs->nruns, false, err);
    if (r == 0)
        r = merge_start(xs, xs->runs, xs->nruns, err);
    return r;
}

/* ---- interface ---- */

struct extsort *extsort_new(int dirfd, size_t record_len, size_t key_len, size_t memory, struct verr *err)
{
    if (record_len < 1 || record_len > RECORD_MAX || key_len < 1 || key_len > record_len) {
        verr_set(err, EINVAL, "cannot sort records of %zu bytes with keys of %zu", record_len, key_len);
        return NULL;
    }
    struct extsort *xs = calloc(1, sizeof *xs);
    if (xs == NULL) {
        verr_set(err, ENOMEM, "no memory for a sorter");
        return NULL;
    }
    xs->dirfd = dirfd;
    xs->record_len = record_len;
    xs->key_len = key_len;
    xs->memory = memory < MEMORY_MIN ? MEMORY_MIN : memory;
    xs->fd = -1;
    int r = array_alloc(xs, err);
    if (r < 0) {
        extsort_free(xs);
        return NULL;
    }
    return xs;
}

int extsort_add(struct extsort *xs, const void *record, struct verr *err)
{
    if (xs->failed < 0)
        return verr_set(err, -xs->failed, "sorting failed before: %s", strerror(-xs->failed));
    if (xs->sorted)
        return verr_set(err, EINVAL, "record added to a sorter whose input has ended");
    if (xs->used == xs->capacity) {
        xs->failed = spill(xs, err);
        if (xs->failed < 0)
            return xs->failed;
    }
    memcpy(xs->records + xs->used * xs->record_len, record, xs->record_len);
    xs->used++;
    xs->count++;
    return 0;
}

int extsort_sorted(struct extsort *xs, struct verr *err)
{
    if (xs->failed < 0)
        return verr_set(err, -xs->failed, "sorting failed before: %s", strerror(-xs->failed));
    if (xs->sorted)
        return 0;
    if (xs->nruns == 0)
        array_sort(xs);
    else
        xs->failed = merge_all(xs, err);
    xs->sorted = xs->failed == 0;
    return xs->failed;
}

int extsort_next(struct extsort *xs, void *record, struct verr *err)
{
    if (xs->failed < 0)
        return verr_set(err, -xs->failed, "sorting failed before: %s", strerror(-xs->failed));
    if (!xs->sorted)
        return verr_set(err, EINVAL, "record asked of a sorter whose input has not ended");
    if (xs->nruns > 0) {
        int r = merge_next(xs, record, err);
        if (r < 0)
            xs->failed = r;
        return r;
    }
    if (xs->walk == xs->used)
        return 0;
    memcpy(record, xs->entries[xs->walk++].record, xs->record_len);
    return 1;
}

uint64_t extsort_count(const struct extsort *xs)
{
    return xs->count;
}

void extsort_free(struct extsort *xs)
{
    if (xs == NULL)
        return;
    array_free(xs);
    merge_free(xs);
    free(xs->runs);
    if (xs->fd >= 0)
        close(xs->fd);
    free(xs);
}
