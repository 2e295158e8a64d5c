/* SPDX-License-Identifier: Apache-2.0 */
/* dump: base and delta files of the index, page by page. It uses no code of fpindex, only the tables of docs/FORMAT.md "Index". */
#include "base/endian.h"
#include "check/dump_internal.h"
#include "format/ref.h"
#include "format/seal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

enum { KEY = 24, ENTRY = 32, HEAD = 16, PAGE_ENTRIES = 127, PAGE_FENCES = 1020, KIND_DATA = 1, KIND_FENCE = 2 };

struct index_header { uint32_t slot, partition, partitions, bits; uint64_t number, merged_through, entries, pages, fences, seed; };

static void print_header(struct out *o, const struct index_header *h)
{
    bool delta = h->partition == UINT32_MAX;
    out_text(o, "index_kind", delta ? "delta" : "base");
    out_u64(o, "slot", h->slot);
    if (!delta)
        out_u64(o, "partition", h->partition);
    out_u64(o, "partitions", h->partitions);
    out_u64(o, "bits", h->bits);
    out_u64(o, "number", h->number);
    if (!delta)
        out_u64(o, "merged_through", h->merged_through);
    out_u64(o, "entries", h->entries);
    out_u64(o, "pages", h->pages);
    out_u64(o, "fences", h->fences);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int read_header(struct dump *d, struct index_header *h, struct verr *err)
{
    uint8_t p[PAGE_BYTES];
    int r = dump_read(d, 0, p, sizeof p, err);
    if (r < 0)
        return r;
    const char *why = NULL;
    r = seal_open(&(struct seal){.kind = SEAL_INDEX, .anywhere = true}, p, PAGE_BYTES, &why);
    if (r < 0)
        return verr_set(err, -r, "header: %s", why);
    *h = (struct index_header){
        .slot = get_le32(p + 12), .partition = get_le32(p + 16), .partitions = get_le32(p + 20),
        .bits = get_le32(p + 24), .number = get_le64(p + 32), .merged_through = get_le64(p + 40), .entries = get_le64(p + 48),
        .pages = get_le64(p + 56), .fences = get_le64(p + 64), .seed = get_le64(p + 72),
    };
    if (!all_zero(p + 28, 4) || !all_zero(p + 80, 48) || !all_zero(p + 640, PAGE_BYTES - 8 - 640) ||
        (h->partition != UINT32_MAX && !all_zero(p + 128, 512)))
        return verr_set(err, EBADMSG, "header: bytes that must be zero are not");
    if (h->pages != h->entries / PAGE_ENTRIES + (h->entries % PAGE_ENTRIES != 0) || h->pages > d->size / PAGE_BYTES)
        return verr_set(err, EBADMSG, "header: %" PRIu64 " entries do not fit %" PRIu64 " pages", h->entries, h->pages);
    return 0;
}

/* Reads and checks a page. The number of its items, or -EBADMSG. */
static int read_page(struct dump *d, uint64_t off, unsigned kind, uint64_t number, uint64_t seed, uint8_t page[PAGE_BYTES],
                     struct verr *err)
{
    int r = dump_read(d, off, page, PAGE_BYTES, err);
    if (r < 0)
        return r;
    uint32_t count = get_le16(page + 8), most = kind == KIND_DATA ? PAGE_ENTRIES : PAGE_FENCES;
    const char *why = NULL;
    if (seal_open(&(struct seal){.kind = SEAL_INDEX_PAGE, .file = seed, .number = number}, page, PAGE_BYTES, &why) < 0)
        return verr_set(err, EBADMSG, "page at %" PRIu64 ": %s", off, why);
    if (get_le16(page + 10) != kind || count == 0 || count > most)
        return verr_set(err, EBADMSG, "page at %" PRIu64 ": is another page than belongs there", off);
    size_t used = HEAD + (size_t)count * (kind == KIND_DATA ? ENTRY : 4);
    if (!all_zero(page + used, PAGE_BYTES - used))
        return verr_set(err, EBADMSG, "page at %" PRIu64 ": bytes that must be zero are not", off);
    return (int)count;
}

static int print_entries(struct dump *d, const struct index_header *h, struct verr *err)
{
    uint8_t page[PAGE_BYTES], last[KEY] = {0};
    uint64_t seen = 0;
    int r = 0;
    out_array(&d->out, "entries_list");
    for (uint64_t number = 0; number < h->pages; number++) {
        struct verr why = {0};
        int n = read_page(d, (1 + number) * PAGE_BYTES, KIND_DATA, number, h->seed, page, &why);
        if (n < 0) {
            dump_note(&r, -n, err, "%s", verr_str(&why));
            continue;
        }
        for (int i = 0; i < n; i++) {
            const uint8_t *e = page + HEAD + (size_t)i * ENTRY;
            if (seen++ > 0 && memcmp(last, e, KEY) >= 0)
                dump_note(&r, EBADMSG, err, "page %" PRIu64 ": its keys do not ascend", number);
            memcpy(last, e, KEY);
            out_line(&d->out, NULL);
            out_hex(&d->out, "key", e, KEY);
            out_ref(&d->out, "ref", get_le64(e + KEY));
            out_end(&d->out);
        }
    }
    out_end(&d->out);
    if (seen != h->entries)
        dump_note(&r, EBADMSG, err, "%" PRIu64 " entries found, the header says %" PRIu64, seen, h->entries);
    return r;
}

static int check_fences(struct dump *d, const struct index_header *h, struct verr *err)
{
    uint8_t page[PAGE_BYTES];
    uint64_t pages = h->pages / PAGE_FENCES + (h->pages % PAGE_FENCES != 0), seen = 0;
    for (uint64_t number = 0; number < pages; number++) {
        int n = read_page(d, h->fences + number * PAGE_BYTES, KIND_FENCE, number, h->seed, page, err);
        if (n < 0)
            return n;
        seen += (uint64_t)n;
    }
    if (seen != h->pages)
        return verr_set(err, EBADMSG, "%" PRIu64 " fences for %" PRIu64 " pages", seen, h->pages);
    return 0;
}

int dump_index(struct dump *d, struct verr *err)
{
    struct index_header h;
    int r = read_header(d, &h, err);
    if (r < 0)
        return r;
    print_header(&d->out, &h);
    r = print_entries(d, &h, err);
    return r < 0 ? r : check_fences(d, &h, err);
}
