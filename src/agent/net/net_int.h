/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this folder share: the plan (names and addresses, all computed from instance
 * and slot, so that nothing has to be remembered), the do/undo steps, and the rules' texts.
 */
#ifndef TORPOR_AGENT_NET_NET_INT_H
#define TORPOR_AGENT_NET_NET_INT_H

#include "agent/net/net.h"
#include "base/buf.h"

enum {
    NET_INSTANCES_MAX = 16,
    NET_INSTANCE_PREFIX = 20,        /* an instance owns a /20: 1024 slots of 4 addresses */
    NET_SLOT_ADDRESSES = 4,          /* +0 host's end, +1 namespace's end, +2 host_ip, +3 unused */
    NET_RULES_BYTES_MAX = 256 << 10, /* 1000 slots take 90 KB */
    NET_STEPS_MAX = 12,
    NET_DNS_PORT = 53,
};

#define NET_NETNS_DIR "/run/netns"
#define NET_NS_LINK "eth0" /* the namespace's end of the veth pair */

/* Everything about an instance that names and addresses follow from. Addresses in host byte order.
 * Plain numbers: it travels to the helper as it is. */
struct net_plan {
    uint32_t instance;
    uint32_t range; /* the whole range of all instances; no guest may reach into it */
    uint32_t range_len;
    uint32_t base; /* first address of this instance's /20 */
    uint32_t slots;
    uint32_t uid_base;
};

/* Slots that are not to be touched, one bit each. Travels to the helper as well. */
struct net_keep {
    uint8_t bits[(NET_SLOTS_MAX + 7) / 8];
};

static inline void net_keep_add(struct net_keep *k, unsigned slot)
{
    k->bits[slot / 8] = (uint8_t)(k->bits[slot / 8] | 1u << slot % 8);
}

static inline bool net_keep_has(const struct net_keep *k, unsigned slot)
{
    return k->bits[slot / 8] >> slot % 8 & 1;
}

struct net_names {
    char link[NET_NAME_MAX + 1]; /* the host's end of the veth pair */
    char netns[64];
    uint32_t host_end;
    uint32_t ns_end; /* source of all that leaves the slot */
    uint32_t host_ip;
};

/* plan.c. Checks the configuration; ERR_INVALID names the field. */
int net_plan_make(const struct net_config *c, struct net_plan *ret, struct err *e);
void net_names_of(const struct net_plan *p, unsigned slot, struct net_names *ret);
/* The slot that a link or namespace of this name belongs to; -1: none of this plan. */
int net_slot_of_name(const struct net_plan *p, const char *name);
/* "tp0": the nftables table and the label of the DNS address. "tp0-": what links and namespaces
 * begin with. */
void net_table_name(uint32_t instance, char dst[NET_NAME_MAX + 1]);
void net_link_prefix(uint32_t instance, char dst[NET_NAME_MAX + 1]);
/* The DNS forwarder's address: the second one of the last /30. */
uint32_t net_dns_address(const struct net_plan *p);
void net_ip_text(uint32_t ip, char dst[INET_ADDRSTRLEN]);
/* The interface group of the instance's host ends, and the one that those to be deleted are moved
 * to; deleting a group is one system call. */
uint32_t net_link_group(uint32_t instance);
uint32_t net_doomed_group(uint32_t instance);

/* steps.c. A host resource is made by `make` and removed by `undo`, which accepts "already gone".
 */
struct net_step {
    const char *name;
    int (*make)(void *ctx, struct err *e);
    int (*undo)(void *ctx, struct err *e); /* NULL: goes with an earlier step's */
};
/* Runs the steps in order; on a failure undoes all that ran, the failed one too, in reverse. Stores
 * each step's time. `fail_after` n > 0 pretends that the n-th step failed once it is done. */
int net_steps_make(const struct net_step *steps, size_t n, void *ctx, unsigned fail_after,
    uint32_t step_us[NET_STEPS_MAX], struct err *e);
/* Every undo in reverse, errors joined. */
int net_steps_undo(const struct net_step *steps, size_t n, void *ctx, struct err *e);

/* Called after each step done or undone and after each thing removed; tests set it to die there. */
extern void (*net_point_hook)(const char *name);
void net_point(const char *name);

/* Uplinks that forward only because of us, NUL-terminated names. */
struct net_guard {
    char names[8][NET_NAME_MAX + 1];
    size_t n;
};
/* What the policy map says of each slot. */
struct net_policies {
    int8_t of[NET_SLOTS_MAX]; /* enum net_policy; -1: no element, nothing leaves the slot */
};

/* rules.c. Append to `dst`; a failed buffer is the caller's to see. All replace the table if it is
 * there, in the transaction that makes it. `aside`: under the other name, to be in force while the
 * table itself is replaced. */
struct net_host_rules {
    struct net_guard guard;
    struct net_policies policies;
};
void net_rules_host(
    struct buf *dst, const struct net_plan *p, const struct net_host_rules *h, bool aside);
void net_rules_slot(
    struct buf *dst, const struct net_plan *p, const struct net_names *n, bool aside);
