/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of slots.
 *
 * Theory of operation. A slot's state says who may touch it:
 *     EMPTY -> PREPARING -> READY -> USED -> DIRTY -> RECYCLING -> RESTING -> (READY)
 * and, when anything about it went wrong, DOOMED -> REMOVING -> EMPTY. The -ING states are the
 * worker's, USED is the caller's, all others nobody's. Taking and giving back are changes of state
 * under `lock`; all work is done by the worker thread, through the helper, without the lock. The
 * helper is only ever called by the worker, and by open and close while no worker runs.
 *
 * The worker keeps `ready` slots that are free or about to be: released ones come back before new
 * ones are made. A released slot is taken again after NET_REST_MS, when all that was under way to
 * its last owner has come or timed out; earlier only when no other is ready, which its flushed
 * connections allow. A failed preparation is tried again after NET_RETRY_MS.
 *
 * Slots that VMs of an earlier agent hold are USED from the start, and `kept` tells them from those
 * that were acquired.
 *
 * The policy map's elements are changed under `policy_lock`, which is taken last. A slot without an
 * element can send nothing, so one is put in last when preparing and taken out first when removing.
 */
#include "agent/net/pool_int.h"

#include <string.h>
#include <time.h>

#define LOG_MODULE "net"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

enum { NET_REST_MS = 3000, NET_RETRY_MS = 1000 };

static size_t count_state(const struct net_pool *p, enum slot_state state)
{
    size_t n = 0;
    for (size_t i = 0; i < p->plan.slots; i++)
        n += p->slots[i].state == state;
    return n;
}

static struct slot *find_state(const struct net_pool *p, enum slot_state state)
{
    for (size_t i = 0; i < p->plan.slots; i++)
        if (p->slots[i].state == state)
            return &p->slots[i];
    return NULL;
}

static unsigned index_of(const struct net_pool *p, const struct slot *s)
{
    return (unsigned)(s - p->slots);
}

static int put_policy(struct net_pool *p, struct slot *s, enum net_policy policy, struct err *e)
{
    MUTEX_GUARD(&p->policy_lock);
    if (s->has_policy && s->policy == policy)
        return 0;
    if (net_policy_put(&p->plan, index_of(p, s), policy, s->has_policy, e) < 0)
        return -1;
    s->policy = policy;
    s->has_policy = true;
    return 0;
}

int pool_drop_policy(struct net_pool *p, struct slot *s, struct err *e)
{
    MUTEX_GUARD(&p->policy_lock);
    if (s->has_policy && net_policy_drop(&p->plan, index_of(p, s), e) < 0)
        return -1;
    s->has_policy = false;
    return 0;
}

/* The worker's three jobs. Each ends with the state that follows. */
enum slot_state pool_prepare(struct net_pool *p, struct slot *s, struct err *e)
{
    if (net_helper_call(&p->helper, NET_OP_SLOT_MAKE, index_of(p, s), /* fail_after= */ 0, e) < 0)
        return SLOT_DOOMED;
    return put_policy(p, s, NET_POLICY_OPEN, e) < 0 ? SLOT_DOOMED : SLOT_READY;
}

static enum slot_state recycle(struct net_pool *p, struct slot *s, struct err *e)
{
    if (net_helper_call(&p->helper, NET_OP_SLOT_RECYCLE, index_of(p, s), /* fail_after= */ 0, e) <
        0)
        return SLOT_DOOMED;
    return put_policy(p, s, NET_POLICY_OPEN, e) < 0 ? SLOT_DOOMED : SLOT_RESTING;
}

static enum slot_state discard(struct net_pool *p, struct slot *s, struct err *e)
{
    if (pool_drop_policy(p, s, e) < 0)
        return SLOT_DOOMED;
    if (net_helper_call(&p->helper, NET_OP_SLOT_REMOVE, index_of(p, s), /* fail_after= */ 0, e) < 0)
        return SLOT_DOOMED;
    return SLOT_EMPTY;
}

