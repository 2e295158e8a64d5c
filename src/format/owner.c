/* SPDX-License-Identifier: Apache-2.0 */
/* Owner record <-> struct owner_record. The offsets below are the table of docs/FORMAT.md "Owner record". */
#include "format/owner.h"

#include "format/record_internal.h"

enum { OWN_ZERO = 12, OWN_STORE = 16, OWN_VM = 32, OWN_HOST = 48, OWN_EPOCH = 64, OWN_RESERVED = 72, OWN_SUM = 80 };
_Static_assert((int)OWN_SUM + (int)RECORD_TAIL == (int)OWNER_BYTES, "the checksum ends the record");

static struct seal seal_at(const struct owner_record *o)
{
    return (struct seal){.kind = SEAL_OWNER, .store = &o->store, .id = &o->vm, .number = o->epoch};
}

int owner_encode(const struct owner_record *o, uint8_t out[OWNER_BYTES])
{
    struct seal s = seal_at(o);
    if (vid_is_zero(&o->host))
        return -EINVAL;
    memset(out, 0, OWNER_BYTES);
    put_vid(out + OWN_HOST, &o->host);
    seal_close(&s, out, OWNER_BYTES);
    return 0;
}

int owner_decode(const uint8_t *data, size_t len, const struct owner_record *want, struct owner_record *out, const char **why)
{
    struct seal s = want != NULL ? seal_at(want) : (struct seal){.kind = SEAL_OWNER, .anywhere = true};
    int r = seal_open(&s, data, len, why);
    if (r < 0)
        return r;
    if (len != OWNER_BYTES)
        return record_bad(why, "wrong length");
    if (!all_zero(data + OWN_ZERO, OWN_STORE - OWN_ZERO) || !all_zero(data + OWN_RESERVED, OWN_SUM - OWN_RESERVED))
        return record_bad(why, "reserved bytes are not zero");
    struct owner_record o = {
        .store = get_vid(data + OWN_STORE), .vm = get_vid(data + OWN_VM), .host = get_vid(data + OWN_HOST),
        .epoch = get_le64(data + OWN_EPOCH),
    };
    if (vid_is_zero(&o.host))
        return record_bad(why, "it names no host");
    *out = o;
    return 0;
}
