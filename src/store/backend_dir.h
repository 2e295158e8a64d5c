/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backend_dir: STORE in a directory of a filesystem: the operations of base/backend.h as system calls, and functions for what only a
 * directory has: a path and an owner.
 */
#ifndef VARVE_STORE_BACKEND_DIR_H
#define VARVE_STORE_BACKEND_DIR_H

#include "base/backend.h"

/* Opens the directory once. All later calls are relative to it, so that a STORE that is renamed or mounted over meanwhile is never
 * mixed with another one. -ENOENT, -ENOTDIR. */
int backend_dir_open(const char *path, struct backend **out);
/* The same for one directory in it, which stays open until the backend is closed. dir has no slash. -ENOENT, -ENOTDIR, -ELOOP. */
int backend_dir_hold(struct backend *b, const char *dir);
/* Every operation that changes something is -EROFS, and makes no system call: the filesystem of STORE, or of one of the directories held
 * open, is read-only; or _set_read_only was called, before other threads use the backend. */
bool backend_dir_read_only(const struct backend *b);
void backend_dir_set_read_only(struct backend *b);
/* Makes the directory (mode 0700) unless it is there. *made: this call made it. */
int backend_dir_make(const char *path, bool *made);
/* Gives dir/name to uid:gid (uid -1: leaves the owner) and fsyncs it, so that it is durable with its owner. name "": dir itself. */
int backend_dir_give(struct backend *b, const char *dir, const char *name, uid_t uid, gid_t gid);
/* Fsyncs the directory that contains STORE. 0 also when this process may not read it, because then it has made no entry there. */
int backend_dir_sync_parent(struct backend *b);
/* For tests: makes lists anew, as on a network filesystem. */
void backend_dir_set_shared(struct backend *b);

#endif
