/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The instance number of an installation: by it, names of links, namespaces and rules, addresses
 * and uids of two installations on one machine never meet.
 */
#ifndef TORPOR_AGENT_LIFE_INSTANCE_H
#define TORPOR_AGENT_LIFE_INSTANCE_H

#include "base/err.h"

enum { INSTANCES = 16, INSTANCE_NONE = -1 };

struct instance_owner {
    const char *host_id; /* of the data folder */
    const char *dir;     /* absolute */
};

/* Takes `wanted` (INSTANCE_NONE: any) or the lowest free number under `run_base`, by a lock that
 * ends with the returned descriptor. Not taken while there are others: the number of another data
 * folder that still exists. Never taken: a number whose VMs run for another host id, as after a
 * start over an unmounted data folder. ERR_CONFLICT when there is none. */
int instance_take(const char *run_base, const struct instance_owner *owner, int wanted,
    unsigned *ret_instance, struct err *e);

#endif
