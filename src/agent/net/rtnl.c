/* SPDX-License-Identifier: Apache-2.0 */
/* Links, addresses, routes and neighbours by rtnetlink, in the caller's network namespace. */
#include "agent/net/nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/ether.h>

/* mnl's header of a request with a family header of `size` behind it, zeroed. */
static void *request_init(struct nl_request *r, uint16_t type, uint16_t flags, size_t size)
{
    r->h = mnl_nlmsg_put_header(r->bytes);
    r->h->nlmsg_type = type;
    r->h->nlmsg_flags = NLM_F_REQUEST | flags;
    return mnl_nlmsg_put_extra_header(r->h, size);
}

static int talk(struct nl_request *r, struct err *e)
{
    r->h->nlmsg_flags |= NLM_F_ACK;
    return nl_talk(NETLINK_ROUTE, r, NULL, NULL, e);
}

static int link_index(const char *name, unsigned *ret, struct err *e)
{
    *ret = if_nametoindex(name);
    return *ret == 0 ? err_sys(e, errno, "link %s", name) : 0;
}

static int parse_mac(const char *text, struct ether_addr *ret, struct err *e)
{
    return ether_aton_r(text, ret) ? 0 : err_set(e, ERR_INVALID, "not a MAC address: %s", text);
}

int rtnl_veth_add(const struct rtnl_veth *v, struct err *e)
{
    struct nl_request r;
    struct nlattr *info;
    struct nlattr *data;
    struct nlattr *peer;
    (void)request_init(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(r.h, IFLA_IFNAME, v->name);
    info = mnl_attr_nest_start(r.h, IFLA_LINKINFO);
    mnl_attr_put_strz(r.h, IFLA_INFO_KIND, "veth");
    data = mnl_attr_nest_start(r.h, IFLA_INFO_DATA);
    peer = mnl_attr_nest_start(r.h, VETH_INFO_PEER);
    (void)mnl_nlmsg_put_extra_header(r.h, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(r.h, IFLA_IFNAME, v->peer);
    mnl_attr_put_u32(r.h, IFLA_NET_NS_FD, (uint32_t)v->peer_ns_fd);
    mnl_attr_put_u32(r.h, IFLA_GROUP, v->peer_group);
    mnl_attr_nest_end(r.h, peer);
    mnl_attr_nest_end(r.h, data);
    mnl_attr_nest_end(r.h, info);
    return talk(&r, e) < 0 ? err_wrap(e, "add veth %s", v->name) : 0;
}

int rtnl_link_delete(const char *name, struct err *e)
{
    struct nl_request r;
    (void)request_init(&r, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(r.h, IFLA_IFNAME, name);
    if (talk(&r, e) < 0 && e->errnum != ENODEV)
        return err_wrap(e, "delete link %s", name);
    return 0;
}

int rtnl_group_delete(uint32_t group, struct err *e)
{
    struct nl_request r;
    (void)request_init(&r, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
    mnl_attr_put_u32(r.h, IFLA_GROUP, group);
    if (talk(&r, e) < 0 && e->errnum != ENODEV)
        return err_wrap(e, "delete link group %#x", group);
    return 0;
}

int rtnl_link_set_group(const char *name, uint32_t group, struct err *e)
{
    struct nl_request r;
    (void)request_init(&r, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(r.h, IFLA_IFNAME, name);
    mnl_attr_put_u32(r.h, IFLA_GROUP, group);
    return talk(&r, e) < 0 ? err_wrap(e, "link %s group", name) : 0;
}

int rtnl_link_up(const char *name, struct err *e)
{
    struct nl_request r;
    struct ifinfomsg *ifi = request_init(&r, RTM_NEWLINK, 0, sizeof *ifi);
    ifi->ifi_flags = IFF_UP;
    ifi->ifi_change = IFF_UP;
    mnl_attr_put_strz(r.h, IFLA_IFNAME, name);
    return talk(&r, e) < 0 ? err_wrap(e, "link %s up", name) : 0;
}

int rtnl_link_set_mac(const char *name, const char *mac, struct err *e)
{
    struct nl_request r;
    struct ether_addr addr;
    if (parse_mac(mac, &addr, e) < 0)
        return -1;
    (void)request_init(&r, RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(r.h, IFLA_IFNAME, name);
    mnl_attr_put(r.h, IFLA_ADDRESS, sizeof addr, &addr);
    return talk(&r, e) < 0 ? err_wrap(e, "link %s address", name) : 0;
}

static int addr_talk(const struct rtnl_addr *a, uint16_t type, uint16_t flags, struct err *e)
{
    struct nl_request r;
    unsigned index;
    struct ifaddrmsg *ifa = request_init(&r, type, flags, sizeof *ifa);
    if (link_index(a->link, &index, e) < 0)
        return -1;
    ifa->ifa_family = AF_INET;
    ifa->ifa_prefixlen = a->prefix_len;
    ifa->ifa_scope = a->scope;
    ifa->ifa_index = index;
    mnl_attr_put_u32(r.h, IFA_LOCAL, htonl(a->ip));
    mnl_attr_put_u32(r.h, IFA_ADDRESS, htonl(a->ip));
    if (a->label)
        mnl_attr_put_strz(r.h, IFA_LABEL, a->label);
    return talk(&r, e);
}

int rtnl_addr_add(const struct rtnl_addr *a, struct err *e)
{
    if (addr_talk(a, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, e) < 0)
        return err_wrap(e, "add address to %s", a->link);
    return 0;
}

int rtnl_addr_delete(const struct rtnl_addr *a, struct err *e)
{
    if (addr_talk(a, RTM_DELADDR, 0, e) < 0 && e->errnum != EADDRNOTAVAIL && e->errnum != ENODEV)
        return err_wrap(e, "delete address of %s", a->link);
    return 0;
}

static int route_talk(const struct rtnl_route *t, uint16_t type, uint16_t flags, struct err *e)
{
    struct nl_request r;
    struct rtmsg *rt = request_init(&r, type, flags, sizeof *rt);
    unsigned index = 0;
    if (t->link && link_index(t->link, &index, e) < 0)
        return -1;
    rt->rtm_family = AF_INET;
    rt->rtm_dst_len = t->dst_len;
    rt->rtm_table = RT_TABLE_MAIN;
    rt->rtm_protocol = RTPROT_STATIC;
    rt->rtm_scope = RT_SCOPE_UNIVERSE;
    rt->rtm_type = t->link ? RTN_UNICAST : RTN_UNREACHABLE;
    if (t->dst_len)
        mnl_attr_put_u32(r.h, RTA_DST, htonl(t->dst));
    if (t->gateway)
        mnl_attr_put_u32(r.h, RTA_GATEWAY, htonl(t->gateway));
    if (t->source)
        mnl_attr_put_u32(r.h, RTA_PREFSRC, htonl(t->source));
    if (t->link)
        mnl_attr_put_u32(r.h, RTA_OIF, index);
    return talk(&r, e);
}

int rtnl_route_add(const struct rtnl_route *r, struct err *e)
{
    return route_talk(r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, e) < 0 ? err_wrap(e, "add route")
                                                                         : 0;
}

int rtnl_route_delete(const struct rtnl_route *r, struct err *e)
{
    if (route_talk(r, RTM_DELROUTE, 0, e) < 0 && e->errnum != ESRCH && e->errnum != ENODEV)
        return err_wrap(e, "delete route");
    return 0;
}

int rtnl_neigh_add(const char *link, uint32_t ip, const char *mac, struct err *e)
{
    struct nl_request r;
    struct ether_addr addr;
    unsigned index;
    struct ndmsg *nd = request_init(&r, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof *nd);
    if (parse_mac(mac, &addr, e) < 0 || link_index(link, &index, e) < 0)
        return -1;
    nd->ndm_family = AF_INET;
    nd->ndm_ifindex = (int)index;
    nd->ndm_state = NUD_PERMANENT;
    mnl_attr_put_u32(r.h, NDA_DST, htonl(ip));
    mnl_attr_put(r.h, NDA_LLADDR, sizeof addr, &addr);
    return talk(&r, e) < 0 ? err_wrap(e, "add neighbour to %s", link) : 0;
}

struct each {
    rtnl_name_fn *fn;
    void *arg;
};

static int link_seen(const struct nlmsghdr *h, void *arg)
{
    const struct each *each = arg;
    const struct nlattr *a;
    mnl_attr_for_each(a, h, sizeof(struct ifinfomsg))
    {
        if (mnl_attr_get_type(a) == IFLA_IFNAME)
            each->fn(mnl_attr_get_str(a), each->arg);
    }
    return MNL_CB_OK;
}

int rtnl_each_link(rtnl_name_fn *fn, void *arg, struct err *e)
{
    struct nl_request r;
    struct each each = {fn, arg};
    (void)request_init(&r, RTM_GETLINK, NLM_F_DUMP, sizeof(struct ifinfomsg));
    return nl_talk(NETLINK_ROUTE, &r, link_seen, &each, e) < 0 ? err_wrap(e, "list links") : 0;
}

static int route_seen(const struct nlmsghdr *h, void *arg)
{
    const struct each *each = arg;
    const struct rtmsg *rt = mnl_nlmsg_get_payload(h);
    char name[IF_NAMESIZE];
    const struct nlattr *a;
    if (rt->rtm_dst_len != 0 || rt->rtm_table != RT_TABLE_MAIN || rt->rtm_type != RTN_UNICAST)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof *rt)
    {
        if (mnl_attr_get_type(a) == RTA_OIF && if_indextoname(mnl_attr_get_u32(a), name))
            each->fn(name, each->arg);
    }
    return MNL_CB_OK;
}

int rtnl_each_default(rtnl_name_fn *fn, void *arg, struct err *e)
{
    struct nl_request r;
    struct each each = {fn, arg};
    struct rtmsg *rt = request_init(&r, RTM_GETROUTE, NLM_F_DUMP, sizeof *rt);
    rt->rtm_family = AF_INET;
    return nl_talk(NETLINK_ROUTE, &r, route_seen, &each, e) < 0 ? err_wrap(e, "list routes") : 0;
}
