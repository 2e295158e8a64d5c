/* SPDX-License-Identifier: Apache-2.0 */
/* dump: small records: node, store.conf, owner, deletion log. */
#include "base/endian.h"
#include "base/hash.h"
#include "check/dump_internal.h"
#include "format/node.h"
#include "format/ref.h"
#include "format/storeconf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int dump_node(struct dump *d, struct verr *err)
{
    static const char *const flag_names[] = { "gone", "selective" };
    uint8_t *data = NULL;
    size_t len = 0;
    struct node n;
    const char *why = "damaged";
    int r = dump_load(d, &data, &len, err);
    if (r < 0)
        return r;
    r = node_decode(data, len, &n, &why);
    free(data);
    if (r < 0)
        return verr_set(err, -r, "node record: %s", why);
    jsonw_id(&d->w, "id", &n.id);
    jsonw_id(&d->w, "parent", &n.parent);
    jsonw_id(&d->w, "replaces", &n.replaces);
    jsonw_u64(&d->w, "version", n.version);
    jsonw_text(&d->w, "node_kind", n.kind == NODE_DIR ? "directory" : "disk");
    jsonw_flags(&d->w, "flags", n.flags, flag_names, 2);
    jsonw_text(&d->w, "name", n.name);
    jsonw_u64(&d->w, "mode", n.mode);
    jsonw_u64(&d->w, "uid", n.uid);
    jsonw_u64(&d->w, "gid", n.gid);
    jsonw_i64(&d->w, "atime_ns", n.atime_ns);
    jsonw_i64(&d->w, "mtime_ns", n.mtime_ns);
    jsonw_i64(&d->w, "ctime_ns", n.ctime_ns);
    jsonw_i64(&d->w, "btime_ns", n.btime_ns);
    return 0;
}

/* The digest key stays out: who has the dump must not be able to compare segments. */
int dump_store_conf(struct dump *d, struct verr *err)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct store_conf c;
    char why[128] = "damaged";
    int r = dump_load(d, &data, &len, err);
    if (r < 0)
        return r;
    r = storeconf_decode((const char *)data, len, &c, why);
    explicit_bzero(data, len);
    free(data);
    if (r < 0)
        return verr_set(err, -r, "store.conf: %s", why);
    jsonw_id(&d->w, "id", &c.id);
    jsonw_u64(&d->w, "version", c.version);
    jsonw_text(&d->w, "fingerprint", c.fingerprint == STORECONF_SHA1 ? "sha1" : "sha256");
    jsonw_u64(&d->w, "block_bytes", c.block_bytes);
    jsonw_bool(&d->w, "cdc", c.cdc);
    jsonw_u64(&d->w, "slots", c.slots);
    jsonw_u64(&d->w, "partitions", c.partitions);
    jsonw_text(&d->w, "digest_key", "(not shown)");
    jsonw_i64(&d->w, "created", c.created);
    explicit_bzero(&c, sizeof c);
    return 0;
}

/* ---- owner record (docs/FORMAT.md "Owner record") ---- */

int dump_owner(struct dump *d, struct verr *err)
{
    enum { BYTES = 88 };
    struct vid id;
    if (d->size != BYTES)
        return verr_set(err, EBADMSG, "owner record: has %" PRIu64 " bytes, not %d", d->size, BYTES);
    if (get_le64(d->head + 80) != hash64(d->head, 80))
        return verr_set(err, EBADMSG, "owner record: wrong checksum");
    if (get_le32(d->head + 8) != 1)
        return verr_set(err, ENOTSUP, "owner record: version %" PRIu32 " is not known", get_le32(d->head + 8));
    if (get_le32(d->head + 12) != 0 || get_le64(d->head + 72) != 0)
        return verr_set(err, EBADMSG, "owner record: bytes that must be zero are not");
    memcpy(id.b, d->head + 16, VID_BYTES);
    jsonw_id(&d->w, "store", &id);
    memcpy(id.b, d->head + 32, VID_BYTES);
    jsonw_id(&d->w, "vm", &id);
    memcpy(id.b, d->head + 48, VID_BYTES);
    jsonw_id(&d->w, "host", &id);
    jsonw_u64(&d->w, "epoch", get_le64(d->head + 64));
    return 0;
}

/* ---- deletion log (docs/FORMAT.md "Deletion log") ---- */

int dump_deletions(struct dump *d, struct verr *err)
{
    enum { HEAD = 48, TAIL = 8 };
    uint8_t *log = NULL;
    size_t len = 0;
    int r = dump_load(d, &log, &len, err);
    if (r < 0)
        return r;
    if (len < HEAD + TAIL || (len - HEAD - TAIL) % 8 != 0) {
        r = verr_set(err, EBADMSG, "deletion log: %zu bytes are no length of one", len);
        goto out;
    }
    if (get_le64(log + len - TAIL) != hash64(log, len - TAIL))
        dump_note(&r, EBADMSG, err, "deletion log: wrong checksum");
    else if (get_le32(log + 8) != 1)
        dump_note(&r, ENOTSUP, err, "deletion log: version %" PRIu32 " is not known", get_le32(log + 8));
    else if (get_le32(log + 12) != 0)
        dump_note(&r, EBADMSG, err, "deletion log: bytes that must be zero are not");
    else if (get_le64(log + 40) != (len - HEAD - TAIL) / 8)
        dump_note(&r, EBADMSG, err, "deletion log: its count does not fit its length");
    if (r < 0)
        goto out;
    struct vid store;
    memcpy(store.b, log + 16, VID_BYTES);
    jsonw_id(&d->w, "store", &store);
    jsonw_u64(&d->w, "generation", get_le64(log + 32));
    jsonw_u64(&d->w, "count", get_le64(log + 40));
    jsonw_array(&d->w, "refs");
    for (size_t at = HEAD; at < len - TAIL; at += 8) {
        jsonw_ref(&d->w, NULL, get_le64(log + at));
        if (at > HEAD && get_le64(log + at - 8) >= get_le64(log + at))
            dump_note(&r, EBADMSG, err, "deletion log: references at %zu are not in order", at);
    }
    jsonw_end(&d->w);
out:
    free(log);
    return r;
}
