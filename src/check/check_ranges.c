/* SPDX-License-Identifier: Apache-2.0 */
/* ranges: the two sets that verify keeps: places in use (a bit each), and bad references (ranges). */
#include "check/check_internal.h"

#include "format/ref.h"

#include <errno.h>
#include <stdlib.h>

/* ---- places ---- */

static size_t home(const struct placeset *s, uint64_t container)
{
    return (size_t)((container * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (s->cap - 1);
}

static struct placeset_item *probe(const struct placeset *s, uint64_t container)
{
    size_t i = home(s, container);
    while (s->items[i].used && s->items[i].container != container)
        i = (i + 1) & (s->cap - 1);
    return &s->items[i];
}

struct placeset_item *placeset_find(const struct placeset *s, uint64_t container)
{
    if (s->cap == 0)
        return NULL;
    struct placeset_item *item = probe(s, container);
    return item->used ? item : NULL;
}

static int grow(struct placeset *s)
{
    struct placeset bigger = { .cap = s->cap == 0 ? 64 : s->cap * 2, .n = s->n };
    bigger.items = calloc(bigger.cap, sizeof *bigger.items);
    if (bigger.items == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s->cap; i++)
        if (s->items[i].used)
            *probe(&bigger, s->items[i].container) = s->items[i];
    free(s->items);
    *s = bigger;
    return 0;
}

static int widen(struct placeset_item *item, uint32_t nbits)
{
    if (nbits <= item->nbits)
        return 0;
    uint32_t rounded = (nbits + 1023) / 1024 * 1024;
    uint64_t *bits = realloc(item->bits, rounded / 8);
    if (bits == NULL)
        return -ENOMEM;
    memset((uint8_t *)bits + item->nbits / 8, 0, (rounded - item->nbits) / 8);
    item->bits = bits;
    item->nbits = rounded;
    return 0;
}

int placeset_add(struct placeset *s, uint64_t place, uint32_t count)
{
    if (s->n * 2 >= s->cap) {
        int r = grow(s);
        if (r < 0)
            return r;
    }
    struct placeset_item *item = probe(s, ref_container(place));
    if (!item->used) {
        *item = (struct placeset_item){ .container = ref_container(place), .used = true };
        s->n++;
    }
    uint32_t first = ref_ordinal(place);
    int r = widen(item, first + count);
    if (r < 0)
        return r;
    for (uint32_t i = first; i < first + count; i++)
        item->bits[i / 64] |= UINT64_C(1) << i % 64;
    return 0;
}

bool placeset_has(const struct placeset *s, uint64_t place)
{
    const struct placeset_item *item = placeset_find(s, ref_container(place));
    uint32_t i = ref_ordinal(place);
    return item != NULL && i < item->nbits && (item->bits[i / 64] >> i % 64 & 1) != 0;
}

uint64_t placeset_count(const struct placeset_item *item)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < item->nbits / 64; i++)
        n += (uint64_t)__builtin_popcountll(item->bits[i]);
    return n;
}

void placeset_release(struct placeset *s)
{
    for (size_t i = 0; i < s->cap; i++)
        free(s->items[i].bits);
    free(s->items);
    *s = (struct placeset){0};
}

/* ---- bad ranges ---- */

int badlist_add(struct badlist *l, uint64_t first, uint64_t last, int problem)
{
    if (l->n > 0) {
        struct bad *end = &l->v[l->n - 1];
        if (end->problem == problem && first == end->last + 1) {
            end->last = last;
            return 0;
        }
    }
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        struct bad *v = reallocarray(l->v, cap, sizeof *v);
        if (v == NULL)
            return -ENOMEM;
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = (struct bad){ .first = first, .last = last, .problem = problem };
    return 0;
}

static int by_first(const void *a, const void *b)
{
    const struct bad *x = a, *y = b;
    return (x->first > y->first) - (x->first < y->first);
}

void badlist_sort(struct badlist *l)
{
    if (l->n > 1)
        qsort(l->v, l->n, sizeof *l->v, by_first);
    uint64_t reach = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].last > reach)
            reach = l->v[i].last;
        l->v[i].reach = reach;
    }
}

/* `reach` ascends, so binary search finds the first item that can touch the range, even where ranges overlap. */
const struct bad *badlist_next(const struct badlist *l, uint64_t first, uint64_t last, size_t *at)
{
    size_t i = *at;
    if (i == 0) {
        size_t lo = 0, hi = l->n;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (l->v[mid].reach < first)
                lo = mid + 1;
            else
                hi = mid;
        }
        i = lo;
    }
    for (; i < l->n && l->v[i].first <= last; i++) {
        if (l->v[i].last >= first) {
            *at = i + 1;
            return &l->v[i];
        }
    }
    *at = l->n;
    return NULL;
}

void badlist_release(struct badlist *l)
{
    free(l->v);
    *l = (struct badlist){0};
}
