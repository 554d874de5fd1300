/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network slots: for each a namespace with a TAP for one VM, a veth pair to the host, addresses,
 * NAT and the egress rules, all in force before the first instruction of a guest. Slots are
 * prepared ahead; taking one runs no program. Names follow from instance and slot:
 * tp<instance>-<slot>.
 */
#ifndef TORPOR_AGENT_NET_NET_H
#define TORPOR_AGENT_NET_NET_H

#include <netinet/in.h>
#include <stdbool.h>

#include "base/err.h"

enum {
    NET_SLOTS_MAX = 1000,
    NET_NAME_MAX = 15,
    NET_FOREIGN_MAX = 8,       /* chains told; a host has one or two */
    NET_FOREIGN_NAME_MAX = 63, /* longer names are cut */
    NET_FOREIGN_TEXT_MAX = 383,
};

struct net_config {
    unsigned instance;    /* 0..15, this installation's number on the host */
    const char *range;    /* "10.11.0.0/16": instance n owns the n-th /20 of it */
    size_t slots;         /* at most NET_SLOTS_MAX */
    size_t ready;         /* how many to keep prepared */
    uid_t uid_base;       /* slot n's TAP belongs to uid_base + n */
    const char *helper;   /* absolute path of this agent's binary, started as `helper net-helper` */
    const char *resolver; /* "address" or "address:port" DNS goes to; NULL: from /etc/resolv.conf */
    const unsigned *keep; /* slots that running VMs hold: left as they are, and taken */
    size_t n_keep;        /* one that is >= `slots` (the setting was lowered) raises it */
};

struct net_slot {
    unsigned index;
    char netns[64];                /* path of the namespace, /run/netns/tp0-3 */
    char host_ip[INET_ADDRSTRLEN]; /* the guest's ports are reachable there from the host only */
    uid_t uid;                     /* the VMM's */
};

struct net_pool;

/* Sets up the host's side (nftables table, forwarding of our links, DNS forwarder). Leftovers under
 * this instance's names are removed first, all but the `keep` slots: those go on working, under
 * rules without a gap, and each is checked; one that is not whole is removed too. Prepares `ready`
 * slots before it returns and keeps that many ready from a thread of its own. A failed open leaves
 * nothing, but kept slots as they were. */
struct net_pool *net_pool_open(const struct net_config *config, struct err *e);
/* Removes everything of this instance. Does every step, joins the errors. */
int net_pool_close(struct net_pool *p, struct err *e);
/* Ends threads and helper and frees the pool, for a restart: slots that are taken, the host's table
 * and its forwarding stay in force for the next agent, which names the slots in `keep`. All other
 * slots are removed. Does every step, joins the errors; the pool is gone in any case. */
int net_pool_leave(struct net_pool *p, struct err *e);

/* Takes a ready slot, waiting up to `deadline` for one being prepared. ERR_NO_CAPACITY when all are
 * taken or the deadline passed. */
int net_slot_acquire(struct net_pool *p, int64_t deadline, struct net_slot *ret, struct err *e);
/* Fills the slot like acquire, for a slot of `keep`; may be called again until it is released. Its
 * policy is what it was; when the host's table had been lost it is NONE until net_slot_set_policy.
 * ERR_NOT_FOUND when the slot was not found whole (then it has been removed and will be made anew)
 * or was not in `keep`. */
int net_slot_adopt(struct net_pool *p, unsigned index, struct net_slot *ret, struct err *e);
/* Gives it back: its connections are flushed and it rests before it is used again. Idempotent. The
 * VMM is gone by now; a slot whose TAP is still held is not used again but made anew. Only changes
 * a state, the work is the pool's thread's. */
int net_slot_release(struct net_pool *p, unsigned index, struct err *e);

enum net_policy { NET_POLICY_OPEN, NET_POLICY_NONE };
/* One element update of the policy map. A slot is open when it is acquired. NONE drops all that the
 * guest sends but answers to this host, also on connections it has. ERR_BAD_STATE when the slot is
 * not taken. */
int net_slot_set_policy(struct net_pool *p, unsigned index, enum net_policy policy, struct err *e);

void net_pool_usage(struct net_pool *p, size_t *ret_total, size_t *ret_used);

/* A chain of another program at the hook "forward" that drops what it does not know. */
struct net_foreign_chain {
    const char *family; /* "ip" or "inet" */
    char table[NET_FOREIGN_NAME_MAX + 1];
    char chain[NET_FOREIGN_NAME_MAX + 1];
    bool by_policy;   /* else by its last rule */
    bool let_through; /* rules that accept our links, both ways, are in its table already */
    char rules[NET_FOREIGN_TEXT_MAX + 1]; /* commands that let ours through, one a line */
};
struct net_foreign {
    struct net_foreign_chain chains[NET_FOREIGN_MAX];
    size_t n;
    bool more; /* than fit */
};
/* Lists the chains of nftables (and of iptables, where that is made of nftables) in the caller's
 * network namespace that drop forwarded packets of ours though our own rules accept them. Needs
 * CAP_NET_ADMIN: ERR_FORBIDDEN. Any thread; changes nothing. */
int net_find_foreign_filters(struct net_foreign *ret, struct err *e);

/* `torpor-agent net-helper`: the single-threaded child that enters namespaces. Returns an exit
 * code. */
int net_helper_main(int argc, char **argv);

#endif
