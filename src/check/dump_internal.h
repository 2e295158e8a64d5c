/* SPDX-License-Identifier: Apache-2.0 */
/* dump_internal: what the files of dump share: one function for each kind of file. Included inside src/check only. */
#ifndef VARVE_CHECK_DUMP_INTERNAL_H
#define VARVE_CHECK_DUMP_INTERNAL_H

#include "base/verr.h"
#include "check/dump_out.h"

enum { DUMP_HEAD = 128, DUMP_WHOLE_MAX = 64 * 1024 * 1024 };

struct dump {
    const char *path;
    int fd;
    uint64_t size;
    uint8_t head[DUMP_HEAD];        /* first bytes, zero behind the end of the file */
    struct out out;
};

/* Each prints the fields of its kind of file; err gets the first damage, and the function goes on with what can be read. */
int dump_container(struct dump *d, struct verr *err);       /* dump_container.c */
int dump_snapshot(struct dump *d, struct verr *err);        /* dump_recipe.c */
int dump_side_file(struct dump *d, struct verr *err);
int dump_node(struct dump *d, struct verr *err);            /* dump_record.c */
int dump_store_conf(struct dump *d, struct verr *err);
int dump_owner(struct dump *d, struct verr *err);
int dump_deletions(struct dump *d, struct verr *err);
int dump_index(struct dump *d, struct verr *err);           /* dump_index.c */
int dump_journal(struct dump *d, struct verr *err);         /* dump_live.c */
int dump_table(struct dump *d, struct verr *err);
int dump_map(struct dump *d, struct verr *err);
int dump_vol(struct dump *d, struct verr *err);

struct segrcp;
void dump_segment_recipe(struct out *o, const struct segrcp *rcp);    /* dump_recipe.c */

/* Reads exactly n bytes at off. 0; -EBADMSG: the file is shorter; -errno. */
int dump_read(struct dump *d, uint64_t off, void *buf, size_t n, struct verr *err);
/* Reads the whole file, at most DUMP_WHOLE_MAX bytes; the caller frees it. */
int dump_load(struct dump *d, uint8_t **data, size_t *len, struct verr *err);
/* Keeps the first error: *r and err change only while *r is 0. */
void dump_note(int *r, int code, struct verr *err, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
