/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DNS forwarder's thread.
 *
 * Theory of operation. Everything here belongs to one thread with one epoll set; start and stop are
 * the only calls from outside, stop through an eventfd. Guests are hostile, the resolver is not
 * trusted either:
 * - only addresses of slots are answered, each within its rate and its share of what is
 * outstanding;
 * - a question goes on only when it is an ordinary one (dns_msg.c), under an id of our own from a
 *   socket of its own, whose random port and connected address a forger has to guess too;
 * - an answer goes back only when it repeats the question; the rest of it is the guest's to read;
 * - all tables, sizes and times are bounded (dns_int.h). What does not fit is answered REFUSED or
 *   not at all: resolvers' clients ask again.
 */
#include "agent/net/dns_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "agent/net/net_int.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "base/slice.h"

enum { RESOLV_CONF_MAX = 64 << 10, EVENTS_MAX = 64, EVENT_INDEX_BITS = 32 };

static int parse_resolver(struct slice text, struct sockaddr_in *ret)
{
    char addr[INET_ADDRSTRLEN];
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(NET_DNS_PORT)};
    const char *colon = memchr(text.p, ':', text.n);
    uint64_t port = NET_DNS_PORT;
    if (colon) {
        size_t host_len = (size_t)(colon - text.p);
        if (!slice_parse_u64(slice_of(colon + 1, text.n - host_len - 1), &port))
            return -1;
        text.n = host_len;
    }
    if (port < 1 || port > UINT16_MAX || !slice_copy_cstr(text, addr, sizeof addr) ||
        inet_pton(AF_INET, addr, &sa.sin_addr) != 1)
        return -1;
    sa.sin_port = htons((uint16_t)port);
    *ret = sa;
    return 0;
}

/* The address on a "nameserver" line, empty for any other line. */
static struct slice nameserver_of(struct slice line)
{
    static const char word[] = "nameserver";
    size_t at = sizeof word - 1;
    size_t end;
    if (line.n <= at || memcmp(line.p, word, at) != 0 || (line.p[at] != ' ' && line.p[at] != '\t'))
        return (struct slice){NULL, 0};
    while (at < line.n && (line.p[at] == ' ' || line.p[at] == '\t'))
        at++;
    for (end = at; end < line.n && line.p[end] > ' ';)
        end++;
    return slice_of(line.p + at, end - at);
}

static void find_nameserver(const struct buf *file, struct sockaddr_in *ret)
{
    for (size_t at = 0; at < file->len;) {
        const char *nl = memchr(file->p + at, '\n', file->len - at);
        size_t n = nl ? (size_t)(nl - file->p) - at : file->len - at;
        struct slice server = nameserver_of(slice_of(file->p + at, n));
        if (server.n > 0 && !memchr(server.p, ':', server.n) && parse_resolver(server, ret) == 0)
            return;
        at += n + 1;
    }
}

int net_dns_resolver(
    const char *text, const char *resolv_conf, struct sockaddr_in *ret, struct err *e)
{
    AUTO_BUF struct buf file = BUF_INIT(RESOLV_CONF_MAX);
    struct sockaddr_in sa;
    (void)parse_resolver(slice_cstr("127.0.0.1"), &sa);
    if (text) {
        if (parse_resolver(slice_cstr(text), &sa) < 0)
            return err_field(e, "resolver", "must be an IPv4 address, or address:port");
    } else if (io_read_file(AT_FDCWD, resolv_conf, &file, e) == 0) {
        find_nameserver(&file, &sa);
    } else if (e->kind != ERR_NOT_FOUND) {
        return -1;
    }
    *ret = sa;
    return 0;
}

int dns_watch(
    struct net_dns *d, int op, int fd, uint32_t events, enum dns_event kind, unsigned index)
{
    struct epoll_event ev = {
        .events = events, .data.u64 = (uint64_t)kind << EVENT_INDEX_BITS | index};
    return epoll_ctl(d->epoll_fd, op, fd, &ev);
}

struct dns_client *dns_client_of(struct net_dns *d, const struct sockaddr_in *from)
{
    uint32_t offset = ntohl(from->sin_addr.s_addr) - d->config.slots_base;
    if (from->sin_family != AF_INET || offset % NET_SLOT_ADDRESSES != 1 ||
        offset / NET_SLOT_ADDRESSES >= d->config.slots)
        return NULL;
    return &d->clients[offset / NET_SLOT_ADDRESSES];
}

