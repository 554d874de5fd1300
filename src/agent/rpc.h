/* SPDX-License-Identifier: Apache-2.0 */
/* torpor.agent.v1.HostAgent over a unix socket: who may call, and the handlers. */
#ifndef TORPOR_AGENT_RPC_H
#define TORPOR_AGENT_RPC_H

#include <sys/types.h>

#include "base/err.h"

struct life;
struct agent_rpc;

/* Listens at `path` for root and `control_uid`; the socket belongs to `control_uid`, mode 0600. */
struct agent_rpc *agent_rpc_start(
    struct life *l, const char *path, uid_t control_uid, struct err *e);
/* Waits for the calls under way. NULL is fine. */
void agent_rpc_stop(struct agent_rpc *r);

#endif
