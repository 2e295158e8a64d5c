/* SPDX-License-Identifier: Apache-2.0 */
#include "base/id.h"

#include "base/endian.h"
#include "base/hex.h"
#include "base/vlog.h"

#include <errno.h>
#include <stddef.h>
#include <sys/random.h>

void random_bytes(void *buf, size_t n)
{
    uint8_t *p = buf;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            vbug("getrandom: %s", strerror(errno));
        }
        p += got;
        n -= (size_t)got;
    }
}

struct vid vid_random(void)
{
    struct vid id = {{0}};
    random_bytes(id.b, sizeof id.b);
    return id;
}

void vid_hex(const struct vid *id, char out[VID_HEX])
{
    hex_print(id->b, VID_BYTES, out);
}

int vid_parse(const char *text, struct vid *out)
{
    struct vid id = {0};
    if (hex_bytes(text, id.b, VID_BYTES) < 0 || text[VID_HEX - 1] != '\0')
        return -EINVAL;
    *out = id;
    return 0;
}

bool vid_is_zero(const struct vid *id)
{
    static const struct vid zero;
    return vid_eq(id, &zero);
}

uint64_t vid_ino(const struct vid *id)
{
    uint64_t ino = get_le64(id->b) >> 2;
    return ino < 1024 ? ino + 1024 : ino;
}