/* Free ones, and those that will be without being made. */
static size_t count_available(const struct net_pool *p)
{
    return count_state(p, SLOT_READY) + count_state(p, SLOT_RESTING) + count_state(p, SLOT_DIRTY) +
           count_state(p, SLOT_RECYCLING) + count_state(p, SLOT_PREPARING);
}

/* Making and removing take turns, so that neither starves the other when it keeps failing. */
static struct slot *next_build(struct net_pool *p)
{
    struct slot *doomed = find_state(p, SLOT_DOOMED);
    struct slot *empty = NULL;
    if (count_available(p) < p->ready + p->waiters)
        empty = find_state(p, SLOT_EMPTY);
    if (doomed && (!empty || !p->removed_last)) {
        p->removed_last = true;
        doomed->state = SLOT_REMOVING;
        return doomed;
    }
    p->removed_last = false;
    if (empty)
        empty->state = SLOT_PREPARING;
    return empty;
}

/* The slot to work on next, already in its -ING state; NULL: nothing to do now. */
static struct slot *next_job(struct net_pool *p)
{
    struct slot *s = find_state(p, SLOT_DIRTY);
    if (s) {
        s->state = SLOT_RECYCLING;
        return s;
    }
    if (clock_mono_ms() < p->retry_at)
        return NULL;
    return next_build(p);
}

static enum slot_state do_job(
    struct net_pool *p, struct slot *s, enum slot_state job, struct err *e)
{
    if (job == SLOT_PREPARING)
        return pool_prepare(p, s, e);
    return job == SLOT_RECYCLING ? recycle(p, s, e) : discard(p, s, e);
}

/* Waits for a change, or for the time of the next attempt. */
static void wait_changed(struct net_pool *p, int64_t deadline)
{
    if (deadline == DEADLINE_NEVER) {
        (void)pthread_cond_wait(&p->changed, &p->lock);
        return;
    }
    struct timespec ts = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    (void)pthread_cond_timedwait(&p->changed, &p->lock, &ts);
}

static void job_failed(struct net_pool *p, enum slot_state job, const struct err *e)
{
    p->last_error = *e;
    if (job != SLOT_RECYCLING) /* what cannot be recycled is removed at once */
        p->retry_at = clock_mono_ms() + NET_RETRY_MS;
    log_warn_limited("%s", e->msg);
}

/* Runs one job without the lock. */
static void run_job(struct net_pool *p, struct slot *s)
{
    struct err e = {0};
    enum slot_state job = s->state;
    (void)pthread_mutex_unlock(&p->lock);
    enum slot_state next = do_job(p, s, job, &e);
    (void)pthread_mutex_lock(&p->lock);
    s->state = next;
    if (e.kind != ERR_NONE)
        job_failed(p, job, &e);
    (void)pthread_cond_broadcast(&p->changed);
}

void *pool_work(void *arg)
{
    struct net_pool *p = arg;
    MUTEX_GUARD(&p->lock);
    while (!p->stopping) {
        struct slot *s = next_job(p);
        if (s)
            run_job(p, s);
        else
            wait_changed(p, clock_mono_ms() < p->retry_at ? p->retry_at : DEADLINE_NEVER);
    }
    return NULL;
}

/* A slot that may be taken now: ready, or rested; else the one that has rested longest. */
static struct slot *pick(struct net_pool *p)
{
    struct slot *best = NULL;
    int64_t rested_before = clock_mono_ms() - NET_REST_MS;
    for (size_t i = 0; i < p->plan.slots; i++) {
        struct slot *s = &p->slots[i];
        if (s->state == SLOT_READY || (s->state == SLOT_RESTING && s->released_ms <= rested_before))
            return s;
        if (s->state == SLOT_RESTING && (!best || s->released_ms < best->released_ms))
            best = s;
    }
    return best;
}

