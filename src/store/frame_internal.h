/* SPDX-License-Identifier: Apache-2.0 */
/* frame: compression of frames. Only frame.c uses zstd. */
#ifndef VARVE_STORE_FRAME_INTERNAL_H
#define VARVE_STORE_FRAME_INTERNAL_H

#include "format/container.h"

#include <stddef.h>
#include <stdint.h>

/* Contexts and buffers of a writer, which it reuses; buffers have room for the frame's header in front. One thread at a time. */
struct fpack;
struct fpack *fpack_new(void);      /* NULL: out of memory */
void fpack_free(struct fpack *p);
/* The buffer for the raw bytes of the next frame: FRAME_RAW_MAX bytes. */
uint8_t *fpack_raw(struct fpack *p);
/* Scratch of at least FRAME_RAW_MAX bytes, free to use between two calls of fpack_close. */
uint8_t *fpack_scratch(struct fpack *p);
/*
 * Makes a frame from f->raw_len bytes in fpack_raw: zstd, or stored when that is not larger; then decodes the frame again
 * and compares. Fills in f->codec and f->stored_len. *out: header and payload, valid until the next call.
 * -EIO: the decoded bytes differ (a fault of memory or compressor).
 */
int fpack_close(struct fpack *p, struct cframe *f, const uint8_t **out, size_t *len, const char **why);

/* Contexts and buffers of a reader. One thread at a time. */
struct funpack;
struct funpack *funpack_new(void);
void funpack_free(struct funpack *u);
/* Room for one frame as it lies in the file: CFRAME_BYTES + FRAME_RAW_MAX bytes. */
uint8_t *funpack_in(struct funpack *u);
/* Checks the payload behind header and decodes it into out (f->raw_len bytes; f is the decoded header). -EBADMSG. */
int funpack_open(struct funpack *u, const uint8_t *header, const struct cframe *f, uint8_t *out, const char **why);

#endif
