/* SPDX-License-Identifier: Apache-2.0 */
/* What of an instance is still on the host. */
#ifndef TORPOR_CLI_LEFTOVERS_H
#define TORPOR_CLI_LEFTOVERS_H

#include "base/buf.h"
#include "base/err.h"

/* Appends one line for each network device, namespace, nftables table and shim of the instance.
 * Empty: nothing is left. */
int leftovers_find(unsigned instance, struct buf *ret, struct err *e);

#endif
