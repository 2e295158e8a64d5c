/* SPDX-License-Identifier: Apache-2.0 */
/* history: what `varve log` and `varve snapshot` read of disks in a mount. */
#ifndef VARVE_CLI_HISTORY_H
#define VARVE_CLI_HISTORY_H

#include "base/verr.h"

#include <jansson.h>

/* The history of the disk to which path belongs, a live disk or one of its snapshots: {"disk", "snapshots": [...], ...}. Of a directory an array:
 * the histories of all its disks by name, of removed disks with snapshots too. NULL: err. */
json_t *history_of(const char *path, struct verr *err);

#endif
