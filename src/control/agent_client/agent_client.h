/* SPDX-License-Identifier: Apache-2.0 */
/* The agent of this host, reached over its unix socket by Connect RPC. */
#ifndef TORPOR_CONTROL_AGENT_CLIENT_AGENT_CLIENT_H
#define TORPOR_CONTROL_AGENT_CLIENT_AGENT_CLIENT_H

#include "control/service/agent.h"

/* Connects when the first call comes, so the agent need not be there yet. `socket_path` is copied.
 */
int agent_client_new(const char *socket_path, struct agent **ret, struct err *e);
/* No call may be under way. NULL is fine. Returns NULL. */
struct agent *agent_client_free(struct agent *a);

#endif
