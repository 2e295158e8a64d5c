/* SPDX-License-Identifier: Apache-2.0 */
/* Random 128-bit ids of stores, hosts, VMs (directories), disks and snapshots. */
#ifndef VARVE_BASE_ID_H
#define VARVE_BASE_ID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { VID_BYTES = 16, VID_HEX = 33 /* with the final NUL */ };

struct vid {
    uint8_t b[VID_BYTES];
};

/* n bytes from the kernel's generator. Never fails: aborts when getrandom() does, which only a kernel without it can cause. */
void random_bytes(void *buf, size_t n);

struct vid vid_random(void);
void vid_hex(const struct vid *id, char out[VID_HEX]);
/* 0, or -EINVAL unless text is exactly 32 lower-case hex digits. */
int vid_parse(const char *text, struct vid *out);
static inline bool vid_eq(const struct vid *a, const struct vid *b) { return memcmp(a->b, b->b, VID_BYTES) == 0; }
bool vid_is_zero(const struct vid *id);

/* Inode number that a node of this id has on every host and after every rebuild: 62 bits of the id, never below 1024. */
uint64_t vid_ino(const struct vid *id);

#endif
