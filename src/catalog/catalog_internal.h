/* SPDX-License-Identifier: Apache-2.0 */
/* Insides of the catalog: the connection, its cached statements, and the passage of values into and out of rows. */
#ifndef VARVE_CATALOG_CATALOG_INTERNAL_H
#define VARVE_CATALOG_CATALOG_INTERNAL_H

#include "base/verr.h"
#include "catalog/catalog.h"

#include <pthread.h>
#include <sqlite3.h>

#define CATALOG_FILE "catalog.sqlite"
#define CATALOG_SUM CATALOG_FILE ".sum"

enum { CATALOG_VERSION = 1, CATALOG_APPLICATION = 0x76727663 /* "vrvc" */, CATALOG_BATCH = 64 };

/* Texts in catalog_schema.c. */
enum catalog_sql {
    SQL_BEGIN, SQL_COMMIT, SQL_ROLLBACK,
    SQL_NODE_PUT, SQL_NODE_DEL, SQL_NODE_BY_ID, SQL_NODE_BY_INO, SQL_NODE_BY_NAME, SQL_NODE_CHILDREN, SQL_NODE_COUNT, SQL_NODE_EACH,
    SQL_SNAP_PUT, SQL_SNAP_DEL, SQL_SNAP_BY_ID, SQL_SNAP_BY_INO, SQL_SNAP_BY_LABEL, SQL_SNAP_BY_TIME, SQL_SNAP_LIST, SQL_SNAP_BACK, SQL_SNAP_LATEST,
    SQL_SNAP_COUNT, SQL_SNAP_EACH, SQL_SNAP_DISKS,
    SQL_DISK_COUNT, SQL_SUMS, SQL_SET, SQL_GET,
    SQL_COUNT
};
extern const char *const catalog_sql[SQL_COUNT];

/* Brings the schema from user_version `from` to CATALOG_VERSION; the caller holds a transaction. An SQLite code. */
int catalog_migrate(sqlite3 *db, int from);

/*
 * lock (recursive) guards all fields and the connection. While it is free: depth is 0, doomed is false, no statement is
 * in the middle of a result.
 */
struct catalog {
    pthread_mutex_t lock;
    sqlite3 *db;
    char *path;                             /* for messages */
    int dirfd;                              /* STATE */
    unsigned depth;                         /* nested catalog_begin of the thread that holds the lock */
    bool doomed;                            /* an inner part was rolled back: the whole must be */
    sqlite3_stmt *stmt[SQL_COUNT];          /* prepared when first used */
};

/* ---- catalog_sum.c: while SQLite does not have the file open ---- */
/* Durable on return. */
int catalog_sum_write(int dirfd);
/* Compares the file with its sum and takes the sum away: 1 it is what it was when it was closed, 0 there is no sum, -EBADMSG. */
int catalog_sum_take(int dirfd);

/* Turns an SQLite code into -errno and fills err. */
int catalog_fail(struct catalog *c, int rc, const char *what, struct verr *err);
/* A row that makes no sense: -EBADMSG. */
int catalog_bad_row(struct catalog *c, const char *table, const char *column, struct verr *err);

/* A use of a statement: catalog_use locks; bind, step and read follow; catalog_done resets and unlocks. */
struct catalog_use { struct catalog *c; sqlite3_stmt *s; int col; int rc; const char *bad; };
int catalog_use(struct catalog *c, enum catalog_sql which, struct catalog_use *u, struct verr *err);
void catalog_done(struct catalog_use *u);
/* 1 a row, 0 the end, -errno. */
int catalog_step(struct catalog_use *u, const char *what, struct verr *err);
/* For statements without result. */
int catalog_run(struct catalog_use *u, const char *what, struct verr *err);

/* Binding, one parameter after the other. The first failure is kept in u->rc and reported by catalog_step. */
void bind_int(struct catalog_use *u, int64_t v);
void bind_u64(struct catalog_use *u, uint64_t v);
void bind_id(struct catalog_use *u, const struct vid *id);
void bind_bytes(struct catalog_use *u, const void *data, size_t len);
void bind_text(struct catalog_use *u, const char *text);

/* Reading, one column after the other. The first column that makes no sense is kept in u->bad. */
int64_t read_int(struct catalog_use *u, const char *column, int64_t min, int64_t max);
uint32_t read_u32(struct catalog_use *u, const char *column);
uint64_t read_u64(struct catalog_use *u, const char *column);      /* up to INT64_MAX */
void read_id(struct catalog_use *u, const char *column, struct vid *out);
/* A blob or text of at most cap - 1 bytes without NUL. */
void read_bytes(struct catalog_use *u, const char *column, int type, char *out, size_t cap);

#endif
