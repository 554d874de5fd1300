/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nftables rules, as text for `nft -f -`. Nothing that a guest or client says is in them: names
 * and numbers come from the plan alone.
 *
 * Two lines of defence, each complete. In the slot's namespace: what the guest may say at all. On
 * the host, where only sets and maps differ from slot to slot: what a slot may say, should its
 * namespace be wrong. A packet of a slot passes, in this order, tap (netdev)      its own MAC and
 * address, IPv4 without options, ARP for the gateway alone nat, filter (ns)  DNS goes to the
 * forwarder, denied ranges end, source becomes the slot's origin (host)     the link's own
 * addresses, nothing but IPv4 egress (host)     replies, or what the slot's policy lets through
 *     input, forward    replies and DNS to this host; never from slot to slot
 */
#include "agent/net/net_int.h"

#include <stdio.h>

#include "proto/limits.h"

enum { SLOT_CONNECTIONS_MAX = 4096 }; /* of the host's conntrack table, 262144 by default */

/* What no guest may reach: RFC 6890 special-purpose ranges, of which 169.254/16 has the metadata
 * service; the /4s are multicast, reserved and broadcast. */
static const char denied_ranges[] =
    "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, "
    "192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, "
    "198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/4, 240.0.0.0/4";

/* auto-merge: the instances' own range may lie in one of the others. */
static void put_denied(struct buf *b, const struct net_plan *p)
{
    char range[INET_ADDRSTRLEN];
    net_ip_text(p->range, range);
    buf_printf(b,
        "\tset denied {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\tauto-merge\n"
        "\t\telements = { %s, %s/%u }\n\t}\n",
        denied_ranges, range, p->range_len);
}

/* Which addresses each link may send from: the namespace's, and host_ip in answers to this host. */
static void put_links(struct buf *b, const struct net_plan *p)
{
    struct net_names n;
    char ns_end[INET_ADDRSTRLEN];
    char host_ip[INET_ADDRSTRLEN];
    buf_append_cstr(b, "\tset links {\n\t\ttypeof iifname . ip saddr\n\t\telements = {\n");
    for (unsigned i = 0; i < p->slots; i++) {
        net_names_of(p, i, &n);
        net_ip_text(n.ns_end, ns_end);
        net_ip_text(n.host_ip, host_ip);
        buf_printf(b, "\t\t\t\"%s\" . %s, \"%s\" . %s,\n", n.link, ns_end, n.link, host_ip);
    }
    buf_append_cstr(b, "\t\t}\n\t}\n");
}

static void put_guard(struct buf *b, const struct net_guard *guard)
{
    buf_append_cstr(b, "\tset guard {\n\t\ttype ifname\n");
    for (size_t i = 0; i < guard->n; i++)
        buf_printf(b, "%s\"%s\"", i == 0 ? "\t\telements = { " : ", ", guard->names[i]);
    buf_append_cstr(b, guard->n > 0 ? " }\n\t}\n" : "\t}\n");
}

static void put_policy_map(
    struct buf *b, const struct net_plan *p, const struct net_policies *policies)
{
    struct net_names n;
    bool first = true;
    buf_append_cstr(b, "\tmap policies {\n\t\ttype ifname : verdict\n");
    for (unsigned i = 0; i < p->slots; i++) {
        if (policies->of[i] < 0)
            continue;
        net_names_of(p, i, &n);
        buf_printf(b, "%s\"%s\" : goto %s", first ? "\t\telements = { " : ", ", n.link,
            policies->of[i] == NET_POLICY_OPEN ? "policy_open" : "policy_none");
        first = false;
    }
    buf_append_cstr(b, first ? "\t}\n" : " }\n\t}\n");
}

static void put_policies(struct buf *b, const char *dns)
{
    buf_printf(b,
        "\tchain policy_open {\n"
        "\t\tip daddr %s meta l4proto { tcp, udp } th dport %d accept\n"
        "\t\tip daddr @denied drop\n"
        "\t\tfib daddr type != unicast drop\n"
        "\t\tmeta l4proto { tcp, udp, icmp } accept\n"
        "\t\tdrop\n"
        "\t}\n"
        "\tchain policy_none {\n\t\tdrop\n\t}\n",
        dns, NET_DNS_PORT);
}