/* Delete the tables of the host, or of a slot; absent is fine. */
void net_rules_host_delete(struct buf *dst, const struct net_plan *p, bool aside);
void net_rules_slot_delete(struct buf *dst, bool aside);
/* Name of an empty chain of table NET_SLOT_TABLE that tells these very rules from all others. */
enum { NET_MARK_MAX = 24 };
void net_rules_slot_mark(
    const struct net_plan *p, const struct net_names *n, char dst[NET_MARK_MAX]);
#define NET_SLOT_TABLE "tp"    /* families ip and netdev */
#define NET_SLOT_CHAIN "guest" /* of netdev: what the TAP may say */

/* nft.c. Loads rules with `nft -f -` in the caller's network namespace: all or nothing. */
int net_nft_load(const struct buf *rules, struct err *e);
/* nft inherits this descriptor from now on, -1: none. The helper's lock: when the helper is killed
 * while nft works, the next one waits for that too. Not thread-safe. */
void net_nft_hold(int fd);

/* nftset.c: elements of our own sets and maps, by netlink. */
/* Puts the link's verdict into the policy map; `present`: it has one already. */
int net_policy_put(
    const struct net_plan *p, unsigned slot, enum net_policy policy, bool present, struct err *e);
/* Takes it out: nothing leaves the slot then. Absent is fine. */
int net_policy_drop(const struct net_plan *p, unsigned slot, struct err *e);
/* All elements of the map; none when there is no such table. */
int net_policies_read(const struct net_plan *p, struct net_policies *ret, struct err *e);
/* The guarded uplinks in the instance's table; none when there is no such table. */
int net_guard_read(uint32_t instance, struct net_guard *ret, struct err *e);

/* nftget.c. Whether the caller's network namespace has this chain. */
int net_nft_has_chain(
    uint8_t family, const char *table, const char *chain, bool *ret, struct err *e);

/* ct.c. Conntrack of the caller's network namespace. */
int net_ct_flush_all(struct err *e);
/* Deletes the entries that start at `src` (host byte order), and, unless 0, those that start
 * towards `dst`. */
int net_ct_flush_address(uint32_t src, uint32_t dst, struct err *e);

/* host.c and slot.c, run by the helper. All are idempotent but `make`. */
int net_host_make(
    const struct net_plan *p, unsigned fail_after, uint32_t step_us[NET_STEPS_MAX], struct err *e);
int net_host_remove(const struct net_plan *p, struct err *e);
extern const size_t net_host_step_count;
extern const size_t net_renew_step_count;
/* Brings what an earlier agent left to what net_host_make would make, with no moment without rules
 * for the `keep` slots, whose policies stay. Each step may be repeated; a failed one leaves the
 * rest in force. */
int net_host_renew(const struct net_plan *p, const struct net_keep *keep, unsigned fail_after,
    uint32_t step_us[NET_STEPS_MAX], struct err *e);

int net_slot_make(const struct net_plan *p, unsigned slot, unsigned fail_after,
    uint32_t step_us[NET_STEPS_MAX], struct err *e);
int net_slot_remove(const struct net_plan *p, unsigned slot, struct err *e);
/* Flushes a released slot's connections inside and outside. ERR_BAD_STATE when a process still
 * holds its TAP. */
int net_slot_recycle(const struct net_plan *p, unsigned slot, struct err *e);
/* slotcheck.c. ERR_NOT_FOUND when the slot is not whole: namespace, links, TAP and its owner,
 * addresses, rules. What a restart of another version may change under a running guest is put
 * right: the rules' text, routes, sysctls. */
int net_slot_check(const struct net_plan *p, unsigned slot, struct err *e);

/* sweep.c. Removes every link and namespace under the instance's names, whatever made them, but
 * those of the `keep` slots. */
int net_slots_sweep(const struct net_plan *p, const struct net_keep *keep, struct err *e);
extern const size_t net_slot_step_count;
extern const struct net_step net_slot_steps[];

/* netns.c. The helper's network namespaces; single-threaded callers only. */
/* Makes a namespace and mounts it at `path`, as ip-netns(8) does. The caller stays where it is. */
int net_netns_make(const char *path, struct err *e);
/* Absent is fine. What still runs inside keeps the namespace alive, without a name. */
int net_netns_remove(const char *path, struct err *e);
/* Enters it; ERR_NOT_FOUND when there is none. Returns a descriptor of the namespace left, for
 * net_netns_leave, or -1. */
int net_netns_enter(const char *path, struct err *e);
/* Back, and closes the descriptor. A process that cannot come back must not go on: it aborts. */
void net_netns_leave(int home_fd);

/* Parts of making a slot that may be repeated under a running guest; `n` as net_names_of. Inside:
 * in the slot's namespace. */
int net_slot_rules_inside(const struct net_plan *p, const struct net_names *n, struct err *e);
int net_slot_sysctls_inside(struct err *e);
int net_slot_routes_inside(const struct net_names *n, struct err *e);
int net_slot_host_end_sysctls(const struct net_names *n, struct err *e);
int net_slot_host_end_route(const struct net_names *n, struct err *e);
uint32_t net_parse_ip(const char *text); /* of a constant */

/* `path` below /proc/sys, of the namespace that the caller is in. */
int net_sysctl_write(const char *path, const char *value, struct err *e);
/* Stores the number; ERR_NOT_FOUND when there is no such file. */
int net_sysctl_read(const char *path, int *ret, struct err *e);

#endif
