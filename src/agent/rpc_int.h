/* SPDX-License-Identifier: Apache-2.0 */
/* What the RPC handlers share. */
#ifndef TORPOR_AGENT_RPC_INT_H
#define TORPOR_AGENT_RPC_INT_H

#include "agent/life/life.h"
#include "rpc/agent_v1.h"
#include "rpc/server.h"

/* Copies a text into the call's arena; empty when there is no memory. */
struct slice rpc_copy(struct arena *a, const char *s);
/* The sandbox as a message, NULL without memory. */
struct agent_sandbox_info *rpc_sandbox_message(struct arena *a, const struct life_info *info);
int rpc_take_sandbox_id(struct slice text, struct sandbox_id *ret, struct err *e);
int rpc_no_memory(struct err *e);

/* Grows a list of pointers or slices in an arena, doubling. */
struct rpc_lister {
    struct arena *arena;
    struct rpc_list *list;
    size_t item_size;
    size_t cap;
    bool failed;
};
/* Room for one more, NULL (and failed) without memory. */
void *rpc_lister_add(struct rpc_lister *l);

/* --- rpc_change.c: pause, resume, snapshots --- */

int rpc_pause_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e);
int rpc_resume_sandbox(struct rpc_call *call, const void *req, void *resp, struct err *e);
int rpc_create_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e);
int rpc_delete_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e);
/* Fills in the durations of all pauses and resumes so far. */
int rpc_list_histograms(struct rpc_call *call, struct agent_list_response *out, struct err *e);

#endif
