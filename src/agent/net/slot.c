/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One network slot, made and removed in steps by the single-threaded helper.
 *
 * Theory of operation. A slot is three objects with names: a namespace, the host's end of a veth
 * pair in the namespace the helper was started in, and the TAP inside. All else (addresses, routes,
 * sysctls, rules, conntrack) lives in one of them and dies with it, so only these three have an
 * undo. The TAP's is explicit because a namespace that has lost its name is torn down by the kernel
 * some time later. Every function returns in the namespace it was called in.
 */
#include "agent/net/net_int.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"
#include "proto/limits.h"

#define TUN_DEVICE "/dev/net/tun"

struct slot_ctx {
    const struct net_plan *plan;
    struct net_names names;
    uid_t uid;
};

static void ctx_init(struct slot_ctx *c, const struct net_plan *p, unsigned slot)
{
    c->plan = p;
    c->uid = (uid_t)(p->uid_base + slot);
    net_names_of(p, slot, &c->names);
}

/* Runs `fn` inside the slot's namespace. */
static int inside(struct slot_ctx *c, int (*fn)(struct slot_ctx *c, struct err *e), struct err *e)
{
    int home = net_netns_enter(c->names.netns, e);
    int rc;
    if (home < 0)
        return -1;
    rc = fn(c, e);
    net_netns_leave(home);
    return rc;
}

static int make_namespace(void *ctx, struct err *e)
{
    struct slot_ctx *c = ctx;
    return net_netns_make(c->names.netns, e);
}

static int undo_namespace(void *ctx, struct err *e)
{
    struct slot_ctx *c = ctx;
    return net_netns_remove(c->names.netns, e);
}

/* A kernel without IPv6 has none of these files, and nothing to switch off. */
static int disable_ipv6(const char *conf, struct err *e)
{
    char path[64];
    (void)snprintf(path, sizeof path, "net/ipv6/conf/%s/disable_ipv6", conf);
    return net_sysctl_write(path, "1", e) < 0 && e->kind != ERR_NOT_FOUND ? -1 : 0;
}

int net_slot_sysctls_inside(struct err *e)
{
    if (disable_ipv6("all", e) < 0 || disable_ipv6("default", e) < 0)
        return -1;
    if (net_sysctl_write("net/ipv4/ip_forward", "1", e) < 0)
        return -1;
    if (net_sysctl_write("net/ipv4/conf/all/rp_filter", "1", e) < 0)
        return -1;
    return net_sysctl_write("net/ipv4/conf/default/rp_filter", "1", e);
}

static int sysctls_inside(struct slot_ctx *c, struct err *e)
{
    (void)c;
    return net_slot_sysctls_inside(e);
}

/* Before there is any link, so that none ever speaks IPv6. */
static int make_sysctls(void *ctx, struct err *e)
{
    return inside(ctx, sysctls_inside, e);
}

/* Made from inside, so that `eth0` never shows up in the host's namespace. */
static int make_veth(void *ctx, struct err *e)
{
    struct slot_ctx *c = ctx;
    int home = net_netns_enter(c->names.netns, e);
    if (home < 0)
        return -1;
    const struct rtnl_veth veth = {.name = NET_NS_LINK,
        .peer = c->names.link,
        .peer_ns_fd = home,
        .peer_group = net_link_group(c->plan->instance)};
    int rc = rtnl_veth_add(&veth, e);
    net_netns_leave(home);
    return rc;
}

static int undo_veth(void *ctx, struct err *e)
{
    struct slot_ctx *c = ctx;
    return rtnl_link_delete(c->names.link, e);
}

/* Attaches to the TAP of the namespace the caller is in; makes it when absent. */
static int open_tap(struct err *e)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    AUTO_CLOSE int fd = open(TUN_DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "open " TUN_DEVICE);
    memcpy(ifr.ifr_name, GUEST_TAP, sizeof GUEST_TAP);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0)
        return err_sys(e, errno, "attach to " GUEST_TAP);
    return TAKE_FD(fd);
}

static int tap_inside(struct slot_ctx *c, struct err *e)
{
    AUTO_CLOSE int fd = open_tap(e);
    if (fd < 0)
        return -1;
    if (ioctl(fd, TUNSETOWNER, (unsigned long)c->uid) < 0)
        return err_sys(e, errno, "owner of " GUEST_TAP);
    if (ioctl(fd, TUNSETPERSIST, 1UL) < 0)
        return err_sys(e, errno, "keep " GUEST_TAP);
    return rtnl_link_set_mac(GUEST_TAP, GUEST_HOST_MAC, e);
}

static int make_tap(void *ctx, struct err *e)
{
    return inside(ctx, tap_inside, e);
}

static int tap_gone_inside(struct slot_ctx *c, struct err *e)
{
    (void)c;
    return rtnl_link_delete(GUEST_TAP, e);
}

static int undo_tap(void *ctx, struct err *e)
{
    return inside(ctx, tap_gone_inside, e) < 0 && e->kind != ERR_NOT_FOUND ? -1 : 0;
}

uint32_t net_parse_ip(const char *text)
{
    struct in_addr in = {0};
    (void)inet_pton(AF_INET, text, &in);
    return ntohl(in.s_addr);
}

static int tap_addresses(struct err *e)
{
    const struct rtnl_addr gateway = {
        .link = GUEST_TAP, .ip = net_parse_ip(GUEST_GATEWAY), .prefix_len = GUEST_PREFIX_LEN};
    return rtnl_link_up(GUEST_TAP, e) < 0 ? -1 : rtnl_addr_add(&gateway, e);
}

