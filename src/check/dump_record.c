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
    out_id(&d->out, "id", &n.id);
    out_id(&d->out, "parent", &n.parent);
    out_id(&d->out, "replaces", &n.replaces);
    out_u64(&d->out, "version", n.version);
    out_text(&d->out, "node_kind", n.kind == NODE_DIR ? "directory" : "disk");
    out_flags(&d->out, "flags", n.flags, flag_names, 2);
    out_text(&d->out, "name", n.name);
    out_u64(&d->out, "mode", n.mode);
    out_u64(&d->out, "uid", n.uid);
    out_u64(&d->out, "gid", n.gid);
    out_i64(&d->out, "atime_ns", n.atime_ns);
    out_i64(&d->out, "mtime_ns", n.mtime_ns);
    out_i64(&d->out, "ctime_ns", n.ctime_ns);
    out_i64(&d->out, "btime_ns", n.btime_ns);
    return 0;
}

/* Leaves out the digest key: with it, a reader of the dump could compare segments. */
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
    out_id(&d->out, "id", &c.id);
    out_u64(&d->out, "version", c.version);
    out_text(&d->out, "fingerprint", c.fingerprint == STORECONF_SHA1 ? "sha1" : "sha256");
    out_u64(&d->out, "block_bytes", c.block_bytes);
    out_bool(&d->out, "cdc", c.cdc);
    out_u64(&d->out, "slots", c.slots);
    out_u64(&d->out, "partitions", c.partitions);
    out_text(&d->out, "digest_key", "(not shown)");
    out_i64(&d->out, "created", c.created);
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
    out_id(&d->out, "store", &o.store);
    out_id(&d->out, "vm", &o.vm);
    out_id(&d->out, "host", &o.host);
    out_u64(&d->out, "epoch", o.epoch);
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
    out_id(&d->out, "store", &log.store);
    out_u64(&d->out, "generation", log.generation);
    out_u64(&d->out, "count", log.n);
    out_array(&d->out, "refs");
    for (uint64_t i = 0; i < log.n; i++)
        out_ref(&d->out, NULL, deletion_log_ref(&log, i));
    out_end(&d->out);
    free(data);
    return 0;
}
