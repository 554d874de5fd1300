/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of an instance: rules, an unreachable route under the slots, the DNS forwarder's
 * address, forwarding.
 *
 * Theory of operation. Forwarding is needed on our links (slot.c) and, for the answers, on the
 * links of the default routes. A host that forwards anyway is left as it is. Where it does not,
 * only those uplinks are switched on, and they are named in the table's `guard` set: the rules drop
 * whatever comes in there and does not go to a slot, so the host is no more of a router for its
 * neighbours than before. The set is also the record of what to switch off again, for us or for the
 * next agent after a crash; an uplink that another instance guards too stays on until the last one
 * ends.
 *
 * Renewing, under guests that run. Replacing a table in one transaction is not enough: the kernel
 * registers the new table's hooks before, and removes the old one's after the instant at which both
 * change places, and at one hook a packet may be looked at by the one before it and by the other
 * behind it, so that it meets neither. So the new rules come first under another name, beside the
 * old ones (what either drops is dropped), then take their place, then the copy goes. At each
 * instant one table is whole, and a renewal that was killed anywhere is simply done again.
 *
 * The unreachable route makes addresses of slots that do not exist fail at once instead of leaving
 * through the uplink.
 */
#include "agent/net/net_int.h"

#include <assert.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"

struct host_ctx {
    const struct net_plan *plan;
    const struct net_keep *keep; /* of net_host_renew */
    struct net_host_rules rules;
    struct net_guard before; /* of net_host_renew: what the last agent guarded */
    char table[NET_NAME_MAX + 1];
};

static void ctx_init(struct host_ctx *c, const struct net_plan *p)
{
    *c = (struct host_ctx){.plan = p};
    memset(c->rules.policies.of, -1, sizeof c->rules.policies.of);
    net_table_name(p->instance, c->table);
}

static bool guard_has(const struct net_guard *g, const char *name)
{
    for (size_t i = 0; i < g->n; i++)
        if (strcmp(g->names[i], name) == 0)
            return true;
    return false;
}

static void guard_add(const char *name, void *arg)
{
    struct net_guard *g = arg;
    if (g->n < ARRAY_LEN(g->names) && !guard_has(g, name))
        (void)snprintf(g->names[g->n++], sizeof g->names[0], "%s", name);
}

/* What the other instances on this host guard. */
static int others_guard(uint32_t instance, struct net_guard *ret, struct err *e)
{
    ret->n = 0;
    for (uint32_t i = 0; i < NET_INSTANCES_MAX; i++) {
        struct net_guard one;
        if (i == instance)
            continue;
        if (net_guard_read(i, &one, e) < 0)
            return -1;
        for (size_t k = 0; k < one.n; k++)
            guard_add(one.names[k], ret);
    }
    return 0;
}

static void forwarding_path(const char *link, char dst[64])
{
    (void)snprintf(dst, 64, "net/ipv4/conf/%s/forwarding", link);
}

static int link_forwards(const char *link, int *ret, struct err *e)
{
    char path[64];
    forwarding_path(link, path);
    return net_sysctl_read(path, ret, e);
}

/* The uplinks that would not forward without us; `mine`: those we have switched on already. */
static int find_guard(
    const struct net_plan *p, const struct net_guard *mine, struct net_guard *ret, struct err *e)
{
    struct net_guard others;
    struct net_guard uplinks = {.n = 0};
    int all;
    ret->n = 0;
    if (net_sysctl_read("net/ipv4/ip_forward", &all, e) < 0)
        return -1;
    if (all)
        return 0;
    if (others_guard(p->instance, &others, e) < 0 || rtnl_each_default(guard_add, &uplinks, e) < 0)
        return -1;
    for (size_t i = 0; i < uplinks.n; i++) {
        int on;
        if (link_forwards(uplinks.names[i], &on, e) < 0)
            return -1;
        if (!on || guard_has(mine, uplinks.names[i]) || guard_has(&others, uplinks.names[i]))
            guard_add(uplinks.names[i], ret);
    }
    return 0;
}

