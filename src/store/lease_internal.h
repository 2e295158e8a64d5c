/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VARVE_STORE_LEASE_INTERNAL_H
#define VARVE_STORE_LEASE_INTERNAL_H

#include "store/publish.h"

struct store *lease_store(const struct lease *l);

#endif
