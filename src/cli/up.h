/* SPDX-License-Identifier: Apache-2.0 */
/* The larger steps of `torpor up`. */
#ifndef TORPOR_CLI_UP_H
#define TORPOR_CLI_UP_H

#include "cli/daemon.h"

/* Makes the control plane's user when it is missing. */
int up_user(struct host_run *r, struct err *e);
/* Chooses and makes the data folder. The control plane's user must get there, and so must the VMMs'
 * users, who have no more rights: so it is another one than <home> below a /root that is closed. */
int up_data(struct host_run *r, struct err *e);
/* Starts the control plane, or restarts one that no longer fits to the agent or to TORPOR_LISTEN.
 * Sets the url. */
int up_control(struct host_run *r, struct err *e);
/* Writes address and key for people and programs. Sets the key. */
int up_env(struct host_run *r, struct err *e);

#endif
