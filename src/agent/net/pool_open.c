/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, closing and leaving a pool.
 *
 * Theory of operation. An agent that begins finds what the last one left, however that ended: names
 * tell what there is, the caller tells which slots are held by VMs. With none held all is removed
 * and made afresh. Else all but the held slots is removed, the host's side is renewed in place
 * (host.c), and each held slot is checked (slotcheck.c); one that is not whole is removed as well.
 * Nothing of this is written down anywhere, so an agent that is killed while it does so is followed
 * by one that does the same.
 */
#include "agent/net/pool_int.h"

#include <stdlib.h>
#include <string.h>

#define LOG_MODULE "net"
#include "agent/net/dns.h"
#include "base/cleanup.h"
#include "base/log.h"

#define RESOLV_CONF "/etc/resolv.conf"

static int prepare_first(struct net_pool *p, struct err *e)
{
    size_t made = 0;
    for (size_t i = 0; i < p->plan.slots && made < p->ready; i++) {
        struct slot *s = &p->slots[i];
        if (s->state != SLOT_EMPTY)
            continue;
        s->state = pool_prepare(p, s, e);
        if (s->state != SLOT_READY)
            return -1;
        made++;
    }
    return 0;
}

static int start_dns(struct net_pool *p, const struct net_config *config, struct err *e)
{
    struct net_dns_config dns = {
        .listen_ip = net_dns_address(&p->plan), .slots_base = p->plan.base, .slots = p->plan.slots};
    if (net_dns_resolver(config->resolver, RESOLV_CONF, &dns.resolver, e) < 0)
        return -1;
    p->dns = net_dns_start(&dns, e);
    return p->dns ? 0 : -1;
}

static int call(struct net_pool *p, enum net_op op, unsigned slot, struct err *e)
{
    return net_helper_call(&p->helper, op, slot, /* fail_after= */ 0, e);
}

static int make_host(struct net_pool *p, struct err *e)
{
    if (call(p, NET_OP_SWEEP, 0, e) < 0)
        return err_wrap(e, "remove leftovers");
    return call(p, NET_OP_HOST_MAKE, 0, e);
}

/* Takes the kept slot, or removes it when it is not whole. */
static int take_kept(struct net_pool *p, unsigned index, struct err *e)
{
    struct slot *s = &p->slots[index];
    struct err why = {0};
    if (call(p, NET_OP_SLOT_CHECK, index, &why) == 0) {
        s->state = SLOT_USED;
        s->kept = true;
        return 0;
    }
    if (why.kind != ERR_NOT_FOUND) {
        *e = why;
        return -1;
    }
    log_warn("%s: removed, to be made anew", why.msg);
    if (pool_drop_policy(p, s, e) < 0 || call(p, NET_OP_SLOT_REMOVE, index, e) < 0)
        return -1;
    p->helper.keep.bits[index / 8] &= (uint8_t) ~(1u << index % 8);
    return 0;
}

static int read_policies(struct net_pool *p, struct err *e)
{
    struct net_policies found;
    if (net_policies_read(&p->plan, &found, e) < 0)
        return -1;
    for (size_t i = 0; i < p->plan.slots; i++) {
        p->slots[i].has_policy = found.of[i] >= 0;
        p->slots[i].policy = found.of[i] == NET_POLICY_NONE ? NET_POLICY_NONE : NET_POLICY_OPEN;
    }
    return 0;
}

static int renew_host(struct net_pool *p, const struct net_config *config, struct err *e)
{
    if (call(p, NET_OP_SWEEP_SLOTS, 0, e) < 0)
        return err_wrap(e, "remove leftovers");
    if (call(p, NET_OP_HOST_RENEW, 0, e) < 0 || read_policies(p, e) < 0)
        return -1;
    for (size_t i = 0; i < config->n_keep; i++)
        if (!p->slots[config->keep[i]].kept && take_kept(p, config->keep[i], e) < 0)
            return -1;
    return 0;
}

static int open_host(struct net_pool *p, const struct net_config *config, struct err *e)
{
    if ((config->n_keep > 0 ? renew_host(p, config, e) : make_host(p, e)) < 0)
        return -1;
    if (start_dns(p, config, e) < 0 || prepare_first(p, e) < 0)
        return -1;
    int rc = pthread_create(&p->worker, NULL, pool_work, p);
    p->worker_started = rc == 0;
    return rc != 0 ? err_sys(e, rc, "network thread") : 0;
}