int net_slot_routes_inside(const struct net_names *n, struct err *e)
{
    const struct rtnl_route all = {.link = NET_NS_LINK, .gateway = n->host_end};
    if (rtnl_neigh_add(GUEST_TAP, net_parse_ip(GUEST_ADDRESS), GUEST_MAC, e) < 0)
        return -1;
    return rtnl_route_add(&all, e) < 0 && e->errnum != EEXIST ? -1 : 0;
}

static int addresses_inside(struct slot_ctx *c, struct err *e)
{
    const struct rtnl_addr end = {.link = NET_NS_LINK, .ip = c->names.ns_end, .prefix_len = 31};
    if (rtnl_link_up("lo", e) < 0 || tap_addresses(e) < 0)
        return -1;
    if (rtnl_addr_add(&end, e) < 0 || rtnl_link_up(NET_NS_LINK, e) < 0)
        return -1;
    return net_slot_routes_inside(&c->names, e);
}

static int make_addresses(void *ctx, struct err *e)
{
    return inside(ctx, addresses_inside, e);
}

/* Conntrack must not take the middle of an old TCP connection for a new one. The file is there once
 * the rules have loaded conntrack. */
int net_slot_rules_inside(const struct net_plan *p, const struct net_names *n, struct err *e)
{
    AUTO_BUF struct buf rules = BUF_INIT(NET_RULES_BYTES_MAX);
    net_rules_slot(&rules, p, n, /* aside= */ false);
    if (net_nft_load(&rules, e) < 0)
        return -1;
    return net_sysctl_write("net/netfilter/nf_conntrack_tcp_loose", "0", e);
}

static int rules_inside(struct slot_ctx *c, struct err *e)
{
    return net_slot_rules_inside(c->plan, &c->names, e);
}

static int make_rules(void *ctx, struct err *e)
{
    return inside(ctx, rules_inside, e);
}

/* Forwarding of this link alone. */
int net_slot_host_end_sysctls(const struct net_names *n, struct err *e)
{
    char path[64];
    (void)snprintf(path, sizeof path, "net/ipv4/conf/%s/forwarding", n->link);
    return disable_ipv6(n->link, e) < 0 ? -1 : net_sysctl_write(path, "1", e);
}

int net_slot_host_end_route(const struct net_names *n, struct err *e)
{
    const struct rtnl_route guest = {.link = n->link,
        .dst = n->host_ip,
        .dst_len = 32,
        .gateway = n->ns_end,
        .source = n->host_end};
    return rtnl_route_add(&guest, e) < 0 && e->errnum != EEXIST ? -1 : 0;
}

/* IPv6 is off before it is up. */
static int make_host_end(void *ctx, struct err *e)
{
    const struct slot_ctx *c = ctx;
    const struct rtnl_addr end = {.link = c->names.link, .ip = c->names.host_end, .prefix_len = 31};
    if (net_slot_host_end_sysctls(&c->names, e) < 0)
        return -1;
    if (rtnl_addr_add(&end, e) < 0 || rtnl_link_up(c->names.link, e) < 0)
        return -1;
    return net_slot_host_end_route(&c->names, e);
}

/* The rules come before the host's end is up: no packet passes without them. */
const struct net_step net_slot_steps[] = {
    {"namespace", make_namespace, undo_namespace},
    {"sysctls", make_sysctls, NULL},
    {"veth", make_veth, undo_veth},
    {"tap", make_tap, undo_tap},
    {"rules", make_rules, NULL},
    {"addresses", make_addresses, NULL},
    {"host end", make_host_end, NULL},
};
const size_t net_slot_step_count = ARRAY_LEN(net_slot_steps);
static_assert(ARRAY_LEN(net_slot_steps) <= NET_STEPS_MAX, "a reply holds the times of all steps");

int net_slot_make(const struct net_plan *p, unsigned slot, unsigned fail_after,
    uint32_t step_us[NET_STEPS_MAX], struct err *e)
{
    struct slot_ctx c;
    ctx_init(&c, p, slot);
    if (net_steps_make(net_slot_steps, net_slot_step_count, &c, fail_after, step_us, e) < 0)
        return err_wrap(e, "network slot %s", c.names.link);
    return 0;
}

int net_slot_remove(const struct net_plan *p, unsigned slot, struct err *e)
{
    struct slot_ctx c;
    ctx_init(&c, p, slot);
    if (net_steps_undo(net_slot_steps, net_slot_step_count, &c, e) < 0)
        return err_wrap(e, "remove network slot %s", c.names.link);
    return 0;
}

static int recycle_inside(struct slot_ctx *c, struct err *e)
{
    (void)c;
    AUTO_CLOSE int fd = open_tap(e);
    net_point("recycle");
    if (fd < 0)
        return e->errnum == EBUSY ? err_set(e, ERR_BAD_STATE, "a process still holds " GUEST_TAP)
                                  : -1;
    return net_ct_flush_all(e);
}

int net_slot_recycle(const struct net_plan *p, unsigned slot, struct err *e)
{
    struct slot_ctx c;
    ctx_init(&c, p, slot);
    if (inside(&c, recycle_inside, e) < 0 ||
        net_ct_flush_address(c.names.ns_end, c.names.host_ip, e) < 0)
        return err_wrap(e, "recycle network slot %s", c.names.link);
    return 0;
}
