/* SPDX-License-Identifier: Apache-2.0 */
/* Names and addresses of an instance and its slots. Pure computation. */
#include "agent/net/net_int.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/slice.h"

enum {
    RANGE_LEN_MIN = 8,
    LINK_GROUP_BASE = 0x74700000, /* "tp": far from the small numbers people give groups */
    DNS_OFFSET = 4093,            /* second address of the /20's last /30 */
};

static uint32_t prefix_mask(uint32_t len)
{
    return len == 0 ? 0 : UINT32_MAX << (32 - len);
}

static bool overlaps(uint32_t a, uint32_t a_len, uint32_t b, uint32_t b_len)
{
    uint32_t mask = prefix_mask(a_len < b_len ? a_len : b_len);
    return (a & mask) == (b & mask);
}

static int parse_range(const char *text, struct net_plan *p, struct err *e)
{
    char addr[INET_ADDRSTRLEN];
    struct in_addr in;
    uint64_t len;
    const char *slash = text ? strchr(text, '/') : NULL;
    if (!slash || !slice_copy_cstr(slice_of(text, (size_t)(slash - text)), addr, sizeof addr) ||
        inet_pton(AF_INET, addr, &in) != 1 || !slice_parse_u64(slice_cstr(slash + 1), &len))
        return err_field(e, "range", "must be an IPv4 range such as 10.11.0.0/16");
    if (len < RANGE_LEN_MIN || len > NET_INSTANCE_PREFIX)
        return err_field(e, "range", "must be a /%d to /%d", RANGE_LEN_MIN, NET_INSTANCE_PREFIX);
    p->range = ntohl(in.s_addr);
    p->range_len = (uint32_t)len;
    if (p->range & ~prefix_mask(p->range_len))
        return err_field(e, "range", "%s has bits behind its prefix", text);
    return 0;
}

/* Ranges that no host forwards, and the one that guests live in. */
static int check_range(const struct net_plan *p, struct err *e)
{
    static const struct {
        uint32_t addr;
        uint32_t len;
    } unusable[] = {{0, 8}, {0x7f000000, 8}, {0xa9fe0000, 16}, {0xe0000000, 3}};
    for (size_t i = 0; i < sizeof unusable / sizeof unusable[0]; i++)
        if (overlaps(p->range, p->range_len, unusable[i].addr, unusable[i].len))
            return err_field(e, "range", "overlaps a special range");
    return 0;
}

/* VMs may hold slots of a time when there were more. */
static int cover_kept(const struct net_config *c, struct net_plan *p, struct err *e)
{
    for (size_t i = 0; i < c->n_keep; i++) {
        if (c->keep[i] >= NET_SLOTS_MAX)
            return err_field(e, "keep", "slot %u is none", c->keep[i]);
        if (c->keep[i] >= p->slots)
            p->slots = c->keep[i] + 1;
    }
    return 0;
}

int net_plan_make(const struct net_config *c, struct net_plan *ret, struct err *e)
{
    struct net_plan p = {.instance = c->instance, .uid_base = (uint32_t)c->uid_base};
    if (parse_range(c->range, &p, e) < 0 || check_range(&p, e) < 0)
        return -1;
    if (c->instance >= NET_INSTANCES_MAX ||
        c->instance >= 1u << (NET_INSTANCE_PREFIX - p.range_len))
        return err_field(e, "instance", "%u has no part of the range", c->instance);
    if (c->slots < 1 || c->slots > NET_SLOTS_MAX)
        return err_field(e, "slots", "must be 1 to %d", NET_SLOTS_MAX);
    if (c->ready > c->slots)
        return err_field(e, "ready", "must be at most the number of slots");
    if (!c->helper || c->helper[0] != '/')
        return err_field(e, "helper", "must be an absolute path");
    if (p.uid_base > INT32_MAX - NET_SLOTS_MAX)
        return err_field(e, "uid_base", "is too large");
    p.slots = (uint32_t)c->slots;
    if (cover_kept(c, &p, e) < 0)
        return -1;
    p.base = p.range + (p.instance << (32 - NET_INSTANCE_PREFIX));
    *ret = p;
    return 0;
}

void net_table_name(uint32_t instance, char dst[NET_NAME_MAX + 1])
{
    (void)snprintf(dst, NET_NAME_MAX + 1, "tp%u", instance);
}

void net_link_prefix(uint32_t instance, char dst[NET_NAME_MAX + 1])
{
    (void)snprintf(dst, NET_NAME_MAX + 1, "tp%u-", instance);
}

void net_names_of(const struct net_plan *p, unsigned slot, struct net_names *ret)
{
    uint32_t first = p->base + slot * NET_SLOT_ADDRESSES;
    (void)snprintf(ret->link, sizeof ret->link, "tp%u-%u", p->instance, slot);
    (void)snprintf(ret->netns, sizeof ret->netns, NET_NETNS_DIR "/%s", ret->link);
    ret->host_end = first;
    ret->ns_end = first + 1;
    ret->host_ip = first + 2;
}

int net_slot_of_name(const struct net_plan *p, const char *name)
{
    char prefix[NET_NAME_MAX + 1];
    struct net_names n;
    uint64_t slot;
    net_link_prefix(p->instance, prefix);
    size_t len = strlen(prefix);
    if (strncmp(name, prefix, len) != 0 || !slice_parse_u64(slice_cstr(name + len), &slot) ||
        slot >= p->slots)
        return -1;
    net_names_of(p, (unsigned)slot, &n);
    return strcmp(n.link, name) == 0 ? (int)slot : -1; /* not "tp0-03" */
}

uint32_t net_dns_address(const struct net_plan *p)
{
    return p->base + DNS_OFFSET;
}

void net_ip_text(uint32_t ip, char dst[INET_ADDRSTRLEN])
{
    struct in_addr in = {.s_addr = htonl(ip)};
    (void)inet_ntop(AF_INET, &in, dst, INET_ADDRSTRLEN);
}

uint32_t net_link_group(uint32_t instance)
{
    return LINK_GROUP_BASE + instance;
}

uint32_t net_doomed_group(uint32_t instance)
{
    return LINK_GROUP_BASE + NET_INSTANCES_MAX + instance;
}
