/* SPDX-License-Identifier: Apache-2.0 */
/* The only system calls that the shim itself makes once its VMM runs. */
#ifndef TORPOR_SHIM_SELF_FILTER_H
#define TORPOR_SHIM_SELF_FILTER_H

#include "base/err.h"

/* Installs the filter on the calling, only thread, for good: any other call ends the process with
 * SIGSYS, and so its VMM. No new privileges must be set. */
int self_filter_install(struct err *e);

#endif
