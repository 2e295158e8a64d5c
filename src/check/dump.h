/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: any file of ours as text or as one JSON document (docs/FORMAT.md explains the fields). A second reader of most
 * formats: it shares the decoders of `format` and `live`, but goes through files by itself.
 *
 * What kind a file is, its magic tells; a file without a magic (a layer) is none of these. References are written as
 * "CCCCCC/NNNN.vc:ORDINAL", "zero" or "none". The segment recipes of a container are decoded where the file lies in its
 * store (STORE/containers/CCCCCC/NNNN.vc), because frames are.
 */
#ifndef VARVE_CHECK_DUMP_H
#define VARVE_CHECK_DUMP_H

#include <stdbool.h>
#include <stdio.h>

struct verr;

/* 0. -EBADMSG: not a file of ours, or damaged: err says where and why. What could be read before or around the damage has
 * been printed, and the document is closed and has an "error". Nothing at all is printed for a file that is none of ours. */
int dump_file(const char *path, bool json, FILE *out, struct verr *err);

#endif
