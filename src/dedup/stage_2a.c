/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 2a, VM holder: collects the summaries into the answers' file. Most of them have been taken in while stage 1b was
 * sending; this stage waits for the others. wire_in.c checks order and digests; a request without an answer is new.
 */
#include "dedup/dedup_internal.h"

int stage_2a(struct round *r, struct verr *err)
{
    return summaries_complete(r, err);
}
