/* SPDX-License-Identifier: Apache-2.0 */
/* The VMM's view of the file system: its program and libraries, what it boots, three devices. */
#ifndef TORPOR_SHIM_JAIL_H
#define TORPOR_SHIM_JAIL_H

#include "shim/plan.h"

/* Moves the calling, single-threaded process into new mount, IPC and UTS namespaces whose root
 * holds the plan's files, read-only, and a /dev of our own. Needs CAP_SYS_ADMIN and CAP_MKNOD.
 * After a failure the process is good for nothing but to end. */
int jail_enter(const struct plan *p, struct err *e);

#endif
