/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS over TCP. A connection of a guest gets one to the resolver. Towards the resolver only whole,
 * acceptable questions pass, one frame at a time; the first other one ends the connection. Back
 * comes what the resolver says, through one buffer: who does not read is not read from. A
 * connection ends when it idles, at its total time or bytes, or when either side closes and all is
 * delivered.
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

enum { FRAME_HEAD = 2, BACKLOG = 32, DOWN_BYTES = 4096 };

struct connection {
    int client_fd; /* -1: free */
    int resolver_fd;
    struct dns_client *client;
    int64_t idle_deadline;
    int64_t total_deadline;
    size_t bytes_down;
    size_t up_len;  /* read of the frame, its length prefix too */
    size_t up_sent; /* of a whole frame; the frame is whole once up_sent may be > 0 */
    size_t down_len;
    size_t down_sent;
    bool client_ended;   /* no more questions */
    bool resolver_ended; /* no more answers */
    bool connected;
    uint32_t client_watched; /* what epoll is told, 0: not in the set */
    uint32_t resolver_watched;
    unsigned char up[FRAME_HEAD + DNS_QUERY_MAX];
    unsigned char down[DOWN_BYTES];
};

struct dns_tcp {
    int fd;
    unsigned n_open;
    struct connection connections[DNS_TCP_MAX];
};

struct dns_tcp *dns_tcp_open(struct net_dns *d, struct err *e)
{
    const int on = 1;
    struct sockaddr_in sa = {.sin_family = AF_INET,
        .sin_port = htons(NET_DNS_PORT),
        .sin_addr.s_addr = htonl(d->config.listen_ip)};
    struct dns_tcp *t = calloc(1, sizeof *t);
    if (!t) {
        (void)err_sys(e, ENOMEM, "dns");
        return NULL;
    }
    for (size_t i = 0; i < DNS_TCP_MAX; i++)
        t->connections[i].client_fd = t->connections[i].resolver_fd = -1;
    t->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (t->fd < 0 || setsockopt(t->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(t->fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(t->fd, BACKLOG) < 0 ||
        dns_watch(d, EPOLL_CTL_ADD, t->fd, EPOLLIN, DNS_EV_TCP_LISTEN, 0) < 0) {
        (void)err_sys(e, errno, "listen for TCP");
        dns_tcp_close(t);
        return NULL;
    }
    return t;
}

void dns_tcp_close(struct dns_tcp *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < DNS_TCP_MAX; i++) {
        cleanup_close_(&t->connections[i].client_fd);
        cleanup_close_(&t->connections[i].resolver_fd);
    }
    cleanup_close_(&t->fd);
    free(t);
}

static void connection_end(struct net_dns *d, struct connection *c)
{
    (void)close(TAKE_FD(c->client_fd));
    if (c->resolver_fd >= 0)
        (void)close(TAKE_FD(c->resolver_fd));
    c->client->tcp--;
    d->tcp->n_open--;
}

static struct connection *free_connection(struct dns_tcp *t)
{
    for (size_t i = 0; i < DNS_TCP_MAX; i++)
        if (t->connections[i].client_fd < 0)
            return &t->connections[i];
    return NULL;
}

/* How many bytes of `up` the current frame takes; 0 while its length is not known. */
static size_t frame_bytes(const struct connection *c)
{
    if (c->up_len < FRAME_HEAD)
        return 0;
    return FRAME_HEAD + ((size_t)c->up[0] << 8 | c->up[1]);
}

static bool frame_whole(const struct connection *c)
{
    size_t n = frame_bytes(c);
    return n > 0 && c->up_len == n;
}

/* Watches a side for exactly what can go on there. A side with nothing to do is taken out of the
 * set: its hang-up would be reported for ever. */
static int watch_side(struct net_dns *d, int fd, uint32_t wanted, uint32_t *watched,
    enum dns_event kind, unsigned index)
{
    int op = !wanted ? EPOLL_CTL_DEL : *watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (wanted == *watched)
        return 0;
    *watched = wanted;
    return dns_watch(d, op, fd, wanted, kind, index);
}

static int rearm(struct net_dns *d, struct connection *c, unsigned index)
{
    uint32_t client =
        (frame_whole(c) || c->client_ended ? 0 : EPOLLIN) | (c->down_len > 0 ? EPOLLOUT : 0);
    uint32_t resolver = (c->down_len == 0 && !c->resolver_ended && c->connected ? EPOLLIN : 0) |
                        (frame_whole(c) || !c->connected ? EPOLLOUT : 0);
    if (watch_side(d, c->client_fd, client, &c->client_watched, DNS_EV_TCP_CLIENT, index) < 0)
        return -1;
    return watch_side(
        d, c->resolver_fd, resolver, &c->resolver_watched, DNS_EV_TCP_RESOLVER, index);
}

static int connect_resolver(struct net_dns *d, struct connection *c, unsigned index)
{
    const struct sockaddr_in *to = &d->config.resolver;
    c->resolver_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->resolver_fd < 0 ||
        (connect(c->resolver_fd, (const struct sockaddr *)to, sizeof *to) < 0 &&
            errno != EINPROGRESS))
        return -1;
    return rearm(d, c, index);
}

