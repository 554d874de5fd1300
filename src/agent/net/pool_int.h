/* SPDX-License-Identifier: Apache-2.0 */
/* What the pool's files share: pool.c gives slots and works on them, pool_open.c begins and ends.
 */
#ifndef TORPOR_AGENT_NET_POOL_INT_H
#define TORPOR_AGENT_NET_POOL_INT_H

#include <pthread.h>

#include "agent/net/helper.h"

enum slot_state {
    SLOT_EMPTY,
    SLOT_PREPARING,
    SLOT_READY,
    SLOT_USED,
    SLOT_DIRTY,
    SLOT_RECYCLING,
    SLOT_RESTING,
    SLOT_DOOMED,
    SLOT_REMOVING,
    SLOT_STATE_COUNT
};

struct slot {
    enum slot_state state;
    bool kept; /* taken since an earlier agent: it may be adopted */
    int64_t released_ms;
    enum net_policy policy; /* of the map's element, when there is one; under policy_lock */
    bool has_policy;
};

struct net_pool {
    struct net_plan plan;
    size_t ready;
    struct net_helper helper;
    struct net_dns *dns;
    char *helper_path;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* any state, waiters, stopping */
    struct slot *slots;
    size_t waiters;
    int64_t retry_at; /* no preparing or removing before this */
    bool removed_last;
    struct err last_error; /* of the worker, for those who wait in vain */
    bool stopping;

    pthread_mutex_t policy_lock;
    pthread_t worker;
    bool worker_started;
};

/* The worker: one thread, until `stopping`. `arg` is the pool. */
void *pool_work(void *arg);
/* Makes an empty slot; returns the state that follows, with the error when that is not READY. Only
 * while no worker runs, as net_pool_open does, or by the worker. */
enum slot_state pool_prepare(struct net_pool *p, struct slot *s, struct err *e);
/* Takes the slot's element out of the policy map: nothing leaves it then. */
int pool_drop_policy(struct net_pool *p, struct slot *s, struct err *e);

#endif
