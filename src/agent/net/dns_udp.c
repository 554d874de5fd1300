/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS over UDP. Each outstanding question has an entry with a socket of its own, connected to the
 * resolver, so that the kernel picks a random port and takes datagrams of nobody else. The entry
 * ends with the right answer, an error of the socket, too many wrong answers, or its deadline.
 */
#include "agent/net/dns_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "agent/net/net_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/rand.h"

enum { BATCH_MAX = 64 /* datagrams taken before the other sockets get their turn */ };

struct question {
    int fd; /* -1: free */
    struct dns_client *client;
    struct sockaddr_in from;
    int64_t deadline;
    uint16_t id; /* the one we gave it */
    uint16_t client_id;
    uint16_t question_len;
    uint16_t bad_answers;
    unsigned char head[DNS_HEADER_BYTES + DNS_QUESTION_MAX]; /* as the client sent it */
};

struct dns_udp {
    int fd;
    unsigned n_open;
    struct question questions[DNS_UDP_MAX];
};

struct dns_udp *dns_udp_open(struct net_dns *d, struct err *e)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
        .sin_port = htons(NET_DNS_PORT),
        .sin_addr.s_addr = htonl(d->config.listen_ip)};
    struct dns_udp *u = calloc(1, sizeof *u);
    if (!u) {
        (void)err_sys(e, ENOMEM, "dns");
        return NULL;
    }
    for (size_t i = 0; i < DNS_UDP_MAX; i++)
        u->questions[i].fd = -1;
    u->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (u->fd < 0 || bind(u->fd, (struct sockaddr *)&sa, sizeof sa) < 0 ||
        dns_watch(d, EPOLL_CTL_ADD, u->fd, EPOLLIN, DNS_EV_UDP_LISTEN, 0) < 0) {
        (void)err_sys(e, errno, "listen for UDP");
        dns_udp_close(u);
        return NULL;
    }
    return u;
}

void dns_udp_close(struct dns_udp *u)
{
    if (!u)
        return;
    for (size_t i = 0; i < DNS_UDP_MAX; i++)
        cleanup_close_(&u->questions[i].fd);
    cleanup_close_(&u->fd);
    free(u);
}

static void reply(struct net_dns *d, const struct sockaddr_in *to, const void *p, size_t n)
{
    (void)sendto(
        d->udp->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)to, sizeof *to);
}

static void question_end(struct net_dns *d, struct question *q)
{
    (void)close(TAKE_FD(q->fd));
    q->client->udp--;
    d->udp->n_open--;
}

/* Answers with an empty message made from the question itself. */
static void question_fail(struct net_dns *d, struct question *q, bool truncated)
{
    size_t n = truncated ? dns_make_truncated(q->head, q->question_len)
                         : dns_make_error(q->head, q->question_len, DNS_SERVFAIL);
    reply(d, &q->from, q->head, n);
    question_end(d, q);
}

static struct question *question_free_slot(struct dns_udp *u)
{
    for (size_t i = 0; i < DNS_UDP_MAX; i++)
        if (u->questions[i].fd < 0)
            return &u->questions[i];
    return NULL;
}

static int ask_resolver(struct net_dns *d, struct question *q, const unsigned char *p, size_t n)
{
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const struct sockaddr_in *to = &d->config.resolver;
    if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof *to) < 0 ||
        send(fd, p, n, MSG_NOSIGNAL) < 0)
        return -1;
    if (dns_watch(d, EPOLL_CTL_ADD, fd, EPOLLIN, DNS_EV_UDP, (unsigned)(q - d->udp->questions)) < 0)
        return -1;
    q->fd = TAKE_FD(fd);
    return 0;
}

/* A question that passed the checks: into the table and on to the resolver. False: no room. */
static bool question_start(struct net_dns *d, struct dns_client *c, const struct sockaddr_in *from,
    unsigned char *p, size_t n, size_t question_len)
{
    struct question *q = question_free_slot(d->udp);
    if (!q || c->udp >= DNS_UDP_SLOT_MAX)
        return false;
    q->client = c;
    q->from = *from;
    q->deadline = deadline_in_ms(DNS_UDP_TIMEOUT_MS);
    q->client_id = (uint16_t)dns_id(p);
    q->question_len = (uint16_t)question_len;
    q->bad_answers = 0;
    memcpy(q->head, p, DNS_HEADER_BYTES + question_len);
    rand_bytes(&q->id, sizeof q->id);
    dns_set_id(p, q->id);
    if (ask_resolver(d, q, p, n) < 0)
        return false;
    c->udp++;
    d->udp->n_open++;
    return true;
}

static void take_question(
    struct net_dns *d, const struct sockaddr_in *from, unsigned char *p, size_t n)
{
    struct dns_client *c = dns_client_of(d, from);
    size_t question_len;
    unsigned id;
    if (!c || !dns_client_pass(c, clock_mono_ms()) || n < DNS_HEADER_BYTES)
        return;
    if (!dns_query_acceptable(p, n, &question_len)) {
        /* Answers are never answered, or two forwarders could talk for ever. */
        if (!(p[2] & 0x80)) {
            p[4] = p[5] = 0;
            reply(d, from, p, dns_make_error(p, /* question_len= */ 0, DNS_REFUSED));
        }
        return;
    }
    id = dns_id(p);
    if (!question_start(d, c, from, p, n, question_len)) {
        dns_set_id(p, id);
        reply(d, from, p, dns_make_error(p, question_len, DNS_SERVFAIL));
    }
}

void dns_udp_listen_ready(struct net_dns *d)
{
    unsigned char p[DNS_QUERY_MAX + 1];
    for (int i = 0; i < BATCH_MAX; i++) {
        struct sockaddr_in from;
        socklen_t len = sizeof from;
        ssize_t n = recvfrom(d->udp->fd, p, sizeof p, 0, (struct sockaddr *)&from, &len);
        if (n < 0)
            return;
        if (len == sizeof from)
            take_question(d, &from, p, (size_t)n);
    }
}

void dns_udp_answer_ready(struct net_dns *d, unsigned index)
{
    struct question *q = &d->udp->questions[index];
    unsigned char p[DNS_ANSWER_MAX];
    if (q->fd < 0)
        return;
    ssize_t n = recv(q->fd, p, sizeof p, MSG_TRUNC);
    if (n < 0) {
        /* ECONNREFUSED and the like: told by ICMP. */
        if (errno != EAGAIN && errno != EINTR)
            question_fail(d, q, /* truncated= */ false);
        return;
    }
    size_t kept = (size_t)n < sizeof p ? (size_t)n : sizeof p;
    if (!dns_answer_matches(p, kept, q->id, q->head + DNS_HEADER_BYTES, q->question_len)) {
        if (++q->bad_answers >= DNS_BAD_ANSWERS_MAX)
            question_fail(d, q, /* truncated= */ false);
        return;
    }
    if ((size_t)n > sizeof p) {
        question_fail(d, q, /* truncated= */ true);
        return;
    }
    dns_set_id(p, q->client_id);
    reply(d, &q->from, p, (size_t)n);
    question_end(d, q);
}

bool dns_udp_tick(struct net_dns *d, int64_t now)
{
    for (size_t i = 0; i < DNS_UDP_MAX && d->udp->n_open > 0; i++) {
        struct question *q = &d->udp->questions[i];
        if (q->fd >= 0 && now >= q->deadline)
            question_fail(d, q, /* truncated= */ false);
    }
    return d->udp->n_open > 0;
}
