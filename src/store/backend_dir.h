/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_dir: STORE in a directory of a filesystem: the table of base/backend.h in system calls, and what only a directory has:
 * a path and an owner to be given.
 */
#ifndef VARVE_STORE_BACKEND_DIR_H
#define VARVE_STORE_BACKEND_DIR_H

#include "base/backend.h"

/* Opens the directory once: everything later is relative to it, so that a STORE that is renamed or mounted over while it is used is
 * never mixed with another one. -ENOENT, -ENOTDIR. */
int backend_dir_open(const char *path, struct backend **out);
/* The same for one directory in it, which is then found for good: dir has no slash. -ENOENT, -ENOTDIR, -ELOOP. */
int backend_dir_hold(struct backend *b, const char *dir);
/* Makes the directory (mode 0700) unless it is there. *made: it was not. */
int backend_dir_make(const char *path, bool *made);
/* Gives dir/name to uid:gid (uid -1: to nobody), then fsync: durable with the owner it must have. name "": dir itself. */
int backend_dir_give(struct backend *b, const char *dir, const char *name, uid_t uid, gid_t gid);
/* fsync of the directory that STORE lies in. One that may not be read was not changed by us either: 0. */
int backend_dir_sync_parent(struct backend *b);
/* For tests: lists are made anew as on a network filesystem. */
void backend_dir_set_shared(struct backend *b);

#endif