/* Takes over `fd`, whether it works out or not. */
static void connection_start(struct net_dns *d, struct dns_client *client, int fd)
{
    struct connection *c = free_connection(d->tcp);
    if (!c || client->tcp >= DNS_TCP_SLOT_MAX) {
        (void)close(fd);
        return;
    }
    *c = (struct connection){.client_fd = fd,
        .resolver_fd = -1,
        .client = client,
        .idle_deadline = deadline_in_ms(DNS_TCP_IDLE_MS),
        .total_deadline = deadline_in_ms(DNS_TCP_TOTAL_MS)};
    client->tcp++;
    d->tcp->n_open++;
    if (connect_resolver(d, c, (unsigned)(c - d->tcp->connections)) < 0)
        connection_end(d, c);
}

void dns_tcp_listen_ready(struct net_dns *d)
{
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    int fd = accept4(d->tcp->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    struct dns_client *client = len == sizeof from ? dns_client_of(d, &from) : NULL;
    if (client)
        connection_start(d, client, fd);
    else
        (void)close(fd);
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EINTR;
}

/* Reads on in the frame, never into the next one. False: the connection must end. */
static bool read_question(struct connection *c)
{
    size_t want = frame_bytes(c) ? frame_bytes(c) : FRAME_HEAD;
    size_t question_len;
    ssize_t n = read(c->client_fd, c->up + c->up_len, want - c->up_len);
    if (n < 0)
        return would_block();
    if (n == 0) {
        c->client_ended = true;
        return c->up_len == 0;
    }
    c->up_len += (size_t)n;
    if (frame_bytes(c) > sizeof c->up || (frame_bytes(c) && frame_bytes(c) < FRAME_HEAD + 1))
        return false;
    if (!frame_whole(c))
        return true;
    return dns_query_acceptable(c->up + FRAME_HEAD, c->up_len - FRAME_HEAD, &question_len) &&
           dns_client_pass(c->client, clock_mono_ms());
}

static bool write_question(struct connection *c)
{
    ssize_t n = send(c->resolver_fd, c->up + c->up_sent, c->up_len - c->up_sent, MSG_NOSIGNAL);
    if (n < 0)
        return would_block();
    c->up_sent += (size_t)n;
    if (c->up_sent == c->up_len)
        c->up_sent = c->up_len = 0;
    return true;
}

static bool read_answer(struct connection *c)
{
    ssize_t n = read(c->resolver_fd, c->down, sizeof c->down);
    if (n < 0)
        return would_block();
    if (n == 0)
        c->resolver_ended = true;
    c->down_len = (size_t)n;
    c->down_sent = 0;
    c->bytes_down += (size_t)n;
    return c->bytes_down <= DNS_TCP_BYTES_MAX;
}

static bool write_answer(struct connection *c)
{
    ssize_t n =
        send(c->client_fd, c->down + c->down_sent, c->down_len - c->down_sent, MSG_NOSIGNAL);
    if (n < 0)
        return would_block();
    c->down_sent += (size_t)n;
    if (c->down_sent == c->down_len)
        c->down_sent = c->down_len = 0;
    return true;
}

/* One step of whichever transfers the event makes possible. */
static bool move_bytes(struct connection *c, bool resolver_side, uint32_t events)
{
    bool in = events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP);
    bool out = events & EPOLLOUT;
    if (resolver_side && out)
        c->connected = true;
    if (resolver_side && out && frame_whole(c) && !write_question(c))
        return false;
    if (resolver_side && in && c->down_len == 0 && !c->resolver_ended && !read_answer(c))
        return false;
    if (!resolver_side && out && c->down_len > 0 && !write_answer(c))
        return false;
    if (!resolver_side && in && !frame_whole(c) && !c->client_ended && !read_question(c))
        return false;
    if (c->client_ended && c->connected && c->up_len == 0)
        (void)shutdown(c->resolver_fd, SHUT_WR);
    return !(c->resolver_ended && c->down_len == 0);
}

void dns_tcp_ready(struct net_dns *d, unsigned index, bool resolver_side, uint32_t events)
{
    struct connection *c = &d->tcp->connections[index];
    if (c->client_fd < 0)
        return;
    c->idle_deadline = deadline_in_ms(DNS_TCP_IDLE_MS);
    if (!move_bytes(c, resolver_side, events) || rearm(d, c, index) < 0)
        connection_end(d, c);
}

bool dns_tcp_tick(struct net_dns *d, int64_t now)
{
    for (size_t i = 0; i < DNS_TCP_MAX && d->tcp->n_open > 0; i++) {
        struct connection *c = &d->tcp->connections[i];
        if (c->client_fd >= 0 && (now >= c->idle_deadline || now >= c->total_deadline))
            connection_end(d, c);
    }
    return d->tcp->n_open > 0;
}
