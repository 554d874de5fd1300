/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host agent as the service sees it: unary calls of torpor.agent.v1.HostAgent. The messages are
 * those of rpc/agent_v1.h; who carries them is behind `struct agent_ops`.
 */
#ifndef TORPOR_CONTROL_SERVICE_AGENT_H
#define TORPOR_CONTROL_SERVICE_AGENT_H

#include "rpc/agent_v1.h"

enum agent_method {
    AGENT_CREATE,
    AGENT_DESTROY,
    AGENT_LIST,
    AGENT_PING,
    AGENT_UPDATE,
    AGENT_PAUSE,
    AGENT_RESUME,
    AGENT_CREATE_SNAPSHOT,
    AGENT_DELETE_SNAPSHOT,
    AGENT_EXEC,
    AGENT_READ_FILE,
    AGENT_WRITE_FILE,
    AGENT_METHOD_COUNT
};

struct agent;
struct agent_ops {
    /* One call, from any thread. `req` and `resp` are the method's messages; the response's bytes
     * live in `arena`. `timeout_ms` bounds the whole call. Errors are fit for the public API:
     * ERR_UNAVAILABLE when the agent cannot be reached or breaks off, ERR_TIMEOUT, what the agent
     * says where that has a public meaning, else ERR_AGENT. */
    int (*call)(struct agent *a, enum agent_method m, const void *req, void *resp,
        struct arena *arena, int64_t timeout_ms, struct err *e);
    /* Breaks off the calls under way and refuses new ones, for a stop. May be NULL. */
    void (*interrupt)(struct agent *a);
};

struct agent {
    const struct agent_ops *ops;
};

static inline int agent_call(struct agent *a, enum agent_method m, const void *req, void *resp,
    struct arena *arena, int64_t timeout_ms, struct err *e)
{
    return a->ops->call(a, m, req, resp, arena, timeout_ms, e);
}

static inline void agent_interrupt(struct agent *a)
{
    if (a->ops->interrupt)
        a->ops->interrupt(a);
}

#endif
