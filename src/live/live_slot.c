/* SPDX-License-Identifier: Apache-2.0 */
/* live_slot: presence slots in memory: which pages of a segment a layer decides, and how many of them are allocated. */
#include "live/live_level.h"

static bool bit(const uint64_t *words, unsigned page)
{
    return words[page / 64] >> (page % 64) & 1;
}

enum page_state lslot_page(const struct live_slot *s, unsigned page)
{
    if (!bit(s->present, page))
        return PAGE_ABSENT;
    return bit(s->zero, page) ? PAGE_ZERO : PAGE_DATA;
}

void lslot_set(struct live_slot *s, unsigned page, enum page_state st)
{
    uint64_t mask = UINT64_C(1) << (page % 64);
    s->present[page / 64] |= mask;
    if (st == PAGE_ZERO)
        s->zero[page / 64] |= mask;
    else
        s->zero[page / 64] &= ~mask;
}

unsigned lslot_data_pages(const struct live_slot *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LIVE_WORDS; i++)
        n += (unsigned)__builtin_popcountll(s->present[i] & ~s->zero[i]);
    return n;
}

unsigned lslot_present(const struct live_slot *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < LIVE_WORDS; i++)
        n += (unsigned)__builtin_popcountll(s->present[i]);
    return n;
}

uint32_t lslot_run(const struct live_slot *s, uint32_t off, uint32_t len, enum page_state *st)
{
    uint32_t end = off + len, at = off / PAGE_BYTES * PAGE_BYTES;
    enum page_state first = lslot_page(s, off / PAGE_BYTES);
    do
        at += PAGE_BYTES;
    while (at < end && lslot_page(s, at / PAGE_BYTES) == first);
    *st = first;
    return (at < end ? at : end) - off;
}

unsigned lslot_alloc(const struct live_slot *s, unsigned base)
{
    unsigned present = lslot_present(s);
    return present == 0 ? base : lslot_data_pages(s) + s->absent;
}