/* A virtual clock of the slot: each question moves it on by its cost; it may run ahead of the real
 * one by the burst's worth. */
bool dns_client_pass(struct dns_client *c, int64_t now)
{
    const int64_t cost = 1000 / DNS_RATE_PER_SEC;
    if (c->tokens_ms < now)
        c->tokens_ms = now;
    if (c->tokens_ms - now > (int64_t)DNS_RATE_BURST * cost)
        return false;
    c->tokens_ms += cost;
    return true;
}

static void dispatch(struct net_dns *d, const struct epoll_event *ev)
{
    unsigned index = (unsigned)(ev->data.u64 & UINT32_MAX);
    switch ((enum dns_event)(ev->data.u64 >> EVENT_INDEX_BITS)) {
    case DNS_EV_UDP_LISTEN:
        dns_udp_listen_ready(d);
        break;
    case DNS_EV_UDP:
        dns_udp_answer_ready(d, index);
        break;
    case DNS_EV_TCP_LISTEN:
        dns_tcp_listen_ready(d);
        break;
    case DNS_EV_TCP_CLIENT:
        dns_tcp_ready(d, index, /* resolver_side= */ false, ev->events);
        break;
    case DNS_EV_TCP_RESOLVER:
        dns_tcp_ready(d, index, /* resolver_side= */ true, ev->events);
        break;
    case DNS_EV_STOP:
        break;
    }
}

static bool is_stop(const struct epoll_event *ev)
{
    return ev->data.u64 >> EVENT_INDEX_BITS == DNS_EV_STOP;
}

static void *run(void *arg)
{
    struct net_dns *d = arg;
    struct epoll_event events[EVENTS_MAX];
    int64_t next_tick = 0;
    bool open = false;
    for (;;) {
        int n = epoll_wait(d->epoll_fd, events, EVENTS_MAX, open ? DNS_TICK_MS : -1);
        for (int i = 0; i < n; i++) {
            if (is_stop(&events[i]))
                return NULL;
            dispatch(d, &events[i]);
        }
        int64_t now = clock_mono_ms();
        open = true;
        if (now >= next_tick) {
            bool udp = dns_udp_tick(d, now);
            open = dns_tcp_tick(d, now) || udp;
            next_tick = now + DNS_TICK_MS;
        }
    }
}

static int setup(struct net_dns *d, struct err *e)
{
    d->clients = calloc(d->config.slots, sizeof *d->clients);
    d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    d->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (!d->clients)
        return err_sys(e, ENOMEM, "dns");
    if (d->epoll_fd < 0 || d->stop_fd < 0 ||
        dns_watch(d, EPOLL_CTL_ADD, d->stop_fd, EPOLLIN, DNS_EV_STOP, 0) < 0)
        return err_sys(e, errno, "dns");
    d->udp = dns_udp_open(d, e);
    if (!d->udp)
        return -1;
    d->tcp = dns_tcp_open(d, e);
    if (!d->tcp)
        return -1;
    int rc = pthread_create(&d->thread, NULL, run, d);
    d->started = rc == 0;
    return rc != 0 ? err_sys(e, rc, "dns thread") : 0;
}

struct net_dns *net_dns_start(const struct net_dns_config *config, struct err *e)
{
    struct net_dns *d = calloc(1, sizeof *d);
    if (!d) {
        (void)err_sys(e, ENOMEM, "dns");
        return NULL;
    }
    d->config = *config;
    d->epoll_fd = -1;
    d->stop_fd = -1;
    if (setup(d, e) < 0) {
        (void)err_wrap(e, "dns forwarder");
        net_dns_stop(d);
        return NULL;
    }
    return d;
}

void net_dns_stop(struct net_dns *d)
{
    if (!d)
        return;
    if (d->started) {
        (void)eventfd_write(d->stop_fd, 1);
        (void)pthread_join(d->thread, NULL);
    }
    dns_udp_close(d->udp);
    dns_tcp_close(d->tcp);
    cleanup_close_(&d->stop_fd);
    cleanup_close_(&d->epoll_fd);
    free(d->clients);
    free(d);
}