static int load_rules(const struct host_ctx *c, bool aside, struct err *e)
{
    AUTO_BUF struct buf rules = BUF_INIT(NET_RULES_BYTES_MAX);
    net_rules_host(&rules, c->plan, &c->rules, aside);
    return net_nft_load(&rules, e);
}

static int make_rules(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    if (find_guard(c->plan, &c->before, &c->rules.guard, e) < 0)
        return -1;
    return load_rules(c, /* aside= */ false, e);
}

static int undo_rules(void *ctx, struct err *e)
{
    const struct host_ctx *c = ctx;
    AUTO_BUF struct buf rules = BUF_INIT(NET_RULES_BYTES_MAX);
    net_rules_host_delete(&rules, c->plan, /* aside= */ false);
    net_rules_host_delete(&rules, c->plan, /* aside= */ true);
    return net_nft_load(&rules, e);
}

static struct rtnl_route unreachable_route(const struct net_plan *p)
{
    return (struct rtnl_route){.dst = p->base, .dst_len = NET_INSTANCE_PREFIX};
}

static int make_route(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    const struct rtnl_route r = unreachable_route(c->plan);
    return rtnl_route_add(&r, e);
}

static int undo_route(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    const struct rtnl_route r = unreachable_route(c->plan);
    return rtnl_route_delete(&r, e);
}

/* Scope host: never chosen as the source of something that leaves. */
static struct rtnl_addr dns_addr(const struct net_plan *p, char label[NET_NAME_MAX + 4])
{
    char table[NET_NAME_MAX + 1];
    net_table_name(p->instance, table);
    (void)snprintf(label, NET_NAME_MAX + 4, "lo:%s", table);
    return (struct rtnl_addr){.link = "lo",
        .ip = net_dns_address(p),
        .prefix_len = 32,
        .scope = RT_SCOPE_HOST,
        .label = label};
}

static int make_dns_address(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    char label[NET_NAME_MAX + 4];
    const struct rtnl_addr a = dns_addr(c->plan, label);
    return rtnl_addr_add(&a, e);
}

static int undo_dns_address(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    char label[NET_NAME_MAX + 4];
    const struct rtnl_addr a = dns_addr(c->plan, label);
    return rtnl_addr_delete(&a, e);
}

static int make_forwarding(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    const struct net_guard *guard = &c->rules.guard;
    char path[64];
    for (size_t i = 0; i < guard->n; i++) {
        forwarding_path(guard->names[i], path);
        if (net_sysctl_write(path, "1", e) < 0)
            return -1;
    }
    return 0;
}

/* Switches off those of `mine` that are not in `stay`, unless the host forwards by itself now or
 * another instance needs it. A link that is gone is fine. */
static int switch_off(const struct net_plan *p, const struct net_guard *mine,
    const struct net_guard *stay, struct err *e)
{
    struct net_guard others;
    char path[64];
    int all;
    if (others_guard(p->instance, &others, e) < 0 ||
        net_sysctl_read("net/ipv4/ip_forward", &all, e) < 0)
        return -1;
    for (size_t i = 0; !all && i < mine->n; i++) {
        const char *link = mine->names[i];
        if (guard_has(stay, link) || guard_has(&others, link))
            continue;
        forwarding_path(link, path);
        if (net_sysctl_write(path, "0", e) < 0 && e->kind != ERR_NOT_FOUND)
            return -1;
    }
    return 0;
}

/* What our table says we switched on. */
static int undo_forwarding(void *ctx, struct err *e)
{
    const struct host_ctx *c = ctx;
    const struct net_guard none = {.n = 0};
    struct net_guard mine;
    if (net_guard_read(c->plan->instance, &mine, e) < 0)
        return -1;
    return switch_off(c->plan, &mine, &none, e);
}

/* What the last agent left: policies of kept slots go on. A kept slot without one (the table was
 * lost, or never had it) starts with none: that denies too much, not too little. */
