/* SPDX-License-Identifier: Apache-2.0 */
/* Places of fields in a frame (docs/PROTOCOL.md, byte tables), for the builders and the decoder. */
#ifndef VARVE_PROTO_INTERNAL_H
#define VARVE_PROTO_INTERNAL_H

#include "proto/proto.h"

enum {  /* head */
    PH_MAGIC = 0, PH_VERSION = 4, PH_TYPE = 6, PH_PAYLOAD = 8, PH_SLOT = 12, PH_CLUSTER = 16, PH_HOST = 32, PH_ROUND = 48,
    PH_INCARNATION = 56, PH_SEQUENCE = 64, PH_ATTEMPT = 72, PH_RESERVED = 76, PH_CHECKSUM = 80,
};
enum {  /* payload, from its begin */
    PP_PARTITION = 0, PP_COUNT = 4, PP_FIRST = 8, PP_POSITIONAL_BYTES = 16,     /* REQUESTS, NEW_REFERENCES, RESOLUTIONS */
    PP_REFERENCES_BYTES = 8,
    PP_DIGEST = 16, PP_DUPLICATES = 24, PP_SUMMARY_RESERVED = 28, PP_SUMMARY_BYTES = 32,
    PP_END_MESSAGES = 0, PP_END_PARTITIONS = 8, PP_END_RESERVED = 12, PP_END_BYTES = 16,
    PP_END_ITEM = 16,
};
#define PROTO_MAGIC UINT32_C(0x474d5256)    /* "VRMG" */

/* Checksum of a whole frame: head without its last field, then the payload. */
uint64_t proto_checksum(const uint8_t *frame, size_t len);

#endif
