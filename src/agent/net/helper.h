/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The helper and its caller: fixed binary messages over a SOCK_SEQPACKET pair, one answer to each
 * request. Every request carries the whole plan, so the helper remembers nothing but its lock, and
 * one that was killed is replaced by starting another.
 */
#ifndef TORPOR_AGENT_NET_HELPER_H
#define TORPOR_AGENT_NET_HELPER_H

#include <sys/types.h>

#include "agent/net/net_int.h"

enum net_op {
    NET_OP_LOCK,        /* take the instance; waits for an earlier helper to end */
    NET_OP_SWEEP,       /* remove everything under the instance's names, the host's side too */
    NET_OP_SWEEP_SLOTS, /* only the slots, and not those of `keep` */
    NET_OP_HOST_MAKE,
    NET_OP_HOST_RENEW,
    NET_OP_SLOT_CHECK,
    NET_OP_SLOT_MAKE,
    NET_OP_SLOT_REMOVE,
    NET_OP_SLOT_RECYCLE,
    NET_OP_COUNT
};

struct net_request {
    uint32_t op; /* enum net_op */
    uint32_t slot;
    uint32_t fail_after; /* a step to fail at, for tests; 0: none */
    struct net_plan plan;
    struct net_keep keep; /* for SWEEP_SLOTS and HOST_RENEW */
};

struct net_reply {
    int32_t rc;
    struct err err;
    uint32_t step_us[NET_STEPS_MAX];
};

/* The caller's side. One thread at a time. */
struct net_helper {
    const char *path;
    int fd; /* -1: none runs */
    pid_t pid;
    struct net_plan plan;
    struct net_keep keep;   /* sent with every request; the owner sets it */
    struct net_reply reply; /* the last one, for the times in it */
};

void net_helper_init(struct net_helper *h, const char *path, const struct net_plan *plan);
/* Does `op`, starting the helper first when none runs. When it dies or does not answer in time it
 * is killed and reaped, and the error is ERR_UNAVAILABLE: what it was doing may be half done. */
int net_helper_call(
    struct net_helper *h, enum net_op op, unsigned slot, unsigned fail_after, struct err *e);
/* Ends it by closing its socket, then waits for it. Idempotent. */
void net_helper_stop(struct net_helper *h);

#endif