static int renew_read(void *ctx, struct err *e)
{
    struct host_ctx *c = ctx;
    struct net_policies found;
    if (net_policies_read(c->plan, &found, e) < 0 ||
        net_guard_read(c->plan->instance, &c->before, e) < 0)
        return -1;
    for (unsigned i = 0; i < c->plan->slots; i++)
        if (net_keep_has(c->keep, i))
            c->rules.policies.of[i] = found.of[i] < 0 ? NET_POLICY_NONE : found.of[i];
    return find_guard(c->plan, &c->before, &c->rules.guard, e);
}

/* While the old table still names them. */
static int renew_switch_off(void *ctx, struct err *e)
{
    const struct host_ctx *c = ctx;
    return switch_off(c->plan, &c->before, &c->rules.guard, e);
}

static int renew_aside(void *ctx, struct err *e)
{
    return load_rules(ctx, /* aside= */ true, e);
}

static int renew_rules(void *ctx, struct err *e)
{
    return load_rules(ctx, /* aside= */ false, e);
}

static int renew_aside_away(void *ctx, struct err *e)
{
    const struct host_ctx *c = ctx;
    AUTO_BUF struct buf rules = BUF_INIT(NET_RULES_BYTES_MAX);
    net_rules_host_delete(&rules, c->plan, /* aside= */ true);
    return net_nft_load(&rules, e);
}

static int renew_route(void *ctx, struct err *e)
{
    return make_route(ctx, e) < 0 && e->errnum != EEXIST ? -1 : 0;
}

static int renew_dns_address(void *ctx, struct err *e)
{
    return make_dns_address(ctx, e) < 0 && e->errnum != EEXIST ? -1 : 0;
}

static const struct net_step host_steps[] = {
    {"rules", make_rules, undo_rules},
    {"route", make_route, undo_route},
    {"dns address", make_dns_address, undo_dns_address},
    {"forwarding", make_forwarding, undo_forwarding},
};
const size_t net_host_step_count = ARRAY_LEN(host_steps);
static_assert(ARRAY_LEN(host_steps) <= NET_STEPS_MAX, "a reply holds the times of all steps");

int net_host_make(
    const struct net_plan *p, unsigned fail_after, uint32_t step_us[NET_STEPS_MAX], struct err *e)
{
    struct host_ctx c;
    ctx_init(&c, p);
    if (net_steps_make(host_steps, net_host_step_count, &c, fail_after, step_us, e) < 0)
        return err_wrap(e, "network of %s", c.table);
    return 0;
}

/* No undo: what is in force stays in force. */
static const struct net_step renew_steps[] = {
    {"state", renew_read, NULL},
    {"forwarding no more", renew_switch_off, NULL},
    {"rules aside", renew_aside, NULL},
    {"rules", renew_rules, NULL},
    {"rules aside away", renew_aside_away, NULL},
    {"route", renew_route, NULL},
    {"dns address", renew_dns_address, NULL},
    {"forwarding", make_forwarding, NULL},
};
const size_t net_renew_step_count = ARRAY_LEN(renew_steps);
static_assert(ARRAY_LEN(renew_steps) <= NET_STEPS_MAX, "a reply holds the times of all steps");

int net_host_renew(const struct net_plan *p, const struct net_keep *keep, unsigned fail_after,
    uint32_t step_us[NET_STEPS_MAX], struct err *e)
{
    struct host_ctx c;
    ctx_init(&c, p);
    c.keep = keep;
    if (net_steps_make(renew_steps, ARRAY_LEN(renew_steps), &c, fail_after, step_us, e) < 0)
        return err_wrap(e, "renew network of %s", c.table);
    return 0;
}

int net_host_remove(const struct net_plan *p, struct err *e)
{
    struct host_ctx c;
    ctx_init(&c, p);
    if (net_steps_undo(host_steps, net_host_step_count, &c, e) < 0)
        return err_wrap(e, "remove network of %s", c.table);
    return 0;
}
