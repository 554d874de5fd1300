/* SPDX-License-Identifier: Apache-2.0 */
/* Reading nftables by netlink, in the caller's network namespace. */
#include "agent/net/net_int.h"

#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "agent/net/nl.h"

static void request_init(struct nl_request *r, unsigned type, uint16_t flags, uint8_t family)
{
    struct nfgenmsg *nf;
    r->h = mnl_nlmsg_put_header(r->bytes);
    r->h->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
    r->h->nlmsg_flags = NLM_F_REQUEST | flags;
    nf = mnl_nlmsg_put_extra_header(r->h, sizeof *nf);
    nf->nfgen_family = family;
    nf->version = NFNETLINK_V0;
}

static int seen(const struct nlmsghdr *h, void *arg)
{
    (void)h;
    (void)arg;
    return MNL_CB_STOP;
}

int net_nft_has_chain(
    uint8_t family, const char *table, const char *chain, bool *ret, struct err *e)
{
    struct nl_request r;
    request_init(&r, NFT_MSG_GETCHAIN, 0, family);
    mnl_attr_put_strz(r.h, NFTA_CHAIN_TABLE, table);
    mnl_attr_put_strz(r.h, NFTA_CHAIN_NAME, chain);
    int rc = nl_talk(NETLINK_NETFILTER, &r, seen, NULL, e);
    if (rc < 0 && e->errnum != ENOENT)
        return err_wrap(e, "read chain %s of %s", chain, table);
    *ret = rc == 0;
    return 0;
}
