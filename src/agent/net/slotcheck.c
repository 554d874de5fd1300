/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a slot that an earlier agent made is whole, under a guest that runs.
 *
 * Theory of operation. Objects are compared with what net_slot_make makes: both ends of the veth
 * pair belong to each other and are up, the TAP is one and belongs to the slot's uid, the addresses
 * are there, the rules are loaded (one transaction, so a part of them tells of all). One that is
 * missing cannot be put back under a guest: the slot is not whole. Settings and routes are simply
 * made again, which changes nothing when they are right. Rules of another text (this is another
 * version than the one that made the slot) are replaced without a gap: the new ones come aside the
 * old ones, then in their place, then aside away; a packet always meets one whole table.
 */
#include "agent/net/net_int.h"

#include <linux/netfilter.h>
#include <string.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"
#include "proto/limits.h"

struct check {
    const struct net_plan *plan;
    struct net_names names;
    uid_t uid;
    struct rtnl_link host_end;
};

static int missing(struct err *e, const char *what)
{
    return err_set(e, ERR_NOT_FOUND, "%s: not as it was made", what);
}

static int check_address(const struct rtnl_addr *want, struct err *e)
{
    bool found;
    if (rtnl_addr_exists(want, &found, e) < 0)
        return -1;
    return found ? 0 : missing(e, want->link);
}

static int check_host_end(struct check *c, struct err *e)
{
    const struct rtnl_addr end = {.link = c->names.link, .ip = c->names.host_end, .prefix_len = 31};
    if (rtnl_link_get(c->names.link, &c->host_end, e) < 0)
        return -1;
    if (strcmp(c->host_end.kind, "veth") != 0 || !c->host_end.up)
        return missing(e, c->names.link);
    return check_address(&end, e);
}

static int check_ns_end(const struct check *c, struct err *e)
{
    struct rtnl_link l;
    const struct rtnl_addr end = {.link = NET_NS_LINK, .ip = c->names.ns_end, .prefix_len = 31};
    if (rtnl_link_get(NET_NS_LINK, &l, e) < 0)
        return -1;
    if (strcmp(l.kind, "veth") != 0 || !l.up || l.peer_index != c->host_end.index ||
        l.index != c->host_end.peer_index)
        return missing(e, NET_NS_LINK);
    return check_address(&end, e);
}

static int check_tap(const struct check *c, struct err *e)
{
    struct rtnl_link l;
    const struct rtnl_addr gateway = {
        .link = GUEST_TAP, .ip = net_parse_ip(GUEST_GATEWAY), .prefix_len = GUEST_PREFIX_LEN};
    if (rtnl_link_get(GUEST_TAP, &l, e) < 0)
        return -1;
    if (!l.is_tap || !l.up || l.tap_owner != c->uid || strcmp(l.mac, GUEST_HOST_MAC) != 0)
        return missing(e, GUEST_TAP);
    return check_address(&gateway, e);
}

static int load(
    void (*put)(struct buf *b, const struct check *c), const struct check *c, struct err *e)
{
    AUTO_BUF struct buf rules = BUF_INIT(NET_RULES_BYTES_MAX);
    put(&rules, c);
    int rc = net_nft_load(&rules, e);
    net_point("rules renewed");
    return rc;
}

static void put_aside(struct buf *b, const struct check *c)
{
    net_rules_slot(b, c->plan, &c->names, /* aside= */ true);
}

static void put_aside_away(struct buf *b, const struct check *c)
{
    (void)c;
    net_rules_slot_delete(b, /* aside= */ true);
}

/* An earlier renewal may have been stopped in any of its parts; it is done again then. */
static int renew_rules(const struct check *c, struct err *e)
{
    if (load(put_aside, c, e) < 0 || net_slot_rules_inside(c->plan, &c->names, e) < 0)
        return -1;
    net_point("rules renewed");
    return load(put_aside_away, c, e);
}

static int check_rules(const struct check *c, struct err *e)
{
    char mark[NET_MARK_MAX];
    bool tap;
    bool here;
    bool same;
    bool aside;
    net_rules_slot_mark(c->plan, &c->names, mark);
    if (net_nft_has_chain(NFPROTO_NETDEV, NET_SLOT_TABLE, NET_SLOT_CHAIN, &tap, e) < 0 ||
        net_nft_has_chain(NFPROTO_IPV4, NET_SLOT_TABLE, "through", &here, e) < 0 ||
        net_nft_has_chain(NFPROTO_IPV4, NET_SLOT_TABLE, mark, &same, e) < 0 ||
        net_nft_has_chain(NFPROTO_IPV4, NET_SLOT_TABLE "_aside", "through", &aside, e) < 0)
        return -1;
    if (!tap || !here)
        return missing(e, "rules");
    return same && !aside ? 0 : renew_rules(c, e);
}

static int check_inside(const struct check *c, struct err *e)
{
    if (check_ns_end(c, e) < 0 || check_tap(c, e) < 0 || check_rules(c, e) < 0)
        return -1;
    return net_slot_sysctls_inside(e) < 0 ? -1 : net_slot_routes_inside(&c->names, e);
}

static int check_all(struct check *c, struct err *e)
{
    if (check_host_end(c, e) < 0)
        return -1;
    int home = net_netns_enter(c->names.netns, e);
    if (home < 0)
        return -1;
    int rc = check_inside(c, e);
    net_netns_leave(home);
    if (rc < 0 || net_slot_host_end_sysctls(&c->names, e) < 0)
        return -1;
    return net_slot_host_end_route(&c->names, e);
}

int net_slot_check(const struct net_plan *p, unsigned slot, struct err *e)
{
    struct check c = {.plan = p, .uid = (uid_t)(p->uid_base + slot)};
    net_names_of(p, slot, &c.names);
    if (check_all(&c, e) < 0)
        return err_wrap(e, "network slot %s", c.names.link);
    return 0;
}
