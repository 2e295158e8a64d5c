/* SPDX-License-Identifier: Apache-2.0 */
/* dump: small records: node, store.conf, owner, deletion log. */
#include "check/dump_internal.h"
#include "format/deletions.h"
#include "format/node.h"
#include "format/owner.h"
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

int dump_owner(struct dump *d, struct verr *err)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct owner_record o;
    const char *why = "damaged";
    int r = dump_load(d, &data, &len, err);
    if (r < 0)
        return r;
    r = owner_decode(data, len, NULL, &o, &why);
    free(data);
    if (r < 0)
        return verr_set(err, -r, "owner record: %s", why);
    jsonw_id(&d->w, "store", &o.store);
    jsonw_id(&d->w, "vm", &o.vm);
    jsonw_id(&d->w, "host", &o.host);
    jsonw_u64(&d->w, "epoch", o.epoch);
    return 0;
}

int dump_deletions(struct dump *d, struct verr *err)
{
    uint8_t *data = NULL;
    size_t len = 0;
    struct deletion_log log;
    const char *why = "damaged";
    int r = dump_load(d, &data, &len, err);
    if (r < 0)
        return r;
    r = deletion_log_decode(data, len, NULL, &log, &why);
    if (r < 0) {
        free(data);
        return verr_set(err, -r, "deletion log: %s", why);
    }
    jsonw_id(&d->w, "store", &log.store);
    jsonw_u64(&d->w, "generation", log.generation);
    jsonw_u64(&d->w, "count", log.n);
    jsonw_array(&d->w, "refs");
    for (uint64_t i = 0; i < log.n; i++)
        jsonw_ref(&d->w, NULL, deletion_log_ref(&log, i));
    jsonw_end(&d->w);
    free(data);
    return 0;
}
