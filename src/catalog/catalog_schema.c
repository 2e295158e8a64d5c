/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The schema of catalog.sqlite (docs/FORMAT.md "Catalog"), its migrations and every statement that is run on it.
 *
 * Ids are 16-byte blobs. Names and notes are bytes, so blobs too: they sort by byte and need not be UTF-8. ino repeats
 * vid_ino(id), so that the kernel's question "what is inode N" is one search. Tables are clustered by id.
 */
#include "catalog/catalog_internal.h"

static const char schema_1[] =
    "CREATE TABLE settings(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE nodes("
    " id BLOB PRIMARY KEY, ino INTEGER NOT NULL, parent BLOB NOT NULL, replaces BLOB NOT NULL, version INTEGER NOT NULL,"
    " kind INTEGER NOT NULL, flags INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL,"
    " atime_ns INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, btime_ns INTEGER NOT NULL,"
    " name BLOB NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX nodes_ino ON nodes(ino);"
    "CREATE UNIQUE INDEX nodes_name ON nodes(parent, name);"
    "CREATE INDEX nodes_kind ON nodes(parent, kind);"
    "CREATE TABLE snaps("
    " id BLOB PRIMARY KEY, ino INTEGER NOT NULL, disk BLOB NOT NULL, parent BLOB NOT NULL, host BLOB NOT NULL, grp BLOB NOT NULL,"
    " seq INTEGER NOT NULL, state INTEGER NOT NULL, flags INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL,"
    " gid INTEGER NOT NULL, protected INTEGER NOT NULL, size INTEGER NOT NULL, alloc_bytes INTEGER NOT NULL,"
    " dirty_segments INTEGER NOT NULL, freeze_ns INTEGER NOT NULL, name_s INTEGER NOT NULL, label TEXT NOT NULL, note BLOB NOT NULL,"
    " l_zero INTEGER NOT NULL, l_clean INTEGER NOT NULL, l_parent_segment INTEGER NOT NULL, l_parent_block INTEGER NOT NULL,"
    " l_common INTEGER NOT NULL, l_global INTEGER NOT NULL, l_dup_new INTEGER NOT NULL, l_fresh INTEGER NOT NULL,"
    " l_stored INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX snaps_ino ON snaps(ino);"
    "CREATE INDEX snaps_seq ON snaps(disk, seq);"
    "CREATE INDEX snaps_label ON snaps(disk, label, seq) WHERE label <> '';"
    "CREATE INDEX snaps_time ON snaps(disk, name_s, seq) WHERE label = '';";

/* migrations[v] leads from version v to v + 1. What is in the table never changes: a new version is a new entry. */
static const char *const migrations[CATALOG_VERSION] = {schema_1};

int catalog_migrate(sqlite3 *db, int from)
{
    int rc = SQLITE_OK;
    for (int v = from; rc == SQLITE_OK && v < CATALOG_VERSION; v++)
        rc = sqlite3_exec(db, migrations[v], NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        char pragma[64];
        sqlite3_snprintf(sizeof pragma, pragma, "PRAGMA user_version=%d", (int)CATALOG_VERSION);
        rc = sqlite3_exec(db, pragma, NULL, NULL, NULL);
    }
    return rc;
}

/* In the order in which catalog_node.c binds and reads them. */
#define NODE_COLUMNS "id,ino,parent,replaces,version,kind,flags,mode,uid,gid,atime_ns,mtime_ns,ctime_ns,btime_ns,name"
#define NODE_FROM "SELECT " NODE_COLUMNS " FROM nodes "
/* In the order in which catalog_snap.c binds and reads them. */
#define LEVEL_COLUMNS "l_zero,l_clean,l_parent_segment,l_parent_block,l_common,l_global,l_dup_new,l_fresh,l_stored"
#define SNAP_COLUMNS                                                                                                     \
    "id,ino,disk,parent,host,grp,seq,state,flags,mode,uid,gid,protected,size,alloc_bytes,dirty_segments,freeze_ns,name_s," \
    "label,note," LEVEL_COLUMNS
#define SNAP_FROM "SELECT " SNAP_COLUMNS " FROM snaps "

/*
 * The upserts name their conflict: REPLACE would silently remove another node that has the same name. Searches name their
 * index: with another one they would answer the same, a thousand times slower, and no test would notice.
 */
