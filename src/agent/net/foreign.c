/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other programs' chains that drop forwarded packets: Docker's, ufw's, firewalld's, an
 * administrator's.
 *
 * Theory of operation. Each table with a chain at the hook "forward" has its say on every packet,
 * and a drop of one is final, whatever ours accepts. A chain is told when its policy is drop, or
 * when its last rule drops or rejects without a condition, itself or by a jump that has none.
 * Whether an earlier rule accepts our packets is not computed in general; only the rules that this
 * file advises are recognised. What it cannot see is the old iptables that is not made of nftables.
 */
#include "agent/net/net_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nf_tables_compat.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/net/nl.h"
#include "base/cleanup.h"

enum { JUMPS_MAX = 4, HOOK_FORWARD = NF_INET_FORWARD };

#define OUR_PREFIX "tp"

static void request_init(struct nl_request *r, unsigned type, uint8_t family)
{
    struct nfgenmsg *nf;
    r->h = mnl_nlmsg_put_header(r->bytes);
    r->h->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
    r->h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    nf = mnl_nlmsg_put_extra_header(r->h, sizeof *nf);
    nf->nfgen_family = family;
    nf->version = NFNETLINK_V0;
}

static const struct nlattr *attr_of(const struct nlattr *nest, uint16_t type)
{
    const struct nlattr *a;
    mnl_attr_for_each_nested(a, nest) if (mnl_attr_get_type(a) == type) return a;
    return NULL;
}

static bool attr_is(const struct nlattr *a, const char *text)
{
    return a && strcmp(mnl_attr_get_str(a), text) == 0;
}

/* What one rule does to a packet that nothing before it decided on. */
struct rule {
    bool conditional;
    bool drops;
    bool accepts;
    char jump[NET_FOREIGN_NAME_MAX + 1]; /* "": none */
    bool from_ours;                      /* matches iifname "tp*" */
    bool to_ours;                        /* matches oifname "tp*" */
};

static void read_verdict(const struct nlattr *data, struct rule *r)
{
    const struct nlattr *value = attr_of(data, NFTA_IMMEDIATE_DATA);
    const struct nlattr *verdict = value ? attr_of(value, NFTA_DATA_VERDICT) : NULL;
    const struct nlattr *code = verdict ? attr_of(verdict, NFTA_VERDICT_CODE) : NULL;
    const struct nlattr *chain = verdict ? attr_of(verdict, NFTA_VERDICT_CHAIN) : NULL;
    if (!code)
        return;
    r->drops = ntohl(mnl_attr_get_u32(code)) == NF_DROP;
    r->accepts = ntohl(mnl_attr_get_u32(code)) == NF_ACCEPT;
    if (chain)
        (void)snprintf(r->jump, sizeof r->jump, "%s", mnl_attr_get_str(chain));
}

/* iptables' extensions: a target ends the rule, a match is a condition. */
static void read_target(const struct nlattr *data, struct rule *r)
{
    const struct nlattr *name = attr_of(data, NFTA_TARGET_NAME);
    r->drops = attr_is(name, "REJECT") || attr_is(name, "DROP");
}

/* A comparison with the first letters of our links' names. */
static bool compares_ours(const struct nlattr *data)
{
    const struct nlattr *op = attr_of(data, NFTA_CMP_OP);
    const struct nlattr *value = attr_of(data, NFTA_CMP_DATA);
    const struct nlattr *bytes = value ? attr_of(value, NFTA_DATA_VALUE) : NULL;
    return op && ntohl(mnl_attr_get_u32(op)) == NFT_CMP_EQ && bytes &&
           mnl_attr_get_payload_len(bytes) == sizeof OUR_PREFIX - 1 &&
           memcmp(mnl_attr_get_payload(bytes), OUR_PREFIX, sizeof OUR_PREFIX - 1) == 0;
}

static uint32_t meta_key(const struct nlattr *data)
{
    const struct nlattr *key = attr_of(data, NFTA_META_KEY);
    return key ? ntohl(mnl_attr_get_u32(key)) : UINT32_MAX;
}

