/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index files: bytes <-> structs (docs/FORMAT.md "Index"). Pure: no I/O, no memory.
 *
 * Every page but the last of its kind is full, so all places follow from the number of entries, and a file of another size is
 * known to be torn without reading it.
 */
#include "fpindex/fpindex_internal.h"

#include "format/seal.h"

#include <errno.h>

enum {  /* header page, behind magic (8) and version (4) */
    H_SLOT = 12, H_PARTITION = 16, H_PARTITIONS = 20, H_BITS = 24, H_ZERO = 28, H_NUMBER = 32, H_MERGED = 40,
    H_ENTRIES = 48, H_PAGES = 56, H_FENCES = 64, H_SEED = 72, H_PRESENT = 128, H_CHECKSUM = PAGE_BYTES - SEAL_BYTES,
};
enum { P_COUNT = 8, P_KIND = 10 };     /* behind the checksum (8); the page's number (4) follows */

_Static_assert(FPI_HEAD + FPI_PAGE_ENTRIES * FPI_ENTRY <= PAGE_BYTES, "entries fit a page");
_Static_assert(FPI_HEAD + FPI_PAGE_FENCES * 4 <= PAGE_BYTES, "fences fit a page");
_Static_assert(FPKEY_BYTES + 8 == FPI_ENTRY, "an entry is a key and a reference");
_Static_assert(H_PRESENT + FPI_PRESENT_BYTES <= H_CHECKSUM, "the header fits its page");

uint64_t fpi_data_pages(uint64_t entries)
{
    return entries / FPI_PAGE_ENTRIES + (entries % FPI_PAGE_ENTRIES != 0);
}

uint64_t fpi_fence_pages(uint64_t data_pages)
{
    return data_pages / FPI_PAGE_FENCES + (data_pages % FPI_PAGE_FENCES != 0);
}

uint64_t fpi_file_bytes(uint64_t entries)
{
    uint64_t pages = fpi_data_pages(entries);
    return (1 + pages + fpi_fence_pages(pages)) * PAGE_BYTES;
}

void fpi_header_encode(const struct fpi_header *h, uint8_t out[PAGE_BYTES])
{
    uint64_t pages = fpi_data_pages(h->entries);
    memset(out, 0, PAGE_BYTES);
    put_le32(out + H_SLOT, h->slot);
    put_le32(out + H_PARTITION, h->partition);
    put_le32(out + H_PARTITIONS, h->partitions);
    put_le32(out + H_BITS, h->bits);
    put_le64(out + H_MERGED, h->merged_through);
    put_le64(out + H_ENTRIES, h->entries);
    put_le64(out + H_PAGES, pages);
    put_le64(out + H_FENCES, (1 + pages) * PAGE_BYTES);
    put_le64(out + H_SEED, h->seed);
    memcpy(out + H_PRESENT, h->present, sizeof h->present);
    seal_close(&(struct seal){.kind = SEAL_INDEX, .number = h->number}, out, PAGE_BYTES);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static uint64_t present_partitions(const struct fpi_header *h)
{
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof h->present; i++)
        n += (uint64_t)__builtin_popcount(h->present[i]);
    return n;
}

/* What is wrong in a header whose checksum is right; such a file was not made by varve. NULL: nothing. */
static const char *header_doubt(const uint8_t *in, const struct fpi_header *h)
{
    uint64_t pages = fpi_data_pages(h->entries);
    if (h->number == 0 || h->bits > FPI_BITS_MAX)
        return "a field is out of range";
    if (h->partitions == 0 || h->partitions > FPI_PARTITIONS_MAX || (h->partitions & (h->partitions - 1)) != 0)
        return "the number of partitions is not a power of two up to 4096";
    if (h->partitions > UINT32_C(1) << h->bits || h->slot >= FPI_SLOTS_MAX)
        return "slot or number of bits do not fit the partitions";
    if (h->partition != FPI_DELTA && h->partition >= h->partitions)
        return "the partition is not one of the slot";
    if (pages > FPI_PAGES_MAX || get_le64(in + H_PAGES) != pages || get_le64(in + H_FENCES) != (1 + pages) * PAGE_BYTES)
        return "the places of its parts do not fit the number of entries";
    bool delta = h->partition == FPI_DELTA;
    if (delta ? h->merged_through != 0 : !all_zero(h->present, sizeof h->present))
        return "a field of the other kind of file is set";
    if (delta && (present_partitions(h) == 0) != (h->entries == 0))
        return "it has entries of no partition, or partitions without entries";
    if (delta && present_partitions(h) > h->entries)
        return "it has more partitions than entries";
    for (uint32_t i = h->partitions; delta && i < FPI_PARTITIONS_MAX; i++)
        if ((h->present[i / 8] >> (i % 8) & 1) != 0)
            return "it has entries of a partition that the slot does not have";
    if (!all_zero(in + H_ZERO, H_NUMBER - H_ZERO) || !all_zero(in + H_SEED + 8, H_PRESENT - H_SEED - 8) ||
        !all_zero(in + H_PRESENT + FPI_PRESENT_BYTES, H_CHECKSUM - H_PRESENT - FPI_PRESENT_BYTES))
        return "bytes are set that no field has";
    return NULL;
}

int fpi_header_decode(const uint8_t in[PAGE_BYTES], struct fpi_header *out, const char **why)
{
    struct fpi_header h = {
        .slot = get_le32(in + H_SLOT), .partition = get_le32(in + H_PARTITION), .partitions = get_le32(in + H_PARTITIONS),
        .bits = get_le32(in + H_BITS), .number = get_le64(in + H_NUMBER), .merged_through = get_le64(in + H_MERGED),
        .entries = get_le64(in + H_ENTRIES), .seed = get_le64(in + H_SEED),
    };
    memcpy(h.present, in + H_PRESENT, sizeof h.present);
    int r = seal_open(&(struct seal){.kind = SEAL_INDEX, .anywhere = true}, in, PAGE_BYTES, why);
    if (r < 0)
        return r;
    *why = header_doubt(in, &h);
    if (*why != NULL)
        return -EBADMSG;
    *out = h;
    return 0;
}

void fpi_page_seal(uint8_t page[PAGE_BYTES], enum fpi_kind kind, uint32_t number, uint32_t count, uint64_t seed)
{
    size_t used = FPI_HEAD + (size_t)count * (kind == FPI_DATA ? FPI_ENTRY : 4);
    memset(page + used, 0, PAGE_BYTES - used);
    put_le16(page + P_COUNT, (uint16_t)count);
    put_le16(page + P_KIND, (uint16_t)kind);
    seal_close(&(struct seal){.kind = SEAL_INDEX_PAGE, .file = seed, .number = number}, page, PAGE_BYTES);
}

int fpi_page_check(const uint8_t page[PAGE_BYTES], enum fpi_kind kind, uint32_t number, uint64_t total, uint64_t seed)
{
    uint32_t count = get_le16(page + P_COUNT), most = kind == FPI_DATA ? FPI_PAGE_ENTRIES : FPI_PAGE_FENCES;
    uint64_t before = (uint64_t)number * most, left = total > before ? total - before : 0;
    if (get_le16(page + P_KIND) != kind || count == 0 || count != (left < most ? left : most))
        return -EBADMSG;
    if (seal_open(&(struct seal){.kind = SEAL_INDEX_PAGE, .file = seed, .number = number}, page, PAGE_BYTES, NULL) < 0)
        return -EBADMSG;
    size_t used = FPI_HEAD + (size_t)count * (kind == FPI_DATA ? FPI_ENTRY : 4);
    return all_zero(page + used, PAGE_BYTES - used) ? (int)count : -EBADMSG;
}
