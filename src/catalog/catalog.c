/* SPDX-License-Identifier: Apache-2.0 */
/* The parts that all catalog calls share: statements, values, errors, transactions, settings. */
#include "catalog/catalog.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "catalog/catalog_internal.h"

/* ---- errors ---- */

static int code_of(sqlite3 *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_NOMEM:
        return ENOMEM;
    case SQLITE_FULL:
        return ENOSPC;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return EBUSY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    case SQLITE_SCHEMA:
    case SQLITE_ERROR:      /* a table or column that our statements name is missing */
        return EBADMSG;
    case SQLITE_CONSTRAINT:
        return EEXIST;
    case SQLITE_TOOBIG:
    case SQLITE_RANGE:
    case SQLITE_MISMATCH:
        return EINVAL;
    case SQLITE_READONLY:
        return EROFS;
    case SQLITE_PERM:
    case SQLITE_AUTH:
        return EACCES;
    case SQLITE_CANTOPEN: {
        int e = db == NULL ? 0 : sqlite3_system_errno(db);
        return e != 0 && e != ENOENT ? e : EIO;     /* ENOENT means that there is no such row */
    }
    default:
        return EIO;
    }
}

int catalog_fail(struct catalog *c, int rc, const char *what, struct verr *err)
{
    int code = code_of(c->db, rc);
    const char *text = sqlite3_errstr(rc & 0xff);
    if (c->db != NULL && (sqlite3_errcode(c->db) & 0xff) == (rc & 0xff))
        text = sqlite3_errmsg(c->db);
    const char *advice = code == EBADMSG ? "; it is a cache: unmount and run `varve rebuild`" : "";
    return verr_set(err, code, "%s: %s: %s%s", c->path, what, text, advice);
}

int catalog_bad_row(struct catalog *c, const char *table, const char *column, struct verr *err)
{
    return verr_set(err, EBADMSG, "%s: a row of %s has no sensible %s; it is a cache: unmount and run `varve rebuild`", c->path, table,
                    column);
}

/* ---- statements ---- */

int catalog_use(struct catalog *c, enum catalog_sql which, struct catalog_use *u, struct verr *err)
{
    *u = (struct catalog_use){.c = c, .col = 1, .rc = SQLITE_OK};
    pthread_mutex_lock(&c->lock);
    int rc = SQLITE_OK;
    if (c->depth > 0 && which > SQL_ROLLBACK && sqlite3_get_autocommit(c->db)) {
        /* SQLite has ended the transaction by itself (out of space or memory): going on would commit call by call. */
        pthread_mutex_unlock(&c->lock);
        return verr_set(err, EIO, "%s: the transaction was lost to an earlier error", c->path);
    }
    if (c->stmt[which] == NULL)
        rc = sqlite3_prepare_v3(c->db, catalog_sql[which], -1, SQLITE_PREPARE_PERSISTENT, &c->stmt[which], NULL);
    if (rc != SQLITE_OK) {
        int r = catalog_fail(c, rc, "preparing a statement", err);
        pthread_mutex_unlock(&c->lock);
        return r;
    }
    u->s = c->stmt[which];
    return 0;
}

void catalog_done(struct catalog_use *u)
{
    sqlite3_reset(u->s);
    sqlite3_clear_bindings(u->s);
    pthread_mutex_unlock(&u->c->lock);
}

int catalog_step(struct catalog_use *u, const char *what, struct verr *err)
{
    int rc = u->rc != SQLITE_OK ? u->rc : sqlite3_step(u->s);
    u->col = 0;
    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : catalog_fail(u->c, rc, what, err);
}

int catalog_run(struct catalog_use *u, const char *what, struct verr *err)
{
    int r = catalog_step(u, what, err);
    catalog_done(u);
    return r < 0 ? r : 0;
}

/* ---- values in ---- */

static void bound(struct catalog_use *u, int rc)
{
    if (u->rc == SQLITE_OK)
        u->rc = rc;
    u->col++;
}

void bind_int(struct catalog_use *u, int64_t v)
{
    bound(u, sqlite3_bind_int64(u->s, u->col, v));
}

void bind_u64(struct catalog_use *u, uint64_t v)
{
    bound(u, v > INT64_MAX ? SQLITE_TOOBIG : sqlite3_bind_int64(u->s, u->col, (int64_t)v));
}

/* Bound without a copy: the caller's bytes outlive the statement's use. */
void bind_id(struct catalog_use *u, const struct vid *id)
{
    bound(u, sqlite3_bind_blob(u->s, u->col, id->b, VID_BYTES, SQLITE_STATIC));
}

void bind_bytes(struct catalog_use *u, const void *data, size_t len)
{
    bound(u, sqlite3_bind_blob64(u->s, u->col, data, len, SQLITE_STATIC));
}

void bind_text(struct catalog_use *u, const char *text)
{
    bound(u, sqlite3_bind_text(u->s, u->col, text, -1, SQLITE_STATIC));
}

