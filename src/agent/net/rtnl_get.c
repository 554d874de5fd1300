/* SPDX-License-Identifier: Apache-2.0 */
/* Reading links and addresses by rtnetlink, in the caller's network namespace. */
#include "agent/net/nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

static void read_tun(const struct nlattr *data, struct rtnl_link *l)
{
    const struct nlattr *a;
    mnl_attr_for_each_nested(a, data)
    {
        if (mnl_attr_get_type(a) == IFLA_TUN_TYPE)
            l->is_tap = mnl_attr_get_u8(a) == IFF_TAP;
        else if (mnl_attr_get_type(a) == IFLA_TUN_OWNER)
            l->tap_owner = (uid_t)mnl_attr_get_u32(a);
    }
}

static void read_info(const struct nlattr *info, struct rtnl_link *l)
{
    const struct nlattr *a;
    mnl_attr_for_each_nested(a, info)
    {
        if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
            (void)snprintf(l->kind, sizeof l->kind, "%s", mnl_attr_get_str(a));
        else if (mnl_attr_get_type(a) == IFLA_INFO_DATA && strcmp(l->kind, "tun") == 0)
            read_tun(a, l);
    }
}

static void read_mac(const struct nlattr *a, struct rtnl_link *l)
{
    const uint8_t *b = mnl_attr_get_payload(a);
    if (mnl_attr_get_payload_len(a) == 6)
        (void)snprintf(l->mac, sizeof l->mac, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2],
            b[3], b[4], b[5]);
}

static int link_read(const struct nlmsghdr *h, void *arg)
{
    struct rtnl_link *l = arg;
    const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    l->index = (uint32_t)ifi->ifi_index;
    l->up = ifi->ifi_flags & IFF_UP;
    mnl_attr_for_each(a, h, sizeof *ifi)
    {
        if (mnl_attr_get_type(a) == IFLA_LINK)
            l->peer_index = mnl_attr_get_u32(a);
        else if (mnl_attr_get_type(a) == IFLA_ADDRESS)
            read_mac(a, l);
        else if (mnl_attr_get_type(a) == IFLA_LINKINFO)
            read_info(a, l);
    }
    return MNL_CB_STOP;
}

int rtnl_link_get(const char *name, struct rtnl_link *ret, struct err *e)
{
    struct nl_request r;
    struct rtnl_link found = {.tap_owner = (uid_t)-1};
    r.h = mnl_nlmsg_put_header(r.bytes);
    r.h->nlmsg_type = RTM_GETLINK;
    r.h->nlmsg_flags = NLM_F_REQUEST;
    (void)mnl_nlmsg_put_extra_header(r.h, sizeof(struct ifinfomsg));
    mnl_attr_put_strz(r.h, IFLA_IFNAME, name);
    if (nl_talk(NETLINK_ROUTE, &r, link_read, &found, e) < 0)
        return e->errnum == ENODEV ? err_set(e, ERR_NOT_FOUND, "no link %s", name)
                                   : err_wrap(e, "link %s", name);
    *ret = found;
    return 0;
}

struct addr_search {
    const struct rtnl_addr *want;
    uint32_t index;
    bool found;
};

static int addr_seen(const struct nlmsghdr *h, void *arg)
{
    struct addr_search *s = arg;
    const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(h);
    const struct nlattr *a;
    if (ifa->ifa_index != s->index || ifa->ifa_prefixlen != s->want->prefix_len)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof *ifa)
    {
        if (mnl_attr_get_type(a) == IFA_LOCAL && ntohl(mnl_attr_get_u32(a)) == s->want->ip)
            s->found = true;
    }
    return MNL_CB_OK;
}

int rtnl_addr_exists(const struct rtnl_addr *want, bool *ret, struct err *e)
{
    struct nl_request r;
    struct addr_search s = {.want = want, .index = if_nametoindex(want->link)};
    if (s.index == 0)
        return err_sys(e, errno, "link %s", want->link);
    r.h = mnl_nlmsg_put_header(r.bytes);
    r.h->nlmsg_type = RTM_GETADDR;
    r.h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    struct ifaddrmsg *ifa = mnl_nlmsg_put_extra_header(r.h, sizeof *ifa);
    ifa->ifa_family = AF_INET;
    if (nl_talk(NETLINK_ROUTE, &r, addr_seen, &s, e) < 0)
        return err_wrap(e, "addresses of %s", want->link);
    *ret = s.found;
    return 0;
}
