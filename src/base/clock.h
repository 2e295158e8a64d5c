/* SPDX-License-Identifier: Apache-2.0 */
/* clock: time is passed in, so that tests and the simulator run the production code on a time of their own. */
#ifndef VARVE_BASE_CLOCK_H
#define VARVE_BASE_CLOCK_H

#include <stdint.h>

struct vclock {
    int64_t (*real_ns)(void *ctx);  /* wall clock: for names and logs only, never for a decision about safety */
    int64_t (*mono_ns)(void *ctx);  /* monotonic: for deadlines */
    void *ctx;
};

extern const struct vclock vclock_system;

static inline int64_t vclock_real_ns(const struct vclock *c) { return c->real_ns(c->ctx); }
static inline int64_t vclock_mono_ns(const struct vclock *c) { return c->mono_ns(c->ctx); }

#define TIME_NAME_MAX INT64_C(253402300799)    /* the last second of year 9999: names have four digits for the year */
/* "YYYYMMDDTHHMMSSZ" of seconds since the epoch (17 bytes with NUL). Years 1970-9999; others are clamped. */
void time_name(int64_t seconds, char out[17]);

#endif