const char *const catalog_sql[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_NODE_PUT] = "INSERT INTO nodes(" NODE_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(id) DO UPDATE SET"
                     " parent=excluded.parent,replaces=excluded.replaces,version=excluded.version,kind=excluded.kind,flags=excluded.flags,"
                     "mode=excluded.mode,uid=excluded.uid,gid=excluded.gid,atime_ns=excluded.atime_ns,mtime_ns=excluded.mtime_ns,"
                     "ctime_ns=excluded.ctime_ns,btime_ns=excluded.btime_ns,name=excluded.name",
    [SQL_NODE_DEL] = "DELETE FROM nodes WHERE id=?",
    [SQL_NODE_BY_ID] = NODE_FROM "WHERE id=?",
    [SQL_NODE_BY_INO] = NODE_FROM "INDEXED BY nodes_ino WHERE ino=?",
    [SQL_NODE_BY_NAME] = NODE_FROM "INDEXED BY nodes_name WHERE parent=? AND name=?",
    [SQL_NODE_CHILDREN] = NODE_FROM "INDEXED BY nodes_name WHERE parent=? AND name>? ORDER BY name LIMIT ?",
    [SQL_NODE_COUNT] = "SELECT kind,count(*) FROM nodes INDEXED BY nodes_kind WHERE parent=? GROUP BY kind",
    [SQL_NODE_EACH] = NODE_FROM "WHERE id>? ORDER BY id LIMIT ?",
    [SQL_SNAP_PUT] = "INSERT INTO snaps(" SNAP_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
                     " ON CONFLICT(id) DO UPDATE SET disk=excluded.disk,parent=excluded.parent,host=excluded.host,grp=excluded.grp,"
                     "seq=excluded.seq,state=excluded.state,flags=excluded.flags,mode=excluded.mode,uid=excluded.uid,gid=excluded.gid,"
                     "protected=excluded.protected,size=excluded.size,alloc_bytes=excluded.alloc_bytes,"
                     "dirty_segments=excluded.dirty_segments,freeze_ns=excluded.freeze_ns,name_s=excluded.name_s,label=excluded.label,"
                     "note=excluded.note,l_zero=excluded.l_zero,l_clean=excluded.l_clean,l_parent_segment=excluded.l_parent_segment,"
                     "l_parent_block=excluded.l_parent_block,l_common=excluded.l_common,l_global=excluded.l_global,"
                     "l_dup_new=excluded.l_dup_new,l_fresh=excluded.l_fresh,l_stored=excluded.l_stored",
    [SQL_SNAP_DEL] = "DELETE FROM snaps WHERE id=?",
    [SQL_SNAP_BY_ID] = SNAP_FROM "WHERE id=?",
    [SQL_SNAP_BY_INO] = SNAP_FROM "INDEXED BY snaps_ino WHERE ino=?",
    [SQL_SNAP_BY_LABEL] = SNAP_FROM "INDEXED BY snaps_label WHERE disk=? AND label=? AND label<>'' ORDER BY seq LIMIT 1",
    [SQL_SNAP_BY_TIME] = SNAP_FROM "INDEXED BY snaps_time WHERE disk=? AND name_s=? AND label='' ORDER BY seq LIMIT 1",
    [SQL_SNAP_LIST] = SNAP_FROM "INDEXED BY snaps_seq WHERE disk=? AND seq>? ORDER BY seq,id LIMIT ?",
    [SQL_SNAP_BACK] = SNAP_FROM "INDEXED BY snaps_seq WHERE disk=? AND seq<? ORDER BY seq DESC,id DESC LIMIT ?",
    [SQL_SNAP_LATEST] = SNAP_FROM "INDEXED BY snaps_seq WHERE disk=? AND state=2 ORDER BY seq DESC LIMIT 1",
    [SQL_SNAP_COUNT] = "SELECT count(*) FROM snaps INDEXED BY snaps_seq WHERE disk=?",
    [SQL_SNAP_EACH] = SNAP_FROM "WHERE id>? ORDER BY id LIMIT ?",
    [SQL_SNAP_DISKS] = "SELECT DISTINCT disk FROM snaps INDEXED BY snaps_seq WHERE disk>? ORDER BY disk LIMIT ?",
    [SQL_DISK_COUNT] = "SELECT count(*) FROM nodes WHERE kind=2 AND (flags&1)=0",
    [SQL_SUMS] = "SELECT id,state,size,alloc_bytes," LEVEL_COLUMNS " FROM snaps WHERE id>? ORDER BY id LIMIT ?",
    [SQL_SET] = "INSERT INTO settings(key,value) VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value",
    [SQL_GET] = "SELECT value FROM settings WHERE key=?",
};