static void put_prerouting(struct buf *b, const char *pre, const char *slots)
{
    buf_printf(b,
        "\tchain origin {\n"
        "\t\ttype filter hook prerouting priority raw; policy accept;\n"
        "\t\tiifname \"%s*\" meta nfproto != ipv4 drop\n"
        "\t\tiifname \"%s*\" iifname . ip saddr != @links drop\n"
        "\t\tiifname != \"%s*\" iifname != \"lo\" ip daddr %s drop\n"
        "\t\tiifname != \"%s*\" iifname != \"lo\" ip saddr %s drop\n"
        "\t}\n",
        pre, pre, pre, slots, pre, slots);
    buf_printf(b,
        "\tchain egress {\n"
        "\t\ttype filter hook prerouting priority mangle; policy accept;\n"
        "\t\tiifname != \"%s*\" accept\n"
        "\t\tct state invalid drop\n"
        "\t\tct state established ct direction reply accept\n"
        "\t\tiifname vmap @policies\n"
        "\t\tdrop\n"
        "\t}\n",
        pre);
}

static void put_filters(struct buf *b, const char *pre, const char *dns)
{
    buf_printf(b,
        "\tchain to_host {\n"
        "\t\ttype filter hook input priority filter; policy accept;\n"
        "\t\tiifname != \"%s*\" accept\n"
        "\t\tct state established ct direction reply accept\n"
        "\t\tip daddr %s meta l4proto { tcp, udp } th dport %d accept\n"
        "\t\tdrop\n"
        "\t}\n",
        pre, dns, NET_DNS_PORT);
    buf_printf(b,
        "\tchain through {\n"
        "\t\ttype filter hook forward priority filter; policy accept;\n"
        "\t\tiifname @guard oifname != \"tp*\" drop\n"
        "\t\tiifname \"%s*\" oifname \"tp*\" drop\n"
        "\t\toifname \"%s*\" ct state established,related accept\n"
        "\t\toifname \"%s*\" drop\n"
        "\t\tiifname \"%s*\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n"
        "\t}\n",
        pre, pre, pre, pre);
}

/* Adding it first makes the deletion succeed when it is absent. */
static void put_delete(struct buf *b, const char *family, const char *table)
{
    buf_printf(b, "table %s %s {\n}\ndelete table %s %s\n", family, table, family, table);
}

static void host_table(const struct net_plan *p, bool aside, char dst[NET_MARK_MAX])
{
    (void)snprintf(dst, NET_MARK_MAX, aside ? "tp%u_aside" : "tp%u", p->instance);
}

void net_rules_host_delete(struct buf *dst, const struct net_plan *p, bool aside)
{
    char table[NET_MARK_MAX];
    host_table(p, aside, table);
    put_delete(dst, "inet", table);
}

void net_rules_host(
    struct buf *dst, const struct net_plan *p, const struct net_host_rules *h, bool aside)
{
    char table[NET_MARK_MAX];
    char pre[NET_NAME_MAX + 1];
    char dns[INET_ADDRSTRLEN];
    char base[INET_ADDRSTRLEN];
    char slots[INET_ADDRSTRLEN + 4];
    host_table(p, aside, table);
    net_link_prefix(p->instance, pre);
    net_ip_text(net_dns_address(p), dns);
    net_ip_text(p->base, base);
    (void)snprintf(slots, sizeof slots, "%s/%d", base, NET_INSTANCE_PREFIX);
    net_rules_host_delete(dst, p, aside);
    buf_printf(dst, "table inet %s {\n", table);
    put_denied(dst, p);
    put_links(dst, p);
    put_guard(dst, &h->guard);
    put_policy_map(dst, p, &h->policies);
    put_policies(dst, dns);
    put_prerouting(dst, pre, slots);
    put_filters(dst, pre, dns);
    buf_printf(dst,
        "\tchain outward {\n"
        "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
        "\t\tip saddr %s oifname != \"tp*\" oifname != \"lo\" masquerade\n"
        "\t}\n}\n",
        slots);
}

static void put_tap(struct buf *b, const char *table)
{
    buf_printf(b,
        "table netdev %s {\n"
        "\tchain " NET_SLOT_CHAIN " {\n"
        "\t\ttype filter hook ingress device \"%s\" priority -500; policy drop;\n"
        "\t\tether saddr != %s drop\n"
        "\t\tether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 arp saddr ether %s "
        "arp saddr ip %s arp daddr ip %s accept\n"
        "\t\tether daddr %s ether type ip ip version 4 ip hdrlength 5 ip saddr %s accept\n"
        "\t}\n}\n",
        table, GUEST_TAP, GUEST_MAC, GUEST_MAC, GUEST_ADDRESS, GUEST_GATEWAY, GUEST_HOST_MAC,
        GUEST_ADDRESS);
}

