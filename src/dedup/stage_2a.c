/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stage 2a, VM holder: collects the summaries into the answers' file. Most of them have been taken in while stage 1b was
 * sending; here the rest is waited for. Order and digests are checked in wire_in.c; what is missing is new.
 */
#include "dedup/dedup_internal.h"

int stage_2a(struct round *r, struct verr *err)
{
    return summaries_complete(r, err);
}
