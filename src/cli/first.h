/* SPDX-License-Identifier: Apache-2.0 */
/* The first sandbox: what `up` shows at its end. */
#ifndef TORPOR_CLI_FIRST_H
#define TORPOR_CLI_FIRST_H

#include "cli/daemon.h"

/* Creates a sandbox, runs a command in it, destroys it, and says what it saw. On failure it shows
 * both logs; what runs keeps running. */
int first_sandbox(struct host_run *r, struct err *e);

#endif
