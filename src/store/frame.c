/* SPDX-License-Identifier: Apache-2.0 */
/* frame: zstd level 1 with reused contexts; a frame is decoded again and compared before it can be written. */
#include "store/frame_internal.h"

#include "base/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

enum { FRAME_LEVEL = 1 };

struct funpack {
    ZSTD_DCtx *z;
    uint8_t *in;
};

struct fpack {
    ZSTD_CCtx *z;
    struct funpack *check;
    size_t packed_max;      /* ZSTD_compressBound of a full frame */
    uint8_t *raw;           /* CFRAME_BYTES + FRAME_RAW_MAX */
    uint8_t *packed;        /* CFRAME_BYTES + packed_max */
};

struct funpack *funpack_new(void)
{
    struct funpack *u = calloc(1, sizeof *u);
    if (u == NULL)
        return NULL;
    u->z = ZSTD_createDCtx();
    u->in = malloc(CFRAME_BYTES + FRAME_RAW_MAX);
    if (u->z == NULL || u->in == NULL) {
        funpack_free(u);
        return NULL;
    }
    return u;
}

void funpack_free(struct funpack *u)
{
    if (u == NULL)
        return;
    ZSTD_freeDCtx(u->z);
    free(u->in);
    free(u);
}

uint8_t *funpack_in(struct funpack *u) { return u->in; }

int funpack_open(struct funpack *u, const uint8_t *header, const struct cframe *f, uint8_t *out, const char **why)
{
    const uint8_t *payload = header + CFRAME_BYTES;
    int r = cframe_check(header, payload, why);
    if (r < 0)
        return r;
    if (f->codec == FRAME_STORED) {
        memcpy(out, payload, f->raw_len);
        return 0;
    }
    /* zstd gets the buffer for the whole output, so it needs no window of its own and cannot write behind the buffer. */
    size_t n = ZSTD_decompressDCtx(u->z, out, f->raw_len, payload, f->stored_len);
    if (ZSTD_isError(n) || n != f->raw_len) {
        *why = "compressed data cannot be decoded";
        return -EBADMSG;
    }
    return 0;
}

struct fpack *fpack_new(void)
{
    struct fpack *p = calloc(1, sizeof *p);
    if (p == NULL)
        return NULL;
    p->packed_max = ZSTD_compressBound(FRAME_RAW_MAX);
    p->z = ZSTD_createCCtx();
    p->check = funpack_new();
    p->raw = malloc(CFRAME_BYTES + FRAME_RAW_MAX);
    p->packed = malloc(CFRAME_BYTES + p->packed_max);
    if (p->z == NULL || p->check == NULL || p->raw == NULL || p->packed == NULL) {
        fpack_free(p);
        return NULL;
    }
    return p;
}

void fpack_free(struct fpack *p)
{
    if (p == NULL)
        return;
    ZSTD_freeCCtx(p->z);
    funpack_free(p->check);
    free(p->raw);
    free(p->packed);
    free(p);
}

uint8_t *fpack_raw(struct fpack *p) { return p->raw + CFRAME_BYTES; }

uint8_t *fpack_scratch(struct fpack *p) { return p->packed; }

int fpack_close(struct fpack *p, struct cframe *f, const uint8_t **out, size_t *len, const char **why)
{
    const uint8_t *raw = p->raw + CFRAME_BYTES;
    uint8_t *made = p->packed;
    size_t n = ZSTD_compressCCtx(p->z, p->packed + CFRAME_BYTES, p->packed_max, raw, f->raw_len, FRAME_LEVEL);
    if (!ZSTD_isError(n) && n < f->raw_len) {
        f->codec = FRAME_ZSTD;
        f->stored_len = (uint32_t)n;
    } else {
        f->codec = FRAME_STORED;
        f->stored_len = f->raw_len;
        made = p->raw;
    }
    cframe_encode(f, made + CFRAME_BYTES, made);
    if (fault_errno("store.append.corrupt"))
        made[CFRAME_BYTES + f->stored_len / 2] ^= 1;

    struct cframe back;
    if (cframe_decode(made, &back, why) < 0 || funpack_open(p->check, made, &back, p->check->in, why) < 0)
        return -EIO;
    if (back.raw_len != f->raw_len || memcmp(p->check->in, raw, f->raw_len) != 0) {
        *why = "a compressed frame does not decode to what went in";
        return -EIO;
    }
    *out = made;
    *len = CFRAME_BYTES + (size_t)f->stored_len;
    return 0;
}
