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
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
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

static int sysctls_inside(struct slot_ctx *c, struct err *e)
{
    (void)c;
    if (disable_ipv6("all", e) < 0 || disable_ipv6("default", e) < 0)
        return -1;
    if (net_sysctl_write("net/ipv4/ip_forward", "1", e) < 0)
        return -1;
    if (net_sysctl_write("net/ipv4/conf/all/rp_filter", "1", e) < 0)
        return -1;
    return net_sysctl_write("net/ipv4/conf/default/rp_filter", "1", e);
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

static int parse_ip(const char *text)
{
    struct in_addr in = {0};
    (void)inet_pton(AF_INET, text, &in);
    return (int)ntohl(in.s_addr);
}

static int tap_addresses(struct err *e)
{
    const struct rtnl_addr gateway = {
        .link = GUEST_TAP, .ip = (uint32_t)parse_ip(GUEST_GATEWAY), .prefix_len = GUEST_PREFIX_LEN};
    if (rtnl_link_up(GUEST_TAP, e) < 0 || rtnl_addr_add(&gateway, e) < 0)
        return -1;
    return rtnl_neigh_add(GUEST_TAP, (uint32_t)parse_ip(GUEST_ADDRESS), GUEST_MAC, e);
}

static int addresses_inside(struct slot_ctx *c, struct err *e)
{
    const struct rtnl_addr end = {.link = NET_NS_LINK, .ip = c->names.ns_end, .prefix_len = 31};
    const struct rtnl_route all = {.link = NET_NS_LINK, .gateway = c->names.host_end};
    if (rtnl_link_up("lo", e) < 0 || tap_addresses(e) < 0)
        return -1;
    if (rtnl_addr_add(&end, e) < 0 || rtnl_link_up(NET_NS_LINK, e) < 0)
        return -1;
    return rtnl_route_add(&all, e);
}

static int make_addresses(void *ctx, struct err *e)
{
    return inside(ctx, addresses_inside, e);
}

/* Conntrack must not take the middle of an old TCP connection for a new one. The file is there once
 * the rules have loaded conntrack. */
static int rules_inside(struct slot_ctx *c, struct err *e)
{
    AUTO_BUF struct buf rules = BUF_INIT(NET_RULES_BYTES_MAX);
    net_rules_slot(&rules, c->plan, &c->names);
    if (net_nft_load(&rules, e) < 0)
        return -1;
    return net_sysctl_write("net/netfilter/nf_conntrack_tcp_loose", "0", e);
}

static int make_rules(void *ctx, struct err *e)
{
    return inside(ctx, rules_inside, e);
}

/* Forwarding of this link alone; IPv6 off before it is up. */
static int make_host_end(void *ctx, struct err *e)
{
    struct slot_ctx *c = ctx;
    char path[64];
    const char *link = c->names.link;
    const struct rtnl_addr end = {.link = link, .ip = c->names.host_end, .prefix_len = 31};
    const struct rtnl_route guest = {.link = link,
        .dst = c->names.host_ip,
        .dst_len = 32,
        .gateway = c->names.ns_end,
        .source = c->names.host_end};
    (void)snprintf(path, sizeof path, "net/ipv4/conf/%s/forwarding", link);
    if (disable_ipv6(link, e) < 0 || net_sysctl_write(path, "1", e) < 0)
        return -1;
    if (rtnl_addr_add(&end, e) < 0 || rtnl_link_up(link, e) < 0)
        return -1;
    return rtnl_route_add(&guest, e);
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

/* Collecting names while a dump or a folder is read, deleting them afterwards. */
struct names {
    const char *prefix;
    char list[NET_SLOTS_MAX][NET_NAME_MAX + 1];
    size_t n;
};

static void names_add(const char *name, void *arg)
{
    struct names *all = arg;
    if (strncmp(name, all->prefix, strlen(all->prefix)) != 0 || strlen(name) > NET_NAME_MAX ||
        all->n == ARRAY_LEN(all->list))
        return;
    (void)snprintf(all->list[all->n++], NET_NAME_MAX + 1, "%s", name);
}

static int join(int rc, int step_rc, const struct err *step, struct err *e)
{
    if (step_rc == 0)
        return rc;
    if (rc == 0)
        *e = *step;
    else
        (void)err_join(e, step);
    return -1;
}

/* Sweeps of a kind: the names first, then each away. */
static int sweep_links(struct names *all, const struct net_plan *p, struct err *e)
{
    struct err step = {0};
    int rc = join(0, rtnl_group_delete(net_link_group(p->instance), &step), &step, e);
    all->n = 0;
    rc = join(rc, rtnl_each_link(names_add, all, &step), &step, e);
    for (size_t i = 0; i < all->n; i++)
        rc = join(rc, rtnl_link_delete(all->list[i], &step), &step, e);
    return rc;
}

static int list_namespaces(struct names *all, struct err *e)
{
    const struct dirent *entry;
    DIR *dir = opendir(NET_NETNS_DIR);
    all->n = 0;
    if (!dir)
        return errno == ENOENT ? 0 : err_sys(e, errno, "open " NET_NETNS_DIR);
    while ((entry = readdir(dir)))
        names_add(entry->d_name, all);
    (void)closedir(dir);
    return 0;
}

/* Names only: the links to the host are gone by now, and the kernel takes down nameless namespaces
 * many at once, where deleting their TAPs one by one costs 35 ms each. */
static int sweep_namespaces(struct names *all, struct err *e)
{
    struct err step = {0};
    char path[64];
    int rc = join(0, list_namespaces(all, &step), &step, e);
    for (size_t i = 0; i < all->n; i++) {
        (void)snprintf(path, sizeof path, NET_NETNS_DIR "/%s", all->list[i]);
        rc = join(rc, net_netns_remove(path, &step), &step, e);
    }
    return rc;
}

int net_slots_sweep(const struct net_plan *p, struct err *e)
{
    char prefix[NET_NAME_MAX + 1];
    struct err step = {0};
    AUTO_FREE struct names *all = calloc(1, sizeof *all);
    if (!all)
        return err_sys(e, ENOMEM, "sweep");
    net_link_prefix(p->instance, prefix);
    all->prefix = prefix;
    int rc = join(0, sweep_links(all, p, &step), &step, e);
    return join(rc, sweep_namespaces(all, &step), &step, e);
}
