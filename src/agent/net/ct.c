/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forgetting connections, by ctnetlink. A slot's namespace has a table of its own, which is
 * emptied; of the host's only what belongs to the slot's addresses goes: found by a dump that the
 * kernel filters (older kernels than 5.8 give all of it, so it is checked here again), then deleted
 * one by one.
 */
#include "agent/net/net_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

#include "agent/net/nl.h"

enum {
    FILTER_IP_SRC = 1, /* CTA_FILTER flags, not in the kernel's headers for users */
    FILTER_IP_DST = 2,
    FOUND_BYTES_MAX = 16 << 20, /* more entries than the table of one host holds */
};

static void request_init(struct nl_request *r, uint16_t type, uint16_t flags)
{
    struct nfgenmsg *nf;
    r->h = mnl_nlmsg_put_header(r->bytes);
    r->h->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
    r->h->nlmsg_flags = NLM_F_REQUEST | flags;
    nf = mnl_nlmsg_put_extra_header(r->h, sizeof *nf);
    nf->nfgen_family = AF_INET;
    nf->version = NFNETLINK_V0;
}

int net_ct_flush_all(struct err *e)
{
    struct nl_request r;
    request_init(&r, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
    return nl_talk(NETLINK_NETFILTER, &r, NULL, NULL, e) < 0 ? err_wrap(e, "flush conntrack") : 0;
}

/* Entries found: their original tuple's attribute and id, each as it goes into the deletion. */
struct search {
    uint16_t which; /* CTA_IP_V4_SRC or CTA_IP_V4_DST */
    uint32_t ip_be;
    struct buf found;
};

static bool tuple_matches(const struct nlattr *tuple, const struct search *s)
{
    const struct nlattr *part;
    const struct nlattr *ip;
    mnl_attr_for_each_nested(part, tuple)
    {
        if (mnl_attr_get_type(part) != CTA_TUPLE_IP)
            continue;
        mnl_attr_for_each_nested(ip, part)
        {
            if (mnl_attr_get_type(ip) == s->which && mnl_attr_get_payload_len(ip) == 4 &&
                mnl_attr_get_u32(ip) == s->ip_be)
                return true;
        }
    }
    return false;
}

static int entry_seen(const struct nlmsghdr *h, void *arg)
{
    struct search *s = arg;
    const struct nlattr *a;
    const struct nlattr *tuple = NULL;
    const struct nlattr *id = NULL;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) == CTA_TUPLE_ORIG)
            tuple = a;
        else if (mnl_attr_get_type(a) == CTA_ID)
            id = a;
    }
    if (tuple && id && tuple_matches(tuple, s)) {
        buf_append(&s->found, tuple, MNL_ALIGN(tuple->nla_len));
        buf_append(&s->found, id, MNL_ALIGN(id->nla_len));
    }
    return MNL_CB_OK;
}

static int find_entries(struct search *s, struct err *e)
{
    struct nl_request r;
    struct nlattr *tuple;
    struct nlattr *ip;
    struct nlattr *filter;
    request_init(&r, IPCTNL_MSG_CT_GET, NLM_F_DUMP);
    tuple = mnl_attr_nest_start(r.h, CTA_TUPLE_ORIG);
    ip = mnl_attr_nest_start(r.h, CTA_TUPLE_IP);
    mnl_attr_put_u32(r.h, s->which, s->ip_be);
    mnl_attr_nest_end(r.h, ip);
    mnl_attr_nest_end(r.h, tuple);
    filter = mnl_attr_nest_start(r.h, CTA_FILTER);
    mnl_attr_put_u32(
        r.h, CTA_FILTER_ORIG_FLAGS, s->which == CTA_IP_V4_SRC ? FILTER_IP_SRC : FILTER_IP_DST);
    mnl_attr_nest_end(r.h, filter);
    return nl_talk(NETLINK_NETFILTER, &r, entry_seen, s, e);
}

/* Deletes the entry whose two attributes start at `p`. Gone meanwhile is fine. Returns their size.
 */
static ssize_t delete_entry(const char *p, struct err *e)
{
    const struct nlattr *tuple = (const struct nlattr *)p;
    const struct nlattr *id = (const struct nlattr *)(p + MNL_ALIGN(tuple->nla_len));
    struct nl_request r;
    request_init(&r, IPCTNL_MSG_CT_DELETE, NLM_F_ACK);
    mnl_attr_put(
        r.h, tuple->nla_type, mnl_attr_get_payload_len(tuple), mnl_attr_get_payload(tuple));
    mnl_attr_put(r.h, id->nla_type, mnl_attr_get_payload_len(id), mnl_attr_get_payload(id));
    if (nl_talk(NETLINK_NETFILTER, &r, NULL, NULL, e) < 0 && e->errnum != ENOENT)
        return -1;
    return (ssize_t)(MNL_ALIGN(tuple->nla_len) + MNL_ALIGN(id->nla_len));
}

static int flush_matching(uint16_t which, uint32_t ip, struct err *e)
{
    struct search s = {.which = which, .ip_be = htonl(ip), .found = BUF_INIT(FOUND_BYTES_MAX)};
    int rc = find_entries(&s, e);
    for (size_t at = 0; rc == 0 && at < s.found.len;) {
        ssize_t n = delete_entry(s.found.p + at, e);
        if (n < 0)
            rc = -1;
        else
            at += (size_t)n;
    }
    if (rc == 0 && s.found.failed)
        rc = err_set(e, ERR_NOMEM, "too many connections");
    buf_done(&s.found);
    return rc;
}

int net_ct_flush_address(uint32_t src, uint32_t dst, struct err *e)
{
    if (flush_matching(CTA_IP_V4_SRC, src, e) < 0)
        return err_wrap(e, "flush conntrack of a slot");
    if (dst != 0 && flush_matching(CTA_IP_V4_DST, dst, e) < 0)
        return err_wrap(e, "flush conntrack towards a slot");
    return 0;
}
