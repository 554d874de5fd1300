/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending connections by netlink, sock_diag(7).
 *
 * Theory of operation. A machine that wakes elsewhere, or hours later, has connections whose other
 * ends are long gone. Their programs would wait for minutes until TCP gives up; destroyed, they
 * learn it at once. First all are listed, then each is destroyed by its ids and the kernel's
 * cookie, so that none that was opened meanwhile is met. One round lists at most CONNECTIONS_MAX;
 * rounds follow until one finds nothing, at most ROUNDS_MAX. IPv6 is listed because a socket of
 * that family carries IPv4 too.
 */
#include "envd/tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/cleanup.h"

enum {
    CONNECTIONS_MAX = 128, /* in one round */
    ROUNDS_MAX = 64,
    ANSWER_SEC = 2,      /* the kernel answers at once; a guard only */
    RECEIVE_BYTES = 8192 /* as the kernel fills at most for so small a buffer */
};

struct connection {
    unsigned char family;
    struct inet_diag_sockid id;
};

struct found {
    uint16_t but_port;
    size_t n;
    struct connection all[CONNECTIONS_MAX];
};

struct request {
    struct nlmsghdr head;
    struct inet_diag_req_v2 body;
};

static int open_diag(struct err *e)
{
    const struct timeval patience = {.tv_sec = ANSWER_SEC};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return err_set(e, ERR_UNSUPPORTED, "the kernel has no sock_diag");
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static int send_request(int fd, struct request *r, struct err *e)
{
    r->head.nlmsg_len = sizeof *r;
    r->body.sdiag_protocol = IPPROTO_TCP;
    return send(fd, r, sizeof *r, 0) == (ssize_t)sizeof *r ? 0 : err_sys(e, errno, "sock_diag");
}

static bool is_local(const struct inet_diag_msg *m)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const unsigned char loopback[16] = {[15] = 1};
    const unsigned char *peer = (const unsigned char *)m->id.idiag_dst;
    if (m->idiag_family == AF_INET)
        return peer[0] == 127;
    if (memcmp(peer, mapped, sizeof mapped) == 0)
        return peer[12] == 127;
    return memcmp(peer, loopback, sizeof loopback) == 0;
}

static void note(struct found *f, const struct inet_diag_msg *m)
{
    if (is_local(m) || ntohs(m->id.idiag_sport) == f->but_port || f->n == CONNECTIONS_MAX)
        return;
    f->all[f->n++] = (struct connection){.family = m->idiag_family, .id = m->id};
}

/* Takes the messages of one datagram. 1: there are more to come, 0: the end, -1. */
static int take(const char *p, size_t n, struct found *f, struct err *e)
{
    while (n >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr h;
        size_t step;
        memcpy(&h, p, sizeof h);
        if (h.nlmsg_len < sizeof h || h.nlmsg_len > n)
            return err_set(e, ERR_PROTOCOL, "sock_diag: a malformed answer");
        if (h.nlmsg_type == NLMSG_DONE)
            return 0;
        if (h.nlmsg_type == NLMSG_ERROR) {
            struct nlmsgerr error = {0};
            if (h.nlmsg_len >= sizeof h + sizeof error)
                memcpy(&error, p + sizeof h, sizeof error);
            return error.error == 0 ? 0 : err_sys(e, -error.error, "sock_diag");
        }
        if (f && h.nlmsg_len >= sizeof h + sizeof(struct inet_diag_msg)) {
            struct inet_diag_msg m;
            memcpy(&m, p + sizeof h, sizeof m);
            note(f, &m);
        }
        step = NLMSG_ALIGN(h.nlmsg_len);
        if (step >= n)
            break;
        p += step;
        n -= step;
    }
    return 1;
}

static int receive(int fd, struct found *f, struct err *e)
{
    _Alignas(struct nlmsghdr) char bytes[RECEIVE_BYTES];
    int rc;
    do {
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got < 0 && errno == EINTR) {
            rc = 1;
            continue;
        }
        if (got < 0)
            return err_sys(e, errno, "sock_diag");
        rc = take(bytes, (size_t)got, f, e);
    } while (rc > 0);
    return rc;
}

static int list(int fd, unsigned char family, struct found *f, struct err *e)
{
    struct request r = {
        .head = {.nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .body = {.sdiag_family = family,
            .idiag_states = 1u << TCP_ESTABLISHED | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 |
                            1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK | 1u << TCP_CLOSING},
    };
    return send_request(fd, &r, e) < 0 ? -1 : receive(fd, f, e);
}

/* One that ended by itself meanwhile is fine. */
static int destroy(int fd, const struct connection *c, struct err *e)
{
    struct request r = {
        .head = {.nlmsg_type = SOCK_DESTROY, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .body = {.sdiag_family = c->family, .idiag_states = ~0u, .id = c->id},
    };
    if (send_request(fd, &r, e) < 0)
        return -1;
    return receive(fd, NULL, e) < 0 && e->errnum != ENOENT ? -1 : 0;
}

static int destroy_round(int fd, uint16_t but_port, size_t *ret_n, struct err *e)
{
    struct found f = {.but_port = but_port};
    struct err ignored = {0};
    if (list(fd, AF_INET, &f, e) < 0)
        return -1;
    (void)list(fd, AF_INET6, &f, &ignored); /* a kernel without IPv6 has none */
    for (size_t i = 0; i < f.n; i++)
        if (destroy(fd, &f.all[i], e) < 0)
            return -1;
    *ret_n = f.n;
    return 0;
}

int tcp_destroy_foreign(uint16_t but_port, size_t *ret_n, struct err *e)
{
    AUTO_CLOSE int fd = open_diag(e);
    size_t sum = 0;
    size_t n = 1;
    if (fd < 0)
        return -1;
    for (int i = 0; i < ROUNDS_MAX && n > 0; i++) {
        if (destroy_round(fd, but_port, &n, e) < 0) {
            if (e->errnum == ENOENT || e->errnum == EOPNOTSUPP)
                e->kind = ERR_UNSUPPORTED;
            return err_wrap(e, "end the old connections");
        }
        sum += n;
    }
    if (ret_n)
        *ret_n = sum;
    return 0;
}
