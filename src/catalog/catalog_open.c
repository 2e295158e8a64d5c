/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing of catalog.sqlite.
 *
 * The database is locked exclusively for as long as it is open: STATE has one daemon, the index of the log then lives in
 * our memory instead of a mapped file (a full disk under a mapping would be SIGBUS), and a search makes no lock calls.
 * A log file that is still there, and not empty, says that the last process did not close it.
 */
#include "catalog/catalog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK_ALWAYS_BELOW (INT64_C(64) << 20)

/* Makes the file when it is absent (*fresh). *check: the content is to be looked through before it is used. */
static int look_at_file(struct catalog *c, int dirfd, bool *fresh, bool *check, struct verr *err)
{
    struct stat st, wal;
    *fresh = false;
    if (fstatat(dirfd, CATALOG_FILE, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno != ENOENT)
            return verr_set(err, errno, "%s: %s", c->path, strerror(errno));
        /* A log without its database belongs to one that was removed. Our own descriptor on the file is closed before
         * SQLite opens it: closing one later would drop SQLite's locks. */
        unlinkat(dirfd, CATALOG_FILE "-wal", 0);
        unlinkat(dirfd, CATALOG_FILE "-shm", 0);
        unlinkat(dirfd, CATALOG_FILE "-journal", 0);
        unlinkat(dirfd, CATALOG_SUM, 0);
        int fd = openat(dirfd, CATALOG_FILE, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return verr_set(err, errno, "%s: cannot be made: %s", c->path, strerror(errno));
        close(fd);
        *fresh = true;
        *check = false;
        return 0;
    }
    if (!S_ISREG(st.st_mode))
        return verr_set(err, EBADMSG, "%s: is not a regular file", c->path);
    bool unclean = fstatat(dirfd, CATALOG_FILE "-wal", &wal, AT_SYMLINK_NOFOLLOW) == 0 && wal.st_size > 0;
    *check = unclean || st.st_size < CHECK_ALWAYS_BELOW;
    int r = catalog_sum_take(dirfd);
    if (r == -EBADMSG)
        return verr_set(err, EBADMSG, "%s: is not what it was when it was closed (damaged, or another file); it is a cache: "
                        "the next mount or `varve rebuild` makes it anew", c->path);
    if (r < 0)
        return verr_set(err, -r, "%s: its checksum cannot be compared: %s", c->path, strerror(-r));
    return 0;
}

static int configure(struct catalog *c, struct verr *err)
{
    static const char pragmas[] =
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA mmap_size=0; PRAGMA cell_size_check=ON; PRAGMA foreign_keys=OFF;"
        "PRAGMA trusted_schema=OFF; PRAGMA cache_size=-2000; PRAGMA temp_store=MEMORY; PRAGMA synchronous=NORMAL;"
        "PRAGMA journal_size_limit=4194304";
    sqlite3_busy_timeout(c->db, 0);
    int rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->db, pragmas, NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        return catalog_fail(c, rc, "opening", err);

    sqlite3_stmt *s = NULL;
    rc = sqlite3_prepare_v2(c->db, "PRAGMA journal_mode=WAL", -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    bool wal = rc == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "wal") == 0;
    sqlite3_finalize(s);
    if (rc != SQLITE_ROW)
        return catalog_fail(c, rc, "opening", err);
    return wal ? 0 : verr_set(err, EIO, "%s: the filesystem of STATE does not take a write-ahead log", c->path);
}

static int pragma_int(struct catalog *c, const char *sql, int64_t *out, struct verr *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(c->db, sql, -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    int r = 0;
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(s, 0);
    else
        r = catalog_fail(c, rc, "reading its header", err);
    sqlite3_finalize(s);
    return r;
}

static int quick_check(struct catalog *c, struct verr *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(c->db, "PRAGMA quick_check(1)", -1, &s, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    int r = 0;
    if (rc != SQLITE_ROW) {
        r = catalog_fail(c, rc, "checking", err);
    } else {
        const char *text = (const char *)sqlite3_column_text(s, 0);
        if (text == NULL || strcmp(text, "ok") != 0)
            r = verr_set(err, EBADMSG, "%s: damaged (%.200s); it is a cache: unmount and run `varve rebuild`", c->path,
                         text == NULL ? "no answer" : text);
    }
    sqlite3_finalize(s);
    return r;
}

/* One transaction: schema, mark and owner appear together, so that a crash leaves an empty database or a whole one. */
static int make_schema(struct catalog *c, int from, const struct vid *store, struct verr *err)
{
    char pragma[64], hex[VID_HEX];
    sqlite3_snprintf(sizeof pragma, pragma, "PRAGMA application_id=%d", (int)CATALOG_APPLICATION);
    int r = catalog_begin(c, err);
    if (r < 0)
        return r;
    int rc = catalog_migrate(c->db, from);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(c->db, pragma, NULL, NULL, NULL);
    if (rc != SQLITE_OK)
        r = catalog_fail(c, rc, "making the schema", err);
    vid_hex(store, hex);
    if (r == 0 && from == 0)
        r = catalog_set(c, "store", hex, err);
    if (r == 0)
        return catalog_commit(c, err);
    catalog_rollback(c);
    return r;
}

static int check_owner(struct catalog *c, const struct vid *store, struct verr *err)
{
    char hex[VID_HEX], found[VID_HEX];
    vid_hex(store, hex);
    int r = catalog_get(c, "store", found, sizeof found, err);
    if (r == -ENOENT || r == -ERANGE)
        return catalog_bad_row(c, "settings", "store", err);
    if (r == 0 && strcmp(hex, found) != 0)
        r = verr_set(err, EBADMSG, "%s: belongs to store %s, this is store %s; if STATE was moved on purpose, run `varve rebuild`",
                     c->path, found, hex);
    return r;
}

static int identify(struct catalog *c, const struct vid *store, struct verr *err)
{
    int64_t application = 0, version = 0, objects = 0;
    int r = pragma_int(c, "PRAGMA application_id", &application, err);
    if (r == 0)
        r = pragma_int(c, "PRAGMA user_version", &version, err);
    if (r == 0)
        r = pragma_int(c, "SELECT count(*) FROM sqlite_schema", &objects, err);
    if (r < 0)
        return r;
    bool empty = application == 0 && version == 0 && objects == 0;
    if (!empty && (application != CATALOG_APPLICATION || version < 1))
        return verr_set(err, EBADMSG, "%s: is a database of another program; move it away and run `varve rebuild`", c->path);
    if (version > CATALOG_VERSION)
        return verr_set(err, EBADMSG, "%s: has schema %lld, this varve knows %d; use the newer varve or run `varve rebuild`", c->path,
                        (long long)version, CATALOG_VERSION);
    if (version < CATALOG_VERSION)
        r = make_schema(c, (int)version, store, err);
    return r < 0 ? r : check_owner(c, store, err);
}

static int make_lock(struct catalog *c)
{
    pthread_mutexattr_t attr;
    int e = pthread_mutexattr_init(&attr);
    if (e != 0)
        return -e;
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    e = pthread_mutex_init(&c->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    return -e;
}

int catalog_open(int state_dirfd, const char *state_path, const struct vid *store, struct catalog **out, struct verr *err)
{
    struct catalog *c = calloc(1, sizeof *c);
    if (c == NULL || asprintf(&c->path, "%s/" CATALOG_FILE, state_path) < 0) {
        free(c);
        return verr_set(err, ENOMEM, "catalog: out of memory");
    }
    bool fresh = false, check = false;
    int r = make_lock(c);
    if (r < 0) {
        verr_set(err, -r, "catalog: no mutex");
        goto out_free;
    }
    c->dirfd = fcntl(state_dirfd, F_DUPFD_CLOEXEC, 0);
    if (c->dirfd < 0) {
        r = verr_set(err, errno, "%s: %s", state_path, strerror(errno));
        goto out_lock;
    }
    r = look_at_file(c, state_dirfd, &fresh, &check, err);
    if (r < 0)
        goto out_lock;
    /* Our mutex orders all calls, so SQLite's own is left out. */
    int rc = sqlite3_open_v2(c->path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc != SQLITE_OK) {
        r = catalog_fail(c, rc, "opening", err);
        goto out_db;
    }
    r = configure(c, err);
    if (r == 0 && check)
        r = quick_check(c, err);
    if (r == 0)
        r = identify(c, store, err);
    if (r < 0)
        goto out_db;
    *out = c;
    return 0;

out_db:
    for (unsigned i = 0; i < SQL_COUNT; i++)
        sqlite3_finalize(c->stmt[i]);
    sqlite3_close(c->db);
out_lock:
    if (c->dirfd >= 0)
        close(c->dirfd);
    pthread_mutex_destroy(&c->lock);
out_free:
    free(c->path);
    free(c);
    return r;
}

int catalog_close(struct catalog *c, struct verr *err)
{
    if (c == NULL)
        return 0;
    int r = 0;
    for (unsigned i = 0; i < SQL_COUNT; i++)
        sqlite3_finalize(c->stmt[i]);
    int rc = sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    if (rc != SQLITE_OK)
        r = catalog_fail(c, rc, "writing the log back", err);
    rc = sqlite3_close(c->db);
    if (rc != SQLITE_OK && r == 0)
        r = verr_set(err, EIO, "%s: closing: %s", c->path, sqlite3_errstr(rc));
    int sum = r == 0 ? catalog_sum_write(c->dirfd) : 0;
    if (sum < 0)
        r = verr_set(err, -sum, "%s: its checksum cannot be written: %s", c->path, strerror(-sum));
    close(c->dirfd);
    pthread_mutex_destroy(&c->lock);
    free(c->path);
    free(c);
    return r;
}
