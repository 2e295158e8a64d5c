/* SPDX-License-Identifier: Apache-2.0 */
/* layout: where parts of a container lie, for writer and reader. */
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

/* The end of the trailer, as its own fields say; a trailer that ends elsewhere does not belong there. */
static inline uint64_t trailer_end(const struct ctrailer *t)
{
    return t->footer_off + (uint64_t)footer_pages(t->entries) * FOOTER_PAGE_BYTES + CTRAILER_BYTES;
}

#endif