static void put_slot_nat(
    struct buf *b, const char *host_end, const char *host_ip, const char *ns_end, const char *dns)
{
    buf_printf(b,
        "\tchain inward {\n"
        "\t\ttype nat hook prerouting priority dstnat; policy accept;\n"
        "\t\tiifname \"%s\" ip saddr %s ip daddr %s meta l4proto { tcp, udp } dnat to %s\n"
        "\t\tiifname \"%s\" ip daddr %s meta l4proto { tcp, udp } th dport %d dnat to %s\n"
        "\t}\n",
        NET_NS_LINK, host_end, host_ip, GUEST_ADDRESS, GUEST_TAP, GUEST_GATEWAY, NET_DNS_PORT, dns);
    buf_printf(b,
        "\tchain outward {\n"
        "\t\ttype nat hook postrouting priority srcnat; policy accept;\n"
        "\t\toifname \"%s\" snat to %s\n"
        "\t\toifname \"%s\" ip saddr %s snat to %s\n"
        "\t}\n",
        GUEST_TAP, GUEST_GATEWAY, NET_NS_LINK, GUEST_ADDRESS, ns_end);
}

static void put_slot_filter(struct buf *b, const char *dns)
{
    buf_printf(b,
        "\tchain to_guest {\n"
        "\t\tct state established,related accept\n"
        "\t\tct status dnat accept\n"
        "\t\tdrop\n"
        "\t}\n"
        "\tchain from_guest {\n"
        "\t\tct state established ct direction reply accept\n"
        "\t\tct state new ct count over %d drop\n"
        "\t\tct status dnat ip daddr %s accept\n"
        "\t\tip daddr @denied drop\n"
        "\t\tmeta l4proto { tcp, udp, icmp } accept\n"
        "\t\tdrop\n"
        "\t}\n",
        SLOT_CONNECTIONS_MAX, dns);
    buf_printf(b,
        "\tchain through {\n"
        "\t\ttype filter hook forward priority filter; policy drop;\n"
        "\t\tct state invalid drop\n"
        "\t\tiifname \"%s\" oifname \"%s\" goto to_guest\n"
        "\t\tiifname \"%s\" oifname \"%s\" goto from_guest\n"
        "\t}\n"
        "\tchain here {\n"
        "\t\ttype filter hook input priority filter; policy drop;\n"
        "\t}\n",
        NET_NS_LINK, GUEST_TAP, GUEST_TAP, NET_NS_LINK);
}

static const char *slot_table(bool aside)
{
    return aside ? NET_SLOT_TABLE "_aside" : NET_SLOT_TABLE;
}

void net_rules_slot_delete(struct buf *dst, bool aside)
{
    put_delete(dst, "netdev", slot_table(aside));
    put_delete(dst, "ip", slot_table(aside));
}

static void put_slot(
    struct buf *dst, const struct net_plan *p, const struct net_names *n, const char *table)
{
    char host_end[INET_ADDRSTRLEN];
    char ns_end[INET_ADDRSTRLEN];
    char host_ip[INET_ADDRSTRLEN];
    char dns[INET_ADDRSTRLEN];
    net_ip_text(n->host_end, host_end);
    net_ip_text(n->ns_end, ns_end);
    net_ip_text(n->host_ip, host_ip);
    net_ip_text(net_dns_address(p), dns);
    put_tap(dst, table);
    buf_printf(dst, "table ip %s {\n", table);
    put_denied(dst, p);
    put_slot_nat(dst, host_end, host_ip, ns_end, dns);
    put_slot_filter(dst, dns);
    buf_append_cstr(dst, "}\n");
}

/* FNV-1a: tells texts apart that nobody makes alike on purpose. */
static uint64_t digest(const struct buf *b)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < b->len; i++)
        hash = (hash ^ (unsigned char)b->p[i]) * 0x100000001b3;
    return hash;
}

void net_rules_slot_mark(
    const struct net_plan *p, const struct net_names *n, char dst[NET_MARK_MAX])
{
    AUTO_BUF struct buf text = BUF_INIT(NET_RULES_BYTES_MAX);
    put_slot(&text, p, n, NET_SLOT_TABLE);
    (void)snprintf(dst, NET_MARK_MAX, "v_%016llx", (unsigned long long)digest(&text));
}

void net_rules_slot(
    struct buf *dst, const struct net_plan *p, const struct net_names *n, bool aside)
{
    char mark[NET_MARK_MAX];
    net_rules_slot_mark(p, n, mark);
    net_rules_slot_delete(dst, aside);
    put_slot(dst, p, n, slot_table(aside));
    buf_printf(dst, "table ip %s {\n\tchain %s {\n\t}\n}\n", slot_table(aside), mark);
}