/* ---- values out: rows are bytes from outside ---- */

static void doubt(struct catalog_use *u, const char *column)
{
    if (u->bad == NULL)
        u->bad = column;
}

int64_t read_int(struct catalog_use *u, const char *column, int64_t min, int64_t max)
{
    int col = u->col++;
    int64_t v = sqlite3_column_int64(u->s, col);
    if (sqlite3_column_type(u->s, col) != SQLITE_INTEGER || v < min || v > max) {
        doubt(u, column);
        return min;
    }
    return v;
}

uint32_t read_u32(struct catalog_use *u, const char *column)
{
    return (uint32_t)read_int(u, column, 0, UINT32_MAX);
}

uint64_t read_u64(struct catalog_use *u, const char *column)
{
    return (uint64_t)read_int(u, column, 0, INT64_MAX);
}

void read_id(struct catalog_use *u, const char *column, struct vid *out)
{
    int col = u->col++;
    const void *data = sqlite3_column_blob(u->s, col);
    if (sqlite3_column_type(u->s, col) != SQLITE_BLOB || sqlite3_column_bytes(u->s, col) != VID_BYTES || data == NULL) {
        doubt(u, column);
        memset(out, 0, sizeof *out);
        return;
    }
    memcpy(out->b, data, VID_BYTES);
}

void read_bytes(struct catalog_use *u, const char *column, int type, char *out, size_t cap)
{
    int col = u->col++;
    int found = sqlite3_column_type(u->s, col);
    const void *data = sqlite3_column_blob(u->s, col);
    int bytes = sqlite3_column_bytes(u->s, col);
    size_t len = bytes < 0 ? cap : (size_t)bytes;
    out[0] = '\0';
    if (found != type || len >= cap || (len > 0 && (data == NULL || memchr(data, '\0', len) != NULL))) {
        doubt(u, column);
        return;
    }
    if (len > 0)
        memcpy(out, data, len);
    out[len] = '\0';
}

/* ---- transactions ---- */

static int simple(struct catalog *c, enum catalog_sql which, const char *what, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, which, &u, err);
    return r < 0 ? r : catalog_run(&u, what, err);
}

int catalog_begin(struct catalog *c, struct verr *err)
{
    pthread_mutex_lock(&c->lock);
    if (c->depth == 0) {
        int r = simple(c, SQL_BEGIN, "begin", err);
        if (r < 0) {
            pthread_mutex_unlock(&c->lock);
            return r;
        }
    }
    c->depth++;
    return 0;
}

/* Ends the outermost transaction in any case: a commit that fails is a rollback. */
static int finish(struct catalog *c, bool commit, struct verr *err)
{
    int r = 0;
    if (commit && c->doomed)
        r = verr_set(err, ECANCELED, "%s: a part of the transaction was rolled back", c->path);
    else if (commit && sqlite3_get_autocommit(c->db))
        r = verr_set(err, EIO, "%s: the transaction was lost to an earlier error", c->path);
    else if (commit && fault_errno("catalog.commit.before"))
        r = verr_set(err, EIO, "%s: commit: fault injected", c->path);
    else if (commit)
        r = simple(c, SQL_COMMIT, "commit", err);
    if ((r < 0 || !commit) && !sqlite3_get_autocommit(c->db))
        simple(c, SQL_ROLLBACK, "rollback", NULL);
    c->doomed = false;
    return r;
}

int catalog_commit(struct catalog *c, struct verr *err)
{
    int r = 0;
    if (c->depth == 1)
        r = finish(c, true, err);
    c->depth--;
    pthread_mutex_unlock(&c->lock);
    return r;
}

void catalog_rollback(struct catalog *c)
{
    if (c->depth == 1)
        finish(c, false, NULL);
    else
        c->doomed = true;
    c->depth--;
    pthread_mutex_unlock(&c->lock);
}

/* ---- settings ---- */

int catalog_set(struct catalog *c, const char *key, const char *value, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_SET, &u, err);
    if (r < 0)
        return r;
    bind_text(&u, key);
    bind_text(&u, value);
    return catalog_run(&u, "writing a setting", err);
}

int catalog_get(struct catalog *c, const char *key, char *value, size_t cap, struct verr *err)
{
    struct catalog_use u;
    int r = catalog_use(c, SQL_GET, &u, err);
    if (r < 0)
        return r;
    bind_text(&u, key);
    r = catalog_step(&u, "reading a setting", err);
    if (r == 0) {
        r = verr_set(err, ENOENT, "%s: no setting %s", c->path, key);
    } else if (r > 0 && (size_t)sqlite3_column_bytes(u.s, 0) >= cap) {
        r = verr_set(err, ERANGE, "%s: setting %s is longer than %zu bytes", c->path, key, cap);
    } else if (r > 0) {
        read_bytes(&u, "value", SQLITE_TEXT, value, cap);
        r = u.bad != NULL ? catalog_bad_row(c, "settings", u.bad, err) : 0;
    }
    catalog_done(&u);
    return r;
}
