/* SPDX-License-Identifier: Apache-2.0 */
/*
 * thread: starts a thread that serves and never answers a signal: what ends the daemon belongs to its main thread. Signals that
 * a thread brings upon itself (a fault, abort, a refused system call) stay open: blocked, the kernel would end the process
 * all the same, but without a word about where.
 */
#ifndef VARVE_BASE_THREAD_H
#define VARVE_BASE_THREAD_H

#include <pthread.h>

/* 0, or the errno of pthread_create. */
int thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg);

#endif
