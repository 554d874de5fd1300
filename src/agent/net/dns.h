/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DNS forwarder: one thread that takes the slots' questions on the instance's DNS address and
 * asks the resolver. It speaks to nobody else, and passes on nothing but ordinary questions.
 */
#ifndef TORPOR_AGENT_NET_DNS_H
#define TORPOR_AGENT_NET_DNS_H

#include <netinet/in.h>

#include "base/err.h"

struct net_dns_config {
    uint32_t listen_ip;  /* host byte order; port 53 */
    uint32_t slots_base; /* slot n asks from slots_base + 4 n + 1 */
    uint32_t slots;
    struct sockaddr_in resolver;
};

struct net_dns;

/* "address", "address:port", or NULL for the first IPv4 nameserver of `resolv_conf` (127.0.0.1 when
 * it names none, as resolv.conf(5) says). */
int net_dns_resolver(
    const char *text, const char *resolv_conf, struct sockaddr_in *ret, struct err *e);
/* Binds and starts the thread. The listening address must exist. */
struct net_dns *net_dns_start(const struct net_dns_config *config, struct err *e);
/* Ends the thread and closes everything; NULL is fine. */
void net_dns_stop(struct net_dns *d);

#endif
