/* SPDX-License-Identifier: Apache-2.0 */
/* walk: reads all sealed sections of one container, for rebuild, verify and dump. It reads the file anew and fills no cache. */
#include "base/verr.h"
#include "store/read_internal.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef int (*walk_fn)(void *ctx, uint64_t ref, const struct footer_entry *entry);

struct walk {
    struct creader *r;
    struct cfile *c;
    walk_fn fn;
    void *ctx;
    int damage;         /* first error; the walk goes on behind it */
    struct verr *err;
};

static int walk_page(struct walk *wk, const struct section *s, uint32_t page)
{
    struct footer_entry e[FOOTER_PAGE_ENTRIES];
    uint32_t n;
    int code = footer_page_read(wk->r, wk->c, s, page, e, &n, wk->damage == 0 ? wk->err : NULL);
    if (code < 0) {
        if (wk->damage == 0)
            wk->damage = code;
        return 0;
    }
    uint64_t ref = ref_make(wk->c->number, s->first_ordinal + page * FOOTER_PAGE_ENTRIES);
    for (uint32_t i = 0; code == 0 && i < n; i++)
        code = wk->fn(wk->ctx, ref + i, &e[i]);
    return code;
}

static int walk_section(struct walk *wk, const struct section *s)
{
    int code = 0;
    for (uint32_t page = 0; code == 0 && page * FOOTER_PAGE_ENTRIES < s->entries; page++)
        code = walk_page(wk, s, page);
    return code;
}

/* Copies the list of sections, because another thread that meets an unknown ordinal may add sections to it. */
static uint32_t sections_copy(struct cfile *c, struct section **out, struct container_info *info, bool *damaged)
{
    pthread_mutex_lock(&c->lock);
    uint32_t n = c->nsections;
    struct section *copy = calloc(n + 1, sizeof *copy);
    if (copy != NULL && n > 0)
        memcpy(copy, c->section, n * sizeof *copy);
    *info = (struct container_info){.type = c->type, .flags = c->flags, .file_bytes = c->seen_size, .sealed_bytes = c->sealed_end,
                                    .sections = n, .torn_tail = c->unborn || c->seen_size > c->sealed_end};
    *damaged = c->damaged;
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; copy != NULL && i < n; i++)
        info->entries += copy[i].entries;
    *out = copy;
    return n;
}

int container_walk(struct creader *r, uint64_t number, struct container_info *info,
                   int (*fn)(void *ctx, uint64_t ref, const struct footer_entry *entry), void *ctx, struct verr *err)
{
    struct walk wk = {.r = r, .fn = fn, .ctx = ctx, .err = err};
    creader_forget(r, number);
    int code = cfile_get(r, number, &wk.c, err);
    if (code < 0)
        return code;
    struct container_info seen;
    struct section *section;
    bool damaged;
    uint32_t n = sections_copy(wk.c, &section, &seen, &damaged);
    if (section == NULL)
        code = verr_set(err, ENOMEM, "walking a container: out of memory");
    else if (info != NULL)
        *info = seen;
    for (uint32_t i = 0; code == 0 && fn != NULL && i < n; i++)
        code = walk_section(&wk, &section[i]);
    if (code == 0 && wk.damage == 0 && damaged)
        wk.damage = cfile_fail(r, wk.c, EBADMSG, "a section inside the file is damaged", err);
    free(section);
    cfile_put(r, wk.c);
    return code != 0 ? code : wk.damage;
}
