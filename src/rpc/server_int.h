/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the server side share; nobody else includes this. */
#ifndef TORPOR_RPC_SERVER_INT_H
#define TORPOR_RPC_SERVER_INT_H

#include "rpc/server.h"

/* Reads and decodes the request of a call that has exactly one message, into call->arena. */
int rpc_receive_only(struct rpc_call *call, void **ret, struct err *e);

#endif