static void read_expression(
    const char *name, const struct nlattr *data, uint32_t *meta, struct rule *r)
{
    if (strcmp(name, "counter") == 0 || strcmp(name, "log") == 0)
        return;
    if (strcmp(name, "reject") == 0) {
        r->drops = true;
    } else if (strcmp(name, "immediate") == 0 && data) {
        read_verdict(data, r);
    } else if (strcmp(name, "target") == 0 && data) {
        read_target(data, r);
    } else {
        r->conditional = true;
        if (strcmp(name, "meta") == 0 && data) {
            *meta = meta_key(data);
        } else if (strcmp(name, "cmp") == 0 && data && compares_ours(data)) {
            r->from_ours = r->from_ours || *meta == NFT_META_IIFNAME;
            r->to_ours = r->to_ours || *meta == NFT_META_OIFNAME;
        }
    }
}

static void read_rule(const struct nlattr *expressions, struct rule *r)
{
    const struct nlattr *one;
    uint32_t meta = UINT32_MAX;
    mnl_attr_for_each_nested(one, expressions)
    {
        const struct nlattr *name = attr_of(one, NFTA_EXPR_NAME);
        if (name)
            read_expression(mnl_attr_get_str(name), attr_of(one, NFTA_EXPR_DATA), &meta, r);
    }
}

/* A walk over the rules of a chain, or of all chains of a table. */
struct walk {
    struct rule last;
    bool from_ours_accepted;
    bool to_ours_accepted;
};

static int rule_seen(const struct nlmsghdr *h, void *arg)
{
    struct walk *w = arg;
    const struct nlattr *a;
    struct rule r = {.conditional = false};
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        if (mnl_attr_get_type(a) == NFTA_RULE_EXPRESSIONS)
            read_rule(a, &r);
    }
    w->last = r;
    w->from_ours_accepted = w->from_ours_accepted || (r.from_ours && r.accepts);
    w->to_ours_accepted = w->to_ours_accepted || (r.to_ours && r.accepts);
    return MNL_CB_OK;
}

/* `chain` NULL: all of the table. A table that is gone meanwhile has no rules. */
static int walk_rules(
    uint8_t family, const char *table, const char *chain, struct walk *ret, struct err *e)
{
    struct nl_request r;
    *ret = (struct walk){.last = {.conditional = true}};
    request_init(&r, NFT_MSG_GETRULE, family);
    mnl_attr_put_strz(r.h, NFTA_RULE_TABLE, table);
    if (chain)
        mnl_attr_put_strz(r.h, NFTA_RULE_CHAIN, chain);
    if (nl_talk(NETLINK_NETFILTER, &r, rule_seen, ret, e) < 0 && e->errnum != ENOENT)
        return err_wrap(e, "read rules of table %s", table);
    return 0;
}

/* Chains at the hook, as they are collected. */
struct found {
    struct net_foreign out;
    uint8_t families[NET_FOREIGN_MAX];
};

static bool is_ours(uint8_t family, const char *table)
{
    char *end;
    if (family != NFPROTO_INET || strncmp(table, OUR_PREFIX, sizeof OUR_PREFIX - 1) != 0 ||
        table[2] < '0' || table[2] > '9')
        return false;
    (void)strtoul(table + 2, &end, 10);
    return *end == 0 || strcmp(end, "_aside") == 0;
}

struct chain_facts {
    const char *table;
    const char *name;
    const char *type;
    uint32_t hook;
    bool drops;
};

static void read_chain(const struct nlmsghdr *h, struct chain_facts *c)
{
    const struct nlattr *a;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
    {
        uint16_t type = mnl_attr_get_type(a);
        const struct nlattr *num = type == NFTA_CHAIN_HOOK ? attr_of(a, NFTA_HOOK_HOOKNUM) : NULL;
        if (type == NFTA_CHAIN_TABLE)
            c->table = mnl_attr_get_str(a);
        else if (type == NFTA_CHAIN_NAME)
            c->name = mnl_attr_get_str(a);
        else if (type == NFTA_CHAIN_TYPE)
            c->type = mnl_attr_get_str(a);
        else if (type == NFTA_CHAIN_POLICY)
            c->drops = ntohl(mnl_attr_get_u32(a)) == NF_DROP;
        else if (num)
            c->hook = ntohl(mnl_attr_get_u32(num));
    }
}

