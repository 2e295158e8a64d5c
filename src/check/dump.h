/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dump: prints any file of varve as text or as one JSON document (docs/FORMAT.md explains the fields). It is a second reader of
 * most formats: it shares the decoders of `format` and `live`, but goes through files by itself.
 *
 * The magic of a file tells its kind; a file without a magic (a layer) cannot be dumped. References are written as
 * "CCCCCC/NNNN.vc:ORDINAL", "zero" or "none". The segment recipes of a container are decoded where the file lies in its
 * store (STORE/containers/CCCCCC/NNNN.vc), because frames are.
 */
#ifndef VARVE_CHECK_DUMP_H
#define VARVE_CHECK_DUMP_H

#include <stdbool.h>
#include <stdio.h>

struct verr;

/* 0. -EBADMSG: the file is damaged, or not varve's; err says where and why. Of a damaged file, the readable parts before and around
 * the damage have been printed, and the document is complete and has an "error". Of a file that is not varve's, or
 * cannot be read, JSON has its name and the error, and text nothing. */
int dump_file(const char *path, bool json, FILE *out, struct verr *err);

#endif
