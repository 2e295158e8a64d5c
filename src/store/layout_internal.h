/* SPDX-License-Identifier: Apache-2.0 */
/* layout: what writer and reader of containers both know about where things lie. */
#ifndef VARVE_STORE_LAYOUT_INTERNAL_H
#define VARVE_STORE_LAYOUT_INTERNAL_H

#include "format/container.h"

#include <stdbool.h>

static inline uint32_t footer_pages(uint32_t entries)
{
    return (entries + FOOTER_PAGE_ENTRIES - 1) / FOOTER_PAGE_ENTRIES;
}

static inline bool container_id_eq(const struct container_id *a, const struct container_id *b)
{
    return a->container == b->container && vid_eq(&a->store, &b->store) && vid_eq(&a->version, &b->version);
}

/* Where the file ends when this is its last trailer; tells whether a trailer lies where it belongs. */
static inline uint64_t trailer_end(const struct ctrailer *t)
{
    return t->footer_off + (uint64_t)footer_pages(t->entries) * FOOTER_PAGE_BYTES + CTRAILER_BYTES;
}

#endif
