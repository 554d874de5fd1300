/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of our own nftables sets and maps, by netlink: no program runs for a policy change. */
#include "agent/net/net_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <string.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"

#define POLICY_MAP "policies"
#define GUARD_SET "guard"

enum { BATCH_BYTES_MAX = 4096, KEY_BYTES = 16 /* an nftables ifname */ };

static const char *const policy_chains[] = {
    [NET_POLICY_OPEN] = "policy_open", [NET_POLICY_NONE] = "policy_none"};

struct batch {
    _Alignas(NLMSG_ALIGNTO) char bytes[BATCH_BYTES_MAX];
    size_t len;
    uint32_t seq;
};

static struct nlmsghdr *batch_message(
    struct batch *b, uint16_t type, uint16_t flags, uint8_t family, uint16_t res_id)
{
    struct nlmsghdr *h = mnl_nlmsg_put_header(b->bytes + b->len);
    struct nfgenmsg *nf = mnl_nlmsg_put_extra_header(h, sizeof *nf);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    h->nlmsg_seq = ++b->seq;
    nf->nfgen_family = family;
    nf->version = NFNETLINK_V0;
    nf->res_id = htons(res_id);
    return h;
}

/* A message is counted once nothing more is appended to it. */
static void batch_close(struct batch *b, const struct nlmsghdr *h)
{
    b->len += MNL_ALIGN(h->nlmsg_len);
}

static void put_verdict(struct nlmsghdr *h, const char *chain)
{
    struct nlattr *data = mnl_attr_nest_start(h, NFTA_SET_ELEM_DATA);
    struct nlattr *verdict = mnl_attr_nest_start(h, NFTA_DATA_VERDICT);
    mnl_attr_put_u32(h, NFTA_VERDICT_CODE, htonl((uint32_t)NFT_GOTO));
    mnl_attr_put_strz(h, NFTA_VERDICT_CHAIN, chain);
    mnl_attr_nest_end(h, verdict);
    mnl_attr_nest_end(h, data);
}

/* One element of the policy map: added with `chain`, or deleted when that is NULL. */
static void put_element(
    struct batch *b, const struct net_plan *p, unsigned slot, const char *chain, uint16_t flags)
{
    char table[NET_NAME_MAX + 1];
    char key[KEY_BYTES] = {0};
    struct net_names names;
    uint16_t type = chain ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM;
    struct nlmsghdr *h = batch_message(b, (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type),
        (uint16_t)(flags | (chain ? NLM_F_CREATE | NLM_F_EXCL : 0)), NFPROTO_INET, 0);
    net_table_name(p->instance, table);
    net_names_of(p, slot, &names);
    memcpy(key, names.link, strlen(names.link));
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_TABLE, table);
    mnl_attr_put_strz(h, NFTA_SET_ELEM_LIST_SET, POLICY_MAP);
    struct nlattr *list = mnl_attr_nest_start(h, NFTA_SET_ELEM_LIST_ELEMENTS);
    struct nlattr *elem = mnl_attr_nest_start(h, NFTA_LIST_ELEM);
    struct nlattr *k = mnl_attr_nest_start(h, NFTA_SET_ELEM_KEY);
    mnl_attr_put(h, NFTA_DATA_VALUE, sizeof key, key);
    mnl_attr_nest_end(h, k);
    if (chain)
        put_verdict(h, chain);
    mnl_attr_nest_end(h, elem);
    mnl_attr_nest_end(h, list);
    batch_close(b, h);
}

/* An element's verdict cannot be changed, so the old one goes and the new one comes in one
 * transaction: at no instant is the slot without a rule. */