static int no_slot(struct net_pool *p, struct err *e)
{
    if (count_state(p, SLOT_USED) == p->plan.slots)
        return err_set(e, ERR_NO_CAPACITY, "all %u network slots are taken", p->plan.slots);
    if (p->last_error.kind != ERR_NONE)
        return err_set(e, ERR_NO_CAPACITY, "no network slot in time: %s", p->last_error.msg);
    return err_set(e, ERR_NO_CAPACITY, "no network slot in time");
}

static struct slot *wait_for_slot(struct net_pool *p, int64_t deadline)
{
    struct slot *s;
    while (!(s = pick(p))) {
        if (count_state(p, SLOT_USED) == p->plan.slots || clock_mono_ms() >= deadline)
            return NULL;
        wait_changed(p, deadline);
    }
    return s;
}

static void describe(const struct net_pool *p, unsigned index, struct net_slot *ret)
{
    struct net_names n;
    net_names_of(&p->plan, index, &n);
    *ret = (struct net_slot){.index = index, .uid = (uid_t)(p->plan.uid_base + index)};
    memcpy(ret->netns, n.netns, sizeof ret->netns);
    net_ip_text(n.host_ip, ret->host_ip);
}

int net_slot_acquire(struct net_pool *p, int64_t deadline, struct net_slot *ret, struct err *e)
{
    MUTEX_GUARD(&p->lock);
    p->waiters++;
    (void)pthread_cond_broadcast(&p->changed);
    struct slot *s = wait_for_slot(p, deadline);
    p->waiters--;
    if (!s)
        return no_slot(p, e);
    s->state = SLOT_USED;
    (void)pthread_cond_broadcast(&p->changed);
    describe(p, index_of(p, s), ret);
    return 0;
}

static int check_index(const struct net_pool *p, unsigned index, struct err *e)
{
    return index < p->plan.slots ? 0 : err_set(e, ERR_INVALID, "no network slot %u", index);
}

int net_slot_adopt(struct net_pool *p, unsigned index, struct net_slot *ret, struct err *e)
{
    if (check_index(p, index, e) < 0)
        return -1;
    MUTEX_GUARD(&p->lock);
    if (!p->slots[index].kept)
        return err_set(e, ERR_NOT_FOUND, "network slot %u was not kept", index);
    describe(p, index, ret);
    return 0;
}

int net_slot_release(struct net_pool *p, unsigned index, struct err *e)
{
    if (check_index(p, index, e) < 0)
        return -1;
    MUTEX_GUARD(&p->lock);
    struct slot *s = &p->slots[index];
    if (s->state == SLOT_USED) {
        s->state = SLOT_DIRTY;
        s->kept = false;
        s->released_ms = clock_mono_ms();
        (void)pthread_cond_broadcast(&p->changed);
    }
    return 0;
}

static bool is_used(struct net_pool *p, unsigned index)
{
    MUTEX_GUARD(&p->lock);
    return p->slots[index].state == SLOT_USED;
}

int net_slot_set_policy(struct net_pool *p, unsigned index, enum net_policy policy, struct err *e)
{
    struct net_names n;
    if (check_index(p, index, e) < 0)
        return -1;
    if (!is_used(p, index))
        return err_set(e, ERR_BAD_STATE, "network slot %u is not in use", index);
    if (put_policy(p, &p->slots[index], policy, e) < 0)
        return -1;
    if (policy == NET_POLICY_OPEN)
        return 0;
    /* What the guest had begun ends for the other side too. */
    net_names_of(&p->plan, index, &n);
    return net_ct_flush_address(n.ns_end, /* dst= */ 0, e);
}

void net_pool_usage(struct net_pool *p, size_t *ret_total, size_t *ret_used)
{
    MUTEX_GUARD(&p->lock);
    *ret_total = p->plan.slots;
    *ret_used = count_state(p, SLOT_USED);
}