static void pool_free(struct net_pool *p)
{
    (void)pthread_mutex_destroy(&p->lock);
    (void)pthread_mutex_destroy(&p->policy_lock);
    (void)pthread_cond_destroy(&p->changed);
    free(p->slots);
    free(p->helper_path);
    free(p);
}

static void init_locks(struct net_pool *p)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&p->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_mutex_init(&p->policy_lock, NULL);
}

static struct net_pool *pool_new(const struct net_config *config, struct err *e)
{
    struct net_plan plan;
    struct net_pool *p;
    if (net_plan_make(config, &plan, e) < 0)
        return NULL;
    p = calloc(1, sizeof *p);
    if (!p) {
        (void)err_sys(e, ENOMEM, "network pool");
        return NULL;
    }
    init_locks(p);
    p->plan = plan;
    p->ready = config->ready;
    p->slots = calloc(plan.slots, sizeof *p->slots);
    p->helper_path = strdup(config->helper);
    net_helper_init(&p->helper, p->helper_path, &plan);
    for (size_t i = 0; i < config->n_keep; i++)
        net_keep_add(&p->helper.keep, config->keep[i]);
    if (!p->slots || !p->helper_path) {
        (void)err_sys(e, ENOMEM, "network pool");
        pool_free(p);
        return NULL;
    }
    return p;
}

static void stop_threads(struct net_pool *p)
{
    if (p->worker_started) {
        (void)pthread_mutex_lock(&p->lock);
        p->stopping = true;
        (void)pthread_cond_broadcast(&p->changed);
        (void)pthread_mutex_unlock(&p->lock);
        (void)pthread_join(p->worker, NULL);
    }
    net_dns_stop(p->dns);
}

/* Twice: a helper that was killed in the first attempt is replaced for the second. */
static int sweep(struct net_pool *p, enum net_op op, struct err *e)
{
    if (call(p, op, 0, e) == 0)
        return 0;
    return e->kind == ERR_UNAVAILABLE ? call(p, op, 0, e) : -1;
}

static int end(struct net_pool *p, enum net_op op, struct err *e)
{
    stop_threads(p);
    int rc = sweep(p, op, e);
    net_helper_stop(&p->helper);
    pool_free(p);
    return rc;
}

/* What had been kept stays as the last agent left it, for the next attempt. */
static void open_failed(struct net_pool *p, bool kept, struct err *e)
{
    struct err more = {0};
    if (end(p, kept ? NET_OP_SWEEP_SLOTS : NET_OP_SWEEP, &more) < 0)
        (void)err_join(e, &more);
}

struct net_pool *net_pool_open(const struct net_config *config, struct err *e)
{
    struct net_pool *p = pool_new(config, e);
    if (!p)
        return NULL;
    if (open_host(p, config, e) < 0) {
        open_failed(p, config->n_keep > 0, e);
        return NULL;
    }
    return p;
}

int net_pool_close(struct net_pool *p, struct err *e)
{
    if (!p)
        return 0;
    return end(p, NET_OP_SWEEP, e) < 0 ? err_wrap(e, "close the network pool") : 0;
}

/* No worker runs any more. Those that are not taken lose their policy first, so that the map says
 * nothing of slots that are gone. */
static int drop_policies(struct net_pool *p, struct err *e)
{
    int rc = 0;
    memset(&p->helper.keep, 0, sizeof p->helper.keep);
    for (unsigned i = 0; i < p->plan.slots; i++) {
        struct err more = {0};
        if (p->slots[i].state == SLOT_USED)
            net_keep_add(&p->helper.keep, i);
        else if (pool_drop_policy(p, &p->slots[i], &more) < 0)
            rc = rc < 0 ? err_join(e, &more) : (*e = more, -1);
    }
    return rc;
}

int net_pool_leave(struct net_pool *p, struct err *e)
{
    struct err more = {0};
    if (!p)
        return 0;
    stop_threads(p);
    p->worker_started = false;
    p->dns = NULL;
    int rc = drop_policies(p, e);
    if (end(p, NET_OP_SWEEP_SLOTS, &more) < 0)
        rc = rc < 0 ? err_join(e, &more) : (*e = more, -1);
    return rc < 0 ? err_wrap(e, "leave the network pool") : 0;
}