static int change_element(
    const struct net_plan *p, unsigned slot, const char *chain, bool present, struct err *e)
{
    struct batch b = {.len = 0};
    batch_close(&b, batch_message(&b, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    if (present)
        put_element(&b, p, slot, NULL, chain ? 0 : NLM_F_ACK);
    if (chain)
        put_element(&b, p, slot, chain, NLM_F_ACK);
    uint32_t last = b.seq;
    batch_close(&b, batch_message(&b, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
    return nl_batch(b.bytes, b.len, last, e);
}

int net_policy_put(
    const struct net_plan *p, unsigned slot, enum net_policy policy, bool present, struct err *e)
{
    if (change_element(p, slot, policy_chains[policy], present, e) < 0)
        return err_wrap(e, "policy of slot %u", slot);
    return 0;
}

int net_policy_drop(const struct net_plan *p, unsigned slot, struct err *e)
{
    if (change_element(p, slot, NULL, /* present= */ true, e) < 0 && e->errnum != ENOENT)
        return err_wrap(e, "policy of slot %u", slot);
    return 0;
}

static void verdict_chain(const struct nlattr *data, const char **ret)
{
    const struct nlattr *verdict;
    const struct nlattr *a;
    mnl_attr_for_each_nested(verdict, data)
    {
        if (mnl_attr_get_type(verdict) != NFTA_DATA_VERDICT)
            continue;
        mnl_attr_for_each_nested(a, verdict) if (mnl_attr_get_type(a) == NFTA_VERDICT_CHAIN) *ret =
            mnl_attr_get_str(a);
    }
}

static void key_name(const struct nlattr *key, char dst[KEY_BYTES])
{
    const struct nlattr *value;
    mnl_attr_for_each_nested(value, key)
    {
        if (mnl_attr_get_payload_len(value) != KEY_BYTES)
            continue;
        memcpy(dst, mnl_attr_get_payload(value), KEY_BYTES);
        dst[KEY_BYTES - 1] = 0;
    }
}

struct policy_search {
    const struct net_plan *plan;
    struct net_policies *found;
};

static void policy_add(const struct nlattr *elem, void *arg)
{
    const struct policy_search *s = arg;
    const struct nlattr *a;
    const char *chain = "";
    char name[KEY_BYTES] = "";
    mnl_attr_for_each_nested(a, elem)
    {
        if (mnl_attr_get_type(a) == NFTA_SET_ELEM_KEY)
            key_name(a, name);
        else if (mnl_attr_get_type(a) == NFTA_SET_ELEM_DATA)
            verdict_chain(a, &chain);
    }
    int slot = net_slot_of_name(s->plan, name);
    for (int i = 0; slot >= 0 && i < (int)ARRAY_LEN(policy_chains); i++)
        if (strcmp(chain, policy_chains[i]) == 0)
            s->found->of[slot] = (int8_t)i;
}

static void guard_add(const struct nlattr *elem, void *arg)
{
    struct net_guard *g = arg;
    const struct nlattr *key;
    mnl_attr_for_each_nested(
        key, elem) if (mnl_attr_get_type(key) == NFTA_SET_ELEM_KEY && g->n < ARRAY_LEN(g->names))
    {
        char name[KEY_BYTES] = "";
        key_name(key, name);
        if (name[0])
            memcpy(g->names[g->n++], name, KEY_BYTES);
    }
}

struct each_element {
    void (*fn)(const struct nlattr *elem, void *arg);
    void *arg;
};

static int elements_seen(const struct nlmsghdr *h, void *arg)
{
    const struct each_element *each = arg;
    const struct nlattr *a;
    const struct nlattr *elem;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) != NFTA_SET_ELEM_LIST_ELEMENTS)
            continue;
        mnl_attr_for_each_nested(elem, a) each->fn(elem, each->arg);
    }
    return MNL_CB_OK;
}

/* Calls the function with each element of a set of the instance's table; none when that is absent.
 */
static int read_elements(
    uint32_t instance, const char *set, const struct each_element *each, struct err *e)
{
    struct nl_request r;
    char table[NET_NAME_MAX + 1];
    net_table_name(instance, table);
    r.h = mnl_nlmsg_put_header(r.bytes);
    r.h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM;
    r.h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    struct nfgenmsg *nf = mnl_nlmsg_put_extra_header(r.h, sizeof *nf);
    nf->nfgen_family = NFPROTO_INET;
    nf->version = NFNETLINK_V0;
    mnl_attr_put_strz(r.h, NFTA_SET_ELEM_LIST_TABLE, table);
    mnl_attr_put_strz(r.h, NFTA_SET_ELEM_LIST_SET, set);
    if (nl_talk(NETLINK_NETFILTER, &r, elements_seen, (void *)each, e) < 0 && e->errnum != ENOENT)
        return err_wrap(e, "read %s of %s", set, table);
    return 0;
}

int net_policies_read(const struct net_plan *p, struct net_policies *ret, struct err *e)
{
    struct net_policies found;
    const struct policy_search search = {p, &found};
    const struct each_element each = {policy_add, (void *)&search};
    memset(found.of, -1, sizeof found.of);
    if (read_elements(p->instance, POLICY_MAP, &each, e) < 0)
        return -1;
    *ret = found;
    return 0;
}

int net_guard_read(uint32_t instance, struct net_guard *ret, struct err *e)
{
    struct net_guard found = {.n = 0};
    const struct each_element each = {guard_add, &found};
    if (read_elements(instance, GUARD_SET, &each, e) < 0)
        return -1;
    *ret = found;
    return 0;
}
