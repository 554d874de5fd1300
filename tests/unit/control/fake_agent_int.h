/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the faked agent share. The mutex is held wherever an agent is given. */
#ifndef TORPOR_TESTS_CONTROL_FAKE_AGENT_INT_H
#define TORPOR_TESTS_CONTROL_FAKE_AGENT_INT_H

#include <time.h>

#include "fake_agent.h"
#include "rpc/server.h"

/* When a wait has failed; without the mutex. */
struct timespec fake_patience(void);
struct fake_sandbox *fake_find(struct fake_agent *a, struct slice id);
/* NULL when there is none; a free one for an empty id. */
char *fake_find_snapshot(struct fake_agent *a, struct slice id);
/* The sandbox has another revision, and so has the host. */
void fake_changed(struct fake_agent *a, struct fake_sandbox *b);
/* Counts the call, waits while it is held, fails as scripted. */
int fake_enter(struct fake_agent *a, struct rpc_call *call, enum agent_method m, struct err *e);
struct slice fake_text(struct arena *arena, const char *s);
struct agent_sandbox_info *fake_info(struct arena *arena, const struct fake_sandbox *b);

int fake_on_pause(struct rpc_call *call, const void *req, void *resp, struct err *e);
int fake_on_resume(struct rpc_call *call, const void *req, void *resp, struct err *e);
int fake_on_create_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e);
int fake_on_delete_snapshot(struct rpc_call *call, const void *req, void *resp, struct err *e);

#endif
