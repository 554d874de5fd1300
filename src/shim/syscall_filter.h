/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls that no VMM may make. */
#ifndef TORPOR_SHIM_SYSCALL_FILTER_H
#define TORPOR_SHIM_SYSCALL_FILTER_H

#include "base/err.h"

/* Installs the filter on the calling thread, for good and across exec. No new privileges must be
 * set. */
int syscall_filter_install(struct err *e);

#endif
