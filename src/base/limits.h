/* SPDX-License-Identifier: Apache-2.0 */
/* limits: how much of what the system allows this process each part of it may take. */
#ifndef VARVE_BASE_LIMITS_H
#define VARVE_BASE_LIMITS_H

/* A part of this process's limit of open files: a fourth, an eighth..., at most `most` and at least 8. The parts that are asked for come
 * to less than the whole: live_set's files 1/4, containers and processes that are held 1/8 each, unused disks 1/16. What is left is for
 * the disks in use (one each), STORE, the catalog and rounds. */
unsigned files_allowed(unsigned part, unsigned most);

#endif
