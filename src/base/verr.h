/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verr: the error object that functions fill in.
 *
 * Convention of the whole tree: a function returns 0 or a positive count on success, else -errno.
 * Where a `struct verr *err` is the last parameter it is left untouched on success; on failure it
 * says which file or setting, what was wrong, and (where the user can act) what to do. err may be NULL.
 * Text lives in a fixed buffer, so that ENOMEM can be reported without memory. It is one line without control characters, whatever
 * names and paths it is made of (base/quote.h).
 *
 * Meaning of codes: EBADMSG our file on disk is damaged or foreign; EPROTO a peer's message is wrong;
 * ENODATA unknown block; ESTALE fenced, or an answer for an older round; EBUSY open or locked;
 * ENOSPC, EIO the device; ENOTSUP a newer format version.
 */
#ifndef VARVE_BASE_VERR_H
#define VARVE_BASE_VERR_H

#include <stddef.h>

struct verr {
    int code; /* positive errno; 0 = nothing recorded */
    char text[600];
};

/* Records code and text; returns -code, so that callers can write `return verr_set(err, EIO, "...")`. */
int verr_set(struct verr *err, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "what: " in front of what err says already; returns -err->code (or -fallback when err is NULL or empty). */
int verr_prefix(struct verr *err, int fallback, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#ifdef __clang_analyzer__
/* clang-tidy reads one file at a time: this tells it that both always return an error, so that it does not follow a failure
 * that returns 0 into the code after it. */
static inline int verr_negative(int r)
{
    if (r >= 0)
        __builtin_unreachable();
    return r;
}
#define verr_set(...) verr_negative((verr_set)(__VA_ARGS__))
#define verr_prefix(...) verr_negative((verr_prefix)(__VA_ARGS__))
#endif

/* The text, or strerror(code) when there is none. Never NULL. */
const char *verr_str(const struct verr *err);

#endif
