/* SPDX-License-Identifier: Apache-2.0 */
/* limits: how much of what the system allows this process each part of it may take. */
#ifndef VARVE_BASE_LIMITS_H
#define VARVE_BASE_LIMITS_H

/* A part of this process's limit of open files: a fourth, an eighth..., at most `most` and at least 8. The parts that are asked for come
 * to half of the whole: live_set's files 1/4, containers and processes that are held 1/8 each. The rest is for STORE, the catalog and
 * rounds (of one disk for 64 files). Nothing else may be held for as long as a user likes: an open disk, a handle or a pending
 * snapshot holds no descriptor. */
unsigned files_allowed(unsigned part, unsigned most);

#endif
