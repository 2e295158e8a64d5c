/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault: named points at which tests make the program die or fail. Compiled in with -Dfaults=true only.
 *
 *   VARVE_FAULT=NAME:N=kill      SIGKILL ourselves at the N-th passage of the point NAME (1 is the first)
 *   VARVE_FAULT=NAME:N=ERRNO     the point reports that error (a number) at the N-th passage; N+ from then on
 *   VARVE_FAULT=NAME:N=pause     say so on stderr, and stop there until the file named by VARVE_FAULT_PAUSE is removed
 *
 * Several points: separated by commas. Names are MODULE.VERB.PLACE, e.g. store.seal.after_fsync.
 */
#ifndef VARVE_BASE_FAULT_H
#define VARVE_BASE_FAULT_H

#ifdef VARVE_FAULTS
/* Passes the point; may not return. 0, or the errno to fail with. */
int fault_errno(const char *name);
#else
static inline int fault_errno(const char *name) { (void)name; return 0; }
#endif

/* A point that can only kill or pause. */
static inline void fault_point(const char *name) { (void)fault_errno(name); }

#endif
