/* SPDX-License-Identifier: Apache-2.0 */
/* history: what `varve log` and `varve snapshot` read of disks in a mount. */
#ifndef VARVE_CLI_HISTORY_H
#define VARVE_CLI_HISTORY_H

#include "base/verr.h"

#include <jansson.h>

/* The history of the disk to which path belongs, a live disk or one of its snapshots: {"disk", "snapshots": [...], ...}. NULL: err. */
json_t *history_of_disk(const char *path, struct verr *err);
/* The histories of all disks of a directory by name, of removed disks with snapshots too. NULL: err. */
json_t *history_of_dir(const char *dir, struct verr *err);

#endif
