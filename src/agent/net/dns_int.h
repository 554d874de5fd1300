/* SPDX-License-Identifier: Apache-2.0 */
/* What the forwarder's files share: its bounds, the reading of messages, the two transports. All of
 * it belongs to the forwarder's thread. */
#ifndef TORPOR_AGENT_NET_DNS_INT_H
#define TORPOR_AGENT_NET_DNS_INT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "agent/net/dns.h"

enum {
    DNS_HEADER_BYTES = 12,
    DNS_NAME_MAX = 255,
    DNS_QUESTION_MAX = DNS_NAME_MAX + 4, /* name, type, class */
    DNS_QUERY_MAX = 1024,  /* a question with EDNS options; ordinary ones have under 100 bytes */
    DNS_ANSWER_MAX = 4096, /* datagram; longer ones are asked again over TCP */

    DNS_UDP_MAX = 512,         /* questions outstanding, each with a socket of its own */
    DNS_UDP_SLOT_MAX = 64,     /* of one slot */
    DNS_UDP_TIMEOUT_MS = 5000, /* a resolver's client has given up by then */
    DNS_BAD_ANSWERS_MAX = 16,  /* forged or late ones, then the question is given up */

    DNS_TCP_MAX = 64,
    DNS_TCP_SLOT_MAX = 8,
    DNS_TCP_IDLE_MS = 10000,
    DNS_TCP_TOTAL_MS = 60000,
    DNS_TCP_BYTES_MAX = 1 << 20, /* answers over one connection */

    DNS_RATE_PER_SEC = 200, /* questions of one slot */
    DNS_RATE_BURST = 400,
    DNS_TICK_MS = 500, /* how often deadlines are looked at while anything is open */
};

/* dns_msg.c: pure. */
/* True when it is one ordinary question that may be passed on: a query (no update, no notify), one
 * question, no answers, no zone transfer. Stores the question's length behind the header. */
bool dns_query_acceptable(const unsigned char *p, size_t n, size_t *ret_question_len);
/* True when it answers that question: an answer, same id, same question (letters' case aside). */
bool dns_answer_matches(const unsigned char *p, size_t n, unsigned id,
    const unsigned char *question, size_t question_len);
unsigned dns_id(const unsigned char *p);
void dns_set_id(unsigned char *p, unsigned id);

enum dns_rcode { DNS_SERVFAIL = 2, DNS_REFUSED = 5 };
/* Turns a query (header and question) into an empty answer. Returns its length. */
size_t dns_make_error(unsigned char *p, size_t question_len, enum dns_rcode rcode);
/* The same, saying "truncated": ask over TCP. */
size_t dns_make_truncated(unsigned char *p, size_t question_len);

/* What one slot uses. */
struct dns_client {
    int64_t tokens_ms; /* when the bucket was last full enough; see dns_client_pass */
    unsigned udp;
    unsigned tcp;
};

struct dns_udp;
struct dns_tcp;

struct net_dns {
    struct net_dns_config config;
    int epoll_fd;
    int stop_fd;
    pthread_t thread;
    bool started;
    struct dns_client *clients; /* one for each slot */
    struct dns_udp *udp;
    struct dns_tcp *tcp;
};

/* What an event is about, in epoll's data. */
enum dns_event {
    DNS_EV_STOP,
    DNS_EV_UDP_LISTEN,
    DNS_EV_UDP,
    DNS_EV_TCP_LISTEN,
    DNS_EV_TCP_CLIENT,
    DNS_EV_TCP_RESOLVER
};
int dns_watch(
    struct net_dns *d, int op, int fd, uint32_t events, enum dns_event kind, unsigned index);

/* The slot that asks from this address, NULL for anyone else. */
struct dns_client *dns_client_of(struct net_dns *d, const struct sockaddr_in *from);
/* Takes a token of the slot's bucket; false: too many questions. */
bool dns_client_pass(struct dns_client *c, int64_t now);

/* The two transports. `tick` gives up what is past its deadline and returns whether anything is
 * open. */
struct dns_udp *dns_udp_open(struct net_dns *d, struct err *e);
void dns_udp_close(struct dns_udp *u);
void dns_udp_listen_ready(struct net_dns *d);
void dns_udp_answer_ready(struct net_dns *d, unsigned index);
bool dns_udp_tick(struct net_dns *d, int64_t now);

struct dns_tcp *dns_tcp_open(struct net_dns *d, struct err *e);
void dns_tcp_close(struct dns_tcp *t);
void dns_tcp_listen_ready(struct net_dns *d);
void dns_tcp_ready(struct net_dns *d, unsigned index, bool resolver_side, uint32_t events);
bool dns_tcp_tick(struct net_dns *d, int64_t now);

#endif