static int chain_seen(const struct nlmsghdr *h, void *arg)
{
    struct found *f = arg;
    const struct nfgenmsg *nf = mnl_nlmsg_get_payload(h);
    uint8_t family = nf->nfgen_family;
    struct chain_facts c = {.hook = UINT32_MAX};
    read_chain(h, &c);
    if ((family != NFPROTO_IPV4 && family != NFPROTO_INET) || c.hook != HOOK_FORWARD || !c.table ||
        !c.name || !c.type || strcmp(c.type, "filter") != 0 || is_ours(family, c.table))
        return MNL_CB_OK;
    if (f->out.n == NET_FOREIGN_MAX) {
        f->out.more = true;
        return MNL_CB_OK;
    }
    f->families[f->out.n] = family;
    struct net_foreign_chain *to = &f->out.chains[f->out.n++];
    to->family = family == NFPROTO_IPV4 ? "ip" : "inet";
    to->by_policy = c.drops;
    (void)snprintf(to->table, sizeof to->table, "%s", c.table);
    (void)snprintf(to->chain, sizeof to->chain, "%s", c.name);
    return MNL_CB_OK;
}

/* Whether what reaches the end of the chain is dropped by its last rule. */
static int ends_with_drop(
    uint8_t family, const struct net_foreign_chain *c, bool *ret, struct err *e)
{
    struct walk w;
    char chain[NET_FOREIGN_NAME_MAX + 1];
    (void)snprintf(chain, sizeof chain, "%s", c->chain);
    for (int i = 0; i < JUMPS_MAX; i++) {
        if (walk_rules(family, c->table, chain, &w, e) < 0)
            return -1;
        if (w.last.conditional || w.last.drops || !w.last.jump[0])
            break;
        memcpy(chain, w.last.jump, sizeof chain);
    }
    *ret = !w.last.conditional && w.last.drops;
    return 0;
}

/* In the words of the program that made the table: what goes in past it is lost when it reloads. */
static int put_rules(uint8_t family, struct net_foreign_chain *c, struct err *e)
{
    bool docker;
    const char *chain = c->chain;
    if (strcmp(c->table, "firewalld") == 0) {
        (void)snprintf(c->rules, sizeof c->rules,
            "firewall-cmd --permanent --zone=trusted --add-interface=" OUR_PREFIX "+\n"
            "firewall-cmd --reload\n");
        return 0;
    }
    if (family != NFPROTO_IPV4 || strcmp(c->table, "filter") != 0 ||
        strcmp(chain, "FORWARD") != 0) {
        (void)snprintf(c->rules, sizeof c->rules,
            "nft insert rule %s %s %s iifname '\"" OUR_PREFIX "*\"' accept\n"
            "nft insert rule %s %s %s oifname '\"" OUR_PREFIX
            "*\"' ct state established,related accept\n",
            c->family, c->table, chain, c->family, c->table, chain);
        return 0;
    }
    if (net_nft_has_chain(family, c->table, "DOCKER-USER", &docker, e) < 0)
        return -1;
    if (docker)
        chain = "DOCKER-USER";
    (void)snprintf(c->rules, sizeof c->rules,
        "iptables -I %s -i " OUR_PREFIX "+ -j ACCEPT\n"
        "iptables -I %s -o " OUR_PREFIX "+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n",
        chain, chain);
    return 0;
}

/* Completes a chain; stores whether it drops at all. */
static int judge(uint8_t family, struct net_foreign_chain *c, bool *ret_drops, struct err *e)
{
    struct walk w;
    *ret_drops = c->by_policy;
    if (!c->by_policy && ends_with_drop(family, c, ret_drops, e) < 0)
        return -1;
    if (!*ret_drops)
        return 0;
    if (walk_rules(family, c->table, /* chain= */ NULL, &w, e) < 0)
        return -1;
    c->let_through = w.from_ours_accepted && w.to_ours_accepted;
    return put_rules(family, c, e);
}

int net_find_foreign_filters(struct net_foreign *ret, struct err *e)
{
    struct nl_request r;
    struct found f = {.out = {.n = 0}};
    size_t kept = 0;
    request_init(&r, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC);
    if (nl_talk(NETLINK_NETFILTER, &r, chain_seen, &f, e) < 0)
        return err_wrap(e, "list chains");
    for (size_t i = 0; i < f.out.n; i++) {
        bool drops;
        if (judge(f.families[i], &f.out.chains[i], &drops, e) < 0)
            return -1;
        if (drops && kept++ != i)
            f.out.chains[kept - 1] = f.out.chains[i];
    }
    f.out.n = kept;
    *ret = f.out;
    return 0;
}
