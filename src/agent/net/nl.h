/* SPDX-License-Identifier: Apache-2.0 */
/* Netlink requests of this folder: one socket per call, in the caller's network namespace. */
#ifndef TORPOR_AGENT_NET_NL_H
#define TORPOR_AGENT_NET_NL_H

#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum { NL_BUFFER_BYTES = 8192 };

/* One request under construction. `h` points into `bytes`. */
struct nl_request {
    _Alignas(NLMSG_ALIGNTO) char bytes[1024];
    struct nlmsghdr *h;
};

/* Sends it on a fresh socket of `bus` and waits for the kernel's acknowledgement, or, for a dump,
 * gives every message to `cb` (return MNL_CB_OK) until the end. Bounded by 10 s. */
int nl_talk(int bus, struct nl_request *r, mnl_cb_t cb, void *arg, struct err *e);
/* Sends a batch of nfnetlink messages; fails with the first error that any of them causes.
 * `last_seq` is that of the only message with NLM_F_ACK. */
int nl_batch(const void *bytes, size_t n, uint32_t last_seq, struct err *e);

/* rtnl.c: links, addresses, routes. Addresses in host byte order. "Exists already" is an error,
 * "gone already" on deleting is not. */
struct rtnl_veth {
    const char *name; /* stays in the caller's namespace */
    const char *peer; /* goes to the namespace behind peer_ns_fd */
    int peer_ns_fd;
    uint32_t peer_group;
};
int rtnl_veth_add(const struct rtnl_veth *v, struct err *e);
int rtnl_link_delete(const char *name, struct err *e);
int rtnl_group_delete(uint32_t group, struct err *e);
int rtnl_link_set_group(const char *name, uint32_t group, struct err *e);
int rtnl_link_up(const char *name, struct err *e);
/* `mac` as "52:54:00:00:00:16". */
int rtnl_link_set_mac(const char *name, const char *mac, struct err *e);

struct rtnl_addr {
    const char *link;
    uint32_t ip;
    uint8_t prefix_len;
    uint8_t scope;     /* RT_SCOPE_... */
    const char *label; /* NULL: the link's name */
};
int rtnl_addr_add(const struct rtnl_addr *a, struct err *e);
int rtnl_addr_delete(const struct rtnl_addr *a, struct err *e);

struct rtnl_route {
    const char *link; /* NULL: an unreachable route */
    uint32_t dst;
    uint8_t dst_len;
    uint32_t gateway;
    uint32_t source; /* preferred source, 0: the kernel's choice */
};
int rtnl_route_add(const struct rtnl_route *r, struct err *e);
int rtnl_route_delete(const struct rtnl_route *r, struct err *e);
/* A permanent neighbour. */
int rtnl_neigh_add(const char *link, uint32_t ip, const char *mac, struct err *e);

/* rtnl_get.c. A link as the kernel shows it. */
struct rtnl_link {
    uint32_t index;
    uint32_t peer_index; /* of a veth's other end, in its own namespace */
    bool up;
    bool is_tap;
    uid_t tap_owner; /* of a TAP */
    char kind[16];   /* "veth", "tun" */
    char mac[18];    /* lower case */
};
/* ERR_NOT_FOUND when there is none. */
int rtnl_link_get(const char *name, struct rtnl_link *ret, struct err *e);
/* Whether the link has this address with this prefix. */
int rtnl_addr_exists(const struct rtnl_addr *want, bool *ret, struct err *e);

typedef void rtnl_name_fn(const char *name, void *arg);
/* Calls `fn` with the name of every link. */
int rtnl_each_link(rtnl_name_fn *fn, void *arg, struct err *e);
/* Calls `fn` with the link's name of every IPv4 default route of the main table. */
int rtnl_each_default(rtnl_name_fn *fn, void *arg, struct err *e);

#endif
